"""Ranks as threads of one process, with stand-ins for MPI's and NCCL's exchanges that are stricter than the real ones.

`run(size, work)` calls `work(team)` on each rank. One thread runs at a time, until it waits for the others. Where the
real ranks would wait for ever, DeadlockError ends all. `install(monkeypatch, cupy)` puts the module `cupy.cuda.nccl` in
its place, with the names and parameters of CuPy 14.2: its communicators take addresses of device arrays that have just
the numbers they move, on the current stream of CuPy.
"""

import contextlib
import sys
import threading
import types

import numpy as np
from cuda_on_cpu import fake_cupy

from tinyvae.training.shards.ranks import Ranks

HERE = threading.local()  # the meeting and the rank of a thread, and the calls of its group


class DeadlockError(RuntimeError):
    """The real ranks would wait for each other for ever."""


class EndedError(RuntimeError):
    """Another rank has ended this one."""


class NcclError(RuntimeError):
    """NCCL refuses this."""


class Meeting:
    """Where ranks wait for each other: each gives what it brings, and gets what all have brought, by rank."""

    def __init__(self, size):
        self.size, self.lock = size, threading.Condition()
        self.brought, self.met = {}, []
        self.calls = []  # the names of the calls for which all have met
        self.ended = False  # whether a rank has ended, well or not

    def meet(self, rank, call, value):
        number = len(self.met)
        self.brought[rank] = call, value
        names = {name for name, _ in self.brought.values()}
        if len(names) > 1 or self.ended:
            raise DeadlockError(f"rank {rank} calls {call}, and others call {names - {call} or 'nothing any more'}")
        if len(self.brought) == self.size:
            self.met.append([self.brought[rank][1] for rank in range(self.size)])
            self.calls.append(call)
            self.brought = {}
            self.lock.notify_all()
        while len(self.met) == number:
            self.lock.wait()  # in which another thread runs
            if self.ended and len(self.met) == number:
                raise EndedError
        return self.met[number]


class Mpi:
    """mpi4py's communicator, as far as `Ranks` uses it."""

    def __init__(self, meeting, rank):
        self.meeting, self.rank = meeting, rank

    def Alltoall(self, sent, received):
        assert isinstance(sent, np.ndarray)
        for row, theirs in zip(received, self.meeting.meet(self.rank, "MPI Alltoall", sent.copy()), strict=True):
            row[...] = theirs[self.rank]

    def Allgather(self, part, whole):
        assert isinstance(part, np.ndarray)
        whole[...] = self.meeting.meet(self.rank, "MPI Allgather", part.copy())

    def allgather(self, value):
        return self.meeting.meet(self.rank, "MPI allgather", value)

    def bcast(self, value, root):
        return self.meeting.meet(self.rank, "MPI bcast", value)[root]


def run(size, work, calls=None):
    """What `work(team)` returns on each rank; the first error of a rank ends all and is raised. The names of the calls
    for which all ranks have met are put into the list `calls`."""
    meeting, found, faults = Meeting(size), [None] * size, []

    def one(rank):
        HERE.meeting, HERE.rank, HERE.group = meeting, rank, None
        with meeting.lock:
            try:
                found[rank] = work(Ranks(rank, size, Mpi(meeting, rank)))
                if meeting.brought:
                    raise DeadlockError(f"rank {rank} has ended, and others wait for it")
            except EndedError:
                pass
            except Exception as fault:
                faults.append(fault)
            meeting.ended = True
            meeting.lock.notify_all()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if calls is not None:
        calls += meeting.calls
    if faults:
        raise faults[0]
    return found


# ---- the module cupy.cuda.nccl ---------------------------------------------------------------------------------------

TYPES = {7: np.dtype(np.float32), 8: np.dtype(np.float64)}  # NCCL_FLOAT32, NCCL_FLOAT64


def array_at(address, count, kind):
    """The device array at an address, if it has so many numbers of that kind."""
    found = fake_cupy.Pointer.given.get(address)
    if found is None:
        raise NcclError(f"there is no device array at {address}")
    if found.size != count or found.dtype != TYPES[kind] or not found.flags.c_contiguous:
        raise NcclError(f"{count} numbers of {TYPES[kind]} are not an array {found.shape} of {found.dtype}")
    return found


def check_stream(stream):
    if fake_cupy.Stream.capturing or stream != fake_cupy.Stream.current.ptr:
        raise NcclError("another stream than the current one, or a stream that captures")


class NcclCommunicator:
    """The rank of this thread among all; `alive` has those that were not destroyed."""

    alive = None

    def __init__(self, ndev, commId, rank):
        theirs = HERE.meeting.meet(HERE.rank, "NCCL init", (ndev, commId, rank))
        if [(HERE.meeting.size, theirs[0][1], number) for number in range(ndev)] != theirs:
            raise NcclError(f"ranks that do not belong together: {theirs}")
        self.alive.append(self)

    def destroy(self):
        self.alive.remove(self)

    def send(self, sendbuf, count, datatype, peer, stream):
        self._grouped("send", sendbuf, count, datatype, peer, stream)

    def recv(self, recvbuf, count, datatype, peer, stream):
        self._grouped("recv", recvbuf, count, datatype, peer, stream)

    def _grouped(self, call, address, count, datatype, peer, stream):
        check_stream(stream)
        if self not in self.alive:
            raise NcclError("a communicator that was destroyed")
        if HERE.group is None:
            raise DeadlockError(f"{call} outside of a group waits for the other rank, which sends, too")
        HERE.group.append((call, peer, array_at(address, count, datatype)))

    def allGather(self, sendbuf, recvbuf, count, datatype, stream):
        check_stream(stream)
        if self not in self.alive or HERE.group is not None:
            raise NcclError("allGather of a communicator that was destroyed, or in a group")
        part, size = array_at(sendbuf, count, datatype), HERE.meeting.size
        whole = array_at(recvbuf, size * count, datatype)
        parts = HERE.meeting.meet(HERE.rank, "NCCL allGather", part.copy())
        if np.shares_memory(part, whole) or len({other.nbytes for other in parts}) > 1:
            raise NcclError("parts of different sizes, or in the memory of the whole")
        whole[...] = np.concatenate(parts).reshape(whole.shape)


def get_unique_id():
    return bytes(range(128))


def groupStart():
    HERE.group = []


def groupEnd():
    """Each receive takes what its rank sends to this one; their numbers and types agree."""
    calls, HERE.group = HERE.group, None
    sent = [(peer, array.copy()) for call, peer, array in calls if call == "send"]
    theirs = HERE.meeting.meet(HERE.rank, "NCCL group", sent)
    received = [(peer, array) for call, peer, array in calls if call == "recv"]
    if any(np.shares_memory(array, other) for call, _, array in calls if call == "send" for _, other in received):
        raise NcclError("a group that receives into the memory from which it sends")
    waiting = [[array for peer, array in rank if peer == HERE.rank] for rank in theirs]
    for peer, array in received:
        if not waiting[peer]:
            raise DeadlockError(f"rank {HERE.rank} waits for what rank {peer} does not send")
        found = waiting[peer].pop(0)
        if (found.size, found.dtype) != (array.size, array.dtype):
            raise NcclError(f"{found.size} numbers were sent, and {array.size} are received")
        array[...] = found
    if any(waiting):
        raise DeadlockError(f"rank {HERE.rank} does not receive all that was sent to it")


def install(monkeypatch, cupy, gpus=range(99)):
    """Into the stand-in for CuPy until the test ends; rank r has the GPU of the number gpus[r]."""
    nccl = types.ModuleType("cupy.cuda.nccl")
    nccl.available, nccl.NCCL_FLOAT32, nccl.NCCL_FLOAT64 = True, 7, 8
    for thing in (NcclError, NcclCommunicator, get_unique_id, groupStart, groupEnd):
        setattr(nccl, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, nccl.__name__, nccl)
    monkeypatch.setattr(fake_cupy.Pointer, "given", {})
    monkeypatch.setattr(NcclCommunicator, "alive", [])
    device = cupy.cuda.Device

    def of_the_rank(*number):
        found = types.SimpleNamespace(**vars(device(*number)))
        with contextlib.suppress(AttributeError):  # of a thread that is no rank
            found.pci_bus_id = f"0000:{gpus[HERE.rank]:02X}:00.0"
        return found

    monkeypatch.setattr(cupy.cuda, "Device", of_the_rank)
    return nccl
