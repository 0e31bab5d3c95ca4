"""The kernels around a training step: batches, the guard, the optimizers, the sums over an epoch, the clock.

Each is held against a formula and against the readable row of the same name, on the same state.
"""

import math

import numpy as np
import pytest
import tinyvae_kernels
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits
from tinyvae_kernels import layouts, state

import tinyvae as tv
from tinyvae.engine.rules import TABLE
from tinyvae.nn import optimizers
from tinyvae.nn.optimizers import CLIP, FINITE, NORM, UPDATES
from tinyvae.training import batches, objective

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
cpu = tinyvae_kernels.kernels_for("cpu")

# ---- batches -------------------------------------------------------------------------


@given(rows=st.integers(1, 9), width=st.integers(1, 70), batch=st.integers(1, 12), seed=st.integers(0, 2**31),
       stored=st.sampled_from([np.uint8, np.float32]), dtype=st.sampled_from(DTYPES))  # fmt: skip
def test_grey_rows(rows, width, batch, seed, stored, dtype):
    """The rows of the index over the scale, each rounded once: the bits of the readable row."""
    check_grey_rows(cpu.grey_rows, rows, width, batch, seed, stored, dtype)


def check_grey_rows(launcher, rows, width, batch, seed, stored, dtype):
    rng = np.random.default_rng(seed)
    images, index = rng.integers(0, 256, (rows, width)).astype(stored), rng.integers(0, rows, batch)
    out = np.full((batch, width), np.nan, dtype)
    found = launcher(images, index, out, scale=255.0)
    assert found is out
    assert_same_bits(out, images[index].astype(dtype) / dtype(255), "grey rows")
    readable = TABLE["grey_rows"].value(np, images, index, None, 255.0, np.dtype(dtype))
    assert_same_bits(out, readable, "grey rows, the readable row")


def test_wrong_grey_rows_are_found():
    """The inverse of the scale multiplied, which rounds twice; rows counted from the end; the scale forgotten."""
    def inverse(images, index, out, scale):
        out[...] = images[index].astype(out.dtype) * out.dtype.type(1 / scale)
        return out

    def backwards(images, index, out, scale):
        return cpu.grey_rows(images, len(images) - 1 - index, out, scale=scale)

    def unscaled(images, index, out, scale):
        return cpu.grey_rows(images, index, out, scale=1.0)

    for wrong in (inverse, backwards, unscaled):
        with pytest.raises(AssertionError, match="grey rows"):
            check_grey_rows(wrong, 9, 70, 12, 0, np.uint8, np.float32)


@given(count=st.integers(1, 40), batch=st.integers(1, 40), data=st.data())
def test_next_indices(count, batch, data):
    """Also past the epoch's end, where a replay too many begins it anew instead of reading foreign memory."""
    order, counters = np.random.default_rng(count).permutation(count), np.array([5, 0, 2])
    counters[batches.CURSOR] = data.draw(st.integers(0, 3 * count))
    expected = [order[(counters[batches.CURSOR] + i) % count] for i in range(batch)]
    assert cpu.next_indices(order, counters, None, batch=batch).tolist() == expected
    assert TABLE["next_indices"].value(np, order, counters, None, batch=batch).tolist() == expected
    out = np.full(batch, -1)
    assert cpu.next_indices(order, counters, out, batch=batch) is out
    assert out.tolist() == expected
    assert counters[[batches.STEP, batches.BATCH]].tolist() == [5, 2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_next_rates(dtype):
    plan, counters = np.random.default_rng(0).random((7, 2)).astype(dtype), np.array([9, 5, 0])
    for counters[batches.BATCH] in range(9):  # there are 7, then they begin anew
        expected = plan[counters[batches.BATCH] % 7].copy()
        assert_same_bits(cpu.next_rates(plan, counters, None), expected)
        assert_same_bits(TABLE["next_rates"].value(np, plan, counters, None), expected)
        out = np.full(2, np.nan, dtype)
        assert cpu.next_rates(plan, counters, out) is out
        assert_same_bits(out, expected)


def test_tick():
    """One step, so many rows, one batch, as the readable row counts them."""
    counters = np.array([3, 40, 4])
    readable = counters.copy()
    cpu.tick(counters, batch=10)
    assert counters.tolist() == [4, 50, 5]
    TABLE["tick"].value(np, readable, batch=10)
    assert_same_bits(counters, readable)


def check_accumulate(dtype, launcher):
    """A sound batch is added in float64, an unsound one only counted; against the readable row."""
    rng, found, readable = np.random.default_rng(0), np.zeros(7), np.zeros(7)
    sums = np.zeros(7)
    for sound in (1.0, 1.0, 0.0, 1.0):
        reconstruction, kl = rng.normal(-90, 9, 33).astype(dtype), rng.random(33).astype(dtype)
        loss, status = np.array(rng.random(), dtype), np.array([sound, 1.0, rng.random(), 7.0])
        if not sound:
            reconstruction[3] = np.nan
        launcher(reconstruction, kl, loss, found, status)
        TABLE["accumulate"].value(np, reconstruction, kl, loss, readable, status)
        part = dict.fromkeys(range(7), 0.0)
        if sound:
            part |= {0: 33, 1: math.fsum(reconstruction), 2: math.fsum(kl), 3: 33 * float(loss), 4: status[NORM], 5: 1}
        else:
            part[6] = 1
        sums += [part[i] for i in range(7)]
    assert_close(found, sums, 16, "accumulate")
    # the readable row sums a float32 batch in float32
    allowed = 64 if dtype == np.float64 else 64 * np.finfo(np.float32).eps / np.finfo(np.float64).eps
    assert_close(found, readable, allowed, "accumulate, the readable row")


@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulate(dtype):
    check_accumulate(dtype, cpu.accumulate)


def test_a_wrong_accumulate_is_found():
    """Unsound batches added; the loss not weighed by the batch; sums in float32."""
    def always(reconstruction, kl, loss, totals, status):
        cpu.accumulate(reconstruction, kl, loss, totals, np.array([1.0, *status[1:]]))

    def unweighed(reconstruction, kl, loss, totals, status):
        before = totals[3]
        cpu.accumulate(reconstruction, kl, loss, totals, status)
        totals[3] = before + loss * status[FINITE]

    def single(reconstruction, kl, loss, totals, status):
        cpu.accumulate(reconstruction, kl, loss, totals, status)
        totals[:] = totals.astype(np.float32)

    for wrong in (always, unweighed, single):
        with pytest.raises(AssertionError, match="accumulate"):
            check_accumulate(np.float32, wrong)


# ---- the guard -----------------------------------------------------------------------

SIZES = [1, 5, 767, 768, 769, 10_001, 100_003]  # some with as many rows as slices, 64 groups of 12; some with fewer


def check_guard(guard, dtype, size):
    g = np.random.default_rng(size).normal(size=size).astype(dtype)
    norm = math.sqrt(math.fsum(float(v) ** 2 for v in g))
    for bound in (2 * norm, norm / 3, math.inf):
        status, readable = np.array([-1.0, -1.0, -1.0, 41.0]), np.array([-1.0, -1.0, -1.0, 41.0])
        guard(np.array(1.5, dtype), g, status, max_norm=bound)
        assert_close(status, [1.0, min(1.0, bound / norm), norm, 42.0], 64, "guard", np.maximum(1, status))
        TABLE["guard"].value(np, np.array(1.5, dtype), g, readable, max_norm=bound)
        assert_close(status, readable, 64, "guard", np.maximum(1, readable))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_guard(dtype, size):
    """The norm is summed in float64 also for float32, clipped to the bound, and a sound step is counted."""
    check_guard(cpu.guard, dtype, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 4095, 4096, 9_999, 10_000])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_guard_sees_every_place(dtype, place, bad):
    """One number that is not finite, wherever it is: the step is unsound and not counted."""
    g = np.ones(10_001, dtype)
    g[place] = bad
    status = np.array([1.0, 1.0, 1.0, 41.0])
    cpu.guard(np.array(1.0, dtype), g, status, max_norm=5.0)
    assert status[FINITE] == 0
    assert status[UPDATES] == 41
    assert not np.isfinite(status[NORM])


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_the_guard_sees_the_loss(loss):
    status = np.array([1.0, 1.0, 1.0, 41.0])
    cpu.guard(np.array(loss), np.ones(5), status, max_norm=math.inf)
    assert status[[FINITE, UPDATES]].tolist() == [0, 41]


def test_the_norm_of_a_huge_float32_gradient_is_no_infinity():
    """The squares are formed in float64: a gradient of 2**100 is unwelcome, but finite."""
    status = np.zeros(4)
    cpu.guard(np.array(1.0, np.float32), np.full(4, 2.0**100, np.float32), status, max_norm=1.0)
    assert status[FINITE] == 1
    assert status[[NORM, CLIP]].tolist() == [2.0**101, 2.0**-101]


MATRICES = ((0, 50, 70), (3504, 1, 33), (3552, 13, 1), (3568, 784, 3), (5920, 2, 2))  # and numbers between them


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_guard_sums_over_matrices(dtype):
    """Shared out by matrices the norm is the same; what lies between them is not looked at."""
    g = np.random.default_rng(0).normal(size=5924).astype(dtype)
    inside = np.concatenate([g[begin : begin + rows * width] for begin, rows, width in MATRICES]).astype(np.float64)
    between = np.ones(5924, bool)
    for begin, rows, width in MATRICES:
        between[begin : begin + rows * width] = False
    g[between] = np.nan
    status = np.zeros(4)
    layouts.lay_out(g, MATRICES)
    cpu.guard(np.array(1.0, dtype), g, status, max_norm=math.inf)
    assert_close(status[NORM], math.sqrt(math.fsum(inside**2)), 64, "guard", status[NORM])


@pytest.mark.parametrize("place", [(0, 3, 4), (-1, 2, 2), (8, 1, 4)])
def test_a_layout_outside_its_vector_is_refused(place):
    with pytest.raises(ValueError, match="expected all within 11 numbers"):
        layouts.lay_out(np.ones(11), [place])


def test_a_layout_is_forgotten_with_its_vector():
    """Another vector may get the same memory later; views of a laid-out vector that begin with it share its layout."""
    before = dict(layouts._known)
    g = np.ones(11)
    layouts.lay_out(g, [(0, 3, 2)])
    assert layouts.layout_of(g) == layouts.layout_of(g[:]) == ((0, 3, 2),)
    assert layouts.layout_of(g[1:]) == ()
    del g
    assert layouts._known == before


def test_the_parameters_lay_their_vectors_out():
    parameters = tv.VAE(6, hidden=5, latent=2).parameters
    matrices = layouts.layout_of(parameters.flat)
    assert matrices == layouts.layout_of(parameters.gradient)
    found = [parameters.flat[begin : begin + rows * width] for begin, rows, width in matrices]
    assert [part.ctypes.data for part in found] == [tensor.data.ctypes.data for tensor in parameters]
    assert [part.size for part in found] == [tensor.size for tensor in parameters]


# ---- the places of state vectors -----------------------------------------------------


def test_the_readable_rows_and_the_kernels_name_the_same_places():
    """The kernels know nothing of tinyvae, so each side names the places once, and both must agree."""
    of_totals = 5 + len(objective.OF_ELBO)  # places after the terms count from the end
    readable = {"RECONSTRUCTION": objective.FIRST_TERM, "KL": objective.FIRST_TERM + 1, "KL_WEIGHT": 1}
    for room in (batches, optimizers):
        readable |= {name: value for name, value in vars(room).items() if name.isupper()}
    readable |= {name: value % of_totals for name, value in vars(objective).items()
                 if name.isupper() and isinstance(value, int)}
    for name, place in vars(state).items():
        if name.isupper():
            assert readable[name] == place, f"{name} is {place} for the kernels and {readable[name]} for tinyvae"


def test_wrong_guards_are_found():
    """Sums in float32; one number too few; not counted; never clipped."""
    def single(loss, g, status, max_norm):
        cpu.guard(loss, g, status, max_norm=max_norm)
        status[NORM] = np.sqrt(np.sum(np.square(g.astype(np.float32))))

    def short(loss, g, status, max_norm):
        cpu.guard(loss, g[:-1].copy(), status, max_norm=max_norm)

    def uncounted(loss, g, status, max_norm):
        cpu.guard(loss, g, status, max_norm=max_norm)
        status[UPDATES] -= 1

    def unclipped(loss, g, status, max_norm):
        cpu.guard(loss, g, status, max_norm=math.inf)

    for wrong in (single, short, uncounted, unclipped):
        with pytest.raises(AssertionError, match="guard"):
            check_guard(wrong, np.float64, 10_001)


# ---- optimizers ----------------------------------------------------------------------

METHODS = {"adam": (2, {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}), "adagrad": (1, {"epsilon": 0.0}),
           "sgd": (1, {"momentum": 0.9})}  # fmt: skip


def check_optimizer(name, dtype, method=None, units=8):
    """Some steps of the kernel and of the readable row from the same state, gradients of many sizes and zeros.

    Rates, clip factor and count change from step to step; one step is unsound and must change nothing.
    """
    method = method or getattr(cpu, name)
    moments, hyper = METHODS[name]
    rng = np.random.default_rng(0)
    fast = [rng.normal(size=37).astype(dtype) for _ in range(1 + moments)]
    fast[1:] = [np.abs(m) * (np.arange(37) % 3 > 0) for m in fast[1:]]  # some at their start, 0
    slow = [a.astype(np.float64) for a in fast]
    for step in range(6):
        g = (rng.normal(size=37) * 10.0 ** rng.integers(-6, 3, 37) * (np.arange(37) % 5 > 0)).astype(dtype)
        rates = np.array([0.01 / (1 + step), 77.0], dtype)
        status = np.array([1.0, 0.5 + step / 8, 1.0, 3.0 + step])
        if step == 3:
            status[FINITE], before = 0.0, [a.copy() for a in fast]
        method(fast[0], g, *fast[1:], rates, status, **hyper)
        if step == 3:
            for a, b in zip(fast, before, strict=True):
                assert_same_bits(a, b, f"{name}, an unsound step")
            continue
        TABLE[name].value(np, slow[0], g.astype(np.float64), *slow[1:], rates.astype(np.float64), status, **hyper)
        for a, b in zip(fast, slow, strict=True):
            assert a.dtype == dtype
            assert_close(a, b, units * (step + 1), name, np.maximum(1, np.abs(b)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_optimizers_against_the_readable_steps(name, dtype):
    check_optimizer(name, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_a_layout_changes_no_bit(name, dtype):
    """Every number of every matrix is updated once, however they are shared out; what is of none stays."""
    moments, hyper = METHODS[name]
    rng = np.random.default_rng(0)
    whole = [rng.random(5924).astype(dtype) for _ in range(2 + moments)]
    placed, before = [a.copy() for a in whole], whole[0].copy()
    rates, status = np.array([0.01, 1.0], dtype), np.array([1.0, 0.5, 1.0, 3.0])
    getattr(cpu, name)(*whole, rates, status, **hyper)
    layouts.lay_out(placed[0], MATRICES)
    getattr(cpu, name)(*placed, rates, status, **hyper)
    inside = np.zeros(5924, bool)
    for begin, rows, width in MATRICES:
        inside[begin : begin + rows * width] = True
    for a, b in zip(whole, placed, strict=True):
        assert_same_bits(a[inside], b[inside], f"{name}, placed")
    assert_same_bits(placed[0][~inside], before[~inside], f"{name}, between places")


@pytest.mark.parametrize("name", METHODS)
def test_wrong_optimizers_are_found(name):
    """Uphill; without clipping; with another rate; with the moments forgotten; NaN; heedless of the guard."""
    right = getattr(cpu, name)

    def uphill(theta, g, *rest, **hyper):
        right(theta, -g, *rest, **hyper)

    def unclipped(*arrays, **hyper):
        right(*arrays[:-1], arrays[-1] * [1, 0, 1, 1] + [0, 1, 0, 0], **hyper)

    def rated(*arrays, **hyper):
        right(*arrays[:-2], arrays[-2][::-1].copy(), arrays[-1], **hyper)

    def forgetful(theta, g, *rest, **hyper):
        right(theta, g, *rest, **hyper)
        rest[0][...] = 0

    def lost(theta, g, *rest, **hyper):
        right(theta, g, *rest, **hyper)
        theta[3] = np.nan

    def heedless(*arrays, **hyper):
        right(*arrays[:-1], np.array([1.0, *arrays[-1][1:]]), **hyper)

    for wrong in (uphill, unclipped, rated, forgetful, lost, heedless):
        with pytest.raises(AssertionError, match=name):
            check_optimizer(name, np.float32, wrong)


def test_adam_counts_its_steps():
    """The bias correction reads the count: a kernel that took another one would be far off at the first steps."""
    hyper = METHODS["adam"][1]
    for count in (1, 2, 1000):
        theta, m, v = np.zeros(1), np.zeros(1), np.zeros(1)
        cpu.adam(theta, np.ones(1), m, v, np.array([1.0, 0.0]), np.array([1.0, 1.0, 1.0, count]), **hyper)
        expected = -(0.1 / (1 - 0.9**count)) / (math.sqrt(0.001 / (1 - 0.999**count)) + 1e-8)
        assert_close(theta[0], expected, 64, "adam", abs(expected))
    single = np.zeros(1, np.float32)
    arrays = [single, *np.ones((1, 1), np.float32), *np.zeros((2, 1), np.float32)]
    cpu.adam(*arrays, np.ones(2, np.float32), np.array([1.0, 1.0, 1.0, 1.0]), **hyper)
    assert_close(arrays[3][0], 0.001, 1, "adam", 0.001)  # 1 - 0.999 formed in float32 has only five digits


def test_fading_moments_become_zero():
    """Denormal moments would slow each step ten times; a weight whose gradient is always 0 must not move."""
    theta, m, v = np.ones(3, np.float32), np.full(3, 2e-30, np.float32), np.full(3, 2e-30, np.float32)
    rates, status = np.array([1e-3, 1.0], np.float32), np.array([1.0, 1.0, 1.0, 1e6])
    run = cpu.adam.bind(theta, np.zeros(3, np.float32), m, v, rates, status, **METHODS["adam"][1])
    for _ in range(800):
        run()
    assert (m == 0).all()
    assert (v == 0).all()
    assert_close(theta, np.ones(3), 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_prior(dtype):
    g, theta = np.arange(5, dtype=dtype), np.array([1.0, -1.0, 0.5, np.nan, 0.0], dtype)
    expected = np.arange(5) + 0.25 * theta
    cpu.weight_prior(g, theta, factor=0.25)
    assert_same_bits(g, expected.astype(dtype))


# ---- the rows over them --------------------------------------------------------------


def one_step(name, loss, gradient, max_norm=math.inf, weight_prior=0.0, dtype=np.float64, on=True):
    theta = np.linspace(-1, 1, len(gradient)).astype(dtype)
    optimizer = optimizers.Optimizer(name, theta)
    g, rates = np.array(gradient, dtype), tv.Tensor(np.array([0.1, 1.0], dtype))
    with tv.fused(on):
        for _ in range(2):
            optimizer.step(tv.Tensor(np.array(loss, dtype)), g, rates, max_norm, weight_prior)
    return theta, optimizer, g


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("max_norm", "prior"), [(math.inf, 0.0), (1.0, 0.0), (1.0, 0.5)])
def test_a_step_is_the_same_on_both_roads(name, dtype, max_norm, prior):
    """Guard, clipping, weight prior, update and step count, by kernels and by readable rows."""
    results = [one_step(name, 1.0, [3.0, -4.0, 0.0], max_norm, prior, dtype, on) for on in (True, False)]
    (theta, fast, g), (readable, slow, h) = results
    assert_close(theta, readable, 16)
    assert_close(g, h, 4)
    assert_close(fast.status.astype(dtype), slow.status, 16)
    assert fast.status[UPDATES] == 2
    if not prior:
        assert_close(fast.status[NORM], 5.0, 2)
        assert_close(fast.status[CLIP], min(1.0, max_norm / 5), 2)
        assert theta[0] < -1
        assert theta[1] > 0, "downhill"


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("loss", "gradient"), [
    (math.nan, [1.0, 2.0]), (math.inf, [1.0, 2.0]), (1.0, [math.nan, 2.0]), (1.0, [1.0, -math.inf]),
])  # fmt: skip
def test_a_step_that_is_not_finite_changes_nothing(name, loss, gradient, on):
    """Not the parameters, not the moments, not the count: looked at before anything is touched."""
    with np.errstate(all="ignore"):
        theta, optimizer, _ = one_step(name, loss, gradient, on=on)
    assert_same_bits(theta, np.linspace(-1, 1, 2))
    assert not any(m.any() for m in optimizer.moments.values())
    assert optimizer.status[FINITE] == 0
    assert optimizer.status[UPDATES] == 0
