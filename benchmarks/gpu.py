"""Comparing CPU and GPU: all kernels, the whole step over the batch, the peers on the same card, and trained nets.

Everything is checked before it is timed. Each part has its own file, and its result is written as soon as it is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import gpu_clock, gpu_compare, gpu_kernels, gpu_peers, gpu_steps, plots, results, tables
from benchmarks.gpu_check import card


def run(quick: bool, out: Path, compare: str | None = None) -> None:
    """Print the tables and write gpu.json and gpu.svg. `compare` names the data on which nets are trained."""
    if quick and compare:
        raise SystemExit("--compare trains for minutes; leave --quick out")
    device, rounds = card(), 3 if quick else gpu_clock.ROUNDS
    data = None if quick else gpu_compare.data_set(compare)
    tables.say(f"{device['name']}, CuPy {device['cupy']}: measuring its peaks")
    peak = gpu_clock.peaks()
    print(f"{device['name']}: {peak}")
    found: dict[str, Any] = {"card": device, "peaks": peak._asdict(), "quick": quick, "work": gpu_steps.WORK}

    def keep(**part: Any) -> Path:
        found.update(part)
        return results.write("gpu", out, found.get("steps", []), **{k: v for k, v in found.items() if k != "steps"})

    keep(kernels=gpu_kernels.small(peak, rounds))
    keep(large=gpu_kernels.many(peak, rounds))
    keep(steps=gpu_steps.run(gpu_steps.BATCHES[: 1 if quick else None], rounds))
    if data is not None:
        keep(compare=gpu_compare.run(data))
    path = keep(**gpu_peers.run(quick, rounds))
    print(f"written: {path}, {plots.gpu(path)}")
