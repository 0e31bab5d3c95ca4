"""How a launcher is called, on every device."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, ClassVar


class Launcher:
    """A function that plans jobs and gives their result, and can be called in two ways.

    `launcher(*arrays, out, **attributes)` plans, runs and gives the result; `launcher.bind(...)` gives a program that
    runs the same jobs over the same arrays whenever it is called. Programs join: `join`. Each device has its `program`,
    made of the jobs planned.
    """

    program: ClassVar[Any]

    def __init__(self, plan: Callable[..., tuple[Any, list]]) -> None:
        update_wrapper(self, plan)
        self._plan = plan

    def __call__(self, *arrays: Any, **attributes: Any) -> Any:
        result, jobs = self._plan(*arrays, **attributes)
        self.program(jobs)()
        return result

    def bind(self, *arrays: Any, **attributes: Any) -> Any:
        return self.program(self._plan(*arrays, **attributes)[1])
