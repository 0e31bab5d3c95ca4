"""Whole files: at any moment each stands on the disk as it was or as it shall be, and none is read without a bound.

A file is never edited in place. The new bytes are written to a temporary file in the same folder and forced to the
disk; then the temporary file replaces the old file in one step. So the name always stands for a whole file, the old or
the new one, and a file that is replaced keeps its permissions.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# No JSON text of a run is longer: a parser makes of one byte up to fifty bytes of objects.
LONGEST_TEXT = 4 * 2**20


class CheckpointError(Exception):
    """A file of a run cannot be read or written; the message says what was found and what to do."""


# ---- reading ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Within this block an ordinary file is open to be read; CheckpointError if there is none, or it cannot be read."""
    if not os.path.exists(path):
        raise CheckpointError(f"{path} does not exist; check the name of the run and of the file")
    if not os.path.isfile(path):  # reading a device or a pipe might never end
        raise CheckpointError(f"{path} is not a file; give the file itself")
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value of a JSON file; None if the file is not JSON, or longer than the JSON of any run."""
    with reading(path) as file:
        content = file.read(LONGEST_TEXT + 1)
    return decoded(content) if len(content) <= LONGEST_TEXT else None


def decoded(text: str | bytes) -> Any:
    """The value of a JSON text, or None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or nested too deeply for the parser
        return None


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the content of `path` in one step; at any moment the file is whole, old or new.

    Raises CheckpointError if that fails; the temporary file is then removed and the old file is unchanged.
    """
    target = Path(os.path.realpath(path))  # replace the file that a link points to, not the link
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb", buffering=0) as file:
                write_all(file.fileno(), content)
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            os.replace(temporary, target)
        except BaseException:  # also after Ctrl-C
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise CheckpointError(refusal(path, error, len(content))) from error
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


def write_all(descriptor: int, content: bytes) -> None:
    """Write all bytes, or raise OSError."""
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


def refusal(path: str | os.PathLike[str], error: OSError, size: int) -> str:
    """A sentence for a file of `size` bytes that could not be written."""
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
