"""Contestants in processes of their own, so that no library's threads and settings disturb another's.

Each lives in a worker that waits, without using a processor, until it is asked; only one is asked at a time. A class
can take part if it is made from a `Net` (and where a GPU is asked for, from `device` and `tf32`, too) and has these
methods; all draws are its own, by its own generator:

    about() -> dict                                  versions, threads
    first_batch() -> (x, eps)                        what its first step gathers (and draws), and its normals
    loss_and_gradients(x, eps) -> (float, dict)      at the first weights, in our names and shapes
    losses(count) -> list                            trains on from the first weights: the loss of each step
    epoch()                                          trains on for an epoch and waits until it is done
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks import nets
from benchmarks.nets import Net
from tinyvae.measure.timing import Timing

SETTINGS = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # or JAX takes most of a GPU's memory from the others


def serve(pipe: Any, place: str, net: Net, options: dict[str, Any]) -> None:
    """What a worker does: make the contestant, then answer until told to stop."""
    os.environ.update(SETTINGS)
    try:
        module, name = place.split(":")
        contestant = getattr(importlib.import_module(module), name)(net, **options)
        pipe.send(("done", None))
        while (request := pipe.recv()) is not None:
            method, arguments = request
            answer = timed if method == "timed" else getattr(contestant, method)
            pipe.send(("done", answer(contestant, *arguments) if answer is timed else answer(*arguments)))
    except EOFError:
        pass  # whoever asked is gone
    except Exception as fault:
        pipe.send(("failed", f"{type(fault).__name__}: {fault}"))


def timed(contestant: Any, method: str, calls: int) -> float:
    """Seconds that so many calls of a method take."""
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
    """A contestant in a process of its own."""

    def __init__(self, name: str, place: str, net: Net, options: dict[str, Any]) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # a forked process would inherit pools without their threads
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
            pass  # ended already
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def team(places: dict[str, str], net: Net, **options: Any) -> Iterator[dict[str, Worker]]:
    """Workers by name, each made with the same options; they start side by side and end with the block."""
    with ExitStack() as stack:
        workers = {}
        for name, place in places.items():
            workers[name] = Worker(name, place, net, options)
            stack.callback(workers[name].stop)
        for worker in workers.values():
            worker.ready()
        yield workers


def measure(turns: dict[str, tuple[Worker, str]], net: Net, rounds: int, least: float, pause: float
            ) -> dict[str, Timing]:
    """Time each method in alternation, a worker at a time; seconds a step.

    Each begins a round in its turn and rests `pause` seconds before, so that the threads of the one before, which wait
    for more work in a busy loop for a while, have gone to sleep.
    """
    steps, names = nets.steps_an_epoch(net), list(turns)
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
