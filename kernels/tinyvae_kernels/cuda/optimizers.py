"""One step of all parameters: the guard over loss and gradient, and the updates, each in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cuda.runtime.arguments import accesses, count, new_like, on_pieces, same_type, whole
from tinyvae_kernels.cuda.runtime.jobs import THREADS, Array, Job, Launcher, Plan, alone, spread

SQUARES = 4096  # numbers whose squares a block sums; CHUNK in optimizers.cu


@Launcher
def guard(loss: Array, g: Array, status: Array, max_norm: float) -> Plan:
    """Into `status`: the norm of g, the factor that clips it, if it and the loss are finite; counts sound steps."""
    dtype, chunks = same_type(loss, g), -(-g.size // SQUARES)
    sums = new_like(status, (chunks,))
    squares = Job("optimizers", "squares", dtype, (chunks,), (THREADS,), (g, sums, whole(g.size), on_pieces(g)))
    return None, [squares,
                  *alone("optimizers", "verdict", dtype, loss, sums, status, whole(chunks), np.float64(max_norm))]


@Launcher
def weight_prior(g: Array, theta: Array, factor: float) -> Plan:
    """g += factor * theta, in place."""
    dtype, aligned = same_type(g, theta), on_pieces(g, theta)
    arguments = (g, theta, dtype.type(factor), count(g.size), aligned)
    return None, spread("optimizers", "add_scaled", dtype, accesses(g, aligned), *arguments)


def _update(kernel: str, vectors: tuple[Array, ...], status: Array, *last: Any) -> Plan:
    dtype, aligned = same_type(*vectors), on_pieces(*vectors[:-1])  # the last are the rates
    arguments = (*vectors, status, count(vectors[0].size), *last, aligned)
    return None, spread("optimizers", kernel, dtype, accesses(vectors[0], aligned), *arguments)


@Launcher
def adam(theta: Array, g: Array, m: Array, v: Array, rates: Array, status: Array, beta1: float, beta2: float,
         epsilon: float) -> Plan:
    """One step of Adam in place, with the learning rate in `rates`, if `status` says that the step is sound."""
    hyper = map(np.float64, (beta1, beta2, epsilon))
    return _update("adam", (theta, g, m, v, rates), status, *hyper)


@Launcher
def adagrad(theta: Array, g: Array, total: Array, rates: Array, status: Array, epsilon: float) -> Plan:
    """One step of Adagrad in place."""
    return _update("adagrad", (theta, g, total, rates), status, np.float64(epsilon))


@Launcher
def sgd(theta: Array, g: Array, velocity: Array, rates: Array, status: Array, momentum: float) -> Plan:
    """One step of gradient descent with momentum, in place."""
    return _update("sgd", (theta, g, velocity, rates), status, np.float64(momentum))
