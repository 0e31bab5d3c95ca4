"""Environments as people have them: odd variables, closed streams, no assertions, no folder, no compiler.

Each is a process of its own, which must train with the same bits as this one.
"""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from support import ROOT, run_python

import tinyvae as tv

COMMAND = ("-m", "tinyvae", "train", "digits", "--epochs", "1", "--hidden", "8", "--latent", "2", "--batch", "500")
ODD = {
    "MPLBACKEND": "nonsense", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "COLUMNS": "1", "TERM": "dumb",
    "OMP_NUM_THREADS": "nonsense", "PYTHONHASHSEED": "7", "PYTHONWARNINGS": "error", "TZ": "nonsense",
}  # fmt: skip


@pytest.fixture(scope="module")
def expected():
    """The fingerprint of the parameters that every environment must reach."""
    model = tv.VAE(64, hidden=8, latent=2)
    return tv.fit(model, tv.data.load("digits"), epochs=1, batch=500, quiet=True)[0]["fingerprint"]


def trained(folder, *options, before="", after="", **environment):
    """Train by the program in a shell, into `folder`; the process, and the fingerprint in its metrics."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    words = (sys.executable, *options, *COMMAND, "--out", str(folder))
    done = subprocess.run(
        f"{before} exec {' '.join(words)} {after}", shell=True, cwd=folder.parent, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "metrics.jsonl").read_text())["fingerprint"]


def test_odd_variables_and_no_assertions(tmp_path, expected):
    """Pictures, too, are drawn."""
    done, found = trained(tmp_path / "run", "-O", **ODD)
    assert found == expected
    assert len(list((tmp_path / "run" / "figures").iterdir())) == 9
    assert done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="optional: no shell that closes streams")
@pytest.mark.parametrize("after", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_in_a_folder_that_was_deleted(after, tmp_path, expected):
    (tmp_path / "gone").mkdir()
    done, found = trained(tmp_path / "run", before="cd gone; rmdir ../gone;", after=f"--no-pictures {after}")
    assert (found, done.stdout, done.stderr) == (expected, "", "")


NO_COMPILER = """
import warnings
import tinyvae as tv
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = tv.VAE(64, hidden=8, latent=2, dtype="float64")
    print(tv.fit(model, tv.data.load("digits"), epochs=1, batch=500, quiet=True)[0]["train_elbo"])
print(*(warning.message for warning in caught))
"""


@pytest.mark.parametrize(("variable", "value", "reason"), [
    ("NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT is set, so Numba compiles nothing"),
    ("NUMBA_NUM_THREADS", "0", "Numba does not start: "),
])  # fmt: skip
def test_where_numba_compiles_nothing_the_twins_run(variable, value, reason):
    done = run_python(NO_COMPILER, **{variable: value})
    assert (done.returncode, done.stderr) == (0, "")
    elbo, warning = done.stdout.splitlines()
    assert warning.startswith(f"the fused cpu kernels cannot be loaded ({reason}"), warning
    with tv.fused(False):
        model = tv.VAE(64, hidden=8, latent=2, dtype="float64")
        right = tv.fit(model, tv.data.load("digits"), epochs=1, batch=500, quiet=True)[0]["train_elbo"]
    assert abs(float(elbo) - right) <= 1e-9 * abs(right)


def test_no_check_is_an_assertion():
    """`python -O` leaves assertions out; those that remain tell the type checker what cannot be None."""
    for folder in ("tinyvae", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Assert):
                    line = ast.unparse(node)
                    assert re.match(r"assert [\w.]+ is not None", line), f"{path.name}: {line}"


def test_two_bars_at_once(monkeypatch):
    """The second, of another thread, is not drawn: two bars would write over each other."""
    from tinyvae import progress

    drawn = []

    class Bar:
        def __init__(self, *columns, **options):
            drawn.append(self)

        __enter__ = lambda self: self
        __exit__ = lambda self, *_: None
        add_task = update = lambda self, *_, **__: None

    monkeypatch.setattr("rich.progress.Progress", Bar)
    monkeypatch.setattr(progress, "is_interactive", lambda: True)
    for _ in range(2):
        with progress.watched("one") as first, progress.watched("two") as second:
            first(0.5)
            second(0.5)
    assert len(drawn) == 2


def test_a_notebook_without_widgets_gets_no_bars(monkeypatch):
    """Rich would write a warning with its own path into the page, for every bar."""
    from tinyvae import progress

    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert progress.is_interactive()
    assert not progress.draws_bars()
    monkeypatch.setattr(progress, "find_spec", lambda name: sys)
    assert progress.draws_bars()
