"""The engine against a naive twin under arbitrary histories.

The twin is forward mode on Python numbers: each number carries its derivatives by all leaf elements, and NumPy's
object arrays do the broadcasting. It has no graph, no sweep, no launches, and shares no line with the engine.
"""

import math

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from support import assert_close, make_wrong

import tinyvae as tv

# ---- the twin ------------------------------------------------------------------------


class Number:
    """A value and its derivatives, as a dictionary from (leaf, element) to number."""

    def __init__(self, value, slopes):
        self.value, self.slopes = value, slopes

    def through(self, value, slope):
        return Number(value, {name: slope * s for name, s in self.slopes.items()})

    def __add__(self, other):
        other = as_number(other)
        names = {**self.slopes, **other.slopes}
        slopes = {name: self.slopes.get(name, 0.0) + other.slopes.get(name, 0.0) for name in names}
        return Number(self.value + other.value, slopes)

    def __mul__(self, other):
        other = as_number(other)
        product = self.through(0.0, other.value) + other.through(0.0, self.value)
        return Number(self.value * other.value, product.slopes)

    def maximum(self, other):
        if self.value == other.value:
            return (self + other) * 0.5  # a tie shares
        return self if self.value > other.value else other

    __radd__, __rmul__ = __add__, __mul__


def as_number(value):
    return value if isinstance(value, Number) else Number(float(value), {})


def each(function, count=1):
    return np.frompyfunc(function, count, 1)


def naive_leaf(name, values):
    numbers = [Number(float(v), {(name, i): 1.0}) for i, v in enumerate(values.flat)]
    return np.array(numbers, dtype=object).reshape(values.shape)


def values_of(naive):
    return np.array([n.value for n in np.ravel(naive)], float).reshape(np.shape(naive))


def slopes_of(naive, name, shape):
    return np.array([naive.slopes.get((name, i), 0.0) for i in range(math.prod(shape))], float).reshape(shape)


# ---- the two, side by side -----------------------------------------------------------
# Every operation as (engine, twin). Results stay moderate, so that rounding does not grow along a history.

ONE = {
    "tanh": (lambda t: t.tanh(), each(lambda n: n.through(math.tanh(n.value), 1 - math.tanh(n.value) ** 2))),
    "sigmoid": (lambda t: t.sigmoid(),
                each(lambda n: n.through(s := 1 / (1 + math.exp(-n.value)), s * (1 - s)))),
    "neg": (lambda t: -t, lambda n: n * -1.0),
    "twice": (lambda t: t + t, lambda n: n * 2.0),
    "square": (lambda t: (t * t).tanh(), each(
        lambda n: n.through(math.tanh(n.value**2), 2 * n.value * (1 - math.tanh(n.value**2) ** 2)))),
    "stop": (lambda t: t.detach(), each(lambda n: Number(n.value, {}))),
    "copy": (lambda t: t.apply("copy"), np.copy),
    "turn": (lambda t: t.T, np.transpose),
    "flat": (lambda t: t.reshape(-1), np.ravel),
    "column": (lambda t: t.reshape(-1, 1), lambda n: np.reshape(n, (-1, 1))),
    "flip": (lambda t: t[..., ::-1] if t.ndim else t, lambda n: n[..., ::-1] if np.ndim(n) else n),
    "first": (lambda t: t[:1] if t.ndim else t, lambda n: n[:1] if np.ndim(n) else n),
    "rows": (lambda t: t[[-1, 0]] if t.ndim else t, lambda n: n[[-1, 0]] if np.ndim(n) else n),
    "sum": (lambda t: t.sum(), lambda n: np.array(sum(np.ravel(n), Number(0.0, {})), dtype=object)),
    "mean": (lambda t: t.mean(0, keepdims=True) if t.ndim else t,
             lambda n: np.sum(n, axis=0, keepdims=True) * (1 / len(n)) if np.ndim(n) else n),
    "join": (lambda t: t.concatenate(t.tanh()) if t.ndim else t,
             lambda n: np.concatenate([n, ONE["tanh"][1](n)]) if np.ndim(n) else n),
}  # fmt: skip
TWO = {
    "add": (lambda a, b: a + b, lambda a, b: a + b),
    "sub": (lambda a, b: a - b, lambda a, b: a + b * -1.0),
    "mul": (lambda a, b: a * b.tanh(), lambda a, b: a * ONE["tanh"][1](b)),
    "maximum": (lambda a, b: a.maximum(b), each(lambda a, b: a.maximum(b), 2)),
    "where": (lambda a, b: (a > b).where(a * 0.5, b), each(lambda a, b: a * 0.5 if a.value > b.value else b, 2)),
}  # fmt: skip
LARGEST = 24  # elements of a value


class Engine(RuleBasedStateMachine):
    """Leaves, values made of them in any order, and gradients by any of them at any time."""

    def __init__(self):
        super().__init__()
        self.leaves = {}  # name: leaf
        self.kept = {}  # name: the sum of gradients that backward() left, or None

    values = Bundle("values")

    @rule(target=values, shape=st.sampled_from([(), (1,), (3,), (2, 1), (2, 3), (1, 3)]), seed=st.integers(0, 99))
    def leaf(self, shape, seed):
        name = len(self.leaves)
        array = np.random.default_rng((seed, name)).uniform(-2, 2, shape)
        self.leaves[name], self.kept[name] = tv.Tensor(array, requires_grad=True), None
        return self.leaves[name], naive_leaf(name, array)

    @rule(target=values, shape=st.sampled_from([(), (3,), (2, 3)]), seed=st.integers(0, 99))
    def constant(self, shape, seed):
        array = np.random.default_rng(seed).uniform(-2, 2, shape)
        return tv.Tensor(array), each(as_number)(array) if shape else np.array(as_number(array), dtype=object)

    def made(self, tensor, naive):
        naive = np.array(naive, dtype=object) if not isinstance(naive, np.ndarray) else naive
        assert_close(tensor.data, values_of(naive), 256, "value")
        return tensor, naive

    @rule(target=values, name=st.sampled_from(list(ONE)), value=values)
    def unary(self, name, value):
        tensor, naive = value
        if name == "join" and tensor.size > LARGEST // 2:
            return value
        return self.made(ONE[name][0](tensor), ONE[name][1](naive))

    @rule(target=values, name=st.sampled_from(list(TWO)), a=values, b=values)
    def binary(self, name, a, b):
        try:
            shape = np.broadcast_shapes(a[0].shape, b[0].shape)
        except ValueError:
            with pytest.raises(ValueError, match="cannot combine shapes"):
                TWO[name][0](a[0], b[0])
            return a
        if math.prod(shape) > LARGEST:
            return a
        return self.made(TWO[name][0](a[0], b[0]), TWO[name][1](a[1], b[1]))

    @rule(target=values, a=values, b=values)
    def product(self, a, b):
        if a[0].ndim != 2 or b[0].ndim != 2 or a[0].shape[1] != b[0].shape[0]:
            return a
        if a[0].shape[0] * b[0].shape[1] > LARGEST:
            return a
        scaled = [ONE["tanh"][i](a[i]) for i in (0, 1)]
        return self.made(scaled[0] @ b[0], np.array([[sum(map(lambda x, y: x * y, row, column), Number(0.0, {}))
                                                      for column in b[1].T] for row in scaled[1]], dtype=object))

    @rule(value=consumes(values))
    def forget(self, value):
        """A value that nobody holds any more must not be missed."""

    def scalar(self, value, other):
        """A number that depends on two values, on the second in two ways."""
        total = value[0].sum() * 2.0 + (other[0] * other[0]).tanh().sum()
        naive = sum(np.ravel(value[1]), Number(0.0, {})) * 2.0
        return total, naive + sum(np.ravel(ONE["square"][1](other[1])), Number(0.0, {}))

    @rule(value=values, other=values, chosen=st.sets(st.integers(0, 9)))
    def differentiate(self, value, other, chosen):
        wanted = [name for name in self.leaves if name in chosen]
        total, naive = self.scalar(value, other)
        for name, g in zip(wanted, tv.grad(total, [self.leaves[n] for n in wanted]), strict=True):
            assert_close(g.data, slopes_of(naive, name, g.shape), 1024, f"the gradient by leaf {name}")

    @rule(value=values, other=values)
    def backward(self, value, other):
        total, naive = self.scalar(value, other)
        total.backward()
        reached = {name for name, _ in naive.slopes}
        for name in self.leaves:
            slope = slopes_of(naive, name, self.leaves[name].shape)
            if self.kept[name] is not None:
                self.kept[name] = self.kept[name] + slope
            elif name in reached:
                self.kept[name] = slope

    @invariant()
    def kept_gradients_agree(self):
        for name, leaf in self.leaves.items():
            if self.kept[name] is not None:
                assert_close(leaf.grad.data, self.kept[name], 4096, f"the kept gradient of leaf {name}")


TestEngine = Engine.TestCase
TestEngine.settings = settings(max_examples=75, stateful_step_count=50)


@pytest.mark.parametrize(("name", "grads"), [
    ("mul", (lambda g, y, a, b: g * b, lambda g, y, a, b: g * b)),  # the wrong factor
    ("slice", (lambda g, y, a, key: g.unslice(key=(slice(None, g.shape[0]), ...), shape=a.shape),)),  # misplaced
    ("sub", (lambda g, y, a, b: g, lambda g, y, a, b: g)),  # a wrong sign
])  # fmt: skip
def test_a_wrong_engine_is_found(monkeypatch, name, grads):
    make_wrong(monkeypatch, name, grads=grads)
    with pytest.raises(AssertionError, match="rounding units"):
        run_state_machine_as_test(Engine, settings=settings(
            max_examples=3000, stateful_step_count=50, derandomize=True, phases=[Phase.generate]))  # fmt: skip
