"""Other forms of what runs on a GPU, which no card has measured yet: each a rung beside the form that is used.

A file of this folder is a rung. It gives launchers that replace those of the same names, merges of neighbouring jobs,
or a setting; its kernels stand in a .cu file of the same name. One line says so:

    RUNG = Rung("what is different, and why it may be faster", launchers=(normal, grey_rows), merges={...})

`with rungs.climbed("memory"):` lets the steps that are recorded within the block use a rung. `python -m benchmarks
card` checks and times every rung beside the present form. A rung that is faster there moves into tinyvae_kernels; a
slower one stays here, with its measurement noted.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tinyvae_kernels import launching
from tinyvae_kernels.cuda.runtime import jobs

from tinyvae.engine.fusion import load
from tinyvae.engine.rules import TABLE

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted(str(file.with_suffix("")) for file in FOLDER.glob("*.cu")))  # the names of .cu files for a Job
launching.REGISTRY.setdefault("rungs", {})


class Launcher(jobs.Launcher):
    """A launcher of a rung: registered apart, so that it has no part in a step before its rung is climbed."""

    device = "rungs"


@dataclass(frozen=True)
class Rung:
    """Launchers that stand in for those of their names, merges of neighbours (see jobs.MERGES), and anything else that
    a block changes."""

    says: str
    same_bits: bool = True  # whether its results have the bits of the present form
    launchers: tuple[Launcher, ...] = ()
    merges: Mapping[tuple[str, str], jobs.Merge] = field(default_factory=dict)
    setting: Callable[[], AbstractContextManager[Any]] = nullcontext

    @contextmanager
    def climbed(self) -> Iterator[None]:
        kernels, merges = load("cuda"), dict(jobs.MERGES)
        replaced = {launcher.__name__: getattr(kernels, launcher.__name__) for launcher in self.launchers}
        for launcher in self.launchers:
            setattr(kernels, launcher.__name__, launcher)
        jobs.MERGES.update(self.merges)
        forget()
        try:
            with self.setting():
                yield
        finally:
            for name, launcher in replaced.items():
                setattr(kernels, name, launcher)
            jobs.MERGES.clear()
            jobs.MERGES.update(merges)
            forget()


def forget() -> None:
    """Let every row look up its kernel on the GPU anew."""
    for row in TABLE.values():
        row.kernels.pop("cuda", None)


@cache
def every() -> dict[str, Rung]:
    """The rungs by the names of their files."""
    names = [file.name for file in pkgutil.iter_modules([str(FOLDER)])]
    return {name: importlib.import_module(f"{__name__}.{name}").RUNG for name in names}


@contextmanager
def climbed(*names: str) -> Iterator[None]:
    """Within this block, steps are recorded with these rungs."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(launching.chosen(every(), name).climbed())
        yield


def beside(file: str) -> str:
    """The name of the .cu file beside a rung's .py file, for its jobs: `FILE = beside(__file__)`."""
    return str(Path(file).with_suffix(""))
