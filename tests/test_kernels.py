"""The Numba kernels by themselves: elementary functions, every launcher against formulas in NumPy and SciPy.

The formulas here are written in float64 and in another form than the kernels or their twins.
"""

import inspect
import math
import re

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tinyvae_kernels
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, ROOT, assert_close, assert_same_bits

import tinyvae as tv
from tinyvae import optimizers

cpu = pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
numba = pytest.importorskip("numba", reason="Numba is missing")

# ---- exp, log1p, tanh ----------------------------------------------------------------


def over_arrays(helper):
    """A compiled helper over all elements of an array."""
    @numba.njit(error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = helper(x[i])

    def call(x):
        out = np.empty_like(x)
        loop(x, out)
        return out

    return call


ENDS = {np.float32: (-105, 90), np.float64: (-746, 711)}  # beyond the first numbers that are 0 and the last finite one
HELPERS = {"exp": np.exp, "log1p": np.log1p, "tanh": np.tanh}
COMPILED = {(name, dtype): over_arrays(getattr(cpu, f"_{name}{8 * dtype().itemsize}"))
            for name in HELPERS for dtype in DTYPES}  # fmt: skip


def points(name, dtype):
    low, high = {"exp": ENDS[dtype], "log1p": (0, 1), "tanh": (-25, 25)}[name]
    rng = np.random.default_rng(0)
    tiny = 10.0 ** rng.uniform(-44 if dtype == np.float32 else -320, 0, 20_000)
    x = np.concatenate([np.linspace(low, high, 200_001), rng.uniform(max(low, -1), min(high, 1), 50_000), tiny, -tiny])
    return x[(x >= low) & (x <= high)].astype(dtype)


def check_helper(name, function, dtype, units=2):
    """Within so many rounding units of the exact value, over all magnitudes; denormal results within one of theirs."""
    x = points(name, dtype)
    with np.errstate(all="ignore"):
        expected = HELPERS[name](x.astype(np.longdouble))
        rounded = expected.astype(dtype)
        found = function(x)
    overflow = np.isinf(rounded)
    # at the edge of the range the last digit decides between the largest number and infinity
    edge = overflow & (expected.astype(np.longdouble) <= np.longdouble(np.finfo(dtype).max) * (1 + 1e-6))
    assert np.isinf(found[overflow & ~edge]).all(), f"{name} does not overflow where it should"
    scale = np.finfo(dtype).eps * np.maximum(np.abs(expected), np.finfo(dtype).tiny)
    error = np.abs(found.astype(np.longdouble) - expected)[~overflow] / scale[~overflow]
    worst = float(np.max(error))
    print(f"{name}, {np.dtype(dtype)}: {worst:.2f} rounding units, allowed {units}")
    assert worst <= units, f"{name}: {worst:.2f} rounding units, allowed {units}"


def check_helper_far(name, function, dtype):
    """Infinities, zeros of both signs and NaN, as NumPy has them (the sign of zero aside: the kernels waive it)."""
    x = np.array([0.0, -0.0, math.inf, -math.inf, math.nan, 1e3, -1e3, 1e30, -1e30], dtype)
    x = x if name != "log1p" else np.array([0.0, -0.0, 1.0, math.nan], dtype)
    with np.errstate(all="ignore"):
        assert_close(function(x), HELPERS[name](x), 1, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HELPERS)
def test_elementary_functions(name, dtype):
    check_helper(name, COMPILED[name, dtype], dtype)
    check_helper_far(name, COMPILED[name, dtype], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_wrong_elementary_functions_are_found(dtype):
    """Four units off; half the digits near 0; an early overflow; a NaN made a number."""
    eps = np.finfo(dtype).eps
    for name, wrong in (("exp", lambda x: np.exp(x) * dtype(1 + 4 * eps)), ("log1p", lambda x: np.log(1 + x)),
                        ("tanh", lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1)),
                        ("exp", lambda x: np.where(x > 80, np.inf, np.exp(x)))):
        with pytest.raises(AssertionError, match=name):
            check_helper(name, wrong, dtype)
    with pytest.raises(AssertionError):
        check_helper_far("exp", lambda x: np.nan_to_num(np.exp(x), posinf=np.inf), dtype)


# ---- launchers -----------------------------------------------------------------------


def _bias_activation(pre, bias, kind):
    functions = {"identity": lambda a: a, "tanh": np.tanh, "relu": lambda a: np.maximum(a, 0),
                 "softplus": lambda a: np.logaddexp(0, a)}  # fmt: skip
    return functions[kind](pre + bias)


def _bias_activation_grad(g, y, kind):
    # by the value before: tanh' = 1 / cosh^2, softplus' = the logistic function
    slope = {"tanh": lambda: 1 / np.cosh(np.arctanh(y)) ** 2, "relu": lambda: 1.0 * (y > 0),
             "softplus": lambda: scipy.special.expit(np.log(np.expm1(y)))}[kind]()  # fmt: skip
    return g * slope, (g * slope).reshape(-1, g.shape[-1]).sum(0)


def _gaussian_sample_kl(joint, eps):
    mu, logvar = np.split(joint, 2, axis=1)
    sigma = np.sqrt(np.exp(logvar))
    return mu + sigma * eps, (np.log(1 / sigma) + (sigma**2 + mu**2) / 2 - 0.5).sum(1)


def _gaussian_sample_kl_grad(dz, dkl, joint, eps):
    mu, logvar = np.split(joint, 2, axis=1)
    sigma = np.sqrt(np.exp(logvar))
    by_sigma = (dz * eps).sum(0) + dkl[:, None] * (sigma - 1 / sigma)
    return np.concatenate([dz.sum(0) + dkl[:, None] * mu, by_sigma * sigma / 2], axis=1)


def _bernoulli_log_prob(logits, x):
    p_on, p_off = scipy.special.log_expit(logits), scipy.special.log_expit(-logits)
    return (x * p_on + (1 - x) * p_off).sum(-1), x * np.exp(p_off) - (1 - x) * np.exp(p_on)


def _gaussian_log_prob(joint, x):
    a, logvar = np.split(joint, 2, axis=-1)
    mean, sigma = scipy.special.expit(a), np.exp(logvar / 2)
    z = (x - mean) / sigma
    by_a = z / sigma * mean * scipy.special.expit(-a)
    return scipy.stats.norm.logpdf(x, mean, sigma).sum(-1), np.concatenate([by_a, (z**2 - 1) / 2 + 0 * mean], axis=-1)


FORMULAS = {
    "bias_activation": _bias_activation, "bias_activation_grad": _bias_activation_grad,
    "gaussian_sample_kl": _gaussian_sample_kl, "gaussian_sample_kl_grad": _gaussian_sample_kl_grad,
    "bernoulli_log_prob": _bernoulli_log_prob, "gaussian_log_prob": _gaussian_log_prob,
    "scale_rows": lambda g, a: np.einsum("i,ij->ij", g.ravel(), a.reshape(-1, a.shape[-1])).reshape(a.shape),
}  # fmt: skip
OTHERS = {"normal": "in test_noise.py", "binarised_rows": "in test_noise.py", "sum_of_squares": "below",
          "add_scaled": "below", "adam": "below", "adagrad": "below", "sgd": "below"}  # fmt: skip


def make(name, rng, batch, width, samples, dtype=np.float64, kind="tanh"):
    """Inputs and attributes of a launcher."""
    s = (samples,) if samples else ()
    normal = lambda *shape: rng.normal(size=shape)
    arrays = {
        "bias_activation": lambda: [normal(*s, batch, width), normal(width)],
        "bias_activation_grad": lambda: [normal(*s, batch, width), rng.uniform(0.01, 0.99, (*s, batch, width))],
        "gaussian_sample_kl": lambda: [normal(batch, 2 * width), normal(samples or 1, batch, width)],
        "gaussian_sample_kl_grad": lambda: [normal(samples or 1, batch, width), normal(batch), normal(batch, 2 * width),
                                            normal(samples or 1, batch, width)],
        "bernoulli_log_prob": lambda: [normal(*s, batch, width), rng.random((batch, width))],
        "gaussian_log_prob": lambda: [normal(*s, batch, 2 * width), rng.random((batch, width))],
        "scale_rows": lambda: [normal(*s, batch), normal(*s, batch, width)],
    }[name]()  # fmt: skip
    return [a.astype(dtype) for a in arrays], ({"kind": kind} if "activation" in name else {})


def as_tuple(found):
    return found if isinstance(found, tuple) else (found,)


def check_launcher(name, arrays, attributes, units=32, launcher=None):
    """Against the formula; new memory and given memory get the same bits; the inputs stay."""
    launcher = launcher or getattr(cpu, name)
    before = [a.copy() for a in arrays]
    found = as_tuple(launcher(*arrays, out=None, **attributes))
    wide = [a.astype(np.float64) for a in arrays]
    with np.errstate(all="ignore"):
        expected = as_tuple(FORMULAS[name](*wide, **attributes))
    rows = max(1.0, *(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in wide)) * max(wide[0].shape)
    for y, reference in zip(found, expected, strict=True):
        assert y.dtype == arrays[0].dtype
        assert_close(y, reference, units, name, np.maximum(rows, np.abs(reference)))
    given = tuple(np.full_like(y, np.nan) for y in found)
    again = as_tuple(launcher(*arrays, out=given if len(given) > 1 else given[0], **attributes))
    for y, place, same in zip(found, given, again, strict=True):
        assert same is place
        assert_same_bits(place, y, f"{name} with out=")
    for a, b in zip(arrays, before, strict=True):
        assert_same_bits(a, b, f"{name} changed its input")


KINDS = {"bias_activation": ["identity", "tanh", "relu", "softplus"],
         "bias_activation_grad": ["tanh", "relu", "softplus"]}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
@given(batch=st.integers(1, 9), width=st.integers(1, 40), samples=st.integers(0, 3), seed=st.integers(0, 2**31),
       data=st.data())  # fmt: skip
def test_launchers(name, dtype, batch, width, samples, seed, data):
    """Any batch, width (vector lanes and rest) and number of samples."""
    kind = data.draw(st.sampled_from(KINDS.get(name, ["tanh"])))
    check_launcher(name, *make(name, np.random.default_rng(seed), batch, width, samples, dtype, kind))


@pytest.mark.parametrize("name", FORMULAS)
def test_wrong_launchers_are_found(name):
    """A wrong sign, a NaN, five digits, an ignored `out`, another type, a spoiled input."""
    def spoiled(change):
        def launcher(*arrays, out, **attributes):
            found = as_tuple(getattr(cpu, name)(*arrays, out=out, **attributes))
            change(found[0], arrays)
            return found

        return launcher

    def negate(y, arrays):
        y *= -1

    def lose(y, arrays):
        y.reshape(-1)[-1] = np.nan

    def blur(y, arrays):
        y *= np.float32(1 + 1e-3)

    def spoil(y, arrays):
        arrays[0][...] = 0

    arrays, attributes = make(name, np.random.default_rng(3), 4, 7, 2, np.float32)
    check_launcher(name, arrays, attributes)
    for change in (negate, lose, blur, spoil):
        with pytest.raises(AssertionError, match=name):
            check_launcher(name, [a.copy() for a in arrays], attributes, launcher=spoiled(change))
    with pytest.raises(AssertionError):
        check_launcher(name, arrays, attributes, launcher=lambda *a, out, **k: getattr(cpu, name)(*a, out=None, **k))


def test_the_list_of_names():
    """NAMES lists exactly the launchers of the module, and each is tested."""
    public = {name for name, f in vars(cpu).items() if inspect.isfunction(f) and not name.startswith("_")
              and f.__module__.startswith("tinyvae_kernels") and f.__name__ == name and name != "kernel"}  # fmt: skip
    assert public == set(tinyvae_kernels.NAMES) == set(FORMULAS) | set(OTHERS)
    assert tinyvae_kernels.kernels_for("cpu") is cpu


# ---- far out -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_nan_propagates(name, dtype):
    """One NaN in any input reaches a result, and leaves the rows it does not belong to alone."""
    for kind in KINDS.get(name, ["tanh"]):
        arrays, attributes = make(name, np.random.default_rng(1), 3, 5, 2, dtype, kind)
        for i in range(len(arrays)):
            if (name, kind, i) == ("bias_activation_grad", "relu", 1):
                continue  # relu's slope at a NaN is 0; the NaN itself is in the value, so in the loss
            spoiled = [a.copy() for a in arrays]
            spoiled[i].reshape(-1)[0] = math.nan
            clean = as_tuple(getattr(cpu, name)(*arrays, out=None, **attributes))
            found = as_tuple(getattr(cpu, name)(*spoiled, out=None, **attributes))
            assert any(np.isnan(y).any() for y in found), f"{name} {kind}: the NaN of input {i} is gone"
            for y, right in zip(found, clean, strict=True):
                fine = ~np.isnan(y)
                assert_same_bits(y[fine], right[fine], f"{name}: other elements")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_pixel_gives_a_nan_total(dtype):
    for name, per_pixel in (("bernoulli_log_prob", 1), ("gaussian_log_prob", 2)):
        x = np.full((3, 40), 0.5, dtype)
        x[1, 17] = math.nan
        total, _ = getattr(cpu, name)(np.zeros((3, 40 * per_pixel), dtype), x, None)
        assert np.isnan(total).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_logits(dtype):
    """Bernoulli up to +-1e4: the log probability is 0 or the logit, the residual exact; nothing is clipped."""
    logits = np.array([[30, -30], [90, -90], [1000, -1000], [1e4, -1e4]], dtype)
    for x, total in (([1, 0], 0 * logits[:, 0]), ([0, 1], -2 * logits[:, 0]), ([1, 1], -logits[:, 0])):
        rows = np.tile(np.array(x, dtype), (4, 1))
        found, residual = cpu.bernoulli_log_prob(logits, rows, None)
        small = np.log1p(np.exp(-logits[:, 0].astype(np.float64)))  # log(1 + exp(-l)), for each of the two pixels
        assert_close(found, total - 2 * small, 2, "log probability")
        assert_close(residual, rows - scipy.special.expit(logits.astype(np.float64)), 2, "residual")


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_logits_never_give_a_wrong_number(dtype):
    """x l - log(1 + exp(l)) at l = +-inf: the limit, an infinity or NaN; no finite number that is not the limit."""
    for logit in (math.inf, -math.inf):
        for x in (0.0, 1.0):
            total, residual = cpu.bernoulli_log_prob(np.full((1, 1), logit, dtype), np.full((1, 1), x, dtype), None)
            limit = 0.0 if x == (logit > 0) else -math.inf
            assert np.isnan(total[0]) or total[0] == limit
            assert residual[0, 0] == x - (logit > 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_log_variances(dtype):
    """Log-variances of +-80 in value and gradient, for the posterior and for grey pixels."""
    joint = np.array([[0.5, -0.5, 80.0, -80.0]], dtype)
    check_launcher("gaussian_sample_kl", [joint, np.ones((2, 1, 2), dtype)], {})
    check_launcher("gaussian_sample_kl_grad", [np.ones((2, 1, 2), dtype), np.ones(1, dtype), joint,
                                               np.ones((2, 1, 2), dtype)], {})
    check_launcher("gaussian_log_prob", [joint, np.array([[0.25, 0.75]], dtype)], {})
    z, kl = cpu.gaussian_sample_kl(np.array([[0.0, -1000.0], [0.0, 1000.0]], dtype), np.ones((1, 2, 1), dtype), None)
    assert 0 <= float(z[0, 0, 0]) < 1e-200
    assert_close(kl[0], 499.5, 2)
    # exp(1000) is infinite in both types, exp(500) in float32 only: never a finite number in its place
    assert np.isinf(kl[1])
    assert z[0, 1, 0] >= np.finfo(dtype).max or dtype == np.float64


# ---- memory --------------------------------------------------------------------------


def broken(array):
    """The same values, every second place of a longer array."""
    result = np.empty((*array.shape, 2), array.dtype)[..., 0]
    result[...] = array
    return result


def refused(name, arrays, out, attributes, expected):
    """Is memory of other strides refused, in clear words? If not, the result must be right and in its place."""
    try:
        found = getattr(cpu, name)(*arrays, out=out, **attributes)
    except ValueError as fault:
        return bool(re.search(r"strides \(.*\); a kernel needs unbroken \(C-contiguous\) memory", str(fault)))
    for y, reference in zip(as_tuple(found if out is None else out), expected, strict=True):
        assert_close(y, reference, 4, name)
    return False


@pytest.mark.parametrize("name", FORMULAS)
def test_broken_memory_is_refused_or_right(name):
    """Never a wrong result, never one written into a copy that is lost."""
    arrays, attributes = make(name, np.random.default_rng(2), 4, 6, 2)
    expected = as_tuple(getattr(cpu, name)(*arrays, out=None, **attributes))
    answers = [refused(name, [*arrays[:i], broken(arrays[i]), *arrays[i + 1 :]], None, attributes, expected)
               for i in range(len(arrays))]  # fmt: skip
    outs = tuple(map(broken, expected))
    answers.append(refused(name, arrays, outs if len(outs) > 1 else outs[0], attributes, expected))
    assert any(answers) or name.startswith("gaussian_sample_kl"), "these index in two dimensions and take any strides"


def test_normal_refuses_broken_memory():
    with pytest.raises(ValueError, match="unbroken"):
        cpu.normal(np.zeros(1, np.int64), np.empty((4, 2))[:, 0], 0, 0, 0)


# ---- optimizers ----------------------------------------------------------------------

METHODS = {
    "adam": (2, {"rate": 1e-2, "beta1": 0.9, "beta2": 0.999, "correct": 50.0, "epsilon": 1e-8}),
    "adagrad": (1, {"rate": 2e-2, "epsilon": 0.0}),
    "sgd": (1, {"rate": 1e-2, "momentum": 0.9}),
}


def check_optimizer(name, dtype, method=None, units=8):
    """Some steps of the kernel and of the readable step from the same state, gradients of many sizes and zeros."""
    method = method or getattr(cpu, name)
    moments, hyper = METHODS[name]
    rng = np.random.default_rng(0)
    fast = [rng.normal(size=37).astype(dtype) for _ in range(1 + moments)]
    fast[1:] = [np.abs(m) * (np.arange(37) % 3 > 0) for m in fast[1:]]  # some at their start, 0
    slow = [a.astype(np.float64) for a in fast]
    for step in range(4):
        g = (rng.normal(size=37) * 10.0 ** rng.integers(-6, 3, 37) * (np.arange(37) % 5 > 0)).astype(dtype)
        method(fast[0], g, *fast[1:], clip=0.5, **hyper)
        getattr(optimizers, f"_{name}")(slow[0], g.astype(np.float64), *slow[1:], clip=0.5, **hyper)
        for a, b in zip(fast, slow, strict=True):
            assert a.dtype == dtype
            assert_close(a, b, units * (step + 1), name, np.maximum(1, np.abs(b)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_optimizers_against_the_readable_steps(name, dtype):
    check_optimizer(name, dtype)


@pytest.mark.parametrize("name", METHODS)
def test_wrong_optimizers_are_found(name):
    """Uphill; without clipping; with the moments forgotten; a step that is NaN."""
    right = getattr(cpu, name)

    def uphill(theta, g, *moments, **hyper):
        right(theta, -g, *moments, **hyper)

    def unclipped(*arrays, clip, **hyper):
        right(*arrays, clip=1.0, **hyper)

    def forgetful(theta, g, *moments, **hyper):
        right(theta, g, *moments, **hyper)
        moments[0][...] = 0

    def lost(theta, g, *moments, **hyper):
        right(theta, g, *moments, **hyper)
        theta[3] = np.nan

    for wrong in (uphill, unclipped, forgetful, lost):
        with pytest.raises(AssertionError, match=name):
            check_optimizer(name, np.float32, wrong)


def test_fading_moments_become_zero():
    """Denormal moments would slow each step ten times; a weight whose gradient is always 0 must not move."""
    theta, m, v = np.ones(3, np.float32), np.full(3, 2e-30, np.float32), np.full(3, 2e-30, np.float32)
    for _ in range(800):
        cpu.adam(theta, np.zeros(3, np.float32), m, v, clip=1.0, rate=1e-3, beta1=0.9, beta2=0.999, correct=1.0,
                 epsilon=1e-8)
    assert (m == 0).all()
    assert (v == 0).all()
    assert_close(theta, np.ones(3), 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_and_multiples(dtype):
    """The squared norm is summed in float64 also for float32; a NaN or an infinity reaches it."""
    g = np.random.default_rng(0).normal(size=10_001).astype(dtype)
    exact = math.fsum(float(v) ** 2 for v in g)
    assert_close(np.float64(cpu.sum_of_squares(g)), exact, 64, "sum of squares", exact)
    for bad in (math.nan, math.inf):
        g[5000] = bad
        assert_close(np.float64(cpu.sum_of_squares(g)), bad, 1)
    g, theta = np.arange(5, dtype=dtype), np.ones(5, dtype)
    cpu.add_scaled(g, theta, 0.25)
    assert_same_bits(g, np.arange(5, dtype=dtype) + dtype(0.25))


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
    assert_close(fast.control.astype(dtype), slow.control, 16)
    assert fast.control[optimizers.UPDATES] == 2
    if not prior:
        assert_close(fast.control[optimizers.NORM], 5.0, 2)
        assert_close(fast.control[optimizers.CLIP], min(1.0, max_norm / 5), 2)
    if not prior:
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
    assert optimizer.control[optimizers.FINITE] == 0
    assert optimizer.control[optimizers.UPDATES] == 0


# ---- the files -----------------------------------------------------------------------


def test_no_fast_math_that_assumes_away_nan():
    """Only named flags, none of which lets the compiler drop a NaN or an infinity."""
    for path in (ROOT / "kernels").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"fastmath\s*=\s*True|['\"](nnan|ninf|fast|afn|arcp)['\"]", text), path.name
        for flags in re.findall(r"\{((?:\s*\"\w+\",?)+)\s*\}", text):
            assert set(re.findall(r"\w+", flags)) <= {"contract", "nsz", "reassoc"}, path.name
    for compiled in (f for f in vars(cpu).values() if isinstance(f, numba.core.registry.CPUDispatcher)):
        flags = compiled.targetoptions.get("fastmath")
        assert flags is not True
        assert set(flags) <= {"contract", "nsz", "reassoc"}
        assert compiled.targetoptions["error_model"] == "numpy"
