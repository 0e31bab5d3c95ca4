"""The slowest launches of a step of several models and estimators, as a share of the step.

Each launch is called by itself, in the order of the step; so the sum is a little more than a step, whose launches run
without a pause between them. A launch that is no matrix product and takes more than a tenth of its step is one to mend.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import tinyvae as tv
from benchmarks import parts, tables
from benchmarks.parts import Content
from benchmarks.tables import Columns
from tinyvae.engine.table import shapes
from tinyvae.measure.profiles import profile
from tinyvae.training.batches import CURSOR
from tinyvae.training.epochs import Training
from tinyvae.training.selection import select
from tinyvae.training.settings import Settings

SHOWN, MOST = 10, 0.1


class Case(NamedTuple):
    """A model, its options beside its sizes, and the settings of its training."""

    kind: str
    options: dict[str, Any]
    settings: dict[str, Any]


CASES = {"VAE": Case("vae", {}, {}), "Gamma, G-REP": Case("vae", {"posterior": "gamma"}, {"estimator": "grep"}),
         "IWAE-5, DReG": Case("vae", {}, {"bound": "iwae", "importance_samples": 5, "gradient": "dreg"}),
         "M2": Case("m2", {}, {"labels": 100}), "IAF-2": Case("vae", {"posterior": "iaf"}, {})}  # fmt: skip


def step(name: str, quick: bool) -> Content:
    """The slowest launches of a case, on digits as large as MNIST's."""
    hidden, latent, batch, rounds = (20, 3, 20, 2) if quick else (400, 20, 100, 101)
    side = 4 if quick else 28
    grey = (255 * np.random.default_rng(0).random((10 * batch, side * side)) ** 3).astype(np.uint8)
    data = tv.DataSet("made-up", grey, grey[:50], (side, side), 255.0, "dynamic", "bernoulli",
                      np.arange(len(grey)) % 10, np.arange(50) % 10)  # fmt: skip
    case = CASES[name]
    settings = Settings(**{"batch": batch} | case.settings)
    data = select(data, settings)
    training = Training(tv.models.model_for(case.kind, data, hidden=hidden, latent=latent, **case.options), data,
                        settings)
    training.begin_epoch()
    for _ in range(4):  # which are recorded and compared
        training.step()

    def reset() -> None:
        training.counters[CURSOR:] = 0

    found = profile(training.step_now().program.tape(batch), rounds, reset)
    whole = sum(seconds for _, seconds in found)
    slowest = sorted(((seconds, launch) for launch, seconds in found), key=lambda pair: -pair[0])[:SHOWN]
    rows = [{"case": name, "operation": launch.rule.name, "shapes": " -> ".join(shapes(launch)),
             "microseconds": 1e6 * seconds, "share": seconds / whole, "rounds": rounds,
             "to_mend": seconds > MOST * whole and "matmul" not in launch.rule.name} for seconds, launch in slowest]
    return {"steps": [{"case": name, "launches": len(found), "microseconds": 1e6 * whole}], "rows": rows}


COLUMNS: Columns = {
    "case": lambda row: row["case"],
    "operation": lambda row: row["operation"],
    "shapes": lambda row: row["shapes"][:60],
    "us": lambda row: f"{row['microseconds']:,.1f}",
    "of the step": lambda row: f"{row['share']:.1%}",
    "to mend": lambda row: "yes" if row["to_mend"] else "",
}


def show(content: Content) -> None:
    """Print the table."""
    tables.plain("the slowest launches of a step", COLUMNS, content.get("rows", []),
                 f"us: the median of each launch called by itself, lower is better; to mend: more than {MOST:.0%} of "
                 "the step, and no matrix product")


def table_of(quick: bool) -> parts.Table:
    """A part for each case."""
    return parts.Table("launches", {name: lambda _, name=name: step(name, quick) for name in CASES}, show)
