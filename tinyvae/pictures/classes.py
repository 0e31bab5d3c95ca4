"""Pictures of a model with a classifier: confusion, calibration, analogies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyvae.pictures.figures import _images, _table
from tinyvae.pictures.page import INK, PALE, TEST, TRAIN, PathLike, Shape, new_figure, plain_axes, save_png


def confusion(counts: np.ndarray, names: Sequence[str], path: PathLike, title: str = "Confusion") -> Path:
    """Draw how many data of each label (row) got each class (column), as PNG; shares of a row are shades of blue.

    `counts` is (classes, classes).
    """
    counts = np.asarray(counts)
    if counts.shape != (len(names), len(names)) or counts.min() < 0 or not counts.sum():
        raise ValueError(f"counts are {counts.shape} with a sum of {counts.sum()}; expected {(len(names),) * 2} counts "
                         "of at least one datum")
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = float(np.clip(0.42 * len(names), 3.2, 9))
    figure = new_figure(size + 1.2, size + 1.2)
    axes = figure.add_axes((0.9 / (size + 1.2), 0.7 / (size + 1.2), size / (size + 1.4), size / (size + 1.4)))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.spines[:].set_color(PALE)
    axes.tick_params(labelsize=8, color=PALE, labelcolor=INK)
    turned = 90 if max(map(len, names)) > 3 else 0
    axes.set_xticks(range(len(names)), names, rotation=turned)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("class given by the model", fontsize=8.5, color=INK)
    axes.set_ylabel("label", fontsize=8.5, color=INK)
    if len(names) <= 20:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[i, j] > 0.5 else INK
                axes.text(j, i, f"{count:,}", ha="center", va="center", fontsize=7.5, color=colour)
    return save_png(figure, path)


def reliability(confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray, error: float,
                path: PathLike) -> Path:
    """Draw the share of right classes in each bin of the model's confidence, as PNG.

    Parameters
    ----------
    confidence, accuracy, counts : (bins,) the mean confidence and the share of right classes of the data in each of the
        bins, which have equal width from 0 to 1, NaN in an empty one; and the number of data in it.
    error : the expected calibration error, which the title names.

    The bars of error are Wilson's interval of one standard error, since the usual one is 0 where one datum is right.
    """
    confidence, accuracy, counts = (np.asarray(a) for a in (confidence, accuracy, counts))
    if not confidence.shape == accuracy.shape == counts.shape or confidence.ndim != 1 or not counts.sum():
        raise ValueError(f"confidence, accuracy and counts are {confidence.shape}, {accuracy.shape} and {counts.shape}"
                         "; expected (bins,) each, with at least one datum")
    from matplotlib.ticker import MaxNLocator

    bins, full = len(counts), counts > 0
    middles = (np.arange(bins) + 0.5) / bins
    figure = new_figure(4.6, 5.8)
    axes = figure.add_axes((0.14, 0.43, 0.82, 0.51))
    plain_axes(axes, f"Expected calibration error {error:.2%}, {bins} bins of equal width", y="share that is right")
    axes.plot((0, 1), (0, 1), color=PALE, linewidth=1, linestyle=(0, (4, 3)), label="confidence as it should be")
    axes.bar(middles[full], accuracy[full], width=0.94 / bins, color="#9db8cc", label="right in the bin")
    axes.errorbar(confidence[full], accuracy[full], wilson(accuracy[full], counts[full]), color=TEST, fmt="o",
                  markersize=4, linewidth=1, label="± one standard error (Wilson), at the mean confidence")
    axes.set(xlim=(0, 1), ylim=(0, 1.05))
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.08), frameon=False, fontsize=8, labelcolor=INK)
    below = figure.add_axes((0.14, 0.09, 0.82, 0.16))
    plain_axes(below, "", "confidence: the probability of the most probable class", "data")
    below.bar(middles, counts, width=0.94 / bins, color=TRAIN)
    for x, count in zip(middles[full], counts[full], strict=True):  # beside thousands the bar of one cannot be seen
        below.text(x, count, f"{count:,}", ha="center", va="bottom", fontsize=6.5, color=INK)
    below.set(xlim=(0, 1), ylim=(0, 1.25 * counts.max()))
    below.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
    return save_png(figure, path)


def wilson(share: np.ndarray, count: np.ndarray) -> np.ndarray:
    """How far Wilson's interval of one standard error reaches below and above shares of so many data, (2, bins)."""
    middle = (share + 0.5 / count) / (1 + 1 / count)
    half = np.sqrt(share * (1 - share) / count + 0.25 / count**2) / (1 + 1 / count)
    return np.stack([share - middle + half, middle + half - share]).clip(0)


def analogies(images: np.ndarray, restyled: np.ndarray, names: Sequence[str], shape: Shape, path: PathLike) -> Path:
    """Draw each image (rows, pixels) beside every class in its style, `restyled` (rows, classes, pixels), as PNG.

    A row has the style of its image, and a column one class (Kingma et al. 2014, figure 1).
    """
    left, right = _images("images", images, shape), _images("restyled", restyled, shape, axes=3)
    if right.shape[:2] != (len(left), len(names)):
        raise ValueError(f"restyled are {np.shape(restyled)}; expected {len(left)} rows of {len(names)} classes")
    blank = np.ones_like(left[:, None])  # a white gap between the image and its row
    rows = np.concatenate([left[:, None], blank, right], axis=1)
    return _table(rows, path, "Analogies: the style of each row's image, the class of each column", None,
                  ["data", "", *names])
