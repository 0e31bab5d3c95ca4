"""Pictures of tables: samples beside the data, pair by pair of columns and quantile by quantile; reconstructions.

Rows are in the data's own units, with NaN where a value is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.pictures.page import INK, PALE, TEST, TRAIN, PathLike, new_figure, plain_axes, save_png

PAIRED, SHOWN = 6, 12  # the largest numbers of columns of a pair plot, and of panels
POINTS = 500  # of the data and of the samples each in a scatter plot
NAMED = 18  # letters of a column's name


def pairs(data: np.ndarray, drawn: np.ndarray, names: Sequence[str], path: PathLike, of: str = "data") -> Path:
    """Draw each pair of columns, data below the diagonal and samples above it, with histograms of both on it, as PNG.

    `data` is (count, columns), `drawn` (samples, columns). At most six columns are drawn, those in which the samples
    differ most; `of` says which data they are.
    """
    chosen = np.sort(worst(data, drawn)[:PAIRED])
    size = len(chosen)
    side = max(4.2, 1.5 * size + 0.9)  # inches
    figure = new_figure(side, side)
    grid = figure.add_gridspec(size, size, left=0.75 / side, right=0.98, top=1 - 0.4 / side, bottom=0.5 / side,
                               wspace=0.12, hspace=0.12)
    limits = {j: _limits(data[:, j], drawn[:, j]) for j in chosen}
    for row, i in enumerate(chosen):
        for column, j in enumerate(chosen):
            axes = figure.add_subplot(grid[row, column])
            if i == j:
                bins = _bins(data[:, j], drawn[:, j], *limits[j])
                for values, colour in ((data[:, j], TRAIN), (drawn[:, j], TEST)):
                    axes.hist(values[np.isfinite(values)], bins, density=True, histtype="step", color=colour)
            else:
                rows, colour = (data, TRAIN) if row > column else (drawn, TEST)
                axes.scatter(rows[:POINTS, j], rows[:POINTS, i], s=3, color=colour, alpha=0.5, linewidths=0)
                axes.set_ylim(*limits[i])
            axes.set_xlim(*limits[j])
            plain_axes(axes, "")
            axes.locator_params(nbins=3)
            axes.set_xlabel(short(names[j]) if row == size - 1 else "", fontsize=7, color=INK)
            axes.set_ylabel(short(names[i]) if column == 0 else "", fontsize=7, color=INK)
            axes.tick_params(labelsize=6, labelbottom=row == size - 1, labelleft=column == 0 and i != j)
    _title(figure, f"Below the diagonal {of} (blue), above it samples{_of(size, data.shape[1])}")
    return save_png(figure, path)


def _bins(data: np.ndarray, drawn: np.ndarray, low: float, high: float) -> np.ndarray:
    """The edges of a histogram; around each whole number, if the data are whole numbers and not too many."""
    known = data[np.isfinite(data)]
    if (known == np.floor(known)).all() and (drawn == np.floor(drawn)).all() and high - low < 60:
        return np.arange(np.floor(low), np.ceil(high) + 1) + 0.5
    return np.linspace(low, high, 25)


def quantiles(data: np.ndarray, drawn: np.ndarray, names: Sequence[str], path: PathLike, of: str = "data") -> Path:
    """Draw the quantiles of the samples against those of the data, a panel a column, as PNG.

    On the diagonal a column is distributed as in the data. At most twelve columns, those that differ most, in the order
    of the table.
    """
    chosen = np.sort(worst(data, drawn)[:SHOWN])

    def draw(axes: Any, j: int) -> None:
        known, made = (np.sort(rows[np.isfinite(rows[:, j]), j]) for rows in (data, drawn))
        levels = (np.arange(min(len(known), 200)) + 0.5) / min(len(known), 200)
        x, y = np.quantile(known, levels), np.quantile(made, levels)
        _diagonal(axes, *_limits(x, y))
        axes.scatter(x, y, s=5, color=TEST, linewidths=0)

    return _panels(draw, chosen, names, path,
                   f"Quantiles: {of} across, samples up{_of(len(chosen), data.shape[1])}")


def reconstructions(data: np.ndarray, made: np.ndarray, names: Sequence[str], path: PathLike) -> Path:
    """Draw each value of the data against its reconstruction, a panel a column, as PNG.

    At most twelve columns, those whose errors are largest beside their spread, in the order of the table.
    """
    error = np.nanmean((data - made) ** 2, 0) / np.nanvar(data, 0).clip(1e-300)
    chosen = np.sort(np.argsort(-error, kind="stable")[:SHOWN])

    def draw(axes: Any, j: int) -> None:
        _diagonal(axes, *_limits(data[:, j], made[:, j]))
        axes.scatter(data[:POINTS, j], made[:POINTS, j], s=5, color=TEST, alpha=0.6, linewidths=0)

    return _panels(draw, chosen, names, path, f"Data across, reconstructions up{_of(len(chosen), data.shape[1])}")


def worst(data: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The columns, that first in which the distribution functions of data and samples are farthest apart."""
    return np.argsort([-distance(data[:, j], drawn[:, j]) for j in range(data.shape[1])], kind="stable")


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two empirical distribution functions, of Kolmogorov and Smirnov; NaN is left out."""
    one, other = (np.sort(values[np.isfinite(values)]) for values in (one, other))
    at = np.concatenate([one, other])
    shares = [np.searchsorted(values, at, "right") / max(1, len(values)) for values in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max(initial=0.0))


def short(name: str) -> str:
    """A column's name, cut where it is long."""
    return name if len(name) <= NAMED else name[: NAMED - 1] + "…"


def _limits(*values: np.ndarray) -> tuple[float, float]:
    """The range of nearly all values, so that single samples of a wide tail do not squeeze the others."""
    ends = [np.quantile(v[np.isfinite(v)], (0.0025, 0.9975)) for v in values if np.isfinite(v).any()] or [(0.0, 1.0)]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    room = 0.06 * (high - low) or 1.0
    return float(low - room), float(high + room)


def _diagonal(axes: Any, low: float, high: float) -> None:
    axes.plot((low, high), (low, high), color=PALE, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xlim=(low, high), ylim=(low, high))


def _panels(draw: Any, chosen: np.ndarray, names: Sequence[str], path: PathLike, title: str) -> Path:
    across = min(4, len(chosen))
    down = -(-len(chosen) // across)
    width, height = 1.85 * across + 0.5, 1.85 * down + 0.6
    figure = new_figure(max(width, 4.2), height)
    grid = figure.add_gridspec(down, across, left=0.5 / width, right=0.97, top=1 - 0.62 / height, bottom=0.3 / height,
                               wspace=0.42, hspace=0.42)
    for number, j in enumerate(chosen):
        axes = figure.add_subplot(grid[number // across, number % across])
        draw(axes, j)
        plain_axes(axes, "")
        axes.set_title(short(names[j]), loc="left", fontsize=7.5, color=INK)
        axes.tick_params(labelsize=6)
        axes.locator_params(nbins=4)
    _title(figure, title)
    return save_png(figure, path)


def _of(shown: int, there: int) -> str:
    return "" if shown == there else f"; the {shown} of {there} columns that differ most"


def _title(figure: Any, text: str) -> None:
    height = figure.get_figheight()
    figure.text(0.1 / figure.get_figwidth(), 1 - 0.12 / height, text, fontsize=9, color=INK, va="top", ha="left")
