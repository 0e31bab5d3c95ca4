"""How much two images are alike, with pixels in [0, 1]: PSNR and SSIM.

    PSNR = -10 log10(mean of (a - b)^2 over all pixels and channels), in decibels

SSIM (Wang, Bovik, Sheikh & Simoncelli 2004, eq. 13) is the mean over all places of

    (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2)),    C1 = 0.01^2, C2 = 0.03^2,

where means m, variances s^2 and the covariance s_ab are weighted by a Gaussian window of 11 x 11 pixels with standard
deviation 1.5, which lies within the image. In a smaller image the window is the largest odd number of pixels that fits,
and its standard deviation shrinks with it. Of images in colour it is the mean of those of red, green and blue.
"""

from __future__ import annotations

import numpy as np

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The PSNR of each pair of images (..., pixels) in decibels, (...); infinite for equal images. Higher is better."""
    error = np.square(np.asarray(a, np.float64) - b).mean(-1)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The SSIM of each pair of images (..., rows, columns), (...): 1 for equal images, else less. Higher is better."""
    a, b = (np.asarray(image, np.float64) for image in (a, b))
    side = min(WINDOW, *a.shape[-2:])
    side -= 1 - side % 2
    weights = np.exp(-0.5 * ((np.arange(side) - side // 2) * WINDOW / (SIGMA * side)) ** 2)
    weights /= weights.sum()

    def means(images: np.ndarray) -> np.ndarray:
        for axis in (-2, -1):
            windows = np.lib.stride_tricks.sliding_window_view(images, side, axis)
            images = windows @ weights
        return images

    m_a, m_b = means(a), means(b)
    s_a, s_b, s_ab = means(a * a) - m_a**2, means(b * b) - m_b**2, means(a * b) - m_a * m_b
    luminance = (2 * m_a * m_b + C1) / (m_a**2 + m_b**2 + C1)
    return (luminance * (2 * s_ab + C2) / (s_a + s_b + C2)).mean((-2, -1))


def colour_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The SSIM of each pair of images in colour, (..., rows, columns, 3), (...): the mean over the channels."""
    a, b = (np.moveaxis(np.asarray(image), -1, 0) for image in (a, b))
    return np.mean([ssim(*pair) for pair in zip(a, b, strict=True)], axis=0)
