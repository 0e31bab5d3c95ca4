"""Fused rows against their twins: the same values and gradients, from arithmetic that shares nothing."""

import ast
import inspect
import re

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DTYPES, ROOT, assert_close, assert_same_bits, bits_of, run_python

import tinyvae as tv
from tinyvae.engine import fusion
from tinyvae.engine.devices import CPU
from tinyvae.engine.rules import TABLE
from tinyvae.engine.testing import GradientError, check_gradients
from tinyvae.nn.activations import ACTIVATIONS

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
import tinyvae_kernels

# ---- cases: for each fused row, inputs and attributes --------------------------------

KINDS = [kind for kind in ACTIVATIONS if fusion.load("cpu").activates(kind=kind)]
sizes, samples = st.integers(1, 9), st.sampled_from([(), (1,), (3,)])


def near(rng, *shape):
    return rng.normal(size=shape)


def units(rng, *shape):
    return rng.random(shape)


@st.composite
def activations(draw):
    batch, n, s = draw(sizes), draw(sizes), draw(samples)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(KINDS))
    return [near(rng, *s, batch, n), near(rng, n)], {"kind": kind}


@st.composite
def activation_grads(draw):
    (g, _), attributes = draw(activations().filter(lambda case: case[1]["kind"] != "identity"))
    y = getattr(tv.Tensor(np.random.default_rng(1).normal(size=g.shape)), attributes["kind"])().data
    return [g, y], attributes


@st.composite
def posteriors(draw):
    batch, latent, s = draw(sizes), draw(sizes), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return [near(rng, batch, 2 * latent), near(rng, s, batch, latent)], {}


@st.composite
def posterior_grads(draw):
    (raw, eps), _ = draw(posteriors())
    return [np.cos(eps) * 2, np.sin(np.arange(len(raw)) + 1.0), raw, eps], {}


@st.composite
def conditional_posteriors(draw):
    (raw, eps), _ = draw(posteriors())
    return [raw, np.sin(raw * 3 + 1), eps], {}


@st.composite
def conditional_posterior_grads(draw):
    (raw, other, eps), _ = draw(conditional_posteriors())
    return [np.cos(eps) * 2, np.sin(np.arange(len(raw)) + 1.0), raw, other, eps], {}


@st.composite
def likelihoods(draw, per_pixel):
    batch, pixels, s = draw(sizes), draw(sizes), draw(samples)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    rows = draw(st.sampled_from([1, batch]))  # one x for all, or one each
    return [near(rng, *s, batch, per_pixel * pixels), units(rng, rows, pixels)], {}


@st.composite
def scaled_rows(draw):
    (a, _), _ = draw(likelihoods(1))
    return [np.sin(a[..., 0] * 9), a], {}


@st.composite
def gates(draw):
    rows, width, s = draw(sizes), draw(sizes), draw(samples)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return [near(rng, *s, rows, 2 * width), near(rng, *s, rows, width)], {"opening": 2.0}


@st.composite
def gate_grads(draw):
    (raw, z), attributes = draw(gates())
    return [np.cos(z) * 2, np.sin(z[..., 0] * 9), raw, z], attributes


@st.composite
def row_sums(draw):
    (g, _), _ = draw(activations())
    return [g], {}


@st.composite
def objectives(draw):
    batch, rng = draw(sizes), np.random.default_rng(draw(st.integers(0, 2**31)))
    return [near(rng, batch), units(rng, batch), np.array([1e-3, 0.3])], {}


@st.composite
def objective_grads(draw):
    (_, kl, rates), _ = draw(objectives())
    return [np.array(1.7), kl, rates], {}


def mostly_zeros(rng, rows, inputs):
    """One number other than 0 in each row of six or more."""
    x = np.zeros((rows, inputs))
    x[np.arange(rows), rng.integers(0, inputs, rows)] = rng.random(rows)
    return x


@st.composite
def sparse_products(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = mostly_zeros(rng, draw(sizes), draw(st.integers(6, 30)))
    return [x, near(rng, x.shape[1], draw(st.integers(1, 300)))], {}


@st.composite
def sparse_product_grads(draw):
    (x, w), _ = draw(sparse_products())
    return [np.cos(np.arange(len(x) * w.shape[1])).reshape(len(x), -1), bits_of(x), x], {}


CASES = {
    "sparse_matmul": sparse_products(), "sparse_matmul_grad": sparse_product_grads(),
    "bias_grad": row_sums(), "objective": objectives(), "objective_grad": objective_grads(),
    "bias_activation": activations(), "bias_activation_grad": activation_grads(), "gaussian_sample_kl": posteriors(),
    "gaussian_sample_kl_grad": posterior_grads(), "gaussian_sample_kl_from": conditional_posteriors(),
    "gaussian_sample_kl_from_grad": conditional_posterior_grads(), "bernoulli_log_prob": likelihoods(1),
    "gaussian_log_prob": likelihoods(2), "scale_rows": scaled_rows(), "gate": gates(), "gate_grad": gate_grads(),
}  # fmt: skip
ONE_RESULT = ("bernoulli_log_prob", "gaussian_log_prob", "sparse_matmul")  # the second is for the kernel's own way back
FORWARD = [name for name in CASES if TABLE[name].grads is not None]


def test_every_fused_row_is_tested():
    assert set(CASES) == {name for name, row in TABLE.items() if row.twin is not None}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_kernel_belongs_to_a_row(device):
    """A kernel that no row names would never run; a name that no kernel has would run the readable form for ever."""
    found = vars(tinyvae_kernels.kernels_for(device))
    launchers = {name for name, value in found.items() if type(value).__name__ == "Launcher"}
    named = {row.kernel for row in TABLE.values() if row.kernel is not None}
    recorded = {name for name in launchers if found[name].takes is not None}
    assert launchers - named == recorded
    assert recorded <= set(TABLE)
    assert bool(recorded) == (device == "cuda")
    assert device == "cuda" or named - launchers == set()
    assert {row.asks for row in TABLE.values() if row.asks is not None} <= set(found)


# ---- kernel against twin -------------------------------------------------------------


def both_roads(name, arrays, attributes, dtype, on):
    """Values and gradients of a random projection, by the kernel or by the twin; and the names of what ran."""
    row = TABLE[name]
    number = [row.domain_of(i).kind == "number" for i in range(len(arrays))]
    leaves = [tv.Tensor(a.astype(dtype) if number[i] else a, requires_grad=number[i] and i not in row.constants)
              for i, a in enumerate(arrays)]  # fmt: skip
    with tv.fused(on), tv.Tape() as tape:
        found = tv.apply(name, *leaves, **attributes)
        found = [y for y in (found if isinstance(found, tuple) else (found,)) if y is not None]
        if name in ONE_RESULT:
            found = found[:1]
        results = list(found)
        if name in FORWARD:
            total = sum((y * np.cos(np.arange(y.size)).reshape(y.shape).astype(dtype)).sum() for y in found)
            results += tv.grad(total, [leaf for leaf in leaves if leaf.requires_grad])
    return [r.data for r in results], [launch.rule.name for launch in tape.launches]


def check_twin(name, arrays, attributes, dtype, allowed=64):
    fast, launches = both_roads(name, arrays, attributes, dtype, True)
    readable, plain = both_roads(name, arrays, attributes, dtype, False)
    exact, _ = both_roads(name, arrays, attributes, np.float64, False)
    assert launches.count(name) == 1, "the kernel served"
    assert name not in plain, "the twin is made of other rows"
    for a, b, reference in zip(fast, readable, exact, strict=True):
        assert a.dtype == b.dtype == dtype
        scale = max(1.0, float(np.abs(reference).max(initial=0.0)), *arrays[0].shape[:1])  # with sums over the batch
        assert_close(a, b.astype(np.float64), allowed, f"{name} against its twin", scale)
        if dtype == np.float32:
            assert_close(a, reference, allowed, f"{name} against its twin in float64", scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_kernel_and_twin_agree(name, dtype, data):
    """Values and all gradients, for one row and many, odd widths, with and without a dimension of samples."""
    check_twin(name, *data.draw(CASES[name]), dtype)


@pytest.mark.parametrize("name", FORWARD)
@settings(max_examples=12)  # each by every element of its inputs
@given(data=st.data())
def test_fused_gradients_against_differences(name, data):
    """In float64, through the kernel itself: independent of the twin's derivatives."""
    arrays, attributes = data.draw(CASES[name])
    if attributes.get("kind") == "relu":
        arrays = [np.round(arrays[0], 1), np.round(arrays[1], 1) + 0.05]  # away from the kink
    constants = TABLE[name].constants

    def f(*leaves):
        leaf = iter(leaves)
        found = tv.apply(name, *(arrays[i] if i in constants else next(leaf) for i in range(len(arrays))), **attributes)
        if not isinstance(found, tuple):
            return found
        return found[0] if name in ONE_RESULT else found[0].sum() + found[1]

    check_gradients(f, *(a for i, a in enumerate(arrays) if i not in constants))


@pytest.mark.parametrize("name", [name for name in CASES if TABLE[name].constants])
@settings(max_examples=10)  # each by every element of its inputs, twice
@given(data=st.data())
def test_gradients_by_what_is_usually_constant(name, data):
    """By the pixels or the noise only the twin can differentiate, and it does so by itself, twice if wanted."""
    arrays, attributes = data.draw(CASES[name])

    def f(*leaves):
        found = tv.apply(name, *leaves, **attributes)
        if not isinstance(found, tuple):
            return found
        return found[0] if found[1] is None else found[0].sum() + found[1]

    check_gradients(f, *arrays, order=2)


def test_the_gradient_by_the_pixels_is_the_logit():
    """d log p(x) / dx = logits for Bernoulli pixels: a kernel that held x constant would say 0."""
    logits, x = (tv.Tensor(np.random.default_rng(i).random((3, 4)), requires_grad=True) for i in (0, 1))
    by_logits, by_x = tv.grad(tv.apply("bernoulli_log_prob", logits, x)[0].sum(), [logits, x])
    assert_close(by_x.data, logits.data, 1)
    assert_close(by_logits.data, x.data - scipy.special.expit(logits.data), 2)


@pytest.mark.parametrize("case", [
    ("bias_activation", [np.ones((2, 3)), np.ones((1, 3))], {"kind": "tanh"}),  # bias as a row
    ("bias_activation", [np.ones((2, 3)), np.ones(())], {"kind": "tanh"}),  # or a number
    ("bias_activation", [np.ones((2, 0)), np.ones(0)], {"kind": "tanh"}),
    ("bernoulli_log_prob", [np.ones((2, 3)), np.ones(3)], {}),  # x without a batch
    ("bernoulli_log_prob", [np.ones((4, 2, 3)), np.ones((4, 1, 3))], {}),  # an x for each sample
    ("bernoulli_log_prob", [np.ones(3), np.ones((5, 3))], {}),  # one row of logits for all
    ("gaussian_log_prob", [np.ones((2, 6)), np.ones((4, 1, 3))], {}),
    ("gaussian_sample_kl", [np.ones((2, 6)), np.ones((2, 3))], {}),  # without a dimension of samples
    ("gaussian_sample_kl_from", [np.ones((2, 6)), np.ones((1, 6)), np.ones((1, 2, 3))], {}),  # one p for all
    ("scale_rows", [np.ones(()), np.ones((2, 3))], {}),
    ("bias_activation", [np.ones((3, 2)).T, np.ones(3)], {"kind": "tanh"}),  # scattered memory
])  # fmt: skip
def test_what_a_kernel_cannot_serve_goes_to_the_twin(case):
    name, arrays, attributes = case
    fast = both_roads(name, arrays, attributes, np.float64, True)
    readable = both_roads(name, arrays, attributes, np.float64, False)
    for a, b in zip(fast[0], readable[0], strict=True):
        assert_close(a, b, 4, name)
    with tv.Tape() as tape:
        tv.apply(name, *arrays, **attributes)
    assert name not in [launch.rule.name for launch in tape.launches]


@pytest.mark.parametrize("case", [
    ("bias_activation", [np.ones((2, 3)), np.ones(2)], {"kind": "tanh"}),
    ("bernoulli_log_prob", [np.ones((5, 4)), np.ones((3, 4))], {}),  # another batch
    ("bernoulli_log_prob", [np.ones((4, 4)), np.ones((2, 4))], {}),  # half of it
    ("bernoulli_log_prob", [np.ones((2, 8)), np.ones((2, 4))], {}),
    ("gaussian_log_prob", [np.ones((2, 4)), np.ones((2, 4))], {}),
    ("gaussian_log_prob", [np.ones((2, 5)), np.ones((2, 2))], {}),
    ("gaussian_sample_kl", [np.ones((2, 6)), np.ones((1, 3, 3))], {}),
    ("gaussian_sample_kl", [np.ones((2, 5)), np.ones((1, 2, 2))], {}),
])  # fmt: skip
@pytest.mark.parametrize("on", [True, False])
def test_wrong_shapes_are_refused_on_both_roads(case, on):
    """A kernel looks at no shapes and would read foreign memory; the twin says what is wrong."""
    name, arrays, attributes = case
    with tv.fused(on), pytest.raises(ValueError, match="cannot combine shapes"):
        tv.apply(name, *arrays, **attributes)


def test_a_fused_row_is_one_launch_and_replays():
    """Forward and backward one launch each, over fixed buffers."""
    raw, eps = tv.Tensor(np.random.default_rng(0).normal(size=(4, 6)), requires_grad=True), np.ones((2, 4, 3))

    def step():
        z, kl = tv.apply("gaussian_sample_kl", raw, eps)
        return z, kl, tv.grad((z * z).sum() + kl.sum(), raw)

    with tv.Tape() as tape:
        recorded = step()
    names = [launch.rule.name for launch in tape.launches]
    assert (names.count("gaussian_sample_kl"), names.count("gaussian_sample_kl_grad")) == (1, 1)
    raw.data[...] = np.random.default_rng(1).normal(size=(4, 6))
    tape.replay()
    for found, fresh in zip(recorded, step(), strict=True):
        assert_same_bits(found.data, fresh.data)


# ---- the checks notice ---------------------------------------------------------------


def wrong_kernel(monkeypatch, name, spoil):
    """The row's kernel with its first result spoiled."""
    right = fusion.kernel_of(TABLE[name], CPU)

    def call(xp, *arrays, **attributes):
        found = right(xp, *arrays, **attributes)
        return (spoil(found[0]), *found[1:]) if isinstance(found, tuple) else spoil(found)

    monkeypatch.setitem(TABLE[name].kernels, "cpu", call)


FAULTS = {"a wrong sign": lambda y: -y, "a NaN": lambda y: y * np.nan, "four digits": lambda y: y * np.float32(1.0001)}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_kernel_is_found(monkeypatch, name, fault):
    shapes = {"bias_activation": [(3, 5), (5,)], "bias_activation_grad": [(3, 5), (3, 5)],
              "gaussian_sample_kl": [(3, 10), (2, 3, 5)], "bernoulli_log_prob": [(3, 5), (3, 5)],
              "gaussian_sample_kl_grad": [(2, 3, 5), (3,), (3, 10), (2, 3, 5)],
              "gaussian_sample_kl_from": [(3, 10), (3, 10), (2, 3, 5)],
              "gaussian_sample_kl_from_grad": [(2, 3, 5), (3,), (3, 10), (3, 10), (2, 3, 5)],
              "gate": [(3, 10), (3, 5)], "gate_grad": [(3, 5), (3,), (3, 10), (3, 5)],
              "gaussian_log_prob": [(3, 10), (3, 5)], "scale_rows": [(3,), (3, 5)], "bias_grad": [(3, 5)],
              "objective": [(3,), (3,), (2,)], "objective_grad": [(), (3,), (2,)],
              "sparse_matmul": [(3, 6), (6, 4)], "sparse_matmul_grad": [(3, 4), (3, 1), (3, 6)]}[name]  # fmt: skip
    arrays = [np.random.default_rng(i).uniform(0.1, 0.9, shape) for i, shape in enumerate(shapes)]
    if name.startswith("sparse"):
        x = np.diag(np.full(6, 0.7))[:3]
        arrays = [x, arrays[1]] if name == "sparse_matmul" else [arrays[0], bits_of(x), x]
    arrays[0] -= 3.0 * (name in ("objective", "gate_grad"))  # the allowed error would cover the fourth digit else
    attributes = {"kind": "tanh"} if "activation" in name else {"opening": 2.0} if "gate" in name else {}
    check_twin(name, arrays, attributes, np.float32)
    wrong_kernel(monkeypatch, name, FAULTS[fault])
    with pytest.raises(AssertionError, match="against its twin"):
        check_twin(name, arrays, attributes, np.float32)


def test_a_wrong_kernel_gradient_is_found(monkeypatch):
    """A standard deviation in place of a log-variance in the sampled posterior, seen by finite differences."""
    raw, eps = np.random.default_rng(0).normal(size=(3, 4)), np.random.default_rng(1).normal(size=(1, 3, 2))
    wrong_kernel(monkeypatch, "gaussian_sample_kl_grad", lambda g: g * np.array([1, 1, 2, 2]))
    with pytest.raises(GradientError, match=r"element \(0, 2\)"):
        check_gradients(lambda j: tv.apply("gaussian_sample_kl", j, eps)[0], raw)


# ---- the switch ----------------------------------------------------------------------


def uses_kernel():
    with tv.Tape() as tape:
        tv.apply("bias_activation", np.ones((1, 2)), np.ones(2), kind="tanh")
    return [launch.rule.name for launch in tape.launches] == ["bias_activation"]


def test_the_switch_as_block_and_as_statement():
    """A block restores what was before it, nested and after an exception; a statement lasts."""
    assert uses_kernel()
    with tv.fused(False):
        assert not uses_kernel()
        with tv.fused(True):
            assert uses_kernel()
        assert not uses_kernel()
    assert uses_kernel()
    with pytest.raises(KeyError), tv.fused(False):
        raise KeyError
    assert uses_kernel()
    before = tv.fused(False)
    try:
        assert not uses_kernel()
        with tv.fused():
            assert uses_kernel()
        assert not uses_kernel()
    finally:
        before.__exit__()
    assert tv.fused.setting.get()


# ---- what is imported when -----------------------------------------------------------

HEAVY = ("numba", "llvmlite", "cupy", "matplotlib", "sklearn", "scipy.stats", "scipy.special", "tinyvae_kernels")


def test_import_is_light():
    """`import tinyvae` brings in none of the heavy libraries: each comes at its first use."""
    done = run_python(f"import sys, tinyvae; print([n for n in {HEAVY!r} if n in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


WITHOUT_NUMBA = """
import sys, warnings
import numpy as np

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ImportError(f"blocked {name}")

sys.meta_path.insert(0, Blocker())
import tinyvae as tv
from tinyvae.nn.optimizers import Optimizer

def train():
    model = tv.VAE(6, hidden=5, latent=2)
    optimizer = Optimizer("adam", model.parameters.flat)
    noise, rates = tv.Noise(0), tv.Tensor(np.array([1e-2, 1.0], np.float32))
    x = tv.Tensor((np.arange(24).reshape(4, 6) % 3 == 0).astype(np.float32))
    before = model.parameters.flat.copy()
    for step in range(2):
        noise.restart(step)
        loss = -tv.elbo(model, model.q, x, noise).mean()
        model.parameters.collect(tv.grad(loss, list(model.parameters)))
        optimizer.step(loss, model.parameters.gradient, rates)
    assert np.isfinite(model.parameters.flat).all() and (model.parameters.flat != before).any()
    return model.parameters.flat

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with tv.fused(False):
        readable = train().copy()
    assert not caught, caught[0]
    fallen = train().copy()
    train()
assert readable.tobytes() == fallen.tobytes()
assert "numba" not in sys.modules and "tinyvae_kernels.cpu" not in sys.modules
print(len(caught), [w.category.__name__ for w in caught], *[w.message for w in caught])
"""


def test_training_without_numba():
    """Twins need no Numba and say nothing; with fused rows on, one warning names the reason, and the twins run."""
    done = run_python(WITHOUT_NUMBA)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 ['RuntimeWarning']"), done.stdout
    assert re.search("blocked (numba|llvmlite)", done.stdout)
    assert "readable twins" in done.stdout


def test_twins_share_no_arithmetic_with_kernels():
    """Only `load` imports the kernels; what a twin calls is rows of the table."""
    tree = ast.parse((ROOT / "tinyvae" / "engine" / "fusion.py").read_text())
    importing = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and any(
        isinstance(inner, ast.ImportFrom) and (inner.module or "").startswith("tinyvae_kernels")
        for inner in ast.walk(node))]  # fmt: skip
    assert importing == ["load"]
    for name in CASES:
        assert "kernels" not in inspect.getsource(TABLE[name].twin), name
