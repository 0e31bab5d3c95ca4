"""Semi-supervised learning on MNIST: M2 by the number of labels, and other models with 100 labels, beside the
supervised net of the same size.

Each part is one label draw, so a stopped table goes on with the next one. A draw chooses labels, weights and noise by
its seed; 10,000 training data are held out. The last part makes the rows: means over the draws and their standard
errors, and gains, paired by draw.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import tinyvae as tv
from benchmarks.parts import Content, Part
from tinyvae.tasks.classification import classify

DRAWS = 3
SETTINGS: dict[str, Any] = {"epochs": 50, "batch": 100, "lr": 3e-4, "validation": 10_000}
QUICK: dict[str, Any] = {"epochs": 1, "batch": 100, "lr": 3e-3}
SMALL: dict[str, Any] = {"hidden": 20, "latent": 3, "first_epochs": 1}  # of the quick form
NET = "supervised net"
Say = Callable[[str], Any]


class Contestant(NamedTuple):
    """A model with its options."""

    kind: str
    options: dict[str, Any]


class Target(NamedTuple):
    """The least accuracy in per cent, and what others report of the model and of the supervised net."""

    least: float
    published: str
    supervised: str


SUPERVISED = Contestant("classifier", {"hidden": 500})
M2 = Contestant("m2", {"hidden": 500, "latent": 50})
TARGETS = {100: Target(88.0, "Pyro 93.2, paper 88.0", "Pyro 77.1"),
           600: Target(94.0, "Pyro 94.4, paper 95.1", "Pyro 87.2"),
           1000: Target(94.5, "Pyro 94.9, paper 96.4", "Pyro 88.6"),
           3000: Target(95.5, "Pyro 95.8, paper 96.1", "Pyro 91.1")}  # fmt: skip
STACKED = (95.5, "paper 96.7")  # of M1+M2 with 100 labels


def _shot(smoothing: float, interpolation: float) -> Contestant:
    return Contestant("shot", {"hidden": 500, "latent": 50, "smoothing": smoothing, "interpolation": interpolation})


MODELS = {NET: SUPERVISED, "M2": M2,
          "M1+M2": Contestant("m1m2", {"hidden": [600, 600], "activation": "softplus", "latent": 50,
                                       "first_epochs": 25}),
          "SHOT, neither": _shot(0.0, 0.0), "SHOT, smoothing": _shot(0.01, 0.0),
          "SHOT, interpolation": _shot(0.0, 1.0), "SHOT, both": _shot(0.01, 1.0)}  # fmt: skip


def semi_supervised(quick: bool, say: Say) -> dict[str, Part]:
    """The parts: one for each number of labels and draw, and the rows."""
    return _table(quick, say, {NET: SUPERVISED, "M2": M2}, list(TARGETS)[:1] if quick else list(TARGETS))


def models(quick: bool, say: Say) -> dict[str, Part]:
    """The same with 100 labels, for all models; SHOT's two ideas are switched one by one."""
    return _table(quick, say, MODELS, [100])


def _table(quick: bool, say: Say, contestants: dict[str, Contestant], counts: list[int]) -> dict[str, Part]:
    draws = 2 if quick else DRAWS

    def draw(labels: int, seed: int) -> Content:
        data = tv.data.load("digits" if quick else "mnist-dynamic")
        settings = (QUICK if quick else SETTINGS) | {"labels": labels, "seed": seed, "quiet": True}
        found = {}
        for called, (kind, options) in contestants.items():
            if quick:  # small networks, and one epoch of a first phase
                options = options | {name: value for name, value in SMALL.items() if name in options}
            model = tv.models.model_for(kind, data, seed=seed, **options)
            start = time.perf_counter()
            tv.fit(model, data, **settings)
            seconds = time.perf_counter() - start
            result = classify(model, data)
            found[called] = {"accuracy": 100 * result.accuracy()[0], "seconds": seconds, "count": len(result.known),
                             "calibration_error": 100 * result.calibration().error}
            say(f"  {_part(labels, seed)}: {called} {found[called]['accuracy']:.2f} % right, {seconds:.0f} s")
        return {"draws": {_part(labels, seed): found}, "data": data.name}

    def rows(content: Content) -> Content:
        return {"rows": [row for labels in counts for row in _rows(content, labels, draws, quick)]}

    parts: dict[str, Part] = {_part(labels, seed): lambda _, labels=labels, seed=seed: draw(labels, seed)
                              for labels in counts for seed in range(draws)}
    return parts | {"means": rows}


def _part(labels: int, seed: int) -> str:
    return f"{labels} labels, draw {seed}"


def _rows(content: Content, labels: int, draws: int, quick: bool) -> list[dict[str, Any]]:
    """The rows of one number of labels: each model, and its gain over the supervised net."""
    found = [content["draws"][_part(labels, seed)] for seed in range(draws)]
    values = {called: np.array([draw[called]["accuracy"] for draw in found]) for called in found[0]}
    target, made = TARGETS[labels], []

    def add(called: str, what: str, each: np.ndarray, wanted: str, reached: bool | None = None) -> None:
        made.append({
            "setting": f"{labels} labels, {called}{what}", "data": content["data"],
            "quantity": f"% of test data right, mean over {draws} label draws, higher is better",
            "value": float(each.mean()), "stderr": float(each.std(ddof=1) / math.sqrt(len(each))),
            "each": each.tolist(), "count": found[0][called]["count"], "target": wanted, "reached": reached,
            "passes": (QUICK if quick else SETTINGS)["epochs"], "seed": f"0 to {draws - 1}",
            "seconds": float(np.mean([draw[called]["seconds"] for draw in found]))})  # fmt: skip

    for called, each in values.items():
        if called == NET:
            add(called, "", each, target.supervised)
            continue
        least = {"M2": (target.least, target.published), "M1+M2": STACKED}.get(called)
        add(called, "", each, "none" if least is None else f"at least {least[0]} ({least[1]})",
            None if least is None else bool(each.mean() >= least[0]))
        more = each - values[NET]
        add(called, ", gain", more, "above 0", bool(more.mean() > 0))
    return made
