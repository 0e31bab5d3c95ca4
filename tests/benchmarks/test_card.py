"""The one command for a card, on a GPU that is not there: what it finds, leaves out, and says to mend."""

import json
import sys

import contestants
import numpy as np
import pytest
from cuda_on_cpu import card as on_card
from cuda_on_cpu import host
from small_gpu import made_up

from benchmarks import card, gpu_compare

pytestmark = [
    pytest.mark.skipif(host.compiler() is None, reason=host.NO_COMPILER),
    pytest.mark.skipif(on_card.ON_A_CARD, reason="optional: on the host only: a card has the benchmark itself"),
]


@pytest.fixture
def tiny(small, monkeypatch, run):
    """Every part at a size that the host can run, in this process."""
    small["honest"] = contestants.Honest

    def command(*arguments):
        code, _, err = run(*arguments)
        return code, err

    for name, value in {"BATCHES": (50,), "PEERS": ((50, False),), "ROUNDS": 1, "ROWS": 150, "EPOCHS": 2,
                        "command": command, "images": lambda count: np.random.default_rng(0).integers(
                            0, 256, (count, 36)).astype(np.uint8),
                        "checks": lambda folder: {"checks": {"passed": True, "counts": {"passed": 3}}}}.items():
        monkeypatch.setattr(card, name, value)
    monkeypatch.setattr(gpu_compare, "data_set", lambda name: made_up())


def test_all_parts_are_measured(tiny, tmp_path, capsys):
    card.run(tmp_path)
    content = json.loads((tmp_path / "card.json").read_text())
    assert [row["precision"] for row in content["rows"]] == ["float32", "TF32"]
    assert [row["step"] for row in content["peers"]] == ["products alone", "tinyvae", "honest"]
    gpu, cpu = content["command_line"]
    assert 0 < gpu["train_milliseconds"] < 1e6
    assert abs(gpu["test_elbo_after_two_epochs"] / cpu["test_elbo_after_two_epochs"] - 1) < 1e-5
    assert len(content["large"]) == 1
    assert len(content["trained"]) == 2
    assert content["sanitizer"] == {"there": False}
    assert "left_out" not in content
    assert "compute-sanitizer is not on the path, so it was left out" in (out := capsys.readouterr()).err + out.out


def test_what_takes_too_long_is_left_out(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(card, "SECONDS", 30.0)
    monkeypatch.setattr(card, "NEEDS", card.NEEDS | {"checks": 1.0, "step": 1.0})
    card.run(tmp_path)
    content = json.loads((tmp_path / "card.json").read_text())
    left_out = [row["part"] for row in content["left_out"]]
    assert left_out == ["peers, batch 50, float32", "command line", "sanitizer"]
    assert "left out, for want of time: peers, batch 50, float32, command line, sanitizer" in capsys.readouterr().out


def test_what_is_wrong_is_said():
    content = {"checks": {"passed": False}, "faults": {"peaks": "no answer"}, "peers": [],
               "sanitizer": {"there": True, "passed": False, "said": "3 errors"},
               "large": [{"case": "normal", "share_of_copy": 0.45}, {"case": "adam", "share_of_copy": 0.9}]}
    assert card.to_mend(content) == [
        "checks failed: gpu-check.json names them", "peaks: no answer", "compute-sanitizer found errors: 3 errors",
        "normal: 45% of a copy's bandwidth, target 80%"]
    assert not card.to_mend({"faults": {}})


def test_the_steps_under_the_sanitizer_run(driver, tmp_path, monkeypatch):
    """And its exit code decides."""
    exec(card.FEW_STEPS, {})
    tool = tmp_path / "compute-sanitizer"
    for code in (0, 9):
        tool.write_text(f"#!/bin/sh\necho ERROR SUMMARY\nexit {code}\n")
        tool.chmod(0o755)
        monkeypatch.setattr(card.shutil, "which", lambda name: str(tool))
        assert card.sanitized()["sanitizer"] == {"there": True, "passed": code == 0, "said": "ERROR SUMMARY"}


@pytest.mark.skipif(sys.platform == "win32", reason="optional: a failing program of POSIX systems")
def test_a_command_that_fails_is_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr(card, "ROWS", 20)
    monkeypatch.setattr(card, "command", lambda *arguments: (3, "no card"))
    with pytest.raises(SystemExit, match="training from the command line on cuda ended with 3: no card"):
        card.from_the_command_line(tmp_path)
