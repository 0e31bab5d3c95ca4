"""The measurement of data in files runs in its quick form, and finds trainings that differ."""

import json

import numpy as np
import pytest

from benchmarks import memory, parts
from tinyvae.data.mapped.rows import MappedRows


def test_all_parts_are_measured(tmp_path):
    parts.measure([memory.table_of(True)], True, tmp_path, False)
    *steps, own = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert [row["setting"].partition(" rows ")[2] for row in steps] == ["in memory", "in a file", "in 8 files"] * 2
    assert all(0 < row["value"] < 1e9 and 0 < row["times_memory"] < 1e3 for row in steps)
    assert 10 < own["value"] < 1024


def test_a_training_with_other_bits_is_no_comparison(monkeypatch):
    read = MappedRows.read
    monkeypatch.setattr(MappedRows, "read", lambda self, index, out: read(self, np.maximum(index - 1, 0), out))
    with pytest.raises(AssertionError, match="different bits"):
        memory.comparison(10, True)
