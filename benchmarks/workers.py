"""Contestants in separate processes, so that the threads and settings of one library do not disturb another.

Each contestant lives in a worker, which waits without using a processor until it is called; only one is called at a
time. The class of a contestant is made from a `Net`, or a `Case` of models.py (and on a GPU also from `device` and
`tf32`), uses its own random generator, and has these methods:

    about() -> dict                                  versions and threads
    first_batch() -> (x, eps)                        the pixels and the normals of its first step
    loss_and_gradients(x, eps) -> (float, dict)      at the initial weights, in tinyvae's names and shapes
    losses(count) -> list                            trains from the initial weights; the loss of each step
    epoch()                                          trains for an epoch, and waits until it is done
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tinyvae.measure.timing import Timing

SETTINGS = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # JAX would otherwise reserve most of the GPU's memory


def serve(pipe: Any, place: str, net: Any, options: dict[str, Any]) -> None:
    """The main function of a worker: make the contestant, then answer calls until None comes."""
    os.environ.update(SETTINGS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the calling one ends the workers
    try:
        module, name = place.split(":")
        contestant = getattr(importlib.import_module(module), name)(net, **options)
        pipe.send(("done", None))
        while (request := pipe.recv()) is not None:
            method, arguments = request
            answer = timed if method == "timed" else getattr(contestant, method)
            pipe.send(("done", answer(contestant, *arguments) if answer is timed else answer(*arguments)))
    except EOFError:
        pass  # the calling process has ended
    except Exception as fault:
        pipe.send(("failed", f"{type(fault).__name__}: {fault}"))


def timed(contestant: Any, method: str, calls: int) -> float:
    """The seconds of `calls` calls of a method."""
    run = getattr(contestant, method)
    gc.disable()
    try:
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        return time.perf_counter() - begin
    finally:
        gc.enable()
        gc.collect()


class Worker:
    """A contestant in a separate process."""

    def __init__(self, name: str, place: str, net: Any, options: dict[str, Any]) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # a fork would copy thread pools without their threads
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, place, net, options), daemon=True)
        self._process.start()
        other.close()

    def ready(self) -> None:
        """Wait until the contestant is made."""
        self._answer("start")

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the contestant, or `timed` on it."""
        self._pipe.send((method, arguments))
        return self._answer(method)

    def _answer(self, asked: str) -> Any:
        try:
            outcome, value = self._pipe.recv()
        except EOFError:
            raise SystemExit(f"{self.name} ended in {asked} without an answer; nothing was timed") from None
        if outcome == "failed":
            raise SystemExit(f"{self.name} failed in {asked}: {value}; nothing was timed")
        return value

    def stop(self) -> None:
        """End the process."""
        try:
            self._pipe.send(None)
        except OSError:
            pass  # the process has already ended
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def team(places: dict[str, str], net: Any, **options: Any) -> Iterator[dict[str, Worker]]:
    """Workers by name, all with the same options; they start at the same time and end with the block."""
    with ExitStack() as stack:
        workers = {}
        for name, place in places.items():
            workers[name] = Worker(name, place, net, options)
            stack.callback(workers[name].stop)
        for worker in workers.values():
            worker.ready()
        yield workers


def measure(turns: dict[str, tuple[Worker, str]], steps: int, rounds: int, least: float, pause: float
            ) -> dict[str, Timing]:
    """Time the methods in alternation, one worker at a time, in seconds per step; a call makes `steps` steps.

    The methods take turns in beginning a round. Before each turn there is a rest of `pause` seconds, after which the
    busy threads of the worker before sleep.
    """
    names = list(turns)
    calls, seconds = {}, {name: [] for name in names}
    for name, (worker, method) in turns.items():
        worker.ask("timed", method, 1)
        calls[name] = max(1, round(least / worker.ask("timed", method, 1)))
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause)
            worker, method = turns[name]
            seconds[name].append(worker.ask("timed", method, calls[name]) / (calls[name] * steps))
    return {name: Timing(name, tuple(seconds[name]), calls[name] * steps) for name in names}
