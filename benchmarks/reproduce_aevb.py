"""AEVB figure 2 (Kingma & Welling 2014, section 5): the bound by the number of training data seen, for several numbers
of latents, of AEVB and of wake-sleep with the same networks, on MNIST and on Frey faces.

Each part trains one network by one learner. Train and test bounds of each point are recorded; the claims are about the
test bound from a million data on, and about the gap between both for 200 latents beside 20.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinyvae as tv
from benchmarks.parts import Content, Part
from tinyvae.evidence.diagnostics import mean_and_error
from tinyvae.pictures.page import TEST, TRAIN, new_figure, plain_axes, save_png
from tinyvae.tasks.comparing import bounds_of

Say = Callable[[str], Any]
SEEN = 10_000_000  # training data, with repetitions
FIRST = 1_000_000  # from which AEVB is to be above wake-sleep
LATENTS = {"mnist-dynamic": (3, 5, 10, 20, 200), "frey-faces": (2, 5, 10, 20)}
HIDDEN = {"mnist-dynamic": 500, "frey-faces": 200}
LEARNERS = ("aevb", "wake-sleep")
SETTINGS: dict[str, Any] = {"batch": 100, "optimizer": "adagrad", "lr": 0.02, "weight_prior": True}
FEW, MANY = 20, 200  # the latents whose gaps are compared, by some of the data
SOME = 2000


def figure_two(quick: bool, say: Say, seed: int = 0) -> dict[str, Part]:
    """A part for each network and learner, and the claims."""
    latents = {"digits": (2, 3)} if quick else LATENTS
    few, many = latents["digits"] if quick else (FEW, MANY)

    def trained(name: str, latent: int, learner: str) -> Content:
        data = tv.data.load(name)
        model = tv.VAE(data.dimensions, hidden=5 if quick else HIDDEN[name], latent=latent, activation="tanh",
                       likelihood=data.likelihood if quick or name != "frey-faces" else "gaussian", init="aevb",
                       seed=seed, learner=learner)
        passes, start = 2 if quick else round(SEEN / len(data.train)), time.perf_counter()
        points, marks = [], set(np.unique(np.geomspace(1, passes, 60).round().astype(int)).tolist())

        def report(record: dict[str, Any], timings: dict[str, Any]) -> None:
            if record["epoch"] in marks:
                points.append([record["epoch"] * len(data.train), record["train_elbo"], record["test_elbo"],
                               record["test_elbo_stderr"]])
                say(f"  {_part(name, latent, learner)}: epoch {record['epoch']} of {passes}, test "
                    f"{record['test_elbo']:.2f} nats per datum")

        tv.fit(model, data, epochs=passes, seed=seed, on_epoch=report, **SETTINGS)
        found = {"data": data.name, "learner": learner, "latent": latent, "points": points, "passes": passes,
                 "count": len(data.test), "seconds": time.perf_counter() - start}
        if learner == "aevb" and latent in (few, many):
            found["bounds"] = {part: bounds_of(model, data, part=part)[:SOME].round(2).tolist()
                               for part in ("train", "test")}
        return {"curves": {_part(name, latent, learner): found}}

    def claims(content: Content) -> Content:
        curves, rows = content["curves"], []
        for name, sizes in latents.items():
            for latent in sizes:
                ours, theirs = (curves[_part(name, latent, learner)] for learner in LEARNERS)
                gains = [(a[0], a[2] - b[2]) for a, b in zip(ours["points"], theirs["points"], strict=True)
                         if a[0] >= (0 if quick else FIRST)]
                least, at = min((gain, seen) for seen, gain in gains)
                rows.append(_row(ours, f"{name}, {latent} latents, least gain of AEVB over wake-sleep", least,
                                 float(np.hypot(ours["points"][-1][3], theirs["points"][-1][3])),
                                 "nats per datum of the test bound, from a million data on, higher is better",
                                 "above 0 at every point", bool(least > 0), seed) | {"at": at})
                for curve in (ours, theirs):
                    last = curve["points"][-1]
                    rows.append(_row(curve, f"{name}, {latent} latents, {curve['learner']}", last[2], last[3],
                                     "test bound, nats per datum, higher is better", "figure only", None, seed))
        name = next(iter(latents))
        gaps = {part: np.subtract(*(curves[_part(name, latent, "aevb")]["bounds"][part] for latent in (many, few)))
                for part in ("train", "test")}  # paired by datum
        (train, train_error), (test, test_error) = (mean_and_error(gaps[part]) for part in ("train", "test"))
        more, error = train - test, float(np.hypot(train_error, test_error))
        what = f"{name}, gap of train and test, {many} latents beside {few}"
        rows.append(_row(curves[_part(name, many, "aevb")], what, more, error, "nats per datum more, lower is better",
                         "below two standard errors", bool(more < 2 * error), seed))
        return {"rows": rows}

    parts: dict[str, Part] = {
        _part(*which): lambda _, which=which: trained(*which)
        for which in [(name, latent, learner) for name, sizes in latents.items() for latent in sizes
                      for learner in LEARNERS]}
    return parts | {"claims": claims}


def _part(name: str, latent: int, learner: str) -> str:
    return f"{name}, {latent} latents, {learner}"


def _row(curve: Content, setting: str, value: float, error: float, quantity: str, target: str, reached: bool | None,
         seed: int) -> dict[str, Any]:
    return {"setting": setting, "data": curve["data"], "quantity": quantity, "value": value, "stderr": error,
            "count": curve["count"], "target": target, "reached": reached, "passes": curve["passes"], "seed": seed,
            "seconds": curve["seconds"]}


def plot(content: Content, path: Path) -> Path:
    """The curves as PNG beside the file: a panel for each number of latents."""
    curves = list(content["curves"].values())
    panels = list(dict.fromkeys((curve["data"], curve["latent"]) for curve in curves))
    columns = max(sum(data == name for data, _ in panels) for name, _ in panels)
    names = list(dict.fromkeys(name for name, _ in panels))
    figure = new_figure(2.3 * columns, 2.5 * len(names))
    for name, latent in panels:
        row, column = names.index(name), [other for data, other in panels if data == name].index(latent)
        axes = figure.add_subplot(len(names), columns, row * columns + column + 1)
        for curve in (curve for curve in curves if (curve["data"], curve["latent"]) == (name, latent)):
            seen, train, test, _ = zip(*curve["points"], strict=True)
            colour = TEST if curve["learner"] == "aevb" else TRAIN
            axes.plot(seen, test, color=colour, linewidth=1.2, label=f"{curve['learner']}, test")
            axes.plot(seen, train, color=colour, linewidth=1, linestyle=":", label=f"{curve['learner']}, train")
        axes.set_xscale("log")
        plain_axes(axes, f"{name}, {latent} latents", "training data seen" if row == len(names) - 1 else "",
                   "bound, nats per datum" if column == 0 else "")
        everything = [point[2] for curve in curves if curve["data"] == name for point in curve["points"]]
        axes.set_ylim(np.quantile(everything, 0.1), max(everything) + 0.05 * np.ptp(everything))
        if row == column == 0:
            axes.legend(fontsize=6, frameon=False, loc="lower right")
    figure.tight_layout()
    return save_png(figure, path.with_suffix(".png"))
