"""The Beta distribution, on (0, 1). A draw is kept as its logit, which is finite however near to 0 or 1 it is.

Its density is z^(a - 1) (1 - z)^(b - 1) / B(a, b) with B(a, b) = Gamma(a) Gamma(b) / Gamma(a + b). Because it
integrates to 1, the derivatives of log B(a, b) by a and b are the means of the logarithms (psi = d log Gamma):

    E[log z] = psi(a) - psi(a + b),    E[log(1 - z)] = psi(b) - psi(a + b)

It is the Dirichlet distribution of the two numbers z and 1 - z: KL, density and entropy follow as they do there, in the
functions of stirling.py that keep their digits at large a and b.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.dirichlet import Dirichlet
from tinyvae.distributions.divergence import closed_form, kl_per_dimension
from tinyvae.distributions.registry import family
from tinyvae.distributions.rejection import log_gamma
from tinyvae.distributions.stable import LogTensor, UnitTensor, supported, xlogy
from tinyvae.distributions.stirling import deviance, log_ratio, peak, slope
from tinyvae.engine.tensor import Tensor, stack

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


@family("beta", prior=("beta", 1.0, 1.0))  # uniform on (0, 1)
class Beta(Distribution):
    """0 < z < 1 with density z^(a - 1) (1 - z)^(b - 1) / B(a, b), elementwise; Beta(1, 1) is uniform."""

    support = "unit"
    path = "implicit"

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b

    parameters = property(lambda self: {"a": self.a, "b": self.b})

    @classmethod
    def from_raw(cls, raw: Tensor) -> Beta:
        """a in the first half of the last axis, b in the second, both by softplus: a is 1 at 0.54."""
        a, b = raw.split(2)
        return cls(a.softplus(), b.softplus())

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.a / self.total

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.a / self.total * (self.b / self.total) / (self.total + 1)

    total = cached_property(lambda self: self.a + self.b)
    peaks = cached_property(lambda self: peak(self.a) + peak(self.b) - peak(self.total))

    @property
    def log_normaliser(self) -> Tensor:
        """log B(a, b), elementwise; B(a, b) = Gamma(a) Gamma(b) / Gamma(a + b)."""
        return self.a * log_ratio(self.a, self.total) + self.b * log_ratio(self.b, self.total) - self.peaks

    def log_prob(self, x: Tensor) -> Tensor:
        # at 0 and 1 the limit of (a - 1) log x + (b - 1) log(1 - x), of which one is 0 and the other 0 or infinite
        possible = supported(x, most=1.0)
        z = x if isinstance(x, UnitTensor) else possible.where(x, 0.5)
        rest = 1 - z
        limit = xlogy(self.a - 1, z) + xlogy(self.b - 1, rest) - self.log_normaliser
        if isinstance(z, UnitTensor):
            inside, half = abs(z.logit()) < np.inf, -np.log(2.0)
            z = UnitTensor(inside.where(z.log(), half), inside.where(rest.log(), half))
        else:
            inside = z * rest > 0
            z = inside.where(z, 0.5)
        rest = 1 - z
        value = inside.where(self._log_density(z, rest) - z.log() - rest.log(), limit)
        return possible.where(value, -np.inf).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        # z = G_a / (G_a + G_b) for two Gamma draws, so logit z = log G_a - log G_b is differentiable along both
        return self.from_stable(log_gamma(self.a, noise, samples) - log_gamma(self.b, noise, samples))

    def entropy(self) -> Tensor:
        a, b, total = self.a, self.b, self.total
        return (log_ratio(a, total) + log_ratio(b, total) - self.peaks + (a - 1) * slope(a) + (b - 1) * slope(b)
                - (total - 2) * slope(total)).sum(-1)

    def to_stable(self, z: Tensor) -> Tensor:
        return z.logit() if isinstance(z, UnitTensor) else z.log() - (1 - z).log()

    def from_stable(self, w: Tensor) -> Tensor:
        return UnitTensor(-(-w).softplus(), -w.softplus())

    def log_density(self, w: Tensor) -> Tensor:
        # dz/dw = z (1 - z), so the density of w = logit z is z (1 - z) q(z)
        z = self.from_stable(w)
        return self._log_density(z, 1 - z)

    def _log_density(self, z: Tensor, rest: Tensor) -> Tensor:
        """log q(z) + log z + log(1 - z), at z inside (0, 1) and rest = 1 - z."""
        log_total = self.total.log()
        y, y_rest = (LogTensor(part.log() + log_total, part * self.total) for part in (z, rest))
        return self.peaks - deviance(self.a, y) - deviance(self.b, y_rest)

    def _moments(self) -> tuple[Tensor, Tensor]:
        # log G has the mean psi = log a - peak'(a) and the variance psi' (gamma.py); the logit is the difference of two
        a, b = self.a, self.b
        return log_ratio(a, b) - (slope(a) - slope(b)), (a.polygamma(1) + b.polygamma(1)).sqrt()


@closed_form(Beta, Beta)
def _kl(q: Beta, p: Beta) -> Tensor:
    of_two = [Dirichlet(stack([beta.a, beta.b], axis=-1)) for beta in (q, p)]
    return kl_per_dimension(*of_two)[..., 0]
