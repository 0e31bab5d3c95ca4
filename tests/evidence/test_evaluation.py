"""Evaluation: its numbers by plain NumPy, and the evidence of a model where it is known."""

import dataclasses
import json
import math
import re
import tracemalloc

import numpy as np
import pytest
from oracles import Given, LinearGaussian, fixed
from scipy import special, stats
from support import assert_close, assert_same_bits, likely_zero
from tables import counts, table, zero

import tinyvae as tv
from tinyvae.engine.noise import Noise, normal, uniform
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence import evaluation as evidence
from tinyvae.evidence import importance
from tinyvae.evidence.columns import ACTIVE
from tinyvae.evidence.diagnostics import diagnosis, mean_and_error
from tinyvae.evidence.evaluation import BATCH, evaluate
from tinyvae.evidence.importance import log_evidence
from tinyvae.inference.bounds import elbo
from tinyvae.models import Batch
from tinyvae.runs.files import plain

MODEL = LinearGaussian.random(pixels=4, latent=2, seed=1)


def data_set(count=BATCH + 100, pixels="static", kind=np.uint8, scale=1.0, width=9):
    """More than one batch, the last one not full."""
    rng = np.random.default_rng(0)
    top = int(scale) + 1
    train, test = (rng.integers(0, top, (n, width)).astype(kind) for n in (30, count))
    return tv.DataSet(f"made-{pixels}", train, test, (width // 3, 3), scale, pixels, "bernoulli")


def vae(**options):
    return tv.VAE(9, hidden=6, latent=3, activation="tanh", dtype="float64", seed=2, **options)


# ---- against plain NumPy ------------------------------------------------------------------------------------------


def network(model, prefix, x):
    """The network by NumPy."""
    layers = sum(name.startswith(prefix) for name in model.parameters.tensors) // 2
    for i in range(layers):
        x = x @ model.parameters[f"{prefix}.{i}.weight"].data + model.parameters[f"{prefix}.{i}.bias"].data
        x = np.tanh(x) if i < layers - 1 else x
    return x


def by_numpy(model, x, seed):
    """Reconstruction, KL of each dimension and posterior means, (count, ...), by the formulas of AEVB."""
    mu, logvar = np.split(network(model, "encoder", x), 2, axis=1)
    eps = np.concatenate([normal(seed, "evaluate", number, 0, (len(part), model.latent), np.float64)
                          for number, part in enumerate(np.split(x, range(BATCH, len(x), BATCH)))])
    logits = network(model, "decoder", mu + np.exp(logvar / 2) * eps)
    reconstruction = (x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum(1)
    return reconstruction, 0.5 * (np.exp(logvar) + mu**2 - 1 - logvar), mu


def check_numbers(result, reconstruction, kl, mu):
    total, count = kl.sum(1), len(kl)
    for name, values in (("elbo", reconstruction - total), ("reconstruction", reconstruction), ("kl", total)):
        assert abs(getattr(result, name) - values.mean()) <= 1e-10, name
        error = math.sqrt(((values - values.mean()) ** 2).sum() / (count - 1) / count)
        assert abs(getattr(result, f"{name}_stderr") - error) <= 1e-10, f"{name}_stderr"
    assert_close(np.array(result.kl_per_dimension), kl.mean(0), 1e4)
    assert_close(np.array(result.kl_per_dimension_stderr), kl.std(0, ddof=1) / math.sqrt(count), 1e4)
    assert result.active_units == sum(np.var(mu[:, j]) > ACTIVE for j in range(mu.shape[1]))
    assert result.data_count == count
    assert abs(result.bits_per_pixel + (reconstruction - total).mean() / math.log(2) / 9) <= 1e-10


@pytest.mark.parametrize("seed", [0, 5])
def test_the_numbers_are_those_of_the_formulas(seed):
    model, data = vae(), data_set()
    found, expected = evaluate(model, data, seed=seed), by_numpy(model, data.test.astype(float), seed)
    check_numbers(found, *expected)
    assert found.data == "made-static"
    with pytest.raises(AssertionError, match="elbo"):  # other draws, other number: the tolerance sees one sample
        check_numbers(found, *by_numpy(model, data.test.astype(float), seed + 1))
    with pytest.raises(AssertionError, match="elbo"):
        check_numbers(dataclasses.replace(found, elbo=-found.elbo), *expected)
    over_n = found.kl_stderr * math.sqrt(1 - 1 / found.data_count)  # in place of n - 1
    with pytest.raises(AssertionError, match="stderr"):
        check_numbers(dataclasses.replace(found, kl_stderr=over_n), *expected)


def test_dynamic_pixels_come_from_a_stream_of_their_own():
    # a draw for each part, the same at every call, and not the training's
    model, data = vae(), data_set(pixels="dynamic", scale=16.0)
    for part in ("test", "train"):
        stored = getattr(data, part)
        u = [uniform(3, f"evaluate-binarise-{part}", number, 0, rows.shape)
             for number, rows in enumerate(np.split(stored, range(BATCH, len(stored), BATCH)))]
        x = (np.concatenate(u) < stored / np.float32(16)).astype(float)
        check_numbers(evaluate(model, data, seed=3, part=part), *by_numpy(model, x, 3))


def test_active_units_are_those_whose_mean_varies():
    # mu_j = s_j * x_j, x a bit: variances just above and just below the threshold, and a unit that is always off
    model = tv.VAE(4, hidden=4, latent=4, activation="relu", dtype="float64")
    model.parameters.flat[:] = 0
    model.parameters["encoder.0.weight"].data[...] = np.eye(4)
    x = np.random.default_rng(0).integers(0, 2, (1000, 4)).astype(float)
    scales = np.sqrt(ACTIVE / x.var(0)) * np.array([1.01, 0.99, 5.0, 0.0])
    model.parameters["encoder.1.weight"].data[:, :4] = np.diag(scales)
    result = evaluate(model, x)
    assert result.active_units == 2
    assert result.active_threshold == ACTIVE
    assert_close(np.array(result.kl_per_dimension), 0.5 * (scales * x).__pow__(2).mean(0), 1e3)


def test_the_standard_error_covers_the_truth():
    # means of samples lie within their stated errors as often as they should: z-scores have variance 1
    rng = np.random.default_rng(0)
    scores = np.array([np.divide(*mean_and_error(rng.standard_normal(200))) for _ in range(2000)])
    likely_zero("variance of z", (scores**2).mean() - 199 / 197, (scores**2).std() / math.sqrt(2000))
    with pytest.raises(AssertionError):  # the standard deviation in place of the mean's error
        likely_zero("variance of z", (scores**2 / 200).mean() - 199 / 197, (scores**2).std() / math.sqrt(2000))
    assert math.isnan(mean_and_error(np.ones(1))[1])  # one datum says nothing of its spread


# ---- importance sampling --------------------------------------------------------------------------------------------


class Counting:
    """An inference model that counts the draws made of it."""

    def __init__(self, mu, logvar):
        self.q, self.draws = fixed(mu, logvar)(None), 0

    def __getattr__(self, name):
        return getattr(self.q, name)

    def sample(self, noise, samples=1):
        self.draws += samples
        z = self.q.sample(noise, samples)
        assert len(z) == samples
        return z

    def draw(self, noise, samples=1):
        z = self.sample(noise, samples)
        return z, self.q.log_prob(z)


def wide_posterior(x, factor=1.3):
    """A q that covers the posterior, so that weights have a small variance."""
    mean, covariance = MODEL.exact_posterior(x)
    return mean, np.broadcast_to(np.log(factor * np.diag(covariance)), mean.shape).copy()


def points(count, seed=3):
    """Data of the model itself."""
    rng = np.random.default_rng(seed)
    z, e = rng.standard_normal((count, 2)), rng.standard_normal((count, 4))
    return z @ MODEL.weight.T + MODEL.bias + np.sqrt(MODEL.variance) * e


def check_evidence(x, estimate, effective, samples):
    """Estimates within their error, 1/ESS - 1/K for the variance of a logarithm, of the exact evidence."""
    variance = (1 / effective - 1 / samples).mean()
    likely_zero("log p(x)", (estimate - MODEL.log_evidence(x)).mean(), math.sqrt(variance / len(x)))


@pytest.mark.parametrize("samples", [2000, 5001])
def test_importance_sampling_finds_the_evidence(samples, monkeypatch):
    monkeypatch.setattr(importance, "CHUNK", 2**14)
    x = points(50)
    estimate, effective = log_evidence(MODEL.with_q(fixed(*wide_posterior(x))(x)), Batch(Tensor(x)), Noise(4), samples)
    assert estimate.dtype == np.float64
    assert ((effective > samples / 10) & (effective < samples)).all()
    check_evidence(x, estimate, effective, samples)
    mean_of_logarithms = elbo(MODEL, fixed(*wide_posterior(x)), Tensor(x), Noise(4), samples, "elbo-a").numpy()
    with pytest.raises(AssertionError):
        check_evidence(x, mean_of_logarithms, effective, samples)
    with pytest.raises(AssertionError):  # a tenth of the samples not used, and divided by all
        check_evidence(x, estimate + math.log(0.9), effective, samples)


def test_with_the_exact_posterior_one_sample_is_enough():
    # all weights are p(x): the estimate is exact, and every sample effective
    model = LinearGaussian.of_one_dimension()
    x = np.array([[1.3], [-0.4]])
    mean, covariance = model.exact_posterior(x)
    q = fixed(mean, np.full((2, 1), np.log(covariance[0, 0])))(x)
    for samples in (1, 2, 100):
        estimate, effective = log_evidence(model.with_q(q), Batch(Tensor(x)), Noise(0), samples)
        assert np.abs(estimate - model.log_evidence(x)).max() <= 1e-10
        assert np.abs(effective - samples).max() <= 1e-8


@pytest.mark.parametrize("chunk", [1, 7, 64, 10**6])
@pytest.mark.parametrize("samples", [1, 7, 50, 101])
def test_exactly_k_samples_are_used_whatever_the_chunk(samples, chunk, monkeypatch):
    # remainders too; and the sums do not depend on where they are cut
    x = points(3)
    monkeypatch.setattr(importance, "CHUNK", chunk * x.size)
    eps = np.random.default_rng(5).standard_normal((samples, 3, 2))
    noise, posterior = Given(eps), Counting(*wide_posterior(x))
    estimate, effective = log_evidence(MODEL.with_q(posterior), Batch(Tensor(x)), noise, samples)
    assert posterior.draws == noise.used == samples
    # the same from all weights at once
    mu, logvar = wide_posterior(x)
    z = mu + np.exp(logvar / 2) * eps
    of_x = -0.5 * (np.log(2 * np.pi * MODEL.variance) + (x - z @ MODEL.weight.T - MODEL.bias) ** 2 / MODEL.variance)
    of_z = -0.5 * (np.log(2 * np.pi) + z**2)
    of_q = -0.5 * (np.log(2 * np.pi) + logvar + eps**2)
    log_w = of_x.sum(-1) + of_z.sum(-1) - of_q.sum(-1)
    assert_close(estimate, special.logsumexp(log_w, axis=0) - math.log(samples), 1e3)
    w = np.exp(log_w - log_w.max(0))
    assert_close(effective, w.sum(0) ** 2 / (w**2).sum(0), 1e4)


def test_more_samples_take_no_more_memory(monkeypatch):
    monkeypatch.setattr(importance, "CHUNK", 2**12)
    x, peaks = points(8), []
    q = fixed(*wide_posterior(x))(x)
    for samples in (500, 500, 20_000):  # the first time, caches are filled
        tracemalloc.start()
        log_evidence(MODEL.with_q(q), Batch(Tensor(x)), Noise(0), samples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] <= 0.1 * (20_000 - 500) * 8 * 8  # of the bytes that the other weights of 8 data take


def test_weights_that_all_underflow_still_give_a_number():
    # log w near -10^5: exp of it is 0, the logarithm of the sum is not -inf
    x = np.full((1, 4), 300.0)
    model = MODEL.with_q(fixed([[0.0, 0.0]], [[0.0, 0.0]])(x))
    estimate, effective = log_evidence(model, Batch(Tensor(x)), Noise(0), 50)
    assert -1e6 < estimate[0] < -1e3
    assert 1 <= effective[0] <= 50


def test_the_evidence_of_a_vae_lies_above_its_bound():
    model, data = vae(), data_set(count=120)
    few, many = (evaluate(model, data, importance_samples=k) for k in (5, 500))
    assert few.elbo == many.elbo  # the bound's own draws do not depend on K
    assert few.elbo < few.log_evidence < many.log_evidence
    assert (few.importance_samples, many.importance_samples) == (5, 500)
    assert 1 <= few.effective_samples <= 5
    assert 0 < many.log_evidence_stderr < 1
    none = evaluate(model, data)
    assert (none.importance_samples, none.log_evidence, none.effective_samples) == (0, None, None)


def test_an_evaluation_has_every_number_that_is_promised():
    result = json.loads(json.dumps(evaluate(vae(), data_set(count=20), importance_samples=3).to_dict()))
    assert {"elbo", "elbo_stderr", "reconstruction", "kl", "log_evidence", "log_evidence_stderr",
            "importance_samples", "active_units", "data_count"} <= set(result)


# ---- other ways to log p(x) ------------------------------------------------------------------------------------------

ALWAYS = {"data", "data_count", "elbo", "elbo_stderr", "reconstruction", "reconstruction_stderr", "kl", "kl_stderr",
          "bits_per_pixel", "kl_per_dimension", "kl_per_dimension_stderr", "active_units", "active_threshold",
          "importance_samples", "log_evidence", "log_evidence_stderr", "effective_samples",
          "effective_samples_stderr"}  # fmt: skip
OF_A_METHOD = {"method", "log_evidence_sampling_stderr", "diagnosis"}
OF_MOVES = {"chains", "leapfrog", "acceptance", "energy_error"}
QUICK = {
    "importance": ({"importance_samples": 400}, {"pareto_k_high", "pareto_k_limit"}),
    "ais": ({"chains": 6, "temperatures": 15, "leapfrog": 3}, OF_MOVES | {"temperatures", "start"}),
    "hmc": ({"chains": 8, "draws": 20, "leapfrog": 3}, OF_MOVES | {"draws"}),
}


def test_all_methods_agree():
    model, data = vae(), data_set(count=60)
    found = {method: evaluate(model, data, method=method, **settings) for method, (settings, _) in QUICK.items()}
    bound, exact = evaluate(model, data), evaluate(model, data, 5_000)
    assert set(bound.to_dict()) == ALWAYS
    for method, result in found.items():
        settings, more = QUICK[method]
        assert set(result.to_dict()) == ALWAYS | OF_A_METHOD | more, method
        assert {name: getattr(result, name) for name in settings} == settings
        assert (result.method, result.data_count, result.elbo) == (method, 60, bound.elbo)  # the bound's own draws
        error = math.hypot(result.log_evidence_sampling_stderr, exact.log_evidence_sampling_stderr)
        likely_zero(method, result.log_evidence - exact.log_evidence, error)
        assert error < 0.02
        assert result.diagnosis == "no fault was found in log p(x)"
    assert found["hmc"].fresh_draws == 80
    assert 1 <= found["ais"].effective_samples <= 6 < found["hmc"].effective_samples <= 80
    assert found["importance"] == evaluate(model, data, 400)  # the method is importance if none is named


def test_methods_have_settings_of_their_own_that_need_not_be_given(monkeypatch):
    for method, (settings, _) in QUICK.items():
        more = {"start": "prior"} if method == "ais" else {}
        monkeypatch.setitem(evidence.METHODS, method, dataclasses.replace(
            evidence.METHODS[method], settings=settings | more, count={"ais": 7, "hmc": 500}.get(method)))
    model, data = vae(), data_set(count=30)
    for method, count, available in (("importance", 30, None), ("ais", 7, 30), ("hmc", 30, None)):
        result = evaluate(model, data, method=method)
        assert (result.data_count, result.data_available) == (count, available)
        assert {name: getattr(result, name) for name in QUICK[method][0]} == QUICK[method][0]
        assert result.start == ("prior" if method == "ais" else None)


@pytest.mark.parametrize("pixels", ["static", "dynamic"])
def test_the_first_data_are_those_at_the_head_of_all(pixels):
    model, data = vae(), data_set(pixels=pixels, scale=16.0 if pixels == "dynamic" else 1.0)
    for count in (1, 20, BATCH, BATCH + 7):
        head = dataclasses.replace(data, test=data.test[:count])
        some, all_of_few = evaluate(model, data, 3, count=count), evaluate(model, head, 3)
        assert plain(some.to_dict()) == plain(all_of_few.to_dict() | {"data_available": BATCH + 100})
        assert (some.data_count, some.data_available, some.elbo) == (count, BATCH + 100, all_of_few.elbo)
    assert evaluate(model, data, count=BATCH + 100) == evaluate(model, data)
    for count in (0, -3, BATCH + 101):
        many = f"found a count of {count} data; expected 1 to {BATCH + 100}"
        with pytest.raises(ValueError, match=many if count > 0 else f"found count {count}; expected a whole number"):
            evaluate(model, data, count=count)


@pytest.mark.parametrize("method", QUICK)
def test_progress_is_told_up_to_the_end(method, monkeypatch):
    monkeypatch.setattr(evidence, "BATCH", 8)
    monkeypatch.setattr(evidence.harmonic, "CANDIDATES", 4)
    shares = []
    evaluate(vae(), data_set(count=20), method=method, progress=shares.append, **QUICK[method][0])
    assert shares == sorted(shares)
    assert len(shares) >= 3
    assert abs(shares[-1] - 1) <= 1e-12


def test_settings_that_do_not_fit_are_refused():
    model, data = vae(), data_set(count=5)
    for options, message in (
        ({"method": "nuts"}, "found method 'nuts'; expected one of importance, ais, hmc"),
        ({"chains": 3, "draws": 2}, "found no method; expected one of importance, ais, hmc, which chains and draws"),
        ({"method": "importance", "chains": 3}, "found chains with the method importance, which takes importance_samp"),
        ({"importance_samples": 9, "temperatures": 3}, "found temperatures with the method importance"),
        ({"method": "ais", "importance_samples": 9}, "found importance_samples with the method ais, which takes"),
        ({"method": "hmc", "start": "prior"}, "found start with the method hmc"),
        ({"method": "ais", "chains": 0}, "found chains 0; expected a whole number, at least 1"),
        ({"method": "ais", "leapfrog": 2.5}, "found leapfrog 2.5; expected a whole number"),
        ({"method": "ais", "start": "q"}, "found start 'q'; expected one of encoder, prior"),
        ({"method": "hmc", "chains": 2}, "found 2 chains of 100 draws; expected at least 4 chains"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(model, data, **options)
    with pytest.raises(ValueError, match="found 5 latents; the method hmc takes at most 4, because"):
        evaluate(tv.VAE(9, hidden=6, latent=5), data, method="hmc")


# ---- is it to be trusted? --------------------------------------------------------------------------------------------


def column(count=50, **values):
    return {name: np.full(count, value) for name, value in values.items()}


def test_a_diagnosis_says_what_is_wrong_and_what_to_do():
    good = column(pareto_k=0.3, effective_samples=100.0, variance=1e-4)
    assert diagnosis("importance", 500, good) == "no fault was found in log p(x)"
    few = "too few draws for a diagnosis: the Pareto k takes 100"
    bad = column(pareto_k=math.nan, effective_samples=1.0, variance=9.0)
    assert diagnosis("importance", 50, bad) == few  # no warning from a handful of draws
    for share, fault in ((0.08, False), (0.12, True)):
        k = np.where(np.arange(50) < 50 * share, 0.8, 0.3)
        sentence = diagnosis("importance", 500, good | {"pareto_k": k})
        assert ("of the data have a Pareto k above 0.7" in sentence) == fault
    sentence = diagnosis("importance", 500, column(pareto_k=math.nan, effective_samples=4.2, variance=0.1))
    assert sentence == (
        "log p(x) is not to be trusted: 100% of the data have a Pareto k above 0.7 (10% are allowed), so rare "
        "large weights that were not drawn dominate the mean, and the effective sample size is 4.2 (at least 10 are "
        "needed); take more samples, or the method ais")  # fmt: skip
    for method, side in (("ais", "low"), ("hmc", "high")):
        assert diagnosis(method, 8, column(variance=0.19)) == "no fault was found in log p(x)"
        assert f"it is too {side} by 0.15 nats or more" in diagnosis(method, 8, column(variance=0.3))
        assert "not to be trusted" in diagnosis(method, 8, column(variance=math.nan))
    assert diagnosis("ais", 1, column(variance=math.nan)).startswith("too few draws for a diagnosis: two chains")


def test_an_encoder_that_is_too_narrow_is_found_out():
    """q(z|x) with a fifth of the posterior's width: importance sampling is wrong and says so, annealing is right."""
    model, data = vae(), data_set(count=40)
    right = evaluate(model, data, 2000)
    last = max(name for name in model.parameters.tensors if name.startswith("encoder") and name.endswith("bias"))
    model.parameters[last].data[model.latent :] -= 2 * math.log(5)
    wrong = evaluate(model, data, 2000)
    assert wrong.pareto_k_high > 0.9
    assert wrong.diagnosis.startswith("log p(x) is not to be trusted: 9")
    assert right.pareto_k_high < 0.1
    annealed = evaluate(model, data, method="ais", chains=8, temperatures=100, leapfrog=5)
    assert wrong.log_evidence < right.log_evidence - 0.3
    assert abs(annealed.log_evidence - right.log_evidence) <= 0.1


# ---- manners --------------------------------------------------------------------------------------------------------


def test_evaluating_twice_gives_the_same_bits():
    model, data = vae(), data_set(pixels="dynamic", scale=16.0)
    before = model.parameters.flat.tobytes()
    assert evaluate(model, data, 3, seed=1) == evaluate(model, data, 3, seed=1)
    assert evaluate(model, data, 3, seed=1).elbo != evaluate(model, data, 3, seed=2).elbo
    assert model.parameters.flat.tobytes() == before


def test_evaluating_does_not_disturb_training():
    data = data_set(count=20, pixels="dynamic", scale=16.0)
    ends = []
    for look in (False, True):
        model = vae()
        on_step = (lambda training, done: evaluate(training.model, training.data, 2)) if look else None
        tv.fit(model, data, on_step=on_step, epochs=2, batch=8)
        ends.append(model.parameters.flat)
    assert_same_bits(*ends)


def test_float32_agrees_with_float64():
    data = data_set()
    wide, narrow = vae(), tv.VAE(9, hidden=6, latent=3, activation="tanh", seed=2)
    for name, tensor in narrow.parameters.tensors.items():
        tensor.data[...] = wide.parameters[name].data
    a, b = (evaluate(m, data.test.astype(m.dtype), 20) for m in (wide, narrow))
    # the noise differs in the digits that float32 lacks, about 1e-7, summed over pixels
    for name in ("elbo", "reconstruction", "kl", "log_evidence", "elbo_stderr"):
        assert abs(getattr(a, name) - getattr(b, name)) <= 1e-5, name


def test_a_model_whose_numbers_overflow_is_not_given_a_number():
    """Its parameters are finite, and sums of their products are inf - inf."""
    model = vae()
    largest = np.finfo(model.dtype).max
    model.parameters["decoder.1.weight"].data[...] = largest
    model.parameters["decoder.1.weight"].data[::2] = -largest
    result = evaluate(model, data_set(count=10), importance_samples=4)
    for name in ("elbo", "elbo_stderr", "reconstruction", "bits_per_pixel", "log_evidence", "log_evidence_stderr"):
        assert not math.isfinite(getattr(result, name)), name
    assert math.isfinite(result.kl)  # the encoder is sound
    model.parameters["encoder.1.weight"].data[...] = model.parameters["decoder.1.weight"].data[:1, :1]
    result = evaluate(model, data_set(count=10))
    assert not math.isfinite(result.kl)


def test_a_model_with_a_parameter_that_is_not_finite_is_refused():
    model = vae()
    model.parameters["decoder.0.weight"].data[0, 0] = np.nan
    with pytest.raises(ValueError, match="found 1 of 189 parameters of a vae that are not finite, so that no"):
        evaluate(model, data_set(count=10))


def test_what_cannot_be_evaluated_is_refused():
    model, data = vae(), data_set(count=5)
    with pytest.raises(ValueError, match="found importance_samples -1; expected a whole number, at least 0"):
        evaluate(model, data, -1)
    with pytest.raises(ValueError, match="made-static has no part 'valid'"):
        evaluate(model, data, part="valid")
    with pytest.raises(ValueError, match="found part 'tset'; expected one of train, valid, test"):
        evaluate(model, data, part="tset")
    with pytest.raises(ValueError, match="the array has 8 pixels a datum; the model takes 9"):
        evaluate(model, np.zeros((5, 8)))
    for shape in ((0, 9), (9,)):
        with pytest.raises(ValueError, match=r"found the array of shape \(.*\); expected an array \(count, pixels\)"):
            evaluate(model, np.zeros(shape))


@pytest.mark.parametrize(("wrong", "cure"), [(255.0, r"images / 255\)"), (-0.1, "np.interp"), (np.nan, "Drop")])
def test_pixels_of_an_array_outside_0_to_1_are_refused(wrong, cure):
    """Bytes given by mistake would get a number that looks like a bound."""
    images = np.zeros((3, 9), np.float32)
    images[1, 2] = wrong
    with pytest.raises(ValueError, match=f"in the array; expected numbers from 0 to 1. .*{cure}"):
        evaluate(vae(), images)


def test_an_evaluation_prints_as_a_table():
    model, x = tv.VAE(6, 5, 2, dtype="float64"), np.random.default_rng(0).integers(0, 2, (30, 6)).astype(float)
    found = tv.evaluate(model, x, method="ais", count=4, chains=2, temperatures=3)
    title, heads, *rows, remark = str(found).split("\n")
    assert title == "the array, the first 4 of 30 data, one draw of z each"
    assert re.split("  +", heads) == ["quantity", "value", "std. error", "unit", "direction"]
    cells = {row[0]: row[1:] for row in (re.split("  +", line) for line in rows)}
    assert cells["ELBO"] == [f"{found.elbo:.3f}", f"{found.elbo_stderr:.3f}", "nats per datum", "higher is better"]
    assert cells["log p(x), ais"][:2] == [f"{found.log_evidence:.3f}", f"{found.log_evidence_stderr:.3f}"]
    assert cells["effective samples"][2] == "of 2 chains"
    assert cells["active units"][:2] == [f"{found.active_units}", "of 2"]
    assert cells["energy error"][-1] == "lower is better"
    assert [name for name in cells if name.startswith("KL of z")] == ["KL of z0", "KL of z1"]
    assert remark == f"ais: from the encoder by 3 temperatures; {found.diagnosis}"
    alone = tv.evaluate(model, x[:1])  # a single datum has no standard error
    assert re.split("  +", str(alone).split("\n")[2]) == ["ELBO", f"{alone.elbo:.3f}", "nats per datum",
                                                          "higher is better"]


def test_bounds_of_standardised_columns_are_densities_in_own_units_too():
    """With zero weights a column is N(center, spread^2), whose density SciPy has."""
    data = table()
    model = zero(data)
    expected = stats.norm(data.center, data.spread).logpdf(data.own_units(data.test)).sum(1)
    found = tv.evaluate(model, data, 3)
    for value, error in ((found.elbo_own_units, found.elbo_own_units_stderr),
                         (found.log_evidence_own_units, found.log_evidence_own_units_stderr)):
        assert value == pytest.approx(expected.mean(), abs=1e-9)
        assert error == pytest.approx(expected.std(ddof=1) / np.sqrt(len(expected)), rel=1e-6)
    assert found.elbo == pytest.approx(stats.norm.logpdf(data.test.astype(float)).sum(1).mean(), abs=1e-9)
    text = str(found)
    assert "bits per column" in text
    assert "ELBO, own units" in text
    assert "own units" not in str(tv.evaluate(zero(counts()), counts()))
    assert tv.evaluate(model, data, 3, count=7).elbo_own_units == pytest.approx(expected[:7].mean(), abs=1e-9)
