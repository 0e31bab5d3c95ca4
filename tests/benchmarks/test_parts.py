"""Tables grow part by part: what was measured stays, whatever happens to the rest."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import others, parts, results

ROOT = Path(__file__).resolve().parents[2]


def table(measured, **more):
    """Parts a, b and c, each with a row; `measured` notes which ran, and `more` replaces parts."""
    def part(name):
        def measure(content):
            measured.append(name)
            return {"rows": [{"part": name}], "about": {name: len(content.get("rows", []))}, "last": name}

        return measure

    found = {name: part(name) for name in "abc"} | more
    return parts.Table("made-up", found, lambda content: print(*(row["part"] for row in content["rows"])),
                       close=lambda content: {"count": len(content["rows"])}, head={"work": "nothing"})  # fmt: skip


def written(folder, name="made-up.json"):
    return json.loads((folder / name).read_text())


def test_every_part_is_kept_when_it_is_there(tmp_path, capsys):
    """Lists grow, dictionaries grow, other values are replaced; each row says who else ran."""
    def look(content):
        kept = written(tmp_path, "made-up.unfinished.json")
        assert [row["part"] for row in kept["rows"]] == ["a", "b"]
        return {"rows": [{"part": "c"}]}

    parts.measure([table([], c=look)], False, tmp_path)
    content = written(tmp_path)
    assert [row["part"] for row in content["rows"]] == ["a", "b", "c"]
    assert [content[name] for name in ("about", "last", "count", "work")] == [{"a": 0, "b": 1}, "b", 3, "nothing"]
    assert set(content["parts"]) == {"a", "b", "c"}
    for row in content["rows"]:
        assert row["busy"] in (None, False, True)
        assert "others_cores" in row
    assert [file.name for file in tmp_path.iterdir()] == ["made-up.json"]
    out, err = capsys.readouterr()
    assert "a b c" in out
    assert "written: " in out
    assert "made-up 3 of 3: c" in err


def test_ctrl_c_keeps_the_parts_and_resume_goes_on(tmp_path, capsys):
    def stop(content):
        raise KeyboardInterrupt

    measured = []
    with pytest.raises(SystemExit) as end:
        parts.measure([table(measured, b=stop)], False, tmp_path)
    assert end.value.code == 130
    assert "stopped in b: 1 of 3 parts are in" in capsys.readouterr().out
    assert measured == ["a"]
    with pytest.raises(SystemExit, match="--resume goes on with it"):  # nothing is thrown away unasked
        parts.measure([table(measured)], False, tmp_path)
    parts.measure([table(measured)], False, tmp_path, resume=True)
    assert measured == ["a", "b", "c"]
    assert [row["part"] for row in written(tmp_path)["rows"]] == ["a", "b", "c"]
    parts.measure([table(measured)], False, tmp_path, resume=True)  # a whole table is not measured again
    assert measured == ["a", "b", "c"]
    parts.measure([table(measured)], False, tmp_path)  # unless that is asked for
    assert measured == ["a", "b", "c"] * 2


def test_a_killed_process_leaves_its_parts(tmp_path):
    """By a signal that nobody can catch."""
    code = f"""
import time
from pathlib import Path
from benchmarks import parts
wait = lambda content: time.sleep(60)
table = parts.Table("made-up", {{"a": lambda content: {{"rows": [{{"part": "a"}}]}}, "b": wait}}, print)
parts.measure([table], False, Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "2 of 2" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert [row["part"] for row in written(tmp_path, "made-up.unfinished.json")["rows"]] == ["a"]


def unwritable(content):
    return {"rows": [{"b is wrong": {1, 2}}]}  # no file holds a set


@pytest.mark.parametrize("fault", [SystemExit("b is wrong; nothing was timed"), RuntimeError("b is wrong"), None])
def test_a_part_that_fails_is_recorded_and_the_others_are_measured(tmp_path, fault, capsys):
    def fail(content):
        raise fault

    measured = []
    with pytest.raises(SystemExit, match=r"made-up stays unfinished: 2 of 3 parts(.|\n)*b(: TypeError| is wrong)"):
        parts.measure([table(measured, b=fail if fault else unwritable),
                       parts.Table("other", {"d": lambda _: {"rows": []}}, print)], False, tmp_path)  # fmt: skip
    content = written(tmp_path, "made-up.unfinished.json")
    assert measured == ["a", "c"]
    assert content["faults"]["b"].startswith("b")
    assert "a c" in capsys.readouterr().out
    assert not (tmp_path / "made-up.json").exists()
    assert (tmp_path / "other.json").exists()
    parts.measure([table(measured)], False, tmp_path, resume=True)
    assert measured == ["a", "c", "b"]
    assert written(tmp_path)["faults"] == {}


@pytest.mark.parametrize(("what", "value"), [
    ("commit", "0123456789ab"), ("changes", "0123456789ab"), ("quick", True), ("environment", {"cpu": "another"})])
def test_rows_of_two_kinds_do_not_meet(tmp_path, what, value):
    def stop(content):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        parts.measure([table([], b=stop)], False, tmp_path)
    file = tmp_path / "made-up.unfinished.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {what: value}))
    with pytest.raises(SystemExit, match=f"with {what} .*; expected .*rows of two kinds"):
        parts.measure([table([])], False, tmp_path, resume=True)
    file.rename(tmp_path / "made-up.json")  # a whole table of another time is no part of this one
    measured = []
    parts.measure([table(measured)], False, tmp_path, resume=True)
    assert measured == ["a", "b", "c"]


def test_rows_beside_other_processes_are_marked(tmp_path, monkeypatch, capsys):
    """On a machine whose other processes work during the second part."""
    seconds = iter((0, 0, 0, 1e6, 1e6, 1e6))  # the work of the machine before and after each part
    monkeypatch.setattr(others, "machine_seconds", lambda: next(seconds))
    monkeypatch.setattr(others, "own_seconds", lambda: 0.0)
    parts.measure([table([])], False, tmp_path)
    rows = written(tmp_path)["rows"]
    assert [row["busy"] for row in rows] == [False, True, False]
    assert rows[0]["others_cores"] == 0 < rows[1]["others_cores"]
    out, err = capsys.readouterr()
    assert "beside 1 of 3 parts, whose rows are marked" in out
    assert "cores meanwhile; the rows are marked" in err


def test_quick_runs_write_elsewhere():
    assert results.folder(True, None) == results.QUICK
    assert results.folder(False, None) == results.FOLDER
    assert results.FOLDER not in (results.QUICK, *results.QUICK.parents)
    for out in (results.FOLDER, results.FOLDER / ".." / "results"):
        with pytest.raises(SystemExit, match=r"found --quick with --out .*leave --out out"):
            results.folder(True, out)


def test_a_file_in_the_place_of_the_folder_gets_a_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit, match=r"cannot be made \(File exists\): choose another one with --out"):
        parts.measure([table([])], False, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
