"""What the commands share: their options, and how a run and its data are opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    pass


def opt(text: str, *names: str, **more: Any) -> Any:
    """An option with its help."""
    return typer.Option(*names, help=text, **more)


Json = Annotated[bool, opt("Print JSON instead of text.", "--json")]
DataDir = Annotated[str | None, opt("The folder that holds mnist/ and the other sets. By default: $TINYVAE_DATA, then "
                                     "the user's cache.")]
Run = Annotated[Path, typer.Argument(help="A run folder.")]
Seed = Annotated[int, opt("Another seed gives other draws and chooses other images.")]
Part = Annotated[str, opt("The part of the data: test, train or valid.")]
Data = Annotated[str | None, opt("Use other data than the run's own.")]
Device = Annotated[str, opt("Compute on the cpu, or on cuda, an NVIDIA GPU.")]
Out = Annotated[Path | None, opt("The folder for the pictures. By default: RUN/figures.")]
Use = Annotated[list[str] | None, opt("Run this Python file first; what it registers becomes a choice. Give the option "
                                     "again for more files.", metavar="FILE")]


def given(context: Any) -> list[str]:
    """The options that stand on the command line."""
    return [name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"]


def existing_folder(path: str | None) -> str | None:
    """The path in a form that is valid in every current folder; ValueError if there is no folder."""
    if path is None:
        return None
    if not Path(path).expanduser().is_dir():
        raise ValueError(f"found --data-dir {path}, where there is no folder; expected one that holds "
                         "mnist/ or other sets")
    return os.path.abspath(Path(path).expanduser())


def make(out: Path) -> None:
    """The folder for the pictures; ValueError says why it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(f"{out} cannot be made: {fault.strerror}; choose another --out") from None


def file_for(out: Path | None) -> Path | None:
    """The file for numbers that --out names; None for a folder. ValueError for the name of a file of another kind."""
    from tinyvae.tasks.rows import SUFFIXES

    if out is None or out.suffix in SUFFIXES:
        return out
    if out.suffix[1:].isalpha() and not out.is_dir():
        raise ValueError(f"found --out {out}; expected a file that ends in {' or '.join(SUFFIXES)}, or a folder")
    return None


def check_part(part: str) -> None:
    """Raise ValueError for a part that no data set has, before anything is read."""
    if part not in ("test", "train", "valid"):
        raise ValueError(f"found part {part!r}; expected test, train or valid")


def folder_of(run: Path) -> Path:
    """The run folder, of which `run` may be a checkpoint."""
    return run if run.is_dir() else run.parent


def pictures_of(run: Path, out: Path | None) -> Path:
    """The folder for the pictures of a run, made."""
    folder = out or folder_of(run) / "figures"
    make(folder)
    return folder


def widths(text: str, option: str = "hidden") -> list[int]:
    """"400" or "200,200" as a list of numbers; `option` names it in errors."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"found --{option} {text!r}; expected one whole number or several: 400, or 200,200") from None


def opened(run: Path, data: str | None, data_dir: str | None, device: str = "cpu",
           model: Any = None) -> tuple[Any, Any]:
    """The model of a run, or `model` if that is loaded already, and the data it was trained on, or others."""
    from tinyvae import runs

    return runs.opened(run, data, existing_folder(data_dir), device, model)
