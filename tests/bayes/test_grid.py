"""A posterior on a grid against those that are known in closed form, and one that SciPy integrates."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

import tinyvae as tv
from tinyvae.bayes.conjugate import BetaBernoulli, NormalNormal
from tinyvae.bayes.grid import on_grid
from tinyvae.distributions import Bernoulli, Normal

TOSSES = np.array([1, 0, 1, 1, 0, 1.0])


def tosses(theta):
    return Bernoulli(theta.log() - (1 - theta).log()).log_prob(tv.Tensor(TOSSES))


def test_of_a_coin_it_is_the_conjugate_posterior():
    prior, points = BetaBernoulli(2, 2), np.linspace(1e-6, 1 - 1e-6, 2001)
    found, exact = on_grid(prior.law.log_prob, tosses, points), prior.update(TOSSES)
    np.testing.assert_allclose(found.density, stats.beta(exact.a, exact.b).pdf(points), rtol=0, atol=1e-5)
    assert found.log_evidence == pytest.approx(prior.log_evidence(TOSSES), abs=1e-6)
    assert found.mean == pytest.approx(exact.a / (exact.a + exact.b), abs=1e-6)
    assert found.variance == pytest.approx(stats.beta(exact.a, exact.b).var(), abs=1e-6)


def test_of_a_normal_mean_on_points_of_unequal_distance():
    prior, x = NormalNormal(0.0, 2.0, 0.5), np.array([1.0, 1.8])
    points = np.sinh(np.linspace(-3, 3, 4001))
    found = on_grid(prior.law.log_prob, lambda t: Normal(t, tv.Tensor([math.log(0.5)])).log_prob(tv.Tensor(x)), points)
    exact = prior.update(x)
    assert found.mean == pytest.approx(exact.mean, abs=1e-5)
    assert found.variance == pytest.approx(exact.variance, abs=1e-5)
    assert found.log_evidence == pytest.approx(prior.log_evidence(x), abs=1e-5)


def test_without_a_conjugate_prior_it_is_what_scipy_integrates():
    """A triangular prior, given as plain arrays; far from its mode the numbers are too small for exp."""
    def log_prior(theta):
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(0, 1 - abs(theta.data[:, 0])))

    def log_likelihood(theta):
        return -2000 - 0.5 * ((theta.data[:, 0] - 0.7) / 0.2) ** 2

    found = on_grid(log_prior, log_likelihood, np.linspace(-1, 1, 4001))
    total = integrate.quad(lambda t: (1 - abs(t)) * math.exp(-0.5 * ((t - 0.7) / 0.2) ** 2), -1, 1, points=[0, 0.7])[0]
    assert found.log_evidence == pytest.approx(math.log(total) - 2000, abs=1e-6)
    assert found.density[0] == 0
    assert np.trapezoid(found.density, found.points) == pytest.approx(1)


@pytest.mark.parametrize(("changes", "message"), [
    ({"points": [0.1]}, r"found points of shape \(1,\); expected at least two finite numbers that rise"),
    ({"points": [0.1, 0.1]}, r"found points of shape \(2,\); expected at least two finite"),
    ({"points": [0.1, math.nan]}, r"found points of shape \(2,\); expected at least two finite"),
    ({"log_prior": lambda t: t}, r"found log_prior of shape \(2, 1\); expected one number for each point, \(2,\)"),
    ({"log_likelihood": lambda t: np.array([0.0, math.nan])}, "found log_likelihood to be nan at theta = 0.6"),
    ({"log_likelihood": lambda t: np.array([math.inf, 1.0])}, "found log_likelihood to be inf at theta = 0.4"),
    ({"log_likelihood": lambda t: np.full(2, -math.inf)}, "found prior times likelihood to be 0 at all points")])
def test_wrong_use_gets_a_sentence(changes, message):
    given = {"log_prior": BetaBernoulli().law.log_prob, "log_likelihood": tosses, "points": [0.4, 0.6]} | changes
    with pytest.raises(ValueError, match=message):
        on_grid(**given)
