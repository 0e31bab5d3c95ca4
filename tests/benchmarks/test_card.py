"""The one command for a card, on a GPU that is not there: what it finds, leaves out, and says to mend."""

import json
import sys

import contestants
import numpy as np
import pytest
from cuda_on_cpu import card as on_card
from cuda_on_cpu import host
from small_gpu import made_up
from tinyvae_kernels.cuda.runtime import driver as drivers

from benchmarks import card, gpu_compare, gpu_rungs, gpu_steps, rungs

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
    only = {"update": rungs.every()["update"]}
    monkeypatch.setattr(rungs, "every", lambda: only)


def test_all_parts_are_measured(tiny, tmp_path, capsys):
    card.run(tmp_path)
    content = json.loads((tmp_path / "card.json").read_text())
    assert [row["precision"] for row in content["rows"]] == ["float32", "TF32"]
    assert [row["rung"] for row in content["rungs"]] == [gpu_rungs.PRESENT, "update", gpu_rungs.ALL]
    assert [row["launches"] for row in content["rungs"]] == [content["rows"][0]["kernels"]] * 3
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
    monkeypatch.setattr(card, "NEEDS", card.NEEDS | {"checks": 1.0, "step": 1.0, "rungs": 60.0})
    card.run(tmp_path)
    content = json.loads((tmp_path / "card.json").read_text())
    left_out = [row["part"] for row in content["left_out"]]
    expected = ["rungs, batch 50", "rung update", "peers, batch 50, float32", "command line", "sanitizer"]
    assert left_out == expected
    assert f"left out, for want of time: {', '.join(expected)}" in capsys.readouterr().out


def test_what_is_wrong_is_said():
    content = {"checks": {"passed": False}, "faults": {"peaks": "no answer"}, "peers": [],
               "sanitizer": {"there": True, "passed": False, "said": "3 errors"},
               "rungs": [{"rung": gpu_rungs.PRESENT, "what": "step", "ratio": 1.0},
                         {"rung": "slow", "what": "step", "ratio": 0.99},
                         {"rung": "fast", "what": "step", "ratio": 0.5, "rung_microseconds": 50.0,
                          "present_microseconds": 100.0}, {"rung": "wrong", "what": "step", "fault": "no"}],
               "large": [{"case": "normal", "share_of_copy": 0.45}, {"case": "adam", "share_of_copy": 0.9}]}
    assert card.to_mend(content) == [
        "checks failed: gpu-check.json names them", "peaks: no answer", "compute-sanitizer found errors: 3 errors",
        "normal: 45% of a copy's bandwidth, target 80%", "wrong: step: no",
        "fast: step: 50.0 us where the present form takes 100.0: let it be the form that is used"]
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


@pytest.mark.parametrize("right", ["updates * log(beta1)", "updates * log(beta2)"])
def test_a_rung_that_learns_something_else_is_not_timed(tiny, monkeypatch, right):
    """By the losses of the first steps, in which Adam's correction and its rate show."""
    source = drivers.source
    monkeypatch.setattr(drivers, "source", lambda file: source(file).replace(
        right, f"2 * {right}" if file in rungs.SOURCES else right))
    rows = gpu_rungs.steps(gpu_steps.NET, 1)
    assert [row["rung"] for row in rows] == ["update", gpu_rungs.ALL, gpu_rungs.PRESENT]
    assert ["fault" in row for row in rows] == [True, True, False]
    assert "the losses of the first steps differ" in rows[0]["fault"]


@pytest.mark.skipif(sys.platform == "win32", reason="optional: a failing program of POSIX systems")
def test_a_command_that_fails_is_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr(card, "ROWS", 20)
    monkeypatch.setattr(card, "command", lambda *arguments: (3, "no card"))
    with pytest.raises(SystemExit, match="training from the command line on cuda ended with 3: no card"):
        card.from_the_command_line(tmp_path)
