"""The checks on a card keep each outcome at once; here with small test files in the place of the kernels'."""

import json
import sys

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import gpu_check

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="optional: a pipe is inherited on POSIX systems only")
TESTS = """
import os, pytest
def test_good(): assert os.environ["TINYVAE_GPU"] == "1"
def test_bad(): assert os.path.exists({mended!r}), "one and one"
@pytest.mark.skip(reason="optional: no need")
def test_skipped(): pass
def test_dies():
    if not os.path.exists({mended!r}): os._exit(3)
@pytest.fixture
def broken(): raise RuntimeError("no fixture")
def test_error(broken): pass
"""


@pytest.fixture
def checks(monkeypatch, tmp_path):
    file = tmp_path / "test_small.py"
    monkeypatch.setattr(gpu_check, "card", lambda: {"name": "none", "compute_capability": "90", "cupy": "14"})
    monkeypatch.setattr(gpu_check, "TESTS", (str(file), "-p", "no:cacheprovider"))

    def write(*without):
        text = TESTS.format(mended=str(tmp_path / "mended"))
        for name in without:
            text = text.replace(f"def {name}", f"def left_out_{name}")
        file.write_text(text)
        return tmp_path

    return write


def outcomes(path):
    return {row["test"].rpartition("::")[2]: row["outcome"] for row in json.loads(path.read_text())["rows"]}


def test_each_outcome_is_kept_and_resume_runs_what_has_not_passed(checks, capsys):
    """Also where pytest dies; and a check that failed is run again, one that passed is not."""
    out = checks()
    unfinished, whole = out / "gpu-check.unfinished.json", out / "gpu-check.json"
    expected = {"test_good": "passed", "test_bad": "failed", "test_skipped": "skipped", "test_dies": "crashed"}
    assert gpu_check.run(out) is False
    assert outcomes(unfinished) == expected
    assert not whole.exists()
    assert "one and one" in json.loads(unfinished.read_text())["rows"][1]["message"]
    (out / "mended").write_text("")
    assert gpu_check.run(out, resume=True) is False
    assert outcomes(whole) == dict.fromkeys(expected, "passed") | {"test_skipped": "skipped", "test_error": "failed"}
    content = json.loads(whole.read_text())
    assert (content["passed"], content["counts"]) == (False, {"passed": 3, "failed": 1, "skipped": 1})
    assert not unfinished.exists()
    assert capsys.readouterr().out.endswith("FAILED\n")
    checks("test_error")
    assert gpu_check.run(out, resume=True) is True  # nothing is left
    assert capsys.readouterr().out.endswith("PASSED\n")


def test_no_test_at_all_has_not_passed(checks):
    out = checks("test_dies", "test_bad", "test_good", "test_error", "test_skipped")
    assert gpu_check.run(out) is False
    assert not (out / "gpu-check.json").exists()
