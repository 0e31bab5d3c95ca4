"""A run folder holds the results of a training, and everything that the training needs to continue.

    config.json        the model, the data's name, the settings, and the environment; it is written first
    last.safetensors   the whole state, at step 0 and after every epoch; `resume` reads it
    best.safetensors   the parameters of the best epoch, for use; a training cannot continue from it
    metrics.jsonl      one line for each epoch; like the checkpoints it is the same in every repetition
    timings.jsonl      one line for each epoch: seconds, and data per second
    figures/           pictures of the trained model

The state is sealed by a checksum, and carries what it was trained with: the model, the settings, and the fingerprint of
the data. config.json says the same for people; where it says something else, the run does not go on.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyvae.choices import path_of
from tinyvae.engine.devices import to_host
from tinyvae.models import Model, extensions
from tinyvae.runs import checkpoint, environment, files, lock, log, schema
from tinyvae.runs.files import CheckpointError
from tinyvae.training.batches import BATCH, CURSOR, STEP
from tinyvae.training.epochs import Training
from tinyvae.training.fingerprint import fingerprint
from tinyvae.training.settings import Settings

# The present names of arrays in checkpoints of version 0.1.0.
RENAMED = {"training.clock": "training.counters", "training.control": "training.status"}


class RunFolder:
    """The files of one run.

    Attributes
    ----------
    constant : the entries of each state's meta that stay the same from epoch to epoch: the data's fingerprint, and
        where they apply the deliberate changes and the run from which the parameters came
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path_of("a run folder", path)
        self.config_file = self.path / "config.json"
        self.last, self.best = self.path / "last.safetensors", self.path / "best.safetensors"
        self.metrics, self.timings = self.path / "metrics.jsonl", self.path / "timings.jsonl"
        self.figures = self.path / "figures"
        self.constant: dict[str, Any] = {}
        self._is_locked = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within this block no other process may change the run; a block inside such a block changes nothing."""
        if self._is_locked:
            yield
            return
        free = lock.acquire(self.path)
        self._is_locked = True
        try:
            yield
        finally:
            self._is_locked = False
            free()

    # ---- the beginning -----------------------------------------------------------------------------------------------

    @contextmanager
    def begun(self, config: dict[str, Any]) -> Iterator[None]:
        """Make the folder with config.json, and lock it within this block; an existing run is never overwritten.

        The lock comes before the first byte, so of several processes at once one has the folder and the others a
        sentence. If the block raises an error before the first checkpoint, what was made is removed.
        """
        made = not os.path.exists(self.path)  # (False of a name that is too long, where Path's own raises an error)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise CheckpointError(f"{self.path} exists and is a file; choose another --out") from None
        except OSError as fault:
            raise CheckpointError(f"{self.path} cannot be made: {fault.strerror}; choose another --out") from None
        with self.locked():
            files.sweep(self.path)  # of a process that was killed before it wrote the configuration
            if any(file.name != lock.FILE for file in self.path.iterdir()):
                raise CheckpointError(f"{self.path} exists and is not empty; choose another --out, or go on with that "
                                      f"run: tinyvae train --resume {self.path}")
            try:
                files.write_json(self.config_file, config)
                yield
            except Exception:
                if not self.last.exists():
                    self._discard(made)
                raise

    def _discard(self, made: bool) -> None:
        files.sweep(self.path)
        self.config_file.unlink(missing_ok=True)
        if made:
            with suppress(OSError):  # where the lock is a file, or somebody put one there
                (self.path / lock.FILE).unlink(missing_ok=True)
                self.path.rmdir()

    # ---- the configuration -------------------------------------------------------------------------------------------

    def check_path(self) -> None:
        """Raise CheckpointError, with a cure, if there is no folder here that a run began."""
        if not os.path.exists(self.path):
            raise CheckpointError(f"{self.path} does not exist; start a run with: tinyvae train --out {self.path}")
        if self.path.is_file():
            if self.path.name == "best.safetensors":
                raise CheckpointError(f"{self.path} holds parameters for use only, without the optimizer's state, so "
                                      "it cannot be resumed; resume the folder: "
                                      f"tinyvae train --resume {self.path.parent}")
            raise CheckpointError(f"{self.path} is a file; give the run's folder: {self.path.parent}")
        for file in (self.config_file, self.last, self.best, self.metrics, self.timings):
            if file.is_symlink():
                raise CheckpointError(f"{file} is a symbolic link, and a run rewrites its files: put the file "
                                      f"{os.path.realpath(file)} itself there, or link the whole folder")
        if self.config_file.exists():
            return
        if self.last.exists() or self.best.exists():
            raise CheckpointError(f"{self.path} has no {self.config_file.name}: put the file back, or start a new run "
                                  f"from these parameters: tinyvae train --init-from {self.path}")
        if any(self.path.iterdir()):  # a folder of other files
            raise CheckpointError(f"{self.path} is no run folder (it has no {self.config_file.name}); a run is started "
                                  "with: tinyvae train DATA --out FOLDER")
        raise CheckpointError(f"{self.path} is empty: the run was stopped before it began, so there is nothing to "
                              f"resume; start it again with: tinyvae train DATA --out {self.path}")

    def config(self) -> dict[str, Any]:
        """The content of config.json; CheckpointError with a cure if the folder is not a run that began."""
        self.check_path()
        config = files.read_json(self.config_file)
        schema.check_config(config, self.config_file)
        schema.settings_of(config["settings"], self.config_file, schema.UNDO)
        return config

    def is_new(self) -> bool:
        """Whether the run was stopped before its first checkpoint; CheckpointError if a later one is lost."""
        if self.last.exists():
            return False
        if self.best.exists() or self.metrics.exists():
            raise CheckpointError(f"{self.path} has no {self.last.name}, although the run had begun: put the file "
                                  f"back, or start a new run: tinyvae train DATA --init-from {self.path}")
        return True

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def save_last(self, training: Training) -> None:
        """Save the whole state, after any step; NonFiniteError if a parameter is not finite."""
        training.check_parameters()
        state = {name: to_host(array) for name, array in training.state().items() if name != "parameters"}
        meta = {"kind": "last", "model": training.model.config, "data": training.data.name,
                "settings": asdict(training.settings), "epoch": training.epoch, "best": training.best,
                "best_epoch": training.best_epoch, "first_losses": training.first_losses()}
        meta |= self.constant | uses(training.model)
        checkpoint.save(self.last, training.model.parameters.arrays() | state, meta)

    def save_best(self, training: Training, record: dict[str, Any]) -> None:
        """Save the parameters, with the record of their epoch."""
        meta = {"kind": "best", "model": training.model.config, "data": training.data.name, "record": record}
        meta |= {name: value for name, value in self.constant.items() if name == "data_sha256"}
        checkpoint.save(self.best, training.model.parameters.arrays(), meta | uses(training.model))

    def sealed(self) -> tuple[dict[str, Any], checkpoint.Shapes]:
        """What the state says of its training, and the shapes of its arrays; the checksum is not verified here."""
        meta, shapes = checkpoint.peek(self.last)
        if meta.get("kind") != "last":
            raise CheckpointError(f"{self.last} holds no training state (it is a {meta.get('kind')!r} checkpoint), so "
                                  "it cannot be resumed; put the run's own last.safetensors back")
        schema.check(meta, schema.LAST, self.last, schema.ANOTHER)
        schema.settings_of(meta["settings"], self.last, schema.ANOTHER)
        return meta, shapes

    def restore(self, training: Training) -> None:
        """Load last.safetensors into a training, and remove later lines of the logs."""
        parameters, state = training.model.parameters, training.state()

        def check(meta: dict[str, Any], shapes: checkpoint.Shapes) -> None:
            found = {RENAMED.get(name, name): shape for name, shape in shapes.items()}
            expected = checkpoint.shapes_of(parameters.arrays())
            if "training.counters" in found:  # up to version 0.2.0 the checkpoint of step 0 holds only parameters
                expected |= checkpoint.shapes_of({name: a for name, a in state.items() if name != "parameters"})
            checkpoint.check_shapes(found, expected, self.last)

        arrays, meta = checkpoint.load(self.last, check)
        arrays = {RENAMED.get(name, name): array for name, array in arrays.items()}
        parameters.load(arrays)
        for name, array in state.items():
            if name in arrays:
                array[...] = training.xp.asarray(arrays[name])
        training.epoch = meta["epoch"]
        for name in ("best", "best_epoch"):
            setattr(training, name, meta.get(name, getattr(training, name)))
        training.set_first_losses(meta.get("first_losses", {"": meta.get("first_loss", math.nan)}))
        self._check_place(training)
        self._check_logs(training)
        files.sweep(self.path)

    def _check_place(self, training: Training) -> None:
        """Raise CheckpointError if the counters and the epoch are no place in this training."""
        step, cursor, batch = (training.now(index) for index in (STEP, CURSOR, BATCH))
        batches = training.batches
        place = (training.epoch * batches.steps + batch, min(batch * batches.size, batches.count))
        labelled = to_host(batches.labelled_counters).tolist()
        astray = batches.labelled is not None and labelled != [step, batch * batches.labelled_size, batch]
        if not 0 <= batch <= batches.steps or (step, cursor) != place or training.best_epoch > training.epoch or astray:
            raise CheckpointError(f"{self.last} stands at step {step}, after {training.epoch} epochs, at batch {batch} "
                                  f"and datum {cursor}, which is no place in a training of {batches.steps} batches an "
                                  f"epoch; {schema.ANOTHER}")

    def _check_logs(self, training: Training) -> None:
        """Remove later lines of the logs; a warning names the lines that are lost or damaged.

        CheckpointError if the metrics of the present epoch are those of other parameters: the state is another run's.
        """
        for record in log.read_lines(self.metrics, schema.is_record):
            if record["epoch"] == training.epoch and training.now(BATCH) == 0 and "fingerprint" in record:
                own = fingerprint(training.model.parameters.arrays())
                if record["fingerprint"] != own:
                    raise CheckpointError(f"{self.last} holds the parameters {own} after epoch {training.epoch}, and "
                                          f"{self.metrics.name} says {record['fingerprint']}: it is the state of "
                                          "another run; put the run's own last.safetensors back")
        seen: list[int] = []

        def keep(record: dict[str, Any]) -> bool:
            if keeping := record["epoch"] <= training.epoch:
                seen.append(record["epoch"])
            return keeping

        for file in (self.metrics, self.timings):
            seen.clear()
            damaged = log.cut_lines(file, keep, schema.is_record)
            lost = sorted(set(range(1, training.epoch + 1)) - set(seen))
            if damaged or lost:
                what = [f"lacks {epochs(lost)}"] * bool(lost)
                what += [f"was damaged, and is kept as {damaged}"] * bool(damaged)
                warnings.warn(f"{file} {' and '.join(what)}; the run goes on without these lines, and its parameters "
                              "are whole", RuntimeWarning, stacklevel=2)


def epochs(numbers: list[int]) -> str:
    """"epoch 3", or "epochs 2, 3, ..." of rising numbers."""
    shown = ", ".join(map(str, numbers[:5])) + ", ..." * (len(numbers) > 5)
    return f"epoch{'s' * (len(numbers) > 1)} {shown}"


def configuration(model: Model, data: str, settings: Settings, **more: Any) -> dict[str, Any]:
    """The content of config.json for a new run; `more` are further entries of schema.py."""
    return {"format": schema.FORMAT, "version": schema.VERSION, "model": model.config, "data": data, "data_dir": None,
            "settings": asdict(settings), "environment": environment.environment(),
            "initial": fingerprint(model.parameters.arrays()), **more} | uses(model)


def uses(model: Model) -> dict[str, Any]:
    """The entry of a configuration for the user's files that the model needs; empty if there are none."""
    own = extensions.own_files(model)
    return {"uses": own} if own else {}


def check_uses(config: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError if a user's file is missing or has changed."""
    if fault := extensions.missing(config.get("uses", [])):
        raise CheckpointError(f"{path} {fault}")
