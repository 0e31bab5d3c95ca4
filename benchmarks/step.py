"""A training step, as `tv.fit` takes it: replayed against eager, kernels against twins. Checked first, timed second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import tinyvae as tv
from benchmarks import results
from tinyvae import timing
from tinyvae.batches import BATCH, CURSOR
from tinyvae.training import Settings, Training

Size = tuple[int, int, int, int]  # pixels, hidden, latent, batch
SIZES: tuple[Size, ...] = ((64, 128, 8, 100), (784, 400, 20, 128), (784, 500, 20, 100))


def _training(pixels: int, hidden: int, latent: int, batch: int) -> Training:
    grey = np.random.default_rng(0).random((20 * batch, pixels)) ** 3
    stored = (255 * grey).astype(np.uint8)
    data = tv.DataSet("random", stored, stored[:batch], (1, pixels), 255.0, "dynamic", "bernoulli")
    return Training(tv.VAE(pixels, hidden, latent), data, Settings(batch=batch))


def _rewound(training: Training, step: Callable[[], None]) -> Callable[[], None]:
    """The step from the start of the epoch, so that it can be repeated for ever."""
    def call() -> None:
        training.clock[CURSOR] = training.clock[BATCH] = 0
        step()

    return call


def _check_bits(size: Size, steps: int) -> None:
    """Train twice, by replay and eagerly: every step must leave the same bits in every array of the state."""
    replayed, eager = _training(*size), _training(*size)

    def step_eagerly() -> None:
        eager.eager(size[3])

    for training in (replayed, eager):
        training.begin_epoch()
    for number in range(steps):
        for training, take in ((replayed, replayed.step), (eager, step_eagerly)):
            if training.clock[BATCH] == training.batches.steps:
                training.clock[CURSOR] = training.clock[BATCH] = 0
            take()
        for name, array in replayed.state().items():
            if array.tobytes() != eager.state()[name].tobytes():
                raise SystemExit(f"step {number}: replay and eager differ in {name}; nothing was timed")


def _candidates(size: Size) -> dict[str, Callable[[], None]]:
    """The same step in four ways, each repeatable for ever."""
    found: dict[str, Callable[[], None]] = {}
    for kernels in (True, False):
        with tv.fused(kernels):
            training = _training(*size)
            training.begin_epoch()
            tape = training.record(size[3])

        def eager(training: Training = training, kernels: bool = kernels) -> None:
            with tv.fused(kernels):
                training.eager(size[3])

        name = "kernels" if kernels else "twins"
        found |= {f"{name}, replayed": _rewound(training, tape.replay), f"{name}, eager": _rewound(training, eager)}
    return found


def _rows(size: Size, times: dict[str, timing.Timing], steps: int) -> list[dict[str, Any]]:
    rows = []
    for name, t in times.items():
        low, high = t.quartiles
        eager = times[name.split(",")[0] + ", eager"]
        rows.append({
            "size": "-".join(map(str, size[:3])), "batch": size[3], "step": name, "microseconds": t.median * 1e6,
            "lower_quartile": low * 1e6, "upper_quartile": high * 1e6, "rounds": len(t.seconds),
            "images_per_second": size[3] / t.median, "times_eager": t.times_faster_than(eager),
            "steps_with_equal_bits": steps,
        })  # fmt: skip
    return rows


def run(quick: bool, out: Path) -> None:
    """Print and write microseconds a step."""
    steps, rounds = (20, 5) if quick else (1000, 30)
    table = Table(title="a training step: gather, pixels, noise, forward, backward, guard, Adam", box=None,
                  title_justify="left", padding=(0, 2, 0, 0))
    for heading in ("net", "batch", "step", "us (lower is better)", "quartiles", "images/s", "times eager's speed"):
        table.add_column(heading)
    rows = []
    for size in SIZES[:1] if quick else SIZES:
        _check_bits(size, steps if size[0] < 100 else steps // 10)
        times = timing.measure(_candidates(size), rounds, least=0.05)
        rows += _rows(size, times, steps if size[0] < 100 else steps // 10)
    for row in rows:
        table.add_row(row["size"], str(row["batch"]), row["step"], f"{row['microseconds']:,.0f}",
                      f"{row['lower_quartile']:,.0f} to {row['upper_quartile']:,.0f}",
                      f"{row['images_per_second']:,.0f}", f"{row['times_eager']:.2f}")
    Console(width=120).print(table)
    print("replay and eager left the same bits in every step compared")
    print(f"written: {results.write('step', out, rows, quick=quick)}")
