"""Readers of image files: .npy, .npz, IDX (compressed or not), .mat, and folders of images.

The first bytes of a file, not its name, determine its format. Loading never runs code: pickled objects are refused.
Every failure is a DataError of one or two sentences: what was found, what was expected, and what to do.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from tinyvae.data.dataset import DataError

# The type codes of the IDX format (its third byte); all numbers are big-endian.
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

GZIP, NUMPY, ZIP, PICKLE = b"\x1f\x8b", b"\x93NUMPY", b"PK\x03\x04", b"\x80"
FORMATS = "an .npy, .npz or IDX(.gz) file or a folder of images"

# The modes of Pillow whose values fit into grey bytes; those of "I;16" and "F" do not.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file or folder by name; an array without a name is called "images"."""
    if path.is_dir():
        return read_folder(path)
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise DataError(f"{path} is empty; expected {FORMATS}.")
    if head.startswith(NUMPY):
        return {"images": read_npy(path)}
    if head.startswith(ZIP):
        return read_npz(path)
    if head.startswith(GZIP) or head.startswith(b"\0\0"):
        return {"images": read_idx(path)}
    if head.startswith(PICKLE) and path.suffix in (".pkl", ".pickle", ".npy", ".npz", ".pt"):
        raise DataError(f"{path} is a pickle, which could run code; save the array with np.save instead.")
    raise DataError(f"{path} begins with the bytes {head.hex(' ')}; expected {FORMATS}.")


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, the format of MNIST, compressed by gzip or not.

    The header is two zero bytes, the type code, the number of axes, then each size as a big-endian 4-byte
    integer.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            content = file.read()
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); get it again.") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise DataError(
            f"{path} has the magic number '{content[:4].hex(' ')}'; expected that of IDX: 00 00, a type code "
            "and the number of axes (images of bytes: 00 00 08 03)."
        )
    axes, dtype = content[3], np.dtype(IDX_TYPES[content[2]])
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(f"{path} ends in its header, after {len(content)} of {start} bytes; get it again.")
    shape = struct.unpack(f">{axes}I", content[4:start])
    found, expected = len(content) - start, math.prod(shape) * dtype.itemsize
    if found != expected:
        raise DataError(
            f"{path} holds {found} bytes after its header; expected {expected}, for the header says shape "
            f"{shape}. It is truncated or damaged: get it again."
        )
    # astype copies the bytes from `content` into the native byte order
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, memory-mapped, so that only the pages in use are read.

    The mapping is copy-on-write: the array is writable, but the file never changes.
    """
    try:
        array = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except Exception as error:  # a damaged header raises SyntaxError, TokenError, MemoryError, ...
        raise _numpy_error(path, error) from error
    return array


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name; arrays of strings are left out, objects are refused."""
    try:
        # this opens the file itself, because np.load leaves a damaged file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # as in read_npy, also BadZipFile, zlib.error, NotImplementedError, ...
        raise _numpy_error(path, error) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise DataError(f"{path} is a zip archive with other files than arrays; expected an archive of np.savez.")
    return {key: array for key, array in arrays.items() if array.dtype.kind not in "SU"}


def _numpy_error(path: Path, error: Exception) -> DataError:
    if "bject" in str(error):  # NumPy's words: "Object arrays cannot be loaded", "Python objects in dtype"
        return DataError(
            f"{path} holds Python objects, which could run code when loaded; expected numbers: save "
            "np.stack(list(images)), which is one array."
        )
    return DataError(f"{path} cannot be read ({error}): truncated, damaged or too large; write it again.")


def read_mat(path: Path, key: str) -> np.ndarray:
    """One array of a MATLAB 5 file. SciPy's reader can crash on a damaged file, so its SHA-256 is compared first."""
    import scipy.io

    try:
        arrays = scipy.io.loadmat(path, variable_names=[key])
    except Exception as error:  # SciPy's reader raises MatReadError and many other errors
        raise DataError(f"{path} is not a MATLAB 5 file, as expected ({error}); get it again.") from error
    if key not in arrays:
        raise DataError(f"{path} has no array {key!r}; get the original file again.")
    return arrays[key]


def read_folder(path: Path) -> dict[str, np.ndarray]:
    """A folder of images as {"images": (count, rows, columns) uint8}, in the order of their file names.

    Colours become grey by Pillow's luma (0.299 R + 0.587 G + 0.114 B), and transparency is ignored. All images must
    have the same size. Hidden files are skipped; any other file that is not an image is an error.

    A folder that holds only .npy files, such as train.npy and test.npy, is read as these arrays, memory-mapped. In this
    way a data set can be larger than the memory.
    """
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    if not files:
        raise DataError(f"{path} has no images; expected images of one size, or train.npy and test.npy.")
    if all(file.suffix == ".npy" for file in files):
        return {file.stem: read_npy(file) for file in files}
    first = _read_image(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for row, file in zip(images, files, strict=True):
        image = _read_image(file)
        if image.shape != first.shape:
            raise DataError(
                f"{file} has {image.shape} rows and columns, {files[0].name} has {first.shape}; expected "
                "images of one size: resize or remove it."
            )
        row[...] = image
    return {"images": images}


def _read_image(file: Path) -> np.ndarray:
    import PIL.Image

    if file.is_dir():
        raise DataError(f"{file} is a folder; expected only images there: name the folder that holds them.")
    try:
        with PIL.Image.open(file) as image:
            if image.mode not in MODES:
                raise DataError(f"{file} has pixel mode {image.mode}; expected 8 bits a channel: convert it.")
            return np.asarray(image.convert("L"))
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(f"{file} is no readable image ({error}); expected only images: remove it.") from error
