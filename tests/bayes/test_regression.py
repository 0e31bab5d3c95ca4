"""Bayesian linear regression: its ELBO by quadrature, and the exact posterior by an integral over the precision."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from tinyvae.bayes.regression import LinearRegression, Weights
from tinyvae.inference.ascent import coordinate_ascent


def made(seed=0, count=12, **prior):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(count), rng.standard_normal(count)])
    return LinearRegression(x, x @ [0.5, -1.0] + 0.4 * rng.standard_normal(count), **prior)


def test_the_elbo_is_the_expectation_that_it_is_named_for():
    """E_q[log p(w, tau, y) - log q(w, tau)] for one weight: Gauss-Hermite in w, Gauss-Laguerre in tau."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((5, 1)), rng.standard_normal(5)
    model = LinearRegression(x, y, prior_variance=2.0, shape=1.5, rate=0.8)
    q = Weights(np.array([0.4]), np.array([[0.3]]), 4.2, 3.1)
    w_nodes, w_weights = np.polynomial.hermite_e.hermegauss(10)
    t_nodes, t_weights = special.roots_genlaguerre(80, q.shape - 1)
    total = 0.0
    for node, w_weight in zip(w_nodes, w_weights / w_weights.sum(), strict=True):
        w = 0.4 + math.sqrt(0.3) * node
        tau = t_nodes / q.rate
        log_p = (stats.norm.logpdf(w, 0, math.sqrt(2.0)) + stats.gamma.logpdf(tau, 1.5, scale=1 / 0.8)
                 + stats.norm.logpdf(y[:, None], x * w, 1 / np.sqrt(tau)).sum(0))
        log_q = stats.norm.logpdf(w, 0.4, math.sqrt(0.3)) + stats.gamma.logpdf(tau, q.shape, scale=1 / q.rate)
        total += w_weight * (t_weights / t_weights.sum() * (log_p - log_q)).sum()
    assert model.elbo(q) == pytest.approx(total, rel=1e-4)  # Gauss-Laguerre meets log tau, which is no polynomial


def test_against_the_exact_posterior():
    """Given tau, all is normal; tau itself is integrated by SciPy. The ELBO is a little below log p(y)."""
    model = made()
    found = coordinate_ascent(model).q

    def given_tau(tau):
        covariance = np.eye(12) / tau + model.prior_variance * model.x @ model.x.T
        log_p = stats.multivariate_normal(np.zeros(12), covariance).logpdf(model.y) + stats.gamma.logpdf(tau, 1.0)
        inverse = np.eye(2) / model.prior_variance + tau * model.x.T @ model.x
        return math.exp(log_p), np.linalg.solve(inverse, tau * model.x.T @ model.y)

    evidence, precision, *weights = (
        integrate.quad(f, 0, 40, limit=200)[0] for f in (
            lambda t: given_tau(t)[0], lambda t: t * given_tau(t)[0], lambda t: given_tau(t)[0] * given_tau(t)[1][0],
            lambda t: given_tau(t)[0] * given_tau(t)[1][1]))
    elbo = model.elbo(found)
    print(f"ELBO {elbo:.4f}, log p(y) {math.log(evidence):.4f}")
    assert math.log(evidence) - 0.3 < elbo < math.log(evidence)
    np.testing.assert_allclose(found.mean, np.array(weights) / evidence, rtol=0, atol=0.01)
    assert found.precision == pytest.approx(precision / evidence, rel=0.02)


def test_where_the_noise_is_known_it_is_exact():
    """A prior that fixes tau at 4: the ELBO is log p(y) of a normal distribution, and q(w) its posterior."""
    sure = 1e9
    model = made(prior_variance=0.7, shape=4 * sure, rate=sure)
    found = coordinate_ascent(model)
    law = stats.multivariate_normal(np.zeros(12), np.eye(12) / 4 + 0.7 * model.x @ model.x.T)
    assert found.elbo[-1] == pytest.approx(law.logpdf(model.y), abs=1e-4)
    covariance = np.linalg.inv(np.eye(2) / 0.7 + 4 * model.x.T @ model.x)
    np.testing.assert_allclose(found.q.covariance, covariance, rtol=1e-6)
    np.testing.assert_allclose(found.q.mean, 4 * covariance @ model.x.T @ model.y, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 20), st.floats(0.2, 20), st.floats(0.05, 20))
def test_each_half_of_a_sweep_raises_the_elbo(seed, v, shape, rate):
    model = made(seed, prior_variance=v, shape=shape, rate=rate)
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((2, 2))
    q = Weights(rng.standard_normal(2), root @ root.T + 0.1 * np.eye(2), float(rng.uniform(0.5, 9)), 1.3)
    moved = model.move_weights(q)
    slack = 1e-11 * (1 + abs(model.elbo(q)))
    assert model.elbo(q) <= model.elbo(moved) + slack
    assert model.elbo(moved) <= model.elbo(model.move_precision(moved)) + slack


@pytest.mark.parametrize(("x", "y", "more", "message"), [
    (np.ones((3, 1)), np.ones(2), {}, r"found x of shape \(3, 1\) and y of shape \(2,\); expected \(n, d\) and \(n,\)"),
    (np.ones(3), np.ones(3), {}, r"found x of shape \(3,\)"),
    (np.ones((2, 1)), np.array([1, math.nan]), {}, "found NaN or infinite numbers in x or y"),
    (np.ones((2, 1)), np.ones(2), {"rate": 0.0}, "found rate=0.0; expected a finite number above 0")])  # fmt: skip
def test_wrong_use_gets_a_sentence(x, y, more, message):
    with pytest.raises(ValueError, match=message):
        LinearRegression(x, y, **more)
