// ---- a slider for each latent, ordered by its KL, and its traversal --------------------------------------------------

const SHOWN = 8; // sliders; the others are behind a fold

function slider(j) {
  const row = make("div", "", { class: "slider" });
  const error = RUN.kl_error[j] === null ? "" : ` ± ${number(RUN.kl_error[j])}`;
  const label = make("label", `z${j}: ${number(RUN.kl[j])}${error} nats`, { for: `z${j}` });
  const value = make("output", "", { for: `z${j}` });
  const button = make("button", "Play", { type: "button", "aria-label": `Play z${j} from end to end`, "aria-pressed": "false" });
  const [low, high] = [RUN.low[j], RUN.high[j]];
  const range = make("input", "", { type: "range", id: `z${j}`, min: low, max: high, step: (high - low) / 200 });
  const move = (to) => {
    const z = Float64Array.from(HERE.z);
    z[j] = to;
    moveTo(z);
  };
  range.addEventListener("input", () => { stop(); move(Number(range.value)); });
  button.addEventListener("click", () => play(button, (t) => move(low + t * (high - low)), (HERE.z[j] - low) / (high - low)));
  row.append(label, value, button, range);
  return { row, show: () => { range.value = HERE.z[j]; value.textContent = number(HERE.z[j]); } };
}

let sliders = [];

part({
  start: () => {
    const order = byActivity();
    sliders = order.map(slider);
    sliders.forEach(({ row }, i) => byId(i < SHOWN ? "sliders" : "other-sliders").append(row));
    byId("more").hidden = order.length <= SHOWN;
    byId("more").querySelector("summary").textContent = `The other ${order.length - SHOWN} latents`;
    byId("latents-about").textContent = "Ordered by what q(z|x) says of them beyond the prior: the KL from the prior, in nats, "
      + `its mean and standard error over ${RUN.count.toLocaleString("en")} test data. A latent near 0 nats changes nothing.`;
  },
  show: (what) => { if (what !== "label") sliders.forEach((one) => one.show()); },
});
