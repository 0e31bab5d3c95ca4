"""Independent estimates of a gradient by several estimators from the same draws, and what their spread is.

An estimator of g = d/dv E_q[f] draws z_1 .. z_L from q and gives a mean over them. Independent estimates are had
together: the parameters are leaves of R equal rows, and the gradient by a row is an estimate of its own. With V the
variance of such an estimate over the rows, the variance of a draw is L V (for baselines, which join draws, the one that
L draws behave as if they had). Of several parameters it is the trace of the covariance, the sum over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tinyvae.distributions import Distribution
from tinyvae.engine.noise import Noise, uniform
from tinyvae.engine.program import Tape
from tinyvae.engine.tensor import Tensor, apply, grad
from tinyvae.inference.estimators import BASELINES, Baseline, Latent, Term, score_term, sum_to_axes, surrogate
from tinyvae.measure.timing import measure

BATCHES = 100  # whose variances are averaged, and resampled for an interval
SETTLING = 40  # steps before the moving average is used: it then weighs the steps as if it had always run
DECAY = 0.9
RESAMPLES = 1000
NAMES = {"score": "score (BBVI)", "grep": "G-REP", "reparam": "reparameterized", "implicit": "implicit"}


class Problem(Protocol):
    """f and q, and the parameters that derivatives are taken by."""

    title: str
    replicas: int  # R; above 1 it is the first axis of every parameter, named "r" in latents and terms
    parameters: dict[str, list[Tensor]]  # by the name of a table

    def factors(self) -> dict[str, tuple[Distribution, str]]:
        """q of each latent, and its axes' names."""

    def terms(self, z: dict[str, Tensor]) -> list[Term]:
        """f(z)."""

    def closed(self) -> Tensor | None:
        """What is added to E_q[f] in closed form, a single number."""

    def check(self) -> None:
        """ValueError if f was not finite at the latest draws."""


class Row(NamedTuple):
    """A row of the table: an estimator with a baseline, or one part of its sum."""

    estimator: str
    baseline: str = "none"
    part: str = ""  # "g_rep" or "g_corr", one of G-REP's two terms
    whole: bool = False  # every score times all of f, even where terms could be left out

    @property
    def name(self) -> str:
        name = NAMES[self.estimator] + (", all of f" if self.whole else "")
        return f"{name}: {self.part}" if self.part else name + (f" + {self.baseline}" * (self.baseline != "none"))


def rows_for(estimators: Sequence[str], samples: int, latents: int = 1) -> list[Row]:
    """The rows that estimators have, from the oldest idea to the newest."""
    baselines = [name for name in BASELINES if name != "none" and (samples > 1 or name == "moving-average")]
    rows = []
    if "score" in estimators:
        rows += [Row("score", whole=True)] if latents > 1 else []
        rows += [Row("score"), *(Row("score", baseline) for baseline in baselines)]
    if "grep" in estimators:
        rows += [Row("grep", part="g_rep"), Row("grep", part="g_corr"), Row("grep")]
        rows += [Row("grep", baseline) for baseline in baselines if baseline != "moving-average"]
    return rows + [Row(name) for name in estimators if name not in ("score", "grep")]


# ---- the estimates ---------------------------------------------------------------------------------------------------


class _EachAverage:
    """The baseline of estimators.MovingAverage, one for each replica: b <- decay b + (1 - decay) mean f."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.states: dict[str, np.ndarray] = {}

    def __call__(self, f: Tensor, latent: Latent) -> Tensor:
        axes = tuple(i for i in range(f.ndim) if i != 1 or self.replicas == 1)
        mean = f.mean(axes, keepdims=True)
        state = Tensor(self.states.setdefault(latent.name, np.zeros(mean.shape, f.dtype)))
        before = apply("copy", state)
        apply("store", DECAY * before + (1 - DECAY) * mean, state)
        return score_term(f - before, latent)

    def settle(self) -> None:
        """After the first step: all the weight to what it found, none to the 0 before."""
        for state in self.states.values():
            state /= 1 - DECAY


class Program:
    """Estimates by several rows from the same draws, as a tape; each `step` draws anew.

    With `draws`, (samples, ...) by the latents' names, there is one step, on these.
    """

    def __init__(self, problem: Problem, rows: Sequence[Row], samples: int, seed: int = 0, stream: str = "noise",
                 draws: Mapping[str, Tensor] | None = None) -> None:
        self.problem, self.rows, self.samples = problem, rows, samples
        self.noise = Noise(seed, stream)
        self.averages: list[_EachAverage] = []
        with np.errstate(all="ignore"), Tape() as self.tape:
            factors = problem.factors()
            drawn = draws or {name: q.sample(self.noise, samples) for name, (q, _) in factors.items()}
            made: dict[str, tuple[list[Term], list[Latent]]] = {}
            for estimator in dict.fromkeys(row.estimator for row in rows):
                latents = [Latent(name, q, drawn[name], estimator, axes) for name, (q, axes) in factors.items()]
                made[estimator] = problem.terms({latent.name: latent.z for latent in latents}), latents
            self.gradients = {row: self._gradient(row, *made[row.estimator]) for row in rows}
        problem.check()
        for average in self.averages:
            average.settle()

    def _gradient(self, row: Row, terms: list[Term], latents: list[Latent]) -> dict[str, list[Tensor]]:
        if row.whole:
            terms = [_together(terms, latents, "r" if self.problem.replicas > 1 else "")]
        if row.part == "g_corr":  # without the path
            terms = [Term(term.value.detach(), term.axes, term.of) for term in terms]
        total = surrogate(terms, [] if row.part == "g_rep" else latents, self._baseline(row)).sum() * (1 / self.samples)
        closed = self.problem.closed()
        if closed is not None and row.part != "g_corr":
            total = total + closed
        tensors = [tensor for group in self.problem.parameters.values() for tensor in group]
        found = iter(grad(total, tensors))
        return {name: [next(found) for _ in group] for name, group in self.problem.parameters.items()}

    def _baseline(self, row: Row) -> Baseline:
        if row.baseline != "moving-average":
            return BASELINES[row.baseline]()
        self.averages.append(_EachAverage(self.problem.replicas))
        return self.averages[-1]

    def step(self) -> None:
        """The estimates from the next draws."""
        self.noise.counters += 1
        self.tape.replay()

    def estimates(self, row: Row, name: str) -> np.ndarray:
        """The latest, (replicas, parameters), in float64."""
        parts = [part.data.reshape(self.problem.replicas, -1) for part in self.gradients[row][name]]
        return np.concatenate(parts, axis=1).astype(np.float64)


def _together(terms: Sequence[Term], latents: Sequence[Latent], kept: str) -> Term:
    """All of f as one term, in which every latent is."""
    total: Any = 0.0
    for term in terms:
        total = total + sum_to_axes(term.value, term.axes, kept)
    return Term(total, kept, tuple(latent.name for latent in latents))


# ---- what is found of them -------------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """Estimates by one row of one table, along the direction u, and their variance over all parameters."""

    mean: float
    stderr: float
    variance: float  # of an estimate: the trace
    interval: tuple[float, float]  # 95 %
    largest: float  # the largest share that a single estimate has of the sum of squares


class Tally:
    """Gathers estimates batch by batch; without a direction, only their mean and the trace."""

    def __init__(self, direction: np.ndarray | None = None) -> None:
        self.direction = direction
        self.total: Any = 0.0  # of the batches' mean vectors
        self.means: list[float] = []
        self.along: list[float] = []
        self.traces: list[float] = []
        self.largest, self.count = 0.0, 0

    def add(self, estimates: np.ndarray) -> None:
        """A batch, (count, parameters)."""
        mean = estimates.mean(0)
        centred = estimates - mean
        squares = (centred**2).sum(1)
        self.total = self.total + mean
        self.traces.append(float(squares.sum() / (len(estimates) - 1)))
        self.largest, self.count = max(self.largest, float(squares.max())), self.count + len(estimates)
        if self.direction is not None:
            self.means.append(float(mean @ self.direction))
            self.along.append(float((centred @ self.direction).var(ddof=1)))

    @property
    def trace(self) -> float:
        return float(np.mean(self.traces))

    def interval(self) -> tuple[float, float]:
        """95 % of the trace: percentiles of a bootstrap over the batches."""
        n = len(self.traces)
        picks = (uniform(0, "bootstrap", 0, 0, (RESAMPLES, n), np.float64) * n).astype(int)
        low, high = np.quantile(np.array(self.traces)[picks].mean(1), (0.025, 0.975))
        return float(low), float(high)

    def spread(self) -> Spread:
        """What was gathered."""
        share = self.largest / (self.trace * self.count) if self.trace > 0 else 0.0
        return Spread(float(np.mean(self.means)), math.sqrt(float(np.mean(self.along)) / self.count), self.trace,
                      self.interval(), share)


def gather(program: Program, steps: int, directions: Mapping[str, np.ndarray] | None = None,
           report: Callable[[int], Any] = lambda done: None) -> dict[tuple[Row, str], Tally]:
    """Estimates of so many steps, by row and table."""
    tallies = {(row, name): Tally(None if directions is None else directions[name]) for row in program.rows
               for name in program.problem.parameters}
    together = 1 if program.problem.replicas > 1 else max(2, steps // BATCHES)
    for _ in range(SETTLING if program.averages else 0):
        program.step()
    for done in range(together, steps + 1, together):
        batch: dict[tuple[Row, str], list[np.ndarray]] = {key: [] for key in tallies}
        for _ in range(together):
            program.step()
            for (row, name), found in batch.items():
                found.append(program.estimates(row, name))
        for (row, name), found in batch.items():
            if not np.isfinite(found).all():
                program.problem.check()
                raise ValueError(f"found an estimate by {row.name} of the derivative by {name} that is not finite, "
                                 f"though f is; choose parameters nearer to 1, or another f: {program.problem.title}")
            tallies[row, name].add(np.concatenate(found))
        report(done)
    return tallies


def costs(problem: Problem, rows: Sequence[Row], samples: int, seed: int = 0) -> dict[Row, float]:
    """Microseconds a draw of each row by itself: draws, f, and the gradient by all parameters, replayed.

    The fastest of the rounds: what else a machine does can only add to the time.
    """
    programs = {row: Program(problem, [row], samples, seed) for row in rows}
    timings = measure({row.name: program.tape.replay for row, program in programs.items()}, rounds=9)
    return {row: 1e6 * min(timings[row.name].seconds) / (samples * problem.replicas) for row in rows}
