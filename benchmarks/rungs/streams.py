"""Products that nothing waits for soon, on a second stream.

In the backward pass, a layer's weight gradient is a product that only the guard reads, at the end of the step; the
present form multiplies it between two jobs that could follow each other at once. Here such products are captured on a
stream of their own, with cuBLAS's handle and workspace of their own, and events say what has to wait for what.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from tinyvae_kernels.cuda.runtime import driver, jobs
from tinyvae_kernels.cuda.runtime.cublas import WORKSPACE, Cublas
from tinyvae_kernels.cuda.runtime.jobs import Array, Job, Product

from benchmarks.rungs import Rung
from benchmarks.rungs.small_products import FILE as SMALL_PRODUCTS

Span = tuple[int, int]  # the address of the first byte, and that behind the last


class Access(NamedTuple):
    """The memory that a job reads, and the memory that it writes (and may read)."""

    reads: tuple[Span, ...]
    writes: tuple[Span, ...]


EVERYTHING = Access((), ((0, 2**64),))  # what the work before a program, or behind it, may read and write


def span(array: Array) -> Span:
    """The memory from the first number of an array to its last; of a view with gaps, the gaps, too."""
    begin = array.data.ptr
    if not array.size:
        return begin, begin
    return begin, begin + array.itemsize + sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))


@cache
def constant(file: str, kernel: str) -> tuple[bool | None, ...]:
    """Is each parameter of a kernel a pointer to what it only reads? None for numbers."""
    found = re.search(rf"\b__global__[^;{{}}]*\b{kernel}\s*\(([^()]*)\)\s*{{", driver.source(file))
    if not found:
        raise ValueError(f"found no kernel {kernel!r} in the source of {file!r}")
    return tuple("const" in parameter.split("*")[0] if "*" in parameter else None for parameter in found[1].split(","))


def access(job: Job | Product) -> Access:
    """What a job reads and writes: products by their names, kernels by their signatures."""
    if isinstance(job, Product):
        return Access((span(job.a), span(job.b)), (span(job.out),))
    pairs = list(zip(job.arguments, constant(job.file, job.kernel), strict=True))
    reads, writes = (tuple(span(array) for array, kind in pairs if kind is wanted) for wanted in (True, False))
    return Access(reads, writes)


def multiplies(job: Job | Product) -> bool:
    """Is this job a product alone: cuBLAS's, or one of the rung of small products?"""
    return isinstance(job, Product) or (job.file == SMALL_PRODUCTS and job.kernel.startswith("product_"))


def conflict(one: Access, other: Access) -> bool:
    """Does the order of two jobs matter: does one write what the other reads or writes?"""
    def overlap(first: Sequence[Span], second: Sequence[Span]) -> bool:
        return any(a < d and c < b for a, b in first for c, d in second)

    return overlap(one.writes, other.reads + other.writes) or overlap(one.reads, other.writes)


def apart(memory: Sequence[Access], products: set[int]) -> set[int]:
    """The places of the products for the second stream: those that their successor on the first need not wait for."""
    found, successor = set(), memory[-1]
    for place in reversed(range(len(memory) - 1)):  # backwards, because the successor is the next job that stays
        if place in products and not conflict(memory[place], successor):
            found.add(place)
        else:
            successor = memory[place]
    return found


def waits(memory: Sequence[Access], second: set[int]) -> dict[int, int]:
    """For each place where a stream must wait for a job of the other one, the place of the last such job.

    A stream that has waited for a job has waited for all that came before it on the other stream, so none of these
    waits is superfluous.
    """
    found, known = {}, [-1, -1]  # for each stream the last job of the other one that is over
    for place, ours in enumerate(memory):
        here = place in second
        for other in reversed(range(known[here] + 1, place)):
            if (other in second) != here and conflict(memory[other], ours):
                found[place] = known[here] = other
                break
    return found


def schedule(work: Sequence[Job | Product]) -> tuple[set[int], dict[int, int]]:
    """What goes to the second stream, and who waits for whom, by places: 0 is the beginning of the program, then come
    its jobs, and behind them its end. All that goes before the program, and after it, is on the first stream."""
    memory = [EVERYTHING, *map(access, work), EVERYTHING]
    second = apart(memory, {place for place, job in enumerate(work, 1) if multiplies(job)})
    return second, waits(memory, second)


@cache
def beside(current: Any) -> tuple[Any, Cublas]:
    """The second stream of a driver, and a cuBLAS for it, since two products at once may not share a workspace."""
    cupy = importlib.import_module("cupy")
    blas = Cublas(driver.library(), lambda: cupy.cuda.get_current_stream().ptr, cupy.empty(WORKSPACE, np.uint8))
    return cupy.cuda.Stream(non_blocking=True), blas


def on_two_streams(work: Sequence[Job | Product]) -> Callable[[], Any]:
    """The launches of jobs as one call, on the current stream and the second one."""
    if not any(map(multiplies, work[:-1])):
        return jobs.in_order(work)  # nothing runs beside the last job
    second, after = schedule(work)
    if not second:
        return jobs.in_order(work)
    cuda, (stream, blas) = importlib.import_module("cupy").cuda, beside(driver.current)
    calls = [blas.product(*job) if place in second and isinstance(job, Product) else job.bind()
             for place, job in enumerate(work, 1)]
    events = {place: cuda.Event(disable_timing=True) for place in after.values()}

    def run() -> None:
        first = cuda.get_current_stream()
        for place, call in enumerate([None, *calls, None]):
            here = stream if place in second else first
            with here:
                if place in after:
                    here.wait_event(events[after[place]])
                if call:
                    call()
                if place in events:
                    here.record(events[place])

    return run


@contextmanager
def two_streams() -> Iterator[None]:
    """Within this block, new programs launch on two streams."""
    before, jobs.arrange = jobs.arrange, on_two_streams
    try:
        yield
    finally:
        jobs.arrange = before


RUNG = Rung("products whose results are needed late, such as weight gradients, run on a second stream, beside the "
            "backward pass; the present form has one stream", setting=two_streams)
