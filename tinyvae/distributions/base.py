"""What every distribution offers, and the table of closed-form KL divergences."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


class Distribution:
    """A family of distributions over vectors; the last axis is the vector's.

    `log_prob(x)` is in nats, summed over the last axis; parameters of shape (batch, n) take x of (batch, n) or, for
    several samples, (samples, batch, n). Parameters have names and are constrained: a rate is positive. `from_raw`
    takes free numbers instead, as a network gives them.
    """

    mean: Tensor
    variance: Tensor
    support: ClassVar[str] = "any number"
    # How a sample depends on the parameters: "reparam", a function of noise whose law has no parameters; "implicit",
    # by the distribution function; None, not at all (discrete families).
    path: ClassVar[str | None] = None

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name: `type(q)(**q.parameters)` is q."""
        raise TypeError(f"{type(self).__name__} has no named parameters")

    @classmethod
    def from_raw(cls, raw: Tensor) -> Any:
        """From free numbers side by side in the last axis: `width(n)` of them for n dimensions."""
        raise TypeError(f"{cls.__name__} cannot be made of a network's output")

    @classmethod
    def width(cls, n: int) -> int:
        """How many free numbers `from_raw` takes for n dimensions."""
        return 2 * n

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        """The (first) parameter at which a pixel's mean is `mean`, elementwise; `mean` inside (0, 1)."""
        return np.log(mean / (1 - mean))  # the inverse of the sigmoid

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (..., batch), in nats."""
        raise TypeError(f"{type(self).__name__} has no log_prob")

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        """Draws of shape (samples, batch, n), differentiable by the parameters along the family's `path`."""
        raise TypeError(f"{type(self).__name__} has no sampler")

    def entropy(self) -> Tensor:
        """E[-log p(x)], (batch,), in nats."""
        raise TypeError(f"{type(self).__name__} has no closed-form entropy")

    def sample_with_kl(self, prior: Distribution, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        """A sample and KL(self || prior), which a family may compute in one pass."""
        return self.sample(noise, samples), kl(self, prior)

    # ---- for the gradient estimators ---------------------------------------------------------------------------------
    # A draw z has a stable form w, in which it is kept: z itself, log z, log(z / (1 - z)).

    def to_stable(self, z: Tensor) -> Tensor:
        """w of a draw z."""
        return z

    def from_stable(self, w: Tensor) -> Tensor:
        """The draw z with stable form w."""
        return w

    def log_density(self, w: Tensor) -> Tensor:
        """The log density of w (not of z), of each latent by itself: (samples, batch, n) if its elements are
        independent, else (samples, batch)."""
        raise TypeError(f"{type(self).__name__} has no density for the score function")

    def standardise(self, w: Tensor) -> Tensor:
        """eps = (w - E[w]) / sd[w], whose first two moments no parameter moves (G-REP section 3.2)."""
        location, scale = self.moments
        return (w - location) / scale

    def unstandardise(self, eps: Tensor) -> Tensor:
        """w = E[w] + sd[w] eps, the inverse of `standardise`."""
        location, scale = self.moments
        return location + scale * eps

    def log_scale(self) -> Tensor:
        """log |dw / deps| of each latent."""
        return self.moments[1].log()

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """E[w] and sd[w] of the stable form, computed once."""
        return self._moments()

    def _moments(self) -> tuple[Tensor, Tensor]:
        """E[w] and sd[w]."""
        raise TypeError(f"{type(self).__name__} has no standardised stable form")


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
