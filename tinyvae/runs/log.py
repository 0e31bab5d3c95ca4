"""A log: one JSON object in each line, appended and forced to the disk.

Lines that are not whole stay out of what is read: the last one of a killed process, and those that a disk has damaged.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tinyvae.runs.files import LONGEST_TEXT, CheckpointError, decoded, plain, reading, refusal, write_all, write_bytes

Valid = Callable[[Any], bool]
ENDLESS = b"(a line without an end)\n"  # stands for all that follows


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
                write_all(file.fileno(), line)
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise CheckpointError(refusal(path, error, len(line))) from error


def read_lines(path: str | os.PathLike[str], valid: Valid = lambda record: True) -> list[dict[str, Any]]:
    """The records of a log in order, without lines that are not whole or not `valid`; a missing log has no records."""
    return [record for _, record in _lines(path, valid) if record is not None]


def cut_lines(path: str | os.PathLike[str], keep: Callable[[dict[str, Any]], bool],
              valid: Valid = lambda record: True) -> Path | None:
    """Keep the whole lines whose record satisfies `keep`, byte for byte, and remove the others.

    The file is replaced in one step, unless all its lines stay. If it held a damaged line, which ends and yet is no
    `valid` record, the file as it was stays under the name NAME.damaged, which is returned.
    """
    kept, whole, damaged = [], True, False
    for line, record in _lines(path, valid):
        if record is not None and keep(record):
            kept.append(line if line.endswith(b"\n") else line + b"\n")
            whole = whole and line.endswith(b"\n")
        else:
            whole, damaged = False, damaged or (record is None and line.endswith(b"\n") and bool(line.strip()))
    if whole:
        return None
    aside = Path(f"{os.fspath(path)}.damaged")
    if damaged:
        _keep(path, aside)
    write_bytes(path, b"".join(kept))
    return aside if damaged else None


def _keep(path: str | os.PathLike[str], aside: Path) -> None:
    """Give the file a second name, which it keeps when another file takes the first."""
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:  # a file system without hard links
        os.replace(path, aside)


def _lines(path: str | os.PathLike[str], valid: Valid) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line and its record, or None for a line without a valid one; the last is the first that is too long."""
    if not os.path.exists(path):
        return
    with reading(path) as file:
        while line := file.readline(LONGEST_TEXT):
            if len(line) == LONGEST_TEXT:  # a hole in the file has no end of a line
                yield ENDLESS, None
                return
            record = decoded(line)
            yield line, record if isinstance(record, dict) and valid(record) else None
