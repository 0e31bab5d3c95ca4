"""A bar for long work, where somebody looks: in a terminal or a notebook, never in a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[..., None]


def somebody_looks() -> bool:
    """Does standard error go to a terminal, or does this run in a notebook?"""
    return "ipykernel" in sys.modules or bool(sys.stderr and sys.stderr.isatty())


@contextmanager
def watched(what: str, total: float = 1.0, quiet: bool = False) -> Iterator[Update]:
    """Within this block a bar on standard error shows how far the work is.

    Gives a function `update(done, what="")`: how much of `total` is done, and, if given, another description.
    """
    if quiet or not somebody_looks():
        yield lambda done, what="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, what="": bar.update(task, completed=done, **({"description": what} if what else {}))
