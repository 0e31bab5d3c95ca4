"""One step of all parameters: the guard over loss and gradient, and the updates, each in one pass.

The arrays `status` and `rates` hold what changes from step to step (state.py). A job cuts each weight matrix of a flat
vector between the same rows as the other jobs of a step do (runtime/shares.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.helpers import SUM
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan
from tinyvae_kernels.cpu.runtime.memory import Matrix, Pointer, Vector, vector
from tinyvae_kernels.cpu.runtime.shares import matrices_of, own, share
from tinyvae_kernels.cpu.runtime.team import MOST, PIECES
from tinyvae_kernels.state import CLIP, FINITE, LEARNING_RATE, NORM, UPDATES

SLICES = MOST * PIECES  # sums of squares of a matrix: fixed, so that the norm does not depend on the threads


@kernel(SUM)
def _squares(g: Pointer, sums: Matrix[np.float64], matrices: Matrix[np.int64], part: int, parts: int) -> None:
    # one sum in float64 for each slice of each matrix, (matrices, SLICES)
    first, last = share(SLICES, part, parts)
    for k in range(len(matrices)):
        for c in range(first, last):
            start, stop = own(matrices, k, c, SLICES)
            total = 0.0
            for i in range(start, stop):
                total += np.float64(g[i]) * np.float64(g[i])
            sums[k, c] = total


@kernel()
def _verdict(loss: Pointer, sums: Vector[np.float64], status: Pointer[np.float64], most: float) -> None:
    total = 0.0
    for c in range(sums.size):
        total += sums[c]
    norm = math.sqrt(total)
    sound = math.isfinite(norm) and math.isfinite(loss[0])
    status[NORM] = norm
    status[FINITE] = 1.0 if sound else 0.0
    status[CLIP] = 1.0 if norm <= most else most / norm
    if sound:
        status[UPDATES] += 1.0


@kernel()
def _add_scaled(g: Pointer, theta: Pointer, count: int, factor: float, part: int, parts: int) -> None:
    scale = vector(g, 1).dtype.type(factor)
    first, last = share(count, part, parts)
    for i in range(first, last):
        g[i] += scale * theta[i]


@kernel()
def _adam(theta: Pointer, g: Pointer, m: Pointer, v: Pointer, rates: Vector, status: Pointer[np.float64],
          matrices: Matrix[np.int64], beta1: float, beta2: float, epsilon: float, part: int, parts: int) -> None:
    if status[FINITE] != 1.0:
        return
    # The moments start at 0; dividing by 1 - beta^t undoes the bias (Kingma & Ba 2015, algorithm 1). 1 - beta is formed
    # in float64, because in float32 1 - 0.999 has only five digits.
    t = rates.dtype.type
    clip, rate = t(status[CLIP]), t(np.float64(rates[LEARNING_RATE]) / (1.0 - beta1 ** status[UPDATES]))
    correct = t(1.0 / (1.0 - beta2 ** status[UPDATES]))
    keep1, rest1, keep2, rest2, least = t(beta1), t(1.0 - beta1), t(beta2), t(1.0 - beta2), t(epsilon)
    # a weight whose pixel is never on has moments that fade into denormal numbers, ten times slower: they become 0
    zero, tiny = t(0), t(1e-30)
    for k in range(len(matrices)):
        first, last = own(matrices, k, part, parts)
        for i in range(first, last):
            d = clip * g[i]
            mean = keep1 * m[i] + rest1 * d
            square = keep2 * v[i] + rest2 * d * d
            mean = zero if abs(mean) < tiny else mean
            square = zero if abs(square) < tiny else square
            m[i], v[i] = mean, square
            theta[i] -= rate * mean / (np.sqrt(square * correct) + least)


@kernel()
def _adagrad(theta: Pointer, g: Pointer, total: Pointer, rates: Vector, status: Pointer[np.float64],
             matrices: Matrix[np.int64], epsilon: float, part: int, parts: int) -> None:
    if status[FINITE] != 1.0:
        return
    t = rates.dtype.type
    clip, rate, least, zero = t(status[CLIP]), rates[LEARNING_RATE], t(epsilon), t(0)
    for k in range(len(matrices)):
        first, last = own(matrices, k, part, parts)
        for i in range(first, last):
            d = clip * g[i]
            total[i] += d * d
            root = np.sqrt(total[i]) + least
            theta[i] -= zero if d == zero else rate * d / root


@kernel()
def _sgd(theta: Pointer, g: Pointer, velocity: Pointer, rates: Vector, status: Pointer[np.float64],
         matrices: Matrix[np.int64], momentum: float, part: int, parts: int) -> None:
    if status[FINITE] != 1.0:
        return
    t = rates.dtype.type
    clip, rate, kept = t(status[CLIP]), rates[LEARNING_RATE], t(momentum)
    for k in range(len(matrices)):
        first, last = own(matrices, k, part, parts)
        for i in range(first, last):
            velocity[i] = kept * velocity[i] + clip * g[i]
            theta[i] -= rate * velocity[i]


@Launcher
def guard(loss: Array, g: Array, status: Array, max_norm: float) -> Plan:
    """Into `status`: the norm of g, the factor that clips it, if it and the loss are finite; counts sound steps."""
    if loss.dtype != g.dtype:
        raise TypeError(f"guard found a loss of type {loss.dtype} and a gradient of type {g.dtype}; expected one type")
    matrices = matrices_of(g)
    sums = np.zeros((len(matrices), SLICES))
    return None, [Job(_squares, g, sums, matrices, work=g.size), Job(_verdict, loss, sums, status, max_norm)]


@Launcher
def weight_prior(g: Array, theta: Array, factor: float) -> Plan:
    """g += factor * theta, in place."""
    return None, [Job(_add_scaled, g, theta, g.size, factor, work=g.size)]


def _update(kernel: Any, theta: Array, g: Array, *rest: Any) -> Plan:
    moments, rates, status, hyper = rest
    job = Job(kernel, theta, g, *moments, rates, status, matrices_of(theta, g), *hyper, work=theta.size)
    return None, [job]


@Launcher
def adam(theta: Array, g: Array, m: Array, v: Array, rates: Array, status: Array, beta1: float, beta2: float,
         epsilon: float) -> Plan:
    """One step of Adam in place, with the learning rate in `rates`, if `status` says that the step is sound."""
    return _update(_adam, theta, g, (m, v), rates, status, (beta1, beta2, epsilon))


@Launcher
def adagrad(theta: Array, g: Array, total: Array, rates: Array, status: Array, epsilon: float) -> Plan:
    """One step of Adagrad in place."""
    return _update(_adagrad, theta, g, (total,), rates, status, (epsilon,))


@Launcher
def sgd(theta: Array, g: Array, velocity: Array, rates: Array, status: Array, momentum: float) -> Plan:
    """One step of gradient descent with momentum, in place."""
    return _update(_sgd, theta, g, (velocity,), rates, status, (momentum,))
