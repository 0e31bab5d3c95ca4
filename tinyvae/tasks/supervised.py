"""What unlabelled data are worth: the supervised network of the same size, trained on the same labels beside a run.

It is a run of its own in the folder `supervised` of the run, with the same data, settings and seed, so it resumes like
any other, and its steps see the same labelled rows in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tinyvae import runs
from tinyvae.choices import an, counted
from tinyvae.data import DataSet
from tinyvae.models import MODELS, Model, model_for
from tinyvae.runs import RunFolder
from tinyvae.tasks.classification import Classified, classify, gain
from tinyvae.training.epochs import Training

FOLDER, KIND = "supervised", "classifier"


def check_kind(kind: str) -> None:
    """Raise ValueError for a kind of model beside which a supervised network makes no sense."""
    if kind == KIND or MODELS[kind].classify is Model.classify:
        why = "is that network itself" if kind == KIND else "has no classifier to compare it with"
        raise ValueError(f"found --supervised with {an(kind)}, which {why}: leave it out")


def gained(run: RunFolder, training: Training, data_dir: str | None = None, device: str = "cpu") -> Gain:
    """Train the supervised network, or the rest of it, and return what the run has gained over it.

    Interrupted if it was stopped; the same call goes on with it.
    """
    with beside(run, training, data_dir, device) as (folder, other):
        try:
            runs.train(folder, other)
        except runs.Interrupted as stop:
            raise runs.Interrupted(str(stop).replace(str(folder.path), str(run.path))) from None
    return compare(run.path, training.data)


@contextmanager
def beside(run: RunFolder, training: Training, data_dir: str | None = None,
           device: str = "cpu") -> Iterator[tuple[RunFolder, Training]]:
    """The supervised network's run in the folder of another run, begun or going on, and locked within this block."""
    model, settings = training.model, training.settings
    folder = RunFolder(run.path / FOLDER)
    if folder.config_file.exists():
        with folder.locked():
            yield runs.prepare(folder, data_dir=data_dir, device=device, epochs=settings.epochs)
        return
    options = {name: model.config[name] for name in ("hidden", "activation", "dtype", "init", "seed")
               if name in model.config}  # fmt: skip
    other = model_for(KIND, training.data, device, **options)
    plain = replace(settings, beta=1.0, warmup=0.0, bound="elbo-b", gradient="path", estimator="", baseline="none",
                    samples=1)  # without z there is nothing to draw
    with folder.begun(runs.configuration(other, training.data.name, plain, data_dir=data_dir)):
        yield runs.prepare(folder, data_dir=data_dir, device=device)


@dataclass(frozen=True)
class Gain:
    """Two accuracies on the same test data and their difference, each with its standard error; higher is better."""

    kind: str
    labels: int
    model: tuple[float, float]
    supervised: tuple[float, float]
    gain: tuple[float, float]
    count: int

    def __str__(self) -> str:
        (own, own_error), (other, other_error), (more, error) = self.model, self.supervised, self.gain
        return (f"{counted(self.labels, 'label')}, {self.count:,} test data: {self.kind} {own:.2%} ± {own_error:.2%} "
                f"right, the supervised net of the same size {other:.2%} ± {other_error:.2%}; gain {100 * more:+.2f} ± "
                f"{100 * error:.2f} points, paired by datum")

    def to_dict(self) -> dict[str, float]:
        found: dict[str, float] = {"labels": self.labels, "test_data_count": self.count}
        for name in ("model", "supervised", "gain"):
            value, error = getattr(self, name)
            name = name if name == "gain" else f"{name}_accuracy"
            found |= {name: value, f"{name}_stderr": error}
        return found


def compare(path: str | Path, data: DataSet) -> Gain:
    """The gain of the run at `path` over the supervised network in it, on test data; `data` are those of its training.

    Each is the model of its best epoch, as `load` gives it.
    """
    model, other = runs.load(path), runs.load(Path(path) / FOLDER)
    own, rival = (classify(each, data) for each in (model, other))
    return gain_of(model.kind, own, rival, data)


def gain_of(kind: str, own: Classified, rival: Classified, data: DataSet) -> Gain:
    """The gain of one classification over another one of the same data."""
    labels = 0 if data.train_labels is None else int((data.train_labels >= 0).sum())
    return Gain(kind, labels, own.accuracy(), rival.accuracy(), gain(own, rival), len(own.known))
