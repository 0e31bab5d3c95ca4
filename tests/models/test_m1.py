"""M1: its classifier is scikit-learn's on its features, no gradient reaches it, and a resumed run has the same."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from support import assert_same_bits

import tinyvae as tv
from tinyvae.models.m1 import M1
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings


def data(classes=3, count=90, labels=30):
    """Bits that tell their class: each class has two columns of its own."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % classes
    rows = (rng.random((count, 6)) < np.where(np.arange(6) // 2 == y[:, None], 0.9, 0.1)).astype(np.uint8)
    return tv.DataSet("made", rows, rows[:30], (2, 3), 1.0, "static", "bernoulli",
                      np.where(np.arange(count) < labels, y, -1), y[:30])  # fmt: skip


@pytest.mark.parametrize("classes", [2, 3])
def test_its_classifier_is_that_of_scikit_learn(classes):
    model, made = M1(6, classes=classes, hidden=8, latent=2), data(classes)
    model.learn(made)
    features = model.encode(made.train)[0].astype(np.float64)
    fitted = LogisticRegression(max_iter=1000).fit(features[:30], made.train_labels[:30])
    found = model.classify(tv.models.Batch(tv.Tensor(np.float32(made.train)))).numpy()
    np.testing.assert_allclose(found, fitted.predict_proba(features), rtol=0, atol=1e-5)


def test_a_class_without_a_label_gets_no_probability():
    model, made = M1(6, classes=4, hidden=8, latent=2), data()
    model.learn(made)
    assert model.classify(tv.models.Batch(tv.Tensor(np.float32(made.train)))).numpy()[:, 3].max() < 1e-15


def test_steps_train_the_vae_alone():
    training = Training(M1(6, classes=3, hidden=8, latent=2), data(), Settings(batch=30))
    parameters = training.model.parameters.tensors
    before = {name: tensor.data.copy() for name, tensor in parameters.items()}
    for _ in training.steps():
        pass
    moved = {name.split(".")[0] for name, t in parameters.items() if (t.data != before[name]).any()}
    assert moved == {"encoder", "decoder"}
    training.end_epoch()
    assert (training.model.classifier.layers[0].weight.data != before["classifier.0.weight"]).any()


def test_it_learns_and_resumes_with_the_same_bits(tmp_path):
    settings = {"batch": 30, "lr": 3e-2, "quiet": True}
    dynamic = dataclasses.replace(data(), pixels="dynamic")
    whole = tv.fit(M1(6, classes=3, hidden=16, latent=4), dynamic, epochs=7, **settings)
    tv.fit(M1(6, classes=3, hidden=16, latent=4), dynamic, out=tmp_path / "run", epochs=3, **settings)
    records = tv.resume(tmp_path / "run", data=dynamic, epochs=7, quiet=True)
    assert [r["fingerprint"] for r in records] == [r["fingerprint"] for r in whole]
    assert records[-1]["test_accuracy"] > 0.75
    assert {"train_reconstruction", "train_kl", "test_kl"} <= set(records[-1])
    loaded = tv.load(tmp_path / "run" / "last.safetensors")
    assert tv.evaluate(loaded, dynamic).accuracy == records[-1]["test_accuracy"]
    again = loaded.classifier.layers[0].weight.data.copy()
    loaded.learn(dynamic)
    assert_same_bits(loaded.classifier.layers[0].weight.data, again)


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan")])
def test_a_penalty_that_is_none_is_refused(strength):
    with pytest.raises(ValueError, match=f"found strength={strength}; expected a finite number above 0"):
        M1(6, classes=3, hidden=8, latent=2, strength=strength)


def test_data_without_labels_are_refused():
    with pytest.raises(ValueError, match="an m1 learns from labels, and made has none"):
        tv.fit(M1(6, classes=3, hidden=8, latent=2), dataclasses.replace(data(), train_labels=None), epochs=1)
