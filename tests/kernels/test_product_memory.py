"""The memory of the matrix products: which factors and results are taken, and what is done with the others.

A kernel sees addresses only. What it cannot serve goes to NumPy's product or is refused in words.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_same_bits, run_python

import tinyvae as tv
from tests.kernels.test_products import FORMS, MOST, check_product, cpu, factors, products
from tinyvae.engine import fusion
from tinyvae.engine.devices import CPU
from tinyvae.engine.rules import TABLE
from tinyvae.engine.testing import GradientError, check_gradients

# ---- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [
    (np.ones((4, 3)).T, np.ones((5, 4)).T),  # both along the columns
    (np.ones((3, 8))[:, ::2], np.ones((4, 5))), (np.ones((3, 4)), np.ones((4, 10))[:, ::2]),  # every second number
    (np.ones((3, 4)), np.ones((10, 4))[::2].T[:, ::-1]), (np.ones((3, 4))[::-1], np.ones((4, 5))),  # backwards
    (np.ones((3, 4))[:, ::-1], np.ones((4, 5))), (np.ones((3, 4)), np.ones((4, 5))[:, ::-1]),
    (np.broadcast_to(np.ones(4), (3, 4)), np.ones((4, 5))), (np.ones((3, 4)), np.broadcast_to(np.ones(5), (4, 5))),
    (np.ones((0, 4)), np.ones((4, 5))), (np.ones((3, 0)), np.ones((0, 5))), (np.ones((3, 4)), np.ones((4, 0))),
    (np.ones(4), np.ones((4, 5))), (np.ones((3, 4)), np.ones(4)),
    (np.ones((2, 3, 0)), np.ones((2, 0, 5))),
])  # fmt: skip
def test_what_multiplies_refuses(a, b):
    """And the row of the table then takes NumPy's product; a vector comes to it as a matrix of one row or column."""
    assert not cpu.multiplies(a, b)
    with tv.Tape() as tape:
        found = tv.matmul(a, b)
    assert_same_bits(found.data, np.matmul(a, b))
    if min(a.ndim, b.ndim) > 1:
        assert [launch.call for launch in tape.launches] == [TABLE["matmul"].value]


def any_strides(rng, rows, columns):
    """A matrix of whole numbers somewhere in memory: transposed, with gaps, backwards, repeated."""
    flip, turn, step, gap = rng.random() < 0.2, rng.random() < 0.5, rng.choice([1, 1, 1, 2]), rng.integers(0, 4)
    shape = (columns, rows) if turn else (rows, columns)
    memory = rng.integers(-MOST, MOST, (shape[0], shape[1] * step + gap)).astype(np.float32)
    view = memory[:, : shape[1] * step : step][:: -1 if flip else 1]
    view = np.broadcast_to(view[:1], shape) if rng.random() < 0.1 else view
    return view.T if turn else view


@given(rows=st.integers(1, 5), steps=st.integers(1, 5), width=st.integers(1, 70), seed=st.integers(0, 2**31))
def test_any_strides_are_right_or_refused(rows, steps, width, seed):
    """Few rows and steps, because a stride along one row or one column means nothing and may be any number."""
    rng = np.random.default_rng(seed)
    a, b = any_strides(rng, rows, steps), any_strides(rng, steps, width)
    if cpu.multiplies(a, b):
        check_product(a, b)


def test_shapes_that_do_not_fit_are_refused():
    """A kernel looks at no shapes and would read foreign memory."""
    for a, b in (((2, 3), (4, 5)), ((2, 4), (3, 5)), ((2, 1), (4, 5))):
        for on in (True, False):
            with tv.fused(on), pytest.raises(ValueError, match="matmul"):
                tv.apply("matmul", np.ones(a), np.ones(b))


def strided(*strides):
    """A result of such strides, in numbers, amid much memory of one number."""
    def make(rows, width):
        memory = np.full(4096 * 9, 7.25)
        bytes_apart = [8 * (s if isinstance(s, int) else s(rows, width)) for s in strides]
        return np.lib.stride_tricks.as_strided(memory[4096 * 4 :], (rows, width), bytes_apart), memory

    return make


OUTS = {
    "rows of a wider matrix": strided(lambda m, n: 3 * n, 1), "rows of a narrower one": strided(lambda m, n: n // 2, 1),
    "all rows one": strided(0, 1), "every second number": strided(lambda m, n: 2 * n, 2),
    "columns": strided(1, lambda m, n: m), "backwards": strided(lambda m, n: -n, 1),
}  # fmt: skip


@pytest.mark.parametrize("how", OUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (1, 90), (3, 1), (3, 90)])
def test_an_out_of_other_strides_is_refused_or_right(form, how, rows, width):
    """Never a wrong product, never a number beside its place. One row is unbroken, whatever its stride says."""
    a, b = factors(form, rows, 5, width, np.float64)
    out, memory = OUTS[how](rows, width)
    if not out.flags.c_contiguous:
        with pytest.raises(ValueError, match="unbroken"):
            cpu.matmul(a, b, out)
    else:
        assert cpu.matmul(a, b, out) is out
        assert np.array_equal(out, a @ b)
        out[...] = 7.25
    assert (memory == 7.25).all(), "written beside `out`"


@pytest.mark.parametrize("form", FORMS)
def test_other_types_are_refused(form):
    """Two types in one product, or types that have no tiles, are not read as what they are not."""
    a, b = factors(form, 3, 4, 5, np.float64)
    for wrong in (np.float32, np.float16, np.int64, np.complex128):
        for pair in ((a, b.astype(wrong)), (a.astype(wrong), b), *[(a.astype(wrong), b.astype(wrong))] * (
                wrong is not np.float32)):  # fmt: skip
            with pytest.raises(TypeError, match="float"):
                cpu.matmul(*pair, None)
    with pytest.raises(TypeError, match="float"):
        cpu.matmul(a, b, np.empty((6, 5), np.float32)[:3])  # with room for what must not come


FENCED = """
import ctypes, itertools, math, mmap, sys
import numpy as np
import tinyvae_kernels

cpu = tinyvae_kernels.kernels_for("cpu")

libc = ctypes.CDLL(None)
kept = []

def fenced(shape, dtype, end):
    \"\"\"An array that ends, or begins, where a page begins, or ends, that nobody may read.\"\"\"
    size = math.prod(shape) * np.dtype(dtype).itemsize
    pages = -(-size // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(start + page * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    kept.append(memory)
    offset = mmap.PAGESIZE + (pages * mmap.PAGESIZE - size if end else 0)
    array = np.frombuffer(memory, dtype, math.prod(shape), offset).reshape(shape)
    array[...] = 1
    return array

if sys.argv[1:] == ["beyond"]:
    line = fenced((9,), np.float32, True)
    print(np.lib.stride_tricks.as_strided(line, (10,))[9])
for dtype, end in itertools.product((np.float32, np.float64), (False, True)):
    for m, k, n in ((1, 1, 1), (3, 5, 7), (13, 17, 33), (5, 40, 65), (14, 3, 50)):
        for a, b in ((fenced((m, k), dtype, end), fenced((k, n), dtype, end)),
                     (fenced((k, m), dtype, end).T, fenced((k, n), dtype, end)),
                     (fenced((m, k), dtype, end), fenced((n, k), dtype, end).T)):
            assert (cpu.matmul(a, b, fenced((m, n), dtype, end)) == k).all(), (m, k, n)
print("right")
"""


def test_nothing_beyond_the_factors_is_read():
    """Factors and results beside pages that must not be touched: whoever reads one number too far is killed."""
    done = run_python(f"import sys; sys.argv = ['', 'beyond']\n{FENCED}")
    if "mprotect" in done.stderr:
        pytest.skip("optional: no mprotect here")
    assert done.returncode < 0, "the fence does not hold"
    done = run_python(FENCED)
    assert done.returncode == 0, done.stderr or f"killed by signal {-done.returncode}"
    assert done.stdout.strip() == "right"


# ---- the row over them ---------------------------------------------------------------


def calls(f):
    """What ran the products of f."""
    with tv.Tape() as tape:
        f()
    return [launch.call for launch in tape.launches if launch.rule.name == "matmul"]


PRODUCTS = {"a @ b": lambda a, b: a @ b, "a.T @ b": lambda a, b: a.swap() @ b, "a @ b.T": lambda a, b: a @ b.swap()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (13, 21, 34)])
def test_gradients_against_differences(form, shape):
    """In float64, through the kernels, forwards and backwards."""
    rows, steps, width = shape
    rng, across = np.random.default_rng(0), FORMS[form]
    a, b = (rng.normal(size=size[::-1] if turn else size) for size, turn in
            zip(((rows, steps), (steps, width)), across, strict=True))  # fmt: skip
    check_gradients(PRODUCTS[form], a, b, order=2)
    leaves = [tv.Tensor(v, requires_grad=True) for v in (a, b)]
    with tv.Tape():
        used = calls(lambda: tv.grad(PRODUCTS[form](*leaves).sum(), leaves))
    assert len(used) == 3
    assert all(isinstance(call, fusion.Kernel) for call in used[:1])


def test_a_wrong_gradient_is_found(monkeypatch):
    right = fusion.kernel_of(TABLE["matmul"], CPU)
    monkeypatch.setitem(TABLE["matmul"].kernels, "cpu", lambda xp, *arrays, out: right(xp, *arrays, out=out) * 1.001)
    with pytest.raises(GradientError):
        check_gradients(lambda a, b: a @ (a.swap() @ b), np.eye(3), np.ones((3, 2)))


def test_the_switch_takes_numpys_product():
    a, b = tv.Tensor(np.ones((3, 4))), tv.Tensor(np.ones((4, 5)))
    assert all(isinstance(call, fusion.Kernel) for call in calls(lambda: a @ b))
    with tv.fused(False):
        assert calls(lambda: a @ b) == [TABLE["matmul"].value]


def test_processors_without_tiles_take_numpys_product(monkeypatch):
    monkeypatch.setattr(products, "VECTOR", 0)
    a, b = np.ones((3, 4)), np.ones((4, 5))
    assert not cpu.multiplies(a, b)
    assert calls(lambda: tv.Tensor(a) @ b) == [TABLE["matmul"].value]
