"""A mixture of K distributions of one family, each with the same weight:

    p(z) = 1/K sum_k p_k(z),    log p(z) = logsumexp_k log p_k(z) - log K

A normal p_k(z) needs the distance sum_j (z_j - m_kj)^2 / s_kj^2 for every z and k. With a_kj = 1 / s_kj^2 it is

    sum_j z_j^2 a_kj - 2 sum_j z_j a_kj m_kj + sum_j a_kj m_kj^2,

three products of matrices in place of (rows, K, n) numbers. The three cancel where z is near m_k, so the row
`scaled_distances` computes them in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.normal import LOG_2PI, Normal
from tinyvae.engine.rules import ANY, into, rule
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


class Mixture(Distribution):
    """1/K sum_k p_k, where `components` has the parameters of p_1 to p_K as its rows, (K, n)."""

    def __init__(self, components: Distribution) -> None:
        self.components = components
        self.support = components.support  # type: ignore[misc]

    def map(self, f: Callable[[Tensor], Tensor]) -> Mixture:
        return type(self)(self.components.map(f))

    def log_prob(self, x: Tensor) -> Tensor:
        if not isinstance(self.components, Normal):
            return self._mixed(self.components.log_prob, x)
        q, rows = self.components, x.reshape(-1, x.shape[-1])
        distances = apply("scaled_distances", rows, q.mu, q.logvar)  # (rows, K)
        each = -0.5 * (distances + (LOG_2PI + q.logvar).sum(-1))
        return (each.logsumexp(-1) - math.log(each.shape[-1])).reshape(*x.shape[:-1])

    def log_density(self, w: Tensor) -> Tensor:
        if self.support == "real":
            return self.log_prob(w)
        return self._mixed(lambda w: _of_vectors(self.components.log_density(w), w), w)

    @staticmethod
    def _mixed(density: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        each = density(x.reshape(*x.shape[:-1], 1, x.shape[-1]))  # (..., K)
        return each.logsumexp(-1) - math.log(each.shape[-1])

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        """Draws (samples, n), which no gradient passes: a draw jumps where another component is chosen."""
        share = noise.uniform((samples,), np.float64).data
        k = (share * len(self.components.mean)).astype(np.int64)
        chosen = self.components.map(lambda parameter: Tensor(parameter.data[k]))
        return chosen.sample(noise, 1)[0]

    def to_stable(self, z: Tensor) -> Tensor:
        return self.components.to_stable(z)

    def from_stable(self, w: Tensor) -> Tensor:
        return self.components.from_stable(w)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.components.mean.mean(0)

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """The mean variance of the components, and the variance of their means."""
        away = self.components.mean - self.mean
        return (self.components.variance + away * away).mean(0)


def _of_vectors(each: Tensor, w: Tensor) -> Tensor:
    """The log density of vectors, where a family gives it element by element."""
    return each.sum(-1) if each.ndim == w.ndim else each


def _scaled_distances(xp: Any, z: Any, m: Any, logvar: Any, out: Any) -> Any:
    z, m, a = z.astype(np.float64), m.astype(np.float64), xp.exp(-logvar.astype(np.float64))
    found = (z * z) @ a.T - 2 * (z @ (a * m).T) + (a * m * m).sum(1)
    return into(out, xp.maximum(found, 0).astype(logvar.dtype))


def _by_logvar(g: Tensor, y: Tensor, z: Tensor, m: Tensor, logvar: Tensor) -> Tensor:
    return -(-logvar).exp() * (g.T @ (z * z) - 2 * m * (g.T @ z) + g.sum(0).reshape(-1, 1) * m * m)


# sum_j (z_ij - m_kj)^2 exp(-logvar_kj), (rows, K), of z (rows, n), m and logvar (K, n)
rule("scaled_distances", _scaled_distances,
     (lambda g, y, z, m, logvar: 2 * (z * (g @ (-logvar).exp()) - g @ ((-logvar).exp() * m)),
      lambda g, y, z, m, logvar: 2 * (-logvar).exp() * (g.sum(0).reshape(-1, 1) * m - g.T @ z),
      _by_logvar), (ANY, ANY, ANY),
     flops=lambda y, z, m, logvar: 4 * z.size * len(m))
