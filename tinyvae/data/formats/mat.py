"""MATLAB 5 files. Only that of Frey faces is read, after its SHA-256 was compared: SciPy can crash on a damaged one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.registry import refuses

refuses(
    "a MATLAB file",
    "read it with scipy.io.loadmat and save the array with np.save, transposed if its images are not along its first "
    "axis (a file of version 7.3 is one of HDF5: read it with h5py)",
    b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file",
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
