"""Answers to conditions: the given pixels stay, the draws depend on the seed alone, and mean and spread are theirs."""

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.models.cvae import CVAE
from tinyvae.models.net import Net
from tinyvae.tasks.generation import conditional
from tinyvae.tasks.generation.conditional import answer, answers_to

SHAPE = (4, 6)
IMAGES = np.random.default_rng(0).random((3, *SHAPE)).astype(np.float32)


def model(given="quadrants:2", kind=CVAE, **options):
    return kind(24, shape=SHAPE, classes=3, given=given, hidden=8, **({"latent": 2} if kind is CVAE else {}), **options)


@pytest.mark.parametrize("given", ["quadrants:1", "quadrants:2", "quadrants:3"])
def test_given_pixels_stay_and_the_others_are_answers(given):
    of = model(given)
    found = answer(of, images=IMAGES, draws=5)
    known, rest = of.condition.given, of.condition.pixels
    flat = IMAGES.reshape(3, 24)
    assert found.images.shape == (5, 3, 24)
    assert (found.images[:, :, known] == flat[:, known]).all()
    assert (found.spread[:, known] < 1e-6).all()
    assert (found.spread[:, rest] > 1e-4).all()
    np.testing.assert_allclose(found.mean, found.images.mean(0))
    assert (found.pictures[:, rest] == 0.5).all()


def test_an_answer_is_a_mean_given_a_draw_of_the_prior():
    """By hand: z = m + T (z' - m) with z' of the same noise, decoded beside the condition."""
    of = model("pooled:2", dtype="float64")
    found = answer(of, images=IMAGES[:, ::2, ::2], draws=4, temperature=0.5, seed=3)
    c = tv.Tensor(found.conditions.astype(np.float64))
    np.testing.assert_allclose(c.numpy(), IMAGES[:, ::2, ::2].reshape(3, 6), rtol=1e-6)
    prior = of.prior(c)
    eps = tv.Noise(3, "answer").normal((4, 3, 2), "float64").numpy()
    z = prior.mu.numpy() + 0.5 * prior.sigma.numpy() * eps
    np.testing.assert_allclose(found.images, of.decoder(tv.Tensor(z), c).mean.numpy(), rtol=1e-9)


def test_answers_depend_on_the_seed():
    of = model()
    same, other = (answer(of, images=IMAGES, seed=seed).images for seed in (0, 1))
    assert (answer(of, images=IMAGES).images == same).all()
    assert (same != other).any()


def test_small_chunks_draw_new_numbers(monkeypatch):
    monkeypatch.setattr(conditional, "CHUNK", 1)
    found = answer(model(), images=IMAGES, draws=4).images
    assert len(np.unique(found[:, 0, 23])) == 4


def test_labels():
    found = answer(model("label"), label=2, draws=3)
    assert (found.captions, found.pictures, found.given) == (["label 2"], None, "a label")
    assert found.conditions.tolist() == [[0, 0, 1]]
    assert set(found.arrays()) == {"answers", "mean", "spread", "conditions"}


def test_a_net_answers_always_the_same():
    found = answer(model(kind=Net), images=IMAGES, draws=3)
    assert found.images.shape == (3, 3, 24)
    assert (found.spread < 1e-6).all()


@pytest.mark.parametrize(("use", "sentence"), [
    (lambda: answer(tv.VAE(24, 4, 2), label=3), "found a vae, which generates without a condition; expected a run "
     "that was trained with one: tinyvae train --model cvae --given label"),
    (lambda: answer(tv.VAE(24, 4, 2), images=IMAGES), "found a vae, which generates without a condition; expected a "
     "run that was trained with one: tinyvae train --model cvae --given quadrants:1|2|3 or pooled:N"),
    (lambda: answer(tv.VAE(24, 4, 2)), "found a vae, which generates without a condition; expected a run that was "
     "trained with one: tinyvae train --model cvae --given label, quadrants:1|2|3 or pooled:N"),
    (lambda: answer("model", label=3), "found a str in place of a model"),
    (lambda: answer(model()), "found neither a label nor an image; expected one of them: this model is given the left"),
    (lambda: answer(model(), 3, IMAGES), "found a label and an image; expected one of them"),
    (lambda: answer(model(), 3), "found the label 3 as the condition; this model is given the left half of an image"),
    (lambda: answer(model("label"), 3), "found the label 3; this model was trained on labels from 0 to 2"),
    (lambda: answer(model("label"), "3"), "found the label '3'; expected a whole number"),
    (lambda: answer(model(), images=IMAGES[:, :3]), "found a condition of 3 x 6 pixels; expected an image of 4 x 6"),
    (lambda: answer(model(), images=IMAGES, draws=0), "found draws 0; expected a whole number, at least 1"),
    (lambda: answer(model(), images=IMAGES, temperature=-1), "found the temperature -1; expected a number of at least"),
    (lambda: answer(model(), images=IMAGES, temperature=np.nan), "found the temperature nan; expected a number"),
    (lambda: answers_to(model(posterior="beta"), np.zeros((1, 12)), temperature=2), "found the temperature 2 with a "
                                                                                    "beta prior, which has no numbers"),
])  # fmt: skip
def test_wrong_uses_get_a_sentence(use, sentence):
    with pytest.raises((ValueError, TypeError)) as caught:
        use()
    assert str(caught.value).startswith(sentence)
