"""Tables of numbers as text, such as .csv: named and not read, with the line that turns this very table into arrays."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NoReturn

from tinyvae.data.checks import DataError
from tinyvae.data.formats.registry import HEAD, expected

LONGEST = 2**20  # the number of bytes that are looked at: the first lines of a table of images are long


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are printable characters."""
    return bool(head) and not re.search(rb"[^\t\n\r\x20-\x7e]", head[:HEAD].removeprefix(b"\xef\xbb\xbf"))


def refuse_text(path: Path) -> NoReturn:
    """Raise DataError: for a table of numbers, with the line of Python that stores it."""
    with path.open("rb") as file:
        lines = file.read(LONGEST).decode("utf-8-sig", "replace").splitlines() or [""]
    cells = {mark: [cell.strip() for cell in lines[0].split(mark)] for mark in (",", ";", "\t", None)}
    mark, first = max(cells.items(), key=lambda row: len(row[1]))
    header = int(not all(map(_is_number, first)))
    row = lines[header].split(mark) if len(lines) > header else []
    if len(row) < 2 or not all(map(_is_number, row)):
        raise DataError(f"{path} is text that begins with {lines[0][:20]!r}; expected {expected()}.")
    kind = "int" if all(re.fullmatch(r"\s*[+-]?\d+\s*", cell) for cell in row) else "float"
    options = [f"delimiter={mark!r}"] * (mark is not None) + [f"skiprows={header}"] * header
    load = f"np.loadtxt({str(path)!r}, {', '.join([kind, *options])})"
    count = len(row)
    if _is_square(count) or not _is_square(count - 1):
        raise DataError(f"{path} is a table of numbers as text, {count} columns; expected {expected()}: store it with "
                        f"np.save('images.npy', {load}).")
    last = header and re.search("label|class|target|^y$", first[-1].lower())
    images, labels = ("table[:, :-1]", "table[:, -1]") if last else ("table[:, 1:]", "table[:, 0]")
    raise DataError(f"{path} is a table of numbers as text, {count - 1} pixels and a label in each line; expected "
                    f"{expected()}: store it with table = {load}; np.savez('images.npz', images={images}, "
                    f"labels={labels}).")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_square(count: int) -> bool:
    return math.isqrt(count) ** 2 == count
