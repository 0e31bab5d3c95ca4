"""Which pixels of an image are missing: a name such as `left`, `random:0.5`, or an image or array as a file.

A mask is an array (count, pixels) of truth values, true where a pixel is missing. Numbers are truth values if there are
only two of them, of which the larger, as the white of an image, says missing. In colour a pixel is missing with its
red, green and blue, unless an array says it of each channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.choices import array_of
from tinyvae.engine.noise import uniform

Shape = tuple[int, ...]  # (rows, columns) of an image, or (rows, columns, 3) in colour


def _quadrant(mask: np.ndarray) -> None:
    mask[mask.shape[0] // 2 :, mask.shape[1] // 2 :] = True


def _center(mask: np.ndarray) -> None:
    rows, columns = mask.shape
    top, left = rows // 4, columns // 4
    mask[top : top + (rows + 1) // 2, left : left + (columns + 1) // 2] = True


def _left(mask: np.ndarray) -> None:
    mask[:, : mask.shape[1] // 2] = True


def _top(mask: np.ndarray) -> None:
    mask[: mask.shape[0] // 2] = True


# The masks that are the same for every image, each a function that marks what is missing in an empty one: the left and
# the upper half, the lower right quarter, and the middle, half as high and half as wide as the image.
MASKS: dict[str, Callable[[np.ndarray], None]] = {"left": _left, "top": _top, "quadrant": _quadrant, "center": _center}
CHOICES = (f"{', '.join(MASKS)}, random:SHARE (as random:0.5, which random alone means) or a file with an "
           "image or an array of two values")


def missing_pixels(what: Any, shape: Shape, count: int = 1, seed: int = 0) -> np.ndarray:
    """The mask of `count` images of a shape, (count, pixels), true where a pixel is missing.

    Parameters
    ----------
    what
        A name in `MASKS`; "random:0.5", that share of the pixels of each image, drawn for each image by the stream
        "missing", and "random" for a half; the path of an image or of an array (.npy); or an array. An array has the
        shape of one image, with its channels or without, or (count, pixels).

    Raises
    ------
    ValueError
        For a mask of another shape, for one that is no truth values, and where nothing or everything is missing.
    """
    pixels, channels = math.prod(shape[:2]), math.prod(shape[2:])
    if isinstance(what, str) and what.partition(":")[0] == "random":
        mask = _random(what, pixels, count, seed).repeat(channels, axis=1)
    elif isinstance(what, str) and what in MASKS:
        empty = np.zeros(shape[:2], bool)
        MASKS[what](empty)
        mask = np.tile(empty.reshape(1, pixels), (count, 1)).repeat(channels, axis=1)
    else:
        name, found = ("the mask", array_of("the mask", what)) if not isinstance(what, (str, Path)) else (
            f"the mask {what}", _read(Path(what)))
        mask = _fitted(found, name, shape, count)
    share, which = mask.mean(), what if isinstance(what, (str, Path)) else "the mask"
    if not 0 < share < 1:
        raise ValueError(f"found {'nothing' if share == 0 else 'everything'} missing in {which} of {shape[0]} x "
                         f"{shape[1]} pixels; expected some pixels that are missing and some that were observed")
    return mask


def _random(what: str, pixels: int, count: int, seed: int) -> np.ndarray:
    try:
        share = 0.5 if what == "random" else float(what.removeprefix("random:"))
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise ValueError(f"found the mask {what}; expected random:SHARE with a share between 0 and 1, as random:0.5")
    # As many pixels of each image as the share says: those with the smallest of its random labels.
    labels = uniform(seed, "missing", 0, 0, (count, pixels), np.float64)
    ranks = labels.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return ranks < round(share * pixels)


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"found no file {path} and no mask of that name; expected {CHOICES}")
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except UnidentifiedImageError:
        raise ValueError(f"found {path}, which is no image and no array in a .npy file; expected {CHOICES}") from None


def _truth(found: np.ndarray, name: str) -> np.ndarray:
    """Numbers as truth values: the larger of two; ValueError for more than two, whose limit nobody has named."""
    values = np.unique(found)
    if len(values) == 2 and np.isfinite(values).all():
        return found == values[1]
    if len(values) == 1 and values[0] in (0, 1, 255):
        return found > 0
    what = (f"{values[0]:g} everywhere" if len(values) == 1 else f"{values[0]:g} and {values[1]:g}"
            if len(values) == 2 else f"{len(values):,} different values")
    raise ValueError(f"found {what} in {name}; expected two values, as true and false or white and black, of which the "
                     "larger says missing: compare it with a limit of your own first")


def _fitted(found: np.ndarray, name: str, shape: Shape, count: int) -> np.ndarray:
    """The mask (count, pixels) of an array; ValueError if it fits neither one image nor all."""
    if found.dtype.kind not in "buif":
        raise ValueError(f"found {found.dtype} in {name}; expected truth values or numbers, true or white where a "
                         "pixel is missing")
    if found.dtype != bool and found.size:
        found = _truth(found, name)
    for each in (shape, shape[:2]):  # with the channels of colours, and without
        pixels = math.prod(each)
        if found.shape in (each, (pixels,), (1, pixels), (count, pixels)):
            mask = np.broadcast_to(found.reshape(-1, pixels), (count, pixels))
            return mask.repeat(math.prod(shape) // pixels, axis=1)
    pixels = math.prod(shape[:2])
    raise ValueError(f"found {name} of shape {found.shape}; expected {shape[:2]}, the shape of one image, or "
                     f"{(count, pixels)}, a row for each of {count} images")
