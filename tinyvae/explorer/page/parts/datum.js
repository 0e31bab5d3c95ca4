// ---- the image that is looked at: a test datum or an own one, and its reconstruction ---------------------------------

const IN_STRIP = 14;

function startDatum() {
  const field = byId("number");
  field.max = RUN.count - 1;
  field.addEventListener("change", () => {
    const index = Math.min(Math.max(Math.round(Number(field.value)) || 0, 0), RUN.count - 1);
    choose(testDatum(index));
  });
  const after = () => ((HERE.datum.index ?? -1) + 1) % RUN.count;
  byId("next").addEventListener("click", () => choose(testDatum(after())));
  byId("any").addEventListener("click", () => choose(testDatum(Math.floor(uniform() * RUN.count))));
  byId("strip").append(...Array.from({ length: Math.min(IN_STRIP, RUN.count) }, (_, i) => {
    const d = testDatum(i);
    return thumb(d.grey, describe(d), () => choose(testDatum(i)));
  }));
  byId("grey-figure").hidden = RUN.treatment === "gray";
  byId("read-caption").textContent = RUN.treatment === "gray" ? "The image" : "Its bits, which the model reads";
  byId("bits-about").textContent = { gray: "", threshold: "A bit is 1 where the value is above 1/2." }[RUN.treatment]
    ?? "A bit is 1 with the probability of the value.";
  byId("given-caption").textContent = RUN.words ? `What the model is given: ${RUN.words}` : "";
}

function showDatum() {
  const { datum } = HERE;
  const about = describe(datum);
  byId("number").value = datum.index ?? "";
  show(byId("grey"), datum.grey, `The image: ${about}`);
  show(byId("read"), datum.x, `What the model reads: ${about}`);
  const given = RUN.condition ? RUN.condition.picture(datum) : null;
  byId("given-figure").hidden = given === null;
  if (given) show(byId("given"), given, `What the model is given of ${about}`);
  const rebuilt = decode(posterior(datum).mean(), datum);
  show(byId("rebuilt"), rebuilt, `Reconstruction of ${about}`);
  const error = Math.sqrt(sumOf(RUN.pixels, (i) => (rebuilt[i] - datum.x[i]) ** 2) / RUN.pixels);
  byId("datum-about").textContent = `${about[0].toUpperCase()}${about.slice(1)}. The reconstruction differs from what the model `
    + `read by ${number(error, 3)} a pixel (root mean square, 0 to 1, lower is better).`;
  byId("strip").querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", String(i === datum.index)));
}

function showClasses() {
  const { found } = HERE.datum;
  byId("classes").hidden = found === null;
  if (found === null) return;
  byId("classes-about").textContent = RUN.condition
    ? `By Bayes' rule with equal p(y), with standard errors; each p(x|y) is estimated by ${DRAWS_A_CLASS} draws of importance `
      + "sampling."
    : "What the classifier of the model says of the image.";
  byId("classes").querySelector("dl").replaceChildren(...found.p.flatMap((value, y) => {
    const track = make("dd", "", { class: "track", "aria-hidden": "true" }), bar = make("div", "", { class: "bar" });
    bar.style.width = `${100 * value}%`;
    track.append(bar);
    const error = found.error ? ` ± ${number(100 * found.error[y], 1)}` : "";
    return [make("dt", RUN.names[y]), track, make("dd", `${number(100 * value, 1)}${error} %`)];
  }));
}

part({
  start: startDatum,
  show: (what) => {
    if (what === "datum" || what === "label" || what === "colours") showDatum();
    if (what === "datum") showClasses();
  },
});
