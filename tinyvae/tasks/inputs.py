"""Images that a user gives to a trained model: an array, an image file, a folder of images or a file with an array."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data import DataError, formats
from tinyvae.data.arrays import role_of
from tinyvae.data.checks import check_range, check_type
from tinyvae.data.dataset import CHANNELS
from tinyvae.data.formats.images import read_images
from tinyvae.data.formats.registry import head_of, recognised
from tinyvae.data.rows import as_pixels, channels_last, image_shape

Shape = Sequence[int]


def images_of(given: Any, shapes: Sequence[Shape] = ()) -> np.ndarray:
    """The images as (count, rows, columns) float32 in [0, 1], or (count, rows, columns, 3) in colour.

    Parameters
    ----------
    given
        An array (count, rows, columns), (count, pixels) or (rows, columns) of numbers in [0, 1], or a path. In a file
        bytes are values from 0 to 255.
    shapes
        The (rows, columns), or (rows, columns, 3) in colour, of images that are expected. An array of one of these
        shapes is one image, and rows of as many pixels are images of this shape. A grey image where one in colour is
        expected has equal red, green and blue.

    Raises
    ------
    DataError
        If there is nothing at the path, or no image in it.
    """
    if not isinstance(given, (str, os.PathLike)):
        array = np.asarray(given)
        check_type(array.dtype, "the image")
        images = _shaped(array, "the image", shapes)
        check_range(images.reshape(len(images), -1), "the image")
        return _coloured(np.ascontiguousarray(images, np.float32), shapes)
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(f"there is no file or folder {path}; expected an image, a folder of images or an .npy file")
    try:
        images = _shaped(_array(path), str(path), shapes)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); expected an image, a folder of images or an .npy file") \
            from error
    (pixels,), scale = as_pixels([images.reshape(len(images), -1)], str(path))
    return _coloured((pixels / np.float32(scale)).reshape(images.shape).astype(np.float32), shapes)


def _coloured(images: np.ndarray, shapes: Sequence[Shape]) -> np.ndarray:
    """The images, with three channels if they are grey and only images in colour of their size are expected."""
    wanted = [tuple(shape) for shape in shapes]
    if images.ndim == 4 or images.shape[1:] in wanted or (*images.shape[1:], CHANNELS) not in wanted:
        return images
    return np.repeat(images[..., None], CHANNELS, axis=-1)


def _array(path: Path) -> np.ndarray:
    """The images of a file or folder; those of its test part if there are several parts."""
    if path.is_file() and (kind := recognised(head_of(path))) is not None and kind.name == "an image":
        return read_images(path, [path])  # which may be a single one
    try:
        arrays = formats.read(path)
    except DataError as fault:  # readers know only that data are wanted, which may be a table
        raise DataError(str(fault).replace(formats.expected(), formats.expected(tables=False))) from None
    if not isinstance(arrays, dict):
        raise DataError(f"{path} is a table; expected an image, a folder of images or an .npy file")
    roles = {role: name for name in arrays if (role := role_of(name)) is not None and role[1] == "images"}
    for part in ("test", "", "valid", "train"):
        if (part, "images") in roles:
            return arrays[roles[part, "images"]].read()
    raise DataError(f"{path} has the arrays {', '.join(arrays)}; expected one that is called images")


def _shaped(array: np.ndarray, what: str, shapes: Sequence[Shape]) -> np.ndarray:
    """(count, rows, columns) or (count, rows, columns, 3)."""
    if array.shape in [tuple(shape) for shape in shapes]:
        return array[None]
    if array.ndim == 2:
        for shape in shapes:
            if array.shape[1] == math.prod(shape):
                return array.reshape(-1, *shape)
    array = channels_last(array)
    return array.reshape(-1, *image_shape(array, what))
