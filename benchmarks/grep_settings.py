"""What decides the course of G-REP on the faces: the settings of the authors' code, each alone and all together.

The authors' log of G-REP (github.com/blei-lab/ars-reparameterization, results/grep_gammaDEF_elbo.txt) comes without its
settings; their code holds those of another estimator's run. Here the example of `examples/sparse_gamma_def.py` takes
over each of them, and then other step sizes and starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import tinyvae as tv
from benchmarks.parts import Content, Part
from benchmarks.reproduce_grep import WINDOW, smooth
from examples import sparse_gamma_def as deep
from tinyvae.distributions import Gamma
from tinyvae.distributions.stable import LogTensor
from tinyvae.engine.noise import Noise
from tinyvae.engine.rules import TABLE
from tinyvae.inference.svi import Inference, infer
from tinyvae.nn.optimizers import OPTIMIZERS, method

# Running medians of the authors' log over WINDOW steps; its single values scatter around them by 5 % up to step 500
AUTHORS = {100: -93_506_108, 500: -13_592_334, 1000: -7_771_577}
SHORT = 100  # steps of a setting that is changed alone, after which the log's course is already far away
LEAST_SHAPE, LEAST_MEAN, LEAST_DRAW = 1e-3, 1e-4, 1e-5
FLOOR = math.log(math.expm1(LEAST_SHAPE))  # the raw shape whose softplus is the least shape
SHIFT = math.log(math.expm1(LEAST_MEAN)) - FLOOR  # so that one floor serves the raw shape and the raw mean


class Truncated(Gamma):
    """Shape and mean by softplus, with no least value of their own: the steps hold the raw parameters above FLOOR."""

    @classmethod
    def from_raw(cls, raw: tv.Tensor) -> Truncated:
        shape, mean = raw.split(2)
        return cls(shape.softplus(), shape.softplus() / (mean + SHIFT).softplus())


class _Clamped:
    """Draws of Gamma(shape, 1), and then the draws themselves, are at least 1e-5, so their logarithms are not exact."""

    def sample(self: Any, noise: Noise, samples: int = 1) -> tv.Tensor:
        least, log_z = math.log(LEAST_DRAW), super().sample(noise, samples).log()  # type: ignore[misc]
        return LogTensor(((log_z + self.log_rate).maximum(least) - self.log_rate).maximum(least))


class Clamped(_Clamped, deep.MeanGamma):
    """The example's Gamma with clamped draws."""


class AsTheirs(_Clamped, Truncated):
    """A Gamma whose parameters are truncated and whose draws are clamped."""


@dataclass(frozen=True)
class Setting:
    """A way to run the example; as it stands, the example's own."""

    eta: float = deep.STEP["G-REP"]
    start: tuple[float, float] = deep.START
    family: type[Gamma] = deep.MeanGamma
    first: int = 1  # the number of the first step, of which the step size falls as the root
    widths: tuple[int, int, int] = deep.WIDTHS
    by_image: bool = False  # the first eight images of each person, as the authors; else all images of 32 persons
    steps: int = SHORT


SETTINGS = {
    "the example": Setting(),
    "parameters truncated after each step": Setting(family=Truncated),
    "draws clamped at 1e-5": Setting(family=Clamped),
    "steps counted from 2": Setting(first=2),
    "eight images of each person": Setting(by_image=True),
    "layers in the other order": Setting(widths=(15, 40, 100)),
    "all as in their code": Setting(family=AsTheirs, first=2, by_image=True, steps=max(AUTHORS)),
    "longer steps from a larger start": Setting(1.75, (2.0, 1.0), AsTheirs, by_image=True, steps=max(AUTHORS)),
}


@contextmanager
def step_rule(setting: Setting) -> Iterator[str]:
    """For this block an optimizer with the authors' step sizes, which counts from `first` and truncates if asked."""
    least = FLOOR if issubclass(setting.family, Truncated) else -math.inf

    @method("advi-truncated", ("average",))
    def update(xp: Any, theta: Any, g: Any, average: Any, rate: float, t: float) -> None:
        average[...] = 0.1 * g**2 + 0.9 * average
        theta -= rate * (t + setting.first - 1) ** -0.5 * g / (1 + xp.sqrt(average))
        xp.maximum(theta, least, out=theta)

    try:
        yield "advi-truncated"
    finally:
        del OPTIMIZERS["advi-truncated"], TABLE["advi-truncated"]


def fit(x: np.ndarray, setting: Setting, report: Callable[[int, float], Any] | None = None) -> Inference:
    """G-REP by one draw and the whole of f, on counts x (n, d)."""
    shape, mean = setting.start
    start = (shape, mean - SHIFT) if issubclass(setting.family, Truncated) else setting.start
    terms, q = deep.log_joint_of(x), deep.factors(*x.shape, setting.widths, start, setting.family)
    with step_rule(setting) as rule:
        return infer(lambda z: deep.whole(terms(z)), q, steps=setting.steps, optimizer=rule, lr=setting.eta,
                     dtype=x.dtype, report=report, **deep.METHODS["G-REP"])


def faces(by_image: bool) -> np.ndarray:
    """320 faces as counts (320, 4096): all ten images of 32 persons, or the first eight of each person."""
    if not by_image:
        return deep.faces(False)
    data = tv.data.load("olivetti-gray")
    images, person = (np.concatenate(parts) for parts in ((data.train, data.test),
                                                          (data.train_labels, data.test_labels)))
    return deep.counts(np.concatenate([images[person == p][:8] for p in np.unique(person)]), data.scale)


def settings(quick: bool, say: Callable[[str], Any]) -> dict[str, Part]:
    """A part for each setting, with one row: the training ELBO after its last step, and after each step of AUTHORS."""
    def part(name: str) -> Content:
        def report(step: int, elbo: float) -> None:
            if step in (1, 10) or step % 50 == 0:
                say(f"  {name}: step {step}, ELBO {elbo:,.0f} nats (an estimate)")

        setting = SETTINGS[name]
        x = deep.faces(True) if quick else faces(setting.by_image)
        chosen = replace(setting, widths=(6, 4, 3), steps=20) if quick else setting
        found = fit(x, chosen, report)
        return {"rows": [_row(name, setting, found, x.size, "made-up" if quick else "olivetti-gray")]}

    return {name: lambda _, name=name: part(name) for name in SETTINGS}


def _row(name: str, setting: Setting, found: Inference, count: int, data: str) -> dict[str, Any]:
    """A row of the results. `reached`: is the course within 3 % of the authors' wherever it is compared? A course that
    ends before is not judged."""
    course = smooth(found.elbo)
    at = {step: float(course[step - 1]) for step in AUTHORS if step <= len(course)}
    last = found.elbo[-WINDOW:]
    return {
        "setting": name, "quantity": "training ELBO in nats after the last step, higher is better",
        "value": float(course[-1]), "stderr": float(last.std(ddof=1) / math.sqrt(len(last))),
        "target": "authors' log: " + ", ".join(f"{elbo:,} at step {step}" for step, elbo in AUTHORS.items()),
        "reached": all(abs(at[step] / AUTHORS[step] - 1) <= 0.03 for step in at) if len(at) == len(AUTHORS) else None,
        "data": data, "count": count, "seconds": float(found.seconds[-1]), "passes": len(found.elbo), "seed": 0,
        "eta": setting.eta, "start": list(setting.start), "first": float(found.elbo[0]),
        **{f"at {step}": elbo for step, elbo in at.items()}, "course": course[::10].tolist(),
        "not_finite": found.skipped,
    }  # fmt: skip
