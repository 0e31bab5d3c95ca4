"""The kernels of the Gamma family on a GPU, run on the host: by the checks of the CPU's kernels, and against these.

What a draw of log Gamma is, and how it moves with its shape: distributions/test_rejection.py and test_special.py.
"""

import numpy as np
import pytest
from cuda_on_cpu import card, host
from cuda_on_cpu.host import SCHEDULES
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits
from tinyvae_kernels import kernels_for
from tinyvae_kernels.cuda.runtime import jobs

from tests.distributions import test_special as of_draws
from tests.distributions.test_rejection import shapes
from tests.kernels import test_special as of_numbers
from tests.kernels.cuda.test_kernels import (  # noqa: F401 - the fixture that puts the host in the place of a card
    DRIVER,
    NOISE,
    _on_the_host,
    check_notices,
    cuda,
    on_the_host,
)

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
cpu = kernels_for("cpu")
pytestmark = pytest.mark.skipif(host.compiler() is None and not card.ON_A_CARD, reason=host.NO_COMPILER)
NAMES = ["deviance", "dirichlet_kl", "gamma_kl", "gamma_log_sample_grad", "lgamma", "log_ratio", "polygamma",
         "stirling"]  # fmt: skip


# ---- draws ---------------------------------------------------------------------------


def check_draws(dtype, count=3000, samples=2, seed=7):
    """The CPU's draws but for the last bits of logarithm and cosine, which grow where 1 + c x is near 0: another
    attempt would be another number altogether."""
    a, counters = shapes(count, dtype, seed), np.array([11, 0, 0])
    address = NOISE | {"seed": seed}
    found, expected = (kernels.log_gamma(a, counters, np.full((samples, count), np.nan, dtype), **address)
                       for kernels in (cuda, cpu))
    assert np.isfinite(expected).all()
    assert_close(found, expected, 1e6 if dtype == np.float64 else 2, "draws", np.maximum(1, np.abs(expected)))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@given(count=st.integers(1, 300), samples=st.integers(1, 3), seed=st.integers(0, 2**32 - 1),
       schedule=st.sampled_from(SCHEDULES))  # fmt: skip
def test_the_same_attempts_as_on_the_cpu(dtype, count, samples, seed, schedule):
    DRIVER.schedule = schedule
    check_draws(dtype, count, samples, seed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_draws_in_every_order(dtype):
    """Hundreds of them are refused at first; by few threads, and by many in any order, they are the same bits."""
    first = check_draws(dtype, 20_000)
    for DRIVER.schedule, jobs.BLOCKS in ((0, 3), *((schedule, 2048) for schedule in SCHEDULES)):
        assert_same_bits(check_draws(dtype, 20_000), first, "another order")


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_shape_gives_no_number(dtype):
    """As on the CPU: NaN, and minus infinity at 0."""
    a, counters = np.array([np.nan, -1.0, np.inf, 0.0, 2.0, 1e-3, 1e4], dtype), np.array([0])
    with np.errstate(all="ignore"):
        found, expected = (kernels.log_gamma(a, counters, np.zeros_like(a), **NOISE) for kernels in (cuda, cpu))
    assert np.isnan(found[:3]).all()
    assert found[3] == -np.inf
    assert_close(found[3:], expected[3:], 64, "draws")


# ---- numbers -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_values(dtype):
    for name, function in of_numbers.primitives(cuda).items():
        of_numbers.check_primitive(name, function, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(exponents=st.lists(st.floats(-4, 8), min_size=1, max_size=150), order=st.integers(0, 7))
def test_any_order_as_scipy_has_it(dtype, exponents, order):
    of_numbers.check_any_order(cuda, dtype, exponents, order)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_not_positive(dtype):
    of_numbers.check_numbers_that_are_not_positive(cuda, dtype)


def check_remainders():
    for order in range(4):
        of_numbers.check_remainder(lambda x, order: cuda.stirling(x, None, order=order), order)


def test_the_remainder_keeps_its_digits():
    check_remainders()


def derivative(w, a):
    return cuda.gamma_log_sample_grad(w, a, None)


def check_derivative():
    for dtype in DTYPES:
        of_draws.check_published(derivative, dtype)
        of_draws.check_everywhere(derivative, dtype)
        for a in (1e-3, 0.5, 7.0, 1e5):
            of_draws.check_limit(derivative, dtype, a)


def test_the_derivative_of_a_draw():
    """Against mpmath's values, at the limit, and by identities of the exact one."""
    check_derivative()
    for a in (0.05, 1.0, 20.0):
        of_draws.check_moments(derivative, a)


@given(log_shape=of_draws.log_shapes, deviations=st.floats(-9, 9))
def test_the_recurrence_between_shapes(log_shape, deviations):
    of_draws.check_recurrence(derivative, log_shape, deviations)


def check_numbers(*names, dtypes=DTYPES):
    """The CPU's numbers to rounding, of any shape; new memory and given memory; by few threads or many in any order."""
    for name in names:
        for dtype in dtypes:
            for shape in ((1, 2), (3, 5), (257, 3), (9, 64), (12, 70)):
                arrays, attributes = of_numbers.inputs(name, shape, dtype)
                if name in ("dirichlet_kl", "log_ratio", "deviance", "gamma_kl"):  # repeated along the first axis
                    smaller = {"log_ratio": (1,), "deviance": (0,), "gamma_kl": (2, 3), "dirichlet_kl": (1,)}[name]
                    arrays = [a[0].copy() if i in smaller else a for i, a in enumerate(arrays)]
                launcher = getattr(cuda, name)
                expected = getattr(cpu, name)(*arrays, out=None, **attributes)
                first = launcher(*arrays, out=None, **attributes)
                assert first.dtype == dtype
                assert_close(first, expected, of_numbers.UNITS[dtype], name, np.maximum(1, np.abs(expected)))
                for DRIVER.schedule, jobs.BLOCKS in ((0, 1), *((schedule, 2048) for schedule in SCHEDULES)):
                    again = np.full_like(first, np.nan)
                    assert launcher(*arrays, out=again, **attributes) is again
                    assert_same_bits(again, first, name)


@pytest.mark.parametrize("name", NAMES)
def test_the_cpus_numbers(name):
    check_numbers(name)


# ---- wrong kernels are noticed -------------------------------------------------------


def small_and_large_vectors():
    check_numbers("dirichlet_kl", dtypes=[np.float64])


MUTANTS = [
    ("noise", lambda: check_draws(np.float64), "waits && attempt < ATTEMPTS", "waits && attempt < 1"),
    ("noise", lambda: check_draws(np.float64), "waits = !(log", "waits = (log"),
    ("noise", lambda: check_draws(np.float64), "d - d * v + d * log_of_v", "d - d * v + d * log_of_v - 0.01"),
    ("noise", lambda: check_draws(np.float64), "log(open_unit(word[3]))", "log(open_unit(word[2]))"),
    ("noise", lambda: check_draws(np.float64), "a < 1 ? a + 1 : a", "a"),
    ("noise", lambda: check_draws(np.float64), "attempt == 0 && a < 1", "a < 1"),
    ("noise", lambda: check_draws(np.float64), "site, step, attempt, seed", "site, step, 0, seed"),
    ("noise", lambda: check_draws(np.float64), "shape[i % period]", "shape[i / 2 % period]"),
    ("noise", lambda: check_draws(np.float64), "+ 0.5) * 2.3283064365386963e-10", ") * 2.3283064365386963e-10"),
    ("special", check_derivative, "upper ? shape : shape + 1", "shape"),
    ("special", check_derivative, "expm1(-d) - reach", "expm1(-d) + reach"),
    ("special", check_derivative, "k = 0; k < each", "k = 1; k < each"),
    ("special", check_derivative, "(z * integral - offset)", "(integral - offset)"),
    ("special", check_remainders, "order - 1, true", "order, true"),
    ("special", lambda: check_numbers("log_ratio"), "y[i % period]", "y[i]"),
    ("special", lambda: check_numbers("deviance"), "a[i % period]", "a[i]"),
    ("stirling", check_remainders, "x < 7.5", "x < 2.5"),
    ("stirling", check_remainders, "k = 8; k > 0", "k = 2; k > 0"),
    ("stirling", check_remainders, "k == 0 && of_remainder ? 0.5", "k == 0 && of_remainder ? 1.0"),
    ("stirling", check_remainders, "const bool far = of_remainder && x > steps", "const bool far = false"),
    ("stirling", lambda: test_exact_values(np.float64), "k = 7; k > 0", "k = 0; k > 0"),
    ("stirling", lambda: test_exact_values(np.float64), "factorial *= -i", "factorial *= i"),
    ("stirling", lambda: test_numbers_that_are_not_positive(np.float64), "total += inverse_power(x, n + 1);\n  }",
     "total -= inverse_power(x, n + 1);\n  }"),
    ("stirling", lambda: check_numbers("log_ratio"), "log1p(d)", "d"),
    ("stirling", lambda: check_numbers("deviance"), "x < 1000 ? x :", "x < 1000 ? -x :"),
    ("stirling", lambda: check_numbers("gamma_kl"), "- (a0 - a) * derivative", "+ (a0 - a) * derivative"),
    ("posterior", lambda: check_numbers("gamma_kl"), "b0[i % period]", "b0[i]"),
    ("posterior", small_and_large_vectors, "begin <= width", "begin < width"),
    ("posterior", small_and_large_vectors, "j == width ? -gap", "j == width ? gap"),
    ("posterior", small_and_large_vectors, "row % period) * width", "row) * width"),
    ("posterior", small_and_large_vectors, "? s - shape : others", "? s - shape : s - shape + 1"),
]  # fmt: skip


@on_the_host
@pytest.mark.parametrize("place", range(len(MUTANTS)))
def test_a_wrong_kernel_is_noticed(place, monkeypatch):
    check_notices(monkeypatch, *MUTANTS[place])
