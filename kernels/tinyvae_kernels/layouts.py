"""Of which matrices flat vectors are made.

Parameters, gradients and moments are flat vectors. Whoever lays one out may say here which matrices it holds; the
CPU's kernels then give a thread the same rows of a matrix in every job of a step (cpu/runtime/shares.py). The order in
which a norm is summed depends on the layout, so a run that is to repeat its bits needs the same layout.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

Matrix = tuple[int, int, int]  # the place of its first number in the vector, its rows, its columns
_known: dict[int, tuple[Matrix, ...]] = {}  # by the address of a vector's memory


def _address(vector: np.ndarray) -> int:
    return int(vector.__array_interface__["data"][0])


def lay_out(vector: np.ndarray, matrices: Sequence[Matrix]) -> None:
    """Say which matrices a flat vector holds; forgotten when the vector is. ValueError for one that is not inside."""
    for begin, rows, width in matrices:
        if begin < 0 or begin + rows * width > vector.size:
            raise ValueError(f"found a matrix of {rows} x {width} numbers from {begin}; expected all within "
                             f"{vector.size} numbers")
    if matrices:
        _known[_address(vector)] = tuple(matrices)
        weakref.finalize(vector, _known.pop, _address(vector), None).atexit = False


def layout_of(vector: np.ndarray) -> tuple[Matrix, ...]:
    """The matrices of a flat vector, or of a part that begins where it begins; none if it was never laid out."""
    known = _known.get(_address(vector), ())
    return tuple(matrix for matrix in known if matrix[0] + matrix[1] * matrix[2] <= vector.size)
