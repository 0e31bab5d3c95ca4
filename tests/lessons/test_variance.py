"""How estimators compare: exact variances against closed forms and draws; those made wrong must be refused."""

from dataclasses import replace

import numpy as np
import pytest
from gradients import GREP, PATH, SCORE, check_mean, check_variance, spreads
from scipy.special import polygamma
from support import assert_close

from tinyvae.lessons.estimates import Choice
from tinyvae.lessons.expectations import derivative
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import member
from tinyvae.lessons.variance import Nodes, exact_variances, of_expectation, sweep

# ---- means and variances that are known ------------------------------------------------------------------------------


def test_the_toy_of_the_papers():
    """q = N(1, 1), f = z^2, by mu: mean 2 by both, variance 30 by the score, 4 by the path."""
    q = member("normal", {"mu": 1.0})
    found = spreads(q, "z**2", [SCORE, Choice("reparam"), GREP], steps=60)
    exact = exact_variances(q, parse("z**2"), [SCORE, GREP], 8, 4001)
    assert_close([exact["mu", SCORE], exact["mu", GREP]], [30.0, 4.0], 1e4)
    for row, variance in ((SCORE, 30.0), (Choice("reparam"), 4.0), (GREP, 4.0)):
        check_mean(row.name, found[row, "mu"], 2.0)
        check_variance(row.name, found[row, "mu"], variance)


# f = z log z under Gamma(a, 1): exact gradient, variances of G-REP and of the score (research/features.md, by draws)
Z_LOG_Z = {0.3: (0.1711, 61, 7.5), 1.0: (1.0677, 8.6, 9.3), 2.0: (1.7127, 3.5, 14.4), 5.0: (2.6127, 1.4, 36),
           20.0: (3.9959, 0.50, 226)}


@pytest.mark.parametrize("a", Z_LOG_Z)
def test_g_rep_wins_above_shape_one_only(a):
    gradient, by_grep, by_score = Z_LOG_Z[a]
    q, f = member("gamma", {"shape": a}), parse("z*log(z)")
    exact = derivative(q, f, "shape").value
    assert abs(exact - gradient) < 5e-5
    variances = {row: value for (by, row), value in exact_variances(q, f, [SCORE, GREP], 8, 4001).items()
                 if by == "shape"}
    np.testing.assert_allclose([variances[GREP], variances[SCORE]], [by_grep, by_score], rtol=0.12)  # theirs: draws
    assert (variances[GREP] < variances[SCORE]) == (a >= 1)
    found = spreads(q, "z*log(z)", [SCORE, GREP])
    for row in (SCORE, GREP):
        check_mean(f"{row.name} at {a}", found[row, "shape"], exact)
        check_variance(f"{row.name} at {a}", found[row, "shape"], variances[row])


@pytest.mark.parametrize("a", [1e-3, 1e-4])
def test_exact_variances_of_small_shapes(a):
    """f = log z: log z is nearly -E / a, E exponential, so the score's is 13 / a^4, G-REP's 1 / a^4; by the rate 0."""
    exact = exact_variances(member("gamma", {"shape": a}), parse("log(z)"), [SCORE, GREP], 8, 4001)
    np.testing.assert_allclose([exact["shape", row] * a**4 for row in (SCORE, GREP)], [13, 1], rtol=10 * a)
    assert exact["rate", GREP] == 0


def test_exact_variances_beside_an_edge():
    q = member("laplace", {"mu": 0.3})
    exact = [exact_variances(each, parse("abs(z)"), [GREP], 8, 1201)["mu", GREP] for each in (q, q.with_("mu", 0.0))]
    assert_close(exact, [1 - (1 - np.exp(-0.3)) ** 2, 1.0], 1e5)


def test_a_variance_that_is_not_accurate_is_not_called_exact():
    """The edge at which f jumps, untold; and a line that ends too soon."""
    f, q = parse("(z > 1.2345)"), member("gamma")
    assert np.isfinite(exact_variances(q, f, [SCORE], 8, 401)["shape", SCORE])
    assert np.isnan(exact_variances(q, replace(f, edges=()), [SCORE], 8, 401)["shape", SCORE])


def test_rounding_is_no_variance():
    """G-REP and the implicit path by the rate are -1 at every draw of f = log z: a tie, whatever rounding makes."""
    course = sweep(member("gamma", {"shape": 1e-3}), parse("log(z)"))
    assert not course.curves["rate", GREP].any()
    assert not course.curves["rate", Choice("implicit")].any()
    assert (course.curves["rate", SCORE] > 0).all()


def test_leave_one_out_has_the_variance_of_a_sample_covariance():
    row = Choice("score", "leave-one-out")
    for samples in (2, 8):
        q = member("gamma", {"shape": 3.0})
        exact = exact_variances(q, parse("sqrt(z)"), [row], samples, 4001)["shape", row]
        check_variance(f"L = {samples}", spreads(q, "sqrt(z)", [row], samples)[row, "shape"], exact, samples)


@pytest.mark.parametrize("shape", [0.05, 1.0, 30.0])
def test_where_the_correction_vanishes(shape):
    """By the rate always; by the shape in the mean, where f is a quadratic in log z. Of z it is 1 - g_rep."""
    q, correction = member("gamma", {"shape": shape, "rate": 1.7}), Choice("grep", part="g_corr")

    @np.errstate(all="ignore")
    def mean(text):
        nodes = Nodes(q, parse(text), 4001)
        return {by: nodes.mean(g) for (by, _), g in nodes.gradients([correction], parse(text)).items()}

    for text in ("log(z)", "log(z)**2", "3 - log(z)*(1 + log(z))"):
        assert abs(mean(text)["shape"]) < 1e-9 * (1 + shape**-3)
        assert abs(mean(text)["rate"]) < 1e-12
    one, two = float(polygamma(1, shape)), float(polygamma(2, shape))
    assert abs(1.7 * mean("z")["shape"] - (1 - (shape * one + two / (2 * one)))) < 1e-9  # z = G / 1.7
    assert abs(mean("z")["rate"]) < 1e-12
    assert abs(mean("log(z)**3")["shape"]) > 1e-6  # the third moment moves


# ---- what must fail --------------------------------------------------------------------------------------------------


def test_wrong_estimates_are_refused():
    """G-REP without its correction; the variance of an estimate for that of a draw; another parameter's gradient."""
    q, f = member("gamma", {"shape": 2.0}), parse("z*log(z)")
    found, exact = spreads(q, "z*log(z)", [SCORE, PATH]), derivative(q, f, "shape").value
    check_mean("the score", found[SCORE, "shape"], exact)
    variance = exact_variances(q, f, [SCORE], 8, 4001)["shape", SCORE]
    check_variance("the score", found[SCORE, "shape"], variance)
    with pytest.raises(AssertionError):
        check_mean("no correction", found[PATH, "shape"], exact)
    with pytest.raises(AssertionError):
        check_variance("of an estimate", found[SCORE, "shape"], variance, samples=1)
    with pytest.raises(AssertionError):
        check_mean("by the rate", found[SCORE, "shape"], derivative(q, f, "rate").value)


def test_a_wrong_map_shows_in_the_table(monkeypatch):
    """A standardisation with the wrong deviation, of which log_scale knows nothing."""
    from tinyvae.distributions import Gamma

    monkeypatch.setattr(Gamma, "log_scale", lambda self: 0.9 * self._moments()[1].log())
    table = of_expectation(member("gamma"), parse("z**2"), ["grep"], draws=200_000).tables[0]
    assert abs(next(line.z for line in table.lines if line.row == GREP)) > 6


# ---- over a parameter -----------------------------------------------------------------------------------------------


def test_a_sweep_finds_the_crossover():
    course = sweep(member("gamma"), parse("z*log(z)"))
    ratio = np.log(course.curves["shape", GREP] / course.curves["shape", SCORE])
    last, = np.flatnonzero(np.diff(np.sign(ratio)))  # G-REP is above the plain score up to there, below it beyond
    assert ratio[last] > 0
    crossing = np.interp(0.0, -ratio[last : last + 2], np.log(course.values[last : last + 2]))
    assert abs(np.exp(crossing) - 0.96) < 0.01
    assert (course.curves["rate", GREP] < course.curves["rate", SCORE]).all()
    assert set(course.curves) == {(by, row) for by in ("shape", "rate")
                                  for row in (SCORE, Choice("score", "leave-one-out"), GREP, Choice("implicit"))}
    by_rate = {row: curve for (by, row), curve in course.curves.items() if by == "rate"}
    known = np.isfinite(by_rate[Choice("implicit")])
    np.testing.assert_allclose(by_rate[Choice("implicit")][known], by_rate[GREP][known], rtol=0.2)


def test_g_rep_of_a_normal_is_the_reparameterization():
    course = sweep(member("normal", {"mu": 1.0}), parse("z**2"), samples=1)
    for by in ("mu", "sigma"):
        np.testing.assert_allclose(course.curves[by, Choice("reparam")], course.curves[by, GREP], rtol=0.1)
