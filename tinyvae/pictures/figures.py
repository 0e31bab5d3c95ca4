"""Pictures of a trained model: generated data, what a latent dimension means, where the data lie.

Every function takes NumPy arrays of images, values in [0, 1] (0 is drawn black, 1 white), one image a row of
`rows * columns` pixels, writes one file in one step, and returns its path. Pixels become crisp squares: an
image is enlarged by a whole number and put into the page pixel by pixel, never resampled.

Matplotlib is used through its objects (`Figure`), so that no backend is chosen and no global state touched,
and it is imported on use, for that takes long. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.training.checkpoint import write_bytes

DPI = 200
TILE = 88  # the side of an enlarged image in pixels, about: 11 mm on paper
WIDEST = 2400  # pixels; a grid that would be wider is enlarged less
GAP = 4  # pixels between two images
INK, PALE = "#222222", "#8a8a8a"
TRAIN, TEST = "#0072B2", "#D55E00"  # blue and vermilion, told apart by everyone (Okabe and Ito)
# Ten colours apart for the colour-blind too: Paul Tol's "muted" scheme, its pale grey made dark.
LABELS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
          "#DDCC77", "#CC6677", "#882255", "#AA4499", "#555555")  # fmt: skip

PathLike = str | os.PathLike[str]
Shape = tuple[int, int]  # (rows, columns) of pixels


def samples(
    images: np.ndarray, shape: Shape, path: PathLike, columns: int | None = None, title: str = "Samples"
) -> Path:
    """A grid of `images` (count, pixels), left to right and top to bottom, as PNG."""
    images = _images("images", images, shape)
    columns = columns or _columns(len(images))
    grid = _mosaic(images, columns, _scale(shape, columns))
    return save_png(_page(grid, title)[0], path)


def reconstructions(
    originals: np.ndarray, reconstructed: np.ndarray, shape: Shape, path: PathLike, columns: int = 10
) -> Path:
    """`originals` (count, pixels) above what the model makes of them, strips of `columns` pairs, as PNG."""
    if np.shape(originals) != np.shape(reconstructed):
        found = f"{np.shape(originals)} and {np.shape(reconstructed)}"
        raise ValueError(f"originals and reconstructions are {found}; give pairs")
    pairs = np.stack([_images("originals", originals, shape), _images("reconstructed", reconstructed, shape)])
    count = pairs.shape[1]
    columns = min(columns, count)
    strips = -(-count // columns)
    # (2, count, ...) -> (strips, 2, columns, ...); the last strip is filled up with white, like the page.
    pairs = np.pad(pairs, ((0, 0), (0, strips * columns - count), (0, 0), (0, 0)), constant_values=1)
    rows = pairs.reshape(2, strips, columns, *shape).swapaxes(0, 1).reshape(2 * strips, columns, *shape)
    names = ["data", "reconstruction"] * strips
    return _table(rows, path, "Data and reconstructions", names, None, left=210, strip=2)


def traversal(
    frames: np.ndarray, shape: Shape, path: PathLike, values: Sequence[float | str] | None = None,
    dimensions: Sequence[int] | None = None, unit: str = "",
) -> Path:  # fmt: skip
    """What each latent dimension does: a row a dimension, a column a value of it, the others held, as PNG.

    Parameters
    ----------
    frames : (latents, steps, pixels).
    values : the `steps` values that the dimension takes, in sd of the prior or in `unit`, or texts; they label the
        columns.
    dimensions : the `latents` numbers of the dimensions, by default 0, 1, ...; they label the rows.
    """
    frames = _images("frames", frames, shape, axes=3)
    heads = None if values is None else [v if isinstance(v, str) else _value(v) for v in values]
    names = [f"$z_{{{int(j)}}}$" for j in (range(len(frames)) if dimensions is None else dimensions)]
    title = "One latent dimension varies along each row" + (unit and f", columns: {unit}")
    return _table(frames, path, title, names, heads, left=80)


def interpolation(frames: np.ndarray, shape: Shape, path: PathLike) -> Path:
    """From one datum to another through latent space: `frames` (pairs, steps, pixels), a pair a row, PNG."""
    frames = _images("frames", frames, shape, axes=3)
    heads = [f"{t:.2f}".rstrip("0").rstrip(".") for t in np.linspace(0, 1, frames.shape[1])]
    return _table(frames, path, "From one datum to another, fraction of the way", None, heads)


def animation(
    frames: np.ndarray, shape: Shape, path: PathLike, seconds: float = 4.0, columns: int | None = None
) -> Path:
    """A GIF for ever running forth and back through `frames` (steps, tiles, pixels), once in `seconds`."""
    from PIL import Image

    frames = _images("frames", frames, shape, axes=3)
    columns = columns or _columns(frames.shape[1])
    scale = _scale(shape, columns)
    mosaics = [np.pad(_mosaic(tiles, columns, scale), GAP, constant_values=1.0) for tiles in frames]
    # 64 levels of grey look the same as 256 and make a smaller file.
    forth = [Image.fromarray((np.rint(63 * mosaic) * (255 / 63)).astype(np.uint8)) for mosaic in mosaics]
    pages = forth + forth[-2:0:-1]
    # A GIF counts in hundredths of a second, and viewers slow down what is faster than two of them.
    duration = 10 * max(2, round(100 * seconds / len(pages)))
    buffer = io.BytesIO()
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=duration, loop=0)
    write_bytes(path, buffer.getvalue())
    return Path(path)


def normal_grid(side: int) -> np.ndarray:
    """Latents on an even grid of the unit square mapped through the inverse normal CDF, as (side * side, 2).

    The prior puts equal mass on each cell (AEVB, Figure 4). Row by row as the picture shows them: the first
    coordinate grows to the right, the second upwards.
    """
    from scipy.special import ndtri

    z = ndtri((np.arange(side) + 0.5) / side)
    return np.stack([np.tile(z, side), np.repeat(z[::-1], side)], axis=1)


def manifold(
    images: np.ndarray, shape: Shape, path: PathLike, side: int, dimensions: tuple[int, int] = (0, 1),
    normal: bool = True,
) -> Path:  # fmt: skip
    """The decoder's `images` (side * side, pixels) at `normal_grid(side)`, without gaps, as PNG; where the prior is not
    normal, at the same quantiles of it, which then label the axes."""
    from scipy.special import ndtr, ndtri

    images = _images("images", images, shape)
    if len(images) != side * side:
        raise ValueError(f"{len(images)} images do not fill a grid of {side} x {side}")
    scale = _scale(shape, side, tile=TILE * 2 // 3)
    grid = _mosaic(images, side, scale, gap=0)
    figure, axes = _page(grid, "The data manifold", left=125, bottom=110)
    # A cell's middle is at the probability of its latent, so z stands at ndtr(z) of the way along the axis.
    z = np.array([-2, -1, -0.5, 0, 0.5, 1, 2])
    z = z[np.abs(z) <= ndtri(1 - 0.5 / side) + 0.1]
    axes.set_axis_on()
    axes.spines[:].set_visible(False)
    names = [_value(v) if normal else f"{ndtr(v):.0%}" for v in z]
    axes.set_xticks(ndtr(z) * grid.shape[1], names)
    axes.set_yticks(ndtr(-z) * grid.shape[0], names)
    axes.tick_params(labelsize=7.5, color=PALE, labelcolor=INK, length=3)
    axes.set_xlabel(f"$z_{{{dimensions[0]}}}$" + ("" if normal else ", quantile of the prior"), fontsize=10, color=INK)
    axes.set_ylabel(f"$z_{{{dimensions[1]}}}$", fontsize=10, color=INK, rotation=0, labelpad=8, va="center")
    return save_png(figure, path)


def latents(
    means: np.ndarray, labels: np.ndarray | None, path: PathLike, per_dimension_kl: np.ndarray | None = None,
    normal: bool = True,
) -> Path:  # fmt: skip
    """Where the data lie in latent space, as PNG.

    A scatter of the posterior means in the two most active dimensions, coloured by label, over circles at one
    and two standard deviations of a `normal` prior; beside it the KL divergence of each dimension, if given.

    Parameters
    ----------
    means : (count, latent) posterior means.
    labels : (count,) class of each datum, or None.
    per_dimension_kl : (latent,) KL(q(z_j|x) || p(z_j)) in nats, mean over the data. It says which dimensions
        are active; without it the variance of the means does.
    """
    means = np.asarray(means)
    if means.ndim != 2 or not means.size or not np.isfinite(means).all():
        raise ValueError(f"means are {means.shape} or not finite; expected finite numbers as (count, latent)")
    activity = means.var(axis=0) if per_dimension_kl is None else np.asarray(per_dimension_kl)
    if activity.shape != means.shape[1:] or not np.isfinite(activity).all():
        raise ValueError(f"per_dimension_kl is {activity.shape} or not finite; expected {means.shape[1:]}")
    order = np.argsort(-activity, kind="stable")
    pair = np.sort(order[:2])
    figure = new_figure(5.0 if per_dimension_kl is None else 7.6, 4.4)
    room = (0.12, 0.12, 0.74, 0.79) if per_dimension_kl is None else (0.08, 0.12, 0.54, 0.79)
    _scatter(figure.add_axes(room), means, pair, labels, normal)
    if per_dimension_kl is not None:
        _bars(figure.add_axes((0.77, 0.12, 0.2, 0.79)), activity, order, pair)
    return save_png(figure, path)


def curves(records: Iterable[Mapping[str, Any]], path: PathLike) -> Path:
    """The course of a training as PNG: ELBO of training and test data, and the two terms of the latter.

    `records` may have the keys `epoch`, `train_elbo`, `test_elbo`, `test_reconstruction`, `test_kl`, in nats
    per datum; what is missing or None leaves a gap. The last one with a true `best` is the epoch whose parameters
    were kept; a ring marks it on the test curve (marking the best test value would choose by the test data).
    """
    from matplotlib.ticker import MaxNLocator

    table = list(records)
    epochs = [record.get("epoch", number + 1) for number, record in enumerate(table)]
    lines = {
        key: np.array([np.nan if r.get(key) is None else float(r[key]) for r in table])
        for key in ("train_elbo", "test_elbo", "test_reconstruction", "test_kl")
    }
    known = {key for key, line in lines.items() if np.isfinite(line).any()}
    if not known:
        raise ValueError(f"the records hold no finite number under any of {', '.join(lines)}")
    titles = {"test_reconstruction": "Test reconstruction, nats", "test_kl": "Test KL to the prior, nats"}
    terms = [key for key in titles if key in known]
    figure = new_figure(7.6, 3.8)
    edges = {"left": 0.09, "right": 0.98, "bottom": 0.13, "top": 0.9, "wspace": 0.25, "hspace": 0.42}
    grid = figure.add_gridspec(max(1, len(terms)), 2, width_ratios=(1.6, 1), **edges)
    style = {"linewidth": 1.6, "markersize": 3, "marker": "o" if len(table) <= 30 else None}
    axes = figure.add_subplot(grid[:, 0] if terms else grid[:, :])
    for key, name, colour in (("train_elbo", "train", TRAIN), ("test_elbo", "test", TEST)):
        if key in known:
            axes.plot(epochs, lines[key], color=colour, label=name, **style)
    plain_axes(axes, "ELBO, nats per datum (higher is better)")
    kept = max((number for number, record in enumerate(table) if record.get("best")), default=None)
    if kept is not None and np.isfinite(lines["test_elbo"][kept]):
        x, y = epochs[kept], lines["test_elbo"][kept]
        label = f"kept: epoch {x}, test {y:.2f}".replace("-", "−")
        axes.scatter(x, y, marker="o", s=64, facecolor="none", edgecolor=TEST, label=label)
    if axes.lines:
        axes.legend(loc="lower right", frameon=False, fontsize=8, labelcolor=INK)
    for row, key in enumerate(terms):
        part = figure.add_subplot(grid[row, 1])
        part.plot(epochs, lines[key], color=TEST, **style)
        plain_axes(part, titles[key])
    for part in figure.axes:
        part.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        if len(set(epochs)) < 4:  # leave a short axis room for whole epochs
            part.set_xlim(min(epochs) - 0.6, max(epochs) + 0.6)
    for part in {figure.axes[0], figure.axes[-1]}:
        part.set_xlabel("epoch", fontsize=8.5, color=INK)
    return save_png(figure, path)


# ---- arrays into pages -------------------------------------------------------------------------------------


def _images(name: str, images: np.ndarray, shape: Shape, axes: int = 2) -> np.ndarray:
    """The images, of `axes` axes, as (..., rows, columns), or a ValueError that says what is wrong."""
    images = np.asarray(images)
    rows, columns = shape
    if images.ndim != axes or images.shape[-1] != rows * columns or not images.size:
        expected = f"{axes} axes, the last of {rows} x {columns} pixels, none empty"
        raise ValueError(f"{name} are {images.shape}; expected {expected}")
    if not (images.min() >= 0 and images.max() <= 1):  # written so that NaN fails
        numbers = images[~np.isnan(images)]
        found = f"from {numbers.min():.4g} to {numbers.max():.4g}, " if numbers.size else ""
        found += f"{images.size - numbers.size} of them NaN"
        raise ValueError(f"{name} hold values {found}; expected 0 to 1: give means, not logits")
    return images.reshape(*images.shape[:-1], rows, columns)


def _columns(count: int) -> int:
    """A number of columns that gives a full grid, a little wider than high, if there is one."""
    square = math.ceil(math.sqrt(count))
    return next((c for c in range(square, 2 * square + 1) if count % c == 0), square)


def _scale(shape: Shape, columns: int, tile: int = TILE) -> int:
    """By which whole number to enlarge images of `shape` that stand `columns` side by side."""
    return max(1, min(round(tile / max(shape)), WIDEST // (columns * shape[1])))


def _tops(rows: int, high: int, gap: int, strip: int) -> np.ndarray:
    """Where each row of images begins, in pixels; after every `strip` rows (0: never) the gap is wider."""
    row = np.arange(rows)
    return row * (high + gap) + (3 * gap * (row // strip) if strip else 0)


def _mosaic(images: np.ndarray, columns: int, scale: int, gap: int = GAP, strip: int = 0) -> np.ndarray:
    """Images (count, rows, columns) enlarged and laid out on white, as one array."""
    count, height, width = images.shape
    high, wide = height * scale, width * scale
    tops = _tops(-(-count // columns), high, gap, strip)
    page = np.ones((tops[-1] + high, columns * (wide + gap) - gap))
    for number, image in enumerate(images):
        top, left = tops[number // columns], number % columns * (wide + gap)
        page[top : top + high, left : left + wide] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return page


def _table(
    images: np.ndarray, path: PathLike, title: str, names: list[str] | None, heads: list[str] | None,
    left: int = 0, strip: int = 0,
) -> Path:  # fmt: skip
    """Images (rows, steps, height, width) with names in `left` pixels beside rows, heads above columns."""
    rows, steps, height, width = images.shape
    for what, labels, count in (("row", names, rows), ("column", heads, steps)):
        if labels is not None and len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} {what}s of images; give one for each")
    scale = _scale((height, width), steps)
    grid = _mosaic(images.reshape(-1, height, width), steps, scale, strip=strip)
    figure, axes = _page(grid, title, left=left, above=36 if heads else 0)
    for top, name in zip(_tops(rows, height * scale, GAP, strip), names or (), strict=False):
        _note(axes, name, (0, top + height * scale / 2), (-5, 0), ha="right", va="center", fontsize=8.5)
    for column, head in enumerate(heads or ()):
        middle = (column * (width * scale + GAP) + width * scale / 2, 0)
        _note(axes, head, middle, (0, 4), ha="center", va="bottom", fontsize=7.5)
    return save_png(figure, path)


def new_figure(width: float, height: float) -> Any:
    """An empty white page of `width` x `height` inches that belongs to nobody."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _page(grid: np.ndarray, title: str, left: int = 0, bottom: int = 0, above: int = 0) -> tuple[Any, Any]:
    """A page with `grid` on it, pixel by pixel, and invisible axes that measure it in pixels, downwards.

    `left`, `bottom` and `above` are the room for labels in pixels, beside a margin.
    """
    margin, head = 40, 60
    height, width = grid.shape
    wide = max(width + left, 22 * len(title)) + 2 * margin  # the title fits, too
    high = height + bottom + above + head + 2 * margin
    figure = new_figure(wide / DPI, high / DPI)
    x, y = margin + left, margin + bottom
    figure.figimage(np.rint(255 * grid).astype(np.uint8)[:, :, None].repeat(3, axis=2), x, y, origin="upper")
    axes = figure.add_axes((x / wide, y / high, width / wide, height / high), facecolor="none")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    figure.text(x / wide, (high - margin) / high, title, fontsize=10, color=INK, va="top", ha="left")
    return figure, axes


def _note(axes: Any, text: str, point: tuple[float, float], offset: tuple[int, int], **kind: Any) -> None:
    axes.annotate(text, point, offset, textcoords="offset points", color=INK, annotation_clip=False, **kind)


def _value(number: float) -> str:
    """A short number with a true minus sign."""
    return f"{number:.1f}".replace("-0.0", "0.0").replace("-", "−")


def save_png(figure: Any, path: PathLike) -> Path:
    """Write a figure as PNG in one step; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})  # no version, no date
    write_bytes(path, buffer.getvalue())
    return Path(path)


# ---- axes with numbers on them -----------------------------------------------------------------------------


def plain_axes(axes: Any, title: str, x: str = "", y: str = "") -> None:
    """Axes with a title above them on the left, the names of x and y, and a pale grid behind the data."""
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(labelsize=8, color=PALE, labelcolor=INK)
    axes.grid(color="#e8e8e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, fontsize=8.5, color=INK)
    axes.set_ylabel(y, fontsize=8.5, color=INK)


def _scatter(axes: Any, means: np.ndarray, pair: np.ndarray, labels: np.ndarray | None, normal: bool) -> None:
    from matplotlib.patches import Circle

    named = np.zeros(len(means)) if labels is None else np.asarray(labels)
    if named.shape != (len(means),):
        raise ValueError(f"labels are {named.shape}; expected one label for each of {len(means)} means")
    classes, index = np.unique(named, return_inverse=True)
    x = means[:, pair[0]]
    # With a single latent dimension a class is a row, in which the order of the data spreads the points.
    y = means[:, pair[1]] if len(pair) == 2 else index + np.linspace(-0.35, 0.35, len(means))
    size = float(np.clip(9000 / len(means), 2.5, 18))
    colours = np.array(LABELS)[index % len(LABELS)]
    circles = normal and len(pair) == 2
    for radius in (1, 2) if circles else ():
        style = {"fill": False, "color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 2}
        axes.add_patch(Circle((0, 0), radius, **style))
    axes.scatter(x, y, c=colours, s=size, alpha=0.7, linewidths=0)  # in the data's order: no class on top
    plain_axes(axes, "Posterior means" + (", dashed: 1 and 2 sd of the prior" if circles else ""))
    axes.set_xlabel(f"$z_{{{pair[0]}}}$", fontsize=10, color=INK)
    if len(pair) == 2:
        axes.set_ylabel(f"$z_{{{pair[1]}}}$", fontsize=10, color=INK, rotation=0, labelpad=10)
        axes.set_aspect("equal", adjustable="datalim")
    else:
        axes.set_yticks(range(len(classes)), classes if len(classes) > 1 else [""])
        axes.invert_yaxis()
    if not 2 <= len(classes) <= len(LABELS):
        return  # one class needs no legend, and a legend of many helps nobody
    for number, name in enumerate(classes):
        mine = index == number
        if len(pair) == 2:  # the name stands where the class is, for those who do not go by colour
            badge = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": LABELS[number]}
            middle = np.median(x[mine]), np.median(y[mine])
            axes.text(*middle, str(name), fontsize=8, ha="center", va="center", color=INK, bbox=badge)
        axes.scatter([], [], color=LABELS[number], s=22, label=str(name))
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "borderaxespad": 0.2}
    axes.legend(**place, frameon=False, fontsize=8, labelcolor=INK, handletextpad=0.1)


def _bars(axes: Any, kl: np.ndarray, order: np.ndarray, pair: np.ndarray) -> None:
    """KL of each dimension in nats, the most active on top, the two of the scatter in full colour."""
    shown = order[:40]
    colours = [TRAIN if j in pair else "#9db8cc" for j in shown]
    axes.barh(np.arange(len(shown)), kl[shown], color=colours, height=0.75)
    plain_axes(axes, f"KL to the prior, sum {kl.sum():.1f}", "nats per datum")
    axes.grid(axis="y", visible=False)
    axes.set_ylim(max(len(shown), 8) - 0.4, -0.6)
    names = [f"$z_{{{j}}}$" for j in shown]
    axes.set_yticks(np.arange(len(shown)), names, fontsize=7 if len(shown) > 24 else 8)
    axes.tick_params(axis="y", length=0)
