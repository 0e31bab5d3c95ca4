// ---- likelihoods p(x|z), by the names of tinyvae/distributions -------------------------------------------------------
// The decoder gives `numbers` numbers a pixel, side by side: first the first one of every pixel, then the second ones.
// mean, draw and logProb are of one pixel.

const LIKELIHOODS = {};

function likelihood(name, row) {
  LIKELIHOODS[name] = row;
}

const LOG_2PI = Math.log(2 * Math.PI);

// p(x = 1) = sigmoid(l), so log p(x) = x l - log(1 + exp(l))
likelihood("bernoulli", {
  numbers: 1,
  mean: sigmoid,
  draw: (l) => (uniform() < sigmoid(l) ? 1 : 0),
  logProb: (x, l) => x * l - softplus(l),
});

// p(x) = C(l) exp(l x) / (1 + exp(l)) on [0, 1], with C(l) = l / tanh(l / 2) (Loaiza-Ganem & Cunningham 2019).
// E[x] = 1 / (1 - exp(-l)) - 1 / l, whose terms cancel near 0: there it is 1/2 + l / 12 - l^3 / 720.
// The inverse of the distribution function is x(u) = log(1 + u (exp(l) - 1)) / l.
likelihood("continuous-bernoulli", {
  numbers: 1,
  mean: (l) => (Math.abs(l) < 0.1 ? 0.5 + l / 12 - l ** 3 / 720 : -1 / Math.expm1(-l) - 1 / l),
  draw: (l) => {
    const u = uniform();
    if (Math.abs(l) < 1e-6) return u;
    return l > 30 ? 1 + Math.log(u + (1 - u) * Math.exp(-l)) / l : Math.log1p(u * Math.expm1(l)) / l;
  },
  logProb: (x, l) => x * l - softplus(l) + (Math.abs(l) < 1e-6 ? Math.log(2) : Math.log(l / Math.tanh(l / 2))),
});

// log N(x; m, exp(logvar)) = -(log(2 pi) + logvar + (x - m)^2 / exp(logvar)) / 2
function logNormalDensity(x, mean, logvar) {
  return -0.5 * (LOG_2PI + logvar + (x - mean) ** 2 * Math.exp(-logvar));
}

// N(sigmoid(a), exp(logvar))
likelihood("gaussian", {
  numbers: 2,
  mean: (a) => sigmoid(a),
  draw: (a, logvar) => sigmoid(a) + Math.exp(0.5 * logvar) * standardNormal(),
  logProb: (x, a, logvar) => logNormalDensity(x, sigmoid(a), logvar),
});

// N(m, exp(logvar))
likelihood("normal", {
  numbers: 2,
  mean: (m) => m,
  draw: (m, logvar) => m + Math.exp(0.5 * logvar) * standardNormal(),
  logProb: logNormalDensity,
});

// p(x|z) of all pixels, from the numbers that the decoder gives
function likelihoodOf(name, raw) {
  const { numbers, mean, draw, logProb } = LIKELIHOODS[name];
  const n = raw.length / numbers;
  const each = (f) => Float64Array.from({ length: n }, (_, i) => f(raw[i], raw[n + i]));
  return {
    mean: () => each(mean),
    draw: () => each(draw),
    logProb: (x) => sumOf(n, (i) => logProb(x[i], raw[i], raw[n + i])),
  };
}
