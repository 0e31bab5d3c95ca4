"""A table, as files and data frames hold it: columns of numbers, or of text, by their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.formats.registry import Arrays, Stored

# An empty cell and these words mean that a value is missing.
MISSING = frozenset(("", "na", "n/a", "nan", "<na>", "#n/a", "null", "none", "-nan"))
SHOWN = 20  # the number of names of columns that a sentence lists


class Table(NamedTuple):
    """The columns of a table by their names: numbers, (count,) float64 with NaN where one is missing, or text.

    `parts` has the names of a folder's files, such as train and test, each with its number of rows, one after another.
    """

    names: tuple[str, ...]
    cells: tuple[np.ndarray, ...]
    parts: tuple[tuple[str, int], ...] = ()

    def chosen(self, where: str, label: str | None) -> tuple[Arrays, tuple[str, ...], tuple[str, ...] | None]:
        """The numbers of all columns as "images", and those of the column `label` as "images_labels"; the names of the
        columns; and those of the classes, if the labels are text. Of a folder the names are those of its files.

        `where` names the table in errors: DataError for text in another column.
        """
        twice = [name for name in dict.fromkeys(self.names) if self.names.count(name) > 1]
        if twice:
            raise DataError(f"{where} has two columns of the name {twice[0]!r}; expected different names: rename one.")
        if label is not None and label not in self.names:
            near = difflib.get_close_matches(label, self.names, 1)
            listed = ", ".join(self.names[:SHOWN]) + (", ..." if len(self.names) > SHOWN else "")
            raise DataError(f"{where} has no column {label!r} for the labels; expected one of {listed}."
                            + (f" Did you mean {near[0]}?" if near else ""))
        columns = {name: cells for name, cells in zip(self.names, self.cells, strict=True) if name != label}
        texts = [name for name, cells in columns.items() if cells.dtype.kind == "U"]
        if texts:
            label_it = f"give it as --label-column {texts[0]}, if it says classes, " if label is None else ""
            raise DataError(f"{where} has {_shown(texts[0], columns[texts[0]])}; expected numbers: {label_it}leave "
                            f"{'it' if len(texts) == 1 else ', '.join(texts)} out, or make numbers of it.")
        if not columns:
            raise DataError(f"{where} has no column besides the labels, {label}; expected at least one.")
        whole, names = {"": np.column_stack(list(columns.values()))}, None
        if label is not None:
            whole["_labels"], names = _classes(dict(zip(self.names, self.cells, strict=True))[label])
        arrays: Arrays = {}
        end = 0
        for part, count in self.parts or (("images", len(whole[""])),):
            end += count
            arrays |= {f"{part}{kind}": Stored.of(rows[end - count : end]) for kind, rows in whole.items()}
        return arrays, tuple(columns), names


def stacked(tables: Mapping[str, Table], where: str) -> Table:
    """The tables of several files, by their names, as the parts of one; DataError if their columns differ."""
    (first, table), *others = tables.items()
    for name, other in others:
        if other.names != table.names:
            alone = [column for column in (*table.names, *other.names) if (column in table.names) != (
                column in other.names)]
            gap = f": {', '.join(alone[:SHOWN])}" if alone else " or another order of them"
            raise DataError(f"{where} has the tables {first} and {name} with different columns{gap}; expected the same "
                            "in the same order.")
    cells = tuple(joined(blocks) for blocks in zip(*(found.cells for found in tables.values()), strict=True))
    return Table(table.names, cells, tuple((name, len(found.cells[0])) for name, found in tables.items()))


def _shown(name: str, cells: np.ndarray) -> str:
    text = next(cell for cell in cells.tolist() if not is_missing(cell) and number_of(cell) is None)
    comma = ", with a comma in place of the point" if re.fullmatch(r"-?\d+,\d+", text) else ""
    return f"text in the column {name}, such as {text[:30]!r}{comma}"


def _classes(cells: np.ndarray) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels with -1 where one is missing, and the names of the classes, if they are text."""
    if cells.dtype.kind != "U":
        return np.where(np.isnan(cells), -1, cells), None
    known = np.array([not is_missing(cell) for cell in cells.tolist()])
    names, numbers = np.unique(cells[known], return_inverse=True)
    labels = np.full(len(cells), -1, np.int64)
    labels[known] = numbers
    return labels, tuple(names.tolist())


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def number_of(cell: str) -> float | None:
    """The number of a cell, NaN for a missing one; None for text."""
    try:
        return float("nan") if is_missing(cell) else float(cell)
    except ValueError:
        return None


def column_of(cells: Sequence[Any] | np.ndarray) -> np.ndarray:
    """A column of any values: (count,) float64 where all are numbers or missing, else text."""
    array = np.asarray(cells)
    if array.dtype.kind in "buif":
        return array.astype(np.float64)
    texts = ["" if cell is None else str(cell) for cell in (cells if array.ndim != 1 else array.tolist())]
    try:
        return np.array(texts, np.float64)
    except ValueError:
        numbers = list(map(number_of, texts))
    return np.array(texts) if None in numbers else np.array(numbers, np.float64)


def joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The blocks of one column as one array; text, if one block is text."""
    if len({block.dtype.kind for block in blocks}) > 1:
        blocks = [block if block.dtype.kind == "U" else np.array(list(map(_text, block.tolist()))) for block in blocks]
    return np.concatenate(blocks)


def _text(number: float) -> str:
    return "" if number != number else str(number).removesuffix(".0")


def frame_table(frame: Any) -> Table:
    """The table of a data frame (of pandas, polars, ...), of a mapping of columns, or of an array (count, columns)."""
    if isinstance(frame, np.ndarray):
        if frame.ndim != 2:
            raise DataError(f"found an array of shape {frame.shape}; expected a table, (count, columns)")
        columns: Iterable[tuple[Any, Any]] = enumerate(frame.T, 1)
    elif isinstance(frame, Mapping):
        columns = frame.items()
    elif hasattr(frame, "columns") and hasattr(frame, "__getitem__"):
        names = list(frame.columns)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"the table has two columns of the name {twice!r}; expected different names: rename one.")
        columns = ((name, frame[name]) for name in names)
    else:
        raise DataError(f"found a table of type {type(frame).__name__}; expected a DataFrame, a dictionary of columns, "
                        "or an array (count, columns)")
    found = {str(name): column_of(cells if isinstance(cells, np.ndarray) else np.asarray(cells)) for name, cells in
             columns}
    sizes = {len(cells) for cells in found.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise DataError(f"found a table with columns of {', '.join(map(str, sorted(sizes))) or 'no'} values; expected "
                        "at least one column, and as many values in each")
    return Table(tuple(found), tuple(found.values()))
