"""Bernoulli pixels, from logits: log(p / (1 - p)). Nothing is clipped; saturated logits stay exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form
from tinyvae.distributions.pixel_rows import pixel_log_prob
from tinyvae.distributions.registry import family, likelihood
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


@likelihood("bernoulli", pixels="binary")
@family("bernoulli")
class Bernoulli(Distribution):
    """x in {0, 1} with p(x = 1) = sigmoid(logits)."""

    support = "binary"

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    parameters = property(lambda self: {"logits": self.logits})

    @classmethod
    def from_raw(cls, raw: Tensor) -> Bernoulli:
        return cls(raw)

    @classmethod
    def width(cls, n: int) -> int:
        return n

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        return np.log(mean / (1 - mean))  # the inverse of the sigmoid

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """p (1 - p), with 1 - p = sigmoid(-l), which is not rounded to 0 at high logits."""
        return self.logits.sigmoid() * (-self.logits).sigmoid()

    def log_prob(self, x: Tensor) -> Tensor:
        return apply("bernoulli_log_prob", self.logits, x)[0]

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        u = noise.uniform((samples, *self.logits.shape), self.logits.dtype)
        return (u < self.mean).cast(self.logits.dtype)

    def entropy(self) -> Tensor:
        # log(1 + exp(l)) - l sigmoid(l); at l = +-inf the product would be inf * 0, where the entropy is 0
        finite = (abs(self.logits) < np.inf).where(self.logits, 0.0)
        term = finite.softplus() - finite * finite.sigmoid()
        return (abs(self.logits) < np.inf).where(term, 0.0).sum(-1)

    def log_density(self, w: Tensor) -> Tensor:
        # A draw w is 0 or 1, so log q(w) is log sigmoid(l) or log sigmoid(-l) = -softplus(l), without the cancellation
        # of w l - log(1 + exp(l)) at large l
        return -((1 - 2 * w) * self.logits).softplus()


@closed_form(Bernoulli, Bernoulli)
def _kl(q: Bernoulli, p: Bernoulli) -> Tensor:
    # q log q/p + (1-q) log (1-q)/(1-p), with log sigmoid(l) = -softplus(-l)
    a, b = q.logits, p.logits
    return a.sigmoid() * ((-b).softplus() - (-a).softplus()) + (-a).sigmoid() * (b.softplus() - a.softplus())


def _log_prob(logits: Tensor, x: Tensor) -> Tensor:
    # x log p + (1 - x) log(1 - p) = x l - log(1 + exp(l)) (AEVB appendix C.1), written as
    # (x - [l > 0]) l - log(1 + exp(-|l|)); a certain x costs nothing, also at infinite l
    above = logits > 0
    rest = x - above.cast(logits.dtype)
    linear = rest * logits
    linear = (abs(logits) == np.inf).where((rest == 0).where(0.0, linear), linear)
    return (linear - above.where(-logits, logits).softplus()).sum(-1)


pixel_log_prob("bernoulli_log_prob", _log_prob, per_pixel=1, flops=9)
