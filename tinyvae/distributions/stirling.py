"""Log Gamma without its large terms, so that densities and divergences keep their digits at shapes of a million.

Stirling's formula splits log Gamma into terms as large as a log a and a remainder mu that falls from infinity to 0:

    log Gamma(a) = (a - 1/2) log a - a + log(2 pi) / 2 + mu(a),        mu(a) = 1 / (12 a) - 1 / (360 a^3) + ...

In a density or a divergence of the Gamma, Beta, Dirichlet and Poisson families the large terms cancel, and digits are
lost if they are computed. What is left of them is never negative (Loader 2000, "Fast and accurate computation of
binomial probabilities"):

    a log y - y - log Gamma(a) = peak(a) - deviance(a, y)                   the log density of log y, y ~ Gamma(a, 1)
    peak(a)        = log(a / (2 pi)) / 2 - mu(a)                            its highest value, at y = a
    deviance(a, y) = a (e^t - 1 - t) >= 0,    t = log(y / a)

All is computed in float64 and given in the type of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tinyvae.distributions.divergence import exp_remainder
from tinyvae.distributions.stable import LogTensor
from tinyvae.engine.rules import ANY, POSITIVE, into, rule
from tinyvae.engine.tensor import Tensor

LOG_2PI = math.log(2 * math.pi)
SMALL = 1e-30  # below it the kept logarithm of a LogTensor has the digits, above it the number itself


def wide(xp: Any, *arrays: Any) -> Any:
    """The arrays in float64."""
    return [array.astype(xp.float64, copy=False) for array in arrays]


# ---- Stirling's remainder --------------------------------------------------------------------------------------------
# Below 10 it is the difference of log Gamma and the other terms. From there on Binet's formula has the digits
# (Whittaker and Watson, "A course of modern analysis", section 12.31):
#
#     mu(a) = integral from 0 to inf of g(t) e^(-a t) dt,    g(t) = (1 / (e^t - 1) - 1 / t + 1 / 2) / t
#
# With x = t / 2 that is g = (x coth x - 1) / (4 x^2), and Lambert's continued fraction has positive terms only:
# x coth x - 1 = x^2 / (3 + x^2 / (5 + ...)). The n-th derivative has (-t)^n beside g. The integral is taken by Gauss
# and Laguerre's rule in a t.

LEAST, NODES, DEPTH = 10.0, 16, 12


@cache
def _gauss_laguerre() -> list[tuple[float, float]]:
    nodes, weights = np.polynomial.laguerre.laggauss(NODES)
    return [(float(x), float(weight)) for x, weight in zip(nodes, weights, strict=True)]


def _by_difference(xp: Any, a: Any, order: int) -> Any:
    if order == 0:
        return xp.special.gammaln(a) - ((a - 0.5) * xp.log(a) - a + 0.5 * LOG_2PI)
    n, sign = order - 1, (-1.0) ** order
    psi = xp.special.digamma(a) if n == 0 else xp.special.polygamma(xp.asarray(n), a)
    first = xp.log(a) if n == 0 else sign * math.factorial(n - 1) / a**n  # the n-th derivative of log a
    return psi - first - sign * 0.5 * math.factorial(n) / a**order


def _by_binet(xp: Any, a: Any, order: int) -> Any:
    total = xp.zeros_like(a)
    for node, weight in _gauss_laguerre():
        t = node / a
        fraction = 2.0 * DEPTH + 3
        for k in range(DEPTH, 0, -1):
            fraction = (2 * k + 1) + 0.25 * t * t / fraction
        total += weight * (-t) ** order * 0.25 / fraction
    return total / a


def _near_zero(xp: Any, a: Any, order: int) -> Any:
    # log Gamma(a) is -log a there, of which Stirling's terms leave half
    if order == 0:
        return -0.5 * (xp.log(a) + LOG_2PI)
    return 0.5 * (-1.0) ** order * math.factorial(order - 1) / a**order


def _stirling(xp: Any, a: Any, out: Any, order: int) -> Any:
    (x,) = wide(xp, a)
    with np.errstate(all="ignore"):
        tiny, far = x < 1e-150, x >= LEAST
        value = xp.where(far, _by_binet(xp, xp.where(far, x, LEAST), order),
                         xp.where(tiny, _near_zero(xp, xp.where(tiny, xp.abs(x), 1.0), order),
                                  _by_difference(xp, xp.where(tiny | far, 1.0, x), order)))
        return into(out, xp.where(x >= 0, value, xp.nan).astype(a.dtype))


# The n-th derivative of the remainder; its own derivative is the same row with n + 1.
rule("stirling", _stirling, (lambda g, y, a, order: g * a.apply("stirling", order=order + 1),), (POSITIVE,),
     kernel="stirling", example={"order": 0})


def remainder(xp: Any, a: Any, order: int) -> Any:
    """The derivative of that order of Stirling's remainder, of an array in float64."""
    return _stirling(xp, a, None, order)


def peak(a: Tensor) -> Tensor:
    """a log a - a - log Gamma(a), elementwise: the highest value of the log density of log y, y ~ Gamma(a, 1)."""
    return 0.5 * (a.log() - LOG_2PI) - a.apply("stirling", order=0)


def slope(a: Tensor) -> Tensor:
    """log a - psi(a), elementwise, the derivative of `peak`: how far E[log y], y ~ Gamma(a, 1), lies below log E[y]."""
    return 0.5 / a - a.apply("stirling", order=1)


def remainder_gap(xp: Any, a0: Any, a: Any) -> Any:
    """mu(a0) - mu(a) - (a0 - a) mu'(a) of arrays in float64: what mu adds to a divergence. As mu is convex, it is not
    negative but for rounding."""
    mu0, mu, slope = (_stirling(xp, x, None, order) for x, order in ((a0, 0), (a, 0), (a, 1)))
    return mu0 - mu - (a0 - a) * slope


# ---- ratios and deviances --------------------------------------------------------------------------------------------


def log_quotient(xp: Any, x: Any, y: Any) -> Any:
    """log(x / y) of arrays above 0; where x and y are close, log(1 + (x - y) / y), because x - y is exact there."""
    with np.errstate(all="ignore"):
        d = (x - y) / y
        close = xp.abs(d) < 0.5
        return xp.where(close, xp.log1p(xp.where(close, d, 0.0)), xp.log(x / y))


def repeated(*places: int) -> Callable[..., bool]:
    """For `accepts` of a row: whether the arrays at these places have one shape, the last axes of that of all others.

    The others have one shape, too, and are not empty. The kernel repeats the smaller arrays as wholes.
    """

    def accepts(*arrays: Any) -> bool:
        smaller = {array.shape for i, array in enumerate(arrays) if i in places}
        larger = {array.shape for i, array in enumerate(arrays) if i not in places}
        if len(smaller) > 1 or len(larger) > 1:
            return False
        (small,), (large,) = smaller, larger
        return large[len(large) - len(small) :] == small and 0 not in large

    return accepts


def _kept_log_ratio(xp: Any, x: Any, y: Any, w: Any) -> Any:
    x, y, w = wide(xp, x, y, w)
    with np.errstate(all="ignore"):
        return xp.where(x < SMALL, w - xp.log(y), log_quotient(xp, x, y))


def _log_ratio(xp: Any, x: Any, y: Any, w: Any, out: Any) -> Any:
    return into(out, _kept_log_ratio(xp, x, y, w).astype(x.dtype))


def _deviance(xp: Any, a: Any, y: Any, w: Any, out: Any) -> Any:
    with np.errstate(all="ignore"):
        return into(out, (a * exp_remainder(xp, _kept_log_ratio(xp, y, a, w))).astype(a.dtype))


# log(x / y), and the deviance d(a, y), whose derivatives are -log(y / a) and, by log y, y - a. A number x comes with
# its logarithm w, which has the digits where x < SMALL; the derivative by x flows through w alone.
rule("log_ratio", _log_ratio, (None, lambda g, t, x, y, w: -g / y, lambda g, t, x, y, w: g), (POSITIVE, POSITIVE, ANY),
     kernel="log_ratio", accepts=repeated(1))
rule("deviance", _deviance,
     (lambda g, d, a, y, w: -g * log_ratio(LogTensor(w, y), a), None, lambda g, d, a, y, w: g * (y - a)),
     (POSITIVE, POSITIVE, ANY), kernel="deviance", accepts=repeated(0))


def log_ratio(x: Tensor, y: Tensor) -> Tensor:
    """log(x / y), x and y above 0, with all digits where x and y are close."""
    return x.apply("log_ratio", y, x.log())


def deviance(a: Tensor, y: Tensor) -> Tensor:
    """y - a - a log(y / a) >= 0, a and y above 0, with all digits where y is close to a."""
    return a.apply("deviance", y, y.log())
