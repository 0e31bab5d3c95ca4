"""Accuracy, confusion and calibration against numbers worked out by hand, and the command that prints them."""

import csv
import json

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.models.classifier import Classifier
from tinyvae.tasks.classification import Classified, classify, classify_images, gain

# Confidences 0.9, 0.8, 0.6, 0.8 and one datum without a label; the second class is wrong.
FOUND = Classified(np.array([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]),
                   np.array([0, 2, 2, 0, -1]), ("a", "b", "c"))


def test_accuracy_and_confusion():
    assert FOUND.right().tolist() == [1, 0, 1, 1]
    assert FOUND.accuracy() == pytest.approx((0.75, 0.25))  # the standard deviation of 1, 0, 1, 1 is 1/2
    assert FOUND.confusion().tolist() == [[2, 0, 0], [0, 0, 0], [0, 1, 1]]


def test_calibration():
    found = FOUND.calibration(5)  # [0.6, 0.8) has one datum, [0.8, 1] three
    assert found.counts.tolist() == [0, 0, 0, 1, 3]
    np.testing.assert_allclose(found.confidence[3:], [0.6, 2.5 / 3])
    np.testing.assert_allclose(found.accuracy[3:], [1, 2 / 3])
    assert np.isnan(found.accuracy[:3]).all()
    assert found.error == pytest.approx((1 * 0.4 + 3 * (2.5 / 3 - 2 / 3)) / 4)
    sure = Classified(np.eye(3), np.arange(3), ("a", "b", "c")).calibration(5)
    assert (sure.error, sure.counts.tolist()) == (0, [0, 0, 0, 0, 3])  # a confidence of 1 lies in the last bin


def test_the_gain_is_paired():
    other = Classified(FOUND.probabilities[:, [1, 0, 2]], FOUND.labels, FOUND.names)  # wrong, wrong, right, wrong
    assert other.right().tolist() == [0, 0, 1, 0]
    assert gain(FOUND, other) == pytest.approx((0.5, np.std([1, 0, 0, 1], ddof=1) / 2))
    assert gain(FOUND, FOUND) == (0, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    tv.fit(Classifier(64, hidden=20), "digits", out=folder, epochs=2, labels=50, quiet=True)
    return folder


def test_a_model_classifies_data_and_images(trained):
    model, data = tv.load(trained), tv.data.load("digits")
    found = classify(model, data)
    assert found.accuracy()[0] == tv.evaluate(model, data).accuracy
    assert found.names == tuple("0123456789")
    grey = data.test[:7] / data.scale
    alone = classify_images(model, grey, data)
    np.testing.assert_allclose(alone.probabilities, model.q_y(tv.Tensor(np.float32(grey))).mean.numpy(), atol=1e-6)
    np.testing.assert_allclose(alone.probabilities.sum(1), 1, rtol=0, atol=1e-12)
    assert len(alone.known) == 0


def test_a_model_without_classifier_is_refused():
    with pytest.raises(ValueError, match=r"found a vae, which has no classifier; expected .*: classifier, m1"):
        classify(tv.VAE(64, 5, 2), "digits")


def test_the_command(trained, run, tmp_path):
    found = json.loads(run("classify", trained, "--json")[1])
    assert found["labelled_count"] == 300
    assert len(found["class"]) == len(found["probabilities"]) == 300
    table = tmp_path / "classes.csv"
    text = run("classify", trained, "--csv", table)[1]
    assert f"accuracy {found['accuracy']:.2%}" in text
    assert f"expected calibration error {found['expected_calibration_error']:.2%} in 10 bins" in text
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["class"] for row in rows] == found["class"]
    assert [row["label"] for row in rows] == found["label"]
    assert float(rows[3]["p(4)"]) == pytest.approx(found["probabilities"][3][4], rel=1e-5)


def test_the_command_takes_images(trained, run, tmp_path):
    np.save(tmp_path / "few.npy", np.uint8(tv.data.load("digits").test[:3].reshape(-1, 8, 8) * 15))
    found = json.loads(run("classify", trained, tmp_path / "few.npy", "--json")[1])
    assert len(found["class"]) == 3
    assert found["label"] == [None] * 3
    assert "accuracy" not in found
    np.save(tmp_path / "large.npy", np.zeros((2, 9, 9), np.uint8) + np.arange(0, 255, 30, np.uint8))
    code, _, error = run("classify", trained, tmp_path / "large.npy")
    assert (code, error.count("\n")) == (2, 1)
    assert "found images of 9 x 9 pixels in" in error
    assert "the run learned from 8 x 8" in error


def test_the_command_refuses_a_run_without_classifier(run, tmp_path):
    tv.fit(tv.VAE(64, 5, 2), "digits", out=tmp_path / "run", epochs=0, quiet=True)
    code, _, error = run("classify", tmp_path / "run")
    assert (code, error.count("\n")) == (2, 1)
    assert "found a vae, which has no classifier" in error
