// ---- networks --------------------------------------------------------------------------------------------------------

// The numbers that the last layer of a network gives. A layer is activation(sum_i x_i W_i + b), with a weight matrix
// W_i (in, out) for each input x_i; the last layer has no activation (tinyvae/nn/layers.py).
function forward(name, ...inputs) {
  const layers = RUN.networks[name];
  const f = ACTIVATIONS[RUN.config.activation];
  let values = inputs;
  layers.forEach(({ weights, bias }, number) => {
    const sum = Float64Array.from(bias);
    weights.forEach((weight, i) => addProduct(sum, values[i], weight));
    values = [number + 1 < layers.length ? sum.map(f) : sum];
  });
  return values[0];
}

// sum += x W; inputs that are 0, as most pixels are, cost nothing
function addProduct(sum, x, weight) {
  const width = sum.length;
  for (let i = 0; i < x.length; i += 1) {
    const xi = x[i];
    if (xi === 0) continue;
    const row = i * width;
    for (let j = 0; j < width; j += 1) sum[j] += xi * weight[row + j];
  }
}

function oneHot(index, count) {
  const found = new Float64Array(count);
  if (index !== null && index >= 0) found[index] = 1;
  return found;
}

function joined(...parts) {
  const found = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
  let end = 0;
  for (const part of parts) {
    found.set(part, end);
    end += part.length;
  }
  return found;
}
