"""A training step, as `tv.fit` takes it: replayed against eager, kernels against twins. Checked first, timed second."""

from __future__ import annotations

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

SIZES = ((64, 128, 8, 100), (784, 400, 20, 128), (784, 500, 20, 100))


def _training(pixels: int, hidden: int, latent: int, batch: int) -> Training:
    grey = np.random.default_rng(0).random((20 * batch, pixels)) ** 3
    stored = (255 * grey).astype(np.uint8)
    data = tv.DataSet("random", stored, stored[:batch], (1, pixels), 255.0, "dynamic", "bernoulli")
    return Training(tv.VAE(pixels, hidden, latent), data, Settings(batch=batch))


def _rewound(training: Training, step: Any) -> Any:
    """The step from the start of the epoch, so that it can be repeated for ever."""
    def call() -> None:
        training.clock[CURSOR] = training.clock[BATCH] = 0
        step()

    return call


def _same_bits(size: tuple[int, int, int, int], steps: int) -> float:
    """Train twice, by replay and by recording every step anew; the number of steps that left the same bits."""
    replayed, eager = _training(*size), _training(*size)
    for training in (replayed, eager):
        training.begin_epoch()
    for _ in range(steps):
        for training, take in ((replayed, replayed.step), (eager, lambda: eager.record(size[3]))):
            if training.clock[BATCH] == training.batches.steps:
                training.clock[CURSOR] = training.clock[BATCH] = 0
            take()
        for name, array in replayed.state().items():
            assert array.tobytes() == eager.state()[name].tobytes(), f"replay and eager differ in {name}"
    return steps


def run(quick: bool, out: Path) -> None:
    """Print and write microseconds a step."""
    rows, rounds = [], 5 if quick else 30
    for size in SIZES[:1] if quick else SIZES:
        checked = _same_bits(size, 20 if quick else 100)
        candidates = {}
        for kernels in (True, False):
            with tv.fused(kernels):
                training = _training(*size)
                training.begin_epoch()
                for _ in range(3):  # recorded, and compared twice
                    training.step()
                tape = training.record(size[3])
                name = "kernels" if kernels else "twins"
                candidates[f"{name}, replayed"] = _rewound(training, tape.replay)

                def eager(training: Training = training, kernels: bool = kernels) -> None:
                    with tv.fused(kernels):
                        training.eager(size[3])

                candidates[f"{name}, eager"] = _rewound(training, eager)
        times = timing.measure(candidates, rounds=rounds)
        for name, t in times.items():
            low, high = t.quartiles
            ratio = t.times_faster_than(times[name.split(",")[0] + ", eager"])
            rows.append({"size": "-".join(map(str, size[:3])), "batch": size[3], "step": name, "microseconds": t.median * 1e6,
                         "lower_quartile": low * 1e6, "upper_quartile": high * 1e6, "rounds": rounds, "times_eager": ratio,
                         "images_per_second": size[3] / t.median, "steps_with_equal_bits": checked})
    table = Table(title="a training step: gather, pixels, noise, forward, backward, guard, Adam", box=None, title_justify="left",
                  padding=(0, 2, 0, 0))
    for heading in ("net", "batch", "step", "microseconds (lower is better)", "quartiles", "images/s", "times as fast as eager"):
        table.add_column(heading)
    for row in rows:
        table.add_row(row["size"], str(row["batch"]), row["step"], f"{row['microseconds']:,.0f}",
                      f"{row['lower_quartile']:,.0f} to {row['upper_quartile']:,.0f}", f"{row['images_per_second']:,.0f}",
                      f"{row['times_eager']:.2f}")
    Console().print(table)
    print(f"replay and eager left the same bits in all {rows[0]['steps_with_equal_bits']:.0f} steps compared")
    print(f"written: {results.write('step', out, rows, quick=quick)}")
