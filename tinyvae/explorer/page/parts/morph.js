// ---- from image A to image B -----------------------------------------------------------------------------------------

const ENDS = { a: null, b: null };

// z = (1 - t) z_A + t z_B; a decoder with a label or a condition has that of the nearer end
function between(t) {
  const { a, b } = ENDS;
  const z = a.z.map((value, i) => (1 - t) * value + t * b.z[i]);
  return { z, datum: t < 0.5 ? a.datum : b.datum };
}

function showMorph() {
  const t = Number(byId("way").value) / 100;
  const { z, datum } = between(t);
  show(byId("between"), decode(z, datum), `Decoded at ${number(100 * t, 0)} percent of the way from A to B`);
  byId("between-caption").textContent = `${number(100 * t, 0)} % of the way`;
}

function takeEnd(which, datum) {
  const d = datum.found === undefined ? withLabel(datum) : datum;
  ENDS[which] = { datum: d, z: posterior(d).mean() };
  show(byId(`end-${which}`), d.grey, `Image ${which.toUpperCase()}: ${describe(d)}`);
}

part({
  start: () => {
    const first = testDatum(0);
    takeEnd("a", first);
    let other = Math.min(1, RUN.count - 1);
    while (RUN.labels && other + 1 < RUN.count && RUN.labels[other] === RUN.labels[0]) other += 1;
    takeEnd("b", testDatum(other));
    for (const which of ["a", "b"]) {
      byId(`take-${which}`).addEventListener("click", () => { takeEnd(which, HERE.datum); showMorph(); });
    }
    byId("way").addEventListener("input", () => { stop(); showMorph(); });
    byId("play").addEventListener("click", () => play(byId("play"), (t) => {
      byId("way").value = Math.round(100 * t);
      showMorph();
    }, Number(byId("way").value) / 100));
    showMorph();
  },
});
