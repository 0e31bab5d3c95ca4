"""Classes of data by a model that has a classifier: probabilities, and how right and how honest they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.choices import an
from tinyvae.data import DataSet, as_data_set
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.diagnostics import mean_and_error
from tinyvae.evidence.evaluation import BATCH, batches_of
from tinyvae.models import MODELS, Batch, Model, check_model

BINS = 10  # of the reliability plot, of equal width over the confidences from 0 to 1


def check_classifier(model: Model) -> None:
    """Raise TypeError for what is no model, and ValueError for a model without a classifier."""
    check_model(model)
    if not model.has("classify"):
        own = [kind for kind, family in MODELS.items() if family.classify is not Model.classify]
        raise ValueError(f"found {an(model.kind)}, which has no classifier; expected a model that learned from labels: "
                         f"{', '.join(own)}")


@dataclass(frozen=True)
class Classified:
    """What a model says of data.

    Attributes
    ----------
    probabilities : (count, classes) p(y|x), each row's sum is 1
    labels : (count,) the true classes, -1 where unknown; None if none is known
    names : of the classes
    """

    probabilities: np.ndarray
    labels: np.ndarray | None
    names: tuple[str, ...]

    @property
    def classes(self) -> np.ndarray:
        """The most probable class of each datum, (count,)."""
        return self.probabilities.argmax(1)

    @property
    def known(self) -> np.ndarray:
        """The numbers of the data whose label is known."""
        return np.zeros(0, int) if self.labels is None else np.flatnonzero(self.labels >= 0)

    def right(self) -> np.ndarray:
        """1 where the class is the label and 0 where not, of the data with labels."""
        if self.labels is None:
            return np.zeros(0)
        return (self.classes == self.labels)[self.known].astype(np.float64)

    def accuracy(self) -> tuple[float, float]:
        """The share of the data with labels whose class is right, and its standard error."""
        return mean_and_error(self.right())

    def __str__(self) -> str:
        count = f"{len(self.probabilities):,} data, {len(self.names)} classes"
        if not len(self.known):
            return f"{count}, no label known"
        accuracy, error = self.accuracy()
        return (f"{count}: accuracy {accuracy:.2%} ± {error:.2%} of {len(self.known):,} data with labels (higher is "
                f"better); expected calibration error {self.calibration().error:.2%} in {BINS} bins of equal width "
                "(lower is better)")

    def confusion(self) -> np.ndarray:
        """How many data of each label (row) got each class (column), (classes, classes)."""
        found = np.zeros((len(self.names), len(self.names)), int)
        if self.labels is not None:
            np.add.at(found, (self.labels[self.known], self.classes[self.known]), 1)
        return found

    def calibration(self, bins: int = BINS) -> Calibration:
        """How often the class is right, by the probability that the model gives it, in `bins` bins of equal width."""
        confidence, right = self.probabilities.max(1)[self.known], self.right()
        number = np.minimum((confidence * bins).astype(int), bins - 1)
        counts = np.bincount(number, minlength=bins)
        sums = (np.bincount(number, values, bins) for values in (confidence, right))
        with np.errstate(invalid="ignore"):
            mean_confidence, accuracy = (total / counts for total in sums)
        gap = np.where(counts > 0, np.abs(accuracy - mean_confidence), 0.0)
        return Calibration(mean_confidence, accuracy, counts, float((counts * gap).sum() / max(counts.sum(), 1)))


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy in bins of the confidence; NaN in a bin without data.

    `error` is the expected calibration error, sum over bins of count / all |accuracy - confidence| (Naeini et al.
    2015); lower is better. It depends on the bins.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray
    error: float


def classify(model: Model, data: DataSet | np.ndarray | str, part: str = "test", seed: int = 0) -> Classified:
    """The classes of a part of a data set, or of an array (count, pixels) in [0, 1].

    Pixels that are drawn at each use are those that `evaluate` draws.

    Raises
    ------
    ValueError
        For a model without a classifier, and for data that it cannot take.
    """
    check_classifier(model)
    data = as_data_set(data)
    found = [model.classify(batch).numpy() for batch in batches_of(model, data, seed, part)]
    return _classified(np.concatenate(found), getattr(data, f"{part}_labels"), data)


def classify_images(model: Model, images: np.ndarray, data: DataSet | None = None) -> Classified:
    """The classes of images (count, pixels) in [0, 1] without labels; `data` knows the names of the classes.

    A grey value stands for the probability of a pixel that is drawn.
    """
    check_classifier(model)
    rows = [model.tensor(images[start : start + BATCH], model.pixels, "images")
            for start in range(0, len(images), BATCH)]
    with model.parameters.used():
        found = [model.classify(Batch(Tensor(x.data))).numpy() for x in rows]
    return _classified(np.concatenate(found), None, data)


def gain(found: Classified, other: Classified) -> tuple[float, float]:
    """By how much the first is right more often than the second on the same data, and the standard error of that
    difference, paired by datum."""
    return mean_and_error(found.right() - other.right())


def _classified(probabilities: np.ndarray, labels: np.ndarray | None, data: DataSet | None) -> Classified:
    wide: Any = probabilities.astype(np.float64)
    names = (data.class_names if data is not None else None) or tuple(map(str, range(wide.shape[1])))
    return Classified(wide / wide.sum(1, keepdims=True), labels, names)
