"""The CUDA kernels, executed on the host: each against the formulas and rows that the CPU's kernels are held against.

The checks themselves stand in test_kernels.py and test_steps.py; here they get the launchers of the GPU, whose
threads run forward, backward and shuffled. A kernel changed in one place must fail its check. On a machine with a GPU
`python -m benchmarks gpu-check` runs the same checks on it.
"""

import re

import numpy as np
import pytest
from cuda_on_cpu import card, host
from cuda_on_cpu.host import SCHEDULES, Driver
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits
from tinyvae_kernels.cuda import likelihoods as likelihood_file
from tinyvae_kernels.cuda.runtime import driver as drivers
from tinyvae_kernels.cuda.runtime import jobs

import tinyvae as tv
from tests.engine.test_rules import inputs_for
from tests.kernels import worst
from tests.kernels.test_kernels import (
    FORMULAS,
    KINDS,
    as_tuple,
    check_divergence_from_a_near_one,
    check_infinite_logits,
    check_launcher,
    check_limits,
    check_long_sums,
    check_nan,
    make,
)
from tests.kernels.test_steps import METHODS, check_accumulate, check_grey_rows, check_guard, check_optimizer
from tinyvae.engine import noise
from tinyvae.engine.rules import TABLE

pytestmark = pytest.mark.skipif(host.compiler() is None and not card.ON_A_CARD,
                                reason=host.NO_COMPILER)
on_the_host = pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only, where threads have an order")
DRIVER = Driver()
cuda = card.launchers()
NOISE = {"seed": 7, "stream": noise.stream_number("noise"), "site": 3}


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    DRIVER.schedule = 0
    for file, name in ((likelihood_file, "FEW"), (jobs, "BLOCKS")):  # what a test sets of these ends with it
        monkeypatch.setattr(file, name, getattr(file, name))
    if not card.ON_A_CARD:
        monkeypatch.setattr(drivers, "current", DRIVER)


# ---- against the formulas ------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
@given(batch=st.integers(1, 9), width=st.integers(1, 40) | st.integers(1, 50).map(lambda n: 4 * n),
       samples=st.integers(0, 3), seed=st.integers(0, 2**31), schedule=st.sampled_from(SCHEDULES),
       few=st.sampled_from([0, 4096]), data=st.data())  # fmt: skip
def test_launchers(name, dtype, batch, width, samples, seed, schedule, few, data):
    """Rows of whole pieces of 16 bytes and others; rows of pixels that have a block each or a warp."""
    DRIVER.schedule, likelihood_file.FEW = schedule, few
    kind = data.draw(st.sampled_from(KINDS.get(name, ["tanh"])))
    arrays, attributes = make(name, np.random.default_rng(seed), batch, width, samples, dtype, kind)
    check_launcher(name, arrays, attributes, launcher=getattr(cuda, name))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("width", "few", "blocks"), [(67, 4096, 2048), (68, 4096, 2048), (67, 0, 3), (68, 0, 3)])
def test_large_launches_in_every_order(name, dtype, width, few, blocks):
    """More than a block, a warp and a chunk, of sizes that nothing divides but pieces; the same bits in every order."""
    likelihood_file.FEW, jobs.BLOCKS = few, blocks
    # where a row of pixels has a block to itself, which the host runs slowly, 122 rows do as well as 602
    batch = 61 if few and name.endswith("_log_prob") else 301
    arrays, attributes = make(name, np.random.default_rng(8), batch, width, 2, dtype)
    DRIVER.schedule, *others = SCHEDULES
    found = check_launcher(name, arrays, attributes, launcher=getattr(cuda, name))
    for DRIVER.schedule in others:
        for y, same in zip(as_tuple(getattr(cuda, name)(*arrays, out=None, **attributes)), found, strict=True):
            assert y.tobytes() == same.tobytes(), f"{name} depends on the order of its threads"


def shifted(array):
    """The same numbers in memory that begins one number behind a piece of 16 bytes."""
    place = np.empty(array.size + 1, array.dtype)[1:].reshape(array.shape)
    place[...] = array
    return place


PIECES = ("bias_activation", "bias_activation_grad", "bias_grad", "bernoulli_log_prob", "gaussian_log_prob",
          "scale_rows")  # fmt: skip


@on_the_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PIECES)
def test_pieces_only_where_rows_are_whole_pieces(name, dtype):
    """And where every array begins on one; the results are right either way."""
    for width, whole in ((40, True), (41, False), (42, dtype == np.float64)):
        arrays, attributes = make(name, np.random.default_rng(8), 20, width, 2, dtype)
        for moved in (None, *range(len(arrays))):
            some = [shifted(a) if i == moved else a for i, a in enumerate(arrays)]
            check_launcher(name, some, attributes, launcher=getattr(cuda, name))
            program = getattr(cuda, name).bind(*some, out=None, **attributes)
            single = (name, moved) == ("scale_rows", 0)  # it has one number a row, read by itself
            assert bool(program.jobs[0].arguments[-1]) == (whole and (moved is None or single))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_nan_propagates(name, dtype):
    check_nan(cuda, name, dtype)


def test_long_sums():
    check_long_sums(cuda, 2**19 + 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits(dtype):
    check_limits(cuda, dtype)
    check_divergence_from_a_near_one(cuda, dtype)


@pytest.mark.parametrize("case", [case for case in worst.of_every_kernel() if case.operation != "matmul" and hasattr(
    cuda, TABLE[case.operation].kernel)], ids=str)  # fmt: skip
def test_the_worst_inputs(case):
    """As on the CPU: NaN, infinities, zeros, denormals, large numbers and such outside the domain."""
    for dtype in DTYPES:
        worst.check(case, dtype, getattr(cuda, TABLE[case.operation].kernel))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_with_a_reference(dtype):
    """A kernel of a row that brings its own reference: around the size of a block, threads in every order."""
    for row in TABLE.values():
        if row.kernel and row.reference is not None and hasattr(cuda, row.kernel):
            for size, DRIVER.schedule in ((size, order) for size in (1, 255, 257, 1000) for order in SCHEDULES):
                arrays = inputs_for(row.name, [(size,)] * len(row.domain), size, dtype)
                found = getattr(cuda, row.kernel)(*arrays, out=None, **row.example)
                expected = row.reference(*(a.astype(np.float64) for a in arrays), **row.example)
                assert_close(found, expected, 64, row.name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_logits_give_the_limit(dtype):
    check_infinite_logits(lambda logits, x: cuda.bernoulli_log_prob(logits, x, None), dtype)


# ---- around a step -------------------------------------------------------------------


@given(rows=st.integers(1, 9), width=st.integers(1, 70), batch=st.integers(1, 12), seed=st.integers(0, 2**31),
       stored=st.sampled_from([np.uint8, np.float32]), dtype=st.sampled_from(DTYPES))  # fmt: skip
def test_grey_rows(rows, width, batch, seed, stored, dtype):
    check_grey_rows(cuda.grey_rows, rows, width, batch, seed, stored, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 4095, 4096, 4097, 10_001])
def test_guard(dtype, size):
    check_guard(cuda.guard, dtype, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 4095, 4096, 10_000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_guard_sees_every_place(dtype, place, bad):
    g, status = np.ones(10_001, dtype), np.array([1.0, 1.0, 1.0, 41.0])
    g[place] = bad
    cuda.guard(np.array(1.0, dtype), g, status, max_norm=5.0)
    assert status[[0, 3]].tolist() == [0, 41]
    status[0] = 1.0
    cuda.guard(np.array(bad, dtype), np.ones(5, dtype), status, max_norm=5.0)
    assert status[[0, 3]].tolist() == [0, 41]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_optimizers(name, dtype):
    check_optimizer(name, dtype, getattr(cuda, name))


@pytest.mark.parametrize("count", [1003, 1004, 3])
@pytest.mark.parametrize("name", [*METHODS, "weight_prior"])
def test_updates_of_memory_that_begins_anywhere(name, count):
    """Pieces of 16 bytes where all vectors begin on one, single numbers elsewhere: the same bits, by many or few."""
    rng, (moments, hyper) = np.random.default_rng(0), METHODS.get(name, (0, {"factor": 0.3}))
    vectors = [rng.random(count).astype(np.float32) for _ in range(2 + moments)]
    rest = [np.array([0.01, 1.0], np.float32), np.array([1.0, 0.5, 1.0, 3.0])] if name in METHODS else []
    several = [[move(a) for a in vectors] for move in (np.copy, shifted)]
    for moved in range(len(vectors)):
        several.append([shifted(a) if i == moved else a.copy() for i, a in enumerate(vectors)])
    for jobs.BLOCKS, arrays in zip((1, 1, *[2048] * len(vectors)), several, strict=True):
        getattr(cuda, name)(*arrays, *rest, **hyper)
        for a, b in zip(arrays, several[0], strict=True):
            assert_same_bits(a, b, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [5, 4097])
def test_guard_of_memory_that_begins_anywhere(dtype, size):
    check_guard(lambda loss, g, *rest, **named: cuda.guard(loss, shifted(g), *rest, **named), dtype, size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulate(dtype):
    check_accumulate(dtype, cuda.accumulate)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_prior(dtype):
    g, theta = np.random.default_rng(0).normal(size=(2, 5000)).astype(dtype)
    expected = g.astype(np.float64) + float(dtype(0.3)) * theta.astype(np.float64)
    cuda.weight_prior(g, theta, factor=0.3)
    assert_close(g, expected, 2, "weight prior")


def test_the_small_work_of_a_step():
    """Indices and rates at the clock, beyond the epoch's end from its begin; the clock moves on."""
    order, plan = np.random.default_rng(0).permutation(13), np.random.default_rng(0).random((4, 2))
    for cursor in (0, 5, 12, 30):
        counters = np.array([9, cursor, cursor])
        for name, source, attributes in (("next_indices", order, {"batch": 7}), ("next_rates", plan, {})):
            expected = TABLE[name].value(np, source, counters, None, **attributes)
            assert_same_bits(getattr(cuda, name)(source, counters, None, **attributes), expected, name)
    cuda.tick(counters, batch=10)
    assert counters.tolist() == [10, 40, 31]


# ---- noise ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1023, 5000])
def test_the_same_normal_numbers(dtype, count):
    """The integers of tinyvae/engine/noise.py; the transform to rounding."""
    found = cuda.normal(np.array([11]), np.full(count, np.nan, dtype), **NOISE)
    expected = noise.normal(7, "noise", 11, 3, (count,), dtype)
    assert_close(found, expected, 64, "normal")


@given(batch=st.integers(1, 9), width=st.integers(1, 50), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**32 - 1),
       stored=st.sampled_from([np.uint8, np.float32]))  # fmt: skip
def test_the_same_drawn_pixels(batch, width, dtype, seed, stored):
    """Bit for bit: each pixel is decided by the same integer."""
    rng = np.random.default_rng(width)
    images, index = rng.integers(0, 256, (12, width)).astype(stored), rng.integers(0, 12, batch)
    address = {"seed": seed, "site": 3}
    found = cuda.binarised_rows(images, index, np.array([5]), np.full((batch, width), np.nan, dtype), scale=255.0,
                                stream=noise.stream_number("binarise"), **address)
    expected = TABLE["binarised_rows"].value(np, images, index, np.array([5]), None, scale=255.0, stream="binarise",
                                             dtype=np.dtype(dtype), **address)
    assert_same_bits(found, expected, "pixels")


# ---- wrong kernels are noticed -------------------------------------------------------


def check_formulas(*names):
    def check():
        for name in names:
            for kind in KINDS.get(name, ["tanh"]):
                sizes = ((5, 251, 4096, 2048), (301, 37, 0, 1), (5, 300, 0, 1), (70, 36, 4096, 2048))
                for batch, width, likelihood_file.FEW, jobs.BLOCKS in sizes:
                    arrays, attributes = make(name, np.random.default_rng(8), batch, width, 2, np.float32, kind)
                    check_launcher(name, arrays, attributes, launcher=getattr(cuda, name))
            check_nan(cuda, name, np.float32)

    return check


def check_noise():
    test_the_same_normal_numbers(np.float32, 1023)
    test_the_same_drawn_pixels.hypothesis.inner_test(3, 41, np.float32, 1, np.uint8)


def check_steps():
    test_the_small_work_of_a_step()
    check_accumulate(np.float32, cuda.accumulate)
    check_formulas("objective", "objective_grad")()


activations, posterior = check_formulas("bias_activation", "bias_activation_grad", "bias_grad"), check_formulas(
    "gaussian_sample_kl", "gaussian_sample_kl_grad")  # fmt: skip
gates = check_formulas("gate", "gate_grad")
likelihoods = check_formulas("bernoulli_log_prob", "gaussian_log_prob", "scale_rows")
MUTANTS = [
    ("activations", activations, "a < 0 ? real(0) : a;  //", "a > 0 ? a : real(0);  //"),  # hides a NaN
    ("activations", activations, "if (j >= each) return;", "if (j > each) return;"),
    ("activations", activations, "1 - y * y", "1 - y"),
    ("activations", activations, "for (int k = 1; k < 8; k++)", "for (int k = 1; k < 7; k++)"),
    ("activations", activations, "  __syncthreads();\n  if (threadIdx.y == 0", "  if (threadIdx.y == 0"),
    ("activations", activations, "(whole)blockIdx.y * each + j, sum", "j, sum"),  # one chunk's sums
    ("activations", activations, "i += AHEAD * step", "i += 2 * AHEAD * step"),
    ("activations", activations, "i += 8 * AHEAD", "i += 8"),
    ("activations", activations, "if (i + 8 * k < last)", ""),
    ("activations", activations, "p[k].v[l] + b.v[l]", "p[k].v[l] + b.v[0]"),
    ("activations", activations, "slope<KIND>(value[k].v[l])", "slope<KIND>(value[k].v[0])"),
    ("activations", activations, "tile[k][threadIdx.x].v[l]", "tile[k][threadIdx.x].v[0]"),
    ("stirling", posterior, "x < 1000 ? x :", "x < 1000 ? -x :"),
    ("stirling", posterior, "k > 2", "k > 3"),
    ("posterior", gates, "rest = a < 0 ? r : e * r", "rest = e * r"),
    ("posterior", gates, "(a < 0 ? a : real(0))", "real(0)"),
    ("posterior", gates, "- LOG1P(e) + log_c", "- LOG1P(e)"),
    ("posterior", gates, "j += 32) {\n    const real a", "j += 64) {\n    const real a"),
    ("posterior", gates, "FMA(c, z[i], -raw[at]), g,", "FMA(c, z[i], -raw[at]), rest,"),
    ("posterior", gates, "dsum[row]) * rest", "dsum[0]) * rest"),
    ("stirling", lambda: check_limits(cuda, np.float32), "fabs(x) < 1 ? T", "fabs(x) < 0 ? T"),
    ("likelihoods", lambda: check_limits(cuda, np.float32), "d == 0 ? d : d", "d"),
    ("likelihoods", lambda: check_limits(cuda, np.float32), "by_mean == 0 ? by_mean : by_mean", "by_mean"),
    ("posterior", posterior, "FMA(m, m, exp", "FMA(m, real(1), exp"),
    ("likelihoods", likelihoods, "by_mean * root * root", "by_mean * root"),
    ("posterior", posterior, "begin += 32", "begin += 64"),
    ("posterior", posterior, "by_z += d", "by_z = d"),
    ("posterior", posterior, "if (b >= batch) return;", ""),
    ("likelihoods", likelihoods, "row % count", "row"),
    ("likelihoods", likelihoods, "- LOG1P(e)", "+ LOG1P(e)"),
    ("likelihoods", likelihoods, "(a[0] < 0 ? e : real(1)) / (1 + e)", "1 / (1 + e)"),
    ("likelihoods", likelihoods, "if (threadIdx.x == 0) sums", "if (threadIdx.x == 1) sums"),
    ("likelihoods", likelihoods, "if (row >= rows) return;", ""),
    ("likelihoods", likelihoods, "blockDim.x == 32 ? warp_sum(sum) : block_sum(sum)", "warp_sum(sum)"),
    ("likelihoods", likelihoods, "j += blockDim.x", "j += 256"),
    ("likelihoods", likelihoods, "pixels.v[l]", "pixels.v[0]"),
    ("likelihoods", likelihoods, "one[k] = a[k].v[l]", "one[k] = a[k].v[0]"),
    ("likelihoods", likelihoods, "by[k].v[l] = slope[k]", "by[k].v[l] = slope[0]"),
    ("likelihoods", likelihoods, "g[k / each]", "g[k / (each + 1)]"),
    ("likelihoods", likelihoods, "p.v[l] *= factor", "p.v[0] *= factor"),
    ("common", likelihoods, "lane < 8 ? part[lane]", "lane < 7 ? part[lane]"),
    ("common", likelihoods, "for (int d = 16; d", "for (int d = 8; d"),
    ("philox", check_noise, "round < 10", "round < 9"),
    ("philox", check_noise, "k1 += 0xBB67AE85u", "k1 += 0xBB67AE84u"),
    ("noise", check_noise, "word[k] >> 8", "word[k] >> 7"),
    ("noise", check_noise, "if (4 * i + k + 1 < count) out", "out"),
    ("optimizers", lambda: check_guard(cuda.guard, np.float32, 10_001), "i += threads) step.template at<LANES>",
     "i += 2 * threads) step.template at<LANES>"),
    ("optimizers", lambda: check_guard(cuda.guard, np.float32, 10_001), "i = LANES * pieces + first",
     "i = LANES * pieces + 1 + first"),
    ("optimizers", lambda: check_guard(cuda.guard, np.float32, 5), "(double)d.v[l] * ", "(double)d.v[0] * "),
    ("optimizers", lambda: test_the_guard_sees_every_place(np.float32, 10_000, np.inf), "norm - norm == 0 &&", ""),
    ("optimizers", lambda: check_optimizer("adam", np.float32, cuda.adam), "rest2 * d * d", "rest2 * d"),
    ("optimizers", lambda: check_optimizer("adam", np.float32, cuda.adam), "i = LANES * pieces + first",
     "i = LANES * pieces + 1 + first"),
    ("optimizers", lambda: check_optimizer("adam", np.float32, cuda.adam), "beta1, mean.v[l]", "beta1, mean.v[0]"),
    ("optimizers", lambda: check_optimizer("adagrad", np.float32, cuda.adagrad), "if (d != 0) ", ""),
    ("optimizers", lambda: check_optimizer("adagrad", np.float32, cuda.adagrad), "FMA(d, d, square.v[l])",
     "FMA(d, d, square.v[0])"),
    ("optimizers", lambda: check_optimizer("sgd", np.float32, cuda.sgd), "if (status[FINITE] != 1.0) return;", ""),
    ("optimizers", lambda: check_optimizer("sgd", np.float32, cuda.sgd), "rate * now.v[l]", "rate * now.v[0]"),
    ("optimizers", lambda: test_weight_prior(np.float32), "FMA(factor, t.v[l]", "FMA(factor, t.v[0]"),
    ("steps", check_steps, "% count]", "% (count + 1)]"),
    ("steps", check_steps, "totals[SOUND] += 1.0;", ""),
    ("steps", check_steps, "rates[KL_WEIGHT] * real(second", "rates[LEARNING_RATE] * real(second"),
]  # fmt: skip


class Mutated(Driver):
    """Compiles another source than the one on disk, as it stands, which takes the compiler a third less time."""

    def __init__(self, old, new):
        super().__init__()
        self.old, self.new = old, new

    def module(self, code, options=()):
        return super().module(code.replace(self.old, self.new), (*options, "-O0"))


def check_notices(monkeypatch, file, check, old, new):
    """A check fails where a file of kernels has another text in one place."""
    text = "".join(path.read_text() for path in drivers.FOLDER.rglob(f"{file}.cu"))
    assert old in text, "there is no such place any more: change the mutant"
    monkeypatch.setattr(drivers, "current", Mutated(old, new))
    with pytest.raises((AssertionError, host.KernelError)), np.errstate(all="ignore"):
        check()


@on_the_host
@pytest.mark.parametrize("place", range(len(MUTANTS)))
def test_a_wrong_kernel_is_noticed(place, monkeypatch):
    check_notices(monkeypatch, *MUTANTS[place])


# ---- the files -----------------------------------------------------------------------


@on_the_host
def test_every_kernel_is_launched():
    """No kernel without a launcher, and every launcher's name is one of the CPU's."""
    from tests.kernels.cuda import test_elementary, test_special  # which import this file

    kernels = {name for file in drivers.FILES for name in host.KERNEL.findall(drivers.source(file))}
    test_the_small_work_of_a_step()
    likelihoods()
    activations()
    posterior()
    check_formulas("gaussian_sample_kl_from", "gaussian_sample_kl_from_grad")()
    gates()
    check_steps()
    for dtype in (np.uint8, np.float32):
        check_grey_rows(cuda.grey_rows, 3, 40, 5, 0, dtype, np.float32)
        test_the_same_drawn_pixels.hypothesis.inner_test(3, 41, np.float32, 1, dtype)
    test_the_same_normal_numbers(np.float32, 5)
    test_guard(np.float32, 5)
    test_weight_prior(np.float32)
    for name in METHODS:
        test_optimizers(name, np.float32)
    test_special.check_draws(np.float32, 5, 1)
    test_special.check_remainders()
    test_special.check_numbers(*test_special.NAMES, dtypes=[np.float32])
    test_elementary.check_views()
    test_elementary.check_lines()
    test_elementary.check("cast", [np.ones(3, bool)], {"dtype": np.dtype(np.float32)})
    merged = {"begin_step", "drawn_sample_kl", "end_step", "objective_and_grad"}  # in test_jobs.py
    assert kernels == set(DRIVER.launches) | merged
    assert {file.stem for file in drivers.FOLDER.rglob("*.cu")} == {"common", "philox", "stirling", *drivers.FILES}


def test_sources_need_no_headers_and_no_float_atomics():
    """NVRTC brings no headers, and float atomics would make a sum's order a matter of luck."""
    for file in drivers.FILES:
        text = re.sub(r"//.*", "", drivers.source(file))
        assert not re.search(r"#\s*include|INFINITY|atomic|std::|\bNAN\b", text), file


def test_importing_the_launchers_imports_no_cupy():
    from support import run_python

    done = run_python("import tinyvae_kernels.cuda, sys; print('cupy' in sys.modules, 'numba' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr
    assert tv.__name__ == "tinyvae"
