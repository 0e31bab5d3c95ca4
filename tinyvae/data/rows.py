"""Checking arrays of images, and turning them into rows of pixels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tinyvae.data.dataset import DataError


def as_rows(array: np.ndarray, what: str) -> tuple[np.ndarray, tuple[int, int]]:
    """An array of images as (count, pixels), and the (rows, columns) of one image.

    The accepted shapes are (N, D), (N, H, W), (N, H, W, 1) and (N, 1, H, W). If D is a perfect square, the images are
    square; else they have one row. `what` names the array in errors. Raises DataError.
    """
    if array.dtype.kind not in "buif":
        raise DataError(f"{what} holds {array.dtype}; expected integers from 0 to 255 or floats in [0, 1].")
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim not in (2, 3):
        raise DataError(
            f"{what} has shape {array.shape}; expected (count, pixels), (count, rows, columns) or one grey "
            "channel, (count, rows, columns, 1). Reshape it; average colour channels with images.mean(-1)."
        )
    if array.size == 0:
        raise DataError(f"{what} has shape {array.shape}, without any pixel; expected at least one image.")
    if array.ndim == 3:
        shape = (array.shape[1], array.shape[2])
    else:
        side = round(array.shape[1] ** 0.5)
        shape = (side, side) if side * side == array.shape[1] else (1, array.shape[1])
    return array.reshape(len(array), -1), shape


def as_grey(parts: list[np.ndarray], what: str) -> tuple[list[np.ndarray], float]:
    """Rows of pixels as C-contiguous uint8 or float32, with one scale for all parts.

    Integers from 0 to 255 become bytes (scale 255), or bits if none is above 1 (scale 1). Floats in [0, 1] become
    float32 (scale 1), or bits if all are 0 or 1. An array that needs no conversion is not copied. Raises DataError for
    NaN and for values out of range, with a line of Python that cures it.
    """
    floats = {part.dtype.kind == "f" for part in parts}
    if len(floats) == 2:
        types = " and ".join(str(part.dtype) for part in parts)
        raise DataError(f"{what} mixes {types}; expected train and test to be both integers or both floats.")
    # the minimum and maximum of an array with a NaN are NaN
    low, high = (function([function(part) for part in parts]) for function in (np.min, np.max))
    if floats == {True}:
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"{what} holds {_range(low, high, parts)}; expected floats in [0, 1]. {_cure(low, high)}"
            )
        if all(_only_bits(part) for part in parts):
            return [np.ascontiguousarray(part, np.uint8) for part in parts], 1.0
        return [np.ascontiguousarray(part, np.float32) for part in parts], 1.0
    if not (low >= 0 and high <= 255):
        raise DataError(
            f"{what} holds {_range(low, high, parts)}; expected integers from 0 to 255. {_cure(low, high)}"
        )
    if 1 < high <= 64:
        warnings.warn(f"{what} holds integers from {low:g} to {high:g}, which divided by 255 are almost black; if "
                      f"{high:g} is white, store np.float32(images / {high:g}) instead", stacklevel=2)
    return [np.ascontiguousarray(part, np.uint8) for part in parts], 1.0 if high <= 1 else 255.0


def _only_bits(rows: np.ndarray) -> bool:
    blocks = (rows[first : first + 4096] for first in range(0, len(rows), 4096))
    return all(bool(((block == 0) | (block == 1)).all()) for block in blocks)  # stops at the first grey block


def _range(low: Any, high: Any, parts: list[np.ndarray]) -> str:
    if low == low:
        return f"values from {low:g} to {high:g}"
    bad = sum(int(np.isnan(part).any(axis=1).sum()) for part in parts)
    return f"NaN in {bad} of {sum(map(len, parts))} images"


def _cure(low: Any, high: Any) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "Drop those images: images[np.isfinite(images.reshape(len(images), -1)).all(1)]."
    if low < 0:
        half = high <= 1 and low >= -1
        formula = "(images + 1) / 2" if half else "(images - images.min()) / (images.max() - images.min())"
        return f"Store np.float32({formula}) instead."
    return f"Store np.float32(images / {255 if high <= 255 else high:g}) instead."
