"""Timing the training step of `tv.fit`, replayed and eager, with kernels and with twins, after a check of its bits."""

from __future__ import annotations

from collections.abc import Callable

import tinyvae as tv
from benchmarks import nets, parts, plots, tables
from benchmarks.nets import Net
from benchmarks.parts import Content
from benchmarks.tables import FLOOR, Row
from tinyvae.measure import timing

Step = Callable[[], None]
REPLAYED, SPARSE, KERNELS, TWINS = "replayed", "replayed, sparse", "eager, kernels", "eager, twins"
WORK = """a training step: gather the batch, draw its pixels (where they are dynamic), draw normals, forward, backward,
the loss's value, check loss and gradient for NaN and infinity, Adam"""


def check_bits(net: Net, steps: int) -> None:
    """Train twice, by replay and eagerly; SystemExit at the first step after which the bits of any array differ."""
    replayed, eager = nets.training(net), nets.training(net)
    takes = [nets.repeatable(replayed, net, replayed.step),
             nets.repeatable(eager, net, lambda: eager.step_now().eager(net.batch))]
    expected = eager.state()
    for number in range(1, steps + 1):
        for take in takes:
            take()
        for name, array in replayed.state().items():
            if array.tobytes() != expected[name].tobytes():
                raise SystemExit(f"{net}, step {number}: replay and eager differ in {name}; nothing was timed")


def candidates(net: Net) -> dict[str, Step]:
    """The forms of the same step, and its products alone; each can be repeated without end."""
    def eagerly(kernels: bool) -> Step:
        ready = nets.training(net)

        def step() -> None:
            with tv.fused(kernels):
                ready.step_now().eager(net.batch)

        return nets.repeatable(ready, net, step)

    with nets.dense():
        _, step, tape = nets.replayed(net)
    found = {FLOOR: nets.floor(net, tape), REPLAYED: step}
    if net.data == nets.MNIST:  # only real digits have enough zeros for a sparse first layer
        found[SPARSE] = nets.replayed(net)[1]
    return found | {KERNELS: eagerly(True), TWINS: eagerly(False)}


def steps_to_compare(net: Net, quick: bool) -> int:
    """The number of compared steps, which take some seconds."""
    return 20 if quick or net.batch >= 1000 else 1000 if net.size == nets.SMALL.size else 100


def measure(net: Net, quick: bool) -> list[Row]:
    """Check the step, then time its forms; a row for each."""
    steps, rounds = steps_to_compare(net, quick), 2 if quick else 20
    check_bits(net, steps)
    tables.say(f"{net}: replay and eager left the same bits in each of {steps:,} steps; timing {rounds} rounds")
    times = timing.measure(candidates(net), rounds, least=2e-3 if quick else 0.1, pause=0 if quick else nets.REST)
    return [tables.row(net, name, t, times[FLOOR], steps_with_equal_bits=steps) for name, t in times.items()]


def show(content: Content) -> None:
    """Print the table."""
    columns = {**tables.NET, "step": lambda row: row["step"], **tables.TIME}
    tables.show(WORK, columns, content["rows"], tables.NOTE,
                "checked before: replay and eager left the same bits in every step compared")


def table_of(quick: bool) -> parts.Table:
    """A part for each net."""
    found = {str(net): lambda _, net=net: {"rows": measure(net, quick)} for net in nets.chosen(quick)}
    return parts.Table("step", found, show, lambda _, path: plots.step(path), head={"work": WORK})
