"""Ratios and deviances that keep their digits, and the limits of densities at the ends of a support: against mpmath."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from integrals import T
from support import DTYPES, assert_close

import tinyvae as tv
from tinyvae.distributions import Beta, Dirichlet, Gamma, LogTensor, Poisson, UnitTensor, kl_per_dimension
from tinyvae.distributions.stirling import deviance, log_ratio, peak, slope
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.engine.testing import check_gradients


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


# ---- ratios and deviances ------------------------------------------------------------

NEAR = [1.0, -1e-12, 3e-8, -1e-3, 0.02, -0.2, 0.6, -0.9, 5.0, 1e3, -1 + 1e-5]


def exact_pairs(dtype):
    """a, y = a (1 + d), and exact values of log(y / a) and y - a - a log(y / a)."""
    a = np.repeat(np.array([1e-3, 0.7, 1e4, 1e12]), len(NEAR)).astype(dtype)
    y = (a * (1 + np.tile(NEAR, 4))).astype(dtype)
    with mpmath.workdps(60):
        numbers = [(mpmath.mpf(float(p)), mpmath.mpf(float(q))) for p, q in zip(a, y, strict=True)]
        ratios = [float(mpmath.log(q / p)) for p, q in numbers]
        deviances = [float(q - p - p * mpmath.log(q / p)) for p, q in numbers]
    return a, y, np.array(ratios), np.array(deviances)


def check_digits(of_ratio, of_deviance, dtype):
    a, y, ratios, deviances = exact_pairs(dtype)
    assert_close(of_ratio(T(y, dtype), T(a, dtype)).numpy(), ratios, 4, "the ratio", np.abs(ratios) + 1e-300)
    found = of_deviance(T(a, dtype), T(y, dtype)).numpy()
    assert_close(found, deviances, 16, "the deviance", np.abs(deviances) + 1e-300)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ratios_and_deviances_have_all_their_digits(dtype):
    check_digits(log_ratio, deviance, dtype)
    with pytest.raises(AssertionError, match="the ratio"):
        check_digits(lambda x, y: x.log() - y.log(), deviance, dtype)
    with pytest.raises(AssertionError, match="the deviance"):
        check_digits(log_ratio, lambda a, y: y - a - a * log_ratio(y, a), dtype)


def test_the_remainder_and_its_derivatives_near_zero():
    """Half of -log(2 pi a), and its derivatives; those beyond 1e308 are infinite with their signs."""
    a = T([1e-160, 1e-200])
    logs = [float(-mpmath.log(2 * mpmath.pi * mpmath.mpf(x)) / 2) for x in a.numpy()]
    for order, expected in enumerate([logs, [-5e159, -5e199], [np.inf] * 2, [-np.inf] * 2]):
        assert_close(a.apply("stirling", order=order).numpy(), np.array(expected), 4, f"order {order}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kept_logarithm_goes_on_where_the_number_underflows(dtype):
    """log(y / a) and the deviance at y = exp(-2000), which is 0 in both types, and at y = 0."""
    w, a = T([-2000.0, -69.0, -math.inf], dtype, requires_grad=True), T([0.5, 2.0, 2.0], dtype, requires_grad=True)
    y = LogTensor(w)
    value, ratio = deviance(a, y), log_ratio(y, a)
    expected = np.array([-2000 - math.log(0.5), -69 - math.log(2), -math.inf])
    assert_close(ratio.numpy(), expected, 4, "the ratio")
    assert_close(value.numpy(), [-0.5 - 0.5 * expected[0], -2 - 2 * expected[1], math.inf], 4, "the deviance")
    by_a, by_w = grad(value.sum(), [a, w])
    assert_close(by_a.numpy(), -expected, 4)
    assert_close(by_w.numpy(), [-0.5, -2, -2], 4)


def test_derivatives():
    """Of a number and of a LogTensor, first and second, by both."""
    a, y = np.array([[0.3, 1.0, 8.0]]), np.array([[0.5, 1.01, 3.0], [0.2, 1e-2, 9.0]])
    for f in (lambda a, y: deviance(a, y), lambda a, y: log_ratio(y, a),
              lambda a, w: deviance(a, LogTensor(w)), lambda a, w: log_ratio(LogTensor(w), a)):  # fmt: skip
        with tv.fused(False):
            check_gradients(f, a, y, order=2)
        check_gradients(f, a, y)
    check_gradients(lambda a: peak(a), a, order=2)
    assert_close(grad(peak(x := T(a, requires_grad=True)).sum(), x).numpy(), slope(T(a)).numpy(), 8)


# ---- large shapes --------------------------------------------------------------------


def many(*values):
    return np.array([values])


# q, p, and KL(q || p) to six digits by mpmath
LARGE = {
    "gamma": (Gamma, (many(1e6), many(1e6)), (many(1.001e6), many(1e6)), 0.499834),
    "gammas of one mean": (Gamma, (many(1e6), many(1e6)), (many(1.001e6), many(1.001e6)), 2.49834e-7),
    "beta": (Beta, (many(1e6), many(1e6)), (many(1.001e6), many(1e6)), 0.249875),
    "dirichlet": (Dirichlet, (np.full((1, 1000), 50.5),), (np.full((1, 1000), 50.0),), 0.0248091),
}  # fmt: skip


def exact_kl(family, q, p):
    """The KL by log Gamma and digamma, with 60 digits."""
    def gap(a0, a):
        a0, a = mpmath.mpf(a0), mpmath.mpf(a)
        return mpmath.loggamma(a0) - mpmath.loggamma(a) - (a0 - a) * mpmath.digamma(a)

    with mpmath.workdps(60):
        if family is Gamma:
            (a, b), (a0, b0) = ([mpmath.mpf(float(v)) for v in values] for values in (q, p))
            return gap(a0, a) + a0 * mpmath.log(b / b0) + a * (b0 / b - 1)
        q, p = ([mpmath.mpf(float(v)) for v in values] for values in (q, p))
        return sum(map(gap, p, q)) - gap(sum(p), sum(q))


def check_large(name, dtype, of=kl_per_dimension):
    family, q, p, printed = LARGE[name]
    numbers = [np.concatenate(values, axis=-1)[0].astype(dtype) for values in (q, p)]
    exact = exact_kl(family, *numbers)
    assert abs(float(exact) / printed - 1) < (2e-3 if dtype == np.float32 else 1e-5)
    found = of(*(family(*(T(v, dtype) for v in values)) for values in (q, p))).numpy().astype(np.float64).sum()
    assert abs(found / float(exact) - 1) <= {np.float32: 4e-7, np.float64: 1e-9}[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LARGE)
def test_divergences_at_large_shapes(name, dtype):
    check_large(name, dtype)


def test_a_divergence_of_large_terms_is_found():
    def textbook(q, p):
        a, b, a0, b0 = q.shape, q.rate, p.shape, p.rate
        return (a - a0) * a.digamma() - a.lgamma() + a0.lgamma() + a0 * (b.log() - b0.log()) + a * (b0 / b - 1)

    with pytest.raises(AssertionError):
        check_large("gamma", np.float32, textbook)
    with pytest.raises(AssertionError):
        check_large("gammas of one mean", np.float64, textbook)


@pytest.mark.parametrize("dtype", DTYPES)
@given(exponents=st.lists(st.floats(-6, 9), min_size=4, max_size=4), far=st.floats(-9, 0.99))
def test_a_divergence_is_never_negative(dtype, exponents, far):
    """Of any two members, however close; exactly 0 of equals."""
    q = (10.0 ** np.array(exponents)).reshape(1, 4).astype(dtype)
    p = (q * (1 + 10.0**far * np.array([1.0, -0.1, 0.5, 0.9]))).astype(dtype)
    for family, shares in ((Gamma, 2), (Beta, 2), (Dirichlet, 1), (Poisson, 1)):
        one, two = (family(*(T(v, dtype) for v in np.split(numbers, shares, axis=-1))) for numbers in (q, p))
        each = kl_per_dimension(one, two).numpy()
        assert each.dtype == dtype
        assert (each >= 0).all()
        assert (kl_per_dimension(one, one).numpy() == 0).all()


# ---- the ends of a support: SciPy's values -------------------------------------------

# A member with one element, x, log p(x) and its derivative by x (None: the density has no finite limit there)
EDGES = [
    (Gamma, (1.0, 2.0), 0.0, math.log(2), -2.0), (Gamma, (0.5, 2.0), 0.0, math.inf, None),
    (Gamma, (3.0, 2.0), 0.0, -math.inf, None), (Gamma, (1.0, 2.0), -1.0, -math.inf, 0.0),
    (Gamma, (3.0, 2.0), math.inf, -math.inf, None),
    (Beta, (1.0, 8.0), 0.0, math.log(8), -7.0), (Beta, (8.0, 1.0), 1.0, math.log(8), 7.0),
    (Beta, (1.0, 8.0), 1.0, -math.inf, None), (Beta, (1.0, 1.0), 0.0, 0.0, 0.0), (Beta, (1.0, 1.0), 1.0, 0.0, 0.0),
    (Beta, (0.5, 8.0), 0.0, math.inf, None), (Beta, (8.0, 0.5), 1.0, math.inf, None),
    (Beta, (2.0, 8.0), 0.0, -math.inf, None), (Beta, (2.0, 8.0), 1.5, -math.inf, 0.0),
    (Beta, (2.0, 8.0), -0.5, -math.inf, 0.0), (Beta, (1.0, 1e6), 0.0, math.log(1e6), -999999.0),
    (Poisson, (2.0,), 0.0, -2.0, None), (Poisson, (2.0,), -1.0, -math.inf, None),
    (Poisson, (2.0,), math.inf, -math.inf, None),
]  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("family", "parameters", "x", "value", "by_x"), EDGES)
def test_at_an_end_of_the_support(family, parameters, x, value, by_x, dtype):
    leaves = [T([v], dtype, requires_grad=True) for v in parameters]
    at = T([x], dtype, requires_grad=True)
    found = family(*leaves).log_prob(at)
    assert_close(found.numpy(), value, 8)
    if by_x is not None:
        assert_close(grad(found, at).numpy(), [by_x], 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives_by_the_parameters_at_an_end(dtype):
    """Of log b at Gamma(1, b), 0 and of log b at Beta(1, b), 0; by the first shape log 0 = -inf, by NaN never."""
    for family in (Gamma, Beta):
        a, b = T([1.0], dtype, requires_grad=True), T([8.0], dtype, requires_grad=True)
        with np.errstate(divide="ignore"):
            by_a, by_b = grad(family(a, b).log_prob(T([0.0], dtype)), [a, b])
        assert by_a.numpy() == -math.inf
        assert_close(by_b.numpy(), [1 / 8], 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_logarithms_at_an_end(dtype):
    """exp(-200) is no end, also where it underflows; a logarithm of -inf is one."""
    one, eight = T([1.0], dtype), T([8.0], dtype)
    for w in (-2000.0, -math.inf):
        zero, full = T([w], dtype), T([0.0], dtype)
        three = LogTensor(T([w, w, 0.0], dtype))
        scale = 2000.0  # of the terms a log z
        for found, expected in (
                (Beta(one, eight).log_prob(UnitTensor(zero, full)), math.log(8)),
                (Beta(eight, one).log_prob(UnitTensor(full, zero)), math.log(8)),
                (Gamma(one, eight).log_prob(LogTensor(zero)), math.log(8)),
                (Gamma(eight, eight).log_prob(LogTensor(zero)), 8 * math.log(8) - math.lgamma(8) + 7 * w),
                (Dirichlet(T([1.0, 1.0, 1.0], dtype)).log_prob(three), math.log(2))):  # fmt: skip
            assert_close(found.numpy(), expected, 8, scale=scale)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dirichlet_at_a_vertex_an_edge_and_outside(dtype):
    cases = [((1, 1, 1), (0, 0, 1), math.log(2)), ((1, 2, 1), (0, 0.5, 0.5), math.log(6 / 2)),
             ((1, 2, 1), (0.5, 0, 0.5), -math.inf), ((1, 0.5, 1), (0.5, 0, 0.5), math.inf),
             ((0.5, 2, 1), (0, 0, 1), math.nan), ((1, 2, 1), (-0.5, 1, 0.5), -math.inf)]  # fmt: skip
    for a, x, value in cases:
        with np.errstate(invalid="ignore"):
            assert_close(Dirichlet(T(a, dtype)).log_prob(T(x, dtype)).numpy(), value, 4, f"Dirichlet{a} at {x}")
    x = T((0.0, 0.25, 0.75), dtype, requires_grad=True)
    by_x = grad(Dirichlet(T((1, 2, 3.0), dtype)).log_prob(x), x)
    assert_close(by_x.numpy(), [0, 4, 8 / 3], 4)


def test_a_formula_without_limits_is_found():
    class Textbook(Beta):
        def log_prob(self, x):
            return ((self.a - 1) * x.log() + (self.b - 1) * (1 - x).log() - self.log_normaliser).sum(-1)

    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        assert_close(Textbook(T([1.0]), T([8.0])).log_prob(T([0.0])).numpy(), math.log(8), 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_stays(dtype):
    for family in (Gamma, Beta):
        assert np.isnan(family(T([1.0], dtype), T([2.0], dtype)).log_prob(T([math.nan], dtype)).numpy())
        assert np.isnan(family(T([math.nan], dtype), T([2.0], dtype)).log_prob(T([0.5], dtype)).numpy())
    assert np.isnan(Poisson(T([2.0], dtype)).log_prob(T([math.nan], dtype)).numpy())
    assert np.isnan(Dirichlet(T([1.0, 2.0], dtype)).log_prob(T([math.nan, 0.5], dtype)).numpy())
    assert isinstance(Gamma(T([1.0]), T([2.0])).log_prob(T([0.5])), Tensor)
