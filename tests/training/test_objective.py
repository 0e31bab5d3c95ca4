"""The objective of any terms, against the sum written out in NumPy, and the epoch's totals of such terms."""

import numpy as np
import pytest

from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference.bounds import Terms
from tinyvae.nn.optimizers import FINITE, NORM
from tinyvae.training.objective import accumulate, objective

A, KL, EXTRA = np.array([-3.0, -1.0, -0.5]), np.array([0.25, 2.0, 0.5]), np.array(0.75)
TERMS = {"a": A, "kl": KL, "extra": EXTRA}
RATES = np.array([1e-3, 0.125])  # the learning rate, then the weight of the scheduled term
WEIGHTS = {"kl": -1.0, "extra": -0.5}


def test_a_scheduled_term_has_its_own_rate_and_each_term_its_weight():
    """The learning rate in the place of the term's own, or a weight left out, changes the loss and a gradient."""
    terms = Terms(**{name: Tensor(value, requires_grad=True) for name, value in TERMS.items()})
    loss = objective(terms, WEIGHTS, Tensor(RATES), ("kl",))
    assert loss.item() == pytest.approx(-(A.mean() - 0.125 * KL.mean() - 0.5 * 0.75), rel=1e-14)
    expected = [-np.ones(3) / 3, 0.125 * np.ones(3) / 3, 0.5]
    for g, right in zip(grad(loss, list(terms.values())), expected, strict=True):
        np.testing.assert_allclose(g.data, right, rtol=1e-14)


def test_the_elbo_has_the_same_objective_by_both_ways():
    """Weights that are written out take the general way, the usual ones the row of the ELBO."""
    terms = Terms(reconstruction=Tensor(A), kl=Tensor(KL))
    usual = objective(terms, {"kl": -1.0}, Tensor(RATES), ("kl",))
    general = objective(terms, {"reconstruction": 1.0, "kl": -1.0}, Tensor(RATES), ("kl",))
    assert usual.item() == pytest.approx(-(A.mean() - 0.125 * KL.mean()), rel=1e-14)
    assert general.item() == pytest.approx(usual.item(), rel=1e-14)


def test_only_sound_steps_enter_the_totals():
    """A term with a number of rows of its own, or none, counts as its mean for each datum of the step."""
    terms, loss = Terms(**{name: Tensor(value) for name, value in TERMS.items()}), Tensor(np.array(1.5))
    totals, status = np.zeros(8), np.zeros(4)
    status[FINITE], status[NORM] = 1.0, 7.0
    accumulate(terms, 2, loss, totals, status)
    accumulate(terms, 4, loss, totals, status)
    status[FINITE] = 0.0
    accumulate(terms, 4, Tensor(np.array(np.nan)), totals, status)
    expected = [6, 6 * A.mean(), 6 * KL.mean(), 6 * 0.75, 6 * 1.5, 14, 2, 1]  # see objective.py for the order
    np.testing.assert_allclose(totals, expected, rtol=1e-14)
