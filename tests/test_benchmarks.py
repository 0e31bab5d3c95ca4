"""The benchmarks run in their quick form, and refuse to time what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import reproduce, step

ROOT = Path(__file__).resolve().parent.parent


def run(*words):
    command = [sys.executable, "-m", "benchmarks", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_reproductions_run_in_their_quick_form(tmp_path):
    """Every reproduction writes its rows; a quick one is marked as such and claims nothing."""
    done = run("reproduce", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in reproduce.NAMES:
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert content["quick"] is True
        assert content["rows"]
        assert all(abs(row["value"]) < 1e4 for row in content["rows"])  # NaN fails
        assert content["environment"]["blas"]["kernel"]


def test_unknown_reproduction_names_the_known_ones(tmp_path):
    done = run("reproduce", "nonsense", "--out", tmp_path)
    assert done.returncode != 0
    assert "aevb-latents" in done.stderr


def test_step_is_checked_and_timed(tmp_path):
    """The quick form writes one row a candidate, with its ratio to the eager step."""
    done = run("step", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "step.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ["kernels, replayed", "kernels, eager", "twins, replayed", "twins, eager"]
    assert all(row["microseconds"] > 0 for row in rows)


def test_a_step_that_differs_is_not_timed(monkeypatch):
    """The check before the timing can fail: an eager step that trains on another rate leaves other bits."""
    honest = step._training

    def crooked(*size):
        training = honest(*size)
        begin = training.begin_epoch
        made.append(training)
        number = len(made)

        def wrong():
            begin()
            if number == 2:
                training.batches.plan[:, 0] *= 2

        training.begin_epoch = wrong
        return training

    made = []
    monkeypatch.setattr(step, "_training", crooked)
    with pytest.raises(SystemExit, match="differ"):
        step._check_bits((16, 8, 2, 10), 3)
