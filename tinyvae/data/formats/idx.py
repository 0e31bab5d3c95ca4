"""IDX, the format of MNIST, compressed by gzip or not; and what else a gzip file can hold.

The header is two zero bytes, the type code, the number of axes, then each size as a big-endian 4-byte integer. It is
read first, and then never more bytes than it says.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.registry import (
    EXPANSION,
    GZIP,
    HEAD,
    Arrays,
    Stored,
    check_memory,
    expected,
    head_of,
    reads,
    recognised,
)

# The type codes of the IDX format (its third byte); all numbers are big-endian.
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PIECE = 2**20  # the number of bytes that are read at a time


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file as a stream of the bytes of IDX; DataError if the compressed file is damaged."""
    try:
        with gzip.open(path) if head_of(path).startswith(GZIP) else path.open("rb") as stream:
            yield stream
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); get it again.") from error


def _header(stream: Any, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the type that the header says; the stream then stands at the first number."""
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES:
        raise DataError(
            f"{path} has the magic number '{head.hex(' ')}'; expected that of IDX: 00 00, a type code "
            "and the number of axes (images of bytes: 00 00 08 03)."
        )
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path} ends in its header, after {4 + len(sizes)} of {4 + 4 * head[3]} bytes; get it again.")
    return struct.unpack(f">{head[3]}I", sizes), np.dtype(IDX_TYPES[head[2]])


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, in the native byte order."""
    with _opened(path) as stream:
        shape, dtype = _header(stream, path)
        size, there = math.prod(shape) * dtype.itemsize, path.stat().st_size

        def refuse(found: str) -> None:
            raise DataError(f"{path} holds {found} bytes after its header; expected {size}, for the header says shape "
                            f"{shape}. It is truncated or damaged: get it again.")

        if isinstance(stream, gzip.GzipFile):
            if size > EXPANSION * there:
                refuse(f"at most {EXPANSION * there}")
        elif size != there - stream.tell():
            refuse(f"{there - stream.tell()}")
        check_memory(path, shape, dtype)
        content = np.empty(size, np.uint8)
        for first in range(0, size, PIECE):
            piece = stream.read(min(PIECE, size - first))
            content[first : first + len(piece)] = np.frombuffer(piece, np.uint8)
            if len(piece) < min(PIECE, size - first):
                refuse(f"{first + len(piece)}")
        if stream.read(1):  # of a whole file this reads the checksum, too
            refuse("more")
    array = content.view(dtype).reshape(shape)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


@reads("an IDX(.gz) file", *(bytes([0, 0, code]) for code in IDX_TYPES))
def read(path: Path) -> Arrays:
    """The array, which has no name of its own, as "images"."""
    with _opened(path) as stream:
        shape, dtype = _header(stream, path)
    return {"images": Stored(shape, dtype, lambda: read_idx(path))}


@reads("an IDX(.gz) file", GZIP)
def read_gzip(path: Path) -> Arrays:
    """The array of a compressed IDX file; DataError names any other format that is compressed."""
    with _opened(path) as stream:
        head = stream.read(HEAD)
    if not head or head.startswith(b"\0\0"):
        return read(path)
    inner = recognised(head)
    name = inner.name if inner is not None else f"a file that begins with the bytes {head[:8].hex(' ')}"
    raise DataError(f"{path} is compressed by gzip and holds {name}; expected {expected()}: unpack it with "
                    f"gunzip {path.name}.")
