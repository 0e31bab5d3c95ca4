"""The distributions of the lessons against SciPy's: their densities, and draws by the reparameterization trick."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy_laws import LAWS, SCIPY, assert_right_law, drawn, of_scipy
from support import likely_zero

import tinyvae as tv
from tinyvae.distributions import LogTensor
from tinyvae.engine.noise import Noise
from tinyvae.lessons.expectations import Line, expectation
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import RECIPES, drawable, member


def test_all_recipes_are_tested():
    assert set(SCIPY) == set(RECIPES) == {drawn(text).family.name for text in LAWS}


@pytest.mark.parametrize("text", LAWS)
def test_densities_are_those_of_scipy(text):
    """From one tail of 1e-7 to the other; and the support is where z(w) goes."""
    q, law = drawn(text), of_scipy(drawn(text))
    places, log_q = q.log_density(Line(q).w(np.linspace(-6, 6, 2001)).data)
    inside = (law.cdf(places) > 1e-7) & (law.sf(places) > 1e-7)
    assert min(law.cdf(places)[inside].min(), law.sf(places)[inside].min()) < 2e-7
    np.testing.assert_allclose(log_q[inside], law.logpdf(places[inside]), rtol=1e-9, atol=1e-9)
    assert q.support == pytest.approx(law.support())


def test_a_wrong_stable_form_is_noticed(monkeypatch):
    family = RECIPES["f"].family
    wrong = replace(family, z=lambda w, d1, d2: LogTensor(w + math.log(d1 / d2)))
    monkeypatch.setitem(RECIPES, "f", replace(RECIPES["f"], family=wrong))
    with pytest.raises(AssertionError):
        test_densities_are_those_of_scipy("f(3, 7)")


def by_g(q, count):
    return RECIPES[q.family.name].draw(q, Noise(5, "test"), count).numpy()


def test_g_has_the_law_of_q():
    assert_right_law(by_g)


@pytest.mark.parametrize(("text", "wrong"), [
    ("exponential(2)", lambda eps, rate: -(-eps[0]).log1p() * rate),
    ("normal(1, 2)", lambda eps, mu, sigma: mu + sigma**2 * eps[0]),
    ("log-normal(1, 0.5)", lambda eps, mu, sigma: mu + (sigma * eps[0]).exp()),
    ("laplace(1, 0.5)", lambda eps, location, scale: location + scale * eps[0].log()),
    ("gamma(4, 0.5)", lambda eps, shape, rate: -eps[:3].log().sum(0) / rate),
    ("f(3, 7)", lambda eps, d1, d2: (eps[:3] ** 2).sum(0) / (eps[3:] ** 2).sum(0)),
    ("pareto(2.5, 3)", lambda eps, shape, scale: scale * (1 - eps[0]) ** -shape),
])  # fmt: skip
def test_a_wrong_g_is_noticed(text, wrong):
    def draw(q, count):
        return wrong(RECIPES[q.family.name].eps(q, Noise(5, "test"), count), *q.at.values()).numpy()

    with pytest.raises(AssertionError):
        assert_right_law(draw, [text])


def test_the_trick_a_gradient_passes_through_g():
    """The mean of d/dv f(g(eps; v)) is d/dv E_q[f]: by quadrature, moved a little."""
    f, count = parse("log(1 + z**2)"), 20_000
    for text in ("normal(1, 2)", "log-normal(1, 0.5)", "weibull(2, 2)", "gamma(3, 0.5)"):
        q, recipe = drawable(text)
        *fixed, (name, value) = q.at.items()  # a scale or a rate; or sigma
        v = tv.Tensor(np.full(count, value), requires_grad=True)
        z = recipe.g(recipe.eps(q, Noise(7, "test"), count), *(number for _, number in fixed), v)
        each = tv.grad(f(z).sum(), v).numpy()
        more, less = (expectation(q.with_(name, value + h), f).value for h in (1e-4, -1e-4))
        likely_zero(f"the gradient under {text}", each.mean() - (more - less) / 2e-4, each.std() / math.sqrt(count))


# ---- names and numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "found", "choices"), [
    ("poisson", "'poisson'", "normal(mu, sigma)"), ("normal(", "'normal('", "gamma(shape, rate)"), ("", "''", "normal"),
    ("normal(a, 1)", "'normal(a, 1)'", "normal(mu, sigma)"), ("normal(1, 2, 3)", "3 in the bracket", "(mu, sigma)"),
    ("gamma(0.5, 2)", "shape 0.5", "a whole number from 1 to 100"), ("normal(0, 0)", "sigma 0", "a number from 0.0001"),
    ("normal(nan, 1)", "mu nan", "from -1e+06"), ("exponential(-1)", "rate -1", "from 0.0001"),
    ("uniform(2, 1)", "low 2 and high 1", "low < high"), ("chi-square(101)", "degrees 101", "to 100"),
    ("dirichlet(3)", "1 in the bracket", "dirichlet(a1, a2, a3, ... up to 20)"), ("f(inf)", "d1 inf", "whole number"),
])  # fmt: skip
def test_a_mistake_in_q_gets_one_sentence(text, found, choices):
    with pytest.raises(ValueError, match="found") as caught:
        drawn(text)
    assert found in str(caught.value)
    assert choices in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_may_be_left_out():
    assert str(drawn("normal")) == str(drawn(" normal ( ) ")) == "normal(0, 1)"
    assert str(drawn("gamma(2)")) == "gamma(2, 1)"
    assert str(drawn("dirichlet(1,2)")) == "dirichlet(1, 2)"


def test_numbers_stand_in_a_bracket_or_beside():
    assert member("gamma(3)", {"rate": 2.0}).at == {"shape": 3.0, "rate": 2.0}
    assert str(member("beta")) == "beta(2, 2)"
    assert member("gamma(3, 2)").with_("rate", 5.0).at == {"shape": 3.0, "rate": 5.0}


@pytest.mark.parametrize(("name", "given", "message"), [
    ("gumma", {}, r"found q 'gumma'; expected one of normal\(mu, sigma\), .*, beta\(a, b\)"),
    ("gamma", {"shape": 0.0}, "found shape 0 with q gamma; expected a number from 0.0001 to 1e\\+06"),
    ("gamma", {"rate": math.nan}, "found rate nan with q gamma"), ("normal", {"mu": math.inf}, "found mu inf"),
    ("normal", {"shape": 1.0}, "found shape 1 with q normal, which has mu and sigma"),
    ("gamma(2, 1)", {"shape": 3.0}, "found shape twice, in the bracket of q and beside it"),
])  # fmt: skip
def test_members_that_there_are_not(name, given, message):
    with pytest.raises(ValueError, match=message):
        member(name, given)
