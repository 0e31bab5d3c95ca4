"""What every distribution offers: density, draws, moments, and the stable form in which a draw is kept.

Nine of ten draws z of Gamma(0.001) are below float32's smallest number, while log z, about -1000, is an ordinary
number. So a draw is kept in a *stable form* w, which never underflows and from which z follows. The gradient estimators
work in w, and `log_density` is the log density of w:

    Normal, FullNormal, Laplace, all discrete families    w = z
    Gamma, LogNormal                                      w = log z
    Beta                                                  w = log z - log(1 - z)
    Dirichlet                                             w_i = log z_i - log z_n for i < n

The densities differ by the Jacobian of the change of variable: log q(w) = log q(z) + log |det dz/dw|.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tinyvae.distributions.divergence import has_closed_kl, kl_per_dimension
from tinyvae.distributions.stable import LogTensor
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


class Distribution:
    """A family of distributions over vectors; the last axis is the vector's.

    `log_prob(x)` is in nats, summed over the last axis; parameters of shape (batch, n) take x of (batch, n) or, for
    several samples, (samples, batch, n). Parameters have names and are constrained: a rate is positive. `from_raw`
    takes unconstrained numbers instead, as a network gives them.
    """

    mean: Tensor
    variance: Tensor
    support: ClassVar[str] = "real"  # one of registry.SUPPORTS
    least: ClassVar[int] = 1  # the fewest dimensions in which a draw is random
    # How a sample depends on the parameters: "reparam", as a function of them and of noise whose law has none;
    # "implicit", by keeping its value of the distribution function; None, not at all (discrete families).
    path: ClassVar[str | None] = None
    scored: ClassVar[bool] = True  # whether its parameters have a score for each draw; a flow's weights have none

    def __init_subclass__(cls, **options: Any) -> None:
        """A density of 0 and a square beyond the type's range are values, of which NumPy need not warn."""
        super().__init_subclass__(**options)
        for name in ("log_prob", "log_density"):
            if name in vars(cls):
                setattr(cls, name, _density(vars(cls)[name]))

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name: `type(q)(**q.parameters)` is q."""
        raise TypeError(f"{type(self).__name__} has no named parameters")

    def map(self, f: Callable[[Tensor], Tensor]) -> Self:
        """The same family with f applied to each parameter, in their order; `q.map(Tensor.detach)` is a constant.

        Where a parameter is known by its logarithm (stable.py), f is applied to that.
        """
        return type(self)(**{name: LogTensor(f(value.log())) if isinstance(value, LogTensor) else f(value)
                             for name, value in self.parameters.items()})

    @classmethod
    def from_raw(cls, raw: Tensor) -> Self:
        """From unconstrained numbers side by side in the last axis: `width(n)` of them for n dimensions."""
        raise TypeError(f"{cls.__name__} cannot be made of a network's output")

    @classmethod
    def width(cls, n: int) -> int:
        """How many unconstrained numbers `from_raw` takes for n dimensions."""
        return 2 * n

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        """The (first) raw number at which a pixel's mean is `mean`, elementwise; `mean` inside (0, 1).

        ValueError for a family that does not say so.
        """
        raise ValueError(f"found {cls.__name__} as the likelihood of a model that starts at the data's mean; expected "
                         "a family with parameter_of_mean: leave data_mean_bias out, or give the class that method")

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (..., batch), in nats."""
        raise TypeError(f"{type(self).__name__} has no log_prob")

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        """Draws of shape (samples, batch, n), differentiable by the parameters along the family's `path`."""
        raise TypeError(f"{type(self).__name__} has no sampler")

    def draw(self, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Draws z, (samples, batch, n), with log q(z), (samples, batch), in nats.

        A family that knows log q(z) of its own draws alone (an inverse autoregressive flow) overrides this method.
        """
        z = self.sample(noise, samples)
        return z, self.log_prob(z)

    def sample_with_kl(self, prior: Distribution, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Draws and KL(self || prior), (batch,), the sum of its parts; a family may compute both in one pass."""
        z, parts = self.sample_with_kls(prior, noise, samples)
        return z, parts.sum(-1)

    def sample_with_kls(self, prior: Distribution, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Draws and the parts of KL(self || prior), (batch, parts): one for each dimension in closed form, one for each
        layer of a hierarchy, and else the whole, estimated from the draws."""
        if has_closed_kl(self, prior):
            return self.sample(noise, samples), kl_per_dimension(self, prior)
        z, log_q = self.draw(noise, samples)
        return z, (log_q - prior.log_prob(z)).mean(0).reshape(-1, 1)

    def entropy(self) -> Tensor:
        """E[-log p(x)], (batch,), in nats."""
        raise TypeError(f"{type(self).__name__} has no closed-form entropy")

    # ---- for the gradient estimators: the stable form w of a draw z (see the head of this file) ----------------------

    def to_stable(self, z: Tensor) -> Tensor:
        """w of a draw z."""
        return z

    def from_stable(self, w: Tensor) -> Tensor:
        """The draw z with stable form w."""
        return w

    def log_density(self, w: Tensor) -> Tensor:
        """The log density of w (not of z): (samples, batch, n), element by element, if the elements are independent,
        else (samples, batch). Where w is z and the elements depend on each other, it is `log_prob`."""
        if type(self).to_stable is not Distribution.to_stable or type(self)._moments is not Distribution._moments:
            raise TypeError(f"{type(self).__name__} has no log_density, which the estimators score and grep need")
        return self.log_prob(w)

    def standardise(self, w: Tensor) -> Tensor:
        """eps = (w - E[w]) / sd[w]: its mean is 0 and its variance 1 for all parameters (G-REP section 3.2)."""
        location, scale = self.moments
        return (w - location) / scale

    def unstandardise(self, eps: Tensor) -> Tensor:
        """w = E[w] + sd[w] eps, the inverse of `standardise`."""
        location, scale = self.moments
        return location + scale * eps

    def log_scale(self) -> Tensor:
        """log |dw / deps|, element by element, or log |det dw/deps| of a vector."""
        return self.moments[1].log()

    @property
    def center(self) -> Tensor:
        """A point of each row that the draws lie around: E[z], or what is cheaper where that has no closed form."""
        return self.mean

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """E[w] and sd[w] of the stable form, computed once."""
        return self._moments()

    def _moments(self) -> tuple[Tensor, Tensor]:
        """E[w] and sd[w]."""
        raise TypeError(f"{type(self).__name__} has no standardised stable form")


def _density(method: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """The method of a density without NumPy's warnings; TypeError for an x that is no tensor and no array."""

    @wraps(method)
    def quiet(self: Any, x: Tensor) -> Tensor:
        if not hasattr(x, "dtype"):
            raise TypeError(f"found x={x!r:.60} for {method.__name__} of {type(self).__name__}; expected a tensor "
                            "(..., batch, n)")
        with np.errstate(all="ignore"):
            return method(self, x)

    return quiet
