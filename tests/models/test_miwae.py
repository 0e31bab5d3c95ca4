"""MIWAE: its bound, its imputations and its held-out values against a linear-Gaussian model, where all is exact."""

import dataclasses
import math

import numpy as np
import pytest
from linear import Law
from support import assert_same_bits, likely_zero

import tinyvae as tv
from tinyvae.distributions import LIKELIHOODS, Normal
from tinyvae.distributions.registry import Likelihood
from tinyvae.evidence import importance
from tinyvae.evidence.importance import HELD_OUT, held_out
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch, model_for
from tinyvae.tasks.chains import chains
from tinyvae.tasks.completion import complete
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

MASK = np.array([1.0, 0, 1, 1, 0])
SEEN = MASK > 0
X = np.array([0.9, 0.1, 0.2, 0.7, 0.5])


@pytest.fixture
def linear(monkeypatch):
    """A MIWAE that is linear-Gaussian, with a q that fits no mask, and the law of x."""
    monkeypatch.setitem(LIKELIHOODS, "tests-normal", Likelihood(Normal, "grey"))
    model = tv.models.build_model({"kind": "miwae", "pixels": 5, "hidden": [3], "latent": 2, "dtype": "float64",
                                   "likelihood": "tests-normal", "activation": "softplus"})
    # The hidden layer of the decoder is a line as far as rounding goes: softplus(a + 100) = a + 100.
    rng = np.random.default_rng(7)
    weight, bias, logvar = rng.normal(size=(5, 2)), rng.normal(size=5), rng.uniform(-1.5, 0, 5)
    first, last = model.decoder.layers
    first.weight.data[...], first.bias.data[...] = np.eye(2, 3), 100.0
    last.weight.data[...] = 0
    last.weight.data[:2, :5] = weight.T
    last.bias.data[:5], last.bias.data[5:] = bias - 100 * weight.sum(1), logvar
    return model, Law(bias, weight @ weight.T + np.diag(np.exp(logvar)))


def rows(x=X, mask=MASK, count=1):
    return Batch(tv.Tensor(np.tile(x, (count, 1))), mask=tv.Tensor(np.tile(mask, (count, 1))))


def test_the_bound_is_below_log_p_of_what_was_observed_and_rises(linear):
    model, law = linear
    right, count = law.of(SEEN).log_density(X[SEEN]), 4000
    found = {}
    for k in (1, 3, 20, 200):
        draw = Draw(tv.Noise(k), bound="iwae", importance_samples=k)
        bound = model.terms(rows(count=count if k < 200 else 400), draw)["bound"].numpy()
        found[k] = bound.mean(), bound.std(ddof=1) / math.sqrt(len(bound))
    for (low, e), (high, f) in zip(list(found.values())[:-1], list(found.values())[1:], strict=True):
        assert high - low > 5 * math.hypot(e, f)
    mean, error = found[200]
    assert right - 0.1 < mean < right + 5 * error


def test_weights_are_constant_where_q_is_the_posterior(monkeypatch):
    """With a single latent, and q set to the exact p(z|x_obs) of this mask, every weight is p(x_obs)."""
    monkeypatch.setitem(LIKELIHOODS, "tests-normal", Likelihood(Normal, "grey"))
    model = tv.models.build_model({"kind": "miwae", "pixels": 5, "hidden": [1], "latent": 1, "dtype": "float64",
                                   "likelihood": "tests-normal", "activation": "softplus"})
    rng = np.random.default_rng(8)
    weight, bias, logvar = rng.normal(size=(5, 1)), rng.normal(size=5), rng.uniform(-1.5, 0, 5)
    (a, b), (c, d) = model.decoder.layers, model.encoder.layers
    a.weight.data[...], a.bias.data[...] = 1.0, 100.0
    b.weight.data[0], b.bias.data[...] = [*weight[:, 0], *np.zeros(5)], [*(bias - 100 * weight[:, 0]), *logvar]
    gain = SEEN * weight[:, 0] / np.exp(logvar)
    variance = 1 / (1 + (gain * weight[:, 0]).sum())
    c.weight.data[...] = np.concatenate([variance * gain, np.zeros(5)])[:, None]
    c.bias.data[...] = 100 - variance * (gain * bias).sum()
    d.weight.data[...], d.bias.data[...] = [[1.0, 0.0]], [-100.0, math.log(variance)]
    law = Law(bias, weight @ weight.T + np.diag(np.exp(logvar)))
    log_w = model.log_weights(rows(), Draw(tv.Noise(0)), 6).numpy()
    np.testing.assert_allclose(log_w, law.of(SEEN).log_density(X[SEEN]), atol=1e-10)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli", "gaussian"])
def test_what_is_stored_in_a_missing_place_changes_nothing(likelihood):
    """Neither the bound nor a gradient; not even NaN does."""
    found = []
    for missing in (0.0, 1.0, np.nan):
        model = tv.models.build_model({"kind": "miwae", "pixels": 5, "hidden": [4], "latent": 2,
                                       "likelihood": likelihood, "dtype": "float64"})
        bound = model.terms(rows(np.where(SEEN, np.round(X), missing)), Draw(tv.Noise(1), bound="iwae",
                                                                           importance_samples=3))["bound"].sum()
        found.append([bound.numpy(), *(g.numpy() for g in tv.grad(bound, list(model.parameters)))])
    for other in found[1:]:
        for value, right in zip(other, found[0], strict=True):
            assert_same_bits(value, right)
    assert np.isfinite(found[0][0])
    of_pixels = found[0][-1][:5]  # of the last bias of the decoder: the derivative by the parameters of each pixel
    assert (of_pixels[~SEEN] == 0).all()
    assert (of_pixels[SEEN] != 0).all()


def test_with_nothing_missing_it_is_the_bound_of_all_pixels():
    model = tv.models.build_model({"kind": "miwae", "pixels": 5, "hidden": [4], "latent": 2, "dtype": "float64"})
    x = tv.Tensor(np.round(np.random.default_rng(9).uniform(size=(3, 5))))
    draw = {"bound": "iwae", "importance_samples": 4}
    found = model.terms(Batch(x, mask=tv.Tensor(np.ones((3, 5)))), Draw(tv.Noise(0), **draw))["bound"].numpy()
    expected = tv.terms_of(model, model.q, x, Draw(tv.Noise(0), **draw))["bound"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_imputations_are_the_exact_conditional(linear):
    """Many rows hold the same datum; their imputations scatter around its conditional mean and covariance."""
    model, law = linear
    x, count = X.astype(np.float32), 150
    data = tv.DataSet("made", x[None], np.tile(x * MASK, (count, 1)).astype(np.float32), (1, 5), 1.0,
                      test_mask=np.tile(MASK, (count, 1)).astype(np.uint8))
    found = complete(model, data, draws=40, sweeps=20, count=None)
    right = law.given(SEEN, x[SEEN].astype(float))
    assert found.method == "importance"
    assert found.kept == 800
    for i, j in enumerate(np.flatnonzero(~SEEN)):
        gap = found.mean[:, j] - right.mean[i]
        likely_zero(f"mean {i}", gap.mean(), gap.std(ddof=1) / math.sqrt(count))
        gap = found.draws[:, :, j].mean(0) - right.mean[i]
        likely_zero(f"draws {i}", gap.mean(), gap.std(ddof=1) / math.sqrt(count))
        gap = ((found.draws[:, :, j] - right.mean[i]) ** 2).mean(0) - right.covariance[i, i]
        likely_zero(f"variance of the draws {i}", gap.mean(), gap.std(ddof=1) / math.sqrt(count))


def test_held_out_values_have_their_exact_probability(linear):
    model, law = linear
    rng = np.random.default_rng(10)
    x, mask = rng.uniform(size=(300, 5)), (rng.uniform(size=(300, 5)) < 0.8).astype(float)
    batch = Batch(tv.Tensor(x), mask=tv.Tensor(mask))
    found, count = held_out(model, batch, tv.Noise(3, "held-out"), 400)
    held = (mask > 0) & (tv.Noise(3, "held-out").uniform((300, 5), np.float64).numpy() < HELD_OUT)
    assert (count == held.sum(1)).all()
    assert (found[count == 0] == 0).all()
    exact = np.zeros(300)
    for row in np.flatnonzero(count):
        seen = (mask[row] > 0) & ~held[row]
        chosen = (seen | held[row]).nonzero()[0]
        exact[row] = law.of(chosen).log_density(x[row, chosen]) - (
            law.of(seen).log_density(x[row, seen]) if seen.any() else 0)
    gap = (np.exp(found - exact) - 1)[count > 0]
    likely_zero("p(held out | observed)", gap.mean(), gap.std(ddof=1) / math.sqrt(len(gap)))
    assert np.abs(gap).mean() < 0.2


# ---- with data sets --------------------------------------------------------------------------------------------------


def holes(count, **more):
    """Rows of two kinds, of which a third of the values is missing."""
    rng = np.random.default_rng(11)
    kind = rng.integers(0, 2, (count, 1))
    x = (rng.uniform(size=(count, 6)) < np.where(kind, 0.9, 0.1)).astype(np.uint8)
    mask = (rng.uniform(size=x.shape) < 2 / 3).astype(np.uint8)
    n = count // 2
    return tv.DataSet("holes", (x * mask)[:n], (x * mask)[n:], (2, 3), 1.0, "static", "bernoulli",
                      train_mask=mask[:n], test_mask=mask[n:], **more), x[n:]


def test_it_trains_resumes_and_chooses_by_held_out_values(tmp_path):
    data, truth = holes(400)
    settings = {"validation": 40, "batch": 20, "lr": 0.02, "seed": 1}
    model = model_for("miwae", data, hidden=12, latent=2)
    whole = tv.fit(model, data, out=tmp_path / "whole", epochs=12, **settings)
    tv.fit(model_for("miwae", data, hidden=12, latent=2), data, out=tmp_path / "run", epochs=5, **settings)
    again = tv.resume(tmp_path / "run", data=data, epochs=12)
    assert [r["fingerprint"] for r in again] == [r["fingerprint"] for r in whole]
    assert whole[-1]["importance_samples"] == 20
    assert whole[-1]["train_bound"] > whole[0]["train_bound"] + 0.2
    best = max(whole, key=lambda r: r["valid_held_out"])
    assert [r for r in whole if r["best"]][-1] is best
    found = tv.evaluate(tv.load(tmp_path / "run"), data)
    assert found.held_out == pytest.approx(best["test_held_out"], abs=1e-9)
    assert found.held_out > math.log(0.5)  # better than a coin
    assert "log p(held out | observed)" in str(found)
    imputed = complete(tv.load(tmp_path / "run"), data, draws=20, sweeps=10, count=None)
    wrong = ((imputed.mean > 0.5) != truth)[imputed.missing].mean()
    assert wrong < 0.3  # the most frequent value of a column is wrong in half of them


def test_another_bound_takes_none_of_its_defaults():
    data, _ = holes(40)
    record = tv.fit(model_for("miwae", data, hidden=4, latent=2), data, epochs=1, bound="elbo-b")[-1]
    assert "train_bound" not in record
    assert record["train_kl"] is not None
    assert tv.fit(model_for("miwae", data, hidden=4, latent=2), data, epochs=1, importance_samples=3)[-1][
        "importance_samples"] == 3


def test_without_a_mask_all_is_observed():
    data, _ = holes(40)
    whole = dataclasses.replace(data, train_mask=None, test_mask=None)
    ones = dataclasses.replace(data, train_mask=np.ones_like(data.train), test_mask=np.ones_like(data.test))
    records = [tv.fit(model_for("miwae", d, hidden=4, latent=2), d, epochs=1)[-1] for d in (whole, ones)]
    assert records[0] == records[1]


def test_a_model_that_reads_no_mask_refuses_holes():
    data, _ = holes(40)
    with pytest.raises(ValueError, match=r"missing values.* a vae .*miwae"):
        tv.fit(tv.VAE(6, 4, 2), data)


def test_the_best_epoch_is_that_of_the_held_out_values(monkeypatch):
    """Here they are predicted worse and worse, while the bound rises."""
    fall = iter(range(100))
    monkeypatch.setattr(importance, "held_out", lambda model, batch, *_: (np.full(len(batch), -float(next(fall))),
                                                                          np.ones(len(batch))))
    data, _ = holes(80)
    records = tv.fit(model_for("miwae", data, hidden=4, latent=2), data, epochs=9, validation=10, patience=2, lr=0.02)
    assert [r["best"] for r in records] == [True, False, False]
    assert records[2]["valid_bound"] > records[0]["valid_bound"]


def test_draws_by_the_mask_do_not_depend_on_how_the_image_is_filled():
    model = tv.models.build_model({"kind": "miwae", "pixels": 5, "hidden": [4], "latent": 2})
    batch = Batch(tv.Tensor(np.round(X)[None].astype(np.float32)), mask=tv.Tensor(MASK[None].astype(np.float32)))
    found = [[state.z.data for state in chains(model, batch, ~SEEN[None], np.full(5, fill), tv.Noise(0), 3, 3,
                                               "importance")] for fill in (0.0, 1.0)]
    for one, other in zip(*found, strict=True):
        assert_same_bits(one, other)


def test_the_bias_starts_at_the_mean_of_what_was_observed():
    data, _ = holes(80)
    model = model_for("miwae", data, hidden=4, latent=2)
    Training(model, data, Settings(data_mean_bias=True)).begin_epoch()
    mean = data.train.sum(0) / data.train_mask.sum(0)
    np.testing.assert_allclose(model.decoder.layers[-1].bias.data, np.log(mean / (1 - mean)), rtol=1e-5, atol=1e-6)
