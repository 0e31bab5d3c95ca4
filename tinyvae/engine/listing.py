"""A tape as a table: what each launch reads, writes and computes; with times, where the step's time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.measure import hardware

if TYPE_CHECKING:
    from tinyvae.engine.devices import Array
    from tinyvae.engine.tape import Launch, Tape


def flops(launch: Launch) -> int:
    """Arithmetic operations, an elementary function counted as one: by the row's formula."""
    formula = launch.rule.flops
    if launch.rule.view:
        return 0
    if not callable(formula):
        return formula * elements(launch)
    return int(formula(launch.outputs[0] if launch.outputs else None, *(tensor.data for tensor in launch.inputs)))


def footprint(launch: Launch) -> int:
    """Bytes of the arrays that are read or written; a view touches none."""
    return 0 if launch.rule.view else sum(array.nbytes for array in _arrays(launch))


def traffic(launch: Launch) -> int:
    """Bytes read and written: each array once, one that is changed in place twice."""
    changed = () if launch.rule.overwrites else launch.rule.writes
    return footprint(launch) + sum(launch.inputs[i].data.nbytes for i in changed)


def elements(launch: Launch) -> int:
    """The size of the largest array that is read or written."""
    return max((array.size for array in _arrays(launch)), default=0)


def _arrays(launch: Launch) -> list[Array]:
    inputs = [tensor.data for tensor in launch.inputs]
    if launch.rule.picks:
        inputs[0] = inputs[0].reshape(-1)[: launch.outputs[0].size]
    return inputs + list(launch.outputs)


def table(tape: Tape) -> str:
    """One line a launch, with FLOP and bytes, and their sums below."""
    rows = [("", "operation", "inputs", "outputs", "FLOP", "bytes")]
    for number, launch in enumerate(tape.launches):
        name = launch.rule.name + (" (view)" if launch.rule.view else "")
        rows.append((str(number), name, *_shapes(launch), f"{flops(launch):,}", f"{traffic(launch):,}"))
    rows.append(("", f"{len(tape.program())} launches", "", "", f"{sum(map(flops, tape.launches)):,}",
                 f"{sum(map(traffic, tape.launches)):,}"))
    return lines(rows, left=(1, 2, 3))


def lines(rows: Sequence[Sequence[str]], left: Iterable[int] = (0,)) -> str:
    """Cells in columns that line up, to the right but for the columns `left`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) if i in left else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
                     for row in rows)


def _shapes(launch: Launch) -> tuple[str, str]:
    inputs = " ".join(_shape(tensor.data) for tensor in launch.inputs)
    return inputs, "in place" if launch.rule.writes else " ".join(map(_shape, launch.outputs))


def _shape(array: Array) -> str:
    return "x".join(map(str, array.shape)) or "1"


# ---- with times ------------------------------------------------------------------------------------------------------


class Profile(list):
    """Each working launch of a tape with its median time in seconds: a list of (launch, seconds).

    Printed, it is a table with the share of this machine's measured peak (hardware.py): the time that the launch would
    take at the roof, through the time it takes. `rounds` holds the seconds of every round, (rounds, launches).
    """

    def __init__(self, launches: Sequence[Launch], rounds: np.ndarray) -> None:
        super().__init__(zip(launches, np.median(rounds, axis=0).tolist(), strict=True))
        self.rounds = rounds

    def rows(self, peaks: hardware.Peaks) -> list[dict[str, Any]]:
        """For a JSON file: a dict a launch, with the units in the names."""
        quartiles = np.percentile(self.rounds, (25, 75), axis=0).T if len(self) else []
        found = []
        for (launch, seconds), (low, high) in zip(self, quartiles, strict=True):
            inputs, outputs = _shapes(launch)
            work = flops(launch), traffic(launch)
            least = peaks.least_seconds(*work, footprint(launch), _float_type(launch))
            found.append({
                "operation": launch.rule.name, "inputs": inputs, "outputs": outputs, "microseconds": seconds * 1e6,
                "lower_quartile": low * 1e6, "upper_quartile": high * 1e6, "flops": work[0], "bytes": work[1],
                "elements": elements(launch), "least_microseconds": least * 1e6, **rates(seconds, *work, least),
            })  # fmt: skip
        return found

    def table(self, peaks: hardware.Peaks) -> str:
        """One line a launch, the sums below, and what the columns mean."""
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
                f"medians of {len(self.rounds)} rounds, each launch called by itself; of us and ns lower is better\n"
                "of peak: of what this machine attains at most for such bytes and FLOP (roofline); higher is better; "
                "above 100 %:\nit was busier while its peaks were measured")

    def __repr__(self) -> str:
        return f"{self.table(hardware.peaks())}\npeaks: {hardware.peaks()}"


def rates(seconds: float, operations: float, size: float, least: float) -> dict[str, float]:
    """GB/s, GFLOP/s and the share of the peak of work that took so long and takes `least` seconds at the roof."""
    seconds = max(seconds, 1e-9)  # the clock's grain
    return {"gigabytes_per_second": size / seconds / 1e9, "gigaflops": operations / seconds / 1e9,
            "share_of_peak": least / seconds}  # fmt: skip


def _rates_as_text(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['gigabytes_per_second']:.3g}", f"{row['gigaflops']:.3g}", f"{row['share_of_peak']:.1%}"


def _float_type(launch: Launch) -> Any:
    """The type that a launch computes in."""
    arrays = [*launch.outputs, *(tensor.data for tensor in launch.inputs)]
    return next((array.dtype for array in arrays if array.dtype.name in ("float32", "float64")), np.dtype(np.float32))


def profile(tape: Tape, rounds: int = 50, reset: Callable[[], Any] = lambda: None) -> Profile:
    """Time each working launch by itself over `rounds` runs through the program, `reset` called before each."""
    calls = [(launch, launch.bind()) for launch in tape.program()]
    seconds = np.empty((rounds, len(calls)))
    with np.errstate(all="ignore"):
        for i in range(rounds):
            reset()
            for j, (_, call) in enumerate(calls):
                start = time.perf_counter()
                call()
                seconds[i, j] = time.perf_counter() - start
    return Profile([launch for launch, _ in calls], seconds)
