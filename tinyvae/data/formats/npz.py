"""Archives of NumPy arrays, .npz. Only headers are read at first, and then only the arrays that are wanted."""

from __future__ import annotations

import math
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.npy import header_of, numpy_error
from tinyvae.data.formats.registry import EXPANSION, Arrays, Stored, check_memory, expected, reads


@reads("an .npz file", b"PK\x03\x04", b"PK\x05\x06")
def read_npz(path: Path) -> Arrays:
    """The arrays of an archive by name."""
    try:
        # this opens the file itself, because zipfile leaves a damaged file open
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            found = {}
            for name in names:
                with archive.open(name) as stream:
                    found[name.removesuffix(".npy")] = Stored(*header_of(stream), partial(_read_array, path, name))
            others = archive.namelist()
    except Exception as error:  # BadZipFile, zlib.error, NotImplementedError, SyntaxError, KeyError, ...
        raise numpy_error(path, error) from error
    if others and not names:
        code = any(name.endswith("data.pkl") for name in others)
        advice = ("it is a file of PyTorch: save the tensor with np.save('images.npy', images.numpy())" if code else
                  "unpack it and give the folder of its images, or save arrays with np.savez")
        raise DataError(f"{path} is a zip archive with other files than arrays ({others[0]}, ...); expected "
                        f"{expected()}: {advice}.")
    return found


def _read_array(path: Path, name: str) -> np.ndarray:
    """One array of an archive, whose header must say the size of its file."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            info = archive.getinfo(name)
            with archive.open(info) as stream:
                shape, dtype = header_of(stream)
                size = math.prod(shape) * dtype.itemsize
                there = info.file_size - stream.tell()
            most = info.file_size if info.compress_type == zipfile.ZIP_STORED else EXPANSION * info.compress_size
            if not dtype.hasobject and (size != there or size > most):
                raise ValueError(f"the header of {name} says {size} bytes, and {min(there, most)} can follow it")
            check_memory(path, shape, dtype)
            with archive.open(info) as stream:  # with the last byte zipfile compares the checksum
                return np.lib.format.read_array(stream, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:
        raise numpy_error(path, error) from error
