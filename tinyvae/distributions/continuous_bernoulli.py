"""Grey pixels in [0, 1] by the continuous Bernoulli (Loaiza-Ganem & Cunningham 2019).

Its density is C(l) p^x (1 - p)^(1 - x) with p = sigmoid(l): the Bernoulli's formula with the constant that makes it
integrate to 1 over [0, 1], which "BCE on grey pixels" leaves out. In logits the constant is l / tanh(l / 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.registry import family, likelihood
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

SMALL = 0.1  # below it a series of four terms is exact to float64, where the formulas' digits begin to cancel
TINY = 1e-3  # likewise for a draw, whose formula cancels much later


@likelihood("continuous-bernoulli", pixels="grey")
@family("continuous-bernoulli")
class ContinuousBernoulli(Distribution):
    """x in [0, 1] with density proportional to exp(x l)."""

    support = "unit"
    path = "reparam"

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    parameters = property(lambda self: {"logits": self.logits})

    @classmethod
    def from_raw(cls, raw: Tensor) -> ContinuousBernoulli:
        return cls(raw)

    @classmethod
    def width(cls, n: int) -> int:
        return n

    def _split(self, bound: float = SMALL) -> tuple[Tensor, Tensor, Tensor]:
        """Which logits are small; the small ones, else 0; the others, else 1: each formula sees what it can take."""
        small = abs(self.logits) < bound
        return small, small.where(self.logits, 0.0), small.where(1.0, self.logits)

    def log_constant(self) -> Tensor:
        """log C(l) = log(l / tanh(l / 2)), elementwise; log 2 at l = 0."""
        small, near, far = self._split()
        z = near * near
        series = 0.6931471805599453 + z * (1 / 12 - z * (7 / 1440 - z * (31 / 90720 - z * (127 / 4838400))))
        return small.where(series, (far / (0.5 * far).tanh()).log())

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """E[x] = 1 / (1 - exp(-l)) - 1 / l; 1/2 at l = 0."""
        small, near, far = self._split()
        z = near * near
        series = 0.5 + near * (1 / 12 - z * (1 / 720 - z * (1 / 30240 - z / 1209600)))
        # for -|l| first, where exp cannot overflow (not in the derivative either), then mirrored as the samples are
        rising, size = far > 0, abs(far)
        falling = (-size).exp() / (-size).expm1() + 1 / size
        return small.where(series, rising.where(1 - falling, falling))

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        low, high = np.full_like(mean, -1e4), np.full_like(mean, 1e4)
        for _ in range(60):  # the mean rises with the logit: halve the interval
            middle = 0.5 * (low + high)
            below = cls(Tensor(middle)).mean.data < mean
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return 0.5 * (low + high)

    def log_prob(self, x: Tensor) -> Tensor:
        return apply("bernoulli_log_prob", self.logits, x)[0] + self.log_constant().sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        # the inverse of the distribution function, x(u) = log(1 + u (exp(l) - 1)) / l. It is taken for -|l|, where exp
        # cannot overflow, and mirrored for l > 0: x -> 1 - x exchanges l and -l
        u = noise.uniform((samples, *self.logits.shape), self.logits.dtype)
        small, near, far = self._split(TINY)
        rising, size = far > 0, abs(far)
        v = rising.where(1 - u, u)
        falling = -(v * (-size).expm1()).log1p() / size
        series = u + 0.5 * near * u * (1 - u) * (1 + near * (1 - 2 * u) / 3)
        return small.where(series, rising.where(1 - falling, falling))
