"""Tensor: NumPy's semantics where they are kept, and errors that name the operation and the cure where not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices, mutually_broadcastable_shapes
from support import assert_close, assert_same_bits

import tinyvae as tv
from tinyvae.engine.devices import NAMESPACES, DeviceError, Namespace
from tinyvae.engine.rules import NONZERO, POSITIVE, TABLE
from tinyvae.engine.testing import GradientError, check_gradients


def leaf(values, dtype=np.float64):
    return tv.Tensor(np.array(values, dtype), requires_grad=True)


def numbers(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# ---- as in NumPy ---------------------------------------------------------------------

OPERATORS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "**": lambda a, b: abs(a) ** b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip


@pytest.mark.parametrize("operator", OPERATORS)
@given(shapes=mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3), seed=st.integers(0, 99))
def test_operators_in_all_company(operator, shapes, seed):
    """Tensor with tensor, with an array on either side, with a number on either side: NumPy's result, and a Tensor."""
    function = OPERATORS[operator]
    # NumPy has shortcuts for a constant exponent, which differ in the last bit from the power itself
    same = assert_same_bits if operator != "**" else lambda found, expected: assert_close(found, expected, 2)
    a, b = (numbers(shape, seed + i) for i, shape in enumerate(shapes.input_shapes))
    for x, y in ((tv.Tensor(a), tv.Tensor(b)), (tv.Tensor(a), b), (a, tv.Tensor(b))):
        found = function(x, y)
        assert isinstance(found, tv.Tensor), "NumPy must leave the operation to the tensor"
        same(found.data, np.asarray(function(a, b)))
    for x, y in ((tv.Tensor(a), 2.5), (2.5, tv.Tensor(b)), (tv.Tensor(a), 2), (np.float64(2.5), tv.Tensor(b))):
        plain = [v.data if isinstance(v, tv.Tensor) else v for v in (x, y)]
        same(function(x, y).data, np.asarray(function(*plain)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_take_the_type_of_the_tensor(dtype):
    """A Python or NumPy float64 number does not widen a float32 tensor; an array of another type is refused."""
    x = leaf([1.0, 2.0], dtype)
    for y in (x * 2, 2.0 * x, x + np.float64(0.5), 1 / x, x**2, x.maximum(0), (x > 0).where(x, 0.0)):
        assert y.dtype == dtype
    assert tv.grad((x * 2).sum(), x).dtype == dtype


@given(data=st.data())
def test_basic_slices(data):
    """Any mix of integers, slices, None and the ellipsis: NumPy's view, and the gradient where it was taken."""
    a = numbers((4, 3, 2))
    key = data.draw(basic_indices(a.shape, allow_newaxis=True, allow_ellipsis=True))
    x = tv.Tensor(a, requires_grad=True)
    y = x[key]
    assert_same_bits(y.data, np.asarray(a[key]))
    assert np.shares_memory(y.data, a) or not y.size, "a slice is a view"
    marks = np.zeros_like(a)
    marks[key] = 1
    assert_same_bits(tv.grad(y.sum(), x).data, marks)


def test_negative_steps_and_single_elements():
    x = tv.Tensor(np.arange(5.0))
    assert_same_bits(x[::-2].data, np.array([4.0, 2.0, 0.0]))
    assert x[-1].item() == 4
    assert [row.item() for row in x] == [0, 1, 2, 3, 4]
    assert len(x) == 5
    check_gradients(lambda x: x[::-2] * x[1:4] + x[-1], np.arange(5.0))


@pytest.mark.parametrize("index", [
    [2, 0, 0], np.array([[1, 1], [-1, 0]]), tv.Tensor(np.array([3, 3, 3])), np.array([1], np.int32), np.array(2),
    np.zeros((2, 0), int),
])  # fmt: skip
def test_gather(index):
    """Rows by a list, an array or a tensor of whole numbers; a row taken twice gets both gradients."""
    a = numbers((4, 3))
    plain = index.data if isinstance(index, tv.Tensor) else index
    x = tv.Tensor(a, requires_grad=True)
    assert_same_bits(x[index].data, a[plain])
    check_gradients(lambda x: x[index] * x[index], a)
    vector = tv.Tensor(a[:, 0].copy(), requires_grad=True)
    counts = np.bincount(np.ravel(plain) % 4, minlength=4)
    assert_same_bits(tv.grad(vector[index].sum(), vector).data, counts.astype(float))


VECTORS = [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((4, 2, 3), (3,)), ((3,), (4, 3, 2)),
           ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((0, 3), (3, 2)),
           ((2, 0), (0, 3))]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), VECTORS)
def test_matmul(left, right):
    """Vectors, matrices and batches as np.matmul; an array on either side; gradients of all of them."""
    a, b = numbers(left), numbers(right, 1)
    for x, y in ((tv.Tensor(a), tv.Tensor(b)), (a, tv.Tensor(b)), (tv.Tensor(a), b)):
        found = x @ y
        assert isinstance(found, tv.Tensor)
        assert_close(found.data, np.matmul(a, b), 16)
    check_gradients(lambda a, b: a @ b, a, b, order=2)


def test_reductions_name_axes_in_any_way():
    a = numbers((2, 3, 4))
    x = tv.Tensor(a)
    for axis in (None, 0, -1, (0, 2), (-1, 0), [1], ()):
        names = axis if axis is None or isinstance(axis, int) else tuple(axis)
        assert_close(x.sum(axis).data, a.sum(axis=names), 16)
        assert_close(x.max(axis, keepdims=True).data, a.max(axis=names, keepdims=True), 1)


def test_reshape_of_scattered_memory():
    """A transposed tensor is copied into order first: as a launch, so that a replay and the gradient know of it."""
    a = numbers((2, 3, 4))
    x = tv.Tensor(a, requires_grad=True)
    with tv.Tape() as tape:
        y = x.transpose((2, 0, 1)).reshape(8, -1)
    assert_same_bits(y.data, a.transpose(2, 0, 1).reshape(8, -1))
    assert [launch.rule.name for launch in tape.launches] == ["transpose", "copy", "reshape"]
    assert np.shares_memory(x.reshape(-1).data, a), "unbroken memory is not copied"
    assert x.reshape((2, 3, 4)) is x
    check_gradients(lambda x: x.T.reshape(3, 8) ** 2, a)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_stack(axis):
    parts = [numbers((2, 3), i) for i in range(3)]
    found = tv.stack([tv.Tensor(p) for p in parts], axis)
    assert_same_bits(found.data, np.stack(parts, axis))
    check_gradients(lambda *p: tv.stack(p, axis).tanh(), *parts)


def test_split_and_concatenate_are_inverse():
    a = numbers((2, 6))
    parts = tv.Tensor(a).split(3)
    assert [p.shape for p in parts] == [(2, 2)] * 3
    assert_same_bits(parts[0].concatenate(*parts[1:], axis=-1).data, a)


def test_a_tensor_shares_memory_and_shows_itself():
    a = numbers(3)
    x = tv.Tensor(a, requires_grad=True, name="w")
    assert x.data is a
    assert (x.shape, x.ndim, x.size, x.dtype, x.device) == ((3,), 1, 3, np.float64, "cpu")
    assert "requires_grad=True" in repr(x)
    assert "made by mul" in repr(x * 2)
    assert np.array_equal(np.asarray(x), a)
    assert float(tv.Tensor(np.array(2.5))) == 2.5
    assert int(tv.Tensor(np.array(7))) == 7
    assert bool(tv.Tensor(np.array([1.0]) > 0))
    assert len({x, x, x * 1}) == 2, "a tensor is hashed by identity, though == compares values"


# ---- errors that help ----------------------------------------------------------------


def test_item_assignment():
    x = leaf([1.0, 2.0])
    with pytest.raises(TypeError, match=r"item assignment .* flag\.where\(a, b\) or a\.concatenate"):
        x[0] = 3.0


def test_backward_from_more_than_one_number():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"single number; found shape \(2,\), made by mul: reduce it with \.sum\(\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"seed has shape \(3,\); expected .* \(2,\)"):
        tv.grad(x * 2, x, seed=np.ones(3))


def test_derivative_by_something_without_one():
    with pytest.raises(ValueError, match=r"derivative by weight of shape \(2,\) .* requires_grad=True"):
        tv.grad(leaf([1.0]).sum(), tv.Tensor(np.ones(2), name="weight"))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, np.complex128, object, bool])
def test_foreign_types(dtype):
    """Arithmetic is for float32 and float64: other arrays are refused by name, not converted."""
    values = np.ones(3).astype(dtype)
    for make in (lambda: tv.Tensor(values) * 2.0, lambda: leaf([1, 2, 3]) + values, lambda: tv.Tensor(values).exp()):
        with pytest.raises(TypeError, match=rf"(mul|add|exp) found numbers of type {np.dtype(dtype)}.*\.astype"):
            make()
    with pytest.raises(TypeError, match=rf"type {np.dtype(dtype)} has no derivative; make it float32 or float64"):
        tv.Tensor(values, requires_grad=True)


@pytest.mark.parametrize("data", [None, [1, None], 1j, "a"], ids=str)
def test_a_tensor_of_no_numbers_is_refused(data):
    with pytest.raises(TypeError, match="for a tensor; expected numbers or truth values"):
        tv.Tensor(data)


def test_longdouble_is_foreign_too():
    if np.dtype(np.longdouble) == np.float64:
        pytest.skip("optional: this platform's long double is float64")
    with pytest.raises(TypeError, match="add found numbers of type"):
        leaf([1.0]) + np.ones(1, np.longdouble)


def test_mixed_types():
    with pytest.raises(TypeError, match=r"matmul found float32 and float64; .* give both inputs one type"):
        leaf(np.ones((2, 2)), np.float32) @ leaf(np.ones((2, 2)))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: leaf([1.0, 2.0]) + leaf([1.0, 2.0, 3.0]), r"add cannot combine shapes \(2,\) and \(3,\)"),
    (lambda: leaf([[1.0, 2.0]]) @ leaf([1.0]), r"matmul found shapes \(1, 2\) and \(1,\); expected \(\.\.\., m, k\)"),
    (lambda: leaf(1.0) @ leaf([1.0]), r"matmul found shapes \(\) and \(1,\)"),
    (lambda: leaf(np.ones((2, 2, 3))) @ leaf(np.ones((5, 3, 2))), r"matmul cannot combine shapes \(2, 2, 3\) and"),
    (lambda: leaf([1.0, 2.0]).reshape(3), r"reshape cannot combine shapes \(2,\)"),
    (lambda: leaf([1.0, 2.0]).sum(1), r"axis 1 does not exist in a tensor of shape \(2,\)"),
    (lambda: leaf([1.0, 2.0]).sum((0, -2)), r"axis \(0, -2\) does not exist"),
    (lambda: leaf([1.0, 2.0, 3.0]).split(2), r"split cannot combine shapes \(3,\)"),
    (lambda: leaf([[1.0]]).concatenate(leaf([1.0])), r"concatenate cannot combine shapes \(1, 1\) and \(1,\)"),
    (lambda: leaf([1.0, 2.0]).broadcast_to((3,)), r"broadcast_to cannot combine shapes \(2,\)"),
])  # fmt: skip
def test_wrong_shapes(make, message):
    """NumPy's message names shapes; ours names the operation as well."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("index", [[0, 2], [-3, 0], np.array([5])])
def test_gather_out_of_range(index):
    """A wrong index is named; NumPy's wrapping mode, which the row uses for speed, must never be reached by it."""
    x = leaf([1.0, 2.0])
    with pytest.raises(IndexError, match=rf"gather found indices from {min(index)} to {max(index)}; .* below 2"):
        x[index]


def test_masks_and_arrays_in_tuples():
    """What NumPy would take as advanced indexing is refused with the way to write it."""
    x = leaf(np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"gather found indices of type bool; expected whole numbers .*flag\.where"):
        x[np.array([True, False])]
    with pytest.raises(TypeError, match=r"slice found an array among several indices; .*x\[index\]\[:, 2\]"):
        x[np.array([0, 0]), 1]
    with pytest.raises(TypeError, match="indices of type float64"):
        x[[0.5]]


def test_numbers_in_place_of_flags():
    """Both at the first run and not only at the replay; and `cast` is no way to change the type of numbers."""
    x = leaf([0.0, 1.0])
    with pytest.raises(TypeError, match=r"where found float64.* truth values.* compare first"):
        x.where(x, 0.0)
    with pytest.raises(TypeError, match=r"cast found float64.* truth values"):
        x.cast(np.float32)


class OtherArray(np.ndarray):
    """Stands for an array of another device."""


OtherArray.__module__ = "elsewhere.core"


def test_mixed_devices(monkeypatch):
    """Nothing moves between devices by itself: the operation, both devices and the cure are named."""
    stranger = np.ones(2).view(OtherArray)
    with pytest.raises(DeviceError, match="found an OtherArray; expected a NumPy or CuPy array"):
        tv.Tensor(stranger) * 2.0
    other = Namespace("other", "numpy", "scipy.special")
    other.asarray = np.asanyarray
    monkeypatch.setitem(NAMESPACES, "elsewhere", other)
    there = tv.Tensor(stranger)
    assert there.device == "other"
    for make in (lambda: leaf([1.0, 2.0]) * there, lambda: there * leaf([1.0, 2.0])):
        with pytest.raises(DeviceError, match=r"mul found one input on (cpu|other) and one on (cpu|other); .*device="):
            make()
    assert isinstance((there * 2.0 + there).data, OtherArray)


# ---- a row of one's own --------------------------------------------------------------


@pytest.fixture
def own_rows():
    before = set(TABLE)
    yield
    for name in set(TABLE) - before:
        del TABLE[name]


def test_a_user_can_add_a_row(own_rows):
    """Two rows, each the other's derivative, in a dozen lines: checked twice over, replayed, and in float32."""
    tv.rule("sin", lambda xp, a, out: xp.sin(a, out=out), (lambda g, y, a: g * a.apply("cos"),))
    tv.rule("cos", lambda xp, a, out: xp.cos(a, out=out), (lambda g, y, a: -g * a.apply("sin"),))
    tv.rule("hypot", lambda xp, a, b, out: xp.hypot(a, b, out=out),
            (lambda g, y, a, b: g * a / y, lambda g, y, a, b: g * b / y), (POSITIVE, NONZERO))

    x = np.linspace(-2, 2, 5)
    check_gradients(lambda x: x.apply("sin"), x, order=2)
    check_gradients(lambda a, b: a.apply("hypot", b), x + 3, np.array([0.5]), order=2)
    with tv.Tape() as tape:
        single = leaf(x, np.float32)
        y = tv.grad(single.apply("sin").sum(), single)
    single.data[...] = 0
    tape.replay()
    assert_same_bits(y.data, np.ones(5, np.float32))


def test_a_wrong_row_of_a_user_is_found(own_rows):
    tv.rule("sin", lambda xp, a, out: xp.sin(a, out=out), (lambda g, y, a: g * a.apply("sin"),))
    with pytest.raises(GradientError, match=r"gradient by input 0 at element \(0,\)"):
        check_gradients(lambda x: x.apply("sin"), np.array([0.3, 1.0]))


def test_an_unknown_row():
    with pytest.raises(ValueError, match="there is no operation 'no-such-row'; there are add, sub"):
        leaf([1.0]).apply("no-such-row")


def test_a_row_is_a_method_by_its_name():
    """A row that was just added, too; a name that is no row is an AttributeError, so `hasattr` works."""
    tv.rule("tripled", lambda xp, a, out, by=3: xp.multiply(a, by, out=out), (lambda g, y, a, by=3: g * by,))
    try:
        x = leaf([1.0, 2.0])
        assert_same_bits(x.tripled().numpy(), np.array([3.0, 6.0]))
        assert_same_bits(x.tripled(by=5).numpy(), np.array([5.0, 10.0]))
        assert_same_bits(tv.grad(x.tripled().sum(), x).numpy(), np.array([3.0, 3.0]))
        assert not hasattr(x, "no_such_row")
    finally:
        del TABLE["tripled"]
