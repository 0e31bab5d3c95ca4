"""Semi-supervised learning on MNIST: M2 by the number of labels, and all models with 100 labels, beside the supervised
net of the same size.

Each part trains one model on one label draw, so a stopped table goes on with the next one. A draw chooses labels,
weights and noise by its seed; 10,000 training data are held out, and their accuracy chose M2's settings, on the first
draw. SHOT has the settings of M2. M1+M2 has the networks of its authors' code, with fewer latents z2 and a larger rate,
so that fewer passes do. The last part makes the rows: means over the draws and their standard errors, and gains, paired
by draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import tinyvae as tv
from benchmarks.parts import Content, Part
from tinyvae.evidence.diagnostics import mean_and_error
from tinyvae.tasks.classification import classify

DRAWS = 3
VALIDATION = 10_000
MOST_LABELLED = 100  # in a step; of few labels a step has a fifth
QUICK: dict[str, Any] = {"epochs": 1, "batch": 100, "lr": 3e-3}
SMALL: dict[str, Any] = {"hidden": 20, "latent": 3, "first_epochs": 1}  # of the quick form
NET = "supervised net"
Say = Callable[[str], Any]


class Contestant(NamedTuple):
    """A model with its options, and how it is trained."""

    kind: str
    options: dict[str, Any]
    settings: dict[str, Any]


class Target(NamedTuple):
    """The least accuracy in per cent, and what others report of the model and of the supervised net."""

    least: float
    published: str
    supervised: str


TARGETS = {100: Target(88.0, "Pyro 93.2, paper 88.0", "Pyro 77.1"),
           600: Target(94.0, "Pyro 94.4, paper 95.1", "Pyro 87.2"),
           1000: Target(94.5, "Pyro 94.9, paper 96.4", "Pyro 88.6"),
           3000: Target(95.5, "Pyro 95.8, paper 96.1", "Pyro 91.1")}  # fmt: skip
STACKED = (95.5, "paper 96.7")  # of M1+M2 with 100 labels

SEMI: dict[str, Any] = {"epochs": 20, "batch": 20, "lr": 5e-3, "schedule": "cosine"}
BY_LABELS = {NET: Contestant("classifier", {"hidden": 256}, SEMI | {"lr": 1e-3}),
             "M2": Contestant("m2", {"hidden": 256, "latent": 50, "alpha": 10.0}, SEMI)}  # fmt: skip


def _shot(smoothing: float, interpolation: float) -> Contestant:
    return Contestant("shot", BY_LABELS["M2"].options | {"smoothing": smoothing, "interpolation": interpolation}, SEMI)


# with neither it is M2
SHOT = {"SHOT, smoothing": _shot(0.01, 0.0), "SHOT, interpolation": _shot(0.0, 10.0),
        "SHOT, both": _shot(0.01, 10.0)}  # fmt: skip
STACK = Contestant("m1m2", {"hidden": [500, 500], "activation": "softplus", "latent": 10, "first_epochs": 50},
                   SEMI | {"epochs": 200, "batch": 100, "lr": 2e-3})
ALL = BY_LABELS | {"M1+M2": STACK} | SHOT


def semi_supervised(quick: bool, say: Say) -> dict[str, Part]:
    """The parts for M2 with 600 labels and more, and their rows."""
    return _table(quick, say, BY_LABELS, [600] if quick else [600, 1000, 3000])


def few_labels(quick: bool, say: Say) -> dict[str, Part]:
    """The parts for all models with 100 labels, and their rows; SHOT's two ideas are switched one by one."""
    return _table(quick, say, ALL, [100])


def _table(quick: bool, say: Say, contestants: dict[str, Contestant], counts: list[int]) -> dict[str, Part]:
    draws = 2 if quick else DRAWS

    def train(labels: int, called: str, seed: int) -> Content:
        data = tv.data.load("digits" if quick else "mnist-dynamic")
        kind, options, settings = contestants[called]
        if quick:  # small networks, and one epoch of a first phase
            options, settings = options | {name: SMALL[name] for name in SMALL if name in options}, QUICK
        else:
            settings = settings | {"validation": VALIDATION, "labelled_batch": min(labels // 5, MOST_LABELLED)}
        model = tv.models.model_for(kind, data, seed=seed, **options)
        start = time.perf_counter()
        tv.fit(model, data, labels=labels, seed=seed, quiet=True, **settings)
        seconds = time.perf_counter() - start
        result = classify(model, data)
        found = {"accuracy": 100 * result.accuracy()[0], "seconds": seconds, "count": len(result.known),
                 "calibration_error": 100 * result.calibration().error, "passes": settings["epochs"]}
        say(f"  {_part(labels, called, seed)}: {found['accuracy']:.2f} % right, {seconds:.0f} s")
        return {"draws": {_part(labels, called, seed): found}, "data": data.name}

    def rows(content: Content) -> Content:
        return {"rows": [row for labels in counts for row in _rows(content, labels, list(contestants), draws)]}

    parts: dict[str, Part] = {
        _part(*which): lambda _, which=which: train(*which)
        for which in [(labels, called, seed) for seed in range(draws) for labels in counts for called in contestants]}
    return parts | {"means": rows}


def _part(labels: int, called: str, seed: int) -> str:
    return f"{labels} labels, {called}, draw {seed}"


def _rows(content: Content, labels: int, contestants: list[str], draws: int) -> list[dict[str, Any]]:
    """The rows of one number of labels: each model, its gain over the supervised net, and SHOT's over M2."""
    found = {called: [content["draws"][_part(labels, called, seed)] for seed in range(draws)]
             for called in contestants}
    values = {called: np.array([draw["accuracy"] for draw in each]) for called, each in found.items()}
    target, made = TARGETS[labels], []

    def add(called: str, what: str, each: np.ndarray, wanted: str, reached: bool | None = None) -> None:
        mean, error = mean_and_error(each)
        unit = "percentage points more of test data right" if "gain" in what else "% of test data right"
        made.append({
            "setting": f"{labels} labels, {called}{what}", "data": content["data"],
            "quantity": f"{unit}, mean over {draws} label draws, higher is better", "value": mean,
            "stderr": error, "each": each.tolist(), "count": found[called][0]["count"], "target": wanted,
            "reached": reached, "passes": found[called][0]["passes"],
            "seed": f"0 to {draws - 1}", "seconds": float(np.mean([draw["seconds"] for draw in found[called]]))})

    for called, each in values.items():
        if called == NET:
            add(called, "", each, target.supervised)
            continue
        if least := {"M2": (target.least, target.published), "M1+M2": STACKED}.get(called):
            add(called, "", each, f"at least {least[0]} ({least[1]})", bool(each.mean() >= least[0]))
        else:
            add(called, "", each, "none")
        more = each - values[NET]
        add(called, f", gain over the {NET}", more, "above 0", bool(more.mean() > 0))
        if called in SHOT:
            more, both = each - values["M2"], called == "SHOT, both"
            mean, error = mean_and_error(more)
            add(called, ", gain over M2", more, "above its standard error" if both else "none",
                mean > error if both else None)
    return made
