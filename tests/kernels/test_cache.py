"""Machine code kept on disk: made once, never that of other sources, and never in the way.

A copy of the package is run in processes of its own, which say what softplus(0.5) is and how much was compiled. The
kernel is in cpu/activations.py; what it computes is in cpu/runtime/elementary.py, a file of another folder in which
Numba does not look for changes.
"""

import gc
import io
import json
import math
import os
import shutil
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tinyvae_kernels
from support import ROOT, run_python

pytest.importorskip("numba", reason="Numba is missing")

ASK = """
import json, os, sys, time, warnings

warnings.simplefilter("error")  # what cannot be kept is no news to a user
sys.path.insert(0, {kernels!r})
import numba.core.compiler as compiler
import numpy as np

compiled, original = [], compiler.CompilerBase.compile_extra
compiler.CompilerBase.compile_extra = lambda self, f: (compiled.append(f.__qualname__), original(self, f))[1]
{before}
from tinyvae_kernels.cpu import activations
from tinyvae_kernels.cpu.runtime.team import team

assert activations.__file__.startswith({kernels!r}), activations.__file__
{after}
value = float(activations.bias_activation(np.full((1, 1), 0.5), np.zeros(1), None, kind="softplus")[0, 0])
made = [activations._softplus.compiled(np.float64)]
natives = [team._native_lead, team._native_serve]
hits = [f.cache_hits for f in made] + [sum(f.stats.cache_hits.values()) for f in natives]
print(json.dumps(dict(value=value, compiled=compiled, hits=hits)))
"""
RIGHT, TWICE = math.log1p(math.exp(0.5)), 0.5 + math.log1p(2 * math.exp(-0.5))
UNCHECKED = "from tinyvae_kernels.cpu.runtime import cache; cache.forget_stale = lambda folder: None"


class Package:
    """A copy of the kernels in `folder`, with a cache of its own."""

    def __init__(self, folder):
        self.kernels, self.cache = folder / "kernels", folder / "cache"
        self.path = self.kernels / "tinyvae_kernels"
        shutil.copytree(ROOT / "kernels" / "tinyvae_kernels", self.path, ignore=shutil.ignore_patterns("__pycache__"))
        self.elementary = self.path / "cpu" / "runtime" / "elementary.py"
        self.source = self.elementary.read_text()

    def edited(self):
        """The source with another exp: twice as large. Nothing else changes, and no other file."""
        before, name, after = self.source.partition("def _exp64(")
        head, ending, rest = after.partition("    return ")
        assert name, "elementary.py has no _exp64"
        assert ending
        return f"{before}{name}{head}{ending}2.0 * {rest}"

    def ask(self, before="", after="", **environment):
        code = ASK.format(kernels=str(self.kernels), before=before, after=after)
        done = run_python(code, timeout=120, **{"NUMBA_CACHE_DIR": str(self.cache), "NUMBA_NUM_THREADS": "2",
                                                **environment})
        assert (done.returncode, done.stderr) == (0, "")  # where no terminal is, nothing is said
        answer = json.loads(done.stdout)
        assert answer["compiled"] or all(answer["hits"])  # whatever was not compiled was kept
        return answer

    def files(self, pattern):
        return sorted(self.cache.rglob(pattern))


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    return Package(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def package(copied):
    """One copy for several tests: each finds the right sources, and the machine code of the last."""
    copied.elementary.write_text(copied.source)
    if not (copied.files("*.digest") and copied.files("*.nbi")):
        copied.ask()
    return copied


def check(answer, value, compiles):
    assert abs(answer["value"] - value) <= 4e-16, f"softplus(0.5) is {answer['value']}, expected {value}"
    assert bool(answer["compiled"]) == compiles, f"compiled: {answer['compiled']}"


# ---- made once -----------------------------------------------------------------------


def test_stale_machine_code_is_not_served(package):
    """A second process compiles nothing; one with another elementary.py compiles anew, and so does one with the first.

    A folder may hold the machine code of others, as NUMBA_CACHE_DIR does: theirs stays when the sources here change.
    """
    other = package.files("activations*.nbi")[0].parent / "other._work-7.py311.nbi"
    other.write_bytes(b"theirs")
    check(package.ask(), RIGHT, compiles=False)
    package.elementary.write_text(package.edited())
    # without the check beside the machine code, Numba serves the old code: that is what the check is for
    check(package.ask(before=UNCHECKED), RIGHT, compiles=False)
    check(package.ask(), TWICE, compiles=True)
    assert other.read_bytes() == b"theirs"
    other.unlink()
    package.elementary.write_text(package.source)
    check(package.ask(), RIGHT, compiles=True)


def test_wrong_values_and_lost_machine_code_are_found():
    for value, compiles in ((TWICE, False), (math.nan, False), (RIGHT, True)):
        with pytest.raises(AssertionError):
            check({"value": RIGHT, "compiled": []}, value, compiles)


EDIT_LATE = """
import pathlib, subprocess
pathlib.Path({file!r}).write_text({text!r})
environment = dict(os.environ, PYTHONPATH={kernels!r})
subprocess.run([sys.executable, "-c", "from tinyvae_kernels.cpu.runtime import team"], env=environment, check=True)
"""


def test_sources_that_change_under_a_running_process(tmp_path):
    """What was imported before the change and compiled after it is old code: no later process may get it.

    Not even when another process has already begun the cache of the new sources.
    """
    package = Package(tmp_path)
    late = EDIT_LATE.format(file=str(package.elementary), text=package.edited(), kernels=str(package.kernels))
    check(package.ask(after=late), RIGHT, compiles=True)  # it goes on with what it has imported
    answer = package.ask()
    assert abs(answer["value"] - TWICE) <= 1e-15, "machine code of sources that are no more"


# ---- where it is kept, and what is said ----------------------------------------------


HEARD = "import tinyvae_kernels; tinyvae_kernels.notify = lambda text: compiled.append(f'said: {text}')"


def test_two_processes_at_once_in_the_users_cache_folder(tmp_path):
    """On an empty cache both do what they should and announce it once, and leave one that serves a third.

    Nothing is left beside the sources, where an uninstaller would not find it.
    """
    package, home = Package(tmp_path), tmp_path / "home"

    def ask(_):
        return package.ask(before=HEARD, NUMBA_CACHE_DIR="", HOME=str(home), XDG_CACHE_HOME="")

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(ask, range(2)))
    for answer in both:
        assert abs(answer["value"] - RIGHT) <= 4e-16
        said = [line for line in answer["compiled"] if line.startswith("said: ")]
        assert said == ["said: compiling the CPU kernels, once: about 10 s"]
    check(ask(None), RIGHT, compiles=False)
    kept = [path for pattern in ("*.nb?", "*.digest") for path in tmp_path.rglob(pattern)]
    assert kept
    assert all(path.is_relative_to(home) for path in kept)


@pytest.mark.parametrize(("terminal", "expected"), [(True, "wait\n"), (False, "")])
def test_a_notice_is_for_terminals(monkeypatch, terminal, expected):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    tinyvae_kernels.notify("wait")
    assert stream.getvalue() == expected
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    tinyvae_kernels.notify("wait")


# ---- never in the way ----------------------------------------------------------------


FULL = """
import errno
from tinyvae_kernels.cpu.runtime import cache

def full(self, *arguments):
    raise OSError(errno.ENOSPC, "no space left on device")

cache.SealedFiles.save = full
"""


def test_no_folder_and_no_space(tmp_path):
    """Neither beside the sources nor in the user's home can a folder be made, for files stand there; or a disk is full.

    Kernels are compiled for this process then, without a word.
    """
    package = Package(tmp_path)
    for folder in ("cpu", "cpu/runtime"):
        (package.path / folder / "__pycache__").write_text("")
    nowhere = str(package.elementary)
    with ThreadPoolExecutor(2) as pool:
        full = pool.submit(package.ask, before=FULL)
        none = pool.submit(package.ask, NUMBA_CACHE_DIR="", HOME=nowhere, XDG_CACHE_HOME=nowhere)
    check(full.result(), RIGHT, compiles=True)
    check(none.result(), RIGHT, compiles=True)


def folder(path):
    """It cannot be read nor written."""
    path.unlink()
    path.mkdir()


def garbled(path):
    """It is no text."""
    path.write_bytes(bytes(range(256)))


def empty(path):
    """As after a power failure: it has a name and no contents."""
    path.write_bytes(b"")


def damaged(path):
    """In the middle, where the machine code stands, a sector is zero, or in files of activations the one before it."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 512 * 512
    before = bytes(content[middle - 512 : middle])
    content[middle : middle + 512] = before if path.name.startswith("activations") else bytes(512)
    path.write_bytes(content)


def damaged_or_empty(path):
    """The machine code of the kernel is damaged, that of the team empty in one file and damaged in the other."""
    empty(path) if path.name.startswith("team._lead") else damaged(path)


@pytest.mark.parametrize(("pattern", "fault"), [
    ("*.nbi", damaged_or_empty), ("*.digest", garbled), ("*.digest", folder)])  # fmt: skip
def test_broken_files_break_nothing(package, pattern, fault):
    """What cannot be read is made anew, each file of it."""
    for path in package.files(pattern):
        fault(path)
    broken = {path: path.read_bytes() for path in package.files(pattern) if path.is_file()}
    try:
        check(package.ask(), RIGHT, compiles=True)
        assert not [path for path, content in broken.items() if path.read_bytes() == content]
        if fault is not folder:
            check(package.ask(), RIGHT, compiles=False)
    except AssertionError:
        shutil.rmtree(package.cache)  # so that the next test begins anew
        raise


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="optional: a superuser writes everywhere")
def test_a_read_only_installation(tmp_path):
    package = Package(tmp_path)
    for path in (package.path, package.kernels):
        path.chmod(0o555)
    try:
        check(package.ask(NUMBA_CACHE_DIR="", HOME="/nowhere", XDG_CACHE_HOME="/nowhere"), RIGHT, compiles=True)
    finally:
        for path in (package.kernels, package.path):
            path.chmod(0o755)


# ---- several threads -------------------------------------------------------------------------------------------------


def test_one_thread_compiles_at_a_time(monkeypatch):
    """A kernel is compiled once, and what compiling changes in the process is what it was before."""
    from numba import config
    from tinyvae_kernels.cpu.runtime import cache, compiled

    made, running = [], []

    def compile(**options):
        running.append(1)
        time.sleep(0.01)
        made.append(len(running))
        running.pop()
        return object()

    monkeypatch.setattr(compiled, "cfunc", lambda *_, **__: lambda function: compile())
    monkeypatch.setattr(cache, "kept", lambda function: True)
    kernels = [compiled.Kernel(test_one_thread_compiles_at_a_time, set()) for _ in range(3)]
    before = gc.isenabled(), config.OPT, config.CACHE_DIR, list(warnings.filters)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda i: kernels[i % 3].compiled(np.float32), range(24)))
    assert made == [1, 1, 1], "compiled more than once, or two at a time"
    assert len(set(found)) == 3
    assert (gc.isenabled(), config.OPT, config.CACHE_DIR, list(warnings.filters)) == before
