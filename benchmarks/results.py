"""Results files, which hold the measured rows, the machine and the commit."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tinyvae.runs import environment, files

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks" / "results"


def commit() -> str:
    """The commit of the checkout, marked if files have changed since; "unknown" outside of a checkout."""
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # new results files do not count as changes
        sources = ("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results")
        return git("rev-parse", "--short=12", "HEAD") + ("-changed" if git(*sources) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(name: str, out: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write a JSON file with the rows, the commit and the machine."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    head = {"name": name, "commit": commit(), **more}
    files.write_json(path, head | {"rows": rows, "environment": environment.environment()})
    return path


def read(name: str) -> dict[str, Any]:
    """The content of a committed results file."""
    return files.read_json(FOLDER / f"{name}.json")
