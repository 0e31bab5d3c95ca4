"""The folders of the named sets.

A data folder has a folder for each set (`mnist/`, `freyfaces/`, ...). A set is searched in `data_dir`, in $TINYVAE_DATA
and in the user's cache, in this order. Loading checks the sizes of the files, which costs no time; `verify` checks
their SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from tinyvae.data.checks import DataError
from tinyvae.data.sources import Source, get

Folder = str | os.PathLike[str] | None


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/tinyvae, else ~/.cache/tinyvae, else (without a home) a folder for temporary files."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(tempfile.gettempdir() if cache.startswith("~") else cache) / "tinyvae"


def search_folders(source: Source, data_dir: Folder = None) -> list[Path]:
    """The folders in which a set is searched, in order; the last one is in the user's cache."""
    named = [Path(folder).expanduser() for folder in (data_dir, os.environ.get("TINYVAE_DATA")) if folder]
    return [folder / source.folder for folder in (*named, cache_folder())]


def locate(source: Source, data_dir: Folder = None) -> Path | None:
    """The first folder that holds all files of a set, or None."""
    for folder in search_folders(source, data_dir):
        if all((folder / file.name).is_file() for file in source.files):
            return folder
    return None


def check_sizes(source: Source, folder: Path) -> None:
    """Raise DataError at the first file with another size than that of the catalogue."""
    for file in () if source.derived else source.files:
        size = (folder / file.name).stat().st_size
        if size != file.size:
            raise DataError(
                f"{folder / file.name} has {size} bytes; expected {file.size}: truncated, or another file. "
                f"Put the original in its place: {source.origin}."
            )


def not_found(source: Source, data_dir: Folder = None) -> DataError:
    """The error for a missing set: the expected files, the searched folders, and what to do."""
    folders = search_folders(source, data_dir)
    wanted = "".join(f"\n  {file.name} ({file.size} bytes, SHA-256 {file.sha256})" for file in source.files)
    return DataError(
        f"{source.name} was not found in {', '.join(map(str, folders))}; expected there:{wanted}\n"
        f"Put it into one of these folders; its origin: {source.origin}."
    )


def find(name: str, data_dir: Folder = None) -> dict[str, Any]:
    """Search the files of a named set without reading them; `tinyvae doctor` uses it.

    Returns a dictionary that JSON can hold: `name`; `found`; `folder`, or None (the digits come with scikit-learn and
    have no folder); `searched`, the searched folders; `fetched`, whether `load` fetches a missing set; and `advice`,
    what to do about a missing set, else "".

    Raises DataError for an unknown name, but not for missing files or files of the wrong size.
    """
    source, problem = get(name), None
    folder = locate(source, data_dir)
    if folder is None:
        problem = not_found(source, data_dir)
    else:
        try:
            check_sizes(source, folder)
        except DataError as error:
            problem = error
    return {
        "name": name,
        "found": problem is None,
        "folder": str(folder) if folder and source.files else None,
        "searched": [str(path) for path in search_folders(source, data_dir)] if source.files else [],
        "fetched": bool(source.mirrors),
        "advice": str(problem or ""),
    }


def verify(name: str, data_dir: Folder = None) -> dict[str, str]:
    """The SHA-256 of each file of a named set, by path.

    Raises DataError at the first file that is missing or has another SHA-256 than the catalogue says.
    """
    source = get(name)
    folder = locate(source, data_dir)
    if folder is None:
        raise not_found(source, data_dir)
    found = {}
    for file in source.files:
        path = folder / file.name
        with path.open("rb") as stream:
            found[str(path)] = digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != file.sha256:
            raise DataError(
                f"{path} has SHA-256 {digest}; expected {file.sha256}. "
                f"Put the original in its place: {source.origin}."
            )
    return found
