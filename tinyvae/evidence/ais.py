"""Annealed importance sampling: log p(x) along a path of densities that begins at a known one (Neal 2001).

    log f_t(z) = log f_0(z) + beta_t (log p(x, z) - log f_0(z)),    0 = beta_0 < ... < beta_T = 1,

f_0 being the encoder's q(z|x) or the prior p(z). A chain begins at z_0 ~ f_0; Hamiltonian transitions that leave f_t
as it is make z_t of z_(t-1); and

    log w = sum_t (beta_t - beta_(t-1)) (log p(x, z_(t-1)) - log f_0(z_(t-1))),    E[w] = p(x),

exactly, whatever T, f_0 and the transitions are; with T = 1 it is importance sampling. So the log of the mean of w over
chains lies on average below log p(x), and rises to it with T and the number of chains. Where q(z|x) fits, a path from
there is short; from the prior it is long, but needs no encoder.

Run backwards from a draw of the posterior, the same sum is -log w' with E[w'] = 1 / p(x), so that it errs upwards. For
data that the model has made there is such a draw, the z that made it (bidirectional Monte Carlo; Grosse, Ghahramani &
Adams 2015; Wu, Burda, Salakhutdinov & Grosse 2017).
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
from tinyvae.evidence.diagnostics import Estimate, mean_and_error, variance_of
from tinyvae.evidence.hmc import TARGET, Chains, Tally, first_step, groups, log_density, tuned
from tinyvae.inference.bounds import Generator
from tinyvae.models.batch import Batch

STARTS = ("encoder", "prior")
SLOPE = 4.0  # of the sigmoid that places the temperatures (Wu et al. 2017, section 5)
SETTLE = 50  # moves at f_0, to find a step size there
BATCH = 500  # simulated data at a time
GAIN = 0.1  # by which the step size then follows the temperature


def check_start(start: str) -> None:
    """ValueError for what is no start."""
    if start not in STARTS:
        raise ValueError(f"found start {start!r}; expected {' or '.join(STARTS)}")


def schedule(temperatures: int) -> np.ndarray:
    """beta_0 ... beta_T, (temperatures + 1,), dense at both ends, where the densities change fastest.

    beta_t = (s(t) - s(0)) / (s(T) - s(0)) with s(t) = sigmoid(SLOPE (2 t / T - 1)).
    """
    s = 1 / (1 + np.exp(-SLOPE * np.linspace(-1, 1, temperatures + 1)))
    return (s - s[0]) / (s[-1] - s[0])


class Start:
    """f_0 of a batch: `encoder`, q(z|x); or `prior`, p(z).

    The encoder's is near the posterior, so that few temperatures do; but no chain that begins there sees a mode of the
    posterior far from it. (A mixture of the two has the long path of the prior: 1.1 nats of gap where the encoder has
    0.05, on MNIST with 20 latents.)
    """

    def __init__(self, p: Generator, posterior: Any, kind: str) -> None:
        check_start(kind)
        self.prior, self.law = p.prior, p.prior if kind == "prior" else posterior.map(lambda v: Tensor(v.data))

    def draw(self, noise: Noise, chains: int, batch: int) -> Array:
        """Draws by their stable form, (chains, batch, latent)."""
        of_all = self.law is self.prior  # one law for all data
        w = self.prior.to_stable(self.law.sample(noise, chains * batch if of_all else chains)).data
        return w.reshape(chains, batch, w.shape[-1])

    def log_density(self, w: Tensor) -> Tensor:
        """log f_0, (chains, batch)."""
        return log_density(self.law, w)


def log_joint(p: Generator, x: Tensor, w: Tensor) -> Tensor:
    """log p(x, z) for draws by their stable form w (chains, batch, latent): (chains, batch)."""
    return log_density(p.prior, w) + p.likelihood(p.prior.from_stable(w)).log_prob(x)


class Path(Chains):
    """Chains whose density is moved along the path."""

    def __init__(self, p: Generator, x: Tensor, base: Start, start: Array, noise: Noise) -> None:
        # (`log_f` must not refer to `self`: the circle would keep all arrays until the garbage collector comes)
        self._beta = beta = Tensor(namespace_of(start).zeros(1, start.dtype))

        def log_f(w: Tensor) -> tuple[Tensor, Tensor]:
            log_base = base.log_density(w)
            ratio = log_joint(p, x, w) - log_base
            return log_base + beta * ratio, ratio

        super().__init__(log_f, start, noise)

    def go_to(self, beta: float) -> Array:
        """Move the density to that temperature; log p(x, z) - log f_0(z) where the chains are, (chains, batch)."""
        self._beta.data[...] = beta
        self.refresh()
        (ratio,) = self.beside
        return ratio.astype(np.float64)


class Annealing:
    """The path from f_0 to p(x, z) for one batch x: its temperatures, and step sizes found by a run of their own.

    In the runs that measure, a step size must not depend on where their chains are, or E[w] = p(x) would not hold.

    Parameters
    ----------
    p, posterior, x
        p(z) and p(x|z); q(z|x); the data (batch, pixels).
    start
        f_0: `encoder` or `prior`; see `Start`.
    tick
        Is told how many moves for each datum were made since.
    """

    def __init__(self, p: Generator, posterior: Any, x: Tensor, noise: Noise, temperatures: int, leapfrog: int,
                 start: str = "encoder", tick: Callable[[int], Any] = lambda moves: None) -> None:
        self.p, self.x, self.noise, self.leapfrog, self.tick = p, x, noise, leapfrog, tick
        self.base = Start(p, posterior, start)
        self.betas = schedule(temperatures).astype(x.dtype).astype(np.float64)  # as the chains see them
        path = self.path(self.base.draw(noise, 1, len(x)))
        step, steps = path.settle(first_step(path), SETTLE, leapfrog), []
        for beta in self.betas:
            path.go_to(beta)
            steps.append(step)
            step = tuned(step, path.transition(step, leapfrog).acceptance.mean(0), TARGET, GAIN)
            tick(1)
        self.steps = steps

    def path(self, start: Array) -> Path:
        """Chains that begin there."""
        return Path(self.p, self.x, self.base, start, self.noise)

    def weights(self, path: Path, backwards: bool, tally: Tally) -> Array:
        """log w of each chain, (chains, batch), from f_0 to p(x, z) or, of chains in the posterior, back."""
        betas, steps = (self.betas[::-1], self.steps[::-1]) if backwards else (self.betas, self.steps)
        log_w = path.xp.zeros(path.log_f.shape, np.float64)
        for t in range(1, len(betas)):
            log_w += (betas[t] - betas[t - 1]) * path.go_to(betas[t])  # at the places before the transition
            if t < len(betas) - 1:
                tally.add(path.transition(steps[t], self.leapfrog))
            self.tick(len(log_w))
        return log_w

    @np.errstate(all="ignore")  # what is not finite is shown, not warned of
    def run(self, chains: int, posterior_draw: Array | None = None) -> Estimate:
        """log p(x) of each datum by so many chains: from below; from above with a draw of the posterior.

        Memory does not grow with `chains`. The variance is that of the log of a mean by the delta method, var(w) / w^2;
        backwards, where the chains of a datum begin at the same draw, it is that for given draws only.

        Parameters
        ----------
        posterior_draw
            (batch, latent), one exact draw of p(z|x) for each datum, by its stable form.
        """
        tally, first, second = Tally(len(self.x)), *np.full((2, len(self.x)), -np.inf)
        backwards = posterior_draw is not None
        for size in groups(chains, self.x):
            start = self.base.draw(self.noise, size, len(self.x)) if posterior_draw is None else \
                namespace_of(posterior_draw).stack([posterior_draw] * size)
            log_w = to_host(self.weights(self.path(start), backwards, tally))
            first = np.logaddexp(first, np.logaddexp.reduce(log_w, axis=0))  # log sum w
            second = np.logaddexp(second, np.logaddexp.reduce(2 * log_w, axis=0))  # log sum w^2
        found, effective = first - math.log(chains), np.exp(2 * first - second)
        return Estimate(-found if backwards else found, variance_of(effective, chains), effective, *tally.rates())


# ---- from both sides -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoSided:
    """log p(x) of data that the model made, bounded from both sides; means in nats per datum, each with its error.

    On average lower <= log p(x) <= upper, so `gap` is more than either bound errs, for this model and these settings.
    """

    data_count: int
    lower: float
    lower_stderr: float
    upper: float
    upper_stderr: float
    gap: float  # lower is better
    gap_stderr: float  # of the differences, datum by datum
    acceptance: float
    energy_error: float  # mean |dH| of accepted moves, nats
    chains: int
    temperatures: int
    leapfrog: int
    start: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bidirectional(model: Any, count: int = 100, seed: int = 0, chains: int = 8, temperatures: int = 200,
                  leapfrog: int = 5, start: str = "encoder",
                  progress: Callable[[float], Any] = lambda share: None) -> TwoSided:
    """Annealed importance sampling held against itself: forwards and backwards on simulated data.

    Parameters
    ----------
    model
        Its p(z), p(x|z) and, for the start `encoder`, q(z|x).
    count
        How many (z, x) to draw of p(z) p(x|z).
    chains, temperatures, leapfrog, start
        As in `tinyvae.evaluate(..., method="ais")`.
    progress
        Is told now and then which share is done.

    Raises
    ------
    ValueError
        For a count below 1, or settings that are none.
    """
    if count < 1:
        raise ValueError(f"found a count of {count} simulated data; expected at least 1")
    p = model.generator(None)
    noise, done, columns = Noise(seed, "simulated", model.xp.zeros(1, np.int64)), 0, []
    for number, first in enumerate(range(0, count, BATCH)):
        noise.restart(number)
        z = p.prior.sample(noise, min(BATCH, count - first))  # z ~ p(z)
        x = Tensor(p.likelihood(z).sample(noise).data[0].copy())  # x ~ p(x|z), and so z ~ p(z|x)

        def tick(moves: int, batch: int = len(x)) -> None:
            nonlocal done
            done += moves * batch
            progress(done / (count * (1 + temperatures * (1 + 2 * chains))))

        path = Annealing(p, model.posterior(Batch(x)), x, noise, temperatures, leapfrog, start, tick)
        columns.append(np.array([path.run(chains), path.run(chains, p.prior.to_stable(z).data)]))
    below, above = np.concatenate(columns, axis=2)  # each the fields of an Estimate, (5, count)
    lower, upper, gap = (mean_and_error(values) for values in (below[0], above[0], above[0] - below[0]))
    acceptance, energy_error = ((below[3:] + above[3:]).mean(1) / 2).tolist()
    return TwoSided(count, lower[0], lower[1], upper[0], upper[1], gap[0], gap[1], acceptance, energy_error, chains,
                    temperatures, leapfrog, start)
