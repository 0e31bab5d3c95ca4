"""The gradient checker: what it accepts, what it refuses, and what it says."""

import re

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.engine.fusion import fused
from tinyvae.engine.rules import ANY, TABLE
from tinyvae.engine.testing import GradientError, check_gradients

# Rows as a user would write them, right and wrong: f(x, y) = x y, and a product of matrices.
WRONG = {
    "wrong sign": (lambda g, y, a, b: -g * b, lambda g, y, a, b: g * a),
    "wrong factor": (lambda g, y, a, b: g * b, lambda g, y, a, b: 0.5 * g * a),
    "slightly wrong": (lambda g, y, a, b: g * b * (1 + 1e-5), lambda g, y, a, b: g * a),
    "exchanged": (lambda g, y, a, b: g * a, lambda g, y, a, b: g * b),
    "forgotten": (lambda g, y, a, b: g * b, lambda g, y, a, b: g * 0.0),
    "not a number": (lambda g, y, a, b: g * b, lambda g, y, a, b: g * float("nan")),
    "infinite": (lambda g, y, a, b: g * float("inf"), lambda g, y, a, b: g * a),
}


@pytest.fixture
def times():
    """A row `times` with the given derivatives, gone after the test."""
    def make(grads):
        TABLE.pop("times", None)
        tv.rule("times", lambda xp, a, b, out: xp.multiply(a, b, out=out), grads, (ANY, ANY))
        return lambda a, b: a.apply("times", b)

    yield make
    TABLE.pop("times", None)


def points(shape):
    rng = np.random.default_rng(5)
    return rng.uniform(0.5, 2, shape), rng.uniform(0.5, 2, shape)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (20, 20)])
def test_right_gradients_are_accepted(times, shape):
    """Elementwise and along random directions, of first and second order; the largest error is returned."""
    f = times((lambda g, y, a, b: g * b, lambda g, y, a, b: g * a))
    error = check_gradients(f, *points(shape), order=2)
    assert 0 <= error <= 1e-6


@pytest.mark.parametrize("shape", [(2, 3), (20, 20)])
@pytest.mark.parametrize("fault", WRONG)
def test_wrong_gradients_are_refused(times, fault, shape):
    with pytest.raises(GradientError):
        check_gradients(times(WRONG[fault]), *points(shape))


def test_a_transposed_gradient_is_refused():
    """Right numbers in the wrong places, in a square array, where no shape gives it away."""
    a = points((3, 3))[0]
    tv.rule("wrong_turn", lambda xp, a, out: xp.multiply(a, a, out=out), (lambda g, y, a: 2 * (g * a).T,))
    try:
        with pytest.raises(GradientError, match=r"element \(0, 1\)"):
            check_gradients(lambda x: x.apply("wrong_turn"), a)
    finally:
        del TABLE["wrong_turn"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_element_that_is_not_finite_is_named(times, bad):
    """One NaN among right numbers: not the first element, but its own."""
    spoil = np.array([1.0, 1.0, bad, 1.0])
    f = times((lambda g, y, a, b: g * b * spoil, lambda g, y, a, b: g * a))
    with pytest.raises(GradientError, match=r"by input 0 at element \(2,\) is -?(nan|inf)"):
        check_gradients(f, *points(4))


def test_a_constant_gradient_of_second_order_is_refused(times):
    f = times((lambda g, y, a, b: (g * b).detach(), lambda g, y, a, b: g * a))
    check_gradients(f, *points(3))
    with pytest.raises(GradientError, match="second derivative by input 1"):
        check_gradients(f, *points(3), order=2)


def test_the_message_has_what_is_needed(times):
    """Input, element, both numbers, the error at several step sizes: a wrong gradient keeps its error."""
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    f = times((lambda g, y, a, b: g * b, lambda g, y, a, b: -g * a))
    with pytest.raises(GradientError) as caught:
        check_gradients(f, a, b)
    message = str(caught.value)
    assert "the gradient by input 1 at element (0,)" in message
    numbers = [float(n.strip(";")) for n in re.findall(r"is (\S+)", message)[:2]]
    assert numbers[0] == pytest.approx(-numbers[1])
    table = dict(re.findall(r"(1e-\d\d): (\d\.\de[+-]\d\d)", message))
    assert set(table) == {"1e-03", "1e-04", "1e-05", "1e-06", "1e-07"}
    assert all(float(error) > 0.1 for error in table.values())
    assert "kink" not in message


def test_a_large_array_is_checked_along_directions(times):
    """A hundred million differences would take a day; four directions see a fault in any share of the elements."""
    calls = []
    right = times((lambda g, y, a, b: g * b, lambda g, y, a, b: g * a))

    def counted(a, b):
        calls.append(1)
        return right(a, b)

    check_gradients(counted, *points((300, 300)))
    assert len(calls) < 20
    with pytest.raises(GradientError, match="random direction 0"):
        check_gradients(times(WRONG["wrong sign"]), *points((300, 300)))
    mask = np.zeros((300, 300))
    mask[:10] = 1  # one row in thirty is wrong
    with pytest.raises(GradientError):
        check_gradients(times((lambda g, y, a, b: g * b * (1 - mask), lambda g, y, a, b: g * a)), *points((300, 300)))


def test_the_error_of_a_gradient_below_one_is_absolute(times):
    """At a point where both derivatives are below 1, an error of 1.5 times the tolerance is refused, and of half of it
    returned as it is."""
    for error, refused in ((1.5e-4, True), (0.5e-4, False)):
        f = times((lambda g, y, a, b, error=error: g * b + error * g / abs(g), lambda g, y, a, b: g * a))
        if refused:
            with pytest.raises(GradientError, match=r"relative error 1\.5e-04, allowed 1e-04"):
                check_gradients(f, np.array(0.3), np.array(0.2), tolerance=1e-4)
        else:
            assert check_gradients(f, np.array(0.3), np.array(0.2), tolerance=1e-4) == pytest.approx(error, rel=1e-3)


def test_a_kink_is_recognised():
    """At 0 the slopes of |x| from both sides differ: no step size helps, and the message says why."""
    with pytest.raises(GradientError, match="kink here"):
        check_gradients(lambda x: (x - 0.3).relu(), np.array([1.0, 0.3]))
    check_gradients(lambda x: abs(x - 0.3), np.array([1.0, -0.3]))


def test_it_runs_in_float64_whatever_it_is_given():
    """At float32 the differences would drown in rounding, and a right gradient would look wrong."""
    seen = set()

    def f(x):
        seen.add(x.dtype)
        return (x.tanh() * 0.001).exp()

    check_gradients(f, np.linspace(-1, 1, 7, dtype=np.float32), order=2)
    check_gradients(f, [1, 2, 3])  # and takes lists of whole numbers
    assert seen == {np.dtype(np.float64)}


def test_large_and_small_points():
    """The step is scaled to the size of what moves: 1e-5 would be lost beside 1e8."""
    check_gradients(lambda x: (x * 1e-8) ** 3, np.array([1e8, -3e8]))
    check_gradients(lambda x: x**2, np.array([1e-9, 0.0]))


def test_outputs_of_any_shape_and_none_of_the_inputs():
    check_gradients(lambda a, b: a @ b, *map(np.ones, ((4, 2, 3), (3, 2))), order=2)
    check_gradients(lambda a, b: b * 2.0, np.ones(2), np.ones(3), order=2)  # no dependence on a


def test_the_arrays_stay_as_they_are():
    a = np.array([1.0, 2.0])
    check_gradients(lambda x: x * x, a, order=2)
    assert np.array_equal(a, [1, 2])


def test_fused_rows_are_checked_as_fused_and_twice_as_twins():
    """First order through the kernel, second order through its twin; the switch is back afterwards."""
    pre, bias = points((2, 3))[0], points(3)[1]
    check_gradients(lambda p, b: tv.apply("bias_activation", p, b, kind="softplus"), pre, bias, order=2)
    assert fused.setting.get()


@pytest.mark.parametrize("order", [0, 3, 1.5])
def test_orders_that_are_not_checked_are_refused(order):
    """An order that is silently not checked would be a check that cannot fail."""
    with pytest.raises(ValueError, match=r"expected 1 .* or 2"):
        check_gradients(lambda a: a * a, np.ones(3), order=order)


def test_a_row_that_ignores_its_out_is_refused():
    """Its values are right once; a replay would leave the old ones."""
    tv.rule("forgetful", lambda xp, a, out: xp.exp(a), (lambda g, y, a: g * y,))
    try:
        with pytest.raises(GradientError, match="does every row write into its `out`"):
            check_gradients(lambda a: tv.apply("forgetful", a), np.ones(3))
    finally:
        del TABLE["forgetful"]


def test_a_function_that_looks_at_its_values_is_checked_all_the_same():
    """It cannot be recorded, but differentiated."""
    check_gradients(lambda a: a * a if float(a.sum()) > 0 else a, np.ones(3))
