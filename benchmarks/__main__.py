"""python -m benchmarks: measure a training step, reproduce published numbers, put figures into the README."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import figures, pictures, reproduce, results, step

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="Folder of the results files.")]


@app.command(name="step")
def _step(quick: Annotated[bool, typer.Option("--quick", help="Few rounds of the small size only.")] = False,
          out: Out = results.FOLDER) -> None:
    """A whole training step: replayed and eager, fused kernels and readable twins; checked, then timed."""
    step.run(quick, out)


@app.command(name="reproduce")
def _reproduce(
    name: Annotated[str | None, typer.Argument(help=f"One of {', '.join(reproduce.NAMES)}; default: all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The same code on little data: shows that it runs.")] = False,
    out: Out = results.FOLDER,
) -> None:
    """Train as published and compare with the published number; writes benchmarks/results/NAME.json."""
    reproduce.run(name, quick, out)


@app.command(name="pictures")
def _pictures() -> None:
    """Train what the README shows and put its pictures into docs/pictures."""
    pictures.run()


@app.command(name="figures")
def _figures(
    check: Annotated[bool, typer.Option("--check", help="Only say whether they are up to date.")] = False,
) -> None:
    """Insert the figures of the committed results files into README.md and the docs."""
    figures.run(check)


if __name__ == "__main__":
    app()
