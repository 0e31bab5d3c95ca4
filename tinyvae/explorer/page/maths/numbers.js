// ---- functions of numbers, and draws -------------------------------------------------------------------------------

// sigmoid(a) = 1 / (1 + exp(-a))
function sigmoid(a) {
  return 1 / (1 + Math.exp(-a));
}

// softplus(a) = log(1 + exp(a)), written so that exp does not overflow
function softplus(a) {
  return Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a)));
}

// log Gamma(x) for x > 0. Gamma(x + 1) = x Gamma(x) raises x above 10, where Stirling's series is exact:
// log Gamma(x) = (x - 1/2) log x - x + log(2 pi) / 2 + 1/(12 x) - 1/(360 x^3) + 1/(1260 x^5) - ...
function logGamma(x) {
  let below = 0;
  for (; x < 10; x += 1) below += Math.log(x);
  const y = 1 / (x * x);
  const series = (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y / 1188)))) / x;
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series - below;
}

// log of the mean of exp(a) over the numbers `a`
function logMeanExp(a) {
  const most = Math.max(...a);
  return most + Math.log(a.reduce((sum, v) => sum + Math.exp(v - most), 0) / a.length);
}

// exp(a) divided by its sum
function softmax(a) {
  const most = Math.max(...a);
  const e = Array.from(a, (v) => Math.exp(v - most));
  const total = e.reduce((sum, v) => sum + v, 0);
  return e.map((v) => v / total);
}

function sumOf(n, f) {
  let total = 0;
  for (let i = 0; i < n; i += 1) total += f(i);
  return total;
}

// A uniform number inside (0, 1) from a counter (the generator mulberry32), so that a page opens in the same way each time
let counter = 1;
function uniform() {
  counter = (counter + 0x6d2b79f5) | 0;
  let t = Math.imul(counter ^ (counter >>> 15), counter | 1);
  t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
  return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
}

// N(0, 1), by Box and Muller: sqrt(-2 log u) cos(2 pi v)
function standardNormal() {
  return Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

// Gamma(shape, 1), by Marsaglia and Tsang (2000): z = d (1 + c eps)^3 with d = shape - 1/3, c = 1 / sqrt(9 d) is taken if
// log u < eps^2 / 2 + d - z + d log(z / d). A shape below 1 is raised by 1, and the draw multiplied by u^(1 / shape).
function standardGamma(shape) {
  if (shape < 1) return Math.max(standardGamma(shape + 1) * uniform() ** (1 / shape), 1e-30);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const eps = standardNormal();
    const root = 1 + c * eps;
    if (root <= 0) continue;
    const z = d * root ** 3;
    if (Math.log(uniform()) < 0.5 * eps * eps + d - z + d * Math.log(z / d)) return z;
  }
}
