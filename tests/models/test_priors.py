"""Learned priors: the mixture against SciPy, its gradients by pseudo-inputs, and what a VAE does with it."""

import numpy as np
import pytest
from scipy import special, stats

import tinyvae as tv
from tinyvae.distributions import Beta, Gamma, Normal
from tinyvae.distributions.mixture import Mixture
from tinyvae.engine.tensor import Tensor
from tinyvae.engine.testing import check_gradients

RNG = np.random.default_rng(0)
MU, LOGVAR, Z = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)) - 1, RNG.normal(size=(2, 5, 3))


def log_density_of_scipy(z, mu, logvar):
    each = stats.norm.logpdf(z[..., None, :], mu, np.exp(0.5 * logvar)).sum(-1)
    return special.logsumexp(each, -1) - np.log(len(mu))


def close(found, expected, rtol=1e-12, atol=0.0):
    np.testing.assert_allclose(found, expected, rtol, atol, equal_nan=False)


def test_the_density_of_normals_is_scipys():
    p = Mixture(Normal(Tensor(MU), Tensor(LOGVAR)))
    close(p.log_prob(Tensor(Z)).numpy(), log_density_of_scipy(Z, MU, LOGVAR))


def test_narrow_components_keep_their_digits_in_float32():
    """z^2/s^2 is 10^7 here, and the distance is 1: in float32 the difference would have no digit left."""
    mu = (3 + RNG.normal(size=(6, 8))).astype(np.float32)
    logvar = np.full((6, 8), -14, np.float32)
    z = mu[:1] + np.float32(np.exp(-7)) * RNG.normal(size=(5, 8)).astype(np.float32)
    found = Mixture(Normal(Tensor(mu), Tensor(logvar))).log_prob(Tensor(z)).numpy()
    close(found, log_density_of_scipy(z.astype(float), mu.astype(float), logvar.astype(float)), 1e-6)


def test_the_density_of_other_families_is_scipys():
    a, b, z = np.exp(MU), np.exp(LOGVAR), 1 / (1 + np.exp(-Z))
    gamma = Mixture(Gamma(Tensor(a), Tensor(b))).log_prob(Tensor(z)).numpy()
    each = stats.gamma.logpdf(z[..., None, :], a, scale=1 / b).sum(-1)
    close(gamma, special.logsumexp(each, -1) - np.log(4))
    beta = Mixture(Beta(Tensor(a), Tensor(b)))
    each = stats.beta.logpdf(z[..., None, :], a, b).sum(-1)
    close(beta.log_prob(Tensor(z)).numpy(), special.logsumexp(each, -1) - np.log(4))
    jacobian = np.log(z * (1 - z)).sum(-1)  # the stable form is logit z
    close(beta.log_density(Tensor(special.logit(z))).numpy(), special.logsumexp(each, -1) - np.log(4) + jacobian)


def test_gradients_of_the_mixture():
    check_gradients(lambda z, mu, logvar: Mixture(Normal(mu, logvar)).log_prob(z).sum(), Z, MU, LOGVAR)


def test_moments_and_draws_are_those_of_the_mixture():
    p = Mixture(Normal(Tensor(MU), Tensor(LOGVAR)))
    variance = np.exp(LOGVAR).mean(0) + MU.var(0)
    close(p.mean.numpy(), MU.mean(0))
    close(p.variance.numpy(), variance)
    drawn = p.sample(tv.Noise(1), 200_000).numpy()
    assert drawn.shape == (200_000, 3)
    fourth = stats.norm.ppf(1 - 1e-6 / 6)  # six comparisons
    close(drawn.mean(0), MU.mean(0), 0, fourth * np.sqrt(variance.max() / len(drawn)))
    close(drawn.var(0), variance, 0, fourth * np.sqrt(((drawn - drawn.mean(0)) ** 4).mean(0).max() / len(drawn)))


# ---- in a VAE --------------------------------------------------------------------------------------------------------


def vae(**options):
    options = {"hidden": 7, "latent": 2, "dtype": "float64", "prior": "vamp", "pseudo_inputs": 5} | options
    return tv.VAE(6, **options)


def test_the_prior_is_the_mixture_of_the_posteriors_of_the_pseudo_inputs():
    model = vae(activation="tanh")
    weights = model.parameters.arrays()
    u = special.expit(weights["pseudo_inputs.weight"])
    h = np.tanh(u @ weights["encoder.0.weight"] + weights["encoder.0.bias"])
    raw = h @ weights["encoder.1.weight"] + weights["encoder.1.bias"]
    z = RNG.normal(size=(9, 2))
    close(model.prior.log_prob(Tensor(z)).numpy(), log_density_of_scipy(z, raw[:, :2], raw[:, 2:]), 1e-11)


@pytest.mark.parametrize("posterior", ["normal", "full-normal", "gamma", "dirichlet", "iaf", "planar", "realnvp"])
@pytest.mark.parametrize("bound", ["elbo-b", "iwae"])
def test_gradients_reach_the_pseudo_inputs(posterior, bound):
    """The gradient of the bound by the pseudo-inputs, against finite differences, for every kind of posterior."""
    model = vae(posterior=posterior, activation="tanh")
    x, u = (RNG.random((3, 6)) < 0.5).astype(float), model.pseudo.value
    draw = tv.Draw(tv.Noise(0), bound, importance_samples=1 + (bound == "iwae"))

    def bound_at(values):
        model.parameters.tensors["pseudo_inputs.weight"] = values
        draw.noise.restart()
        return model.bound_of(model.terms(tv.Batch(Tensor(x)), draw)).sum()

    check_gradients(bound_at, u.numpy().copy())


def test_the_bound_is_below_the_evidence():
    """log p(x) of two latents by quadrature over the plane."""
    model = vae(pseudo_inputs=3, activation="tanh")
    x = (RNG.random((4, 6)) < 0.5).astype(float)
    points = np.linspace(-9, 9, 181)
    grid = np.stack(np.meshgrid(points, points), -1).reshape(-1, 1, 2)
    p = model.generator(None)
    joint = (p.likelihood(Tensor(grid)).log_prob(Tensor(x)) + p.prior.log_prob(Tensor(grid))).numpy()
    evidence = special.logsumexp(joint, 0) + 2 * np.log(points[1] - points[0])
    weights = model.log_weights(tv.Batch(Tensor(x)), tv.Draw(tv.Noise(0)), 20_000).numpy()
    assert (weights.mean(0) < evidence).all()
    found = special.logsumexp(weights, 0) - np.log(len(weights))
    error = np.exp(weights - found).std(0) / np.sqrt(len(weights))
    close(found, evidence, 0, stats.norm.ppf(1 - 1e-6 / 8) * error.max())


def test_a_training_raises_the_bound_and_what_it_leaves_is_read_again(tmp_path):
    data = tv.data.load("digits-static")
    model = tv.VAE(64, hidden=16, latent=2, prior="vamp", pseudo_inputs=10)
    before = model.pseudo.value.numpy().copy()
    records = tv.fit(model, data, out=tmp_path / "run", epochs=2, batch=100, lr=3e-3, quiet=True)
    assert records[-1]["train_elbo"] > records[0]["train_elbo"]
    assert not np.array_equal(model.pseudo.value.numpy(), before)
    again = tv.load(tmp_path / "run")
    assert np.array_equal(again.pseudo.value.numpy(), model.pseudo.value.numpy())
    assert again.generate(3).shape == (3, 64)
    found = tv.evaluate(again, data, importance_samples=20)
    assert found.elbo < found.log_evidence
    assert found.active_units <= 2


@pytest.mark.parametrize(("wrong", "said"), [
    ({"prior": "vampire"}, "found prior 'vampire'; expected one of standard, vamp"),
    ({"prior": "standard", "pseudo_inputs": 5}, "found pseudo_inputs=5 with the prior standard, which has none"),
    ({"pseudo_inputs": -1}, "found pseudo_inputs -1; expected a whole number, at least 0"),
])
def test_wrong_priors_get_a_sentence(wrong, said):
    with pytest.raises(ValueError, match=said):
        vae(**wrong)
