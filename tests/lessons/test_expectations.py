"""The exact expectations that estimators are held against: closed forms within the stated error, and what has none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy.special import polygamma
from scipy_laws import drawn, of_scipy
from support import make_wrong

from tinyvae.distributions import Gamma
from tinyvae.lessons.expectations import NotFinite, derivative, expectation
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import GRADIENT_FAMILIES, member


def psi(a, order=0):
    return float(polygamma(order, a))


def assert_exact(found, expected, sharp=1e-9):
    """The value is right within its own error, and that error is small."""
    print(f"{found.value} ± {found.error}, expected {expected}")
    assert abs(found.value - expected) <= found.error + 1e-15 * abs(expected)
    assert found.error <= sharp * max(1.0, abs(expected))


# Each with E[f] and its derivatives: q, f, E, derivatives by name.
CLOSED = {
    "normal, z^2": ("normal", {"mu": 1.5, "sigma": 2.0}, "z**2", 6.25, {"mu": 3.0, "sigma": 4.0}),
    "normal, a jump": ("normal", {"mu": 0.5, "sigma": 1.0}, "(z > 1.3)", 0.2118553985833967,
                       {"mu": math.exp(-0.32) / math.sqrt(2 * math.pi),
                        "sigma": 0.8 * math.exp(-0.32) / math.sqrt(2 * math.pi)}),
    "log-normal, z": ("log-normal", {"mu": 0.3, "sigma": 0.7}, "z", math.exp(0.545),
                      {"mu": math.exp(0.545), "sigma": 0.7 * math.exp(0.545)}),
    "laplace, |z|": ("laplace", {"mu": 1.0, "scale": 2.0}, "abs(z)", 1 + 2 * math.exp(-0.5),
                     {"mu": 1 - math.exp(-0.5), "scale": 1.5 * math.exp(-0.5)}),
    "beta, z^2": ("beta", {"a": 2.0, "b": 3.0}, "z**2", 0.2,
                  {"a": 0.2 * (1 / 2 + 1 / 3 - 1 / 5 - 1 / 6), "b": -0.2 * (1 / 5 + 1 / 6)}),
    "beta, log(1 - z)": ("beta", {"a": 0.01, "b": 0.5}, "log(1 - z)", psi(0.5) - psi(0.51),
                         {"a": -psi(0.51, 1), "b": 0.16354296138563299}),  # psi1(0.5) - psi1(0.51) in 50 digits
    "gamma, exp": ("gamma", {"shape": 2.0, "rate": 1.5}, "exp(z)", 9.0, {"shape": 9 * math.log(3), "rate": -24.0}),
    "gamma, a kink": ("gamma", {"shape": 1.0, "rate": 1.0}, "maximum(z, 2)", 2 + math.exp(-2),
                      {"rate": -3 * math.exp(-2)}),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name):
    family, at, text, value, derivatives = CLOSED[name]
    q, f = member(family, at), parse(text)
    assert_exact(expectation(q, f), value)
    for by, slope in derivatives.items():
        assert_exact(derivative(q, f, by), slope)


@settings(max_examples=8)
@given(st.floats(-3, 3.3))
def test_z_log_z_of_any_gamma(power):
    """From shape 1e-3, where z itself underflows, to 2000."""
    a = 10**power
    q, f = member("gamma", {"shape": a}), parse("z*log(z)")
    assert_exact(expectation(q, f), a * psi(a + 1), 1e-7)
    assert_exact(derivative(q, f, "shape"), psi(a + 1) + a * psi(a + 1, 1), 1e-6)
    assert_exact(derivative(q, f, "rate"), -a * (psi(a + 1) + 1), 1e-6)


@settings(max_examples=12)
@given(st.sampled_from(sorted(GRADIENT_FAMILIES)), st.floats(-1, 1.5), st.floats(-1, 1.5))
def test_densities_are_normalised(name, first, second):
    family = GRADIENT_FAMILIES[name]
    q = member(name, dict(zip(family.parameters, (10**first, 10**second), strict=True)))
    assert_exact(expectation(q, parse("1")), 1.0)
    for by in q.at:
        assert_exact(derivative(q, parse("1"), by), 0.0)


@pytest.mark.parametrize(("name", "at", "text"), [
    ("gamma", {"rate": 1.0}, "exp(z)"), ("gamma", {"rate": 2.0}, "exp(2*z)"), ("gamma", {"shape": 1.0}, "1/z"),
    ("gamma", {"shape": 1.0}, "1e-30/z"), ("laplace", {}, "exp(z)"), ("laplace", {}, "exp(z - 50)"),
    ("normal", {}, "exp(exp(z))"), ("normal", {}, "1/z"), ("normal", {"mu": 1.0}, "1/z**2"),
    ("log-normal", {"sigma": 30.0}, "exp(z)"),
])  # fmt: skip
def test_no_finite_value_is_found_where_there_is_none(name, at, text):
    with pytest.raises(NotFinite, match=r"under .* is infinite, or cannot be computed .*a bounded one such as"):
        expectation(member(name, at), parse(text))


@pytest.mark.parametrize(("text", "f", "message"), [
    ("normal", "log(z)", r"no value \(NaN\) of f at z = -0.*, where normal\(0, 1\) has mass"),
    ("normal", "sqrt(z - 1)", "for all z from -inf to inf"), ("pareto(2, 3)", "log(z - 4)", "for all z from 3 to inf"),
])  # fmt: skip
def test_f_without_a_value(text, f, message):
    with pytest.raises(ValueError, match=message):
        expectation(drawn(text), parse(f))


# ---- other families, poles and jumps ---------------------------------------------------------------------------------

MOMENTS = ["exponential(2)", "logistic(1, 0.5)", "gumbel(-1, 2)", "rayleigh(3)", "weibull(0.7, 2)", "pareto(2.5, 3)",
           "normal(100, 0.5)", "laplace(1, 0.5)", "uniform(-1, 3)", "log-normal(1, 0.5)", "gamma(4, 0.5)",
           "chi-square(1)", "f(3, 7)", "beta(1, 4)", "dirichlet(1, 2, 3, 4)"]  # fmt: skip


@pytest.mark.parametrize("text", MOMENTS)
def test_expectations_are_the_moments_of_scipy(text):
    q = drawn(text)
    mean, variance = map(float, of_scipy(q).stats("mv"))
    assert_exact(expectation(q, parse("z")), mean)
    assert_exact(expectation(q, parse("z"), mean, 2), variance)


@pytest.mark.parametrize(("text", "f", "expected"), [
    ("cauchy", "1/(1 + z**2)", 0.5), ("cauchy", "abs(z)**0.5", math.sqrt(2)), ("normal", "z > 5", special.ndtr(-5)),
    ("uniform(-1, 1)", "z > 0", 0.5), ("uniform(-1, 1)", "(z > 0.123) * (z < 0.5)", 0.1885), ("normal", "sign(z)", 0.0),
    ("normal", "abs(z)", math.sqrt(2 / math.pi)), ("beta(1, 1)", "z**-0.4", 5 / 3),
    ("normal", "log(abs(z))", -(np.euler_gamma + math.log(2)) / 2),
    ("chi-square(1)", "log(z)", special.digamma(0.5) + math.log(2)), ("normal", "exp(z**2/4)", math.sqrt(2)),
    ("f(1, 1)", "z > 1", 0.5), ("exponential", "exp(z) / (1 + exp(z))", math.log(2)), ("normal", "3", 3.0),
])  # fmt: skip
def test_expectations_with_jumps_kinks_and_poles(text, f, expected):
    assert_exact(expectation(drawn(text), parse(f)), expected)


def test_a_jump_that_quadrature_is_not_told_of():
    """Why expressions know their edges: panels are halved towards a jump, but the last of them may overlook it."""
    q, overlooked = drawn("uniform(-1, 1)"), []
    for jump in np.linspace(0.01, 0.99, 10):
        found = expectation(q, lambda z, jump=jump: (z > jump).cast(np.float64))
        off = abs(found.value - (1 - jump) / 2)
        assert off < 1e-5
        overlooked.append(off > found.error)
        assert_exact(expectation(q, parse(f"z > {jump}")), (1 - jump) / 2)
    assert any(overlooked)


def test_a_pole_that_quadrature_is_not_told_of():
    assert_exact(expectation(drawn("normal"), parse("(z**2)**-0.2")),
                 2**-0.2 * math.gamma(0.3) / math.sqrt(math.pi))


@pytest.mark.parametrize(("text", "f"), [
    ("cauchy", "z"), ("cauchy", "z**2"), ("exponential", "exp(z)"), ("normal", "1/z"), ("normal", "exp(z**2)"),
    ("pareto(1)", "z"), ("beta(1, 1)", "1/(1 - z)"), ("f(4, 4)", "z**2"), ("gumbel", "exp(z)"),
    ("uniform(-1, 1)", "1/z"),
])  # fmt: skip
def test_what_has_no_expectation_is_refused(text, f):
    with pytest.raises(NotFinite, match=r"under .* is infinite.*bounded one such as 1/\(1\+z\*\*2\)"):
        expectation(drawn(text), parse(f))


# ---- what must fail --------------------------------------------------------------------------------------------------


def test_another_parameters_derivative_is_refused():
    q, f = member("gamma", {"shape": 3.0}), parse("z*log(z)")
    with pytest.raises(AssertionError):
        assert_exact(derivative(q, f, "rate"), psi(4) + 3 * psi(4, 1))


def test_a_wrong_density_shows_in_the_error(monkeypatch):
    """One that is off by a millionth: the stated error is no smaller than what it does."""
    right = Gamma.log_density
    monkeypatch.setattr(Gamma, "log_density", lambda self, w: right(self, w) + 1e-6)
    found = expectation(member("gamma"), parse("z"))
    assert 1e-6 < abs(found.value - 2) <= found.error


def test_a_gradient_that_is_wrong_is_noticed(monkeypatch):
    """The derivative of the density comes from the tape, and so from rules.py."""
    make_wrong(monkeypatch, "stirling", grads=(lambda g, y, a, order: 1.01 * g * a.apply("stirling", order=order + 1),))
    q, f = member("gamma", {"shape": 3.0}), parse("z*log(z)")
    with pytest.raises(AssertionError):
        assert_exact(derivative(q, f, "shape"), psi(4) + 3 * psi(4, 1))
