"""The Bayesian mixture of Gaussians: its ELBO by enumeration and quadrature, its evidence over all assignments."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from tinyvae.bayes.mixture import GaussianMixture, Means
from tinyvae.inference.ascent import coordinate_ascent

X = np.array([[-3.1], [-2.2], [1.4], [2.5], [3.3]])


def log_evidence(x, components, v):
    """log p(x), a sum over all K^n assignments: the data of one component have the covariance I + v 11'."""
    n, d = x.shape
    terms = []
    for c in itertools.product(range(components), repeat=n):
        total = -n * math.log(components)
        for k in range(components):
            rows = x[np.array(c) == k]
            if len(rows):
                law = multivariate_normal(np.zeros(len(rows)), np.eye(len(rows)) + v)
                total += sum(law.logpdf(rows[:, j]) for j in range(d))
        terms.append(total)
    return np.logaddexp.reduce(terms)


def test_the_elbo_is_the_expectation_that_it_is_named_for():
    """E_q[log p(mu, c, x) - log q(mu, c)]: all c, and mu by Gauss-Hermite."""
    model, rng = GaussianMixture(X[1:], 2, prior_variance=4.0), np.random.default_rng(0)
    q, phi = Means(np.array([[-1.0], [2.0]]), np.array([0.3, 0.7])), rng.dirichlet([1, 1], 4)
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    total = 0.0
    for c in itertools.product(range(2), repeat=4):
        p_c = np.prod([phi[i, k] for i, k in enumerate(c)])
        for i, j in np.ndindex(8, 8):
            mu = q.mean[:, 0] + np.sqrt(q.variance) * nodes[[i, j]]
            log_p = norm.logpdf(mu, 0, 2.0).sum() - 4 * math.log(2) + norm.logpdf(X[1:, 0], mu[list(c)], 1).sum()
            log_q = norm.logpdf(mu, q.mean[:, 0], np.sqrt(q.variance)).sum() + math.log(p_c)
            total += p_c * weights[i] * weights[j] * (log_p - log_q)
    assert model.elbo(q, phi) == pytest.approx(total, rel=1e-12)


def test_with_one_component_it_is_exact():
    """Then p(mu | x) is normal, and the ELBO is log p(x) after one sweep; in two dimensions."""
    x = np.random.default_rng(0).normal(size=(6, 2)) + 3
    found = coordinate_ascent(GaussianMixture(x, 1, prior_variance=2.5))
    assert found.elbo[-1] == pytest.approx(log_evidence(x, 1, 2.5), rel=1e-12)
    np.testing.assert_allclose(found.q.mean[0], x.sum(0) / (6 + 1 / 2.5))
    np.testing.assert_allclose(found.q.variance, 1 / (6 + 1 / 2.5))


def test_its_elbo_is_below_the_evidence_by_the_symmetry_that_q_breaks():
    """Two clusters far apart have two equal modes, of which q takes one: log p(x) - ELBO is a little over log 2."""
    model = GaussianMixture(X, 2, prior_variance=9.0)
    evidence, found = log_evidence(X, 2, 9.0), coordinate_ascent(model)
    print(f"ELBO {found.elbo[-1]:.4f}, log p(x) {evidence:.4f}")
    assert math.log(2) < evidence - found.elbo[-1] < math.log(2) + 0.1
    assert sorted(found.q.mean[:, 0]) == pytest.approx([X[:2].sum() / (2 + 1 / 9), X[2:].sum() / (3 + 1 / 9)], abs=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3))
def test_each_half_of_a_sweep_raises_the_elbo(seed, components, d):
    rng = np.random.default_rng(seed)
    model = GaussianMixture(3 * rng.standard_normal((9, d)), components, prior_variance=float(rng.uniform(0.1, 30)))
    q = Means(rng.standard_normal((components, d)), rng.uniform(0.1, 2, components))
    phi = rng.dirichlet(np.ones(components), 9)
    before, assigned = model.elbo(q, phi), model.responsibilities(q)
    moved = model.move(q, assigned)
    assert before <= model.elbo(q, assigned) + 1e-10
    for part in (1e-1, 1e-3):  # no step from there, however small, gains anything
        assert model.elbo(q, (1 - part) * assigned + part * phi) <= model.elbo(q, assigned) + 1e-10
    assert model.elbo(q, assigned) <= model.elbo(moved, assigned) + 1e-10
    assert model.elbo(moved, assigned) <= model.elbo(moved) + 1e-10


@pytest.mark.parametrize(("x", "more", "message"), [
    (np.zeros(3), {}, r"found data of shape \(3,\); expected finite numbers \(n, d\)"),
    (np.zeros((0, 2)), {}, r"found data of shape \(0, 2\)"), (np.array([[math.nan]]), {}, r"data of shape \(1, 1\)"),
    (X, {"components": 0}, "found components 0; expected a whole number, at least 1"),
    (X, {"prior_variance": math.inf}, "found prior_variance=inf; expected a finite number above 0")])  # fmt: skip
def test_wrong_use_gets_a_sentence(x, more, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(x, **({"components": 2} | more))
