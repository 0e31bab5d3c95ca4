"""Running every check of the CUDA kernels, and of training with them, on this machine's GPU.

The checks are the tests that otherwise run on the host (tests/kernels/cuda/), here with the arrays on the card.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

from benchmarks import results
from tinyvae.engine.devices import require_cuda

TESTS = ("tests/kernels/cuda/test_kernels.py", "tests/kernels/cuda/test_jobs.py", "tests/kernels/cuda/test_step.py")


def card() -> dict[str, Any]:
    """The properties of the GPU."""
    cupy = require_cuda()
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    driver = cupy.cuda.runtime.driverGetVersion()
    return {"name": properties["name"].decode(), "memory_bytes": properties["totalGlobalMem"],
            "multiprocessors": properties["multiProcessorCount"],
            "compute_capability": cupy.cuda.Device().compute_capability, "cupy": cupy.__version__,
            "driver_cuda": f"{driver // 1000}.{driver % 1000 // 10}"}


def outcomes(report: Path) -> list[dict[str, Any]]:
    """The name, the outcome and the error message of each test, from pytest's report."""
    found = []
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        marks = {child.tag: child for child in case if child.tag in ("failure", "error", "skipped")}
        tag = next(iter(marks), "passed")
        why = (marks[tag].get("message") or "")[:2000] if marks else ""
        found.append({"test": f"{case.get('classname')}.{case.get('name')}", "outcome": tag, "message": why})
    return found


def run(out: Path) -> bool:
    """Run all checks, write gpu-check.json, print PASSED or FAILED, and return whether they passed."""
    device = card()
    print(f"{device['name']}, compute capability {device['compute_capability']}, CuPy {device['cupy']}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", *TESTS, f"--junitxml={report}"]
        code = subprocess.run(command, cwd=results.ROOT, env=os.environ | {"TINYVAE_GPU": "1"}, check=False).returncode
        rows = outcomes(report) if report.exists() else []
    counts = {kind: sum(row["outcome"] == kind for row in rows) for kind in ("passed", "failure", "error", "skipped")}
    passed = code == 0 and counts["passed"] > 0
    path = results.write("gpu-check", out, rows, passed=passed, counts=counts, card=device)
    print(f"written: {path}")
    print(f"{'PASSED' if passed else 'FAILED'}: {counts['passed']} checks passed, "
          f"{counts['failure'] + counts['error']} failed, {counts['skipped']} were left out")
    return passed
