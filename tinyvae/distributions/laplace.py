"""The Laplace distribution, by location and scale: two exponential tails back to back.

Where the scale is known by its logarithm, densities are right at every scale. A KL keeps 64 rounding units of its value
in both types, and is never negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form
from tinyvae.distributions.registry import family
from tinyvae.distributions.stable import LogTensor
from tinyvae.engine.devices import read
from tinyvae.engine.noise import words
from tinyvae.engine.rules import INDEX, into, rule
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

LOG_2 = math.log(2)


def _laplace(xp: Any, counters: Any, out: Any, seed: int, stream: str, site: int, shape: tuple[int, ...],
             dtype: Any) -> Any:
    # |x| is exponential: -log v for v uniform on (0, 1), and the sign is another bit. (The inverse of the distribution
    # function at one uniform u would round u where the tail is, and be infinite at u = 0.) So a 32-bit word gives its
    # last bit as the sign and the others as v, whose small values, the tail, keep their digits: |x| is at most 22.18.
    bits = words(seed, stream, read(counters[0]), site, math.prod(shape), xp=xp).reshape(shape)
    v = ((bits >> xp.uint64(1)).astype(xp.float64) + 0.5) * 2.0**-31
    return into(out, (xp.log(v) * (1 - 2 * (bits & xp.uint64(1)).astype(xp.float64))).astype(dtype))


# draws at location 0 and scale 1 of the step that `counters` holds
rule("laplace", _laplace, (None,), (INDEX,))


@family("laplace")
class Laplace(Distribution):
    """z with density exp(-|z - mu| / scale) / (2 scale), elementwise.

    The parameter is the scale, as in SciPy; `from_raw` takes its logarithm, and `scale.log()` returns that unchanged.
    (The method `log_scale` is something else, the logarithm of sd[w] of base.py.)
    """

    path = "reparam"

    def __init__(self, mu: Tensor, scale: Tensor) -> None:
        self.mu, self.scale = mu, scale
        self.mean = mu

    parameters = property(lambda self: {"mu": self.mu, "scale": self.scale})
    variance = property(lambda self: 2 * self.scale**2)

    @classmethod
    def from_raw(cls, raw: Tensor) -> Laplace:
        """From one tensor (batch, 2 n): mu in the first half of the last axis, the logarithm of the scale in the
        second."""
        mu, log_scale = raw.split(2)
        return cls(mu, LogTensor(log_scale))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(x).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        # a location and a scale, the second of AEVB's recipes (section 2.4)
        eps = noise.draw("laplace", shape=(samples, *self.mu.shape), dtype=self.mu.dtype)
        return self.mu + self.scale * eps

    def entropy(self) -> Tensor:
        return (1 + LOG_2 + self.scale.log()).sum(-1)

    def log_density(self, w: Tensor) -> Tensor:
        return -(LOG_2 + self.scale.log()) - abs(w - self.mu) / self.scale

    def _moments(self) -> tuple[Tensor, Tensor]:
        return self.mu, math.sqrt(2) * self.scale


@closed_form(Laplace, Laplace)
def _kl(q: Laplace, p: Laplace) -> Tensor:
    # log q - log p = log(b_p / b_q) + |z - mu_p| / b_p - |z - mu_q| / b_q. With d = mu_q - mu_p, integrating |z - mu_p|
    # on both sides of mu_p gives E_q|z - mu_p| = |d| + b_q exp(-|d| / b_q), and E_q|z - mu_q| = b_q. So
    #     KL = |d| / b_p + b_q / b_p exp(-|d| / b_q) - 1 - log(b_q / b_p)
    # and with R(t) = exp(t) - 1 - t >= 0, t = log(b_q / b_p) and s = |d| / b_q it is R(t) + |d| / b_p R(-s) / s. The
    # last quotient goes to 1 for large s, and does not matter at s = 0, where d = 0.
    d = abs(q.mu - p.mu)
    s = d / q.scale
    s = (s == 0).where(1.0, s).minimum(1e30)
    return (q.scale.log() - p.scale.log()).apply("exp_remainder") + d / p.scale * ((-s).apply("exp_remainder") / s)
