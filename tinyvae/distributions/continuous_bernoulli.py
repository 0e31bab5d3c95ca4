"""Grey pixels in [0, 1] by the continuous Bernoulli (Loaiza-Ganem & Cunningham 2019).

Its density is C(l) p^x (1 - p)^(1 - x) with p = sigmoid(l): the Bernoulli's formula with the constant that makes it
integrate to 1 over [0, 1], which "BCE on grey pixels" leaves out. p^x (1 - p)^(1 - x) = exp(l x) / (1 + exp(l)), and
the integral of exp(l x) from 0 to 1 is (exp(l) - 1) / l, so

    C(l) = l (exp(l) + 1) / (exp(l) - 1) = l / tanh(l / 2)

The derivatives of log((exp(l) - 1) / l) by l are the mean and the variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.registry import family, likelihood
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

SMALL = 0.1  # for |l| below it the formulas lose digits by cancellation, and a series of four terms is exact to float64
TINY = 1e-3  # the same for a draw, whose formula loses digits only at much smaller |l|


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
        """Three tensors: is |l| below the bound; the logits where it is, else 0; the logits where it is not, else 1.

        So the series and the formula each see only logits for which they are exact."""
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
        # The formula is taken at -|l|, where neither exp nor its derivative overflows. x -> 1 - x exchanges l and -l,
        # so for l > 0 the mean is 1 minus that.
        rising, size = far > 0, abs(far)
        falling = (-size).exp() / (-size).expm1() + 1 / size
        return small.where(series, rising.where(1 - falling, falling))

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """Var[x] = 1 / l^2 - exp(-l) / (1 - exp(-l))^2; 1/12 at l = 0."""
        small, near, far = self._split(2.0)
        # For small l the terms cancel. There x = (b + y) / 2 with independent b ~ Bernoulli(l / 2), the half of [0, 1]
        # in which x lies, and y ~ ContinuousBernoulli(l / 2), its place there: exp(l x) = exp(l b / 2) exp(l y / 2). So
        # Var[x] = (Var[b] + Var[y]) / 4, and after four halvings a short series is exact.
        halved = (1 / 12 - (z := (near / 16) ** 2) * (1 / 240 - z * (1 / 6048 - z / 172800))) / 256
        for k in range(1, 5):
            halved = halved + (near / 2**k).sigmoid() * (-near / 2**k).sigmoid() / 4**k
        size = abs(far)
        return small.where(halved, 1 / (size * size) - (-size).exp() / (-size).expm1() ** 2)

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        low, high = np.full_like(mean, -1e4), np.full_like(mean, 1e4)
        for _ in range(60):  # bisection: the mean rises with the logit
            middle = 0.5 * (low + high)
            below = cls(Tensor(middle)).mean.data < mean
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return 0.5 * (low + high)

    def log_prob(self, x: Tensor) -> Tensor:
        return apply("bernoulli_log_prob", self.logits, x)[0] + self.log_constant().sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        # The inverse of the distribution function is x(u) = log(1 + u (exp(l) - 1)) / l. As for the mean, it is taken
        # at -|l|, where exp cannot overflow, and mirrored for l > 0.
        u = noise.uniform((samples, *self.logits.shape), self.logits.dtype)
        small, near, far = self._split(TINY)
        rising, size = far > 0, abs(far)
        v = rising.where(1 - u, u)
        falling = -(v * (-size).expm1()).log1p() / size
        series = u + 0.5 * near * u * (1 - u) * (1 + near * (1 - 2 * u) / 3)
        return small.where(series, rising.where(1 - falling, falling))
