"""The progress of long work, in a terminal or a notebook, but never in a pipe or a file."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

Update = Callable[..., None]
_drawing = threading.Lock()  # held while a bar is drawn; beside it, work in another thread shows none


def is_interactive() -> bool:
    """Whether standard error goes to a terminal, or this process runs a notebook."""
    return "ipykernel" in sys.modules or bool(sys.stderr and sys.stderr.isatty())


def draws_bars() -> bool:
    """Whether a bar can be drawn: in a terminal, or in a notebook that has ipywidgets, in which Rich draws.

    Without them Rich would write a warning, and its own path, into the notebook for every bar.
    """
    return is_interactive() and ("ipykernel" not in sys.modules or find_spec("ipywidgets") is not None)


def stage(what: str) -> None:
    """Write the name of the stage that begins on standard error, where a person sees it.

    Unlike a bar it needs no second thread, which would take time from what is measured.
    """
    if is_interactive():
        print(f"{what} ...", file=sys.stderr, flush=True)


@contextmanager
def watched(what: str, total: float = 1.0, quiet: bool = False) -> Iterator[Update]:
    """Within this block a bar on standard error shows the progress of the work `what`.

    Yields a function `update(done, what="")` that moves the bar to `done` of `total` and can change the description.
    """
    if quiet or not draws_bars() or not _drawing.acquire(blocking=False):
        yield lambda done, what="": None
        return
    try:
        with _bar(what, total) as update:
            yield update
    finally:
        _drawing.release()


@contextmanager
def _bar(what: str, total: float) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, what="": bar.update(task, completed=done, **({"description": what} if what else {}))
