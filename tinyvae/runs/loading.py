"""A trained model from a run folder or a checkpoint, a new run that begins with its parameters, and a run's data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae import data as data_sets
from tinyvae.data import DataError, DataSet
from tinyvae.data.dataset import split_suffix
from tinyvae.engine.devices import namespace
from tinyvae.models import Model, build_model
from tinyvae.runs import checkpoint, schema
from tinyvae.runs.files import CheckpointError
from tinyvae.runs.folder import RunFolder, check_uses
from tinyvae.training.fingerprint import fingerprint
from tinyvae.training.selection import select
from tinyvae.training.settings import Settings


def load(path: str | Path, device: str = "cpu") -> Model:
    """The model of a run folder (its best epoch, else the last) or of one checkpoint file, on `device` (cpu or cuda).

    Nothing in the file is executed. CheckpointError if it is missing or damaged, or holds no model that can be built
    here.
    """
    namespace(device)  # raises an error before anything is read
    file = checkpoint_of(path)
    arrays, meta = checkpoint.load(file, lambda meta, shapes: check(meta, shapes, file))
    model = built(meta["model"], device, file, schema.ANOTHER)
    model.parameters.load(arrays)
    return model


def built(config: dict[str, Any], device: str, file: Path, cure: str) -> Model:
    """The model of a configuration that `file` holds, with its initial weights."""
    try:
        return build_model(config, device)
    except (KeyError, TypeError, ValueError, MemoryError) as fault:
        raise CheckpointError(f"{file} holds no model that can be built here ({fault}); {cure}") from None


def checkpoint_of(path: str | Path) -> Path:
    """The file with the parameters for use: the best checkpoint of a run, else its last; or `path`, if it is a file."""
    run = RunFolder(path)
    return run.path if not os.path.isdir(run.path) else run.best if run.best.exists() else run.last


def described(path: str | Path) -> dict[str, Any]:
    """What the checkpoint that `load(path)` reads says of itself, by the entries of schema.py."""
    file = checkpoint_of(path)
    meta, shapes = checkpoint.peek(file)
    check(meta, shapes, file)
    return meta


def opened(path: str | Path, data: str | None = None, data_dir: str | None = None, device: str = "cpu",
           model: Any = None) -> tuple[Any, DataSet]:
    """The model of a run, or `model` if that is loaded already, and the data it was trained on, or others.

    `path` is a run folder, or a checkpoint in one; `data` the name of other data.
    """
    run = Path(path)
    model = load(run, device) if model is None else model
    config = RunFolder(run if run.is_dir() else run.parent).config()
    try:
        data_set = data_sets.load(config["data"] if data is None else data, data_dir or config.get("data_dir"))
    except DataError as fault:
        if data is not None:
            raise
        raise ValueError(f"{str(fault).rstrip('.')}; {run} was trained on them: say where they are now with --data "
                         f"DATA, or for good with tinyvae train DATA --resume {run}") from None
    if data is not None and data_set.kind == "real":  # the model knows the columns by the centers of its own data
        data_set = data_set.in_units_of(data_sets.load(config["data"], data_dir or config.get("data_dir")))
    if data is None:  # the parts that the run trained on and was chosen by
        base, labels = data_sets.split_labels(config["data"])
        cure = f"take them without the labels of {labels}, of which only training needs any: --data {base}" if labels \
            else f"take them as they are now: --data {base}"
        check_data(described(run), data_set, run, cure)
        data_set = select(data_set, Settings.from_dict(config["settings"]))
    return model, data_set


def check(meta: dict[str, Any], shapes: checkpoint.Shapes, file: Path) -> None:
    """Raise CheckpointError if this is no checkpoint of a model that can be built here; takes no memory for it."""
    kind = meta.get("kind")
    if not isinstance(kind, str) or kind not in schema.OF_KIND:
        raise CheckpointError(f"{file} has kind: found {schema.shown(kind)}; expected one of "
                              f"{', '.join(schema.OF_KIND)}; {schema.ANOTHER}")
    schema.check(meta, schema.OF_KIND[kind], file, schema.ANOTHER)
    check_uses(meta, file)
    schema.check_parameters(meta["model"], shapes, file, schema.ANOTHER)


def parameters_of(path: str | Path) -> dict[str, Any]:
    """The checkpoint that `load(path)` reads, and the epoch of its parameters."""
    meta = described(path)
    return {"checkpoint": checkpoint_of(path).name, "epoch": meta.get("epoch", meta.get("record", {}).get("epoch"))}


def take_parameters(model: Model, path: str | Path) -> dict[str, Any]:
    """Copy the parameters of a run or a checkpoint into a model of the same configuration.

    Returns the entry for the configuration of the run that begins with them. The seed and the way in which the weights
    were drawn may differ; CheckpointError if anything else does.
    """
    file = checkpoint_of(path)

    def same(meta: dict[str, Any], shapes: checkpoint.Shapes) -> None:
        check(meta, shapes, file)
        for name, ours, theirs in schema.differences(model.config, meta["model"]):
            if name not in ("init", "seed"):
                raise CheckpointError(f"{file} holds parameters of a model with {name}={schema.shown(theirs)}, and "
                                      f"this one has {name}={schema.shown(ours)}; make them equal")

    arrays, _ = checkpoint.load(file, same)
    if wrong := sum(int((~np.isfinite(arrays[name])).sum()) for name in model.parameters.arrays()):
        raise CheckpointError(f"{file} holds {wrong:,} parameters that are not finite, from which nothing can be "
                              f"learned; {schema.ANOTHER}")
    model.parameters.load(arrays)
    return {"run": os.path.abspath(path), **parameters_of(path), "fingerprint": fingerprint(model.parameters.arrays())}


# ---- the data of a run -----------------------------------------------------------------------------------------------


def data_of(run: RunFolder, config: dict[str, Any], data: Any, data_dir: str | None) -> tuple[Any, dict[str, Any]]:
    """The data with which a run goes on, and the entries of its configuration that say where they are now.

    `data` are the same data in memory or under another name; None stands for the name in the configuration. A name
    without a treatment of the pixels, or without a file of labels, has that of the run.
    """
    if data is not None and not isinstance(data, (str, Path)):
        return data, {}
    before = config["data"]
    name = before if data is None else data_sets.anywhere(data)
    if name != before and not data_sets.split_labels(name)[1]:
        base, labels = data_sets.split_labels(before)
        if split_suffix(name)[1] is None and (treatment := split_suffix(base)[1]):
            name = f"{name}-{treatment}"
        name = data_sets.with_labels(name, Path(labels)) if labels else name
    place = {"data": name, "data_dir": data_dir or config.get("data_dir")}
    try:
        loaded = data_sets.load(name, place["data_dir"])
    except DataError as fault:
        if data is not None:
            raise
        raise DataError(f"{str(fault).rstrip('.')}; {run.path} was trained on them: say where they are now, "
                        f"tinyvae train DATA --resume {run.path}, or in Python tv.resume({str(run.path)!r}, data=data)"
                        ) from None
    return loaded, {} if all(config.get(name) == value for name, value in place.items()) else place


def anew(run: RunFolder) -> str:
    """How to start a new run from a run's parameters with data that are in memory."""
    return f"start a new run from its parameters: tv.fit(model, data, init_from={str(run.path)!r})"


def check_data(meta: dict[str, Any], data: Any, path: Path, cure: str = "") -> None:
    """Raise CheckpointError if these are not the data that a checkpoint of the run at `path` was trained on.

    `cure` stands for the advice to start a new run.
    """
    then = meta.get("data_sha256")  # runs of version 0.2.0 and before have none
    if then is not None and isinstance(data, DataSet) and (now := data.fingerprint) != then:
        anew = cure or f"start a new run from its parameters: tinyvae train {data.name} --init-from {path}"
        raise CheckpointError(f"{path} was trained on other data: the SHA-256 of {meta['data']} was {then[:12]}, and "
                              f"that of {data.name} is {now[:12]}; put the data back, or {anew}")
