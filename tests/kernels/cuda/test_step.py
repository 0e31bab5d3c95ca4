"""The whole library on a GPU that is not there: a strict stand-in for CuPy, with the CUDA kernels run on the host.

The stand-in refuses every silent copy between host and device, so a rule, a model or a training step that leaks shows
here. The noise is the same integers, so a run on "cuda" is the CPU's run to rounding.
"""

import importlib
import json
import re

import numpy as np
import pytest
from cuda_on_cpu import card, fake_cupy, host
from cuda_on_cpu.fake_cupy import LeakError
from cuda_on_cpu.host import Driver
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DTYPES, assert_close
from typer.testing import CliRunner

import tinyvae as tv
from tests.engine.test_rules import ROWS, SMOOTH, apply_row, case_of, differentiable, inputs_for
from tinyvae import runs
from tinyvae.cli.main import put_together
from tinyvae.engine.devices import NAMESPACES, DeviceError, Namespace, namespace, require_cuda, to_host
from tinyvae.engine.rules import TABLE
from tinyvae.training.epochs import Training
from tinyvae.training.objective import OBJECTIVE
from tinyvae.training.settings import Settings

pytestmark = pytest.mark.skipif(host.compiler() is None and not card.ON_A_CARD,
                                reason=host.NO_COMPILER)
on_the_host = pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only: the stand-in and what it counts")


def made_up(pixels="dynamic"):
    grey = (255 * np.random.default_rng(0).random((50, 36)) ** 3).astype(np.uint8)
    if pixels == "static":
        return tv.DataSet("made-up", (grey > 99).astype(np.uint8), grey[:7] // 200, (6, 6), 1.0, "static", "bernoulli")
    return tv.DataSet("made-up", grey, grey[:7], (6, 6), 255.0, pixels, "bernoulli")


def losses(device, dtype, steps=5, pixels="dynamic", likelihood="bernoulli", activation="relu", hidden=17,
           posterior="normal", **settings):
    """The objective after each step, and the parameters after the last."""
    model = tv.VAE(36, hidden, 5, activation, likelihood, dtype=dtype, device=device, posterior=posterior)
    training = Training(model, made_up(pixels), Settings(batch=20, **settings))
    training.begin_epoch()
    found = []
    for _ in range(steps):
        if training.now(2) == training.batches.steps:
            training.counters[1] = training.counters[2] = 0
        training.step()
        found.append(float(to_host(training.totals)[OBJECTIVE]))
    return np.array(found), to_host(model.parameters.flat)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("pixels", "options"), [
    ("dynamic", {}), ("static", {"activation": "tanh", "optimizer": "adagrad", "lr": 0.05, "samples": 2}),
    ("gray", {"likelihood": "gaussian", "activation": "softplus", "optimizer": "sgd", "lr": 1e-4, "clip": 1.0}),
    ("dynamic", {"bound": "elbo-a", "weight_prior": True}),
    ("dynamic", {"free_bits": 0.1, "warmup": 1.0}),
    ("dynamic", {"posterior": "gamma", "estimator": "grep"}), ("static", {"posterior": "gamma", "samples": 2}),
    ("dynamic", {"posterior": "beta"}),
    ("gray", {"likelihood": "gaussian", "posterior": "dirichlet", "lr": 1e-4})])  # fmt: skip
def test_training_on_a_device_is_the_cpus_to_rounding(driver, dtype, pixels, options):
    """Recorded, compared and replayed, with a shorter last batch: the losses of each step, the parameters after all."""
    there, parameters = losses("cuda", dtype, 6, pixels, **options)
    here, expected = losses("cpu", dtype, 6, pixels, **options)
    relative = 1e-5 if dtype == np.float32 else 1e-12
    assert np.abs(there / here - 1).max() <= relative
    assert np.abs(parameters - expected).max() <= relative * 10
    assert card.ON_A_CARD or len(set(driver.launches)) >= 12, "the kernels did not run"


def test_the_twins_run_on_a_device(driver):
    """Without kernels every row is the array library's."""
    with tv.fused(False):
        there, _ = losses("cuda", np.float64, 3)
        here, _ = losses("cpu", np.float64, 3)
    assert np.abs(there / here - 1).max() <= 1e-12
    assert not driver.launches


def test_a_checkpoint_knows_no_device(driver, tmp_path):
    """Begun on the CPU, gone on with on the device, judged on the CPU: the run that never moved, to rounding."""
    def begun(folder, epochs):
        model = tv.VAE(36, 17, 5, dtype="float64")
        return tv.fit(model, made_up(), folder, epochs=epochs, batch=20)

    records = begun(tmp_path / "whole", 3)
    begun(tmp_path / "moved", 2)
    moved = runs.resume(tmp_path / "moved", made_up(), epochs=3, device="cuda")
    assert moved[-1]["epoch"] == 3
    assert abs(moved[-1]["test_elbo"] / records[-1]["test_elbo"] - 1) <= 1e-11
    there, here = runs.load(tmp_path / "moved", device="cuda"), runs.load(tmp_path / "moved")
    assert (there.device, here.device) == ("cuda", "cpu")
    images = made_up().test / 255.0
    for a, b in ((there.encode(images)[0], here.encode(images)[0]), (there.generate(4), here.generate(4)),
                 (there.reconstruct(images), here.reconstruct(images))):  # fmt: skip
        assert isinstance(a, np.ndarray)
        assert_close(a, b, 4096, "on the device and here")
    results = [tv.evaluate(model, made_up(), importance_samples=10) for model in (there, here)]
    assert abs(results[0].log_evidence / results[1].log_evidence - 1) <= 1e-11


ROW = 1e-12 if not card.ON_A_CARD else 1e-9  # relative; on a card the special functions are CuPy's, not SciPy's


@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=8)  # the shapes are tried in test_rules.py; here, whether arrays and numbers are the device's
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_every_row_stays_on_the_device(name, data, seed):
    """Value, gradients and replay of every readable row, without a copy to the host: NumPy's numbers to rounding."""
    shapes, attributes = data.draw(case_of(name))
    arrays = inputs_for(name, shapes, seed)

    def run(make):
        with tv.fused(False), tv.Tape() as tape:
            found, leaves = apply_row(name, [make(a) for a in arrays], attributes, requires_grad=name in SMOOTH)
            moving = [leaves[i] for i in differentiable(name, arrays)] if name in SMOOTH else []
            gradients = tv.grad(sum((y.sum() for y in found[1:]), found[0].sum()), moving) if moving else []
        tape.replay()
        return [*found, *gradients]

    here = run(lambda a: a)
    with pytest.MonkeyPatch.context() as patch:
        if card.ON_A_CARD:
            patch.setitem(NAMESPACES, "cupy", Namespace("cuda", "cupy", "cupyx.scipy.special"))
        else:
            fake_cupy.install(patch, Driver())
        xp = namespace("cuda")
        there = run(xp.asarray)
        assert all(isinstance(y.data, xp.ndarray) for y in there), f"{name} left the device"
    for a, b in zip(there, here, strict=True):
        assert a.dtype == b.dtype
        assert np.allclose(to_host(a.data), b.data, rtol=ROW, atol=ROW, equal_nan=True), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_named_often_add_up_in_one_order(driver, dtype):
    """The gradient of taking rows: the same bits each time, the sum to rounding, and no row gets another's NaN."""
    xp, draw = namespace("cuda"), np.random.default_rng(0)
    index, g = draw.integers(-7, 7, 1000), draw.normal(size=(1000, 3)).astype(dtype)
    index[index == 2] = 3  # rows 2 and -5 of seven are the same one
    index[index == -5] = -4
    g[index % 7 == 6] = np.nan
    found = [to_host(tv.Tensor(xp.asarray(g)).scatter(xp.asarray(index), rows=7).data) for _ in range(3)]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    expected = np.array([g[index % 7 == row].astype(np.float64).sum(0) for row in range(7)])
    assert_close(found[0][:6], expected[:6], 64, scale=np.abs(g[index % 7 < 6]).sum())
    assert not found[0][2].any()
    assert np.isnan(found[0][6]).all()


def test_two_devices_do_not_mix(driver):
    xp = namespace("cuda")
    with pytest.raises(DeviceError, match="one input on cuda and one on cpu"):
        tv.Tensor(xp.ones(3)) + tv.Tensor(np.ones(3))


@on_the_host
def test_the_stand_in_refuses_silent_copies(driver):
    a = namespace("cuda").asarray(np.ones(3))
    for leak in (lambda: float(a[0]), lambda: bool(a[0]), lambda: np.sum(a), lambda: np.asarray(a), lambda: list(a),
                 lambda: a + np.ones(3), lambda: namespace("cuda").add(a, np.ones(3)), lambda: int(a[0])):  # fmt: skip
        with pytest.raises(LeakError):
            leak()
    assert a.get().tolist() == [1, 1, 1]
    assert TABLE["add"].value(namespace("cuda"), a, a, out=None).get().tolist() == [2, 2, 2]
    assert require_cuda().__version__ == "14.2.0"
    with pytest.raises(TypeError, match="takes two arrays"):
        namespace("cuda").special.polygamma(1, a)
    with pytest.raises(ImportError):
        importlib.import_module("cupy.cuda.nvrtc")


@on_the_host
def test_the_command_line_says_what_tf32_costs(driver, tmp_path):
    """The error of loss and gradient, then a training in TF32 whose bound is the exact one's to that order."""
    bounds = []
    for more in ([], ["--tf32"]):
        options = ["--hidden", "8", "--latent", "2", "--batch", "500", "--epochs", "1", "--no-pictures", *more]
        out = ["--out", str(tmp_path / f"r{len(more)}")]
        result = CliRunner().invoke(put_together(), ["train", "digits", "--device", "cuda", *out, *options])
        assert result.exit_code == 0, result.output
        (record,) = map(json.loads, (tmp_path / f"r{len(more)}" / "metrics.jsonl").read_text().splitlines())
        bounds.append(record["test_elbo"])
    said = r"loss is off by (\S+) of itself, its gradient by (\S+) \(norms\)"
    loss, gradient = re.search(said, result.output).groups()
    assert 1e-9 < float(loss) < 1e-3
    assert 1e-6 < float(gradient) < 1e-2
    assert 0 < abs(bounds[1] / bounds[0] - 1) < 1e-3


# ---- trouble -------------------------------------------------------------------------


def training(batch):
    ready = Training(tv.VAE(36, 17, 5, device="cuda"), made_up(), Settings(batch=batch))
    ready.begin_epoch()
    return ready


@on_the_host
def test_a_batch_that_does_not_fit_names_one_that_does(driver, monkeypatch):
    """With the pool's figures; and the batch that it names does fit."""
    ready, cupy = training(50), require_cuda()
    make = cupy.empty

    def empty(shape, *rest):
        if np.size(shape) and np.prod(shape) in (50 * 36, 50 * 17):
            raise type("OutOfMemoryError", (MemoryError,), {})("out of memory allocating 7,200 bytes")
        return make(shape, *rest)

    monkeypatch.setattr(cupy, "empty", empty)
    monkeypatch.delitem(NAMESPACES["cupy"].__dict__, "empty", raising=False)
    with pytest.raises(DeviceError, match=r"batch of 50 does not fit.*3 MiB are in use.*5 of 16 MiB are free; a batch "
                                          r"of \d+ should fit \(--batch\)"):  # fmt: skip
        ready.step()
    training(20).step()


@on_the_host
def test_a_gpu_that_is_gone_leaves_the_last_checkpoint(driver, monkeypatch, tmp_path):
    """One sentence, and the run goes on from the last epoch on the CPU."""
    model = tv.VAE(36, 17, 5, device="cuda")

    def lose(record, timings):
        def gone(*_):
            raise type("CUDARuntimeError", (RuntimeError,), {})("cudaErrorDevicesUnavailable")

        if record["epoch"] == 2:
            monkeypatch.setattr(host.Function, "__call__", gone)

    with pytest.raises(DeviceError, match=r"GPU stopped answering \(cudaErrorDevicesUnavailable\).*--resume"):
        tv.fit(model, made_up(), tmp_path / "run", epochs=4, batch=20, on_epoch=lose)
    records = runs.resume(tmp_path / "run", made_up())
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
