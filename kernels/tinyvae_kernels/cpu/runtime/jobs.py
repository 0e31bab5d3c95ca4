"""Kernels with their arguments, and lists of them as one native call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvae_kernels import launching
from tinyvae_kernels.cpu.runtime import team as workers
from tinyvae_kernels.cpu.runtime.compiled import Kernel, address, packed

Array = np.ndarray


def scratch(each: int, dtype: Any, rows: int = 1) -> Array:
    """Memory for a job's parts: `rows` rows of `each` numbers for every part."""
    return np.empty((workers.team.most * rows, each), dtype)


class Job:
    """A kernel with its arguments, in the order of its parameters.

    `work` is the number of simple operations, by which the job is shared out among threads.
    """

    __slots__ = ("keep", "row")

    def __init__(self, kernel: Kernel, *arguments: Any, work: float = 0) -> None:
        dtype, p, n, s = packed(kernel, arguments)
        self.row = (kernel.address(dtype), address(p), address(n), address(s), workers.team.parts(work))
        self.keep = (kernel, arguments, p, n, s)


class Program:
    """Jobs in order, run by one native call."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = tuple(jobs)  # they keep the arrays alive
        self.table = np.array([job.row for job in jobs], np.int64)
        self._arguments = (address(self.table), len(jobs), any(job.row[4] > 1 for job in jobs))

    @classmethod
    def join(cls, programs: Sequence[Program]) -> Program:
        """Programs one after the other as one."""
        return cls([job for program in programs for job in program.jobs])

    def __call__(self) -> None:
        workers.team.run(*self._arguments)


Plan = tuple[Any, list[Job]]  # a result, and the jobs that make it


class Launcher(launching.Launcher):
    """See launching.py; its program is one native call."""

    device, program = "cpu", Program
