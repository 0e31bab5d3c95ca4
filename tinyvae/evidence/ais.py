"""Annealed importance sampling: log p(x) by a path of densities that begins at a known density (Neal 2001).

    log f_t(z) = log f_0(z) + beta_t (log p(x, z) - log f_0(z)),    0 = beta_0 < ... < beta_T = 1,

where f_0 is the encoder's q(z|x) or the prior p(z). A chain begins at z_0 ~ f_0. A Hamiltonian transition that leaves
f_t invariant maps z_(t-1) to z_t. Then

    log w = sum_t (beta_t - beta_(t-1)) (log p(x, z_(t-1)) - log f_0(z_(t-1))),    E[w] = p(x),

exactly, for every T, f_0 and transition; T = 1 is importance sampling. The log of the mean of w over the chains is on
average below log p(x), and approaches it as T and the number of chains grow. A path from a good q(z|x) can be short; a
path from the prior must be long, but needs no encoder.

If the chain runs backwards, from a draw of the posterior to f_0, the same sum is -log w' with E[w'] = 1 / p(x), so the
estimate of log p(x) is on average too high. The z from which the model simulated an x is an exact draw of p(z|x); with
it, both directions bound log p(x) (bidirectional Monte Carlo; Grosse, Ghahramani & Adams 2015; Wu, Burda, Salakhutdinov
& Grosse 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyvae.engine.devices import Array, namespace_of, to_host
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.diagnostics import HIGHER, LOWER, NATS, Estimate, Quantity, mean_and_error, variance_of
from tinyvae.evidence.hamiltonian.densities import InitialDistribution, log_joint
from tinyvae.evidence.hamiltonian.hmc import TARGET, Chains, first_step_size, tuned
from tinyvae.evidence.hamiltonian.moves import MoveAverages, groups, move_quantities
from tinyvae.inference.bounds import Generator
from tinyvae.models.batch import Batch

SLOPE = 4.0  # the slope of the sigmoid that spaces the temperatures (Wu et al. 2017, section 5)
SETTLE = 50  # the number of moves at f_0 that find the first step size
BATCH = 500  # the number of simulated data in a batch
GAIN = 0.1  # the gain with which the step size then follows the temperature


def schedule(temperatures: int) -> np.ndarray:
    """beta_0 ... beta_T, (temperatures + 1,), dense at both ends, because the densities change fastest there:

        beta_t = (s(t) - s(0)) / (s(T) - s(0)) with s(t) = sigmoid(SLOPE (2 t / T - 1)).
    """
    s = 1 / (1 + np.exp(-SLOPE * np.linspace(-1, 1, temperatures + 1)))
    return (s - s[0]) / (s[-1] - s[0])


class AnnealedChains(Chains):
    """Chains whose density is moved along the path f_0 ... f_T."""

    def __init__(self, p: Generator, x: Tensor, initial: InitialDistribution, start: Array, noise: Noise) -> None:
        # `log_f` must not refer to `self`, because a circle of references would keep all arrays in memory.
        self._beta = beta = Tensor(namespace_of(start).zeros(1, start.dtype))

        def log_f(w: Tensor) -> tuple[Tensor, Tensor]:
            log_initial = initial.log_density(w)
            ratio = log_joint(p, x, w) - log_initial
            return log_initial + beta * ratio, ratio

        super().__init__(log_f, start, noise)

    def go_to(self, beta: float) -> Array:
        """Move the density to a temperature; return log p(x, z) - log f_0(z) at the positions, (chains, batch)."""
        self._beta.data[...] = beta
        self.refresh()
        (ratio,) = self.beside
        return ratio.astype(np.float64)


class Annealing:
    """The path from f_0 to p(x, z) for one batch x: its temperatures, and a step size for each temperature.

    A separate run of one chain finds the step sizes. They must not depend on the positions of the chains whose weights
    are averaged, or E[w] = p(x) would not hold.

    Parameters
    ----------
    p, posterior, x
        p(z) and p(x|z); q(z|x); the data (batch, pixels).
    start
        f_0: `encoder` or `prior`; see `InitialDistribution`.
    report
        A function that is called with the number of moves made for each datum since its last call.
    """

    def __init__(self, p: Generator, posterior: Any, x: Tensor, noise: Noise, temperatures: int, leapfrog: int,
                 start: str = "encoder", report: Callable[[int], Any] = lambda moves: None) -> None:
        self.p, self.x, self.noise, self.leapfrog, self.report = p, x, noise, leapfrog, report
        self.initial = InitialDistribution(p, posterior, start)
        self.betas = schedule(temperatures).astype(x.dtype).astype(np.float64)  # rounded to the type of the chains
        chain = self.chains_at(self.initial.draw(noise, 1, len(x)))
        step, steps = chain.settle(first_step_size(chain), SETTLE, leapfrog), []
        for beta in self.betas:
            chain.go_to(beta)
            steps.append(step)
            step = tuned(step, chain.transition(step, leapfrog).acceptance.mean(0), TARGET, GAIN)
            report(1)
        self.steps = steps

    def chains_at(self, start: Array) -> AnnealedChains:
        """Chains with the initial positions `start`, (chains, batch, latent)."""
        return AnnealedChains(self.p, self.x, self.initial, start, self.noise)

    def weights(self, chains: AnnealedChains, backwards: bool, averages: MoveAverages) -> Array:
        """log w of each chain, (chains, batch), from f_0 to p(x, z); `backwards`, from the posterior to f_0.

            log w = sum_t (beta_t - beta_(t-1)) (log p(x, z_(t-1)) - log f_0(z_(t-1)))
        """
        betas, steps = (self.betas[::-1], self.steps[::-1]) if backwards else (self.betas, self.steps)
        log_w = chains.xp.zeros(chains.log_f.shape, np.float64)
        for t in range(1, len(betas)):
            log_w += (betas[t] - betas[t - 1]) * chains.go_to(betas[t])  # at z_(t-1), before the transition
            if t < len(betas) - 1:
                averages.add(chains.transition(steps[t], self.leapfrog))
            self.report(len(log_w))
        return log_w

    @np.errstate(all="ignore")  # the result shows values that are not finite; NumPy need not warn
    def run(self, chains: int, posterior_draw: Array | None = None) -> Estimate:
        """log p(x) of each datum by `chains` chains: on average too low, with a draw of the posterior too high.

        Memory does not grow with `chains`. The variance of the log of the mean is var(mean w) / w^2 (the delta method).
        Backwards, all chains of a datum begin at the same draw, and the variance is the one given this draw.

        Parameters
        ----------
        posterior_draw
            One exact draw of p(z|x) for each datum, (batch, latent), in its stable form.
        """
        averages, first, second = MoveAverages(len(self.x)), *np.full((2, len(self.x)), -np.inf)
        backwards = posterior_draw is not None
        for size in groups(chains, self.x):
            start = self.initial.draw(self.noise, size, len(self.x)) if posterior_draw is None else \
                namespace_of(posterior_draw).stack([posterior_draw] * size)
            log_w = to_host(self.weights(self.chains_at(start), backwards, averages))
            first = np.logaddexp(first, np.logaddexp.reduce(log_w, axis=0))  # log sum w
            second = np.logaddexp(second, np.logaddexp.reduce(2 * log_w, axis=0))  # log sum w^2
        found, effective = first - math.log(chains), np.exp(2 * first - second)
        return Estimate(-found if backwards else found, variance_of(effective, chains), effective, *averages.means())


# ---- from both sides -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoSided:
    """log p(x) of simulated data, bounded from both sides; means in nats per datum, with their standard errors.

    On average lower <= log p(x) <= upper, so `gap` bounds the error of both, for this model and these settings.
    """

    data_count: int
    lower: float
    lower_stderr: float
    upper: float
    upper_stderr: float
    gap: float  # lower is better
    gap_stderr: float  # the standard error of upper - lower, which is computed datum by datum
    acceptance: float
    energy_error: float  # the mean |dH| of accepted moves, in nats
    chains: int
    temperatures: int
    leapfrog: int
    start: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def quantities(self) -> list[Quantity]:
        """What was found, each number with its standard error, unit and direction."""
        return [Quantity("log p(x), forwards", self.lower, self.lower_stderr, NATS, f"{HIGHER}; low on average"),
                Quantity("log p(x), backwards", self.upper, self.upper_stderr, NATS, f"{LOWER}; high on average"),
                Quantity("gap", self.gap, self.gap_stderr, NATS, LOWER),
                *move_quantities(self.acceptance, self.energy_error, self.leapfrog)]


def bidirectional(model: Any, count: int = 100, seed: int = 0, chains: int = 8, temperatures: int = 200,
                  leapfrog: int = 5, start: str = "encoder",
                  progress: Callable[[float], Any] = lambda share: None) -> TwoSided:
    """Bound log p(x) of simulated data from both sides: annealed importance sampling forwards and backwards.

    Parameters
    ----------
    model
        A model with p(z), p(x|z) and, for the start `encoder`, q(z|x).
    count
        The number of pairs (z, x) that are drawn from p(z) p(x|z).
    chains, temperatures, leapfrog, start
        As in `tinyvae.evaluate(..., method="ais")`.
    progress
        A function that is called now and then with the share of the work that is done.

    Raises
    ------
    ValueError
        For a count below 1, or settings that do not exist.
    """
    if count < 1:
        raise ValueError(f"found a count of {count} simulated data; expected at least 1")
    p = model.generator(None)
    noise, done, columns = Noise(seed, "simulated", model.xp.zeros(1, np.int64)), 0, []
    for number, first in enumerate(range(0, count, BATCH)):
        noise.restart(number)
        z = p.prior.sample(noise, min(BATCH, count - first))  # z ~ p(z)
        x = Tensor(p.likelihood(z).sample(noise).data[0].copy())  # x ~ p(x|z), and so z ~ p(z|x)

        def report(moves: int, batch: int = len(x)) -> None:
            nonlocal done
            done += moves * batch
            progress(done / (count * (1 + temperatures * (1 + 2 * chains))))

        annealing = Annealing(p, model.posterior(Batch(x)), x, noise, temperatures, leapfrog, start, report)
        columns.append(np.array([annealing.run(chains), annealing.run(chains, p.prior.to_stable(z).data)]))
    below, above = np.concatenate(columns, axis=2)  # the fields of an Estimate, each (5, count)
    lower, upper, gap = (mean_and_error(values) for values in (below[0], above[0], above[0] - below[0]))
    acceptance, energy_error = ((below[3:] + above[3:]).mean(1) / 2).tolist()
    return TwoSided(count, lower[0], lower[1], upper[0], upper[1], gap[0], gap[1], acceptance, energy_error, chains,
                    temperatures, leapfrog, start)
