"""The categorical distribution over the last axis, from logits. A draw is one-hot: 1 in its place, 0 elsewhere.

A KL keeps 128 rounding units of its value in both types, for logits within 60 of each other, and is never negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form, exp_remainder
from tinyvae.distributions.registry import family
from tinyvae.engine.devices import read
from tinyvae.engine.noise import Window, open_unit, philox, places, stream_number
from tinyvae.engine.rules import ANY, INDEX, into, log_softmax, logsumexp, rule
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


def _categorical(xp: Any, logits: Any, counters: Any, out: Any, seed: int, stream: str, site: int, samples: int,
                 rows: Window | None = None) -> Any:
    # A draw inverts the distribution function: it is the first category k with p_1 + ... + p_k > u, for one uniform
    # number u of 52 bits (the Gumbel-max trick would take one for each category). A category without mass is never the
    # first. The masses are not normalised: u times their sum is compared.
    *batch, n = logits.shape
    wide = logits.astype(xp.float64)
    top = xp.amax(wide, axis=-1, keepdims=True)
    likeliest, zero = wide == top, xp.zeros_like(wide)
    mass = xp.cumsum(xp.exp(xp.where(likeliest, zero, wide) - xp.where(likeliest, zero, top)), axis=-1)
    index = places((samples, *batch, 1), rows, xp)
    u = open_unit(*philox((index, site, read(counters[0]), 0), (seed, stream_number(stream)), xp)[:2])
    place = (mass <= u * mass[..., -1:]).sum(axis=-1, keepdims=True)
    # where all logits are -inf or one is NaN, there is no draw
    return into(out, xp.where(top > -xp.inf, xp.arange(n) == place, xp.nan).astype(logits.dtype))


# one-hot draws (samples, *logits) of the step that `counters` holds; no derivative goes through a choice
rule("categorical", _categorical, (None, None), (ANY, INDEX))


@family("categorical")
class Categorical(Distribution):
    """One-hot x (batch, n) with p(x_k = 1) = exp(l_k) / sum_j exp(l_j).

    The n numbers of the last axis are one variable: log_prob, entropy and KL are of all of them together. A logit of
    -inf makes a category impossible: it is never drawn, its log_prob is -inf, and its gradient is 0. A logit of inf
    makes it certain (several share the certainty). Nothing but -inf is no distribution: then all is NaN.
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
        return -(log_p.exp() * (abs(log_p) < math.inf).where(log_p, 0.0)).sum(-1)  # 0 log 0 = 0


# ---- KL --------------------------------------------------------------------------------------------------------------
# sum_k q_k log(q_k / p_k) is, since the p_k and the q_k have the same sum, the sum of
#
#     p_k - q_k - q_k t_k = q_k R(t_k),    t_k = log(p_k / q_k),    R(t) = exp(t) - 1 - t >= 0
#
# none of which is negative; a category that is impossible under q contributes p_k. With d_k = b_k - a_k and d the d_k
# of the likeliest category under q, t_k = d_k - d - log(1 + sum_k q_k (exp(d_k - d) - 1)), whose digits do not cancel
# where q and p are nearly the same. The derivatives of KL are p_k - q_k by b_k, and by a_k, since -KL is the mean of t
# under q, -q_k (t_k - sum_j q_j t_j). The same number may be taken off all t_j there; so that of the likeliest category
# is, and no digits cancel where q is nearly certain.


def _kl_value(xp: Any, a: Any, b: Any, out: Any) -> Any:
    axis = (-1,)
    log_q, log_p = (log_softmax(xp, v, None, axis) for v in (a, b))
    # where a logit is infinite, the logarithms of the probabilities serve as logits
    a, b = (xp.where(xp.amax(v, axis=-1, keepdims=True) < xp.inf, v, log) for v, log in ((a, log_q), (b, log_p)))
    q, p = xp.exp(log_q), xp.exp(log_p)
    both = (a != -xp.inf) & (b != -xp.inf)
    zero = xp.zeros_like(both, dtype=a.dtype)
    d = xp.where(both, b, zero) - xp.where(both, a, zero)
    likeliest = xp.amax(xp.where(a == xp.amax(a, axis=-1, keepdims=True), d, -xp.inf), axis=-1, keepdims=True)
    d = d - likeliest
    size = logsumexp(xp, a, None, axis, True)
    near = both & (d < 1)
    beyond = xp.exp(xp.minimum(b - size - likeliest, 80)) - q  # 80: total is above 1e30 then
    total = xp.sum(xp.where(near, q * xp.expm1(xp.where(near, d, zero)), beyond), axis=-1, keepdims=True)
    small = total < 1e30  # where its logarithm is taken in another way, for the exponentials overflow
    shift = xp.where(small, xp.log1p(xp.where(small, total, xp.zeros_like(total))),
                     logsumexp(xp, b, None, axis, True) - size - likeliest)
    t = xp.where(both, d - shift, xp.where(q > 0, zero - xp.inf, zero))
    terms = xp.where(t < 1, q * exp_remainder(xp, xp.minimum(t, 1)), p - q - q * t)
    terms = xp.where(q == 0, p + zero, terms)
    return into(out, xp.sum(terms, axis=-1, keepdims=True))


def _kl_by_q(g: Any, y: Any, a: Any, b: Any) -> Any:
    q, likeliest = a.apply("softmax", axis=(a.ndim - 1,)), a == a.max(-1, keepdims=True)
    t = (q > 0).where(b.log_softmax(), 0.0) - (q > 0).where(a.log_softmax(), 0.0)
    both = abs(a) + abs(b) < math.inf
    t = both.where(both.where(b, 0.0) - both.where(a, 0.0), t)
    t = t - likeliest.where(t, -math.inf).max(-1, keepdims=True).detach()
    return g * -q * (t - (q * t).sum(-1, keepdims=True) + 0.0 * y)  # 0 y: not a number where KL is infinite


def _kl_by_p(g: Any, y: Any, a: Any, b: Any) -> Any:
    return g * (b.apply("softmax", axis=(b.ndim - 1,)) - a.apply("softmax", axis=(a.ndim - 1,)))


# of logits (..., n), one number for the one variable: (..., 1)
rule("categorical_kl", _kl_value, (_kl_by_q, _kl_by_p), (ANY, ANY))


@closed_form(Categorical, Categorical)
def _kl(q: Categorical, p: Categorical) -> Tensor:
    return apply("categorical_kl", q.logits, p.logits)
