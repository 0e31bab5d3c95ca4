// ---- completion: draws of the pixels that are hidden, given the others (tinyvae/tasks/chains.py) ---------------------

const SWEEPS = 60;
const GIBBS_SWEEPS = 20;

// A chain holds an image that is filled, x = (x_obs, x_mis). Each sweep
//   1. draws z' ~ q(z|x);
//   2. takes it with the probability min(1, w(z') / w(z)), w(z) = p(x|z) p(z) / q(z|x), and else keeps z; the first sweeps
//      take it always (Metropolis within Gibbs: Mattei & Frellsen 2018, algorithm 2);
//   3. draws x_mis ~ p(x|z).
// The answer has the mean of p(x|z) in the hidden places.
function completed(d, hidden, fill) {
  let x = Float64Array.from(d.x, (value, i) => (hidden[i] ? fill[i] : value));
  let z = null;
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const now = { ...d, x, grey: x };
    const q = posterior(now);
    const proposed = q.draw();
    if (sweep < GIBBS_SWEEPS || Math.log(uniform()) < logWeight(proposed, now, q) - logWeight(z, now, q)) z = proposed;
    const drawn = placed(likelihoodAt(z, now).draw(), now);
    x = Float64Array.from(x, (value, i) => (hidden[i] ? drawn[i] : value));
  }
  const mean = decode(z, { ...d, x, grey: x });
  return Float64Array.from(d.x, (value, i) => (hidden[i] ? mean[i] : value));
}
