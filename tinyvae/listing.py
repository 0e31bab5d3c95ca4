"""A tape as a table: what each launch reads, writes and computes; with times, where the step's time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tinyvae.devices import Array
    from tinyvae.tape import Launch, Tape


def flops(launch: Launch) -> int:
    """Arithmetic operations, an elementary function counted as one: of a product 2 m k n, else one an element."""
    if launch.rule.name == "matmul":
        return 2 * launch.outputs[0].size * launch.inputs[0].shape[-1]
    return 0 if launch.rule.view else max((array.size for array in _arrays(launch)), default=0)


def traffic(launch: Launch) -> int:
    """Bytes read and written, each array once; a view moves none."""
    return 0 if launch.rule.view else sum(array.nbytes for array in _arrays(launch))


def _arrays(launch: Launch) -> list[Array]:
    return [tensor.data for tensor in launch.inputs] + list(launch.outputs)


def table(tape: Tape) -> str:
    """One line a launch, with FLOP and bytes, and their sums below."""
    rows = [("", "operation", "inputs", "outputs", "FLOP", "bytes")]
    for number, launch in enumerate(tape.launches):
        name = launch.rule.name + (" (view)" if launch.rule.view else "")
        inputs = " ".join(_shape(tensor.data) for tensor in launch.inputs)
        outputs = "in place" if launch.rule.writes else " ".join(map(_shape, launch.outputs))
        rows.append((str(number), name, inputs, outputs, f"{flops(launch):,}", f"{traffic(launch):,}"))
    rows.append(("", f"{len(tape.program())} launches", "", "", f"{sum(map(flops, tape.launches)):,}",
                 f"{sum(map(traffic, tape.launches)):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = (True, False, False, False, True, True)

    def line(row: tuple[str, ...]) -> str:
        cells = zip(row, widths, numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells).rstrip()

    return "\n".join(map(line, rows))


def _shape(array: Array) -> str:
    return "x".join(map(str, array.shape)) or "1"


def profile(tape: Tape, rounds: int = 50, reset: Callable[[], Any] = lambda: None) -> list[tuple[Launch, float]]:
    """Each working launch with its median time in seconds over `rounds` replays, `reset` called before each."""
    calls = [(launch, launch.bind()) for launch in tape.program()]
    seconds = np.empty((rounds, len(calls)))
    with np.errstate(all="ignore"):
        for i in range(rounds):
            reset()
            for j, (_, call) in enumerate(calls):
                start = time.perf_counter()
                call()
                seconds[i, j] = time.perf_counter() - start
    return [(launch, float(np.median(seconds[:, j]))) for j, (launch, _) in enumerate(calls)]
