"""The Kullback-Leibler divergence of two distributions: a table of closed forms, and draws where there is none.

    KL(q || p) = E_q[log q(z) - log p(z)] >= 0, and 0 only if q = p          (nats)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.distributions.base import Distribution

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
    """KL(q || p) of each element, (batch, n), in nats; never negative.

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
