"""log p(x|z) of rows of pixels, and in the same pass its derivative by the decoder's output; Student's t's constant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.elementary import exp, log, log1p
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan, scratch
from tinyvae_kernels.cpu.runtime.memory import Matrix, Pointer, Vector, matrix, total, vector
from tinyvae_kernels.cpu.runtime.shares import share
from tinyvae_kernels.cpu.special import BERNOULLI, BLOCK, HALF_LOG_2PI, blocks

LIBRARY = "a GPU's array library has special functions of its own, and no step of a Gamma, Beta or Dirichlet needs this"


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


# ---- the constant of Student's t -----------------------------------------------------------------------------------
# With a = df / 2, c(a) = log Gamma(a + 1/2) - log Gamma(a) - log(2 pi a) / 2. By steps up to y = a + 12, and from there
# by the difference of two Stirling series, which has one of its own:
#     log Gamma(y + 1/2) - log Gamma(y) - log(y) / 2 = sum over j of (2^(1 - 2j) - 2) B_2j / (2j (2j - 1) y^(2j - 1))

STEPS = 12.0
HALVES = np.array([(2.0 ** (1 - 2 * j) - 2) * b / (2 * j * (2 * j - 1)) for j, b in enumerate(BERNOULLI, 1)])
HALF_SLOPES = HALVES * (2 * np.arange(1, len(BERNOULLI) + 1) - 1)  # of its derivative, minus the sum over y^2j


@kernel()
def _student_constant(df: Pointer, out: Pointer, series: Vector[np.float64], memory: Pointer[np.float64], count: int,
                      slope: int, part: int, parts: int) -> None:
    # of the steps, `over` / `under` is the product of (x + k) / (x + k + 1/2), whose first factor x is taken with
    # sqrt(y / x); or the sum of 1/2 / ((x + k) (x + k + 1/2)), which is that of 1 / (x + k) - 1 / (x + k + 1/2)
    dtype, rows = vector(out, 1).dtype.type, matrix(memory, 5 * parts, BLOCK)[5 * part : 5 * part + 5]
    a, x, over, under, rest = rows[0], rows[1], rows[2], rows[3], rows[4]
    first, last = share((count + BLOCK - 1) // BLOCK, part, parts)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, count - start)
        for b in range(size):
            a[b] = 0.5 * np.float64(df[start + b])
            x[b], rest[b] = a[b] if a[b] < STEPS else STEPS, 0.0
            over[b] = 0.5 if slope else np.sqrt(x[b] * (x[b] + STEPS))
            under[b] = (x[b] if slope else 1.0) * (x[b] + 0.5)
        for k in range(1, int(STEPS)):
            if slope:
                for b in range(size):
                    d = (x[b] + k) * (x[b] + (k + 0.5))
                    over[b], under[b] = over[b] * d + 0.5 * under[b], under[b] * d
            else:
                for b in range(size):
                    over[b], under[b] = over[b] * (x[b] + k), under[b] * (x[b] + (k + 0.5))
        for b in range(size):
            over[b] /= under[b]
            under[b] = 1.0 / (a[b] + (STEPS if a[b] < STEPS else 0.0))  # from here on 1 / y
        for k in range(len(series) - 1, -1, -1):
            for b in range(size):
                rest[b] = rest[b] * under[b] * under[b] + series[k]
        if slope:  # with 1/2 / y - 1/2 / a = -STEPS / 2 / (a y)
            for b in range(size):
                steps = over[b] - 0.5 * STEPS / x[b] * under[b]
                out[start + b] = dtype(0.5 * ((steps if a[b] < STEPS else 0.0) - rest[b] * under[b] * under[b]))
        else:
            for b in range(size):
                steps = log(over[b] if a[b] < STEPS else 1.0)
                out[start + b] = dtype(rest[b] * under[b] - HALF_LOG_2PI + steps)
        for b in range(size):
            if not a[b] >= 1e-150:  # Gamma(a) is 1 / a there
                tiny = 0.25 / a[b] if slope else 0.5 * np.log(0.5 * a[b])
                out[start + b] = dtype(tiny if df[start + b] >= 0.0 else math.nan)


def _of_student(df: Array, out: Array | None, slope: bool) -> Plan:
    out, series = np.empty_like(df) if out is None else out, HALF_SLOPES if slope else HALVES
    return out, [Job(_student_constant, df, out, series, blocks(5), df.size, int(slope), work=20 * df.size)]


@Launcher.alone(LIBRARY)
def student_constant(df: Array, out: Array | None) -> Plan:
    """The logarithm of the constant of Student's t, of any shape."""
    return _of_student(df, out, slope=False)


@Launcher.alone(LIBRARY)
def student_constant_slope(df: Array, out: Array | None) -> Plan:
    """Its derivative by the degrees of freedom."""
    return _of_student(df, out, slope=True)
