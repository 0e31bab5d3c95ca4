"""The checks that all images pass, whether they come from a file or from memory: type, shape, and range.

Each fault is one sentence. A cure in it is a line of Python, and it is given only if its result is right for these very
numbers: `images` is the array that was found, with all its parts together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvae.data.mapped.rows import AnyRows, MappedRows, blocks

OBJECTS = ("holds Python objects, which could run code when loaded; expected numbers: save np.stack(list(images)), "
           "which is one array, and strings with astype(str).")
ROUNDING = 0.01  # values that lie out of range by at most this much are taken for rounding, or for compression
LARGEST_COUNT = 2**24  # float32 holds all whole numbers up to it


class DataError(ValueError):
    """Data that cannot be used; the message says what was found, what was expected and what to do."""


def check_rows(rows: Any, what: str, scale: float = 1.0, kind: str = "grey", flat: bool = False) -> None:
    """Raise DataError unless `rows` is an array (count, pixels) of numbers from 0 to `scale`; `what` names it.

    Of the `kind` "counts" it must hold whole numbers from 0 on, and of "real" any finite numbers. `flat` says that they
    may be no images but a table.
    """
    there = isinstance(rows, (np.ndarray, MappedRows))
    if not there or rows.ndim != 2 or not rows.size:
        found = f"shape {rows.shape}" if there else f"type {type(rows).__name__}"
        raise DataError(f"found {what} of {found}; expected an array (count, pixels) that is not empty")
    check_type(rows.dtype, what)
    check_range(rows, what, scale, kind, flat)


def check_range(rows: np.ndarray, what: str, scale: float = 1.0, kind: str = "grey", flat: bool = False) -> None:
    """Raise DataError unless all numbers of `rows`, (count, pixels) and not empty, are from 0 to `scale`, or of the
    `kind` "counts" or "real"."""
    if rows.dtype == np.uint8 and scale >= 255 and kind not in ("real", "counts"):
        return  # bytes are from 0 to 255
    low, high = limits([rows])
    if kind in ("real", "counts"):
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"found {found_range([rows])} in {what}; expected finite numbers, and a mask with 0 where "
                            "one is missing")
        if kind == "counts" and not (low >= 0 and high <= LARGEST_COUNT and is_whole(rows)):
            raise DataError(f"found {found_range([rows])} in {what}; expected counts, whole numbers from 0 to "
                            f"{LARGEST_COUNT:,}: take -real for other numbers")
        return
    if not (low >= 0 and high <= scale):  # NaN fails
        expected = "numbers from 0 to 1" if scale == 1 else f"numbers from 0 to the scale, {scale:g}"
        advice = (of_table([rows], "take tv.data.from_table, which standardises each") if flat else
                  cure([rows]) if scale == 1 else "")
        raise DataError(f"found {found_range([rows])} in {what}; expected {expected}. {advice}".strip())


def check_type(dtype: np.dtype, what: str) -> None:
    """Raise DataError unless this is a type of real numbers."""
    if dtype.hasobject:
        raise DataError(f"{what} {OBJECTS}")
    if dtype.kind not in "buif":
        raise DataError(f"{what} holds {dtype}; expected integers from 0 to 255 or floats in [0, 1].")


def limits(parts: Sequence[np.ndarray]) -> tuple[Any, Any]:
    """The lowest and the highest number of all parts; both are NaN if there is one in them."""
    # both in one pass, for rows that are read from files
    found = [(block.min(), block.max()) for part in parts for block in blocks(part)]
    low, high = (function(values) for function, values in zip((np.min, np.max), zip(*found, strict=True), strict=True))
    return low, high


def only(parts: Sequence[np.ndarray], low: Any, high: Any) -> bool:
    """Whether every pixel has one of these two values."""
    # stops at the first other value
    return all(bool(((block == low) | (block == high)).all()) for part in parts for block in blocks(part))


def is_whole(rows: np.ndarray) -> bool:
    """Whether all numbers, (count, columns), are whole."""
    if rows.dtype.kind != "f":
        return True
    return all(bool((block == np.floor(block)).all()) for block in blocks(rows))  # stops at the first other block


def found_range(parts: Sequence[np.ndarray]) -> str:
    """The range of the parts in words, or how many of the images hold a NaN."""
    low, high = limits(parts)
    if low == low:
        return f"values from {number(low)} to {number(high)}"
    bad = sum(int(np.isnan(block).any(axis=1).sum()) for part in parts for block in blocks(part))
    return f"NaN in {bad} of {sum(map(len, parts))} images"


def number(value: Any) -> str:
    """The shortest digits that say exactly this number of its type."""
    return str(value.item() if np.asarray(value).dtype.kind != "f" else value).removesuffix(".0")


def cure(parts: Sequence[np.ndarray]) -> str:
    """The sentence with the line that brings these images into [0, 1]; or why none can."""
    low, high = limits(parts)
    if not (np.isfinite(low) and np.isfinite(high)):
        if not any(np.isfinite(block).all(axis=1).any() for part in parts for block in blocks(part)):
            return "No image is free of them, so look at how the images were made."
        return "Drop those images and their labels: images[np.isfinite(images.reshape(len(images), -1)).all(1)]."
    if low == high:
        return f"Every pixel is {number(low)}, so look at how the images were made."
    floats = parts[0].dtype.kind == "f"
    if floats and low >= -ROUNDING and high <= 1 + ROUNDING:
        return "Store np.clip(images, 0, 1) instead."
    if low >= 0:
        # Up to 64 the white of the images is surely not that of bytes: it would be almost black.
        white = "255" if 64 < high <= 255 else "65535" if not floats and 2**14 < high <= 65535 else number(high)
        return f"Store np.float32(images / {white}) instead."
    if -1 - ROUNDING <= low <= -0.5 and high <= 1 + ROUNDING:
        halved = "(images + 1) / 2"
        return f"Store np.float32({halved if -1 <= low and high <= 1 else f'np.clip({halved}, 0, 1)'}) instead."
    return f"Store np.float32(np.interp(images, ({number(low)}, {number(high)}), (0, 1))) instead."


def of_table(parts: list[np.ndarray], advice: str) -> str:
    """The cure of rows out of range that may be those of a table, for which the advice is right."""
    width = parts[0].shape[1]
    if not np.isfinite(limits(parts)).all():
        return cure(parts)
    if math.isqrt(width) ** 2 == width:  # may be square images
        return f"{cure(parts)} For columns of a table, {advice}."
    return f"For {width} columns of a table, {advice}."


def sameness(rows: AnyRows) -> str:
    """In words, that all images (count, pixels) are copies of one; "" if they are not, or if there is only one."""
    if len(rows) < 2 or not all((block == rows[0]).all() for block in blocks(rows)):
        return ""  # found in the first block with another image
    if rows[0].min() == rows[0].max():
        return f"every pixel of all {len(rows)} images is {number(rows[0, 0])}"
    return f"all {len(rows)} images are the same"


def degeneracy(rows: AnyRows) -> str:
    """In words, why a density has no bound on images (count, pixels); "" if no reason is seen.

    Copies of few images, or a pixel that never changes, let the density of a continuous likelihood grow on them alone.
    """
    if found := sameness(rows):
        return found
    different = len({hash(row.tobytes()) for block in blocks(rows) for row in block})
    if 2 * different <= len(rows):
        return f"only {different} of {len(rows)} images differ from each other"
    fixed = int((rows.min(0) == rows.max(0)).sum()) if len(rows) > 1 else 0
    return f"{fixed} of {rows.shape[1]} pixels are the same in every image" if fixed else ""
