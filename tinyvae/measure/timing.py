"""Timing functions in alternation; all benchmarks use it.

The speed of a machine changes over time, for example because of other processes. Candidates that are timed one after
the other therefore meet different conditions. `measure` alternates the candidates round by round and keeps every round,
so that two candidates can be compared within the rounds. It reports the median and the quartiles, never the best round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Timing:
    """The times of one candidate: seconds per call, one number for each round, which is a mean over `calls` calls."""

    name: str
    seconds: tuple[float, ...]
    calls: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The seconds below which a quarter and three quarters of the rounds lie."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return lower, upper

    def times_faster_than(self, other: Timing) -> float:
        """The factor by which this is faster than `other`: the median of the ratios within the rounds."""
        if len(self.seconds) != len(other.seconds):
            raise ValueError(f"{len(self.seconds)} and {len(other.seconds)} rounds; compare within one")
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The times for a JSON file, in seconds per call."""
        lower, upper = self.quartiles
        return {"name": self.name, "median_s": self.median, "lower_quartile_s": lower,
                "upper_quartile_s": upper, "rounds": len(self.seconds), "calls": self.calls}  # fmt: skip

    def __str__(self) -> str:
        lower, upper = self.quartiles
        return f"{self.name}: {readable(self.median)} ({readable(lower)} to {readable(upper)})"


def measure(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int = 15,
    calls: int | Mapping[str, int] | None = None,
    least: float = 2e-3,
    synchronize: Callable[[], Any] | None = None,
    pause: float = 0.0,
) -> dict[str, Timing]:
    """Time `functions` in alternation, without their results.

    Parameters
    ----------
    functions : the candidates by name; they take no arguments.
    rounds : the number of rounds. Each round runs all candidates, and begins with the next one in their order.
    calls : the number of calls of a candidate in a round, for all or by name; by default as many as take `least`
        seconds. Each candidate is called once before the first round, so that compilation is not counted.
    synchronize : a function that waits until a device has finished; it is called before the time is read.
    pause : seconds to wait before each candidate. The threads of a BLAS run a busy loop for some 26 ms after a product,
        and would slow down the next candidate; after 0.05 s they sleep.
    """
    if not functions or rounds < 1:
        raise ValueError(f"{len(functions)} functions, {rounds} rounds; give at least one of each")
    wait = synchronize or _nothing
    for function in functions.values():
        function()
    wait()
    if calls is None:
        counts = {name: _enough(function, wait, least) for name, function in functions.items()}
    else:
        counts = {name: calls if isinstance(calls, int) else calls[name] for name in functions}
    if min(counts.values()) < 1:
        raise ValueError(f"calls are {counts}; expected at least 1")
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()  # the time of a collection would count for the candidate that runs just then
    try:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                time.sleep(pause)
                seconds[name].append(_run(functions[name], counts[name], wait) / counts[name])
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(name, tuple(seconds[name]), counts[name]) for name in names}


def _nothing() -> None:
    pass


def _run(function: Callable[[], Any], calls: int, wait: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    wait()
    return time.perf_counter() - begin


def _enough(function: Callable[[], Any], wait: Callable[[], Any], least: float) -> int:
    """The number of calls that take `least` seconds, found by doubling."""
    calls = 1
    while (took := _run(function, calls, wait)) < least and calls < 2**20:
        calls = max(2 * calls, int(calls * least / max(took, 1e-9)) // 2)
    return calls


@dataclass
class Stopwatch:
    """`with Stopwatch() as watch: ...` stores the seconds of the block in `watch.seconds`, also after an error."""

    seconds: float = 0.0
    _begin: float = field(default=0.0, repr=False)

    def __enter__(self) -> Stopwatch:
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin


def readable(seconds: float) -> str:
    """A duration with three digits and a suitable unit: 1.38 ms, 96.0 us, 12.1 s."""
    if seconds == 0 or abs(seconds) >= 999.5:
        return f"{seconds:.0f} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= 0.9995 * size:
            return f"{seconds / size:#.3g} {unit}".replace(". ", " ")
    return f"{seconds / 1e-9:#.3g} ns".replace(". ", " ")
