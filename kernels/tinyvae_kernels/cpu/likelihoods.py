"""log p(x|z) of rows of pixels, and in the same pass its derivative by the decoder's output."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel, matrix, share, total, vector
from tinyvae_kernels.cpu.runtime.elementary import exp, log1p
from tinyvae_kernels.cpu.runtime.team import Array, Job, Launcher, Plan, flat, rows_of, scratch


@kernel()
def _bernoulli(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    # x l - log(1 + exp(l)) = (x - [l > 0]) l - log(1 + exp(-|l|)), the product 0 where its first factor is
    rows, width, count = n[0], n[1], n[2]
    logits, x = matrix(p[0], rows, width), matrix(p[1], count, width)
    sums, residual, terms = vector(p[2], rows), matrix(p[3], rows, width), matrix(p[4], parts, width)[part]
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
def _gaussian(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    rows, width, count = n[0], n[1], n[2]
    raw, x = matrix(p[0], rows, 2 * width), matrix(p[1], count, width)
    sums, residual, terms = vector(p[2], rows), matrix(p[3], rows, 2 * width), matrix(p[4], parts, width)[part]
    zero, half, one = raw.dtype.type(0), raw.dtype.type(0.5), raw.dtype.type(1)
    log2pi = raw.dtype.type(1.8378770664093453)
    first, last = share(rows, part, parts)
    for i in range(first, last):
        k = i % count
        for j in range(width):
            a, logvar = raw[i, j], raw[i, width + j]
            e = exp(-abs(a))
            mean = (e if a < zero else one) / (one + e)
            slope = e / ((one + e) * (one + e))
            precision = exp(-logvar)
            d = x[k, j] - mean
            terms[j] = half * (-log2pi - logvar - d * d * precision)
            residual[i, j] = d * precision * slope
            residual[i, width + j] = half * (d * d * precision - one)
        sums[i] = total(terms)


@kernel()
def _scale_rows(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    g, a, out = vector(p[0], n[0]), matrix(p[1], n[0], n[1]), matrix(p[2], n[0], n[1])
    first, last = share(n[0], part, parts)
    for i in range(first, last):
        for j in range(n[1]):
            out[i, j] = g[i] * a[i, j]


def _plan(kernel: Any, parameters: Array, x: Array, out: Any) -> Plan:
    new = lambda: (np.empty(parameters.shape[:-1], parameters.dtype), np.empty_like(parameters))
    sums, residual = out if out is not None else new()
    sizes, terms = (sums.size, x.shape[-1], x.shape[0]), scratch(x.shape[-1], parameters.dtype)
    arrays = (flat(parameters), flat(x), flat(sums), flat(residual), terms)
    return (sums, residual), [Job(kernel, arrays, sizes, work=10 * parameters.size)]


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
    return out, [Job(_scale_rows, (flat(g), flat(a), flat(out)), rows_of(a), work=a.size)]
