"""A Bayesian mixture of Gaussians: the example of Blei, Kucukelbir & McAuliffe 2017, sections 2.1 and 3.1, for vectors.

    mu_k ~ N(0, v I),    c_i ~ Categorical(1/K, ..., 1/K),    x_i | c_i, mu ~ N(mu_{c_i}, I)

The exact posterior sums over all K^n assignments c. The mean-field q is prod_k N(mu_k; m_k, s_k I) prod_i
Categorical(c_i; phi_i), and coordinate ascent has the two steps, for x of d dimensions,

    phi_ik proportional to exp(x_i m_k - (d s_k + m_k^2) / 2)                      (their eq. 26)
    1/s_k = 1/v + sum_i phi_ik,    m_k = s_k sum_i phi_ik x_i                      (their eq. 34)

The natural parameters of N(m_k, s_k I) are m_k / s_k and 1 / s_k, the ones in which a step is made.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinyvae.choices import whole
from tinyvae.engine import noise

LOG_2PI = math.log(2 * math.pi)


class Means(NamedTuple):
    """q of the means: N(mean_k, variance_k I)."""

    mean: np.ndarray  # (K, d)
    variance: np.ndarray  # (K,)


class GaussianMixture:
    """The mixture of K Gaussians with the variance 1 for data x (n, d), and the prior N(0, prior_variance I)."""

    def __init__(self, x: Any, components: int, prior_variance: float = 25.0) -> None:
        self.x, self.components = np.asarray(x, np.float64), whole("components", components, 1)
        if self.x.ndim != 2 or 0 in self.x.shape or not np.isfinite(self.x).all():
            raise ValueError(f"found data of shape {self.x.shape}; expected finite numbers (n, d)")
        if not 0 < prior_variance < math.inf:
            raise ValueError(f"found prior_variance={prior_variance}; expected a finite number above 0")
        self.prior_variance = float(prior_variance)

    def __len__(self) -> int:
        return len(self.x)

    def start(self, seed: int) -> Means:
        """Means at K data, drawn without repetition as long as there are enough."""
        order = noise.permutation(seed, "mixture-start", 0, len(self.x))
        return Means(self.x[order[np.arange(self.components) % len(order)]].copy(), np.ones(self.components))

    def responsibilities(self, q: Means, rows: Any = slice(None)) -> np.ndarray:
        """phi (rows, K): the best q(c_i) of these data, given q of the means."""
        d = self.x.shape[1]
        logits = self.x[rows] @ q.mean.T - 0.5 * (d * q.variance + (q.mean**2).sum(1))
        phi = np.exp(logits - logits.max(1, keepdims=True))
        return phi / phi.sum(1, keepdims=True)

    def step(self, q: Means, rows: Any = slice(None), rate: float = 1.0) -> Means:
        """The best q(c_i) of the rows, and then a step of length `rate` of q(mu)."""
        return self.move(q, self.responsibilities(q, rows), rows, rate)

    def move(self, q: Means, phi: np.ndarray, rows: Any = slice(None), rate: float = 1.0) -> Means:
        """A step of q(mu) by phi (rows, K), which stand for all n data."""
        weight = len(self.x) / len(phi)
        precision = (1 - rate) / q.variance + rate * (1 / self.prior_variance + weight * phi.sum(0))
        shifted = (1 - rate) * q.mean / q.variance[:, None] + rate * weight * (phi.T @ self.x[rows])
        return Means(shifted / precision[:, None], 1 / precision)

    def elbo(self, q: Means, phi: np.ndarray | None = None) -> float:
        """E_q[log p(mu, c, x)] + H[q] in nats (their eq. 21); phi (n, K) is by default the best one."""
        phi = self.responsibilities(q) if phi is None else phi
        (n, d), v, square = self.x.shape, self.prior_variance, (q.mean**2).sum(1)
        log_p_means = -0.5 * (d * (LOG_2PI + math.log(v)) + (d * q.variance + square) / v).sum()
        distance = ((self.x[:, None] - q.mean) ** 2).sum(-1) + d * q.variance  # E[|x_i - mu_k|^2], (n, K)
        log_p_data = -n * math.log(self.components) - 0.5 * (phi * (d * LOG_2PI + distance)).sum()
        entropy = 0.5 * d * (LOG_2PI + 1 + np.log(q.variance)).sum() - _xlogx(phi).sum()
        return float(log_p_means + log_p_data + entropy)


def _xlogx(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))
