"""log p(x) from draws of the posterior (AEVB appendix D), for few latents.

Bayes' rule gives 1 / p(x) = p(z|x) / p(x, z) for every z. So for any density q

    1 / p(x) = E[q(z) / p(x, z)],    z ~ p(z|x),

a harmonic mean (with the prior for q it is the notorious one: q then is nearly 0 where the draws are, or far wider than
the posterior, and the mean is carried by draws that never come). A q close to the posterior makes the ratio nearly
constant. It is fitted to other draws than those of the mean, so that the expectation above holds as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinyvae.devices import to_host
from tinyvae.hmc import Chains, Tally, first_step, groups, log_density
from tinyvae.noise import Noise
from tinyvae.tensor import Tensor
from tinyvae.trust import Estimate

LATENTS = 4  # at most; the paper calls the estimate reliable below 5
SETTLE = 100  # moves before a chain's first draw, in which its step size is found


def check(latent: int, chains: int, draws: int) -> None:
    """ValueError with the reason, if `log_evidence` would serve badly."""
    if latent > LATENTS:
        raise ValueError(f"found {latent} latents; the method hmc takes at most {LATENTS}, because it fits a density "
                         "to posterior draws, and in more dimensions the few where the fit is poor carry the mean "
                         "(AEVB appendix D): use the method ais or importance")
    if chains < 4 or (chains // 2) * draws < 10 * latent:
        raise ValueError(f"found {chains} chains of {draws} draws; expected at least 4 chains, and at least "
                         f"{10 * latent} draws in half of them, to which a density of {latent} latents is fitted")


@np.errstate(all="ignore")  # what is not finite is shown, not warned of
def log_evidence(model: Any, posterior: Any, x: Tensor, noise: Noise, chains: int, draws: int, leapfrog: int,
                 tick: Callable[[int], Any] = lambda moves: None) -> Estimate:
    """log p(x) of each datum by HMC draws of p(z|x).

    Half of the chains, begun at draws of q(z|x), give after `SETTLE` moves `draws` draws each, to which a Gaussian with
    full covariance is fitted: posteriors of few latents are nearly Gaussian, and the ratio q(z) / p(x, z) with a kernel
    density would vary from draw to draw like the number of neighbours. The other half, begun anew, gives the mean v
    of the ratios.

    E[v] = 1/p(x), hence -log v lies on average *above* log p(x), by about half its variance. That is var(v) / v^2
    (the delta method), var(v) being taken from the spread of the chains' own means, for the draws of one chain are
    alike. A mode of p(z|x) where no chain began stays unseen. Memory does not grow with `chains` or `draws`.

    Parameters
    ----------
    model, posterior, x
        p(z) and p(x|z); q(z|x) with parameters (batch, latent); the data (batch, pixels).
    chains, draws, leapfrog
        Chains a datum, draws of each, leapfrog steps between two draws.
    tick
        Is told how many draws for each datum were made since.

    Raises
    ------
    ValueError
        From 5 latents on, for fewer than 4 chains, and for too few draws to fit a density to.
    """
    check(posterior.mean.shape[-1], chains, draws)
    tally, fit, half = Tally(len(x)), Gaussian(), chains // 2
    by_chain: list[np.ndarray] = []  # log of the sum of each fresh chain's ratios, (chains, batch)
    squares = np.full(len(x), -np.inf)  # log of the sum of their squares
    for fresh, size in (*((False, n) for n in groups(half, x)), *((True, n) for n in groups(chains - half, x))):
        if fresh and not by_chain:
            fit.finish()
        path = posterior_draws(model, posterior, x, noise, size, draws, leapfrog, tally)
        sums = np.full((size, len(x)), -np.inf)
        for z, log_joint in path:
            if fresh:
                ratio = fit.log_prob(z) - log_joint  # log q(z) - log p(x, z)
                sums, squares = np.logaddexp(sums, ratio), np.logaddexp(squares, np.logaddexp.reduce(2 * ratio, axis=0))
            else:
                fit.add(z)
            tick(size)
        by_chain += list(sums) if fresh else []
    total, n = np.logaddexp.reduce(by_chain, axis=0), len(by_chain)
    shares = np.exp(by_chain - total)  # var(v) / v^2 of a mean of n numbers: n / (n - 1) sum (share - 1/n)^2
    return Estimate(math.log(n * draws) - total, ((shares - 1 / n) ** 2).sum(0) * n / (n - 1),
                    np.exp(2 * total - squares), *tally.rates())


def posterior_draws(model: Any, posterior: Any, x: Tensor, noise: Noise, chains: int, draws: int, leapfrog: int,
                    tally: Tally) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`draws` times: z by its coordinate (chains, batch, n) and log p(x, z) of it, in float64 on the host."""
    prior = model.prior
    path = Chains(lambda w: log_density(prior, w) + model.likelihood(prior.value(w)).log_prob(x),
                  prior.coordinate(posterior.sample(noise, chains)).data, noise)
    step = path.settle(first_step(path), SETTLE, leapfrog)
    for _ in range(draws):
        tally.add(path.transition(step, leapfrog))
        yield to_host(path.z).astype(np.float64), to_host(path.log_f).astype(np.float64)


class Gaussian:
    """A Gaussian with full covariance for each datum, fitted to draws that stream by."""

    def __init__(self) -> None:
        self.count, self.mean, self.scatter = 0, np.zeros(()), np.zeros(())

    def add(self, z: np.ndarray) -> None:
        """Take in draws (chains, batch, latent) (Welford 1962: no difference of large sums)."""
        for one in z:
            self.count += 1
            away = one - self.mean
            self.mean = self.mean + away / self.count
            self.scatter = self.scatter + away[:, :, None] * (one - self.mean)[:, None, :]

    def finish(self) -> None:
        """From now on the density is that of the draws' mean and covariance; NaN where that has no inverse."""
        covariance = self.scatter / (self.count - 1)
        finite = np.isfinite(covariance.sum(axis=(1, 2)))
        values, vectors = np.linalg.eigh(np.where(finite[:, None, None], covariance, np.eye(covariance.shape[-1])))
        values[~(finite & (values[:, 0] > 1e-12 * values[:, -1]))] = np.nan
        self.whiten = vectors / np.sqrt(values)[:, None, :]
        self.log_constant = -0.5 * (values.shape[1] * math.log(2 * math.pi) + np.log(values).sum(1))

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """log q(z), (chains, batch)."""
        white = np.einsum("cbi,bij->cbj", z - self.mean, self.whiten)
        return self.log_constant - 0.5 * (white * white).sum(-1)
