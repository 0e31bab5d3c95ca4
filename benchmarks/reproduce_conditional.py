"""Conditional generation: digits of which one, two or three quarters are given (Sohn, Lee & Yan 2015, section 5.1), and
super-resolution of digits averaged over 4 x 4 and 2 x 2 pixels; each beside a net of the same size without z."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tinyvae as tv
from benchmarks.parts import Content, Part
from tinyvae.models import model_for
from tinyvae.pictures.page import PALE, TEST, TRAIN, new_figure, plain_axes, save_png
from tinyvae.tasks.generation.upscaling import Upscaled, upscale

Say = Callable[[str], Any]
NETWORK: dict[str, Any] = {"hidden": (500, 500)}  # of all networks, as in Pyro's reproduction
LATENT = 50
# The best epoch on 10,000 held-out training images counts.
TRAINING: dict[str, Any] = {"epochs": 60, "batch": 100, "lr": 1e-3, "validation": 10_000, "patience": 5}
QUICK: dict[str, Any] = {"epochs": 1, "batch": 100, "validation": 100}
SMALL: dict[str, Any] = {"hidden": 20}  # of the quick form
DRAWS = 100  # of the importance sampling
# By the number of given quarters: the bound that -log p must be below, by how much it must be below the net's, and the
# published numbers of the CVAE and of the net.
QUARTERS = {1: (67.0, 25.0, 63.9, 99.75), 2: (46.0, 12.0, 44.7, 62.18), 3: (22.5, 4.0, 20.95, 25.99)}
# By the factor: the least mean PSNR in dB, the least KL in nats, and the PSNR of baselines.
FACTORS: dict[int, tuple[float, float | None, str]] = {
    4: (19.8, 1.0, "bicubic 14.63, ridge regression 16.4, 2000 random features 18.9"),
    2: (23.5, None, "bicubic 20.12, ridge regression 22.4, 2000 random features 23.4")}
TEMPERATURES, ANSWERS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), 32
NATS = "-log p(rest|given) of test data, nats per datum, lower is better"


def trained(kind: str, given: str, data: Any, quick: bool, say: Say, seed: int) -> tuple[Any, int, float]:
    """The model of the best epoch, the passes that it took, and the seconds of the training."""
    options = (SMALL if quick else NETWORK) | ({"latent": LATENT} if kind == "cvae" else {})
    model, start = model_for(kind, data, given=given, seed=seed, **options), time.perf_counter()

    def report(record: dict[str, Any], timings: dict[str, Any]) -> None:
        say(f"  {kind}, {given}, {data.name}: epoch {record['epoch']}, valid {record['valid_elbo']:.2f}, test "
            f"{record['test_elbo']:.2f} ± {record['test_elbo_stderr']:.2f} nats per datum, "
            f"{timings['train_seconds']:.1f} s")

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        records = tv.fit(model, data, out=out, seed=seed, on_epoch=report, **(QUICK if quick else TRAINING))
        return tv.load(out), len(records), time.perf_counter() - start


def judged(kind: str, given: str, data: Any, quick: bool, say: Say, seed: int) -> tuple[Any, dict[str, Any]]:
    """The trained model, and a row with -log p(rest|given) of the test data: exact for the net, else by draws.

    Pixels that are drawn at each use are drawn once for the test, the same for every model.
    """
    model, passes, seconds = trained(kind, given, data, quick, say, seed)
    draws = 0 if kind == "net" else 10 if quick else DRAWS
    found = tv.evaluate(model, data, importance_samples=draws)
    value, error = (found.elbo, found.elbo_stderr) if kind == "net" else (found.log_evidence, found.log_evidence_stderr)
    return model, {"setting": f"{kind}, {given}", "data": data.name, "quantity": NATS, "value": -value, "stderr": error,
                   "count": found.data_count, "importance_samples": draws, "elbo": found.elbo, "kl": found.kl,
                   "target": "", "reached": None, "passes": passes, "seed": seed, "seconds": seconds}


def quadrants(quick: bool, say: Say, seed: int = 0) -> dict[str, Part]:
    """A CVAE and the net, for one, two and three given quarters, and the CVAE on thresholded pixels."""
    base = "digits" if quick else "mnist"

    def part(kind: str, number: int, pixels: str) -> Content:
        data = tv.data.load(f"{base}-{pixels}")
        _, row = judged(kind, f"quadrants:{number}", data, quick, say, seed)
        ours, theirs = QUARTERS[number][2:]
        row["target"] = f"published, pixels not stated: {theirs if kind == 'net' else ours}"
        return {"rows": [row]}

    def compare(content: Content) -> Content:
        rows = {(row["setting"], row["data"]): row for row in content["rows"]}
        made = []
        for number, (most, gain, *_) in QUARTERS.items():
            cvae, net = (rows[f"{kind}, quadrants:{number}", f"{base}-dynamic"] for kind in ("cvae", "net"))
            cvae |= {"target": f"below {most}", "reached": cvae["value"] < most}
            better = net["value"] - cvae["value"]
            made.append(cvae | {"setting": f"gain of the CVAE, quadrants:{number}", "value": better,
                                "quantity": "nats per datum below the net, higher is better",
                                "stderr": (net["stderr"] ** 2 + cvae["stderr"] ** 2) ** 0.5,
                                "target": f"at least {gain}", "reached": better >= gain})
        return {"rows": made}

    wanted = [("net", n, "dynamic") for n in QUARTERS] + [("cvae", n, "dynamic") for n in QUARTERS]
    wanted += [("cvae", n, "threshold") for n in QUARTERS]
    return {f"{kind}, quadrants:{number}, {pixels}": lambda _, key=(kind, number, pixels): part(*key)
            for kind, number, pixels in wanted} | {"comparison": compare}


def super_resolution(quick: bool, say: Say, seed: int = 0) -> dict[str, Part]:
    """A CVAE and the net, given 7 x 7 and 14 x 14 pixels: -log p, and PSNR by temperature."""
    data = tv.data.load("digits" if quick else "mnist-dynamic")

    def part(kind: str, factor: int) -> Content:
        model, row = judged(kind, f"pooled:{factor}", data, quick, say, seed)
        images = (data.test[: 50 if quick else None] / data.scale).reshape(-1, *data.shape)
        found = upscale(model, images, TEMPERATURES if kind == "cvae" else (1.0,), 4 if quick else ANSWERS)
        say(str(found))
        least, nats, others = FACTORS[factor]
        row |= {"target": f"a net's beside it; {others} dB", "reached": None}
        rows = [row, psnr_row(row, found, least, others)]
        if kind == "cvae" and nats is not None:
            rows.append(row | {"setting": f"KL, pooled:{factor}", "quantity": "nats per datum", "value": row["kl"],
                               "stderr": 0.0, "target": f"at least {nats}: a collapsed model is no answer",
                               "reached": row["kl"] >= nats})
        trade = [{"factor": factor, "model": kind, **vars(way)} for way in found.ways]
        return {"rows": rows, "trade": trade}

    return {f"{kind}, pooled:{factor}": lambda _, key=(kind, factor): part(*key)
            for factor in FACTORS for kind in ("net", "cvae")}


def psnr_row(row: dict[str, Any], found: Upscaled, least: float, others: str) -> dict[str, Any]:
    """The mean PSNR of the mean of the answers at temperature 1."""
    way, is_cvae = found.ways[-1], row["setting"].startswith("cvae")
    return row | {"setting": f"{row['setting']}, mean of {way.draws} answers", "value": way.psnr,
                  "quantity": "PSNR in dB, higher is better", "stderr": way.psnr_stderr, "count": found.count,
                  "target": f"at least {least} ({others})" if is_cvae else f"beside: {others}",
                  "reached": way.psnr >= least if is_cvae else None}


def plot(content: Content, path: Path) -> Path:
    """The trade between temperature, PSNR and diversity, as PNG beside the file: a panel for each factor."""
    factors = sorted({row["factor"] for row in content["trade"]}, reverse=True)
    figure = new_figure(4.2 * len(factors), 3.4)
    for number, factor in enumerate(factors):
        axes = figure.add_subplot(1, len(factors), number + 1)
        rows = [row for row in content["trade"] if row["factor"] == factor]
        for several, colour in ((False, TEST), (True, TRAIN)):
            ways = [row for row in rows if row["model"] == "cvae" and row["temperature"] is not None
                    and (row["draws"] > 1) == several]
            x, y, error = ([way[name] for way in ways] for name in ("temperature", "psnr", "psnr_stderr"))
            axes.errorbar(x, y, error, color=colour, marker="o", markersize=3,
                          label="mean of the answers" if several else "one answer")
        bicubic = next(row for row in rows if row["name"] == "bicubic")
        axes.axhline(bicubic["psnr"], color=PALE, linestyle=":", linewidth=1)
        for row in [row for row in rows if row["model"] == "net" and row["draws"] > 1]:
            axes.axhline(row["psnr"], color=PALE, linestyle="--", linewidth=1)
        for way in [row for row in rows if row["model"] == "cvae" and row["draws"] == 1]:
            axes.annotate(f"{way['diversity']:.3f}", (way["temperature"], way["psnr"]), (0, -11), fontsize=6,
                          textcoords="offset points", ha="center")
        plain_axes(axes, f"x{factor}; below the points: sd of a pixel", "temperature", "PSNR, dB (higher is better)")
        axes.margins(0.08, 0.15)
        axes.legend(fontsize=7, frameon=False)
    figure.text(0.01, 0.005, "dashed: the net without z; dotted: bicubic", fontsize=6.5)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return save_png(figure, path.with_suffix(".png"))
