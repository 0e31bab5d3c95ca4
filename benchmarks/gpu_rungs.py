"""Every rung of the GPU beside the form that is used: its kernels alone, and the whole step with it.

Each is checked before it is timed: kernels against the readable form in float64, and by the bits of the present form
where the rung promises them; steps by the losses and the first gradient of the present step. What is faster should
become the form that is used, and the summary says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks import gpu_clock, gpu_kernels, gpu_steps, rungs, tables
from benchmarks.cases import cases, large
from benchmarks.gpu_clock import Peaks
from benchmarks.kernels import BOUNDS, KERNEL, TWIN, TYPES, record, replayed
from benchmarks.nets import Net
from benchmarks.parts import Content, Part
from benchmarks.tables import Columns, Row
from tinyvae.engine.devices import namespace, require_cuda, to_host
from tinyvae.measure import timing

PRESENT, ALL = "the present form", "all rungs"
FASTER = 0.98  # of the present form's time: what counts as faster


def kernels(name: str, peak: Peaks, rounds: int) -> list[Row]:
    """A row for each case of each kernel that a rung replaces: small, and over many numbers."""
    rung, xp, rows = rungs.every()[name], namespace("cuda"), []
    replaced = {launcher.__name__ for launcher in rung.launchers}
    for many in (False, True):
        for case in large(gpu_kernels.LARGE) if many else cases():
            if case.operation not in replaced:
                continue
            present = record(case, KERNEL, TYPES[0], xp)
            with rungs.climbed(name):
                ours = record(case, KERNEL, TYPES[0], xp)
            found, before = replayed(case, ours), replayed(case, present)
            bound = (gpu_kernels.LARGE_BOUNDS if many else BOUNDS)[case.operation]
            gpu_kernels.check(case, found, record(case, TWIN, TYPES[1], xp).results, bound)
            if rung.same_bits and any(to_host(a).tobytes() != to_host(b).tobytes()
                                      for a, b in zip(found, before, strict=True)):
                raise SystemExit(f"{name}: {case} has other bits than the present form; nothing was timed")
            here, there = (gpu_kernels.timed(case, one, peak, rounds) for one in (present, ours))
            rows.append({"rung": name, "what": f"{case}, {here['numbers']:,} numbers",
                         "share_of_copy": there["share_of_copy"],
                         **_ratio(here["gpu_microseconds"], there["gpu_microseconds"], rounds)})
    return rows


def _ratio(present: float, ours: float, rounds: int) -> Row:
    return {"present_microseconds": present, "rung_microseconds": ours, "ratio": ours / present, "rounds": rounds}


def steps(net: Net, rounds: int) -> list[Row]:
    """The step of a net with each rung, and with all of them, timed in turns with the present one."""
    forms: dict[str, tuple[str, ...]] = {PRESENT: (), **{name: (name,) for name in rungs.every()}}
    begun, faults = {}, []
    for name, climbed in (forms | {ALL: tuple(rungs.every())}).items():
        with rungs.climbed(*climbed):
            found = gpu_steps.begin(net, "cuda")
        if begun:
            try:
                gpu_steps.compare(net, "float32", found, begun[PRESENT])
            except SystemExit as fault:
                faults.append({"rung": name, "what": f"step, batch {net.batch:,}", "fault": str(fault)})
                continue
        begun[name] = found
    times = timing.measure({name: one.tape.replay for name, one in begun.items()}, rounds, least=gpu_clock.LEAST,
                           synchronize=require_cuda().cuda.Device().synchronize)
    present = times[PRESENT].median * 1e6
    return faults + [{"rung": name, "what": f"step, batch {net.batch:,}", "launches": gpu_steps.kernels(one.tape),
                      "form": gpu_clock.form(one.tape.calls or ()), **_ratio(present, times[name].median * 1e6, rounds)}
                     for name, one in begun.items()]


def parts(batches: tuple[int, ...], rounds: int) -> dict[str, Part]:
    """A part for each batch's step, then one for each rung's kernels."""
    def step(batch: int) -> Content:
        rows = steps(replace(gpu_steps.NET, batch=batch), rounds)
        best = min((row for row in rows if "ratio" in row), key=lambda row: row["ratio"])
        tables.say(f"batch {batch:,}: {best['rung']}, {best['rung_microseconds']:,.1f} us a step")
        return {"rungs": rows}

    def alone(name: str, content: Content) -> Content:
        rows = kernels(name, Peaks(**content["peaks"]), rounds)
        require_cuda().get_default_memory_pool().free_all_blocks()
        return {"rungs": rows}

    made: dict[str, Part] = {f"rungs, batch {batch:,}": lambda _, batch=batch: step(batch) for batch in batches}
    return made | {f"rung {name}": lambda content, name=name: alone(name, content)
                   for name, rung in rungs.every().items() if rung.launchers}


def to_mend(content: Content) -> list[str]:
    """A sentence for each rung that is wrong, or that should become the form that is used."""
    rows = [row for row in content.get("rungs", []) if row["rung"] != PRESENT]
    return [*(f"{row['rung']}: {row['what']}: {row['fault']}" for row in rows if "fault" in row),
            *(f"{row['rung']}: {row['what']}: {row['rung_microseconds']:,.1f} us where the present form takes "
              f"{row['present_microseconds']:,.1f}: let it be the form that is used" for row in rows
              if row.get("ratio", np.inf) <= FASTER)]  # fmt: skip


COLUMNS: Columns = {
    "rung": lambda row: row["rung"],
    "what": lambda row: row["what"],
    "us": lambda row: f"{row['rung_microseconds']:,.2f}",
    "present": lambda row: f"{row['present_microseconds']:,.2f}",
    "ratio": lambda row: f"{row['ratio']:.3f}",
    "of a copy": lambda row: f"{row['share_of_copy']:.0%}" if "share_of_copy" in row else "",
    "as": lambda row: f"{row['form']} of {row['launches']}" if "form" in row else "",
}
NOTE = """us, present, ratio (the first over the second): lower is better; of a copy: the share of a copy's bandwidth,
higher is better; as: how a step reaches the card, and how many jobs it has"""


def show(content: Content) -> None:
    """Print the table, and what each rung is."""
    if not (rows := [row for row in content.get("rungs", []) if "ratio" in row]):
        return
    tables.plain("rungs beside the present form, float32", COLUMNS, rows, NOTE,
                 *(f"{name}: {rung.says}" for name, rung in rungs.every().items()))
