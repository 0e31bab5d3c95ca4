"""Which training data are held out, of which the labels are used, and settings that a model does not read."""

import dataclasses
import re

import numpy as np
import pytest
from support import assert_same_bits

import tinyvae as tv
from tinyvae import VAE
from tinyvae.models.classifier import Classifier
from tinyvae.models.cvae import CVAE
from tinyvae.models.m1 import M1
from tinyvae.models.m1m2 import M1M2
from tinyvae.models.m2 import M2
from tinyvae.models.net import Net
from tinyvae.training import epochs as module
from tinyvae.training.epochs import Training
from tinyvae.training.selection import few_labels, hold_out, select
from tinyvae.training.settings import Settings


@pytest.fixture(scope="module")
def digits():
    return tv.data.load("digits")


def test_few_labels_have_the_same_number_of_each_class(digits):
    few = few_labels(digits, 50, 3)
    known = few.train_labels >= 0
    assert np.bincount(few.train_labels[known]).tolist() == [5] * 10
    assert (few.train_labels[known] == digits.train_labels[known]).all()
    assert_same_bits(few.train_labels, few_labels(digits, 50, 3).train_labels)
    assert (few.train_labels != few_labels(digits, 50, 4).train_labels).any()
    # more labels are the fewer ones and others
    more = few_labels(digits, 100, 3).train_labels
    assert (more[known] >= 0).all()


def test_labels_are_chosen_among_the_data_that_are_not_held_out(digits):
    found = select(digits, Settings(labels=20, validation=300, seed=1))
    held = hold_out(digits, 300, 1)
    assert_same_bits(found.valid_labels, held.valid_labels)
    assert (found.train_labels >= 0).sum() == 20
    assert len(found.train) == len(digits.train) - 300


def test_masks_go_with_their_data(digits):
    mask = (digits.train > 3).astype(np.uint8)
    found = hold_out(dataclasses.replace(digits, train_mask=mask), 100, 2)
    assert_same_bits(found.train_mask, (found.train > 3).astype(np.uint8))
    assert_same_bits(found.valid_mask, (found.valid > 3).astype(np.uint8))


@pytest.mark.parametrize(("count", "why"), [
    (15, "labels=15 with the 10 classes of digits-dynamic; expected a multiple of 10, .* labels=20"),
    (5000, "labels=5000, the same number of each of the 10 classes of digits-dynamic, and class 8 has 138 training "
           "labels; expected at most labels=1380"),
    (99999, "labels=99999, .* expected at most labels=1380"),
    (1379, "labels=1379 with the 10 classes .* labels=1380"),
    (1381, "labels=1381, .* expected at most labels=1380"),
])  # fmt: skip
def test_labels_that_cannot_be_had(digits, count, why):
    with pytest.raises(ValueError, match=why) as caught:
        few_labels(digits, count, 0)
    offered = int(str(caught.value).rpartition("labels=")[2])
    assert (few_labels(digits, offered, 0).train_labels >= 0).sum() == offered  # the cure works for these data
    without = dataclasses.replace(digits, train_labels=np.where(digits.train_labels == 3, -1, digits.train_labels))
    with pytest.raises(ValueError, match=r"class 3 of digits-dynamic has no .*: give one of that class"):
        few_labels(without, count, 0)
    with pytest.raises(ValueError, match="training data have no labels"):
        few_labels(dataclasses.replace(digits, train_labels=None, test_labels=None), 10, 0)


def test_labelled_batches_go_round_their_own_order(digits):
    """With 7 labelled rows a step of 30 labelled data each comes 7 or 0 times later, in the order of its own stream."""
    data = few_labels(digits, 30, 0)
    training = Training(M2(64, hidden=5, latent=2), data, Settings(batch=100, labelled_batch=7))
    training.begin_epoch()
    batches, seen = training.batches, []
    order = batches.labelled.index.copy()
    assert sorted(order) == list(range(30))
    assert list(order) != sorted(order)
    for _ in range(6):
        batch, _ = batches.next(100)
        assert (len(batch), len(batch.labelled)) == (100, 7)
        seen.append(batch.labelled.y.numpy().argmax(1))
        batches.tick(100)
    expected = np.resize(order, 42)
    labels = data.train_labels[data.train_labels >= 0]
    assert (np.concatenate(seen) == labels[expected]).all()


# ---- the best epoch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options", "first"), [("m2", {}, 1), ("m1m2", {"features": 3, "first_epochs": 2}, 3)])
def test_the_best_epoch_of_a_model_that_classifies_has_the_highest_validation_accuracy(
        digits, kind, options, first, monkeypatch):
    """Its bound rises throughout; that of a first phase chooses while nothing classifies."""
    accuracy, real, epochs = iter([0.5, 0.7, 0.6, 0.7, 0.8]), module.evaluate, 5

    def judged(model, data, importance_samples, part, team):
        result = real(model, data, importance_samples, part=part, count=5)
        if part == "test":
            return result
        values.append(next(accuracy))
        return dataclasses.replace(result, elbo=len(values), accuracy=values[-1])

    values = []
    monkeypatch.setattr(module, "evaluate", judged)
    data = dataclasses.replace(digits, train=digits.train[:200], train_labels=digits.train_labels[:200])
    model = tv.models.model_for(kind, data, hidden=4, latent=2, **options)
    records = tv.fit(model, data, epochs=epochs, batch=100, validation=50, labels=20, quiet=True)
    expected = [True] * first + [value > max(values[first - 1:i]) for i, value in enumerate(values) if i >= first]
    assert [record["best"] for record in records] == expected


# ---- settings that a model does not read -----------------------------------------------------------------------------

UNREAD = [
    (VAE, {}, {"labels": 20}, "found labels=20 with a vae, which reads no labels; models that learn from few are "
                              "classifier, m1, m2, m1m2, shot"),
    (CVAE, {"shape": (8, 8), "given": "quadrants:1"}, {"labels": 20}, "with a cvae, which reads no labels; models"),
    (CVAE, {"shape": (8, 8), "classes": 10}, {"labels": 20}, "with a cvae, which needs the label of each datum: leave"),
    (VAE, {}, {"labelled_batch": 5}, "found labelled_batch=5 with a vae, whose steps have no labelled data: leave"),
    (M1, {}, {"labelled_batch": 5}, "found labelled_batch=5 with an m1, whose steps have no labelled data: leave"),
    (Classifier, {}, {"samples": 2}, "found samples=2 with a classifier, whose steps have no draws of z that it"),
    (Classifier, {}, {"free_bits": 0.5}, "found free_bits=0.5 with a classifier, whose steps have no draws"),
    (Classifier, {}, {"bound": "elbo-a"}, "found bound=elbo-a with a classifier, whose steps have no draws"),
    (Classifier, {}, {"estimator": "score"}, "found estimator=score with a classifier, whose steps have no draws"),
    (Net, {"shape": (8, 8), "classes": 10}, {"samples": 3}, "found samples=3 with a net, whose steps have no draws"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "options", "settings", "sentence"), UNREAD)
def test_a_setting_that_a_model_does_not_read_is_refused(digits, model, options, settings, sentence):
    made = model(64, hidden=4, **({"latent": 2} if model in (VAE, CVAE, M1) else {}), **options)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Training(made, digits, Settings(**settings))


def test_settings_that_a_model_reads_are_not_refused(digits):
    """A setting of one phase alone, too."""
    for made, settings in ((M2(64, hidden=4, latent=2), {"labels": 20, "labelled_batch": 5, "samples": 2}),
                           (VAE(64, hidden=4, latent=2), {"bound": "iwae", "importance_samples": 2, "samples": 2}),
                           (VAE(64, hidden=4, latent=2), {"estimator": "score", "samples": 2, "baseline": "fitted"}),
                           (VAE(64, hidden=4, latent=2), {"free_bits": 0.5}),
                           (M1M2(64, hidden=4, latent=2, features=3, first_epochs=1),
                            {"labels": 20, "labelled_batch": 5})):
        Training(made, digits, Settings(**settings))


def test_labels_that_are_unknown_are_no_condition(digits):
    few = select(digits, Settings(labels=20))
    with pytest.raises(ValueError, match="a cvae needs the label of each datum, and 1,477 of the 1,497 train data of"):
        Training(CVAE(64, shape=(8, 8), classes=10, hidden=4, latent=2), few, Settings())
