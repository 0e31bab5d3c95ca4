"""A data set, and the treatments of its pixels.

The treatment of the pixels changes every result (the likelihood of grey values under a Bernoulli is not on the scale of
that of bits), so the treatment is a part of the data set's name, and every result prints it:

    -dynamic     a pixel is 1 with probability grey, and every use draws it again (the data set stores grey values; the
                 training draws)
    -static      a pixel is 1 with probability grey, drawn once, with the same draw for everyone
    -threshold   a pixel is 1 if grey > 1/2
    -gray        the grey values themselves
    -color       the values of red, green and blue themselves; the treatments above draw or compare each of them

Grey values are stored in the type of their file (bytes stay bytes): grey = stored / scale, and so are those of the
three channels of an image in colour, which stand together for each pixel. Data that are not images,
such as the columns of a table, have one of two other treatments:

    -real        each column is stored as (own - center) / spread, with the mean and the standard deviation of the
                 observed training data, so that every column has the same weight; the data set gives own values back
    -counts      whole numbers from 0 on, stored as they are
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyvae.data.checks import DataError, check_rows, only
from tinyvae.data.mapped.rows import AnyRows, blocks, contiguous
from tinyvae.engine import noise

# The suffixes of a name, each with its default likelihood. If a pixel is 0 in every image, as at the border of digits,
# the likelihood of a Gaussian with a free variance is unbounded. Therefore the default for grey values is the
# continuous Bernoulli, except for the two sets of faces, whose default is the Gaussian of AEVB.
PIXELS = {"dynamic": "bernoulli", "static": "bernoulli", "threshold": "bernoulli", "gray": "continuous-bernoulli"}

COLOURS = {"color": "continuous-bernoulli"}  # likewise, of images in colour alone
TABLES = {"real": "normal", "counts": "negative-binomial"}  # likewise, of data that are not images
TREATMENTS = PIXELS | COLOURS | TABLES
CHANNELS = 3  # red, green and blue

PARTS = ("train", "test", "valid")
SEED = 0  # of static draws and of splits, which are the same for everyone and never depend on the seed of a run
CHUNK = 2**18  # about the number of pixels that are drawn at a time; the draws do not depend on it


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images as rows of pixels, or a table's rows of numbers, split into training and test data.

    Attributes
    ----------
    name : the full name, such as "mnist-dynamic"; `load(name)` gives the same data again
    train, test : (count, pixels), uint8 or float32, C-contiguous
        Grey value = stored / scale, in [0, 1]. In colour a pixel counts three times. Rows that lie in several files are
        `MappedRows`, which read where they are used.
    shape : (rows, columns) of one image, or (rows, columns, 3) in colour
        A row of `train` reshaped to it is the picture.
    scale : 255 for bytes, 16 for digits, 1 for bits and for floats
    pixels : the treatment, one of TREATMENTS; see the head of this file
    likelihood : the default likelihood: "bernoulli", "continuous-bernoulli", "gaussian", "normal", ...
    train_labels, test_labels : (count,) int64, or None if the source has no labels; -1 stands for an unknown one
    valid, valid_labels : a validation part like `train`, or None if the source has none and none was held out
    train_mask, test_mask, valid_mask : (count, pixels) uint8, or None if nothing is missing
        1 where a value was observed and 0 where it is missing; what is stored in a missing place is 0.
    class_names : the name of each class in the order of their numbers, or None if the source has none
    columns : the name of each column of a table, or None
    center, spread : (columns,) float64, or None where stored values are in the data's own units
        Of `real` data: a value in its own units is stored * spread + center.
    """

    name: str
    train: AnyRows
    test: AnyRows
    shape: tuple[int, ...]
    scale: float
    pixels: str = "gray"
    likelihood: str = "continuous-bernoulli"
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    valid: AnyRows | None = None
    valid_labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    train_mask: np.ndarray | None = None
    test_mask: np.ndarray | None = None
    valid_mask: np.ndarray | None = None
    columns: tuple[str, ...] | None = None
    center: np.ndarray | None = None
    spread: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.likelihood, str):
            raise DataError(f"found name={self.name!r:.60} and likelihood={self.likelihood!r:.60} of a data set; "
                            "expected text for both: tv.DataSet(name, train, test, shape, scale)")
        scale = self.scale if isinstance(self.scale, (int, float, np.number)) else 0
        if not 0 < scale < np.inf:
            raise DataError(f"found scale={self.scale!r} of {self.name}; expected a finite number above 0, since "
                            "grey = stored / scale")
        if not isinstance(self.pixels, str) or self.pixels not in TREATMENTS:
            raise DataError(f"found pixels={self.pixels!r} of {self.name}; expected one of {', '.join(TREATMENTS)}")
        if not isinstance(self.shape, (tuple, list)) or not all(
                isinstance(n, (int, np.integer)) and n > 0 for n in self.shape):
            raise DataError(f"found shape={self.shape!r} of {self.name}; expected (rows, columns) of an image")
        if len(self.shape) == 3 and (self.shape[2] != CHANNELS or self.pixels in ("gray", *TABLES)):
            raise DataError(f"found shape={self.shape!r} and pixels={self.pixels!r} of {self.name}; expected (rows, "
                            "columns) of a grey image, or (rows, columns, 3) and pixels='color'")
        if self.pixels in COLOURS and not self.is_colour:
            raise DataError(f"found shape={self.shape!r} and pixels={self.pixels!r} of {self.name}; expected (rows, "
                            "columns, 3) of an image in colour, or pixels='gray'")
        for part in PARTS:
            stored, labels = getattr(self, part), getattr(self, part + "_labels")
            if stored is None and part == "valid":
                continue
            check_rows(stored, f"the {part} data of {self.name}", self.scale, self.pixels)
            if len(self.shape) not in (2, 3) or stored.shape[1] != math.prod(self.shape):
                raise DataError(f"found {stored.shape[1]} pixels a datum in the {part} data of {self.name}, and images "
                                f"of {' x '.join(map(str, self.shape))}; expected as many pixels as the shape has")
            if self.pixels in ("static", "threshold") and not (self.is_bits or only([stored], 0, self.scale)):
                raise DataError(f"found grey values in the {part} data of {self.name}, whose pixels are {self.pixels}; "
                                f"expected only 0 and the scale, {self.scale:g}: take pixels='dynamic' or 'gray'")
            mask = getattr(self, part + "_mask")
            for kind, beside in (("labels", labels), ("mask", mask)):
                if beside is not None and not isinstance(beside, np.ndarray):
                    raise DataError(f"found {part} {kind} of {self.name} of type {type(beside).__name__}; expected an "
                                    "array of whole numbers")
            if mask is not None and (np.shape(mask) != stored.shape or np.asarray(mask).dtype != np.uint8):
                raise DataError(f"found a {part} mask of {self.name} of shape {np.shape(mask)} and type "
                                f"{np.asarray(mask).dtype}; expected {stored.shape} and uint8, 1 where a value was "
                                "observed")
            if labels is not None and (np.shape(labels) != (len(stored),) or np.asarray(labels).dtype.kind not in "iu"):
                raise DataError(f"found {part} labels of {self.name} of shape {np.shape(labels)} and type "
                                f"{np.asarray(labels).dtype}; expected a whole number for each of {len(stored)} images")
        self._check_columns()

    def _check_columns(self) -> None:
        """Raise DataError unless names, centers and spreads, where there are any, fit the columns."""
        for name, values in (("columns", self.columns), ("class_names", self.class_names)):
            named = isinstance(values, (tuple, list)) and all(isinstance(value, str) for value in values)
            if values is not None and not named:
                raise DataError(f"found {name}={values!r:.60} of {self.name}; expected names, as text")
        if self.columns is not None and len(self.columns) != self.dimensions:
            raise DataError(f"found {len(self.columns)} names for {self.dimensions} columns of {self.name}; expected "
                            "one for each")
        for name, least in (("center", -np.inf), ("spread", 0)):
            values = getattr(self, name)
            if values is not None and getattr(values, "dtype", np.dtype(object)).kind not in "buif":
                raise DataError(f"found {name}={values!r:.60} of {self.name}; expected an array of numbers")
            if (values is None) != (self.center is None) or (values is not None and not (
                    np.shape(values) == (self.dimensions,) and (np.isfinite(values) & (values > least)).all())):
                raise DataError(f"found {name}={values!r} of {self.name}; expected center and spread together, a "
                                f"finite number for each of {self.dimensions} columns, the spread above 0")

    @property
    def dimensions(self) -> int:
        """The number of pixels of one image, each counted three times in colour."""
        return self.train.shape[1]

    @property
    def is_colour(self) -> bool:
        """Whether an image has red, green and blue."""
        return len(self.shape) == 3

    @property
    def count(self) -> int:
        """The number of training images."""
        return len(self.train)

    @property
    def classes(self) -> int:
        """The number of classes of the labels; 0 without labels."""
        labels = [found for part in PARTS if (found := getattr(self, part + "_labels")) is not None and len(found)]
        return max([len(self.class_names or ()), *(int(found.max()) + 1 for found in labels)])

    @property
    def is_bits(self) -> bool:
        """Whether the stored values are only 0 and 1."""
        return self.train.dtype == np.uint8 and self.scale == 1

    @property
    def kind(self) -> str:
        """What a use of the data gives: "binary", only 0 and 1, "grey", "counts" or "real"."""
        if self.is_table:
            return self.pixels
        if self.pixels not in ("gray", *COLOURS) or self.is_bits:
            return "binary"
        parts = [stored for part in PARTS if (stored := getattr(self, part)) is not None]
        return "binary" if only(parts, 0, self.scale) else "grey"

    @property
    def is_table(self) -> bool:
        """Whether the data are no images: `real` numbers or `counts`."""
        return self.pixels in TABLES

    @property
    def column_names(self) -> tuple[str, ...]:
        """The name of each column; 1, 2, ... where the source has none."""
        return self.columns or tuple(str(number) for number in range(1, self.dimensions + 1))

    def own_units(self, stored: np.ndarray) -> np.ndarray:
        """Values as they are stored, (..., columns), in the data's own units; float64 if units were changed."""
        if self.center is None or self.spread is None:
            return stored
        return np.asarray(stored, np.float64) * self.spread + self.center

    def in_units_of(self, other: DataSet) -> DataSet:
        """The same own values, stored with the centers and spreads of another table, as a model of its data takes them.

        DataError for a table with other columns.
        """
        if self.columns != other.columns or self.dimensions != other.dimensions or self.pixels != other.pixels:
            ours, theirs = (", ".join(names[:5]) + ", ..." * (len(names) > 5) for names in (self.column_names,
                                                                                          other.column_names))
            raise DataError(f"{self.name} has {self.dimensions} columns, {ours}, {self.pixels}; expected those of "
                            f"{other.name}, {other.dimensions}, {theirs}, {other.pixels}, in their order")
        if other.center is None or other.spread is None:
            return self
        changed: dict[str, Any] = {}
        for part in PARTS:
            if (stored := getattr(self, part)) is not None:
                mask = getattr(self, f"{part}_mask")
                values = (self.own_units(stored) - other.center) / other.spread
                changed[part] = (values if mask is None else np.where(mask, values, 0.0)).astype(np.float32)
        return replace(self, center=other.center, spread=other.spread, **changed)

    def log_jacobian(self, part: str) -> np.ndarray | None:
        """What log p(x) of stored values, in nats, gains to be the log density of own values; (count,), None for 0.

        The density of own = stored * spread + center is p(stored) / spread in each column, of which only those count
        that were observed: minus the sum of log spread.
        """
        if self.spread is None:
            return None
        mask, logs = getattr(self, f"{part}_mask"), np.log(self.spread)
        return np.full(len(getattr(self, part)), -logs.sum()) if mask is None else -(mask @ logs)

    @property
    def has_missing(self) -> bool:
        """Whether a value of any part is missing."""
        masks = [mask for part in PARTS if (mask := getattr(self, f"{part}_mask")) is not None]
        return any(not mask.all() for mask in masks)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the content as hex: treatment, scale and units, and type, shape and bytes of every part.

        The name is not a part of it, so data that moved to another folder keep theirs. Every call reads all the data
        (0.1 s for MNIST), because the arrays can be changed in place: keep the result.
        """
        parts = {part + kind: getattr(self, part + kind) for part in PARTS for kind in ("", "_labels", "_mask")}
        found = {name: contiguous(array, array.dtype.newbyteorder("<")) for name, array in parts.items()
                 if array is not None}
        types = {name: (array.dtype.str, array.shape) for name, array in found.items()}
        table = [] if self.center is None or self.spread is None else [self.center.tolist(), self.spread.tolist()]
        table += [] if self.columns is None else [list(self.columns)]
        head = json.dumps([self.pixels, float(self.scale), self.shape, self.class_names, types, *table])
        digest = hashlib.sha256(head.encode())
        for array in found.values():
            for block in blocks(array):
                digest.update(block.data)
        return digest.hexdigest()

    def __str__(self) -> str:
        stored = self.pixels if self.is_table else "bits" if self.is_bits else f"{self.train.dtype} / {self.scale:g}"
        valid = "" if self.valid is None else f"{len(self.valid)} valid, "
        missing = ", some missing" if self.has_missing else ""
        return (f"{self.name}: {len(self.train)} train, {valid}{len(self.test)} test, {self.size_in_words}, "
                f"{stored}{missing}, {self.likelihood}")

    @property
    def size_in_words(self) -> str:
        """The size of a datum: "28 x 28", or "30 columns"."""
        return f"{self.shape[1]} columns" if self.is_table and self.shape[0] == 1 else " x ".join(map(str, self.shape))

    __repr__ = __str__


def split_suffix(name: str) -> tuple[str, str | None]:
    """Split "mnist-static" into ("mnist", "static"); (name, None) for a name without one of the suffixes."""
    for pixels in TREATMENTS:
        if name.endswith("-" + pixels):
            return name.removesuffix("-" + pixels), pixels
    return name, None


def treated(data: DataSet, pixels: str) -> DataSet:
    """The grey data set `data` with another treatment of its pixels, and the same name and labels."""
    likelihood = TREATMENTS[pixels]
    if pixels in ("dynamic", "gray", *COLOURS) or data.is_bits:  # a static draw or a threshold leaves bits unchanged
        return replace(data, pixels=pixels, likelihood=likelihood)

    def bits(part: AnyRows, site: int) -> np.ndarray:
        return draw_static(part, data.scale, site) if pixels == "static" else above_half(part, data.scale)

    return replace(
        data,
        train=bits(data.train, 0),
        test=bits(data.test, 1),
        valid=None if data.valid is None else bits(data.valid, 2),
        scale=1.0,
        pixels=pixels,
        likelihood=likelihood,
    )


def above_half(images: AnyRows, scale: float) -> np.ndarray:
    """1 where grey > 1/2, else 0, as (count, pixels) uint8.

    A grey value of exactly 1/2 gives 0, as in the usual data loaders. No byte has this value (127.5), but 8 of 16 in
    the digits has.
    """
    return (np.asarray(images) > scale / 2).view(np.uint8)


def draw_static(images: AnyRows, scale: float, site: int, chunk: int = CHUNK) -> np.ndarray:
    """Draw each pixel once: 1 with probability stored / scale, as (count, pixels) uint8.

    The draw of pixel p of image n has the address (seed 0, stream "binarise-static", step 0, site, index
    n * pixels + p), site 0 for train, 1 for test and 2 for valid. So it depends neither on the chunk, which
    only bounds the memory, nor on how many images there are.
    """
    count, width = images.shape
    bits = np.empty(images.shape, np.uint8)
    rows = max(1, chunk // width)
    for first in range(0, count, rows):
        stored = images[first : first + rows]
        u = noise.uniform(SEED, "binarise-static", 0, site, stored.shape, first=first * width)
        # u lies in [0, 1), so a pixel is never 1 if grey = 0, and always 1 if grey = 1
        bits[first : first + rows] = u < stored.astype(np.float32) / np.float32(scale)
    return bits


def held_out(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the training and of the test data, with `size` of `count` drawn for the test, each in rising
    order.

    The split is the same for everyone: seed 0, stream "split".
    """
    order = noise.permutation(SEED, "split", 0, count)
    return np.sort(order[size:]), np.sort(order[:size])
