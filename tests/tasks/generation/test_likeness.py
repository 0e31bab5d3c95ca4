"""PSNR and SSIM against closed forms and against scikit-image, whose numbers stand here."""

import numpy as np
import pytest

from tinyvae.tasks.generation.likeness import C1, C2, colour_ssim, psnr, ssim

# structural_similarity(a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False) and
# peak_signal_noise_ratio(a, b, data_range=1) of scikit-image 0.26.0 for the images below; for 8 x 8 pixels sigma is
# 1.5 * 7 / 11, whose window has 7 x 7.
WAVES = {28: 0.24121389482809352, 8: 0.08702217042415468}
FAINTER, DECIBELS = 0.9712882774548407, 7.778457908926288
IN_COLOUR, DECIBELS_IN_COLOUR = 0.4785438274056128, 9.06826921350302  # with channel_axis=-1


def waves(side):
    i, j = np.mgrid[:side, :side]
    return 0.5 + 0.5 * np.sin(0.7 * i + 0.3 * j), 0.5 + 0.4 * np.cos(0.2 * i * j / 7)


@pytest.mark.parametrize("side", WAVES)
def test_ssim_is_that_of_scikit_image(side):
    a, b = waves(side)
    assert ssim(a, b) == pytest.approx(WAVES[side], abs=1e-12)
    assert ssim(b, a) == pytest.approx(WAVES[side], abs=1e-12)


def test_more_numbers_of_scikit_image():
    a, b = waves(28)
    assert ssim(a, 0.8 * a + 0.1) == pytest.approx(FAINTER, abs=1e-12)
    assert psnr(a.reshape(-1), b.reshape(-1)) == pytest.approx(DECIBELS, abs=1e-12)


def test_colours_are_judged_as_scikit_image_does():
    a, b = waves(28)
    x, y = np.stack([a, b, 0.8 * a + 0.1], -1), np.stack([b, a**2, a], -1)
    assert colour_ssim(x, y) == pytest.approx(IN_COLOUR, abs=1e-12)
    assert psnr(x.reshape(-1), y.reshape(-1)) == pytest.approx(DECIBELS_IN_COLOUR, abs=1e-12)
    both = colour_ssim(np.stack([x, y]), np.stack([y, y]))
    assert both == pytest.approx([IN_COLOUR, 1], abs=1e-12)


def test_closed_forms():
    """Flat images differ in brightness alone; an image and its negative about 1/2 have the covariance -s^2."""
    a, b = np.full((12, 12), 0.2), np.full((12, 12), 0.6)
    assert ssim(a, b) == pytest.approx((2 * 0.2 * 0.6 + C1) / (0.2**2 + 0.6**2 + C1), abs=1e-12)
    assert psnr(a.reshape(-1), b.reshape(-1)) == pytest.approx(-20 * np.log10(0.4), abs=1e-12)
    board = np.indices((3, 3)).sum(0) % 2 * 1.0
    w = np.exp(-0.5 * (np.array([-1, 0, 1]) * 11 / 4.5) ** 2)
    w = np.outer(w, w) / w.sum() ** 2
    m = (w * board).sum()
    v = m - m * m  # of a pixel that is 0 or 1
    expected = (2 * m * (1 - m) + C1) / (m**2 + (1 - m) ** 2 + C1) * (C2 - 2 * v) / (C2 + 2 * v)
    assert ssim(board, 1 - board) == pytest.approx(expected, abs=1e-12)


def test_equal_images_and_many_at_once():
    images = np.random.default_rng(0).random((2, 3, 13, 9))
    np.testing.assert_allclose(ssim(images, images), 1, rtol=1e-12)
    assert np.isposinf(psnr(images[0, 0].reshape(-1), images[0, 0].reshape(-1)))
    other = images[::-1]
    each = [[ssim(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(images, other, strict=True)]
    np.testing.assert_allclose(ssim(images, other), each, rtol=1e-12)
    assert np.isnan(ssim(images[0, 0] * np.nan, images[0, 0]))
    assert np.isnan(psnr(np.array([np.nan]), np.array([0.0])))
