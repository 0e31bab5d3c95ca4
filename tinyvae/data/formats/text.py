"""Tables as text: .csv and .tsv, and others whose cells are separated by ; or blanks.

The cells of the first line are the names of the columns, unless one of them is a number; then the columns are called 1,
2, ... An empty cell means that the value is missing. Lines are read in blocks, which become numbers one after another,
and the memory for them is looked at before they are kept.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.registry import HEAD, check_memory, expected
from tinyvae.data.formats.table import Table, column_of, is_missing, joined, number_of

LONGEST = 2**24  # characters of a line; more is no line of a table
BLOCK = 4096  # lines that become numbers together
MARKS = (",", ";", "\t", " ")  # what separates cells


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are printable characters: ASCII, or several lines of UTF-8."""
    text = head[:HEAD].removeprefix(b"\xef\xbb\xbf")
    if not head or re.search(rb"[^\t\n\r\x20-\x7e\x80-\xff]", text):
        return False
    lines = text[: text.rfind(b"\n") + 1]  # whole lines hold whole characters
    return text.isascii() or (lines != b"" and "\N{REPLACEMENT CHARACTER}" not in lines.decode("utf-8", "replace"))


def read_text(path: Path) -> Table:
    """The table of a text file; DataError for text that is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, file)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); store it as UTF-8.") from None
    except csv.Error as error:
        raise DataError(f"{path} is text that cannot be read as a table ({error}); write it again.") from None


def _read(path: Path, file: IO[str]) -> Table:
    start = list(islice(_lines(path, file), 2))
    mark, found = _separated(start)
    numbers = [[bool(cell.strip()) and number_of(cell) is not None for cell in row] for row in found]
    has_names = bool(numbers) and not any(numbers[0])
    # a first row without any value is one of a table, too; one of words is not
    is_row = bool(found) and (any(numbers[-1]) or all(map(is_missing, found[-1])))
    if not found or len(found[0]) < 2 or len(found) == has_names or not is_row:
        raise DataError(f"{path} is text that begins with {(start or [''])[0].rstrip()[:20]!r}; expected {expected()}.")
    width = len(found[0])
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(found[0], 1)] if has_names else \
        [str(number) for number in range(1, width + 1)]
    file.seek(0)
    rows = islice(_rows(_lines(path, file), mark), int(has_names), None)
    blocks: list[list[np.ndarray]] = []
    count = 0
    while block := list(islice(rows, BLOCK)):
        for number, row in enumerate(block, count + 1 + has_names):
            if len(row) != width:
                raise DataError(f"{path} has {len(row)} cells in row {number}; expected {width}, as in the first: "
                                "write it again, with quotes around cells that hold the separator.")
        count += len(block)
        check_memory(path, (count, width), np.dtype(np.float64))
        blocks.append([column_of(cells) for cells in zip(*block, strict=True)])
    return Table(tuple(names), tuple(joined(cells) for cells in zip(*blocks, strict=True)))


def _separated(lines: list[str]) -> tuple[str, list[list[str]]]:
    """What separates the cells of the first lines, and the cells: of those that give all lines as many, the first."""
    found = [(mark, list(_rows(lines, mark))) for mark in MARKS]
    even = [(mark, rows) for mark, rows in found if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1]
    return even[0] if even else max(found, key=lambda item: len(item[1][0]) if item[1] else 0)


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """The lines of a file that are not blank; DataError for one that has no end."""
    while line := file.readline(LONGEST):
        if len(line) == LONGEST:
            raise DataError(f"{path} has a line of more than {LONGEST:,} characters; expected a table of lines.")
        if line.strip():
            yield line


def _rows(lines: Iterable[str], mark: str) -> Iterator[list[str]]:
    """The cells of lines; blanks separate however many they are."""
    if mark == " ":
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=mark)
