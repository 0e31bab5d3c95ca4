"""The rows of memory-mapped files as one array, which is in memory as a whole only if `np.asarray` asks for it.

`MappedRows` has what checks and trainings ask of an array (count, pixels): its shape and type, its lowest and its
highest number, and slices and rows by their numbers, which are ordinary arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

BLOCK = 4096  # the number of rows that are looked at together


class MappedRows:
    """Rows (count, pixels) that lie in several files.

    Parameters
    ----------
    files
        The rows of each file, (n, pixels), memory-mapped and of one type.
    numbers
        Which of all rows these are, (count,); None for all of them.
    dtype
        The type that rows are read as, by default that of the files.
    """

    ndim = 2

    def __init__(self, files: Sequence[np.ndarray], numbers: np.ndarray | None = None, dtype: Any = None) -> None:
        self.files, self.numbers = list(files), numbers
        self.dtype = np.dtype(files[0].dtype if dtype is None else dtype)
        self.begins = np.cumsum([0, *(len(file) for file in files)])
        self.shape = (int(self.begins[-1]) if numbers is None else len(numbers), files[0].shape[1])

    size = property(lambda self: self.shape[0] * self.shape[1])
    nbytes = property(lambda self: self.size * self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Rows by a slice, a number or an array of numbers; of a pair the second is taken of the found rows."""
        if isinstance(key, tuple):
            first, *rest = key
            return self[first][(slice(None), *rest) if np.ndim(first) or isinstance(first, slice) else tuple(rest)]
        if isinstance(key, slice):
            return self.take(np.arange(*key.indices(len(self))))
        index = np.asarray(key)
        index = np.flatnonzero(index) if index.dtype == bool else np.where(index < 0, index + len(self), index)
        if index.size and not (0 <= index.min() and index.max() < len(self)):  # ends a loop over all rows, too
            raise IndexError(f"found rows from {index.min()} to {index.max()}; expected them below {len(self)}")
        return self.take(index) if index.ndim else self.take(index[None])[0]

    def take(self, index: np.ndarray) -> np.ndarray:
        """The rows with these numbers, (rows, pixels), read now."""
        found = np.empty((len(index), self.shape[1]), self.dtype)
        places = self.read(index, found)
        return found if len(self.files) == 1 else found[places]

    def read(self, index: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Read the rows with these numbers into `out`, (rows, pixels), one file after another; returns the place of
        each row in it."""
        numbers = index if self.numbers is None else self.numbers[index]
        order = np.arange(len(numbers)) if len(self.files) == 1 else np.argsort(numbers, kind="stable")
        numbers = numbers[order]
        edges = np.searchsorted(numbers, self.begins) if len(self.files) > 1 else np.array([0, len(numbers)])
        for file, begin, first, last in zip(self.files, self.begins, edges, edges[1:], strict=False):
            if first < last:
                rows, into = numbers[first:last] - begin, out[first:last]
                if file.dtype == out.dtype:
                    np.take(file, rows, axis=0, out=into, mode="clip")  # which needs no memory of its own
                else:
                    into[...] = file[rows]
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        return places

    def select(self, index: np.ndarray) -> MappedRows:
        """Some of the rows, in this order, which stay in their files."""
        return MappedRows(self.files, index if self.numbers is None else self.numbers[index], self.dtype)

    def astype(self, dtype: Any) -> MappedRows:
        """The same rows, read as another type."""
        return MappedRows(self.files, self.numbers, dtype)

    def reshape(self, *shape: int) -> MappedRows:
        """Itself, as rows; ValueError for another shape."""
        if shape not in (self.shape, (len(self), -1)):
            raise ValueError(f"found the shape {shape} for rows {self.shape} in files; expected that of the rows")
        return self

    def min(self, axis: int | None = None, out: None = None) -> Any:
        """The lowest number of all, or of each column (`axis` 0)."""
        return np.min([block.min(axis) for block in blocks(self)], axis)

    def max(self, axis: int | None = None, out: None = None) -> Any:
        """The highest number of all, or of each column (`axis` 0)."""
        return np.max([block.max(axis) for block in blocks(self)], axis)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self.take(np.arange(len(self)))
        return found if dtype is None else found.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"MappedRows({self.shape[0]:,} x {self.shape[1]:,} {self.dtype} in {len(self.files)} files)"


AnyRows = np.ndarray | MappedRows


def blocks(rows: AnyRows) -> Iterator[np.ndarray]:
    """The rows of an array, a few at a time."""
    return (rows[first : first + BLOCK] for first in range(0, len(rows), BLOCK))


def selected(rows: AnyRows, index: np.ndarray) -> Any:
    """Rows by their numbers: a new array, but of mapped rows mapped rows."""
    return rows.select(index) if isinstance(rows, MappedRows) else rows[index]


def contiguous(rows: AnyRows, dtype: Any) -> Any:
    """C-contiguous rows of a type, without a copy where they are so already; mapped rows are read as it."""
    return rows.astype(dtype) if isinstance(rows, MappedRows) else np.ascontiguousarray(rows, dtype)


def in_file(rows: AnyRows) -> MappedRows | None:
    """Rows that lie in files, mapped rows or an array of a memory-mapped file; None if they are in memory."""
    if isinstance(rows, MappedRows):
        return rows
    array: Any = rows
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return None if array is None else MappedRows([rows])
