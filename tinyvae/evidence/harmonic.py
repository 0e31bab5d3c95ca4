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

from tinyvae.distributions import FullNormal, LogNormal, Normal
from tinyvae.engine.devices import Array, namespace_of, to_host
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.ais import STARTS, Start, log_joint
from tinyvae.evidence.diagnostics import Estimate
from tinyvae.evidence.hmc import Chains, Tally, first_step, groups
from tinyvae.inference.bounds import Generator

LATENTS = 4  # at most; the paper calls the estimate reliable below 5
CANDIDATES = 256  # draws of which a chain begins at one
SETTLE = 100  # moves before a chain's first draw, in which its step size is found


def check(prior: Any, latent: int, chains: int, draws: int) -> None:
    """ValueError with the reason, if `log_evidence` would serve badly."""
    if not isinstance(prior, (Normal, FullNormal, LogNormal)):
        raise ValueError(f"found a prior {type(prior).__name__}; the method hmc fits normal densities to posterior "
                         "draws, and where tails are of another kind that errs by whole nats: use the method ais or "
                         "importance")
    if latent > LATENTS:
        raise ValueError(f"found {latent} latents; the method hmc takes at most {LATENTS}, because it fits a density "
                         "to posterior draws, and in more dimensions the few where the fit is poor carry the mean "
                         "(AEVB appendix D): use the method ais or importance")
    if chains < 4 or (chains // 2) * draws < 10 * latent:
        raise ValueError(f"found {chains} chains of {draws} draws; expected at least 4 chains, and at least "
                         f"{10 * latent} draws in half of them, to which a density of {latent} latents is fitted")


@np.errstate(all="ignore")  # what is not finite is shown, not warned of
def log_evidence(p: Generator, posterior: Any, x: Tensor, noise: Noise, chains: int, draws: int, leapfrog: int,
                 tick: Callable[[int], Any] = lambda moves: None) -> Estimate:
    """log p(x) of each datum by HMC draws of p(z|x).

    Half of the chains give after `SETTLE` moves `draws` draws each, to which q(z) is fitted: a mixture of Gaussians
    with full covariance, one for each chain. (One Gaussian over two modes is too wide for either, and the ratio has no
    variance; a kernel for each draw makes it vary from place to place like the number of neighbours.) The other half,
    begun anew, gives the mean v of the ratios.

    E[v] = 1/p(x), hence -log v lies on average *above* log p(x), by about half its variance. That is var(v) / v^2
    (the delta method), var(v) being taken from the spread of the chains' own means, for the draws of one chain are
    alike. A mode of p(z|x) in which no chain began stays unseen. Memory does not grow with `draws`.

    Parameters
    ----------
    p, posterior, x
        p(z) and p(x|z); q(z|x) with parameters (batch, latent); the data (batch, pixels).
    chains, draws, leapfrog
        Chains a datum, draws of each, leapfrog steps between two draws.
    tick
        Is told how many draws for each datum were made since.

    Raises
    ------
    ValueError
        From 5 latents on, for a prior without a normal coordinate, and for too few chains or draws.
    """
    check(p.prior, posterior.mean.shape[-1], chains, draws)
    tally, fit, half = Tally(len(x)), Mixture(), chains // 2
    by_chain: list[np.ndarray] = []  # log of the sum of each fresh chain's ratios, (chains, batch)
    squares = np.full(len(x), -np.inf)  # log of the sum of their squares
    for size in groups(half, x):
        fit.begin()
        for z, _ in posterior_draws(p, posterior, x, noise, size, draws, leapfrog, tally):
            fit.add(z)
            tick(size)
    fit.finish()
    for size in groups(chains - half, x):
        sums = np.full((size, len(x)), -np.inf)
        for z, log_f in posterior_draws(p, posterior, x, noise, size, draws, leapfrog, tally):
            ratio = fit.log_prob(z) - log_f  # log q(z) - log p(x, z)
            sums, squares = np.logaddexp(sums, ratio), np.logaddexp(squares, np.logaddexp.reduce(2 * ratio, axis=0))
            tick(size)
        by_chain += list(sums)
    total, n = np.logaddexp.reduce(by_chain, axis=0), len(by_chain)
    shares = np.exp(by_chain - total)  # var(v) / v^2 of a mean of n numbers: n / (n - 1) sum (share - 1/n)^2
    return Estimate(math.log(n * draws) - total, ((shares - 1 / n) ** 2).sum(0) * n / (n - 1),
                    np.exp(2 * total - squares), *tally.rates())


def posterior_draws(p: Generator, posterior: Any, x: Tensor, noise: Noise, chains: int, draws: int, leapfrog: int,
                    tally: Tally) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`draws` times: z by its stable form (chains, batch, n) and log p(x, z) of it, in float64 on the host."""
    path = Chains(lambda w: log_joint(p, x, w), resampled(p, posterior, x, noise, chains), noise)
    step = path.settle(first_step(path), SETTLE, leapfrog)
    for _ in range(draws):
        tally.add(path.transition(step, leapfrog))
        yield to_host(path.z).astype(np.float64), to_host(path.log_f).astype(np.float64)


def resampled(p: Generator, posterior: Any, x: Tensor, noise: Noise, chains: int) -> Array:
    """Where chains begin, (chains, batch, n): nearly draws of p(z|x), its modes as often as they weigh.

    Of `CANDIDATES` draws of the mixture (q(z|x) + p(z)) / 2 one is taken with a probability in proportion to
    p(x, z) / mixture (sampling-importance-resampling, Rubin 1987): the one where the log of that plus Gumbel noise is
    largest. A chain that began in a mode of no weight would stay there, and its ratios q(z) / p(x, z) would be huge.
    """
    xp, starts = namespace_of(x.data), [Start(p, posterior, kind) for kind in STARTS]
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
    """For each datum, equal parts of Gaussians, one for each chain, fitted to draws that stream by."""

    def __init__(self) -> None:
        self.means: list[np.ndarray] = []  # of each group of chains, (chains, batch, n)
        self.scatters: list[np.ndarray] = []  # sums of squares about them, (chains, batch, n, n)
        self.count = 0

    def begin(self) -> None:
        """The next draws are those of other chains."""
        self.count = 0

    def add(self, z: np.ndarray) -> None:
        """Take in a draw of each chain (Welford 1962: no difference of large sums)."""
        if not self.count:
            self.means.append(np.zeros_like(z))
            self.scatters.append(np.zeros((*z.shape, z.shape[-1])))
        self.count += 1
        away = z - self.means[-1]
        self.means[-1] += away / self.count
        self.scatters[-1] += away[..., :, None] * (z - self.means[-1])[..., None, :]

    def finish(self) -> None:
        """Fix the density. Each part's covariance is half its chain's own and half the mean of all chains': few draws
        give a poor one, and modes differ. NaN where it has no inverse."""
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
