"""The conditional VAE against exact answers: a linear-Gaussian one, whose log p(t|c) and posterior are known."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from support import likely_zero

import tinyvae as tv
from tinyvae.distributions import Normal, posteriors
from tinyvae.evidence.diagnostics import variance_of
from tinyvae.evidence.importance import log_evidence
from tinyvae.flows import FLOWS
from tinyvae.inference.bounds import Draw, terms
from tinyvae.models import Batch, Model, model_for
from tinyvae.models.cvae import CVAE

SHAPE, LATENT, ROWS = (4, 4), 2, 5
GIVEN = ("label", "quadrants:1", "quadrants:2", "quadrants:3", "pooled:2")


def linear(network, matrix, bias, logvar):
    """Make a network of two linear layers give N(x @ matrix + bias, exp(logvar)), for its inputs x side by side."""
    first, last = network.layers
    inputs, size = matrix.shape
    for tensor in (*first.weights, first.bias, last.weight, last.bias):
        tensor.data[...] = 0
    start = 0
    for weight in first.weights:  # the hidden layer has the inputs themselves
        weight.data[:, start : start + len(weight.data)] = np.eye(len(weight.data))
        start += len(weight.data)
    last.weight.data[:inputs, :size] = matrix
    last.bias.data[:size], last.bias.data[size:] = bias, logvar


class Linear:
    """p(z|c) = N(cA + a, s^2), p(t|z, c) = N(zW + cB + b, 0.3^2) with orthogonal rows of W, so that the posterior
    precision 1/s^2 + W W'/0.3^2 is diagonal; `off` moves q's mean, and `wide` is added to its log-variance."""

    def __init__(self, given, off=0.0, wide=0.0):
        rng = np.random.default_rng(4)
        self.model = CVAE(16, shape=SHAPE, classes=3, given=given, hidden=24, latent=LATENT, activation="identity",
                          likelihood="gaussian", dtype="float64")
        self.model.decoder.family = Normal  # in place of the normal distribution whose mean lies in (0, 1)
        condition = self.model.condition
        width, targets, noise = condition.width, len(condition.pixels), 2 * np.log(0.3)
        a, b = rng.normal(size=LATENT), rng.normal(size=targets)
        A, B, s = rng.normal(size=(width, LATENT)), rng.normal(size=(width, targets)), np.array([0.7, 1.4])
        W = np.linalg.qr(rng.normal(size=(targets, LATENT)))[0].T * [[0.8], [0.5]]
        linear(self.model.prior, A, a, 2 * np.log(s))
        linear(self.model.decoder, np.concatenate([W, B]), b, noise)
        self.x = rng.normal(size=(ROWS, 16))
        self.batch = Batch(tv.Tensor(self.x), y=tv.Tensor(np.eye(3)[[0, 2, 1, 1, 0]]),
                           given=tv.Tensor(rng.normal(size=(ROWS, 4))))
        c, t = (part(self.batch).numpy() for part in (condition.of, condition.target))
        self.prior = c @ A + a, s
        cov = W.T @ np.diag(s**2) @ W + 0.09 * np.eye(targets)
        self.exact = multivariate_normal(np.zeros(targets), cov).logpdf(t - self.prior[0] @ W - c @ B - b)
        precision = 1 / s**2 + (W @ W.T).diagonal() / 0.09
        mean = (self.prior[0] / s**2 + (t - c @ B - b) @ W.T / 0.09) / precision
        self.posterior = mean, precision**-0.5
        # the same as one matrix and one bias on what the encoder reads
        seen = np.concatenate([part.numpy() for part in condition.seen(self.batch)], 1)
        by_c, by_t = (A / s**2 - B @ W.T / 0.09) / precision, W.T / 0.09 / precision
        matrix = np.zeros((seen.shape[1], LATENT))
        matrix[condition.pixels] = by_t
        matrix[condition.given if given.startswith("quadrants") else slice(16, None)] = by_c
        linear(self.model.encoder, matrix, (a / s**2 - b @ W.T / 0.09) / precision + off, -np.log(precision) + wide)
        self.q = mean + off, np.exp(wide / 2) * precision**-0.5

    def terms(self, bound, samples=1):
        model = self.model
        return terms(model.generator(self.batch), lambda _: model.posterior(self.batch), model.target(self.batch),
                     tv.Noise(1), samples, bound)


def kl(q, p):
    """KL of two normal distributions (mean, standard deviation), by their textbook formula."""
    return (np.log(p[1] / q[1]) + (q[1] ** 2 + (q[0] - p[0]) ** 2) / (2 * p[1] ** 2) - 0.5).sum(-1)


@pytest.mark.parametrize("given", GIVEN)
def test_at_the_exact_posterior_the_bound_is_log_p(given):
    """Then log p(t, z|c) - log q(z|t, c) is log p(t|c) at every z."""
    case = Linear(given)
    reconstruction, kl_term = case.terms("elbo-a")
    np.testing.assert_allclose((reconstruction - kl_term).numpy(), case.exact, rtol=0, atol=1e-10)
    weights = case.model.log_weights(case.batch, Draw(tv.Noise(2)), 3).numpy()
    np.testing.assert_allclose(weights, np.tile(case.exact, (3, 1)), rtol=0, atol=1e-10)
    assert case.exact.std() > 0.5


@pytest.mark.parametrize("given", GIVEN)
def test_a_wrong_posterior_costs_its_kl(given):
    """log p(t|c) - bound = KL(q || posterior) > 0, and the bound's own KL is that of the two networks."""
    case, draws = Linear(given, off=0.2, wide=0.7), 2000
    _, kl_term = case.terms("elbo-b")
    np.testing.assert_allclose(kl_term.numpy(), kl(case.q, case.prior), rtol=1e-12)
    gap = kl(case.q, case.posterior)
    assert gap.min() > 0.05
    draw = Draw(tv.Noise(3), bound="elbo-a")
    each = case.model.log_weights(case.batch, draw, draws).numpy()
    likely_zero("bound - (log p - KL)", (each.mean(0) - case.exact + gap).sum(), each.sum(1).std() / draws**0.5)
    assert (each.mean(0) < case.exact).all()


@pytest.mark.parametrize("given", GIVEN)
def test_importance_sampling_agrees_within_its_stated_error(given):
    case, draws = Linear(given, off=0.2, wide=0.7), 4000
    found, effective = log_evidence(case.model, case.batch, tv.Noise(5), draws)
    error = variance_of(effective, draws) ** 0.5
    assert error.max() < 0.05
    likely_zero("log p(t|c) by importance sampling", (found - case.exact).sum(), (error**2).sum() ** 0.5)


def test_answers_are_means_given_the_prior_at_a_temperature():
    """z - its mean is multiplied by the temperature: none at 0; at 1 the answers have the spread W' s^2 W."""
    case = Linear("pooled:2")
    c = case.batch.given
    decoder, (mean, s) = case.model.decoder, case.prior
    answers = {t: case.model.answers(c, tv.Noise(7), 4000, t).numpy() for t in (0.0, 0.5, 1.0)}
    middle = decoder(tv.Tensor(mean), c).mean.numpy()
    np.testing.assert_allclose(answers[0.0], np.broadcast_to(middle, answers[0.0].shape), atol=1e-12)
    np.testing.assert_allclose(answers[0.5] - middle, 0.5 * (answers[1.0] - middle), atol=1e-12)
    W = (decoder.layers[0].weight.data @ decoder.layers[1].weight.data)[:LATENT, :16]
    expected = (W**2 * s[:, None] ** 2).sum(0)
    z = (answers[1.0].var(0) / expected - 1) / (2 / 4000) ** 0.5  # the variance of 4000 normal draws
    assert np.abs(z).max() < 6


# ---- training --------------------------------------------------------------------------------------------------------


def data_set(pixels="dynamic"):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 17, (60, 16), np.uint8), rng.integers(0, 17, (20, 16), np.uint8)
    labels = [rng.integers(0, 3, count) for count in (60, 20)]
    return tv.DataSet(f"made-{pixels}", train, test, SHAPE, 16.0, pixels, "bernoulli", *labels)


@pytest.mark.parametrize("posterior", posteriors())
def test_every_posterior_and_its_estimators(posterior):
    model = model_for("cvae", data_set(), given="quadrants:2", hidden=6, latent=3, posterior=posterior)
    records = tv.fit(model, data_set(), epochs=2, batch=30, quiet=True)
    assert np.isfinite(records[-1]["test_elbo"])
    found = tv.evaluate(model, data_set(), importance_samples=10)
    assert np.isfinite(found.log_evidence)
    assert found.bits_per_pixel == pytest.approx(-found.elbo / np.log(2) / 8)
    answers = model.answers(tv.Tensor(np.zeros((2, 8), np.float32)), tv.Noise(0), 3, 0.5).numpy()
    assert answers.shape == (3, 2, 8)
    assert ((answers >= 0) & (answers <= 1)).all()
    if posterior != "full-normal" and posterior not in FLOWS:  # without a log density by elements, or a score
        tv.fit(model, data_set(), epochs=1, batch=30, estimator="score", quiet=True)


@pytest.mark.parametrize("settings", [{"bound": "iwae", "importance_samples": 3}, {"free_bits": 0.1},
                                      {"bound": "elbo-a", "gradient": "stl"}])  # fmt: skip
def test_every_bound(settings):
    model = model_for("cvae", data_set(), given="pooled:2", hidden=6, latent=3)
    assert np.isfinite(tv.fit(model, data_set(), epochs=2, batch=30, quiet=True, **settings)[-1]["test_elbo"])


def test_annealing_agrees_with_importance_sampling():
    """From the prior of each condition, too."""
    model = model_for("cvae", data_set(), given="pooled:2", hidden=6, latent=3, dtype="float64")
    sampled = tv.evaluate(model, data_set(), importance_samples=2000)
    for start in ("prior", "encoder"):
        found = tv.evaluate(model, data_set(), method="ais", chains=8, temperatures=30, start=start)
        assert found.log_evidence == pytest.approx(sampled.log_evidence, abs=0.1)


def test_a_unit_that_follows_its_prior_is_not_active():
    """Its mean varies with the condition, but it tells nothing of the target; one that moves from there does."""
    case = Linear("pooled:2")
    prior, encoder = case.model.prior, case.model.encoder
    A = prior.layers[0].weight.data @ prior.layers[1].weight.data[:, :LATENT]
    matrix = np.concatenate([np.zeros((16, LATENT)), A])
    for moves, active in ((0.0, 0), (1.0, 1)):
        matrix[0, 1] = moves
        linear(encoder, matrix, prior.layers[1].bias.data[:LATENT], prior.layers[1].bias.data[LATENT:])
        found = tv.evaluate(case.model, dataclasses.replace(data_set("gray"), likelihood="gaussian"))
        assert found.active_units == active
        assert found.kl == pytest.approx(0, abs=1e-12) if not moves else found.kl > 0.01


def test_the_table_says_what_is_given():
    model = CVAE(16, shape=SHAPE, given="quadrants:1", hidden=4, latent=2)
    found = tv.evaluate(model, data_set(), importance_samples=5)
    text = str(found)
    for part in ("KL(q(z|x, c) || p(z|c))", "log p(x|c), 5 samples", "c is the bottom left quarter of an image"):
        assert part in text


@pytest.mark.parametrize(("use", "sentence"), [
    (lambda: model_for("cvae", dataclasses.replace(data_set(), train_labels=None, test_labels=None)),
     "found given='label' for data without labels; expected data with labels: take --labels-from FILE, or "
     "another condition: quadrants:1|2|3 or pooled:N"),
    (lambda: CVAE(16, shape=SHAPE, given="pooled:2", hidden=4, latent=2).generate(3), "found no condition for a cvae"),
    (lambda: CVAE(16, shape=SHAPE, given="pooled:2").check(data_set("gray")), "the likelihood bernoulli takes 0 and 1"),
    (lambda: Model.answers(tv.VAE(16, 4, 2), None, None, 1, 1.0), "VAE has no answers"),
])
def test_wrong_uses_get_a_sentence(use, sentence):
    with pytest.raises((ValueError, TypeError)) as caught:
        use()
    assert str(caught.value).startswith(sentence)
