"""The net without z: its bound is log p(t|c) itself, and independent pixels have the entropy that they have."""

import numpy as np
import pytest
from scipy.special import log_expit

import tinyvae as tv
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch
from tinyvae.models.net import Net

SHAPE = (4, 6)


def net(**options):
    return Net(24, shape=SHAPE, given="quadrants:2", hidden=5, dtype="float64", **options)


def test_its_bound_is_log_p():
    x = np.random.default_rng(0).integers(0, 2, (7, 24)).astype(float)
    model = net()
    found = model.terms(Batch(tv.Tensor(x)), Draw(tv.Noise(0)))
    left = np.concatenate([x.reshape(7, *SHAPE)[:, row, :3] for row in range(4)], axis=1)
    right = np.concatenate([x.reshape(7, *SHAPE)[:, row, 3:] for row in range(4)], axis=1)
    (first, last) = ((layer.weight.data, layer.bias.data) for layer in model.decoder.layers)
    logits = np.maximum(left @ first[0] + first[1], 0) @ last[0] + last[1]
    expected = np.where(right == 1, log_expit(logits), log_expit(-logits)).sum(1)
    np.testing.assert_allclose(found["likelihood"].numpy(), expected, rtol=1e-12)


def test_it_learns_what_is_given_and_finds_the_entropy_of_the_rest():
    """The right half repeats the left one, but for one pixel of chance: log p goes to -log 2."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 2, (600, 4, 6)).astype(np.uint8)
    images[:, :, 3:] = images[:, :, :3]
    images[:, 3, 5] = rng.integers(0, 2, 600)
    rows = images.reshape(600, 24)
    data = tv.DataSet("made-static", rows[:500], rows[500:], SHAPE, 1.0, "static", "bernoulli")
    model = Net(24, shape=SHAPE, given="quadrants:2", hidden=40)
    tv.fit(model, data, epochs=60, lr=1e-2, quiet=True)
    found = tv.evaluate(model, data)
    assert found.elbo == pytest.approx(-np.log(2), abs=0.15)
    assert found.terms["likelihood"] == found.elbo
    assert found.bits_per_pixel == pytest.approx(-found.elbo / np.log(2) / 12)


def test_what_it_does_not_have_gets_a_sentence():
    data = np.zeros((3, 24))
    with pytest.raises(ValueError, match=r"found importance_samples=5 \(-k\) for a net, which has no .*leave it out"):
        tv.evaluate(net(), data, importance_samples=5)
    with pytest.raises(ValueError, match="the likelihood bernoulli takes 0 and 1, and the array has numbers"):
        tv.evaluate(net(), data + 0.5)
