"""Downloads of the sets that have public mirrors: MNIST and Fashion-MNIST.

pooch writes to a temporary file, verifies its SHA-256 and renames it, so a file is either complete or absent.
TINYVAE_OFFLINE=1 forbids downloads.
"""

from __future__ import annotations

import os
from pathlib import Path

from tinyvae.data.checks import DataError
from tinyvae.data.sources import Source, SourceFile


def fetch(source: Source, folder: Path) -> None:
    """Fetch the files of a set into a folder, each from the first mirror that has it; DataError if none has it."""
    if os.environ.get("TINYVAE_OFFLINE", "") not in ("", "0"):
        raise DataError(
            f"{source.name} was not found and TINYVAE_OFFLINE forbids fetching it. Unset TINYVAE_OFFLINE, or "
            f"{_by_hand(source, folder)}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{source.name} cannot be stored in {folder} ({error}); set XDG_CACHE_HOME to another folder."
        ) from error
    for file in source.files:
        _fetch_file(source, file, folder)


def _fetch_file(source: Source, file: SourceFile, folder: Path) -> None:
    import pooch

    failures = []
    for mirror in source.mirrors:
        try:
            # this returns at once if the file exists with the right hash
            path = pooch.retrieve(mirror + file.name, "sha256:" + file.sha256, fname=file.name, path=folder)
        except (OSError, ValueError) as error:  # ValueError: a wrong hash
            failures.append(f"\n  {mirror + file.name}: {error}")
            continue
        if os.path.getsize(path) == file.size:
            return
        failures.append(f"\n  {mirror + file.name}: {os.path.getsize(path)} bytes instead of {file.size}")
    raise DataError(
        f"{file.name} of {source.name} could not be fetched from any of {len(source.mirrors)} mirrors:"
        f"{''.join(failures)}\nTo do it by hand, {_by_hand(source, folder)}"
    )


def _by_hand(source: Source, folder: Path) -> str:
    lines = "".join(f"\n  {file.name} ({file.size} bytes, SHA-256 {file.sha256})" for file in source.files)
    return f"put these files from {source.origin} into {folder}:{lines}"
