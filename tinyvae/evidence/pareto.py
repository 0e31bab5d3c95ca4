"""Is a mean of importance weights reliable? The Pareto k of their tail tells (Vehtari, Simpson, Gelman, Yao & Gabry
2024, "Pareto smoothed importance sampling").

Whatever the law of the weights, those above a large threshold u approximately follow a generalized Pareto law:

    p(w - u > y | w > u) = (1 + k y / sigma)^(-1/k),

The moments of order below 1/k exist. For k >= 1/2 the weights have no variance. For k > 0.7 large weights dominate the
mean that are too rare to be drawn in practice, and neither the mean nor its standard error nor the effective sample
size shows that they are missing.
"""

from __future__ import annotations

import math

import numpy as np

LIMIT = 0.7  # the largest k with which a mean counts as reliable
SMALLEST = 20  # the smallest number of weights that are fitted; with fewer, the prior of the fit has too much weight


def tail_size(samples: int) -> int:
    """How many of the largest weights are fitted: min(K/5, 3 sqrt K), rounded up; 0 if they are too few."""
    size = math.ceil(min(samples / 5, 3 * math.sqrt(samples)))
    return size if size >= SMALLEST else 0


def high(k: np.ndarray) -> np.ndarray:
    """True where k is above the limit or NaN."""
    return ~(k <= LIMIT)


class Tail:
    """The largest weights of each datum, collected in memory that does not grow with the number of weights.

    Parameters
    ----------
    samples
        The number of weights of each datum.
    batch
        The number of data.
    """

    def __init__(self, samples: int, batch: int) -> None:
        self.size = tail_size(samples)
        self.largest = np.full((self.size + 1, batch), -np.inf)  # with the threshold, the next smaller one

    def add(self, log_w: np.ndarray) -> None:
        """Add log weights (draws, batch)."""
        if self.size:
            both = np.concatenate([self.largest, log_w])
            self.largest = np.partition(both, -self.size - 1, axis=0)[-self.size - 1 :]

    def shape(self) -> np.ndarray:
        """k of each datum, (batch,); NaN if the weights are too few or not finite, -inf if all are equal."""
        if not self.size:
            return np.full(self.largest.shape[1], np.nan)
        ordered = np.sort(self.largest, axis=0)
        w = np.exp(ordered - ordered[-1])
        return fit(w[1:] - w[0])


@np.errstate(all="ignore")
def fit(y: np.ndarray) -> np.ndarray:
    """The shapes k of generalized Pareto laws fitted to draws y >= 0, (count, batch) in rising order; -inf if all are
    0.

    Zhang & Stephens 2009, "A new and efficient estimation method for the generalized Pareto distribution". With
    theta = -k / sigma, the most likely k given theta is mean log(1 - theta y), and the profile log likelihood is

        l(theta) = n (log(-theta / k) - k - 1).

    theta is estimated by its posterior mean over a grid, sum_j theta_j exp l(theta_j) / sum_j exp l(theta_j), which
    needs no search and varies less than the maximum. Then k shrinks towards 1/2, the shape of 10 imagined further
    weights: k' = (n k + 10 / 2) / (n + 10) (Vehtari et al. 2024).
    """
    n = len(y)
    count = 30 + int(math.sqrt(n))
    quartile, largest = y[int(n / 4 + 0.5) - 1], y[-1]
    quartile = np.where(quartile > 0, quartile, largest)  # with many ties the largest is the only scale
    j = np.arange(1, count + 1)[:, None]
    theta = 1 / largest + (1 - np.sqrt(count / (j - 0.5))) / (3 * quartile)

    def shape_at(t: np.ndarray) -> np.ndarray:
        return np.log1p(-t * y).mean(0)

    k = np.stack([shape_at(t) for t in theta])
    likelihood = np.where(theta == 0, -np.inf, n * (np.log(-theta / k) - k - 1))
    weight = np.exp(likelihood - likelihood.max(0))
    k = shape_at((theta * weight).sum(0) / weight.sum(0))
    return np.where(largest > 0, (n * k + 10 * 0.5) / (n + 10), np.where(largest == 0, -np.inf, np.nan))
