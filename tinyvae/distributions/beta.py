"""The Beta distribution, on (0, 1). A draw is kept as its logit, which is finite however near to 0 or 1 it is.

Its density is z^(a - 1) (1 - z)^(b - 1) / B(a, b) with B(a, b) = Gamma(a) Gamma(b) / Gamma(a + b). Because it
integrates to 1, the derivatives of log B(a, b) by a and b are the means of the logarithms (psi = d log Gamma):

    E[log z] = psi(a) - psi(a + b),    E[log(1 - z)] = psi(b) - psi(a + b)

With log q(z) = (a - 1) log z + (b - 1) log(1 - z) - log B(a, b), they give the entropy and the KL of two Betas, the
case n = 2 of the Dirichlet's (Penny 2001, "KL-divergences of Normal, Gamma, Dirichlet and Wishart densities"):

    H(q) = log B(a, b) - (a - 1) psi(a) - (b - 1) psi(b) + (a + b - 2) psi(a + b)
    KL(q || p) = log B(a0, b0) - log B(a, b) + (a - a0) psi(a) + (b - b0) psi(b) - (a - a0 + b - b0) psi(a + b)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form
from tinyvae.distributions.registry import family
from tinyvae.distributions.rejection import log_gamma
from tinyvae.distributions.stable import UnitTensor
from tinyvae.engine.tensor import Tensor

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
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        total = self.a + self.b
        return self.a / total * (self.b / total) / (total + 1)

    @property
    def log_normaliser(self) -> Tensor:
        """log B(a, b), elementwise; B(a, b) = Gamma(a) Gamma(b) / Gamma(a + b)."""
        return self.a.lgamma() + self.b.lgamma() - (self.a + self.b).lgamma()

    def log_prob(self, x: Tensor) -> Tensor:
        return ((self.a - 1) * x.log() + (self.b - 1) * (1 - x).log() - self.log_normaliser).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        # z = G_a / (G_a + G_b) for two Gamma draws, so logit z = log G_a - log G_b is differentiable along both
        return self.from_stable(log_gamma(self.a, noise, samples) - log_gamma(self.b, noise, samples))

    def entropy(self) -> Tensor:
        a, b = self.a, self.b
        total = a + b
        return (self.log_normaliser - (a - 1) * a.digamma() - (b - 1) * b.digamma()
                + (total - 2) * total.digamma()).sum(-1)

    def to_stable(self, z: Tensor) -> Tensor:
        return z.logit() if isinstance(z, UnitTensor) else z.log() - (1 - z).log()

    def from_stable(self, w: Tensor) -> Tensor:
        return UnitTensor(-(-w).softplus(), -w.softplus())

    def log_density(self, w: Tensor) -> Tensor:
        # dz/dw = z (1 - z), so the density of w = logit z is z^a (1 - z)^b / B(a, b); with z = sigmoid(w),
        # log z = -softplus(-w) and log(1 - z) = -softplus(w)
        return -self.a * (-w).softplus() - self.b * w.softplus() - self.log_normaliser

    def _moments(self) -> tuple[Tensor, Tensor]:
        # log G has the mean psi and the variance psi' (gamma.py), and the logit is the difference of two
        return self.a.digamma() - self.b.digamma(), (self.a.polygamma(1) + self.b.polygamma(1)).sqrt()


@closed_form(Beta, Beta)
def _kl(q: Beta, p: Beta) -> Tensor:
    # E_q[log q(z) - log p(z)], as derived above
    more_a, more_b = q.a - p.a, q.b - p.b
    return (p.log_normaliser - q.log_normaliser + more_a * q.a.digamma() + more_b * q.b.digamma()
            - (more_a + more_b) * (q.a + q.b).digamma())
