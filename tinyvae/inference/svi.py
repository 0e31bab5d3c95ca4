"""Variational inference without a VAE: q fitted to any log joint that is written in tinyvae's operations.

    ELBO = E_q[log p(x, z)] + H[q]

is raised by stochastic gradients (BBVI, algorithm 1; G-REP, algorithm 1): draw z from q, write log p(x, z) down as a
sum of terms, take the gradient of the chosen estimator's surrogate, and step. The entropy is in closed form where the
family has one, else one more term, -log q(z). The first step is recorded, and the others replay it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.distributions import Distribution
from tinyvae.engine import noise as noises
from tinyvae.engine.devices import read
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Program
from tinyvae.engine.tensor import Tensor, apply, grad
from tinyvae.inference.estimators import BASELINES, Latent, Term, check_choice, choices, surrogate
from tinyvae.nn.layers import Parameters
from tinyvae.nn.optimizers import FINITE, Optimizer

BLIND = 20  # steps without a finite one, after which there is nothing to hope for
LogJoint = Callable[[dict[str, Tensor]], Any]


@dataclass(frozen=True)
class Factor:
    """A variational factor with free parameters.

    `family` is a class of `tinyvae.distributions`; `shape` the latent's, the last axis its vector's; `axes` one letter
    for each of them, by which terms of the log joint are matched ("nk"). `start` gives the first free numbers, as the
    family's `from_raw` takes them, (*shape[:-1], width): an array, or None for normal ones of deviation 0.1.
    """

    family: type[Distribution]
    shape: tuple[int, ...]
    axes: str = ""
    start: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.shape or not all(isinstance(n, int) and n >= 1 for n in self.shape):
            raise ValueError(f"found a latent of shape {self.shape}; expected at least one axis, each of at least 1: "
                             "(1,) for a single number")
        if self.axes and (len(self.axes) != len(self.shape) or len(set(self.axes)) != len(self.axes)):
            raise ValueError(f"found axes {self.axes!r} for a latent of shape {self.shape}; expected a letter of its "
                             "own for each axis")

    @property
    def names(self) -> str:
        """The axes' names; without any given, letters that no other latent has to share."""
        return self.axes or "abcdefghij"[: len(self.shape)]

    @property
    def raw(self) -> tuple[int, ...]:
        """The shape of the free numbers."""
        return (*self.shape[:-1], self.family.width(self.shape[-1]))


@dataclass
class Inference:
    """What was fitted: `q` by name, and of each step the estimate of the ELBO, in nats (higher is better)."""

    q: dict[str, Distribution]
    elbo: np.ndarray  # (steps,), estimates before each update
    seconds: np.ndarray  # (steps,), since the start
    skipped: int  # steps that were not finite and changed nothing
    parameters: dict[str, np.ndarray]  # the free numbers by name


def infer(log_joint: LogJoint, q: Mapping[str, Factor], estimator: str | Mapping[str, str] = "", samples: int = 1,
          steps: int = 1000, optimizer: str = "adam", lr: float = 1e-2, baseline: str = "none", seed: int = 0,
          dtype: Any = "float64", report: Callable[[int, float], Any] | None = None,
          enough: Callable[[int, float], bool] | None = None) -> Inference:
    """Fit a mean-field q to log p(x, z).

    Parameters
    ----------
    log_joint
        Takes the draws by name, (samples, *shape) each, and gives log p(x, z): one number a sample, (samples,), or a
        list of `Term`s, each with the names of its axes and of the latents that it contains. Of terms, a latent's
        score is multiplied by those only that contain it (Rao-Blackwell); of one number, by all.
    q
        The factors by name.
    estimator
        `reparam`, `implicit`, `grep` or `score`, for all or by name; by default the first that a family has.
    samples
        Draws a step.
    optimizer, lr
        `advi` has the step sizes of the G-REP paper; `adam`, `adagrad`, `sgd`.
    baseline
        `none`, `moving-average`, and from two draws on `leave-one-out`, `fitted`.
    report
        Called after each step with its number and its estimate of the ELBO.
    enough
        Called likewise; where it says True, the fit ends before all steps are done.
    """
    if samples < 1 or steps < 0:
        raise ValueError(f"found samples={samples}, steps={steps}; expected at least 1, and at least 0")
    if not (np.isfinite(lr) and lr > 0):
        raise ValueError(f"found lr={lr}; expected a finite number above 0")
    for name, free in q.items():
        if not isinstance(free, Factor):
            raise TypeError(f"found {free!r} for {name!r}; expected a factor: tv.Factor(family, shape, axes)")
    if baseline not in BASELINES:
        raise ValueError(f"found baseline {baseline!r}; expected one of {', '.join(BASELINES)}")
    named = {name: estimator if isinstance(estimator, str) else estimator.get(name, "") for name in q}
    chosen = {name: named[name] or choices(free.family)[0] for name, free in q.items()}
    for name, free in q.items():
        check_choice(free.family, chosen[name])
    parameters = Parameters({name: free.raw for name, free in q.items()}, np.dtype(dtype))
    for site, (name, free) in enumerate(q.items()):
        start = 0.1 * noises.normal(seed, "init", 0, site, free.raw, dtype) if free.start is None else free.start
        parameters[name].data[...] = np.broadcast_to(start, free.raw)
    step = _Step(log_joint, q, chosen, samples, Optimizer(optimizer, parameters.flat), lr, baseline,
                 seed, parameters)
    elbo, seconds, begun = np.full(steps, np.nan), np.zeros(steps), time.perf_counter()
    skipped, program = 0, Program(step)
    for i in range(steps):
        elbo[i] = read(program().data)
        skipped += read(step.optimizer.status[FINITE]) != 1.0
        if skipped == i + 1 == BLIND:
            raise ValueError(f"none of the first {BLIND} steps was finite: at draws of the first q the log joint or "
                             "its gradient is not; look at log_joint, or give Factor a start")
        seconds[i] = time.perf_counter() - begun
        if report is not None:
            report(i + 1, float(elbo[i]))
        if enough is not None and enough(i + 1, float(elbo[i])):
            elbo, seconds = elbo[: i + 1], seconds[: i + 1]
            break
    return Inference(step.factors(), elbo, seconds, int(skipped), parameters.arrays())


class _Step:
    """One step as operations."""

    def __init__(self, log_joint: LogJoint, q: Mapping[str, Factor], chosen: dict[str, str], samples: int,
                 optimizer: Optimizer, lr: float, baseline: str, seed: int, parameters: Parameters) -> None:
        self.log_joint, self.q, self.chosen, self.samples = log_joint, q, chosen, samples
        self.optimizer, self.parameters, self.baseline = optimizer, parameters, BASELINES[baseline]()
        self.rates = Tensor(np.array((lr, 1.0), parameters.flat.dtype))
        self.counters = np.zeros(3, np.int64)
        self.noise = Noise(seed, "noise", self.counters)

    def factors(self) -> dict[str, Distribution]:
        """q by name, with the parameters of now."""
        return {name: free.family.from_raw(self.parameters[name]) for name, free in self.q.items()}

    def __call__(self) -> Tensor:
        """Draw, differentiate, update; the estimate of the ELBO."""
        self.noise.restart()
        factors = self.factors()
        latents = [Latent(name, factor, factor.sample(self.noise, self.samples), self.chosen[name], self.q[name].names)
                   for name, factor in factors.items()]
        terms, closed = _terms(self.log_joint({latent.name: latent.z for latent in latents}), factors, self.samples), []
        for latent in latents:
            if type(latent.q).entropy is not Distribution.entropy:
                closed.append(latent.q.entropy().sum())
            else:  # no closed form: E[-log q] from the same draws
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
    """What a log joint gave, as a list of terms."""
    if isinstance(found, Tensor):
        if found.shape not in ((samples,), (samples, 1)):
            raise ValueError(f"found a log joint of shape {found.shape}; expected one number a sample, ({samples},): "
                             "sum over the other axes, or give tv.Term(value, axes, latents) for each part")
        return [Term(found.reshape(-1), "", tuple(factors))]
    if not isinstance(found, Sequence) or not all(isinstance(term, Term) for term in found):
        raise TypeError(f"found a log joint of type {type(found).__name__}; expected a tensor of one number a sample, "
                        "or a list of tv.Term(value, axes, latents)")
    for term in found:
        if term.value.ndim != 1 + len(term.axes):
            raise ValueError(f"found a term of shape {term.value.shape} with axes {term.axes!r}; expected (samples, "
                             f"{', '.join(term.axes)}): one letter for each axis after the samples'")
        if unknown := set(term.of) - set(factors):
            raise ValueError(f"found a term of {', '.join(sorted(unknown))}; the latents are {', '.join(factors)}")
    return list(found)
