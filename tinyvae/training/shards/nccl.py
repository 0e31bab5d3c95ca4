"""The exchange between GPUs by NCCL, NVIDIA's library: the numbers go from GPU to GPU, and not through the host.

NCCL moves bytes here and never adds, so `Ranks.add` (ranks.py) adds in the same tree as with MPI, on the GPU:

    a group of sends and receives  ->  tree  ->  allGather

All of it runs on CuPy's current stream: after the launches that make the vector, before those that read it. The calls
return without waiting; the host waits afterwards, when step.py fetches the few sums that MPI moves. A step makes them
between its recorded programs, so no CUDA graph contains them.
"""

from __future__ import annotations

import atexit
import importlib
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyvae.engine.devices import Array, DeviceError, Namespace
from tinyvae.training.shards.ranks import Ranks

EXCHANGES = ("mpi", "nccl")


def check_exchange(name: str, xp: Namespace) -> None:
    """Raise ValueError if there is no exchange of this name, or none for the arrays of `xp`."""
    if name not in EXCHANGES:
        raise ValueError(f"found exchange={name}; expected {' or '.join(EXCHANGES)}")
    if name == "nccl":
        if xp.device != "cuda":
            raise ValueError("found exchange=nccl on the cpu; NCCL expects GPUs: take device=cuda, or leave exchange "
                             "out")
        require_nccl()


def mover(name: str, team: Ranks) -> Nccl | None:
    """What moves the numbers of `Ranks.add` in an exchange of this name: the one `Nccl` of this process, or None
    if MPI moves them or there is only one process."""
    if name == "mpi" or team.size == 1:
        return None
    team.nccl = team.nccl or Nccl(team)
    return team.nccl


def require_nccl() -> Any:
    """CuPy's module of NCCL, or DeviceError with one sentence: what is missing, and what to do."""
    reason = "NCCL's library was not found"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below replaces CuPy's warning
            library = importlib.import_module("cupy.cuda.nccl")
    except ImportError as fault:
        library, reason = None, str(fault)
    if not getattr(library, "available", False):
        cuda = 12 if importlib.import_module("cupy").cuda.runtime.driverGetVersion() < 13000 else 13
        raise DeviceError(f"found exchange=nccl and CuPy without NCCL ({reason}): pip install nvidia-nccl-cu{cuda}, or "
                          "leave exchange out")
    return library


class Nccl:
    """The GPU of this process among those of all ranks, by two of the methods that mpi4py's communicator has.

    All ranks call the same methods in the same order. The first call connects them, since only then all ranks are
    there: rank 0 checks a training before the others know of it. Each method raises DeviceError with one sentence if
    several ranks share a GPU, or if NCCL fails.
    """

    def __init__(self, team: Ranks) -> None:
        self.team, self.library = team, require_nccl()
        self.cuda = importlib.import_module("cupy").cuda
        self.types = {np.dtype(np.float32): self.library.NCCL_FLOAT32, np.dtype(np.float64): self.library.NCCL_FLOAT64}
        self.comm: Any = None  # NCCL's communicator

    def Alltoall(self, sent: Array, received: Array) -> None:
        """Row r of `sent` goes to rank r, and row r of `received` comes from it; both are (ranks, numbers).

        Outside of a group a rank that sends waits until the other receives; if both sent first, both would wait for
        ever. Inside a group NCCL runs all of them at once.
        """
        with self._sentences():
            comm, kind, stream = self._connected(), self.types[sent.dtype], self.cuda.get_current_stream().ptr
            self.library.groupStart()
            for peer in range(self.team.size):
                comm.send(sent[peer].data.ptr, sent[peer].size, kind, peer, stream)
                comm.recv(received[peer].data.ptr, received[peer].size, kind, peer, stream)
            self.library.groupEnd()

    def Allgather(self, part: Array, whole: Array) -> None:
        """The `part` (numbers,) of rank r becomes row r of `whole`, (ranks, numbers), on every rank."""
        with self._sentences():
            comm, stream = self._connected(), self.cuda.get_current_stream().ptr
            comm.allGather(part.data.ptr, whole.data.ptr, part.size, self.types[part.dtype], stream)

    def _connected(self) -> Any:
        if self.comm is None:
            gpus = self.team.comm.allgather((platform.node(), self.cuda.Device().pci_bus_id))
            for rank, gpu in enumerate(gpus):
                if (first := gpus.index(gpu)) < rank:
                    raise DeviceError(f"found exchange=nccl, and ranks {first} and {rank} on the same GPU ({gpu[1]} of "
                                      f"{gpu[0]}); NCCL expects a GPU for each: start as many processes on a machine "
                                      "as it has GPUs, or leave exchange out")
            name = self.team.from_first(self.library.get_unique_id() if self.team.rank == 0 else None)
            self.comm = self.library.NcclCommunicator(self.team.size, name, self.team.rank)
            # every rank must destroy its communicator before CUDA shuts down
            atexit.register(self.comm.destroy)
        return self.comm

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Within this block an error of NCCL's becomes a sentence."""
        try:
            yield
        except self.library.NcclError as fault:
            raise DeviceError(f"NCCL failed on rank {self.team.rank} ({fault}): what was saved last is intact; go on "
                              "with tinyvae train --resume RUN, without --exchange nccl if it fails "
                              "again") from None
