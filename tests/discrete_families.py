"""The discrete families: two rows of parameters, two others, every value that counts, and a family made wrong."""

import itertools
from typing import NamedTuple

import numpy as np

from tinyvae.distributions import Bernoulli, Categorical, Poisson


class Flipped(Bernoulli):
    """The logit of 0, not of 1."""

    def log_density(self, w):
        return Bernoulli(-self.logits).log_density(w)


class Unnormalised(Categorical):
    """The logits taken for log probabilities."""

    def log_prob(self, x):
        return (self.logits * x).sum(-1)


class WithoutRate(Poisson):
    """exp(-rate) forgotten."""

    def log_density(self, w):
        return super().log_density(w) + self.rate


LOGITS = np.array([[0.0, 2.0, -1.3], [-6.0, 4.0, 0.05]])
OTHERS = np.array([[0.7, -1.0, 0.2], [-1.0, 2.5, 3.0]])
RATES, OTHER_RATES = np.array([[0.3, 2.0, 11.0], [1e-3, 7.5, 25.0]]), np.array([[1.1, 2.01, 9.0], [0.4, 0.01, 24.0]])
BITS = np.array([list(itertools.product([0.0, 1.0], repeat=3))]).swapaxes(0, 1)  # (8, 1, 3)
ONES = np.eye(3)[:, None]  # every one-hot vector, (3, 1, 3)
COUNTS = np.arange(150.0)[:, None, None]  # every count that rates up to 25 have, up to 1e-60


class Discrete(NamedTuple):
    """A family, parameters of two members (2, 3), all values (count, 1, 1 or 3), and the family made wrong."""

    family: type
    parameter: np.ndarray
    other: np.ndarray
    values: np.ndarray
    wrong: type
    units: int = 64  # of the KL divergence


DISCRETE_ROWS = {
    "bernoulli": Discrete(Bernoulli, LOGITS, LOGITS[::-1], np.array([0.0, 1.0])[:, None, None], Flipped, 20),
    "categorical": Discrete(Categorical, LOGITS, OTHERS, ONES, Unnormalised),
    "poisson": Discrete(Poisson, RATES, OTHER_RATES, COUNTS, WithoutRate),
}  # fmt: skip
