"""What every distribution offers, and the table of closed-form KL divergences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.noise import Noise


class Distribution:
    """A family over vectors with independent elements; the last axis is the vector's.

    `log_prob(x)` is in nats, summed over the last axis; parameters of shape (batch, n) take x of (batch, n) or, for
    several samples, (samples, batch, n).
    """

    mean: Tensor

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        """The (first) parameter at which a pixel's mean is `mean`, elementwise; `mean` inside (0, 1)."""
        return np.log(mean / (1 - mean))  # the inverse of the sigmoid

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (..., batch), in nats."""
        raise TypeError(f"{type(self).__name__} has no log_prob")

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        """Draws of shape (samples, batch, n)."""
        raise TypeError(f"{type(self).__name__} has no sampler")

    def entropy(self) -> Tensor:
        """E[-log p(x)], (batch,), in nats."""
        raise TypeError(f"{type(self).__name__} has no closed-form entropy")

    def sample_with_kl(self, prior: Distribution, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        """A sample and KL(self || prior), which a family may compute in one pass."""
        return self.sample(noise, samples), kl(self, prior)


_KL: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def closed_form(q: type, p: type) -> Callable[[Callable[[Any, Any], Tensor]], Callable[[Any, Any], Tensor]]:
    """Register the function below as KL(q || p) for two families: per element, not summed."""

    def register(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
        _KL[q, p] = function
        return function

    return register


def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p) of each element, (batch, n), in nats; never negative."""
    pair = (type(q), type(p))
    if pair not in _KL:
        known = ", ".join(f"{a.__name__}/{b.__name__}" for a, b in _KL)
        raise TypeError(f"no closed form of KL({pair[0].__name__} || {pair[1].__name__}) is known (there are: "
                        f"{known}); use the sampled bound, elbo-a")
    return _KL[pair](q, p)


def kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p), (batch,), in nats."""
    return kl_per_dimension(q, p).sum(-1)
