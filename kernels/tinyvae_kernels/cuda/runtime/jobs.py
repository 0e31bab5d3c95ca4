"""Kernels with their grids and arguments, and lists of them as one CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tinyvae_kernels import launching
from tinyvae_kernels.cuda.runtime import driver

Array = Any
THREADS = 256  # of a block
BLOCKS = 2048  # at most, for loops that all threads share: a few blocks for each multiprocessor of any card


class Job(NamedTuple):
    """A kernel with its grid and its arguments: arrays, and NumPy numbers of the very types that it takes."""

    file: str
    kernel: str
    dtype: Any
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]

    def bind(self) -> Callable[[], Any]:
        function = driver.function(self.file, self.kernel, self.dtype)
        return functools.partial(function, self.grid, self.block, self.arguments)


class Product(NamedTuple):
    """A matrix product into `out`."""

    a: Array
    b: Array
    out: Array
    tf32: bool

    def bind(self) -> Callable[[], Any]:
        return driver.current.blas.product(*self)


def in_order(jobs: Sequence[Job | Product]) -> Callable[[], Any]:
    """The launches of jobs on the current stream, one after the other, as one call."""
    calls = [job.bind() for job in jobs]

    def run() -> None:
        for call in calls:
            call()

    return run


# How a new program launches its jobs; benchmarks/rungs/streams.py has another way.
arrange: Callable[[Sequence[Job | Product]], Callable[[], Any]] = in_order


class Program:
    """Jobs in order, as one call. Several become a CUDA graph at their second run; the first loads what they need."""

    def __init__(self, jobs: Sequence[Job | Product]) -> None:
        self.jobs = tuple(jobs)
        self._launches = self._run = arrange(self.jobs)
        self._runs = 0

    @classmethod
    def join(cls, programs: Sequence[Program]) -> Program:
        """Programs one after the other as one."""
        return cls(together([job for program in programs for job in program.jobs]))

    @property
    def captured(self) -> bool:
        """Is it a CUDA graph by now? One launch alone, and what could not be captured, is none."""
        return self._run is not self._launches

    def __call__(self) -> None:
        self._runs += 1
        if self._runs == 2 and len(self.jobs) > 1:
            self._run = driver.current.graph(self._launches)
        self._run()


Plan = tuple[Any, list[Any]]  # a result, and the jobs that make it


class Launcher(launching.Launcher):
    """See launching.py."""

    device, program = "cuda", Program


def blocks(wanted: int, beside: int = 1) -> int:
    """As many blocks as are wanted, but with `beside` of them in each row at most BLOCKS in all."""
    return min(wanted, max(1, BLOCKS // max(1, beside)))


def spread(file: str, kernel: str, dtype: Any, count: int, *arguments: Any) -> list[Job]:
    """A loop over `count` things, shared by all threads of the grid; no job where there is nothing to do."""
    grid = (blocks(-(-count // THREADS)),)
    return [Job(file, kernel, dtype, grid, (THREADS,), arguments)] if count else []


def alone(file: str, kernel: str, dtype: Any, *arguments: Any) -> list[Job]:
    """A job for one block."""
    return [Job(file, kernel, dtype, (1,), (THREADS,), arguments)]


# ---- neighbours ------------------------------------------------------------------------------------------------------
# A launch costs a small step about as much as its kernel does. Where one kernel does the work of two neighbours, with
# the same arithmetic, they become one job. A file of launchers says so: `@neighbours("first kernel", "second kernel")`.

Merge = Callable[[Job, Job], Job | None]
MERGES: dict[tuple[str, str], Merge] = {}


def neighbours(first: str, second: str) -> Callable[[Merge], Merge]:
    """Register the function that makes one job of two, or gives None where they do not belong together."""

    def register(merge: Merge) -> Merge:
        MERGES[first, second] = merge
        return merge

    return register


def merged(first: Job | Product, second: Job | Product) -> Job | None:
    """One job that does the work of two neighbours; None if `MERGES` has none."""
    if not (isinstance(first, Job) and isinstance(second, Job)):
        return None
    merge = MERGES.get((first.kernel, second.kernel))
    return merge(first, second) if merge else None


def together(jobs: Sequence[Job | Product]) -> list[Job | Product]:
    """The same work in fewer jobs. A job made of two may go together with the one before it, too."""
    done: list[Job | Product] = []
    for job in jobs:
        while done and (one := merged(done[-1], job)):
            job = one
            done.pop()
        done.append(job)
    return done
