"""A training in several processes of mpiexec: rank 0 reads, checks and writes, and tells the others what to train."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyvae import data as data_sets
from tinyvae.data import DataSet
from tinyvae.engine.devices import to_host
from tinyvae.engine.fusion import tf32
from tinyvae.models import extensions
from tinyvae.runs import schema
from tinyvae.runs.folder import RunFolder
from tinyvae.runs.loading import built
from tinyvae.runs.loop.epochs import all_epochs, watching
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings
from tinyvae.training.shards.ranks import Ranks


def lead(run: RunFolder, training: Training, data_dir: str | None, device: str, with_tf32: bool = False) -> None:
    """Tell the other processes of mpiexec what to train: a run's model, data and settings, and the state it is in.

    `data_dir` is the folder of the data if it is another one than the run's own.
    """
    team = training.ranks
    if team.size == 1:
        return
    team.led = True
    config = run.config()
    team.from_first({
        "model": training.model.config, "data": config["data"], "data_dir": data_dir or config.get("data_dir"),
        "data_sha256": run.constant["data_sha256"], "settings": asdict(training.settings), "uses": extensions.PATHS,
        "state": {name: to_host(array) for name, array in training.state().items()},
        "place": {name: getattr(training, name) for name in ("epoch", "best", "best_epoch")},
        "first_losses": training.first_losses(), "device": device, "exchange": training.exchange, "tf32": with_tf32})


def follow(team: Ranks, data: Any = None) -> list[dict[str, Any]]:
    """Train along with rank 0, which says what, and alone writes files; returns the records of the epochs.

    `data` is the data set of the run, where its name does not say where it is.
    """
    plan = team.from_first(None)
    if plan is None:  # it found nothing to train
        return []
    for path in plan["uses"].values():
        extensions.use(path)
    model = built(plan["model"], plan["device"], Path("rank 0"), schema.ANOTHER)
    if not isinstance(data, DataSet):
        data = data_sets.load(plan["data"], plan["data_dir"])
    if data.fingerprint != plan["data_sha256"]:
        raise ValueError(f"rank {team.rank} found {data.name} with other contents than rank 0 has; expected the same "
                         "files on every machine")
    training = Training(model, data, Settings.from_dict(plan["settings"]), plan["exchange"])
    for name, array in training.state().items():
        array[...] = training.xp.asarray(plan["state"][name])
    for name, value in plan["place"].items():
        setattr(training, name, value)
    training.set_first_losses(plan["first_losses"])
    records: list[dict[str, Any]] = []
    with watching(training) as asked, tf32(plan["tf32"]):
        all_epochs(training, asked, None, lambda record, _: records.append(record))
    return records
