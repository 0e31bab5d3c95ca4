"""Conjugate pairs: priors for which Bayes' theorem is an addition.

    p(theta | x) = p(x | theta) p(theta) / p(x)

If the prior has the form of the likelihood as a function of theta, so has the posterior, and data only add to its
parameters. So a posterior is the prior of the next datum: updating with x and then with y gives what updating with both
gives, in any order. Each class here is such a distribution of theta, whose `update` returns one of the same class.

    beta-Bernoulli   p(theta) = Beta(a, b),      x ~ Bernoulli(theta)    a + ones,   b + zeros
    gamma-Poisson    p(theta) = Gamma(a, b),     x ~ Poisson(theta)      a + sum x,  b + n
    normal-normal    p(theta) = N(m, v),         x ~ N(theta, s^2)       1/v + n/s^2,  (m/v + sum x / s^2) times that v

The evidence p(x) is the quotient p(x | theta) p(theta) / p(theta | x), in which theta cancels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tinyvae.distributions import Beta, Distribution, Gamma, Normal
from tinyvae.engine.tensor import Tensor

LOG_2PI = math.log(2 * math.pi)


class Conjugate(ABC):
    """A distribution of theta, with the likelihood of which it is the conjugate prior."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, (bool, str)) or not (np.isfinite(value) and (value > 0 or name == "mean")):
                raise ValueError(f"found {name}={value!r} of a {type(self).__name__}; expected a finite number"
                                 f"{' above 0' * (name != 'mean')}")

    @abstractmethod
    def update(self, x: Any) -> Self:
        """p(theta | x) for data x, a number or an array of independent ones."""

    @abstractmethod
    def log_evidence(self, x: Any) -> float:
        """log p(x) in nats, of all data together."""

    @property
    @abstractmethod
    def law(self) -> Distribution:
        """This distribution of theta as one of `tv.distributions`, with parameters (1,)."""


@dataclass(frozen=True)
class BetaBernoulli(Conjugate):
    """theta ~ Beta(a, b), the probability of a one; data are 0 and 1."""

    a: float = 1.0
    b: float = 1.0

    def update(self, x: Any) -> BetaBernoulli:
        ones, zeros = self._counts(x)
        return BetaBernoulli(self.a + ones, self.b + zeros)

    def log_evidence(self, x: Any) -> float:
        # prod_i p(x_i | theta) = theta^ones (1 - theta)^zeros, whose integral with the prior is a beta function
        after = self.update(x)
        return _log_beta(after.a, after.b) - _log_beta(self.a, self.b)

    @property
    def law(self) -> Beta:
        return Beta(_vector(self.a), _vector(self.b))

    def _counts(self, x: Any) -> tuple[int, int]:
        x = _data(x)
        if not np.isin(x, (0, 1)).all():
            raise ValueError(f"found the datum {x[~np.isin(x, (0, 1))][0]:g} of a Bernoulli; expected 0 and 1")
        return int(x.sum()), int((1 - x).sum())


@dataclass(frozen=True)
class GammaPoisson(Conjugate):
    """theta ~ Gamma(shape, rate), the expected count; data are counts."""

    shape: float = 1.0
    rate: float = 1.0

    def update(self, x: Any) -> GammaPoisson:
        x = self._checked(x)
        return GammaPoisson(self.shape + float(x.sum()), self.rate + len(x))

    def log_evidence(self, x: Any) -> float:
        # prod_i theta^x_i exp(-theta) / x_i!, whose integral with the prior is a gamma function
        after = self.update(x)
        each = sum(math.lgamma(count + 1) for count in self._checked(x))
        return (math.lgamma(after.shape) - after.shape * math.log(after.rate)
                - math.lgamma(self.shape) + self.shape * math.log(self.rate) - each)

    @property
    def law(self) -> Gamma:
        return Gamma(_vector(self.shape), _vector(self.rate))

    def _checked(self, x: Any) -> np.ndarray:
        x = _data(x)
        wrong = (x < 0) | (x != np.floor(x))
        if wrong.any():
            raise ValueError(f"found the datum {x[wrong][0]:g} of a Poisson distribution; expected counts 0, 1, 2, ...")
        return x


@dataclass(frozen=True)
class NormalNormal(Conjugate):
    """theta ~ N(mean, variance); data are theta and noise of the variance `noise`, N(theta, noise)."""

    mean: float = 0.0
    variance: float = 1.0
    noise: float = 1.0

    def update(self, x: Any) -> NormalNormal:
        x = _data(x)
        precision = 1 / self.variance + len(x) / self.noise  # precisions add
        mean = (self.mean / self.variance + float(x.sum()) / self.noise) / precision  # weighted by them
        return NormalNormal(mean, 1 / precision, self.noise)

    def log_evidence(self, x: Any) -> float:
        total, before = 0.0, self
        for datum in _data(x):  # p(x_1) p(x_2 | x_1) ...: each is N(mean, variance + noise) of the posterior so far
            spread = before.variance + self.noise
            total -= 0.5 * (LOG_2PI + math.log(spread) + (datum - before.mean) ** 2 / spread)
            before = before.update(datum)
        return total

    @property
    def law(self) -> Normal:
        return Normal(_vector(self.mean), _vector(math.log(self.variance)))


def _data(x: Any) -> np.ndarray:
    """Data as (n,) float64; ValueError for one that is no finite number."""
    try:
        found = np.asarray(x, np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise ValueError(f"found the data {x!r:.60}; expected numbers") from None
    if not np.isfinite(found).all():
        raise ValueError(f"found the datum {found[~np.isfinite(found)][0]}; expected finite numbers: leave missing "
                         "ones out")
    return found


def _vector(value: float) -> Tensor:
    return Tensor(np.array([value], np.float64))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
