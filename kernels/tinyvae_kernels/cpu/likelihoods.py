"""log p(x|z) of rows of pixels, and in the same pass its derivative by the decoder's output."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.elementary import exp, log1p
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan, scratch
from tinyvae_kernels.cpu.runtime.memory import Matrix, Vector, total
from tinyvae_kernels.cpu.runtime.shares import share


@kernel()
def _bernoulli(logits: Matrix, x: Matrix, sums: Vector, residual: Matrix, memory: Matrix, part: int,
               parts: int) -> None:
    # x l - log(1 + exp(l)) = (x - [l > 0]) l - log(1 + exp(-|l|)); the product is 0 where its first factor is, also at
    # an infinite l. The derivative by l is x - sigmoid(l). Row i of the logits belongs to datum i modulo count.
    (rows, width), count, terms = logits.shape, len(x), memory[part]
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    first, last = share(rows, part, parts)
    for i in range(first, last):
        k = i % count
        for j in range(width):
            a = logits[i, j]
            e = exp(-abs(a))
            above = x[k, j] - (one if a > zero else zero)
            terms[j] = (zero if above == zero else above * a) - log1p(e)
            residual[i, j] = x[k, j] - (e if a < zero else one) / (one + e)
        sums[i] = total(terms)


@kernel()
def _gaussian(raw: Matrix, x: Matrix, sums: Vector, residual: Matrix, memory: Matrix, part: int, parts: int) -> None:
    # log N(x; mean, sigma^2) = -(log(2 pi) + logvar + z^2) / 2 with z = (x - mean) / sigma and mean = sigmoid(a).
    # 1 / sigma is applied as the square of a root that overflows later; a deviation of 0 stays 0 whatever sigma is.
    (count, width), rows, terms = x.shape, len(raw), memory[part]
    zero, half, one, quarter = raw.dtype.type(0), raw.dtype.type(0.5), raw.dtype.type(1), raw.dtype.type(0.25)
    log2pi = raw.dtype.type(1.8378770664093453)
    first, last = share(rows, part, parts)
    for i in range(first, last):
        k = i % count
        for j in range(width):
            a, logvar = raw[i, j], raw[i, width + j]
            e = exp(-abs(a))
            mean = (e if a < zero else one) / (one + e)
            slope = e / ((one + e) * (one + e))
            root = exp(-quarter * logvar)
            d = x[k, j] - mean
            z = zero if d == zero else d * root * root
            by_mean = z * slope
            terms[j] = half * (-log2pi - logvar - z * z)
            residual[i, j] = zero if by_mean == zero else by_mean * root * root
            residual[i, width + j] = half * (z * z - one)
        sums[i] = total(terms)


@kernel()
def _scale_rows(g: Vector, a: Matrix, out: Matrix, part: int, parts: int) -> None:
    rows, width = a.shape
    first, last = share(rows, part, parts)
    for i in range(first, last):
        for j in range(width):
            out[i, j] = g[i] * a[i, j]


def _plan(kernel: Any, parameters: Array, x: Array, out: Any) -> Plan:
    new = lambda: (np.empty(parameters.shape[:-1], parameters.dtype), np.empty_like(parameters))
    sums, residual = out if out is not None else new()
    memory = scratch(x.shape[-1], parameters.dtype)
    return (sums, residual), [Job(kernel, parameters, x, sums, residual, memory, work=10 * parameters.size)]


@Launcher
def bernoulli_log_prob(logits: Array, x: Array, out: tuple[Array, Array] | None) -> Plan:
    """log p(x) of each row under Bernoulli pixels, (..., batch), and its derivative by the logits, x - sigmoid."""
    return _plan(_bernoulli, logits, x, out)


@Launcher
def gaussian_log_prob(raw: Array, x: Array, out: tuple[Array, Array] | None) -> Plan:
    """log p(x) of each row under N(sigmoid(a), exp(logvar)) pixels, and its derivative by raw = (a, logvar)."""
    return _plan(_gaussian, raw, x, out)


@Launcher
def scale_rows(g: Array, a: Array, out: Array | None) -> Plan:
    """g[..., None] * a."""
    out = np.empty_like(a) if out is None else out
    return out, [Job(_scale_rows, g, a, out, work=a.size)]
