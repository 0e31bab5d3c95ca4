"""The ELBO in one dimension, against quadrature and SciPy's optimum."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, special, stats

import tinyvae as tv
from tinyvae.lessons.elbo import PRESETS, Point, bound, climb, elbo, fisher, lesson, target

# ---- value and derivatives -------------------------------------------------------------------------------------------

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
    assert_elbo(elbo)


@pytest.mark.parametrize("wrong", [
    lambda a, b, mu, s: elbo(a, 1 / b, mu, s),  # a scale in place of a rate
    lambda a, b, mu, s: elbo(a, b, mu, s**2),  # a variance in place of a standard deviation
    lambda a, b, mu, s: elbo(a, b, mu, s) - 2 * (1 - a) * a.digamma(),  # a sign in the entropy
    lambda a, b, mu, s: elbo(a, b, mu, s) + a / (b * b) * (0.5 / s**2),  # without Var[z]
    lambda a, b, mu, s: elbo(a, b, mu, s) + 0.5 * math.log(2 * math.pi),
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
    found = tv.grad(elbo(a_, b_, mu, sigma), [a_, b_])
    for g, expected in zip(found, slopes(a, b, mu, sigma), strict=True):
        assert float(g.data) == pytest.approx(expected, rel=1e-9, abs=1e-9 * (1 + (a / b) ** 2 / sigma**2))


def test_derivatives_of_derivatives():
    tv.testing.check_gradients(lambda a, b: elbo(a, b, 1.0, 1.5), A[:4], np.array([0.5, 1.0, 2.0, 4.0]),
                               order=2)


def test_the_fisher_information_is_the_variance_of_the_score():
    a, b = 3.7, 1.9
    z = stats.gamma(a, scale=1 / b).ppf((np.arange(100_000) + 0.5) / 100_000)
    score = np.array([a * (np.log(b) - special.digamma(a) + np.log(z)), a - b * z])  # by log a and log b
    np.testing.assert_allclose(fisher(np.log([a, b])), score @ score.T / 100_000, rtol=2e-3)


# ---- the bound ---------------------------------------------------------------------------------------------


@given(**PARAMETERS)
def test_no_gamma_gets_above_the_bound(a, b, mu, sigma):
    found = float(elbo(*(tv.Tensor(np.array(x)) for x in (a, b)), mu, sigma).data)
    assert found <= bound(mu, sigma) + 1e-13 * (1 + abs(found) + a * abs(math.log(a)))
    assert bound(mu, sigma) <= 0


@pytest.mark.parametrize(("mu", "sigma"), [(4, 1), (0, 2), (-3, 1.5)])
def test_the_bound_is_that_of_the_cut_off_normal(mu, sigma):
    """-KL(q || p) for q = p on z > 0: log P(z > 0). Half of it and half of something else is lower."""
    q, p = stats.truncnorm(-mu / sigma, np.inf, mu, sigma), stats.norm(mu, sigma)
    highest = bound(mu, sigma)
    assert highest == pytest.approx(math.log(p.sf(0)), rel=1e-12)
    end = mu + 12 * sigma if mu > 0 else 12 * sigma
    found = integrate.quad(lambda z: q.pdf(z) * (p.logpdf(z) - q.logpdf(z)), 0, end, points=[max(mu, 0.1)])[0]
    assert found == pytest.approx(highest, abs=1e-9)
    other = stats.expon(scale=1.0)
    mixed = integrate.quad(lambda z: (m := (q.pdf(z) + other.pdf(z)) / 2) * (p.logpdf(z) - math.log(m)), 0, end + 40,
                           points=[max(mu, 0.1), end], limit=200)[0]  # fmt: skip
    assert mixed < highest


# ---- the optimum -------------------------------------------------------------------------------------------

CASES = [(4.0, 1.0, "gamma"), (-1.0, 1.0, "gamma"), (-30.0, 1.0, "gamma"), (0.3, 0.01, "gamma"), (0.0, 100.0, "gamma"),
         (5.0, 0.5, "exponential"), (-2.0, 1.0, "exponential"), (5.0, 2.0, "chi-square"),
         (0.2, 0.1, "chi-square")]  # fmt: skip


def closed_form(a, b, mu, s):
    return (-0.5 * np.log(2 * np.pi * s * s) - (a / b**2 + (a / b - mu) ** 2) / (2 * s * s) + a - np.log(b)
            + special.gammaln(a) + (1 - a) * special.digamma(a))  # fmt: skip


def free_of(fixed):
    return [i for i in (0, 1) if fixed[i] is None]


def best_by_scipy(mu, s, fixed):
    def loss(theta):
        theta = iter(theta)
        return -closed_form(*(np.exp(next(theta)) if value is None else value for value in fixed), mu, s)

    free = free_of(fixed)
    starts = [np.zeros(len(free)), np.log([max(0.5, (mu / s) ** 2), max(0.5, mu / s**2)])[free]]
    options = {"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000}
    found = min((optimize.minimize(loss, start, method="Nelder-Mead", options=options) for start in starts),
                key=lambda result: result.fun)  # fmt: skip
    return -found.fun


def assert_optimum(found, mu, sigma, fixed):
    """Stationary by the formulas by hand, and as high as SciPy gets, who knows of no derivatives."""
    a, b = found.shape, found.rate
    assert (a, b) == (fixed[0] or a, fixed[1] or b)
    by_log = np.array(slopes(a, b, mu, sigma)) * [a, b]
    size = 1 + (a + (a - mu * b) ** 2) / (b * sigma) ** 2 + a
    assert (np.abs(by_log[free_of(fixed)]) <= 1e-8 * size).all(), by_log
    assert found.elbo == pytest.approx(closed_form(a, b, mu, sigma), rel=1e-9, abs=1e-10)
    assert found.elbo == pytest.approx(best_by_scipy(mu, sigma, fixed), rel=1e-9, abs=1e-8)


@pytest.mark.parametrize(("mu", "sigma", "preset"), CASES)
def test_the_optimum(mu, sigma, preset):
    found = lesson(mu, sigma, preset=preset, frames=6)
    assert_optimum(found.best, mu, sigma, PRESETS[preset])
    assert found.best.elbo <= found.bound < 0 or found.bound == 0
    assert found.best.elbo >= max(point.elbo for point in found.points) - 1e-9


def test_too_few_steps_are_noticed():
    objective = target(4.0, 1.0)
    for fixed in PRESETS.values():
        start = np.log([fixed[0] or 2.0, fixed[1] or 2.0])
        short = climb(start, objective, free_of(fixed), most=6)[-1]
        with pytest.raises(AssertionError):
            assert_optimum(Point(*np.exp(short), objective(short)[0]), 4.0, 1.0, fixed)


@given(start=st.tuples(st.floats(-5, 9), st.floats(-9, 9)), mu=st.floats(-10, 10), sigma=st.floats(0.2, 5))
@settings(max_examples=5)
def test_every_start_leads_to_the_same_place(start, mu, sigma):
    objective = target(mu, sigma)
    way = climb(np.array(start), objective, [0, 1])
    best = climb(np.zeros(2), objective, [0, 1])[-1]
    np.testing.assert_allclose(way[-1], best, atol=1e-5)
    heights = [objective(theta)[0] for theta in way]
    assert (np.diff(heights) >= -1e-12 * (1 + np.abs(heights[:-1]) + np.exp(np.array(way[:-1])[:, 0]))).all()


# ---- the way -----------------------------------------------------------------------------------------------


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
