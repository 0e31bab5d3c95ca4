"""Loading a data set by its name or by the path of its files."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.choices import array_of, path_text
from tinyvae.data import download, folders, formats
from tinyvae.data.arrays import data_set_of
from tinyvae.data.checks import DataError, check_range, check_rows, is_whole, number, only
from tinyvae.data.dataset import PIXELS, TREATMENTS, DataSet, split_suffix, treated
from tinyvae.data.formats.labels import MARK, relabelled, split_labels
from tinyvae.data.sources import NAMES, SOURCES


def load(name: str | os.PathLike[str] = "digits", data_dir: str | os.PathLike[str] | None = None,
         label_column: str | None = None) -> DataSet:
    """Load a data set.

    Parameters
    ----------
    name
        The name of a set, one of `NAMES`, or the path of an .npy, .npz, .h5, .mat or IDX(.gz) file, of a folder of
        images, or of a table (.csv, .tsv, .parquet). A suffix can choose the treatment of the pixels: -dynamic,
        -static, -threshold, -gray or -color, or of other numbers: -real or -counts (see `dataset.py`).

        Without a suffix, digits, mnist, fashion-mnist and omniglot are -dynamic, frey-faces and olivetti are -gray, and
        mnist-binarized has fixed bits. The data of a path are -static if their pixels have only two values, which then
        are 0 and 1, else -gray, or -color if they are in colour; a table is -real.
    data_dir
        The folder in which a named set is searched first, before $TINYVAE_DATA and the user's cache. MNIST and
        Fashion-MNIST are fetched into the cache if they are not found.
    label_column
        The column of a table that holds the labels, numbers or names of classes. It becomes a part of the data set's
        name, which then loads the same: "iris.csv@species-real".

    Notes
    -----
    The digits are split at random into 1497 and 300, frey-faces by time, olivetti by person, and the others as
    published (see `readers.py`). An .npz with `train` and `test` (also `x_train`, `train_images`, ...) or a folder with
    train.npy and test.npy (or IDX files) keeps its split; a part `valid` or `val_images` is used. Of other data a
    tenth, but at least one image, becomes the test part at random. Splits and static draws are the same for everyone.

    The format of a file is known by its first bytes. .npy files are memory-mapped. Those of a folder are used without a
    copy (if uint8 or float32); a single .npy is read once for the split. Integers are values from 0 to 255, or of 16
    bits from 0 to 65535; floats must be in [0, 1]. An array of images in colour is (count, rows, columns, 3) or (count,
    3, rows, columns). Images of a folder are turned as their EXIF data say, all frames and pages are taken, and
    transparent ones are laid on white or black (see `formats/images.py`). Labels may be whole numbers of any type, or
    strings, which become `class_names`.

    Raises
    ------
    DataError
        For an unknown name or suffix, missing files, or data that cannot be used; the message says what was found, what
        was expected and what to do.
    """
    full, labels = split_labels(with_label(name, label_column))
    if labels:
        return relabelled(load(full, data_dir), labels)
    base, pixels = _parts(full)
    if base in SOURCES:
        return _load_named(base, pixels, data_dir)
    # an existing path that ends like a suffix takes precedence over the path without the suffix
    if path := _existing(full):
        return _load_path(path, None, full, None)
    if found := _located(base):
        return _load_path(*found, base, pixels)
    raise _unknown(full)


def with_label(name: str | os.PathLike[str], column: str | None) -> str:
    """The name of a table whose column `column` holds the labels: "iris.csv-real" becomes "iris.csv@species-real"."""
    full = path_text("the data", name)
    if column is None:
        return full
    base, wanted = (full, None) if _existing(full) else split_suffix(full)
    if base in SOURCES:
        raise DataError(f"found the label column {column} with {full}; expected the path of a table, such as a.csv.")
    if not _existing(base):
        if _located(base):
            raise DataError(f"found the label column {column} with {full}, which names one already; leave one of them "
                            "out.")
        raise _unknown(full)
    return f"{base}@{column}" + (f"-{wanted}" if wanted else "")


def from_table(frame: Any, label: str | None = None, pixels: str = "real", name: str = "the table") -> DataSet:
    """The data set of a table in memory, split at random as that of a file.

    Parameters
    ----------
    frame
        A DataFrame (of pandas or polars), a dictionary of columns, or an array (count, columns). NaN, None and empty
        text stand for a missing value.
    label
        The column that holds the labels, numbers or names of classes.
    pixels
        The treatment: "real", "counts", or one of those of images.
    name
        What the results call the data set.

    Raises
    ------
    DataError
        For columns that are no numbers, and for numbers that the treatment does not take.
    """
    if pixels not in TREATMENTS:
        raise DataError(f"found pixels={pixels!r}; expected one of {', '.join(TREATMENTS)}")
    return _of_table(formats.frame_table(frame), name, None if label is None else str(label), pixels)


def as_data_set(data: DataSet | np.ndarray | str | os.PathLike[str], what: str = "the array") -> DataSet:
    """What a function was given as data: a data set, the name of one, or an array (count, pixels) of numbers in [0, 1].

    An array, which `what` names in errors, becomes the training part and the test part. DataError for data that no
    training could use.
    """
    if isinstance(data, DataSet):
        return data
    if isinstance(data, (str, os.PathLike)):
        return load(data)
    rows = np.ascontiguousarray(array_of(what, data))
    check_rows(rows, what, flat=True)
    bits = only([rows], 0, 1)
    return DataSet(what, rows, rows, (1, rows.shape[1]), 1.0, "static" if bits else "gray")


def anywhere(name: str | os.PathLike[str]) -> str:
    """A name that is valid in every current folder: a relative path becomes absolute, with the same suffix."""
    name, labels = split_labels(path_text("the data", name))
    if labels:
        return f"{anywhere(name)}{MARK}{labels}"
    base, _ = _parts(name)
    if base in SOURCES:
        return name
    if path := _existing(name):
        return str(path.absolute())
    base = split_suffix(name)[0]
    if found := _located(base):
        path, label = found
        return str(path.absolute()) + ("" if label is None else f"@{label}") + name[len(base):]
    return name


def _located(text: str) -> tuple[Path, str | None] | None:
    """The path that a text names, and the column after it: "a.csv@species"; None if nothing is there."""
    if path := _existing(text):
        return path, None
    for place in (place for place, letter in enumerate(text) if letter == "@"):
        path = _existing(text[:place])
        if path is not None and text[place + 1 :]:
            return path, text[place + 1 :]
    return None


def _existing(text: str) -> Path | None:
    """The path that a text names, with ~ for a home, if something is there."""
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long for a name, the home of an unknown user, a zero byte
        return None


@dataclass(frozen=True)
class Outline:
    """What a new run needs to know about its data before it reads them."""

    name: str
    shape: tuple[int, ...]
    count: int  # the number of training data
    likelihood: str
    classes: int  # the number of classes of the labels; 0 without labels
    is_table: bool = False


def outline(name: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Outline:
    """The outline of a data set; a named set is not read for it, the data of a path are."""
    base, pixels = _parts(path_text("the data", name))
    if base not in SOURCES:  # also where labels come from a file of their own
        data = load(name, data_dir)
        return Outline(data.name, data.shape, data.count, data.likelihood, data.classes, data.is_table)
    source = SOURCES[base]
    chosen = pixels or source.pixels
    return Outline(_full_name(base, chosen), source.shape, source.count, source.likelihood(chosen),
                   source.classes)


def ways_to_label(data: DataSet | Outline) -> str:
    """The cure, in words, where these data have no labels and some are needed."""
    from_file, base = "take the labels from a file of their own, --labels-from FILE", _parts(
        split_labels(data.name)[0])[0]
    path, column = _located(base) or (None, None)
    if path is None and base not in SOURCES:
        return "give labels with the data, as train_labels of a tv.DataSet"  # which were made in Python
    if not data.is_table:
        return from_file
    if column is not None:
        return f"give another column than {column} with --label-column NAME, or {from_file}"
    return f"name the column that holds the labels, --label-column NAME, or {from_file}"


def _parts(name: str) -> tuple[str, str | None]:
    """The name or path without its suffix, and the suffix; DataError if the named set cannot have this suffix."""
    base, pixels = (name, None) if name in SOURCES else split_suffix(name)
    if base == "mnist-binarized" and pixels not in (None, "static"):
        raise DataError(
            f"{name} does not exist, because its file holds bits that its author drew once, and no grey values; "
            f"expected mnist-binarized, or mnist-{pixels}, which has grey values."
        )
    if base in SOURCES and pixels is not None and pixels not in PIXELS:
        raise DataError(f"{name} does not exist, because {base} are grey images; expected {suffixes(PIXELS)}.")
    return base, pixels


def _full_name(base: str, pixels: str) -> str:
    # mnist-binarized has the same fixed bits with and without "-static", so it has only one name
    return base if base == "mnist-binarized" else f"{base}-{pixels}"


def _load_named(name: str, pixels: str | None, data_dir: str | os.PathLike[str] | None) -> DataSet:
    source, data_dir = SOURCES[name], None if data_dir is None else path_text("the folder of data", data_dir)
    if source.files and data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise DataError(f"there is no folder {data_dir}; expected one with {source.folder} in it.")
    folder = folders.locate(source, data_dir)
    if folder is None:
        if not source.mirrors:
            raise folders.not_found(source, data_dir)
        folder = folders.search_folders(source, data_dir)[-1]
        download.fetch(source, folder)
    folders.check_sizes(source, folder)
    if source.fragile:
        folders.verify(name, data_dir)
    chosen = pixels or source.pixels
    try:
        grey = source.read(folder)
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error}) from {folder}; expected files that may be read.") from error
    data = treated(grey, chosen)
    return replace(data, name=_full_name(name, chosen), likelihood=source.likelihood(chosen))


def _load_path(path: Path, label: str | None, text: str, wanted: str | None) -> DataSet:
    """The data set of a file or folder, which `text` names, with the treatment `wanted`, if it is not None."""
    try:
        found = formats.read(path)
        if isinstance(found, formats.Table):
            data = _of_table(found, str(path), label, wanted)
            return replace(data, name=f"{text}-{data.pixels}")
        if label is not None:
            raise DataError(f"{path} has no columns with names, so none called {label} can hold labels; expected a "
                            "table (.csv, .tsv, .parquet), or an array of labels beside that of the data.")
        data = data_set_of(path, found, wanted)
        chosen = wanted or ("static" if data.is_bits else data.pixels)
        return replace(data if data.is_table else treated(data, chosen), name=f"{text}-{chosen}")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); expected {formats.expected()}.") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into the memory that is free; store it as train.npy and test.npy in a "
                        "folder, which are read in parts.") from error


def rows_of(path: str | os.PathLike[str], like: DataSet) -> np.ndarray:
    """All rows of a table file as a model of the table `like` takes them: its columns, by their names, in its units.

    Further columns, such as labels, are left out. DataError for a file that is no table, lacks a column or a value.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"there is no file {file}; expected a table with the columns of {like.name}.")
    table = formats.read(file)
    if not isinstance(table, formats.Table):
        raise DataError(f"{file} is no table; expected one with the columns of {like.name} (.csv, .tsv, .parquet).")
    if missing := [name for name in like.column_names if name not in table.names]:
        raise DataError(f"{file} has no column {missing[0]}; expected all columns of {like.name}.")
    cells = dict(zip(table.names, table.cells, strict=True))
    arrays, _, _ = formats.Table(like.column_names, tuple(cells[name] for name in like.column_names)).chosen(
        str(file), None)
    numbers = arrays["images"].read()
    if not np.isfinite(numbers).all():
        raise DataError(f"{file} has missing or infinite values in {int((~np.isfinite(numbers)).any(1).sum())} of "
                        f"{len(numbers)} rows; expected numbers alone: fill them in first, or leave those rows out.")
    stored = numbers if like.center is None or like.spread is None else (numbers - like.center) / like.spread
    check_range(np.ascontiguousarray(stored), str(file), kind=like.pixels)
    return stored.astype(np.float32)


def _of_table(table: formats.Table, where: str, label: str | None, wanted: str | None) -> DataSet:
    """The data set of a table: of real numbers, if no treatment is wanted; a line then says what else they may be."""
    arrays, columns, names = table.chosen(where, label)
    rows = {key: stored.read() for key, stored in arrays.items() if stored.dtype.kind == "f" and len(stored.shape) == 2}
    numbers = np.concatenate(list(rows.values()))
    if np.isnan(numbers).all():
        besides = "" if label is None else f" besides the labels, {label},"
        raise DataError(f"every cell{besides} of {where} is missing (empty, or NaN); expected some numbers, from which "
                        "a model can learn.")
    whole = is_whole(np.nan_to_num(numbers))
    if wanted in PIXELS and whole and not np.isnan(numbers).any():  # bytes, not fractions
        arrays |= {key: formats.Stored.of(values.astype(np.int64)) for key, values in rows.items()}
    data = data_set_of(where, arrays, wanted or "real", columns, names)
    if wanted is None and whole and not (numbers < 0).any():
        pixels = "" if data.dimensions < 9 or np.nanmax(numbers) > 255 else f", and if they are pixels, {where}-gray"
        warnings.warn(f"{where} holds whole numbers from {number(np.nanmin(numbers))} to {number(np.nanmax(numbers))}, "
                      f"which are taken as real ones; if they count something, {where}-counts may suit them better"
                      f"{pixels}", stacklevel=2)
    return data if data.is_table else treated(data, data.pixels if wanted is None else wanted)


def suffixes(treatments: Iterable[str]) -> str:
    """The suffixes of treatments in words."""
    return ", ".join("-" + pixels for pixels in treatments)


def _unknown(name: str) -> DataError:
    """The error for a name that is neither a set nor a path, with the most similar name."""
    known = [*NAMES, *(f"{base}-{pixels}" for base in NAMES for pixels in PIXELS)]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    base, _, suffix = name.rpartition("-")
    if base in SOURCES or _existing(base):
        there = PIXELS if base in SOURCES else TREATMENTS
        if base not in SOURCES:
            near = difflib.get_close_matches(suffix, there, n=1, cutoff=0.5)
            hint = f" Did you mean -{near[0]}?" if near else ""
        return DataError(f"unknown suffix -{suffix} of {base}; expected {suffixes(there)}.{hint}")
    if os.sep in name or "/" in name or Path(split_suffix(name)[0]).suffix:
        return DataError(f"there is no file or folder {split_suffix(name)[0]}; expected {formats.expected()}.")
    return DataError(
        f"unknown data set {name!r}; expected {', '.join(NAMES)}, or the path of {formats.expected()}.{hint}"
    )
