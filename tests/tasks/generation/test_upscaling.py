"""Super-resolution: every number of the table is that of its images, and the answers are those of the model."""

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.models.conditions import condition_of
from tinyvae.models.cvae import CVAE
from tinyvae.tasks.generation import upscaling
from tinyvae.tasks.generation.likeness import psnr, ssim
from tinyvae.tasks.generation.upscaling import bicubic, upscale

SHAPE, COUNT = (8, 12), 7
IMAGES = np.random.default_rng(0).random((COUNT, *SHAPE)).astype(np.float32)


def model(given="pooled:2"):
    return CVAE(96, shape=SHAPE, given=given, hidden=8, latent=2)


def test_the_table_is_made_of_the_answers(monkeypatch):
    """Two batches; the mean of the draws, judged by hand."""
    monkeypatch.setattr(upscaling, "BATCH", 4)
    found = upscale(model(), IMAGES, temperatures=(0.3, 1.0), draws=5)
    flat = IMAGES.reshape(COUNT, 96)
    low = found.shown["nearest"].reshape(COUNT, 8, 12)[:, ::2, ::2].reshape(COUNT, 24)
    np.testing.assert_allclose(low, IMAGES.reshape(COUNT, 4, 2, 6, 2).mean((2, 4)).reshape(COUNT, 24), rtol=1e-6)
    names = ["nearest", "bicubic", "answer, T = 0.3", "mean of 5, T = 0.3", "answer, T = 1", "mean of 5, T = 1"]
    assert [way.name for way in found.ways] == names
    assert list(found.shown) == [*names, "original"]
    assert (found.shown["original"] == flat).all()
    assert (found.shown["mean of 5, T = 1"] == found.images).all()
    pool = condition_of("pooled:2", SHAPE, 0).pooled
    for way in found.ways:
        images = found.shown[way.name]
        numbers = {"psnr": psnr(images, flat), "ssim": ssim(images.reshape(-1, *SHAPE), IMAGES),
                   "consistency": psnr(pool(images), low)}
        for name, values in numbers.items():
            assert getattr(way, name) == pytest.approx(values.mean(), rel=1e-4)
            if np.isfinite(values).all():
                error = values.std(ddof=1) / COUNT**0.5
                assert getattr(way, f"{name}_stderr") == pytest.approx(error, rel=1e-3)
    one = found.way(1, 1.0)
    assert one.diversity == pytest.approx(found.spread.mean(), rel=1e-5)
    assert found.way(1, 0.3).diversity < 0.4 * one.diversity
    text = str(found)
    assert "x2, 7 images" in text
    assert f"{one.psnr:.2f}" in text


def test_each_temperature_has_the_same_draws():
    """So one does not depend on the others."""
    several, alone = (upscale(model(), IMAGES, temperatures=t, draws=3).way(3, 1.0) for t in ((0.2, 1.0), (1.0,)))
    assert several == alone


def test_small_images_have_no_original():
    found = upscale(model(), IMAGES[:, :4, :6], draws=3)
    assert {way.psnr for way in found.ways} == {None}
    assert "original" not in found.shown
    assert found.images.shape == (COUNT, 96)
    assert np.isfinite(found.ways[-1].consistency)


def test_bicubic_is_pillows():
    """A ramp stays a ramp inside, a flat image flat, and what overshoots is cut."""
    flat = bicubic(np.full((1, 4, 6), 0.3), SHAPE)
    np.testing.assert_allclose(flat, 0.3, rtol=1e-6)
    ramp = bicubic(np.tile(np.arange(6) / 6, (1, 4, 1)), SHAPE).reshape(SHAPE)
    np.testing.assert_allclose(ramp[:, 4:8], np.tile((np.arange(4, 8) - 0.5) / 12, (8, 1)), atol=1e-6)
    step = bicubic(np.tile(np.arange(6) > 2, (1, 4, 1)), SHAPE)
    assert (step.min(), step.max()) == (0, 1)


@pytest.mark.parametrize(("use", "sentence"), [
    (lambda: upscale(model("quadrants:1"), IMAGES), "found a cvae that is given the bottom left quarter of an image; "
                                                    "upscale takes a run that was trained with --given pooled:N"),
    (lambda: upscale(tv.VAE(96, 4, 2), IMAGES), "found a vae, which generates without a condition; expected a run "
     "that was trained with one: tinyvae train --model cvae --given pooled:N, which is given an image averaged"),
    (lambda: upscale(model(), IMAGES[:, :5]), "found a condition of 5 x 12 pixels; expected 4 x 6, or 8 x 12 to be"),
    (lambda: upscale(model(), IMAGES, temperatures=()), "found no temperature; expected at least one number"),
    (lambda: upscale(model(), IMAGES, temperatures=(-0.5,)), "found the temperature -0.5; expected a number of at"),
    (lambda: upscale(model(), IMAGES, draws=0), "found draws 0; expected a whole number, at least 1"),
])
def test_wrong_uses_get_a_sentence(use, sentence):
    with pytest.raises(ValueError, match=r"found") as caught:
        use()
    assert str(caught.value).startswith(sentence)


def test_colours_are_raised_channel_by_channel():
    """Bicubic interpolation and consistency of each channel are those of a grey image."""
    images = np.random.default_rng(1).random((COUNT, *SHAPE, 3)).astype(np.float32)
    found = upscale(CVAE(288, shape=(*SHAPE, 3), given="pooled:2", hidden=8, latent=2), images, draws=3)
    shown = found.shown["bicubic"].reshape(COUNT, *SHAPE, 3)
    for channel in range(3):
        low = images[..., channel].reshape(COUNT, 4, 2, 6, 2).mean((2, 4))
        np.testing.assert_allclose(shown[..., channel].reshape(COUNT, 96), bicubic(low, SHAPE), atol=1e-6)
    way = found.ways[1]
    assert way.psnr == pytest.approx(psnr(shown.reshape(COUNT, -1), images.reshape(COUNT, -1)).mean(), rel=1e-6)
    each = np.mean([ssim(shown[..., channel], images[..., channel]) for channel in range(3)])
    assert way.ssim == pytest.approx(each, rel=1e-6)
    assert found.images.shape == (COUNT, 288)
