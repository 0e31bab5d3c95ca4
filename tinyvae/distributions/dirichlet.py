"""The Dirichlet distribution, on the simplex: n positive numbers that sum to 1. The last axis is one latent vector.

Its density is prod_i z_i^(a_i - 1) / B(a) with B(a) = prod_i Gamma(a_i) / Gamma(s), s = sum_i a_i. Because it
integrates to 1, the derivative of log B by a_i is the mean of log z_i, from which the KL of two Dirichlets follows
(Penny 2001, "KL-divergences of Normal, Gamma, Dirichlet and Wishart densities"; psi = d log Gamma):

    E[log z_i] = psi(a_i) - psi(s)
    KL(q || p) = log B(a0) - log B(a) + sum_i (a_i - a0_i) (psi(a_i) - psi(s))

A draw is kept as its logarithms. Its stable form is the vector of log-ratios, n - 1 free numbers

    y_i = log z_i - log z_n,    i < n

A draw is z = G / sum G with independent Gamma draws G_i, so y_i = log G_i - log G_n, and with gamma.py's moments

    E[y_i] = psi(a_i) - psi(a_n),    Cov[y] = D + c 1 1^T,    D = diag(psi'(a_1), ..., psi'(a_(n-1))),    c = psi'(a_n)

A square root of the covariance, S S^T = Cov[y], is known in closed form: with the vector u = sqrt(c) D^(-1/2) 1,

    S = D^(1/2) (I + k u u^T),    k = 1 / (1 + r),    r = sqrt(1 + |u|^2)
    S^-1 = (I - k/r u u^T) D^(-1/2),    det S = r det D^(1/2)

eps = S^-1 (y - E[y]) has E[eps] = 0 and E[eps eps^T] = I for all parameters, as G-REP asks (section 3.2; the paper
standardises all n logarithms, of which only n - 1 are free). For n = 2 this is the Beta's standardised logit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form
from tinyvae.distributions.registry import family
from tinyvae.distributions.rejection import log_gamma
from tinyvae.distributions.stable import LogTensor
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


class _Root(NamedTuple):
    """The parts of S: D^(1/2) and u, (..., n - 1); r, (..., 1)."""

    sd: Tensor
    u: Tensor
    r: Tensor


@family("dirichlet", prior=("dirichlet", 1.0))  # uniform on the simplex
class Dirichlet(Distribution):
    """z_i > 0, sum_i z_i = 1, with density prod_i z_i^(a_i - 1) / B(a); `concentration` is a, (batch, n)."""

    support = "simplex"
    least = 2  # one number with sum 1 is always 1
    path = "implicit"

    def __init__(self, concentration: Tensor) -> None:
        self.concentration = concentration

    parameters = property(lambda self: {"concentration": self.concentration})

    @classmethod
    def from_raw(cls, raw: Tensor) -> Dirichlet:
        """The concentration by softplus."""
        return cls(raw.softplus())

    @classmethod
    def width(cls, n: int) -> int:
        return n

    @property
    def total(self) -> Tensor:
        """The sum of the concentrations, (batch, 1)."""
        return self.concentration.sum(-1, keepdims=True)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.concentration / self.total

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """Of each element, (batch, n)."""
        return self.mean * ((self.total - self.concentration) / self.total) / (self.total + 1)

    @property
    def log_normaliser(self) -> Tensor:
        """log B(a), (batch,); B(a) = prod_i Gamma(a_i) / Gamma(sum_i a_i)."""
        return self.concentration.lgamma().sum(-1) - self.total.lgamma().sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        return ((self.concentration - 1) * x.log()).sum(-1) - self.log_normaliser

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return _simplex(log_gamma(self.concentration, noise, samples))

    def entropy(self) -> Tensor:
        a, total, n = self.concentration, self.total, self.concentration.shape[-1]
        return (self.log_normaliser + ((total - n) * total.digamma()).sum(-1) - ((a - 1) * a.digamma()).sum(-1))

    def to_stable(self, z: Tensor) -> Tensor:
        log_z = z.log()
        return log_z[..., :-1] - log_z[..., -1:]

    def from_stable(self, w: Tensor) -> Tensor:
        return _simplex(w.concatenate(Tensor(namespace_of(w.data).zeros((*w.shape[:-1], 1), w.dtype)), axis=-1))

    def log_density(self, w: Tensor) -> Tensor:
        # dz_i/dy_j = z_i (1{i = j} - z_j), whose determinant is z_1 ... z_(n-1) (1 - sum_(j<n) z_j) = z_1 ... z_n: it
        # turns the powers a_i - 1 of the density into a_i
        return (self.concentration * self.from_stable(w).log()).sum(-1) - self.log_normaliser

    def standardise(self, w: Tensor) -> Tensor:
        sd, u, r = self._root()
        d = (w - self._location()) / sd
        return d - u * ((u * d).sum(-1, keepdims=True) / (r * (1 + r)))

    def unstandardise(self, eps: Tensor) -> Tensor:
        sd, u, r = self._root()
        return self._location() + sd * (eps + u * ((u * eps).sum(-1, keepdims=True) / (1 + r)))

    def log_scale(self) -> Tensor:
        sd, _, r = self._root()
        return sd.log().sum(-1) + r.log().sum(-1)

    def _location(self) -> Tensor:
        psi = self.concentration.digamma()
        return psi[..., :-1] - psi[..., -1:]

    def _root(self) -> _Root:
        sd = self.concentration.polygamma(1).sqrt()
        first, last = sd[..., :-1], sd[..., -1:]
        u = last / first
        return _Root(first, u, (1 + (u * u).sum(-1, keepdims=True)).sqrt())


def _simplex(free: Tensor) -> LogTensor:
    """exp(free) / sum exp(free), kept as logarithms.

    First the largest number is subtracted. That changes neither value nor derivative, and a logarithm near 0 keeps its
    digits beside others of -10,000.
    """
    return LogTensor((free - free.max(-1, keepdims=True).detach()).log_softmax(-1))


@closed_form(Dirichlet, Dirichlet)
def _kl(q: Dirichlet, p: Dirichlet) -> Tensor:
    # The n numbers are one latent vector, so its KL is one number, (batch, 1).
    more = (q.concentration - p.concentration) * (q.concentration.digamma() - q.total.digamma())
    found = p.log_normaliser - q.log_normaliser + more.sum(-1)
    return found.reshape(*found.shape, 1)
