"""Image files by Pillow: PNG, JPEG, GIF, BMP, TIFF, WebP, PGM. Only these are opened, never one that starts a program.

An image is turned as its EXIF orientation says. All frames or pages of a file are taken. Transparent images are laid on
white or on black, all of a data set on the same, whichever shows what is drawn; a warning says which. An image is grey
if its red, green and blue are equal everywhere. If any image of a data set is in colour, all become so, and a warning
says how many were grey. Of a grey image 16 bits are taken, of a channel of one in colour the upper 8, with a warning.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.dataset import CHANNELS
from tinyvae.data.formats.registry import Arrays, Stored, check_memory, expected, reads

PILLOW = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
LARGEST = 2**24  # pixels of an image, 4096 x 4096: a first layer of 400 units has 25 GiB of weights for so many
LOTS, RATIO = 2**30, 100  # more bytes of pixels are refused if they come from files less than a hundredth as large

# The modes of Pillow whose values fit into bytes, and those of 16 bits; "I" and "F" have values of any size.
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The image of a file, whose header alone has been read; DataError if it, or what is done with it, fails."""
    import PIL.Image

    too_large = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)
    try:
        # a stream, not a name: Pillow 13 maps a named TIFF with its rows and columns confused, if it is to be turned
        with file.open("rb") as stream, PIL.Image.open(stream, formats=PILLOW) as image:
            _check_size(image, file)
            yield image
    except DataError:
        raise
    except too_large as error:
        raise DataError(f"{file} is too large ({error}); expected at most {LARGEST:,} pixels: make it smaller, by "
                        "image.resize((width, height)).") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        why = f"none of {', '.join(PILLOW)}" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise DataError(f"{file} is no readable image ({why}); expected only images: move it elsewhere, or get it "
                        "again.") from error


def _check_size(image: Any, file: Path) -> None:
    """Raise DataError for a frame, not decoded yet, with too many pixels."""
    width, height = image.size
    if width * height > LARGEST:
        raise DataError(f"{file} has {height} x {width} pixels; expected at most {LARGEST:,} pixels: make it smaller, "
                        "by image.resize((width, height)).")


def frames_of(file: Path) -> int:
    """The number of frames or pages, which the header says."""
    with _opened(file) as image:
        # The further frames of a photograph in the format MPO are smaller copies of it, or a map of its brightness.
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def read_images(path: Path, files: Sequence[Path]) -> np.ndarray:
    """All frames of all files in their order, (count, rows, columns) or in colour (count, rows, columns, 3), uint8 or
    uint16; `path` names them together."""
    counts = [frames_of(file) for file in files]
    first = next(_frames(files[0], 1)).pixels
    shape, there = (sum(counts), *first.shape), sum(file.stat().st_size for file in files)
    if math.prod(shape) > max(LOTS, RATIO * there):
        raise DataError(f"{path} claims {math.prod(shape[:3]):,} pixels in {there:,} bytes of files; if this is right, "
                        "store them as train.npy and test.npy in a folder.")
    check_memory(path, shape, first.dtype)
    images = np.empty(shape, first.dtype)
    opacity: dict[int, np.ndarray] = {}  # of the images that are not opaque everywhere
    notes: Counter[str] = Counter()
    row = grey = 0
    for file, count in zip(files, counts, strict=True):
        for frame in _frames(file, count):
            pixels = frame.pixels
            if pixels.shape[:2] != first.shape[:2]:
                raise DataError(f"{file} has {pixels.shape[:2]} rows and columns, {files[0].name} has "
                                f"{first.shape[:2]}; expected images of one size: resize it, or move it elsewhere.")
            if pixels.dtype != images.dtype:
                raise DataError(f"{file} has {8 * pixels.itemsize} bits a channel, {files[0].name} has "
                                f"{8 * first.itemsize}; expected as many in all: move one kind elsewhere.")
            if pixels.ndim > images[0].ndim:  # the first in colour
                check_memory(path, (*images.shape, CHANNELS), images.dtype)
                images = np.repeat(images[..., None], CHANNELS, axis=-1)
            images[row] = pixels[..., None] if pixels.ndim < images[0].ndim else pixels
            if frame.alpha is not None:
                opacity[row] = frame.alpha
            row, grey = row + 1, grey + (pixels.ndim == 2)
            notes.update(frame.notes)
    if grey and images.ndim == 4:
        warnings.warn(f"{path} has {grey} grey images among {row - grey} in colour: they are taken as colours with "
                      "equal red, green and blue", stacklevel=2)
    for note, count in notes.items():
        warnings.warn(f"{path} has {count} images of {note}", stacklevel=2)
    if opacity:
        _lay_on_ground(images, opacity, path)
    return images


class Frame(NamedTuple):
    """A frame: its grey values (rows, columns) or colours (rows, columns, 3), uint8 or uint16; its opacity, (rows,
    columns) uint8, or None if it is opaque everywhere; and what a user should know of how it was read."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    notes: tuple[str, ...] = ()


INKS = "inks (CMYK): they are turned into red, green and blue without a colour profile"
CUT = "16 bits a channel: the upper 8 are taken; to keep all, store the images as one array, of uint16"


def _frames(file: Path, count: int) -> Iterator[Frame]:
    """The frames of a file, turned upright."""
    from PIL import ImageOps

    with _opened(file) as image:
        for number in range(count):
            image.seek(number)
            _check_size(image, file)  # pages can differ
            cut = _loses_bits(image)
            image.load()
            deep = image.mode in DEEP or (image.mode, image.format) == ("I", "PPM")  # which Pillow scales to 65535
            if image.mode not in MODES and not deep:
                raise DataError(f"{file} has pixel mode {image.mode}; expected 8 or 16 bits a channel: store the "
                                "images as one array, np.float32(np.stack(list(map(np.asarray, images))) / white), "
                                "where white is the value of a white pixel.")
            try:
                upright = ImageOps.exif_transpose(image)
            except Exception:  # the pixels have been read, so the fault is one of the EXIF data alone
                upright = image
            if deep:
                yield Frame(np.asarray(upright).astype(np.uint16))
            else:
                found = _frame(upright)
                yield found._replace(notes=(*found.notes, CUT)) if cut else found


def _loses_bits(image: Any) -> bool:
    """Whether Pillow will keep 8 of the 16 bits of a channel, since it has no mode for more of images in colour."""
    return not image.mode.startswith("I") and any(
        ";16" in str(tile[3]) or (tile[0] == "ppm" and tile[3][1] > 255) for tile in image.tile)


def _frame(image: Any) -> Frame:
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return Frame(np.asarray(image.convert("L")))
    channels = np.asarray(image.convert("RGBA"))
    colours, alpha = channels[..., :CHANNELS], channels[..., CHANNELS]
    in_colour = (colours != colours[..., :1])[alpha > 0].any()
    return Frame(colours if in_colour else colours[..., 0], None if (alpha == 255).all() else alpha,
                 (INKS,) if in_colour and image.mode == "CMYK" else ())


def _lay_on_ground(images: np.ndarray, opacity: dict[int, np.ndarray], path: Path) -> None:
    """Lay transparent images on white if what they show is dark, else on black; `opacity` has the alpha of each row."""
    seen = sum(int(alpha.sum(dtype=np.int64)) for alpha in opacity.values())
    if len(opacity) == len(images) and not seen:
        raise DataError(f"{path} has only images that are transparent everywhere (alpha is 0), so there is nothing to "
                        "see; if their colours are meant, save them without it: image.convert('RGB').")
    light = {row: images[row].reshape(*alpha.shape, -1).mean(-1) for row, alpha in opacity.items()}
    shade = sum(float((light[row] * alpha).sum()) for row, alpha in opacity.items())
    ground = 255 if shade < 127.5 * seen else 0
    for row, alpha in opacity.items():
        a = alpha.astype(np.uint32).reshape(alpha.shape + (1,) * (images.ndim - 3))
        images[row] = (images[row] * a + ground * (255 - a) + 127) // 255  # rounded
    warnings.warn(f"{path} has {len(opacity)} transparent images, whose visible pixels are "
                  f"{'dark' if ground else 'bright'}: they are laid on {'white' if ground else 'black'}", stacklevel=2)


@reads("an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", (b"WEBP", 8),
       *(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b"\n "), is_data_set=False)
def read_file(path: Path) -> Arrays:
    """The frames or pages of one file; DataError if it has only one."""
    if frames_of(path) < 2:
        raise DataError(f"{path} is one image; expected {expected()}: put at least two images of one size into a "
                        "folder, and give that folder.")
    return {"images": Stored.of(read_images(path, [path]))}
