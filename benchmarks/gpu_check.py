"""Running every check of the CUDA kernels, and of training with them, on this machine's GPU.

The checks are the tests that otherwise run on the host (tests/kernels/cuda/), here with the arrays on the card. Each
outcome is kept when it is known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import outcomes, results
from benchmarks.parts import Content, Sheet, Table
from tinyvae.engine.devices import require_cuda

TESTS = tuple(f"tests/kernels/cuda/test_{name}.py" for name in ("kernels", "special", "elementary", "jobs", "step"))
GOOD = "passed", "skipped"
FINISHED = 0, 1  # the exit codes of pytest after a whole run: all passed, some failed
NONE_LEFT = 5  # the exit code of pytest if no test was chosen


def card() -> dict[str, Any]:
    """The properties of the GPU."""
    cupy = require_cuda()
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    driver = cupy.cuda.runtime.driverGetVersion()
    return {"name": properties["name"].decode(), "memory_bytes": properties["totalGlobalMem"],
            "multiprocessors": properties["multiProcessorCount"],
            "compute_capability": cupy.cuda.Device().compute_capability, "cupy": cupy.__version__,
            "driver_cuda": f"{driver // 1000}.{driver % 1000 // 10}"}


def show(content: Content) -> None:
    """Print every check that did not pass, and the count of each outcome."""
    for row in content["rows"]:
        if row["outcome"] not in GOOD:
            print(f"{row['outcome']}: {row['test']}: {row['message'].strip().splitlines()[-1:] or ''}")
    counts = Counter(row["outcome"] for row in content["rows"])
    print(f"{counts['passed']} checks passed, {len(content['rows']) - counts['passed'] - counts['skipped']} failed, "
          f"{counts['skipped']} were left out")


def check(sheet: Sheet) -> int:
    """Run the tests that have not passed yet, and keep each outcome; the exit code of pytest."""
    kept = [row for row in sheet.content.get("rows", []) if row["outcome"] in GOOD]
    sheet.content |= {"rows": kept, "parts": {row["test"]: sheet.content["parts"][row["test"]] for row in kept}}
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.outcomes", *TESTS,
               *(f"--deselect={row['test']}" for row in kept)]  # fmt: skip
    names = {"TINYVAE_GPU": "1", outcomes.VARIABLE: str(writing)}
    with subprocess.Popen(command, cwd=results.ROOT, env=os.environ | names, pass_fds=(writing,)) as tests:
        os.close(writing)
        begun = ""
        with os.fdopen(reading) as lines:
            for line in map(json.loads, lines):
                begun = line["test"]
                if "outcome" in line:
                    sheet.keep(line["test"], {"rows": [line]}, line["seconds"])
                    begun = ""
    if begun:
        crash = {"test": begun, "outcome": "crashed", "message": f"pytest ended with {tests.returncode} in this test"}
        sheet.keep(begun, {"rows": [crash]}, 0.0)
    return 0 if kept and tests.returncode == NONE_LEFT else tests.returncode


def run(out: Path | None, resume: bool = False) -> bool:
    """Run all checks, write gpu-check.json, print PASSED or FAILED, and return whether they passed."""
    device = card()
    print(f"{device['name']}, compute capability {device['compute_capability']}, CuPy {device['cupy']}", flush=True)
    sheet = Sheet(Table("gpu-check", {}, show, head={"card": device, "passed": False}), False, out, resume)
    try:
        code = check(sheet)
    except KeyboardInterrupt:
        print(f"stopped: {len(sheet.content['rows'])} outcomes are in {sheet.unfinished}; --resume goes on from there")
        return False
    rows = sheet.content["rows"]
    passed = code == 0 and any(row["outcome"] == "passed" for row in rows)
    sheet.content |= {"passed": passed, "counts": Counter(row["outcome"] for row in rows)}
    if code in FINISHED:
        sheet.finish()
    show(sheet.content)
    print(f"written: {sheet.path if code in FINISHED else sheet.unfinished}\n{'PASSED' if passed else 'FAILED'}")
    return passed
