"""The Gamma distribution, by shape a and rate b. A draw is kept as its logarithm, so no shape is too small.

Its density is b^a z^(a - 1) exp(-b z) / Gamma(a), and psi(a) = d log Gamma(a) / da, psi' its derivative. Because the
density integrates to 1, the integral of z^(a - 1) exp(-b z) is b^-a Gamma(a); the derivatives by a of its logarithm are
the mean and the variance of log z:

    E[z] = a / b,    E[log z] = psi(a) - log b,    Var[log z] = psi'(a)

With log q(z) = a log b - log Gamma(a) + (a - 1) log z - b z, they give the entropy and the KL of two Gammas (Penny
2001, "KL-divergences of Normal, Gamma, Dirichlet and Wishart densities"):

    H(q) = a - log b + log Gamma(a) + (1 - a) psi(a)
    KL(q || p) = E_q[log q(z) - log p(z)]
               = (a - a0) psi(a) - log Gamma(a) + log Gamma(a0) + a0 (log b - log b0) + a (b0 / b - 1)

At large shapes the terms of these sums are large and cancel. With `peak` and its slope of stirling.py, from which the
large terms are gone, and with mu, Stirling's remainder, they are

    log q(z)   = peak(a) - deviance(a, b z) - log z
    H(q)       = log(a / b) - peak(a) + (a - 1) peak'(a)
    KL(q || p) = a0 f(log(E_q[z] / E_p[z])) + f(log(a0 / a)) / 2 + (mu(a0) - mu(a) - (a0 - a) mu'(a)),
                 f(t) = e^t - 1 - t

Each of the three terms of the KL is a divergence by itself, of a convex function, and so never negative.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions import stirling
from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form, exp_remainder
from tinyvae.distributions.registry import family
from tinyvae.distributions.rejection import log_gamma
from tinyvae.distributions.stable import LogTensor, is_positive, replaced, supported, xlogy
from tinyvae.distributions.stirling import deviance, log_ratio, peak, slope
from tinyvae.engine.rules import POSITIVE, into, rule
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


@family("gamma", prior=("gamma", 0.3, 0.3))  # as Figurnov et al. 2018, table 4
class Gamma(Distribution):
    """z > 0 with density b^a z^(a - 1) exp(-b z) / Gamma(a) for shape a and rate b, elementwise."""

    support = "positive"
    path = "implicit"

    def __init__(self, shape: Tensor, rate: Tensor) -> None:
        self.shape, self.rate = shape, rate

    parameters = property(lambda self: {"shape": self.shape, "rate": self.rate})

    @classmethod
    def from_raw(cls, raw: Tensor) -> Gamma:
        """Shape and mean by softplus, as in the experiments of G-REP; the rate is shape / mean."""
        shape, mean = (part.softplus() for part in raw.split(2))
        return cls(shape, shape / mean)

    # Each is computed once, however many formulas use it.
    log_rate = cached_property(lambda self: self.rate.log())
    peak = cached_property(lambda self: peak(self.shape))
    slope = cached_property(lambda self: slope(self.shape))

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.shape / self.rate

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.shape / self.rate**2

    def log_prob(self, x: Tensor) -> Tensor:
        # at 0 the limit of (a - 1) log x, infinite but for a = 1, where log q(x) is log b - b x
        possible = supported(x)
        x = replaced(x, possible, 1.0)
        inside = is_positive(x)
        at_zero = xlogy(self.shape - 1, x) + self.log_rate - self.rate * inside.where(0.0, x)
        z = replaced(x, inside, 1.0)
        w = z.log()
        y = LogTensor(w + self.log_rate, z * self.rate)
        return possible.where(inside.where(self.peak - deviance(self.shape, y) - w, at_zero), -np.inf).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return LogTensor(log_gamma(self.shape, noise, samples) - self.log_rate)

    def entropy(self) -> Tensor:
        return (log_ratio(self.shape, self.rate) - self.peak + (self.shape - 1) * self.slope).sum(-1)

    def to_stable(self, z: Tensor) -> Tensor:
        return z.log()

    def from_stable(self, w: Tensor) -> Tensor:
        return LogTensor(w)

    def log_density(self, w: Tensor) -> Tensor:
        # dz/dw = z, so the density of w = log z is z q(z)
        return self.peak - deviance(self.shape, LogTensor(w + self.log_rate, w.exp() * self.rate))

    def _moments(self) -> tuple[Tensor, Tensor]:
        # log z is a sufficient statistic; G-REP standardises it (eq. 11)
        return log_ratio(self.shape, self.rate) - self.slope, self.shape.polygamma(1).sqrt()


def _gamma_kl(xp: Any, a: Any, b: Any, a0: Any, b0: Any, out: Any) -> Any:
    shape, rate, shape0, rate0 = stirling.wide(xp, a, b, a0, b0)
    shapes, rates = stirling.log_quotient(xp, shape, shape0), stirling.log_quotient(xp, rate, rate0)
    large = shape0 * exp_remainder(xp, shapes - rates) + 0.5 * exp_remainder(xp, -shapes)
    return into(out, (large + xp.maximum(stirling.remainder_gap(xp, shape0, shape), 0.0)).astype(a.dtype))


def _by_shape(g: Tensor, y: Tensor, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
    # (a - a0) psi'(a) + b0 / b - 1, in which psi'(a) = 1 / a + 1 / (2 a^2) + mu''(a)
    return g * (b0 / b - a0 / a + (a - a0) * (0.5 / (a * a) + a.apply("stirling", order=2)))


def _by_shape0(g: Tensor, y: Tensor, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
    # psi(a0) - psi(a) + log b - log b0, in which psi(a) = log a - peak'(a)
    return g * (log_ratio(a0, a) - log_ratio(b0, b) - (slope(a0) - slope(a)))


rule("gamma_kl", _gamma_kl, (
    _by_shape, lambda g, y, a, b, a0, b0: g * (a0 - a * (b0 / b)) / b,
    _by_shape0, lambda g, y, a, b, a0, b0: g * (a / b - a0 / b0)), (POSITIVE,) * 4,
    kernel="gamma_kl", accepts=stirling.repeated(2, 3))


@closed_form(Gamma, Gamma)
def _kl(q: Gamma, p: Gamma) -> Tensor:
    return q.shape.apply("gamma_kl", q.rate, p.shape, p.rate)
