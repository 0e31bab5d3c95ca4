"""The score of the tests: which tests notice a mutant, and which mutants count."""

import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import mutate, parts, results

SOURCE = """
def own(a): return a + 1
def room(a): return a * 2
def suite(a): return a and 3
def nobody(a): return a or a
def hangs(a):
    while a: a -= 1
"""
TESTS = {"engine/test_a.py": "from tinyvae.engine.a import *\ndef test_own(): assert own(1) == 2\n"
                             "def test_hangs(): hangs(3)\ndef test_fails(): assert False\n",
         "engine/test_b.py": "from tinyvae.engine.a import *\ndef test_room(): assert room(3) == 6\n",
         "nn/test_c.py": "from tinyvae.engine.a import *\ndef test_suite(): assert suite(1) == 3\n"}  # fmt: skip


@pytest.fixture
def tree(monkeypatch, tmp_path):
    """A small checkout in the place of this one."""
    files = {"tinyvae/__init__.py": "", "tinyvae/engine/__init__.py": "", "tinyvae/engine/a.py": SOURCE,
             "benchmarks/equivalent_mutants.toml": "", **{f"tests/{name}": text for name, text in TESTS.items()}}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(mutate, "EQUIVALENT", tmp_path / "benchmarks" / "equivalent_mutants.toml")
    return tmp_path


def test_a_copy_runs_right_and_changed_programs(tree, monkeypatch):
    """A test that fails for the right program is left out; a failure and an endless loop are noticed; and the file is
    as it was, in the tree and in the copy."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # which these tests do not need; pytest starts sooner
    copy = mutate.Copy()
    mutants = {mutant.name.partition(", ")[2]: mutant for mutant in mutate.every()}
    own = mutate.mirrored("tinyvae/engine/a.py")
    assert own == ("tests/engine/test_a.py",)
    seconds, failed = copy.right(own)
    assert failed == ["tests/engine/test_a.py::test_fails"]
    with copy.changed(mutants["own, operator: a + 1 -> (a - 1)"]):
        assert copy.run(own, seconds, failed).code == mutate.FAILED
    with copy.changed(mutants["room, operator: a * 2 -> (a / 2)"]):  # as many letters as in the one before
        assert not copy.run(own, seconds, failed).noticed
    with copy.changed(mutants["hangs, operator: a -= 1 -> a += 1"]):
        found = copy._pytest((*own, f"--deselect={failed[0]}"), 2.0)
        assert found.code is None
        assert found.noticed
    for folder in (tree, copy.folder):
        assert (folder / "tinyvae" / "engine" / "a.py").read_text() == SOURCE


@pytest.fixture
def outcomes(tree, monkeypatch):
    """The tests' outcomes without pytest: which of them look at the function that is changed."""
    asked = []

    def run(copy, tests, seconds, failed, kernels="kernels"):
        now = (copy.folder / "tinyvae/engine/a.py").read_text()
        changed = next(new for new, old in zip(now.splitlines(), SOURCE.splitlines(), strict=True) if new != old)
        seen = ["own"] if tests[0].endswith("test_a.py") else ["own", "room"] if tests[0] == "tests/engine" else [
            "own", "room", "suite"]  # fmt: skip
        asked.append(tests[0])
        noticed = any(changed.startswith(f"def {name}(") for name in seen)
        code = None if "a " in changed[:6] or "while" in changed else int(noticed)
        return mutate.Outcome(code, 0.1, "FAILED tests/x.py::test - why" if noticed else "")

    monkeypatch.setattr(mutate.Copy, "run", run)
    monkeypatch.setattr(mutate.Copy, "right", lambda copy, tests: (0.1, []))
    return asked


def test_a_mutant_meets_its_own_tests_first(outcomes, tree, capsys):
    name = "tinyvae/engine/a.py, nobody, and, or: a or a -> (a and a)"
    mutate.EQUIVALENT.write_text(f'[[mutant]]\nname = "{name}"\nreason = "a or a is a"\n')
    parts.measure([mutate.table_of(100)], False, tree / "out")
    content = json.loads((tree / "out" / "mutants.json").read_text())
    found = {row["name"].partition(", ")[2].partition(",")[0]: (row["verdict"], row["test"]) for row in content["rows"]}
    assert found["own"] == ("noticed by its own tests", "tests/x.py::test")
    assert found["room"] == ("noticed by its room's tests", "tests/x.py::test")
    assert found["suite"] == ("noticed by the whole suite", "tests/x.py::test")
    assert found["hangs"] == ("hung", "pytest ended with None")
    by_name = {row["name"]: row for row in content["rows"]}
    assert (by_name[name]["verdict"], by_name[name]["test"]) == ("equivalent", "a or a is a")
    survivors = [row for row in content["rows"] if row["verdict"] == "survived"]
    assert [(row["line"], row["after"]) for row in survivors] == [(5, "return None")]
    assert content["count"] == len(content["rows"]) - 1
    assert (content["survived"], content["equivalent"]) == (1, 1)
    n, p = content["count"], content["score"]
    assert abs(p - (1 - 1 / n)) <= 1e-12
    assert abs(content["standard_error"] - (p * (1 - p) / n) ** 0.5) <= 1e-12
    out = capsys.readouterr().out
    assert "tinyvae/engine/a.py:5: returned None in nobody: return a or a -> return None" in out
    assert f"together: {p:.1%} (standard error" in out


def test_a_quick_run_leaves_out_the_suite(outcomes, tree):
    parts.measure([mutate.table_of(100, only="suite", quick=True)], True, tree / "out")
    content = json.loads((tree / "out" / "mutants.json").read_text())
    assert {row["verdict"] for row in content["rows"]} == {"survived"}
    assert set(outcomes) == {"tests/engine/test_a.py", "tests/engine"}


def test_a_mutant_of_an_earlier_run_meets_the_test_that_noticed_it(tree, monkeypatch):
    """If it fails for the mutant that is enough; otherwise all is as before."""
    asked = []

    def run(copy, tests, seconds, failed, kernels="kernels"):
        assert (copy.folder / "tinyvae/engine/a.py").read_text() != SOURCE
        asked.append(tests)
        return mutate.Outcome(0 if tests == ("a.py::sleeps",) else 1, 0.1, "")

    monkeypatch.setattr(mutate.Copy, "run", run)
    monkeypatch.setattr(mutate.Copy, "right", lambda copy, tests: (0.1, []))
    copy, mutant, own = mutate.Copy(), mutate.every()[0], ("tests/engine/test_a.py",)
    for known, met in {"a.py::notices": [("a.py::notices",)], "a.py::sleeps": [("a.py::sleeps",), own],
                       "": [own]}.items():  # fmt: skip
        asked.clear()
        found = mutate.verdict(copy, mutant, True, known)
        enough = known == "a.py::notices"
        assert found["verdict"] == ("noticed by the test of an earlier run" if enough else "noticed by its own tests")
        assert asked == met


def test_tests_of_an_earlier_run_that_fail_or_are_gone_are_not_asked(tree, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    own, room = "tests/engine/test_a.py::", "tests/engine/test_b.py::"
    names = [f"{own}test_own", f"{own}test_fails", f"{own}test_gone", f"{room}test_room", "pytest ended with None", ""]
    assert mutate.Copy().passing(names) == {f"{own}test_own", f"{room}test_room"}
    assert mutate.Copy().passing([""]) == set()


def test_copies_share_what_the_right_program_does(tree, monkeypatch):
    """One of two measures it, and the other one waits; a test may have blanks in its name."""
    runs, both = [], {}

    def pytest_of(copy, tests, limit, *options):
        runs.append(tests)
        time.sleep(0.05)
        return mutate.Outcome(1, 7.0, "FAILED tests/a.py::test[a @ b] - assert\nERROR tests/b.py - x\n")

    monkeypatch.setattr(mutate.Copy, "_pytest", pytest_of)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda copy: copy.right(("tests",)), [mutate.Copy(both), mutate.Copy(both)]))
    assert found == [(7.0, ["tests/a.py::test[a @ b]", "tests/b.py"])] * 2
    assert runs == [("tests",)]


def test_the_mutants_of_an_earlier_run_come_first(outcomes, tree):
    """The sample does not change with the program: it begins with the mutants of before that are still there."""
    parts.measure([mutate.table_of(4, seed=1)], False, tree / "first")
    first = mutate.earlier(tree / "first" / "mutants.json")
    more = SOURCE.replace("return a + 1", "return 1 + a") + "def new(a): return a - 1\n"
    (tree / "tinyvae/engine/a.py").write_text(more)
    still = [name for name in first if "a + 1" not in name]
    later = list(mutate.table_of(100, seed=0, after=tree / "first" / "mutants.json").parts)
    assert set(later[: len(still)]) == set(still)
    order = list(mutate.table_of(100).parts)
    assert later[len(still):] == [name for name in order if name not in still]
    (tree / "tinyvae/engine/a.py").write_text(SOURCE)
    assert [name for name in order if "new" not in name and "1 + a" not in name] == [
        name for name in mutate.table_of(100).parts if "a + 1" not in name]  # fmt: skip


def test_several_mutants_are_judged_at_a_time_and_each_once(tree):
    """A crew of three: the first three begin together, and each is judged in a copy of its thread, in no other."""
    mutants, together, copies = mutate.every()[:6], threading.Barrier(3), []

    def judge(copy, mutant):
        together.wait(60)
        copies.append(copy)
        return {"verdict": mutant.name}

    crew = mutate.Crew(mutants, judge, 3)
    judged = {}
    for mutant in mutants:
        judged[mutant.name] = crew.verdict(mutant, judged)
    assert judged == {mutant.name: {"verdict": mutant.name} for mutant in mutants}
    assert (len(copies), len(set(map(id, copies)))) == (6, 3)


def test_a_name_that_nobody_has_gets_a_sentence(tree):
    with pytest.raises(SystemExit, match="no mutant with 'tinyvae/nn' in its name"):
        mutate.table_of(only="tinyvae/nn")


def test_a_larger_sample_holds_the_smaller_one(tree):
    small, large, other = (list(mutate.table_of(n, seed).parts) for n, seed in ((3, 0), (6, 0), (6, 1)))
    assert large[:3] == small
    assert other != large
    assert len(mutate.table_of(1000).parts) == len(mutate.every())


def test_the_list_of_equivalent_mutants_has_reasons():
    for name, reason in mutate.equivalent().items():
        assert name.count(", ") >= 2
        assert len(reason) > 10


@pytest.mark.parametrize(("file", "own", "room"), [
    ("tinyvae/engine/tape.py", ["tests/engine/test_tape.py"], ["tests/engine"]),
    ("tinyvae/inference/estimators.py", ["tests/inference/test_estimators.py",
                                         "tests/inference/test_estimators_discrete.py",
                                         "tests/inference/test_estimators_pairs.py"], ["tests/inference"]),
    ("tinyvae/training/epochs.py", [], ["tests/training"]),
    ("kernels/tinyvae_kernels/cpu/products.py", ["tests/kernels/test_products.py"],
     ["tests/kernels", "--ignore=tests/kernels/cuda"]),
    ("kernels/tinyvae_kernels/cpu/likelihoods.py", ["tests/kernels/test_kernels.py"],
     ["tests/kernels", "--ignore=tests/kernels/cuda"]),
])  # fmt: skip
def test_the_tests_of_a_file(file, own, room):
    assert (list(mutate.mirrored(file)), list(mutate.room_tests(file))) == (own, room)
    names = [name for name, _ in mutate.stages(file, False)]
    assert names == ["its own tests"] * bool(own) + ["its room's tests", "the whole suite"]
