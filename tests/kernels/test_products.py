"""The matrix products of the Numba kernels: exact on whole numbers, within a rounding bound on others.

Sums of products of small whole numbers are exact in both types, in any order, so a wrong or a missing term shows as a
difference. All shapes, forms and strides are held against that; how real numbers are rounded is a check of its own.
"""

import importlib
import math

import numpy as np
import pytest
import tinyvae_kernels
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, ROOT, assert_same_bits, run_parts, run_python

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
cpu = tinyvae_kernels.kernels_for("cpu")
products = importlib.import_module("tinyvae_kernels.cpu.products")
tiles = importlib.import_module("tinyvae_kernels.cpu.runtime.tiles")
if not tiles.VECTOR:
    pytest.skip("optional: no processor with AVX2 or AVX-512", allow_module_level=True)

FORMS = {"a @ b": (False, False), "a.T @ b": (True, False), "a @ b.T": (False, True)}
PARTS = (1, 2, 3, 5, 8, 16)
GUARD = 128  # numbers before and after a result that nobody may touch
MOST = 8  # of the whole numbers: 300 products of two of them are below 2**24

sizes = st.one_of(st.integers(1, 40), st.integers(100, 300))

# ---- factors and results -------------------------------------------------------------


def laid_out(values, across, gap):
    """The same matrix as a part of a wider one, which holds NaN around it; `across`: unbroken along its columns."""
    values = values.T if across else values
    memory = np.full((values.shape[0], values.shape[1] + 2 * gap), np.nan, values.dtype)
    view = memory[:, gap : gap + values.shape[1]]
    view[...] = values
    return view.T if across else view


def factors(form, rows, steps, width, dtype, seed=0, gaps=(0, 0), draw=None):
    """Two factors of a form; whole numbers unless `draw` makes others."""
    rng = np.random.default_rng(seed)
    draw = draw or (lambda *shape: rng.integers(-MOST, MOST, shape, endpoint=True))
    across = FORMS[form]
    return [laid_out(draw(*shape).astype(dtype), *how) for shape, how in
            zip(((rows, steps), (steps, width)), zip(across, gaps, strict=True), strict=True)]  # fmt: skip


def guarded(shape, dtype):
    """Memory for a result, and the whole array it lies in; all of it holds one number."""
    memory = np.full(2 * GUARD + math.prod(shape), 7.25, dtype)
    return memory[GUARD : memory.size - GUARD].reshape(shape), memory


def check_product(a, b, launcher=None):
    """Exact, in new memory and in given memory, beside which nothing changes; the factors stay as they are."""
    launcher = launcher or cpu.matmul
    assert cpu.multiplies(a, b)
    expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(a.dtype)
    before = [a.tobytes(), b.tobytes()]
    with np.errstate(all="raise"):
        found = launcher(a, b, None)
        out, memory = guarded(expected.shape, a.dtype)
        assert launcher(a, b, out) is out, "the product is not in `out`"
    assert found.dtype == a.dtype
    assert np.array_equal(found, expected), "a wrong product"  # NaN fails
    assert np.array_equal(out, expected), "a wrong product in `out`"
    assert (memory[:GUARD] == 7.25).all(), "written before `out`"
    assert (memory[-GUARD:] == 7.25).all(), "written after `out`"
    assert [a.tobytes(), b.tobytes()] == before, "a factor was changed"


# ---- all shapes, all forms -----------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@given(rows=sizes, steps=sizes, width=sizes, gaps=st.tuples(st.integers(0, 9), st.integers(0, 9)),
       seed=st.integers(0, 2**31))  # fmt: skip
def test_products(form, dtype, rows, steps, width, gaps, seed):
    """Any sizes, of unbroken matrices and of slices of wider ones."""
    check_product(*factors(form, rows, steps, width, dtype, seed, gaps))


def borders(lanes):
    """Sizes at, below and above a vector, two of them, and the rows of a tile."""
    return sorted({1, 2, 3, 4, 5, 11, 12, 13, 24, 25, lanes - 1, lanes, lanes + 1, 2 * lanes - 1, 2 * lanes,
                   2 * lanes + 1, 3 * lanes, 4 * lanes + 1})  # fmt: skip


def check_borders(form, dtype):
    """Every pair of rows and columns around the borders of the tiles, whole and in parts."""
    lanes = tiles.VECTOR // dtype().itemsize
    for rows in borders(4):
        for width in borders(lanes):
            for steps in (1, lanes, lanes + 3):
                check_product(*factors(form, rows, steps, width, dtype, gaps=(steps % 2, width % 3)))
            check_parts(*factors(form, rows, lanes + 3, width, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_borders_of_the_tiles(form, dtype):
    check_borders(form, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_short_sums_with_b_as_it_lies(dtype, monkeypatch):
    """Small products turn b first; what that spares must be right, too, for larger ones with sums as short."""
    monkeypatch.setattr(products, "SHORT", 0)
    check_borders("a @ b.T", dtype)


OTHER_VECTORS = """
import sys
import llvmlite.binding as llvm

features = llvm.get_host_cpu_features()
features["avx512f"] = False
original, llvm.get_host_cpu_features = llvm.get_host_cpu_features, lambda: features
from tinyvae_kernels.cpu.runtime import tiles

llvm.get_host_cpu_features = original
assert (tiles.VECTOR, tiles.ROWS) == (32, 4), (tiles.VECTOR, tiles.ROWS)
sys.path.insert(0, "tests")
import tests.kernels.test_products as test_products

for form in test_products.FORMS:
    for dtype in test_products.DTYPES:
        test_products.check_borders(form, dtype)
        test_products.check_rounding(form, dtype, test_products.cpu.matmul)
        test_products.check_all_kinds(form, dtype)
print("right")
"""


def test_the_tiles_of_the_other_vectors():
    """Compiled as for a processor that has AVX2 and no AVX-512."""
    done = run_python(f"import os; os.chdir({str(ROOT)!r})\n{OTHER_VECTORS}", NUMBA_CPU_NAME="haswell",
                      NUMBA_CPU_FEATURES="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "right"


# ---- rounding ------------------------------------------------------------------------
# With u half a rounding unit, each of k multiply-adds rounds once, by at most u of the partial sum, which is at most
# sum |a| |b|: the error is below k u sum |a| |b| / (1 - k u), in whatever order (Higham, Accuracy and Stability of
# Numerical Algorithms, 3.1). For terms of mean zero the partial sums grow as the root of their number only, and the
# root mean square of the errors stays below u sum |a| |b| whatever k is.


def check_rounding(form, dtype, launcher):
    rng = np.random.default_rng(11)
    for rows, steps, width in ((7, 1, 40), (24, 37, 65), (100, 300, 33), (33, 257, 100)):
        a, b = factors(form, rows, steps, width, dtype, draw=lambda *shape: rng.normal(size=shape))
        exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
        u, size = np.finfo(dtype).eps / 2, np.abs(a).astype(np.longdouble) @ np.abs(b).astype(np.longdouble)
        error = np.abs(launcher(a, b, None).astype(np.longdouble) - exact) / (u * size)
        worst, mean = float(error.max()), float(np.sqrt(np.mean(error**2)))
        print(f"{form}, {np.dtype(dtype)}, k = {steps}: worst {worst:.2f} u, mean {mean:.2f} u; allowed {steps}, 1")
        assert worst <= steps / (1 - steps * u), f"{form}: {worst:.3g} u of the sum of |a| |b|, allowed {steps}"
        assert mean <= 1, f"{form}: {mean:.3g} u of the sum of |a| |b| on average, allowed 1"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_rounding(form, dtype):
    check_rounding(form, dtype, cpu.matmul)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [4096, 4097, 3 * 4096 + 5, 2**20])
def test_long_sums_keep_their_digits(form, steps):
    """Equal terms in float32: of 2^20 that are added one by one, a hundredth is lost."""
    a, b = factors(form, 2, steps, 3, np.float32, draw=lambda *shape: np.full(shape, 0.1 ** 0.5))
    np.testing.assert_allclose(cpu.matmul(a, b, None), np.full((2, 3), 0.1 * steps), rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_long_sums_are_right(form, monkeypatch):
    monkeypatch.setattr(products, "LONG", 16)
    for steps in (15, 16, 17, 64, 77):
        a, b = factors(form, 13, steps, 40, np.float32)
        check_product(a, b)
        check_parts(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormals_are_kept(dtype):
    """Nothing is flushed to zero."""
    tiny = np.finfo(dtype).smallest_subnormal
    for form in FORMS:
        a, b = factors(form, 3, 5, 40, dtype, draw=lambda *shape: np.eye(*shape))
        assert_same_bits(cpu.matmul(a * dtype(3 * tiny), b, None), (np.eye(3, 40) * 3 * tiny).astype(dtype))


# ---- NaN and infinities --------------------------------------------------------------


def kinds(y):
    """For each number: NaN, plus or minus infinity, or itself."""
    return [str(v) if not math.isfinite(v) else float(v) for v in y.ravel()]


def check_kinds(form, dtype, seed, launcher=None):
    """A few numbers that are not finite, in both factors, meet zeros and each other as NumPy's sums of products do."""
    rng = np.random.default_rng(seed)
    a, b = factors(form, *rng.integers(1, 40, 3), dtype, seed, gaps=(1, 2))
    for factor in (a, b):
        for _ in range(rng.integers(0, 4)):
            factor[tuple(rng.integers(0, factor.shape))] = rng.choice([math.nan, math.inf, -math.inf])
    with np.errstate(all="ignore"):
        expected = (a[:, :, None] * b[None]).sum(1)
        found = (launcher or cpu.matmul)(a, b, None)
    assert kinds(found) == kinds(expected), f"{form}, seed {seed}: another kind of number"


def check_all_kinds(form, dtype, launcher=None):
    for seed in range(60):
        check_kinds(form, dtype, seed, launcher)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_nan_and_infinities_propagate(form, dtype):
    check_all_kinds(form, dtype)


# ---- bits ----------------------------------------------------------------------------


def check_parts(a, b, launcher=None):
    """However many parts the work is cut into, in whatever order they run, each number has the same bits."""
    results = []
    for parts in PARTS:
        out, memory = guarded((a.shape[0], b.shape[1]), a.dtype)
        run_parts((launcher or cpu.matmul).bind(a, b, out), parts)
        assert (memory[:GUARD] == 7.25).all()
        assert (memory[-GUARD:] == 7.25).all()
        results.append(out)
    for parts, out in zip(PARTS, results, strict=True):
        assert_same_bits(out, results[0], f"{parts} parts")
    return results[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@given(rows=sizes, steps=sizes, width=sizes, seed=st.integers(0, 2**31))
def test_bits_do_not_depend_on_the_parts(form, dtype, rows, steps, width, seed):
    rng = np.random.default_rng(seed)
    a, b = factors(form, rows, steps, width, dtype, draw=lambda *shape: rng.normal(size=shape))
    assert_same_bits(check_parts(a, b), cpu.matmul(a, b, None))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_bits_do_not_depend_on_a_tiles_border(form, dtype):
    """A block of the product, computed alone, has the bits that it has within the whole."""
    rng = np.random.default_rng(5)
    a, b = factors(form, 61, 90, 130, dtype, draw=lambda *shape: rng.normal(size=shape))
    whole = cpu.matmul(a, b, None)
    for _ in range(60):
        rows, columns = np.sort(rng.integers(0, 62, 2)), np.sort(rng.integers(0, 131, 2))
        # (one column that lies apart in memory counts as unbroken, so the sum runs as for a @ b)
        if np.diff(rows) > 0 and np.diff(columns) > 1:
            i, j = slice(*rows), slice(*columns)
            assert_same_bits(cpu.matmul(a[i], b[:, j], None), whole[i, j], f"block {i}, {j}")


# ---- the checks notice ---------------------------------------------------------------


def spoiled(change):
    """The launcher with its result, or what lies around it, changed."""
    def launcher(a, b, out):
        found = cpu.matmul(a, b, out)
        change(found)
        return found

    return launcher


def add_one(y):
    y[-1, -1] += 1


def forget(y):
    y[0, 0] = np.nan


def write_behind(y):
    if y.base is not None:
        np.lib.stride_tricks.as_strided(y, (y.size + 1,), (y.itemsize,))[-1] = 0


def elsewhere(a, b, out):
    return cpu.matmul(a, b, None)


@pytest.mark.parametrize("wrong", [spoiled(add_one), spoiled(forget), spoiled(write_behind), elsewhere])
def test_wrong_products_are_found(wrong):
    """One number off by one, a NaN, one number written too far, an ignored `out`."""
    a, b = factors("a @ b", 5, 6, 7, np.float32)
    check_product(a, b)
    with pytest.raises(AssertionError):
        check_product(a, b, wrong)


def test_wrong_rounding_and_kinds_are_found():
    """Factors of half the digits; a rounded result; a NaN made a number, an infinity the largest number."""
    def halves(a, b, out):
        return cpu.matmul(a.astype(np.float16).astype(a.dtype), b, out)

    def coarse(a, b, out):
        return (cpu.matmul(a, b, out) * a.dtype.type(1 + 40 * np.finfo(a.dtype).eps)).astype(a.dtype)

    def tamed(a, b, out):
        return np.nan_to_num(cpu.matmul(a, b, out), nan=0.0, posinf=np.inf, neginf=-np.inf)

    def clipped(a, b, out):
        return np.clip(cpu.matmul(a, b, out), -1e30, 1e30)

    for wrong in (halves, coarse):
        with pytest.raises(AssertionError, match="u of the sum"):
            check_rounding("a @ b", np.float32, wrong)
    for wrong in (tamed, clipped):
        with pytest.raises(AssertionError, match="another kind of number"):
            check_all_kinds("a @ b", np.float32, wrong)


def test_bits_that_depend_on_the_parts_are_found(monkeypatch):
    """The sum over k cut into the parts: right to rounding, and yet another number of threads gives other bits."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(40, 40)) for _ in range(2))

    def cut(program, parts):
        for part in range(parts):
            first, last = (40 * p // parts for p in (part, part + 1))
            program.out[...] = (program.out if part else 0) + a[:, first:last] @ b[first:last]

    class Bound:
        def bind(self, a, b, out):
            self.out = out
            return self

    check_parts(a, b)
    monkeypatch.setattr(f"{__name__}.run_parts", cut)
    with pytest.raises(AssertionError, match="parts: the bits differ"):
        check_parts(a, b, Bound())


# ---- batches ---------------------------------------------------------------------------------------------------------

BATCHES = [((5, 3, 3), (7, 5, 3, 1)), ((1, 9, 4, 1), (9, 1, 4)), ((2, 1, 3, 4), (5, 4, 2)), ((3, 4), (5, 4, 2)),
           ((5, 3, 4), (4, 2)), ((40, 12, 12), (40, 12, 3)), ((3, 20, 30), (2, 1, 30, 17)), ((1, 1, 1), (6, 1, 1))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", BATCHES)
@pytest.mark.parametrize("form", FORMS)
def test_batches(form, shapes, dtype):
    """Of small matrices, by loops, and of large ones, a job for each; axes of the batch broadcast."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-MOST, MOST, shape, endpoint=True).astype(dtype) for shape in shapes)
    a, b = (x.swapaxes(-1, -2).copy().swapaxes(-1, -2) if across else x
            for x, across in zip((a, b), FORMS[form], strict=True))  # fmt: skip
    check_product(a, b)
    bound, out = cpu.matmul.bind(a, b, None), cpu.matmul(a, b, None)
    bound()
    for parts in PARTS:
        again = np.empty_like(out)
        run_parts(cpu.matmul.bind(a, b, again), parts)
        assert_same_bits(again, out, f"in {parts} parts")


def test_what_is_no_batch_goes_to_numpy():
    whole = np.ones((2, 3, 4))
    for a, b in ((whole, np.ones((5, 4, 2))), (whole, np.ones((2, 0, 4)).swapaxes(1, 2)), (whole[0, 0], whole)):
        assert not cpu.multiplies(a, b)


BITS = """
import tinyvae as tv
rng = tv.noise.uniform(0, "data", 0, 0, (80, 64))
data = tv.DataSet("made", (rng[:60] > 0.6).astype("u1"), (rng[60:] > 0.6).astype("u1"), (8, 8), 1.0, "static")
model = tv.VAE(64, hidden=16, latent=8, posterior="full-normal")
print(tv.fit(model, data, epochs=2, batch=20)[-1]["fingerprint"])
print(tv.evaluate(model, data, importance_samples=5).log_evidence)
"""


def test_no_bits_depend_on_the_blas():
    """With these kernels, NumPy's BLAS multiplies nothing in a training and an evaluation, whatever code it chooses."""
    found = [run_python(BITS, OPENBLAS_CORETYPE=code) for code in ("Prescott", "Haswell")]
    assert [done.stderr for done in found] == ["", ""]
    assert found[0].stdout == found[1].stdout
