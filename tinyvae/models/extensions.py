"""A user's own file that registers families, likelihoods, activations, optimizers or models.

After `use(file)`, everything that the file registers can be chosen in Python and on the command line. A run folder
records the file's name and SHA-256, and opening the run never executes the file: the user gives it again, and a file
with another SHA-256 is refused.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from tinyvae.choices import path_of
from tinyvae.models.base import MODELS, Model

PATHS: dict[str, Path] = {}  # by SHA-256, where each file that was run was found
_running = threading.RLock()  # so that a second thread waits until the file has registered all
USED: dict[str, str] = {}  # the names of the files that were executed, by their SHA-256


def use(path: str | Path) -> None:
    """Execute a Python file that registers something; a second call with the same file does nothing.

    Raises ValueError for a file that does not exist, or that raises an error.
    """
    with _running:
        _use(path_of("a file to use", path))


def _use(path: Path) -> None:
    if not os.path.isfile(path):
        raise ValueError(f"{path} is no file; give a Python file that registers a model or a family")
    digest = _digest(path)
    if digest in USED:
        return
    name = f"tinyvae_use_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; expected one that ends in .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as fault:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(fault.__traceback__) if frame.filename == str(path)]
        where = f" in line {lines[-1]}" if lines else ""
        raise ValueError(f"{path} ended{where} with {type(fault).__name__}: {fault}") from fault
    USED[digest], PATHS[digest] = path.name, path


def own_files(model: Model) -> list[dict[str, str]]:
    """The user's files that a run of the model needs: those executed by `use`, and the file of the model's class."""
    files = dict(USED)
    source = _source(type(model))
    if source is not None:
        files.setdefault(_digest(source), source.name)
    return [{"file": name, "sha256": digest} for digest, name in files.items()]


def missing(recorded: list[dict[str, str]]) -> str:
    """A sentence about the first recorded file that this process has not executed; "" if it has executed all."""
    here = dict(USED)
    for family in MODELS.values():
        if (source := _source(family)) is not None:
            here.setdefault(_digest(source), source.name)
    for entry in recorded:
        name, digest = entry["file"], entry["sha256"]
        if digest in here:
            continue
        if name in here.values():
            return (f"was made with another version of {name} (SHA-256 {digest[:12]}): give that version, or start "
                    "a new run")
        return (f"was made with {name}, which opening a run never executes: give the file with --use {name}, or call "
                f"tv.use({name!r}) first")
    return ""


def _source(family: Any) -> Path | None:
    """The file that defines a class, or None for a class of this package or without a file."""
    if family.__module__.partition(".")[0] == "tinyvae":
        return None
    try:
        path = Path(inspect.getfile(family))
    except (TypeError, OSError):  # an interactive session has no file
        return None
    return path if path.is_file() else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
