"""The Laplace distribution, by location and scale: two exponential tails back to back.

Where the scale is known by its logarithm, densities are right at every scale. A KL keeps 64 rounding units of its value
in both types, and is never negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form, exp_remainder
from tinyvae.distributions.registry import family
from tinyvae.distributions.stable import LogTensor, over_exp
from tinyvae.engine.devices import read
from tinyvae.engine.noise import Window, words_of
from tinyvae.engine.rules import ANY, INDEX, POSITIVE, into, rule
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

LOG_2 = math.log(2)


def _laplace(xp: Any, counters: Any, out: Any, seed: int, stream: str, site: int, shape: tuple[int, ...],
             dtype: Any, rows: Window | None = None) -> Any:
    # |x| is exponential: -log v for v uniform on (0, 1), and the sign is another bit. (The inverse of the distribution
    # function at one uniform u would round u where the tail is, and be infinite at u = 0.) So a 32-bit word gives its
    # last bit as the sign and the others as v, whose small values, the tail, keep their digits: |x| is at most 22.18.
    bits = words_of(seed, stream, read(counters[0]), site, shape, rows, xp)
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


# log q - log p = log(b_p / b_q) + |z - mu_p| / b_p - |z - mu_q| / b_q. With d = |mu_q - mu_p|, integrating |z - mu_p|
# on both sides of mu_p gives E_q|z - mu_p| = d + b_q exp(-d / b_q), and E_q|z - mu_q| = b_q. So
#     KL = d / b_p + b_q / b_p exp(-d / b_q) - 1 - log(b_q / b_p)
# and with R(t) = exp(t) - 1 - t >= 0, t = log(b_q / b_p) and s = d / b_q it is R(t) + d / b_p R(-s) / s. The last
# quotient goes to 1 for large s, and does not matter at s = 0, where d = 0. The derivatives by d, log b_q and log b_p:
#     (1 - exp(-s)) / b_p,    exp(t - s) (1 + s) - 1,    1 - exp(t) - exp(t) R(-s)
# A row of its own states them, for the chain rule would add terms as large as d / b_p that cancel.
FARTHEST = 1e30  # a larger s changes nothing, and its square would overflow


def _value(xp: Any, d: Any, log_q: Any, log_p: Any, out: Any) -> Any:
    s = xp.minimum(over_exp(xp, d, log_q), FARTHEST)
    s = xp.where(s == 0, xp.ones_like(s), s)
    return xp.add(exp_remainder(xp, log_q - log_p), over_exp(xp, d, log_p) * (exp_remainder(xp, -s) / s), out=out)


def _s(d: Tensor, log_q: Tensor) -> Tensor:
    return d.apply("over_exp", log_q).minimum(FARTHEST)


def _by_d(g: Tensor, y: Tensor, d: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
    return -(g * (-_s(d, log_q)).expm1()).apply("over_exp", log_p)


def _by_log_q(g: Tensor, y: Tensor, d: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
    s = _s(d, log_q)
    return g * ((log_q - log_p - s).exp() * (1 + s) - 1)


def _by_log_p(g: Tensor, y: Tensor, d: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
    t = log_q - log_p
    return -(g * (t.expm1() + t.exp() * (-_s(d, log_q)).apply("exp_remainder")))


rule("laplace_kl", _value, (_by_d, _by_log_q, _by_log_p), (POSITIVE, ANY, ANY),
     reference=lambda d, log_q, log_p: d / np.exp(log_p) + np.exp(log_q - log_p - d / np.exp(log_q)) - 1 - (
         log_q - log_p))


@closed_form(Laplace, Laplace)
def _kl(q: Laplace, p: Laplace) -> Tensor:
    return abs(q.mu - p.mu).apply("laplace_kl", q.scale.log(), p.scale.log())
