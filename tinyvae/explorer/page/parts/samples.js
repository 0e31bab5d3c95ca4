// ---- samples of the prior --------------------------------------------------------------------------------------------

const SAMPLES = 24;
let draws = []; // places z, kept while the label changes

function drawSamples() {
  const p = prior(HERE.datum);
  draws = Array.from({ length: SAMPLES }, () => p.draw());
}

function showSamples() {
  const given = RUN.condition ? RUN.words : RUN.model.chooses() ? "a label" : "";
  const of = RUN.model.chooses() ? "the one that is chosen" : "that of the image";
  const letter = RUN.condition ? "c" : "y";
  byId("samples-about").textContent = `Means of p(x|z${given ? `, ${letter}` : ""}) for draws z of the prior `
    + `p(z${RUN.condition ? "|c" : ""})${given ? `, where ${letter} is ${given}: ${of}` : ""}. Press one to go to its place z.`;
  const go = (z) => { stop(); moveTo(z); };
  byId("drawn").replaceChildren(...draws.map((z, i) => thumb(decode(z, HERE.datum), `Sample ${i + 1}`, () => go(z))));
}

part({
  start: () => {
    if (RUN.condition && RUN.condition.kind !== "label") byId("samples-title").textContent = "Answers to what is given";
    byId("again").addEventListener("click", () => { drawSamples(); showSamples(); });
  },
  show: (what) => {
    if (RUN.condition && (what === "datum" || what === "label")) draws = [];
    if (!draws.length) drawSamples();
    else if (what === "z" || what === "plane" || what === "colours" || (what === "datum" && !RUN.model.chooses())) return;
    showSamples();
  },
});
