"""Labels of the training data in a file of their own: .npy, or text with a label in each line.

The file is a part of the data set's name, "digits-dynamic+labels:/data/few.csv", so `load` gives the same data
again, and the fingerprint of the data covers the labels that were read.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinyvae.choices import counted, path_of
from tinyvae.data.checks import DataError
from tinyvae.data.dataset import DataSet
from tinyvae.data.formats.npy import map_npy

MARK = "+labels:"  # between the name of the data and the file
UNKNOWN = -1
WHOLE = re.compile(r"(-?\d{1,12})?")  # a label as a number; nothing for an unknown one
SEPARATORS = (",", ";", "\t")  # of the columns of a table, which a file of labels is not
LONGEST = 2**27  # bytes of a text
LONGEST_LABEL = 2**16  # characters of a line in which columns are looked for; csv takes no more than 2**17


def split_labels(name: str) -> tuple[str, str]:
    """("digits", "few.csv") of "digits+labels:few.csv"; ("digits", "") of "digits"."""
    base, _, file = name.partition(MARK)
    return base, file


def with_labels(name: str, file: Path) -> str:
    """The name of the data `name` with the labels of a file; DataError if there is none, or the name has labels."""
    file = path_of("the labels", file)
    if MARK in name:
        raise DataError(f"found labels from {file} beside those of {name}; expected one file of labels.")
    if not file.expanduser().is_file():
        raise DataError(f"there is no file {file}; expected an .npy file, or text with the label of a training datum "
                        "in each line.")
    return f"{name}{MARK}{file.expanduser().resolve()}"


def relabelled(data: DataSet, file: str) -> DataSet:
    """The data with the training labels of a file, -1 or empty for an unknown one.

    A label is the number of a class, or its name. Test labels stay what they were.

    Raises
    ------
    DataError
        For a file that cannot be read, labels of another count than the training data, and labels that are no class.
    """
    path = Path(file).expanduser().resolve()
    found = read_labels(path, data.count)
    if len(found) != data.count:
        raise DataError(f"found {counted(len(found), 'label')} in {path}; expected {data.count:,}, one for each "
                        f"training datum of {data.name} in their order, -1 for an unknown one.")
    name = f"{data.name}{MARK}{path}"
    numbers, words = _numbers(found), sorted(set(found.tolist()) - {"", str(UNKNOWN)})
    if not words:
        raise DataError(f"found only -1 or nothing in {path}, which stand for an unknown label; expected the label of "
                        f"at least one training datum of {data.name}.")
    if numbers is not None:
        if numbers.min() < UNKNOWN or numbers.max() >= 2**31:
            raise DataError(f"found labels from {numbers.min()} to {numbers.max()} in {path}; expected whole numbers "
                            "from 0 on, and -1 for an unknown one.")
        if data.classes and numbers.max() >= data.classes:
            raise DataError(f"found the label {numbers.max()} in {path}; {data.name} has {data.classes} classes, 0 to "
                            f"{data.classes - 1}.")
        return replace(data, name=name, train_labels=numbers)
    classes = data.class_names or (tuple(words) if data.test_labels is None and data.valid_labels is None else ())
    if not classes:
        strange = next(word for word in found.tolist() if not WHOLE.fullmatch(word))
        raise DataError(f"found the label {strange!r} in {path}, and the test labels of {data.name} are whole numbers; "
                        "expected whole numbers here, too.")
    if strange := [word for word in words if word not in classes]:
        raise DataError(f"found the label {strange[0]!r} in {path}; expected one of {', '.join(classes)}, and nothing "
                        "for an unknown one.")
    table = {word: number for number, word in enumerate(classes)} | {"": UNKNOWN, str(UNKNOWN): UNKNOWN}
    numbers = np.array([table[word] for word in found.tolist()], np.int64)
    return replace(data, name=name, train_labels=numbers, class_names=classes)


def read_labels(path: Path, count: int) -> np.ndarray:
    """The labels of a file as text, (count,); a first line more than `count` is the head of a column."""
    try:
        if not path.is_file():
            raise DataError(f"there is no file {path}; expected the labels of the training data.")
        with path.open("rb") as file:
            head = file.read(8)
            if head.startswith(b"\x93NUMPY"):
                array = map_npy(path)
                if array.ndim != 1 or array.dtype.kind not in "iufbUS":
                    raise DataError(f"found {array.dtype} of shape {array.shape} in {path}; expected ({count},) "
                                    "labels, whole numbers or strings.")
                text = array.astype(str) if array.dtype.kind != "S" else np.char.decode(array, "utf-8", "replace")
                return np.array([_plain(word) for word in text.tolist()])
            content = (head + file.read(LONGEST)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text; expected an .npy file, or text with a label in each line.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected labels of the training data.") from None
    if not content.strip():
        raise DataError(f"{path} is empty; expected {count:,} lines with a label in each, -1 for an unknown one.")
    lines = content.splitlines()
    if (columns := _columns(lines)) > 1:
        raise DataError(f"found {columns} columns in {path}; expected one, with a label in each line: write the column "
                        "of the labels alone.")
    lines = [line.strip().strip('"') for line in lines]
    if len(lines) == count + 1:
        lines = lines[1:]
    return np.array([_plain(line) for line in lines] or [""])


def _columns(lines: list[str]) -> int:
    """How many columns the lines have, if they are those of a table: the same number in each that is not blank."""
    for mark in SEPARATORS:
        width = 0
        for row in csv.reader((line[:LONGEST_LABEL] for line in lines if line.strip()), delimiter=mark):
            if len(row) == 1 or width not in (0, len(row)):  # mostly of the first line
                width = 0
                break
            width = len(row)
        if width:
            return width
    return 1


def _plain(word: str) -> str:
    """A label as it is compared: "3" of "3.0", and "" of a NaN."""
    word = word.strip()
    return "" if word.lower() == "nan" else re.sub(r"^(-?\d+)\.0*$", r"\1", word)


def _numbers(found: np.ndarray) -> np.ndarray | None:
    """The labels as numbers, -1 for an empty one; None if one is no whole number."""
    if not all(WHOLE.fullmatch(word) for word in found.tolist()):
        return None
    return np.array([int(word) if word else UNKNOWN for word in found.tolist()], np.int64)
