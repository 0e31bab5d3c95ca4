"""Threads that run a program, which is a table of kernels with their arguments (jobs.py), in one native call.

The calling thread is the leader: it runs the jobs one after the other, without Python. A large job is cut into more
parts than there are threads. The leader writes the job on a board in memory that all threads read; each thread takes
parts from it until all are done. A helper that the operating system has stopped therefore delays at most the part that
it has begun, and no thread waits for one that sleeps. docs/speed.md says what this is worth.
"""

from __future__ import annotations

import atexit
import os
import platform
import sys
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types

from tinyvae_kernels.cpu.runtime.cache import keep
from tinyvae_kernels.cpu.runtime.compiled import address
from tinyvae_kernels.cpu.runtime.helpers import HELPER, helper, intrinsic
from tinyvae_kernels.cpu.runtime.memory import at_int64
from tinyvae_kernels.cpu.runtime.shares import share

MOST = 16  # beyond so many threads a network of this kind has nothing left to share out
GRAIN = 8192  # simple operations on an element that make a part: they take 2 us, and announcing a job takes 0.3 us
LEAST = 8  # parts: a smaller job stays with the leader, because its data are in that core's cache
PIECES = 4  # parts for each thread: with more of them a late helper costs less, with fewer the caches serve better

# ---- memory that several threads read and write ----------------------------------------------------------------------


@intrinsic
def _read(typing: Any, pointer: Any, i: Any) -> Any:
    """pointer[i], with everything that other threads wrote before it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.gep(arguments[0], [arguments[1]]), "seq_cst", 8)

    return types.int64(pointer, types.int64), generate


@intrinsic
def _write(typing: Any, pointer: Any, i: Any, value: Any) -> Any:
    """pointer[i] = value, after everything written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[2], builder.gep(arguments[0], [arguments[1]]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, types.int64), generate


@intrinsic
def _take(typing: Any, pointer: Any, i: Any) -> Any:
    """pointer[i], which grows by one in the same instant: no two threads get the same number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(pointer, types.int64), generate


@intrinsic
def _pause(typing: Any) -> Any:
    """Tell the processor that this thread only waits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            name = "llvm.x86.sse2.pause"
            found = builder.module.globals.get(name)
            builder.call(found or ir.Function(builder.module, ir.FunctionType(ir.VoidType(), []), name), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _invoke(typing: Any, address: Any, p: Any, n: Any, s: Any, part: Any, parts: Any) -> Any:
    """Call the kernel at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole, pointer = ir.IntType(64), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer, pointer, whole, whole])
        given = [builder.inttoptr(argument, pointer) for argument in arguments[1:4]] + list(arguments[4:])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


# A thread that waits lets other processes run. Windows has no sched_yield: a thread only pauses between its looks
# there, until it sleeps.
_POSIX = sys.platform != "win32"
_sched_yield: Any = types.ExternalFunction("sched_yield", types.int32()) if _POSIX else None

# The places of `board`, an int64 vector: the running number of the job, its row in the program, the number of its
# parts, how many of them are done, whether the threads shall end, and from QUEUES on a queue for each thread: the parts
# that are meant for it. A queue is one number, so that it is read and changed as a whole: 2**32 times the end of its
# parts, plus the next of them. Each place has a cache line of its own.
LINE = 16
JOB, ROW, PARTS, DONE, STOP, QUEUES = range(0, 6 * LINE, LINE)
NEXT = (1 << 32) - 1
# A waiting thread looks at the board again and again. After SOON looks (7 us) it takes the last part of another queue,
# after EAGER looks (10 us) it lets other processes run between two looks, after PATIENT more (3 ms) it sleeps.
SOON, EAGER, PATIENT = 200, 300, 4000
WIDTH = 5  # of a program's rows: address of the kernel, p, n, s, parts


@helper
def _rest(looks: Any) -> Any:
    """Wait a little between two looks at the board; gives the number of looks."""
    _pause()
    if looks > EAGER and _POSIX:
        _sched_yield()
    return looks + 1


@helper
def _help(board: Any, thread: Any, threads: Any, least: Any) -> None:
    # Run the parts of the job on the board: first those of this thread's queue, whose data are likely to be in its
    # cache, then those of other queues that hold at least `least`. The last part of a queue stays with its own thread,
    # unless that thread is late.
    for i in range(threads):
        queue = QUEUES + LINE * ((thread + i) % threads)
        while True:
            waiting = _read(board, queue)
            if (waiting >> 32) - (waiting & NEXT) < (1 if i == 0 else least):
                break
            taken = _take(board, queue)
            part = taken & NEXT
            if part >= taken >> 32:
                break
            # The board still shows this job: the leader goes on only when all parts are done.
            row = at_int64(_read(board, ROW))
            _invoke(row[0], row[1], row[2], row[3], part, _read(board, PARTS))
            _take(board, DONE)


def _lead(address: int, table: int, length: int, threads: int) -> None:
    # run all jobs of a program; threads = 1 stands for the leader alone
    board, rows = at_int64(address), at_int64(table)
    for i in range(length):
        row = WIDTH * i
        parts = rows[row + 4]
        if threads == 1 or parts == 1:
            _invoke(rows[row], rows[row + 1], rows[row + 2], rows[row + 3], 0, 1)
            continue
        _write(board, DONE, 0)
        _write(board, ROW, table + 8 * row)
        _write(board, PARTS, parts)
        for thread in range(threads):
            first, last = share(parts, thread, threads)
            _write(board, QUEUES + LINE * thread, (last << 32) | first)
        _write(board, JOB, _read(board, JOB) + 1)
        _help(board, 0, threads, 2)
        looks = 0
        while _read(board, DONE) < parts:
            looks = _rest(looks)
            if looks == SOON:
                _help(board, 0, threads, 1)


def _serve(address: int, thread: int, threads: int) -> bool:
    # Help until no job has come for a while. The result says whether this thread shall go on when it is woken.
    board = at_int64(address)
    looks, seen = 0, 0
    while looks < EAGER + PATIENT:
        job = _read(board, JOB)
        if job != seen:
            _help(board, thread, threads, 2)
            looks, seen = 0, job
        else:
            looks = _rest(looks)
            if _read(board, STOP):
                return False
    return True


def _native(function: Callable, signature: str) -> Callable:
    options = HELPER | {"no_cpython_wrapper": False, "nogil": True}
    return keep(lambda **cache: njit(signature, **options, **cache)(function), function)


class Team:
    """The helpers, and the board by which a leader, the thread that runs a program, gives them work."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.most = 1 if count == 1 else PIECES * count  # parts of a job
        self._native_lead = _native(_lead, "void(int64,int64,int64,int64)")
        self._native_serve = _native(_serve, "boolean(int64,int64,int64)")
        self._assemble()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._assemble)  # a fork has one thread only
        atexit.register(self.stop)

    def _assemble(self) -> None:
        self._helpers: list[threading.Thread] = []
        self._wake = [threading.Event() for _ in range(self.count)]
        self._sleeping: set[int] = set()
        self._busy = threading.Lock()
        self._store = np.zeros(QUEUES + LINE * (self.count + 1), np.int64)
        self._address = -(-address(self._store) // 128) * 128
        self._board = self._store[(self._address - address(self._store)) // 8 :]

    def parts(self, work: float) -> int:
        """Into how many parts to cut `work`, counted in simple operations on an element."""
        pieces = min(self.most, int(work / GRAIN))
        return pieces if pieces >= LEAST else 1

    def run(self, table: int, length: int, shared: bool) -> None:
        """Run the program at an address; `shared`: some job has parts. While another thread leads, this is alone."""
        if not shared or not self._busy.acquire(blocking=False):
            self._native_lead(self._address, table, length, 1)
            return
        try:
            if self._sleeping or not self._helpers:
                self._rouse()
            self._native_lead(self._address, table, length, self.count)
        finally:
            self._busy.release()

    def _rouse(self) -> None:
        for thread in range(len(self._helpers) + 1, self.count):
            self._helpers.append(threading.Thread(target=self._work, args=(thread,), name=f"tinyvae-{thread}",
                                                  daemon=True))
            self._helpers[-1].start()
        for event in self._wake:
            event.set()

    def _work(self, thread: int) -> None:
        wake = self._wake[thread]
        while self._native_serve(self._address, thread, self.count):
            wake.clear()
            self._sleeping.add(thread)
            wake.wait()  # (a signal given before the line above is lost, but the next program gives another one)
            self._sleeping.discard(thread)

    def stop(self) -> None:
        """End the helpers before the interpreter ends, because their machine code goes with it."""
        self._busy.acquire(timeout=1)  # never released: after this each program runs on its leader alone
        self._board[STOP] = 1
        for event in self._wake:
            event.set()
        for thread in self._helpers:
            thread.join(timeout=1)


def threads() -> int:
    """How many threads a program may use: the processors of this process, or NUMBA_NUM_THREADS if that is set."""
    from numba import config

    return max(1, min(int(config.NUMBA_NUM_THREADS), MOST))  # type: ignore[attr-defined]


team = Team(threads())
