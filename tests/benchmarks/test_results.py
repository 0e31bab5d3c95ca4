"""Which results may be quoted, and what stands for the code that was measured."""

import json
import subprocess

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import figures, results

MARK = "<!--figure made-up:rows[name=a].value:d-->1<!--/figure-->"


@pytest.fixture
def result(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)

    def write(**more):
        content = {"commit": "0123456789ab", "quick": False, "rows": [{"name": "a", "value": 2}]}
        (tmp_path / "made-up.json").write_text(json.dumps(content | more))

    return write


def test_a_sound_result_is_quoted(result):
    result()
    assert ">2<" in figures.filled(MARK)
    result(rows=[{"name": "a:1", "value": 3}])  # a name with a colon
    assert ">3<" in figures.filled(MARK.replace("name=a", "name=a:1"))


@pytest.mark.parametrize(("more", "reason"), [
    ({"quick": True}, "a quick run"), ({"commit": "0123456789ab-changed"}, "in a changed tree"),
    ({"commit": "0123456 with a line changed"}, "in a changed tree"), ({"commit": "unknown"}, "no known commit")])
def test_others_are_refused(result, more, reason, monkeypatch):
    result(**more)
    with pytest.raises(SystemExit, match=f"made-up.json is .*{reason}.*measure it again"):
        figures.filled(MARK)
    monkeypatch.setitem(results.QUOTED, "made-up", more.get("commit", "0123456789ab"))
    if "quick" in more:
        with pytest.raises(SystemExit):  # no exception helps a quick run
            figures.filled(MARK)
    else:
        assert ">2<" in figures.filled(MARK)
        result(commit="abcdef012345-changed")  # measured anew in a changed tree: the exception was for the other
        with pytest.raises(SystemExit):
            figures.filled(MARK)


def test_exceptions_are_in_use():
    """An exception is removed when its table has been measured again."""
    for name, commit in results.QUOTED.items():
        assert results.read(name)["commit"] == commit, f"remove {name} from QUOTED"


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A small repository in the place of this one."""
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *words], check=True,
                       capture_output=True)  # fmt: skip

    for name in ("tinyvae/a.py", "README.md", "benchmarks/results/a.json", "setup.py", "kernels/a.py", "tests/a.py",
                 "examples/a.py"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "changed"), [
    ("tinyvae/a.py", True), ("tinyvae/new.py", True), ("kernels/a.py", True), ("tests/a.py", True),
    ("README.md", False), ("benchmarks/results/a.json", False), ("tinyvae/a.pyc", False)])  # fmt: skip
def test_a_changed_tree_is_known(checkout, name, changed):
    """The code, new files included; not documents, results, or what git ignores."""
    before = results.source()
    assert before == {"commit": before["commit"][:12], "changes": ""}
    found = []
    for text in ("2", "3"):
        (checkout / name).write_text(text)
        found.append(results.source())
    if changed:
        assert found[0]["commit"] == found[1]["commit"] == before["commit"] + results.CHANGED
        assert len({found[0]["changes"], found[1]["changes"], ""}) == 3
    else:
        assert found == [before, before]


def test_outside_of_a_checkout_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "ROOT", tmp_path / "nothing")
    assert results.source()["commit"] == "unknown"
