"""The data of a run: in memory, under another name, and no longer there."""

import json
import re

import numpy as np
import pytest
from run_folders import begin, bits

import tinyvae as tv
from tinyvae.data import DataError
from tinyvae.runs.files import CheckpointError


def test_data_in_memory_have_no_name_to_load(tmp_path):
    out = begin(tmp_path / "run")
    with pytest.raises(DataError, match=r"was trained on them: say where.*tv\.resume\(.*run', data=data\)"):
        tv.resume(out, epochs=3)
    tv.resume(out, data=bits(), epochs=3)
    assert json.loads((out / "config.json").read_text())["data"] == "mine-static"


def test_other_data_in_memory_get_a_cure_that_works(tmp_path):
    out = begin(tmp_path / "run")
    with pytest.raises(CheckpointError, match=re.escape(f"tv.fit(model, data, init_from={str(out)!r})")):
        tv.resume(out, data=bits(1), epochs=3)


def test_an_array_is_no_data_set(tmp_path):
    out = begin(tmp_path / "run")
    with pytest.raises(TypeError, match="found data of type ndarray; expected a DataSet"):
        tv.resume(out, data=np.zeros((3, 12), np.uint8), epochs=3)


def test_the_same_data_in_a_file_are_recorded(tmp_path):
    """From memory into a file: the content is the same, so the run goes on and finds the file alone from then on."""
    out, data = begin(tmp_path / "run"), bits()
    np.savez(tmp_path / "file.npz", train=data.train.reshape(-1, 3, 4), test=data.test.reshape(-1, 3, 4))
    records = tv.resume(out, data=tmp_path / "file.npz", epochs=3)
    assert tv.resume(out, epochs=4)[:3] == records
    whole = begin(tmp_path / "whole", epochs=4)
    fingerprints = [[json.loads(line)["fingerprint"] for line in (run / "metrics.jsonl").read_text().splitlines()]
                    for run in (out, whole)]
    assert fingerprints[0] == fingerprints[1]
