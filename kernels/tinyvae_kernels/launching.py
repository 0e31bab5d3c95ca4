"""How the world outside reaches the kernels of a device, and the words for it.

    kernel      a compiled function over memory, which does a share of some work
    job         a kernel with its arguments
    program     jobs in order, as one call
    plan        a result, and the jobs that make it
    launcher    a function of arrays that plans

A launcher registers itself under its name when its file is imported, so no list of kernels is kept anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, ClassVar, Self

REGISTRY: dict[str, dict[str, Callable]] = {"cpu": {}, "cuda": {}}  # by device and name


def register(device: str, function: Callable) -> Callable:
    """Let a device offer a function; ValueError if another file of the device has one of that name."""
    name, there = function.__name__, REGISTRY[device].get(function.__name__)
    if there is not None and there.__module__ != function.__module__:
        raise ValueError(f"found two launchers {name!r}, in {there.__module__} and {function.__module__}; expected one")
    REGISTRY[device][name] = function
    return function


def chosen(table: dict[str, Any], kind: str) -> Any:
    """What a table has under a name; ValueError with the names that it has."""
    if kind not in table:
        raise ValueError(f"found {kind!r}; there are kernels for {', '.join(table)}")
    return table[kind]


class Launcher:
    """A function that plans jobs, and can be called in two ways.

    `launcher(*arrays, out, **attributes)` plans, runs the jobs and gives the result; `launcher.bind(...)` gives a
    program that runs the same jobs over the same arrays whenever it is called. Programs join: `Program.join`. Every
    device has every launcher, except for those that say why one device alone has them: `Launcher.alone("the reason")`.
    """

    device: ClassVar[str]
    program: ClassVar[Any]

    def __init__(self, plan: Callable[..., tuple[Any, list]], reason: str = "",
                 takes: Callable[..., bool] | None = None) -> None:
        update_wrapper(self, plan)
        self._plan, self.reason, self.takes = plan, reason, takes
        register(self.device, self)

    @classmethod
    def alone(cls, reason: str, takes: Callable[..., bool] | None = None) -> Callable[[Callable], Self]:
        """A launcher that only this device has; `takes` says of arguments whether the launcher can serve them."""
        return partial(cls, reason=reason, takes=takes)

    @classmethod
    def question(cls, function: Callable) -> Callable:
        """A plain function about arrays, by which a caller chooses a launcher."""
        return register(cls.device, function)

    def __call__(self, *arrays: Any, **attributes: Any) -> Any:
        result, jobs = self._plan(*arrays, **attributes)
        self.program(jobs)()
        return result

    def bind(self, *arrays: Any, **attributes: Any) -> Any:
        return self.program(self._plan(*arrays, **attributes)[1])
