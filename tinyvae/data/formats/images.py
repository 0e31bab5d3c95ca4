"""Image files by Pillow: PNG, JPEG, GIF, BMP, TIFF, WebP, PGM. Only these are opened, never one that starts a program.

An image is turned as its EXIF orientation says. All frames or pages of a file are taken. Transparent images are laid on
white or on black, all of a data set on the same, whichever shows what is drawn; a warning says which. Images in colour
are refused, unless their red, green and blue are equal.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.registry import Arrays, Stored, check_memory, expected, reads

PILLOW = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
LARGEST = 2**24  # pixels of an image, 4096 x 4096: a first layer of 400 units has 25 GiB of weights for so many
LOTS, RATIO = 2**30, 100  # more bytes of pixels are refused if they come from files less than a hundredth as large

# The modes of Pillow whose values fit into bytes; those of "I;16" and "F" do not.
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


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
    """All frames of all files in their order, (count, rows, columns) uint8; `path` names them together."""
    counts = [frames_of(file) for file in files]
    first = next(_frames(files[0], 1))[0]
    shape, there = (sum(counts), *first.shape), sum(file.stat().st_size for file in files)
    if math.prod(shape) > max(LOTS, RATIO * there):
        raise DataError(f"{path} claims {math.prod(shape):,} pixels in {there:,} bytes of files; if this is right, "
                        "store them as train.npy and test.npy in a folder.")
    check_memory(path, shape, first.dtype)
    images = np.empty(shape, np.uint8)
    opacity: dict[int, np.ndarray] = {}  # of the images that are not opaque everywhere
    row = 0
    for file, count in zip(files, counts, strict=True):
        for grey, alpha in _frames(file, count):
            if grey.shape != first.shape:
                raise DataError(f"{file} has {grey.shape} rows and columns, {files[0].name} has {first.shape}; "
                                "expected images of one size: resize it, or move it elsewhere.")
            images[row] = grey
            if alpha is not None:
                opacity[row] = alpha
            row += 1
    if opacity:
        _lay_on_ground(images, opacity, path)
    return images


def _frames(file: Path, count: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The grey values and the opacity of each frame, (rows, columns) uint8; None if it is opaque everywhere."""
    from PIL import ImageOps

    with _opened(file) as image:
        for number in range(count):
            image.seek(number)
            _check_size(image, file)  # pages can differ
            image.load()
            if image.mode not in MODES:
                deep = image.mode.startswith("I;16")
                raise DataError(f"{file} has pixel mode {image.mode}; expected 8 bits a channel: store the images as "
                                f"one array, np.float32(np.stack(list(map(np.asarray, images))) / "
                                f"{'65535)' if deep else 'white), where white is the value of a white pixel'}.")
            try:
                upright = ImageOps.exif_transpose(image)
            except Exception:  # the pixels have been read, so the fault is one of the EXIF data alone
                upright = image
            yield _grey(upright, file)


def _grey(image: Any, file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L")), None
    transparent = image.mode[-1] in "Aa" or "transparency" in image.info
    *colours, alpha = np.moveaxis(np.asarray(image.convert("RGBA")), -1, 0)
    visible = alpha > 0
    if any((colour != colours[0])[visible].any() for colour in colours[1:]):
        grey = f"image.convert('{'LA' if transparent else 'L'}')"
        raise DataError(f"{file} is in colour; expected grey images, or red, green and blue that are equal: save grey "
                        f"copies, {grey}, in another folder.")
    return colours[0], None if (alpha == 255).all() else alpha


def _lay_on_ground(images: np.ndarray, opacity: dict[int, np.ndarray], path: Path) -> None:
    """Lay transparent images on white if what they show is dark, else on black; `opacity` has the alpha of each row."""
    seen = sum(int(alpha.sum(dtype=np.int64)) for alpha in opacity.values())
    if len(opacity) == len(images) and not seen:
        raise DataError(f"{path} has only images that are transparent everywhere (alpha is 0), so there is nothing to "
                        "see; if their colours are meant, save them without it: image.convert('RGB').convert('L').")
    shade = sum(int((images[row].astype(np.int64) * alpha).sum()) for row, alpha in opacity.items())
    ground = 255 if shade < 127.5 * seen else 0
    for row, alpha in opacity.items():
        a = alpha.astype(np.uint32)
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
