"""M1+M2: its weights estimate the evidence of a stack that is known exactly, and both phases make one run."""

import warnings

import numpy as np
import pytest
from scipy import special, stats
from support import likely_zero

import tinyvae as tv
from tests.models.test_m1 import data
from tests.models.test_m2 import CLASSES, LATENT, PIXELS, Exact, put
from tinyvae.distributions import Normal
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch
from tinyvae.models.m1m2 import M1M2
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

INPUTS = 5
RNG = np.random.default_rng(8)
MAP, NOISE = RNG.standard_normal((INPUTS, PIXELS)), 0.5  # p(x|z1) = N(MAP z1, NOISE I)
X = RNG.standard_normal((2, INPUTS))


def stack():
    """p(z1) is the mixture of `Exact`, x = MAP z1 + noise; q(z1|x) is diagonal and not exact."""
    inner = Exact(wrong=0.1)
    model = M1M2(INPUTS, classes=CLASSES, hidden=(), latent=LATENT, likelihood="gaussian", features=PIXELS,
                 hidden2=(), dtype="float64")
    model.decoder.family = Normal
    put(model.decoder, [np.hstack([MAP.T, np.zeros(MAP.T.shape)])], np.append(np.zeros(INPUTS),
                                                                           np.full(INPUTS, np.log(NOISE))))
    precision = np.linalg.inv(np.diag(np.diag(inner.c)) + np.cov(inner.m.T)) + MAP.T @ MAP / NOISE
    gain = np.linalg.solve(precision, MAP.T / NOISE)
    put(model.encoder, [np.hstack([gain.T, np.zeros(gain.T.shape)])],
        np.append(np.zeros(PIXELS), np.log(1.5 * np.diag(np.linalg.inv(precision)))))
    for name in ("q_y", "q_z", "p_x"):
        theirs, ours = getattr(inner.model, name).layers[0], getattr(model, name).layers[0]
        put(getattr(model, name), [w.data for w in theirs.weights], theirs.bias.data)
        assert ours.weight.shape == theirs.weight.shape
    covariance = MAP @ inner.c @ MAP.T + NOISE * np.eye(INPUTS)
    return model, special.logsumexp([stats.multivariate_normal(MAP @ m, covariance).logpdf(X) for m in inner.m],
                                    axis=0) - np.log(CLASSES)


def test_weights_estimate_the_evidence_and_the_bound_lies_below():
    model, evidence = stack()
    batch, samples = Batch(tv.Tensor(X)), 20_000
    ratio = np.exp(model.log_weights(batch, Draw(tv.Noise(1)), samples).numpy() - evidence) - 1
    each = ratio.mean(1)
    likely_zero("E[w] / p(x) - 1", each.mean(), each.std() / np.sqrt(samples))
    many = Batch(tv.Tensor(np.repeat(X, 5000, axis=0)))
    terms = model.terms(many, Draw(tv.Noise(2)))
    bound = (terms["reconstruction"] - terms["kl"]).numpy().reshape(2, -1)
    assert (bound.mean(1) + 6 * bound.std(1) / np.sqrt(5000) < evidence).all()
    assert model.bound_of({name: term.numpy().mean() for name, term in terms.items()}) == pytest.approx(bound.mean())


def small(**more):
    sizes = {"classes": 3, "hidden": 16, "latent": 2, "features": 4, "hidden2": 12, "first_epochs": 12}
    return M1M2(6, **(sizes | more))


@pytest.mark.filterwarnings("ignore:found epochs=:RuntimeWarning")  # the run ends before its last phase, and goes on
def test_two_phases_are_one_run_that_resumes_in_either(tmp_path):
    settings = {"batch": 15, "lr": 1e-2, "quiet": True}
    whole = tv.fit(small(), data(), epochs=24, **settings)
    tv.fit(small(), data(), out=tmp_path / "run", epochs=2, **settings)
    for epochs in (13, 24):
        records = tv.resume(tmp_path / "run", data=data(), epochs=epochs, quiet=True)
    assert [r["fingerprint"] for r in records] == [r["fingerprint"] for r in whole]
    assert "train_unlabelled" not in records[11]
    assert {"train_unlabelled", "train_labelled", "train_classifier", "train_kl"} <= set(records[12])
    assert abs(records[-1]["train_elbo"] - records[-1]["test_elbo"]) < 1  # one kind of bound
    assert records[-1]["test_accuracy"] > 0.8


def test_each_phase_moves_its_own_networks():
    training = Training(small(first_epochs=1), data(), Settings(batch=30, epochs=2))
    for expected in ({"encoder", "decoder"}, {"q_y", "q_z", "p_x"}):
        parameters = training.model.parameters.tensors
        before = {name: tensor.data.copy() for name, tensor in parameters.items()}
        for _ in training.steps():
            pass
        training.end_epoch()
        assert {name.split(".")[0] for name, t in parameters.items() if (t.data != before[name]).any()} == expected


@pytest.mark.parametrize(("epochs", "warns"), [(1, True), (2, True), (3, False)])
def test_a_second_phase_that_does_not_begin_is_told(epochs, warns):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        Training(small(first_epochs=2), data(), Settings(epochs=epochs))
    said = [str(each.message) for each in found if "m2" in str(each.message)]
    assert said == [f"found epochs={epochs}, and the phases before 'm2' take 2, so 'm2' does not begin and what it "
                    "trains stays untrained: take more than 2 epochs"] * warns


def test_a_first_phase_without_epochs_is_none():
    with pytest.raises(ValueError, match="found first_epochs=0; expected at least 1"):
        small(first_epochs=0)
