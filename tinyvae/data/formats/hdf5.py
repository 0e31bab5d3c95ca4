"""HDF5 files, which h5py reads where it is installed. MATLAB's files of version 7.3 are some, with reversed axes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.mat import as_matlab
from tinyvae.data.formats.registry import EXPANSION, Arrays, Stored, check_memory, expected, reads


@reads("an .h5 file", b"\x89HDF\r\n\x1a\n")
def read_hdf5(path: Path) -> Arrays:
    """The arrays of numbers or strings of an HDF5 file, by their names, with those of their groups."""
    found: Arrays = {}

    def visit(name: str, item: Any) -> None:
        if not hasattr(item, "dtype") or item.shape is None or item.external or item.is_virtual:
            return  # a group, an empty one, or one whose numbers are in other files, which are never opened
        if h5py.check_string_dtype(item.dtype) is not None:
            found[name] = Stored(item.shape, np.dtype(np.str_), partial(_read, path, name))
        elif item.dtype.kind in "buif":
            found[name] = Stored(item.shape, item.dtype, partial(_read, path, name))

    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except Exception as error:  # h5py's errors are of many types
        raise _unreadable(path, error) from error
    return found


@reads("a .mat file", b"MATLAB 7.3 MAT-file")
def read_matlab(path: Path) -> Arrays:
    """The arrays of a MATLAB file of version 7.3, as MATLAB sees them."""
    found = {}
    for name, stored in read_hdf5(path).items():
        if not name.startswith("#"):  # what cells and structures refer to

            def turned(read: Any = stored.read) -> np.ndarray:
                return read().T

            found[name] = as_matlab(name, Stored(stored.shape[::-1], stored.dtype, turned), path)
    return found


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path} is an HDF5 file; expected {expected()}: install h5py, which reads it, or save "
                        "its array with np.save where h5py is installed.") from None
    return h5py


def _read(path: Path, name: str) -> np.ndarray:
    """One array; its size is looked at before memory is taken."""
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            item = file[name]
            if h5py.check_string_dtype(item.dtype) is not None:
                return item.asstr()[...].astype(np.str_)
            size, there = math.prod(item.shape) * item.dtype.itemsize, item.id.get_storage_size()
            if size > EXPANSION * there:
                raise ValueError(f"{name} claims {size:,} bytes and holds {there:,}")
            check_memory(path, item.shape, item.dtype)
            return item[...]
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is an HDF5 file that cannot be read ({error}): truncated or damaged; write it again.")
