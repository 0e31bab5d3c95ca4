"""The normal distribution with a full covariance, by its Cholesky factor (Kingma & Welling 2019, section 2.5.1).

z = mu + L eps with eps ~ N(0, I) has the covariance L L^T. L is lower triangular with sigma = exp(logvar / 2) > 0 on
its diagonal. Every covariance matrix has exactly one such factor, and log det L = sum_j log sigma_j. Row by row,

    z_j = mu_j + sum_(k<j) L_jk eps_k + sigma_j eps_j

so, given z_1 .. z_(j-1), the element z_j is normal with variance sigma_j^2: `logvar` holds these conditional variances.
A KL from independent normals keeps 64 rounding units of its value in both types, and no KL here is negative. One from
another full normal solves a triangular system, so what that solution cancels is lost.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form
from tinyvae.distributions.normal import LOG_2PI, Normal
from tinyvae.distributions.registry import family
from tinyvae.distributions.stable import all_of, supported
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.rules import ANY, POSITIVE, rule
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

# ---- triangles -------------------------------------------------------------------------------------------------------


def _strict_lower(xp: Any, a: Any, out: Any, n: int) -> Any:
    out = xp.empty((*a.shape[:-1], n, n), a.dtype) if out is None else out
    out[...] = 0
    for j in range(1, n):
        out[..., j, :j] = a[..., j * (j - 1) // 2 : j * (j + 1) // 2]
    return out


def _below_diagonal(xp: Any, a: Any, out: Any) -> Any:
    n = a.shape[-1]
    out = xp.empty((*a.shape[:-2], n * (n - 1) // 2), a.dtype) if out is None else out
    for j in range(1, n):
        out[..., j * (j - 1) // 2 : j * (j + 1) // 2] = a[..., j, :j]
    return out


# n (n - 1) / 2 numbers as the part of a matrix (..., n, n) below its diagonal, row by row, and back
rule("strict_lower", _strict_lower, (lambda g, y, a, n: g.apply("below_diagonal"),))
rule("below_diagonal", _below_diagonal, (lambda g, y, a: g.apply("strict_lower", n=a.shape[-1]),))


def _solve_lower(xp: Any, factor: Any, b: Any, out: Any, transposed: bool) -> Any:
    # Forward substitution by columns: once x_j is known, L_ij x_j is subtracted from every later equation i. L^T x = b
    # is solved likewise from the last equation to the first. Entries above L's diagonal are not read.
    n = factor.shape[-1]
    x = xp.empty(np.broadcast_shapes(factor.shape[:-1], b.shape), b.dtype) if out is None else out
    x[...] = b
    for j in reversed(range(n)) if transposed else range(n):
        x[..., j] /= factor[..., j, j]
        if transposed:
            x[..., :j] -= factor[..., j, :j] * x[..., j : j + 1]
        else:
            x[..., j + 1 :] -= factor[..., j + 1 :, j] * x[..., j : j + 1]
    return x


def _solve_lower_grads(g: Tensor, x: Tensor, factor: Tensor, b: Tensor, transposed: bool) -> tuple[Tensor, Tensor]:
    # L x = b: dx = L^-1 (db - dL x), so b receives h = L^-T g, and L receives -h x^T where L is not zero;
    # L^T x = b: h = L^-1 g and -x h^T
    h = factor.apply("solve_lower", g, transposed=not transposed)
    left, right = (x, h) if transposed else (h, x)
    n = x.shape[-1]
    outer = left.reshape(*x.shape, 1) * right.reshape(*x.shape[:-1], 1, n)
    return Tensor(namespace_of(outer.data).tri(n, dtype=bool)).where(-outer, 0.0), h


# L^-1 b of vectors b (..., n) and lower triangular L (..., n, n), or L^-T b
rule("solve_lower", _solve_lower, _solve_lower_grads, (POSITIVE, ANY))


# ---- the family ------------------------------------------------------------------------------------------------------


@family("full-normal", prior=("normal", 0.0, 0.0))
class FullNormal(Distribution):
    """N(mu, L L^T), with mu (batch, n), logvar (batch, n) and lower (batch, n (n - 1) / 2).

    `logvar` is the logarithm of the squares on L's diagonal, `lower` holds the numbers below it, row by row. What
    divides by L needs a sigma that does not underflow: a logvar above -170 in float32, above -1400 in float64.
    """

    path = "reparam"

    def __init__(self, mu: Tensor, logvar: Tensor, lower: Tensor) -> None:
        n = mu.shape[-1]
        if lower.shape[-1] != n * (n - 1) // 2:
            raise ValueError(f"found {lower.shape[-1]} numbers below the diagonal of {n} x {n}; expected "
                             f"{n * (n - 1) // 2}")
        self.mu, self.logvar, self.lower = mu, logvar, lower
        self.mean = mu

    parameters = property(lambda self: {"mu": self.mu, "logvar": self.logvar, "lower": self.lower})

    @classmethod
    def from_raw(cls, raw: Tensor) -> FullNormal:
        """mu, logvar and lower side by side."""
        n = (math.isqrt(9 + 8 * raw.shape[-1]) - 3) // 2
        if n < 1 or cls.width(n) != raw.shape[-1]:
            raise ValueError(f"found {raw.shape[-1]} numbers; expected {cls.width(n)} for {n} dimensions, "
                             f"{cls.width(n + 1)} for {n + 1}")
        return cls(raw[..., :n], raw[..., n : 2 * n], raw[..., 2 * n :])

    @classmethod
    def width(cls, n: int) -> int:
        return 2 * n + n * (n - 1) // 2

    @property
    def factor(self) -> Tensor:
        """L, (batch, n, n)."""
        n = self.mu.shape[-1]
        sigma = (0.5 * self.logvar).exp()
        diagonal = Tensor(namespace_of(sigma.data).eye(n, dtype=bool)).where(sigma.reshape(*sigma.shape, 1), 0.0)
        return apply("strict_lower", self.lower, n=n) + diagonal

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """Of each element by itself, the diagonal of L L^T: (batch, n)."""
        return (self.factor**2).sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        # x = mu + L eps, so log p(x) = log N(eps; 0, I) - log det L, and log det L is the sum of logvar / 2
        # At an infinite x the derivatives have no limit that is the same from all sides; there they are 0.
        possible = all_of(supported(x, -math.inf))
        eps = self.standardise(possible.where(x, 0.0))
        return possible[..., 0].where((-0.5 * (LOG_2PI + self.logvar + eps * eps)).sum(-1), -math.inf)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return self.unstandardise(noise.normal((samples, *self.mu.shape), self.mu.dtype))

    def entropy(self) -> Tensor:
        return (0.5 * (LOG_2PI + 1 + self.logvar)).sum(-1)

    def standardise(self, w: Tensor) -> Tensor:
        return self.factor.apply("solve_lower", w - self.mu, transposed=False)

    def unstandardise(self, eps: Tensor) -> Tensor:
        return self.mu + (self.factor @ eps.reshape(*eps.shape, 1)).reshape(eps.shape)

    def log_scale(self) -> Tensor:
        return (0.5 * self.logvar).sum(-1)


@closed_form(FullNormal, Normal)
def _kl(q: FullNormal, p: Normal) -> Tensor:
    # By the chain rule, KL(q || p) is the sum over j of E[KL(q(z_j | z_1 .. z_(j-1)) || p(z_j))], with p_j = N(m, s^2).
    # The conditional has the variance L_jj^2 and the mean mu_j + sum_(k<j) L_jk eps_k, whose mean squared distance to m
    # is (mu_j - m)^2 + sum_(k<j) L_jk^2. So with the KL of two normals (normal.py) and t = log(L_jj^2 / s^2) element j
    # contributes 1/2 ((exp(t) - 1 - t) + sum_(k<j) L_jk^2 / s^2 + (mu_j - m)^2 / s^2), no term of which is negative.
    z, log_s = p.standardise(q.mu), 0.5 * p.logvar
    below = apply("strict_lower", q.lower, n=q.mu.shape[-1]).apply("over_exp", log_s.reshape(*log_s.shape, 1))
    return 0.5 * ((q.logvar - p.logvar).apply("exp_remainder") + (below * below).sum(-1) + z * z)


@closed_form(FullNormal, FullNormal)
def _kl_full(q: FullNormal, p: FullNormal) -> Tensor:
    # A change of variable leaves a KL as it is. In eps = L_p^-1 (z - mu_p), p is N(0, I) and q is normal with the mean
    # d = L_p^-1 (mu_q - mu_p) and the factor M = L_p^-1 L_q, which is solved column by column; then as above. Row k of
    # m is column k of M, of which the elements j > k lie below the diagonal.
    factor = q.factor
    columns = factor.transpose((factor.ndim - 1, *range(factor.ndim - 1)))
    m = p.factor.apply("solve_lower", columns, transposed=False)
    d, n = p.standardise(q.mu), q.mu.shape[-1]
    xp = namespace_of(m.data)
    below = m * Tensor(xp.triu(xp.ones((n, n), m.dtype), 1).reshape(n, *[1] * (m.ndim - 2), n))
    return 0.5 * ((q.logvar - p.logvar).apply("exp_remainder") + (below * below).sum(0) + d * d)
