"""Loading a data set by its name or by the path of its files."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinyvae.data import download, folders, formats
from tinyvae.data.arrays import data_set_of
from tinyvae.data.checks import DataError, check_rows, only
from tinyvae.data.dataset import PIXELS, DataSet, split_suffix, treated
from tinyvae.data.formats.labels import MARK, relabelled, split_labels
from tinyvae.data.sources import NAMES, SOURCES

SUFFIXES = ", ".join("-" + pixels for pixels in PIXELS)


def load(name: str | os.PathLike[str] = "digits", data_dir: str | os.PathLike[str] | None = None) -> DataSet:
    """Load a data set.

    Parameters
    ----------
    name
        The name of a set, one of `NAMES`, or the path of an .npy, .npz or IDX(.gz) file or of a folder of images. A
        suffix can choose the treatment of the pixels: -dynamic, -static, -threshold or -gray (see `dataset.py`).

        Without a suffix, digits, mnist, fashion-mnist and omniglot are -dynamic, frey-faces and olivetti are -gray, and
        mnist-binarized has fixed bits. The data of a path are -static if their pixels have only two values, which then
        are 0 and 1, else -gray.
    data_dir
        The folder in which a named set is searched first, before $TINYVAE_DATA and the user's cache. MNIST and
        Fashion-MNIST are fetched into the cache if they are not found.

    Notes
    -----
    The digits are split at random into 1497 and 300, frey-faces by time, olivetti by person, and the others as
    published (see `readers.py`). An .npz with `train` and `test` (also `x_train`, `train_images`, ...) or a folder with
    train.npy and test.npy (or IDX files) keeps its split; a part `valid` or `val_images` is used. Of other data a
    tenth, but at least one image, becomes the test part at random. Splits and static draws are the same for everyone.

    The format of a file is known by its first bytes. .npy files are memory-mapped. Those of a folder are used without a
    copy (if uint8 or float32); a single .npy is read once for the split. Integers are grey values from 0 to 255; floats
    must be in [0, 1]. Images of a folder are turned as their EXIF data say, all frames and pages are taken, transparent
    ones are laid on white or black, and images in colour are refused (see `formats/images.py`). Labels may be whole
    numbers of any type, or strings, which become `class_names`.

    Raises
    ------
    DataError
        For an unknown name or suffix, missing files, or data that cannot be used; the message says what was found, what
        was expected and what to do.
    """
    full, labels = split_labels(os.fspath(name))
    if labels:
        return relabelled(load(full, data_dir), labels)
    base, pixels = _parts(full)
    if base in SOURCES:
        return _load_named(base, pixels, data_dir)
    # an existing path that ends like a suffix takes precedence over the path without the suffix
    for text, wanted in ((full, None), (base, pixels)):
        if path := _existing(text):
            data = _load_path(path)
            chosen = wanted or ("static" if data.is_bits else "gray")
            return treated(replace(data, name=f"{text}-{chosen}"), chosen)
    raise _unknown(full)


def as_data_set(data: DataSet | np.ndarray | str | os.PathLike[str], what: str = "the array") -> DataSet:
    """What a function was given as data: a data set, the name of one, or an array (count, pixels) of numbers in [0, 1].

    An array, which `what` names in errors, becomes the training part and the test part. DataError for data that no
    training could use.
    """
    if isinstance(data, DataSet):
        return data
    if isinstance(data, (str, os.PathLike)):
        return load(data)
    rows = np.ascontiguousarray(data)
    check_rows(rows, what)
    bits = only([rows], 0, 1)
    return DataSet(what, rows, rows, (1, rows.shape[1]), 1.0, "static" if bits else "gray")


def anywhere(name: str | os.PathLike[str]) -> str:
    """A name that is valid in every current folder: a relative path becomes absolute, with the same suffix."""
    name, labels = split_labels(os.fspath(name))
    if labels:
        return f"{anywhere(name)}{MARK}{labels}"
    base, _ = _parts(name)
    if base in SOURCES:
        return name
    for text in (name, split_suffix(name)[0]):
        if path := _existing(text):
            return str(path.absolute()) + name[len(text):]
    return name


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
    shape: tuple[int, int]
    count: int  # the number of training data
    likelihood: str
    classes: int  # the number of classes of the labels; 0 without labels


def outline(name: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Outline:
    """The outline of a data set; a named set is not read for it, the data of a path are."""
    base, pixels = _parts(os.fspath(name))
    if base not in SOURCES:  # also where labels come from a file of their own
        data = load(name, data_dir)
        return Outline(data.name, data.shape, data.count, data.likelihood, data.classes)
    source = SOURCES[base]
    chosen = pixels or source.pixels
    return Outline(_full_name(base, chosen), source.shape, source.count, source.likelihood(chosen),
                   source.classes)


def _parts(name: str) -> tuple[str, str | None]:
    """The name or path without its suffix, and the suffix; DataError if the named set cannot have this suffix."""
    base, pixels = (name, None) if name in SOURCES else split_suffix(name)
    if base == "mnist-binarized" and pixels not in (None, "static"):
        raise DataError(
            f"{name} does not exist, because its file holds bits that its author drew once, and no grey values; "
            f"expected mnist-binarized, or mnist-{pixels}, which has grey values."
        )
    return base, pixels


def _full_name(base: str, pixels: str) -> str:
    # mnist-binarized has the same fixed bits with and without "-static", so it has only one name
    return base if base == "mnist-binarized" else f"{base}-{pixels}"


def _load_named(name: str, pixels: str | None, data_dir: str | os.PathLike[str] | None) -> DataSet:
    source = SOURCES[name]
    if source.files and data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise DataError(f"there is no folder {os.fspath(data_dir)}; expected one with {source.folder} in it.")
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


def _load_path(path: Path) -> DataSet:
    """The data set of a file or folder, with grey values."""
    try:
        return data_set_of(path, formats.read(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); expected {formats.expected()}.") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into the memory that is free; store it as train.npy and test.npy in a "
                        "folder, which are read in parts.") from error


def _unknown(name: str) -> DataError:
    """The error for a name that is neither a set nor a path, with the most similar name."""
    known = [*NAMES, *(f"{base}-{pixels}" for base in NAMES for pixels in PIXELS)]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    base, _, suffix = name.rpartition("-")
    if base in SOURCES or _existing(base):
        return DataError(f"unknown suffix -{suffix} of {base}; expected {SUFFIXES}.{hint}")
    if os.sep in name or "/" in name or Path(split_suffix(name)[0]).suffix:
        return DataError(f"there is no file or folder {split_suffix(name)[0]}; expected {formats.expected()}.")
    return DataError(
        f"unknown data set {name!r}; expected {', '.join(NAMES)}, or the path of {formats.expected()}.{hint}"
    )
