"""The tables of steps: rows with units in their keys, and the printing of tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.nets import Net
from tinyvae.measure.timing import Timing

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]

FLOOR = "products alone"
NET: Columns = {
    "net": lambda row: row["size"],
    "batch": lambda row: f"{row['batch']:,}",
    "data, pixels": lambda row: f"{row['data']}, {row['pixels']}",
}
TIME: Columns = {
    "us/step": lambda row: f"{row['microseconds']:,.0f}",
    "quartiles": lambda row: f"{row['lower_quartile']:,.0f} to {row['upper_quartile']:,.0f}",
    "images/s": lambda row: f"{row['images_per_second']:,.0f}",
    "floor/step": lambda row: f"{row['share_of_floor']:.0%}",
}
LEFT = ("net", "data, pixels", "step", "kernel", "precision")  # columns of text, aligned to the left
NOTE = """us/step: lower is better; images/s and floor/step: higher is better
floor/step: the time of the step's matrix products alone over that of the step, in the same rounds; NumPy computes these
products over the step's arrays, by its BLAS with its default threads; above 100 % a step is faster than they are"""


def row(net: Net, name: str, timing: Timing, floor: Timing, **more: Any) -> Row:
    """The row of one candidate: its microseconds per step, and its ratio to the floor in the same rounds."""
    low, high = timing.quartiles
    return {
        **net.as_dict(), "step": name, "microseconds": timing.median * 1e6, "lower_quartile": low * 1e6,
        "upper_quartile": high * 1e6, "rounds": len(timing.seconds), "images_per_second": net.batch / timing.median,
        "share_of_floor": timing.times_faster_than(floor), **more,
    }  # fmt: skip


def marked(columns: Columns, rows: list[Row]) -> Columns:
    """The columns, and one that marks the rows beside which other processes ran, if there are such rows."""
    if not any(shown.get("busy") for shown in rows):
        return columns
    return columns | {"others' cores": lambda row: f"{row['others_cores']:.1f}" if row.get("busy") else ""}


def show(title: str, columns: Columns, rows: list[Row], *notes: str) -> None:
    """Print a table of steps with an explanation of its columns; a net is printed only in its first row."""
    columns = marked(columns, rows)
    lines: list[list[str]] = []
    before: list[str] = []
    for shown in rows:
        cells = [read(shown) for read in columns.values()]
        net, rest = cells[: len(NET)], cells[len(NET) :]
        lines.append([*([""] * len(NET) if net == before else net), *rest])
        before = net
    _print(title, columns, lines, f"{_rounds(rows)}, the candidates of a net in turn", *notes)


def plain(title: str, columns: Columns, rows: list[Row], *notes: str) -> None:
    """Print a table with an explanation of its columns."""
    columns = marked(columns, rows)
    _print(title, columns, [[read(shown) for read in columns.values()] for shown in rows], _rounds(rows), *notes)


def _rounds(rows: list[Row]) -> str:
    found = sorted({shown["rounds"] for shown in rows})
    return f"medians and quartiles of {' or '.join(map(str, found))} rounds"


def _print(title: str, columns: Columns, lines: list[list[str]], *notes: str) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in columns:
        table.add_column(heading, justify="left" if heading in LEFT else "right", no_wrap=True)
    for cells in lines:
        table.add_row(*cells)
    print(f"\n{title}\n")
    Console(width=180, highlight=False).print(table)
    print("", *notes, sep="\n")


def say(message: str) -> None:
    """Print a line about the progress on standard error."""
    print(f"  {message}", file=sys.stderr, flush=True)
