"""Timing the first step of a training: when no kernel is compiled, and in the next process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.table import Table

from benchmarks import parts, tables
from benchmarks.parts import Content
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


def round_of(content: Content) -> Content:
    """The seconds of a first step without compiled kernels, and of the next."""
    with tempfile.TemporaryDirectory() as cache:
        found = {name: first_step(cache) for name in (COLD, WARM)}
    tables.say(f"{found[COLD]:.2f} s, then {found[WARM]:.2f} s")
    return {"measured": [found]}


def close(content: Content) -> Content:
    """The rows: medians over the rounds."""
    rows = []
    for name in (COLD, WARM):
        t = timing.Timing(name, tuple(found[name] for found in content["measured"]), 1)
        rows.append({"kernels": name, "seconds": t.median, "lower_quartile": t.quartiles[0],
                     "upper_quartile": t.quartiles[1], "rounds": len(t.seconds),
                     "busy": any(found["busy"] for found in content["measured"])})
    return {"rows": rows}


def show(content: Content) -> None:
    """Print the table."""
    table = Table(title="the first training step of a process, float32 (lower is better)", box=None,
                  title_justify="left", padding=(0, 2, 0, 0))
    for heading in ("kernels", "seconds", "quartiles", "rounds"):
        table.add_column(heading, justify="left" if heading == "kernels" else "right")
    for row in content["rows"]:
        table.add_row(row["kernels"], f"{row['seconds']:.2f}", f"{row['lower_quartile']:.2f} to "
                      f"{row['upper_quartile']:.2f}", str(row["rounds"]))
    Console(width=120).print(table)


def table_of(quick: bool) -> parts.Table:
    """A part for each round."""
    return parts.Table("start", {f"round {i + 1}": round_of for i in range(1 if quick else ROUNDS)}, show, close=close)
