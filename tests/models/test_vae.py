"""A VAE with each posterior and each of its estimators: it trains, its gradients agree, its checkpoints come back."""

import math

import numpy as np
import pytest
from colours import data_set as coloured
from linear import Law, LinearGaussian, set_encoder, set_layer
from support import likely_zero
from tables import counts, table, zero

import tinyvae as tv
from tinyvae.distributions import posteriors
from tinyvae.engine.noise import Noise
from tinyvae.inference import bounds
from tinyvae.inference.estimators import choices
from tinyvae.models.m1 import M1
from tinyvae.models.miwae import MIWAE
from tinyvae.pictures import gallery


def law_of(posterior):
    """The class of a posterior's q(z|x), which a kind of flow names."""
    found = posteriors()[posterior]
    return getattr(found, "law", found)


BOTH = [(name, estimator) for name in posteriors() for estimator in choices(law_of(name))]


def data(count=60):
    grey = (255 * np.random.default_rng(0).random((count, 36)) ** 3).astype(np.uint8)
    return tv.DataSet("made-up", grey, grey[:10], (6, 6), 255.0, "dynamic", "bernoulli")


def vae(posterior, dtype="float64", **more):
    model = tv.VAE(36, 12, 3, posterior=posterior, dtype=dtype, **more)
    for name, tensor in model.parameters.tensors.items():
        if name.endswith("gain"):  # at which a flow begins near the identity
            tensor.data[...] = 0.5
    return model


def test_channels_are_decoded_independently():
    """Of a linear-Gaussian model with a latent for each channel, log p(x) is the sum of three exact evidences."""
    rng = np.random.default_rng(0)
    weight = np.zeros((4, 3, 3))
    for channel in range(3):
        weight[:, channel, channel] = rng.normal(size=4)
    bias, logvar = rng.random(12), rng.uniform(-1.5, 0, 12)
    x = rng.random((9, 12)).astype(np.float32)
    found = tv.DataSet("made", x, x, (2, 2, 3), 1.0, "color")
    model = LinearGaussian(12, latent=3, dtype="float64")
    set_layer(model.decoder, weight.reshape(12, 3), bias, logvar)
    slope = weight.reshape(12, 3).T / np.exp(logvar)
    covariance = np.linalg.inv(np.eye(3) + slope @ weight.reshape(12, 3))  # diagonal, so q can be exact
    set_encoder(model.encoder, covariance @ slope, -covariance @ slope @ bias, covariance)
    law = Law(bias, weight.reshape(12, 3) @ weight.reshape(12, 3).T + np.diag(np.exp(logvar)))
    right = [sum(law.of(np.arange(12) % 3 == channel).log_density(row[channel::3]) for channel in range(3))
             for row in x.astype(float)]
    assert tv.evaluate(model, found, importance_samples=2).log_evidence == pytest.approx(np.mean(right), abs=1e-9)
    for channel in range(3):
        moved = model.decode(np.eye(3)[channel : channel + 1]) - model.decode(np.zeros((1, 3)))
        np.testing.assert_allclose(moved.reshape(4, 3), weight[..., channel], atol=1e-12)


@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "gaussian"])
def test_a_likelihood_of_colours_is_the_sum_over_channels(likelihood, tmp_path):
    """It learns, goes on with the same bits, and log p(x|z) has each channel's term once."""
    colours = coloured(40)
    model = tv.models.model_for("vae", colours, hidden=12, latent=3, likelihood=likelihood)
    records = tv.fit(model, colours, out=tmp_path / "run", epochs=2, batch=10, lr=3e-3)
    assert records[1]["train_elbo"] > records[0]["train_elbo"]
    whole = tv.fit(tv.models.model_for("vae", colours, hidden=12, latent=3, likelihood=likelihood), colours, epochs=3,
                   batch=10, lr=3e-3)
    assert tv.resume(tmp_path / "run", colours, epochs=3)[-1]["fingerprint"] == whole[-1]["fingerprint"]
    z = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    law, x = model.generator(None).likelihood(tv.Tensor(z)), tv.Tensor(colours.test[:5] / np.float32(255))
    each = law.log_density(x).numpy().reshape(5, 64, 3)
    np.testing.assert_allclose(each.sum(1).sum(1), law.log_prob(x).numpy(), rtol=1e-4)
    with pytest.raises(ValueError, match=r"the likelihood bernoulli takes 0 and 1, .* or take its -dynamic"):
        tv.fit(tv.models.model_for("vae", colours, likelihood="bernoulli"), colours, epochs=1)


@pytest.mark.parametrize(("posterior", "estimator"), BOTH)
@pytest.mark.parametrize("bound", ["elbo-a", "elbo-b"])
def test_every_estimator_trains(posterior, estimator, bound):
    """Two epochs, with recorded steps compared to their replays; the bound rises and the latents keep their support."""
    model = vae(posterior, "float32")
    before = tv.evaluate(model, data())
    records = tv.fit(model, data(), epochs=3, batch=20, lr=3e-3, bound=bound, estimator=estimator)
    assert records[-1]["test_elbo"] > before.elbo
    z = model.prior.sample(Noise(0, "test"), 100).numpy()
    inside = {"real": z == z, "positive": z >= 0, "unit": (z >= 0) & (z <= 1),
              "simplex": (z >= 0) & (np.abs(z.sum(-1, keepdims=True) - 1) < 1e-5)}
    assert inside[model.prior.support].all()


def gradients(posterior, estimator, seed, baseline="none"):
    """2000 independent estimates of the gradient of -ELBO by what the encoder gives for one datum, (2000, width)."""
    model = vae(posterior)
    family = model.encoder.family
    draw = np.random.default_rng(1)
    x = tv.Tensor(np.tile((draw.random(36) < 0.4).astype(float), (2000, 1)))
    raw = tv.Tensor(np.tile(draw.normal(size=family.width(3)), (2000, 1)), requires_grad=True)
    reconstruction, kl = bounds.terms(model, lambda x: family.from_raw(raw), x, Noise(seed, "test"), 4,
                                      estimator=estimator, baseline=baseline)
    return tv.grad((kl - reconstruction).sum(), raw).data


@pytest.mark.parametrize("posterior", posteriors())
def test_all_estimators_have_one_mean(posterior):
    """Each against the family's own path, by z-scores over independent draws."""
    own, *others = choices(law_of(posterior))
    path = gradients(posterior, own, 0)
    for estimator in others:
        for baseline in ("none", "leave-one-out", "fitted"):
            found = gradients(posterior, estimator, 1, baseline)
            error = np.sqrt((path.var(0, ddof=1) + found.var(0, ddof=1)) / len(path))
            for i, (difference, e) in enumerate(zip(found.mean(0) - path.mean(0), error, strict=True)):
                likely_zero(f"{posterior}, {estimator}, {baseline}, {i}", difference, e)


def test_a_wrong_weight_is_noticed(monkeypatch):
    """A score that is weighed half as much again."""
    from tinyvae.inference import estimators

    right = estimators.signal
    monkeypatch.setattr(estimators, "signal", lambda terms, latent: right(terms, latent) * 1.5)
    with pytest.raises(AssertionError):
        test_all_estimators_have_one_mean("gamma")


@pytest.mark.parametrize("posterior", posteriors())
def test_runs_come_back(posterior, tmp_path):
    """A run resumed has the bits of one that was not stopped; the loaded model encodes, decodes and draws."""
    options = {"batch": 20, "estimator": choices(law_of(posterior))[-1]}
    whole = tv.fit(vae(posterior), data(), tmp_path / "whole", epochs=3, **options)
    tv.fit(vae(posterior), data(), tmp_path / "half", epochs=2, **options)
    assert tv.resume(tmp_path / "half", data(), epochs=3)[-1] == whole[-1]
    model = tv.load(tmp_path / "whole")
    assert model.config["posterior"] == posterior
    mean, logvar = model.encode(data().test / 255.0)
    assert mean.shape == logvar.shape == (10, 3)
    assert np.isfinite(mean).all()
    assert np.isfinite(logvar).all()
    assert model.generate(4).shape == (4, 36)
    result = tv.evaluate(model, data(), importance_samples=50)
    assert result.elbo <= result.log_evidence + 5 * result.log_evidence_stderr
    if posterior in ("beta", "dirichlet"):
        files = gallery.all_pictures(model, data(), whole, tmp_path / "figures")
        assert all(file.stat().st_size for file in files)
        assert ("manifold.png" in {file.name for file in files}) == (posterior != "dirichlet")


def test_quantiles_of_the_prior():
    """What lies below -1, 0 and 1 of a standard normal number lies below these of the prior's draws."""
    from scipy.stats import beta, gamma

    x = np.array([-1.0, 0.0, 1.0])
    below = np.array([0.15866, 0.5, 0.84134])
    assert np.abs(gamma(0.3, scale=1 / 0.3).cdf(gallery.prior_quantiles(vae("gamma"), x, 1)) - below).max() < 0.02
    assert np.abs(beta(1, 1).cdf(gallery.prior_quantiles(vae("beta"), x, 0)) - below).max() < 0.02
    assert gallery.prior_quantiles(vae("normal"), x, 0) is x
    rows = gallery.moved(vae("dirichlet"), np.array([0.2, 0.3, 0.5]), 0, np.array([0.6, 0.2]))
    assert np.abs(rows - [[0.6, 0.15, 0.25], [0.2, 0.3, 0.5]]).max() < 1e-12


@pytest.mark.parametrize("posterior", ["gamma", "full-normal", "dirichlet"])
def test_on_a_device_as_on_the_cpu(driver, posterior):
    from tinyvae.engine.devices import to_host
    from tinyvae.training.epochs import Training
    from tinyvae.training.objective import OBJECTIVE
    from tinyvae.training.settings import Settings

    found = []
    for device in ("cpu", "cuda"):
        training = Training(vae(posterior, device=device), data(), Settings(batch=20))
        training.begin_epoch()
        for _ in range(3):
            training.step()
        found.append(float(to_host(training.totals)[OBJECTIVE]))
    assert abs(found[1] / found[0] - 1) <= 1e-11


@pytest.mark.parametrize(("settings", "message"), [
    ({"estimator": "implicit"}, "found estimator 'implicit'; Normal has reparam, grep, score"),
    ({"estimator": "magic"}, "estimator=magic; expected one of reparam, implicit, grep, score"),
    ({"estimator": "score", "bound": "iwae", "importance_samples": 5}, "estimator=score"),
    ({"estimator": "score", "baseline": "moving-average"}, "baseline=moving-average"),
    ({"estimator": "score", "baseline": "fitted"}, "baseline=fitted.*at least 2 samples"),
    ({"baseline": "leave-one-out", "samples": 2}, "baseline=leave-one-out")])  # fmt: skip
def test_wrong_choices_get_a_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        tv.fit(vae("normal"), data(), epochs=1, **settings)


def test_a_wrong_posterior_gets_a_sentence():
    with pytest.raises(ValueError, match="found posterior 'cauchy'; expected one of beta, dirichlet, full-normal"):
        vae("cauchy")
    with pytest.raises(ValueError, match="found latent=1 with a dirichlet posterior, which needs at least 2"):
        tv.VAE(36, 12, 1, posterior="dirichlet")
    assert math.isclose(float(vae("gamma").prior.mean.data[0]), 1.0)


def test_the_words_for_a_model_name_its_families():
    assert str(tv.VAE(9, 6, 3, posterior="gamma")).startswith("VAE(9-6-3, relu, bernoulli, gamma posterior, ")
    for kind in (MIWAE, M1):  # each by its own name
        assert str(kind(9, hidden=[6], latent=3)).startswith(f"{kind.__name__}(9-6-3, relu, ")


# ---- data that are not images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "likelihood"), [
    (table, "normal"), (table, "student-t"), (counts, "poisson"), (counts, "negative-binomial")])
def test_a_table_is_learned(source, likelihood):
    found = source(200)
    model = tv.VAE(3, 12, 2, likelihood=likelihood)
    before = tv.evaluate(model, found)
    records = tv.fit(model, found, epochs=3, batch=20, lr=3e-3, data_mean_bias=True)
    assert records[-1]["test_elbo"] > before.elbo + 0.1


def test_the_encoder_is_given_log1p_of_counts():
    found = counts(20)
    model = tv.VAE(3, 12, 2, likelihood="poisson", dtype="float64")
    mean = model.encoder(tv.Tensor(np.log1p(found.train.astype(float)))).mean.numpy()
    assert model.encode(found.train)[0] == pytest.approx(mean, rel=1e-12)
    real = tv.VAE(3, 12, 2, likelihood="normal", dtype="float64")
    mean = real.encoder(tv.Tensor(-found.train.astype(float))).mean.numpy()
    assert real.encode(-found.train)[0] == pytest.approx(mean, rel=1e-12)


def test_numbers_that_a_likelihood_does_not_take():
    model, real = tv.VAE(3, 4, 2, likelihood="poisson"), tv.VAE(3, 4, 2, likelihood="normal")
    for wrong in (np.full((1, 3), 0.5), np.full((1, 3), -1.0)):
        with pytest.raises(tv.DataError, match="in x; expected counts, whole numbers from 0 to 16,777,216"):
            model.encode(wrong)
    with pytest.raises(tv.DataError, match="in x; expected finite numbers"):
        real.encode(np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="the likelihood poisson takes whole numbers from 0 on, and the table has any "
                                         "numbers; likelihoods that do: normal, student-t"):
        tv.fit(model, table(20), epochs=1)
    with pytest.raises(tv.DataError, match=r"expected numbers from 0 to 1"):
        tv.VAE(3, 4, 2).encode(np.full((1, 3), 2.0))


@pytest.mark.parametrize("likelihood", ["normal", "student-t", "poisson", "negative-binomial"])
def test_it_starts_at_the_mean_of_a_table(likelihood):
    mean = np.array([1e-9, 2.0, 300.0])
    model = zero(counts(20), likelihood)
    model.start_at(mean)
    found = model.decode(np.zeros((1, 2)))[0]
    low = 0.0 if likelihood in ("normal", "student-t") else 1e-3  # the logarithm of 0 has no end
    assert found == pytest.approx(np.maximum(mean, low))
