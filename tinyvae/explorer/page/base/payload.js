// ---- the run inside the page -----------------------------------------------------------------------------------------
// Two blocks of text: facts as JSON, and all arrays as one base64 text of bytes that zlib compressed.

let RUN = null;

async function readRun() {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const text = atob(document.getElementById("arrays").textContent.trim());
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  const arrays = Object.fromEntries(Object.entries(facts.arrays).map(
    ([name, { type, at, count }]) => [name, READERS[type](bytes, at, count)]));
  RUN = { ...facts, ...arrays, networks: networksOf(facts.parameters, arrays),
          shape: facts.shape.slice(0, 2), channels: facts.shape[2] ?? 1 };
  RUN.places = RUN.shape[0] * RUN.shape[1]; // of an image; each has one value, or red, green and blue side by side
  RUN.pixels = RUN.places * RUN.channels;
  if (facts.given) {
    const [kind, number] = facts.given.split(":");
    RUN.condition = { kind, ...CONDITIONS[kind](Number(number), RUN.shape, RUN.channels) };
  }
  RUN.targets = RUN.condition ? RUN.condition.targets : Array.from({ length: RUN.pixels }, (_, i) => i);
  RUN.model = MODELS[RUN.config.kind];
}

// The layers of each network from the names of its parameters: encoder.0.weight, encoder.0.weight.1, encoder.0.bias
function networksOf(names, arrays) {
  const networks = {};
  for (const name of names) {
    const [network, layer, what] = name.split(".");
    const layers = (networks[network] ??= []);
    const row = (layers[layer] ??= { weights: [], bias: null });
    if (what === "bias") row.bias = arrays[name];
    else row.weights.push(arrays[name]);
  }
  return networks;
}

const READERS = {
  float16: (bytes, at, count) => Float32Array.from(new Uint16Array(bytes, at, count), float16),
  float32: (bytes, at, count) => new Float32Array(bytes, at, count),
  uint8: (bytes, at, count) => new Uint8Array(bytes, at, count),
  int16: (bytes, at, count) => new Int16Array(bytes, at, count),
  bits: (bytes, at, count) => { // eight to a byte, the highest bit first
    const packed = new Uint8Array(bytes, at, Math.ceil(count / 8));
    return Uint8Array.from({ length: count }, (_, i) => (packed[i >> 3] >> (7 - (i & 7))) & 1);
  },
};

// A float16 has a sign, five bits of exponent e and ten of fraction f: 2^(e - 15) (1 + f / 1024), and f 2^-24 for e = 0
function float16(bits) {
  const sign = bits & 0x8000 ? -1 : 1, e = (bits >> 10) & 31, f = bits & 1023;
  return sign * (e ? 2 ** (e - 15) * (1 + f / 1024) : f * 2 ** -24);
}

// The test datum of a number: what the model read, and the grey values of which its bits were drawn
function testDatum(index) {
  const part = (values, scale) =>
    Float64Array.from(values.subarray(index * RUN.pixels, (index + 1) * RUN.pixels), (v) => v / scale);
  const x = part(RUN.seen, RUN.scales.seen);
  const label = RUN.labels && RUN.labels[index] >= 0 ? RUN.labels[index] : null;
  return { index, label, x, grey: RUN.grey ? part(RUN.grey, RUN.scales.grey) : x, y: null };
}

// A datum with what is said of its label, and the label that its model is given: the most probable one, or of a
// conditional model its own
function withLabel(d) {
  const found = classes(d);
  if (!RUN.model.chooses()) return { ...d, found };
  return { ...d, found, y: RUN.condition && d.label !== null ? d.label : found.p.indexOf(Math.max(...found.p)) };
}
