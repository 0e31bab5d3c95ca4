"""Everything about one GPU in one command of at most eight minutes.

The most valuable comes first: the checks of all kernels, the step, the rungs beside it, its peers, training from the
command line on both devices, each kernel beside a copy, five seeds on both devices, and a few steps under
compute-sanitizer. A part begins
only if the time that is left is enough for it; what it found is written at once. The end says what to mend.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import (
    gpu_check,
    gpu_clock,
    gpu_compare,
    gpu_kernels,
    gpu_peers,
    gpu_rungs,
    gpu_steps,
    parts,
    results,
    tables,
)
from benchmarks.memory import images
from benchmarks.parts import Content, Part

SECONDS = 480.0  # for everything
ROUNDS = 5
BATCHES = (100, 1000, 8192)
# by batch and precision, the most telling first; the peers' programs are compiled, which takes most of the time
PEERS = ((100, False), (8192, False), (1000, False), (100, True))
ROWS, EPOCHS = 60_000, 4  # of the training from the command line, as many digits as MNIST has
NEEDS = {"checks": 100.0, "peaks": 5.0, "step": 25.0, "rungs": 15.0, "peers": 60.0, "command line": 60.0,
         "kernels": 4.0, "seeds": 15.0, "sanitizer": 40.0}  # seconds that must be left
SANITIZER = "compute-sanitizer"
FEW_STEPS = """
import numpy as np
import tinyvae as tv
grey = np.random.default_rng(0).integers(0, 256, (60, 36)).astype(np.uint8)
data = tv.DataSet("made-up", grey, grey[:7], (6, 6), 255.0, "dynamic", "bernoulli")
tv.fit(tv.VAE(36, 17, 5, device="cuda"), data, epochs=2, batch=20, quiet=True)
"""


def checks(folder: Path | None) -> Content:
    """All checks of gpu-check, whose outcomes are in a file of their own."""
    passed = gpu_check.run(folder)
    counts = json.loads((results.folder(False, folder) / "gpu-check.json").read_text())["counts"] if passed else {}
    return {"checks": {"passed": passed, "counts": counts}}


def command(*arguments: str) -> tuple[int, str]:
    """The exit code of a command of tinyvae, and what it complained of."""
    done = _python("-m", "tinyvae", *arguments)
    return done.returncode, done.stderr.strip()


def _python(*arguments: str, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*under, sys.executable, *arguments], env=environment, cwd=results.ROOT, capture_output=True,
                          text=True, check=False)  # fmt: skip


def from_the_command_line(folder: Path) -> Content:
    """Milliseconds of an epoch of `tinyvae train` on each device, pixels drawn at each use; the first one also
    compiles, and is left out."""
    np.savez(folder / "images.npz", train=images(ROWS), test=images(1000))
    rows = []
    for device in ("cuda", "cpu"):
        out, epochs = folder / device, EPOCHS if device == "cuda" else 2
        code, said = command("train", f"{folder / 'images.npz'}-dynamic", "--device", device, "--epochs", str(epochs),
                             "--batch", "128", "--hidden", "400", "--latent", "20", "--out", str(out), "--no-pictures")
        if code:
            raise SystemExit(f"training from the command line on {device} ended with {code}: {said[-500:]}")
        timings = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()][1:]
        record = json.loads((out / "metrics.jsonl").read_text().splitlines()[1])
        rows.append({"device": device, "count": len(timings), "test_elbo_after_two_epochs": record["test_elbo"]} | {
            f"{what}_milliseconds": 1000 * float(np.median([one[f"{what}_seconds"] for one in timings]))
            for what in ("train", "evaluate")})
        tables.say(f"784-400-20 on {device}: {rows[-1]['train_milliseconds']:,.0f} ms of training an epoch and "
                   f"{rows[-1]['evaluate_milliseconds']:,.0f} of evaluation")
    return {"command_line": rows}


def sanitized() -> Content:
    """What compute-sanitizer says of a few steps, if it is there."""
    if (found := shutil.which(SANITIZER)) is None:
        tables.say(f"{SANITIZER} is not on the path, so it was left out")
        return {"sanitizer": {"there": False}}
    done = _python("-c", FEW_STEPS, under=(found, "--tool", "memcheck", "--error-exitcode", "9"))
    said = (done.stdout + done.stderr).strip().splitlines()[-1:]
    tables.say(f"{SANITIZER}: exit code {done.returncode}, {''.join(said)}")
    return {"sanitizer": {"there": True, "passed": done.returncode == 0, "said": "".join(said)}}


def to_mend(content: Content) -> list[str]:
    """A sentence for each thing that is wrong, or slower than it should be."""
    found = [] if content.get("checks", {}).get("passed", True) else ["checks failed: gpu-check.json names them"]
    found += [f"{part}: {reason}" for part, reason in content["faults"].items()]
    if not content.get("sanitizer", {}).get("passed", True):
        found.append(f"{SANITIZER} found errors: {content['sanitizer']['said']}")
    found += [f"batch {v['batch']:,}, {v['precision']}: {v['times']:.2f} times the steps/s of {v['best']}, target "
              f"{v['target']:g}" for v in gpu_peers.verdicts(content.get("peers", [])) if not v["reached"]]
    found += [f"{row['case']}: {row['share_of_copy']:.0%} of a copy's bandwidth, target {gpu_kernels.TARGET:.0%}"
              for row in content.get("large", []) if row["share_of_copy"] < gpu_kernels.TARGET]
    found += gpu_rungs.to_mend(content)
    if "trained" in content and not all((told := gpu_compare.summary(content))[what]
                                        for what in ("by_chance", "each_near", "same_gradient")):
        found.append(f"CPU and GPU train to different bounds: {told['mean_difference']:+.4f} nats, standard error "
                     f"{told['standard_error']:.4f}, gradients {told['gradient_error']:.2g}")
    return found


def show(content: Content) -> None:
    """Print the tables of the parts that are there, and what to mend."""
    gpu_steps.show(content)
    gpu_rungs.show(content)
    if "trained" in content:
        gpu_compare.show(content)
    gpu_peers.show(content)
    gpu_kernels.show(content)
    mend = to_mend(content)
    print("\nto mend:" if mend else "\nnothing to mend was found", *mend, sep="\n  ")
    if out := content.get("left_out", []):
        print(f"left out, for want of time: {', '.join(row['part'] for row in out)}")


def table_of(out: Path | None, place: Path) -> parts.Table:
    """All parts, in their order; `place` is a folder for what the training from the command line leaves."""
    ends = time.monotonic() + SECONDS

    def within(need: float, name: str, part: Part) -> Part:
        def run(content: Content) -> Content:
            if (left := ends - time.monotonic()) < need:
                tables.say(f"left out: {name} takes about {need:.0f} s, and {max(0, left):.0f} are left")
                return {"left_out": [{"part": name}]}
            return part(content)

        return run

    device, data, places = gpu_check.card(), gpu_compare.data_set(None), gpu_peers.installed(False)
    chosen: list[tuple[str, dict[str, Part]]] = [
        ("checks", {"checks": lambda _: checks(out)}),
        ("peaks", {"peaks": lambda _: {"peaks": gpu_clock.peaks()._asdict()}}),
        ("step", gpu_steps.parts(BATCHES, ROUNDS)),
        ("rungs", gpu_rungs.parts(BATCHES, ROUNDS)),
        ("peers", {f"peers, batch {batch:,}, {'TF32' if tf32 else 'float32'}": lambda _, batch=batch, tf32=tf32:
                   gpu_peers.measure(gpu_peers.net_of(batch), tf32, places, ROUNDS) for batch, tf32 in PEERS}),
        ("command line", {"command line": lambda _: from_the_command_line(place)}),
        ("kernels", gpu_kernels.many(ROUNDS)),
        ("seeds", gpu_compare.parts(data) if data is not None else {}),
        ("sanitizer", {"sanitizer": lambda _: sanitized()})]
    found = {name: within(NEEDS[kind], name, part) for kind, made in chosen for name, part in made.items()}
    return parts.Table("card", found, show, head={"card": device, "work": gpu_steps.WORK})


def run(out: Path | None, resume: bool = False) -> bool:
    """Measure all parts, write card.json, and return whether nothing has to be mended."""
    with tempfile.TemporaryDirectory() as place:
        table = table_of(out, Path(place))
        sheet = parts.Sheet(table, False, out, resume)
        try:
            sheet.measure()
        finally:
            table.show(sheet.content)
    return not to_mend(sheet.content)

