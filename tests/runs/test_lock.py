"""One process at a time: four that start together, systems without flock, and Windows, whose functions stand in."""

import errno
import fcntl
import os
import subprocess
import sys
import types

import pytest
from run_folders import SETTINGS, begin, bits, files_of
from support import ROOT

import tinyvae as tv
from tinyvae.runs import RunFolder, files, lock
from tinyvae.runs.files import CheckpointError

RACER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from run_folders import begin
from tinyvae.runs.files import CheckpointError

out, lr = Path(sys.argv[1]), float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()  # all wait here for the same moment
try:
    begin(out, lr=lr)
    print("trained", lr)
except CheckpointError as refusal:
    print(refusal)
"""


def test_of_four_that_start_at_once_one_has_the_folder(tmp_path):
    """One run, whose configuration, state and bits are those of one process, and three sentences."""
    rates = [0.001, 0.002, 0.003, 0.004]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    code = RACER.format(tests=str(ROOT / "tests"))
    racers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "run", str(lr)], text=True,
                               env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
              for lr in rates]  # fmt: skip
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    winners = [rate for rate, words in zip(rates, said, strict=True) if words == f"trained {rate}"]
    assert len(winners) == 1, said
    refusals = [words for words in said if not words.startswith("trained")]
    assert len(refusals) == 3
    for words in refusals:
        assert "is in use: another process is training there" in words or "exists and is not empty" in words, words
    begin(tmp_path / "alone", lr=winners[0])
    kept = {name: content for name, content in files_of(tmp_path / "run").items() if name != "timings.jsonl"}
    alone = files_of(tmp_path / "alone")
    assert kept == {name: alone[name] for name in kept}


def test_the_lock_comes_before_the_first_byte(tmp_path, monkeypatch):
    held = []
    real = files.write_json

    def write_json(path, value):
        with pytest.raises(CheckpointError, match="in use"):
            lock.acquire(tmp_path / "run")
        held.append(path.name)
        real(path, value)

    monkeypatch.setattr(files, "write_json", write_json)
    begin(tmp_path / "run")
    assert held == ["config.json"]
    lock.acquire(tmp_path / "run")()  # it is free again


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_gets_one_warning(number, tmp_path, monkeypatch):
    """The run is trained; it is not said that another process has it."""
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(RuntimeWarning, match="cannot be locked .*start none on this folder") as caught:
        begin(tmp_path / "run")
    assert len(caught) == 1
    assert (tmp_path / "run/best.safetensors").exists()


def test_a_folder_that_was_removed_meanwhile_is_not_taken(tmp_path, monkeypatch):
    """Its owner took it away after this process had opened it: a lock on it would be worth nothing."""
    real = fcntl.flock

    def flock(descriptor, operation):
        real(descriptor, operation)
        (tmp_path / "run").rmdir()

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(CheckpointError, match="in use"):
        lock.acquire(tmp_path / "run")


def test_a_folder_that_cannot_be_opened_is_not_in_use(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be opened: No such file"):
        lock.acquire(tmp_path / "run")


class Windows(types.ModuleType):
    """msvcrt as its documentation describes it: `locking` locks bytes from the position of a descriptor on."""

    LK_UNLCK, LK_LOCK, LK_NBLCK = 0, 1, 2

    def locking(self, descriptor, mode, count):
        assert (mode, count, os.lseek(descriptor, 0, os.SEEK_CUR)) == (self.LK_NBLCK, 1, 0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PermissionError(errno.EACCES, "Permission denied") from None


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", Windows("msvcrt"))


def test_windows_locks_a_byte_of_a_file(windows, tmp_path):
    free = lock.acquire(tmp_path)
    with pytest.raises(CheckpointError, match="in use: another process is training there"):
        lock.acquire(tmp_path)
    free()
    lock.acquire(tmp_path)()


def test_on_windows_a_run_begins_resumes_and_leaves_nothing(windows, tmp_path, monkeypatch):
    out = begin(tmp_path / "run", epochs=1)
    assert lock.FILE in os.listdir(out)
    with RunFolder(out).locked(), pytest.raises(CheckpointError, match="in use"):
        tv.resume(out, bits(), epochs=2)
    assert len(tv.resume(out, bits(), epochs=2)) == 2
    monkeypatch.setattr("tinyvae.runs.fitting.train", lambda *_: 1 / 0)
    monkeypatch.setattr(RunFolder, "save_last", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        begin(tmp_path / "none", **SETTINGS)
    assert not (tmp_path / "none").exists()
