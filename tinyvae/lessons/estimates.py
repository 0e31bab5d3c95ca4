"""Independent estimates of a gradient by several estimators from the same draws, and how far they spread.

An estimator of g = d/dv E_q[f] draws z_1 .. z_L from q and gives a mean over them. One computation gives R independent
estimates: each parameter is a leaf of R equal rows, and the gradient by one row is one estimate. With V the variance of
such an estimate over the rows, L V is called the variance of a draw. (A baseline joins the L draws, which then have no
variance of their own; L V still compares.) Of several parameters it is the sum, the trace of the covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvae.distributions import Distribution
from tinyvae.engine.noise import Noise, uniform
from tinyvae.engine.program import Program
from tinyvae.engine.tensor import Tensor, apply, grad
from tinyvae.inference.estimators import BASELINES, Baseline, Latent, Term, score_term, sum_to_axes, surrogate
from tinyvae.measure.timing import measure

BATCHES = 100  # whose variances are averaged, and resampled for an interval
SETTLING = 40  # steps before the moving average is used: it then weighs the steps as if it had always run
DECAY = 0.9  # of the moving average
RESAMPLES = 1000  # of a bootstrap
ROUNDS = 9  # of timing
NAMES = {"score": "score (BBVI)", "grep": "G-REP", "reparam": "reparameterized", "implicit": "implicit"}

Report = Callable[[float], Any]  # receives the share of the work that is done


class Problem:
    """f and q, and the parameters that derivatives are taken by."""

    name: str
    title: str
    replicas: int  # R; above 1 it is the first axis of every parameter, named "r" in latents and terms
    parameters: dict[str, list[Tensor]]  # by the name of a table
    usual: int  # draws, where none are asked for
    latents = 1
    smooth = True  # is the derivative of f all there is to its change?

    def size(self, name: str) -> int:
        """How many numbers the parameters of a table are."""
        return sum(tensor.size for tensor in self.parameters[name]) // self.replicas

    def factors(self) -> dict[str, tuple[Distribution, str]]:
        """q of each latent, and its axes' names."""
        raise NotImplementedError

    def terms(self, z: dict[str, Tensor]) -> list[Term]:
        """f(z)."""
        raise NotImplementedError

    def closed(self) -> Tensor | None:
        """What is added to E_q[f] in closed form, a single number."""
        return None

    def check(self, seen: Sequence[tuple[Tensor, Tensor]]) -> None:
        """ValueError if a term of f is not finite at a latent that was seen."""


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
    """Estimates by several choices from the same draws; each `step` draws anew.

    With `draws`, (samples, ...) by the latents' names, there is one step, on these.
    """

    def __init__(self, problem: Problem, choices: Sequence[Choice], samples: int, seed: int = 0, stream: str = "noise",
                 draws: Mapping[str, Tensor] | None = None) -> None:
        self.problem, self.choices, self.samples, self.draws = problem, choices, samples, draws
        self.noise = Noise(seed, stream)
        self.averages = {choice: EachAverage(problem.replicas) for choice in choices
                         if choice.baseline == "moving-average"}
        self.program = Program(self._estimate)
        self.gradients, self.seen = self.program()
        for average in self.averages.values():
            average.settle()

    def _estimate(self) -> tuple[Any, Any]:
        """The gradients by choice and table, and a latent with a term of f for each estimator."""
        self.noise.restart()
        factors = self.problem.factors()
        drawn = self.draws or {name: q.sample(self.noise, self.samples) for name, (q, _) in factors.items()}
        made: dict[str, tuple[list[Term], list[Latent]]] = {}
        for estimator in dict.fromkeys(choice.estimator for choice in self.choices):
            latents = [Latent(name, q, drawn[name], estimator, axes) for name, (q, axes) in factors.items()]
            made[estimator] = self.problem.terms({latent.name: latent.z for latent in latents}), latents
        gradients = {choice: self._gradient(choice, *made[choice.estimator]) for choice in self.choices}
        return gradients, [(latents[0].z, terms[0].value) for terms, latents in made.values()]

    def _gradient(self, choice: Choice, terms: list[Term], latents: list[Latent]) -> dict[str, list[Tensor]]:
        if choice.whole:  # all of f is one term, in which every latent is
            kept = "r" if self.problem.replicas > 1 else ""
            total: Any = 0.0
            for term in terms:
                total = total + sum_to_axes(term.value, term.axes, kept)
            terms = [Term(total, kept, tuple(latent.name for latent in latents))]
        if choice.part == "g_corr":  # without the path
            terms = [Term(term.value.detach(), term.axes, term.of) for term in terms]
        baseline: Baseline = self.averages.get(choice) or BASELINES[choice.baseline]()
        scored = [] if choice.part == "g_rep" else latents
        mean = surrogate(terms, scored, baseline).sum() * (1 / self.samples)
        closed = self.problem.closed()
        if closed is not None and choice.part != "g_corr":
            mean = mean + closed
        tensors = [tensor for group in self.problem.parameters.values() for tensor in group]
        found = iter(grad(mean, tensors))
        return {name: [next(found) for _ in group] for name, group in self.problem.parameters.items()}

    def step(self) -> None:
        """The estimates from the next draws."""
        self.noise.counters += 1
        self.program()

    def by(self, choice: Choice, name: str) -> np.ndarray:
        """The latest, (replicas, parameters), in float64."""
        parts = [part.data.reshape(self.problem.replicas, -1) for part in self.gradients[choice][name]]
        return np.concatenate(parts, axis=1).astype(np.float64)


# ---- how far they spread ---------------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """Of estimates: their mean along a direction, and their variance over all parameters, the trace."""

    mean: float
    stderr: float
    variance: float
    interval: tuple[float, float]  # 95 % of the variance: percentiles of a bootstrap over the batches
    largest: float  # the largest share that a single estimate has of the sum of squares
    variances: np.ndarray  # of each batch
    gradient: np.ndarray  # along which the means of all parameters lie, of any length


def moments(batch: np.ndarray, direction: np.ndarray) -> tuple[Any, ...]:
    """What `summary` needs of a batch of estimates, (count, parameters)."""
    mean = batch.mean(0)
    squares = ((batch - mean) ** 2).sum(1)
    along = ((batch - mean) @ direction).var(ddof=1)
    return mean, mean @ direction, along, squares.sum() / (len(batch) - 1), squares.max(), len(batch)


def summary(batches: Sequence[tuple[Any, ...]]) -> Spread:
    """The spread of estimates, by the moments of their batches."""
    gradients, *rest = zip(*batches, strict=True)
    means, along, variances, worst, counts = map(np.array, rest)
    variance, count, n = float(variances.mean()), counts.sum(), len(variances)
    picks = (uniform(0, "bootstrap", 0, 0, (RESAMPLES, n), np.float64) * n).astype(int)
    low, high = np.quantile(variances[picks].mean(1), (0.025, 0.975)).tolist()
    return Spread(float(means.mean()), math.sqrt(along.mean() / count), variance, (low, high),
                  float(worst.max() / (variance * count)) if variance > 0 else 0.0, variances, sum(gradients))


def gather(found: Estimates, steps: int, directions: Mapping[str, np.ndarray] | None = None,
           report: Report = lambda share: None) -> dict[tuple[Choice, str], Spread]:
    """The spread of the estimates of so many steps, by choice and table, with means along the directions."""
    problem = found.problem
    directions = directions or {name: np.ones(problem.size(name)) for name in problem.parameters}
    batches: dict[tuple[Choice, str], list[Any]] = {
        (choice, name): [] for choice in found.choices for name in problem.parameters}
    together = 1 if problem.replicas > 1 else max(2, steps // BATCHES)
    for _ in range(SETTLING if found.averages else 0):
        found.step()
    for done in range(together, steps + 1, together):
        parts = []
        for _ in range(together):
            found.step()
            parts.append({key: found.by(*key) for key in batches})
        for (choice, name), gathered in batches.items():
            estimates = np.concatenate([part[choice, name] for part in parts])
            if not np.isfinite(estimates).all():
                problem.check(found.seen)
                raise ValueError(f"found an estimate by {choice.name} of the derivative by {name} that is not finite, "
                                 f"though f is; choose parameters nearer to 1, or another f: {problem.title}")
            gathered.append(moments(estimates, directions[name]))
        report(done / steps)
    return {key: summary(gathered) for key, gathered in batches.items()}


def costs(problem: Problem, choices: Sequence[Choice], samples: int, seed: int = 0) -> dict[Choice, float]:
    """Microseconds a draw of each choice by itself: draws, f, and the gradient by all parameters, replayed.

    The fastest of the rounds: what else a machine does can only add to the time.
    """
    programs = {choice.name: Estimates(problem, [choice], samples, seed).program for choice in choices}
    for program in programs.values():
        while not program.is_settled():
            program()
    timings = measure(programs, rounds=ROUNDS)
    return {choice: 1e6 * min(timings[choice.name].seconds) / (samples * problem.replicas) for choice in choices}
