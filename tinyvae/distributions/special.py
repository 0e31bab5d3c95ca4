"""How a draw from a Gamma distribution moves with its shape: the derivative behind implicit reparameterization.

A draw z ~ Gamma(a, 1) that stays at its quantile, F(z; a) = constant, moves with the shape a. In w = log z, which
is an ordinary number even at a small shape, the implicit function theorem says (Figurnov, Mohamed and Mnih 2018,
"Implicit reparameterization gradients")

    dw/da = -(dF/da) / (dF/dw),        F = integral of p from 0 to z,        dF/dw = z p(z) = z^a e^-z / Gamma(a)

With psi = d log Gamma / da we have dp/da = p(x) (log x - psi(a)), whose integral over all x is 0. So dF/da can be taken
from either tail, and with x = z e^t the quotient is an integral in which no Gamma function is left:

    dw/da = integral from 0 to  inf of  (w + t - psi(a)) exp(a t - z (e^t - 1)) dt
          = integral from 0 to -inf of  (w + t - psi(a)) exp(a t - z (e^t - 1)) dt

For w > psi(a) all terms of the first are positive, otherwise those of the second, and a sum of positive terms loses no
digits. Integration by parts takes out of the second what diverges for a -> 0:

    a dw/da = psi(a + 1) - w + z integral from 0 to -inf of (w + t - psi(a + 1)) exp((a + 1) t - z (e^t - 1)) dt

For z -> 0 this is psi(a + 1) - w, as F = z^a / Gamma(a + 1) demands; no power of z is formed that could underflow.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tinyvae.engine.rules import ANY, POSITIVE, of_shapes, rule

NODES = 36  # of Gauss and Legendre's rule, for 14 digits
REACH = 36.0  # the integrals end where their exponential has fallen to e^-36, a rounding unit of float64
FARTHEST = 700.0  # e^700 is nearly the largest number; the derivative there is 0 to 300 digits


@cache
def gauss_legendre(count: int) -> list[tuple[float, float]]:
    """Nodes and weights of the integral from 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return [(float(x), float(weight)) for x, weight in zip((nodes + 1) / 2, weights / 2, strict=True)]


def _gamma_log_sample_grad(xp: Any, w: Any, a: Any, out: Any) -> Any:
    kind = w.dtype
    w, a = xp.minimum(w.astype(xp.float64), FARTHEST), a.astype(xp.float64)  # w - psi would cancel in float32
    z, psi = xp.exp(w), xp.special.digamma(a + 1)
    upper = w > psi
    rate = xp.where(upper, a, a + 1)
    offset = w - psi + xp.where(upper, 1 / a, 0.0)  # psi(a) = psi(a + 1) - 1 / a

    # The end of the integral solves z (e^t - 1) - rate t = REACH. One step of a fixed-point iteration finds it, from
    # the end that the exponent would have without terms beyond t^2.
    end = 2 * REACH / (xp.abs(rate - z) + xp.hypot(rate - z, xp.sqrt(2 * REACH * z)))
    end = xp.where(upper, xp.log1p((REACH + rate * end) / xp.where(upper, z, 1.0)),
                   (z * xp.expm1(-end) - REACH) / rate)

    total = xp.zeros_like(end)
    for node, weight in gauss_legendre(NODES):
        t = node * end
        total += weight * (offset + t) * xp.exp(rate * t - z * xp.expm1(t))
    total *= end
    value = xp.where(upper, total, (z * total - offset) / a)
    value = xp.where(a > 0, value, xp.nan).astype(kind)
    if out is None:
        return value
    out[...] = value
    return out


# d log z / da of a draw z ~ Gamma(a, 1), from w = log z and a
rule("gamma_log_sample_grad", _gamma_log_sample_grad, (None, None), (ANY, POSITIVE), kernel="gamma_log_sample_grad",
     accepts=of_shapes(lambda w, a: w == a))
