"""Which array of a file is what, by its name; and labels of any kind as whole numbers.

A name is read by its words: one may name a part (`train`, `test`, `val`, ...), one a role (`x`, `images`, `labels`,
`y`, ...). So "x_train", "trainX", "train_images" and "train" all name the training images.
"""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.choices import counted
from tinyvae.data.checks import DataError, number, sameness
from tinyvae.data.dataset import CHANNELS, COLOURS, PARTS, TABLES, DataSet, held_out
from tinyvae.data.formats import Arrays, Stored
from tinyvae.data.mapped.rows import selected
from tinyvae.data.rows import (
    as_counts,
    as_pixels,
    brightness,
    channels_last,
    colour_axis,
    image_shape,
    observed,
    standardised,
)

WORDS = {"train": "train", "training": "train", "tr": "train", "test": "test", "testing": "test", "te": "test",
         "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid"}  # fmt: skip
ROLES = {
    **dict.fromkeys(("x", "image", "images", "img", "imgs", "data", "pixels", "feature", "features", "input", "inputs"),
                    "images"),
    **dict.fromkeys(("y", "label", "labels", "target", "targets", "class", "classes"), "labels"),
}  # fmt: skip
IGNORED = ("idx", "ubyte", "1", "3")  # of the file names of MNIST
ALIASES = {"t10k": "test", "arr_0": "images"}  # the test part of MNIST; the first array of np.savez without a name

Parts = dict[str, np.ndarray]  # an array of each part
Role = tuple[str, str]  # the part, "" if the name says none, and "images" or "labels"


def role_of(name: str) -> Role | None:
    """The part and the role that the words of a name say; None if there is another word among them."""
    for alias, plain in ALIASES.items():
        name = name.replace(alias, plain)
    name = re.sub("^([xyXY])(?=tr|te|val)", r"\1_", name)  # "xtrain"
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
    parts = {WORDS[word] for word in words if word in WORDS}
    roles = {ROLES[word] for word in words if word in ROLES}
    if not (parts or roles) or len(parts) > 1 or not all(word in (*WORDS, *ROLES, *IGNORED) for word in words):
        return None
    return parts.pop() if parts else "", "labels" if "labels" in roles else "images"


def data_set_of(path: Path | str, arrays: Arrays, treatment: str | None = None,
                columns: tuple[str, ...] | None = None, class_names: tuple[str, ...] | None = None) -> DataSet:
    """The data set of the arrays of a file or folder, with grey values or colours; only the arrays that it needs are
    read.

    With the `treatment` gray images in colour become grey, and with real or counts it holds such numbers instead, and
    `columns` names them. Data without a test part are split at random. NaN stands for a missing value. Raises
    DataError.
    """
    roles = _roles(path, arrays)
    parts = {part: roles[part, "images"] for part in PARTS if (part, "images") in roles}
    keys = {part: roles[part, "labels"] for part in parts if (part, "labels") in roles}
    images = {key: _images(arrays[key], f"{path} ({key})", treatment) for key in parts.values()}
    shapes = {key: image_shape(stored, f"{path} ({key})") for key, stored in images.items()}
    flat = all(len(stored.shape) == 2 for stored in images.values())
    if treatment in COLOURS and (grey := [shape for shape in shapes.values() if len(shape) == 2]):
        raise DataError(f"{path} holds grey images of {grey[0][0]} x {grey[0][1]}; expected red, green and blue, shape "
                        "(count, rows, columns, 3): take -gray.")
    if treatment in TABLES:  # without the channels of a picture
        shapes = {key: (1, math.prod(shape)) if flat or len(shape) > 2 else shape for key, shape in shapes.items()}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise DataError(f"{path} has images of different sizes: {sizes}; expected one size.")
    labels, names = _labels(path, {part: (arrays[key], images[parts[part]].shape[0]) for part, key in keys.items()})
    used = {*parts.values(), *keys.values()}
    if unused := [f"{key} {_described(stored)}" for key, stored in arrays.items() if key not in used]:
        warnings.warn(f"{path} has arrays that are not used: {', '.join(unused)}; used are "
                      f"{', '.join(key for key in arrays if key in used)}", stacklevel=2)
    rows = [images[key].read().reshape(images[key].shape[0], -1) for key in parts.values()]
    rows, masks = observed(rows, str(path))
    numbers, scale = (as_pixels(rows, str(path), flat) if treatment not in TABLES else
                      (as_counts(rows, str(path)) if treatment == "counts" else rows, 1.0))
    found = dict(zip(parts, numbers, strict=True))
    if treatment not in TABLES and (same := sameness(found["train"])):
        warnings.warn(f"{path} has nothing to learn from: {same}", stacklevel=2)
    seen = {} if masks is None else dict(zip(parts, masks, strict=True))
    if "test" not in found:
        found, labels, seen = _split(path, found, labels, seen)
    more: dict[str, Any] = {"pixels": treatment, "likelihood": TABLES[treatment]} if treatment in TABLES else {}
    if treatment == "real":
        named = columns or tuple(map(str, range(1, found["train"].shape[1] + 1)))
        found, more["center"], more["spread"] = standardised(found, seen, named, str(path))
    for part, mask in seen.items():
        found[part] = np.where(mask, found[part], found[part].dtype.type(0))
    shape, more = shapes[parts["train"]], more | {f"{part}_mask": mask for part, mask in seen.items()}
    if len(shape) == 3:
        more["pixels"] = "color"
    return DataSet(
        str(path), found["train"], found["test"], shape, scale, train_labels=labels.get("train"),
        test_labels=labels.get("test"), valid=found.get("valid"), valid_labels=labels.get("valid"),
        class_names=names or class_names, columns=columns, **more,
    )


def _roles(path: Path | str, arrays: Arrays) -> dict[Role, str]:
    """The name of the array in each role; the images always have the part "train"."""
    roles: dict[Role, str] = {}
    for key in arrays:
        role = role_of(key)
        if role is not None:
            if role in roles:
                what = " ".join(filter(None, role))
                raise DataError(f"{path} has two arrays of {what}, {roles[role]} and {key}; expected one: store the "
                                "set again without the other.")
            roles[role] = key
    for kind in ("images", "labels"):  # an array without a part is that of the training data
        if plain := roles.pop(("", kind), None):
            roles.setdefault(("train", kind), plain)
    if ("train", "images") not in roles:
        others = [key for key, stored in arrays.items() if key not in roles.values()]
        likely = [key for key in others if len(arrays) == 1 or (len(arrays[key].shape) > 1 and
                                                                arrays[key].dtype.kind in "buif")]
        if len(likely) != 1 or ("test", "images") in roles:
            there = ", ".join(f"{key} {_described(stored)}" for key, stored in arrays.items()) or "(none)"
            raise DataError(f"{path} has the arrays {there}; expected train and test, or images: store the set again "
                            "with such names.")
        roles["train", "images"] = likely[0]
    return roles


def _images(stored: Stored, what: str, treatment: str | None) -> Stored:
    """An array of images, of which those in colour have their channels last, or are grey if the treatment is; with a
    line where its shape could mean something else."""
    count, *rest = stored.shape or (0,)
    axis, side = colour_axis(stored.shape), math.isqrt(math.prod(rest) // CHANNELS)
    if treatment not in TABLES and len(rest) == 1 and side >= 8 and rest[0] == CHANNELS * side * side:
        warnings.warn(f"{what} has rows of {rest[0]} numbers, which are taken as grey images of one row; if they are "
                      f"{side} x {side} pixels in colour, store images.reshape(-1, 3, {side}, {side}), or "
                      f"images.reshape(-1, {side}, {side}, 3) if the three numbers of a pixel stand together",
                      stacklevel=2)
    if treatment not in TABLES and len(rest) == 2 and rest[1] == CHANNELS and min(count, rest[0]) >= 8:
        warnings.warn(f"{what} has shape {stored.shape}, which is taken as {count} grey images of {rest[0]} x 3; if it "
                      "is one image in colour, store several, np.stack(images)", stacklevel=2)
    if axis is None:
        return stored
    first, last = (3, 2) if axis == 2 else (0, axis)  # of the images, of the channels
    if axis == 2:
        warnings.warn(f"{what} has shape {stored.shape}, which is taken as {stored.shape[3]} images of "
                      f"{stored.shape[0]} x {stored.shape[1]} in colour, along the last axis", stacklevel=2)
    size = [n for number, n in enumerate(stored.shape) if number not in (first, last)]
    shape = (stored.shape[first], *size, CHANNELS)
    if treatment != "gray":
        return Stored(shape, stored.dtype, lambda: channels_last(stored.read()))
    warnings.warn(f"{what} holds images in colour; -gray takes their brightness, 0.299 red + 0.587 green + 0.114 blue",
                  stacklevel=2)
    return Stored(shape[:3], stored.dtype, lambda: brightness(channels_last(stored.read())))


def _described(stored: Stored) -> str:
    return f"{stored.shape} {stored.dtype}"


def _split(path: Path | str, *of_parts: Parts) -> tuple[Parts, ...]:
    """A tenth of the training data, but at least one image, becomes the test part at random."""
    count = len(of_parts[0]["train"])
    if count < 2:
        raise DataError(f"{path} holds {count} image; expected at least 2, one to train and one to test.")
    split = dict(zip(("train", "test"), held_out(count, max(1, count // 10)), strict=True))

    def parted(of: Parts) -> Parts:
        return of | {part: selected(of["train"], index) for part, index in split.items()} if "train" in of else of

    return tuple(map(parted, of_parts))


# ---- labels ----------------------------------------------------------------------------------------------------------


def _labels(path: Path | str, found: dict[str, tuple[Stored, int]]) -> tuple[Parts, tuple[str, ...] | None]:
    """Labels of each part as (count,) int64; and the names of the classes, in the order of their numbers, of strings.

    `found` has the array and the number of images of each part. Whole numbers may have any type.
    """
    flat = {}
    for part, (labels, count) in found.items():
        if labels.shape[:1] != (count,) or math.prod(labels.shape) != count:
            raise DataError(f"{path} has {labels.dtype} labels of shape {labels.shape}; expected one for each image, "
                            f"shape {(count,)}.{_from_one_hot(labels, count)}")
        flat[part] = labels.read().reshape(count)
    strings = {part: labels.dtype.kind in "SU" for part, labels in flat.items()}
    if not any(strings.values()):
        return {part: _whole(path, labels) for part, labels in flat.items()}, None
    if not all(strings.values()):
        raise DataError(f"{path} has labels that are strings and labels that are numbers; expected one kind.")
    texts = {part: np.char.decode(labels, "utf-8", "replace") if labels.dtype.kind == "S" else labels
             for part, labels in flat.items()}
    names = np.unique(np.concatenate(list(texts.values())))
    numbers = {part: np.searchsorted(names, labels).astype(np.int64) for part, labels in texts.items()}
    return numbers, tuple(names.tolist())


def _whole(path: Path | str, labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "buif":
        raise DataError(f"{path} has {labels.dtype} labels; expected whole numbers, or strings that name the classes.")
    if np.isnan(labels).any():
        unknown = counted(int(np.isnan(labels).sum()), "label")
        raise DataError(f"{path} has {unknown} of NaN; expected whole numbers, -1 for an unknown one: store "
                        "np.where(np.isnan(labels), -1, labels).")
    low, high = labels.min(), labels.max()
    if not (-(2**31) <= low and high < 2**31 and (labels == np.floor(labels)).all()):
        raise DataError(f"{path} has {labels.dtype} labels from {number(low)} to {number(high)}; expected whole "
                        "numbers below 2^31, or strings that name the classes.")
    return labels.astype(np.int64)


def _from_one_hot(labels: Stored, count: int) -> str:
    """The cure, if each row of the labels has a single 1."""
    if len(labels.shape) != 2 or labels.shape[0] != count or labels.dtype.kind not in "buif":
        return ""
    rows = labels.read()
    one_hot = ((rows == 0) | (rows == 1)).all() and (rows.sum(1) == 1).all()
    return " They are one-hot: store labels.argmax(1)." if one_hot else ""
