"""One step of all parameters: the guard over loss and gradient, and the updates, each in one pass.

The arrays `status` (float64) and `rates` are those of tinyvae.nn.optimizers; a kernel reads from them what changes
from step to step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import SUM, at_float64, at_int64, kernel, share, vector
from tinyvae_kernels.cpu.runtime.shares import Place, own, table
from tinyvae_kernels.cpu.runtime.team import MOST, PIECES, Array, Job, Launcher, Plan, flat

FINITE, CLIP, NORM, UPDATES = range(4)  # the places of `status`
SLICES = MOST * PIECES  # sums of squares of a matrix: fixed, so that the norm does not depend on the threads


@kernel(SUM)
def _squares(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    # one sum a slice of a place, in float64
    g, sums = p[0], at_float64(n[0])
    first, last = share(SLICES, part, parts)
    for place in range(n[2]):
        for c in range(first, last):
            start, stop = own(at_int64(n[1]), place, c, SLICES)
            total = 0.0
            for i in range(start, stop):
                total += np.float64(g[i]) * np.float64(g[i])
            sums[place * SLICES + c] = total


@kernel()
def _verdict(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    loss, status, sums = p[0][0], at_float64(n[1]), at_float64(n[0])
    total = 0.0
    for c in range(n[2]):
        total += sums[c]
    norm, most = math.sqrt(total), s[0]
    sound = math.isfinite(norm) and math.isfinite(loss)
    status[NORM] = norm
    status[FINITE] = 1.0 if sound else 0.0
    status[CLIP] = 1.0 if norm <= most else most / norm
    if sound:
        status[UPDATES] += 1.0


@kernel()
def _add_scaled(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    g, theta, factor = p[0], p[1], vector(p[0], 1).dtype.type(s[0])
    first, last = share(n[0], part, parts)
    for i in range(first, last):
        g[i] += factor * theta[i]


@kernel()
def _adam(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    status = at_float64(n[2])
    if status[FINITE] != 1.0:
        return
    theta, g, m, v, t = p[0], p[1], p[2], p[3], vector(p[0], 1).dtype.type
    # the moments start at 0; dividing by 1 - beta^t undoes the bias (Kingma & Ba 2015, algorithm 1). 1 - beta is formed
    # in float64: in float32 1 - 0.999 has only five digits
    clip, rate = t(status[CLIP]), t(np.float64(p[4][0]) / (1.0 - s[0] ** status[UPDATES]))
    correct = t(1.0 / (1.0 - s[1] ** status[UPDATES]))
    beta1, rest1, beta2, rest2, epsilon = t(s[0]), t(1.0 - s[0]), t(s[1]), t(1.0 - s[1]), t(s[2])
    # a weight whose pixel is never on has moments that fade into denormal numbers, ten times slower: they become 0
    zero, tiny = t(0), t(1e-30)
    for place in range(n[1]):
        first, last = own(at_int64(n[0]), place, part, parts)
        for i in range(first, last):
            d = clip * g[i]
            mean = beta1 * m[i] + rest1 * d
            square = beta2 * v[i] + rest2 * d * d
            mean = zero if abs(mean) < tiny else mean
            square = zero if square < tiny else square
            m[i], v[i] = mean, square
            theta[i] -= rate * mean / (np.sqrt(square * correct) + epsilon)


@kernel()
def _adagrad(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    status = at_float64(n[2])
    if status[FINITE] != 1.0:
        return
    theta, g, total, t = p[0], p[1], p[2], vector(p[0], 1).dtype.type
    clip, rate, epsilon, zero = t(status[CLIP]), p[3][0], t(s[0]), t(0)
    for place in range(n[1]):
        first, last = own(at_int64(n[0]), place, part, parts)
        for i in range(first, last):
            d = clip * g[i]
            total[i] += d * d
            root = np.sqrt(total[i]) + epsilon
            theta[i] -= zero if d == zero else rate * d / root


@kernel()
def _sgd(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    status = at_float64(n[2])
    if status[FINITE] != 1.0:
        return
    theta, g, velocity, t = p[0], p[1], p[2], vector(p[0], 1).dtype.type
    clip, rate, momentum = t(status[CLIP]), p[3][0], t(s[0])
    for place in range(n[1]):
        first, last = own(at_int64(n[0]), place, part, parts)
        for i in range(first, last):
            velocity[i] = momentum * velocity[i] + clip * g[i]
            theta[i] -= rate * velocity[i]


@Launcher
def guard(loss: Array, g: Array, status: Array, max_norm: float, places: Sequence[Place] = ()) -> Plan:
    """Into `status`: the norm of g, the factor that clips it, if it and the loss are finite; counts sound steps.

    `places`, here and below: the matrices that the flat vectors are made of, by which threads share them.
    """
    where = table(g.size, places)
    sums = np.zeros(SLICES * len(where))
    return None, [Job(_squares, (flat(g),), (sums, where, len(where)), work=g.size),
                  Job(_verdict, (flat(loss),), (sums, flat(status), sums.size), (max_norm,), dtype=g.dtype)]


@Launcher
def weight_prior(g: Array, theta: Array, factor: float) -> Plan:
    """g += factor * theta, in place."""
    return None, [Job(_add_scaled, (flat(g), flat(theta)), (g.size,), (factor,), work=g.size)]


def _update(kernel: Any, arrays: tuple[Array, ...], status: Array, places: Sequence[Place], *hyper: float) -> Plan:
    arrays = tuple(map(flat, arrays))
    where = table(arrays[0].size, places)
    return None, [Job(kernel, arrays, (where, len(where), flat(status)), hyper, work=arrays[0].size)]


@Launcher
def adam(theta: Array, g: Array, m: Array, v: Array, rates: Array, status: Array, beta1: float, beta2: float,
         epsilon: float, places: Sequence[Place] = ()) -> Plan:
    """One step of Adam in place, with the learning rate rates[0], if `status` says that the step is sound."""
    return _update(_adam, (theta, g, m, v, rates), status, places, beta1, beta2, epsilon)


@Launcher
def adagrad(theta: Array, g: Array, total: Array, rates: Array, status: Array, epsilon: float,
            places: Sequence[Place] = ()) -> Plan:
    """One step of Adagrad in place."""
    return _update(_adagrad, (theta, g, total, rates), status, places, epsilon)


@Launcher
def sgd(theta: Array, g: Array, velocity: Array, rates: Array, status: Array, momentum: float,
        places: Sequence[Place] = ()) -> Plan:
    """One step of gradient descent with momentum, in place."""
    return _update(_sgd, (theta, g, velocity, rates), status, places, momentum)
