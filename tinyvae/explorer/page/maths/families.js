// ---- families of q(z|x) and p(z), by the names of tinyvae/distributions ----------------------------------------------
// `of` gives the parameters from the numbers of a network (the constructor's of the class in Python, in its order).
// The support is the open interval from `low` to `high`.

const FAMILIES = {};

function family(name, row) {
  FAMILIES[name] = { low: -Infinity, high: Infinity, ...row };
}

function halves(raw, n) {
  return [raw.slice(0, n), raw.slice(n, 2 * n)];
}

// A family whose elements are independent: mean, draw and logProb are of one element.
function independent({ mean, draw, logProb, ...rest }) {
  const each = (f) => ([a, b]) => Float64Array.from(a, (_, i) => f(a[i], b[i]));
  return { of: halves, mean: each(mean), draw: each(draw), ...rest,
           logProb: ([a, b], z) => sumOf(a.length, (i) => logProb(z[i], a[i], b[i])) };
}

// N(mu, exp(logvar)); a draw is z = mu + sigma eps (AEVB eq. 4)
family("normal", independent({
  mean: (mu) => mu,
  draw: (mu, logvar) => mu + Math.exp(0.5 * logvar) * standardNormal(),
  logProb: logNormalDensity,
}));

// exp(w) with w ~ N(mu, exp(logvar)): the mean is exp(mu + sigma^2 / 2), and log p(z) = log N(log z) - log z
family("log-normal", independent({
  low: 0,
  mean: (mu, logvar) => Math.exp(mu + 0.5 * Math.exp(logvar)),
  draw: (mu, logvar) => Math.exp(mu + Math.exp(0.5 * logvar) * standardNormal()),
  logProb: (z, mu, logvar) => logNormalDensity(Math.log(z), mu, logvar) - Math.log(z),
}));

// Gamma(shape, rate), where the network gives shape and mean by softplus (as in the experiments of G-REP):
// log p(z) = shape log rate - log Gamma(shape) + (shape - 1) log z - rate z
family("gamma", independent({
  low: 0,
  of: (raw, n) => {
    const [shape, mean] = halves(raw, n).map((part) => part.map(softplus));
    return [shape, shape.map((value, j) => value / mean[j])];
  },
  mean: (shape, rate) => shape / rate,
  draw: (shape, rate) => Math.max(standardGamma(shape) / rate, 1e-30),
  logProb: (z, shape, rate) => shape * Math.log(rate) - logGamma(shape) + (shape - 1) * Math.log(z) - rate * z,
}));

// Beta(a, b), both by softplus; G / (G + H) with G ~ Gamma(a, 1) and H ~ Gamma(b, 1) has this law
family("beta", independent({
  low: 0,
  high: 1,
  of: (raw, n) => halves(raw, n).map((part) => part.map(softplus)),
  mean: (a, b) => a / (a + b),
  draw: (a, b) => {
    const g = standardGamma(a);
    return Math.min(Math.max(g / (g + standardGamma(b)), 1e-12), 1 - 1e-12);
  },
  logProb: (z, a, b) => logGamma(a + b) - logGamma(a) - logGamma(b) + (a - 1) * Math.log(z) + (b - 1) * Math.log1p(-z),
}));

// N(mu, L L^T) with sigma = exp(logvar / 2) on the diagonal of L and `lower` below it, row by row:
// z_j = mu_j + sum_(k<j) L_jk eps_k + sigma_j eps_j (Kingma & Welling 2019, section 2.5.1)
family("full-normal", {
  of: (raw, n) => [...halves(raw, n), raw.slice(2 * n)],
  mean: ([mu]) => mu,
  draw: ([mu, logvar, lower]) => {
    const eps = mu.map(standardNormal);
    return mu.map((m, j) => m + below(lower, eps, j) + Math.exp(0.5 * logvar[j]) * eps[j]);
  },
  // Solved for eps row by row; log p(z) = log N(eps; 0, I) - log det L, and log det L is the sum of logvar / 2.
  logProb: ([mu, logvar, lower], z) => {
    const eps = new Float64Array(mu.length);
    for (let j = 0; j < mu.length; j += 1) {
      eps[j] = (z[j] - mu[j] - below(lower, eps, j)) * Math.exp(-0.5 * logvar[j]);
    }
    return sumOf(mu.length, (j) => -0.5 * (LOG_2PI + logvar[j] + eps[j] ** 2));
  },
});

// sum_(k<j) L_jk eps_k
function below(lower, eps, j) {
  return sumOf(j, (k) => lower[(j * (j - 1)) / 2 + k] * eps[k]);
}

function distribution(name, parameters) {
  const row = FAMILIES[name];
  return { mean: () => row.mean(parameters), draw: () => row.draw(parameters),
           logProb: (z) => row.logProb(parameters, z) };
}

// From the numbers of a network, for z of `n` dimensions
function distributionOf(name, raw, n) {
  return distribution(name, FAMILIES[name].of(raw, n));
}

// The fixed prior p(z): one number of each parameter, the same in every dimension
function fixedPrior({ family: name, numbers }, n) {
  return distribution(name, numbers.map((value) => new Float64Array(n).fill(value)));
}
