"""The Dirichlet distribution, on the simplex: n positive numbers that sum to 1. The last axis is one latent vector.

Its density is prod_i z_i^(a_i - 1) / B(a) with B(a) = prod_i Gamma(a_i) / Gamma(s), s = sum_i a_i. Because it
integrates to 1, the derivative of log B by a_i is the mean of log z_i, from which the KL of two Dirichlets follows
(Penny 2001, "KL-divergences of Normal, Gamma, Dirichlet and Wishart densities"; psi = d log Gamma):

    E[log z_i] = psi(a_i) - psi(s)
    KL(q || p) = log B(a0) - log B(a) + sum_i (a_i - a0_i) (psi(a_i) - psi(s))

Independent y_i ~ Gamma(a_i, 1) have a sum ~ Gamma(s, 1), and their density is that of the sum times that of z = y / sum
y. So with `peak` and `deviance` of stirling.py, which keep their digits at large a,

    log q(z) = sum_i (peak(a_i) - deviance(a_i, s z_i) - log z_i) - peak(s)
    H(q)     = sum_i (log m_i - peak(a_i) + (a_i - 1) peak'(a_i)) + peak(s) - (s - n) peak'(s),    m_i = a_i / s

With f(t) = e^t - 1 - t and l_i = log(m_i / m0_i), where m0 = a0 / s0, the large terms of the KL are

    sum_i (a0_i f(l_i) + (1 - m_i) f(log(a0_i / a_i)) / 2 + m_i f(-l_i) / 2)

none of which is negative. What Stirling's remainder adds is sum_i gap(a0_i, a_i) - gap(s0, s), where gap(a0, a) is
mu(a0) - mu(a) - (a0 - a) mu'(a).

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

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyvae.distributions import stirling
from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form, exp_remainder
from tinyvae.distributions.registry import family
from tinyvae.distributions.rejection import log_gamma
from tinyvae.distributions.stable import LogTensor, all_of, is_positive, replaced, supported, xlogy
from tinyvae.distributions.stirling import deviance, log_ratio, peak, slope
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.rules import POSITIVE, into, rule
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
        a, total = self.concentration, self.total
        return (a * log_ratio(a, total)).sum(-1) - self._peaks()

    def log_prob(self, x: Tensor) -> Tensor:
        # where an element is 0: the limit of (a_i - 1) log x_i; NaN if one is -inf and one inf, for then there is none
        possible = all_of(supported(x))
        x = replaced(x, possible, 0.5)
        inside = is_positive(x)
        at_zero = xlogy(self.concentration - 1, x).sum(-1) - self.log_normaliser
        z = replaced(x, inside, 0.5)
        z = z if isinstance(z, LogTensor) else z / z.sum(-1, keepdims=True)  # rounded numbers have another sum than 1
        density = self._log_density(z) - z.log().sum(-1)
        return possible[..., 0].where(all_of(inside)[..., 0].where(density, at_zero), -np.inf)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return _simplex(log_gamma(self.concentration, noise, samples))

    def entropy(self) -> Tensor:
        a, total, n = self.concentration, self.total, self.concentration.shape[-1]
        each = log_ratio(a, total) + (a - 1) * slope(a)
        return each.sum(-1) - self._peaks() - ((total - n) * slope(total)).sum(-1)

    def to_stable(self, z: Tensor) -> Tensor:
        log_z = z.log()
        return log_z[..., :-1] - log_z[..., -1:]

    def from_stable(self, w: Tensor) -> Tensor:
        return _simplex(w.concatenate(Tensor(namespace_of(w.data).zeros((*w.shape[:-1], 1), w.dtype)), axis=-1))

    def log_density(self, w: Tensor) -> Tensor:
        # dz_i/dy_j = z_i (1{i = j} - z_j), whose determinant is z_1 ... z_(n-1) (1 - sum_(j<n) z_j) = z_1 ... z_n: it
        # turns the powers a_i - 1 of the density into a_i
        return self._log_density(self.from_stable(w))

    def _log_density(self, z: Tensor) -> Tensor:
        """log q(z) + sum_i log z_i, (..., batch), at a z inside the simplex."""
        y = LogTensor(z.log() + self.total.log(), z * self.total)
        return self._peaks() - deviance(self.concentration, y).sum(-1)

    def _peaks(self) -> Tensor:
        return peak(self.concentration).sum(-1) - peak(self.total).sum(-1)

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
        # psi(a_i) - psi(a_n), with psi = log a - peak'(a)
        a, down = self.concentration, slope(self.concentration)
        first = a[..., :-1].contiguous()
        last = a[..., -1:].broadcast_to(first.shape).contiguous()
        return log_ratio(first, last) - (down[..., :-1] - down[..., -1:])

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


# 1 - m_i is (s - a_i) / s. Where a_i is nearly the whole sum s, the digits of s - a_i cancel; there the sum of the
# others is taken in its place.


def _dirichlet_kl(xp: Any, a: Any, a0: Any, out: Any) -> Any:
    q, p = stirling.wide(xp, a, a0)
    s, s0 = q.sum(-1, keepdims=True), p.sum(-1, keepdims=True)
    ratio, mean = stirling.log_quotient(xp, q, p), q / s
    means = ratio - stirling.log_quotient(xp, s, s0)
    small = q + q <= s
    others = xp.where(small, s - q, xp.where(small, q, 0.0).sum(-1, keepdims=True))
    halves = others / s * exp_remainder(xp, -ratio) + mean * exp_remainder(xp, -means)
    large = p * exp_remainder(xp, means) + 0.5 * halves
    rest = stirling.remainder_gap(xp, p, q).sum(-1, keepdims=True) - stirling.remainder_gap(xp, s0, s)
    return into(out, (large.sum(-1, keepdims=True) + xp.maximum(rest, 0.0)).astype(a.dtype))


def _sum_and_others(a: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[-1] == 2:  # as a Beta's two numbers: faster, and the same
        return a[..., :1] + a[..., 1:], a[..., ::-1]
    s = a.sum(-1, keepdims=True)
    small = a + a <= s
    return s, small.where(s - a, small.where(a, 0.0).sum(-1, keepdims=True))


def _by_q(g: Tensor, y: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    # (a - a0) psi'(a) - (s - s0) psi'(s), in which psi'(a) = 1 / a + 1 / (2 a^2) + mu''(a), and with r = s - a
    # s0 / s - a0 / a = (a r0 - a0 r) / (a s)
    (s, r), (s0, r0) = _sum_and_others(a), _sum_and_others(a0)
    rest, rest_of_sums = (0.5 / (x * x) + x.apply("stirling", order=2) for x in (a, s))
    large = (r0 - a0 / a * r) / s
    return g * (large + (a - a0) * rest - (s - s0) * rest_of_sums)


def _by_p(g: Tensor, y: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    # psi(a0) - psi(a) - (psi(s0) - psi(s)), in which psi(a) = log a - peak'(a). log(m0 / m) is log(1 + d), where
    # d = (m0 - m) / m = (a0 r - a r0) / (a s0), unless it is near -1
    (s, r), (s0, r0) = _sum_and_others(a), _sum_and_others(a0)
    d = (a0 / a * r - r0) / s0
    close = d > -0.5
    means = close.where(close.where(d, 0.0).log1p(), log_ratio(a0, a) - log_ratio(s0, s))
    return g * (means - (slope(a0) - slope(a)) + (slope(s0) - slope(s)))


# The KL of each vector, (..., 1).
rule("dirichlet_kl", _dirichlet_kl, (_by_q, _by_p), (POSITIVE, POSITIVE), kernel="dirichlet_kl",
     accepts=stirling.repeated(1))


@closed_form(Dirichlet, Dirichlet)
def _kl(q: Dirichlet, p: Dirichlet) -> Tensor:
    # The n numbers are one latent vector, so its KL is one number, (batch, 1).
    return q.concentration.apply("dirichlet_kl", p.concentration)
