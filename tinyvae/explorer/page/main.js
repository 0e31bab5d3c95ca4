// ---- the page begins -------------------------------------------------------------------------------------------------

async function main() {
  try {
    await readRun();
  } catch (fault) {
    byId("failure").hidden = false;
    byId("failure").textContent = "This browser cannot open the page (it needs DecompressionStream, which browsers have had "
      + `since 2023): ${fault.message}`;
    return;
  }
  const { config, condition: given } = RUN;
  const sizes = [RUN.pixels, ...[config.hidden].flat(), config.latent].join("-");
  byId("title").textContent = `${RUN.name}: ${RUN.data}`;
  const shape = `${RUN.shape.join(" x ")} pixels${RUN.channels === 3 ? " in colour" : ""}`;
  byId("summary").textContent = `${config.kind} ${sizes}, ${config.activation}; likelihood ${config.likelihood}, `
    + `posterior ${config.posterior}${given ? `; given ${RUN.words}` : ""}. Images of ${shape}; weights in `
    + `${RUN.weights.join(" and ")}.`;
  document.querySelector("main").hidden = false;
  for (const start of STARTERS) start();
  choose(testDatum(0));
  document.documentElement.dataset.ready = "true";
}

// For the browser's console, and for tests: tinyvae.decode(z), tinyvae.encode(x), ...
globalThis.tinyvae = {
  get run() { return RUN; },
  get here() { return HERE; },
  testDatum, withLabel, choose, moveTo, decode, classes, classesByEvidence, completed, likeTheData, logWeight, logGamma, uniform,
  encode: (d) => posterior(d).mean(),
  posterior, prior, likelihoodAt, LIKELIHOODS, FAMILIES, ACTIVATIONS,
};

main();
