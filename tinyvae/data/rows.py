"""Arrays of any accepted shape and type as rows: of pixels, or of a table's columns; and which values are missing."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from tinyvae.data.checks import (
    LARGEST_COUNT,
    DataError,
    check_type,
    cure,
    found_range,
    is_whole,
    limits,
    number,
    of_table,
    only,
)
from tinyvae.data.dataset import CHANNELS
from tinyvae.data.mapped.rows import BLOCK, contiguous

# The weights of red, green and blue in the brightness of a pixel (ITU-R BT.601), as fractions of 2^16.
LUMA = np.array([19595, 38470, 7471])


def colour_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of red, green and blue in an array of images: (N, H, W, 3), (N, 3, H, W), or (H, W, 3, N) as MATLAB has
    them. None for other shapes."""
    if len(shape) != 4 or 1 in (shape[1], shape[3]):  # one grey channel
        return None
    return next((axis for axis in (3, 1, 2) if shape[axis] == CHANNELS), None)


def channels_last(array: np.ndarray) -> np.ndarray:
    """Images in colour as (N, H, W, 3), and any other array as it is; a view."""
    axis = colour_axis(array.shape)
    return np.moveaxis(array, *((3, 0) if axis == 2 else (axis, 3))) if axis is not None else array


def brightness(images: np.ndarray) -> np.ndarray:
    """The grey values of images in colour, (N, H, W, 3), in their type: 0.299 red + 0.587 green + 0.114 blue."""
    found = np.empty(images.shape[:-1], images.dtype)
    for first in range(0, len(images), BLOCK):
        block = images[first : first + BLOCK]
        found[first : first + BLOCK] = block @ (LUMA / 2**16) if images.dtype.kind == "f" else (
            block @ LUMA + 2**15 >> 16)  # rounded, as Pillow does
    return found


def image_shape(array: Any, what: str) -> tuple[int, ...]:
    """The (rows, columns) of the images of an array, or (rows, columns, 3) in colour; the array need not have been
    read, its shape and type are enough.

    The accepted shapes are (N, D), (N, H, W), (N, H, W, 1) and (N, 1, H, W), and (N, H, W, 3) in colour. If D is a
    perfect square, the images are square; else they have one row. `what` names the array in errors. Raises DataError.
    """
    check_type(array.dtype, what)
    shape, (count, *rest) = array.shape, array.shape or (0,)
    if len(rest) == 3 and 1 in (rest[0], rest[2]):
        rest = rest[1:] if rest[0] == 1 else rest[:2]
    colour = colour_axis(shape) == 3
    if len(rest) not in (1, 2) and not colour:
        raise DataError(
            f"{what} has shape {shape}; expected (count, pixels), (count, rows, columns), or (count, rows, columns, "
            f"channels) with 1 channel of grey or 3 of colour.{_reshaped(shape, array.dtype)}"
        )
    if not count or not math.prod(rest):
        raise DataError(f"{what} has shape {shape}, without any pixel; expected at least one image.")
    if len(rest) > 1:
        return tuple(rest)
    side = math.isqrt(rest[0])
    return (side, side) if side * side == rest[0] else (1, rest[0])


def observed(parts: list[np.ndarray], what: str) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Rows with a number in place of every NaN, which means a missing value, and masks with 0 there and 1 elsewhere.

    The masks are None if nothing is missing. The number is one of the array, so the parts' range stays as it is.
    """
    if parts[0].dtype.kind != "f" or not np.isnan(limits(parts)[0]):
        return parts, None
    masks = [(~np.isnan(part)).astype(np.uint8) for part in parts]
    if not any(mask.any() for mask in masks):
        raise DataError(f"{what} holds only NaN, which means a missing value; expected some numbers.")
    fill = min(float(np.nanmin(part)) for part, mask in zip(parts, masks, strict=True) if mask.any())
    return [np.where(mask, part, part.dtype.type(fill)) for part, mask in zip(parts, masks, strict=True)], masks


def as_counts(parts: list[np.ndarray], what: str) -> list[np.ndarray]:
    """Whole numbers from 0 on as float32, which holds them exactly. DataError for other numbers."""
    low, high = limits(parts)
    if not (low >= 0 and high <= LARGEST_COUNT and all(map(is_whole, parts))):
        kind = "" if all(map(is_whole, parts)) else ", not all of them whole"
        raise DataError(f"{what} holds {found_range(parts)}{kind}; expected counts, whole numbers from 0 to "
                        f"{LARGEST_COUNT:,}: take -real for other numbers.")
    return [contiguous(part, np.float32) for part in parts]


def standardised(parts: dict[str, np.ndarray], masks: dict[str, np.ndarray], names: tuple[str, ...],
                 what: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The parts as float32 with (own - center) / spread in each column, and both, (columns,) in float64.

    They are the mean and the standard deviation of the training part's observed values. A column that is constant there
    gets the spread 1, and a warning. DataError for numbers that are infinite, and for a column without any value.
    """
    center, spread = np.empty((2, len(names)))
    found = {key: np.empty(part.shape, np.float32) for key, part in parts.items()}
    constant = []
    for j, name in enumerate(names):
        if not all(np.isfinite(part[:, j]).all() for part in parts.values()):
            raise DataError(f"{what} has infinite numbers in the column {name}; expected finite ones, and NaN or an "
                            "empty cell where a value is missing.")
        values = parts["train"][:, j].astype(np.float64)
        values = values[masks["train"][:, j] == 1] if masks else values
        if not values.size:
            raise DataError(f"{what} has no training value in the column {name}; expected some: leave the column out.")
        size = np.abs(values).max() or 1.0  # by it no square overflows
        center[j], spread[j] = size * (values / size).mean(), size * (values / size).std()
        if values.min() == values.max() or spread[j] == 0:
            center[j], spread[j] = values[0], 1.0
            constant.append(name)
        for key, part in parts.items():
            found[key][:, j] = (part[:, j].astype(np.float64) - center[j]) / spread[j]
    if constant:
        warnings.warn(f"{what} has the same number in the whole training part of the columns {', '.join(constant)}: "
                      "nothing can be learned there, and the density of a continuous likelihood has no bound; leave "
                      "them out", stacklevel=2)
    return found, center, spread


def _reshaped(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """The cure for an array with more axes: colours without opacity, or all images along one axis."""
    if len(shape) < 4:
        return ""
    axis = next((axis for axis in (3, 1) if len(shape) == 4 and shape[axis] in (2, 4)), None)
    if axis is None:
        kept, words = (shape[-3:], "three axes are rows, columns and channels") if shape[-1] == CHANNELS else (
            shape[-2:], "two axes are rows and columns")
        return f" Store images.reshape(-1, {', '.join(map(str, kept))}), if the last {words}."
    colour, alpha = ("images[..., :-1]", "images[..., -1:]") if axis == 3 else ("images[:, :-1]", "images[:, -1:]")
    white, kind = (65535, "uint16") if dtype.kind == "u" and dtype.itemsize == 2 else (255, "uint8")
    laid = (f"np.float32({colour} * {alpha} + 1 - {alpha})" if dtype.kind == "f" else
            f"np.{kind}(np.rint({colour} * ({alpha} / {white}) + {white} - {alpha}))")
    rows, columns = shape[1:3] if axis == 3 else shape[2:]
    each = "np.moveaxis(images, 3, 1)" if axis == 3 else "images"
    return (f" If the last of its {shape[axis]} channels is opacity, store {laid}, which lays the images on white; if "
            f"each channel is an image of its own, {each}.reshape(-1, {rows}, {columns}).")


def as_pixels(parts: list[np.ndarray], what: str, flat: bool = False) -> tuple[list[np.ndarray], float]:
    """Rows of pixels, grey or in colour, as C-contiguous uint8 or float32, with one scale for all parts.

    Integers from 0 to 255 become bytes (scale 255), floats in [0, 1] float32 (scale 1). Integers of 16 bits of which
    one is above 255 are divided by 65535. If all pixels have one of two
    values, they are bits (scale 1), and a warning says so unless the values are 0 and 1. An array that needs no
    conversion is not copied. Raises DataError for values out of range, with a line of Python that cures it; `flat` says
    that the array was (count, columns), which may be no images but a table.
    """
    if len({part.dtype.kind == "f" for part in parts}) == 2:
        types = " and ".join(str(part.dtype) for part in parts)
        raise DataError(f"{what} mixes {types}; expected train and test to be both integers or both floats.")
    floats = parts[0].dtype.kind == "f"
    low, high = limits(parts)
    deep = high > 255 and all(part.dtype.kind == "u" and part.dtype.itemsize == 2 for part in parts)
    top = 1 if floats else 65535 if deep else 255
    if not (low >= 0 and high <= top):  # NaN fails
        expected = "floats in [0, 1]" if floats else "integers from 0 to 255"
        raise DataError(f"{what} holds {found_range(parts)}; expected {expected}. "
                        f"{of_table(parts, f'take {what}-real, which standardises each') if flat else cure(parts)}")
    if low < high and only(parts, low, high):
        if (low, high) != (0, 1):
            warnings.warn(f"{what} holds only the values {number(low)} and {number(high)}: they are taken as the bits "
                          "0 and 1", stacklevel=2)
            return [(np.asarray(part) == high).view(np.uint8) for part in parts], 1.0
        return [contiguous(part, np.uint8) for part in parts], 1.0
    if floats:
        if low == high and low in (0, 1):  # bits that are all the same
            return [contiguous(part, np.uint8) for part in parts], 1.0
        return [contiguous(part, np.float32) for part in parts], 1.0
    if 1 < high <= (top + 1) // 4:
        warnings.warn(f"{what} holds integers from {low:g} to {high:g}, which divided by {top} are almost black; if "
                      f"{high:g} is white, store np.float32(images / {high:g}) instead", stacklevel=2)
    if deep:
        return [np.divide(part, 65535, dtype=np.float32) for part in parts], 1.0
    return [contiguous(part, np.uint8) for part in parts], 1.0 if high <= 1 else 255.0
