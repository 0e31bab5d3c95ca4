"""The same training step in JAX in a fast form that is usual there: an epoch is one jitted scan over its batches."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import nets
from benchmarks.nets import Net

Weights = dict[str, jax.Array]
Carry = tuple[Weights, Weights, Weights, jax.Array, jax.Array]  # weights, Adam's moments, step number, key
BETA1, BETA2, EPSILON, RATE = 0.9, 0.999, 1e-8, 1e-3


def layer(p: Weights, name: str, x: jax.Array) -> jax.Array:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def loss(p: Weights, x: jax.Array, eps: jax.Array) -> jax.Array:
    """-ELBO in nats per datum: estimator B, one draw of z."""
    mu, logvar = jnp.split(layer(p, "encoder.1", jax.nn.relu(layer(p, "encoder.0", x))), 2, axis=-1)
    z = mu + jnp.exp(0.5 * logvar) * eps
    logits = layer(p, "decoder.1", jax.nn.relu(layer(p, "decoder.0", z)))
    reconstruction = (x * logits - jax.nn.softplus(logits)).sum(-1)
    kl = 0.5 * (mu**2 + jnp.exp(logvar) - 1 - logvar).sum(-1)
    return (kl - reconstruction).mean()


def adam(p: Weights, g: Weights, m: Weights, v: Weights, t: jax.Array) -> tuple[Weights, Weights, Weights]:
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
    rate, correct = RATE / (1 - BETA1**t), 1 / (1 - BETA2**t)
    p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v * correct) + EPSILON), p, m, v)
    return p, m, v


def batch(net: Net, data: jax.Array, index: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gather the batch, draw its pixels if they are dynamic, and draw the normals."""
    for_pixels, for_normals = jax.random.split(key)
    x = data[index]
    if net.dynamic:
        x = jax.random.bernoulli(for_pixels, x).astype(jnp.float32)
    return x, jax.random.normal(for_normals, (net.batch, net.latent))


# These forms were tried on a CPU and are no faster: pixels kept as bytes, Adam over one flat vector, 1 or 4 steps
# unrolled, a jitted call a step instead of the scan, the generators rbg and unsafe_rbg, vectors of 512 bits.
@partial(jax.jit, static_argnames="net", donate_argnames="carry")
def epoch(net: Net, carry: Carry, data: jax.Array, order: jax.Array) -> tuple[Carry, jax.Array]:
    """All batches of `order`, (steps, batch), and the loss of each."""
    def step(carry: Carry, index: jax.Array) -> tuple[Carry, jax.Array]:
        p, m, v, t, key = carry
        key, now = jax.random.split(key)
        value, g = jax.value_and_grad(loss)(p, *batch(net, data, index, now))
        return (*adam(p, g, m, v, t + 1), t + 1, key), value

    return jax.lax.scan(step, carry, order, unroll=2 if jax.default_backend() == "cpu" else 4)


class Scan:
    """The contestant; workers.py explains its methods."""

    def __init__(self, net: Net, device: str = "cpu", tf32: bool = False) -> None:
        jax.config.update("jax_platforms", device)
        if device == "cuda":  # by default JAX multiplies in TF32
            jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "float32")
        self.net, stored = net, nets.data_set(net)
        self.weights = nets.weights(net)
        self.order = jnp.asarray(nets.order(net), jnp.int32)
        self.data = jnp.asarray(stored.train, jnp.float32) / stored.scale
        self.carry = self.start()

    def start(self) -> Carry:
        p, m, v = (jax.tree.map(make, self.weights) for make in (jnp.array, jnp.zeros_like, jnp.zeros_like))
        return p, m, v, jnp.float32(0), jax.random.key(0)

    def about(self) -> dict[str, Any]:
        return {"jax": jax.__version__, "jaxlib": jax.lib.__version__, "devices": str(jax.devices())}

    def first_batch(self) -> tuple[np.ndarray, np.ndarray]:
        x, eps = jax.jit(batch, static_argnums=0)(self.net, self.data, self.order[0], jax.random.key(1))
        return np.asarray(x), np.asarray(eps)

    def loss_and_gradients(self, x: np.ndarray, eps: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        value, g = jax.jit(jax.value_and_grad(loss))(self.weights, x, eps)
        return float(value), {name: np.asarray(array) for name, array in g.items()}

    def losses(self, count: int) -> list[float]:
        self.carry, found = epoch(self.net, self.start(), self.data, self.order)
        return found[:count].tolist()

    def epoch(self) -> None:
        self.carry, found = epoch(self.net, self.carry, self.data, self.order)
        jax.block_until_ready((self.carry, found))
