"""Arrays of NumPy in a file of their own, .npy, and the errors that they share with .npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data.checks import OBJECTS, DataError
from tinyvae.data.formats.registry import Arrays, Stored, head_of, reads

MAGIC = b"\x93NUMPY"  # how every .npy file begins


def map_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, memory-mapped, so that only the pages in use are read.

    The array cannot be written to: a mapping that can counts as memory that a process may come to need, so a limit on
    it would refuse a large file.
    """
    if (head := head_of(path))[:6] != MAGIC[: len(head)]:  # NumPy would take the file for a pickle
        raise DataError(f"{path} is no array, though its name ends in .npy: it begins with {head[:8]!r}; expected "
                        f"{MAGIC!r}, which np.save writes.")
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # a damaged header raises SyntaxError, TokenError, MemoryError, ...
        raise numpy_error(path, error) from error


@reads("an .npy file", MAGIC)
def read_npy(path: Path) -> Arrays:
    """The array, which has no name of its own, as "images"."""
    return {"images": Stored.of(map_npy(path))}


def header_of(stream: Any) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the type of the .npy array that begins here in a stream."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read(stream)
    return shape, dtype


def numpy_error(path: Path, error: Exception) -> DataError:
    """The error for a file that NumPy refuses to read."""
    if "bject" in str(error):  # NumPy's words: "Object arrays cannot be loaded", "Python objects in dtype"
        return DataError(f"{path} {OBJECTS}")
    return DataError(f"{path} cannot be read ({error}): truncated, damaged or too large; write it again.")
