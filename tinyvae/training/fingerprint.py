"""The fingerprint of arrays: equal bits, equal fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMAT = "tinyvae"  # of the files that hold such arrays, and the version of that format
VERSION = 1


def fingerprint(arrays: np.ndarray | Mapping[str, np.ndarray]) -> str:
    """Twelve hex digits of the SHA-256 of one array, or of arrays by name."""
    named = arrays if isinstance(arrays, Mapping) else {"": arrays}
    return checksum({name: little_endian(named[name]) for name in sorted(named)}, None)[:12]


def checksum(arrays: Mapping[str, np.ndarray], meta: Any) -> str:
    """SHA-256 over (name, type, shape, bytes) of arrays, little-endian and in sorted order, and over meta."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        # A record in JSON has an unambiguous end, so two different sets of arrays never give the same bytes.
        digest.update(json.dumps([name, array.dtype.name, list(array.shape)]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    digest.update(json.dumps([FORMAT, VERSION, meta], sort_keys=True).encode())
    return digest.hexdigest()


def little_endian(array: np.ndarray) -> np.ndarray:
    """The array as a file stores it: little-endian, in C order (safetensors takes a bare pointer)."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
