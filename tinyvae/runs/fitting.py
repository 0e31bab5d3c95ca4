"""`fit` begins a training and `resume` goes on with one; with a run folder both are the same code.

A new run writes its folder and then continues from step 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyvae import data as data_sets
from tinyvae.choices import counted
from tinyvae.data import DataSet
from tinyvae.engine.devices import namespace
from tinyvae.models import Model, check_finite, check_model
from tinyvae.progress import watched
from tinyvae.runs import environment, files, log, schema
from tinyvae.runs.files import CheckpointError
from tinyvae.runs.folder import RunFolder, check_uses, configuration
from tinyvae.runs.loading import anew, built, check_data, data_of, take_parameters
from tinyvae.runs.loop.epochs import OnEpoch, OnStep, all_epochs, train, watching
from tinyvae.runs.loop.together import follow, lead
from tinyvae.training.batches import STEP
from tinyvae.training.epochs import Training
from tinyvae.training.fingerprint import fingerprint
from tinyvae.training.settings import Settings, described, may_change
from tinyvae.training.shards.nccl import check_exchange
from tinyvae.training.shards.ranks import ranks


def fit(model: Model, data: Any, out: str | Path | None = None, on_step: OnStep | None = None,
        on_epoch: OnEpoch | None = None, quiet: bool = False, init_from: str | Path | None = None,
        exchange: str = "mpi", **settings: Any) -> list[dict[str, Any]]:
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
    init_from
        A run folder or a checkpoint of a model of the same configuration: the training begins with its parameters.
    exchange
        How several processes of mpiexec exchange gradients: "mpi", or "nccl" from GPU to GPU. The bits are the same.
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
    CheckpointError
        If the folder cannot be made or written, or `init_from` cannot be read.
    """
    check_model(model, on_step=on_step, on_epoch=on_epoch)
    if init_from is None:
        check_finite(model, "from which nothing can be learned")
    chosen = Settings.from_dict({**model.defaults_beside(settings), **settings})
    data = data_sets.load(data) if isinstance(data, (str, Path)) else data
    with model.parameters.trained():
        origin = {} if init_from is None else {"init_from": initial(model, chosen, init_from)}
        training = Training(model, data, chosen, exchange)
        with _with_bar(training, on_step, on_epoch, quiet) as (step, epoch):
            if out is not None and not training.ranks.rank:
                run = RunFolder(out)
                with run.begun(configuration(model, data.name, chosen, **origin)):
                    run.constant = {"data_sha256": data.fingerprint, **origin}
                    run.save_last(training)
                    train(run, training, step, epoch)
                    return log.read_lines(run.metrics, schema.is_record)
            records: list[dict[str, Any]] = []

            def noted(record: dict[str, Any], timings: dict[str, Any]) -> None:
                records.append(record)
                epoch(record, timings)

            with nullcontext(lambda: False) if out is None else watching(training) as asked:
                all_epochs(training, asked, step, noted)
            return records


fit.__doc__ = (fit.__doc__ or "").replace("SETTINGS", described("        "))


def initial(model: Model, settings: Settings, path: str | Path) -> dict[str, Any]:
    """Copy the parameters of the run at `path` into the model; returns the configuration's entry for that."""
    if settings.data_mean_bias:
        raise ValueError(f"found data_mean_bias with init_from={path}, whose bias it would replace; leave one of them "
                         "out")
    return take_parameters(model, path)


def resume(path: str | Path, data: Any = None, epochs: int | None = None, on_step: OnStep | None = None,
           on_epoch: OnEpoch | None = None, device: str = "cpu", quiet: bool = False, exchange: str = "mpi",
           **changes: Any) -> list[dict[str, Any]]:
    """Continue a run; returns the records of all its epochs. The bits are those of an uninterrupted run.

    The parameters are those of `fit`. `data` is needed if the data have no name that `tv.data.load` knows, or moved
    (the run then records their new name); other data than those of the run are refused. `epochs` replaces the number of
    epochs, and `changes` replace other settings from here on, which the run records: lr=3e-4. CHANGES can change.

    Raises CheckpointError if the folder holds no run that can go on, or another process trains it; ValueError for a
    setting that cannot change; TrainingError as `fit` does.
    """
    if (team := ranks()).rank:
        follow(team, data)
        return team.from_first(None)
    run = RunFolder(path)
    run.check_path()
    with run.locked():
        _, training = prepare(run, data, device=device, exchange=exchange, epochs=epochs, **changes)
        lead(run, training, None, device)
        with _with_bar(training, on_step, on_epoch, quiet) as (step, epoch):
            train(run, training, step, epoch)
        return team.from_first(log.read_lines(run.metrics, schema.is_record))


resume.__doc__ = (resume.__doc__ or "").replace("CHANGES", ", ".join(may_change()))


# ---- a run folder as a training --------------------------------------------------------------------------------------


def prepare(path: str | Path | RunFolder, data: Any = None, data_dir: str | None = None, device: str = "cpu",
            exchange: str = "mpi", **changes: Any) -> tuple[RunFolder, Training]:
    """A run folder and its training, restored to the last checkpoint, or begun where there is none yet.

    `changes` replace settings; None stands for no change. Checkpoints do not depend on the device, so a training can
    continue on another one, and with another exchange.
    """
    run = path if isinstance(path, RunFolder) else RunFolder(path)
    wanted = {name: value for name, value in changes.items() if value is not None}
    for name in wanted:
        if name not in may_change():
            raise ValueError(f"found {name}, which cannot change within a run (only {', '.join(may_change())} can); "
                             f"leave it out, or start a new run from these parameters with init_from={run.path}")
    run.check_path()
    check_exchange(exchange, namespace(device))  # raises an error before anything is read
    with run.locked():  # the lock comes before every change of the configuration and the logs
        config = run.config()
        check_uses(config, run.path)
        schema.check_options(config["model"], run.config_file, schema.UNDO)
        if run.is_new():
            return run, _begin(run, config, data, data_dir, device, exchange, wanted)
        if other := environment.differing(config.get("environment", {}), config["settings"].get("shards", 1) > 1):
            what = "other variables" if other.startswith("NUMBA") else "another BLAS"
            warnings.warn(f"the run began under {what} ({other}): it goes on, but its bits may differ from those "
                          "of an uninterrupted run", RuntimeWarning, stacklevel=2)
        meta, shapes = run.sealed()
        _check_agreement(run, config, meta, wanted)
        check_uses(meta, run.path)
        schema.check_parameters(meta["model"], shapes, run.last, schema.ANOTHER)
        before = Settings.from_dict(meta["settings"])
        settings = Settings.from_dict(asdict(before) | wanted)
        if "epochs" in wanted and settings.epochs < meta["epoch"]:
            raise ValueError(f"{run.path} has done {counted(meta['epoch'], 'epoch')} already, more than "
                             f"epochs={settings.epochs}; leave --epochs out, or ask for more")
        if data is None and "data_sha256" not in meta and config["data"] != meta["data"]:
            raise CheckpointError(_disagreement(run, meta, "data", config["data"], meta["data"]))
        loaded, place = data_of(run, config, data, data_dir)
        check_data(meta, loaded, run.path, anew(run) if isinstance(data, DataSet) else "")
        model = built(meta["model"], device, run.last, schema.ANOTHER)
        try:
            training = Training(model, loaded, settings, exchange)
        except ValueError as fault:
            if wanted:
                raise ValueError(f"{fault}; leave {' and '.join(wanted)} out, or start a new run from these parameters:"
                                 f" tinyvae train --init-from {run.path}") from None
            if data is not None and "data_sha256" not in meta:  # it may be the fault of the caller's data
                raise
            raise CheckpointError(f"{run.last}: {fault}; {schema.ANOTHER}") from None
        run.restore(training)
        try:
            check_finite(model, "from which no training goes on")
        except ValueError as fault:
            raise CheckpointError(f"{run.last}: {fault}") from None
        run.constant = {name: meta[name] for name in ("changes", "init_from") if name in meta}
        run.constant["data_sha256"] = meta.get("data_sha256") or loaded.fingerprint
        _record(run, config | place, training, before, moved=bool(place))
    return run, training


def _begin(run: RunFolder, config: dict[str, Any], data: Any, data_dir: str | None, device: str,
           exchange: str, changes: dict[str, Any]) -> Training:
    """The training of a folder that holds only its configuration, with the checkpoint of step 0."""
    settings = Settings.from_dict(config["settings"] | changes)
    model = built(config["model"], device, run.config_file, schema.UNDO)
    origin = {} if "init_from" not in config else {"init_from": initial(model, settings, config["init_from"]["run"])}
    own = fingerprint(model.parameters.arrays())
    if config.get("initial", own) != own:
        raise CheckpointError(f"{run.path} was stopped before its first checkpoint, and its parameters "
                              f"{config['initial']} cannot be made again (found {own}): remove the folder, in which "
                              "nothing was trained, and start again")
    loaded, place = data_of(run, config, data, data_dir)
    training = Training(model, loaded, settings, exchange)
    if changes or place:
        files.write_json(run.config_file, config | place | {"settings": asdict(settings)})
    files.sweep(run.path)
    run.constant = {"data_sha256": loaded.fingerprint, **origin}
    run.save_last(training)
    return training


def _check_agreement(run: RunFolder, config: dict[str, Any], meta: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise CheckpointError at the first difference between config.json and the sealed state, except in `wanted`."""
    says, was = ({"settings": asdict(Settings.from_dict(entry["settings"])), "changes": entry.get("changes", [])}
                 for entry in (config, meta.get("was", meta)))
    if "was" in meta and says == was:  # stopped between the state and config.json, while a change was made
        return
    sealed = asdict(Settings.from_dict(meta["settings"]))
    found = [(f"the model's {name}", a, b) for name, a, b in schema.differences(config["model"], meta["model"])]
    found += [(name, value, sealed[name]) for name, value in says["settings"].items()
              if value != sealed[name] and name not in wanted]
    found += [(name, config.get(name), meta.get(name)) for name in ("changes", "init_from")
              if config.get(name) != meta.get(name)]
    for name, ours, theirs in found:
        raise CheckpointError(_disagreement(run, meta, name, ours, theirs))


def _disagreement(run: RunFolder, meta: dict[str, Any], name: str, says: Any, sealed: Any) -> str:
    cure = (f"make the change on purpose: tinyvae train --resume {run.path} --{name.replace('_', '-')} {says}"
            if name in may_change() else
            f"start a new run from these parameters: tinyvae train {meta['data']} --init-from {run.path}")
    return (f"{run.config_file} says {name}={schema.shown(says)}, and the state in {run.last.name} was trained with "
            f"{name}={schema.shown(sealed)}: undo the edit, put the run's own {run.last.name} back, or {cure}")


def _record(run: RunFolder, config: dict[str, Any], training: Training, before: Settings, moved: bool) -> None:
    """Write changed settings into the state and then into config.json; `moved`: it says where the data are now.

    Between the two writes the state says what config.json still says, so a kill there is no disagreement.
    """
    old, new = asdict(before), asdict(training.settings)
    changed = {name: [old[name], value] for name, value in new.items() if value != old[name]}
    said = {"settings": asdict(Settings.from_dict(config["settings"])), "changes": config.get("changes", [])}
    if changed:
        # With a constant rate a longer run is the same as one that was planned so; else the change is recorded.
        scheduled = training.epoch and training.settings.schedule != "constant"
        if "epochs" in changed and scheduled:
            warnings.warn(f"the {training.settings.schedule} schedule now runs over {new['epochs']} epochs, not "
                          f"{old['epochs']}: the result differs from that of a run that began with {new['epochs']}",
                          RuntimeWarning, stacklevel=4)
        if scheduled or set(changed) != {"epochs"}:
            change = {"epoch": training.epoch, "step": training.now(STEP), **changed}
            run.constant["changes"] = [*run.constant.get("changes", []), change]
        run.constant["was"] = said
        run.save_last(training)
        del run.constant["was"]
    now = {name: value for name, value in run.constant.items() if name == "changes"} | {"settings": new}
    if moved or {"changes": [], **now} != said:
        files.write_json(run.config_file, config | now)


# ---- a bar -----------------------------------------------------------------------------------------------------------


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
