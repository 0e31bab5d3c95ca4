"""The elementary functions of the Numba kernels against long double, over all magnitudes of both types."""

import functools
import math

import numpy as np
import pytest
from support import DTYPES, assert_close

elementary = pytest.importorskip("tinyvae_kernels.cpu.runtime.elementary", reason="Numba is missing",
                                 exc_type=ImportError)
numba = pytest.importorskip("numba", reason="Numba is missing")

# ---- the exact values ----------------------------------------------------------------


def of_turn(shift):
    """sin or cos of v turns in long double: the nearest quarter turn is taken off in numbers of v, which is exact."""
    def exact(v):
        v = np.asarray(v, np.longdouble)
        quarter = np.rint(4 * v)
        angle = (4 * v - quarter) * (2 * np.arctan(np.longdouble(1)))
        place = (quarter.astype(np.int64) + shift) % 4
        return np.choose(place, [np.sin(angle), np.cos(angle), -np.sin(angle), -np.cos(angle)])

    return exact


def exp_remainder(x):
    """exp(x) - 1 - x by halves: with u = exp(x/2) - 1 it is u^2 + 2 (exp(x/2) - 1 - x/2), all of one sign."""
    x = np.asarray(x, np.longdouble)
    total = np.zeros_like(x)
    for k in range(24):
        total += 2**k * np.expm1(x / 2 ** (k + 1)) ** 2
    rest = x / 2**24
    return total + 2**24 * rest**2 * (np.longdouble(1) / 2 + rest / 6 + rest**2 / 24)


HELPERS = {"exp": np.exp, "expm1": np.expm1, "exp_remainder": exp_remainder,
           "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
           "sine_of_turn": of_turn(0), "cosine_of_turn": of_turn(1)}  # fmt: skip


@functools.cache
def compiled(name, dtype):
    """A helper over all elements of an array, as a kernel uses it."""
    helper = getattr(elementary, name)

    @numba.njit(error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = helper(x[i])

    def call(x):
        out = np.empty_like(x, dtype)
        loop(x, out)
        return out

    return call


# ---- where to look -------------------------------------------------------------------

EXP_ENDS = {np.float32: (-105, 90), np.float64: (-746, 711)}  # beyond the first that is 0 and the last that is finite


def points(name, dtype):
    """Evenly over the range, closely around 0, and over all magnitudes."""
    rng, limits = np.random.default_rng(0), np.finfo(dtype)
    if name == "log":  # of positive normal numbers; 1 has many neighbours
        spread = np.exp(np.linspace(np.log(np.longdouble(limits.tiny)), np.log(np.longdouble(limits.max)), 100_001))
        near = 1 + 10.0 ** rng.uniform(-16, 0, 30_000) * rng.choice([-1, 1], 30_000)
        x = np.concatenate([spread, near]).astype(dtype)
        return x[(x >= limits.tiny) & (x <= limits.max)]
    low, high = {"exp": EXP_ENDS[dtype], "expm1": EXP_ENDS[dtype], "exp_remainder": EXP_ENDS[dtype],
                 "tanh": (-25, 25)}.get(name, (0, 1))  # fmt: skip
    tiny = 10.0 ** rng.uniform(-44 if dtype == np.float32 else -320, 0, 20_000)
    eighths = np.arange(9)[:, None] / 8 + np.concatenate([-tiny[:500], tiny[:500]])  # the borders of a turn's pieces
    x = np.concatenate([np.linspace(low, high, 100_001), rng.uniform(max(low, -1), min(high, 1), 30_000), tiny, -tiny,
                        eighths.ravel()])  # fmt: skip
    x = x.astype(dtype)
    return x[(x >= low) & (x <= high)]


# zeros, infinities, NaN and large numbers, where a function promises something there
FAR = {"exp": [0.0, -0.0, math.inf, -math.inf, math.nan, 1e3, -1e3, 1e30, -1e30], "log": [1.0],
       "expm1": [0.0, -0.0, math.inf, -math.inf, math.nan, 1e3, -1e3],
       "exp_remainder": [0.0, -0.0, math.nan, -1e3],
       "log1p": [0.0, -0.0, 1.0, math.nan], "tanh": [0.0, -0.0, math.inf, -math.inf, math.nan, 1e3, -1e3, 1e30],
       "sine_of_turn": [0.0, 0.25, 0.5, 0.75, 1.0, math.nan],
       "cosine_of_turn": [0.0, 0.25, 0.5, 0.75, 1.0, math.nan]}  # fmt: skip


# ---- the checks ----------------------------------------------------------------------


def check_helper(name, function, dtype, units=2):
    """Within so many rounding units of the exact value, over all magnitudes; denormal results within one of theirs."""
    x = points(name, dtype)
    with np.errstate(all="ignore"):
        expected = HELPERS[name](x.astype(np.longdouble))
        rounded = expected.astype(dtype)
        found = function(x)
    overflow = np.isinf(rounded)
    # at the edge of the range the last digit decides between the largest number and infinity
    edge = overflow & (expected <= np.longdouble(np.finfo(dtype).max) * (1 + 1e-6))
    assert np.isinf(found[overflow & ~edge]).all(), f"{name} does not overflow where it should"
    scale = np.finfo(dtype).eps * np.maximum(np.abs(expected), np.finfo(dtype).tiny)
    error = np.abs(found.astype(np.longdouble) - expected)[~overflow] / scale[~overflow]
    worst = float(np.max(error))
    print(f"{name}, {np.dtype(dtype)}: {worst:.2f} rounding units, allowed {units}")
    assert worst <= units, f"{name}: {worst:.2f} rounding units, allowed {units}"  # NaN fails


def check_helper_far(name, function, dtype):
    """Infinities, zeros of both signs and NaN, as NumPy has them (the sign of zero aside: the kernels waive it)."""
    x = np.array(FAR[name], dtype)
    with np.errstate(all="ignore"):
        expected = np.where(np.isnan(x), np.nan, HELPERS[name](np.where(np.isnan(x), 0, x)))
        assert_close(function(x), expected, 1, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HELPERS)
def test_elementary_functions(name, dtype):
    check_helper(name, compiled(name, dtype), dtype, {"expm1": 4, "exp_remainder": 4}.get(name, 2))
    check_helper_far(name, compiled(name, dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sine_of_turn", "cosine_of_turn"])
def test_quarters_of_a_turn_are_exact(name, dtype):
    """Where the exact value is 0 or +-1 nothing is lost, and nothing is beyond 1."""
    function, turns = compiled(name, dtype), np.arange(5, dtype=dtype) / 4
    expected = np.array([0, 1, 0, -1, 0] if name[0] == "s" else [1, 0, -1, 0, 1], dtype)
    assert np.array_equal(function(turns), expected)
    assert np.abs(function(points(name, dtype))).max() <= 1


def test_the_functions_are_for_kernels():
    """Called from Python they say so, instead of giving something else than a kernel does."""
    for name in HELPERS:
        with pytest.raises(TypeError, match=rf"{name}\d* is for compiled kernels only"):
            getattr(elementary, name)(1.0)


# ---- the checks notice ---------------------------------------------------------------


def wrong_helpers(dtype):
    """Four units off; half the digits near a zero; an early overflow; an angle reduced after it was rounded."""
    eps, turn = np.finfo(dtype).eps, dtype(2 * math.pi)
    return [
        ("exp", lambda x: np.exp(x) * dtype(1 + 4 * eps)), ("log1p", lambda x: np.log(1 + x)),
        ("expm1", lambda x: np.exp(x) - 1), ("exp_remainder", lambda x: np.exp(x) - 1 - x),
        ("exp_remainder", lambda x: np.where(abs(x) < 1, x * x / 2 * (1 + x / 3), np.exp(x) - 1 - x)),
        ("tanh", lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1)),
        ("exp", lambda x: np.where(x > 80, np.inf, np.exp(x))),
        ("log", lambda x: np.log(x + eps)), ("log", lambda x: np.log(x.astype(np.float16).astype(dtype))),
        ("sine_of_turn", lambda v: np.sin(turn * v)), ("cosine_of_turn", lambda v: np.cos(turn * v)),
        ("sine_of_turn", lambda v: -HELPERS["sine_of_turn"](v).astype(dtype)),
        ("cosine_of_turn", lambda v: np.full_like(v, np.nan)),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_wrong_elementary_functions_are_found(dtype):
    for name, wrong in wrong_helpers(dtype):
        with pytest.raises(AssertionError, match=name):
            check_helper(name, wrong, dtype)
    for name in ("exp", "tanh", "sine_of_turn"):
        with pytest.raises(AssertionError):  # a NaN made a number
            check_helper_far(name, lambda x, name=name: np.nan_to_num(compiled(name, dtype)(x), posinf=np.inf), dtype)
