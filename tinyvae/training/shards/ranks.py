"""The processes that share the shards of a training: the ranks of an MPI program, which mpiexec starts.

MPI moves bytes here and never adds: in which order it would add is the library's choice. Rank r of R sums its M / R
shards. Then each rank gets one part of every rank's sums, adds them in the tree (tree.py), and gives the result to all:

    Alltoall  ->  tree  ->  Allgather

Those are as many bytes as an all-reduce moves, and the bits depend on M alone. For this M / R must be a power of two:
then the shards of a rank are a whole branch of the tree of all shards. Between GPUs NCCL can move the bytes (nccl.py).

A process that ends while the others wait for it would leave them waiting, so every error ends all.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import threadpoolctl

from tinyvae.engine.devices import CPU, Array, namespace_of, take_gpu, to_host
from tinyvae.training.shards.tree import total

# the variables in which launchers say how many processes there are, and which one this is: MPICH's and Intel's, Open
# MPI's
LAUNCHERS = {"PMI_SIZE": "PMI_RANK", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK"}


def launched() -> int:
    """How many processes a launcher of MPI has started together with this one; 1 if none did."""
    # srun of Slurm by PMIx leaves the number to Slurm's own variables
    by_slurm = _number("SLURM_STEP_NUM_TASKS") if "PMIX_RANK" in os.environ else 0
    return max([1, by_slurm, *map(_number, LAUNCHERS)])


def launched_as() -> int:
    """The number of this process among them, as the launcher counts."""
    return max(map(_number, [*LAUNCHERS.values(), "PMIX_RANK"]))


def _number(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdigit() else 0


@dataclass
class Ranks:
    """The processes of a training, of which this one has the number `rank`."""

    rank: int = 0
    size: int = 1
    comm: Any = None  # mpi4py's communicator
    wish: bool = False  # whether this process was asked to stop
    stopping: bool = False  # whether one of them was, as all of them know it after the same step
    led: bool = False  # whether rank 0 has told the others what to train
    nccl: Any = None  # what moves numbers between their GPUs, once a training has asked for it (nccl.py)
    _buffers: dict[Any, tuple[Array, Array, Array]] = field(default_factory=dict)

    def share(self, shards: int) -> range:
        """The numbers of this rank's shards. ValueError if the shards cannot be shared out."""
        each, rest = divmod(shards, self.size)
        if self.size > 1 and (rest or each & (each - 1) or not each):
            possible = [f"{self.size << k}" for k in range(3)]
            raise ValueError(f"found shards={shards} and {self.size} processes of mpiexec; expected a power of two of "
                             f"shards for each of them: take --shards {', '.join(possible)}, ..., or start another "
                             "number of processes")
        return range(self.rank * each, (self.rank + 1) * each)

    def add(self, vector: Array, nccl: Any = None) -> None:
        """Replace the vector of every rank, (n,), by the sum over all ranks, with the same bits on each. MPI moves the
        numbers, through the host, or `nccl` (nccl.py) does, from GPU to GPU."""
        if self.size == 1:
            return
        own = namespace_of(vector)
        xp = own if nccl else CPU
        key = (vector.size, vector.dtype.str, xp.device)
        if key not in self._buffers:
            each = -(-vector.size // self.size)  # the numbers that one rank adds, with zeros at the end
            self._buffers[key] = (xp.zeros((self.size, each), vector.dtype), xp.empty((self.size, each), vector.dtype),
                                  xp.empty(each, vector.dtype))
        sent, received, part = self._buffers[key]
        # a vector that lies there and can be cut into as many parts is sent from where it lies
        direct = own is xp and vector.size == sent.size and vector.flags.c_contiguous
        if direct:
            sent = vector.reshape(sent.shape)
        else:
            sent.reshape(-1)[: vector.size] = vector if own is xp else to_host(vector)
        moved_by = nccl or self.comm
        moved_by.Alltoall(sent, received)
        total([received[rank] for rank in range(self.size)], part)
        moved_by.Allgather(part, sent)
        if not direct:
            vector[...] = own.asarray(sent.reshape(-1)[: vector.size])

    def computes(self, number: int) -> bool:
        """Whether this process computes the batch of this number of an evaluation, in which they take turns."""
        return number % self.size == self.rank

    def in_order(self, columns: dict[str, list[Array]]) -> dict[str, list[Array]]:
        """What was found of the batches that each process computed, of all batches in their order."""
        if self.size == 1:
            return columns
        found = self.comm.allgather(columns)
        turns = max(len(values) for values in found[0].values())
        return {name: [each[name][turn] for turn in range(turns) for each in found if turn < len(each.get(name, ()))]
                for name in found[0]}

    def from_first(self, value: Any) -> Any:
        """What rank 0 gives, on every rank."""
        return value if self.size == 1 else self.comm.bcast(value if self.rank == 0 else None, root=0)

    def differing(self, value: Any) -> int | None:
        """The first rank whose value is not that of rank 0, or None."""
        values = [value] if self.size == 1 else self.comm.allgather(value)
        return next((rank for rank, other in enumerate(values) if other != values[0]), None)

    def end_by(self, kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
        """End all processes by an error that nobody caught, which is printed."""
        print(f"rank {self.rank} of {self.size} ends all processes:", file=sys.stderr)
        traceback.print_exception(kind, fault, trace)
        self.end(1)

    def end(self, code: int) -> None:
        """End all processes, after a moment in which the launcher passes on what this one has said."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0.2)
        self.comm.Abort(code)


ALONE = Ranks()


@functools.cache
def ranks() -> Ranks:
    """The processes that mpiexec started, or this one alone.

    Raises
    ------
    ValueError
        If mpi4py is missing, or belongs to another MPI than the launcher.
    """
    if (expected := launched()) == 1:
        return ALONE
    try:
        from mpi4py import MPI
    except ImportError as fault:
        raise ValueError(f"mpiexec started {expected} processes, and mpi4py, by which they speak with each other, "
                         f"cannot be imported ({fault}): pip install 'tinyvae[mpi]', or start one process") from None
    comm = MPI.COMM_WORLD
    if comm.Get_size() != expected:
        library = MPI.Get_library_version().partition("\n")[0].strip("\0 ")
        raise ValueError(f"the launcher started {expected} processes, and {library} counts {comm.Get_size()}: mpiexec "
                         "belongs to another MPI than mpi4py; start it by the mpiexec of the same MPI")
    found = Ranks(comm.Get_rank(), comm.Get_size(), comm)
    neighbours = comm.Split_type(MPI.COMM_TYPE_SHARED)
    share_processors(neighbours)
    take_gpu(neighbours.Get_rank())
    sys.excepthook = found.end_by
    return found


def share_processors(neighbours: Any) -> None:
    """Give each process of this machine its part of the processors, unless a variable says how many it takes. A
    launcher may have given each its own already."""
    mine = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = mine if isinstance(mine, int) else len(mine)
    each = max(1, count // neighbours.allgather(mine).count(mine))
    if "NUMBA_NUM_THREADS" not in os.environ and importlib.util.find_spec("numba"):
        importlib.import_module("numba").config.NUMBA_NUM_THREADS = each
    if not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(os.environ):
        threadpoolctl.threadpool_limits(each, "blas")


def check_shards(shards: int) -> None:
    """Raise ValueError if a training that cannot be shared out was started as several processes."""
    if shards == 1 and (size := launched()) > 1:
        raise ValueError(f"mpiexec started {size} processes, and shards=1 gives each of them the same work: take "
                         f"--shards {size}, or {2 * size} or {4 * size}, or start one process")
