"""What Python and NumPy ask of a tensor, with the answers that a NumPy array gives, or a refusal by name."""

import copy
import operator
import pickle

import numpy as np
import pytest
from scipy import special

import tinyvae as tv
from tinyvae.distributions import LogTensor


def T(values, requires_grad=True):
    return tv.Tensor(np.asarray(values, np.float64), requires_grad=requires_grad)


V, M = np.array([1.0, 2.0, 3.0]), np.array([[1.0, -2.0, 0.5], [3.0, 0.1, -1.0]])

# ---- Python ----------------------------------------------------------------------------------------------------------


def test_a_single_number_is_no_sequence():
    for use in (list, iter, len, max):
        with pytest.raises(TypeError, match=r"of shape \(\); expected one with an axis"):
            use(T(3.0))


def test_a_sequence():
    assert [float(x) for x in T(V)] == [1, 2, 3]
    assert [row.shape for row in T(M)] == [(3,), (3,)]
    assert list(T(np.zeros((0, 3)))) == []
    assert (2.0 in T(M), 3.0 in T(M), -1.0 in T(V)) == (False, True, False)
    assert [float(x) for x in reversed(T(V))] == [3, 2, 1]
    assert [bool(flag) for flag in T(V) > 1.5] == [False, True, True]
    assert (any(T(V) > 2), all(T(V) > 2)) == (True, False)
    assert [int(n) for n in tv.Tensor(np.arange(3))] == [0, 1, 2]


def test_truth_values_that_are_taken_out_follow_in_a_replay():
    x = T([1.0, -1.0], False)
    with tv.Tape() as tape:
        y = (x > 0)[1].where(x, -x)
    x.data[:] = 2.0, 3.0
    tape.replay()
    assert np.array_equal(y.numpy(), [2, 3])


def test_a_number():
    assert (float(T(2.5)), int(T([2.5])), round(T(2.567), 1), round(T(2.5))) == (2.5, 2, 2.6, 2)
    assert f"{T(2.5):.3f} {T([1.0]):5.1e}" == "2.500 1.0e+00"
    assert list(range(tv.Tensor(np.array(3)))) == [0, 1, 2]
    with pytest.raises(TypeError):
        operator.index(T(3.0))
    for use in (float, int, round, lambda t: f"{t:.2f}", lambda t: t.item()):
        with pytest.raises(ValueError, match=r"found a tensor of shape \(3,\) in place of one number; reduce it"):
            use(T(V))


@pytest.mark.parametrize("values", [V, np.zeros((0, 3))])
def test_several_numbers_have_no_truth_value(values):
    with pytest.raises(ValueError, match=r"expected one element: take \(\.\.\.\)\.numpy\(\)\.all\(\)"):
        bool(T(values) > 1)
    assert bool(T(1.0) > 0)
    assert not T(0.0)


def test_what_is_no_number_is_neither_equal_nor_a_summand():
    t = T(2.0)
    assert (t == None, t != "a") == (False, True)  # noqa: E711 - that is the question
    assert t in [None, "a", t]
    for use in (lambda: t + None, lambda: None * t, lambda: t < "a", lambda: t @ None, lambda: {} - t):
        with pytest.raises(TypeError, match=r"(unsupported operand|not supported between)"):
            use()


@pytest.mark.parametrize("number", [np.int64(2), np.float32(2), np.float64(2), np.int8(2)])
def test_numbers_of_numpy_are_numbers(number):
    for dtype in (np.float32, np.float64):
        t = tv.Tensor(V.astype(dtype), requires_grad=True)
        for found in (t * number, number * t):
            assert isinstance(found, tv.Tensor)
            assert found.dtype == dtype
            assert np.array_equal(tv.grad(found.sum(), t).numpy(), np.full(3, 2, dtype))


def test_whole_numbers_of_numpy_name_axes_and_shapes():
    m, two = T(M), np.int64(2)
    for found, expected in (
        (m.sum(np.int64(1)), M.sum(1)), (m.sum(axis=(np.int64(0), -1)), M.sum()), (m.mean(np.int32(-1)), M.mean(-1)),
        (m.reshape(np.int64(3), two), M.reshape(3, 2)), (m.reshape(np.int64(-1)), M.ravel()),
        (m.reshape(np.array([3, 2])), M.reshape(3, 2)), (m.transpose(np.int64(1), 0), M.T),
        (m.broadcast_to(two, 2, 3), np.broadcast_to(M, (2, 2, 3))), (m[np.int64(1)], M[1]),
        (m.concatenate(m, axis=np.int64(1)), np.concatenate((M, M), 1)), (m.split(np.int64(3))[1], M[:, 1:2]),
        (tv.stack([m, m], np.int64(2)), np.stack((M, M), 2)),
    ):  # fmt: skip
        assert np.array_equal(found.numpy(), expected)
    for use in (lambda: m.sum(1.5), lambda: m.reshape(2.0, 3), lambda: m.sum("a"), lambda: m.broadcast_to("ab")):
        with pytest.raises(TypeError, match=r"found (axis|shape) .*; expected whole numbers"):
            use()


def test_the_mean_of_no_rows_is_nan():
    """Without a warning, which would be an error here, and with a gradient of the shape of no rows."""
    t = T(np.zeros((0, 3)))
    for found, shape in ((t.mean(), ()), (t.mean(0), (3,)), (t.mean(0, keepdims=True), (1, 3))):
        assert found.shape == shape
        assert np.isnan(found.numpy()).all()
        assert tv.grad(found.sum(), t).shape == (0, 3)
    assert t.mean(1).shape == (0,)


def test_copies():
    leaf, result = T(V), T(V) * 2.0
    for make in (copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))):
        twin = make(leaf)
        assert twin.requires_grad
        assert not np.shares_memory(twin.data, leaf.data)
        assert np.array_equal(twin.numpy(), V)
        assert np.array_equal(make(result.detach()).numpy(), 2 * V)
        assert np.array_equal(make(LogTensor(T(V, False))).log().numpy(), V)
        with pytest.raises(TypeError, match=r"found a copy of the result of mul.*; expected .*\.detach\(\)"):
            make(result)
    assert copy.copy(result) is result


# ---- NumPy -----------------------------------------------------------------------------------------------------------

SEED = np.random.default_rng(0).normal(size=(8, 8))
UFUNCS = [np.exp, np.log, np.sqrt, np.negative, np.absolute, np.tanh, np.sign, np.log1p, np.expm1, special.gammaln,
          special.erf]  # fmt: skip
FUNCTIONS = {
    "concatenate": lambda t: np.concatenate([V, t]), "concatenate axis": lambda t: np.concatenate((t, t), axis=-1),
    "stack": lambda t: np.stack([t, V], axis=1), "where": lambda t: np.where(t > 1.5, t, 0.0),
    "dot": lambda t: np.dot(t, t), "dot matrix": lambda t: np.dot(M, t), "dot number": lambda t: np.dot(t, 3.0),
    "clip": lambda t: np.clip(t, 1.5, 2.5), "clip above": lambda t: np.clip(t, None, 2.5),
    "reshape": lambda t: np.reshape(t, (3, 1)), "transpose": lambda t: np.transpose(t.reshape(3, 1)),
    "broadcast_to": lambda t: np.broadcast_to(t, (2, 3)), "sum": lambda t: np.sum(t, axis=0), "mean": np.mean,
    "max": lambda t: np.max(t, 0, keepdims=True), "add": lambda t: np.add(V, t), "minus": lambda t: 2 - V - t,
    "maximum": lambda t: np.maximum(2.0, t), "power": lambda t: np.power(t, 2), "matmul": lambda t: M @ t,
    "divide": lambda t: np.divide(1.0, t), "subtract": lambda t: V[::-1] - t,
}  # fmt: skip


def by_differences(f, at):
    """The derivative of sum(seed * f) by central differences, with NumPy alone."""
    step, found = 1e-6, np.zeros_like(at)
    for i in range(at.size):
        ends = [np.asarray(f(at + sign * step * np.eye(at.size)[i])) for sign in (1, -1)]
        found[i] = (SEED.ravel()[: ends[0].size].reshape(ends[0].shape) * (ends[0] - ends[1])).sum() / (2 * step)
    return found


@pytest.mark.parametrize("f", [*UFUNCS, *FUNCTIONS.values()], ids=[*(f.__name__ for f in UFUNCS), *FUNCTIONS])
def test_a_function_of_numpy_keeps_the_gradient(f):
    at = V + 0.1
    t = T(at)
    found = f(t)
    assert isinstance(found, tv.Tensor)
    np.testing.assert_allclose(found.numpy(), f(at), rtol=1e-14)
    seed = SEED.ravel()[: found.size].reshape(found.shape)
    np.testing.assert_allclose(tv.grad(found, t, seed).numpy(), by_differences(f, at), atol=1e-7)


@pytest.mark.parametrize(("name", "f"), [
    ("einsum", lambda t: np.einsum("i,i->", t, t)), ("linalg.norm", np.linalg.norm), ("sin", np.sin),
    ("vstack", lambda t: np.vstack([V, t])), ("cumsum", np.cumsum), ("outer", lambda t: np.outer(t, V)),
    ("copy", np.copy), ("add.reduce", np.add.reduce), ("exp", lambda t: np.exp(t, where=V > 1, out=V.copy())),
    ("sum", lambda t: np.sum(t, dtype=np.float32)), ("split", lambda t: np.split(t, 3)), ("sort", np.sort),
    ("dot", lambda t: np.dot(M, np.broadcast_to(t, (2, 3, 3)))),
])  # fmt: skip
def test_a_function_that_would_lose_the_gradient_is_refused_by_name(name, f):
    with pytest.raises(TypeError, match=rf"found np\.{name} of a tensor with a gradient, which NumPy would lose"):
        f(T(V))
    plain, expected = f(T(V, False)), f(V)
    for found, right in zip(np.atleast_1d(plain), np.atleast_1d(expected), strict=True):
        assert np.array_equal(found, right)
    with tv.Tape(), pytest.raises(TypeError, match=rf"found np\.{name} of"):  # and not for its unknown value
        f(T(V) * 1.0)


def test_an_array_that_was_to_be_changed_is_left_alone():
    array = V.copy()
    with pytest.raises(TypeError, match=r"found np\.add of a tensor"):
        array += T(V)
    assert np.array_equal(array, V)


def test_questions_about_a_tensor_are_answered():
    t = T(V)
    assert (np.shape(t), np.ndim(t), np.size(t), np.argmax(t), np.allclose(t, V)) == ((3,), 1, 3, 2, True)
    assert np.array_equal(np.isfinite(t), [True] * 3)
    assert np.array_equal(np.zeros_like(t), np.zeros(3))
    assert np.array_equal(np.full_like(t, 2), np.full(3, 2.0))
    assert np.array2string(t) == "[1. 2. 3.]"
    assert np.asarray(t, np.float32).dtype == np.float32
    with tv.Tape():
        assert np.shape(t * 2.0) == (3,)


def test_logarithms_that_a_tensor_keeps_are_used():
    z = LogTensor(T([-2000.0]))
    assert np.log(z).numpy() == [-2000]
    assert np.log(np.sqrt(z)).numpy() == [-1000]
    assert np.log(np.power(z, 2)).numpy() == [-4000]
