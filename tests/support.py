"""What several test files share: the false-alarm rate, comparisons that NaN fails, and rows made wrong on purpose."""

import copy
import ctypes
import os
import subprocess
import sys
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


# ---- kernels by hand -----------------------------------------------------------------

KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2)


def run_parts(program, parts):
    """A program's jobs one after the other, each cut into so many parts, the last part first."""
    for job in program.jobs:
        code, p, n, s, _ = job.row
        for part in reversed(range(parts)):
            KERNEL(code)(p, n, s, part, parts)
