"""Grids of images as files: samples, reconstructions, traversals, interpolations, manifolds and animations.

Every function takes NumPy arrays of images with values in [0, 1] (0 is black, 1 is white), where the last axis holds
the `rows * columns` pixels of an image, in colour with red, green and blue of each. It writes one file in one step and
returns its path. Images are enlarged by a whole factor, so pixels stay sharp squares. The same input gives the same
bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyvae.pictures.page import GAP, INK, PALE, TILE, WIDEST, PathLike, Shape, note, page, save_png
from tinyvae.runs.files import write_bytes

SMALL = 16  # the largest side in pixels of an image that runs into its neighbours without a gap
ROUNDING = 1e-6  # a smaller standard deviation of numbers in [0, 1] is that of their rounding


def samples(
    images: np.ndarray, shape: Shape, path: PathLike, columns: int | None = None, title: str = "Samples"
) -> Path:
    """Draw a grid of `images` (count, pixels), left to right and top to bottom, as PNG."""
    images = _images("images", images, shape)
    columns = columns or _columns(len(images))
    grid = _mosaic(images, columns, _scale(shape, columns))
    return save_png(page(grid, title)[0], path)


def reconstructions(
    originals: np.ndarray, reconstructed: np.ndarray, shape: Shape, path: PathLike, columns: int = 10,
    grey: np.ndarray | None = None,
) -> Path:  # fmt: skip
    """Draw `originals` (count, pixels) above their reconstructions, in strips of `columns` images, as PNG.

    `grey`, of the same shape, is what the originals were drawn from, if they are bits; it stands above them.
    """
    parts = {"originals": originals, "reconstructed": reconstructed} | ({} if grey is None else {"grey": grey})
    if len(found := {np.shape(part) for part in parts.values()}) > 1:
        raise ValueError(f"{' and '.join(parts)} are {' and '.join(map(str, found))}; expected the same shape")
    names = ["data", "reconstruction"] if grey is None else [
        "grey data" if len(shape) == 2 else "colour data", "bits drawn", "reconstruction"]
    order = list(parts) if grey is None else ["grey", "originals", "reconstructed"]
    images = np.stack([_images(name, parts[name], shape) for name in order])
    kinds, count = images.shape[:2]
    columns = min(columns, count)
    strips = -(-count // columns)
    # (kinds, count, ...) -> (strips, kinds, columns, ...); white images fill the last strip.
    images = np.pad(images, ((0, 0), (0, strips * columns - count), *[(0, 0)] * 3), constant_values=1)
    size = images.shape[2:]
    rows = images.reshape(kinds, strips, columns, *size).swapaxes(0, 1).reshape(kinds * strips, columns, *size)
    title = "Data and reconstructions,\nwhich are means of p(x|z) at the mean of q(z|x)"
    return _table(rows, path, title, names * strips, None, left=210, strip=kinds)


def traversal(
    frames: np.ndarray, shape: Shape, path: PathLike, values: Sequence[float | str] | None = None,
    dimensions: Sequence[int] | None = None, unit: str = "",
) -> Path:  # fmt: skip
    """Draw a row of images for each latent dimension, which varies along the row while the others are fixed, as PNG.

    Parameters
    ----------
    frames : (latents, steps, pixels).
    values : the labels of the columns: texts, or the values of the dimension in standard deviations of the prior or in
        `unit`.
    dimensions : the labels of the rows: the numbers of the dimensions, by default 0, 1, ...
    """
    frames = _images("frames", frames, shape, axes=3)
    heads = None if values is None else [v if isinstance(v, str) else _value(v) for v in values]
    names = [f"$z_{{{int(j)}}}$" for j in (range(len(frames)) if dimensions is None else dimensions)]
    title = ("Means of p(x|z): one latent varies along each row" + (unit and f", columns: {unit}")
             + "\nThe others stay at the mean of q(z|x) of one test image")
    return _table(frames, path, title, names, heads, left=80)


def interpolation(frames: np.ndarray, shape: Shape, path: PathLike) -> Path:
    """Draw interpolations between pairs of data: `frames` (pairs, steps, pixels), one row for each pair, as PNG."""
    frames = _images("frames", frames, shape, axes=3)
    heads = [f"{t:.2f}".rstrip("0").rstrip(".") for t in np.linspace(0, 1, frames.shape[1])]
    return _table(frames, path, "Means of p(x|z) on the way between two data, by the fraction of the way", None, heads)


def labelled_rows(
    images: np.ndarray, shape: Shape, path: PathLike, title: str, names: list[str], heads: list[str] | None = None
) -> Path:
    """Draw `images` (rows, columns, pixels), each row with its name on the left, as PNG."""
    left = max(210, 13 * max(map(len, names)))
    return _table(_images("images", images, shape, axes=3), path, title, names, heads, left)


def spread(sd: np.ndarray) -> dict[str, np.ndarray]:
    """Standard deviations (..., pixels) as a row that says which one is white, the largest; all black without any."""
    largest = float(sd.max())
    if largest <= ROUNDING:
        return {"sd: 0 everywhere": np.zeros_like(sd)}
    return {f"sd, white: {largest:.2f}" if largest >= 0.01 else f"sd, white: {largest:.1g}": sd / largest}


def animation(
    frames: np.ndarray, shape: Shape, path: PathLike, seconds: float = 4.0, columns: int | None = None
) -> Path:
    """Write a GIF that runs forth and back through `frames` (steps, tiles, pixels) within `seconds`, without end."""
    from PIL import Image

    frames = _images("frames", frames, shape, axes=3)
    columns = columns or _columns(frames.shape[1])
    scale = _scale(shape, columns)
    frames, palette = (frames, b"") if len(shape) == 2 else _few_colours(frames)
    mosaics = [np.pad(_mosaic(tiles, columns, scale)[..., 0], GAP, constant_values=1.0) for tiles in frames]
    steps = 255 if palette else 63  # 64 levels of grey look like 256 and make a smaller file
    forth = [Image.fromarray((np.rint(steps * mosaic) * (255 / steps)).astype(np.uint8)) for mosaic in mosaics]
    for still in forth if palette else ():
        still.putpalette(palette)
    pages = forth + forth[-2:0:-1]
    # A GIF counts in hundredths of a second, and viewers slow down frames of less than two hundredths.
    duration = 10 * max(2, round(100 * seconds / len(pages)))
    buffer = io.BytesIO()
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=duration, loop=0)
    write_bytes(path, buffer.getvalue())
    return Path(path)


def _few_colours(frames: np.ndarray) -> tuple[np.ndarray, bytes]:
    """Frames (..., 3) by 255 colours, the same for all, or an animation would flicker: the number of each pixel's
    colour divided by 255, (..., 1), and the palette, red, green and blue of each number. The number 255 is white."""
    from PIL import Image

    found = Image.fromarray(np.rint(255 * frames).astype(np.uint8).reshape(1, -1, 3)).quantize(255)
    palette = bytes(found.getpalette() or ())[: 3 * 255].ljust(3 * 255, b"\0") + b"\xff" * 3
    return np.asarray(found).reshape(*frames.shape[:-1], 1) / 255, palette


def normal_grid(side: int) -> np.ndarray:
    """Latents on an even grid of the unit square, mapped through the inverse normal CDF, (side * side, 2).

    z = Phi^-1(u), so each cell has the same probability under the prior (AEVB, figure 4). The rows are in the order of
    the picture: the first coordinate grows to the right, the second grows upwards.
    """
    from scipy.special import ndtri

    z = ndtri((np.arange(side) + 0.5) / side)
    return np.stack([np.tile(z, side), np.repeat(z[::-1], side)], axis=1)


def manifold(
    images: np.ndarray, shape: Shape, path: PathLike, side: int, dimensions: tuple[int, int] = (0, 1),
    normal: bool = True,
) -> Path:  # fmt: skip
    """Draw the decoder's `images` (side * side, pixels) at `normal_grid(side)` as PNG: small images with gaps.

    For another prior the latents are its quantiles at the same probabilities, which then label the axes.
    """
    from scipy.special import ndtr, ndtri

    images = _images("images", images, shape)
    if len(images) != side * side:
        raise ValueError(f"{len(images)} images do not fill a grid of {side} x {side}")
    scale = _scale(shape, side, tile=TILE * 2 // 3)
    grid = _mosaic(images, side, scale, gap=GAP if max(shape[:2]) <= SMALL else 0)
    figure, axes = page(grid, "Means of p(x|z) over the plane of two latents", left=125, bottom=110)
    # The picture is even in the probability u = Phi(z), so the tick of z is at the fraction Phi(z) of the axis.
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


def _images(name: str, images: np.ndarray, shape: Shape, axes: int = 2) -> np.ndarray:
    """The images, of `axes` axes, as (..., rows, columns, 3), or a ValueError that says what is wrong.

    Red, green and blue of a grey image are equal.
    """
    images = np.asarray(images)
    if images.ndim != axes or images.shape[-1] != math.prod(shape) or not images.size:
        expected = f"{axes} axes, the last of {' x '.join(map(str, shape))} pixels, none empty"
        raise ValueError(f"{name} are {images.shape}; expected {expected}")
    if not (images.min() >= 0 and images.max() <= 1):  # written so that NaN fails
        numbers = images[~np.isnan(images)]
        found = f"from {numbers.min():.4g} to {numbers.max():.4g}, " if numbers.size else ""
        found += f"{images.size - numbers.size} of them NaN"
        raise ValueError(f"{name} hold values {found}; expected 0 to 1: give means, not logits")
    before = images.shape[:-1]
    return images.reshape(*before, *shape) if len(shape) == 3 else images.reshape(*before, *shape, 1).repeat(3, axis=-1)


def _columns(count: int) -> int:
    """The number of columns of a nearly square grid without empty places, if there is one."""
    square = math.ceil(math.sqrt(count))
    return next((c for c in range(square, 2 * square + 1) if count % c == 0), square)


def _scale(shape: Shape, columns: int, tile: int = TILE) -> int:
    """The whole factor by which images of `shape` are enlarged, `columns` side by side."""
    return max(1, min(round(tile / max(shape[:2])), WIDEST // (columns * shape[1])))


def _tops(rows: int, high: int, gap: int, strip: int) -> np.ndarray:
    """The top of each row of images in pixels; the gap after every `strip` rows (0: never) is wider."""
    row = np.arange(rows)
    return row * (high + gap) + (3 * gap * (row // strip) if strip else 0)


def _mosaic(images: np.ndarray, columns: int, scale: int, gap: int = GAP, strip: int = 0) -> np.ndarray:
    """Images (count, rows, columns, 3), enlarged and laid out on a white ground, as one array."""
    count, height, width = images.shape[:3]
    high, wide = height * scale, width * scale
    tops = _tops(-(-count // columns), high, gap, strip)
    page = np.ones((tops[-1] + high, columns * (wide + gap) - gap, 3))
    for number, image in enumerate(images):
        top, left = tops[number // columns], number % columns * (wide + gap)
        page[top : top + high, left : left + wide] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return page


def _table(
    images: np.ndarray, path: PathLike, title: str, names: list[str] | None, heads: list[str] | None,
    left: int = 0, strip: int = 0,
) -> Path:  # fmt: skip
    """Draw images (rows, steps, height, width, 3) with names in the `left` pixels beside rows, heads above columns."""
    rows, steps, height, width = images.shape[:4]
    for what, labels, count in (("row", names, rows), ("column", heads, steps)):
        if labels is not None and len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} {what}s of images; give one for each")
    scale = _scale((height, width), steps)
    grid = _mosaic(images.reshape(-1, *images.shape[2:]), steps, scale, strip=strip)
    figure, axes = page(grid, title, left=left, above=36 if heads else 0)
    for top, name in zip(_tops(rows, height * scale, GAP, strip), names or (), strict=False):
        note(axes, name, (0, top + height * scale / 2), (-5, 0), ha="right", va="center", fontsize=8.5)
    for column, head in enumerate(heads or ()):
        middle = (column * (width * scale + GAP) + width * scale / 2, 0)
        note(axes, head, middle, (0, 4), ha="center", va="bottom", fontsize=7.5)
    return save_png(figure, path)


def _value(number: float) -> str:
    """A number with one decimal and a true minus sign."""
    return f"{number:.1f}".replace("-0.0", "0.0").replace("-", "−")
