// ---- models, by the names of tinyvae/models --------------------------------------------------------------------------
// A datum d has x, the pixels that the model reads; grey, the values before pixels were drawn; and y, the number of the
// label that is given, or null. A model is
//   posterior(d)   q(z|x)
//   prior(d)       p(z)
//   raw(z, d)      the numbers of p(x|z) that its decoder gives
//   classes(d)     p(y|x) of each class and, of an estimate, their standard errors; null where it says nothing of labels
// `chooses` says whether the label is an input, which the reader can choose.

const MODELS = {};

function model(name, row) {
  MODELS[name] = { chooses: () => false, classes: () => null, prior: () => fixedPrior(RUN.prior, RUN.config.latent), ...row };
}

function posteriorOf(raw) {
  return distributionOf(RUN.config.posterior, raw, RUN.config.latent);
}

// AEVB section 3: q(z|x) is the encoder, p(x|z) the decoder
model("vae", {
  posterior: (d) => posteriorOf(forward("encoder", d.x)),
  raw: (z) => forward("decoder", z),
});

// A VAE that learned from data with holes: its encoder reads a mask beside the pixels, here of ones
model("miwae", {
  posterior: (d) => posteriorOf(forward("encoder", joined(d.x, new Float64Array(d.x.length).fill(1)))),
  raw: (z) => forward("decoder", z),
});

// A VAE, and q(y|x) = softmax(W mean[z|x] + b)
model("m1", {
  posterior: (d) => posteriorOf(forward("encoder", d.x)),
  raw: (z) => forward("decoder", z),
  classes: (d) => ({ p: softmax(forward("classifier", MODELS.m1.posterior(d).mean())) }),
});

// p(y) p(z) p(x|y, z) with q(y|x) and q(z|x, y) (Kingma, Rezende, Mohamed & Welling 2014)
model("m2", {
  chooses: () => true,
  posterior: (d) => posteriorOf(forward("q_z", d.x, oneHot(d.y, RUN.config.classes))),
  raw: (z, d) => forward("p_x", z, oneHot(d.y, RUN.config.classes)),
  classes: (d) => ({ p: softmax(forward("q_y", d.x)) }),
});

// M2 that was trained with two ideas more; in the style "apart" its q(z|x) does not read y
model("shot", {
  ...MODELS.m2,
  posterior: (d) => (RUN.config.style === "apart" ? posteriorOf(forward("q_z", d.x)) : MODELS.m2.posterior(d)),
});

// p(z|c), q(z|t, c) and p(t|z, c) (Sohn, Lee & Yan 2015)
model("cvae", {
  chooses: () => RUN.condition.kind === "label",
  posterior: (d) => posteriorOf(forward("encoder", ...RUN.condition.seen(d))),
  prior: (d) => distributionOf(RUN.prior.family, forward("prior", RUN.condition.of(d)), RUN.config.latent),
  raw: (z, d) => forward("decoder", z, RUN.condition.of(d)),
  classes: (d) => (RUN.condition.kind === "label" ? classesByEvidence(d, DRAWS_A_CLASS) : null),
});

const DRAWS_A_CLASS = 20;

// ---- what is asked of any of them ------------------------------------------------------------------------------------

function posterior(d) {
  return MODELS[RUN.config.kind].posterior(d);
}

function prior(d) {
  return MODELS[RUN.config.kind].prior(d);
}

function likelihoodAt(z, d) {
  return likelihoodOf(RUN.config.likelihood, MODELS[RUN.config.kind].raw(z, d));
}

// An image of all pixels: the targets where the model answers, and the datum's own pixels where they are given
function placed(target, d) {
  if (RUN.targets.length === RUN.pixels) return target;
  const image = Float64Array.from(d.x);
  RUN.targets.forEach((pixel, i) => { image[pixel] = target[i]; });
  return image;
}

function targetOf(x) {
  return RUN.targets.length === RUN.pixels ? x : Float64Array.from(RUN.targets, (i) => x[i]);
}

// The mean of p(x|z), as an image
function decode(z, d) {
  return placed(likelihoodAt(z, d).mean(), d);
}

// log w = log p(x|z) + log p(z) - log q(z|x), in nats; the mean of w over draws z ~ q(z|x) is p(x)
function logWeight(z, d, q = posterior(d)) {
  return likelihoodAt(z, d).logProb(targetOf(d.x)) + prior(d).logProb(z) - q.logProb(z);
}

// p(y|x) is proportional to p(x|y) for a uniform p(y), and p(x|y) is estimated by the mean of the weights w. With r_y, the
// relative standard error of that mean, log p(y|x) changes by r_y (1 - p_y) and by -r_k p_k for each other class k.
function classesByEvidence(d, draws) {
  const evidence = [], relative = [];
  for (let y = 0; y < RUN.config.classes; y += 1) {
    const given = { ...d, y };
    const q = posterior(given);
    const weights = Array.from({ length: draws }, () => logWeight(q.draw(), given, q));
    const mean = logMeanExp(weights);
    evidence.push(mean);
    relative.push(Math.sqrt(sumOf(draws, (i) => Math.expm1(weights[i] - mean) ** 2) / (draws - 1) / draws));
  }
  const p = softmax(evidence);
  const error = p.map((value, y) => value * Math.sqrt(sumOf(p.length, (k) => (relative[k] * (k === y ? 1 - value : p[k])) ** 2)));
  return { p, error };
}

function classes(d) {
  return MODELS[RUN.config.kind].classes(d);
}
