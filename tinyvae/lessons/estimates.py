"""Independent estimates of a gradient by several estimators from the same draws, and how far they spread.

An estimator of g = d/dv E_q[f] draws z_1 .. z_L from q and gives a mean over them. Independent estimates are had
together: the parameters are leaves of R equal rows, and the gradient by a row is an estimate of its own. With V the
variance of such an estimate over the rows, the variance of a draw is L V (for baselines, which join draws, the one that
L draws behave as if they had). Of several parameters it is the trace of the covariance, the sum over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvae.distributions import Distribution
from tinyvae.engine.noise import Noise, uniform
from tinyvae.engine.tape import Tape
from tinyvae.engine.tensor import Tensor, apply, grad
from tinyvae.inference.estimators import BASELINES, Baseline, Latent, Term, score_term, sum_to_axes, surrogate
from tinyvae.measure.timing import measure

BATCHES = 100  # whose variances are averaged, and resampled for an interval
SETTLING = 40  # steps before the moving average is used: it then weighs the steps as if it had always run
DECAY = 0.9
RESAMPLES = 1000
ROUNDS = 9  # of timing
NAMES = {"score": "score (BBVI)", "grep": "G-REP", "reparam": "reparameterized", "implicit": "implicit"}

Report = Callable[[float], Any]  # is told the share of the work that is done


class Problem:
    """f and q, and the parameters that derivatives are taken by."""

    name: str
    title: str
    replicas: int  # R; above 1 it is the first axis of every parameter, named "r" in latents and terms
    parameters: dict[str, list[Tensor]]  # by the name of a table
    usual: int  # draws, where none are asked for
    latents = 1

    def factors(self) -> dict[str, tuple[Distribution, str]]:
        """q of each latent, and its axes' names."""
        raise NotImplementedError

    def terms(self, z: dict[str, Tensor]) -> list[Term]:
        """f(z)."""
        raise NotImplementedError

    def closed(self) -> Tensor | None:
        """What is added to E_q[f] in closed form, a single number."""
        return None

    def check(self) -> None:
        """ValueError if f was not finite at the latest draws."""


class Choice(NamedTuple):
    """An estimator with a baseline, or one part of its sum."""

    estimator: str
    baseline: str = "none"
    part: str = ""  # "g_rep" or "g_corr", one of G-REP's two terms
    whole: bool = False  # every score times all of f, even where terms could be left out

    @property
    def name(self) -> str:
        name = NAMES[self.estimator] + (", all of f" if self.whole else "")
        return f"{name}: {self.part}" if self.part else name + (f" + {self.baseline}" * (self.baseline != "none"))


def variants(estimators: Sequence[str], samples: int, latents: int = 1) -> list[Choice]:
    """Estimators with their baselines and parts, from the oldest idea to the newest."""
    baselines = [name for name in BASELINES if name != "none" and (samples > 1 or name == "moving-average")]
    found = []
    if "score" in estimators:
        found += [Choice("score", whole=True)] if latents > 1 else []
        found += [Choice("score"), *(Choice("score", baseline) for baseline in baselines)]
    if "grep" in estimators:
        found += [Choice("grep", part="g_rep"), Choice("grep", part="g_corr"), Choice("grep")]
        found += [Choice("grep", baseline) for baseline in baselines if baseline != "moving-average"]
    return found + [Choice(name) for name in estimators if name not in ("score", "grep")]


# ---- the estimates ---------------------------------------------------------------------------------------------------


class EachAverage:
    """The baseline of estimators.MovingAverage, one for each replica: b <- decay b + (1 - decay) mean f."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.states: dict[str, np.ndarray] = {}

    def __call__(self, f: Tensor, latent: Latent) -> Tensor:
        mean = f.mean(tuple(i for i in range(f.ndim) if i != 1 or self.replicas == 1), keepdims=True)
        state = Tensor(self.states.setdefault(latent.name, np.zeros(mean.shape, f.dtype)))
        before = apply("copy", state)
        apply("store", DECAY * before + (1 - DECAY) * mean, state)
        return score_term(f - before, latent)

    def settle(self) -> None:
        """After the first step: all the weight to what it found, none to the 0 before."""
        for state in self.states.values():
            state /= 1 - DECAY


class Estimates:
    """Estimates by several choices from the same draws, as a tape; each `step` draws anew.

    With `draws`, (samples, ...) by the latents' names, there is one step, on these.
    """

    def __init__(self, problem: Problem, choices: Sequence[Choice], samples: int, seed: int = 0, stream: str = "noise",
                 draws: Mapping[str, Tensor] | None = None) -> None:
        self.problem, self.choices, self.samples = problem, choices, samples
        self.noise = Noise(seed, stream)
        self.averages: list[EachAverage] = []
        with np.errstate(all="ignore"), Tape() as self.tape:
            factors = problem.factors()
            drawn = draws or {name: q.sample(self.noise, samples) for name, (q, _) in factors.items()}
            made: dict[str, tuple[list[Term], list[Latent]]] = {}
            for estimator in dict.fromkeys(choice.estimator for choice in choices):
                latents = [Latent(name, q, drawn[name], estimator, axes) for name, (q, axes) in factors.items()]
                made[estimator] = problem.terms({latent.name: latent.z for latent in latents}), latents
            self.gradients = {choice: self._gradient(choice, *made[choice.estimator]) for choice in choices}
        for average in self.averages:
            average.settle()

    def _gradient(self, choice: Choice, terms: list[Term], latents: list[Latent]) -> dict[str, list[Tensor]]:
        if choice.whole:  # all of f is one term, in which every latent is
            kept = "r" if self.problem.replicas > 1 else ""
            total: Any = 0.0
            for term in terms:
                total = total + sum_to_axes(term.value, term.axes, kept)
            terms = [Term(total, kept, tuple(latent.name for latent in latents))]
        if choice.part == "g_corr":  # without the path
            terms = [Term(term.value.detach(), term.axes, term.of) for term in terms]
        scored = [] if choice.part == "g_rep" else latents
        mean = surrogate(terms, scored, self._baseline(choice)).sum() * (1 / self.samples)
        closed = self.problem.closed()
        if closed is not None and choice.part != "g_corr":
            mean = mean + closed
        tensors = [tensor for group in self.problem.parameters.values() for tensor in group]
        found = iter(grad(mean, tensors))
        return {name: [next(found) for _ in group] for name, group in self.problem.parameters.items()}

    def _baseline(self, choice: Choice) -> Baseline:
        if choice.baseline != "moving-average":
            return BASELINES[choice.baseline]()
        self.averages.append(EachAverage(self.problem.replicas))
        return self.averages[-1]

    def step(self) -> None:
        """The estimates from the next draws."""
        self.noise.counters += 1
        self.tape.replay()

    def by(self, choice: Choice, name: str) -> np.ndarray:
        """The latest, (replicas, parameters), in float64."""
        parts = [part.data.reshape(self.problem.replicas, -1) for part in self.gradients[choice][name]]
        return np.concatenate(parts, axis=1).astype(np.float64)


# ---- how far they spread ---------------------------------------------------------------------------------------------


class Spread:
    """Estimates, gathered batch by batch: their mean along a direction, and their variance over all parameters."""

    def __init__(self, direction: np.ndarray) -> None:
        self.direction, self.count, self.worst = direction, 0, 0.0
        self.total: Any = 0.0  # of the batches' mean vectors
        self.means: list[float] = []
        self.along: list[float] = []
        self.variances: list[float] = []  # of an estimate: the traces

    def add(self, estimates: np.ndarray) -> None:
        """A batch, (count, parameters)."""
        mean = estimates.mean(0)
        centred = estimates - mean
        squares = (centred**2).sum(1)
        self.total, self.count = self.total + mean, self.count + len(estimates)
        self.worst = max(self.worst, float(squares.max()))
        self.variances.append(float(squares.sum() / (len(estimates) - 1)))
        self.means.append(float(mean @ self.direction))
        self.along.append(float((centred @ self.direction).var(ddof=1)))

    @property
    def mean(self) -> float:
        return float(np.mean(self.means))

    @property
    def stderr(self) -> float:
        return math.sqrt(float(np.mean(self.along)) / self.count)

    @property
    def variance(self) -> float:
        return float(np.mean(self.variances))

    @property
    def largest(self) -> float:
        """The largest share that a single estimate has of the sum of squares."""
        return self.worst / (self.variance * self.count) if self.variance > 0 else 0.0

    def interval(self) -> tuple[float, float]:
        """95 % of the variance: percentiles of a bootstrap over the batches."""
        n = len(self.variances)
        picks = (uniform(0, "bootstrap", 0, 0, (RESAMPLES, n), np.float64) * n).astype(int)
        low, high = np.quantile(np.array(self.variances)[picks].mean(1), (0.025, 0.975))
        return float(low), float(high)


def gather(found: Estimates, steps: int, directions: Mapping[str, np.ndarray] | None = None,
           report: Report = lambda share: None) -> dict[tuple[Choice, str], Spread]:
    """Estimates of so many steps, by choice and table; without a direction, means are those of all parameters."""
    problem = found.problem
    each = {name: sum(tensor.size for tensor in group) // problem.replicas
            for name, group in problem.parameters.items()}  # fmt: skip
    spreads = {(choice, name): Spread(directions[name] if directions else np.full(size, 1 / size))
               for choice in found.choices for name, size in each.items()}
    together = 1 if problem.replicas > 1 else max(2, steps // BATCHES)
    for _ in range(SETTLING if found.averages else 0):
        found.step()
    for done in range(together, steps + 1, together):
        batch: dict[tuple[Choice, str], list[np.ndarray]] = {key: [] for key in spreads}
        for _ in range(together):
            found.step()
            for (choice, name), estimates in batch.items():
                estimates.append(found.by(choice, name))
        for (choice, name), estimates in batch.items():
            if not np.isfinite(estimates).all():
                problem.check()
                raise ValueError(f"found an estimate by {choice.name} of the derivative by {name} that is not finite, "
                                 f"though f is; choose parameters nearer to 1, or another f: {problem.title}")
            spreads[choice, name].add(np.concatenate(estimates))
        report(done / steps)
    return spreads


def costs(problem: Problem, choices: Sequence[Choice], samples: int, seed: int = 0) -> dict[Choice, float]:
    """Microseconds a draw of each choice by itself: draws, f, and the gradient by all parameters, replayed.

    The fastest of the rounds: what else a machine does can only add to the time.
    """
    replays = {choice.name: Estimates(problem, [choice], samples, seed).tape.replay for choice in choices}
    timings = measure(replays, rounds=ROUNDS)
    return {choice: 1e6 * min(timings[choice.name].seconds) / (samples * problem.replicas) for choice in choices}
