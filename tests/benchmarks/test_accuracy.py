"""The accuracy that docs/accuracy.md states: each family within its bound at new draws, and worse formulas outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import accuracy, figures, results
from benchmarks.accuracy_exact import EXACT
from tinyvae.distributions import FAMILIES, Gamma

QUANTITIES = [(name, quantity) for name in EXACT for quantity in accuracy.quantities(name)]


def check(name, quantity, draws, seed):
    row = accuracy.measure(name, quantity, draws, seed)
    for kind, bound in zip(accuracy.TYPES, EXACT[name].units, strict=True):
        for of in ("value", "gradient"):
            error = row[f"{kind}_{of}"]
            assert error <= bound, f"{quantity} of {name}, {of} in {kind}: {error:.3g} units, allowed {bound}"


@pytest.mark.parametrize(("name", "quantity"), QUANTITIES)
@settings(max_examples=1)
@given(seed=st.integers(0, 2**31))
def test_the_stated_accuracy(name, quantity, seed):
    check(name, quantity, 2, seed)


def test_every_family_has_a_row(monkeypatch):
    assert accuracy.unmeasured() == []
    monkeypatch.setitem(FAMILIES, "novel", Gamma)
    assert accuracy.unmeasured() == ["novel"]
    with pytest.raises(SystemExit, match="novel: no row in benchmarks"):
        accuracy.run(True, results.FOLDER)


class Textbook(Gamma):
    """The density by log Gamma, whose terms are a log a."""

    def log_prob(self, x):
        a, b = self.shape, self.rate
        return (a * b.log() - a.lgamma() + (a - 1) * x.log() - b * x).sum(-1)


class WithoutDerivative(Gamma):
    """Right in value, but not in gradient."""

    def log_prob(self, x):
        return super().log_prob(x).detach() + 0 * self.shape.sum() + 0 * self.rate.sum() + 0 * x.sum()


@pytest.mark.parametrize("wrong", [Textbook, WithoutDerivative])
def test_a_worse_formula_is_found(monkeypatch, wrong):
    monkeypatch.setitem(FAMILIES, "gamma", wrong)
    with pytest.raises(AssertionError, match="log_prob of gamma"):
        check("gamma", "log_prob", 20, 0)


def test_exact_differences():
    """Value, v df/dv and the conditions of f(a, b) = a^2 b at (3, 5)."""
    with accuracy.mpmath.workdps(accuracy.DIGITS):
        three, five = accuracy.mpmath.mpf(3), accuracy.mpmath.mpf(5)
        found = accuracy.exact_terms(lambda a, b: a[0] ** 2 * b[0], [[three], [five]], 2)
    value, first, condition, conditions = found
    assert abs(value - 45) + abs(first[0] - 90) + abs(first[1] - 45) < 1e-9
    assert abs(condition - 180) + abs(conditions[0] - (90 + 180 + 90)) + abs(conditions[1] - (45 + 90 + 45)) < 1e-4


def test_an_error_that_is_no_number_is_infinite():
    assert accuracy.worst([0.5, float("nan")]) == np.inf
    assert accuracy.worst([]) == 0


def test_the_table_has_every_row():
    rows, table = results.read("accuracy")["rows"], figures.accuracy()
    assert {row["family"] for row in rows} <= set(FAMILIES)
    assert table.count("\n") == len(rows) + 3
