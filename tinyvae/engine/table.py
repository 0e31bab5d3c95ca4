"""A recorded program as a table: what each launch reads, writes and computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyvae.engine.devices import Array
    from tinyvae.engine.tape import Launch


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


def of_launches(launches: Sequence[Launch]) -> str:
    """One line a launch, with FLOP and bytes, and their sums below."""
    rows = [("", "operation", "inputs", "outputs", "FLOP", "bytes")]
    for number, launch in enumerate(launches):
        name = launch.rule.name + (" (view)" if launch.rule.view else "")
        rows.append((str(number), name, *shapes(launch), f"{flops(launch):,}", f"{traffic(launch):,}"))
    working = sum(not launch.rule.view for launch in launches)
    rows.append(("", f"{working} launches", "", "", f"{sum(map(flops, launches)):,}",
                 f"{sum(map(traffic, launches)):,}"))
    return lines(rows, left=(1, 2, 3))


def lines(rows: Sequence[Sequence[str]], left: Iterable[int] = (0,)) -> str:
    """Cells in columns that line up, to the right but for the columns `left`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) if i in left else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
                     for row in rows)


def shapes(launch: Launch) -> tuple[str, str]:
    """The shapes of a launch's inputs and outputs."""
    inputs = " ".join(_shape(tensor.data) for tensor in launch.inputs)
    return inputs, "in place" if launch.rule.writes else " ".join(map(_shape, launch.outputs))


def _shape(array: Array) -> str:
    return "x".join(map(str, array.shape)) or "1"
