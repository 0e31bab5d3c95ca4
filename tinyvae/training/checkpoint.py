"""The files of a run: checkpoints, small JSON files and the metrics log. They stay intact if the process is killed.

A checkpoint is a safetensors file, so loading one never runs code, and other programs can read the weights. Its header
has one entry, "tinyvae", a JSON text with

    format    "tinyvae"                  the program that wrote the file
    version   1                          the version of the format
    checksum  SHA-256 over the names, types, shapes and bytes of the arrays in sorted order, and over meta
    meta      further values of the caller

A file is never edited in place. The new bytes are written to a temporary file in the same folder and forced to the
disk; then the temporary file replaces the old file in one step. So the name always stands for a whole file, the old or
the new one. Only the log is appended to, one line at a time; reading it skips an incomplete last line.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

FORMAT = "tinyvae"
VERSION = 1
# The types that safetensors can store and NumPy has without a further package.
DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
          "float16", "float32", "float64")  # fmt: skip


class CheckpointError(Exception):
    """A file of a run cannot be read or written; the message says what was found and what to do."""


# ---- checkpoints -----------------------------------------------------------------------------------------------------


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
    whole = {name: _little_endian(arrays[name]) for name in sorted(arrays)}
    remembered = json.loads(json.dumps(dict(meta), default=_number))
    checksum = _checksum(whole, remembered)
    header = {"format": FORMAT, "version": VERSION, "checksum": checksum, "meta": remembered}
    # There is only one entry, because safetensors writes several entries in a random order.
    write_bytes(path, safetensors.numpy.save(whole, {FORMAT: json.dumps(header, sort_keys=True)}))


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint: its arrays by name (writable copies, names in sorted order) and its meta.

    Reading executes nothing in the file, and uses nothing before the checksum of the whole content is verified.

    Raises
    ------
    CheckpointError : no such file, or one that is truncated, damaged, hostile, of another program, or newer.
    """
    content = _read(path)
    try:
        stored = safetensors.numpy.load(content)
        size = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    except Exception as error:  # a hostile file can cause any error in the parsers
        raise CheckpointError(f"{path} {_diagnosis(content, error)}; use another checkpoint") from None
    header = _decode(entries.get(FORMAT, ""))
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
    arrays = {name: np.array(stored[name]) for name in sorted(stored)}
    meta = header.get("meta")
    if not isinstance(meta, dict) or version != VERSION or header.get("checksum") != _checksum(arrays, meta):
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match its content; use another checkpoint"
        )
    return arrays, meta


def check_shapes(
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[tuple[int, ...], Any]],
    path: str | os.PathLike[str],
) -> None:
    """Raise CheckpointError at the first name (in sorted order) that is missing or unknown, or has another shape or
    type.

    `expected` holds (shape, dtype) by name; the message names the file `path`.
    """
    for name in sorted(arrays.keys() | expected.keys()):
        if name not in arrays:
            shape, dtype = expected[name]
            raise CheckpointError(f"{path} lacks {name!r}; the model expects {_kind(shape, dtype)} there")
        found = _kind(arrays[name].shape, arrays[name].dtype)
        if name not in expected:
            raise CheckpointError(f"{path} holds {name!r} ({found}), which the model does not have")
        wanted = _kind(*expected[name])
        if found != wanted:
            raise CheckpointError(f"{path} holds {name!r} as {found}; the model expects {wanted}")


def fingerprint(arrays: np.ndarray | Mapping[str, np.ndarray]) -> str:
    """Twelve hex digits of the SHA-256 of one array, or of arrays by name: equal bits, equal fingerprint."""
    named = arrays if isinstance(arrays, Mapping) else {"": arrays}
    return _checksum({name: _little_endian(named[name]) for name in sorted(named)}, None)[:12]


def _checksum(arrays: Mapping[str, np.ndarray], meta: Any) -> str:
    """SHA-256 over (name, type, shape, bytes) of arrays, little-endian and in sorted order, and over meta."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        # A record in JSON has an unambiguous end, so two different sets of arrays never give the same bytes.
        digest.update(json.dumps([name, array.dtype.name, list(array.shape)]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    digest.update(json.dumps([FORMAT, VERSION, meta], sort_keys=True).encode())
    return digest.hexdigest()


def _little_endian(array: np.ndarray) -> np.ndarray:
    """The array as the file stores it: little-endian, in C order (safetensors takes a bare pointer)."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _kind(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{np.dtype(dtype).name} {tuple(int(n) for n in shape)}"


def _number(value: Any) -> Any:
    """The Python number of a NumPy scalar, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r} has no place in JSON; convert it first")


def _decode(text: str | bytes) -> Any:
    """The value of a JSON text, or None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or nested too deeply for the parser
        return None


def _read(path: str | os.PathLike[str]) -> bytes:
    if not os.path.exists(path):
        raise CheckpointError(f"{path} does not exist; check the name of the run and of the file")
    if not os.path.isfile(path):  # reading a device or a pipe might never end
        raise CheckpointError(f"{path} is not a file; give the file itself")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def _diagnosis(content: bytes, error: Exception) -> str:
    """The fault of bytes that safetensors refuses, as the predicate of a sentence."""
    if not content:
        return "is empty"
    if content[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or content[:4] == b"PK\x03\x04":
        return "is a pickle or a zip archive, which could run code and is never loaded"
    size = int.from_bytes(content[:8], "little")
    header = _decode(content[8 : 8 + size])
    if isinstance(header, dict):
        with contextlib.suppress(Exception):  # the offsets may be wrong as well
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
            if len(content) < 8 + size + end:
                return f"is truncated: {len(content)} bytes of {8 + size + end}"
    elif len(content) < 8 or (content[8:9] == b"{" and len(content) < 8 + size < 2**26):
        return f"is truncated: {len(content)} bytes, which end within its header"
    return f"is not a readable safetensors file ({str(error) or type(error).__name__})"


# ---- writing whole files ---------------------------------------------------------------------------------------------


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the content of `path` in one step; at any moment the file is whole, old or new.

    Raises CheckpointError if that fails; the temporary file is then removed and the old file is unchanged.
    """
    target = Path(os.path.realpath(path))  # replace the file that a link points to, not the link
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb", buffering=0) as file:
                _write_all(file.fileno(), content)
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:  # also after Ctrl-C
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise CheckpointError(_refusal(path, error, len(content))) from error
    _sync_folder(target.parent)


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove and return the temporary files of a killed run; no other process may write in `folder`."""
    left = sorted(file for file in Path(folder).glob(".*.tmp") if file.name.split(".")[-2].isdigit())
    for temporary in left:
        temporary.unlink(missing_ok=True)
    return left


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON in one step; a number that is not finite becomes null."""
    text = json.dumps(plain(value), indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value of a JSON file; ValueError if the file is not JSON."""
    return json.loads(_read(path))


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # the system may write less than it is given: at most 2 GiB, or the free space of the disk
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk; if the system cannot do that, the file is whole nevertheless."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refusal(path: str | os.PathLike[str], error: OSError, size: int) -> str:
    folder = os.path.dirname(os.path.realpath(path))
    cure = "check the folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = ""
        with contextlib.suppress(OSError):
            free = f", {shutil.disk_usage(folder).free} are free"
        cure = f"{size} bytes are needed{free}: make room or choose another folder"
    elif error.errno == errno.EFBIG:
        cure = f"{size} bytes are more than this process may write to a file: raise the limit (ulimit -f)"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cure = f"you may not write to {folder}: change its permissions or choose another folder"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        cure = f"make the folder {folder} first"
    what = error.strerror or error
    return f"{path} could not be written ({what}); {cure}; what was there before is untouched"


# ---- the log, with one JSON object in each line
# -----------------------------------------------------------------------


def append_line(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Append one record as a line of JSON and force it to the disk; keys keep their order.

    A number that is not finite is written as null, so that every program can read the file. If the line cannot be
    written whole, it is removed again and CheckpointError is raised.
    """
    line = json.dumps(plain(record), allow_nan=False).encode() + b"\n"
    try:
        with open(path, "ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end and file.seek(end - 1) >= 0 and file.read(1) != b"\n":
                line = b"\n" + line  # leave an incomplete last line and begin a new one
            try:
                _write_all(file.fileno(), line)
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise CheckpointError(_refusal(path, error, len(line))) from error


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a log in order, without incomplete lines; a missing log has no records."""
    return [record for _, record in _whole_lines(path)]


def cut_lines(path: str | os.PathLike[str], keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the complete lines whose record satisfies `keep`, byte for byte, and remove the others.

    The file is replaced in one step, unless all its lines stay.
    """
    if os.path.exists(path):
        kept = b"".join(line + b"\n" for line, record in _whole_lines(path) if keep(record))
        if kept != _read(path):
            write_bytes(path, kept)


def _whole_lines(path: str | os.PathLike[str]) -> list[tuple[bytes, dict[str, Any]]]:
    lines = _read(path).split(b"\n") if os.path.exists(path) else []
    return [(line, record) for line in lines if isinstance(record := _decode(line), dict)]


def plain(value: Any) -> Any:
    """The value with None instead of every NaN and infinity, and Python numbers instead of NumPy scalars."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
