"""AEVB's figures 2 and 3 (Kingma & Welling 2014, section 5), for which the paper gives no table.

Figure 2: the bound by the number of training data seen, for several numbers of latents, of AEVB and of wake-sleep with
the same networks, on MNIST and on Frey faces. The claims are about the test bound from a million data on, and about the
gap of training and test data for 200 latents beside 20.

Frey faces are frames of a video. Here the last ones are the test data, which the networks overfit; the paper's test
bound stays near its training bound, as if its frames were parted at random, so that is another table.

Figure 3: log p(x) by posterior draws (AEVB appendix D) of networks with 3 latents and 100 hidden units, trained on
1,000 and on 50,000 digits by AEVB and by wake-sleep, and on 1,000 by Monte Carlo EM, too. Each value is that of the
first 1,000 training and test data.

Each part trains one network by one learner.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import tinyvae as tv
from benchmarks.parts import Content, Part
from tinyvae.data.dataset import held_out
from tinyvae.evidence.diagnostics import mean_and_error
from tinyvae.pictures.page import TEST, TRAIN, new_figure, plain_axes, save_png
from tinyvae.tasks.comparing import bounds_of
from tinyvae.training.faults import DivergedError

Say = Callable[[str], Any]
Point = list[float]  # data seen, the value of the training data, that of the test data, and its standard error
LEARNERS = ("aevb", "wake-sleep")
SETTINGS: dict[str, Any] = {"batch": 100, "optimizer": "adagrad", "weight_prior": True}
RATES = (0.02, 0.01)  # of the paper's; the second where a training with the first one diverges


def _trained(called: str, model: Any, data: tv.DataSet, seen: int, most: int, seed: int, say: Say,
             point: Callable[[dict[str, Any]], Point]) -> Content:
    """The curve of a model that learns from so many data: a `point` at about `most` epochs that part its logarithm
    evenly. Its seconds leave out those of the points."""
    passes, start, paused, points = max(2, round(seen / len(data.train))), time.perf_counter(), 0.0, []
    marks, first = set(np.unique(np.geomspace(1, passes, most).round().astype(int)).tolist()), copy.deepcopy(model)

    def report(record: dict[str, Any], timings: dict[str, Any]) -> None:
        nonlocal paused
        if record["epoch"] in marks:
            begun = time.perf_counter()
            points.append([record["epoch"] * len(data.train), *point(record)])
            say(f"  {called}: epoch {record['epoch']} of {passes}, test {points[-1][2]:.2f} nats per datum")
            paused += time.perf_counter() - begun

    rate = RATES[0]
    try:
        tv.fit(model, data, epochs=passes, seed=seed, on_epoch=report, lr=rate, **SETTINGS)
    except DivergedError as fault:
        say(f"  {called}: {fault}")
        rate, points[:] = RATES[1], []
        model.parameters.flat[...] = first.parameters.flat
        tv.fit(model, data, epochs=passes, seed=seed, on_epoch=report, lr=rate, **SETTINGS)
    return {"data": data.name, "learner": model.config["learner"], "latent": model.latent, "points": points,
            "rate": rate, "passes": passes, "seconds": time.perf_counter() - start - paused}


def _row(curve: Content, setting: str, value: float, error: float, quantity: str, target: str, reached: bool | None,
         seed: int) -> dict[str, Any]:
    return {"setting": setting, "data": curve["data"], "quantity": quantity, "value": value, "stderr": error,
            "count": curve["count"], "target": target, "reached": reached, "passes": curve["passes"], "seed": seed,
            "seconds": curve["seconds"]}


def _least_gain(ours: Content, theirs: Content, setting: str, what: str, first: int, seed: int) -> dict[str, Any]:
    """The row of the least gain of one curve over another from so many data on."""
    gains = [(a[2] - b[2], float(np.hypot(a[3], b[3])), a[0])
             for a, b in zip(ours["points"], theirs["points"], strict=True) if a[0] >= first]
    least, error, at = min(gains)
    return _row(ours, setting, least, error, f"nats per datum of {what}, from {first:,} data on, higher is better",
                "above 0 at every point", bool(least > 0), seed) | {"at": at}


# ---- figure 2 --------------------------------------------------------------------------------------------------------

SEEN = 10_000_000  # training data, with repetitions
FIRST = 1_000_000  # from which AEVB is to be above wake-sleep
LATENTS = {"mnist-dynamic": (3, 5, 10, 20, 200), "frey-faces": (2, 5, 10, 20)}
HIDDEN = {"mnist-dynamic": 500, "frey-faces": 200}
FEW, MANY = 20, 200  # the latents whose gaps are compared, by some of the data
SOME = 2000


def parted_at_random(data: tv.DataSet) -> tv.DataSet:
    """The same images, of which others are the test data, as many as before."""
    images = np.concatenate([data.train, data.test])
    train, test = held_out(len(images), len(data.test))
    return replace(data, train=images[train], test=images[test], train_labels=None, test_labels=None)


def figure_two(quick: bool, say: Say, seed: int = 0, at_random: bool = False) -> dict[str, Part]:
    """A part for each network and learner, and the claims; `at_random`: of Frey faces alone, parted at random."""
    latents = {name: sizes for name, sizes in LATENTS.items() if name == "frey-faces" or not at_random}
    latents = {"digits": (2, 3)} if quick else latents
    few, many = latents["digits"] if quick else (FEW, MANY)

    def trained(name: str, latent: int, learner: str) -> Content:
        data = parted_at_random(tv.data.load(name)) if at_random else tv.data.load(name)
        model = tv.VAE(data.dimensions, hidden=5 if quick else HIDDEN[name], latent=latent, activation="tanh",
                       likelihood=data.likelihood if quick or name != "frey-faces" else "gaussian", init="aevb",
                       seed=seed, learner=learner)
        called = _part(name, latent, learner)
        curve = _trained(called, model, data, 0 if quick else SEEN, 60, seed, say,
                         lambda record: [record[key] for key in ("train_elbo", "test_elbo", "test_elbo_stderr")])
        found = curve | {"panel": f"{name}, {latent} latents", "count": len(data.test)}
        if learner == "aevb" and latent in (few, many):
            found["bounds"] = {part: bounds_of(model, data, part=part)[:SOME].round(2).tolist()
                               for part in ("train", "test")}
        return {"curves": {called: found}}

    def claims(content: Content) -> Content:
        curves, rows = content["curves"], []
        for name, sizes in latents.items():
            for latent in sizes:
                ours, theirs = (curves[_part(name, latent, learner)] for learner in LEARNERS)
                rows.append(_least_gain(ours, theirs, f"{name}, {latent} latents, least gain of AEVB over wake-sleep",
                                        "the test bound", 0 if quick else FIRST, seed))
                for curve in (ours, theirs):
                    last = curve["points"][-1]
                    rows.append(_row(curve, f"{name}, {latent} latents, {curve['learner']}", last[2], last[3],
                                     "test bound, nats per datum, higher is better", "figure only", None, seed))
        if at_random:
            return {"rows": rows}
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


# ---- figure 3 --------------------------------------------------------------------------------------------------------

SIZES = {1000: 3_000_000, 50_000: 10_000_000}  # the number of training data: how many of them are seen in all
EVIDENCE: dict[str, Any] = {"method": "hmc", "chains": 4, "draws": 50, "leapfrog": 4, "count": 1000}


def figure_three(quick: bool, say: Say, seed: int = 0) -> dict[str, Part]:
    """A part for each number of data and learner, and the claims."""
    sizes = {100: 0, 200: 0} if quick else SIZES
    settings: dict[str, Any] = {"method": "importance", "importance_samples": 10, "count": 5} if quick else EVIDENCE
    small, large = sizes
    runs = [(size, learner) for size in sizes for learner in (*LEARNERS, *(("mcem",) if size == small else ()))]

    def trained(size: int, learner: str) -> Content:
        data = tv.data.load("digits" if quick else "mnist-dynamic")
        count = settings["count"]
        data = replace(data, train=data.train[:size], test=data.test[:count], train_labels=None, test_labels=None)
        hidden, latent = (5, 1) if quick else (100, 3)
        model = tv.VAE(data.dimensions, hidden=hidden, latent=latent, activation="tanh", init="aevb", seed=seed,
                       likelihood=data.likelihood, learner=learner)

        def point(record: dict[str, Any]) -> Point:
            train, test = (tv.evaluate(model, data, part=part, **settings) for part in ("train", "test"))
            return [train.log_evidence, test.log_evidence, test.log_evidence_stderr]

        curve = _trained(_of(size, learner), model, data, sizes[size], 1 if quick else 10, seed, say, point)
        return {"curves": {_of(size, learner): curve | {"panel": f"{size:,} training data", "count": count}}}

    def claims(content: Content) -> Content:
        curves = {which: content["curves"][_of(*which)] for which in runs}
        what, rows = "log p(x) of test data, nats per datum, higher is better", []
        order = sorted((-curve["points"][-1][2], learner) for (size, learner), curve in curves.items() if size == small)
        for (size, learner), curve in curves.items():
            (_, _, value, error), place = curve["points"][-1], ""
            if size == small:
                place = f", place {1 + [name for _, name in order].index(learner)} of {len(order)}"
            rows.append(_row(curve, f"{_of(size, learner)}{place}", value, error, what, "figure only", None, seed))
        rows.append(_least_gain(curves[large, "aevb"], curves[large, "wake-sleep"],
                                f"{large:,} training data, least gain of AEVB over wake-sleep", "log p(x) of test data",
                                0 if quick else FIRST, seed))
        return {"rows": rows}

    return {_of(*which): lambda _, which=which: trained(*which) for which in runs} | {"claims": claims}


def _of(size: int, learner: str) -> str:
    return f"{size:,} training data, {learner}"


# ---- the pictures ----------------------------------------------------------------------------------------------------

COLOURS = dict(zip((*LEARNERS, "mcem"), (TEST, TRAIN, "#117733"), strict=True))


def plot(content: Content, path: Path, quantity: str) -> Path:
    """The curves as PNG beside the file: a panel for each network, a row of them for each data set."""
    curves = sorted(content["curves"].values(), key=lambda curve: (
        curve["latent"], curve["points"][0][0], list(COLOURS).index(curve["learner"])))
    panels = list(dict.fromkeys((curve["data"], curve["panel"]) for curve in curves))
    names = list(dict.fromkeys(curve["data"] for curve in content["curves"].values()))
    columns = max(sum(data == name for data, _ in panels) for name in names)
    figure, shown, below = new_figure(2.3 * columns, 2.5 * len(names) + 0.4), {}, 0.4  # inches, for the legend
    for name, panel in panels:
        row, column = names.index(name), [other for data, other in panels if data == name].index(panel)
        axes = figure.add_subplot(len(names), columns, row * columns + column + 1)
        for curve in (curve for curve in curves if curve["panel"] == panel):
            seen, train, test, _ = zip(*curve["points"], strict=True)
            colour = COLOURS[curve["learner"]]
            shown[f"{curve['learner']}, test"] = axes.plot(seen, test, color=colour, linewidth=1.2)[0]
            shown[f"{curve['learner']}, train"] = axes.plot(seen, train, color=colour, linewidth=1, linestyle=":")[0]
        axes.set_xscale("log")
        plain_axes(axes, panel, "training data seen" if row == len(names) - 1 else "",
                   f"{quantity}, nats per datum" if column == 0 else "")
        everything = [point[1:3] for curve in curves if curve["data"] == name for point in curve["points"]]
        axes.set_ylim(np.quantile(everything, 0.1), np.max(everything) + 0.05 * np.ptp(everything))
    figure.tight_layout(rect=(0, below / figure.get_figheight(), 1, 1))
    figure.legend(shown.values(), shown.keys(), fontsize=6, frameon=False, loc="lower center", ncols=len(shown) // 2)
    return save_png(figure, path.with_suffix(".png"), colours=64)
