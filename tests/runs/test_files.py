"""Whole files: what they hold, their permissions, and how much of them is read."""

import json
from pathlib import Path

import numpy as np

from tinyvae.runs import files


def test_write_json(tmp_path: Path) -> None:
    value = {"a": np.float32(0.5), "b": [1, float("nan")], "c": {"d": (np.int64(3), -np.inf)}, "e": "β"}
    files.write_json(tmp_path / "c.json", value)
    assert json.loads((tmp_path / "c.json").read_text()) == {
        "a": 0.5, "b": [1, None], "c": {"d": [3, None]}, "e": "β"
    }  # fmt: skip
