"""Bernoulli pixels, from logits: log(p / (1 - p)). Nothing is clipped; saturated and infinite logits stay exact.

KL and entropy keep 8 rounding units of their values in both types, and KL is never negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import bounded_difference, closed_form, exp_remainder
from tinyvae.distributions.pixel_rows import pixel_log_prob
from tinyvae.distributions.registry import family, likelihood
from tinyvae.engine.rules import ANY, into, rule, sigmoid, softplus
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


FAR = 1e4  # the sigmoid of minus that is 0 in both types, as at minus infinity, and a product with it is not NaN


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
        # -p log p - (1 - p) log(1 - p), with log p = -softplus(-l)
        l = self.logits.maximum(-FAR).minimum(FAR)
        return (l.sigmoid() * (-l).softplus() + (-l).sigmoid() * l.softplus()).sum(-1)

    def log_density(self, w: Tensor) -> Tensor:
        # A draw w is 0 or 1, so log q(w) is log sigmoid(l) or log sigmoid(-l) = -softplus(l), without the cancellation
        # of w l - log(1 + exp(l)) at large l
        return -((1 - 2 * w) * self.logits).softplus()


# ---- KL --------------------------------------------------------------------------------------------------------------
# q log(q/p) + (1 - q) log((1 - q) / (1 - p)) at q = sigmoid(a), p = sigmoid(b) is, with d = b - a,
#
#     softplus(b) - softplus(a) - q d = log(q exp((1 - q) d) + (1 - q) exp(-q d))
#                                     = log(1 + q R((1 - q) d) + (1 - q) R(-q d)),    R(t) = exp(t) - 1 - t >= 0
#
# for the linear terms of the exponentials cancel. The last form loses no digit and is not negative, but R overflows for
# large d. There the first form serves, at -|a|, where q is at most 1/2 (KL stays as it is when both logits change their
# sign). Its derivatives are q (1 - q) (a - b) by a, and by b
#
#     p - q = tanh(d / 2) (p (1 - q) + q (1 - p))


def _kl_value(xp: Any, a: Any, b: Any, out: Any) -> Any:
    q, rest = sigmoid(xp, a, None), sigmoid(xp, -a, None)
    same = a == b
    zero = xp.zeros_like(same, dtype=a.dtype)
    d = xp.where(same, zero, b) - xp.where(same, zero, a)  # 0 of two infinite logits, too
    near = xp.where(xp.abs(d) < 1, d, zero)
    close = xp.log1p(q * exp_remainder(xp, rest * near) + rest * exp_remainder(xp, -q * near))
    low, other = xp.maximum(-xp.abs(a), -FAR), xp.where(a > 0, -b, b)
    other = xp.where(xp.isinf(other), zero, other)
    wide = softplus(xp, other, None) - softplus(xp, low, None) - sigmoid(xp, low, None) * (other - low)
    wide = xp.where(xp.isinf(b), xp.full_like(zero, np.inf), wide)
    return into(out, xp.where(xp.abs(d) < 1, close, wide))


def _kl_by_q(g: Any, y: Any, a: Any, b: Any) -> Any:
    return g * (a.sigmoid() * (-a).sigmoid() * bounded_difference(a, b))


def _kl_by_p(g: Any, y: Any, a: Any, b: Any) -> Any:
    slope = (0.5 * bounded_difference(b, a)).tanh()
    return g * (slope * (b.sigmoid() * (-a).sigmoid() + a.sigmoid() * (-b).sigmoid()))


rule("bernoulli_kl", _kl_value, (_kl_by_q, _kl_by_p), (ANY, ANY),
     reference=lambda a, b: (np.logaddexp(0, b) - np.logaddexp(0, a) - (b - a) / (1 + np.exp(-a))))


@closed_form(Bernoulli, Bernoulli)
def _kl(q: Bernoulli, p: Bernoulli) -> Tensor:
    return apply("bernoulli_kl", q.logits, p.logits)


def log_prob_of_pixels(logits: Tensor, x: Tensor) -> Tensor:
    """x log p + (1 - x) log(1 - p) of each pixel, for x in [0, 1]."""
    # x log p + (1 - x) log(1 - p) = x l - log(1 + exp(l)) (AEVB appendix C.1), written as
    # (x - [l > 0]) l - log(1 + exp(-|l|)); a certain x costs nothing, also at infinite l
    above = logits > 0
    rest = x - above.cast(logits.dtype)
    linear = rest * logits
    linear = (abs(logits) == np.inf).where((rest == 0).where(0.0, linear), linear)
    return linear - above.where(-logits, logits).softplus()


pixel_log_prob("bernoulli_log_prob", lambda logits, x: log_prob_of_pixels(logits, x).sum(-1), per_pixel=1, flops=9)
