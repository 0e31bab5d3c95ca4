"""The loop over the epochs of a training: checkpoints, the lines of the logs, and what Ctrl-C does.

The end of an epoch writes the best checkpoint, the line of metrics and the last checkpoint, in this order. An epoch
that is interrupted in between is repeated, with the same bits.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tinyvae.engine.devices import read
from tinyvae.models import extensions
from tinyvae.runs import files, log
from tinyvae.runs.folder import RunFolder
from tinyvae.training.epochs import Training
from tinyvae.training.faults import TrainingError

OnStep = Callable[[Training, int], None]
OnEpoch = Callable[[dict[str, Any], dict[str, Any]], None]


class Interrupted(KeyboardInterrupt):
    """Training was interrupted by Ctrl-C or SIGTERM; the step was finished and the state saved."""


def train(run: RunFolder, training: Training, on_step: OnStep | None = None, on_epoch: OnEpoch | None = None) -> None:
    """Train the remaining epochs in a run folder, with a checkpoint after every epoch and after Ctrl-C."""
    with run.locked(), watching(training) as asked:
        all_epochs(training, asked, on_step, on_epoch, run)


def all_epochs(training: Training, asked: Callable[[], bool], on_step: OnStep | None, on_epoch: OnEpoch | None,
               run: RunFolder | None = None) -> None:
    """The remaining epochs, in a run folder or without one, until they are done or a stop is asked for."""
    while not training.finished():
        try:
            _epoch(training, asked, on_step, on_epoch, run)
            if asked() and run is not None:
                run.save_last(training)
        except TrainingError as fault:
            if run is not None:
                files.write_json(run.path / "fault.json", {"message": str(fault), **fault.report})
            raise
        if asked():
            raise Interrupted("interrupted" if run is None else f"interrupted; the state is saved, {way_on(run)}")


@contextmanager
def watching(training: Training) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether a stop was asked for; of several processes, whether one of them was asked,
    which all learn after the same step."""
    team = training.ranks

    def agreed() -> bool:
        team.wish = interrupted()
        return team.stopping

    with _interruptible() as interrupted:
        yield interrupted if team.size == 1 else agreed


def way_on(run: RunFolder) -> str:
    """The command with which a run that was interrupted goes on."""
    uses = "".join(f" --use {path}" for path in extensions.PATHS.values())
    return f"go on with: tinyvae train --resume {run.path}{uses}"


def _epoch(training: Training, interrupted: Callable[[], bool], on_step: OnStep | None, on_epoch: OnEpoch | None,
           run: RunFolder | None) -> dict[str, Any] | None:
    start, first = time.perf_counter(), read(training.totals[0])
    for done in training.steps():
        if on_step:
            on_step(training, done)
        if interrupted():
            return None
    seconds = time.perf_counter() - start
    trained = read(training.totals[0]) - first
    record = training.end_epoch()
    timings = {"epoch": record["epoch"], "train_seconds": seconds, "data_per_second": trained / seconds,
               "evaluate_seconds": time.perf_counter() - start - seconds}
    if run is not None:
        if record["best"]:
            run.save_best(training, record)
        log.append_line(run.metrics, record)
        log.append_line(run.timings, timings)
        run.save_last(training)
    if on_epoch:
        on_epoch(record, timings)
    return record


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Within this block Ctrl-C (SIGINT) or SIGTERM asks to stop after the current step; a second one stops at once.

    Yields a function that says whether a stop was asked for. Only the main thread can receive signals.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            signal.default_int_handler(number, frame)
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
