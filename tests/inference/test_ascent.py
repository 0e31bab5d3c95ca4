"""Coordinate ascent and its stochastic form: no sweep lowers the ELBO, and a step with all data is a sweep."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import polygamma

from tinyvae.bayes.mixture import GaussianMixture
from tinyvae.bayes.regression import LinearRegression
from tinyvae.inference.ascent import coordinate_ascent, stochastic_ascent


def mixture(seed=0, count=60, components=3):
    rng = np.random.default_rng(seed)
    centres = 4 * rng.standard_normal((components, 2))
    return GaussianMixture(centres[rng.integers(0, components, count)] + rng.standard_normal((count, 2)), components)


def regression(seed=0, count=60):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(count), rng.standard_normal((count, 2))])
    return LinearRegression(x, x @ [0.5, -1.0, 2.0] + 0.3 * rng.standard_normal(count))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([mixture, regression]), st.integers(2, 40))
def test_no_sweep_lowers_the_elbo(seed, make, count):
    found = coordinate_ascent(make(seed, count), sweeps=30, seed=seed)
    slack = 1e-11 * np.abs(found.elbo[:-1])  # rounding of a sum of that size
    assert (np.diff(found.elbo) >= -slack).all()
    assert found.elbo[1] > found.elbo[0]


@pytest.mark.parametrize("make", [mixture, regression])
def test_it_ends_at_a_fixed_point(make):
    model = make()
    found = coordinate_ascent(model)
    assert 3 < len(found.elbo) < 1000
    for value, again in zip(found.q, model.step(found.q), strict=True):
        np.testing.assert_allclose(value, again, rtol=1e-3, atol=1e-4)
    one = coordinate_ascent(model, sweeps=1)
    assert len(one.elbo) == 2
    more = coordinate_ascent(model, sweeps=1, start=one.q)
    np.testing.assert_array_equal(more.elbo, coordinate_ascent(model, sweeps=2).elbo[1:])


@pytest.mark.parametrize("make", [mixture, regression])
def test_a_whole_step_with_all_data_is_a_sweep(make):
    model = make()
    q, order = model.start(0), np.random.default_rng(0).permutation(60)
    for value, other in zip(model.step(q), model.step(q, order, 1.0), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-12)


def of_means(q):
    """The natural parameters of q(mu)."""
    return np.column_stack([q.mean / q.variance[:, None], 1 / q.variance])


def of_weights(q):
    inverse = np.linalg.inv(q.covariance)
    return np.concatenate([(inverse @ q.mean).ravel(), inverse.ravel()])


@pytest.mark.parametrize(("make", "move", "natural"), [
    (mixture, "step", of_means), (regression, "move_weights", of_weights),
    (regression, "move_precision", lambda q: np.array([q.shape, q.rate]))])
def test_a_step_is_an_average(make, move, natural):
    """In the natural parameters: a short step goes a part of the way of a whole one, and the mean of the steps with
    each datum alone is the step with all of them."""
    model = make()
    q = coordinate_ascent(model, sweeps=1).q
    step = getattr(model, move)
    short = natural(step(q, slice(None), 0.3))
    np.testing.assert_allclose(short, 0.7 * natural(q) + 0.3 * natural(step(q)), rtol=1e-9)
    alone = np.mean([natural(step(q, np.array([i]), 0.3)) for i in range(60)], axis=0)
    np.testing.assert_allclose(alone, short, rtol=1e-9)


@pytest.mark.parametrize(("make", "gap"), [(mixture, 0.3), (regression, 0.3)])
def test_stochastic_steps_come_near_the_optimum_of_the_sweeps(make, gap):
    model = make()
    start = model.start(1)
    best = coordinate_ascent(model, start=start)
    found = stochastic_ascent(model, steps=400, batch=10, seed=1, start=start)
    print(f"ELBO {found.elbo[-1]:.3f} after 400 steps of 10 data, {best.elbo[-1]:.3f} by sweeps")
    assert len(found.elbo) == 401
    assert best.elbo[-1] - gap < found.elbo[-1] <= best.elbo[-1] + 1e-9
    again = stochastic_ascent(model, steps=400, batch=10, seed=1, start=start)
    np.testing.assert_array_equal(again.elbo, found.elbo)
    assert (stochastic_ascent(model, steps=9, batch=10, seed=2, start=start).elbo[1:] != found.elbo[1:10]).all()


def test_the_step_is_the_natural_gradient():
    """F^-1 times the gradient of the ELBO by tau's natural parameters (a - 1, -b), by finite differences, is
    lambda* - lambda; F is the covariance of (log tau, tau)."""
    model = regression()
    q = model.move_weights(model.start(0))
    a, b, h = q.shape, q.rate, 1e-5
    slope = np.array([model.elbo(q._replace(shape=a + h)) - model.elbo(q._replace(shape=a - h)),
                      model.elbo(q._replace(rate=b - h)) - model.elbo(q._replace(rate=b + h))]) / (2 * h)
    fisher = np.array([[polygamma(1, a), 1 / b], [1 / b, a / b**2]])
    best = model.move_precision(q)
    np.testing.assert_allclose(np.linalg.solve(fisher, slope), [best.shape - a, b - best.rate], rtol=1e-6)


@pytest.mark.parametrize(("use", "message"), [
    (lambda m: coordinate_ascent(m, sweeps=-1), "found sweeps -1; expected a whole number, at least 0"),
    (lambda m: stochastic_ascent(m, steps=1, batch=61), "found a batch of 61 of 60 data; expected at most 60"),
    (lambda m: stochastic_ascent(m, steps=1, batch=0), "found batch 0; expected a whole number, at least 1"),
    (lambda m: stochastic_ascent(m, 1, 1, kappa=0.5), "found kappa=0.5 and delay=1.0; expected kappa above 0.5 and"),
    (lambda m: stochastic_ascent(m, 1, 1, delay=math.nan), "found kappa=0.7 and delay=nan")])  # fmt: skip
def test_wrong_use_gets_a_sentence(use, message):
    with pytest.raises(ValueError, match=message):
        use(mixture())
