"""The rule table, row by row: values against NumPy and SciPy, derivatives against finite differences, manners.

Every check is a function of one row and one case, so that the same function is used twice: by a property test over
all rows, where it must pass, and at the end of the file on a row made wrong, where it must fail.
"""

import ast
import math

import mpmath
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes
from support import DTYPES, ROOT, assert_close, assert_same_bits, make_wrong

import tinyvae as tv
from tinyvae.engine.rules import NONZERO, TABLE, Interval
from tinyvae.engine.testing import GradientError, check_gradients

# ---- what each row is tested with ----------------------------------------------------
# A case is (shapes of the inputs, attributes). Rows without an entry here are elementwise: any shapes that broadcast.


def reductions(least=0, keepdims=True):
    """Any axes of any shape; `least` = 1 where an empty axis has no value."""

    @st.composite
    def case(draw):
        shape = draw(array_shapes(min_dims=0, max_dims=3, min_side=least, max_side=4))
        axis = tuple(sorted(draw(st.sets(st.sampled_from(range(len(shape)))) if shape else st.just(set()))))
        return (shape,), {"axis": axis, **({"keepdims": draw(st.booleans())} if keepdims else {})}

    return case()


@st.composite
def products(draw):
    """(..., m, k) @ (..., k, n), batches of both sides broadcast; k = 0 sums nothing."""
    m, k, n = (draw(st.integers(0, 3)) for _ in range(3))
    left, right = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=2)).input_shapes
    return ((*left, m, k), (*right, k, n)), {}


@st.composite
def softmaxes(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    return (shape,), {"axis": (draw(st.integers(0, len(shape) - 1)),)}


@st.composite
def pairs_of_laws(draw):
    (a, b), n = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=2)).input_shapes, draw(
        st.integers(1, 4))  # fmt: skip
    return ((*a, n), (*b, n)), {}


@st.composite
def reshapes(draw):
    a, b, c = (draw(st.integers(0, 3)) for _ in range(3))
    shapes = [(a * b, c), (a, b * c), (a * b * c,), (1, a, b, c), (c, b, a)]
    return ((a, b, c),), {"shape": draw(st.sampled_from(shapes))}


@st.composite
def transposes(draw):
    shape = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    return (shape,), {"axes": tuple(draw(st.permutations(range(len(shape)))))}


@st.composite
def broadcasts(draw):
    shapes = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
    return (shapes.input_shapes[0],), {"shape": shapes.result_shape}


KEYS = [
    (..., slice(1, 3)), (slice(None, None, 2), ...), (slice(None, None, -1), ...), (2, ...), (-1, ...),
    (slice(0, 0), ...), (..., None), (slice(1, None), slice(None, -1), ...), (0, 1, ...),
]  # fmt: skip


@st.composite
def slices(draw):
    return (draw(st.sampled_from([(3, 4), (5, 2), (4, 3, 2)])),), {"key": draw(st.sampled_from(KEYS))}


@st.composite
def unslices(draw):
    shape = draw(st.sampled_from([(3, 4), (5, 2), (4, 3, 2)]))
    key = draw(st.sampled_from([key for key in KEYS if None not in key]))
    return (np.empty(shape)[key].shape,), {"key": key, "shape": shape}


@st.composite
def splits(draw):
    axis, parts, width = draw(st.integers(0, 1)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    shape = [2, 2]
    shape[axis] = parts * width
    return (tuple(shape),), {"axis": axis, "parts": parts}


@st.composite
def concatenations(draw):
    axis = draw(st.integers(0, 1))
    shapes = [[2, 2] for _ in range(draw(st.integers(1, 3)))]
    for shape in shapes:
        shape[axis] = draw(st.integers(0, 3))
    return tuple(map(tuple, shapes)), {"axis": axis}


@st.composite
def gathers(draw):
    rows, index = draw(st.integers(1, 4)), draw(st.sampled_from([(), (0,), (3,), (2, 2)]))
    return ((rows, *draw(st.sampled_from([(), (2,), (2, 3)]))), ("index", rows, index)), {}


@st.composite
def scatters(draw):
    rows, index = draw(st.integers(1, 4)), draw(st.sampled_from([(0,), (3,), (2, 2)]))
    return ((*index, *draw(st.sampled_from([(), (2,)]))), ("index", rows, index)), {"rows": rows}


@st.composite
def anything(draw):
    return (draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),), {}


@st.composite
def polygammas(draw):
    return (draw(array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)),), {"order": draw(st.integers(0, 3))}


@st.composite
def simplices(draw):
    """Vectors of two or more numbers, and others of the same length to diverge from."""
    leading, n = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)), draw(st.integers(2, 4))
    return tuple((*shape, n) for shape in leading.input_shapes), {}


@st.composite
def casts(draw):
    shape = draw(array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    return (shape,), {"dtype": np.dtype(draw(st.sampled_from(DTYPES)))}


@st.composite
def clouds(draw):
    """Points (rows, n), and the means and log-variances (K, n) of others."""
    rows, count, n = (draw(st.integers(1, 4)) for _ in range(3))
    return ((rows, n), (count, n), (count, n)), {}


CASES = {
    "sum": reductions(), "mean": reductions(least=1), "max": reductions(least=1), "logsumexp": reductions(least=1),
    "log_softmax": softmaxes(), "softmax": softmaxes(), "matmul": products(), "reshape": reshapes(),
    "transpose": transposes(), "categorical_kl": pairs_of_laws(),
    "broadcast_to": broadcasts(), "slice": slices(), "unslice": unslices(), "split": splits(),
    "concatenate": concatenations(), "gather": gathers(), "scatter": scatters(), "detach": anything(),
    "copy": anything(),
    "polygamma": polygammas(), "stirling": polygammas(), "cast": casts(), "dirichlet_kl": simplices(),
    "scaled_distances": clouds(),
}  # fmt: skip

# Rows tested elsewhere, and why not here; so are all that change an input in place, draw noise or look rows up.
ELSEWHERE = {
    "solve_lower": "takes a triangular matrix; see test_full_normal.py",
    "strict_lower": "makes a triangle; see test_full_normal.py",
    "below_diagonal": "is its inverse; see test_full_normal.py",
    "gamma_log_sample_grad": "is a derivative itself; see test_special.py",
    "log_ratio": "takes a number and its logarithm; see test_stirling.py",
    "deviance": "takes a number and its logarithm; see test_stirling.py",
    "scale_gradient": "its gradient is another one than its value's, on purpose; see test_bounds.py",
}  # fmt: skip

# The same values by another road: Python's math, SciPy, or a loop. A row may also bring its own, as `reference`.
REFERENCES = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "neg": lambda a: 0 - a, "pow": lambda a, b: np.exp(b * np.log(a)),
    "scaled_pow": lambda c, a, b: c * np.exp(b * np.log(a)), "sqrt": lambda a: np.exp(0.5 * np.log(a)),
    "abs": lambda a: np.maximum(a, -a), "sign": lambda a: 1.0 * (a > 0) - 1.0 * (a < 0),
    "exp": np.vectorize(math.exp, otypes=[float]), "log": np.vectorize(math.log, otypes=[float]),
    "expm1": np.vectorize(math.expm1, otypes=[float]), "log1p": np.vectorize(math.log1p, otypes=[float]),
    "tan": np.vectorize(math.tan, otypes=[float]),
    "tanh": np.vectorize(math.tanh, otypes=[float]), "sigmoid": scipy.special.expit,
    "softplus": lambda a: np.logaddexp(0, a), "relu": lambda a: a * (a > 0),
    "maximum": lambda a, b: (a + b + np.abs(a - b)) / 2, "minimum": lambda a, b: (a + b - np.abs(a - b)) / 2,
    "where": lambda flag, a, b: flag * a + (1 - flag) * b,
    "greater": lambda a, b: a - b > 0, "greater_equal": lambda a, b: a - b >= 0, "less": lambda a, b: b - a > 0,
    "less_equal": lambda a, b: b - a >= 0, "equal": lambda a, b: a - b == 0, "not_equal": lambda a, b: a - b != 0,
    "cast": lambda flag, dtype: 1 * flag,
    "sum": lambda a, axis, keepdims: _reduce(math.fsum, a, axis, keepdims),
    "mean": lambda a, axis, keepdims: _reduce(lambda v: math.fsum(v) / len(v), a, axis, keepdims),
    "max": lambda a, axis, keepdims: _reduce(max, a, axis, keepdims),
    "logsumexp": lambda a, axis, keepdims: (
        scipy.special.logsumexp(a, axis=axis, keepdims=keepdims) if axis else np.array(a)
    ),
    "log_softmax": lambda a, axis: scipy.special.log_softmax(a, axis=axis[0]),
    "softmax": lambda a, axis: scipy.special.softmax(a, axis=axis[0]),
    "categorical_kl": lambda a, b: scipy.special.rel_entr(
        scipy.special.softmax(a, -1), scipy.special.softmax(b, -1)).sum(-1, keepdims=True),
    "matmul": lambda a, b: np.einsum("...ij,...jk->...ik", a, b),
    "reshape": lambda a, shape: np.array(list(a.flat)).reshape(shape),
    "transpose": lambda a, axes: np.einsum(a, list(range(a.ndim)), list(axes)),
    "broadcast_to": lambda a, shape: a + np.zeros(shape), "slice": lambda a, key: a[key], "detach": lambda a: a,
    "copy": lambda a: a, "unslice": lambda a, key, shape: _unslice(a, key, shape),
    "split": lambda a, axis, parts: np.split(a, parts, axis), "concatenate": lambda *a, axis: np.concatenate(a, axis),
    "gather": lambda a, index: a[index], "scatter": lambda a, index, rows: _scatter(a, index, rows),
    "lgamma": np.vectorize(math.lgamma, otypes=[float]),
    "polygamma": lambda a, order: scipy.special.polygamma(order, a),
    "stirling": lambda a, order: _stirling(a, order),
    "student_constant": lambda df: (scipy.special.gammaln((df + 1) / 2) - scipy.special.gammaln(df / 2)
                                    - np.log(np.pi * df) / 2),
    "student_constant_slope": lambda df: (scipy.special.digamma((df + 1) / 2) - scipy.special.digamma(df / 2)
                                          - 1 / df) / 2,
    "gamma_kl": lambda a, b, a0, b0: _of_log_gamma(a0, a) + a0 * np.log(b / b0) + a * (b0 / b - 1),
    "scaled_distances": lambda z, m, logvar: ((z[:, None] - m) ** 2 * np.exp(-logvar)).sum(-1),
    "dirichlet_kl": lambda a, a0: (_of_log_gamma(a0, a).sum(-1, keepdims=True)
                                   - _of_log_gamma(a0.sum(-1, keepdims=True), a.sum(-1, keepdims=True))),
    "erf": np.vectorize(math.erf, otypes=[float]),
}  # fmt: skip
# The size of the terms that a row adds up in float64, where they cancel: its error there is in units of them.
SIZES = {"scaled_distances": lambda z, m, logvar: ((abs(z[:, None]) + abs(m)) ** 2 * np.exp(-logvar)).sum(-1)}


def _reduce(function, a, axis, keepdims):
    """A reduction by a Python loop over what stays."""
    moved = np.moveaxis(a, axis, range(len(axis)))
    rest = moved.shape[len(axis) :]
    flat = moved.reshape(math.prod(moved.shape[: len(axis)]), *rest)
    result = np.array([function([float(v) for v in flat[(slice(None), *where)]]) for where in np.ndindex(rest)])
    return result.reshape([1 if i in axis else n for i, n in enumerate(a.shape)] if keepdims else rest)


def _stirling(a, order):
    """log Gamma less Stirling's formula, and the derivatives of both."""
    if order == 0:
        return scipy.special.gammaln(a) - (a - 0.5) * np.log(a) + a - 0.5 * math.log(2 * math.pi)
    n, sign = order - 1, (-1.0) ** (order - 1)
    of_log = np.log(a) if n == 0 else -sign * math.factorial(n - 1) / a**n
    return scipy.special.polygamma(n, a) - of_log + sign * 0.5 * math.factorial(n) / a**order


def _of_log_gamma(a0, a):
    """The divergence of log Gamma as a convex function."""
    return scipy.special.gammaln(a0) - scipy.special.gammaln(a) - (a0 - a) * scipy.special.digamma(a)


def _unslice(a, key, shape):
    places = np.arange(math.prod(shape)).reshape(shape)[key]
    result = np.zeros(math.prod(shape))
    for place, number in zip(places.flat, a.flat, strict=True):
        result[place] = number
    return result.reshape(shape)


def _scatter(a, index, rows):
    result = np.zeros((rows, *a.shape[index.ndim :]))
    for where in np.ndindex(index.shape):
        result[index[where]] = result[index[where]] + a[where]
    return result


def case_of(name):
    def elementwise(shapes):
        return shapes.input_shapes, attributes

    if name in CASES:
        return CASES[name]
    count, attributes = len(TABLE[name].domain), TABLE[name].example
    return mutually_broadcastable_shapes(num_shapes=count, max_dims=3, min_side=0, max_side=3).map(elementwise)


def inputs_for(name, shapes, seed, dtype=np.float64):
    """Inputs from the row's domain. No two numbers lie close together, so that no maximum is nearly tied."""
    rng = np.random.default_rng(seed)
    count = max([math.prod(shape) for shape in shapes if shape[:1] != ("index",)] + [1])
    arrays = []
    for i, shape in enumerate(shapes):
        domain = TABLE[name].domain_of(i)
        if domain.kind == "index":
            _, rows, shape = shape
            arrays.append(rng.integers(-rows, rows, shape))
        elif domain.kind == "flag":
            arrays.append(rng.random(shape) < 0.5)
        else:
            places = rng.permutation(count)[: math.prod(shape)] + (i + 1) / (len(shapes) + 1)
            numbers = domain.low + (domain.high - domain.low) * places / count
            if domain == NONZERO:
                numbers *= rng.choice([-1.0, 1.0], numbers.shape)
            arrays.append(numbers.reshape(shape).astype(dtype))
    return arrays


# ---- the checks ----------------------------------------------------------------------


def apply_row(name, arrays, attributes, requires_grad=False):
    """The row on tensors; its outputs as a tuple."""
    row = TABLE[name]
    number = [row.domain_of(i).kind == "number" for i in range(len(arrays))]
    leaves = [tv.Tensor(a, requires_grad=requires_grad and ok) for a, ok in zip(arrays, number, strict=True)]
    result = tv.apply(name, *leaves, **attributes)
    return (result if isinstance(result, tuple) else (result,)), leaves


def check_value(name, shapes, attributes, seed, units=64):
    """The value is the reference's, in both types; the result has the input's type; the inputs are untouched."""
    for dtype in DTYPES:
        arrays = inputs_for(name, shapes, seed, dtype)
        before = [a.copy() for a in arrays]
        found, _ = apply_row(name, arrays, attributes)
        for a, b in zip(arrays, before, strict=True):
            assert_same_bits(a, b, f"{name} changed its input")
        wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
        expected = (REFERENCES.get(name) or TABLE[name].reference)(*wide, **attributes)
        expected = expected if isinstance(expected, (list, tuple)) else [expected]
        for y, reference in zip(found, expected, strict=True):
            if np.asarray(reference).dtype == bool:
                assert y.dtype == bool
                assert np.array_equal(y.data, reference)
                continue
            wanted = attributes.get("dtype", dtype)
            assert y.dtype == wanted, f"{name} made {y.dtype} of {np.dtype(dtype)}"
            terms = SIZES[name](*wide) if name in SIZES and dtype == np.float64 else np.abs(reference)
            assert_close(y.data, reference, units, name, np.maximum(1, terms))


def differentiable(name, arrays):
    """The inputs by which this row differentiates."""
    row = TABLE[name]
    return [i for i in range(len(arrays)) if row.domain_of(i).kind == "number" and row.flows(i)]


def check_derivatives(name, shapes, attributes, seed, order=2):
    """Gradients, and the gradients of gradients, against central differences in float64."""
    arrays = inputs_for(name, shapes, seed)
    moving = differentiable(name, arrays)

    def f(*leaves):
        full = list(map(tv.Tensor, arrays))
        for i, leaf in zip(moving, leaves, strict=True):
            full[i] = leaf
        found = tv.apply(name, *full, **attributes)
        if not isinstance(found, tuple):
            return found
        return sum((k + 2) * part.sum() for k, part in enumerate(found[1:])) + found[0]

    check_gradients(f, *(arrays[i] for i in moving), order=order, seed=seed)


def gradients_of(name, arrays, attributes, seed):
    """Gradients of a random projection of the row's outputs, by every input that has one."""
    found, leaves = apply_row(name, arrays, attributes, requires_grad=True)
    rng = np.random.default_rng(seed + 1)
    wanted = [leaves[i] for i in differentiable(name, arrays)]
    total = None
    for y in found:
        term = (y * rng.uniform(0.5, 1.5, y.shape).astype(y.dtype)).sum()
        total = term if total is None else total + term
    return tv.grad(total, wanted), wanted


def check_manners(name, shapes, attributes, seed):
    """Gradients have the inputs' shapes and types, share memory with nothing, and leave the inputs alone."""
    for dtype in DTYPES:
        arrays = inputs_for(name, shapes, seed, dtype)
        before = [a.copy() for a in arrays]
        gradients, wanted = gradients_of(name, arrays, attributes, seed)
        for g, x in zip(gradients, wanted, strict=True):
            assert (g.shape, g.dtype) == (x.shape, x.dtype), f"{name}: {g.shape} {g.dtype} for {x.shape} {x.dtype}"
        everything = [g.data for g in gradients] + arrays
        for i, g in enumerate(everything[: len(gradients)]):
            assert g.flags.writeable or not g.size, f"{name}: gradient {i} is a read-only view"
            for j, other in enumerate(everything):
                assert i == j or not np.shares_memory(g, other), f"{name}: gradient {i} shares memory with array {j}"
        for a, b in zip(arrays, before, strict=True):
            assert_same_bits(a, b, f"{name} or its derivative changed an input")


def check_precision(name, shapes, attributes, seed, units=64):
    """The float32 gradient lies within `units` rounding units of the float64 one at the same point."""
    single = inputs_for(name, shapes, seed, np.float32)
    double = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in single]
    weights32, _ = gradients_of(name, single, attributes, seed)
    weights64, _ = gradients_of(name, double, attributes, seed)
    for g, reference in zip(weights32, weights64, strict=True):
        # relative to the largest element: a sum of several terms may cancel in one of them
        scale = max(1.0, float(np.abs(reference.data).max(initial=0.0)))
        assert_close(g.data, reference.data, units, f"the gradient of {name}", scale)


def check_replay(name, shapes, attributes, seed):
    """Run a second time into its own output, as a replay does, a row gives the same bits, whatever was there."""
    row = TABLE[name]
    for dtype in DTYPES:
        arrays = inputs_for(name, shapes, seed, dtype)
        with tv.Tape() as tape:
            found, _ = apply_row(name, arrays, attributes)
        expected = [y.data.copy() for y in found]
        if not row.view:
            for y in found:
                y.data[...] = 1 if y.dtype == bool else -7
        before = [y.data for y in found]
        tape.replay()
        for y, bits, place in zip(found, expected, before, strict=True):
            assert_same_bits(y.data, bits, f"{name} into its own output")
            assert y.data is place


ROWS = [name for name, row in TABLE.items() if name in REFERENCES or row.reference is not None]
SMOOTH = [name for name in ROWS if TABLE[name].grads is not None and any(
    TABLE[name].flows(i) for i in range(1 if callable(TABLE[name].grads) else len(TABLE[name].grads)))]  # fmt: skip
seeds = st.integers(0, 2**31)


def untested():
    """Rows that neither this file nor another tests."""
    fused = {name for name, row in TABLE.items() if row.twin is not None}  # these have test_fusion.py
    other = set()
    for name, row in TABLE.items():
        kinds = {domain.kind for domain in ((row.domain,) if isinstance(row.domain, Interval) else row.domain)}
        if row.writes or kinds & {"index", "data"}:
            other.add(name)
    return set(TABLE) - set(ROWS) - set(ELSEWHERE) - fused - other


def test_every_row_is_tested_here_or_elsewhere():
    """A new row without a test, or a test of a row that is gone."""
    assert not untested(), "give such a row `reference=`, a function of arrays that computes the same in another way"
    assert set(ELSEWHERE) | set(REFERENCES) <= set(TABLE)
    assert not set(REFERENCES) & set(ELSEWHERE)
    assert set(CASES) <= set(REFERENCES)


def test_a_row_without_a_reference_is_noticed(monkeypatch):
    make_wrong(monkeypatch, "exp")
    monkeypatch.setitem(TABLE, "novel", TABLE["exp"])
    assert untested() == {"novel"}


@pytest.mark.parametrize("name", ROWS)
@given(data=st.data(), seed=seeds)
def test_value_and_gradient(name, data, seed):
    """All checks but one on the same case, for most of the time is Hypothesis's, which makes the case."""
    shapes, attributes = data.draw(case_of(name))
    check_value(name, shapes, attributes, seed)
    check_replay(name, shapes, attributes, seed)
    if name in SMOOTH:
        check_manners(name, shapes, attributes, seed)
        check_precision(name, shapes, attributes, seed)


@pytest.mark.parametrize("name", SMOOTH)
@settings(max_examples=12)  # each by every element of its inputs
@given(data=st.data(), seed=seeds)
def test_first_and_second_derivative(name, data, seed):
    check_derivatives(name, *data.draw(case_of(name)), seed)


# ---- far out: the stable forms -------------------------------------------------------

FAR = (0.0, -0.0, 1e-30, 30.0, -30.0, 90.0, -90.0, 1000.0, -1000.0, math.inf, -math.inf, math.nan)


def _expm1(a):
    return math.expm1(a) if not a > 700 else math.inf


def _logistic(a):
    return math.nan if math.isnan(a) else 1 / (1 + math.exp(-a)) if a > -700 else 0.0


def _exp(a):
    return math.exp(a) if not a > 700 else math.inf


# value and slope at a point, and what a slope may lack: an absolute error of so many rounding units of 1
STABLE = {
    "sigmoid": (_logistic, lambda a: 0.0 if abs(a) > 700 else _logistic(a) * _logistic(-a)),
    "softplus": (lambda a: math.log1p(math.exp(a)) if a < 30 else a + (math.exp(-a) if a == a else a), _logistic),
    "tanh": (math.tanh, lambda a: 1 - math.tanh(a) ** 2),
    "expm1": (_expm1, _exp),
    "log1p": (lambda a: math.log1p(a) if not a <= -1 else math.nan, lambda a: 1 / (1 + a)),
    "relu": (lambda a: a if not a <= 0 else 0.0, lambda a: 1.0 if a > 0 else 0.0 if a <= 0 else math.nan),
}


def check_far(name, dtype, units=4):
    value, slope = STABLE[name]
    # what float32 cannot hold is infinite in it: the reference overflows where the type does
    top = math.log(float(np.finfo(dtype).max))
    for a in FAR:
        if name == "log1p" and a <= -1:
            continue  # outside the domain
        x = tv.Tensor(np.array([a], dtype), requires_grad=True)
        with np.errstate(all="ignore"):
            y = x.apply(name)
            g = tv.grad(y.sum(), x)
        overflows = name == "expm1" and a > top
        assert y.dtype == g.dtype == dtype
        assert_close(y.data, [math.inf if overflows else value(a)], units, f"{name}({a})")
        assert_close(g.data, [math.inf if overflows else slope(a)], units, f"the slope of {name} at {a}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STABLE)
def test_stable_forms_far_out(name, dtype):
    """Sigmoid, softplus and the others at +-30, +-90, +-1000, infinity and NaN: value and slope."""
    check_far(name, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0.0, 30.0, -30.0, 90.0, -90.0, 1000.0, -1000.0])
def test_logsumexp_and_log_softmax_shifted_far(shift, dtype):
    """log sum exp(a + c) = c + log sum exp(a); the softmax does not change: both also where exp(a + c) overflows."""
    a = np.array([[0.5, -1.0, 2.0], [1.0, 1.0, 1.0]])
    expected = scipy.special.logsumexp(a, axis=1)
    softmax = scipy.special.softmax(a, axis=1)
    x = tv.Tensor((a + shift).astype(dtype), requires_grad=True)
    y = x.logsumexp(1)
    units = 4 * max(1, abs(shift))  # the input itself was rounded at the size of the shift
    assert_close(y.data, expected + shift, 4, "logsumexp")
    assert_close(tv.grad(y.sum(), x).data, softmax, units, "softmax")
    assert_close(x.log_softmax(1).data, np.log(softmax), units, "log_softmax")
    weights = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
    g = tv.grad((x.log_softmax(1) * weights.astype(dtype)).sum(), x)
    assert_close(g.data, weights - softmax * weights.sum(1, keepdims=True), units, "the gradient of log_softmax")


@pytest.mark.parametrize("dtype", DTYPES)
def test_logsumexp_with_infinities_and_nan(dtype):
    """Limits where they exist (an impossible term counts nothing), NaN where a NaN goes in."""
    inf, nan = math.inf, math.nan
    rows = np.array([[0, -inf, 0], [-inf, -inf, -inf], [1, inf, 0], [inf, 7, inf], [1, nan, 0], [inf, nan, 0]], dtype)
    limits = [[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3], [0, 1, 0], [0.5, 0, 0.5], [nan] * 3, [nan] * 3]
    x = tv.Tensor(rows, requires_grad=True)
    with np.errstate(all="ignore"):
        y = x.logsumexp(1)
        g = tv.grad(y.sum(), x)
        log_softmax = x.log_softmax(1)
    assert_close(y.data, [math.log(2), -inf, inf, inf, nan, nan], 2, "logsumexp")
    assert_close(g.data, limits, 2, "the softmax: terms at the infinite top share it, the others count nothing")
    with np.errstate(all="ignore"):
        expected = np.log(limits)
    expected[1] = nan  # nothing but impossible terms is no distribution
    assert_close(log_softmax.data, expected, 2, "log_softmax")


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_no_gradient_arrives_none_leaves(dtype):
    """A masked row of nothing but -inf, a root or a logarithm at 0: the seed 0 stays 0, any other goes on."""
    def slope(f, values, seed):
        x = tv.Tensor(np.array(values, dtype), requires_grad=True)
        with np.errstate(all="ignore"):
            y = f(x)
            return tv.grad(y, x, seed=np.broadcast_to(np.array(seed, dtype), y.shape)).data

    inf = math.inf
    for f in (lambda x: x.logsumexp(-1), lambda x: x.log_softmax(), lambda x: x.apply("softmax", axis=(0,)),
              lambda x: x.max(), lambda x: x.sum(), lambda x: x.mean()):
        for values in ([-inf, -inf, -inf], [inf, 1.0, -inf], [inf, inf, 0.0]):
            assert slope(f, values, 0).tolist() == [0, 0, 0]
    for f in (lambda x: x.sqrt(), lambda x: x.log(), lambda x: (x - 1).log1p()):
        assert slope(f, [0.0, 4.0], [0, 1])[0] == 0
        assert slope(f, [0.0, 4.0], [1, 1])[0] == inf
    assert slope(abs, [0.0, -1.0, 1.0], inf).tolist() == [0, -inf, inf]  # a kink: 0 there, whatever arrives
    for a in (-inf, 0.0, inf):
        for f in (lambda x: x.softplus(), lambda x: x.sigmoid(), lambda x: x.tanh(), lambda x: x.relu()):
            assert slope(f, [a], 0).tolist() == [0]


ONE_CASE = {
    **dict.fromkeys(("sum", "mean", "max", "logsumexp"), (((2, 3),), {"axis": (1,), "keepdims": False})),
    "log_softmax": (((2, 3),), {"axis": (1,)}), "softmax": (((2, 3),), {"axis": (1,)}),
    "matmul": (((2, 3), (3, 2)), {}),
    "reshape": (((2, 3),), {"shape": (3, 2)}), "transpose": (((2, 3),), {"axes": (1, 0)}),
    "broadcast_to": (((3,),), {"shape": (2, 3)}), "slice": (((2, 3),), {"key": (0, ...)}),
    "unslice": (((3,),), {"key": (0, ...), "shape": (2, 3)}), "split": (((2, 4),), {"axis": 1, "parts": 2}),
    "concatenate": (((2, 1), (2, 2)), {"axis": 1}), "gather": (((2,), ("index", 2, (3,))), {}),
    "scatter": (((3,), ("index", 2, (3,))), {"rows": 2}), "polygamma": (((2,),), {"order": 1}),
    "stirling": (((2,),), {"order": 1}), "dirichlet_kl": (((2, 3), (3,)), {}),
    "scaled_distances": (((2, 3), (4, 3), (4, 3)), {}),
}  # fmt: skip


def check_nan(name):
    shapes, attributes = ONE_CASE.get(name) or (((2, 3),) * len(TABLE[name].domain), TABLE[name].example)
    for i in range(len(shapes)):
        arrays = inputs_for(name, shapes, 3)
        if arrays[i].dtype.kind != "f":
            continue
        if arrays[0].dtype == bool:
            arrays[0][...] = i == 1  # the flag that chooses this input
        if name == "gather":
            arrays[1][...] = 0
        arrays[i].reshape(-1)[0] = math.nan
        with np.errstate(all="ignore"):
            found, _ = apply_row(name, arrays, attributes)
        assert any(np.isnan(y.data).any() for y in found), f"{name}: the NaN of input {i} is gone"


@pytest.mark.parametrize("name", SMOOTH)
def test_nan_reaches_the_value(name):
    """A NaN in any input makes some output NaN: nothing turns it into a number silently."""
    check_nan(name)


# ---- where there is a choice ---------------------------------------------------------


def test_ties_share_the_gradient():
    """Two equal candidates of maximum or minimum get half each; k equal maxima of a reduction 1/k each."""
    for name in ("maximum", "minimum"):
        a, b = (tv.Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True) for _ in range(2))
        for g in tv.grad((a.apply(name, b) * np.array([1.0, 10.0, 100.0])).sum(), [a, b]):
            assert_same_bits(g.data, np.array([0.5, 5.0, 50.0]), name)
    x = tv.Tensor(np.array([[2.0, 2.0, 1.0, 2.0], [0.0, 5.0, 4.0, 3.0]]), requires_grad=True)
    expected = np.array([[1 / 3, 1 / 3, 0, 1 / 3], [0, 1, 0, 0]])
    assert_close(tv.grad(x.max(1).sum(), x).data, expected, 1, "max")
    everything = tv.Tensor(np.full((2, 2), 7.0), requires_grad=True)
    assert_same_bits(tv.grad(everything.max(), everything).data, np.full((2, 2), 0.25), "max of all")


def test_nan_reaches_the_gradient_of_a_choice():
    """Nothing is chosen at a NaN: the value is NaN, and so is the derivative by every candidate."""
    x, y = (tv.Tensor(np.array(v), requires_grad=True) for v in ([math.nan, 1.0, 2.0], [1.0, math.nan, 1.0]))
    both = x.reshape(3, 1).concatenate(y.reshape(3, 1), axis=1)
    with np.errstate(all="ignore"):
        for value in (x.maximum(y), x.minimum(y), both.max(1)):
            assert np.isnan(value.data).tolist() == [True, True, False]
            for g in tv.grad(value.sum(), [x, y]):
                assert np.isnan(g.data).tolist() == [True, True, False]
        for value in (x.relu(), abs(x)):
            assert np.isnan(tv.grad(value.sum(), x).data).tolist() == [True, False, False]


def test_choices_far_from_nan_have_second_derivatives():
    """The NaN of the case that is not there must not leak: 0 times NaN is NaN."""
    for f in (lambda a, b: a.maximum(b) ** 3, lambda a, b: a.minimum(b) ** 3, lambda a, b: a.relu() ** 3 + b):
        check_gradients(f, np.array([1.0, -2.0, 0.5]), np.array([-1.0, 2.0, 0.7]), order=2)


def test_infinite_candidates_tie():
    a, b = (tv.Tensor(np.array([math.inf, -math.inf]), requires_grad=True) for _ in range(2))
    for name in ("maximum", "minimum"):
        assert [g.data.tolist() for g in tv.grad(a.apply(name, b), [a, b], seed=np.ones(2))] == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("rows", [1, 257, 2**18])
def test_long_sums(rows):
    """Equal rows: of 2^20 numbers added one by one in float32, a hundredth is wrong. Measured: 6e-8."""
    x = tv.Tensor(np.full((rows, 3), 0.1, np.float32), requires_grad=True)
    ones = tv.Tensor(np.ones(3, np.float32), requires_grad=True)
    for found, expected in (
        (x.sum(0), rows * 0.1), (x.mean(0), 0.1), (x.logsumexp(0), np.log(rows) + 0.1), (x.T.sum(1), rows * 0.1),
        (tv.grad((x * ones).sum(), ones), rows * 0.1),  # the walk's sum over what was broadcast
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.data, np.full(3, expected), rtol=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2), (1, 2)])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_long_sums_have_the_same_bits_when_they_are_replayed(name, axis):
    """And a replayed one keeps its digits, which NumPy loses by rounding into the result every 8,192 numbers."""
    x = tv.Tensor(np.random.default_rng(0).random((300, 400, 3), np.float32))
    with tv.Tape() as tape:
        found = getattr(x, name)(axis)
    eager = found.data.copy()
    found.data[...] = np.nan
    tape.replay()
    assert_same_bits(found.data, eager)
    np.testing.assert_allclose(eager, getattr(x.data.astype(np.float64), name)(axis), rtol=1.2e-7)


def test_kinks():
    """At their kinks abs and relu take slope 0, as the convention of the field has it; sign is flat everywhere."""
    x = tv.Tensor(np.array([0.0, -0.0]), requires_grad=True)
    for y in (abs(x), x.relu(), x.sign() * x):
        assert_same_bits(tv.grad(y.sum(), x).data + 0.0, np.zeros(2), "at 0")
    for y in (x.relu(), (-1.0 - x).relu()):
        assert_same_bits(y.data, np.zeros(2), "relu has no negative zero, whose reciprocal is minus infinity")


def test_power_at_zero():
    """0**b has the slope 0 in b for b > 0 (log 0 would make 0 * -inf), and b 0**(b-1) in a."""
    a = tv.Tensor(np.array([0.0, 0.0, 0.0]), requires_grad=True)
    b = tv.Tensor(np.array([1.0, 2.0, 3.5]), requires_grad=True)
    by_a, by_b = tv.grad((a**b).sum(), [a, b])
    assert_same_bits(by_b.data, np.zeros(3), "slope in the exponent")
    assert_same_bits(by_a.data, np.array([1.0, 0.0, 0.0]), "slope in the base")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", range(6))
@pytest.mark.parametrize("at", [0.0, -0.0, -2.0, 1.5])
def test_derivatives_of_whole_powers_of_every_order(n, at, dtype):
    """x^n has the k-th derivative n (n - 1) ... (n - k + 1) x^(n - k), and 0 from k = n + 1 on, also at x = 0."""
    x = tv.Tensor(np.array(at, dtype), requires_grad=True)
    y = x**n
    for k in range(1, 7):
        y = tv.grad(y.sum(), x)
        assert_close(y.data, math.perm(n, k) * (at ** (n - k) if k <= n else 0.0), 4, f"derivative {k} of x^{n}")


def test_powers_by_their_exponent_where_the_power_vanishes():
    """a^b log(a) -> 0 as a^b -> 0, at a = 0 and at an infinite base; and -inf for b < 0."""
    a, b = np.array([0.0, 0.0, 0.0, math.inf]), tv.Tensor(np.array([2.0, 0.0, -1.0, -2.0]), requires_grad=True)
    with np.errstate(all="ignore"):
        found = tv.grad((tv.Tensor(a) ** b).sum(), b).data
    assert found.tolist() == [0, 0, -math.inf, 0]


def test_negative_base_with_a_whole_power():
    """x**2 and x**3 for negative x, as a constant power."""
    check_gradients(lambda x: x**2 + x**3 + x**-1, np.array([-2.0, -0.5, 1.5]), order=2)


def test_polygamma_is_closed_under_differentiation():
    """lgamma, digamma, trigamma, ... each the derivative of the one before, down to small arguments."""
    x = tv.Tensor(np.array([1e-3, 0.5, 1.0, 30.0]), requires_grad=True)
    y = x.lgamma()
    for order in range(4):
        y = tv.grad(y.sum(), x)
        assert_close(y.data / scipy.special.polygamma(order, x.data), np.ones(4), 8, f"polygamma {order}")
    assert_close(x.digamma().data, scipy.special.digamma(x.data), 8)


@pytest.mark.parametrize("fused", [True, False])
def test_lgamma_of_the_smallest_numbers_is_minus_their_logarithm(fused):
    x = np.array([5e-324, 1e-310, 1e-301])
    with tv.fused(fused):
        assert_close(tv.Tensor(x).lgamma().data, [float(-mpmath.log(mpmath.mpf(number))) for number in x], 2)


# ---- the file itself -----------------------------------------------------------------


def test_rules_import_nothing_and_use_no_numpy():
    """The calculus is written over a namespace `xp`: an `np.` here would break on another device."""
    tree = ast.parse((ROOT / "tinyvae" / "engine" / "rules.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert modules <= {"__future__", "collections.abc", "dataclasses", "typing"}
    assert not {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & {"np", "numpy", "cupy"}


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'mul' exists already"):
        tv.rule("mul", lambda xp, a, b, out: xp.multiply(a, b, out=out), (None, None))


# ---- the checks notice ---------------------------------------------------------------

PAIR = (((2, 3), (3,)), {})
ONE = (((2, 3),), {})


@pytest.mark.parametrize(("name", "grads"), [
    ("tanh", (lambda g, y, a: g * (1 - y),)),  # a forgotten square
    ("sub", (lambda g, y, a, b: g, lambda g, y, a, b: g)),  # a wrong sign
    ("div", (lambda g, y, a, b: g / b, lambda g, y, a, b: y / g)),  # the fault of a young engine
    ("exp", (lambda g, y, a: g * y * float("nan"),)),  # NaN must not pass as agreement
])  # fmt: skip
def test_a_wrong_derivative_is_found(monkeypatch, name, grads):
    make_wrong(monkeypatch, name, grads=grads)
    with pytest.raises(GradientError):
        check_derivatives(name, *(PAIR if len(grads) == 2 else ONE), seed=1, order=1)


def test_a_wrong_second_derivative_is_found(monkeypatch):
    """The slope of sigmoid with its output held constant: the first derivative is right, the second is not."""
    make_wrong(monkeypatch, "sigmoid", grads=(lambda g, y, a: g * (y * (1 - y)).detach(),))
    check_derivatives("sigmoid", *ONE, seed=1, order=1)
    with pytest.raises(GradientError, match="second derivative"):
        check_derivatives("sigmoid", *ONE, seed=1, order=2)


@pytest.mark.parametrize(("name", "value"), [
    ("sigmoid", lambda xp, a, out: xp.divide(1, 1 + xp.exp(a), out=out)),  # mirrored
    ("sqrt", lambda xp, a, out: xp.sqrt(a, out=out) * (1 + 3e-5)),  # four good digits
    ("log", lambda xp, a, out: xp.log(a, out=a)),  # into its own input
    ("add", lambda xp, a, b, out: xp.add(a, b, dtype="float64")),  # a silent upcast
])  # fmt: skip
def test_a_wrong_value_is_found(monkeypatch, name, value):
    make_wrong(monkeypatch, name, value=value)
    with pytest.raises(AssertionError):
        check_value(name, *(PAIR if name == "add" else ONE), seed=1)


def test_shared_memory_is_found(monkeypatch):
    """A row whose derivative writes into its input."""
    def spoil(g, y, a):
        a.data[...] = 0
        return g

    make_wrong(monkeypatch, "neg", grads=(spoil,))
    with pytest.raises(AssertionError, match="changed an input"):
        check_manners("neg", *ONE, seed=1)


def test_lost_digits_are_found(monkeypatch):
    """A slope that passes through half precision."""
    def halved(g, y, a):
        return g * (tv.Tensor(y.data.astype(np.float16).astype(np.float32)) if y.dtype == np.float32 else y)

    make_wrong(monkeypatch, "exp", grads=(halved,))
    with pytest.raises(AssertionError, match="rounding units"):
        check_precision("exp", *ONE, seed=1)


def test_a_row_that_ignores_its_output_is_found(monkeypatch):
    """Right when run eagerly, stale when replayed."""
    make_wrong(monkeypatch, "exp", value=lambda xp, a, out: xp.exp(a))
    with pytest.raises(AssertionError, match="bits differ"):
        check_replay("exp", *ONE, seed=1)


def test_a_swallowed_nan_is_found(monkeypatch):
    make_wrong(monkeypatch, "max", value=lambda xp, a, out, axis, keepdims: xp.nanmax(a, axis=axis, keepdims=keepdims))
    with pytest.raises(AssertionError, match="the NaN of input 0 is gone"):
        check_nan("max")


@pytest.mark.parametrize(("name", "value"), [
    ("sigmoid", lambda xp, a, out: xp.divide(xp.exp(a), 1 + xp.exp(a), out=out)),  # inf / inf
    ("softplus", lambda xp, a, out: xp.log(1 + xp.exp(a), out=out)),  # overflows at 89 in float32
    ("tanh", lambda xp, a, out: xp.where(xp.isnan(a), 0, xp.tanh(a))),  # hides a NaN
])  # fmt: skip
def test_an_unstable_form_is_found(monkeypatch, name, value):
    make_wrong(monkeypatch, name, value=value)
    with pytest.raises(AssertionError):
        check_far(name, np.float32)
