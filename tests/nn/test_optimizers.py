"""Optimizers against loops written from the papers, number by number; and the step that must not happen."""

import math

import numpy as np
import pytest
from support import DTYPES, assert_close, assert_same_bits

import tinyvae as tv
from tinyvae.engine.program import Tape
from tinyvae.engine.rules import TABLE
from tinyvae.engine.tensor import Tensor
from tinyvae.nn.optimizers import CLIP, FINITE, NORM, OPTIMIZERS, UPDATES, Optimizer, method

SIZE, STEPS = 6, 8
HYPER = {"adam": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}, "adagrad": {"epsilon": 0.1}, "sgd": {"momentum": 0.7},
         "advi": {"power": 0.5, "memory": 0.8}}


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    with tv.fused(request.param):
        yield


# ---- the papers, one parameter at a time in Python's floats ----------------------------------------------------------


def adam(theta, gradients, rates, beta1, beta2, epsilon):
    m = v = 0.0
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        theta -= rate * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + epsilon)
    return theta


def adagrad(theta, gradients, rates, epsilon):
    total = 0.0
    for g, rate in zip(gradients, rates, strict=True):
        total += g * g
        theta -= rate * g / (math.sqrt(total) + epsilon) if total + epsilon > 0 else 0.0
    return theta


def sgd(theta, gradients, rates, momentum):
    velocity = 0.0
    for g, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + g
        theta -= rate * velocity
    return theta


def without_correction(theta, gradients, rates, beta1, beta2, epsilon):
    """Wrong: Adam that forgets that its moments started at 0."""
    m = v = 0.0
    for g, rate in zip(gradients, rates, strict=True):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        theta -= rate * m / (math.sqrt(v) + epsilon)
    return theta


def inside(theta, gradients, rates, epsilon):
    """Wrong: epsilon under the root."""
    total = 0.0
    for g, rate in zip(gradients, rates, strict=True):
        total += g * g
        theta -= rate * g / math.sqrt(total + epsilon)
    return theta


def average(theta, gradients, rates, momentum):
    """Wrong: a running mean of gradients in place of a sum."""
    velocity = 0.0
    for g, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + (1 - momentum) * g
        theta -= rate * velocity
    return theta


def advi(theta, gradients, rates, power, memory):
    """rho_t = eta t^-power / (1 + sqrt(s_t)), s_t = (1 - memory) g^2 + memory s_(t - 1)."""
    s = np.zeros_like(theta)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        s = (1 - memory) * g * g + memory * s
        theta = theta - rate / t**power / (1 + np.sqrt(s)) * g
    return theta


def without_decay(theta, gradients, rates, power, memory):
    return advi(theta, gradients, rates, 0.0, memory)


TEXTBOOK = {"adam": (adam, without_correction), "adagrad": (adagrad, inside), "sgd": (sgd, average),
            "advi": (advi, without_decay)}


def problem(dtype=np.float64, size=SIZE):
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(size).astype(dtype)
    gradients = (rng.standard_normal((STEPS, size)) * 10.0 ** rng.integers(-3, 3, (STEPS, size))).astype(dtype)
    return theta, gradients, rng.uniform(0.01, 0.1, STEPS)


def run(name, theta, gradients, rates, max_norm=math.inf, weight_prior=0.0, loss=1.0, **hyper):
    optimizer = Optimizer(name, theta, **hyper)
    for g, rate in zip(gradients, rates, strict=True):
        step(optimizer, g, rate, max_norm, weight_prior, loss)
    return optimizer


def step(optimizer, g, rate=0.1, max_norm=math.inf, weight_prior=0.0, loss=1.0):
    kind = optimizer.theta.dtype
    optimizer.step(Tensor(np.array(loss, kind)), g.copy(), Tensor(np.array([rate, 1.0], kind)), max_norm, weight_prior)


def check_textbook(name, method, **hyper):
    theta, gradients, rates = problem()
    expected = [method(t, g, rates, **hyper) for t, g in zip(theta, gradients.T, strict=True)]
    run(name, theta, gradients, rates, **hyper)
    assert_close(theta, expected, 32, name)


@pytest.mark.parametrize("name", TEXTBOOK)
def test_steps_are_those_of_the_papers(name):
    right, wrong = TEXTBOOK[name]
    check_textbook(name, right, **HYPER[name])
    check_textbook(name, right, **OPTIMIZERS[name].hyper)
    with pytest.raises(AssertionError, match="rounding units"):
        check_textbook(name, wrong, **HYPER[name])


@pytest.mark.parametrize("name", TEXTBOOK)
def test_float32_steps_follow_the_float64_ones(name):
    theta, gradients, rates = problem(np.float32)
    wide = theta.astype(np.float64)
    rates = rates.astype(np.float32).astype(np.float64)
    run(name, theta, gradients, rates, **HYPER[name])
    run(name, wide, gradients.astype(np.float64), rates, **HYPER[name])
    # a few units a step; the gradients' sizes differ by 10^5, and sgd's position grows with the largest
    assert theta.dtype == np.float32
    assert_close(theta, wide, 8 * STEPS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TEXTBOOK)
def test_kernels_and_readable_steps_agree(name, dtype):
    # a length that no vector register divides; both sides of every switch
    ends = []
    for on in (True, False):
        theta, gradients, rates = problem(dtype, 1003)
        with tv.fused(on):
            optimizer = run(name, theta, gradients, rates, max_norm=5.0, weight_prior=0.01, **HYPER[name])
        ends.append((theta, optimizer))
    (kernel, a), (readable, b) = ends
    assert_close(kernel, readable, 8 * STEPS)
    for moment in a.moments:
        scale = np.maximum(1, np.abs(b.moments[moment]))
        assert_close(a.moments[moment], b.moments[moment], 8 * STEPS, moment, scale)
    assert_close(a.status, b.status, 1000)  # the norm is summed in another order


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["guard", "weight_prior", *OPTIMIZERS])
def test_a_row_declares_what_it_writes(name, fused):
    """A replay restores these arrays before it is compared, and a table counts their bytes."""
    draw = np.random.default_rng(0)
    theta, g = (draw.normal(size=50) for _ in range(2))
    status, rates = np.array([1.0, 0.5, 3.0, 2.0]), np.array([0.1, 1.0])
    if name == "guard":
        arrays, attributes = [np.array(1.0), g, status], {"max_norm": 1.0}
    elif name == "weight_prior":
        arrays, attributes = [g, theta], {"factor": 0.1}
    else:
        moments = [draw.random(50) for _ in OPTIMIZERS[name].moments]
        arrays, attributes = [theta, g, *moments, rates, status], OPTIMIZERS[name].hyper
    before = [array.copy() for array in arrays]
    with tv.fused(fused):
        tv.apply(name, *map(tv.Tensor, arrays), **attributes)
    changed = {i for i, (a, b) in enumerate(zip(arrays, before, strict=True)) if not np.array_equal(a, b)}
    assert changed == set(TABLE[name].writes)


# ---- clipping and the prior ------------------------------------------------------------------------------------------


def test_the_clip_factor_brings_the_norm_down():
    # sgd without momentum and with rate 1: the parameters move by the clipped gradient itself
    for max_norm, moved in ((10.0, 5.0), (5.0, 5.0), (2.0, 2.0), (math.inf, 5.0)):
        theta = np.zeros(4)
        optimizer = Optimizer("sgd", theta, momentum=0.0)
        step(optimizer, np.array([3.0, 0.0, -4.0, 0.0]), 1.0, max_norm)
        assert optimizer.status[NORM] == 5.0  # before clipping
        assert_close(np.linalg.norm(theta), moved, 2)
        assert_close(theta / np.linalg.norm(theta), [-0.6, 0, 0.8, 0], 2)  # the direction stays
        assert optimizer.status[CLIP] == min(1.0, max_norm / 5.0)


def test_clipping_enters_the_moments():
    theta, gradients, rates = problem()
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    assert (norms > 3).any()
    assert (norms < 3e2).any()
    clipped = gradients * np.minimum(1, 3 / norms)
    expected = [adam(t, g, rates, **HYPER["adam"]) for t, g in zip(theta, clipped.T, strict=True)]
    run("adam", theta, gradients, rates, max_norm=3.0, **HYPER["adam"])
    assert_close(theta, expected, 64)


def test_the_norm_does_not_overflow_in_float32():
    # 1e30 squared is no float32 number; the norm is formed in float64
    theta = np.zeros(4, np.float32)
    optimizer = Optimizer("sgd", theta)
    step(optimizer, np.full(4, 1e30, np.float32), 1.0, max_norm=1.0)
    assert optimizer.status[FINITE] == 1
    assert_close(optimizer.status[NORM], 2e30, 1e9)
    assert_close(theta, np.full(4, -0.5), 4)


def test_the_weight_prior_adds_theta_over_n():
    # -log p(theta) = theta^2 / 2 for the whole data set, so theta / N for a datum (AEVB section 5)
    theta, gradients, rates = problem()
    start, count = theta.copy(), 50
    expected = start.copy()
    for g, rate in zip(gradients, rates, strict=True):
        expected -= rate * (g + expected / count)
    run("sgd", theta, gradients, rates, weight_prior=1 / count, momentum=0.0)
    assert_close(theta, expected, 16)
    theta = start.copy()
    run("sgd", theta, gradients, rates, weight_prior=-1 / count, momentum=0.0)
    with pytest.raises(AssertionError):  # the other sign
        assert_close(theta, expected, 16)


# ---- steps that must not happen --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("name", TEXTBOOK)
def test_a_step_that_is_not_finite_changes_nothing(name, where, fault):
    theta, gradients, rates = problem(np.float32)
    optimizer = run(name, theta, gradients[:3], rates[:3])
    before = [theta.tobytes(), *(m.tobytes() for m in optimizer.moments.values()), optimizer.status[UPDATES]]
    bad = gradients[3].copy()
    if where == "gradient":
        bad[2] = fault
    with np.errstate(all="ignore"):
        step(optimizer, bad, max_norm=1.0, loss=fault if where == "loss" else 1.0)
    after = [theta.tobytes(), *(m.tobytes() for m in optimizer.moments.values()), optimizer.status[UPDATES]]
    assert optimizer.status[FINITE] == 0
    assert after == before
    # and the next sound step is the one that would have come: Adam's correction counts updates, not attempts
    other = run(name, problem(np.float32)[0], gradients[:3], rates[:3])
    for one in (optimizer, other):
        step(one, gradients[4])
    assert_same_bits(theta, other.theta)
    assert optimizer.status[FINITE] == 1
    assert optimizer.status[UPDATES] == 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_adagrad_without_epsilon_survives_a_zero_gradient(dtype):
    # 0 / sqrt(0): a pixel that is always black gives its weights no gradient at first
    theta = np.ones(3, dtype)
    optimizer = Optimizer("adagrad", theta, epsilon=0.0)
    for g in ([0, 0, 1], [0, 2, 0], [0, 0, 0]):
        step(optimizer, np.array(g, dtype))
    assert_close(theta, [1, 0.9, 0.9], 2)


def test_the_kernel_of_adam_keeps_no_denormal_moments():
    # after a gradient has gone the moments shrink by beta a step; they must reach 0, not the slow denormal numbers
    theta = np.ones(64, np.float32)
    optimizer = Optimizer("adam", theta)
    with tv.fused(True):
        step(optimizer, np.full(64, 1e-3, np.float32))
        for _ in range(1500):
            step(optimizer, np.zeros(64, np.float32))
    assert np.isfinite(theta).all()
    tiny = np.finfo(np.float32).tiny
    assert all(((np.abs(m) >= tiny) | (m == 0)).all() for m in optimizer.moments.values())


# ---- as launches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTBOOK)
def test_a_recorded_step_reads_its_rates_anew(name):
    # the learning rate, the gradient and the flag lie in arrays: nothing of a step is frozen into the recording
    theta, gradients, rates = problem()
    expected = problem()[0]
    run(name, expected, gradients, rates)
    g, now, loss = np.zeros(SIZE), np.zeros(2), Tensor(np.array(1.0))
    optimizer = Optimizer(name, theta)
    tape = None
    for gradient, rate in zip(gradients, rates, strict=True):
        g[:], now[0] = gradient, rate
        if tape is None:
            with Tape() as tape:
                optimizer.step(loss, g, Tensor(now))
        else:
            tape.replay()
    assert_same_bits(theta, expected)


@pytest.fixture
def lion():
    """An optimizer as a user writes it: theta <- theta - rate sign(b m + (1 - b) g), m <- c m + (1 - c) g."""

    @method("lion", ("m",), beta=0.9, decay=0.99)
    def update(xp, theta, g, m, rate, t, beta, decay):
        theta -= rate * xp.sign(beta * m + (1 - beta) * g)
        m[...] = decay * m + (1 - decay) * g

    yield
    del OPTIMIZERS["lion"], TABLE["lion"]


def test_a_method_of_ones_own_needs_no_other_place(lion):
    """It steps, obeys the guard, and trains a model; a name is taken once."""
    theta, gradients, rates = problem()
    expected, m = theta.copy(), np.zeros(SIZE)
    for g, rate in zip(gradients, rates, strict=True):
        expected -= rate * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    optimizer = run("lion", theta, gradients, rates)
    assert_close(theta, expected, 32)
    with np.errstate(all="ignore"):
        step(optimizer, np.full(SIZE, np.nan))
    assert_close(theta, expected, 32)
    x = (np.arange(48).reshape(8, 6) % 3 == 0).astype(np.uint8)
    data = tv.DataSet("bits-static", x, x, (2, 3), 1.0, "static", "bernoulli")
    records = tv.fit(tv.VAE(6, hidden=5, latent=2), data, optimizer="lion", lr=1e-2, epochs=20, batch=4)
    assert records[-1]["train_elbo"] > records[0]["train_elbo"]
    with pytest.raises(ValueError, match="'lion' exists already"):
        method("lion", ())(lambda *_: None)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"found optimizer 'newton'; expected one of adam, adagrad, sgd"):
        Optimizer("newton", np.zeros(3))
    with pytest.raises(ValueError, match=r"adam has no momentum; it has beta1, beta2, epsilon"):
        Optimizer("adam", np.zeros(3), momentum=0.9)
