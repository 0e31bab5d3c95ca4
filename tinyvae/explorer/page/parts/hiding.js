// ---- completion: what is painted out, and answers --------------------------------------------------------------------

const ANSWERS = 6;
let hidden = null; // of each value, whether it is painted out; a pixel has all its channels hidden, or none

const PARTS = {
  "Left half": (r, c, rows, columns) => c < Math.floor(columns / 2),
  "Upper half": (r, c, rows) => r < Math.floor(rows / 2),
  "Lower right quarter": (r, c, rows, columns) => r >= Math.floor(rows / 2) && c >= Math.floor(columns / 2),
  Nothing: () => false,
};

function isHidden(r, c) {
  return hidden[(r * RUN.shape[1] + c) * RUN.channels] === 1;
}

function hide(r, c, away) {
  const first = (r * RUN.shape[1] + c) * RUN.channels;
  hidden.fill(away ? 1 : 0, first, first + RUN.channels);
}

function showHidden(cursor = null) {
  const canvas = byId("hiding"), [rows, columns] = RUN.shape;
  show(canvas, HERE.datum.x, "", hidden);
  const count = hidden.reduce((sum, v) => sum + v, 0) / RUN.channels;
  const [r, c] = cursor ?? [0, 0];
  const here = `Row ${r + 1}, column ${c + 1} is ${isHidden(r, c) ? "hidden" : "shown"}.`;
  byId("hidden-about").textContent = `${count} of ${RUN.places} pixels are hidden.${cursor ? ` ${here}` : ""}`;
  byId("complete").disabled = count === 0;
  if (!cursor) return;
  const context = canvas.getContext("2d"), size = canvas.width / columns;
  context.strokeStyle = colour("--accent");
  context.lineWidth = 2;
  context.strokeRect(cursor[1] * size, cursor[0] * size, size, size);
}

async function showAnswers() {
  const wanted = HERE.datum, button = byId("complete");
  button.disabled = true;
  byId("answers").replaceChildren();
  const found = [];
  for (let i = 0; i < ANSWERS && HERE.datum === wanted; i += 1) {
    byId("answers-about").textContent = `Computing answer ${i + 1} of ${ANSWERS} ...`;
    await new Promise((done) => setTimeout(done)); // so that the page stays alive
    found.push(completed(wanted, hidden, RUN.fill));
    addAnswer(found[i], `Answer ${i + 1}`);
  }
  if (HERE.datum !== wanted) return;
  const mean = wanted.x.map((_, i) => found.reduce((sum, one) => sum + one[i], 0) / ANSWERS);
  addAnswer(mean, "Their mean");
  const spread = Math.sqrt(sumOf(RUN.pixels, (i) => found.reduce((sum, one) => sum + (one[i] - mean[i]) ** 2, 0) / (ANSWERS - 1))
    / Math.max(1, hidden.reduce((sum, v) => sum + v, 0)));
  const given = wanted.y === null ? "" : ` The label ${RUN.names[wanted.y]} is given.`;
  byId("answers-about").textContent = `${ANSWERS} answers, each the mean of p(x|z) at the end of a chain of its own `
    + `(${GIBBS_SWEEPS} sweeps of Gibbs, ${SWEEPS - GIBBS_SWEEPS} of Metropolis within Gibbs), and their mean. A hidden pixel `
    + `differs between answers by ${number(spread)} (standard deviation, 0 to 1).${given}`;
  button.disabled = false;
}

function addAnswer(values, about) {
  const figure = make("figure"), canvas = make("canvas", "", { class: "image", role: "img" });
  show(canvas, values, about);
  figure.append(canvas, make("figcaption", about));
  byId("answers").append(figure);
}

function startHiding() {
  const [rows, columns] = RUN.shape, canvas = byId("hiding");
  const half = Math.floor(Math.max(rows, columns) / 20); // the brush is 1 pixel wide for 8 x 8, 3 for 28 x 28
  let shows = false; // a stroke that begins on a hidden pixel shows, any other hides
  const cell = (u, v) => [Math.min(Math.floor(v * rows), rows - 1), Math.min(Math.floor(u * columns), columns - 1)];
  const paint = (u, v, from) => {
    const [r, c] = cell(Math.min(Math.max(u, 0), 1), Math.min(Math.max(v, 0), 1));
    if (from === null) shows = isHidden(r, c);
    for (let i = Math.max(0, r - half); i <= Math.min(rows - 1, r + half); i += 1) {
      for (let j = Math.max(0, c - half); j <= Math.min(columns - 1, c + half); j += 1) hide(i, j, !shows);
    }
    showHidden();
  };
  brush(canvas, () => [1 / columns, 1 / rows], paint, (u, v) => showHidden(u === null ? null : cell(u, v)), () => {});
  Object.entries(PARTS).forEach(([name, inside]) => {
    const button = make("button", name, { type: "button" });
    button.addEventListener("click", () => {
      for (let r = 0; r < rows; r += 1) for (let c = 0; c < columns; c += 1) hide(r, c, inside(r, c, rows, columns));
      showHidden();
    });
    byId("parts").append(button);
  });
  byId("complete").addEventListener("click", showAnswers);
}

part({
  start: () => {
    // What a part or a coarse form of an image leaves open is answered by the samples; a label leaves all open.
    byId("completion").hidden = Boolean(RUN.condition && RUN.condition.kind !== "label");
    hidden = new Uint8Array(RUN.pixels);
    startHiding();
  },
  show: (what) => {
    if (what !== "datum" && what !== "colours") return;
    byId("answers").replaceChildren();
    byId("answers-about").textContent = "";
    showHidden();
  },
});
