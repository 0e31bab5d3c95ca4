"""The likelihood of the observed pixels of a datum, p(x_obs|z), from that of all its pixels; and of some as of all.

Given z the pixels are independent, so log p(x_obs|z) is the sum of log p(x_i|z) over the observed pixels i alone. What
is stored in a missing place does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


class Observed(Distribution):
    """The distribution `law` of pixels (..., pixels), whose log_prob counts only those with `mask` above 0.

    `mask` is (rows, pixels). Mean, variance and draws are those of all pixels, the missing ones too.
    """

    def __init__(self, law: Any, mask: Tensor) -> None:
        self.law, self.mask = law, mask

    mean = property(lambda self: self.law.mean)
    variance = property(lambda self: self.law.variance)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return self.law.sample(noise, samples)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(x).sum(-1)

    def log_density(self, w: Tensor) -> Tensor:
        """log p(x_i|z) of each observed pixel, and 0 of each missing one."""
        seen = self.mask > 0
        return seen.where(each_pixel(self.law, seen.where(w, 0.0)), 0.0)  # a NaN in w would give NaN gradients


class Placed(Distribution):
    """The distribution `part` of some pixels of a datum, (..., targets), as one of all its `size` pixels.

    `places` are the numbers of these pixels, (targets,). The other pixels are certain to be what they are: they have
    log p = 0, mean 0 and variance 0, and are 0 in a draw.
    """

    def __init__(self, part: Any, places: np.ndarray, size: int) -> None:
        self.part, self.places = part, np.asarray(places)
        self.back = np.full(size, len(self.places))  # of each pixel its number in `part`; the last stands for none
        self.back[self.places] = np.arange(len(self.places))

    mean = property(lambda self: self._spread(self.part.mean))
    variance = property(lambda self: self._spread(self.part.variance))

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        drawn = self.part.sample(noise, samples)
        rows = self._spread(drawn.reshape(-1, drawn.shape[-1]))
        return rows.reshape(*drawn.shape[:-1], len(self.back))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(x).sum(-1)

    def log_density(self, w: Tensor) -> Tensor:
        return self._spread(each_pixel(self.part, _columns(w, self.places)))

    def _spread(self, values: Tensor) -> Tensor:
        nothing = 0.0 * values[:, :1]
        return _columns(values.concatenate(nothing, axis=1), self.back)


def _columns(values: Tensor, index: np.ndarray) -> Tensor:
    """Columns of (rows, n) by their numbers."""
    return values.T.contiguous()[Tensor(namespace_of(values.data).asarray(index))].T.contiguous()


def each_pixel(law: Any, x: Tensor) -> Tensor:
    """log p(x_i|z) of each pixel, (..., pixels), in nats; TypeError for a likelihood that does not consist of these."""
    each = law.log_density(x) if type(law).to_stable is Distribution.to_stable else None
    if each is None or each.shape[-1:] != x.shape[-1:] or each.ndim < x.ndim:
        raise TypeError(f"found the likelihood {type(law).__name__} where some pixels are missing; expected a family "
                        "whose pixels are independent given z, and whose log_density is that of each pixel")
    return each
