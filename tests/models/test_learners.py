"""Other ways to learn: wake-sleep's gradients against those of its own objectives in closed form; Monte Carlo EM
against the maximum likelihood of probabilistic PCA, which is known; and what both do in a training."""

from pathlib import Path

import numpy as np
import pytest
from linear import set_layer
from scipy import stats

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.distributions.weights import WeightPosterior
from tinyvae.engine.devices import read
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.models import MODELS
from tinyvae.models.learners import WEIGHT_DRAWS

PIXELS, LATENT, FALSE_ALARM = 3, 2, 1e-6
RNG = np.random.default_rng(0)
W, B, S = RNG.normal(size=(PIXELS, LATENT)), RNG.normal(size=PIXELS), RNG.uniform(-1, 0, PIXELS)  # p(x|z), log-variance
A, C, D = RNG.normal(size=(LATENT, PIXELS)), RNG.normal(size=LATENT), RNG.uniform(-1, 0, LATENT)  # q(z|x)
X = RNG.normal(size=(4, PIXELS))


def model_of(rows=1):
    """A linear VAE: a hidden layer without activation passes on what it reads."""
    model = tv.VAE(PIXELS, hidden=4, latent=LATENT, activation="identity", likelihood="normal", dtype="float64",
                   learner="wake-sleep")
    for network, maps in ((model.encoder, (A, C, D)), (model.decoder, (W, B, S))):
        first, last = network.layers
        first.weight.data[...], first.bias.data[...] = np.eye(*first.weight.shape), 0
        set_layer(type("Last", (), {"layers": [last]}), *maps)
    return model, [model.encoder.layers[1].bias, model.decoder.layers[1].bias]


def exact():
    """The gradients by the last biases, mean and log-variance side by side, of the mean over X of E_q[log p(x, z)] by
    those of p, and of E_p[log q(z|x)] by those of q."""
    def by_bias(gap, spread, logvar):
        """Of E[log N(y; m, exp(logvar))] by m and logvar, where y - m has this mean and variance."""
        return np.concatenate([gap / np.exp(logvar), 0.5 * ((gap**2 + spread) / np.exp(logvar) - 1)], -1)

    gap = X - ((X @ A.T + C) @ W.T + B)  # x - E_q[W z + b]
    wake = by_bias(gap, (W**2 * np.exp(D)).sum(1), S).mean(0)
    # z - A x - c with x = W z + b + noise, for z ~ N(0, I)
    rest = np.eye(LATENT) - A @ W
    sleep = by_bias(-A @ B - C, (rest**2).sum(1) + (A**2 * np.exp(S)).sum(1), D)
    return sleep, wake


def test_each_phase_is_unbiased_for_its_own_objective():
    model, biases = model_of()
    batch, rounds = tv.Batch(Tensor(np.tile(X, (500, 1)))), []
    for seed in range(60):
        terms = model.terms(batch, tv.Draw(tv.Noise(seed), samples=2))
        rounds.append([found.numpy() for found in grad(sum(term.mean() for term in terms.values()), biases)])
    for found, expected in zip(zip(*rounds, strict=True), exact(), strict=True):
        found = np.array(found)
        away = stats.t.ppf(1 - FALSE_ALARM / (4 * expected.size), len(found) - 1) * found.std(0, ddof=1)
        assert (np.abs(found.mean(0) - expected) <= away / np.sqrt(len(found))).all()
        assert (found.std(0) < 0.1 * np.abs(expected).max()).all()  # so a wrong gradient would be seen


def test_no_phase_moves_the_networks_of_the_other():
    model, biases = model_of()
    terms = model.terms(tv.Batch(Tensor(X)), tv.Draw(tv.Noise(0)))
    assert not grad(terms["wake"].sum(), biases[:1])[0].numpy().any()
    assert not grad(terms["sleep"].sum(), biases[1:])[0].numpy().any()


def test_records_show_the_bound():
    """The terms that are reported are those of the ELBO of the same draws."""
    model, _ = model_of()
    batch = tv.Batch(Tensor(X))
    reported = model.terms(batch, tv.Draw(tv.Noise(0))).reported
    z = model.q(batch.x).sample(tv.Noise(0))
    q, p = model.q(batch.x), model.generator(batch)
    np.testing.assert_allclose(reported["reconstruction"].numpy(), p.likelihood(z).log_prob(batch.x).numpy()[0], 1e-12)
    np.testing.assert_allclose(reported["kl"].numpy(), (q.log_prob(z) - p.prior.log_prob(z)).numpy()[0], 1e-12)


@pytest.mark.parametrize("learner", ["wake-sleep", "mcem", "full-vb"])
def test_it_learns_and_resumes_with_the_same_bits(learner, tmp_path):
    data, settings = tv.data.load("digits"), {"batch": 50, "lr": 3e-3, "quiet": True}

    def model():
        return tv.VAE(64, hidden=30, latent=3, learner=learner)

    trained = model()
    whole = tv.fit(trained, data, epochs=4, **settings)
    tv.fit(model(), data, epochs=2, out=tmp_path / "run", **settings)
    assert tv.resume(tmp_path / "run", data=data, epochs=4)[-1]["fingerprint"] == whole[-1]["fingerprint"]
    untrained = tv.evaluate(model(), data).elbo
    assert whole[-1]["test_elbo"] > whole[0]["test_elbo"] > untrained
    bound = whole[-1]["train_reconstruction"] - whole[-1]["train_kl"]
    assert whole[-1]["train_elbo"] == pytest.approx(bound, rel=1e-12)
    if learner == "full-vb":  # the objective is the bound on the evidence of all data, per datum
        weights = whole[-1]["train_weights"]
        assert whole[-1]["train_objective"] == pytest.approx(bound - weights, rel=1e-6)
        assert weights * len(data.train) == pytest.approx(float(read(trained.weights_of_decoder.kl().data)), rel=0.05)


class Pca(tv.Model, kind="tests-pca"):
    """Probabilistic PCA (Tipping & Bishop 1999): p(x|z) = N(W z + mu, s^2 I), learned from draws of p(z|x) alone."""

    def build(self, pixels, latent=2):
        self.w, self.rest = self.matrix("w", latent, pixels), self.matrix("rest", 2, pixels)  # mu; mean of log s^2
        self.standard = Normal.standard(latent, self.dtype, self.xp)

    def generator(self, batch):
        w, rest = self.w.value, self.rest.value
        logvar = rest[1].mean().reshape(1).broadcast_to(self.pixels)
        return tv.Joint(self.standard, lambda z: Normal((z.reshape(-1, z.shape[-1]) @ w).reshape(
            *z.shape[:-1], self.pixels) + rest[0], logvar))

    def phases(self):
        return (tv.Phase("", self.terms, chains=True),)

    def terms(self, batch, draw):
        if draw.z is None:  # an evaluation, which has no chains
            return tv.Terms(joint=batch.x.sum(-1) * 0)
        p = self.generator(batch)
        return tv.Terms(joint=(p.likelihood(draw.z).log_prob(batch.x) + p.prior.log_prob(draw.z))[0])


del MODELS["tests-pca"]  # no list of models has one more because this file was imported


def test_monte_carlo_em_finds_the_maximum_likelihood_of_probabilistic_pca():
    """W W' + s^2 I has the eigenvectors of the sample covariance S; its first eigenvalues are those of S, and s^2 is
    the mean of the others. The likelihood itself, which is flat there, comes within 1 % of its range."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 2)) @ (2 * rng.normal(size=(2, 5))) + 0.5 * rng.normal(size=(400, 5)) + 1
    data = tv.DataSet("made-real", x.astype(np.float32), x[:10].astype(np.float32), (1, 5), 1, "real", "normal")
    x = data.train.astype(np.float64)
    mean, covariance = x.mean(0), np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)

    def log_likelihood(mu, c):
        return stats.multivariate_normal(mu, c).logpdf(x).mean()

    spread = values[:3].mean()
    best = log_likelihood(mean, vectors[:, 3:] @ np.diag(values[3:] - spread) @ vectors[:, 3:].T + spread * np.eye(5))
    model = Pca(5, latent=2, dtype="float64", seed=3)
    tv.fit(model, data, epochs=300, batch=400, lr=0.05, schedule="cosine", quiet=True)
    w, (mu, logvar) = model.w.value.numpy(), model.rest.value.numpy()
    found = log_likelihood(mu, w.T @ w + np.exp(logvar.mean()) * np.eye(5))
    independent = log_likelihood(mean, np.diag(covariance.diagonal()))
    assert best - found < 0.01 * (best - independent)
    space = vectors[:, 3:]
    inside = np.linalg.norm(w @ space) / np.linalg.norm(w)
    assert inside > 0.999  # the cosine of the angle to the space of the first two eigenvectors
    np.testing.assert_allclose(np.exp(logvar.mean()), spread, 0.1)


class Regression(tv.Model, kind="tests-regression"):
    """The last column of x as a linear function of the others, with noise of variance 0.25, and a posterior over w."""

    def build(self, pixels):
        of_output = type("Output", (), {"width": lambda n: n, "from_raw": lambda raw: raw})
        self.line = self.network("line", pixels - 1, (), of_output, 1)
        self.w = self.add(WeightPosterior(self.line))
        self.weights = {"weights": -1.0}

    def terms(self, batch, draw):
        x, y = batch.x[:, :-1], batch.x[:, -1:]
        law = Normal(self.w.draw(draw.noise)(x), (0.0 * y + np.log(0.25)))
        return tv.Terms(reconstruction=law.log_prob(y), weights=self.w.kl() / max(1, batch.available))


del MODELS["tests-regression"]


@pytest.mark.parametrize("design", ["orthogonal", "correlated"])
def test_the_posterior_over_weights_of_a_linear_regression(design):
    """The exact posterior has the precision P = X'X / s^2 + I. With an orthogonal design q is that posterior; else it
    has its mean, and the variances 1 / P_jj, less than those of the posterior."""
    rng = np.random.default_rng(2)
    x = np.linalg.qr(np.concatenate([np.ones((64, 1)), rng.normal(size=(64, 3))], 1))[0][:, 1:]
    x = x if design == "orthogonal" else x @ np.array([[1, 0.7, 0], [0, 1, 0.5], [0, 0, 1]])
    y = x @ [1.5, -2.0, 1.0] + 0.2 + 0.5 * rng.normal(size=64)
    rows = np.concatenate([x, y[:, None]], 1).astype(np.float32)
    model = Regression(4, dtype="float64")
    tv.fit(model, tv.DataSet("made-real", rows, rows[:2], (1, 4), 1, "real", "normal"), epochs=400, batch=16, lr=0.03,
           schedule="cosine", quiet=True)
    wide = np.concatenate([rows[:, :-1].astype(float), np.ones((64, 1))], 1)
    precision = wide.T @ wide / 0.25 + np.eye(4)
    mean = np.linalg.solve(precision, wide.T @ rows[:, -1].astype(float) / 0.25)
    found = [np.concatenate([part.numpy().ravel() for part in parts.values()]) for parts in (
        model.line.named(), model.w.log_variances())]
    spread = np.sqrt(1 / precision.diagonal())
    assert (np.abs(found[0] - mean) < 0.1 * spread).all()  # the prior moves them by a fifth of their size
    np.testing.assert_allclose(np.exp(found[1]), spread**2, 0.1)
    exact = np.linalg.inv(precision).diagonal()
    assert (np.allclose(spread**2, exact, 1e-6)) == (design == "orthogonal")


def test_the_weights_kl_is_that_of_two_normal_laws():
    model = tv.VAE(5, hidden=3, latent=2, dtype="float64", learner="full-vb", seed=1)
    m = np.concatenate([part.numpy().ravel() for part in model.decoder.named().values()])
    w = model.weights_of_decoder
    s = np.exp(0.5 * np.concatenate([part.numpy().ravel() for part in w.log_variances().values()]))
    np.testing.assert_allclose(w.kl().numpy(), (-np.log(s) + (s**2 + m**2 - 1) / 2).sum(), 1e-12)


def test_the_prediction_is_the_mean_over_weights():
    """Of full-vb p(x|z) is the mean of the densities of `WEIGHT_DRAWS` decoders, whose weights have mean m and sd s."""
    model = tv.VAE(5, hidden=3, latent=2, dtype="float64", learner="full-vb", seed=1)
    for rest in model.weights_of_decoder.rest.values():
        rest.data[...] = 7.0  # log s^2 = -1
    z, x = Tensor(RNG.normal(size=(4, 2))), Tensor((RNG.random((4, 5)) < 0.5).astype(float))
    law = model.likelihood(z)
    assert len(law.laws) == WEIGHT_DRAWS
    each = np.stack([one.log_prob(x).numpy() for one in law.laws])
    assert each.std(0).min() > 0
    np.testing.assert_allclose(law.log_prob(x).numpy(), np.log(np.exp(each).mean(0)), 1e-12)
    np.testing.assert_allclose(law.mean.numpy(), np.mean([one.mean.numpy() for one in law.laws], 0), 1e-12)
    with pytest.raises(TypeError, match=r"learner=full-vb, whose .* are not independent .* take a run of learner=aevb"):
        law.log_density(x)
    drawn = np.stack([np.concatenate([part.numpy().ravel() for part in model.weights_of_decoder.draw(
        tv.Noise(seed)).layers[0].map(lambda w: w).weights]) for seed in range(400)])
    m = model.decoder.layers[0].weight.numpy().ravel()
    away = stats.norm.ppf(1 - FALSE_ALARM / 24) * np.exp(-0.5)
    assert (np.abs(drawn.reshape(400, -1).mean(0) - m) < away / 20).all()
    assert np.abs(drawn.reshape(400, -1).std(0) / np.exp(-0.5) - 1).max() < stats.norm.ppf(1 - FALSE_ALARM / 24) / 28


def test_the_bound_of_full_vb_is_without_the_weights():
    """With iwae the objective is that bound less the KL of the weights over N."""
    data = tv.data.load("digits-static")
    model = tv.VAE(64, hidden=5, latent=2, learner="full-vb")
    record = tv.fit(model, data, epochs=1, bound="iwae", importance_samples=3)[-1]
    assert record["train_weights"] > 0.1
    np.testing.assert_allclose(record["train_bound"], record["train_objective"] + record["train_weights"], 1e-12)


@pytest.mark.parametrize(("settings", "said"), [
    ({"bound": "iwae"}, "bound"), ({"beta": 0.5}, "found beta=0.5"), ({"free_bits": 1.0}, "free_bits")])
def test_settings_of_the_bound_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        tv.fit(tv.VAE(64, hidden=5, latent=2, learner="wake-sleep"), tv.data.load("digits"), epochs=1, quiet=True,
               **settings)


@pytest.mark.parametrize(("options", "said"), [
    ({"learner": "dream"}, "found learner 'dream'; expected one of aevb, wake-sleep, mcem, full-vb"),
    ({"learner": "wake-sleep", "prior": "vamp"}, "found the prior vamp with learner=wake-sleep"),
    ({"learner": "wake-sleep", "posterior": "planar"}, "learner=wake-sleep"),
    ({"learner": "mcem", "prior": "vamp"}, "found the prior vamp with learner=mcem")])
def test_what_does_not_go_together_gets_a_sentence(options, said):
    def train():
        tv.fit(tv.VAE(64, hidden=5, latent=2, **options), tv.data.load("digits"), epochs=1, quiet=True)

    with pytest.raises(ValueError, match=said):
        train()


@pytest.mark.parametrize("learner", ["wake-sleep", "mcem", "full-vb"])
def test_the_command_trains_and_evaluates(learner, run):
    code, out, err = run("train", "digits", "--learner", learner, "--epochs", 1, "--hidden", 5, "--latent", 2,
                         "--no-pictures", "--out", "r")
    assert code == 0, err
    assert "epoch   1/1  train -" in out
    assert "train_bound" not in Path("r/metrics.jsonl").read_text()
    assert run("evaluate", "r")[0] == 0
