"""Products with a matrix that is mostly zeros: the bits of the dense product, whatever its zeros are."""

import importlib

import numpy as np
import pytest
import tinyvae_kernels
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_same_bits, bits_of, run_parts

import tinyvae as tv
from tinyvae.engine import fusion

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
cpu = tinyvae_kernels.kernels_for("cpu")
sparse = importlib.import_module("tinyvae_kernels.cpu.sparse")
tiles = importlib.import_module("tinyvae_kernels.cpu.runtime.tiles")
if not tiles.VECTOR:
    pytest.skip("optional: no processor with AVX2 or AVX-512", allow_module_level=True)

PARTS = (1, 2, 3, 5, 8, 16)
GUARD = 128  # numbers before and after a result that nobody may touch


def data(rng, rows, inputs, share, dtype):
    """Numbers of which about so many are not 0; some lines and columns wholly 0, or wholly not."""
    x = rng.normal(size=(rows, inputs)) * (rng.random((rows, inputs)) < share)
    if rng.random() < 0.3:
        x[rng.integers(0, rows)] = rng.choice([0, 1.5])
        x[:, rng.integers(0, inputs)] = rng.choice([0, -1.5])
    return x.astype(dtype)


def guarded(shape, dtype):
    """Memory for a result, and the whole array it lies in; all of it holds one number."""
    memory = np.full(2 * GUARD + shape[0] * shape[1], 7, dtype)
    return memory[GUARD : memory.size - GUARD].reshape(shape), memory


def untouched(*memories):
    return all((memory[:GUARD] == 7).all() and (memory[-GUARD:] == 7).all() for memory in memories)


def check_index(x, index):
    assert index.dtype == np.int64
    assert np.array_equal(index, bits_of(x)), "a wrong index"


def check_sparse(x, w, g, forward=None, backward=None):
    """Both ways, into new memory, into given memory, and in any number of parts: the bits of the dense product."""
    forward, backward = forward or cpu.sparse_matmul, backward or cpu.sparse_matmul_grad
    before = [a.tobytes() for a in (x, w, g)]
    dense, dense_grad = cpu.matmul(x, w, None), cpu.matmul(x.T, g, None)
    found, index = forward(x, w, None)
    check_index(x, index)
    assert np.array_equal(found, dense), "another product"  # -0 and 0 are one number here; NaN fails
    assert np.array_equal(backward(g, index, x, None), dense_grad), "another gradient"
    for parts in PARTS:
        (out, first), (line, second), (grad, third) = (
            guarded(found.shape, x.dtype), guarded(index.shape, np.int64), guarded(dense_grad.shape, x.dtype))
        run_parts(forward.bind(x, w, (out, line)), parts)
        run_parts(backward.bind(g, line, x, grad), parts)
        check_index(x, line)
        assert np.array_equal(out, dense), f"another product in {parts} parts"
        assert np.array_equal(grad, dense_grad), f"another gradient in {parts} parts"
        assert untouched(first, second, third), "written beside a result"
    assert [a.tobytes() for a in (x, w, g)] == before, "a factor was changed"


sizes = st.one_of(st.integers(1, 40), st.integers(100, 200))


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=sizes, inputs=sizes, width=st.one_of(st.integers(1, 40), st.integers(100, 300)),
       share=st.sampled_from([0.0, 0.02, 0.2, 1.0]), seed=st.integers(0, 2**31))  # fmt: skip
def test_sparse_products(dtype, rows, inputs, width, share, seed):
    """Any sizes and any number of zeros, also none and nothing else."""
    rng = np.random.default_rng(seed)
    check_sparse(data(rng, rows, inputs, share, dtype), rng.normal(size=(inputs, width)).astype(dtype),
                 rng.normal(size=(rows, width)).astype(dtype))


def test_long_sums_over_a_batch(monkeypatch):
    """In the pieces of the dense product, with its bits; of 2^20 equal numbers added one by one a hundredth is lost."""
    products = importlib.import_module("tinyvae_kernels.cpu.products")
    rng = np.random.default_rng(0)
    for long in (16, products.LONG):
        monkeypatch.setattr(products, "LONG", long)
        monkeypatch.setattr(sparse, "LONG", long)
        for rows in (16, 17, 64, 77):
            x, g = data(rng, rows, 9, 0.4, np.float32), rng.normal(size=(rows, 5)).astype(np.float32)
            index = cpu.sparse_matmul(x, np.ones((9, 5), np.float32), None)[1]
            assert_same_bits(cpu.sparse_matmul_grad(g, index, x, None) + 0, cpu.matmul(x.T, g, None) + 0)
    x, g = np.zeros((2**19, 2), np.float32), np.full((2**19, 3), 0.1, np.float32)
    x[:, 1] = 1
    index = cpu.sparse_matmul(x, np.ones((2, 3), np.float32), None)[1]
    np.testing.assert_allclose(cpu.sparse_matmul_grad(g, index, x, None), [[0] * 3, [0.1 * 2**19] * 3], rtol=1e-4)


def check_kinds(forward, dtype, seed):
    """What is not finite in the dense product is not finite here; a number that meets no such factor is the same."""
    rng = np.random.default_rng(seed)
    x, w = data(rng, 9, 20, 0.2, dtype), rng.normal(size=(20, 30)).astype(dtype)
    for factor in (x, w):
        for _ in range(rng.integers(0, 3)):
            factor[tuple(rng.integers(0, factor.shape))] = rng.choice([np.nan, np.inf, -np.inf])
    with np.errstate(all="ignore"):
        dense = cpu.matmul(x, w, None)
        found, _ = forward(x, w, None)
    assert not (np.isfinite(found) & ~np.isfinite(dense)).any(), f"seed {seed}: something not finite is gone"
    clean = np.isfinite(x).all(1)[:, None] & np.isfinite(w).all(0)
    assert np.array_equal(found[clean], dense[clean]), f"seed {seed}: another product"


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinities_are_not_left_out(dtype):
    """A NaN in a weight whose pixels are all 0 is in the dense product, and stays in this one."""
    for seed in range(40):
        check_kinds(cpu.sparse_matmul, dtype, seed)
    x, g = np.zeros((3, 5), dtype), np.ones((3, 7), dtype)
    g[1, 2] = np.nan
    index = cpu.sparse_matmul(x, np.ones((5, 7), dtype), None)[1]
    assert np.isnan(cpu.sparse_matmul_grad(g, index, x, None))[:, 2].all()


def test_wrong_sparse_products_are_found():
    """A wrong line; the diagonal's zeros taken for all; weights that are not finite left out with the zeros."""
    rng = np.random.default_rng(0)
    x, w, g = data(rng, 9, 20, 0.2, np.float32), np.ones((20, 5), np.float32), np.ones((9, 5), np.float32)

    def off(x, w, out):
        found, index = cpu.sparse_matmul(x, w, out)
        return found, np.roll(index, 1, axis=0)

    def short(x, w, out):
        return cpu.sparse_matmul(x * (np.arange(20) < 19), w, out)[0], cpu.sparse_matmul(x, w, None)[1]

    def late(g, index, x, out):
        return cpu.sparse_matmul_grad(g + 1, index, x, out)

    def careless(x, w, out):
        return x @ np.where(np.isfinite(w), w, 0), None

    check_sparse(x, w, g)
    x[:, 19] = 1
    for wrong in ({"forward": off}, {"forward": short}, {"backward": late}):
        with pytest.raises(AssertionError):
            check_sparse(x, w, g, **wrong)
    with pytest.raises(AssertionError, match="is gone"):
        [check_kinds(careless, np.float32, seed) for seed in range(40)]


def test_what_pays():
    """Few enough numbers that are not 0; the row of the table takes the dense product otherwise."""
    w = np.ones((20, 5))
    for share, sparse in ((0.0, True), (0.1, True), (0.5, False), (1.0, False)):
        x = np.zeros((10, 20))
        x.reshape(-1)[: int(share * x.size)] = 0.5
        assert bool(cpu.pays(x, w)) == sparse
        with tv.Tape() as tape:
            found = tv.apply("sparse_matmul", x, w)[0]
        assert np.array_equal(found.data, x @ w)
        assert [launch.rule.name for launch in tape.launches] == (["sparse_matmul"] if sparse else ["matmul"])
        assert all(isinstance(launch.call, fusion.Kernel) for launch in tape.launches)


def test_a_recorded_product_is_right_for_other_data():
    """The index is made anew at each replay, however many zeros there are then."""
    rng = np.random.default_rng(0)
    x, w = tv.Tensor(np.zeros((9, 20))), tv.Tensor(rng.normal(size=(20, 7)), requires_grad=True)
    with tv.Tape() as tape:
        y = tv.apply("sparse_matmul", x, w)[0]
        by_w = tv.grad((y * y).sum(), w)
    for share in (0.3, 0.0, 1.0, 0.1):
        x.data[...] = data(rng, 9, 20, share, np.float64)
        tape.replay()
        assert_same_bits(y.data + 0, cpu.matmul(x.data, w.data, None) + 0)
        assert_same_bits(by_w.data + 0, cpu.matmul(x.data.T, 2 * y.data, None) + 0)


def test_broken_memory_is_refused():
    x, w, g = np.eye(6)[:4], np.ones((6, 3)), np.ones((4, 3))
    out, index = cpu.sparse_matmul(x, w, None)
    wide = lambda a: np.repeat(a[..., None], 2, axis=-1)[..., 0]
    for call in (lambda: cpu.sparse_matmul(wide(x), w, None), lambda: cpu.sparse_matmul(x, wide(w), None),
                 lambda: cpu.sparse_matmul(x, w, (wide(out), index)),
                 lambda: cpu.sparse_matmul(x, w, (out, wide(index))),
                 lambda: cpu.sparse_matmul_grad(wide(g), index, x, None),
                 lambda: cpu.sparse_matmul_grad(g, wide(index), x, None),
                 lambda: cpu.sparse_matmul_grad(g, index, wide(x), None)):  # fmt: skip
        with pytest.raises(ValueError, match="unbroken"):
            call()
