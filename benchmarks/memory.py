"""Data in files beside the same data in memory: the time of a step, and a training that has less memory than data.

Both trainings of a comparison take the same rows in the same order, so they make the same steps. The files are in the
system's cache, as after they were written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import tinyvae as tv
from benchmarks import parts, reproduce
from benchmarks.parts import Content
from benchmarks.scale import row
from benchmarks.tables import say
from tinyvae.data.mapped.rows import MappedRows
from tinyvae.training.batches import CURSOR
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

PIECES = 8
BATCHES = (100, 1000)
# a training that may have so many bytes of memory of its own; what it maps of files does not count
LIMITED = """
import json, pathlib, resource, sys, time
most, steps = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
import tinyvae as tv
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

def own():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])

begin = time.perf_counter()
data = tv.data.load(sys.argv[1] + "-dynamic")
loaded, most_seen = time.perf_counter() - begin, own()
training = Training(tv.VAE(784, 500, 20), data, Settings(batch=100))
training.begin_epoch()
for step in range(steps):
    training.step()
    most_seen = max(most_seen, own()) if step % 20 == 0 else most_seen
print(json.dumps({"loaded": loaded, "own": most_seen, "bytes": data.train.nbytes}))
"""


def images(count: int) -> np.ndarray:
    """Grey images, most of whose pixels are dark, (count, 784)."""
    return (255 * np.random.default_rng(0).random((count, 784), np.float32) ** 3).astype(np.uint8)


def data_set(rows: Any) -> tv.DataSet:
    return tv.DataSet("made-up", rows, images(100), (1, 784), 255.0, "dynamic", "bernoulli")


def comparison(batch: int, quick: bool) -> Content:
    """A step of each training in turn; a training in files takes its rows from one file, or from several."""
    count, rounds, steps = (1000, 1, 2) if quick else (60_000, 31, max(3, 4000 // batch))
    rows = images(count)
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(np.array_split(rows, PIECES)):
            np.save(Path(folder, f"{number}.npy"), part)
        files = [np.load(Path(folder, f"{number}.npy"), mmap_mode="r") for number in range(PIECES)]
        np.save(Path(folder, "all.npy"), rows)
        forms = {"in memory": rows, "in a file": np.load(Path(folder, "all.npy"), mmap_mode="r"),
                 f"in {PIECES} files": MappedRows(files)}
        trainings = {name: Training(tv.VAE(784, 500, 20), data_set(of), Settings(batch=batch))
                     for name, of in forms.items()}
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        for training in trainings.values():
            training.begin_epoch()
            for _ in range(4):  # which are recorded and compared
                training.step()
        for number in range(rounds):
            for name in np.roll(list(forms), number):  # none is always the first one
                training = trainings[name]
                training.counters[CURSOR:] = 0
                begin = time.perf_counter()
                training.step_many([batch] * steps)
                seconds[name].append((time.perf_counter() - begin) / steps)
        found = {name: training.model.parameters.flat.tobytes() for name, training in trainings.items()}
    assert len(set(found.values())) == 1, "the trainings have different bits"
    ratios = {name: float(np.median(np.divide(times, seconds["in memory"]))) for name, times in seconds.items()}
    say("; ".join(f"{name} {1e3 * np.median(times):.2f} ms, {ratios[name]:.3f}" for name, times in seconds.items()))
    return {"rows": [row(f"a step of {batch:,} rows {name}", times, times_memory=ratios[name], batch=batch) | (
        {"target": "at most 1.05 of the step in memory", "reached": ratios[name] <= 1.05}
        if name != "in memory" else {}) for name, times in seconds.items()]}


def larger(quick: bool) -> Content:
    """A training on 2 GiB, which may have 1 GiB; the quick form has a tenth of both, and no limit that it meets."""
    gib = 2**30
    size, most = (gib // 10, gib) if quick else (2 * gib, gib)
    with tempfile.TemporaryDirectory() as folder:
        count, made = size // 784 // PIECES, images(2000)
        for number in range(PIECES):
            whole = np.lib.format.open_memmap(Path(folder, f"part-{number:03}.npy"), "w+", np.uint8, (count, 784))
            for first in range(0, count, len(made)):
                whole[first : first + len(made)] = made[: count - first]
            del whole
        np.save(Path(folder, "test.npy"), made[:100])
        done = subprocess.run([sys.executable, "-c", LIMITED, folder, str(most), "5" if quick else "500"], text=True,
                              capture_output=True, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"a training with {most / gib:g} GiB ended with {done.returncode}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    what = f"{found['bytes'] / gib:.2f} GiB of data, of a process that may have {most / gib:g} GiB"
    return {"rows": [{
        "setting": f"its own memory at most, with {what}", "quantity": "MiB, lower is better",
        "value": found["own"] / 2**20, "stderr": 0.0, "count": 1, "target": f"below {most / 2**20:,.0f}",
        "reached": found["own"] < most, "digits": 0, "seconds_to_load": found["loaded"]}]}


def table_of(quick: bool) -> parts.Table:
    """A step at two batch sizes, and the limited training."""
    made: dict[str, parts.Part] = {f"batch {batch}": lambda _, batch=batch: comparison(batch, quick)
                                   for batch in ((10, 20) if quick else BATCHES)}
    return parts.Table("memory", made | {"larger than memory": lambda _: larger(quick)}, reproduce.show)
