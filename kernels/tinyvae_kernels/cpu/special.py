"""Special functions, an element at a time: log Gamma, Stirling's remainder of it, the derivatives of both, ratios and
deviances, and how a Gamma draw moves with its shape.

All is computed in float64, whatever the type: float32 results are then right to their last digit. Numbers are taken in
blocks whose intermediate results stay in the nearest cache: the terms of a sum are the outer loop and the numbers the
inner one, so that a term is computed for many numbers at once.

B_2k are the Bernoulli numbers, and the expansions those of Abramowitz and Stegun, "Handbook of mathematical
functions", chapter 6.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import address, kernel
from tinyvae_kernels.cpu.runtime.elementary import exp, exp_remainder, log, log_quotient
from tinyvae_kernels.cpu.runtime.helpers import helper
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan, scratch
from tinyvae_kernels.cpu.runtime.memory import Matrix, Pointer, Vector, as_float64, matrix, vector
from tinyvae_kernels.cpu.runtime.shares import share
from tinyvae_kernels.launching import chosen

BLOCK = 64  # numbers at a time
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)  # B_2, B_4, ...
SMALL = 1e-30  # below it the kept logarithm of a number has the digits, as in distributions/stirling.py
TINY = 1e-300  # below it the logarithm of the kernels may have no digits
DEEPEST = -1e6  # negative numbers are lifted above 0 step by step, from here on


@helper
def _log_to_infinity(x: Any) -> Any:
    return log(x) if x < math.inf else x


@helper
def _expm1(x: Any) -> Any:
    # Cephes' rational function for e^r - 1, |r| <= log(2) / 2, and e^x - 1 = 2^n (e^r - 1) + 2^n - 1; for x > -700
    n = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6
    z = r * r
    p = r * ((1.26177193074810590878e-4 * z + 3.02994407707441961300e-2) * z + 9.99999999999999999910e-1)
    q = ((3.00198505138664455042e-6 * z + 2.52448340349684104192e-3) * z + 2.27265548208155028766e-1) * z + 2.0
    power = as_float64((np.int64(n) + np.int64(1023)) << np.int64(52))
    return power * (2.0 * (p / (q - p))) + (power - 1.0)


def blocks(count: int, size: int = BLOCK) -> Array:
    """`count` blocks for each part; they begin on a cache line, which is worth a factor of two."""
    memory = scratch(size, np.float64, count)
    wider = np.empty(memory.size + 8, np.float64)
    return wider[-address(wider) % 64 // 8 :][: memory.size].reshape(memory.shape)


# ---- log Gamma -------------------------------------------------------------------------------------------------------
# Around 2, for |t| <= 1/2 (6.1.33), with zeta Riemann's function:
#     log Gamma(2 + t) = t (1 - Euler's gamma + sum over k >= 2 of (-1)^k (zeta(k) - 1) t^(k - 1) / k)
# to which x = m + t, m < 8, is brought by Gamma(x + 1) = x Gamma(x). No digit is lost where log Gamma is 0, at 1 and 2.
# From 7.5 on Stirling's series (6.1.40):
#     log Gamma(x) = (x - 1/2) log x - x + log(2 pi) / 2 + sum over k >= 1 of B_2k / (2k (2k - 1) x^(2k - 1))


@cache
def _around_two() -> Array:
    from scipy.special import zetac

    k = np.arange(2, 27)
    return np.array([1 - np.euler_gamma, *((-1.0) ** k * zetac(k) / k)])


# What that series adds to the rest is Stirling's remainder,
#     mu(x) = log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2
# Below 7.5 it is computed as this difference, whose terms are no larger than 20.

HALF_LOG_2PI = math.log(2 * math.pi) / 2
REST = HALF_LOG_2PI - 0.5
STIRLING = np.array([b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI, 1)])


@kernel()
def _lgamma(a: Pointer, out: Pointer, series: Vector[np.float64], stirling: Vector[np.float64],
            memory: Pointer[np.float64], count: int, remainder: int, part: int, parts: int) -> None:
    dtype, rows = vector(out, 1).dtype.type, matrix(memory, 6 * parts, BLOCK)[6 * part : 6 * part + 6]
    x, t, product, near, far, inverse = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    first, last = share((count + BLOCK - 1) // BLOCK, part, parts)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, count - start)
        for b in range(size):
            x[b] = np.float64(a[start + b])
            m = np.floor(min(x[b], 8.0) + 0.5)
            t[b] = x[b] - m
            product[b] = (x[b] if m < 2.0 else 1.0) * (x[b] + 1.0 if m < 1.0 else 1.0)
            inverse[b], near[b], far[b] = 1.0 / x[b], 0.0, 0.0
        for k in range(1, 6):
            for b in range(size):
                product[b] *= x[b] - k if x[b] >= k + 1.5 else 1.0
        for k in range(len(series) - 1, -1, -1):
            for b in range(size):
                near[b] = near[b] * t[b] + series[k]
        for k in range(len(stirling) - 1, -1, -1):
            for b in range(size):
                far[b] = far[b] * inverse[b] * inverse[b] + stirling[k]
        for b in range(size):
            large = x[b] >= 7.5
            logarithm = _log_to_infinity(x[b] if large else product[b])
            near[b] = t[b] * near[b] + (-logarithm if x[b] < 1.5 else logarithm)
            product[b] = far[b] * inverse[b]  # from here on Stirling's remainder
            far[b] = (x[b] - 0.5) * (logarithm - 1.0) + (product[b] + REST)
            out[start + b] = dtype(far[b] if large else near[b])
        for b in range(size):
            if x[b] < TINY:  # zero and below, where these series do not hold
                out[start + b] = dtype(math.lgamma(x[b]) if x[b] > -math.inf else -math.inf)
        if remainder:
            for b in range(size):
                near[b] += x[b] - HALF_LOG_2PI - (x[b] - 0.5) * _log_to_infinity(x[b])
                out[start + b] = dtype(product[b] if x[b] >= 7.5 else near[b])
            for b in range(size):
                if x[b] < TINY:  # log Gamma is -log x there, and infinite at 0; nothing is defined below
                    out[start + b] = dtype(-HALF_LOG_2PI - 0.5 * np.log(x[b]) if x[b] >= 0.0 else math.nan)


def log_gamma_job(a: Array, out: Array, remainder: bool) -> Job:
    """log |Gamma(a)|, or Stirling's remainder of it, into `out`."""
    return Job(_lgamma, a, out, _around_two(), STIRLING, blocks(6), a.size, int(remainder), work=60 * a.size)


@Launcher
def lgamma(a: Array, out: Array | None) -> Plan:
    """log |Gamma(a)|, of any shape."""
    out = np.empty_like(a) if out is None else out
    return out, [log_gamma_job(a, out, remainder=False)]


# ---- its derivatives -------------------------------------------------------------------------------------------------
# By steps up to y = x + N, and from there by Euler and Maclaurin's formula (6.4.6 and 6.4.11):
#     (-1)^(n + 1) psi_n(x) / n! = sum over k < N of (x + k)^-(n + 1)
#                                  + y^-n (1 / n + 1 / (2 y) + sum over k of B_2k (2k + n - 1)! / ((2k)! n!) y^-2k)
# psi_0 is digamma: there -log y stands in place of 1 / n. The last sum at y = x is the derivative of Stirling's
# remainder: from 10 + n on nothing else is computed, and below the other terms at x are subtracted.


@kernel()
def _polygamma(a: Pointer, out: Pointer, series: Vector[np.float64], memory: Pointer[np.float64], count: int,
               order: int, steps: int, factor: float, beyond: float, part: int, parts: int) -> None:
    dtype, rows = vector(out, 1).dtype.type, matrix(memory, 4 * parts, BLOCK)[4 * part : 4 * part + 4]
    x, inverse, power, total = rows[0], rows[1], rows[2], rows[3]
    first, last = share((count + BLOCK - 1) // BLOCK, part, parts)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, count - start)
        for b in range(size):
            x[b], total[b] = np.float64(a[start + b]), 0.0
        for b in range(size):
            if x[b] <= 0.0:
                total[b] = 0.0 if x[b] > DEEPEST and (x[b] != np.floor(x[b]) or x[b] == 0.0) else math.nan
                x[b] = abs(x[b]) if x[b] == 0.0 else x[b]  # -0 is 0
                while DEEPEST < x[b] < 0.0:
                    inverse[b] = 1.0 / x[b]  # (Numba's power of whole numbers would raise where this is infinite)
                    power[b] = inverse[b]
                    for _ in range(order):
                        power[b] *= inverse[b]
                    total[b] += power[b]
                    x[b] += 1.0
        for k in range(steps - 1, -1, -1):  # the smallest first
            share_of_term = 0.5 if k == 0 and beyond < math.inf else 1.0
            for b in range(size):
                inverse[b] = 1.0 / (x[b] + k)
                power[b] = inverse[b]
            for _ in range(order):
                for b in range(size):
                    power[b] *= inverse[b]
            for b in range(size):
                total[b] += 0.0 if x[b] > beyond else share_of_term * power[b]
        for b in range(size):
            inverse[b], power[b] = 1.0 / (x[b] + (0.0 if x[b] > beyond else steps)), 0.0
        for k in range(len(series) - 1, -1, -1):
            for b in range(size):
                power[b] = (power[b] + series[k]) * inverse[b] * inverse[b]
        for b in range(size):
            leading = 0.5 * inverse[b] + (-_log_to_infinity(x[b] + steps) if order == 0 else 1.0 / order)
            power[b] += 0.0 if x[b] > beyond else leading
        for _ in range(order):
            for b in range(size):
                power[b] *= inverse[b]
        if beyond < math.inf:
            for b in range(size):
                inverse[b] = 1.0 / x[b]
                leading = -_log_to_infinity(x[b]) if order == 0 else 1.0 / order
                for _ in range(order):
                    leading *= inverse[b]
                # where the other terms are infinite, so is the whole
                power[b] -= leading if x[b] <= beyond and total[b] < math.inf else 0.0
                total[b] = math.nan if a[start + b] < 0.0 else total[b]
        for b in range(size):
            out[start + b] = dtype(factor * (total[b] + power[b]))


@cache
def _euler_maclaurin(order: int) -> Array:
    return np.array([b * (math.factorial(2 * k + order - 1) / (math.factorial(2 * k) * math.factorial(order)))
                     for k, b in enumerate(BERNOULLI, 1)])  # fmt: skip


def derivative_job(a: Array, out: Array, order: int, remainder: bool) -> Job:
    """The derivative of digamma of that order, or that of order + 1 of Stirling's remainder, into `out`."""
    steps, series = order + 10, _euler_maclaurin(order)
    factor = (-1.0) ** (order + 1) * float(math.factorial(order))
    return Job(_polygamma, a, out, series, blocks(4), a.size, order, steps, factor,
               float(steps) if remainder else math.inf, work=a.size * (4 * steps + 20))


@Launcher
def polygamma(a: Array, out: Array | None, order: int) -> Plan:
    """The derivative of digamma of that order, 0 for digamma itself, of any shape; at 0 the limit from above, NaN at
    negative whole numbers and below -1e6."""
    out = np.empty_like(a) if out is None else out
    return out, [derivative_job(a, out, order, remainder=False)]


@Launcher
def stirling(a: Array, out: Array | None, order: int) -> Plan:
    """Stirling's remainder mu(a), or its derivative of that order, of any shape; at 0 the limit, NaN below."""
    out = np.empty_like(a) if out is None else out
    if order > 0:
        return out, [derivative_job(a, out, order - 1, remainder=True)]
    return out, [log_gamma_job(a, out, remainder=True)]


# ---- ratios and deviances --------------------------------------------------------------------------------------------
# The large terms of densities, a (e^t - 1 - t) with t = log(y / a): see distributions/stirling.py. The smaller array is
# repeated along the leading axes of the larger one.


@helper
def repeated(source: Any, target: Any, start: Any, size: Any, period: Any) -> None:
    # the numbers from `start` on of an array that repeats itself
    j = start % period
    for b in range(size):
        target[b] = np.float64(source[j])
        j = j + 1 if j + 1 < period else 0


@helper
def is_normal(x: Any, y: Any) -> Any:
    return x >= SMALL and y > 0.0 and TINY < x / y < math.inf


@helper
def log_quotients(x: Any, y: Any, target: Any, size: Any) -> None:
    # log(x / y) of `size` numbers; those for which the vectors of `log_quotient` do not hold one by one
    for b in range(size):
        target[b] = log_quotient(x[b], y[b])
    for b in range(size):
        if not is_normal(x[b], y[b]):
            target[b] = np.log(x[b] / y[b])


@helper
def _kept_log_quotients(x: Any, y: Any, w: Any, start: Any, target: Any, size: Any) -> None:
    # the same, where w = log x has the digits of a tiny x
    log_quotients(x, y, target, size)
    for b in range(size):
        if x[b] < SMALL:
            target[b] = np.float64(w[start + b]) - np.log(y[b])


@kernel()
def _log_ratio(x: Pointer, y: Pointer, w: Pointer, out: Pointer, memory: Pointer[np.float64], count: int, period: int,
               part: int, parts: int) -> None:
    dtype, rows = vector(out, 1).dtype.type, matrix(memory, 3 * parts, BLOCK)[3 * part : 3 * part + 3]
    first, last = share((count + BLOCK - 1) // BLOCK, part, parts)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, count - start)
        repeated(x, rows[0], start, size, count)
        repeated(y, rows[1], start, size, period)
        _kept_log_quotients(rows[0], rows[1], w, start, rows[2], size)
        for b in range(size):
            out[start + b] = dtype(rows[2, b])


@kernel()
def _deviance(a: Pointer, y: Pointer, w: Pointer, out: Pointer, memory: Pointer[np.float64], count: int, period: int,
              part: int, parts: int) -> None:
    dtype, rows = vector(out, 1).dtype.type, matrix(memory, 3 * parts, BLOCK)[3 * part : 3 * part + 3]
    first, last = share((count + BLOCK - 1) // BLOCK, part, parts)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, count - start)
        repeated(a, rows[0], start, size, period)
        repeated(y, rows[1], start, size, count)
        _kept_log_quotients(rows[1], rows[0], w, start, rows[2], size)
        for b in range(size):
            out[start + b] = dtype(rows[0, b] * exp_remainder(rows[2, b]))


@Launcher
def log_ratio(x: Array, y: Array, w: Array, out: Array | None) -> Plan:
    """log(x / y), where w = log x has the digits of a tiny x; y has the last axes of x."""
    out = np.empty_like(x) if out is None else out
    return out, [Job(_log_ratio, x, y, w, out, blocks(3), x.size, y.size, work=20 * x.size)]


@Launcher
def deviance(a: Array, y: Array, w: Array, out: Array | None) -> Plan:
    """y - a - a log(y / a), where w = log y has the digits of a tiny y; a has the last axes of y."""
    out = np.empty_like(y) if out is None else out
    return out, [Job(_deviance, a, y, w, out, blocks(3), y.size, a.size, work=40 * y.size)]


# ---- how a draw moves with its shape ---------------------------------------------------------------------------------
# An integral over the nearer tail: with w = log z, and with A = a and end > 0 where w > psi(a + 1), with A = a + 1 and
# end < 0 elsewhere,
#     I = integral from 0 to end of (w + t - psi(A)) exp(A t - z (e^t - 1)) dt
#     dw/da = I above, (z I + psi(a + 1) - w) / a below
# By Gauss and Legendre's rule in x, t = end x (1 + x) / 2: nodes lie closer where the exponential is large.

RULES = {"float32": (12, 19.5), "float64": (24, 35.0)}  # nodes, and e^-reach is left out


@cache
def _nodes(count: int) -> Array:
    x, weights = np.polynomial.legendre.leggauss(count)
    x = (1 + x) / 2
    return np.array([x * (1 + x) / 2, weights * (1 + 2 * x) / 4])


@helper
def _digamma_above_one(x: Any) -> Any:
    numerator, denominator, y = 0.0, 1.0, min(x, 1e20)  # of the sum of 1 / (x + k), k < 9
    for _ in range(9):
        numerator, denominator, y = numerator * y + denominator, denominator * y, y + 1.0
    y = x + 9.0
    v = 1.0 / (y * y)
    series = v * (1 / 12 - v * (1 / 120 - v * (1 / 252 - v * (1 / 240 - v * (1 / 132 - v * (691 / 32760 - v / 12))))))
    return _log_to_infinity(y) - 0.5 / y - series - numerator / denominator


@kernel()
def _gamma_log_sample_grad(w: Pointer, a: Pointer, out: Pointer, nodes: Matrix[np.float64], memory: Pointer[np.float64],
                           count: int, reach: float, part: int, parts: int) -> None:
    dtype, rows = vector(out, 1).dtype.type, matrix(memory, 5 * parts, BLOCK)[5 * part : 5 * part + 5]
    z, rate, offset, end, total = rows[0], rows[1], rows[2], rows[3], rows[4]
    first, last = share((count + BLOCK - 1) // BLOCK, part, parts)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, count - start)
        for b in range(size):
            # beyond 700, where e^w is still a number, the derivative is 0 to 300 digits
            at, shape = np.float64(700.0 if w[start + b] > 700.0 else w[start + b]), np.float64(a[start + b])
            psi = _digamma_above_one(shape + 1.0)
            upper = at > psi
            z[b], rate[b] = exp(at), shape if upper else shape + 1.0
            offset[b] = at - psi + (1.0 / shape if upper else 0.0)
            # the end to second order in t, and one step towards z (e^t - 1) - A t = reach
            d = rate[b] - z[b]
            d = 2.0 * reach / (abs(d) + np.sqrt(d * d + 2.0 * reach * z[b]))
            d = (reach + rate[b] * d) / z[b] if upper else (z[b] * _expm1(-d) - reach) / rate[b]
            end[b] = log(1.0 + d) if d > 1e-8 else d
            total[b] = 0.0
        for k in range(nodes.shape[1]):
            for b in range(size):
                t = nodes[0, k] * end[b]
                total[b] += nodes[1, k] * (offset[b] + t) * exp(rate[b] * t - z[b] * _expm1(t))
        for b in range(size):
            shape, integral = np.float64(a[start + b]), total[b] * end[b]
            value = integral if end[b] > 0.0 else (z[b] * integral - offset[b]) / shape
            out[start + b] = dtype(value if shape > 0.0 else math.nan)


@Launcher
def gamma_log_sample_grad(w: Array, a: Array, out: Array | None) -> Plan:
    """dw/da of w = log z, z ~ Gamma(a, 1), at a fixed quantile; w and a of one shape."""
    out, (nodes, reach) = np.empty_like(w) if out is None else out, chosen(RULES, w.dtype.name)
    arguments = (w, a, out, _nodes(nodes), blocks(5), w.size, reach)
    return out, [Job(_gamma_log_sample_grad, *arguments, work=50 * nodes * w.size)]
