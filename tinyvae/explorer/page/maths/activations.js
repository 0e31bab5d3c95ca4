// ---- activations of hidden layers, by the names of tinyvae/nn/activations.py ----------------------------------------
// Each call names an activation that the page serves; tinyvae/explorer/served.py reads the names from these lines.

const ACTIVATIONS = {};

function activation(name, value) {
  ACTIVATIONS[name] = value;
}

activation("identity", (a) => a);
activation("tanh", Math.tanh);
activation("relu", (a) => Math.max(a, 0));
activation("softplus", softplus);
