"""Results files, which hold the measured rows, the machine and the commit, and whether they may be quoted."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from tinyvae.runs import environment, files

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks" / "results"
QUICK = ROOT / "build" / "quick"  # where quick runs write, outside of what is committed
CHANGED = "-changed"  # ends the commit of a result that was measured in a changed tree
CODE = ("tinyvae", "kernels", "benchmarks", "examples", "tests", "setup.py", ":!benchmarks/results")
# Results of a changed tree that the documents quote until they are measured again; each holds for this one commit only.
QUOTED = {
    "kernels": "f68b0d435a1a-changed", "step": "f68b0d435a1a-changed",
    # This file says itself what was changed; the same changes are in the commits after it.
    "gpu-h100": "043658d with cupy.cuda.nvrtc taken as an attribute, polygamma's order as an array, peaks over random "
                "data and 2^26 numbers",
}  # fmt: skip


def folder(quick: bool, out: Path | None) -> Path:
    """The folder to write into: `out`, else that of all results of this kind. SystemExit for quick ones among sound
    ones."""
    if quick and out is not None and out.resolve() == FOLDER:
        raise SystemExit(f"found --quick with --out {out}, where the committed results are; expected another folder: "
                         "leave --out out")
    return out or (QUICK if quick else FOLDER)


def git(*words: str) -> str:
    """The output of a git command on the checkout; OSError or CalledProcessError outside of one."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def changes() -> str:
    """Twelve digits that stand for all changes of the code since the commit, new files among them; "" if none."""
    told = git("status", "--porcelain", "-uall", "--", *CODE)
    if not told:
        return ""
    digest = hashlib.sha256(git("diff", "HEAD", "--", *CODE).encode())
    for name in git("ls-files", "--others", "--exclude-standard", "--", *CODE).splitlines():
        digest.update(name.encode() + (ROOT / name).read_bytes())
    return digest.hexdigest()[:12]


def source() -> dict[str, str]:
    """The commit of the checkout, marked if the code has changed since, and then the digits of the changes."""
    try:
        changed = changes()
        return {"commit": git("rev-parse", "--short=12", "HEAD") + (CHANGED if changed else ""), "changes": changed}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "changes": ""}


def as_json(value: Any) -> Any:
    """The value as a file gives it back; TypeError if a file cannot hold it."""
    return json.loads(json.dumps(files.plain(value)))


def write(name: str, out: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write a JSON file with the rows, the commit and the machine."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    head = {"name": name, **source(), **more}
    files.write_json(path, head | {"rows": rows, "environment": environment.environment()})
    return path


def read(name: str) -> dict[str, Any]:
    """The content of a committed results file."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def quotable(name: str) -> dict[str, Any]:
    """The content of a committed results file; SystemExit if no document may quote it."""
    content = read(name)
    commit = str(content.get("commit", "unknown"))
    reason = ("a quick run, which claims nothing" if content.get("quick") else
              "measured in a changed tree" if commit.endswith(CHANGED) or " " in commit else
              "of no known commit" if commit == "unknown" else "")  # fmt: skip
    if content.get("quick") or (reason and QUOTED.get(name) != commit):
        raise SystemExit(f"{name}.json is {reason} (commit {commit}), so no document quotes it; measure it again from "
                         "a clean checkout, without --quick")
    return content
