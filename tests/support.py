"""What several test files share: the false-alarm rate, comparisons that NaN fails, and rows made wrong on purpose."""

import contextlib
import copy
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import tinyvae
from tinyvae.engine.rules import TABLE

ROOT = Path(tinyvae.__file__).resolve().parents[1]
DTYPES = (np.float32, np.float64)

# ---- statistics ----------------------------------------------------------------------
# The chance that one statistical check of right code fails is ALARM: FALSE_ALARM for all of them together. The seeds
# are fixed, so a check that passes once passes always; the rate says how much a pass is worth.

FALSE_ALARM = 1e-6
CHECKS = 1200  # calls of `likely` in one run of all tests (1044), rounded up
ALARM = FALSE_ALARM / CHECKS


def likely(what, p):
    """A p-value that right code would reach: printed, and held against the false-alarm rate."""
    print(f"{what}: p = {p:.3g}, allowed from {ALARM:.1g}")
    assert p >= ALARM, f"{what}: p = {p:.3g} is below {ALARM:.1g}"


def likely_zero(what, value, standard_error):
    """A mean of many terms that right code would have at zero; by its z-score."""
    from scipy.special import erfc

    z = float(value) / float(standard_error)
    print(f"{what}: z = {z:.2f}")
    likely(what, float(erfc(abs(z) / np.sqrt(2))))


# ---- comparisons ---------------------------------------------------------------------


def assert_close(found, expected, units, what="", scale=None):
    """Equal within `units` rounding units of the found type, relative to max(1, |expected|) or to `scale`.

    Where `expected` is NaN or infinite, `found` must be the same.
    """
    found, expected = np.asarray(found), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape, f"{what}: found shape {found.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    assert np.array_equal(found[~finite], expected[~finite].astype(found.dtype), equal_nan=True), (
        f"{what}: found {found[~finite]}, expected {expected[~finite]}"
    )
    size = np.maximum(1, np.abs(expected)) if scale is None else np.broadcast_to(scale, expected.shape)
    with np.errstate(all="ignore"):
        error = np.abs(found.astype(np.float64) - expected)[finite] / (np.finfo(found.dtype).eps * size[finite])
    worst = float(np.max(error, initial=0.0))
    assert worst <= units, f"{what}: {worst:.3g} rounding units, allowed {units}"  # NaN fails
    return worst


def assert_same_bits(found, expected, what=""):
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    assert found.tobytes() == expected.tobytes(), f"{what}: the bits differ"


def bits_of(x):
    """Which numbers of each row are not 0, as bits, 64 in a word, the first one lowest."""
    padded = np.zeros((len(x), -(-x.shape[1] // 64) * 64), bool)
    padded[:, : x.shape[1]] = x != 0
    return np.packbits(padded, axis=1, bitorder="little").view("<i8")


# ---- what must fail ------------------------------------------------------------------


def make_wrong(monkeypatch, name, **changes):
    """Put a changed copy of a row into the table until the test ends: the check under test must notice."""
    row = copy.copy(TABLE[name])
    for attribute, value in changes.items():
        setattr(row, attribute, value)
    monkeypatch.setitem(TABLE, name, row)


# ---- other processes -----------------------------------------------------------------


def run_python(code, *options, timeout=300, **environment):
    """Run a piece of Python in a process of its own that finds both packages; returns the finished process.

    One that has not ended after `timeout` seconds is killed, and subprocess.TimeoutExpired raised.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


TRAIN = """
import numpy as np
import tinyvae as tv

data = tv.DataSet("made-up", *np.eye(8).reshape(2, 4, 8), (2, 4), 1.0, "threshold", "bernoulli")
tv.fit(tv.VAE(8, hidden=4, latent=1), data, epochs=1, quiet=True)
"""
FORKS = """
import json, os, runpy, sys, threading

exec(sys.argv[1], {})
assert threading.active_count() == 1, "a fork would lack the other threads"
print("ready", flush=True)
for line in sys.stdin:
    folder, words, *files = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for descriptor, file in enumerate([os.devnull, *files]):
            os.dup2(os.open(file, os.O_RDWR), descriptor)
        sys.argv = words[words[0] == "-m":]
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextlib.contextmanager
def forks(*options, begin=TRAIN, cwd=ROOT, **environment):
    """Run many programs, each in a process of its own that need not load what all programs of the library load.

    One process loads it, the kernels' machine code too, and forks for every program. The function that is given takes
    a folder and the words after `python`, which are a file, or -m and a module, and what these are told. It returns
    the finished process. Where there are no forks, each program is a process from the beginning.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    python = [sys.executable, *options]

    def anew(folder, *words):
        return subprocess.run([*python, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True,
                              check=False)  # fmt: skip

    def forked(folder, *words):
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            server.stdin.write(json.dumps([str(folder), list(map(str, words)), out.name, err.name]) + "\n")
            server.stdin.flush()
            status = int(server.stdout.readline())
            return subprocess.CompletedProcess(words, status, *(Path(file.name).read_text() for file in (out, err)))

    if not hasattr(os, "fork"):
        yield anew
        return
    with subprocess.Popen([*python, "-c", FORKS, begin], cwd=cwd, env=environment, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as server:  # fmt: skip
        assert server.stdout.readline() == "ready\n", "what all programs load cannot be loaded"
        yield forked
        server.stdin.close()


# ---- kernels by hand -----------------------------------------------------------------

KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2)


def run_parts(program, parts):
    """A program's jobs one after the other, each cut into so many parts, the last part first."""
    for job in program.jobs:
        code, p, n, s, _ = job.row
        for part in reversed(range(parts)):
            KERNEL(code)(p, n, s, part, parts)
