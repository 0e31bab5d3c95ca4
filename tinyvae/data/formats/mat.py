"""MATLAB files are named, and not read. Only that of Frey faces is, of version 5, after its SHA-256 was compared: SciPy
can crash on a damaged one."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.registry import refuses


def is_version_4(head: bytes) -> bool:
    """Whether these are the first bytes of a MATLAB 4 file, which has no mark: five numbers, then the array's name.

    They are the type 1000 M + 10 P + T (M = 1 if the highest byte comes first; P, the type of the numbers, to 5; T, the
    kind of array, to 2), rows, columns, 1 if there is an imaginary part, and the length of the name with its final 0.
    """
    for order, first in (("<", 0), (">", 1000)):
        if len(head) < 22:
            return False
        kind, rows, columns, imaginary, length = struct.unpack(f"{order}5i", head[:20])
        fits = 0 <= (kind := kind - first) <= 52 and kind % 10 <= 2 and min(rows, columns) >= 0 and imaginary in (0, 1)
        if fits and 2 <= length <= 64 and head[19 + length : 20 + length] == b"\0":
            return head[20 : 19 + length].replace(b"_", b"a").isalnum()
    return False


refuses(
    "a MATLAB file",
    "read it with scipy.io.loadmat and save the array with np.save, transposed if its images are not along its first "
    "axis (a file of version 7.3 is one of HDF5: read it with h5py)",
    b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file", is_version_4,
)


def read_mat(path: Path, key: str) -> np.ndarray:
    """One array of a MATLAB 5 file."""
    import scipy.io

    try:
        arrays = scipy.io.loadmat(path, variable_names=[key])
    except Exception as error:  # SciPy's reader raises MatReadError and many other errors
        raise DataError(f"{path} is not a MATLAB 5 file, as expected ({error}); get it again.") from error
    if key not in arrays:
        raise DataError(f"{path} has no array {key!r}; get the original file again.")
    return arrays[key]
