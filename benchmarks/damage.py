"""Run folders damaged at random: cut, flipped, zeroed, swapped, edited and forged, the last with a right checksum.

The tests draw a few of them, and `python -m benchmarks endure` ten thousand.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyvae import runs
from tinyvae.data import DataError, DataSet
from tinyvae.runs import checkpoint, files, log, schema
from tinyvae.training.faults import TrainingError

OWN = (runs.CheckpointError, DataError, TrainingError)  # what a damaged folder may raise
NAMES = ("config.json", "last.safetensors", "best.safetensors", "metrics.jsonl", "timings.jsonl")
ODD: tuple[Any, ...] = (None, True, False, 0, 1, -1, 3, 0.5, -0.5, 10**6, 2**31, 2**63, 10**400, 1e300, float("nan"),
                        float("inf"), "", "vae", "normal", "\0", "\ud800", "x" * 99, [], [[]], [6, 6], {}, {"a": None})


def damaged(out: Path, other: Path, pick: random.Random) -> str:
    """Damage one file of a run folder, perhaps with one of another run; returns what was done."""
    name = pick.choice(NAMES)
    file, act = out / name, pick.choice(["bytes", "structure", "structure", "structure", "both", "swap", "remove"])
    if act == "swap":
        shutil.copy(pick.choice([out, other]) / pick.choice(NAMES), out / "moved")
        (out / "moved").replace(file)
    elif act == "remove":
        file.unlink()
    elif act == "bytes":
        file.write_bytes(other_bytes(file.read_bytes(), pick))
    elif act == "both":  # the same edit in config.json and in the state, which is sealed again
        part = pick.choice(["model", "settings", "data"])
        arrays, meta = checkpoint.load(out / "last.safetensors")
        meta[part] = other_value(meta[part], pick)
        checkpoint.save(out / "last.safetensors", arrays, meta)
        config = json.loads((out / "config.json").read_text()) | {part: meta[part]}
        (out / "config.json").write_text(json.dumps(config))
    elif file.suffix == ".safetensors":
        forge(file, pick)
    else:
        lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        lines[-1] = json.dumps(other_value(json.loads(lines[-1]), pick))
        file.write_text("\n".join(lines) + "\n")
    return f"{act} {name}"


def other_value(value: Any, pick: random.Random) -> Any:
    """A JSON value with one of its parts, at any depth, replaced, removed, renamed or added."""
    if isinstance(value, dict) and value and pick.random() < 0.8:
        name, act = pick.choice(sorted(value)), pick.choice(["inside", "inside", "inside", "remove", "rename", "add"])
        if act == "inside":
            return value | {name: other_value(value[name], pick)}
        rest = {key: part for key, part in value.items() if key != name or act == "add"}
        return rest if act == "remove" else rest | {pick.choice(["", "kind", "actyvation", "epoch"]): value[name]}
    if isinstance(value, list) and value and pick.random() < 0.5:
        at = pick.randrange(len(value))
        return [*value[:at], other_value(value[at], pick), *value[at + 1 :]]
    return pick.choice(ODD)


def other_bytes(content: bytes, pick: random.Random) -> bytes:
    """Bytes that were cut off, flipped, zeroed, doubled or replaced at one place."""
    at, length = pick.randrange(max(1, len(content))), pick.randint(1, 600)
    act = pick.choice(["end", "cut", "flip", "zero", "double", "noise", "nest"])
    if act == "end":
        return content[:at]
    if act == "flip":
        return content[:at] + bytes([content[at] ^ 1 << pick.randrange(8)]) + content[at + 1 :]
    new = {"cut": b"", "zero": bytes(length), "double": 2 * content[at : at + length], "noise": pick.randbytes(8),
           "nest": b"[" * 9999}  # fmt: skip
    return content[:at] + new[act] + content[at + length :]


def forge(file: Path, pick: random.Random) -> None:
    """Give a checkpoint other arrays or another meta, and a checksum that is right."""
    arrays, meta = checkpoint.load(file)
    name, act = pick.choice(sorted(arrays)), pick.choice(["meta", "meta", "values", "shape", "type", "remove"])
    if act == "meta":
        found = other_value(meta, pick)
        meta = found if isinstance(found, dict) else {}
    elif act == "values":
        arrays[name].reshape(-1)[:1] = pick.choice([0, 1, 3, 127])
    elif act == "shape":
        arrays[name] = arrays[name].reshape(-1)[: pick.randrange(4)]
    elif act == "type":
        arrays[name] = arrays[name].astype(pick.choice(sorted(checkpoint.DTYPES)))
    else:
        del arrays[name]
    checkpoint.save(file, arrays, meta)


def refusals(out: Path, data: DataSet) -> list[str]:
    """Enter a run folder through every public entrance; what was refused there, one sentence each.

    Raises whatever is none of the product's own errors, and ValueError for a refusal that is no sentence.
    """
    entrances: list[Callable[[], Any]] = [
        lambda: runs.load(out), lambda: runs.load(out / "last.safetensors"), lambda: runs.parameters_of(out),
        lambda: runs.RunFolder(out).config(), lambda: checkpoint.load(out / "best.safetensors"),
        lambda: files.read_json(out / "config.json"), lambda: log.read_lines(out / "metrics.jsonl"),
        lambda: log.read_lines(out / "metrics.jsonl", schema.is_record), lambda: runs.prepare(out, data)]  # fmt: skip
    said = []
    for enter in entrances:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of lost lines, or of another BLAS
                enter()
        except OWN as refusal:
            if not str(refusal) or "\n" in str(refusal):
                raise ValueError(f"no sentence: {refusal!r}") from refusal
            said.append(str(refusal))
    return said
