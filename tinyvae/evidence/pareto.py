"""Can a mean of importance weights be trusted? The Pareto k of their tail (Vehtari, Simpson, Gelman, Yao & Gabry 2024,
"Pareto smoothed importance sampling").

The largest weights, over a threshold u, are nearly distributed as

    p(w - u > y) = (1 + k y / sigma)^(-1/k),

a generalized Pareto law, whatever the law of all of them is. Its shape k says which moments exist: those of order
below 1/k. From k = 1/2 on the weights have no variance; above 0.7 a mean of any practical number of them is carried by
draws that have not come yet, and neither it nor its standard error or effective sample size says so.
"""

from __future__ import annotations

import math

import numpy as np

LIMIT = 0.7  # a mean is trusted up to this k
SMALLEST = 20  # weights in a tail that says anything: with fewer, the fit is half its prior


def tail_size(samples: int) -> int:
    """How many of the largest weights are fitted: min(K/5, 3 sqrt K), rounded up; 0 if that is too few to tell."""
    size = math.ceil(min(samples / 5, 3 * math.sqrt(samples)))
    return size if size >= SMALLEST else 0


def high(k: np.ndarray) -> np.ndarray:
    """Is k above the limit, or not a number?"""
    return ~(k <= LIMIT)


class Tail:
    """The largest weights of each datum, as they stream by: memory does not grow with their number.

    Parameters
    ----------
    samples
        How many weights a datum there will be.
    batch
        How many data.
    """

    def __init__(self, samples: int, batch: int) -> None:
        self.size = tail_size(samples)
        self.largest = np.full((self.size + 1, batch), -np.inf)  # and the one below them, the threshold

    def add(self, log_w: np.ndarray) -> None:
        """Take in log weights (draws, batch)."""
        if self.size:
            both = np.concatenate([self.largest, log_w])
            self.largest = np.partition(both, -self.size - 1, axis=0)[-self.size - 1 :]

    def shape(self) -> np.ndarray:
        """k of each datum, (batch,); NaN where the weights are too few or not finite, -inf where all are equal."""
        if not self.size:
            return np.full(self.largest.shape[1], np.nan)
        ordered = np.sort(self.largest, axis=0)
        w = np.exp(ordered - ordered[-1])
        return fit(w[1:] - w[0])


@np.errstate(all="ignore")
def fit(y: np.ndarray) -> np.ndarray:
    """k of generalized Pareto laws from draws y >= 0, (count, batch) in rising order; -inf where all are 0.

    Zhang & Stephens 2009, "A new and efficient estimation method for the generalized Pareto distribution". With
    theta = -k / sigma the best k is mean log(1 - theta y), and the likelihood of theta alone

        l(theta) = n (log(-theta / k) - k - 1).

    theta is estimated by its posterior mean over a grid, sum theta_j L(theta_j) / sum L(theta_j), which needs no
    search and is steadier than the maximum. Then k is drawn to 1/2 as if 10 further weights had that shape (Vehtari et
    al. 2024).
    """
    n = len(y)
    count = 30 + int(math.sqrt(n))
    quartile, largest = y[int(n / 4 + 0.5) - 1], y[-1]
    quartile = np.where(quartile > 0, quartile, largest)  # so many ties that there is no other scale
    j = np.arange(1, count + 1)[:, None]
    theta = 1 / largest + (1 - np.sqrt(count / (j - 0.5))) / (3 * quartile)

    def shape_at(t: np.ndarray) -> np.ndarray:
        return np.log1p(-t * y).mean(0)

    k = np.stack([shape_at(t) for t in theta])
    likelihood = np.where(theta == 0, -np.inf, n * (np.log(-theta / k) - k - 1))
    weight = np.exp(likelihood - likelihood.max(0))
    k = shape_at((theta * weight).sum(0) / weight.sum(0))
    return np.where(largest > 0, (n * k + 10 * 0.5) / (n + 10), np.where(largest == 0, -np.inf, np.nan))
