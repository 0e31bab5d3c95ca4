"""Arrays of images of any accepted shape and type as rows of pixels."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from tinyvae.data.checks import DataError, check_type, cure, found_range, limits, number, only


def image_shape(array: Any, what: str) -> tuple[int, int]:
    """The (rows, columns) of the images of an array, which need not have been read: its shape and type are enough.

    The accepted shapes are (N, D), (N, H, W), (N, H, W, 1) and (N, 1, H, W). If D is a perfect square, the images are
    square; else they have one row. `what` names the array in errors. Raises DataError.
    """
    check_type(array.dtype, what)
    shape, (count, *rest) = array.shape, array.shape or (0,)
    if len(rest) == 3 and 1 in (rest[0], rest[2]):
        rest = rest[1:] if rest[0] == 1 else rest[:2]
    if len(rest) not in (1, 2):
        raise DataError(
            f"{what} has shape {shape}; expected (count, pixels), (count, rows, columns) or one grey "
            f"channel, (count, rows, columns, 1).{_reshaped(shape, array.dtype)}"
        )
    if not count or not math.prod(rest):
        raise DataError(f"{what} has shape {shape}, without any pixel; expected at least one image.")
    if len(rest) == 2:
        return rest[0], rest[1]
    side = math.isqrt(rest[0])
    return (side, side) if side * side == rest[0] else (1, rest[0])


def _reshaped(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """The cure for an array with more axes: grey from colours, or all images along one axis."""
    if len(shape) < 4:
        return ""
    axis = next((axis for axis in (-1, 1) if len(shape) == 4 and shape[axis] == 3), None)
    if axis is None:
        return f" Store images.reshape(-1, {shape[-2]}, {shape[-1]}), if the last two axes are rows and columns."
    grey = f"images.mean({axis})"
    return f" Store {grey if dtype.kind == 'f' else f'np.uint8({grey})'} to make these colours grey."


def as_grey(parts: list[np.ndarray], what: str) -> tuple[list[np.ndarray], float]:
    """Rows of pixels as C-contiguous uint8 or float32, with one scale for all parts.

    Integers from 0 to 255 become bytes (scale 255), floats in [0, 1] float32 (scale 1). If all pixels have one of two
    values, they are bits (scale 1), and a warning says so unless the values are 0 and 1. An array that needs no
    conversion is not copied. Raises DataError for NaN and for values out of range, with a line of Python that cures it.
    """
    if len({part.dtype.kind == "f" for part in parts}) == 2:
        types = " and ".join(str(part.dtype) for part in parts)
        raise DataError(f"{what} mixes {types}; expected train and test to be both integers or both floats.")
    floats = parts[0].dtype.kind == "f"
    (low, high), top = limits(parts), 1 if floats else 255
    if not (low >= 0 and high <= top):  # NaN fails
        expected = "floats in [0, 1]" if floats else "integers from 0 to 255"
        raise DataError(f"{what} holds {found_range(parts)}; expected {expected}. {cure(parts)}")
    if low < high and only(parts, low, high):
        if (low, high) != (0, 1):
            warnings.warn(f"{what} holds only the values {number(low)} and {number(high)}: they are taken as the bits "
                          "0 and 1", stacklevel=2)
            return [(part == high).view(np.uint8) for part in parts], 1.0
        return [np.ascontiguousarray(part, np.uint8) for part in parts], 1.0
    if floats:
        if low == high and low in (0, 1):  # bits that are all the same
            return [np.ascontiguousarray(part, np.uint8) for part in parts], 1.0
        return [np.ascontiguousarray(part, np.float32) for part in parts], 1.0
    if 1 < high <= 64:
        warnings.warn(f"{what} holds integers from {low:g} to {high:g}, which divided by 255 are almost black; if "
                      f"{high:g} is white, store np.float32(images / {high:g}) instead", stacklevel=2)
    return [np.ascontiguousarray(part, np.uint8) for part in parts], 1.0 if high <= 1 else 255.0
