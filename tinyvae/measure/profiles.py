"""The profile of a recorded program: the time of each launch, and its share of the machine's measured peak."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyvae.engine.program import Tape, bound
from tinyvae.engine.table import elements, flops, footprint, lines, shapes, traffic
from tinyvae.engine.tape import Launch
from tinyvae.measure import hardware


class Profile(list):
    """The working launches of a tape with their median times, as a list of (launch, seconds).

    `print` shows a table with the share of this machine's measured peak: the least time of the launch in the roofline
    model (hardware.py), divided by its time. `rounds` holds the seconds of every round, (rounds, launches).
    """

    def __init__(self, launches: Sequence[Launch], rounds: np.ndarray) -> None:
        super().__init__(zip(launches, np.median(rounds, axis=0).tolist(), strict=True))
        self.rounds = rounds

    def rows(self, peaks: hardware.Peaks) -> list[dict[str, Any]]:
        """A dictionary for each launch for a JSON file, with the units in the names."""
        quartiles = np.percentile(self.rounds, (25, 75), axis=0).T if len(self) else []
        found = []
        for (launch, seconds), (low, high) in zip(self, quartiles, strict=True):
            inputs, outputs = shapes(launch)
            work = flops(launch), traffic(launch)
            least = peaks.least_seconds(*work, footprint(launch), _float_type(launch))
            found.append({
                "operation": launch.rule.name, "inputs": inputs, "outputs": outputs, "microseconds": seconds * 1e6,
                "lower_quartile": low * 1e6, "upper_quartile": high * 1e6, "flops": work[0], "bytes": work[1],
                "elements": elements(launch), "least_microseconds": least * 1e6, **rates(seconds, *work, least),
            })  # fmt: skip
        return found

    def table(self, peaks: hardware.Peaks) -> str:
        """One line for each launch, the sums, and an explanation of the columns."""
        rows = self.rows(peaks)
        cells = [("", "operation", "inputs", "outputs", "us", "quartiles", "ns/element", "GB/s", "GFLOP/s", "of peak")]
        for i, row in enumerate(rows):
            cells.append((
                str(i), row["operation"], row["inputs"], row["outputs"], f"{row['microseconds']:.1f}",
                f"{row['lower_quartile']:.1f} to {row['upper_quartile']:.1f}",
                f"{1e3 * row['microseconds'] / max(row['elements'], 1):.3g}", *_rates_as_text(row)))  # fmt: skip
        took, least, operations, size = (sum(row[name] for row in rows) for name in (
            "microseconds", "least_microseconds", "flops", "bytes"))  # fmt: skip
        whole = rates(took / 1e6, operations, size, least / 1e6)
        cells.append(("", f"{len(rows)} launches", "", "", f"{took:.1f}", "", "", *_rates_as_text(whole)))
        return (f"{lines(cells, left=(1, 2, 3))}\n"
                f"medians of {len(self.rounds)} rounds, each launch called by itself; us and ns: lower is better\n"
                "of peak: the share of this machine's peak for so many bytes and FLOP (roofline); higher is better; "
                "above\n100 %: the machine was busier when its peaks were measured")

    def __repr__(self) -> str:
        return f"{self.table(hardware.peaks())}\npeaks: {hardware.peaks()}"


def rates(seconds: float, operations: float, size: float, least: float) -> dict[str, float]:
    """GB/s, GFLOP/s and the share of the peak, for work that took `seconds` and takes at least `least` seconds."""
    seconds = max(seconds, 1e-9)  # the resolution of the clock
    return {"gigabytes_per_second": size / seconds / 1e9, "gigaflops": operations / seconds / 1e9,
            "share_of_peak": least / seconds}  # fmt: skip


def _rates_as_text(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['gigabytes_per_second']:.3g}", f"{row['gigaflops']:.3g}", f"{row['share_of_peak']:.1%}"


def _float_type(launch: Launch) -> Any:
    """The floating-point type in which a launch computes."""
    arrays = [*launch.outputs, *(tensor.data for tensor in launch.inputs)]
    return next((array.dtype for array in arrays if array.dtype.name in ("float32", "float64")), np.dtype(np.float32))


def profile(tape: Tape, rounds: int = 50, reset: Callable[[], Any] = lambda: None) -> Profile:
    """Time each working launch in `rounds` runs of the program; `reset` is called before each run."""
    if not isinstance(tape, Tape):
        raise TypeError(f"found {type(tape).__name__} to profile; expected a recorded tv.Tape")
    calls = [(launch, bound(launch)) for launch in tape.working()]
    seconds = np.empty((rounds, len(calls)))
    with np.errstate(all="ignore"):
        for i in range(rounds):
            reset()
            for j, (_, call) in enumerate(calls):
                start = time.perf_counter()
                call()
                seconds[i, j] = time.perf_counter() - start
    return Profile([launch for launch, _ in calls], seconds)
