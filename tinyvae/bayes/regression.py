"""Bayesian linear regression whose noise is not known, by mean-field variational inference.

    w ~ N(0, v I),    tau ~ Gamma(a0, b0),    y_i | w, tau ~ N(x_i w, 1 / tau)

Given tau, w is normal; given w, tau is a Gamma; together they are neither. The mean-field q(w) q(tau) = N(m, S)
Gamma(a, b) has the coordinate steps

    S^-1 = I / v + E[tau] X'X,    S^-1 m = E[tau] X'y,    E[tau] = a / b
    a = a0 + n / 2,    b = b0 + E|y - X w|^2 / 2 = b0 + (|y - X m|^2 + tr(X'X S)) / 2

because log p(w, tau, y) is quadratic in w, and a log tau - b tau in tau, with these coefficients in the mean. They are
sums over data, so a batch of data times n / B gives the stochastic step in the natural parameters S^-1 m, S^-1, a, b.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

LOG_2PI = math.log(2 * math.pi)


class Weights(NamedTuple):
    """q(w) = N(mean, covariance) and q(tau) = Gamma(shape, rate)."""

    mean: np.ndarray  # (d,)
    covariance: np.ndarray  # (d, d)
    shape: float
    rate: float

    @property
    def precision(self) -> float:
        """E[tau]."""
        return self.shape / self.rate


class LinearRegression:
    """Regression of y (n,) on x (n, d); a column of ones makes an offset.

    Parameters
    ----------
    prior_variance
        v, of each weight.
    shape, rate
        a0 and b0, of the prior of the noise's precision tau.
    """

    def __init__(self, x: Any, y: Any, prior_variance: float = 1.0, shape: float = 1.0, rate: float = 1.0) -> None:
        self.x, self.y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if self.x.ndim != 2 or 0 in self.x.shape or self.y.shape != self.x.shape[:1]:
            raise ValueError(f"found x of shape {self.x.shape} and y of shape {self.y.shape}; expected (n, d) and (n,)")
        if not (np.isfinite(self.x).all() and np.isfinite(self.y).all()):
            raise ValueError("found NaN or infinite numbers in x or y; expected finite ones")
        for name, value in (("prior_variance", prior_variance), ("shape", shape), ("rate", rate)):
            if not 0 < value < math.inf:
                raise ValueError(f"found {name}={value}; expected a finite number above 0")
        self.prior_variance, self.shape, self.rate = float(prior_variance), float(shape), float(rate)

    def __len__(self) -> int:
        return len(self.x)

    def start(self, seed: int) -> Weights:
        """The prior, whatever the seed is: the ELBO has one optimum here."""
        d = self.x.shape[1]
        return Weights(np.zeros(d), self.prior_variance * np.eye(d), self.shape, self.rate)

    def step(self, q: Weights, rows: Any = slice(None), rate: float = 1.0) -> Weights:
        """A step of q(w) and then one of q(tau), each of length `rate`, by the rows, which stand for all data."""
        return self.move_precision(self.move_weights(q, rows, rate), rows, rate)

    def move_weights(self, q: Weights, rows: Any = slice(None), rate: float = 1.0) -> Weights:
        """A step of q(w)."""
        x, y = self.x[rows], self.y[rows]
        seen, prior = len(self.x) / len(x) * q.precision, np.eye(x.shape[1]) / self.prior_variance
        old = np.linalg.inv(q.covariance)
        inverse = (1 - rate) * old + rate * (prior + seen * (x.T @ x))
        shifted = (1 - rate) * (old @ q.mean) + rate * seen * (x.T @ y)
        return q._replace(mean=np.linalg.solve(inverse, shifted), covariance=np.linalg.inv(inverse))

    def move_precision(self, q: Weights, rows: Any = slice(None), rate: float = 1.0) -> Weights:
        """A step of q(tau)."""
        error = len(self.x) / len(self.x[rows]) * self.expected_error(q, rows)
        return q._replace(shape=(1 - rate) * q.shape + rate * (self.shape + len(self.x) / 2),
                          rate=(1 - rate) * q.rate + rate * (self.rate + error / 2))

    def expected_error(self, q: Weights, rows: Any = slice(None)) -> float:
        """E_q |y - x w|^2 of the rows."""
        x, y = self.x[rows], self.y[rows]
        return float(((y - x @ q.mean) ** 2).sum() + np.einsum("ni,ij,nj->", x, q.covariance, x))

    def elbo(self, q: Weights) -> float:
        """E_q[log p(w, tau, y)] + H[q] in nats."""
        from scipy.special import digamma

        (n, d), v = self.x.shape, self.prior_variance
        log_tau = float(digamma(q.shape)) - math.log(q.rate)  # E[log tau]
        log_p_y = 0.5 * n * (log_tau - LOG_2PI) - 0.5 * q.precision * self.expected_error(q)
        log_p_w = -0.5 * d * (LOG_2PI + math.log(v)) - (q.mean @ q.mean + np.trace(q.covariance)) / (2 * v)
        log_p_tau = (self.shape * math.log(self.rate) - math.lgamma(self.shape) + (self.shape - 1) * log_tau
                     - self.rate * q.precision)
        entropy_w = 0.5 * (d * (LOG_2PI + 1) + np.linalg.slogdet(q.covariance)[1])
        entropy_tau = (q.shape - math.log(q.rate) + math.lgamma(q.shape) + (1 - q.shape) * float(digamma(q.shape)))
        return float(log_p_y + log_p_w + log_p_tau + entropy_w + entropy_tau)
