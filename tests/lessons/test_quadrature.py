"""The exact expectations that estimators are held against: closed forms within the stated error, and what has none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import polygamma

from tinyvae.lessons import quadrature
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.quadrature import FAMILIES, NotFinite, derivative, expectation, member


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
                         {"a": -psi(0.51, 1), "b": psi(0.5, 1) - psi(0.51, 1)}),
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
@given(st.sampled_from(sorted(FAMILIES)), st.floats(-1, 1.5), st.floats(-1, 1.5))
def test_densities_are_normalised(name, first, second):
    family = FAMILIES[name]
    q = member(name, dict(zip(family.parameters, (10**first, 10**second), strict=True)))
    assert_exact(expectation(q, parse("1")), 1.0)
    for by in q.at:
        assert_exact(derivative(q, parse("1"), by), 0.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_densities_are_those_of_the_families(name):
    """q(w) here is exp(log_density) there, and so is the coordinate."""
    from tinyvae.engine.tensor import Tensor

    q = member(name)
    w = np.linspace(-2, 2, 9)
    there = q.family.build(*(Tensor(np.array(value)) for value in q.at.values()))
    np.testing.assert_allclose(np.log(q.density(w)), there.log_density(Tensor(w)).numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(there.from_stable(Tensor(w)).numpy(), q.family.from_stable(Tensor(w)).numpy(), rtol=1e-15)


@pytest.mark.parametrize(("name", "at", "text"), [
    ("gamma", {"rate": 1.0}, "exp(z)"), ("gamma", {"rate": 2.0}, "exp(2*z)"), ("gamma", {"shape": 1.0}, "1/z"),
    ("gamma", {"shape": 1.0}, "1e-30/z"), ("laplace", {}, "exp(z)"), ("laplace", {}, "exp(z - 50)"),
    ("normal", {}, "exp(exp(z))"), ("normal", {}, "1/z"), ("normal", {"mu": 1.0}, "1/z**2"),
    ("log-normal", {"sigma": 30.0}, "exp(z)"),
])  # fmt: skip
def test_no_finite_value_is_found_where_there_is_none(name, at, text):
    with pytest.raises(NotFinite, match=r"no finite value was found by quadrature"):
        expectation(member(name, at), parse(text))


def test_f_without_a_value():
    with pytest.raises(ValueError, match=r"no value \(NaN\) of f at z = -0.*, where normal\(mu=0, sigma=1\) has mass"):
        expectation(member("normal"), parse("log(z)"))


@pytest.mark.parametrize(("name", "given", "message"), [
    ("gumma", {}, "found q 'gumma'; expected one of normal, log-normal, gamma, laplace, beta"),
    ("gamma", {"shape": 0.0}, "found shape 0 with q gamma; expected a number from 0.0001 to 1e\\+06"),
    ("gamma", {"rate": math.nan}, "found rate nan with q gamma"), ("normal", {"mu": math.inf}, "found mu inf"),
    ("normal", {"shape": 1.0}, "found shape 1 with q normal, which has mu and sigma"),
])  # fmt: skip
def test_members_that_there_are_not(name, given, message):
    with pytest.raises(ValueError, match=message):
        member(name, given)


# ---- what must fail --------------------------------------------------------------------------------------------------


def test_another_parameters_derivative_is_refused():
    q, f = member("gamma", {"shape": 3.0}), parse("z*log(z)")
    with pytest.raises(AssertionError):
        assert_exact(derivative(q, f, "rate"), psi(4) + 3 * psi(4, 1))


def test_a_wrong_density_shows_in_the_error(monkeypatch):
    """One that is off by a millionth: the stated error is no smaller than what it does."""
    family = FAMILIES["gamma"]
    wrong = quadrature.Family(**{**vars(family), "log_density": lambda *all: family.log_density(*all) + 1e-6})
    monkeypatch.setitem(FAMILIES, "gamma", wrong)
    found = expectation(member("gamma"), parse("z"))
    assert 1e-6 < abs(found.value - 2) <= found.error
