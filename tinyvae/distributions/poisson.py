"""The Poisson distribution over counts, by its rate; draws have exactly this law for every rate.

Below a rate of 10 a draw inverts the distribution function, counting up from 0. Higher rates would take that many more
steps, so there transformed rejection is used (Hörmann 1993, "The transformed rejection method for generating Poisson
random variables", algorithm PTRS). For U uniform on (-1/2, 1/2) and s = 1/2 - |U|,

    k = floor((2 a / s + b) U + rate + 0.43)

has nearly the right law already. It is accepted with probability p(k) (a / s^2 + b) / c, the target's mass over the
proposal's density: in three of four attempts at rate 10, in nine of ten at high rates. Hörmann's c is a fitted formula
with which this ratio exceeds 1 at some rates: around rate 14 it is up to 1.0058 for counts around 21, which would be
drawn a little too rarely. A c larger by 0.6 % keeps the ratio below 1 at every rate. (His two short cuts around the
test save a logarithm, which an array computes for all its elements anyway; they are left out.)

Each attempt of each element has its own counter, whose four random words give U and the uniform number of the test.
All is computed and decided in float64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form
from tinyvae.distributions.registry import family, likelihood
from tinyvae.distributions.stable import LogTensor, replaced, supported
from tinyvae.distributions.stirling import LOG_2PI, deviance, log_ratio
from tinyvae.engine.devices import read
from tinyvae.engine.noise import Window, open_unit, philox, places, stream_number
from tinyvae.engine.rules import INDEX, POSITIVE, into, rule
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

SEARCHED = 10.0  # below this rate the inverse is searched; the constants of the rejection hold from here on
STEPS = 80  # P(k > 80) at rate 10 is 1e-43
C = 1.006  # over Hörmann's constant; see above
ATTEMPTS = 64  # a valid rate is refused so often with a chance of 0.3^64; what is left stays NaN


def _search(xp: Any, rate: Any, u: Any) -> Any:
    """The smallest k with P(X <= k) > u."""
    mass = xp.exp(-rate)
    below, count = mass, xp.zeros_like(rate)
    for k in range(1, STEPS):
        beyond = u >= below
        if not read(beyond.any()):
            break
        count, mass = count + beyond, mass * rate / k
        below = below + mass
    return count


def _log_mass(xp: Any, k: Any, rate: Any) -> Any:
    """log p(k), k >= 0, for high rates: k log rate - rate - log k! would cancel digit by digit."""
    t, many = (k - rate) / rate, xp.maximum(k, 1.0)
    # log k! = k log k - k + a rest, by Stirling's series from 16 on
    z = 1 / many**2
    rest = 0.5 * xp.log(2 * math.pi * many) + (1 / 12 - z * (1 / 360 - z * (1 / 1260 - z / 1680))) / many
    rest = xp.where(k < 16, xp.special.gammaln(k + 1) - k * xp.log(many) + k, rest)
    return rate * (t - (1 + t) * xp.log1p(xp.maximum(t, -1 + 2.0**-53))) - rest


def _proposal(xp: Any, u: Any, rate: Any) -> tuple[Any, Any]:
    """PTRS's k of u in (-1/2, 1/2), and the logarithm of its chance to be accepted."""
    b = 0.931 + 2.53 * xp.sqrt(rate)
    a = -0.059 + 0.02483 * b
    log_c = xp.log(C * (1.1239 + 1.1328 / (b - 3.4)))
    s = 0.5 - xp.abs(u)
    k = xp.floor((2 * a / s + b) * u + rate + 0.43)
    chance = _log_mass(xp, xp.maximum(k, 0.0), rate) + xp.log(a / s**2 + b) - log_c
    return k, xp.where(k < 0, -xp.inf, chance)


def _poisson(xp: Any, rate: Any, counters: Any, out: Any, seed: int, stream: str, site: int, samples: int,
             rows: Window | None = None) -> Any:
    step, key = read(counters[0]), (seed, stream_number(stream))
    rates = xp.broadcast_to(rate, (samples, *rate.shape)).astype(xp.float64).reshape(-1)
    index = places((samples, *rate.shape), rows, xp).reshape(-1)
    counts = xp.full(rates.shape, xp.nan)  # NaN remains where the rate is negative, infinite or NaN
    low = xp.flatnonzero((rates >= 0) & (rates < SEARCHED))
    if low.size:
        counts[low] = _search(xp, rates[low], open_unit(*philox((index[low], site, step, 0), key, xp)[:2]))
    waiting = xp.flatnonzero((rates >= SEARCHED) & (rates < xp.inf))
    for attempt in range(ATTEMPTS):
        if not waiting.size:
            break
        first, second, third, fourth = philox((index[waiting], site, step, attempt), key, xp)
        k, chance = _proposal(xp, open_unit(first, second) - 0.5, rates[waiting])
        accepted = xp.log(open_unit(third, fourth)) < chance
        counts[waiting[accepted]] = k[accepted]
        waiting = waiting[~accepted]
    return into(out, counts.reshape((samples, *rate.shape)).astype(rate.dtype))


# counts (samples, *rate) of the step that `counters` holds; no derivative goes through a count
rule("poisson", _poisson, (None, None), (POSITIVE, INDEX))


@likelihood("poisson", pixels="counts")
@family("poisson")
class Poisson(Distribution):
    """x in {0, 1, 2, ...} with p(x) = rate^x exp(-rate) / x!, elementwise.

    Counts have the type of the rate; float32 holds them exactly up to 2^24. At a rate of 0 every count is 0.
    """

    support = "counts"

    def __init__(self, rate: Tensor) -> None:
        self.rate = self.mean = self.variance = rate

    parameters = property(lambda self: {"rate": self.rate})

    @classmethod
    def from_raw(cls, raw: Tensor) -> Poisson:
        """From log rate (batch, n), by which log p(x) has the derivative x - rate, and no rate is too small: with
        softplus the rate would underflow, and log p(x) be -inf for x > 0."""
        return cls(LogTensor(raw))

    @classmethod
    def width(cls, n: int) -> int:
        return n

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        return np.log(mean)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(x).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return noise.draw("poisson", self.rate, samples=samples)

    def log_density(self, w: Tensor) -> Tensor:
        # x log(rate) - rate - log x!. For x > 0, log x! is log x + log Gamma(x), and stirling.py has a form that keeps
        # its digits at large counts: peak(x) - log x = -log(2 pi x) / 2 - mu(x), less the deviance. At x = 0 it is
        # x - rate = -rate; the formula sees other numbers there, so that its derivatives stay finite.
        possible = supported(w)
        w = possible.where(w, 0.0)
        counted = w > 0
        k, rate = counted.where(w, 1.0), replaced(self.rate, counted, 1.0)
        highest = -0.5 * (k.log() + LOG_2PI) - k.apply("stirling", order=0)
        return possible.where(counted.where(highest - deviance(k, rate), w - self.rate), -np.inf)


@closed_form(Poisson, Poisson)
def _kl(q: Poisson, p: Poisson) -> Tensor:
    # E_q[k] = a, so KL = a log(a / b) + b - a. For close rates its terms cancel; there `deviance` gives it.
    a, b = q.rate, p.rate
    s = log_ratio(b, a)
    close = abs(s) < 1
    far = (a == 0).where(0.0, s)  # 0 log 0 = 0
    near_a, near_b = replaced(a, close, 1.0), replaced(b, close, 1.0)
    return close.where(deviance(near_a, near_b), b - a - a * far)
