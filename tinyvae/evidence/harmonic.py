"""log p(x) from draws of the posterior (AEVB appendix D), for few latents.

Bayes' rule gives 1 / p(x) = p(z|x) / p(x, z) for every z. So for any density q

    1 / p(x) = E[q(z) / p(x, z)],    z ~ p(z|x),

a harmonic mean. With q = p(z) it is the notorious harmonic mean estimator, whose variance is often infinite: the prior
is far wider than the posterior, so a few draws that hardly ever occur dominate the mean. A q close to the posterior
makes the ratio nearly constant. q is fitted to other draws than those of the mean, so the expectation holds exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinyvae.distributions import FullNormal, LogNormal, Normal
from tinyvae.engine.devices import Array, namespace_of, to_host
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.diagnostics import Estimate
from tinyvae.evidence.hamiltonian.densities import STARTS, InitialDistribution, log_joint
from tinyvae.evidence.hamiltonian.hmc import Chains, first_step_size
from tinyvae.evidence.hamiltonian.moves import MoveAverages, groups
from tinyvae.inference.bounds import Generator

LATENTS = 4  # the largest number of latents; AEVB calls the estimate reliable below 5
CANDIDATES = 256  # the number of draws from which the initial position of a chain is chosen
SETTLE = 100  # the number of moves that find the step size, before a chain's first draw


def check(prior: Any, latent: int, chains: int, draws: int) -> None:
    """Raise ValueError if the estimate of `log_evidence` would be unreliable."""
    if not isinstance(prior, (Normal, FullNormal, LogNormal)):
        raise ValueError(f"found a prior {type(prior).__name__}; the method hmc fits normal densities to posterior "
                         "draws, and with other tails its error is of the order of nats: use the method ais or "
                         "importance")
    if latent > LATENTS:
        raise ValueError(f"found {latent} latents; the method hmc takes at most {LATENTS}, because it fits a density "
                         "to posterior draws, and in more dimensions a few draws where the fit is poor dominate the "
                         "mean (AEVB appendix D): use the method ais or importance")
    if chains < 4 or (chains // 2) * draws < 10 * latent:
        raise ValueError(f"found {chains} chains of {draws} draws; expected at least 4 chains, and at least "
                         f"{10 * latent} draws in half of them, which fit a density of {latent} latents")


@np.errstate(all="ignore")  # the result shows values that are not finite; NumPy need not warn
def log_evidence(p: Generator, posterior: Any, x: Tensor, noise: Noise, chains: int, draws: int, leapfrog: int,
                 report: Callable[[int], Any] = lambda draws: None) -> Estimate:
    """log p(x) of each datum by HMC draws of p(z|x).

    Half of the chains make `draws` draws each after `SETTLE` moves. q(z) is fitted to these draws: a mixture with one
    Gaussian of full covariance for each chain. (A single Gaussian over two modes would be too wide for both, and the
    ratio would have no variance; a kernel at each draw would make the ratio vary with the local number of draws.) The
    other half of the chains starts afresh, and v is the mean of q(z) / p(x, z) over its draws.

    E[v] = 1/p(x), so -log v lies on average *above* log p(x), by about half its variance var(v) / v^2 (the delta
    method). var(v) is estimated from the means of the chains, because the draws within one chain are correlated. The
    estimate misses a mode of p(z|x) in which no chain begins. Memory does not grow with `draws`.

    Parameters
    ----------
    p, posterior, x
        p(z) and p(x|z); q(z|x) with parameters (batch, latent); the data (batch, pixels).
    chains, draws, leapfrog
        The number of chains for each datum, of draws of each chain, and of leapfrog steps between two draws.
    report
        A function that is called with the number of draws made for each datum since its last call.

    Raises
    ------
    ValueError
        For 5 or more latents, a prior that is not normal or log-normal, and too few chains or draws.
    """
    check(p.prior, posterior.mean.shape[-1], chains, draws)
    averages, fit, half = MoveAverages(len(x)), Mixture(), chains // 2
    by_chain: list[np.ndarray] = []  # the log of the sum of each chain's ratios, (chains, batch)
    squares = np.full(len(x), -np.inf)  # the log of the sum of the squares of all ratios
    for size in groups(half, x):
        fit.begin()
        for z, _ in posterior_draws(p, posterior, x, noise, size, draws, leapfrog, averages):
            fit.add(z)
            report(size)
    fit.finish()
    for size in groups(chains - half, x):
        sums = np.full((size, len(x)), -np.inf)
        for z, log_f in posterior_draws(p, posterior, x, noise, size, draws, leapfrog, averages):
            ratio = fit.log_prob(z) - log_f  # log q(z) - log p(x, z)
            sums, squares = np.logaddexp(sums, ratio), np.logaddexp(squares, np.logaddexp.reduce(2 * ratio, axis=0))
            report(size)
        by_chain += list(sums)
    total, n = np.logaddexp.reduce(by_chain, axis=0), len(by_chain)
    # With the share s_i of chain i in the sum, var(v) / v^2 = n / (n - 1) sum_i (s_i - 1/n)^2 for n chains.
    shares = np.exp(by_chain - total)
    return Estimate(math.log(n * draws) - total, ((shares - 1 / n) ** 2).sum(0) * n / (n - 1),
                    np.exp(2 * total - squares), *averages.means())


def posterior_draws(p: Generator, posterior: Any, x: Tensor, noise: Noise, chains: int, draws: int, leapfrog: int,
                    averages: MoveAverages) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `draws` times: the stable forms of z, (chains, batch, n), and log p(x, z), in float64 on the host."""
    moving = Chains(lambda w: log_joint(p, x, w), resampled(p, posterior, x, noise, chains), noise)
    step = moving.settle(first_step_size(moving), SETTLE, leapfrog)
    for _ in range(draws):
        averages.add(moving.transition(step, leapfrog))
        yield to_host(moving.z).astype(np.float64), to_host(moving.log_f).astype(np.float64)


def resampled(p: Generator, posterior: Any, x: Tensor, noise: Noise, chains: int) -> Array:
    """Initial positions, (chains, batch, n): approximate draws of p(z|x), with its modes in their proportions.

    Sampling-importance-resampling (Rubin 1987) chooses one of `CANDIDATES` draws z ~ m(z) = (q(z|x) + p(z)) / 2 with a
    probability proportional to p(x, z) / m(z): it takes the draw with the largest log p(x, z) - log m(z) + g, where g
    is Gumbel noise. A chain that began in a mode without weight would stay there, and its ratios q(z) / p(x, z) would
    be huge.
    """
    xp, starts = namespace_of(x.data), [InitialDistribution(p, posterior, kind) for kind in STARTS]
    best, taken = xp.full((chains, len(x)), -np.inf), starts[0].draw(noise, chains, len(x)).copy()
    for i in range(CANDIDATES):
        w = starts[i % 2].draw(noise, chains, len(x))
        at = Tensor(w)
        log_mixture = xp.logaddexp(*(start.log_density(at).data for start in starts))
        u = noise.uniform(best.shape, np.float64).data
        score = log_joint(p, x, at).data - log_mixture - xp.log(-xp.log(u))
        xp.copyto(taken, w, where=(score > best)[..., None])
        xp.copyto(best, score, where=score > best)
    return taken


class Mixture:
    """A density for each datum: an equal mixture of one Gaussian for each chain, fitted without storing the draws."""

    def __init__(self) -> None:
        self.means: list[np.ndarray] = []  # for each group of chains, (chains, batch, n)
        self.scatters: list[np.ndarray] = []  # sums of squares about them, (chains, batch, n, n)
        self.count = 0

    def begin(self) -> None:
        """Begin a new group of chains."""
        self.count = 0

    def add(self, z: np.ndarray) -> None:
        """Add a draw of each chain, by Welford's update (1962), which needs no difference of large sums."""
        if not self.count:
            self.means.append(np.zeros_like(z))
            self.scatters.append(np.zeros((*z.shape, z.shape[-1])))
        self.count += 1
        away = z - self.means[-1]
        self.means[-1] += away / self.count
        self.scatters[-1] += away[..., :, None] * (z - self.means[-1])[..., None, :]

    def finish(self) -> None:
        """Compute the density from the draws.

        The covariance of each Gaussian is the mean of its chain's covariance and of the average covariance of all
        chains, because a few draws give a poor estimate, and modes differ. A singular covariance gives NaN.
        """
        self.mean, own = np.concatenate(self.means), np.concatenate(self.scatters) / (self.count - 1)
        covariance = (own + own.mean(0)) / 2
        finite = np.isfinite(covariance.sum(axis=(-1, -2)))
        values, vectors = np.linalg.eigh(np.where(finite[..., None, None], covariance, np.eye(own.shape[-1])))
        values[~(finite & (values[..., 0] > 1e-12 * values[..., -1]))] = np.nan
        self.whiten = vectors / np.sqrt(values)[..., None, :]
        self.log_constant = -0.5 * (values.shape[-1] * math.log(2 * math.pi) + np.log(values).sum(-1))

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """log q(z), (chains, batch)."""
        parts = []
        for mean, whiten, log_constant in zip(self.mean, self.whiten, self.log_constant, strict=True):
            white = np.einsum("cbi,bij->cbj", z - mean, whiten)
            parts.append(log_constant - 0.5 * (white * white).sum(-1))
        return np.logaddexp.reduce(parts, axis=0) - math.log(len(parts))
