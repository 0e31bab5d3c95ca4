"""Stochastic variational inference: fit q to a log joint log p(x, z) that is written in tinyvae's operations.

    ELBO = E_q[log p(x, z)] + H[q]

is raised by stochastic gradient ascent (BBVI, algorithm 1; G-REP, algorithm 1): draw z from q, compute the terms of
log p(x, z), differentiate the surrogate of the chosen estimator, and take a step. If the family has no closed-form
entropy, -log q(z) is one more sampled term. The first step is recorded, and the following steps replay it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.choices import known, whole
from tinyvae.distributions import Distribution
from tinyvae.engine import noise as noises
from tinyvae.engine.devices import read
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Program
from tinyvae.engine.tensor import Tensor, apply, grad
from tinyvae.inference.estimators import BASELINES, Latent, Term, choices, surrogate
from tinyvae.nn.layers import Parameters
from tinyvae.nn.optimizers import FINITE, Optimizer

HOPELESS = 20  # `infer` raises an error if none of the first so many steps is finite
LogJoint = Callable[[dict[str, Tensor]], Any]


@dataclass(frozen=True)
class Factor:
    """A factor q(z_i) of a mean-field q, with free parameters.

    `family` is a class of `tinyvae.distributions`. `shape` is the shape of the latent; its last axis is the vector of a
    multivariate family. `axes` has one letter for each axis, by which terms of the log joint are matched ("nk").
    `start` holds the initial raw parameters as the family's `from_raw` takes them, (*shape[:-1], width); None stands
    for normal draws with standard deviation 0.1.
    """

    family: type[Distribution]
    shape: tuple[int, ...]
    axes: str = ""
    start: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.family, type) and issubclass(self.family, Distribution)):
            raise TypeError(f"found the family {self.family!r}; expected a class, such as tv.distributions.Normal")
        axes = self.shape if isinstance(self.shape, Sequence) else ()
        if not axes or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in axes):
            raise ValueError(f"found a latent of shape {self.shape}; expected at least one axis, each of at least 1: "
                             "(1,) for a single number")
        object.__setattr__(self, "shape", tuple(map(int, axes)))
        if self.axes and (len(self.axes) != len(self.shape) or len(set(self.axes)) != len(self.axes)):
            raise ValueError(f"found axes {self.axes!r} for a latent of shape {self.shape}; expected a different "
                             "letter for each axis")
        try:
            start: Any = 0.0 if self.start is None else self.start
            np.broadcast_to(start, self.raw)
        except ValueError:
            raise ValueError(f"found a start of shape {np.shape(start)}; expected the raw parameters, {self.raw}"
                             ) from None

    @property
    def names(self) -> str:
        """The letters of the axes; a, b, c, ... if none are given."""
        return self.axes or "abcdefghij"[: len(self.shape)]

    @property
    def raw(self) -> tuple[int, ...]:
        """The shape of the raw parameters."""
        return (*self.shape[:-1], self.family.width(self.shape[-1]))


@dataclass
class Inference:
    """The result of `infer`: the fitted factors, and an estimate of the ELBO at each step, in nats."""

    q: dict[str, Distribution]
    elbo: np.ndarray  # (steps,), the estimate before each update; higher is better
    seconds: np.ndarray  # (steps,), seconds from the start to the end of each step
    skipped: int  # steps whose loss or gradient was not finite; they changed no parameter
    parameters: dict[str, np.ndarray]  # the raw parameters by name


def infer(log_joint: LogJoint, q: Mapping[str, Factor], estimator: str | Mapping[str, str] = "", samples: int = 1,
          steps: int = 1000, optimizer: str = "adam", lr: float = 1e-2, baseline: str = "none", seed: int = 0,
          dtype: Any = "float64", report: Callable[[int, float], Any] | None = None,
          enough: Callable[[int, float], bool] | None = None) -> Inference:
    """Fit a mean-field q to log p(x, z).

    Parameters
    ----------
    log_joint
        A function of the draws by name, each (samples, *shape). It returns log p(x, z), either as one tensor (samples,)
        or as a list of `Term`s, each with the names of its axes and of the latents that it contains. With terms, the
        score of a latent is multiplied only by the terms that contain the latent (Rao-Blackwell), which lowers the
        variance.
    q
        The factors by name.
    estimator
        `reparam`, `implicit`, `grep` or `score`, for all latents or by name; by default the first that a family has.
    samples
        The number of draws in each step.
    steps, seed, dtype
        The number of steps, the seed of all draws, and the type of the parameters: float64 or float32.
    optimizer, lr
        `adam`, `adagrad`, `sgd`, or `advi` with the step sizes of the G-REP paper; and the learning rate.
    baseline
        `none` or `moving-average`; with at least two samples also `leave-one-out` or `fitted`.
    report
        A function that is called after each step with the number of the step and its estimate of the ELBO.
    enough
        A function with the same arguments; the fit ends early when it returns True.

    Returns
    -------
    The fitted factors, with the estimate of the ELBO (nats) and the seconds at each step.

    Raises
    ------
    TypeError, ValueError
        For arguments of the wrong kind or value, before the first step; and if none of the first steps is finite.
    """
    samples, steps, chosen = whole("samples", samples, 1), whole("steps", steps), _checked(log_joint, q, estimator)
    if isinstance(lr, str) or not (np.isfinite(lr) and lr > 0):
        raise ValueError(f"found lr={lr!r}; expected a finite number above 0")
    if known("baseline", baseline, BASELINES) != "none" and not {"grep", "score"} & set(chosen.values()):
        raise ValueError(f"found baseline {baseline!r} without an estimator that needs one; take estimator='score' or "
                         "'grep', or leave the baseline out")
    parameters = Parameters({name: factor.raw for name, factor in q.items()}, dtype)
    for site, (name, factor) in enumerate(q.items()):
        start = 0.1 * noises.normal(seed, "init", 0, site, factor.raw, dtype) if factor.start is None else factor.start
        parameters[name].data[...] = np.broadcast_to(start, factor.raw)
    step = _Step(log_joint, q, chosen, samples, Optimizer(optimizer, parameters.flat), lr, baseline,
                 seed, parameters)
    elbo, seconds, begun = np.full(steps, np.nan), np.zeros(steps), time.perf_counter()
    skipped, program = 0, Program(step)
    for i in range(steps):
        elbo[i] = read(program().data)
        skipped += read(step.optimizer.status[FINITE]) != 1.0
        if skipped == i + 1 == HOPELESS:
            raise ValueError(f"none of the first {HOPELESS} steps was finite: the log joint or its gradient is not "
                             "finite at draws of the initial q; check log_joint, or give Factor a start")
        seconds[i] = time.perf_counter() - begun
        if report is not None:
            report(i + 1, float(elbo[i]))
        if enough is not None and enough(i + 1, float(elbo[i])):
            elbo, seconds = elbo[: i + 1], seconds[: i + 1]
            break
    return Inference(step.factors(), elbo, seconds, int(skipped), parameters.arrays())


def _checked(log_joint: Any, q: Any, estimator: Any) -> dict[str, str]:
    """The estimator of each factor by name; errors for arguments of `infer` of the wrong kind."""
    if not callable(log_joint):
        raise TypeError(f"found {log_joint!r} in place of the log joint; expected a function of the draws by name")
    if not isinstance(q, Mapping) or not q:
        raise TypeError(f"found {q!r} in place of the factors; expected them by name: {{'z': tv.Factor(...)}}")
    for name, factor in q.items():
        if not isinstance(factor, Factor):
            raise TypeError(f"found {factor!r} for {name!r}; expected a factor: tv.Factor(family, shape, axes)")
    named = estimator if isinstance(estimator, Mapping) else dict.fromkeys(q, estimator)
    for name in named:
        known("an estimator for", name, q)
    return {name: named.get(name) or choices(factor.family)[0] for name, factor in q.items()}


class _Draws(dict[str, Tensor]):
    """The draws by name, as a log joint gets them."""

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(f"found the latent {name!r} in the log joint; q has factors for {', '.join(self)}")


class _Step:
    """One step of stochastic variational inference, as operations that a program records."""

    def __init__(self, log_joint: LogJoint, q: Mapping[str, Factor], chosen: dict[str, str], samples: int,
                 optimizer: Optimizer, lr: float, baseline: str, seed: int, parameters: Parameters) -> None:
        self.log_joint, self.q, self.chosen, self.samples = log_joint, q, chosen, samples
        self.optimizer, self.parameters, self.baseline = optimizer, parameters, BASELINES[baseline]()
        # the learning rate, and the weight of the KL, which only the kernels of a VAE's training read
        self.rates = Tensor(np.array((lr, 1.0), parameters.flat.dtype))
        self.counters = np.zeros(3, np.int64)
        self.noise = Noise(seed, "noise", self.counters)

    def factors(self) -> dict[str, Distribution]:
        """The factors of q by name, at the current parameters."""
        return {name: factor.family.from_raw(self.parameters[name]) for name, factor in self.q.items()}

    def __call__(self) -> Tensor:
        """Draw, differentiate and update; return the estimate of the ELBO before the update."""
        self.noise.restart()
        factors = self.factors()
        latents = [Latent(name, factor, factor.sample(self.noise, self.samples), self.chosen[name], self.q[name].names)
                   for name, factor in factors.items()]
        draws = _Draws({latent.name: latent.z for latent in latents})
        terms, closed = _terms(self.log_joint(draws), factors, self.samples), []
        for latent in latents:
            if type(latent.q).entropy is not Distribution.entropy:
                closed.append(latent.q.entropy().sum())
            else:  # without a closed form, E_q[-log q] is estimated by the same draws
                density = latent.q.log_density(latent.q.to_stable(latent.z))
                terms.append(Term(-density, self.q[latent.name].names[: density.ndim - 1], (latent.name,)))
        elbo = surrogate(terms, latents, self.baseline).mean()
        for entropy in closed:
            elbo = elbo + entropy
        loss = -elbo
        self.parameters.collect(grad(loss, list(self.parameters)))
        self.optimizer.step(loss, self.parameters.gradient, self.rates)
        apply("tick", Tensor(self.counters), batch=1)
        return elbo


def _terms(found: Any, factors: Mapping[str, Distribution], samples: int) -> list[Term]:
    """The value of a log joint as a list of terms; errors if its type or a shape is wrong."""
    if isinstance(found, Tensor):
        if found.shape not in ((samples,), (samples, 1)):
            raise ValueError(f"found a log joint of shape {found.shape}; expected one number for each sample, "
                             f"({samples},): sum over the other axes, or give a list of tv.Term(value, axes, latents)")
        return [Term(found.reshape(-1), "", tuple(factors))]
    if not isinstance(found, Sequence) or not all(isinstance(term, Term) for term in found):
        raise TypeError(f"found a log joint of type {type(found).__name__}; expected a tensor with one number for each "
                        "sample, or a list of tv.Term(value, axes, latents)")
    for term in found:
        if term.value.ndim != 1 + len(term.axes):
            raise ValueError(f"found a term of shape {term.value.shape} with axes {term.axes!r}; expected (samples, "
                             f"{', '.join(term.axes)}): one letter for each axis after the samples'")
        if unknown := set(term.of) - set(factors):
            raise ValueError(f"found a term that contains {', '.join(sorted(unknown))}; the latents are "
                             f"{', '.join(factors)}")
    return list(found)
