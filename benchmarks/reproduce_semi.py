"""Semi-supervised learning on MNIST: M2 beside the supervised net of the same size, by the number of labels.

Each part is one label draw, so a stopped table goes on with the next one. A draw chooses labels, weights and noise by
its seed; 10,000 training data are held out. The last part makes the rows: means over the draws and their standard
errors, and the gain, paired by draw.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyvae as tv
from benchmarks.parts import Content, Part
from tinyvae.tasks.classification import classify

DRAWS = 3
MODELS: dict[str, dict[str, Any]] = {"m2": {"hidden": 500, "latent": 50, "alpha": 1.0}, "classifier": {"hidden": 500}}
SETTINGS: dict[str, Any] = {"epochs": 50, "batch": 100, "lr": 3e-4, "validation": 10_000}
QUICK: dict[str, Any] = {"epochs": 2, "batch": 100, "lr": 3e-3}


@dataclass(frozen=True)
class Target:
    """The least accuracy of M2 in per cent, and what others report."""

    least: float
    published: str
    supervised: str


TARGETS = {100: Target(88.0, "Pyro 93.2, paper 88.0", "Pyro 77.1"),
           600: Target(94.0, "Pyro 94.4, paper 95.1", "Pyro 87.2"),
           1000: Target(94.5, "Pyro 94.9, paper 96.4", "Pyro 88.6"),
           3000: Target(95.5, "Pyro 95.8, paper 96.1", "Pyro 91.1")}  # fmt: skip


def semi_supervised(quick: bool, say: Callable[[str], Any]) -> dict[str, Part]:
    """The parts: one for each number of labels and draw, and the rows."""
    counts, draws = (list(TARGETS)[:1], 2) if quick else (list(TARGETS), DRAWS)

    def draw(labels: int, seed: int) -> Content:
        data, found = tv.data.load("digits" if quick else "mnist-dynamic"), {}
        settings = (QUICK if quick else SETTINGS) | {"labels": labels, "seed": seed, "quiet": True}
        for kind, sizes in MODELS.items():
            model = tv.models.model_for(kind, data, seed=seed, **sizes)
            start = time.perf_counter()
            tv.fit(model, data, **settings)
            seconds = time.perf_counter() - start
            result = classify(model, data)
            found[kind] = {"accuracy": 100 * result.accuracy()[0], "seconds": seconds, "count": len(result.known),
                           "calibration_error": 100 * result.calibration().error}
            say(f"  {labels} labels, draw {seed}: {kind} {found[kind]['accuracy']:.2f} % right, {seconds:.0f} s")
        return {"draws": {name(labels, seed): found}, "data": data.name}

    def rows(content: Content) -> Content:
        return {"rows": [row for labels in counts for row in _rows(content, labels, draws, quick)]}

    parts: dict[str, Part] = {name(labels, seed): lambda _, labels=labels, seed=seed: draw(labels, seed)
                              for labels in counts for seed in range(draws)}
    return parts | {"means": rows}


def name(labels: int, seed: int) -> str:
    """The part of a draw."""
    return f"{labels} labels, draw {seed}"


def _rows(content: Content, labels: int, draws: int, quick: bool) -> list[dict[str, Any]]:
    found = [content["draws"][name(labels, seed)] for seed in range(draws)]
    target = TARGETS[labels]
    values = {kind: np.array([draw[kind]["accuracy"] for draw in found]) for kind in MODELS}
    more = values["m2"] - values["classifier"]
    passes = (QUICK if quick else SETTINGS)["epochs"]

    def row(what: str, each: np.ndarray, wanted: str, reached: bool | None, kind: str) -> dict[str, Any]:
        return {"setting": f"{labels} labels, {what}", "data": content["data"],
                "quantity": f"% of test data right, mean over {draws} label draws, higher is better",
                "value": float(each.mean()), "stderr": float(each.std(ddof=1) / math.sqrt(len(each))),
                "each": each.tolist(), "count": found[0][kind]["count"], "target": wanted, "reached": reached,
                "passes": passes, "seed": f"0 to {draws - 1}",
                "seconds": float(np.mean([draw[kind]["seconds"] for draw in found]))}  # fmt: skip

    m2 = float(values["m2"].mean())
    return [row("M2", values["m2"], f"at least {target.least} ({target.published})", m2 >= target.least, "m2"),
            row("supervised net", values["classifier"], target.supervised, None, "classifier"),
            row("gain", more, "above 0", bool(more.mean() > 0), "m2")]
