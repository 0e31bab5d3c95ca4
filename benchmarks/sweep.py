"""Timing the replayed step over the batch for one net, and over the hidden width for one batch."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import nets, parts, plots, tables
from benchmarks.nets import Net
from benchmarks.parts import Content
from benchmarks.step import REPLAYED, check_bits
from benchmarks.tables import FLOOR, Row
from tinyvae.measure import timing

NET, BATCHES, WIDTHS = Net(784, 500, 20, 100), (20, 50, 100, 200, 500, 1000, 2000), (64, 128, 256, 512, 1024, 2048)
STEPS = 5  # the number of compared steps at each size; `step` compares more


def measure(net: Net, quick: bool, by: str) -> list[Row]:
    """Check the replayed step, then time it and its products."""
    check_bits(net, STEPS)
    with nets.dense():
        _, step, tape = nets.replayed(net)
    times = timing.measure({FLOOR: nets.floor(net, tape), REPLAYED: step}, 2 if quick else 15,
                           least=2e-3 if quick else 0.2, pause=0 if quick else nets.REST)
    return [tables.row(net, name, t, times[FLOOR], sweep=by, hidden=net.hidden,
                       microseconds_an_image=t.median * 1e6 / net.batch) for name, t in times.items()]


def show(content: Content) -> None:
    """Print the table."""
    columns = {**tables.NET, **tables.TIME, "us/image": lambda row: f"{row['microseconds_an_image']:.2f}"}
    tables.show("a training step, replayed, over batch and over hidden width", columns,
                [row for row in content["rows"] if row["step"] == REPLAYED], tables.NOTE,
                "us/image: lower is better")


def table_of(quick: bool) -> parts.Table:
    """A part for each size."""
    net, batches, widths = (nets.SMALL, BATCHES[:2], WIDTHS[:2]) if quick else (NET, BATCHES, WIDTHS)
    sizes = [*(("batch", batch) for batch in batches), *(("hidden", width) for width in widths)]
    found = {f"{by} {size:,}": lambda _, by=by, size=size: {"rows": measure(replace(net, **{by: size}), quick, by)}
             for by, size in sizes}
    return parts.Table("sweep", found, show, lambda _, path: plots.sweep(path))
