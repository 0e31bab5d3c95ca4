"""Completions: means, spreads and log p(hidden | observed) of a linear-Gaussian VAE are the exact ones."""

import dataclasses
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from linear import LinearGaussian, linear_gaussian, set_encoder, set_layer
from scipy import stats
from support import assert_same_bits, likely_zero
from tables import counts, table

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.models import MODELS
from tinyvae.tasks import completion
from tinyvae.tasks.baselines import nearest, pixel_means, training_moments
from tinyvae.tasks.completion import Average, complete

HIDDEN = np.array([[False, True, False, True, False]])


def linear_data(rows=3):
    x = np.random.default_rng(2).uniform(size=(2 * rows, 5)).astype(np.float32)
    return tv.DataSet("made", x[:rows], x[rows:], (1, 5), 1.0)


def bits(count=40, **more):
    x = np.random.default_rng(3).integers(0, 2, (count, 6)).astype(np.uint8)
    return tv.DataSet("bits", x[: count // 2], x[count // 2 :], (2, 3), 1.0, "static", "bernoulli", **more)


# Weights of a worse q would be so uneven that the bias of their weighted mean showed.
@pytest.mark.parametrize(("method", "draws", "sweeps", "shift"), [("metropolis", 8, 160, 0.4),
                                                                  ("importance", 40, 30, 0.1)])
def test_the_exact_answer_under_a_wrong_posterior(method, draws, sweeps, shift):
    """Many rows hold the same datum: their answers are independent, and scatter around the exact one."""
    model, law, exact = linear_gaussian()
    set_encoder(model.encoder, *exact, shift=shift, widen=2.5)
    x = linear_data(1).test
    data, seen, rows = tv.DataSet("made", x, np.tile(x, (150, 1)), (1, 5), 1.0), ~HIDDEN[0], 150
    found = complete(model, data, HIDDEN, method, draws, sweeps, count=None)
    right = law.given(seen, x[0, seen].astype(float))
    gaps = {"mean": found.mean[:, ~seen] - right.mean,
            "variance": found.sd[:, ~seen] ** 2 - np.diag(right.covariance) + (found.mean[:, ~seen] - right.mean) ** 2,
            "draws": found.draws.mean(0)[:, ~seen] - right.mean,
            # log p has a bias of the order of 1 / draws, p has none
            "p": np.exp(-2 * found.nats[:, None] - right.log_density(x[0, ~seen].astype(float))) - 1}
    for what, gap in gaps.items():
        for i, column in enumerate(gap.T):
            likely_zero(f"{method}, {what} {i}", column.mean(), column.std(ddof=1) / math.sqrt(rows))
    assert (found.draws[:, :, seen] == found.x[:, seen]).all()
    assert (found.sd[:, seen] == 0).all()
    assert (found.kept, found.hidden.tolist()) == (draws * sweeps // 2, np.tile(HIDDEN, (rows, 1)).tolist())


def test_colours_are_hidden_with_all_channels_and_counted_by_value():
    """log p(hidden | observed) of a model without weights is the sum over the hidden values of each channel."""
    rng = np.random.default_rng(4)
    x = rng.random((6, 12)).astype(np.float32)
    data = tv.DataSet("made", x[:3], x[3:], (2, 2, 3), 1.0, "color")
    model = LinearGaussian(12, latent=2, dtype="float64")
    set_layer(model.decoder, np.zeros((12, 2)), mean := rng.random(12), logvar := rng.uniform(-1.5, 0, 12))
    found = complete(model, data, "left", "gibbs", draws=2, sweeps=4)
    assert (found.hidden == np.tile([True] * 3 + [False] * 3, (3, 2))).all()
    hidden = found.hidden[0]
    right = -stats.norm.logpdf(x[3:], mean, np.exp(logvar / 2))[:, hidden].mean(1)
    np.testing.assert_allclose(found.nats, right, rtol=1e-12)
    assert "nats per hidden value" in str(found)
    assert "50% of the values missing" in str(found)


class Conditional(LinearGaussian, kind="tests-linear-conditional"):
    """p(z|c) p(t|z) of the target t = (x_3, x_1), given c = the other pixels; both are linear."""

    condition = SimpleNamespace(pixels=np.array([3, 1]), words="three pixels")

    def build(self, pixels, latent=1):
        super().build(pixels, latent)
        self.decoder = self.network("target", latent, (), Normal, 2)

    def generator(self, batch):
        return tv.Joint(self.encoder(batch.x), lambda z: self.decoder(z))


del MODELS["tests-linear-conditional"]


def test_a_method_that_does_not_fit_names_those_that_do():
    model = tv.VAE(64, hidden=4, latent=2)
    with pytest.raises(ValueError, match=r"leaves open; expected here gibbs, metropolis, importance$"):
        tv.complete(model, tv.data.load("digits-static"), "left", "prior")


def test_the_conditional_prior_answers():
    """Set to the exact p(z|c), it gives draws of the exact p(t|c)."""
    plain, law, _ = linear_gaussian(latent=1, seed=1)
    weight, bias = plain.decoder.layers[0].weight.data[0, :5], law.mean
    variance = np.diag(law.covariance) - weight**2
    seen, model = ~HIDDEN[0], Conditional(5, dtype="float64")
    gain = seen * weight / variance
    spread = 1 / (1 + (gain * weight).sum())
    set_layer(model.encoder, spread * gain[None], np.array([-spread * (gain * bias).sum()]), np.log([spread]))
    order = model.condition.pixels
    set_layer(model.decoder, weight[order][:, None], bias[order], np.log(variance[order]))
    x = linear_data(1).test
    data = tv.DataSet("made", x, np.tile(x, (200, 1)), (1, 5), 1.0)
    found = complete(model, data, draws=10, sweeps=4, count=None)
    assert (found.method, found.kept) == ("prior", 40)
    assert (found.missing == HIDDEN).all()
    assert (found.draws[:, :, seen] == x[0, seen]).all()
    right, own = law.given(seen, x[0, seen].astype(float)), HIDDEN[0]
    gaps = {"mean": found.mean[:, own] - right.mean, "draws": found.draws.mean(0)[:, own] - right.mean,
            "variance": ((found.draws[:, :, own] - right.mean) ** 2).mean(0) - np.diag(right.covariance),
            "p": np.exp(-2 * found.nats[:, None] - right.log_density(x[0, own].astype(float))) - 1}
    for what, gap in gaps.items():
        for i, column in enumerate(gap.T):
            likely_zero(f"prior, {what} {i}", column.mean(), column.std(ddof=1) / math.sqrt(200))
    with pytest.raises(ValueError, match="found pixels to hide from a tests-linear-conditional that is given three"):
        complete(model, data, "random:0.5")
    with pytest.raises(ValueError, match="found the method gibbs with a tests-linear-conditional; the method prior"):
        complete(model, data, method="gibbs")


def test_on_average_minus_log_p_is_an_upper_bound():
    model, law, _ = linear_gaussian(latent=1, seed=1)  # whose q is the exact posterior
    x, seen = linear_data(1).test, ~HIDDEN[0]
    data = tv.DataSet("made", x, np.tile(x, (1500, 1)), (1, 5), 1.0)
    found = complete(model, data, HIDDEN, "metropolis", 1, 4, 2, count=None)
    gaps = found.nats + law.given(seen, x[0, seen].astype(float)).log_density(x[0, ~seen].astype(float)) / 2
    assert gaps.mean() > 3 * gaps.std() / math.sqrt(1500)


def test_averages_of_weighted_draws():
    """Those of all draws together, whatever their weights, and in whichever pieces they came."""
    rng = np.random.default_rng(4)
    log_weight, value = 400 * rng.normal(size=(7, 2)), rng.normal(size=(7, 2, 3))
    average = Average(2)
    for piece in (slice(0, 2), slice(2, 3), slice(3, 7)):
        share = average.add(log_weight[piece], value=value[piece])
    w = np.exp(log_weight - log_weight.max(0))
    w /= w.sum(0)
    np.testing.assert_allclose(average.means["value"], (w[..., None] * value).sum(0), rtol=1e-12)
    np.testing.assert_allclose(average.effective, 1 / (w**2).sum(0), rtol=1e-12)
    np.testing.assert_allclose(share, w[3:], rtol=1e-12)


def test_completions_by_importance_have_the_probabilities_of_their_weights():
    """A pixel that is decided by z: the share of completions in which it is 1 is its mean."""
    model, data = tv.VAE(6, 5, 2, dtype="float64", seed=4), bits()
    model.decoder.layers[-1].weight.data[...] *= 6
    found = complete(model, data, "left", "importance", draws=1000, sweeps=6, count=2)
    gap = found.draws.mean(0) - found.mean
    # of the choice by weight, and of the draws among which is chosen
    error = np.sqrt(found.mean * (1 - found.mean) * (1 / 1000 + 1 / found.effective[:, None]))
    for i, j in zip(*np.nonzero(found.missing), strict=True):
        likely_zero(f"pixel {j} of row {i}", gap[i, j], error[i, j])


def test_what_is_printed():
    model, data = tv.VAE(6, 5, 2), bits()
    found = complete(model, data, "top", "metropolis", draws=3, sweeps=8, gibbs_sweeps=2)
    text = str(found)
    for part in ("bits, 20 data, 50% of the pixels missing", "-log p(hidden | observed), metropolis",
                 "each pixel's training mean", "one-shot re-encoding", "wrong pixels, nearest training image",
                 "acceptance", "3 chains a datum, 8 sweeps each, the first 2 of gibbs; means over the 12 draws of z"):
        assert part in text
    assert found.to_dict()["hidden_count"] == 60
    names = [quantity["name"] for quantity in found.to_dict()["quantities"]]
    assert "-log p(hidden | observed), one-shot re-encoding" in names
    assert all(name == name.strip() for name in names)


def test_the_baselines():
    """The pixel mean by hand, and the nearest training image by the observed pixels alone."""
    data, model = bits(), tv.VAE(6, 5, 2, dtype="float64")
    mean = (data.train.sum(0) + 1) / 22
    np.testing.assert_allclose(training_moments(data)[0], mean, rtol=1e-12)
    found = complete(model, data, "top", draws=2, sweeps=2)
    p = np.where(data.test == 1, mean, 1 - mean)[:, :3]
    np.testing.assert_allclose(found.baselines["each pixel's training mean"], -np.log(p).mean(1), rtol=1e-9)
    missing = found.missing
    best = nearest(data, found.x, missing)
    for row, image in enumerate(best):
        gaps = np.abs(data.train[:, 3:].astype(int) - data.test[row, 3:]).sum(1)
        assert np.abs(image[3:] - data.test[row, 3:]).sum() == gaps.min()
        assert (data.train == image).all(1).any()
    assert found.wrong["nearest training image"] == pytest.approx((best != data.test)[:, :3].mean(1))


def test_one_shot_re_encoding_by_hand():
    data, model = bits(), tv.VAE(6, 5, 2, dtype="float64", seed=1)
    found = complete(model, data, "top", draws=2, sweeps=2)
    filled = np.where(found.missing, (data.train.sum(0) + 1) / 22, data.test)
    p = model.decode(model.encode(filled)[0])
    p = np.where(data.test == 1, p, 1 - p)[:, :3]
    np.testing.assert_allclose(found.baselines["one-shot re-encoding"], -np.log(p).mean(1), rtol=1e-9)


def test_the_pixel_mean_of_every_likelihood():
    for likelihood in ("bernoulli", "continuous-bernoulli", "gaussian"):
        model = tv.VAE(5, 4, 2, likelihood=likelihood, dtype="float64")
        data = dataclasses.replace(linear_data(), likelihood=likelihood)
        family = type(model.likelihood(tv.Tensor(np.zeros((1, 2)))))
        log_p = pixel_means(model, data, family)
        whole = log_p(tv.Tensor(data.test.astype(float)), tv.Tensor(np.ones((3, 5))))
        half = log_p(tv.Tensor(data.test.astype(float)), tv.Tensor(np.tile([1.0, 1, 0, 0, 0], (3, 1))))
        rest = log_p(tv.Tensor(data.test.astype(float)), tv.Tensor(np.tile([0.0, 0, 1, 1, 1], (3, 1))))
        np.testing.assert_allclose(half + rest, whole, rtol=1e-12)


@pytest.mark.parametrize("kind", ["real", "counts"])
def test_the_mean_of_a_column(kind):
    """A normal distribution, or a negative binomial one, with the mean and the variance of the column."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(30, 3)) if kind == "real" else rng.poisson(5 * rng.gamma(0.5, 2, (30, 3)))
    x = x.astype(np.float32)
    data = tv.DataSet("table", x[:20], x[20:], (1, 3), 1.0, kind, "normal" if kind == "real" else "negative-binomial",
                      train_mask=(rng.uniform(size=(20, 3)) < 0.7).astype(np.uint8))
    mean, variance = training_moments(data)
    pseudo = np.repeat([[-1.0], [1.0]] if kind == "real" else [[0.5 - 12**-0.5], [0.5 + 12**-0.5]], 3, axis=1)
    for j in range(3):
        column = np.concatenate([data.train[data.train_mask[:, j] == 1, j], pseudo[:, j]])
        assert mean[j] == pytest.approx(column.mean(), rel=1e-5)
        assert variance[j] == pytest.approx(column.var(), rel=1e-5)
    log_p = pixel_means(tv.VAE(3, 4, 2, dtype="float64"), data, None)
    found = log_p(tv.Tensor(data.test.astype(float)), tv.Tensor(np.ones((10, 3))))
    if kind == "real":
        right = stats.norm.logpdf(data.test, mean, np.sqrt(variance))
    else:
        theta = mean**2 / (variance - mean)
        right = stats.nbinom.logpmf(data.test, theta, theta / (theta + mean))
    np.testing.assert_allclose(found, right.sum(1), rtol=1e-6)


@pytest.mark.parametrize(("data", "likelihood", "unit"), [
    (table(), "normal", "std. deviations of a column"), (counts(), "negative-binomial", "counts"),
    (dataclasses.replace(table(), center=None, spread=None), "normal", "own units")])
def test_the_unit_of_an_error_is_that_of_the_stored_values(data, likelihood, unit):
    found = complete(tv.VAE(data.dimensions, 4, 2, likelihood=likelihood), data, "random:0.4", draws=2, sweeps=2)
    error = next(quantity for quantity in found.quantities() if quantity.name == "RMSE, training mean")
    assert error.unit == unit
    mean = training_moments(data)[0]
    squares = ((found.x - mean) ** 2 * found.hidden).sum(1) / found.hidden.sum(1)
    assert error.value == pytest.approx(np.sqrt(squares.mean()))


def test_holes_of_the_data_are_completed_where_nothing_is_hidden():
    mask = np.random.default_rng(6).integers(0, 2, (20, 6)).astype(np.uint8)
    data = bits(test_mask=mask)
    found = complete(tv.VAE(6, 5, 2), data, draws=4, sweeps=4)
    assert (found.missing == (mask == 0)).all()
    assert not found.hidden.any()
    assert found.quantities() == []
    both = complete(tv.VAE(6, 5, 2), data, "left", draws=4, sweeps=4)
    left = np.tile([True, False, False], 2)
    assert (both.hidden == (left & (mask == 1))).all()
    assert (both.missing == (left | (mask == 0))).all()


def test_rows_without_hidden_pixels_have_no_number(monkeypatch):
    """Here such rows are whole pieces of the work."""
    monkeypatch.setattr(completion, "CHUNK", 6)
    hidden = np.zeros((20, 6), bool)
    hidden[[3, 5, 11], 2] = True
    found = complete(tv.VAE(6, 5, 2), bits(), hidden, draws=1, sweeps=2)
    assert (np.isfinite(found.nats) == hidden.any(1)).all()
    values = {q.name: q.value for q in found.quantities()}
    assert values["-log p(hidden | observed), gibbs"] == pytest.approx(found.nats[[3, 5, 11]].mean())


def test_completions_repeat():
    data, model = bits(), tv.VAE(6, 5, 2)
    first, again = (complete(model, data, "random:0.5", "importance", 20, 4, count=5) for _ in range(2))
    assert_same_bits(first.draws, again.draws)
    assert_same_bits(first.nats, again.nats)


@pytest.mark.parametrize(("method", "widen", "sentence"), [
    ("metropolis", 1e-4, r"metropolis accepted .*below 5%.*more gibbs sweeps first"),
    ("importance", 1e7, r"the weights of importance are so uneven that .* of 50 draws count \(at least 10"),
])  # fmt: skip
def test_chains_that_cannot_be_trusted_are_said(method, widen, sentence):
    model, _, exact = linear_gaussian()
    set_encoder(model.encoder, *exact, widen=widen)
    with pytest.warns(RuntimeWarning, match=sentence):
        complete(model, linear_data(), HIDDEN, method, 5, 20, 1)


@pytest.mark.parametrize(("more", "sentence"), [
    ({"missing": "left", "method": "guess"}, "found the method 'guess'; expected one of gibbs, metropolis, importance"),
    ({}, "found nothing missing in the test data of bits; expected data with holes, or pixels to hide"),
    ({"missing": "left", "method": "metropolis", "sweeps": 10}, "found gibbs_sweeps=10 of 10 sweeps; expected at most"),
    ({"missing": "left", "draws": 0}, "found draws 0; expected a whole number, at least 1"),
    ({"missing": np.ones((3, 2))}, r"found the mask of shape \(3, 2\)")])  # fmt: skip
def test_mistakes_get_a_sentence(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        complete(tv.VAE(6, 5, 2), bits(), **more)


def test_a_model_without_a_generator_gets_a_sentence():
    with pytest.raises(ValueError, match="found an m2, which has no generator or no posterior"):
        complete(tv.models.build_model({"kind": "m2", "pixels": 64}), "digits", "left")


def test_only_the_completions_that_are_kept_take_memory(monkeypatch):
    """Beside them lie the chains of a few data at a time; numbers and means are those of all draws."""
    images = np.random.default_rng(0).integers(0, 2, (150, 100)).astype(np.uint8)
    data = tv.DataSet("made", images[:10], images, (10, 10), 1.0, "static")
    model, found, peaks = tv.VAE(100, 4, 2), {}, {}
    monkeypatch.setattr(completion, "CHUNK", 2**14)
    complete(model, data, "left", draws=2, sweeps=1, count=None)  # loads what later calls need, too
    for keep in (0, 3, None):
        tracemalloc.start()
        found[keep] = complete(model, data, "left", draws=30, sweeps=1, count=None, keep=keep)
        peaks[keep] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    everything = 30 * 150 * 100 * 4  # bytes
    assert peaks[0] <= peaks[3] < 1.2 * everything < 2 * everything < peaks[None]
    np.testing.assert_array_equal(found[3].draws, found[None].draws[:3])
    assert found[0].draws.shape == (0, 150, 100)
    for name in ("mean", "sd", "nats"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[None], name))
    assert str(found[0]) == str(found[None])
