"""A user's own file that registers families, likelihoods, activations, optimizers or models.

Running it makes what it registers a choice everywhere. A run folder records the file's name and SHA-256 and never runs
it: whoever opens the run gives the file again, and another content is refused.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from tinyvae.models.base import MODELS, Model

USED: dict[str, str] = {}  # SHA-256 of each file that was run, with its name


def use(path: str | Path) -> None:
    """Run a Python file that registers something; a second time it does nothing.

    Raises ValueError for a file that does not exist, or that ends in an error.
    """
    path = Path(path)
    if not path.is_file():
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
    USED[digest] = path.name


def own_files(model: Model) -> list[dict[str, str]]:
    """What a run of the model must be given again: the files used, and that of its class if it is not ours."""
    files = dict(USED)
    source = _source(type(model))
    if source is not None:
        files.setdefault(_digest(source), source.name)
    return [{"file": name, "sha256": digest} for digest, name in files.items()]


def missing(recorded: list[dict[str, str]]) -> str:
    """Of the files that a run was made with, the first that is not here now, in a sentence; "" if all are."""
    here = dict(USED)
    for family in MODELS.values():
        if (source := _source(family)) is not None:
            here.setdefault(_digest(source), source.name)
    for entry in recorded:
        name, digest = entry["file"], entry["sha256"]
        if digest in here:
            continue
        if name in here.values():
            return (f"was made with another {name} than the one given (SHA-256 {digest[:12]} then): give the file as "
                    "it was, or start a new run")
        return (f"was made with {name}, which opening a run never executes: give the file with --use {name}, or call "
                f"tv.use({name!r}) first")
    return ""


def _source(family: Any) -> Path | None:
    """The file that defines a class outside of this package, if it has one."""
    if family.__module__.partition(".")[0] == "tinyvae":
        return None
    try:
        path = Path(inspect.getfile(family))
    except (TypeError, OSError):  # of a class made in a session without a file
        return None
    return path if path.is_file() else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
