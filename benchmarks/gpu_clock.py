"""Timing on the GPU by its own clock, and the peaks of the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from tinyvae_kernels.cuda.runtime.jobs import Program

from tinyvae.engine.devices import namespace, require_cuda
from tinyvae.engine.program import bound
from tinyvae.engine.tape import Launch
from tinyvae.measure import timing

COPIED = 2**26  # the number of float32 numbers whose copy measures the bandwidth: more than any cache holds
SIDE = 4096  # the side of the matrices whose product measures the arithmetic rate
ROUNDS, LEAST = 15, 0.02  # the number of rounds, and the least seconds of a round
AGAIN = 20  # the number of repetitions in one graph, so many that the pause between two graphs does not matter


class Peaks(NamedTuple):
    """The peaks of the card, measured with CuPy alone; higher is better."""

    copy_gigabytes_per_second: float
    float32_teraflops: float
    tf32_teraflops: float

    def __str__(self) -> str:
        return (f"copies {self.copy_gigabytes_per_second:,.0f} GB/s, multiplies {self.float32_teraflops:.3g} TFLOP/s "
                f"in float32 and {self.tf32_teraflops:.3g} in TF32")


def peaks() -> Peaks:
    """Measure the copy of an array, and the product of large matrices without and with TF32.

    The numbers are random, because a card needs less power for zeros and then multiplies them at a higher clock.
    """
    xp, draw = namespace("cuda"), np.random.default_rng(0)
    a, m, n = (xp.asarray(draw.standard_normal(shape, np.float32)) for shape in (COPIED, (SIDE, SIDE), (SIDE, SIDE)))
    b, out = xp.empty(COPIED, np.float32), xp.empty((SIDE, SIDE), np.float32)
    copying, rates = by_events(lambda: xp.copyto(b, a)), []
    for tf32 in (False, True):
        with array_library(tf32):
            rates.append(2 * SIDE**3 / by_events(lambda: xp.matmul(m, n, out=out)).median / 1e12)
    return Peaks(2 * a.nbytes / copying.median / 1e9, *rates)


@contextmanager
def array_library(tf32: bool) -> Iterator[None]:
    """Within this block CuPy's products use TF32 or not; the variable CUPY_TF32 decides it only once in a process."""
    core, wanted = require_cuda()._core, 7 if tf32 else 1  # COMPUTE_TYPE_TF32, COMPUTE_TYPE_DEFAULT
    before = core.get_compute_type(np.float32)
    core.set_compute_type(np.float32, wanted)
    try:
        yield
    finally:
        core.set_compute_type(np.float32, before)


def by_events(call: Callable[[], Any], rounds: int = ROUNDS) -> timing.Timing:
    """The seconds of a call by the clock of the device."""
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


def program(launches: Sequence[Launch], again: int = 1) -> Program:
    """The jobs of launches, repeated `again` times, as one program, which its second run captures as a CUDA graph."""
    programs = [bound(launch) for launch in launches]
    if missing := [str(launch) for launch, p in zip(launches, programs, strict=True) if not isinstance(p, Program)]:
        raise SystemExit(f"{missing[0]}: its kernel did not run (the array library did); nothing was timed")
    return Program([job for _ in range(again) for p in programs for job in p.jobs])


def form(calls: Sequence[Any]) -> str:
    """How the calls of a tape or a program reach the card: "1 graph", "30 launches", "2 graphs, 5 launches".

    A launch that is not part of a graph costs the host some microseconds each time, so a time needs this label.
    """
    programs = [call for call in calls if isinstance(call, Program)]
    graphs = sum(call.captured for call in programs)
    alone = len(calls) - len(programs) + sum(len(call.jobs) for call in programs if not call.captured)
    counts = (graphs, "graph"), (alone, "launch")
    return ", ".join(f"{n} {what}{'' if n == 1 else 'es' if what == 'launch' else 's'}" for n, what in counts if n)


def of_launches(launches: Sequence[Launch], rounds: int = ROUNDS) -> tuple[timing.Timing, str]:
    """The seconds of launches on the card, and their form: `AGAIN` times in one graph, if it can be captured."""
    calls = program(launches, AGAIN)
    found = by_events(calls, rounds)
    return timing.Timing("", tuple(s / AGAIN for s in found.seconds), found.calls * AGAIN), form([calls])
