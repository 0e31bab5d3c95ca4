"""MATLAB files of versions 4 and 5, by SciPy. It can crash on a damaged file, so a process of its own reads all of them
but that of Frey faces, whose SHA-256 is compared first. Files of version 7.3 are of another format (hdf5.py)."""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.npz import read_npz
from tinyvae.data.formats.registry import EXPANSION, Arrays, Stored, reads
from tinyvae.engine.devices import physical_memory

# Saves the arrays of numbers; what they would take in memory is compared first with what the file can hold.
PROGRAM = """
import math, sys
import numpy, scipy.io
path, to, most = sys.argv[1:]
sizes = {"single": 4, "double": 8, "logical": 1} | {f"{sign}int{8 * n}": n for sign in ("", "u") for n in (1, 2, 4, 8)}
found = [(name, sizes[kind] * math.prod(shape)) for name, shape, kind in scipy.io.whosmat(path) if kind in sizes]
if sum(size for _, size in found) > int(most):
    sys.exit(f"its arrays claim {sum(size for _, size in found):,} bytes, and at most {int(most):,} are possible")
arrays = scipy.io.loadmat(path, variable_names=[name for name, _ in found])
numpy.savez(to, **{name: arrays[name] for name, _ in found})
"""


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


@reads("a .mat file", b"MATLAB 5.0 MAT-file", is_version_4)
def read(path: Path) -> Arrays:
    """The arrays of numbers of a MATLAB file; structures, cells and text are left out."""
    most = min(EXPANSION * path.stat().st_size, physical_memory())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "arrays.npz"
        command = [sys.executable, "-P", "-c", PROGRAM, str(path.absolute()), str(copy), str(most)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = done.stderr.strip().rpartition("\n")[2] or f"its reader ended with {done.returncode}"
            raise DataError(f"{path} is a MATLAB file that cannot be read ({why}): truncated, damaged or too large; "
                            "write it again.")
        arrays = {name: stored.read() for name, stored in read_npz(copy).items()}
    return {name: as_matlab(name, Stored.of(array), path) for name, array in arrays.items()}


def as_matlab(name: str, stored: Stored, path: Path) -> Stored:
    """An array as MATLAB has it: a row of numbers is a vector, and grey images may stand along the last axis.

    Of three axes the images are along the longer one of the first and the last, and a line says so.
    """
    shape = stored.shape
    if len(shape) == 2 and shape[0] == 1:
        return Stored(shape[1:], stored.dtype, lambda: stored.read().reshape(-1))
    if len(shape) != 3 or shape[2] <= shape[0]:
        return stored
    warnings.warn(f"{path} ({name}) has shape {shape}, which is taken as {shape[2]} images of {shape[0]} x {shape[1]}, "
                  "along the last axis", stacklevel=2)
    return Stored((shape[2], *shape[:2]), stored.dtype, lambda: np.moveaxis(stored.read(), 2, 0))


def read_mat(path: Path, key: str) -> np.ndarray:
    """One array of a MATLAB 5 file whose content is known."""
    import scipy.io

    try:
        arrays = scipy.io.loadmat(path, variable_names=[key])
    except Exception as error:  # SciPy's reader raises MatReadError and many other errors
        raise DataError(f"{path} is not a MATLAB 5 file, as expected ({error}); get it again.") from error
    if key not in arrays:
        raise DataError(f"{path} has no array {key!r}; get the original file again.")
    return arrays[key]
