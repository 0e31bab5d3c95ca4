"""What NumPy has as one pass, as kernels of a recorded step on a GPU: each against its row's value, run on the host.

The shapes are those of test_rules.py, and views of every kind; threads run in any order.
"""

import math

import numpy as np
import pytest
from cuda_on_cpu import card, host
from cuda_on_cpu.host import SCHEDULES
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits
from tinyvae_kernels import kernels_for
from tinyvae_kernels.cuda import elementary
from tinyvae_kernels.cuda.runtime import jobs

import tinyvae as tv
from tests.engine.test_rules import case_of, inputs_for
from tests.kernels import worst
from tests.kernels.cuda.test_kernels import (  # noqa: F401 - the fixture that puts the host in the place of a card
    DRIVER,
    _on_the_host,
    check_notices,
    cuda,
    on_the_host,
)
from tinyvae.engine.devices import CPU, namespace, to_host
from tinyvae.engine.fusion import kernel_of
from tinyvae.engine.rules import TABLE

pytestmark = pytest.mark.skipif(host.compiler() is None and not card.ON_A_CARD, reason=host.NO_COMPILER)
ROWS = [name for name, row in TABLE.items()
        if getattr(getattr(kernels_for("cuda"), name, None), "takes", None) and not row.writes]


def takes(name, arrays, attributes):
    return getattr(kernels_for("cuda"), name).takes(*arrays, **attributes)


def check(name, arrays, attributes, units=8):
    """Value, type and shape of the row's value; given memory is filled with the same bits, and inputs stay."""
    arrays = list(map(np.asarray, arrays))  # (NumPy compares arrays without axes to numbers that are no arrays)
    before = [a.copy() for a in arrays]
    with np.errstate(all="ignore"):
        expected = np.asarray(TABLE[name].value(CPU, *arrays, out=None, **attributes))
        found = getattr(cuda, name)(*arrays, out=None, **attributes)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
    place = np.full_like(found, 1)
    assert getattr(cuda, name)(*arrays, out=place, **attributes) is place
    assert_same_bits(place, found, f"{name} with out=")
    for a, b in zip(arrays, before, strict=True):
        assert_same_bits(a.copy(), b, f"{name} changed its input")
    if found.dtype == bool:
        assert np.array_equal(found, expected), name
    else:
        assert_close(found, expected, units, name, np.maximum(1, np.abs(expected)))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 2**31), schedule=st.sampled_from(SCHEDULES))
def test_the_values_of_the_rows(name, dtype, data, seed, schedule):
    DRIVER.schedule = schedule
    shapes, attributes = data.draw(case_of(name))
    arrays = inputs_for(name, shapes, seed, dtype)
    if takes(name, arrays, attributes):
        check(name, arrays, attributes)


# ---- views ---------------------------------------------------------------------------

WIDE = np.random.default_rng(0).normal(size=(6, 5, 8))
VIEWS = {"whole": WIDE[:, :, :4].copy(), "half": WIDE[:, :, 4:], "reversed": WIDE[::-1, :, 3::-1], "every second":
         WIDE[:, :, ::2], "turned": WIDE.transpose(0, 2, 1)[:, :5, :4], "one": np.array(0.5), "column":
         WIDE[:, :, :1], "row": WIDE[0, 0, :4], "repeated": np.broadcast_to(WIDE[:1, :, :4], (6, 5, 4))}  # fmt: skip


def check_views(dtype=np.float64):
    """Every view beside every other one, in rows with one, two and three operands, and in copies."""
    views = {key: view.astype(dtype) if view.flags.c_contiguous else as_it_lies(view, dtype)
             for key, view in VIEWS.items()}  # fmt: skip
    assert sum(not view.flags.c_contiguous for view in views.values()) == 6
    for a in views.values():
        check("neg", [a], {})
        check("copy", [a], {})
        for b in views.values():
            check("sub", [a, b], {})
            check("less", [a, b], {})
            check("where", [b > 0, a, b], {})
            if a.shape == b.shape == (6, 5, 4):
                for axis in range(3):
                    check("concatenate", [a, b, a], {"axis": axis})
        if a.shape == (6, 5, 4):
            for key in ((..., slice(0, 4)), (..., slice(None, None, 2)), (slice(None), slice(None), slice(7, 3, -1))):
                check("unslice", [a], {"key": key, "shape": (6, 5, 8)})
            home = np.zeros((6, 5, 4), dtype)
            cuda.store(a, home)
            assert_same_bits(home, np.ascontiguousarray(a), "store")


def as_it_lies(view, dtype):
    """The view in another type, with as many numbers from one to the next along each axis."""
    wide = np.zeros(2 * WIDE.size, dtype)
    steps = [step // view.itemsize for step in view.strides]
    first = sum(max(0, -step) * (n - 1) for n, step in zip(view.shape, steps, strict=True))
    found = np.lib.stride_tricks.as_strided(wide[first:], view.shape, [step * wide.itemsize for step in steps])
    found[...] = view
    return found


@on_the_host
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_of_every_kind(dtype):
    check_views(dtype)


def test_axes_are_joined_where_they_can_be():
    """No division where none is needed; what three axes cannot describe is the array library's."""
    a, b = np.zeros((2, 3, 4)), np.zeros((1, 4))
    assert elementary._layout(a.shape, a, a)[:2] == (1, 24)
    assert elementary._layout(a.shape, a, b)[:2] == (6, 4)
    assert elementary._layout((1, 3, 1), a[:1, :, :1])[:2] == (1, 3)
    many = np.zeros((2, 3, 2, 3, 2))
    assert takes("add", [many, many], {})
    assert not takes("add", [many[::1, ::2, ::1, ::2], many[:, :1, :, :1]], {})
    for wrong in ([many, many.astype(np.float32)], [many, many > 0], [many.astype(np.int64)] * 2):
        assert not takes("add", wrong, {})
    assert not takes("sum", [many], {"axis": (0, 2), "keepdims": False})
    assert takes("sum", [many], {"axis": (1, 2), "keepdims": False})
    assert not takes("sum", [np.zeros(elementary.LONGEST + 1)], {"axis": (0,), "keepdims": False})
    assert not takes("unslice", [np.zeros(2)], {"key": [0, 1], "shape": (5,)})
    assert takes("unslice", [np.zeros(3)], {"key": np.int64(0), "shape": (5, 3)})


def test_what_does_not_broadcast_is_the_array_librarys():
    """It says what is wrong, where a kernel would read beyond an array; nor may a place have more than 31 bits."""
    for a, home in (((3,), (4,)), ((5,), (4,)), ((2, 4), (4,))):
        assert not takes("store", [np.zeros(a), np.zeros(home)], {})
    assert takes("store", [np.zeros((1, 4)), np.zeros((3, 4))], {})
    assert not takes("unslice", [np.zeros((2, 3))], {"key": (slice(None), slice(0, 2)), "shape": (2, 5)})
    assert not takes("add", [np.zeros(3), np.zeros(4)], {})
    assert not takes("where", [np.zeros(3) > 0, np.zeros(4), np.zeros(4)], {})
    far = np.lib.stride_tricks.as_strided(np.zeros(2), (2, 3), (8 * 2**31, 8))
    assert not takes("neg", [far], {})
    assert not takes("neg", [far[::-1]], {})
    assert not takes("concatenate", [far, far], {"axis": 0})


def check_lines(dtype=np.float32):
    """Long lines along any axes, by few threads and by many; sums keep the digits of float64."""
    a = np.random.default_rng(0).uniform(0.5, 1, (3, 300, 7)).astype(dtype)
    for jobs.BLOCKS in (1, 2048):
        for axis in ((0,), (1,), (2,), (0, 1), (1, 2)):
            for name in elementary.REDUCE:
                check(name, [a], {"axis": axis, "keepdims": False})
            if len(axis) == 1:
                for name in elementary.SHARES:
                    check(name, [a], {"axis": axis})
    for shape in ((elementary.LONGEST,), (elementary.LONGEST, 2)):  # a warp adds up, and a thread each
        many = np.random.default_rng(0).uniform(0.5, 1, shape).astype(dtype)
        exact = math.fsum(many.reshape(elementary.LONGEST, -1)[:, 0].astype(np.float64))
        found = cuda.sum(many, out=None, axis=(0,), keepdims=False).reshape(-1)[0]
        assert_close(found, exact, 32 if dtype == np.float64 else 0.5, "sum")


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_lines(dtype):
    check_lines(dtype)


def check_limits(dtype=np.float64):
    """NaN, infinities, zeros and denormals, in each operand."""
    numbers = worst.numbers(dtype)
    pairs = [np.ascontiguousarray(a) for a in np.broadcast_arrays(numbers[:, None], numbers)]
    calls = [(name, [numbers], {}) for name in elementary.UNARY]
    calls += [(name, pairs, {}) for name in (*elementary.BINARY, *elementary.COMPARE)]
    calls += [(name, [np.stack(pairs)], {"axis": (0,), "keepdims": False}) for name in elementary.REDUCE]
    calls += [(name, [np.stack(pairs)], {"axis": (0,)}) for name in elementary.SHARES]
    lines = np.repeat(np.stack(pairs, axis=-1), elementary.LONG, axis=-1)  # a warp has each
    calls += [(name, [lines], {"axis": (2,), "keepdims": False}) for name in ("max", "logsumexp")]
    calls.append(("where", [pairs[0] > pairs[1], *pairs], {}))
    for name, arrays, attributes in calls:
        with np.errstate(all="ignore"):
            expected = TABLE[name].value(CPU, *arrays, out=None, **attributes)
            found = getattr(cuda, name)(*arrays, out=None, **attributes)
        smallest = 0 if name in ("where", "max", "maximum", "minimum") else 1e-29
        worst.compare(found, expected, True, name, 1e-5, smallest)


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits(dtype):
    check_limits(dtype)


# ---- in a recording ------------------------------------------------------------------


def test_kernels_run_where_a_tape_records(driver):
    """Outside of a recording, with kernels off, and for what kernels do not take, the array library runs."""
    xp = namespace("cuda")
    a, b = (tv.Tensor(xp.asarray(x)) for x in (np.arange(6.0).reshape(2, 3), np.ones(3)))
    c = tv.Tensor(xp.asarray(np.ones((2, 1, 2, 1, 2, 1))))

    def ran(x, y, on=True):
        with tv.fused(on), tv.Tape() as tape:
            x + y
        return tape.launches[-1].call

    assert ran(a, b) is kernel_of(TABLE["add"], xp)
    assert ran(a, b, on=False) is TABLE["add"].value
    assert ran(c, c.transpose((5, 3, 1, 4, 2, 0))) is TABLE["add"].value
    assert kernel_of(TABLE["add"], CPU) is None
    driver.launches.clear()
    assert to_host((a + b).data).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert not driver.launches
    with tv.Tape() as tape:
        found = (a + b).sum(0).log()
    before = to_host(found.data).copy()
    found.data[...] = 0
    tape.replay()
    assert_same_bits(to_host(found.data), before, "replayed")
    assert len(tape.calls) == 1


@on_the_host
def test_a_replaced_row_has_no_kernel(driver, monkeypatch):
    """Another value of a row must not give way to the kernel of the value before."""
    monkeypatch.setitem(TABLE, "add", TABLE["add"])
    xp = namespace("cuda")
    tv.engine.rules.rule("add", lambda xp, a, b, out: xp.add(a, b, out=out), (None, None), replace=True)
    assert kernel_of(TABLE["add"], xp) is None


# ---- wrong kernels are noticed -------------------------------------------------------


MUTANTS = [
    (check_views, "i / n2 % n1", "i / n2"), (check_views, "return move[0] +", "return"),
    (check_views, "i / n2 / n1", "i / n2"), (check_views, "? a[place(layout, 1, i)]", "? a[place(layout, 0, i)]"),
    (check_views, "b[place(layout, 1, i)]);\n}\n\nenum", "b[i]);\n}\n\nenum"),
    (check_views, "out[place(layout, 1, i)] =", "out[i] ="), (check_views, "out[i] = 0;", ""),
    (check_limits, "a > b || a != a ?", "a > b ?"), (check_limits, "a < b || a != a", "a < b"),
    (check_limits, "a < 0 ? real(0) : a;", "a > 0 ? a : real(0);"),
    (check_limits, "-FABS(a)", "-a"), (check_limits, "a >= b || a != a ?", "a >= b ?"),
    (check_limits, "a == top ? real(0) :", ""), (check_limits, "below(numbers(k), top) - shift", "numbers(k) - shift"),
    (check_limits, "top == 2 * top ?", "false ?"),
    (check_lines, "i / inner * n * inner", "i / inner * n"), (check_lines, "i % inner, n", "i, n"),
    (check_lines, "kind == MEAN ? sum / n", "kind == MEAN ? sum"), (check_lines, "double sum = 0;\n      for",
                                                                   "real sum = 0;\n      for"),
    (check_lines, "double sum = 0;\n  if (kind", "real sum = 0;\n  if (kind"),
    (check_lines, "int k = 1; k < a.n", "int k = 1; k < a.n - 1"), (check_lines, "a += (whole)i * n;", "a += i;"),
    (check_lines, "int k = lane; k < n; k += 32) sum += EXP", "int k = lane; k < n - 1; k += 32) sum += EXP"),
    (check_lines, "top = larger(top, __shfl_xor_sync(ALL, top, d))", "top = __shfl_xor_sync(ALL, top, d)"),
    (check_lines, "int k = lane; k < n; k += 32) sum += a[k]", "int k = lane; k < n - 1; k += 32) sum += a[k]"),
    (check_lines, "shares[k * inner] /=", "shares[k] /="),
]  # fmt: skip


@on_the_host
@pytest.mark.parametrize("place", range(len(MUTANTS)))
def test_a_wrong_kernel_is_noticed(place, monkeypatch):
    check_notices(monkeypatch, "elementary", *MUTANTS[place])
