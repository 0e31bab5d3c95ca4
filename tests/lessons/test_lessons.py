"""The lessons: the ELBO in one dimension against quadrature and SciPy's optimum, Monte Carlo against exact values."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import integrate, optimize, special, stats
from support import likely, likely_zero, run_python

import tinyvae as tv
from tinyvae.cli import lessons as cli_lessons
from tinyvae.cli import main as cli
from tinyvae.engine.noise import Noise
from tinyvae.lessons import elbo as elbo_lesson
from tinyvae.lessons import figures as lesson_figures
from tinyvae.lessons import montecarlo, recipes
from tinyvae.lessons.elbo import FAMILIES, Target, climb, lesson
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.montecarlo import NoExpectation, Sampler, expectation, fit, on_arrays, study
from tinyvae.lessons.recipes import TABLE, Law, law
from tinyvae.pictures import figures

# ---- the ELBO: value and derivatives ---------------------------------------------------------------------------------

A, B = np.array([0.3, 1.0, 2.0, 16.8, 50.0]), np.array([0.5, 3.0, 0.1, 4.2, 60.0])


def by_quadrature(a, b, mu, sigma):
    """E_q[log p - log q], with the density of SciPy: shares nothing with the closed form."""
    q, p = stats.gamma(a, scale=1 / b), stats.norm(mu, sigma)
    t = np.linspace(-30, 30, 601)
    u, rest = special.expit(t), special.expit(-t)  # dense at both ends of (0, 1)
    z = np.where(t < 0, q.ppf(u), q.isf(rest))
    return np.trapezoid((p.logpdf(z) - q.logpdf(z)) * u * rest, t)


def assert_elbo(function, mu=1.5, sigma=0.7):
    found = function(tv.Tensor(A), tv.Tensor(B), mu, sigma).numpy()
    expected = [by_quadrature(a, b, mu, sigma) for a, b in zip(A, B, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_the_elbo_is_what_quadrature_finds():
    assert_elbo(elbo_lesson.elbo)


@pytest.mark.parametrize("wrong", [
    lambda a, b, mu, s: elbo_lesson.elbo(a, 1 / b, mu, s),  # a scale in place of a rate
    lambda a, b, mu, s: elbo_lesson.elbo(a, b, mu, s**2),  # a variance in place of a standard deviation
    lambda a, b, mu, s: elbo_lesson.elbo(a, b, mu, s) - 2 * (1 - a) * a.digamma(),  # a sign in the entropy
    lambda a, b, mu, s: elbo_lesson.elbo(a, b, mu, s) + a / (b * b) * (0.5 / s**2),  # without Var[z]
    lambda a, b, mu, s: elbo_lesson.elbo(a, b, mu, s) + 0.5 * math.log(2 * math.pi),
])  # fmt: skip
def test_a_wrong_elbo_is_noticed(wrong):
    with pytest.raises(AssertionError):
        assert_elbo(wrong)


def slopes(a, b, mu, s):
    """By hand (papers.md 2.6): d/da and d/db."""
    trigamma = special.polygamma(1, a)
    return (-(1 / b**2 + 2 * (a / b - mu) / b) / (2 * s**2) + 1 + (1 - a) * trigamma,
            (a / b**3 + (a / b - mu) * a / b**2) / s**2 - 1 / b)  # fmt: skip


PARAMETERS = {"a": st.floats(0.05, 200), "b": st.floats(0.05, 50), "mu": st.floats(-5, 10), "sigma": st.floats(0.1, 10)}


@given(**PARAMETERS)
def test_derivatives_by_the_tape_are_those_by_hand(a, b, mu, sigma):
    a_, b_ = (tv.Tensor(np.array(x), requires_grad=True) for x in (a, b))
    found = tv.grad(elbo_lesson.elbo(a_, b_, mu, sigma), [a_, b_])
    for g, expected in zip(found, slopes(a, b, mu, sigma), strict=True):
        assert float(g.data) == pytest.approx(expected, rel=1e-9, abs=1e-9 * (1 + (a / b) ** 2 / sigma**2))


def test_derivatives_of_derivatives():
    tv.testing.check_gradients(lambda a, b: elbo_lesson.elbo(a, b, 1.0, 1.5), A[:4], np.array([0.5, 1.0, 2.0, 4.0]),
                               order=2)


def test_the_fisher_information_is_the_variance_of_the_score():
    a, b = 3.7, 1.9
    z = stats.gamma(a, scale=1 / b).ppf((np.arange(100_000) + 0.5) / 100_000)
    score = np.array([a * (np.log(b) - special.digamma(a) + np.log(z)), a - b * z])  # by log a and log b
    np.testing.assert_allclose(elbo_lesson.fisher(np.log([a, b])), score @ score.T / 100_000, rtol=2e-3)


# ---- the ELBO: the bound ---------------------------------------------------------------------------------------------


@given(**PARAMETERS)
def test_no_gamma_gets_above_the_bound(a, b, mu, sigma):
    found = float(elbo_lesson.elbo(*(tv.Tensor(np.array(x)) for x in (a, b)), mu, sigma).data)
    assert found <= elbo_lesson.bound(mu, sigma) + 1e-13 * (1 + abs(found) + a * abs(math.log(a)))
    assert elbo_lesson.bound(mu, sigma) <= 0


@pytest.mark.parametrize(("mu", "sigma"), [(4, 1), (0, 2), (-3, 1.5)])
def test_the_bound_is_that_of_the_cut_off_normal(mu, sigma):
    """-KL(q || p) for q = p on z > 0: log P(z > 0). Half of it and half of something else is lower."""
    q, p = stats.truncnorm(-mu / sigma, np.inf, mu, sigma), stats.norm(mu, sigma)
    bound = elbo_lesson.bound(mu, sigma)
    assert bound == pytest.approx(math.log(p.sf(0)), rel=1e-12)
    end = mu + 12 * sigma if mu > 0 else 12 * sigma
    found = integrate.quad(lambda z: q.pdf(z) * (p.logpdf(z) - q.logpdf(z)), 0, end, points=[max(mu, 0.1)])[0]
    assert found == pytest.approx(bound, abs=1e-9)
    other = stats.expon(scale=1.0)
    mixed = integrate.quad(lambda z: (m := (q.pdf(z) + other.pdf(z)) / 2) * (p.logpdf(z) - math.log(m)), 0, end + 40,
                           points=[max(mu, 0.1), end], limit=200)[0]  # fmt: skip
    assert mixed < bound


# ---- the ELBO: the optimum -------------------------------------------------------------------------------------------

CASES = [(4.0, 1.0, "gamma"), (-1.0, 1.0, "gamma"), (-30.0, 1.0, "gamma"), (0.3, 0.01, "gamma"), (0.0, 100.0, "gamma"),
         (5.0, 0.5, "exponential"), (-2.0, 1.0, "exponential"), (5.0, 2.0, "chi-square"),
         (0.2, 0.1, "chi-square")]  # fmt: skip


def closed_form(a, b, mu, s):
    return (-0.5 * np.log(2 * np.pi * s * s) - (a / b**2 + (a / b - mu) ** 2) / (2 * s * s) + a - np.log(b)
            + special.gammaln(a) + (1 - a) * special.digamma(a))  # fmt: skip


def best_by_scipy(mu, s, family):
    def loss(theta):
        theta = iter(theta)
        a, b = (np.exp(next(theta)) if fixed is None else fixed for fixed in (family.shape, family.rate))
        return -closed_form(a, b, mu, s)

    starts = [np.zeros(len(family.free)), np.log([max(0.5, (mu / s) ** 2), max(0.5, mu / s**2)])[family.free]]
    options = {"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000}
    found = min((optimize.minimize(loss, start, method="Nelder-Mead", options=options) for start in starts),
                key=lambda result: result.fun)  # fmt: skip
    return -found.fun


def assert_optimum(found, mu, sigma, family):
    """Stationary by the formulas by hand, and as high as SciPy gets, who knows of no derivatives."""
    a, b = found.shape, found.rate
    assert a == (family.shape or a)
    assert b == (family.rate or b)
    by_log = np.array(slopes(a, b, mu, sigma)) * [a, b]
    size = 1 + (a + (a - mu * b) ** 2) / (b * sigma) ** 2 + a
    assert (np.abs(by_log[family.free]) <= 1e-8 * size).all(), by_log
    assert found.elbo == pytest.approx(closed_form(a, b, mu, sigma), rel=1e-9, abs=1e-10)
    assert found.elbo == pytest.approx(best_by_scipy(mu, sigma, family), rel=1e-9, abs=1e-8)


@pytest.mark.parametrize(("mu", "sigma", "preset"), CASES)
def test_the_optimum(mu, sigma, preset):
    found = lesson(mu, sigma, preset=preset, frames=6)
    assert_optimum(found.best, mu, sigma, found.family)
    assert found.best.elbo <= found.bound < 0 or found.bound == 0
    assert found.best.elbo >= max(point.elbo for point in found.points) - 1e-9


def test_too_few_steps_are_noticed():
    target = Target(4.0, 1.0)
    for family in FAMILIES.values():
        start = np.log([family.shape or 2.0, family.rate or 2.0])
        short = target.point(climb(start, target, family.free, most=6)[-1])
        with pytest.raises(AssertionError):
            assert_optimum(short, 4.0, 1.0, family)


@given(start=st.tuples(st.floats(-5, 9), st.floats(-9, 9)), mu=st.floats(-10, 10), sigma=st.floats(0.2, 5))
@settings(max_examples=5)
def test_every_start_leads_to_the_same_place(start, mu, sigma):
    target = Target(mu, sigma)
    way = climb(np.array(start), target, [0, 1])
    best = climb(np.zeros(2), target, [0, 1])[-1]
    np.testing.assert_allclose(way[-1], best, atol=1e-5)
    heights = [target(theta)[0] for theta in way]
    assert (np.diff(heights) >= -1e-12 * (1 + np.abs(heights[:-1]) + np.exp(np.array(way[:-1])[:, 0]))).all()


# ---- the ELBO: the way -----------------------------------------------------------------------------------------------


def test_a_moves_first_then_b_then_both():
    found = lesson(4.0, 1.0, 2.0, 3.0, frames=30)
    first, second, third = found.stages
    assert [stage.name for stage in found.stages] == ["shape a moves", "rate b moves", "gradient ascent"]
    assert (first.points[0].shape, first.points[0].rate) == (pytest.approx(2), pytest.approx(3))
    assert len({round(p.rate, 9) for p in first.points}) == 1
    assert len({round(p.shape, 9) for p in second.points}) == 1
    assert third.points[-1] == found.best
    for stage in (first, second):  # each goes past its best: up and down again
        heights = [p.elbo for p in stage.points]
        assert max(heights) > max(heights[0], heights[-1])
    assert (np.diff([second.points[-1].elbo, *(p.elbo for p in third.points)]) > -1e-12).all()
    assert 25 <= len(found.points) <= 30


def test_other_paths_and_presets():
    assert [s.name for s in lesson(path="rate-shape", frames=9).stages][:2] == ["rate b moves", "shape a moves"]
    both = lesson(path="both", frames=9)
    assert [s.name for s in both.stages] == ["shape a and rate b move", "gradient ascent"]
    assert both.best.elbo == pytest.approx(lesson(frames=9).best.elbo, abs=1e-12)
    exponential = lesson(1.0, preset="exponential", rate=3.0, frames=9)
    assert [s.name for s in exponential.stages] == ["rate b moves", "gradient ascent"]
    assert {p.shape for p in exponential.points} == {1.0}
    assert exponential.best.rate == pytest.approx(1, abs=1e-9)  # d/db = (2/b^3 - 1/b^2) - 1/b = 0
    chi = lesson(5.0, preset="chi-square", shape=3.0, frames=9)
    assert [s.name for s in chi.stages] == ["shape a moves", "gradient ascent"]
    assert {p.rate for p in chi.points} == {0.5}


MISTAKES = [
    ({"shape": 0.0}, "--shape 0;", "from 0.001"), ({"shape": -1.0}, "--shape -1;", "from 0.001"),
    ({"shape": math.nan}, "--shape nan", "from 0.001"), ({"rate": 0.0}, "--rate 0;", "from 1e-06"),
    ({"rate": math.inf}, "--rate inf", "to 1e+06"), ({"sigma": 0.0}, "--sigma 0;", "from 0.001"),
    ({"sigma": math.nan}, "--sigma nan", "from 0.001"), ({"mu": math.nan}, "--mu nan", "from -1e+06"),
    ({"mu": 500.0}, "--mu 500 with --sigma 1", "within 300 sigma"), ({"preset": "erlang"}, "'erlang'", "chi-square"),
    ({"path": "around"}, "'around'", "rate-shape"), ({"frames": 2}, "--frames 2", "from 6 to 500"),
    ({"preset": "exponential", "shape": 2.0}, "--shape 2 with --preset exponential", "is 1"),
    ({"preset": "chi-square", "rate": 2.0}, "--rate 2 with --preset chi-square", "is 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "found", "choices"), MISTAKES)
def test_a_mistake_gets_one_sentence(options, found, choices):
    with pytest.raises(ValueError, match="found") as caught:
        lesson(**options)
    assert found in str(caught.value)
    assert choices in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- recipes ---------------------------------------------------------------------------------------------------------

SCIPY = {
    "exponential": lambda rate: stats.expon(scale=1 / rate), "logistic": stats.logistic, "gumbel": stats.gumbel_r,
    "rayleigh": lambda scale: stats.rayleigh(scale=scale), "weibull": lambda k, s: stats.weibull_min(k, scale=s),
    "pareto": lambda k, s: stats.pareto(k, scale=s), "normal": stats.norm, "laplace": stats.laplace,
    "uniform": lambda low, high: stats.uniform(low, high - low),
    "log-normal": lambda mu, sigma: stats.lognorm(sigma, scale=math.exp(mu)),
    "gamma": lambda shape, rate: stats.gamma(shape, scale=1 / rate), "chi-square": stats.chi2, "f": stats.f,
    "beta": stats.beta, "dirichlet": lambda first, *others: stats.beta(first, sum(others)), "cauchy": stats.cauchy,
}  # fmt: skip
LAWS = ["exponential(2)", "logistic(1, 0.5)", "gumbel(-1, 2)", "rayleigh(3)", "weibull(0.7, 2)", "pareto(2.5, 3)",
        "normal(1, 2)", "laplace(1, 0.5)", "uniform(-1, 3)", "log-normal(1, 0.5)", "gamma(4, 0.5)", "chi-square(1)",
        "f(3, 7)", "beta(1, 4)", "dirichlet(1, 2, 3, 4)", "cauchy(-1, 2)"]  # fmt: skip


def of_scipy(q):
    return SCIPY[q.recipe.name](*q.values)


def test_all_recipes_are_tested():
    assert set(SCIPY) == set(TABLE) == {law(text).recipe.name for text in LAWS}


@pytest.mark.parametrize("text", LAWS)
def test_densities_are_those_of_scipy(text):
    q = law(text)
    z = of_scipy(q).ppf(np.array([1e-6, 0.01, 0.3, 0.5, 0.8, 0.99, 1 - 1e-6]))
    np.testing.assert_allclose(q.log_density(z), of_scipy(q).logpdf(z), rtol=1e-9, atol=1e-9)
    assert q.support == pytest.approx(of_scipy(q).support())


def distances(draw, laws=LAWS, count=4000):
    """Kolmogorov and Smirnov's p-value of the draws of each law against SciPy's distribution function."""
    return {text: stats.kstest(draw(law(text), count), of_scipy(law(text)).cdf).pvalue for text in laws}


def assert_right_law(draw, laws=LAWS):
    p = distances(draw, laws)
    print(p)
    likely("the smallest of all", min(1.0, len(p) * min(p.values())))


def by_g(q, count):
    return q.g(q.eps(Noise(5, "test"), count)).numpy()


def test_g_has_the_law_of_q():
    assert_right_law(by_g)


def test_draws_by_the_density_have_the_law_of_q():
    assert_right_law(lambda q, count: Sampler(q)(Noise(6, "test").uniform((count,), np.float64).numpy()))


@pytest.mark.parametrize("text", ["laplace(1, 0.5)", "chi-square(1)", "beta(1, 4)", "cauchy(-1, 2)"])
def test_the_table_of_the_distribution_function_is_fine_enough(text):
    """What it adds to an expectation is nothing beside the error of a hundred million draws."""
    f, q = on_arrays(parse("1/(1 + z**2)")), law(text)
    u = (np.arange(400_000) + 0.5) / 400_000
    assert f(Sampler(q)(u)).mean() == pytest.approx(expectation(f, q), abs=1e-6)


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
    with pytest.raises(AssertionError):
        assert_right_law(lambda q, count: wrong(q.eps(Noise(5, "test"), count), *q.values).numpy(), [text])


def test_the_trick_a_gradient_passes_through_g():
    """The mean of d/dv f(g(eps; v)) is d/dv E_q[f]: by quadrature, moved a little."""
    f, count = parse("log(1 + z**2)"), 20_000
    for text in ("normal(1, 2)", "log-normal(1, 0.5)", "weibull(2, 2)", "gamma(3, 0.5)"):
        q = law(text)
        last = len(q.values) - 1  # a scale or a rate; or sigma
        v = tv.Tensor(np.full(count, q.values[last]), requires_grad=True)
        z = q.g(q.eps(Noise(7, "test"), count), *q.values[:last], v)
        each = tv.grad(f(z).sum(), v).numpy()
        more, less = (expectation(on_arrays(f), Law(q.recipe, (*q.values[:last], q.values[last] + h)))
                      for h in (1e-4, -1e-4))  # fmt: skip
        likely_zero(f"the gradient under {text}", each.mean() - (more - less) / 2e-4, each.std() / math.sqrt(count))


@pytest.mark.parametrize(("text", "found", "choices"), [
    ("poisson", "'poisson'", "normal(mu, sigma)"), ("normal(", "'normal('", "gamma(shape, rate)"), ("", "''", "normal"),
    ("normal(a, 1)", "'normal(a, 1)'", "normal(mu, sigma)"), ("normal(1, 2, 3)", "3 in the bracket", "(mu, sigma)"),
    ("gamma(0.5, 2)", "shape 0.5", "a whole number from 1 to 100"), ("normal(0, 0)", "sigma 0", "a number from 0.0001"),
    ("normal(nan, 1)", "mu nan", "from -10000"), ("exponential(-1)", "rate -1", "from 0.0001"),
    ("uniform(2, 1)", "low 2 and high 1", "low < high"), ("chi-square(101)", "degrees 101", "to 100"),
    ("dirichlet(3)", "1 in the bracket", "dirichlet(a1, a2, a3, ... up to 20)"), ("f(inf)", "d1 inf", "whole number"),
])  # fmt: skip
def test_a_mistake_in_q_gets_one_sentence(text, found, choices):
    with pytest.raises(ValueError, match="found") as caught:
        law(text)
    assert found in str(caught.value)
    assert choices in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_may_be_left_out():
    assert str(law("normal")) == str(law(" normal ( ) ")) == "normal(0, 1)"
    assert str(law("gamma(2)")) == "gamma(2, 1)"
    assert str(law("dirichlet(1,2)")) == "dirichlet(1, 2)"


# ---- the exact value -------------------------------------------------------------------------------------------------

MOMENTS = ["exponential(2)", "logistic(1, 0.5)", "gumbel(-1, 2)", "rayleigh(3)", "weibull(0.7, 2)", "pareto(2.5, 3)",
           "normal(100, 0.5)", "laplace(1, 0.5)", "uniform(-1, 3)", "log-normal(1, 0.5)", "gamma(4, 0.5)",
           "chi-square(1)", "f(3, 7)", "beta(1, 4)", "dirichlet(1, 2, 3, 4)"]  # fmt: skip


@pytest.mark.parametrize("text", MOMENTS)
def test_expectations_are_the_moments_of_scipy(text):
    q = law(text)
    mean, variance = of_scipy(q).stats("mv")
    assert expectation(lambda z: z, q) == pytest.approx(float(mean), rel=1e-9)
    assert expectation(lambda z: (z - mean) ** 2, q) == pytest.approx(float(variance), rel=1e-8)


@pytest.mark.parametrize(("text", "f", "expected"), [
    ("cauchy", "1/(1 + z**2)", 0.5), ("cauchy", "abs(z)**0.5", math.sqrt(2)), ("normal", "z > 5", special.ndtr(-5)),
    ("uniform(-1, 1)", "z > 0", 0.5), ("uniform(-1, 1)", "(z > 0.123) * (z < 0.5)", 0.1885), ("normal", "sign(z)", 0.0),
    ("normal", "abs(z)", math.sqrt(2 / math.pi)), ("beta(1, 1)", "z**-0.4", 5 / 3),
    ("normal", "log(abs(z))", -(np.euler_gamma + math.log(2)) / 2),
    ("chi-square(1)", "log(z)", special.digamma(0.5) + math.log(2)), ("normal", "exp(z**2/4)", math.sqrt(2)),
    ("f(1, 1)", "z > 1", 0.5), ("exponential", "exp(z) / (1 + exp(z))", math.log(2)), ("normal", "3", 3.0),
])  # fmt: skip
def test_expectations_with_jumps_kinks_and_poles(text, f, expected):
    e = parse(f)
    assert expectation(on_arrays(e), law(text), f, [on_arrays(edge) for edge in e.edges]) == pytest.approx(
        expected, rel=1e-8, abs=1e-12)  # fmt: skip


def test_a_jump_that_quadrature_is_not_told_of_can_be_overlooked():
    """Why expressions know their edges."""
    q = law("uniform(-1, 1)")
    f = parse("z > 0.44")
    jump, edge = on_arrays(f), on_arrays(f.edges[0])
    assert abs(expectation(jump, q, edges=[edge]) - 0.28) < 1e-12
    jumps = np.linspace(0.01, 0.99, 10)
    errors = [abs(expectation(lambda z, jump=jump: (z > jump) + 0.0, q) - (1 - jump) / 2) for jump in jumps]
    assert max(errors) > 1e-6


@pytest.mark.parametrize(("text", "f"), [
    ("cauchy", "z"), ("cauchy", "z**2"), ("exponential", "exp(z)"), ("normal", "1/z"), ("normal", "exp(z**2)"),
    ("pareto(1)", "z"), ("beta(1, 1)", "1/(1 - z)"), ("f(4, 4)", "z**2"), ("gumbel", "exp(z)"),
    ("uniform(-1, 1)", "1/z"),
])  # fmt: skip
def test_what_has_no_expectation_is_refused(text, f):
    with pytest.raises(NoExpectation, match=r"under .* is infinite.*bounded one such as 1/\(1\+z\*\*2\)"):
        study(law(text), parse(f))


@pytest.mark.parametrize(("text", "f", "message"), [
    ("normal", "log(z)", "log(z) has no value at z = -0.0"), ("normal", "sqrt(z - 1)", "for all z from -inf to inf"),
    ("exponential", "exp(z/2)", "the expectation 2 under exponential(1), but an infinite variance"),
    ("pareto(2)", "z", "so errors do not fall as 1/sqrt(L)"), ("normal", "2", "no variance"),
    ("normal", "z > 100", "no variance"),
])  # fmt: skip
def test_what_cannot_be_studied(text, f, message):
    with pytest.raises(ValueError, match="choose an f") as caught:
        study(law(text), parse(f))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [
    ({"largest": 63}, "found 63 samples; expected 64 or more"), ({"repetitions": 9}, "9 repetitions; expected 10"),
    ({"largest": 10**7}, "10000000 samples in 100"), ({"seed": -1}, "seed is -1"),
    ({"largest": 10**6, "repetitions": 10}, "each of 100 variates; expected 335544 samples"),
])  # fmt: skip
def test_wrong_numbers_of_draws(options, message):
    with pytest.raises(ValueError, match="expected") as caught:
        study(law("gamma(100)"), parse("z**2"), **options)
    assert message in str(caught.value)


# ---- Monte Carlo -----------------------------------------------------------------------------------------------------

STUDIED = {"exponential(2)": "z**2", "normal(1, 2)": "z > 0.5", "beta(2, 3)": "log(z)", "cauchy": "1/(1 + z**2)"}


@pytest.fixture(scope="module")
def studies():
    """A study by each of the three recipes, and of a jump."""
    return {text: study(law(text), parse(f), 4096, 60, seed=3) for text, f in STUDIED.items()}


def assert_falls_as_one_over_root_l(found):
    for slope in found.slopes:
        likely_zero(f"slope under {found.q}", slope.value + 0.5, slope.stderr)
    likely_zero("the two routes", *found.difference)
    for row in found.rows:
        for estimate in row.estimate:
            likely_zero(f"L = {row.draws}", estimate - found.exact, row.expected)
    # the errors together: sum (rms / expected)^2 has the mean 2 * rows, and a variance that the rows tell
    parts = np.array([np.square(row.rms) / row.expected**2 for row in found.rows])
    errors = np.array([2 * parts[i] * row.rms_stderr for i, row in enumerate(found.rows)])
    likely_zero("size of the errors", (parts - 1).sum(), np.sqrt((errors**2).sum()))


@pytest.mark.parametrize("text", STUDIED)
def test_errors_fall_as_one_over_root_l(text, studies):
    assert_falls_as_one_over_root_l(studies[text])
    assert [row.draws for row in studies[text].rows] == [16, 64, 256, 1024, 4096]
    assert not studies[text].rests_on_rare_draws


def test_a_wrong_g_has_errors_that_do_not_fall(monkeypatch):
    """An estimator that is off by a tenth stays off by a tenth: slope, difference and estimates say so."""
    monkeypatch.setattr(montecarlo.Reparameterized, "__call__", lambda self, count: 0.1 + self.q.g(
        self.q.eps(self.noise, count)).data)  # fmt: skip
    found = study(law("normal"), parse("z"), 4096, 30)
    assert found.slopes[1].interval[0] > -0.4
    with pytest.raises(AssertionError):
        assert_falls_as_one_over_root_l(found)
    assert abs(found.difference[0]) > 5 * found.difference[1]


def test_the_line_through_the_errors():
    slope = fit([16, 64, 256], [2.0, 1.0, 0.5], [0.1, 0.1, 0.1])
    assert slope.value == pytest.approx(-0.5)
    # with equal errors s at three points d apart, the slope's error is s / (d sqrt 2)
    assert slope.stderr == pytest.approx(0.1 / (math.log(4) * math.sqrt(2)))
    assert slope.interval == pytest.approx((-0.5 - 1.959964 * slope.stderr, -0.5 + 1.959964 * slope.stderr))


def test_the_interval_of_the_slope_means_what_it_says(studies):
    """The slope's standard error against the spread of slopes of simulated normal errors."""
    rng = np.random.default_rng(0)
    ladder, slopes_, errors = [16, 64, 256, 1024], [], []
    for _ in range(400):
        e = rng.standard_normal((4, 60)) / np.sqrt(ladder)[:, None]
        mse = (e**2).mean(1)
        slope = fit(ladder, list(np.sqrt(mse)), list((e**2).std(1, ddof=1) / math.sqrt(60) / (2 * mse)))
        slopes_.append(slope.value)
        errors.append(slope.stderr)
    ratio = np.var(slopes_) / np.mean(np.square(errors))
    likely_zero("variance of the slope against what is said of it", ratio - 1, math.sqrt(2 / 400) + 0.02)
    likely_zero("slope", np.mean(slopes_) + 0.5, np.std(slopes_) / math.sqrt(400))


def test_rare_draws_are_told_of():
    found = study(law("normal"), parse("z > 3.5"), 64, 20)
    assert found.rests_on_rare_draws
    assert "rest on rare draws" in cli_lessons.study_report(found)


def test_the_same_seed_gives_the_same_study_and_another_does_not():
    a, b, c = (study(law("gamma(2, 1)"), parse("z"), 64, 10, seed) for seed in (1, 1, 2))
    assert a.rows == b.rows != c.rows


def test_means_do_not_depend_on_the_blocks(monkeypatch):
    """As many means as asked for, of as many draws, whatever fits into memory at once."""
    def whole(block):
        monkeypatch.setattr(montecarlo, "BLOCK", block)
        sizes = []

        def route(count):
            sizes.append(count)
            return np.arange(count) % 8.0

        route.variates = 3
        return montecarlo.means(route, lambda z: z, 8, 10), sizes

    for block, sizes in ((10**6, [80]), (100, [32, 32, 16]), (1, [8] * 10)):
        (mean, stderr), found = whole(block)
        assert found == sizes
        np.testing.assert_allclose(mean, np.full(10, 3.5))
        np.testing.assert_allclose(stderr, np.arange(8).std(ddof=1) / math.sqrt(8))


# ---- pictures and commands -------------------------------------------------------------------------------------------


def colours(file):
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)


@pytest.fixture
def coarse(monkeypatch):
    """Pictures of few pixels, which take less time."""
    monkeypatch.setattr(figures, "DPI", 70)
    monkeypatch.setattr(lesson_figures, "SCREEN", 70)


@pytest.mark.parametrize("options", [{}, {"mu": -20.0}, {"mu": -100.0}, {"mu": 300.0}, {"shape": 1e6},
                                     {"preset": "exponential", "mu": 1.0}])  # fmt: skip
def test_pictures_of_the_elbo(options, tmp_path, coarse):
    found = lesson(**options, frames=6)
    strip = lesson_figures.elbo_strip(found, tmp_path / "a.png")
    film = lesson_figures.elbo_animation(found, tmp_path / "a.gif")
    for file in (strip, film):
        pixels = colours(file)
        assert (pixels[:4] > 250).all()  # nothing is cut off at an edge
        assert (pixels[:, :4] > 250).all()
        for colour in ((0, 114, 178), (213, 94, 0)):  # p and q
            assert (np.abs(pixels - np.array(colour, np.int16)).sum(-1) < 40).sum() > 20
    with Image.open(film) as gif:
        assert gif.n_frames == len(found.points)
        assert gif.info["loop"] == 0
    if not options:
        content = strip.read_bytes(), film.read_bytes()
        assert lesson_figures.elbo_strip(found, tmp_path / "b.png").read_bytes() == content[0]
        assert lesson_figures.elbo_animation(found, tmp_path / "b.gif").read_bytes() == content[1]


def test_the_picture_of_a_study(studies, tmp_path, coarse):
    for found in (studies["beta(2, 3)"], studies["cauchy"]):
        file = lesson_figures.montecarlo(found, tmp_path / "a.png")
        pixels = colours(file)
        assert (pixels[:4] > 250).all()
        assert (np.abs(pixels - np.array((0, 114, 178), np.int16)).sum(-1) < 40).sum() > 20
        assert lesson_figures.montecarlo(found, tmp_path / "b.png").read_bytes() == file.read_bytes()


def test_short_numbers():
    shown = {-3.167e-5: "−3.2 · 10⁻⁵", 0.0: "0", 16.7686: "16.8", -1.85: "−1.85", 123456.0: "123,456", 0.0123: "0.0123",
             -1.25e11: "−1.2 · 10¹¹"}
    assert {value: lesson_figures._number(value) for value in shown} == shown
    assert lesson_figures._number(-0.02066, 3) == "−0.021"
    assert lesson_figures._number(-0.0) == "0"
    assert [lesson_figures._power(value) for value in (-1e6, -10.0, 0.0)] == ["−10⁶", "−10", "0"]


@pytest.mark.parametrize(("mu", "seen"), [(-3.0, True), (0.5, True), (4.0, False), (-100.0, False), (300.0, False)])
def test_the_caption_tells_of_what_is_seen(mu, seen):
    axes = figures._figure(4, 3).add_subplot()
    _, hatched = lesson_figures._densities(axes, lesson(mu, frames=6))
    assert hatched == seen


def test_no_line_from_nowhere_at_zero():
    """A density that is 0 at 0 and high on the next point begins at its mode; others are drawn whole."""
    axes = figures._figure(4, 3).add_subplot()
    found = lesson(-3.0, frames=6)
    curve, _ = lesson_figures._densities(axes, found)
    lesson_figures._move(curve, found.best)
    y = curve.get_ydata()
    assert np.isnan(y[0])
    assert (np.diff(y[np.isfinite(y)]) <= 0).all()
    lesson_figures._move(curve, found.points[0])
    assert np.isfinite(curve.get_ydata()).all()


@pytest.fixture
def run(run, coarse):
    """The program, with coarse pictures."""
    return run


def test_the_command_elbo(run):
    code, out, err = run("elbo", "--mu", -1, "--frames", 6)
    assert (code, err) == (0, "")
    assert "a = 1.21286, b = 2.35333" in out
    assert "-1.850504 nats (higher is better)" in out
    assert "-1.841022 nats = log P(z > 0)" in out
    assert "ELBO = -KL(q || p) <= 0" in out
    for name in ("elbo.gif", "elbo.png"):
        assert str(Path("lessons", name)) in out
        assert Path("lessons", name).stat().st_size > 5_000
    options = ("--preset", "chi-square", "--mu", 5, "--sigma", 2, "--frames", 6)
    _, out, _ = run("elbo", *options, "--json", "--out", "x/y")
    found = json.loads(out)
    assert (found["rate"], found["preset"]) == (0.5, "chi-square")
    assert found["elbo"] < found["bound"] < 0
    assert all(Path(file).exists() for file in found["files"])


def test_the_command_montecarlo(run):
    code, out, err = run("montecarlo", "--q", "gamma(3, 2)", "--f", "z > 1", "--samples", 256, "--repetitions", 20)
    assert (code, err) == (0, "")
    for part in ("q = gamma(3, 2); g by composition", "E[z > 1] = 0.67667642 exactly", "95 % interval", "theory: -0.5",
                 "f jumps", "difference of the two over 5,120 draws", str(Path("lessons", "montecarlo.png"))):
        assert part in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("   ")] == ["L", "16", "64", "256"]
    code, out, err = run("montecarlo", "--q", "cauchy", "--samples", 64, "--repetitions", 10, "--json")
    found = json.loads(out)
    assert (found["f"], found["way"]) == ("1/(1+z**2)", "inverse distribution function")
    assert found["exact"] == pytest.approx(0.5)
    assert [row["draws"] for row in found["rows"]] == [16, 64]


@pytest.mark.parametrize(("arguments", "parts"), [
    (["elbo", "--shape", "0"], ["--shape 0", "expected a number from 0.001"]),
    (["elbo", "--sigma", "nan"], ["--sigma nan"]),
    (["elbo", "--preset", "erlang"], ["gamma, exponential, chi-square"]),
    (["montecarlo", "--q", "zipf"], ["'zipf'", "normal(mu, sigma)"]),
    (["montecarlo", "--f", "import os"], ["'import' at place 1", "expected z"]),
    (["montecarlo", "--q", "cauchy", "--f", "z"], ["E[z] under cauchy(0, 1) is infinite"]),
    (["montecarlo", "--f", ""], ["found nothing more at place 1", "expected z"]),
    (["montecarlo", "--f", "1/z"], ["a pole of f, an overflow, or tails"]),
    (["montecarlo", "--out", "file", "--samples", "64", "--repetitions", "10"], ["file cannot be made: ", "--out"]),
    (["elbo", "--frames", "6", "--out", "file/x"], ["file/x cannot be made: ", "choose another --out"]),
])  # fmt: skip
def test_mistakes_end_with_2_and_one_sentence(arguments, parts, run):
    Path("file").touch()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tinyvae: ")
    assert len(err.splitlines()) == 1
    for part in parts:
        assert part in err
    assert not Path("lessons").exists() or arguments[1] != "--out"


def test_help(run):
    _, out, _ = run("--help")
    for command in ("elbo", "montecarlo"):
        assert command in out
        code, text, _ = run(command, "--help")
        assert code == 0
        assert "--out" in text
    assert set(cli_lessons.EXAMPLES) <= set(cli.EXAMPLES)
    _, text, _ = run("montecarlo", "--help")
    for name in recipes.TABLE:
        assert name in text


def test_the_modules_are_light():
    """SciPy and Matplotlib come with the first lesson, not with the command line."""
    done = run_python("import sys, tinyvae.cli.main, tinyvae.cli.lessons\n"
                      "import tinyvae.lessons.expressions, tinyvae.lessons.recipes\n"
                      "import tinyvae.lessons.montecarlo, tinyvae.lessons.elbo, tinyvae.lessons.figures\n"
                      "print(sorted({'scipy', 'matplotlib', 'PIL', 'numba'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr
