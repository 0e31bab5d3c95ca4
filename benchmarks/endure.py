"""Endurance: what a run folder and a long training survive, many more times than the tests try it.

    damaged files     mutated run folders, entered through every public entrance (damage.py)
    kills             kill -9 at random moments, again and again; the ends have the bits of an undisturbed run
    kills of ranks    the same to one of several processes of MPI, after which another number of them goes on
    replayed steps    one recorded step replayed a million times, while the memory of the process stays flat
    first starts      processes that start together on an empty cache of kernels, and one that comes after them

Each part raises SystemExit with a sentence if something does not hold, so the file stays unfinished (parts.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import tinyvae as tv
from benchmarks import damage, parts, tables
from benchmarks.parts import Content
from benchmarks.scale import launcher
from tinyvae.data import DataSet

FILES, KILLS, STEPS, STARTS = 10_000, 100, 1_000_000, 10
KILLS_OF_RANKS, RANKS, SHARDS = 20, (1, 2, 4), 4
A_PART = {"files": 500, "kills": 10, "kills of ranks": 5}  # what is kept at once
PATIENCE = 5.0  # seconds within which all ranks end after one was killed
GROWTH = 4.0  # MB by which the peak of the memory may grow between the first tenth of the steps and their end
SETTINGS = {"epochs": 40, "batch": 8, "seed": 3, "lr": 0.01, "validation": 5}
ENDS = ("metrics.jsonl", "last.safetensors", "best.safetensors")  # whose bytes must be those of an undisturbed run


def bits(count: int, pixels: int = 12, seed: int = 0) -> DataSet:
    """Random bits, and a test part of five data."""
    drawn = np.random.default_rng(seed).integers(0, 2, (count + 5, pixels), np.uint8)
    return DataSet("made-up-static", drawn[5:], drawn[:5], (1, pixels), 1.0, "static", "bernoulli")


# ---- damaged files ---------------------------------------------------------------------------------------------------


def damaged(first: int, count: int) -> Content:
    """Enter `count` mutated folders, made by the seeds from `first` on."""
    data, refused = bits(20), 0
    with tempfile.TemporaryDirectory() as place:
        folder, whole, other = (Path(place) / name for name in ("mutated", "whole", "other"))
        for out, lr in ((whole, 0.01), (other, 0.02)):
            tv.fit(tv.VAE(12, 6, 2), data, out=out, epochs=2, batch=8, lr=lr)
        for seed in range(first, first + count):
            shutil.copytree(whole, folder)
            what = damage.damaged(folder, other, random.Random(seed))
            try:
                refused += bool(damage.refusals(folder, data))
            except Exception as fault:
                traceback.print_exc()
                raise SystemExit(f"the folder of seed {seed} ({what}) ended with {type(fault).__name__}: {fault}"
                                 ) from None
            shutil.rmtree(folder)
    return {"files": [{"first": first, "count": count, "refused": refused}]}


# ---- kills -----------------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
import tinyvae as tv

out, images, settings = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])

def step(training, done):
    print("step", flush=True)
    time.sleep(0.002)

if (out / "config.json").exists():
    tv.resume(out, on_step=step)
else:
    tv.fit(tv.VAE(12, 6, 2), images, out=out, on_step=step, **settings)
"""


def undisturbed(place: Path, seed: int, settings: dict[str, Any]) -> tuple[str, Path, Path]:
    """A data set, the folder of a run on it that will be killed, and the folder of one that nobody disturbed."""
    images, whole = place / "images.npz", place / "whole"
    drawn = np.random.default_rng(seed).random((55, 3, 4), np.float32)
    np.savez(images, train=drawn[12:], test=drawn[:12])
    tv.fit(tv.VAE(12, 6, 2), f"{images}-dynamic", out=whole, **settings)
    return f"{images}-dynamic", place / "run", whole


def killed(seed: int, count: int) -> Content:
    """Kill one run `count` times, let it end, and compare its bytes with those of an undisturbed run."""
    pick, hits = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as place:
        images, out, whole = undisturbed(Path(place), seed, SETTINGS)
        for _ in range(count):
            with _process(CHILD, out, images, repr(SETTINGS), stdout=subprocess.PIPE) as child:
                for _ in range(pick.randrange(1, 30)):
                    child.stdout.readline()
                time.sleep(pick.uniform(0, 0.02))
                child.kill()
                hits += child.wait() != 0  # it had not ended before
        with _process(CHILD, out, images, repr(SETTINGS), stdout=subprocess.DEVNULL) as child:
            if child.wait():
                raise SystemExit(f"the run of seed {seed} did not go on after {count} kills")
        compare(out, whole, f"seed {seed}, after {count} kills")
    return {"kills": [{"seed": seed, "count": hits}]}


RANK = """
import os, sys, time
from pathlib import Path
import tinyvae as tv

out, images, settings, pids = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3]), Path(sys.argv[4])
(pids / str(os.getpid())).touch()

def step(training, done):
    (pids / "step").write_text(str(training.now(0)))
    time.sleep(0.002)

if (out / "config.json").exists():
    tv.resume(out, on_step=step)
else:
    tv.fit(tv.VAE(12, 6, 2), images, out=out, on_step=step, **settings)
"""


def killed_ranks(seed: int, count: int) -> Content:
    """Kill one of several ranks at a random moment, `count` times, each time with another number of ranks; let the run
    end, and compare its bytes with those of an undisturbed run of one process."""
    pick, hits, settings = random.Random(seed), 0, SETTINGS | {"shards": SHARDS}
    with tempfile.TemporaryDirectory() as place:
        images, out, whole = undisturbed(Path(place), seed, settings)
        for number in range(count + 1):
            pids = Path(place) / f"pids{number}"
            pids.mkdir()
            # most kills come from several ranks; the last run, which nobody kills, has a number of its own
            ranks = pick.choice(RANKS[1:] if number < count else RANKS)
            with _process(RANK, out, images, repr(settings), pids, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, ranks=ranks) as launcher:
                if number < count:
                    hits += _kill_one(launcher, pids, ranks, pick)
                if launcher.wait() and number == count:
                    raise SystemExit(f"the run of seed {seed} did not go on in {ranks} processes after {count} kills")
        compare(out, whole, f"seed {seed}, after {count} kills of a rank")
    return {"kills of ranks": [{"seed": seed, "count": hits}]}


def _kill_one(launcher: Any, pids: Path, ranks: int, pick: random.Random) -> bool:
    """Kill one of the ranks after a random time; whether it was there. SystemExit if the others do not end then."""
    while launcher.poll() is None and len(list(pids.glob("[0-9]*"))) < ranks:
        time.sleep(0.01)
    while launcher.poll() is None and not (pids / "step").exists():  # before the first one they import and compile
        time.sleep(0.01)
    time.sleep(pick.uniform(0, 0.3))
    there = launcher.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pick.choice(sorted(path.name for path in pids.glob("[0-9]*")))), signal.SIGKILL)
    try:
        launcher.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        launcher.kill()
        raise SystemExit(f"{PATIENCE:g} s after one of {ranks} ranks was killed, others still ran") from None
    return there


def compare(out: Path, whole: Path, what: str) -> None:
    """SystemExit if a file of the run differs from that of the undisturbed one."""
    for name in ENDS:
        if (out / name).read_bytes() != (whole / name).read_bytes():
            raise SystemExit(f"{name} differs from that of an undisturbed run ({what})")


def _process(code: str, *arguments: Any, ranks: int = 1, **options: Any) -> Any:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | options.pop("env", {})
    launch = [launcher(), "-n", str(ranks)] if ranks > 1 else []
    return subprocess.Popen([*launch, sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True,
                            **options)


# ---- replayed steps --------------------------------------------------------------------------------------------------

LONG = """
import json, resource, sys, time
import tinyvae as tv
from benchmarks.endure import bits
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

steps, a_megabyte = int(sys.argv[1]), 2**10 if sys.platform == "linux" else 2**20
training = Training(tv.VAE(64, 16, 4), bits(20_000, 64), Settings(batch=20, epochs=10**9))
peaks, begin = [], time.perf_counter()
while training.now(0) < steps:
    for _ in training.steps():
        pass
    training.end_epoch()
    if training.now(0) * 10 >= steps * (len(peaks) + 1):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / a_megabyte)
print(json.dumps({"count": training.now(0), "seconds": time.perf_counter() - begin, "peak_megabytes": peaks}))
"""


def replayed(steps: int) -> Content:
    """Replay a step, an evaluation after every 1000; the peak of the memory at each tenth of the way, in MB."""
    with _process(LONG, steps, stdout=subprocess.PIPE) as child:
        text = child.communicate()[0]
    if child.returncode:
        raise SystemExit(f"the training of {steps:,} steps ended with code {child.returncode}")
    found = json.loads(text)
    grown = found["peak_megabytes"][-1] - found["peak_megabytes"][0]
    if not grown <= GROWTH:  # NaN fails
        raise SystemExit(f"the memory grew by {grown:.1f} MB over {steps:,} steps, allowed {GROWTH}")
    return {"steps": [found | {"growth_megabytes": grown}]}


# ---- first starts ----------------------------------------------------------------------------------------------------

START = """
import time
start = time.perf_counter()
import tinyvae as tv
from benchmarks.endure import bits

print(tv.fit(tv.VAE(12, 6, 2), bits(20), epochs=1, batch=8)[-1]["fingerprint"], time.perf_counter() - start)
"""


def started(count: int) -> Content:
    """Start processes together on an empty cache, and one more on what they left; all have the same bits."""
    with tempfile.TemporaryDirectory() as cache:
        def start(number: int) -> list[str]:
            children = [_process(START, env={"NUMBA_CACHE_DIR": cache}, stdout=subprocess.PIPE) for _ in range(number)]
            said = [child.communicate()[0] for child in children]
            if codes := [child.returncode for child in children if child.returncode]:
                raise SystemExit(f"{len(codes)} of {number} processes that started together ended with {codes[0]}")
            return said

        together, after = [text.split() for text in start(count)], start(1)[0].split()
    prints = {fingerprint for fingerprint, _ in [*together, after]}
    if len(prints) != 1:
        raise SystemExit(f"{count} processes that started together ended with {len(prints)} different fingerprints")
    slowest = max(float(seconds) for _, seconds in together)
    return {"starts": [{"count": count, "seconds": slowest, "seconds_after": float(after[1])}]}


# ---- the table -------------------------------------------------------------------------------------------------------


def close(content: Content) -> Content:
    """A row for each kind of trouble."""
    found = {name: content.get(name, []) for name in ("files", "kills", "kills of ranks", "steps", "starts")}
    count = {name: sum(row["count"] for row in rows) for name, rows in found.items()}
    refused = sum(row["refused"] for row in found["files"])
    rows = [
        {"what": "damaged files", "count": count["files"],
         "outcome": f"{refused} refused in a sentence, {count['files'] - refused} sound enough to be used"},
        {"what": "kills", "count": count["kills"], "outcome": "the bits of an undisturbed run"},
        {"what": "kills of one of several ranks", "count": count["kills of ranks"],
         "outcome": "the bits of an undisturbed run of one process"},
        {"what": "replayed steps", "count": count["steps"],
         "outcome": "".join(f"{row['growth_megabytes']:.1f} MB more after the first tenth" for row in found["steps"])},
        {"what": "first starts at once", "count": count["starts"], "outcome": "the same bits, and a whole cache"},
    ]
    return {"rows": rows}


def show(content: Content) -> None:
    """Print the table."""
    table = Table(title="endurance: what was tried, and how it ended", box=None, title_justify="left",
                  padding=(0, 2, 0, 0))
    for heading in ("what", "count", "outcome"):
        table.add_column(heading, justify="right" if heading == "count" else "left")
    for row in close(content)["rows"]:
        table.add_row(row["what"], f"{row['count']:,}", row["outcome"])
    Console(width=120).print(table)
    tables.say(f"seeds from 0 on; memory may grow by {GROWTH} MB")


def table_of(quick: bool) -> parts.Table:
    """Parts of 500 damaged files, of 10 kills and of 5 of a rank each, and the others whole; a hundredth of all that
    with `quick`."""
    share = 100 if quick else 1
    files, kills, of_ranks, steps, starts = (max(2, size // share) for size in (FILES, KILLS, KILLS_OF_RANKS, STEPS,
                                                                                STARTS))
    found: dict[str, parts.Part] = {}
    for first in range(0, files, A_PART["files"]):
        found[f"damaged files from {first}"] = lambda content, first=first: damaged(
            first, min(A_PART["files"], files - first))
    for number, first in enumerate(range(0, kills, A_PART["kills"])):
        found[f"kills from {first}"] = lambda content, number=number, first=first: killed(
            number, min(A_PART["kills"], kills - first))
    for number, first in enumerate(range(0, of_ranks, A_PART["kills of ranks"])):
        found[f"kills of ranks from {first}"] = lambda content, number=number, first=first: killed_ranks(
            number, min(A_PART["kills of ranks"], of_ranks - first))
    found[f"{steps:,} replayed steps"] = lambda content: replayed(steps)
    found[f"{starts} first starts"] = lambda content: started(starts)
    return parts.Table("endure", found, show, close=close)
