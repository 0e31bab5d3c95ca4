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
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form
from tinyvae.distributions.registry import family
from tinyvae.distributions.rejection import log_gamma
from tinyvae.distributions.stable import LogTensor
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
    lgamma = cached_property(lambda self: self.shape.lgamma())
    digamma = cached_property(lambda self: self.shape.digamma())

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.shape / self.rate

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.shape / self.rate**2

    def log_prob(self, x: Tensor) -> Tensor:
        a, b = self.shape, self.rate
        return (a * self.log_rate - self.lgamma + (a - 1) * x.log() - b * x).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return LogTensor(log_gamma(self.shape, noise, samples) - self.log_rate)

    def entropy(self) -> Tensor:
        a = self.shape
        return (a - self.log_rate + self.lgamma + (1 - a) * self.digamma).sum(-1)

    def to_stable(self, z: Tensor) -> Tensor:
        return z.log()

    def from_stable(self, w: Tensor) -> Tensor:
        return LogTensor(w)

    def log_density(self, w: Tensor) -> Tensor:
        # dz/dw = z, so the density of w = log z is z q(z): (a - 1) log z + log z is a w, without cancellation
        u = w + self.log_rate
        return self.shape * u - u.exp() - self.lgamma

    def _moments(self) -> tuple[Tensor, Tensor]:
        # log z is a sufficient statistic; G-REP standardises it (eq. 11)
        return self.digamma - self.log_rate, self.shape.polygamma(1).sqrt()


@closed_form(Gamma, Gamma)
def _kl(q: Gamma, p: Gamma) -> Tensor:
    # (a - a0) psi(a) - log Gamma(a) + log Gamma(a0) + a0 (log b - log b0) + a (b0 / b - 1), as derived above
    a, b, a0, b0 = q.shape, q.rate, p.shape, p.rate
    return (a - a0) * a.digamma() - a.lgamma() + a0.lgamma() + a0 * (b.log() - b0.log()) + a * (b0 / b - 1)
