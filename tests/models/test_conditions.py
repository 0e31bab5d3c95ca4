"""Conditions: which pixels are given, which are the target, and that both come from the same datum."""

import contextlib
import dataclasses
import re

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.models import Batch, Model
from tinyvae.models.batch import rows_of
from tinyvae.models.conditions import CONDITIONS, Condition, condition_of, forms, kind
from tinyvae.models.cvae import CVAE

SHAPE = (4, 6)
# For images of 4 x 6, `#` is given.
MAPS = {"quadrants:1": ["......", "......", "###...", "###..."],
        "quadrants:2": ["###...", "###...", "###...", "###..."],
        "quadrants:3": ["######", "######", "###...", "###..."]}  # fmt: skip


def data_set(pixels="dynamic"):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 17, (40, 24), np.uint8), rng.integers(0, 17, (9, 24), np.uint8)
    labels = [rng.integers(0, 3, count) for count in (40, 9)]
    return tv.DataSet(f"made-{pixels}", train, test, SHAPE, 16.0, pixels, "bernoulli", *labels)


@pytest.mark.parametrize("given", MAPS)
def test_quadrants_are_those_of_the_paper(given):
    condition = condition_of(given, SHAPE, 0)
    known = np.array([list(row) for row in MAPS[given]]).reshape(-1) == "#"
    assert set(condition.given) == set(np.flatnonzero(known))
    assert set(condition.pixels) == set(np.flatnonzero(~known))
    assert (condition.width, len(condition.pixels)) == (known.sum(), (~known).sum())
    images = np.arange(48, dtype=np.float32).reshape(2, 24)
    batch = Batch(tv.Tensor(images))
    c, target = condition.of(batch).numpy(), condition.target(batch).numpy()
    assert (c == images[:, condition.given]).all()
    assert (target == images[:, condition.pixels]).all()
    assert (condition.from_images(images.reshape(2, *SHAPE)) == c).all()
    assert (condition.whole(c, target) == images).all()
    draws = np.stack([target, 2 * target])
    assert (condition.whole(c, draws)[1, :, condition.pixels] == 2 * target.T).all()
    shown = condition.picture(c)
    assert (shown[:, known] == images[:, known]).all()
    assert (shown[:, ~known] == 0.5).all()
    assert condition.seen(batch) == (batch.x,)


@pytest.mark.parametrize("given", MAPS)
def test_a_quarter_in_colour_has_all_channels(given):
    """The pixels of grey images, each three times: given and target are the same places."""
    grey, condition = condition_of(given, SHAPE, 0), condition_of(given, (*SHAPE, 3), 0)
    for ours, theirs in ((condition.given, grey.given), (condition.pixels, grey.pixels)):
        assert ours.tolist() == (3 * theirs[:, None] + np.arange(3)).reshape(-1).tolist()
    images = np.random.default_rng(0).random((2, 72)).astype(np.float32)
    batch = Batch(tv.Tensor(images))
    c, target = condition.of(batch).numpy(), condition.target(batch).numpy()
    assert (c == images[:, condition.given]).all()
    assert (target == images[:, condition.pixels]).all()
    assert (condition.from_images(images.reshape(2, *SHAPE, 3)) == c).all()
    assert (condition.whole(c, target) == images).all()
    with pytest.raises(ValueError, match="found a condition of 4 x 6 pixels; expected an image of 4 x 6 x 3"):
        condition.from_images(images.reshape(2, 3, 24)[:, 0].reshape(2, *SHAPE))


def test_each_channel_is_averaged_by_itself():
    """Against NumPy's mean of each block of each channel."""
    condition = condition_of("pooled:2", (*SHAPE, 3), 0)
    images = np.random.default_rng(0).random((2, 5, 72)).astype(np.float32)
    blocks = images.reshape(2, 5, *SHAPE, 3)
    right = np.array([[[[blocks[k, n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].mean() for c in range(3)]
                        for i in range(2) for j in range(3)] for n in range(5)] for k in range(2)])
    np.testing.assert_allclose(condition.pooled(images), right.reshape(2, 5, 18), rtol=1e-6)
    assert (condition.width, condition.low, condition.shapes()) == (18, (2, 3, 3), [(4, 6, 3), (2, 3, 3)])
    shown = condition.picture(condition.pooled(images[0])).reshape(5, *SHAPE, 3)
    np.testing.assert_allclose(shown[:, ::2, ::2].reshape(5, 18), right[0].reshape(5, 18), rtol=1e-6)
    assert (shown[:, 1::2, 1::2] == shown[:, ::2, ::2]).all()
    with pytest.raises(ValueError, match="pooled:3' for images of 4 x 6 x 3 pixels; expected one of 2, by"):
        condition_of("pooled:3", (*SHAPE, 3), 0)


def test_quarters_of_an_odd_image():
    """The smaller half is above and on the left."""
    condition = condition_of("quadrants:1", (3, 5), 0)
    assert condition.given.tolist() == [5, 6, 10, 11]
    assert sorted([*condition.given, *condition.pixels]) == list(range(15))


def test_condition_and_target_are_one_draw_of_the_pixels():
    """Each use draws the pixels anew, and a part of an image is never drawn apart from the rest."""
    model = CVAE(24, shape=SHAPE, given="quadrants:1", hidden=4, latent=2)
    rows = rows_of(model, data_set(), "train", tv.Noise(0, "binarise"))
    batches = [rows.at(tv.Tensor(np.arange(40))) for _ in range(2)]
    c, target = (part(batches[0]).numpy() for part in (model.condition.of, model.target))
    assert (model.condition.whole(c, target) == batches[0].x.numpy()).all()
    assert (batches[0].x.numpy() != batches[1].x.numpy()).any()


def pooled_by_hand(images, n):
    rows, columns = SHAPE[0] // n, SHAPE[1] // n
    grid = images.reshape(-1, *SHAPE)
    return np.array([[image[i * n:(i + 1) * n, j * n:(j + 1) * n].mean() for i in range(rows) for j in range(columns)]
                     for image in grid])


@pytest.mark.parametrize("pixels", ["dynamic", "gray"])
def test_a_pooled_condition_is_of_the_grey_values(pixels):
    """Also where the pixels are drawn from these; of the same rows as the pixels, in every order."""
    data = data_set(pixels)
    model = CVAE(24, shape=SHAPE, given="pooled:2", hidden=4, latent=2, likelihood="continuous-bernoulli")
    drawn = tv.Noise(0, "binarise") if pixels == "dynamic" else None
    index = np.random.default_rng(1).permutation(40)[:7]
    batch = rows_of(model, data, "train", drawn).at(tv.Tensor(index))
    grey = data.train[index] / 16
    np.testing.assert_allclose(model.condition.of(batch).numpy(), pooled_by_hand(grey, 2), rtol=1e-6)
    if pixels == "gray":
        np.testing.assert_allclose(batch.x.numpy(), grey, rtol=1e-6)


def test_pooled_images_of_a_user():
    condition = condition_of("pooled:2", SHAPE, 0)
    images = np.random.default_rng(0).random((3, *SHAPE)).astype(np.float32)
    low = condition.from_images(images)
    np.testing.assert_allclose(low, pooled_by_hand(images, 2), rtol=1e-6)
    assert (condition.from_images(low.reshape(3, 2, 3)) == low).all()  # the pooled image itself
    shown = condition.picture(low)
    np.testing.assert_allclose(condition.pooled(shown), low, rtol=1e-6)
    assert (shown.reshape(3, *SHAPE)[:, :2, :2] == low[:, 0, None, None]).all()


@pytest.mark.parametrize("shape", [(8, 8), (4, 6), (7, 7), (6, 3), (8, 8, 3)])
def test_every_number_that_a_refusal_of_pooled_offers_is_taken_and_no_other(shape):
    with pytest.raises(ValueError, match="expected one of") as caught:
        condition_of("pooled:1", shape, 0)
    offered = [int(number) for number in re.findall(r"\d+", str(caught.value).partition("one of ")[2])]
    taken = []
    for number in range(2, 10):
        with contextlib.suppress(ValueError):
            taken.append(condition_of(f"pooled:{number}", shape, 0).number)
    assert offered == taken


def test_the_ways_to_give_a_label_and_an_image():
    assert (forms("label"), forms("image")) == ("label", "quadrants:1|2|3 or pooled:N")
    assert forms() == "label, quadrants:1|2|3 or pooled:N"


def test_labels_are_one_hot():
    condition = condition_of("label", SHAPE, 3)
    assert condition.from_label(2).tolist() == [[0, 0, 1]]
    assert condition.captions(np.eye(3)[[1, 0]]) == ["label 1", "label 0"]
    assert condition.captions(np.zeros((1, 3))) == ["no label"]
    assert condition.picture(np.eye(3)) is None


@pytest.mark.parametrize(("use", "sentence"), [
    (lambda: condition_of("quadrant:1", SHAPE, 0), "found given='quadrant:1'; expected label, quadrants:1|2|3 or "
                                                   "pooled:N"),
    (lambda: condition_of("label:3", SHAPE, 3), "found given='label:3'; expected label"),
    (lambda: condition_of("pooled", SHAPE, 0), "found given='pooled'; expected"),
    (lambda: condition_of("pooled:-2", SHAPE, 0), "found given='pooled:-2'; expected"),
    (lambda: condition_of(None, SHAPE, 0), "found given=None; expected"),
    (lambda: condition_of("quadrants:4", SHAPE, 0), "found given='quadrants:4'; expected 1 (the bottom left"),
    (lambda: condition_of("quadrants:1", (9, 1), 0), "found given='quadrants:1' for images of 9 x 1 pixels; expected"),
    (lambda: condition_of("quadrants:2", (1, 5), 3), "found given='quadrants:2' for data of one row of 5 numbers, as "
     "of a table; expected images of rows and columns, which a condition on pixels needs: take given='label'"),
    (lambda: condition_of("pooled:2", (1, 6), 0), "found given='pooled:2' for data of one row of 6 numbers, as of a "
     "table; expected images of rows and columns, which a condition on pixels needs: take given='label', for which "
     "data need labels, as by --label-column NAME or --labels-from FILE"),
    (lambda: condition_of("pooled:5", SHAPE, 0), "found given='pooled:5' for images of 4 x 6 pixels; expected one of "
                                                 "2, by which rows and columns can be divided"),
    (lambda: condition_of("pooled:1", (8, 8), 0), "found given='pooled:1' for images of 8 x 8 pixels; expected one of "
                                                  "2, 4, 8, by which"),
    (lambda: condition_of("pooled:2", (7, 5), 0), "found given='pooled:2' for images of 7 x 5 pixels, of which no "
                                                  "number divides rows and columns; expected another condition"),
    (lambda: condition_of("pooled:2", (4,), 0), "found given='pooled:2' for data of shape (4,); expected"),
    (lambda: condition_of("label", SHAPE, 0), "found given='label' for data without labels"),
    (lambda: condition_of("label", SHAPE, 3).from_label(3), "found the label 3; this model was trained on labels from "
                                                            "0 to 2"),
    (lambda: condition_of("label", SHAPE, 3).from_images(np.zeros((1, *SHAPE))), "found an image as the condition; "
                                                                                 "this model is given a label"),
    (lambda: condition_of("pooled:2", SHAPE, 3).from_label(1), "found the label 1 as the condition; this model is "
                                                               "given an image averaged over 2 x 2 pixels"),
    (lambda: condition_of("pooled:2", SHAPE, 3).from_images(np.zeros((1, 5, 5))), "found a condition of 5 x 5 pixels; "
                                                                       "expected 2 x 3, or 4 x 6 to be averaged"),
    (lambda: condition_of("quadrants:2", SHAPE, 3).from_images(np.zeros((1, 2, 3))), "found a condition of 2 x 3 "
                                                                       "pixels; expected an image of 4 x 6"),
])  # fmt: skip
def test_what_is_no_condition_gets_a_sentence(use, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        use()
    assert str(caught.value).startswith(sentence)


def test_a_kind_of_ones_own_edits_no_list():
    """The top row is given; the model, its help text and its training know it at once."""
    try:
        @kind("top")
        class Top(Condition):
            form, words = "top:N", "the top rows of an image"

            def __init__(self, number, shape, classes):
                super().__init__(number, shape, classes)
                self.width, self.pixels = number * shape[1], self.pixels[number * shape[1]:]

            def of(self, batch):
                return batch.x[:, : self.width]

            def target(self, batch):
                return batch.x[:, self.width:]

        assert "top:N" in forms()
        model = CVAE(24, shape=SHAPE, given="top:1", hidden=4, latent=2)
        records = tv.fit(model, data_set(), epochs=1, quiet=True)
        assert np.isfinite(records[-1]["test_elbo"])
        assert model.targets == 18
    finally:
        del CONDITIONS["top"]


def test_a_model_without_a_condition_answers_for_all_its_pixels():
    model, batch = tv.VAE(24, 4, 2), Batch(tv.Tensor(np.zeros((2, 24), np.float32)))
    assert (model.targets, model.condition) == (24, None)
    assert Model.target(model, batch) is batch.x
    assert model.has_pictures
    assert not CVAE(24, shape=SHAPE, given="quadrants:1", hidden=4, latent=2).has_pictures


def test_a_run_on_grey_values_resumes_with_the_same_bits(tmp_path):
    data, options = dataclasses.replace(data_set(), name="made"), {"shape": SHAPE, "given": "pooled:2", "hidden": 4}
    whole = tv.fit(CVAE(24, latent=2, **options), data, epochs=3, batch=16, quiet=True)
    tv.fit(CVAE(24, latent=2, **options), data, out=tmp_path / "run", epochs=1, batch=16, quiet=True)
    records = tv.resume(tmp_path / "run", data=data, epochs=3)
    assert records[-1]["fingerprint"] == whole[-1]["fingerprint"]
