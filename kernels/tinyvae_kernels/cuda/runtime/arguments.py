"""What launchers make of their arguments: numbers of the very types that kernels take, new memory, and checks.

CuPy checks no argument of a kernel: an int of Python's would travel as int64, whatever the kernel expects.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any


def whole(value: int) -> np.int64:
    return np.int64(value)


def count(value: int) -> np.uint32:
    if value >= 2**31:
        raise ValueError(f"found an array of {value:,} numbers; a kernel takes fewer than 2,147,483,648: use a smaller "
                         "batch")
    return np.uint32(value)


def new_like(array: Array, shape: Any = None, dtype: Any = None) -> Array:
    """New memory beside an array."""
    library = sys.modules[type(array).__module__.partition(".")[0]]
    return library.empty(array.shape if shape is None else shape, array.dtype if dtype is None else dtype)


def span(array: Array) -> Array:
    """The memory of a view from its first number to its last, which may have gaps."""
    if array.flags.c_contiguous:
        return array
    array = array[tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)]
    last = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)) // array.itemsize
    library = sys.modules[type(array).__module__.partition(".")[0]]
    return library.lib.stride_tricks.as_strided(array, (last + 1,), (array.itemsize,))


def flat(*arrays: Array) -> tuple[Array, ...]:
    for array in arrays:
        if not array.flags.c_contiguous:
            raise ValueError(f"found an array of strides {array.strides}; a kernel needs unbroken (C-contiguous) "
                             "memory")
    return arrays


def same_type(*arrays: Array) -> Any:
    """The one floating type of unbroken arrays."""
    for array in flat(*arrays):
        if array.dtype != arrays[0].dtype:
            raise TypeError(f"found {arrays[0].dtype} and {array.dtype}; a kernel's arrays are of one type")
    return arrays[0].dtype


def rows_of(array: Array) -> tuple[int, int]:
    width = array.shape[-1]
    return (array.size // width if width else 0), width


def address(array: Array) -> int:
    """Where an array begins."""
    return array.data.ptr if hasattr(array.data, "ptr") else array.__array_interface__["data"][0]


def on_pieces(*arrays: Array) -> np.bool_:
    """Do these arrays begin where pieces of 16 bytes may?"""
    return np.bool_(all(address(array) % 16 == 0 for array in arrays))


def same(a: Array, b: Array) -> bool:
    """Are these the same memory, as an array and its view in another shape are?"""
    return (address(a), a.nbytes) == (address(b), b.nbytes)


def in_pieces(width: int, *arrays: Array) -> np.bool_:
    """Do all rows of `width` numbers consist of pieces of 16 bytes? With new memory that depends on shapes only."""
    return np.bool_(width * arrays[0].dtype.itemsize % 16 == 0 and on_pieces(*arrays))


def accesses(array: Array, pieces: np.bool_) -> int:
    """How many accesses read an array, by all threads together."""
    return -(-int(count(array.size)) // (16 // array.dtype.itemsize if pieces else 1))


def warps(width: int, dtype: Any, pieces: np.bool_) -> int:
    """How many warps lie along a row."""
    return -(-width // (32 * (16 // dtype.itemsize if pieces else 1)))
