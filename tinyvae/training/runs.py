"""A run folder holds the results of a training, and everything that the training needs to continue.

    config.json        the model, the data's name, the settings, and the environment; it is written first
    last.safetensors   the whole state, at step 0 and after every epoch; `resume` reads it
    best.safetensors   the parameters of the best epoch, for use; a training cannot continue from it
    metrics.jsonl      one line for each epoch; like the checkpoints it is the same in every repetition
    timings.jsonl      one line for each epoch: seconds, and data per second
    figures/           pictures of the trained model

A new run writes its folder and then continues from step 0, so starting and resuming are the same code. The end of an
epoch writes the best checkpoint, the line of metrics and the last checkpoint, in this order. An epoch that is
interrupted in between is repeated, with the same bits.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tinyvae import data as data_sets
from tinyvae.engine.devices import namespace, read, to_host
from tinyvae.models import Model, build_model, check_model, extensions
from tinyvae.progress import watched
from tinyvae.training import checkpoint, environment
from tinyvae.training.checkpoint import CheckpointError
from tinyvae.training.epochs import Training
from tinyvae.training.faults import TrainingError
from tinyvae.training.settings import Settings, described

OnStep = Callable[[Training, int], None]
OnEpoch = Callable[[dict[str, Any], dict[str, Any]], None]
# The present names of arrays in checkpoints of version 0.1.0.
RENAMED = {"training.clock": "training.counters", "training.control": "training.status"}


class Interrupted(KeyboardInterrupt):
    """Training was interrupted by Ctrl-C or SIGTERM; the step was finished and the state saved."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.last, self.best = self.path / "last.safetensors", self.path / "best.safetensors"
        self.metrics, self.timings = self.path / "metrics.jsonl", self.path / "timings.jsonl"
        self.figures = self.path / "figures"

    @classmethod
    def create(cls, path: str | Path, model: Model, data: str, settings: Settings,
               data_dir: str | None = None) -> RunFolder:
        """Make the folder with config.json and the checkpoint of step 0; an existing run is never overwritten."""
        run = cls(path)
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise CheckpointError(f"{run.path} exists and is not empty; choose another --out, or go on with that run: "
                                  f"tinyvae train --resume {run.path}")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise CheckpointError(f"{run.path} cannot be made: {fault.strerror}; choose another --out") from None
        config = {"format": "tinyvae-run", "version": 1, "model": model.config, "data": data, "data_dir": data_dir,
                  "settings": asdict(settings), "environment": environment.environment()} | _uses(model)
        checkpoint.write_json(run.config_file, config)
        run._save_last(model, settings, data, {}, epoch=0)
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within this block no other process may change the run; the system frees the lock of a killed process."""
        try:
            import fcntl
        except ImportError:  # Windows has no such lock: two processes on one run are not detected
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(folder)
            raise CheckpointError(f"{self.path} is in use: another process is training there; wait for it or stop it "
                                  "first") from None
        try:
            yield
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove a folder that `create` made and in which nothing was trained."""
        for file in (self.config_file, self.last):
            file.unlink(missing_ok=True)
        self.path.rmdir()

    def config(self) -> dict[str, Any]:
        """The content of config.json; CheckpointError with a cure if the folder is not a run that began."""
        if not self.path.exists():
            raise CheckpointError(f"{self.path} does not exist; start a run with: tinyvae train --out {self.path}")
        if self.path.is_file():
            if self.path.name == "best.safetensors":
                raise CheckpointError(f"{self.path} holds parameters for use only, without the optimizer's state, so "
                                      "it cannot be resumed; resume the folder: "
                                      f"tinyvae train --resume {self.path.parent}")
            raise CheckpointError(f"{self.path} is a file; give the run's folder: {self.path.parent}")
        ours = (self.config_file, self.last, self.metrics)
        if any(self.path.iterdir()) and not any(file.exists() for file in ours):  # a folder of other files
            raise CheckpointError(f"{self.path} is no run folder (it has no {self.config_file.name}); a run is started "
                                  "with: tinyvae train DATA --out FOLDER")
        for file in (self.config_file, self.last):
            if not file.exists():
                raise CheckpointError(f"{self.path} has no {file.name}: the run was stopped before it began, so there "
                                      "is nothing to resume; remove the folder and start again with: "
                                      f"tinyvae train DATA --out {self.path}")
        try:
            config = checkpoint.read_json(self.config_file)
            if config["format"] != "tinyvae-run" or not {"model", "data", "settings"} <= set(config):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(f"{self.config_file} is not the configuration of a tinyvae run; if it was edited, "
                                  "undo that, or start a new run") from None
        return config

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _save_last(self, model: Model, settings: Settings, data: str, arrays: dict[str, Any], **progress: Any) -> None:
        meta = {"kind": "last", "model": model.config, "data": data, "settings": asdict(settings), **progress}
        meta |= _uses(model)
        checkpoint.save(self.last, model.parameters.arrays() | arrays, meta)

    def save_last(self, training: Training) -> None:
        """Save the whole state, after any step."""
        state = {name: to_host(array) for name, array in training.state().items() if name != "parameters"}
        self._save_last(training.model, training.settings, training.data.name, state, epoch=training.epoch,
                        best=training.best, best_epoch=training.best_epoch, first_losses=training.first_losses())

    def save_best(self, training: Training, record: dict[str, Any]) -> None:
        """Save the parameters, with the record of their epoch."""
        meta = {"kind": "best", "model": training.model.config, "data": training.data.name, "record": record}
        checkpoint.save(self.best, training.model.parameters.arrays(), meta | _uses(training.model))

    def restore(self, training: Training) -> None:
        """Load last.safetensors into a training, and remove later lines of the logs."""
        arrays, meta = checkpoint.load(self.last)
        arrays = {RENAMED.get(name, name): array for name, array in arrays.items()}
        if meta.get("kind") != "last":
            raise CheckpointError(f"{self.last} holds no training state (it is a {meta.get('kind')!r} checkpoint), so "
                                  "it cannot be resumed; put the run's own last.safetensors back")
        state = training.state()
        parameters = training.model.parameters
        expected = {name: (array.shape, array.dtype) for name, array in parameters.arrays().items()}
        if "training.counters" in arrays:  # the checkpoint of step 0 holds only parameters
            expected |= {name: (a.shape, a.dtype) for name, a in state.items() if name != "parameters"}
        checkpoint.check_shapes(arrays, expected, self.last)
        parameters.load(arrays)
        for name, array in state.items():
            if name in arrays:
                array[...] = training.xp.asarray(arrays[name])
        training.epoch = meta["epoch"]
        for name in ("best", "best_epoch"):
            setattr(training, name, meta.get(name, getattr(training, name)))
        training.set_first_losses(meta.get("first_losses", {"": meta.get("first_loss", math.nan)}))
        for log in (self.metrics, self.timings):
            checkpoint.cut_lines(log, lambda record: record.get("epoch", 0) <= training.epoch)
        checkpoint.sweep(self.path)

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def train(self, training: Training, on_step: OnStep | None = None, on_epoch: OnEpoch | None = None) -> None:
        """Train the remaining epochs, with a checkpoint after every epoch and after Ctrl-C."""
        with self.locked(), _interruptible() as interrupted:
            while not training.finished():
                try:
                    _epoch(training, interrupted, on_step, on_epoch, self)
                except TrainingError as fault:
                    checkpoint.write_json(self.path / "fault.json", {"message": str(fault), **fault.report})
                    raise
                if interrupted():
                    self.save_last(training)
                    uses = "".join(f" --use {path}" for path in extensions.PATHS.values())
                    raise Interrupted("interrupted; the state is saved, go on with: "
                                      f"tinyvae train --resume {self.path}{uses}")


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
        checkpoint.append_line(run.metrics, record)
        checkpoint.append_line(run.timings, timings)
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


# ---- the public functions --------------------------------------------------------------------------------------------


def fit(model: Model, data: Any, out: str | Path | None = None, on_step: OnStep | None = None,
        on_epoch: OnEpoch | None = None, quiet: bool = False, **settings: Any) -> list[dict[str, Any]]:
    """Train a model on a data set, with a progress bar in a terminal or a notebook.

    Parameters
    ----------
    model
        A `VAE`, or any other `Model`.
    data
        A `DataSet`, or the name of one: "mnist-dynamic".
    out
        The run folder to make, from which `resume` can continue. None writes no files.
    on_step, on_epoch
        Functions that are called with (training, batches done) after steps, and with (record, timings) after each
        epoch.
    quiet
        Whether to hide the progress bar.
    **settings
SETTINGS

    Returns
    -------
    The records of the epochs as dictionaries: bounds in nats per datum (higher is better), standard errors and more.

    Raises
    ------
    ValueError
        Before the training begins, for settings that do not exist or contradict each other, and for data that the model
        cannot take.
    TrainingError
        If the loss is not finite, or the training diverges.
    """
    check_model(model, on_step=on_step, on_epoch=on_epoch)
    chosen = Settings.from_dict(settings)
    data = data_sets.load(data) if isinstance(data, (str, Path)) else data
    with model.parameters.trained():
        training = Training(model, data, chosen)
        run = None if out is None else RunFolder.create(out, model, data.name, chosen)
        with _with_bar(training, on_step, on_epoch, quiet) as (step, epoch):
            if run is not None:
                run.train(training, step, epoch)
                return checkpoint.read_lines(run.metrics)
            records = []
            while not training.finished():
                records.append(_epoch(training, lambda: False, step, epoch, None))
            return [record for record in records if record is not None]


fit.__doc__ = (fit.__doc__ or "").replace("SETTINGS", described("        "))


@contextmanager
def _with_bar(training: Training, on_step: OnStep | None, on_epoch: OnEpoch | None,
              quiet: bool) -> Iterator[tuple[OnStep, OnEpoch]]:
    """Callbacks that move a progress bar and then call the given ones."""
    steps, last = training.batches.steps, ""
    with watched("training", training.settings.epochs * steps, quiet) as update:

        def step(training: Training, done: int) -> None:
            update(training.epoch * steps + done, f"epoch {training.epoch + 1} of {training.settings.epochs}{last}")
            if on_step:
                on_step(training, done)

        def epoch(record: dict[str, Any], timings: dict[str, Any]) -> None:
            nonlocal last
            last = f", bound {record['train_elbo']:.2f} on training and {record['test_elbo']:.2f} on test data (nats)"
            if on_epoch:
                on_epoch(record, timings)

        yield step, epoch


def prepare(path: str | Path, data: Any = None, epochs: int | None = None, data_dir: str | None = None,
            device: str = "cpu") -> tuple[RunFolder, Training]:
    """A run folder and its training, restored to the last checkpoint; `epochs` replaces the number of epochs.

    Checkpoints do not depend on the device, so a training can continue on another one.
    """
    run = RunFolder(path)
    config = run.config()
    with run.locked():  # the lock comes before every change of the configuration and the logs
        settings = Settings.from_dict(config["settings"])
        if other := environment.differing_blas(config.get("environment", {})):
            warnings.warn(f"the run began under another BLAS ({other}): it goes on, but its bits may differ from those "
                          "of an uninterrupted run", RuntimeWarning, stacklevel=2)
        if epochs is not None and epochs != settings.epochs:
            done = checkpoint.load(run.last)[1].get("epoch", 0)
            if epochs < done:
                raise ValueError(f"{run.path} has done {done} epochs already, more than epochs={epochs}; leave "
                                 "--epochs out, or ask for more")
            if done and settings.schedule != "constant":
                warnings.warn(f"the {settings.schedule} schedule now runs over {epochs} epochs, not {settings.epochs}: "
                              f"the result differs from that of a run that began with {epochs}", RuntimeWarning,
                              stacklevel=2)
            settings = replace(settings, epochs=epochs)
            checkpoint.write_json(run.config_file, config | {"settings": asdict(settings)})
        _check_uses(config, run.path)
        model = build_model(config["model"], device)
        if data is None or isinstance(data, (str, Path)):
            data = data_sets.load(data or config["data"], data_dir or config.get("data_dir"))
        training = Training(model, data, settings)
        run.restore(training)
    return run, training


def resume(path: str | Path, data: Any = None, epochs: int | None = None, on_step: OnStep | None = None,
           on_epoch: OnEpoch | None = None, device: str = "cpu", quiet: bool = False) -> list[dict[str, Any]]:
    """Continue a run; returns the records of all its epochs. The bits are those of an uninterrupted run.

    The parameters are those of `fit`. `epochs` replaces the number of epochs; `data` is needed if the data have no name
    that `tv.data.load` knows.
    """
    run, training = prepare(path, data, epochs, device=device)
    with _with_bar(training, on_step, on_epoch, quiet) as (step, epoch):
        run.train(training, step, epoch)
    return checkpoint.read_lines(run.metrics)


def _uses(model: Model) -> dict[str, Any]:
    """The entry of a configuration for the user's files that the model needs; empty if there are none."""
    files = extensions.own_files(model)
    return {"uses": files} if files else {}


def _check_uses(config: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError if a user's file is missing or has changed."""
    if fault := extensions.missing(config.get("uses", [])):
        raise CheckpointError(f"{path} {fault}")


def _checkpoint_of(path: str | Path) -> Path:
    """The file with the parameters for use: the best checkpoint of a run, else its last; or `path`, if it is a file."""
    run = RunFolder(path)
    return run.path if not run.path.is_dir() else run.best if run.best.exists() else run.last


def load(path: str | Path, device: str = "cpu") -> Model:
    """The model of a run folder (its best epoch, else the last) or of one checkpoint file."""
    namespace(device)  # raises an error before anything is read
    file = _checkpoint_of(path)
    arrays, meta = checkpoint.load(file)
    _check_uses(meta, file)
    try:
        model = build_model(meta["model"], device)
    except (KeyError, TypeError, ValueError) as fault:
        raise CheckpointError(f"{file} holds no model that this version can build ({fault})") from None
    expected = {name: (array.shape, array.dtype) for name, array in model.parameters.arrays().items()}
    stored = {name: array for name, array in arrays.items() if not name.startswith(("optimizer.", "training."))}
    checkpoint.check_shapes(stored, expected, file)
    model.parameters.load(arrays)
    return model


def parameters_of(path: str | Path) -> dict[str, Any]:
    """The checkpoint that `load(path)` reads, and the epoch of its parameters."""
    file = _checkpoint_of(path)
    meta = checkpoint.load(file)[1]
    return {"checkpoint": file.name, "epoch": meta.get("epoch", meta.get("record", {}).get("epoch"))}
