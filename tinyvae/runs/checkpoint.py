"""Checkpoints: arrays by name, with further values, in one safetensors file.

Loading one never runs code, and other programs can read the weights. The header has one entry, "tinyvae", a JSON text
with

    format    "tinyvae"                  the program that wrote the file
    version   1                          the version of the format
    checksum  SHA-256 over the names, types, shapes and bytes of the arrays in sorted order, and over meta
    meta      further values of the caller

The header is read first, so a caller can refuse a file by its values and its shapes before memory is taken for arrays.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tinyvae.runs.files import LONGEST_TEXT, CheckpointError, decoded, reading, write_bytes
from tinyvae.training.fingerprint import FORMAT, VERSION, checksum, little_endian

# The types that safetensors can store and NumPy has without a further package, with their names in such a file.
DTYPES = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
          "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64"}  # fmt: skip
NAMES = {stored: name for name, stored in DTYPES.items()}

Shapes = dict[str, tuple[tuple[int, ...], Any]]  # (shape, dtype) by name
Check = Callable[[dict[str, Any], Shapes], None]


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write `arrays` and `meta` to `path` in one step; the bytes are a function of these two.

    Parameters
    ----------
    arrays : arrays of any shape by name; their types are those of `DTYPES`.
    meta : values that JSON can hold, infinities and NaN included; NumPy scalars become Python numbers.

    Raises
    ------
    CheckpointError : the file could not be written (disk full, no permission); an earlier file is untouched.
    TypeError : the format cannot hold the type or the name of an array, or a value of `meta`.
    """
    for name, array in arrays.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"array name {name!r} is reserved or no string; rename the array")
        if not isinstance(array, np.ndarray) or array.dtype.name not in DTYPES:
            kind = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"array {name!r} is {kind}; a checkpoint holds arrays of {', '.join(DTYPES)}")
    whole = {name: little_endian(arrays[name]) for name in sorted(arrays)}
    remembered = json.loads(json.dumps(dict(meta), default=_number))
    header = {"format": FORMAT, "version": VERSION, "checksum": checksum(whole, remembered), "meta": remembered}
    # There is only one entry, because safetensors writes several entries in a random order.
    content = safetensors.numpy.save(whole, {FORMAT: json.dumps(header, sort_keys=True)})
    if (size := int.from_bytes(content[:8], "little")) > LONGEST_TEXT:
        raise CheckpointError(f"{path} would have a header of {size} bytes, and no reader takes more than "
                              f"{LONGEST_TEXT}; it was not written: a model of fewer parts or latent dimensions fits")
    write_bytes(path, content)


def load(path: str | os.PathLike[str], check: Check | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint: its arrays by name (writable copies, names in sorted order) and its meta.

    Reading executes nothing in the file. `check` gets the meta and the shapes before memory is taken for the arrays,
    and refuses the file by raising an error. It must not trust them: the checksum of the whole content is verified
    after it, and before anything is returned.

    Raises
    ------
    CheckpointError : no such file, or one that is truncated, damaged, hostile, of another program, or newer.
    """
    header, shapes = _header(path)
    if check is not None:
        check(header["meta"], shapes)
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            arrays = {name: np.array(file.get_tensor(name)) for name in shapes}
    except (OSError, safetensors.SafetensorError, MemoryError) as error:
        raise CheckpointError(f"{path} cannot be read ({_reason(error)}); use another checkpoint") from None
    if header.get("checksum") != checksum(arrays, header["meta"]):
        raise CheckpointError(_damaged(path))
    return arrays, header["meta"]


def peek(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Shapes]:
    """The meta of a checkpoint and the shapes of its arrays, without the arrays, and so without their checksum."""
    header, shapes = _header(path)
    return header["meta"], shapes


def _header(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Shapes]:
    """The header's entry of this program, whose meta is a dictionary, and the shapes of the arrays."""
    with reading(path) as file:
        head, length = file.read(8), os.fstat(file.fileno()).st_size
        size = int.from_bytes(head, "little")
        text = file.read(min(size, LONGEST_TEXT))
    if len(head) == 8 and len(text) == LONGEST_TEXT < size <= length:
        raise CheckpointError(f"{path} is not a readable safetensors file (its header of {size} bytes is longer than "
                              f"{LONGEST_TEXT}); use another checkpoint")
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as opened:
            entries = opened.metadata() or {}
            slices = {name: opened.get_slice(name) for name in sorted(opened.keys())}
            shapes: Shapes = {name: (tuple(part.get_shape()), np.dtype(NAMES[part.get_dtype()]))
                              for name, part in slices.items()}
    except Exception as error:  # a hostile file can cause any error in the parser
        raise CheckpointError(f"{path} {_diagnosis(head + text, length, error)}; use another checkpoint") from None
    header = decoded(entries.get(FORMAT, ""))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file of another program (its header does not name the format "
            f"{FORMAT!r}); give a file that tinyvae saved"
        )
    version = header.get("version")
    if type(version) is int and version > VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, newer than version {VERSION} that this tinyvae reads; "
            "upgrade tinyvae"
        )
    if version is not VERSION or not isinstance(header.get("meta"), dict):
        raise CheckpointError(_damaged(path))
    return header, shapes


def _damaged(path: str | os.PathLike[str]) -> str:
    return f"{path} is damaged: its checksum does not match its content; use another checkpoint"


def shapes_of(arrays: Mapping[str, np.ndarray]) -> Shapes:
    """The shapes and types of arrays by name."""
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def check_shapes(found: Shapes, expected: Shapes, path: str | os.PathLike[str]) -> None:
    """Raise CheckpointError at the first name (in sorted order) that is missing or unknown, or has another shape or
    type.

    The message names the file `path`.
    """
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            raise CheckpointError(f"{path} lacks {name!r}; the model expects {_kind(*expected[name])} there")
        kind = _kind(*found[name])
        if name not in expected:
            raise CheckpointError(f"{path} holds {name!r} ({kind}), which the model does not have")
        wanted = _kind(*expected[name])
        if kind != wanted:
            raise CheckpointError(f"{path} holds {name!r} as {kind}; the model expects {wanted}")


def _kind(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{np.dtype(dtype).name} {tuple(int(n) for n in shape)}"


def _number(value: Any) -> Any:
    """The Python number of a NumPy scalar, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r} has no place in JSON; convert it first")


def _diagnosis(content: bytes, length: int, error: Exception) -> str:
    """The fault of a file of `length` bytes that safetensors refuses, as the predicate of a sentence.

    `content` is its beginning, up to the end of its header.
    """
    if not content:
        return "is empty"
    if content[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or content[:4] == b"PK\x03\x04":
        return "is a pickle or a zip archive, which could run code and is never loaded"
    size = int.from_bytes(content[:8], "little")
    header = decoded(content[8 : 8 + size])
    if isinstance(header, dict):
        with contextlib.suppress(Exception):  # the offsets may be wrong as well
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
            if length < 8 + size + end:
                return f"is truncated: {length} bytes of {8 + size + end}"
    elif length < 8 or (content[8:9] == b"{" and length < 8 + size < 2**26):
        return f"is truncated: {length} bytes, which end within its header"
    return f"is not a readable safetensors file ({_reason(error)})"


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
