"""The Kullback-Leibler divergence of two distributions: a table of closed forms, and draws where there is none.

    KL(q || p) = E_q[log q(z) - log p(z)] >= 0, and 0 only if q = p          (nats)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.engine.rules import into, rule
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.distributions.base import Distribution

# Closed forms are sums of terms none of which is negative, so that no digit cancels and rounding makes no KL negative.
# A term of many of them is exp(a) - 1 - a, with the derivative exp(a) - 1.
LAST = {4: 11, 8: 18}  # by the bytes of a number: the last power in the series that counts for |a| < 1


def exp_remainder(xp: Any, a: Any, out: Any = None) -> Any:
    """exp(a) - 1 - a of an array, elementwise; never negative."""
    # For |a| < 1 the difference would cancel. There it is a^2 (1/2! + a/3! + a^2/4! + ...).
    near = xp.abs(a) < 1
    small, last = xp.where(near, a, xp.zeros_like(a)), LAST[a.dtype.itemsize]
    series = xp.full_like(a, 1 / math.factorial(last))
    for k in range(last - 1, 1, -1):
        series *= small
        series += 1 / math.factorial(k)
    with np.errstate(over="ignore"):  # beyond the type's range inf is the value, and no surprise
        difference = xp.expm1(a) - xp.minimum(a, 1000)  # (inf - inf at a = inf would be NaN)
    return into(out, xp.where(near, series * small * small, difference))


# d/da (exp(a) - 1 - a) = exp(a) - 1
rule("exp_remainder", exp_remainder, (lambda g, y, a: g * a.expm1(),),
     reference=lambda a: np.expm1(a) - a)


def bounded_difference(a: Tensor, b: Tensor) -> Tensor:
    """a - b, elementwise, also of infinite numbers: 0 if they are equal, else large and finite, so 0 times it is 0."""
    most = float(np.finfo(a.dtype).max) / 4
    return a.maximum(-most).minimum(most) - b.maximum(-most).minimum(most)


CLOSED_FORMS: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def closed_form(q: type, p: type) -> Callable[[Callable[[Any, Any], Tensor]], Callable[[Any, Any], Tensor]]:
    """Register the function below as KL(q || p) for two families: per element, not summed."""

    def register(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
        CLOSED_FORMS[q, p] = function
        return function

    return register


def has_closed_kl(q: Distribution, p: Distribution) -> bool:
    """Is KL(q || p) known in closed form?"""
    return (type(q), type(p)) in CLOSED_FORMS


def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p) of each element, (batch, n), in nats; never negative, also not by rounding.

    Raises TypeError where no closed form is known: `kl_or_sampled` takes draws instead.
    """
    if not has_closed_kl(q, p):
        known = ", ".join(f"{a.__name__}/{b.__name__}" for a, b in CLOSED_FORMS)
        raise TypeError(f"no closed form of KL({type(q).__name__} || {type(p).__name__}) is known (there are: "
                        f"{known}); kl_or_sampled estimates it from draws, as the bound elbo-a does")
    return CLOSED_FORMS[type(q), type(p)](q, p)


def kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p), (batch,), in nats."""
    return kl_per_dimension(q, p).sum(-1)


def kl_or_sampled(q: Distribution, p: Distribution, z: Tensor, log_q: Tensor | None = None) -> Tensor:
    """KL(q || p), (batch,), in nats: in closed form where one is known, else from draws z ~ q.

    By definition KL(q || p) = E_q[log q(z) - log p(z)], so the mean over draws is an unbiased estimate, which may be
    negative. z is (samples, batch, n); `log_q`, (samples, batch), is log q(z) as `draw` gives it, by default
    `q.log_prob(z)`.
    """
    if has_closed_kl(q, p):
        return kl(q, p)
    return ((q.log_prob(z) if log_q is None else log_q) - p.log_prob(z)).mean(0)
