"""Timing the first step of a training: when no kernel is compiled, and in the next process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import results, tables
from tinyvae.measure import timing

ROUNDS = 5
COLD, WARM = "nothing compiled yet", "from the cache"
# The first step of 784-400-20 in float32, which uses 22 kernels and includes the import of Numba and the start of
# threads.
STEP = """
import time
import numpy as np
import tinyvae as tv
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

grey = (255 * np.random.default_rng(0).random((200, 784)) ** 3).astype(np.uint8)
data = tv.DataSet("made-up", grey, grey[:1], (1, 784), 255.0, "dynamic", "bernoulli")
training = Training(tv.VAE(784, 400, 20), data, Settings(batch=100))
training.begin_epoch()
start = time.perf_counter()
training.step()
print(time.perf_counter() - start)
"""


def first_step(cache: str) -> float:
    """The seconds of the first step in a new process that stores its compiled kernels in `cache`."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def run(quick: bool, out: Path) -> None:
    """Time all rounds, print the table, and write start.json."""
    found: dict[str, list[float]] = {COLD: [], WARM: []}
    for number in range(1 if quick else ROUNDS):
        with tempfile.TemporaryDirectory() as cache:
            for seconds in found.values():
                seconds.append(first_step(cache))
        tables.say(f"round {number + 1}: {found[COLD][-1]:.2f} s, then {found[WARM][-1]:.2f} s")
    table = Table(title="the first training step of a process, float32 (lower is better)", box=None,
                  title_justify="left", padding=(0, 2, 0, 0))
    for heading in ("kernels", "seconds", "quartiles", "rounds"):
        table.add_column(heading, justify="left" if heading == "kernels" else "right")
    rows = []
    for name, seconds in found.items():
        t = timing.Timing(name, tuple(seconds), 1)
        table.add_row(name, f"{t.median:.2f}", f"{t.quartiles[0]:.2f} to {t.quartiles[1]:.2f}", str(len(seconds)))
        rows.append({"kernels": name, "seconds": t.median, "lower_quartile": t.quartiles[0],
                     "upper_quartile": t.quartiles[1], "rounds": len(seconds)})
    Console(width=120).print(table)
    print(f"written: {results.write('start', out, rows, quick=quick)}")
