"""Comparing every fused kernel with its readable twin and with slower alternatives.

All forms of a case are checked before one of them is timed. The error is the difference from the twin in float64, in
rounding units: the type's eps times the size of the number, or times the root mean square of its array if that is
larger. If an error exceeds its bound, the case is not timed. Twin, kernel and alternative are each recorded as a tape
of one operation, and the replay of the tape is timed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import tinyvae as tv
from benchmarks import alternatives, parts, roofline
from benchmarks.cases import BETWEEN, IDLE, Case, cases
from benchmarks.parts import Content
from tinyvae.engine import table
from tinyvae.engine.devices import CPU, Array, namespace_of, read
from tinyvae.engine.fusion import serves
from tinyvae.engine.program import Tape
from tinyvae.engine.rules import TABLE
from tinyvae.engine.tape import Launch
from tinyvae.engine.tensor import Tensor, apply, grad
from tinyvae.measure import hardware, profiles, timing

TWIN, KERNEL = "twin", "kernel"
TYPES = np.dtype(np.float32), np.dtype(np.float64)
PRODUCTS = "matmul", "sparse_matmul", "sparse_matmul_grad"  # operations with kernels on some processors only
# Some forms of these operations leave threads of the BLAS or of Numba in a busy loop for a tenth of a second, which
# would slow down the next form. Therefore each form begins after a rest, when the threads sleep, and its turn is
# longer.
SPINNING, REST, TURN = ("adam", *PRODUCTS), 0.15, 0.05  # seconds
# The largest allowed error of each operation, in rounding units of its type.
BOUNDS: dict[str, float] = {
    "bias_activation": 4, "bias_activation_grad": 32, "gaussian_sample_kl": 8, "gaussian_sample_kl_grad": 8,
    "gaussian_sample_kl_from": 16, "gaussian_sample_kl_from_grad": 16, "gate": 16, "gate_grad": 16,
    "bernoulli_log_prob": 32, "gaussian_log_prob": 32, "scale_rows": 1, "normal": 64, "binarised_rows": 0,
    "matmul": 64, "sparse_matmul": 64, "sparse_matmul_grad": 64, "bias_grad": 64, "objective": 8, "objective_grad": 4,
    "grey_rows": 1, "next_indices": 0, "next_rates": 0, "tick": 0, "accumulate": 512, "guard": 512, "weight_prior": 2,
    "adam": 16, "adagrad": 4, "sgd": 4, "lgamma": 4, "polygamma": 8, "gamma_log_sample_grad": 512, "log_gamma": 64,
    "stirling": 512, "student_constant": 32, "student_constant_slope": 512, "log_ratio": 4, "deviance": 8,
    "gamma_kl": 32, "dirichlet_kl": 32,
}  # fmt: skip
NO_ARITHMETIC = "next_indices", "next_rates", "tick"  # the plot leaves them out


def unmeasured(every: list[Case]) -> list[str]:
    """The operations with a kernel but without a case or a bound; every new kernel needs both."""
    known = {case.operation for case in every} & set(BOUNDS)
    return [name for name, row in TABLE.items() if row.kernel is not None and name not in known]


class Error(NamedTuple):
    """The error of one form of an operation, in rounding units of its type."""

    operation: str
    case: str
    alternative: str
    dtype: str
    error_max_units: float
    error_mean_units: float
    bound_units: float


class Recorded(NamedTuple):
    """A tape of one operation, with its inputs and results."""

    tape: Tape
    inputs: list[Array]
    results: list[Array]

    def launches(self, operation: str) -> list[Launch]:
        """The launches of the operation itself, and of the products beside it."""
        return [launch for launch in self.tape.working() if launch.rule.name in (operation, "matmul")]


@contextmanager
def form(case: Case, alternative: str) -> Iterator[None]:
    """Within this block the operation of the case runs as its twin, as its kernel, or as an alternative."""
    operation = case.operation
    row, changed = TABLE[operation], copy.copy(TABLE[operation])
    if alternative not in (TWIN, KERNEL):
        value = alternatives.of(operation, case.label)[alternative].value
        changed.kernels = {"cpu": value}
    with tv.fused(alternative != TWIN):
        TABLE[operation] = changed
        try:
            yield
        finally:
            TABLE[operation] = row


def record(case: Case, alternative: str, dtype: np.dtype, xp: Any = np) -> Recorded:
    """Record one form of a case in one type, with arrays of `xp`."""
    row = TABLE[case.operation]
    numbers = [row.domain_of(i).kind == "number" for i in range(len(case.arrays))]
    arrays = [xp.asarray(a.astype(dtype if n else a.dtype)) for a, n in zip(case.arrays, numbers, strict=True)]
    inputs, around = [Tensor(a) for a in arrays], [Tensor(xp.asarray(a.astype(dtype))) for a in case.products]
    inputs[0].requires_grad = numbers[0] and alternative == TWIN
    attributes = {**case.attributes, **({"dtype": dtype} if "dtype" in case.attributes else {})}
    with form(case, alternative), Tape() as tape:
        if around:
            apply("matmul", *around)
        found = apply(case.operation, *inputs, **attributes)
        if around:
            apply("matmul", *around)
        found = found if isinstance(found, tuple) else (found,)
        if case.operation == "sparse_matmul":  # the second result, an index, is only for the kernel's gradient
            found = found[:1]
        elif row.outputs == 2 and found[1] is None:  # the kernel of a likelihood also returns the derivative
            found = found[0], grad(found[0].sum(), inputs[0])
    return Recorded(tape, arrays, [arrays[i] for i in row.writes] or [tensor.data for tensor in found])


def replayed(case: Case, recorded: Recorded) -> list[Array]:
    """The results of a replay from the case's inputs into arrays that held NaN; later the same replay is timed."""
    for launch in recorded.tape.working():
        for array in launch.outputs:
            array.fill(np.nan if array.dtype.kind == "f" else 0)
    for array, original in zip(recorded.inputs, case.arrays, strict=True):
        array[...] = namespace_of(array).asarray(original.astype(array.dtype))
    recorded.tape.replay()
    return [array.copy() for array in recorded.results]


def units(found: Array, expected: Array) -> Array:
    """The error of each number in rounding units; an unexpected NaN or infinity has an infinite error."""
    xp, kind = namespace_of(found), found.dtype if found.dtype.kind == "f" else np.float64
    exact = expected.astype(np.float64)
    typical = read(xp.sqrt(xp.mean(exact**2))) or 1.0
    error = xp.abs(found.astype(np.float64) - exact) / (float(np.finfo(kind).eps) * xp.maximum(xp.abs(exact), typical))
    return xp.where(xp.isfinite(error), error, np.inf)


def exact(case: Case) -> list[np.ndarray]:
    """The results of the twin in float64."""
    return replayed(case, record(case, TWIN, TYPES[1]))


def measured_error(case: Case, alternative: str, dtype: np.dtype, expected: list[np.ndarray]) -> Error:
    """The error of a form in its replay; SystemExit if it exceeds the operation's bound, or if another form ran."""
    recorded, bound = record(case, alternative, dtype), BOUNDS[case.operation]
    value = TABLE[case.operation].value
    calls = [launch.call for launch in recorded.tape.launches if launch.rule.name == case.operation]
    if alternative != TWIN and all(call is value for call in calls):
        raise SystemExit(f"{case}: its kernel did not run (the twin did); nothing was timed")
    eager = [array.tobytes() for array in recorded.results]
    found = replayed(case, recorded)
    if [array.tobytes() for array in found] != eager:
        raise SystemExit(f"{case}, {alternative}, {dtype}: a replay leaves other bits than the first call; nothing was "
                         "timed")
    every = np.concatenate([units(a, b).reshape(-1) for a, b in zip(found, expected, strict=True)])
    error = Error(case.operation, case.label, alternative, dtype.name, float(every.max()), float(every.mean()),
                  bound)
    if not error.error_max_units <= bound:  # NaN fails
        raise SystemExit(f"{case}, {alternative}, {dtype}: wrong by {error.error_max_units:.3g} rounding units, "
                         f"allowed {bound:g}; nothing was timed")
    return error


def forms(case: Case) -> list[str]:
    """The names of the case's forms: twin, kernel (if this processor has it) and alternatives."""
    square = np.ones((64, 64))
    there = case.operation not in PRODUCTS or serves(TABLE["matmul"], CPU, (square, square), {})
    return [TWIN, *[KERNEL] * there, *alternatives.of(case.operation, case.label)]


def check(case: Case) -> list[Error]:
    """The errors of all forms of a case in both types."""
    expected = exact(case)
    return [measured_error(case, alternative, dtype, expected) for dtype in TYPES for alternative in forms(case)]


def measure(case: Case, dtype: np.dtype, peaks: hardware.Peaks, rounds: int, rest: float) -> list[dict[str, Any]]:
    """Time the forms in alternation, and return one row for each; all share the operation's bytes and FLOP."""
    recorded = {alternative: record(case, alternative, dtype) for alternative in forms(case)}
    replays: Mapping[str, Callable[[], None]] = {alternative: one.tape.replay for alternative, one in recorded.items()}
    time.sleep(rest)
    way = {"least": TURN, "pause": rest} if rest and case.operation in SPINNING else {}
    times = timing.measure(replays, rounds, **way)
    launches = recorded.get(KERNEL, recorded[TWIN]).launches(case.operation)
    flops, moved, held, elements = (sum(map(count, launches)) for count in (
        table.flops, table.traffic, table.footprint, table.elements))  # fmt: skip
    least = peaks.least_seconds(flops, moved, held, dtype)
    rows = []
    for alternative, t in times.items():
        low, high = t.quartiles
        rows.append({
            "operation": case.operation, "case": case.label, "alternative": alternative, "dtype": dtype.name,
            "microseconds": t.median * 1e6, "lower_quartile": low * 1e6, "upper_quartile": high * 1e6,
            "rounds": rounds, "ns_per_element": t.median * 1e9 / elements,
            **profiles.rates(t.median, flops, moved, least), "times_twin": t.times_faster_than(times[TWIN]),
            "elements": elements, "flops": flops, "bytes": moved,
        })  # fmt: skip
    return rows


def as_table(rows: list[dict[str, Any]], title: str) -> Table:
    """The rows as a table whose columns have units and directions."""
    shown = Table(title=title, box=None, title_justify="left", padding=(0, 2, 0, 0))
    busy = any(row.get("busy") for row in rows)
    for heading in ("operation", "form", "error: max, mean (bound), units", "us (lower is better)", "quartiles",
                    "ns/element", "GB/s", "GFLOP/s", "of peak", "times twin's speed",
                    *["others' cores"] * busy):  # fmt: skip
        shown.add_column(heading, justify="left" if heading in ("operation", "form") else "right")
    for row in rows:
        name = f"{row['operation']}, {row['case']}" if row["case"] else row["operation"]
        shown.add_row(
            name if row["alternative"] == TWIN else "", row["alternative"],
            f"{row['error_max_units']:.2g}, {row['error_mean_units']:.2g} ({row['bound_units']:g})",
            f"{row['microseconds']:,.1f}", f"{row['lower_quartile']:,.1f} to {row['upper_quartile']:,.1f}",
            f"{row['ns_per_element']:.3g}", f"{row['gigabytes_per_second']:.3g}", f"{row['gigaflops']:.3g}",
            f"{row['share_of_peak']:.1%}", f"{row['times_twin']:.2f}",
            *([f"{row['others_cores']:.1f}" if row.get("busy") else ""] if busy else []))  # fmt: skip
    return shown


def part(case: Case, quick: bool, peaks: dict[str, Any]) -> Content:
    """Check a case, then time it: its errors and its rows."""
    errors, roof, rows = [error._asdict() for error in check(case)], hardware.Peaks.from_dict(peaks), []
    of = {(error["alternative"], error["dtype"]): error for error in errors}
    for dtype in TYPES[:1] if quick else TYPES:
        rows += [{**of[row["alternative"], row["dtype"]], **row}
                 for row in measure(case, dtype, roof, rounds(quick), 0 if quick else REST)]
    return {"errors": errors, "rows": rows}


def rounds(quick: bool) -> int:
    return 2 if quick else 15


def show(content: Content) -> None:
    """Print a table for each type."""
    for dtype in TYPES:
        if rows := [row for row in content["rows"] if row["dtype"] == dtype.name]:
            title = f"fused operations of 784-500-20, batch 100, {dtype}: each replayed alone, medians of "
            Console(width=190).print(as_table(rows, f"{title}{rounds(content['quick'])} rounds"))
    print(f"""peaks: {hardware.Peaks.from_dict(content["peaks"])}
of peak: the share of this machine's peak for the operation's bytes and FLOP (roofline); higher is better
error: the difference from the twin in float64, in rounding units; checked before the case was timed""")


def plot(content: Content, path: Path) -> Path:
    """The roofline plot of the float32 kernels."""
    points = [row for row in content["rows"] if (row["alternative"], row["dtype"]) == (KERNEL, "float32")
              and row["case"] not in (IDLE, BETWEEN) and row["operation"] not in NO_ARITHMETIC]  # fmt: skip
    return roofline.plot(points, hardware.Peaks.from_dict(content["peaks"]), path.with_suffix(".svg"))


def table_of(quick: bool) -> parts.Table:
    """The peaks of the machine, then a part for each case."""
    every = cases()
    if missing := unmeasured(every):
        raise SystemExit(f"{', '.join(missing)}: no case in benchmarks/cases.py or no bound in benchmarks/kernels.py")
    found: dict[str, parts.Part] = {"peaks": lambda _: {"peaks": hardware.peaks().as_dict()}}
    found |= {str(case): lambda content, case=case: part(case, quick, content["peaks"]) for case in every}
    return parts.Table("kernels", found, show, plot)
