"""SHOT: each of its two terms against plain NumPy; without both it is M2, by default bit by bit."""

import numpy as np
import pytest
from scipy import special, stats
from support import likely

import tinyvae as tv
from tests.models.test_m1 import data
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch
from tinyvae.models.m2 import M2
from tinyvae.models.shot import Shot

X, LABELS = np.random.default_rng(0).random((7, 6)), np.eye(3)[[0, 1, 2, 0, 1, 2, 0]]


def shot(**more):
    return Shot(6, **({"classes": 3, "hidden": 5, "latent": 2, "dtype": "float64"} | more))


def batch():
    x, y = tv.Tensor(X), tv.Tensor(LABELS)
    return Batch(x, labelled=Batch(x, y, available=7), available=14)


def test_the_smooth_elbo_weighs_the_bounds_of_all_classes():
    smooth, plain = shot(smoothing=0.3, interpolation=0.0), shot(smoothing=0.0, interpolation=0.0)
    weights = 0.7 * LABELS + 0.1
    bounds = plain.given(tv.Tensor(X), plain.every, Draw(tv.Noise(1))).numpy().T
    log_q = np.log(plain.classify(Batch(tv.Tensor(X))).numpy())
    found = smooth.known(tv.Tensor(X), tv.Tensor(LABELS), Draw(tv.Noise(1)))
    np.testing.assert_allclose(found[0].numpy(), (weights * bounds).sum(1), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found[1].numpy(), (weights * log_q).sum(1), rtol=0, atol=1e-12)
    _, one = plain.known(tv.Tensor(X), tv.Tensor(LABELS), Draw(tv.Noise(1)))
    np.testing.assert_allclose(one.numpy(), log_q[LABELS == 1], rtol=0, atol=1e-12)


def test_without_both_ideas_it_is_m2():
    model, other = shot(smoothing=0.0, interpolation=0.0), M2(6, classes=3, hidden=5, latent=2, dtype="float64")
    found, expected = (each.terms(batch(), Draw(tv.Noise(2))) for each in (model, other))
    assert model.weights == other.weights
    assert set(found) == set(expected)
    for name in found:
        np.testing.assert_array_equal(found[name].numpy(), expected[name].numpy())


@pytest.mark.parametrize("style", ["given-class", "apart"])
def test_the_interpolation_against_numpy(style):
    model = shot(style=style)
    noise = tv.Noise(3)
    share = np.median([noise.uniform((7, 1), np.float64).numpy() for _ in range(3)], axis=0)

    def q(x):
        y = model.q_y(tv.Tensor(x)).logits.numpy()
        if style == "given-class":
            return y, np.zeros((len(x), 2)), np.zeros((len(x), 2))
        z = model.q_z(tv.Tensor(x))
        return y, z.mu.numpy(), np.exp(0.5 * z.logvar.numpy())

    def mixed(a):
        return share * a + (1 - share) * np.roll(a, -1, axis=0)

    (logits, mu, sigma), (found_logits, found_mu, found_sigma) = q(X), q(mixed(X))
    expected = -(mixed(special.softmax(logits, 1)) * special.log_softmax(found_logits, 1)).sum(1)
    expected += ((found_mu - mixed(mu)) ** 2).sum(1) + ((found_sigma - mixed(sigma)) ** 2).sum(1)
    found = model.between(tv.Tensor(X), Draw(tv.Noise(3)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_the_share_is_beta():
    noise = tv.Noise(5)
    share = np.median([noise.uniform((20_000,), np.float64).numpy() for _ in range(3)], axis=0)
    likely("the median of three uniform numbers is Beta(2, 2)", stats.kstest(share, stats.beta(2, 2).cdf).pvalue)


@pytest.mark.parametrize(("options", "terms"), [
    ({"smoothing": 0.0, "interpolation": 0.0}, {"unlabelled", "labelled", "classifier"}),
    ({"smoothing": 0.1, "interpolation": 0.0}, {"unlabelled", "labelled", "classifier"}),
    ({"smoothing": 0.0, "interpolation": 2.0}, {"unlabelled", "labelled", "classifier", "interpolation"})])
def test_each_idea_is_switched_by_itself(options, terms):
    model = shot(**options)
    assert set(model.terms(batch(), Draw(tv.Noise(0)))) == terms
    assert set(model.terms(Batch(tv.Tensor(X)), Draw(tv.Noise(0)))) == {"unlabelled"}
    assert model.weights.get("interpolation", 0.0) == -options["interpolation"]


def test_it_learns():
    records = tv.fit(shot(hidden=16, dtype="float32"), data(), epochs=10, batch=15, lr=1e-2, quiet=True)
    assert records[-1]["test_accuracy"] > 0.75
    assert records[-1]["train_interpolation"] < 1


@pytest.mark.parametrize("options", [{"smoothing": 1.0}, {"interpolation": -1.0}, {"smoothing": float("nan")}])
def test_wrong_options_get_a_sentence(options):
    with pytest.raises(ValueError, match=r"found smoothing=.* and interpolation=.*; expected a number from 0"):
        shot(**options)


@pytest.mark.parametrize("step", [0, 3, 40])
def test_the_capacities_against_numpy(step):
    """I_z and I_y of 2 and of log 3 nats, less than 17, risen over 10 steps; records show the plain bound."""
    model = shot(smoothing=0.0, interpolation=0.0, style="apart", capacity_weight=30.0, capacity=2.0, ramp=10)
    plain = shot(smoothing=0.0, interpolation=0.0, style="apart")
    noise, same = tv.Noise(1).restart(step), tv.Noise(1).restart(step)
    terms, expected = model.terms(batch(), Draw(noise)), plain.terms(batch(), Draw(same))
    p = model.classify(batch()).numpy()
    entropy, q = special.entr(p).sum(1), model.q_z(tv.Tensor(X))
    kl_z = 0.5 * (np.exp(q.logvar.numpy()) + q.mu.numpy() ** 2 - 1 - q.logvar.numpy()).sum(1)
    risen = min(1.0, step / 10)
    reconstruction = expected["unlabelled"].numpy() + kl_z + np.log(3) - entropy
    held = reconstruction - 30 * (np.abs(kl_z - 2 * risen) + np.abs(np.log(3) - entropy - np.log(3) * risen))
    np.testing.assert_allclose(terms["unlabelled"].numpy(), held, rtol=0, atol=1e-10)
    for name in ("unlabelled", "labelled"):
        np.testing.assert_allclose(terms.reported[name].numpy(), expected.reported[name].numpy(), rtol=0, atol=1e-12)
    alone = Batch(tv.Tensor(X))  # as in an evaluation
    np.testing.assert_allclose(model.terms(alone, Draw(tv.Noise(2)))["unlabelled"].numpy(),
                               plain.terms(alone, Draw(tv.Noise(2)))["unlabelled"].numpy(), rtol=0, atol=1e-12)


def test_a_recorded_step_sees_the_capacity_rise():
    """At w = 30 the KL follows I_z = 3 nats, to which it would not rise by itself."""
    model = shot(hidden=16, dtype="float32", style="apart", capacity_weight=30.0, capacity=3.0, ramp=60)
    tv.fit(model, data(), epochs=20, batch=15, lr=1e-2, quiet=True)
    q = model.q_z(tv.Tensor(data().test.astype(np.float32)))
    kl = 0.5 * (np.exp(q.logvar.numpy()) + q.mu.numpy() ** 2 - 1 - q.logvar.numpy()).sum(1)
    assert abs(kl.mean() - 3) < 0.5


@pytest.mark.parametrize("options", [{"capacity_weight": -1.0}, {"capacity": float("inf")}, {"ramp": 0}])
def test_wrong_capacities_get_a_sentence(options):
    with pytest.raises(ValueError, match=r"found capacity_weight=.* and ramp=.*; expected finite numbers of at least"):
        shot(**options)


def test_the_capacity_of_a_style_that_reads_the_class_is_that_of_the_mean_kl():
    """E_q(y|x)[KL(q(z|x, y) || p(z))], by NumPy."""
    model = shot(smoothing=0.0, interpolation=0.0, capacity_weight=3.0, capacity=2.0, ramp=1)
    terms = model.terms(batch(), Draw(tv.Noise(1).restart(5)))
    x, p = tv.Tensor(X), model.classify(batch()).numpy()
    reconstruction, kl = (part.numpy().T for part in model.parts(x, model.every, Draw(tv.Noise(1).restart(5))))
    entropy = special.entr(p).sum(1)
    away = np.abs((p * kl).sum(1) - 2) + np.abs(np.log(3) - entropy - np.log(3))
    np.testing.assert_allclose(terms["unlabelled"].numpy(), (p * reconstruction).sum(1) - 3 * away, rtol=0, atol=1e-10)


def test_an_unknown_style_gets_a_sentence():
    with pytest.raises(ValueError, match="found style 'own'; expected one of given-class, apart"):
        shot(style="own")
