"""The formats by the bytes with which their files begin: a file of this folder that registers one makes it readable.

    @reads("an .npy file", b"\\x93NUMPY")
    def read_npy(path): ...                            returns the arrays of the file by name

    refuses("an Arrow file", "read it with pandas, ...", b"ARROW1")      a format that is named, with what to do
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.engine.devices import physical_memory

HEAD = 512  # the number of bytes by which a format is recognised; tar has its mark at 257
GZIP = b"\x1f\x8b"
# A byte of deflate, the compression of gzip and of zip, expands to at most 1032 bytes.
EXPANSION = 1032


@dataclass(frozen=True)
class Stored:
    """An array in a file: its shape and type, which its header says, and a function that reads it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], Any]  # an array, or `MappedRows`

    @classmethod
    def of(cls, array: np.ndarray) -> Stored:
        """An array that has been read already."""
        return cls(array.shape, array.dtype, lambda: array)


Arrays = dict[str, Stored]
Reader = Callable[[Path], Any]  # it gives Arrays, or a Table (table.py)
Mark = bytes | tuple[bytes, int] | Callable[[bytes], bool]


class Format(NamedTuple):
    """A format: its name, how the first bytes of its files are recognised, and the function that reads a file."""

    name: str
    fits: Callable[[bytes], bool]
    weight: int  # of several formats that fit, the one with the highest is meant
    read: Reader
    is_data_set: bool  # whether a file of it is a data set


FORMATS: list[Format] = []


def reads(name: str, *marks: Mark, is_data_set: bool = True) -> Callable[[Reader], Reader]:
    """Register the function below as the reader of a format; a mark is its first bytes, bytes with their place, or for
    a format that has no fixed bytes a function that says whether these are its first ones.

    `is_data_set` says whether such a file is a data set, so that errors name it among those that are expected.
    """

    def register(read: Reader) -> Reader:
        for mark in marks:
            if callable(mark):
                FORMATS.append(Format(name, mark, 0, read, is_data_set))
                continue
            found, at = mark if isinstance(mark, tuple) else (mark, 0)
            FORMATS.append(Format(name, partial(_stands, found, at), HEAD * len(found) + at, read, is_data_set))
        return read

    return register


def _stands(mark: bytes, at: int, head: bytes) -> bool:
    return head[at : at + len(mark)] == mark


def refuses(name: str, advice: str, *marks: Mark) -> None:
    """Register a format that is not read; the error names it and says what to do."""

    def read(path: Path) -> Arrays:
        raise DataError(f"{path} is {name}; expected {expected()}: {advice}.")

    reads(name, *marks, is_data_set=False)(read)


def expected(tables: bool = True) -> str:
    """The formats that are read, in words; without `tables` those of images."""
    names = sorted({fmt.name.partition(" ")[2].removesuffix(" file") for fmt in FORMATS if fmt.is_data_set})
    of_images = f"an {', '.join(names[:-1])} or {names[-1]} file or a folder of images"
    return f"{of_images}, or a table (.csv, .tsv, .parquet)" if tables else of_images


def recognised(head: bytes) -> Format | None:
    """The format whose mark stands in the first bytes of a file; of several, the one with the longest mark."""
    return max((fmt for fmt in FORMATS if fmt.fits(head)), key=lambda fmt: fmt.weight, default=None)


def head_of(path: Path) -> bytes:
    """The first bytes of a file; DataError for a device or a pipe, from which nothing may ever come."""
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder; expected {expected()}.")
    with path.open("rb") as file:
        return file.read(HEAD)


def check_memory(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise DataError if an array of a file is larger than this machine's memory; call it before the array is made."""
    size = math.prod(shape) * dtype.itemsize
    there = physical_memory()
    if size > there:
        raise DataError(f"{path} holds an array of shape {shape}, {size / 2**30:,.0f} GiB; this machine has "
                        f"{there / 2**30:,.0f}: store train.npy and test.npy in a folder, which are read in parts.")
