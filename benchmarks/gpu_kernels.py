"""Timing all kernels on the GPU: compared with the CPU at the sizes of a small step, and with a copy over 16 M numbers.

Before it is timed, each kernel is compared with its twin in float64, in a replay from the case's inputs into arrays
that held NaN. The twin runs in NumPy at the small sizes, and in CuPy at the large ones.
"""

from __future__ import annotations

from typing import Any

from benchmarks import gpu_clock, tables
from benchmarks.cases import Case, cases, large
from benchmarks.gpu_clock import Peaks
from benchmarks.kernels import BOUNDS, KERNEL, TWIN, TYPES, Recorded, exact, record, replayed, units
from benchmarks.parts import Content, Part
from benchmarks.tables import Columns, Row
from tinyvae.engine import table
from tinyvae.engine.devices import namespace, read, require_cuda, to_host
from tinyvae.engine.fusion import kernel_of
from tinyvae.engine.rules import TABLE
from tinyvae.measure import timing

LARGE = 2**24  # the number of elements of the largest array
# The maximum of a thousand times as many errors is larger. A normal draw near 0 comes from sqrt(-2 log u) with u near
# 1, whose digits limit its accuracy; among many millions of draws some have an error of 2^-12.
LARGE_BOUNDS = {name: 4 * bound for name, bound in BOUNDS.items()} | {"normal": 2112}
FEW = 3200  # numbers with which the large cases are made for their names
TARGET = 0.8  # the share of a copy's bandwidth that a kernel should reach


def check(case: Case, found: list[Any], expected: list[Any], bound: float) -> float:
    """The largest error in rounding units; SystemExit if it exceeds the bound."""
    worst = max(read(units(ours, twin).max()) for ours, twin in zip(found, expected, strict=True))
    if not worst <= bound:  # NaN fails
        raise SystemExit(f"{case}: {worst:.3g} rounding units from the twin in float64, allowed {bound:g}; nothing was "
                         "timed")
    return worst


def timed(case: Case, recorded: Recorded, peak: Peaks, rounds: int) -> Row:
    """The time and bandwidth of the kernel on the card."""
    launches = recorded.tape.working()
    time, form = gpu_clock.of_launches(launches, rounds)
    low, high = time.quartiles
    rate = sum(map(table.traffic, launches)) / time.median / 1e9
    return {"case": str(case), "numbers": max(map(table.elements, launches)), "gpu_microseconds": time.median * 1e6,
            "lower_quartile": low * 1e6, "upper_quartile": high * 1e6, "gigabytes_per_second": rate,
            "share_of_copy": rate / peak.copy_gigabytes_per_second, "rounds": rounds, "form": form}


def small_row(case: Case, peak: Peaks, rounds: int) -> Row:
    """A row for a kernel on GPU and CPU."""
    there = record(case, KERNEL, TYPES[0], namespace("cuda"))
    error = check(case, list(map(to_host, replayed(case, there))), exact(case), BOUNDS[case.operation])
    here = record(case, KERNEL, TYPES[0]).tape.replay
    cpu = timing.measure({"cpu": here}, rounds, least=gpu_clock.LEAST)["cpu"]
    return {**timed(case, there, peak, rounds), "cpu_microseconds": cpu.median * 1e6, "error_max_units": error}


def large_row(case: Case, peak: Peaks, rounds: int) -> Row:
    """A row for a kernel over many numbers."""
    xp = namespace("cuda")
    there = record(case, KERNEL, TYPES[0], xp)
    found, twin = replayed(case, there), record(case, TWIN, TYPES[1], xp).results
    error = check(case, found, twin, LARGE_BOUNDS[case.operation])
    return {**timed(case, there, peak, rounds), "error_max_units": error}


COLUMNS: Columns = {
    "kernel": lambda row: row["case"],
    "error, units": lambda row: f"{row['error_max_units']:.2g}",
    "us": lambda row: f"{row['gpu_microseconds']:,.2f}",
    "quartiles": lambda row: f"{row['lower_quartile']:,.2f} to {row['upper_quartile']:,.2f}",
    "GB/s": lambda row: f"{row['gigabytes_per_second']:,.0f}",
    "of a copy": lambda row: f"{row['share_of_copy']:.0%}",
    f"{gpu_clock.AGAIN} times as": lambda row: row["form"],
}
CPU: Columns = {"us on the CPU": lambda row: f"{row['cpu_microseconds']:,.1f}"}
NOTE = """us: lower is better; GB/s and of a copy: higher is better; of a copy: the share of a copy's bandwidth
error: the largest difference from the twin in float64, in rounding units; it was checked before the kernel was timed"""


def small(rounds: int) -> dict[str, Part]:
    """A part for each kernel at the size of a small step."""
    def part(case: Case, content: Content) -> Content:
        row = small_row(case, Peaks(**content["peaks"]), rounds)
        tables.say(f"{case}: {row['gpu_microseconds']:.1f} us there, {row['cpu_microseconds']:.1f} here")
        return {"kernels": [row]}

    xp = namespace("cuda")
    return {f"kernel, {case}": lambda content, case=case: part(case, content) for case in cases()
            if kernel_of(TABLE[case.operation], xp) is not None and not case.products}


def many(rounds: int) -> dict[str, Part]:
    """A part for each memory-bound kernel over many numbers. The cases are made one by one, in their order."""
    pool, every = require_cuda().get_default_memory_pool(), iter(large(LARGE))

    def part(name: str, content: Content) -> Content:
        case = next(case for case in every if str(case) == name)
        row = large_row(case, Peaks(**content["peaks"]), rounds)
        pool.free_all_blocks()
        tables.say(f"{name}: {row['share_of_copy']:.0%} of a copy's bandwidth")
        return {"large": [row]}

    names = [str(case) for case in large(FEW)]
    return {f"{LARGE:,} numbers, {name}": lambda content, name=name: part(name, content) for name in names}


def show(content: Content) -> None:
    """Print both tables."""
    rows = content.get("kernels", [])
    tables.plain("kernels of 784-500-20, batch 100, float32, each alone", COLUMNS | CPU, rows, NOTE)
    rows = content.get("large", [])
    reached = sum(row["share_of_copy"] >= TARGET for row in rows)
    tables.plain(f"kernels over {LARGE:,} numbers, float32", COLUMNS, rows, NOTE,
                 f"target: at least {TARGET:.0%} of a copy; {reached} of {len(rows)} kernels reach it")
