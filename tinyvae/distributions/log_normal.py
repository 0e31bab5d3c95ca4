"""The log-normal distribution: z = exp(w) with w ~ N(mu, sigma^2). A draw is kept as its logarithm w.

dz/dw = z, so log q(z) = log N(w; mu, sigma^2) - w, and the entropy is the normal's plus E[w] = mu. Completing the
square in the integral of exp(t w) N(w; mu, sigma^2) gives E[z^t] = exp(t mu + t^2 sigma^2 / 2), hence

    E[z] = exp(mu + sigma^2 / 2),    Var[z] = E[z^2] - E[z]^2 = (exp(sigma^2) - 1) E[z]^2
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form, kl_per_dimension
from tinyvae.distributions.normal import Normal
from tinyvae.distributions.registry import family
from tinyvae.distributions.stable import LogTensor, replaced, supported, xlogy
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


@family("log-normal", prior=("log-normal", 0.0, 0.0))
class LogNormal(Distribution):
    """log z ~ N(mu, exp(logvar)), elementwise."""

    support = "positive"
    path = "reparam"

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        self.mu, self.logvar = mu, logvar
        self.log_law = Normal(mu, logvar)

    parameters = property(lambda self: {"mu": self.mu, "logvar": self.logvar})

    @classmethod
    def from_raw(cls, raw: Tensor) -> LogNormal:
        return cls(*raw.split(2))

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """E[z] = exp(mu + sigma^2 / 2)."""
        return (self.mu + 0.5 * self.logvar.exp()).exp()

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """(exp(sigma^2) - 1) E[z]^2."""
        return self.logvar.exp().expm1() * self.mean * self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        possible = supported(x)
        inside, one = replaced(x, possible, 1.0), Tensor(namespace_of(x.data).ones((), x.dtype))
        w = inside.log() if isinstance(inside, LogTensor) else xlogy(one, inside)  # no warning at 0
        # At the edge x = 0, w is -inf and -w is infinite, but log N(w) is -inf faster: there the density is 0.
        return possible.where(self.log_density(w) - (w > -math.inf).where(w, 0.0), -math.inf).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        # composition, the third of AEVB's recipes (section 2.4): the exponential of a location-scale draw
        return LogTensor(self.log_law.sample(noise, samples))

    def entropy(self) -> Tensor:
        return self.log_law.entropy() + self.mu.sum(-1)

    def to_stable(self, z: Tensor) -> Tensor:
        return z.log()

    def from_stable(self, w: Tensor) -> Tensor:
        return LogTensor(w)

    def log_density(self, w: Tensor) -> Tensor:
        return self.log_law.log_density(w)

    def _moments(self) -> tuple[Tensor, Tensor]:
        return self.mu, self.log_law.sigma


@closed_form(LogNormal, LogNormal)
def _kl(q: LogNormal, p: LogNormal) -> Tensor:
    # A change of variable leaves a KL as it is: the Jacobian is in both densities and cancels in their ratio.
    return kl_per_dimension(q.log_law, p.log_law)
