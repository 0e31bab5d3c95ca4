"""Estimates of a gradient: their means are exact, their parts add up, and what is said of their spread is true."""


import numpy as np
import pytest
from gradients import SCORE, check_mean, spreads
from support import assert_close, likely_zero

from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference.estimators import BASELINES, Latent, MovingAverage, choices
from tinyvae.lessons.estimates import Choice, EachAverage, Estimates, gather, moments, summary, variants
from tinyvae.lessons.expectations import derivative
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import GRADIENT_FAMILIES, member
from tinyvae.lessons.problems import OneLatent


@pytest.mark.parametrize("name", GRADIENT_FAMILIES)
def test_every_estimator_of_every_family_is_unbiased(name):
    q = member(name)
    family = type(OneLatent(q, parse("z"), 2).factors()["z"][0])
    rows = [row for row in variants(choices(family), 4) if not row.part]
    assert {row.baseline for row in rows} == set(BASELINES)
    found = spreads(q, "sigmoid(2*z) + 0.3*z", rows, samples=4, steps=12)
    for by in q.at:
        exact = derivative(q, parse("sigmoid(2*z) + 0.3*z"), by).value
        for row in rows:
            check_mean(f"{name}, {row.name} by {by}", found[row, by], exact)


def test_the_two_terms_of_g_rep_are_its_sum():
    rows = variants(["grep"], 1)
    estimates = Estimates(OneLatent(member("beta"), parse("z**2"), 64), rows, 8)
    path, correction, total = (estimates.by(row, "a") for row in rows[:3])
    assert_close(path + correction, total, 100)
    assert abs(correction).mean() > 1e-3


def test_the_correction_by_the_rate_is_nothing_draw_by_draw():
    rows = [Choice("grep", part="g_corr")]
    estimates = Estimates(OneLatent(member("gamma", {"shape": 0.3}), parse("z*log(z)"), 64), rows, 8)
    estimates.step()
    assert abs(estimates.by(rows[0], "rate")).max() < 1e-12
    assert abs(estimates.by(rows[0], "shape")).max() > 1e-2


def test_each_replica_has_the_moving_average_of_the_estimators():
    """A column for itself has the baseline of estimators.MovingAverage, not that of all columns."""
    values, noise = np.array([[0.5], [40.0], [-3.0]]), Noise(0)
    each, alone = EachAverage(3), [MovingAverage() for _ in values]
    for _ in range(4):
        q = GRADIENT_FAMILIES["normal"].build(Tensor(values, True), Tensor(np.ones_like(values), True))
        latent = Latent("z", q, q.sample(noise, 5), "score", "rn")
        f = latent.z * latent.z
        found = grad(each(f, latent).sum(), q.mu)
        for r, average in enumerate(alone):
            own = GRADIENT_FAMILIES["normal"].build(Tensor(values[r : r + 1], True), Tensor(np.ones((1, 1)), True))
            column = Latent("z", own, Tensor(latent.draw.data[:, r : r + 1]), "score", "rn")
            assert_close(found.data[r], grad(average(Tensor(f.data[:, r : r + 1]), column).sum(), own.mu).data[0], 1e3)


def test_the_moving_average_starts_with_the_first_step():
    row = Choice("score", "moving-average")
    estimates = Estimates(OneLatent(member("normal", {"mu": 5.0}), parse("z"), 16), [row], 4)
    first, = estimates.averages[row].states.values()
    assert abs(first.mean() - 5) < 0.6  # not a tenth of it
    assert first.shape == (1, 16, 1)


def test_batches_do_not_change_what_a_spread_says():
    draws = np.random.default_rng(0).normal(3, 2, (200, 40, 1))
    spread = summary([moments(batch, np.ones(1)) for batch in draws])
    assert_close(spread.mean, draws.mean(), 100)
    assert spread.interval[0] < 4 < spread.interval[1]
    likely_zero("mean of normal numbers", spread.mean - 3, spread.stderr)
    assert 0 < spread.largest < 0.01


def test_f_that_is_not_finite_at_a_draw():
    """Quadrature may miss a point; the draws do not."""
    problem = OneLatent(member("normal"), parse("1/(z - z)"), 4)
    with pytest.raises(ValueError, match=r"found f = 1/\(z - z\) to be inf at z = .*, a draw from normal\(0, 1"):
        gather(Estimates(problem, [SCORE], 2), 2)
