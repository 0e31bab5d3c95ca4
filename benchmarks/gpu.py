"""CPU against GPU: every kernel, and the whole training step over the batch. Checked first, timed second.

A kernel is held against its twin in float64 before it is timed, a step against the CPU's losses. Times on the card are
by its own events; a step's is what an epoch of replays takes, divided by its steps, so the host's work counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import nets, results
from benchmarks.cases import Case, cases
from benchmarks.gpu_check import card
from benchmarks.kernels import BOUNDS, KERNEL, exact, record, units
from benchmarks.nets import Net
from benchmarks.tables import say
from tinyvae import listing, timing
from tinyvae.devices import namespace, require_cuda, to_host
from tinyvae.rules import TABLE
from tinyvae.training import OBJECTIVE, Training

NET, BATCHES = Net(784, 500, 20, 100), (100, 1000, 8192, 65_536)
COPIED = 16 * 2**20  # numbers whose copy measures the card's bandwidth
SIDE = 4096  # of the matrices whose product measures its arithmetic
FIRST = 20  # steps whose losses are compared
LOSS = 1e-5  # how far they may be apart, in float32, relatively
ROUNDS, LEAST = 15, 0.02  # rounds, and the least seconds of one


class Peaks(NamedTuple):
    """What the card can do at best, measured by the array library alone; higher is better."""

    copy_gigabytes_per_second: float
    product_teraflops: float


def by_events(call: Callable[[], Any], rounds: int = ROUNDS) -> timing.Timing:
    """Seconds a call, by the device's clock."""
    cuda = require_cuda().cuda

    def seconds(calls: int) -> float:
        start, stop = cuda.Event(), cuda.Event()
        start.record()
        for _ in range(calls):
            call()
        stop.record()
        stop.synchronize()
        return cuda.get_elapsed_time(start, stop) / 1000

    seconds(2)
    calls = max(1, round(LEAST / max(seconds(5) / 5, 1e-7)))
    return timing.Timing("", tuple(seconds(calls) / calls for _ in range(rounds)), calls)


def peaks() -> Peaks:
    """Copying one array to another; a product of large matrices in float32, without TF32."""
    xp = namespace("cuda")
    a, b = xp.zeros(COPIED, np.float32), xp.zeros(COPIED, np.float32)
    copying = by_events(lambda: xp.copyto(b, a))
    m, n, out = (xp.zeros((SIDE, SIDE), np.float32) for _ in range(3))
    product = by_events(lambda: xp.matmul(m, n, out=out))
    return Peaks(8 * COPIED / copying.median / 1e9, 2 * SIDE**3 / product.median / 1e12)


# ---- kernel by kernel ------------------------------------------------------------------------------------------------


def kernel_row(case: Case, peak: Peaks, rounds: int) -> dict[str, Any]:
    """Check a kernel on the card against the twin in float64, then time it here and there."""
    dtype = np.dtype(np.float32)
    tape, _, found = record(case, KERNEL, dtype, namespace("cuda"))
    pairs = zip(map(to_host, found), exact(case), strict=True)
    worst = max(float(units(ours, twin).max(initial=0)) for ours, twin in pairs)
    if not worst <= BOUNDS[case.operation]:  # NaN fails
        raise SystemExit(f"{case}: {worst:.3g} rounding units from the twin in float64, allowed "
                         f"{BOUNDS[case.operation]}; nothing was timed")
    there, launch = by_events(tape.replay, rounds), tape.program()[0]
    here = record(case, KERNEL, dtype).tape.replay
    cpu = timing.measure({"cpu": here}, rounds, least=LEAST)["cpu"]
    rate = listing.traffic(launch) / there.median / 1e9
    return {"case": str(case), "error_max_units": worst, "gpu_microseconds": there.median * 1e6,
            "cpu_microseconds": cpu.median * 1e6, "gigabytes_per_second": rate,
            "share_of_copy": rate / peak.copy_gigabytes_per_second, "rounds": rounds}


# ---- the whole step --------------------------------------------------------------------------------------------------


def losses(ready: Training, net: Net) -> np.ndarray:
    """The sum of the objective after each of the first steps, the epoch begun anew where it ends."""
    found, step = [], nets.repeatable(ready, net, ready.step)
    for _ in range(FIRST):
        step()
        found.append(to_host(ready.totals)[OBJECTIVE])
    return np.array(found)


def step_row(net: Net, rounds: int) -> dict[str, Any]:
    """The losses of both devices compared, then a replayed step timed on each."""
    here, there = nets.training(net), nets.training(net, "cuda")
    difference = float(np.abs(losses(there, net) / losses(here, net) - 1).max())
    if not difference <= LOSS:
        raise SystemExit(f"{net}: the first {FIRST} losses differ by {difference:.2g} between CPU and GPU, allowed "
                         f"{LOSS:g}; nothing was timed")
    cuda, medians, tapes = require_cuda().cuda, {}, {}
    for name, ready in (("cpu", here), ("gpu", there)):
        tapes[name], _ = ready._programs[net.batch]
        wait = cuda.Device().synchronize if name == "gpu" else (lambda: None)
        medians[name] = timing.measure({name: tapes[name].replay}, rounds, least=LEAST, synchronize=wait)[name].median
    launches = len(tapes["gpu"].program())
    flops = sum(map(listing.flops, tapes["gpu"].launches))
    return {**net.as_dict(), "gpu_microseconds": medians["gpu"] * 1e6, "cpu_microseconds": medians["cpu"] * 1e6,
            "gpu_teraflops": flops / medians["gpu"] / 1e12, "launches": launches, "loss_difference": difference,
            "rounds": rounds}


def show(title: str, rows: list[dict[str, Any]], *notes: str) -> None:
    table = Table(title=title, box=None, title_justify="left", padding=(0, 2, 0, 0))
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:,.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=180, highlight=False).print(table)
    print(*notes, sep="\n")


def run(quick: bool, out: Path) -> None:
    """Print both tables; write gpu.json."""
    device, rounds = card(), 3 if quick else ROUNDS
    say(f"{device['name']}, CuPy {device['cupy']}: measuring its peaks")
    peak = peaks()
    kernels = []
    for case in cases():
        if TABLE[case.operation].kernel(namespace("cuda")) is not None and not case.products:
            kernels.append(kernel_row(case, peak, rounds))
            say(f"{case}: {kernels[-1]['gpu_microseconds']:.1f} us there, {kernels[-1]['cpu_microseconds']:.1f} here")
    show("kernels, 784-500-20, batch 100, float32", kernels,
         "of microseconds lower is better, of share of copy higher: of the bandwidth of a copy of 16 M numbers")
    steps = []
    for batch in BATCHES[:1] if quick else BATCHES:
        steps.append(step_row(replace(NET, batch=batch), rounds))
        say(f"batch {batch:,}: {steps[-1]['gpu_microseconds']:,.0f} us a step there, "
            f"{steps[-1]['cpu_microseconds']:,.0f} here")
    show("a training step, replayed, float32 without TF32", steps, "of microseconds lower is better",
         f"medians of {statistics.median(row['rounds'] for row in steps):.0f} rounds")
    path = results.write("gpu", out, steps, kernels=kernels, peaks=peak._asdict(), card=device, quick=quick)
    print(f"written: {path}")
