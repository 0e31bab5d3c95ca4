"""The categorical distribution over the last axis, from logits. A draw is one-hot: 1 in its place, 0 elsewhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form
from tinyvae.distributions.registry import family
from tinyvae.engine.devices import read
from tinyvae.engine.noise import open_unit, philox, stream_number
from tinyvae.engine.rules import ANY, INDEX, into, rule
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


def _categorical(xp: Any, logits: Any, counters: Any, out: Any, seed: int, stream: str, site: int, samples: int) -> Any:
    # A draw inverts the distribution function: it is the first category k with p_1 + ... + p_k > u, for one uniform
    # number u of 52 bits (the Gumbel-max trick would take one for each category). A category without mass is never the
    # first. The masses are not normalised: u times their sum is compared.
    *batch, n = logits.shape
    wide = logits.astype(xp.float64)
    mass = xp.cumsum(xp.exp(wide - xp.amax(wide, axis=-1, keepdims=True)), axis=-1)
    index = xp.arange(samples * math.prod(batch), dtype=xp.uint64).reshape(samples, *batch, 1)
    u = open_unit(*philox((index, site, read(counters[0]), 0), (seed, stream_number(stream)), xp)[:2])
    place = (mass <= u * mass[..., -1:]).sum(axis=-1, keepdims=True)
    # The largest mass is exp(0) = 1. The sum is below 1 only where all logits are -inf or one is NaN or +inf: no draw.
    return into(out, xp.where(mass[..., -1:] >= 1, xp.arange(n) == place, xp.nan).astype(logits.dtype))


# one-hot draws (samples, *logits) of the step that `counters` holds; no derivative goes through a choice
rule("categorical", _categorical, (None, None), (ANY, INDEX))


@family("categorical")
class Categorical(Distribution):
    """One-hot x (batch, n) with p(x_k = 1) = exp(l_k) / sum_j exp(l_j).

    The n numbers of the last axis are one variable: log_prob, entropy and KL are of all of them together. A logit of
    -inf makes a category impossible: it is never drawn, its log_prob is -inf, and its gradient is 0.
    """

    support = "one-hot"
    least = 2  # one category is always drawn

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    parameters = property(lambda self: {"logits": self.logits})

    @classmethod
    def from_raw(cls, raw: Tensor) -> Categorical:
        return cls(raw)

    @classmethod
    def width(cls, n: int) -> int:
        return n

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """The probabilities, (batch, n)."""
        return self.logits.log_softmax().exp()

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        p = self.mean
        return p * (1 - p)

    def log_prob(self, x: Tensor) -> Tensor:
        # sum_k x_k log p_k over the categories with x_k = 1: of the others log p_k may be -inf, and 0 times -inf is NaN
        return ((x == 0).where(0.0, self.logits.log_softmax()) * x).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return noise.draw("categorical", self.logits, samples=samples)

    def entropy(self) -> Tensor:
        log_p = self.logits.log_softmax()
        return -(log_p.exp() * _finite(log_p).where(log_p, 0.0)).sum(-1)  # 0 log 0 = 0


@closed_form(Categorical, Categorical)
def _kl(q: Categorical, p: Categorical) -> Tensor:
    # sum_k q_k log(q_k / p_k), one number for the one variable, (batch, 1); a category impossible under q adds 0
    log_q, log_p = q.logits.log_softmax(), p.logits.log_softmax()
    ratio = _finite(log_q).where(log_q, 0.0) - _finite(log_q).where(log_p, 0.0)
    return (log_q.exp() * ratio).sum(-1, keepdims=True)


def _finite(log_p: Tensor) -> Tensor:
    return abs(log_p) < math.inf
