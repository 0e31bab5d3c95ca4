"""Comparing CPU and GPU: all kernels, the whole step over the batch, the peers on the same card, and trained nets.

Everything is checked before it is timed. Each part has its own file. A part whose check fails is recorded, and the
others are measured.
"""

from __future__ import annotations

from benchmarks import gpu_clock, gpu_compare, gpu_kernels, gpu_peers, gpu_steps, parts, plots, tables
from benchmarks.gpu_check import card
from benchmarks.parts import Content


def table_of(quick: bool, compare: str | None = None) -> parts.Table:
    """The peaks of the card, then the parts of all files. `compare` names the data on which nets are trained."""
    if quick and compare:
        raise SystemExit("--compare trains for minutes; leave --quick out")
    device, rounds = card(), 3 if quick else gpu_clock.ROUNDS
    data = None if quick else gpu_compare.data_set(compare)
    tables.say(f"{device['name']}, CuPy {device['cupy']}")
    found: dict[str, parts.Part] = {"peaks": lambda _: {"peaks": gpu_clock.peaks()._asdict()}}
    found |= gpu_kernels.small(rounds) | gpu_kernels.many(rounds)
    found |= gpu_steps.parts(gpu_steps.BATCHES[: 1 if quick else None], rounds)
    found |= gpu_compare.parts(data) if data is not None else {}
    found |= gpu_peers.parts(quick, rounds)
    return parts.Table("gpu", found, show, lambda _, path: plots.gpu(path), close,
                       head={"card": device, "work": gpu_steps.WORK})


def close(content: Content) -> Content:
    """What the trained nets and the peers say together."""
    found: Content = {"targets": gpu_peers.verdicts(content["peers"])}
    return found | ({"compare": gpu_compare.summary(content)} if "trained" in content else {})


def show(content: Content) -> None:
    """Print the tables of all parts that are there."""
    print(f"{content['card']['name']}: {gpu_clock.Peaks(**content['peaks'])}")
    gpu_kernels.show(content)
    gpu_steps.show(content)
    if "trained" in content:
        gpu_compare.show(content)
    gpu_peers.show(content)
