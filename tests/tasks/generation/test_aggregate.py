"""The aggregate posterior beside the prior: a closed form, SciPy, and the sentence about samples."""

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.data import DataSet
from tinyvae.tasks.generation import aggregate

scipy_stats = pytest.importorskip("scipy.stats")
SCALES = np.array([[0.5, -0.2], [1.5, 0.3], [0.1, 2.0]])  # of z on the pixels
SPREAD = np.array([0.3, 0.8])  # the standard deviations of q(z|x)


@pytest.fixture
def linear():
    """A model whose q(z|x) is N(x SCALES, SPREAD^2), and data of which the mean and covariance are known."""
    x = np.random.default_rng(3).integers(0, 2, (200, 3)).astype(np.uint8)
    data = DataSet("made-static", x, x, (1, 3), 1.0, "static", "bernoulli")
    model = tv.VAE(3, hidden=6, latent=2, dtype="float64")
    first, last = model.encoder.layers[0], model.encoder.layers[-1]
    # relu(x) = x for bits, so two layers without bias are the linear map
    first.weight.data[...] = np.eye(3, 6)
    first.bias.data[...] = 0
    last.weight.data[...] = 0
    last.weight.data[:3, :2] = SCALES
    last.bias.data[...] = np.concatenate([np.zeros(2), 2 * np.log(SPREAD)])
    return model, data, x.astype(float)


def test_the_distance_is_the_kl_of_the_two_normal_distributions(linear):
    """E_N(m, S)[log N(m, S) - log N(0, I)] by SciPy's entropy, and -E[log N(0, I)] = log 2 pi + (tr S + m^T m) / 2."""
    model, data, x = linear
    m = (x @ SCALES).mean(0)
    s = np.cov((x @ SCALES).T, bias=True) + np.diag(SPREAD**2)
    exact = -scipy_stats.multivariate_normal(m, s).entropy() + np.log(2 * np.pi) + (np.trace(s) + m @ m) / 2
    assert exact > 0.3
    assert aggregate.distance(model, data) == pytest.approx(exact, rel=1e-12)


def test_a_sentence_only_if_it_is_far(linear, monkeypatch):
    model, data, _ = linear
    found = aggregate.distance(model, data)
    monkeypatch.setattr(aggregate, "FAR", found - 0.01)
    assert f"lie {found:.1f} nats or more from the prior" in aggregate.remark(model, data)
    monkeypatch.setattr(aggregate, "FAR", found + 0.01)
    assert aggregate.remark(model, data) == ""


def test_nothing_is_said_of_other_models(linear):
    _, data, _ = linear
    for posterior in ("gamma", "full-normal"):
        model = tv.VAE(3, hidden=6, latent=2, posterior=posterior)
        assert aggregate.distance(model, data) is None
    few = DataSet("few-static", data.train[:5], data.test[:5], (1, 3), 1.0, "static", "bernoulli")
    assert aggregate.distance(tv.VAE(3, hidden=6, latent=2), few) is None
