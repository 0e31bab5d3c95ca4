"""The launchers of the Numba kernels by themselves: each against a formula in NumPy and SciPy.

The formulas here are written in float64 and in another form than the kernels or their twins.
"""

import importlib
import inspect
import math
import pkgutil
import re
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tinyvae_kernels
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, ROOT, assert_close, assert_same_bits
from tinyvae_kernels import launching

import tinyvae as tv
from tests.kernels import worst
from tinyvae.engine.rules import TABLE

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
cpu = tinyvae_kernels.kernels_for("cpu")
numba = pytest.importorskip("numba", reason="Numba is missing")

# ---- formulas ------------------------------------------------------------------------

def _bias_activation(pre, bias, kind):
    functions = {"identity": lambda a: a, "tanh": np.tanh, "relu": lambda a: np.maximum(a, 0),
                 "softplus": lambda a: np.logaddexp(0, a)}  # fmt: skip
    return functions[kind](pre + bias)


def _bias_activation_grad(g, y, kind):
    # by the value before: tanh' = 1 / cosh^2, softplus' = the logistic function
    slope = {"tanh": lambda: 1 / np.cosh(np.arctanh(y)) ** 2, "relu": lambda: 1.0 * (y > 0),
             "softplus": lambda: scipy.special.expit(np.log(np.expm1(y)))}[kind]()  # fmt: skip
    return g * slope, (g * slope).reshape(-1, g.shape[-1]).sum(0)


def _gaussian_sample_kl(raw, eps):
    mu, logvar = np.split(raw, 2, axis=1)
    sigma = np.sqrt(np.exp(logvar))
    return mu + sigma * eps, (np.log(1 / sigma) + (sigma**2 + mu**2) / 2 - 0.5).sum(1)


def _gaussian_sample_kl_grad(dz, dkl, raw, eps):
    mu, logvar = np.split(raw, 2, axis=1)
    sigma = np.sqrt(np.exp(logvar))
    by_sigma = (dz * eps).sum(0) + dkl[:, None] * (sigma - 1 / sigma)
    return np.concatenate([dz.sum(0) + dkl[:, None] * mu, by_sigma * sigma / 2], axis=1)


def _gaussian_sample_kl_from(raw, other, eps):
    mu, logvar = np.split(raw, 2, axis=1)
    m, s = np.split(other, 2, axis=1)[0], np.sqrt(np.exp(np.split(other, 2, axis=1)[1]))
    sigma = np.sqrt(np.exp(logvar))
    return mu + sigma * eps, (np.log(s / sigma) + (sigma**2 + (mu - m) ** 2) / (2 * s**2) - 0.5).sum(1)


def _gaussian_sample_kl_from_grad(dz, dkl, raw, other, eps):
    (mu, logvar), (m, log_s2) = np.split(raw, 2, axis=1), np.split(other, 2, axis=1)
    sigma, s, each = np.sqrt(np.exp(logvar)), np.sqrt(np.exp(log_s2)), dkl[:, None]
    by_sigma, by_s = sigma / s**2 - 1 / sigma, 1 / s - (sigma**2 + (mu - m) ** 2) / s**3
    by_mu = each * (mu - m) / s**2
    by_raw = np.concatenate([dz.sum(0) + by_mu, ((dz * eps).sum(0) + each * by_sigma) * sigma / 2], axis=1)
    return by_raw, np.concatenate([-by_mu, each * by_s * s / 2], axis=1)


def _gate(raw, z, opening):
    m, s = np.split(raw, 2, axis=-1)
    g, first = scipy.special.expit(s + opening), scipy.special.expit(opening)
    return m + g * (z / first - m), (scipy.special.log_expit(s + opening) - np.log(first)).sum(-1)


def _gate_grad(dout, dsum, raw, z, opening):
    m, s = np.split(raw, 2, axis=-1)
    g, first = scipy.special.expit(s + opening), scipy.special.expit(opening)
    slope = 1 / (2 + 2 * np.cosh(s + opening))  # of the logistic function
    by_s = dout * (z / first - m) * slope + dsum[..., None] / (1 + np.exp(s + opening))
    return np.concatenate([dout * (1 - g), by_s], axis=-1), dout * g / first


def _bernoulli_log_prob(logits, x):
    p_on, p_off = scipy.special.log_expit(logits), scipy.special.log_expit(-logits)
    return (x * p_on + (1 - x) * p_off).sum(-1), x * np.exp(p_off) - (1 - x) * np.exp(p_on)


def _gaussian_log_prob(raw, x):
    a, logvar = np.split(raw, 2, axis=-1)
    mean, sigma = scipy.special.expit(a), np.exp(logvar / 2)
    z = (x - mean) / sigma
    by_a = z / sigma * mean * scipy.special.expit(-a)
    return scipy.stats.norm.logpdf(x, mean, sigma).sum(-1), np.concatenate([by_a, (z**2 - 1) / 2 + 0 * mean], axis=-1)


def _bernoulli_limits(l, x):
    """Of one pixel at an infinite logit: 0 if x is the certain value, else -inf; and the derivative."""
    return 0.0 if x == float(l > 0) else -math.inf, x - float(l > 0)


def _objective(reconstruction, kl, rates):
    return np.asarray(np.dot(kl, np.full(kl.size, rates[1])) - reconstruction.sum()) / kl.size


def _objective_grad(g, kl, rates):
    return np.full(kl.shape, -g / kl.size), np.full(kl.shape, g * rates[1] / kl.size)


FORMULAS = {
    "bias_activation": _bias_activation, "bias_activation_grad": _bias_activation_grad,
    "bias_grad": lambda g: np.ones(g.size // g.shape[-1]) @ g.reshape(-1, g.shape[-1]),
    "gaussian_sample_kl": _gaussian_sample_kl, "gaussian_sample_kl_grad": _gaussian_sample_kl_grad,
    "gaussian_sample_kl_from": _gaussian_sample_kl_from, "gaussian_sample_kl_from_grad": _gaussian_sample_kl_from_grad,
    "gate": _gate, "gate_grad": _gate_grad,
    "bernoulli_log_prob": _bernoulli_log_prob, "gaussian_log_prob": _gaussian_log_prob,
    "scale_rows": lambda g, a: np.einsum("i,ij->ij", g.ravel(), a.reshape(-1, a.shape[-1])).reshape(a.shape),
    "objective": _objective, "objective_grad": _objective_grad,
}  # fmt: skip
OTHERS = {
    "engine/test_fusion.py": {"activates"},
    "engine/test_noise.py": {"normal", "binarised_rows", "draws"}, "kernels/test_products.py": {"matmul", "multiplies"},
    "kernels/test_special.py": {"deviance", "dirichlet_kl", "gamma_kl", "gamma_log_sample_grad", "lgamma", "log_ratio",
                                "polygamma", "stirling", "student_constant", "student_constant_slope"},
    "distributions/test_rejection.py": {"log_gamma"},
    "kernels/test_sparse.py": {"pays", "sparse_matmul", "sparse_matmul_grad"},
    "kernels/test_steps.py": {"accumulate", "adagrad", "adam", "grey_rows", "guard", "next_indices",
                              "next_rates", "sgd", "tick", "weight_prior"},
}  # fmt: skip


def make(name, rng, batch, width, samples, dtype=np.float64, kind="tanh"):
    """Inputs and attributes of a launcher."""
    s = (samples,) if samples else ()
    normal = lambda *shape: rng.normal(size=shape)
    arrays = {
        "bias_activation": lambda: [normal(*s, batch, width), normal(width)],
        "bias_activation_grad": lambda: [normal(*s, batch, width), rng.uniform(0.01, 0.99, (*s, batch, width))],
        "bias_grad": lambda: [normal(*s, batch, width)],
        "gaussian_sample_kl": lambda: [normal(batch, 2 * width), normal(samples or 1, batch, width)],
        "gaussian_sample_kl_grad": lambda: [normal(samples or 1, batch, width), normal(batch), normal(batch, 2 * width),
                                            normal(samples or 1, batch, width)],
        "gaussian_sample_kl_from": lambda: [normal(batch, 2 * width), normal(batch, 2 * width),
                                            normal(samples or 1, batch, width)],
        "gaussian_sample_kl_from_grad": lambda: [normal(samples or 1, batch, width), normal(batch),
                                                 normal(batch, 2 * width), normal(batch, 2 * width),
                                                 normal(samples or 1, batch, width)],
        "gate": lambda: [normal(*s, batch, 2 * width), normal(*s, batch, width)],
        "gate_grad": lambda: [normal(*s, batch, width), normal(*s, batch), normal(*s, batch, 2 * width),
                              normal(*s, batch, width)],
        "bernoulli_log_prob": lambda: [normal(*s, batch, width), rng.random((batch, width))],
        "gaussian_log_prob": lambda: [normal(*s, batch, 2 * width), rng.random((batch, width))],
        "scale_rows": lambda: [normal(*s, batch), normal(*s, batch, width)],
        "objective": lambda: [normal(width), normal(width), np.array([0.3, 0.7])],
        "objective_grad": lambda: [np.array(1.7), normal(width), np.array([0.3, 0.7])],
    }[name]()  # fmt: skip
    attributes = {"kind": kind} if "activation" in name else {"opening": 2.0} if "gate" in name else {}
    return [a.astype(dtype) for a in arrays], attributes


KINDS = {"bias_activation": ["identity", "tanh", "relu", "softplus"],
         "bias_activation_grad": ["tanh", "relu", "softplus"]}  # fmt: skip
UNREAD = {"objective": {2: 0}, "objective_grad": {1: slice(None), 2: 0}}  # by input: what a launcher makes no use of

# ---- the check -----------------------------------------------------------------------


def as_tuple(found):
    return found if isinstance(found, tuple) else (found,)


def one_or_all(arrays):
    """As a launcher takes its `out`."""
    return tuple(arrays) if len(arrays) > 1 else arrays[0]


def check_launcher(name, arrays, attributes, units=32, launcher=None):
    """Against the formula; new memory and given memory get the same bits; the inputs stay. Gives what it found."""
    launcher = launcher or getattr(cpu, name)
    before = [a.copy() for a in arrays]
    found = as_tuple(launcher(*arrays, out=None, **attributes))
    wide = [a.astype(np.float64) for a in arrays]
    with np.errstate(all="ignore"):
        expected = as_tuple(FORMULAS[name](*wide, **attributes))
    largest = max(1.0, *(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in wide))
    terms = largest * max(1, *wide[0].shape, *wide[-1].shape)
    for y, reference in zip(found, expected, strict=True):
        assert y.dtype == arrays[0].dtype
        assert_close(y, reference, units, name, np.maximum(terms, np.abs(reference)))
    given = [np.full_like(y, np.nan) for y in found]
    again = as_tuple(launcher(*arrays, out=one_or_all(given), **attributes))
    for y, place, same in zip(found, given, again, strict=True):
        assert same is place
        assert_same_bits(place, y, f"{name} with out=")
    for a, b in zip(arrays, before, strict=True):
        assert_same_bits(a, b, f"{name} changed its input")
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
@given(batch=st.integers(1, 9), width=st.integers(1, 40), samples=st.integers(0, 3), seed=st.integers(0, 2**31),
       data=st.data())  # fmt: skip
def test_launchers(name, dtype, batch, width, samples, seed, data):
    """Any batch, width (vector lanes and rest) and number of samples."""
    kind = data.draw(st.sampled_from(KINDS.get(name, ["tanh"])))
    check_launcher(name, *make(name, np.random.default_rng(seed), batch, width, samples, dtype, kind))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_launchers_shared_among_threads(name, dtype):
    """Large enough to be cut into parts, of sizes that no number of parts divides."""
    for kind in KINDS.get(name, ["tanh"]):
        check_launcher(name, *make(name, np.random.default_rng(8), 101, 331, 2, dtype, kind))


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
        y += np.float32(1e-3) * np.abs(y).max()

    def spoil(y, arrays):
        arrays[0][...] = 0

    arrays, attributes = make(name, np.random.default_rng(3), 4, 7, 2, np.float32)
    check_launcher(name, arrays, attributes)
    for change in (negate, lose, blur, spoil):
        with pytest.raises(AssertionError, match=name):
            check_launcher(name, [a.copy() for a in arrays], attributes, launcher=spoiled(change))
    with pytest.raises(AssertionError):
        check_launcher(name, arrays, attributes, launcher=lambda *a, out, **k: getattr(cpu, name)(*a, out=None, **k))


def test_every_launcher_is_tested():
    """Each name that a device offers stands in a test that holds it against a formula."""
    by_their_rows = {row.kernel for row in TABLE.values() if row.kernel and row.reference is not None}  # test_rules.py
    assert set(vars(cpu)) == by_their_rows.union(FORMULAS, *OTHERS.values())
    assert tinyvae_kernels.kernels_for("cpu") is cpu
    for file, names in OTHERS.items():
        text = (ROOT / "tests" / file).read_text()
        assert all(re.search(rf"\b{name}\b", text) for name in names), file


def check_twins(cpu, cuda):
    """Each launcher has a twin of the same arguments on the other device, or says why it has none."""
    for here, there in ((cpu, cuda), (cuda, cpu)):
        for name, launcher in vars(here).items():
            reason = getattr(launcher, "reason", "")
            assert bool(reason) != hasattr(there, name), f"{name}: a twin, or else a reason why there is none"
            assert not reason or " " in reason, f"{name}: {reason!r} is no reason"
            if not reason:
                one, two = (inspect.signature(getattr(kernels, name)).parameters.values() for kernels in (cpu, cuda))
                # arguments with a default are for what only one device knows, such as TF32
                ours, theirs = ([p.name for p in each if p.default is p.empty] for each in (one, two))
                assert ours == theirs, f"{name}: other arguments on the other device"


def test_every_kernel_has_its_twin():
    check_twins(cpu, tinyvae_kernels.kernels_for("cuda"))


def test_a_missing_twin_is_found():
    """An unregistered launcher on either side, another name of an argument, a twin beside a reason for none."""
    there = tinyvae_kernels.kernels_for("cuda")

    def without(device, name):
        return SimpleNamespace(**{key: value for key, value in vars(device).items() if key != name})

    def grey_rows(stored, index, out, divisor): ...

    for one, two in ((cpu, without(there, "adam")), (without(cpu, "normal"), there),
                     (cpu, SimpleNamespace(**vars(there) | {"grey_rows": grey_rows})),
                     (cpu, SimpleNamespace(**vars(there) | {"lgamma": there.tick}))):
        with pytest.raises(AssertionError, match=r"twin|arguments"):
            check_twins(one, two)


def test_the_files_of_both_devices_have_the_same_names():
    """A file that only one device has holds launchers that are for this device alone; a folder has at most nine."""
    files = {}
    for device in ("cpu", "cuda"):
        kernels = ROOT / "kernels" / "tinyvae_kernels" / device
        for folder in (kernels, kernels / "runtime"):
            assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= 9, folder
        files[device] = {path.stem for path in kernels.glob("*.py")}
    for device, other in (("cpu", "cuda"), ("cuda", "cpu")):
        for name in files[device] - files[other]:
            found = [launcher.reason for launcher in vars(tinyvae_kernels.kernels_for(device)).values()
                     if launcher.__module__ == f"tinyvae_kernels.{device}.{name}"
                     and isinstance(launcher, launching.Launcher)]  # fmt: skip
            assert found, name
            assert all(found), name


def test_two_launchers_of_one_name_are_refused():
    def tick(counters, batch): ...

    with pytest.raises(ValueError, match=r"found two launchers 'tick', in tinyvae_kernels.cpu.steps and tests"):
        launching.register("cpu", tick)
    with pytest.raises(ImportError, match="found no kernels for 'abacus'; expected one of cpu, cuda"):
        tinyvae_kernels.kernels_for("abacus")


# ---- how a kernel is written ---------------------------------------------------------


def test_arguments_of_a_kernel_that_do_not_fit_get_a_sentence():
    """A kernel sees addresses only, so what goes to them is looked at when a job is made."""
    steps = importlib.import_module("tinyvae_kernels.cpu.steps")
    job = importlib.import_module("tinyvae_kernels.cpu.runtime.jobs").Job
    with pytest.raises(TypeError, match="tick found 1 arguments; expected counters, batch"):
        job(steps._tick, np.zeros(3, np.int64))
    with pytest.raises(TypeError, match="tick found counters of type int32; expected int64"):
        cpu.tick(np.zeros(3, np.int32), batch=1)
    with pytest.raises(TypeError, match="identity found bias of type float32; expected float64"):
        cpu.bias_activation(np.zeros((2, 3)), np.zeros(3, np.float32), None, kind="identity")
    with pytest.raises(ValueError, match="found 'swish'; there are kernels for identity, tanh, relu, softplus"):
        cpu.bias_activation(np.zeros((2, 3)), np.zeros(3), None, kind="swish")
    with pytest.raises(ValueError, match="found 'int16'; there are kernels for uint8, float32"):
        cpu.grey_rows(np.zeros((2, 3), np.int16), np.zeros(1, np.int64), np.zeros((1, 3)), scale=1.0)


# ---- far out -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_nan_propagates(name, dtype):
    check_nan(cpu, name, dtype)


def check_nan(kernels, name, dtype):
    """One NaN in any input reaches a result, and leaves the rows it does not belong to alone."""
    for kind in KINDS.get(name, ["tanh"]):
        arrays, attributes = make(name, np.random.default_rng(1), 3, 5, 2, dtype, kind)
        clean = as_tuple(getattr(kernels, name)(*arrays, out=None, **attributes))
        for i, place in ((i, place) for i in range(len(arrays)) for place in (0, -1)):
            if UNREAD.get(name, {}).get(i, -1) in (place, slice(None)):
                continue
            spoiled = [a.copy() for a in arrays]
            spoiled[i].reshape(-1)[place] = math.nan
            found = as_tuple(getattr(kernels, name)(*spoiled, out=None, **attributes))
            assert any(np.isnan(y).any() for y in found), f"{name} {kind}: the NaN of input {i} is gone"
            for y, right in zip(found, clean, strict=True):
                fine = ~np.isnan(y)
                assert_same_bits(y[fine], right[fine], f"{name}: other elements")


def check_long_sums(kernels, rows):
    """The gradients of a bias over so many equal rows of float32: added one by one, a hundredth is lost."""
    g, y = np.full((rows, 3), 0.1, np.float32), np.full((rows, 3), 0.5, np.float32)
    slopes = {"tanh": 0.75, "relu": 1.0, "softplus": 1 - math.exp(-0.5)}
    found = {kind: kernels.bias_activation_grad(g, y, None, kind=kind)[1] for kind in slopes}
    found["identity"], slopes["identity"] = kernels.bias_grad(g, None), 1.0
    for kind, sums in found.items():
        np.testing.assert_allclose(sums, np.full(3, 0.1 * slopes[kind] * rows), rtol=2e-5, err_msg=kind)


@pytest.mark.parametrize("rows", [0, 1, 256, 257, 2**20 + 1])
def test_long_sums(rows):
    check_long_sums(cpu, rows)


@pytest.mark.parametrize("case", worst.of_every_kernel(), ids=str)
def test_the_worst_inputs(case):
    """NaN, infinities, zeros, denormals, large numbers and such outside the domain: as the readable form has them."""
    for dtype in DTYPES:
        if case.operation != "matmul" or cpu.multiplies(*(a.astype(dtype) for a in case.arrays)):
            worst.check(case, dtype, getattr(cpu, TABLE[case.operation].kernel))


def test_every_kernel_gets_the_worst_inputs():
    assert {case.operation for case in worst.of_every_kernel()} == {name for name, row in TABLE.items() if row.kernel}


def test_a_missed_pole_and_unwritten_memory_are_found():
    """A pole that is a number, an infinity too many, memory that a kernel that raised would leave as it was."""
    def pole(a, out, order):
        found = cpu.polygamma(a, out, order=order)
        found[(a < 0) & (a == np.floor(a))] = 1.0
        return found

    def signed(a, out, order):
        found = cpu.polygamma(a, out, order=order)
        found[np.isinf(found)] *= -1
        return found

    def raised(a, out, order):
        return np.ones_like(a) if out is None else out

    case = next(case for case in worst.of_every_kernel() if case.operation == "polygamma")
    for wrong in (pole, signed, raised):
        with pytest.raises(AssertionError, match="polygamma"):
            worst.check(case, np.float64, wrong)


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


def by_kernel(logits, x):
    """The value and its derivative from the launcher."""
    total, residual = cpu.bernoulli_log_prob(logits, x, None)
    return total, residual


def by_row(on):
    """The same through the row of the table, by its kernel or by its twin."""
    def run(logits, x):
        leaf = tv.Tensor(logits, requires_grad=True)
        with tv.fused(on), np.errstate(all="ignore"):
            total = tv.apply("bernoulli_log_prob", leaf, x)[0]
            return total.data, tv.grad(total.sum(), leaf).data

    return run


ROADS = {"launcher": by_kernel, "kernel": by_row(True), "twin": by_row(False)}
INFINITE = [(logit, x) for logit in (math.inf, -math.inf) for x in (0.0, 0.25, 1.0)]


def check_infinite_logits(road, dtype):
    """Exactly the limit of x l - log(1 + exp(l)) and of its derivative, alone and among ordinary pixels."""
    for logit, x in INFINITE:
        limit, slope = _bernoulli_limits(logit, x)
        total, residual = road(np.full((2, 1), logit, dtype), np.full((2, 1), x, dtype))
        assert total.tolist() == [limit, limit], f"log p({x}) at the logit {logit}"
        assert residual.tolist() == [[slope], [slope]], f"the derivative at x = {x}, logit {logit}"
        logits, pixels = np.linspace(-2, 2, 39).reshape(3, 13).astype(dtype), np.full((3, 13), 0.5, dtype)
        rest = road(np.delete(logits, 7, 1), np.delete(pixels, 7, 1))
        logits[1, 7], pixels[1, 7] = logit, x
        total, residual = road(logits, pixels)
        assert_close(total[1], rest[0][1] + limit, 4, "log probability")
        assert residual[1, 7] == slope, f"the derivative at x = {x}, logit {logit}"
        assert_same_bits(np.delete(residual, 7, 1), rest[1], "the other pixels' derivatives")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("road", ROADS)
def test_infinite_logits_give_the_limit(road, dtype):
    check_infinite_logits(ROADS[road], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("road", ROADS)
def test_nan_beside_infinity_stays(road, dtype):
    """A NaN pixel at an infinite logit, a NaN logit at any pixel: value and derivative are NaN, for that row only."""
    for logit, x in [(math.nan, x) for x in (0.0, 0.25, 1.0)] + [(l, math.nan) for l in (0.5, math.inf, -math.inf)]:
        logits, pixels = np.zeros((3, 5), dtype), np.ones((3, 5), dtype)
        logits[1, 2], pixels[1, 2] = logit, x
        total, residual = ROADS[road](logits, pixels)
        assert np.isnan(total).tolist() == [False, True, False], f"logit {logit}, x = {x}"
        assert np.argwhere(np.isnan(residual)).tolist() == [[1, 2]], f"logit {logit}, x = {x}"


def test_wrong_limits_are_found():
    """The textbook form, which is NaN at infinity; clipped logits; no derivative at the limit."""
    def textbook(logits, x):
        with np.errstate(all="ignore"):
            return (x * logits - np.logaddexp(0, logits)).sum(-1), x - scipy.special.expit(logits)

    def clipped(logits, x):
        return by_kernel(np.clip(logits, -1e3, 1e3), x)

    def flat(logits, x):
        total, residual = by_kernel(logits, x)
        return total, np.where(np.isinf(logits), 0, residual)

    for wrong in (textbook, clipped, flat):
        with pytest.raises(AssertionError):
            check_infinite_logits(wrong, np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_log_variances(dtype):
    """Log-variances of +-80 in value and gradient, for the posterior and for grey pixels."""
    raw = np.array([[0.5, -0.5, 80.0, -80.0]], dtype)
    check_launcher("gaussian_sample_kl", [raw, np.ones((2, 1, 2), dtype)], {})
    check_launcher("gaussian_sample_kl_grad", [np.ones((2, 1, 2), dtype), np.ones(1, dtype), raw,
                                               np.ones((2, 1, 2), dtype)], {})
    check_launcher("gaussian_log_prob", [raw, np.array([[0.25, 0.75]], dtype)], {})
    z, kl = cpu.gaussian_sample_kl(np.array([[0.0, -1000.0], [0.0, 1000.0]], dtype), np.ones((1, 2, 1), dtype), None)
    assert 0 <= float(z[0, 0, 0]) < 1e-200
    assert_close(kl[0], 499.5, 2)
    # exp(1000) is infinite in both types, exp(500) in float32 only: never a finite number in its place
    assert np.isinf(kl[1])
    assert z[0, 1, 0] >= np.finfo(dtype).max or dtype == np.float64


def check_limits(kernels, dtype):
    """Where exp(-logvar) overflows and where exp(logvar) - 1 - logvar cancels: values and gradients."""
    for logvar in (-2000.0, -400.0, -89.0, 89.0, 400.0):
        raw, x = np.array([[0.0, logvar]], dtype), np.array([[0.5]], dtype)
        value, slopes = kernels.gaussian_log_prob(raw, x, None)  # a pixel at its mean
        assert_close(value, [-0.5 * (np.log(2 * np.pi) + logvar)], 2, f"log p at logvar {logvar}")
        assert slopes.tolist() == [[0, -0.5]], logvar
    t = (np.random.default_rng(0).normal(size=3000) * np.finfo(dtype).eps ** 0.5).astype(dtype)
    raw, eps, one = np.stack([0 * t, t], axis=1), np.zeros((1, len(t), 1), dtype), np.ones(len(t), dtype)
    kl = kernels.gaussian_sample_kl(raw, eps, None)[1]
    slope = kernels.gaussian_sample_kl_grad(eps, one, raw, eps, None)[:, 1]
    wide = t.astype(np.float64)
    assert (kl >= 0).all(), "a negative divergence"
    np.testing.assert_allclose(kl, wide**2 / 4 + wide**3 / 12, rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(slope, wide / 2 + wide**2 / 4, rtol=8 * np.finfo(dtype).eps)


def check_divergence_from_a_near_one(kernels, dtype):
    """KL of two normal distributions that are nearly equal: every digit of it; 0 if they are equal, at any scale."""
    rng, eps = np.random.default_rng(0), np.finfo(dtype).eps
    logvar = rng.choice([-80.0, 0.0, 80.0], 300).astype(dtype)
    other = np.stack([np.zeros(300, dtype), logvar], axis=1)
    t = ((2 * rng.integers(0, 2, 300) - 1) * np.where(logvar, 64 * eps * 80, eps**0.5)).astype(dtype)
    raw, none = np.stack([np.zeros(300, dtype), logvar + t], axis=1), np.zeros((1, 300, 1), dtype)
    assert not kernels.gaussian_sample_kl_from(other, other, none, None)[1].any()
    t = (raw[:, 1] - logvar).astype(np.float64)
    kl = kernels.gaussian_sample_kl_from(raw, other, none, None)[1]
    assert (kl > 0).all()
    np.testing.assert_allclose(kl, t**2 / 4 + t**3 / 12, rtol=8 * eps)
    ones = np.ones(300, dtype)
    by_raw, by_other = kernels.gaussian_sample_kl_from_grad(none, ones, raw, other, none, None)
    np.testing.assert_allclose(by_raw[:, 1], t / 2 + t**2 / 4, rtol=8 * eps)
    np.testing.assert_allclose(by_other[:, 1], -(t / 2 + t**2 / 4), rtol=8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits(dtype):
    check_limits(cpu, dtype)
    check_divergence_from_a_near_one(cpu, dtype)


# ---- the files -----------------------------------------------------------------------


def sources():
    """All modules of the package."""
    names = [module.name for module in pkgutil.walk_packages(tinyvae_kernels.__path__, "tinyvae_kernels.")]
    return [importlib.import_module(name) for name in names]


def test_no_fast_math_that_assumes_away_nan():
    """Only named flags, none of which lets the compiler drop a NaN or an infinity."""
    allowed = {"contract", "nsz", "reassoc"}
    for path in (ROOT / "kernels").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"fastmath\s*=\s*True|['\"](nnan|ninf|fast|afn|arcp)['\"]", text), path.name
    kernels = {value.name: value for module in sources() for value in vars(module).values()
               if type(value).__name__ == "Kernel"}  # fmt: skip
    assert len(kernels) > 30
    for options in (kernel.options for kernel in kernels.values()):
        flags = options.get("fastmath") or set()
        assert flags is not True
        assert set(flags) <= allowed
        assert options["error_model"] == "numpy"
    helpers = importlib.import_module("tinyvae_kernels.cpu.runtime.helpers")
    assert helpers.HELPER["fastmath"] | helpers.SUM <= allowed  # the two that helpers have
