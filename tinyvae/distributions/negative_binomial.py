"""The negative binomial distribution over counts, by its mean and dispersion: a Poisson whose rate varies.

A rate drawn from a Gamma with shape theta and mean mu gives counts x = 0, 1, 2, ... with

    p(x) = Gamma(x + theta) / (Gamma(theta) x!) (theta / (theta + mu))^theta (mu / (theta + mu))^x
    E[x] = mu,    Var[x] = mu + mu^2 / theta

so it goes to Poisson(mu) as theta grows (the "inverse dispersion" of single-cell models: Lopez, Regier, Cole, Jordan &
Yosef 2018). The terms of log p(x) are large and cancel. With n = x + theta, p = mu / (theta + mu), q = 1 - p,
Stirling's remainder mu(.) and the deviances of stirling.py, which are never negative, what is left at x > 0 is

    log p(x) = log(theta / (2 pi n x)) / 2 + mu(n) - mu(theta) - mu(x) - deviance(x, n p) - deviance(theta, n q)

as for the binomial (Loader 2000). And log p(0) = -theta log(1 + mu / theta).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.registry import family, likelihood
from tinyvae.distributions.rejection import log_gamma
from tinyvae.distributions.stable import LogTensor, replaced, supported
from tinyvae.distributions.stirling import LOG_2PI, SMALL, deviance, peak
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise


@likelihood("negative-binomial", pixels="counts")
@family("negative-binomial")
class NegativeBinomial(Distribution):
    """x in {0, 1, 2, ...} with mean mu and variance mu + mu^2 / theta, elementwise; mu and theta above 0."""

    support = "counts"

    def __init__(self, mu: Tensor, theta: Tensor) -> None:
        self.mu, self.theta = mu, theta
        self.mean = mu

    parameters = property(lambda self: {"mu": self.mu, "theta": self.theta})
    variance = property(lambda self: self.mu + self.mu * (self.mu / self.theta))

    @classmethod
    def from_raw(cls, raw: Tensor) -> NegativeBinomial:
        """From log mu and log theta, side by side."""
        mu, theta = raw.split(2)
        return cls(LogTensor(mu), LogTensor(theta))

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        return np.log(mean)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(x).sum(-1)

    def log_density(self, w: Tensor) -> Tensor:
        log_odds = self.mu.log() - self.theta.log()  # of p
        possible = supported(w)
        w = possible.where(w, 0.0)
        counted, kept = w > 0, self.theta > SMALL
        x = counted.where(w, 1.0)
        n, theta = x + self.theta, replaced(self.theta, kept, 1.0)
        p, q = (LogTensor(-(-l).softplus(), l.sigmoid()) for l in (log_odds, -log_odds))
        at_p, at_q = (LogTensor(n.log() + share.log(), n * share) for share in (p, q))
        # -log Gamma(theta) without its terms that cancel; near 0 Gamma(theta) is 1 / theta
        shape = kept.where(peak(theta) - deviance(theta, at_q), self.theta.log())
        number = -0.5 * (n.log() + x.log() + LOG_2PI) + n.apply("stirling", order=0) - x.apply("stirling", order=0)
        positive = shape + 0.5 * LOG_2PI + number - deviance(x, at_p)
        zero = w - self.theta * log_odds.softplus()  # where w is not 0 but NaN, so is this
        return possible.where(counted.where(positive, zero), -np.inf)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        rate = (log_gamma(self.theta, noise, samples) + (self.mu.log() - self.theta.log())).exp()
        return noise.draw("poisson", rate, samples=1)[0]
