"""Student's t distribution: SciPy, mpmath at extreme parameters, moments that do not exist, and draws."""

import mpmath as mp
import numpy as np
import pytest
from integrals import T
from scipy import stats
from support import DTYPES, assert_close, likely

import tinyvae as tv
from tinyvae.distributions import Normal, StudentT
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.engine.testing import check_gradients

MU, SCALE, DF = np.array([0.0, 2.0, -1.5]), np.array([1.0, 0.25, 8.0]), np.array([0.5, 3.0, 40.0])
X = np.array([[0.0, 2.5, 9.0], [-3.0, 1.75, -100.0], [1e3, 0.0, -1.5]])


class WithoutScale(StudentT):
    """The Jacobian of the scale forgotten."""

    def log_density(self, w):
        return super().log_density(w) + self.scale.log()


def check(q, x, expected, units=8):
    assert_close(q.log_density(x).numpy(), expected, units)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_density_is_scipys(dtype):
    expected = stats.t(DF, MU, SCALE).logpdf(X)
    check(StudentT(*(T(v, dtype) for v in (MU, SCALE, DF))), T(X, dtype), expected)
    with pytest.raises(AssertionError):
        check(WithoutScale(*(T(v, dtype) for v in (MU, SCALE, DF))), T(X, dtype), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("df", [2.0**-20, 1.0, 2.0**23])
@pytest.mark.parametrize("x", [0.0, 1.5, 2.0**60, -(2.0**90)])
def test_extreme_numbers(dtype, df, x):
    # x^2 is beyond float32 in the last two; with df = 2^23 the log Gamma are 6e7
    scale = 2.0**-20
    with mp.workdps(60):
        n, e = mp.mpf(df), mp.mpf(x) / mp.mpf(scale)
        value = (mp.loggamma((n + 1) / 2) - mp.loggamma(n / 2) - mp.log(n * mp.pi) / 2 - mp.log(scale)
                 - (n + 1) / 2 * mp.log1p(e**2 / n))
        slope = -(n + 1) * e / (n + e**2) / scale  # d/dx
        expected = float(value), float(slope)
    leaf = T([x], dtype, requires_grad=True)
    found = StudentT(T([0.0], dtype), T([scale], dtype), T([df], dtype)).log_prob(leaf)
    assert_close(found.numpy(), expected[0], 8)
    assert_close(grad(found, leaf).numpy(), [expected[1]], 8)


def test_many_degrees_of_freedom_give_the_normal():
    x = T(np.linspace(-5, 5, 11)[:, None])
    normal = Normal(T([0.5]), T([0.0])).log_prob(x).numpy()
    assert np.abs(StudentT(T([0.5]), T([1.0]), T([1e14])).log_prob(x).numpy() - normal).max() < 1e-11


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_that_do_not_exist(dtype):
    q = StudentT(T([1.0] * 4, dtype), T([2.0] * 4, dtype), T([0.5, 1.5, 2.0, 6.0], dtype))
    assert q.mean.dtype == q.variance.dtype == dtype
    assert np.array_equal(q.mean.numpy(), [np.nan, 1, 1, 1], equal_nan=True)
    assert np.array_equal(q.variance.numpy(), [np.nan, np.inf, np.inf, 6], equal_nan=True)


def test_draws_have_this_law():
    z = StudentT(*(T(v) for v in (MU, SCALE, DF))).sample(Noise(5), 20_000).numpy()
    for j in range(3):
        likely(f"t, df {DF[j]}", stats.kstest(z[:, j], stats.t(DF[j], MU[j], SCALE[j]).cdf).pvalue)


def test_a_network_gives_a_variance():
    q = StudentT.from_raw(Tensor(np.array([[0.3, 1.0, -50.0]])))
    assert q.df.numpy() == pytest.approx(3)
    assert q.variance.numpy() == pytest.approx(3 * np.exp(2.0))


# ---- the constant ----------------------------------------------------------------------------------------------------

DFS = np.array([1e-300, 1e-9, 0.01, 1.0, 3.0, 3.7, 10.0, 23.999, 24.0, 24.001, 40.0, 1e3, 1e6])


def exact_constant(df, slope):
    with mp.workdps(60):
        a = mp.mpf(float(df)) / 2
        if slope:
            return float((mp.psi(0, a + 0.5) - mp.psi(0, a) - 1 / (2 * a)) / 2)
        return float(mp.loggamma(a + 0.5) - mp.loggamma(a) - mp.log(2 * mp.pi * a) / 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "slope"), [("student_constant", False), ("student_constant_slope", True)])
def test_the_constant_keeps_its_digits(name, slope, dtype):
    """The kernel 32 units of each value; the readable form of the slope those of 1/df, the size of its terms."""
    df = (DFS if dtype == np.float64 else DFS[1:]).astype(dtype)
    exact = np.array([exact_constant(each, slope) for each in df])
    for on in (True, False):
        with tv.fused(on):
            found = Tensor(df).apply(name).numpy()
        assert_close(found, exact, 32, name, np.abs(exact) + (0 if on or not slope else 1 / df.astype(float)))
    ends = Tensor(np.array([0.0, np.inf, -1.0, np.nan], dtype))
    expected = [np.inf, 0.0] if slope else [-np.inf, -0.5 * np.log(2 * np.pi)]
    for on in (True, False):
        with tv.fused(on):
            found = ends.apply(name).numpy()
        np.testing.assert_allclose(found, [*expected, np.nan, np.nan], rtol=1e-6)


def test_the_derivatives_of_the_rows():
    check_gradients(lambda a: a.apply("student_constant"), [DFS[2:-1]], order=2)
    check_gradients(lambda a: a.apply("log1p_square"), [X[1:].ravel()], order=2)


@pytest.mark.parametrize("point", [np.inf, -np.inf])
def test_at_an_infinite_point_the_density_and_its_derivatives_are_0(point):
    leaves = [T([v], requires_grad=True) for v in (point, 0.3, 1.2, 4.0)]
    found = StudentT(*leaves[1:]).log_prob(leaves[0])
    assert found.item() == -np.inf
    assert [slope.item() for slope in grad(found, leaves)] == [0, 0, 0, 0]
