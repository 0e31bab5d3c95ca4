"""Which of the training data are held out for validation, and of which the labels are used."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from tinyvae.choices import an, counted
from tinyvae.data import DataSet, split_labels, ways_to_label
from tinyvae.data.mapped.rows import selected
from tinyvae.engine.noise import permutation
from tinyvae.models import MODELS, Model
from tinyvae.training.settings import Settings


def select(data: DataSet, settings: Settings) -> DataSet:
    """The data of a training: without those that are held out, and with the labels of a few if `labels` says so."""
    return few_labels(hold_out(data, settings.validation, settings.seed), settings.labels, settings.seed)


def check_labels(model: Model, settings: Settings) -> None:
    """Raise ValueError for a number of labels with a model that does not learn from few."""
    if not settings.labels or "labelled" in model.needs:
        return
    if "y" in model.needs:
        raise ValueError(f"found labels={settings.labels} with {an(model.kind)}, which needs the label of each datum: "
                         "leave labels out")
    learners = [kind for kind, family in MODELS.items() if "labelled" in family.needs]
    raise ValueError(f"found labels={settings.labels} with {an(model.kind)}, which reads no labels; models that learn "
                     f"from few are {', '.join(learners)}: take one of them, or leave labels out")


def check_classes(data: DataSet) -> None:
    """Raise ValueError for a class that has a name, or that validation or test data have, and no training label."""
    others = [labels for labels in (data.valid_labels, data.test_labels) if labels is not None]
    wanted = set(range(len(data.class_names or ()))).union(*(labels[labels >= 0].tolist() for labels in others))
    known = set() if data.train_labels is None else set(data.train_labels.tolist())
    if lacking := sorted(wanted - known):
        name = data.class_names[lacking[0]] if data.class_names else lacking[0]
        file = split_labels(data.name)[1]
        raise ValueError(f"found no training label of class {name} of {data.name}, which could not be learned; "
                         f"expected at least one of each of its {len(wanted)} classes: give one of that class"
                         f"{f' in {file}' if file else ''}, or leave its data out of all parts")


def hold_out(data: DataSet, count: int, seed: int) -> DataSet:
    """Move `count` training data into the validation part, chosen by the stream "split"."""
    if not count:
        return data
    if data.valid is not None:
        warnings.warn(f"{data.name} has a validation part of {len(data.valid)} data, which is not used: validation="
                      f"{count} takes others, out of the training data", RuntimeWarning, stacklevel=2)
    if count >= len(data.train):
        raise ValueError(f"found validation={count} of {len(data.train)} training data; some must be left to train on")
    order = permutation(seed, "split", 0, len(data.train))
    kept, held = np.sort(order[count:]), np.sort(order[:count])
    parts = {kind: array for kind in ("", "_labels", "_mask") if (array := getattr(data, f"train{kind}")) is not None}
    return replace(data, **{f"train{kind}": selected(array, kept) for kind, array in parts.items()},
                   **{f"valid{kind}": selected(array, held) for kind, array in parts.items()})


def few_labels(data: DataSet, count: int, seed: int) -> DataSet:
    """Keep `count` training labels, the same number of each class, chosen by the stream "labels"; the others are -1.

    ValueError if there are no labels, or a class has fewer than its share.
    """
    if not count:
        return data
    labels, classes = data.train_labels, data.classes
    if labels is None:
        raise ValueError(f"found labels={count} with {data.name}, whose training data have no labels; "
                         f"{ways_to_label(data)}, or leave labels out")
    # each class has as many as the rarest can give
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    most, rarest = int(counts.min()) * classes, int(counts.argmin())
    name = data.class_names[rarest] if data.class_names else rarest
    if not most:
        raise ValueError(f"found labels={count}, the same number of each class, and class {name} of {data.name} has no "
                         f"training label; expected at least one of each of its {classes} classes: give one of that "
                         "class, or leave its data out of all parts")
    if count % classes and count < most:
        near = max(1, round(count / classes)) * classes
        raise ValueError(f"found labels={count} with the {classes} classes of {data.name}; expected a multiple of "
                         f"{classes}, so that each class has the same number: labels={near}")
    if count > most:
        raise ValueError(f"found labels={count}, the same number of each of the {classes} classes of {data.name}, and "
                         f"class {name} has {counted(most // classes, 'training label')}; expected at most "
                         f"labels={most}")
    share, kept = count // classes, np.full_like(labels, -1)
    order = permutation(seed, "labels", 0, len(labels))
    for number in range(classes):
        kept[order[labels[order] == number][:share]] = number
    return replace(data, train_labels=kept)
