"""Folders: of image files, or of arrays in files of their own, such as train.npy and test.npy, or part-000.npy, ..."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from tinyvae.data.checks import DataError
from tinyvae.data.formats import idx, npy
from tinyvae.data.formats.images import read_file, read_images
from tinyvae.data.formats.parquet import read_parquet
from tinyvae.data.formats.registry import Arrays, Stored, expected, head_of, recognised
from tinyvae.data.formats.table import Table, stacked
from tinyvae.data.formats.text import is_text, read_text
from tinyvae.data.mapped.rows import MappedRows

ARRAYS = (npy.read_npy, idx.read, idx.read_gzip)  # the readers of files that hold one array
SYSTEM = ("thumbs.db", "desktop.ini")  # what systems leave in folders of images
# A run folder is known by its checkpoints, or by this text in its config.json.
CHECKPOINTS, RUN = ("last.safetensors", "best.safetensors"), b'"tinyvae-run"'


def read(path: Path) -> Arrays | Table:
    """The arrays of a file or folder by name; an array without a name is called "images". Or the table of a file."""
    if path.is_dir():
        return read_folder(path)
    head = head_of(path)
    if not head:
        raise DataError(f"{path} is empty; expected {expected()}.")
    if (found := recognised(head)) is not None:
        return found.read(path)
    if is_text(head):
        return read_text(path)
    raise DataError(f"{path} begins with the bytes {head[:8].hex(' ')}; expected {expected()}.")


def read_folder(path: Path) -> Arrays | Table:
    """A folder of images as one array, in the order of their file names; or a folder of arrays, by their file names.

    All images must have the same size. Hidden files are skipped, and those that systems leave; any other file that is
    not an image is an error. The .npy files of a folder of arrays are memory-mapped, so a data set can be larger than
    the memory; part-000.npy, part-001.npy, ... are together one array. A folder of tables is one table, whose parts are
    the files.
    """
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and file.name.lower() not in SYSTEM)
    if not files:
        raise DataError(f"{path} has no images; expected images of one size, or train.npy and test.npy.")
    if any(file.name in CHECKPOINTS or (file.name == "config.json" and RUN in head_of(file)) for file in files):
        raise DataError(f"{path} is the folder of a tinyvae run and holds no images; expected {expected()}. If a run "
                        "was trained on data made in Python, give them again: tv.resume(run, data).")
    kinds = []
    for file in files:
        if file.is_dir():
            raise DataError(f"{file} is a folder; expected only images there: name the folder that holds them.")
        kinds.append(recognised(head_of(file)))
    if all((kind is not None and kind.read in ARRAYS) or file.suffix == ".npy" for kind, file in zip(kinds, files,
                                                                                                    strict=True)):
        found, pieces = {}, {file: number for file in files if (number := _of_piece(file))}
        if pieces:
            found["train" if any(file.stem.startswith("test") for file in files) else "images"] = _joined(pieces)
        for kind, file in zip(kinds, files, strict=True):
            if file in pieces:
                continue
            name = file.name.removesuffix(".gz").removesuffix(".npy")
            if name in found and pieces:
                raise DataError(f"{path} has {file.name} beside {next(iter(pieces)).name}; expected one of them: both "
                                "are the training images.")
            found[name] = Stored.of(npy.map_npy(file)) if kind is None or file.suffix == ".npy" else \
                kind.read(file)["images"]
        return found
    if all((kind is None and is_text(head_of(file))) or (kind is not None and kind.read is read_parquet)
           for kind, file in zip(kinds, files, strict=True)):
        tables = {file.stem: read_text(file) if kind is None else read_parquet(file)
                  for kind, file in zip(kinds, files, strict=True)}
        return stacked(tables, str(path))
    for kind, file in zip(kinds, files, strict=True):
        if kind is not None and kind.read is not read_file:
            raise DataError(f"{file} is {kind.name}; expected only images there: move it elsewhere.")
    return {"images": Stored.of(read_images(path, files))}


def _of_piece(file: Path) -> int | None:
    """The number, counted from 1, of a file that has some of an array's rows: part-000.npy."""
    found = re.fullmatch(r"part[-_]?(\d+)\.npy", file.name)
    return None if found is None else 1 + int(found[1])


def _joined(pieces: dict[Path, int]) -> Stored:
    """The rows of all pieces, in the order of their numbers, which stay in their files."""
    files = sorted(pieces, key=lambda file: pieces[file])
    for before, file in pairwise(files):
        if pieces[file] == pieces[before]:
            raise DataError(f"{file.parent} has {before.name} and {file.name}, which have one number; expected one "
                            "file for each: rename one, or leave it out.")
        if pieces[file] != pieces[before] + 1:
            raise DataError(f"{file.parent} has {file.name} after {before.name}; expected files without a gap in their "
                            "numbers: one may be missing.")
    arrays = [npy.map_npy(file) for file in files]
    for file, array in zip(files, arrays, strict=True):
        if array.ndim < 2 or array.dtype.kind not in "buif" or not array.size:
            raise DataError(f"{file} holds {array.dtype} of shape {array.shape}; expected numbers, at least one image: "
                            "(count, rows, columns) or (count, pixels).")
        if array.dtype != arrays[0].dtype or array.shape[1:] != arrays[0].shape[1:]:
            raise DataError(f"{file} holds {array.dtype} of shape {array.shape}, and {files[0].name} {arrays[0].dtype} "
                            f"of shape {arrays[0].shape}; expected one type, and rows of one size.")
    rows = [array.reshape(len(array), -1) for array in arrays]
    shape = (sum(map(len, rows)), *arrays[0].shape[1:])
    return Stored(shape, arrays[0].dtype, lambda: MappedRows(rows))
