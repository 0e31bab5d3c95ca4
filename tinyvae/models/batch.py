"""The data of one step, and the operations that gather them from the stored rows.

A replayed step runs these operations again with another index, so it gathers its own rows. Labels and masks are
gathered with the same index as the pixels, on the same device.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.choices import an
from tinyvae.data import DataSet, as_data_set, ways_to_label
from tinyvae.data.dataset import PARTS
from tinyvae.data.mapped.rows import MappedRows, in_file, selected
from tinyvae.engine.devices import Namespace, memory_in_use, namespace_of, read, to_host
from tinyvae.engine.noise import Noise, Window, for_kernel, uniform
from tinyvae.engine.rules import DATA, INDEX, into, rule
from tinyvae.engine.tensor import Tensor, apply

FIELDS = ("y", "labelled", "mask", "given")  # the fields of a batch that a model can need besides the pixels


@dataclass(frozen=True)
class Batch:
    """The data of one step.

    Attributes
    ----------
    x : (rows, pixels), in the model's type
    y : (rows, classes), one-hot labels; the row of a datum without a label is zero
    labelled : a second batch, of data with labels, for a model that needs the labels of a part of the data
    mask : (rows, pixels), 1 for an observed pixel and 0 for a missing one
    given : (rows, width), the condition, where it is not a part of the other fields (conditions.py)
    available : the number of data of which these rows are some; 0 if that is not known
    rows : which rows of the step's batch these are, where a step is computed in parts; None for all
    """

    x: Tensor
    y: Tensor | None = None
    labelled: Batch | None = None
    mask: Tensor | None = None
    given: Tensor | None = None
    available: int = 0
    rows: Window | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.x, Tensor):
            raise TypeError(f"found x of type {type(self.x).__name__} in a batch; expected a tensor (rows, pixels)")

    def __len__(self) -> int:
        return len(self.x)


def _grey_rows(xp: Any, stored: Any, index: Any, out: Any, scale: float, dtype: Any) -> Any:
    rows = xp.take(stored, index, axis=0)
    return xp.divide(rows, dtype.type(scale), out=out, dtype=dtype, casting="unsafe")


def _binarised_rows(xp: Any, stored: Any, index: Any, counters: Any, out: Any, seed: int, stream: str, site: int,
                    scale: float, dtype: Any, rows: Window | None = None) -> Any:
    grey = _grey_rows(xp, stored, index, None, scale, dtype)
    u = uniform(seed, stream, read(counters[0]), site, grey.shape, np.float32, xp=xp, rows=rows)
    drawn = (u.astype(dtype) < grey).astype(dtype)
    return into(out, drawn)


def _accepts(stored: Any, index: Any, *_: Any) -> bool:
    return stored.dtype in (np.uint8, np.float32) and stored.ndim == 2 and index.dtype == np.int64 and index.ndim == 1


def _prepare_drawn(arrays: Any, dtype: Any, **rest: Any) -> dict[str, Any]:
    return for_kernel(arrays, (len(arrays[1]), arrays[0].shape[1]), dtype, **rest)


def _prepare_grey(arrays: Any, scale: float, dtype: Any, out: Any = None) -> dict[str, Any]:
    stored, index = arrays
    out = namespace_of(stored).empty((len(index), stored.shape[1]), dtype) if out is None else out
    return {"out": out, "scale": scale}


# x = stored / scale
rule("grey_rows", _grey_rows, (None, None), (DATA, INDEX), kernel="grey_rows", prepare=_prepare_grey,
     accepts=_accepts, picks=True)
# x is 1 with probability stored / scale, else 0
rule("binarised_rows", _binarised_rows, (None, None, None), (DATA, INDEX, INDEX), kernel="binarised_rows",
     prepare=_prepare_drawn, accepts=_accepts, asks="draws", picks=True, flops=3)


class Rows:
    """The stored rows of one part of a data set on one device: pixels, and the other fields that the model needs.

    Parameters
    ----------
    stored
        (count, pixels); the grey value of a pixel is stored / `scale`.
    draw
        If given, each use draws each pixel from it: 1 with the probability of its grey value.
    beside
        One-hot labels, masks and conditions, (count, width), by their field in `Batch`.
    """

    def __init__(self, stored: Any, scale: float, dtype: Any, xp: Namespace, draw: Noise | None = None,
                 beside: dict[str, np.ndarray] | None = None) -> None:
        self.count, self.scale, self.dtype, self.draw, self.xp = len(stored), scale, np.dtype(dtype), draw, xp
        self.keep(stored)
        self.beside = {name: Tensor(xp.asarray(array)) for name, array in (beside or {}).items()}

    def keep(self, stored: Any) -> None:
        """Take the rows to the device."""
        self.stored = Tensor(self.xp.asarray(stored))

    def source(self, index: Tensor, window: Window | None) -> tuple[Tensor, Tensor]:
        """An array that has the rows with the numbers `index`, and their places in it."""
        return self.stored, index

    def at(self, index: Tensor, labelled: Batch | None = None, window: Window | None = None) -> Batch:
        """The batch of the rows with the numbers `index`, (rows,), or of those in a window; `labelled` becomes a part
        of it."""
        if window is not None:
            index = index[window.first : window.first + window.size]
        stored, places = self.source(index, window)
        if self.draw is None:
            x = apply("grey_rows", stored, places, scale=self.scale, dtype=self.dtype)
        else:
            x = self.draw.draw("binarised_rows", stored, places, scale=self.scale, dtype=self.dtype)
        beside: dict[str, Any] = {name: apply("grey_rows", array, index, scale=1.0, dtype=self.dtype)
                                  for name, array in self.beside.items()}
        return Batch(x, labelled=labelled, available=self.count, rows=window, **beside)


class RowsInFiles(Rows):
    """Rows that stay in their files until a batch needs them.

    A training says which rows its next few batches take, and which ones the few after those, by `load`. A thread reads
    the latter meanwhile, so that a step does not wait for the files. The step finds its rows at `places` of `buffer`,
    which has room for both. Without `reserve`, each use reads its rows at once.
    """

    buffer: Tensor | None = None

    def keep(self, stored: Any) -> None:
        self.files: MappedRows = stored
        self.reader = ThreadPoolExecutor(1, "reader")

    def reserve(self, batch: int, size: int) -> None:
        """Memory for batches of up to `batch` rows, of which those that are read together have `size` rows."""
        self.size, self.half = size, 0
        self.buffer = Tensor(self.xp.zeros((2 * size, self.files.shape[1]), self.files.dtype))
        self.places = Tensor(self.xp.zeros(batch, np.int64))
        self.read = to_host(self.buffer.data)  # on a GPU a copy, from which the rows go there
        self.expected = self.found = np.zeros(0, np.int64)
        self.ahead: Future[np.ndarray] | None = None

    def load(self, index: np.ndarray, following: np.ndarray) -> None:
        """Have the rows with the numbers `index` in the buffer, and begin to read the `following` ones."""
        assert self.buffer is not None, "reserve was called"
        if self.ahead is None or not np.array_equal(index, self.expected):
            self.ahead = self._read(index)
        begin = self.half * self.size
        self.found = begin + self.ahead.result()
        if self.read is not self.buffer.data:
            self.buffer.data[begin : begin + len(index)] = self.xp.asarray(self.read[begin : begin + len(index)])
        self.half = 1 - self.half
        self.expected, self.ahead = following, self._read(following) if len(following) else None

    def take(self, first: int, begin: int, count: int) -> None:
        """Use `count` of the loaded rows, from number `begin` on, as the rows of the batch from number `first` on."""
        self.places.data[first : first + count] = self.xp.asarray(self.found[begin : begin + count])

    def _read(self, index: np.ndarray) -> Future[np.ndarray]:
        """Let the thread read rows into the half of the buffer that no step reads; it gives their places there."""
        return self.reader.submit(self.files.read, index, self.read[self.half * self.size :][: len(index)])

    def source(self, index: Tensor, window: Window | None) -> tuple[Tensor, Tensor]:
        if self.buffer is None:
            found = Tensor(self.xp.asarray(self.files.take(to_host(index.data))))
            return found, Tensor(self.xp.arange(len(index)))
        first = window.first if window else 0
        return self.buffer, self.places[first : first + len(index)]


def rows_of(model: Any, data: DataSet | np.ndarray | str, part: str, draw: Noise | None = None,
            only: np.ndarray | None = None) -> Rows:
    """The rows of a part of a data set, with the further fields that the model needs (`Model.needs`).

    `data` is a data set, the name of one, or an array (count, pixels) of numbers in [0, 1].

    Parameters
    ----------
    only
        The numbers of the rows with labels that are taken, with their labels; None takes all rows.

    Raises
    ------
    ValueError
        For data that the model cannot take (`Model.check`), and if it needs labels that they do not have. Without
        a mask all pixels were observed.
    """
    data = as_data_set(data)
    model.check(data)
    chosen = slice(None) if only is None else only
    if {"y", "labelled"} & set(model.needs):
        _check_labels(model, data)
    beside = {}
    labelled = ("y",) if only is not None else ()
    for field in FIELDS:
        if field in (*model.needs, *labelled) and field != "labelled":
            array = model.condition.rows(data, part) if field == "given" else getattr(
                data, f"{part}_{'labels' if field == 'y' else field}", None)
            if array is None and field == "mask":  # nothing is missing
                array = np.ones(getattr(data, part).shape, np.uint8)
            if array is None:
                raise ValueError(f"{an(model.kind)} needs labels for each datum, and the {part} data of {data.name} "
                                 f"have none: {ways_to_label(data)}, or take another model")
            if field == "y" and "labelled" not in model.needs and (unknown := int((array < 0).sum())):
                raise ValueError(f"{an(model.kind)} needs the label of each datum, and {unknown:,} of the "
                                 f"{len(array):,} {part} data of {data.name} have none: leave those out, or take "
                                 "another model")
            beside[field] = (one_hot(array, model.config["classes"]) if field == "y" else array)[chosen]
    rows: Any = getattr(data, part)
    mapped = in_file(rows)
    stay = mapped is not None and _stay(mapped, model.device)
    rows = mapped if stay else np.asarray(rows)
    if only is not None:
        rows = selected(rows, only)
    return (RowsInFiles if stay else Rows)(rows, data.scale, model.dtype, model.xp, draw, beside)


def _stay(rows: MappedRows, device: str) -> bool:
    """Whether rows stay in their files: always for the CPU, and for a GPU if they would fill half of its memory."""
    return device == "cpu" or rows.nbytes > memory_in_use()[1] / 2


def _check_labels(model: Any, data: DataSet) -> None:
    """Raise ValueError for a label in any part of the data that is no class of the model."""
    classes = model.config["classes"]
    for part in PARTS:
        labels = getattr(data, f"{part}_labels")
        if labels is not None and not -1 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"found {part} labels from {labels.min()} to {labels.max()} in {data.name}; "
                             f"{an(model.kind)} with classes={classes} takes 0 to {classes - 1}, and -1 for an unknown "
                             "one")


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels (count,) as one-hot bytes (count, classes); the label -1 stands for an unknown one and gives zeros."""
    return (labels[:, None] == np.arange(classes)).astype(np.uint8)
