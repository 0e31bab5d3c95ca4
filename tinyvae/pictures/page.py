"""The common parts of all figures: sizes, colours, a page around an image, plain axes, and writing a PNG.

The figures use Matplotlib's objects (`Figure`), which choose no backend and change no global state. Matplotlib is
imported when the first figure is drawn, because its import takes long.
"""

from __future__ import annotations

import io
import math
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.runs.files import write_bytes

DPI = 200
TILE = 88  # the approximate side of an enlarged image in pixels, 11 mm on paper
WIDEST = 2400  # the largest width of a grid in pixels
GAP = 4  # the number of pixels between two images
INK, PALE = "#222222", "#8a8a8a"
TRAIN, TEST = "#0072B2", "#D55E00"  # blue and vermilion, which the colour-blind can tell apart (Okabe and Ito)
# Ten colours that the colour-blind can tell apart: Paul Tol's "muted" scheme, with a darker blue and grey, and with
# brown for its sand, so that small digits in them can be read on white.
LABELS = ("#332288", "#4477DD", "#44AA99", "#117733", "#999933",
          "#664400", "#CC6677", "#882255", "#AA4499", "#555555")  # fmt: skip

# A shape beside each colour, for who cannot tell the colours apart.
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*")

PathLike = str | os.PathLike[str]
Shape = tuple[int, ...]  # (rows, columns) of pixels, or (rows, columns, 3) in colour


def new_figure(width: float, height: float) -> Any:
    """An empty white figure of `width` x `height` inches."""
    _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _import_matplotlib() -> None:
    """Import Matplotlib, also where MPLBACKEND names a backend that does not exist: these figures need none."""
    try:
        import_module("matplotlib")
    except ValueError:
        backend = os.environ.pop("MPLBACKEND", "")
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half imported
        try:
            import_module("matplotlib")
        finally:
            os.environ["MPLBACKEND"] = backend


def page(grid: np.ndarray, title: str, left: int = 0, bottom: int = 0, above: int = 0) -> tuple[Any, Any]:
    """A figure with the pixels of `grid`, (rows, columns, 3), and invisible axes over it whose unit is a pixel and
    whose y points downwards.

    `left`, `bottom` and `above` are the space for labels in pixels, in addition to the margin. The title may have
    several lines.
    """
    lines = title.split("\n")
    margin, head = 40, 26 + 34 * len(lines)
    height, width = grid.shape[:2]
    wide = left + max(width, _width(title)) + 2 * margin
    high = height + bottom + above + head + 2 * margin
    figure = new_figure(wide / DPI, high / DPI)
    x, y = margin + left, margin + bottom
    figure.figimage(np.rint(255 * grid).astype(np.uint8), x, y, origin="upper")
    axes = figure.add_axes((x / wide, y / high, width / wide, height / high), facecolor="none")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    figure.text(x / wide, (high - margin) / high, title, fontsize=10, color=INK, va="top", ha="left")
    return figure, axes


def _width(title: str) -> int:
    """The width of a title in pixels."""
    figure = new_figure(1, 1)
    return math.ceil(figure.text(0, 0, title, fontsize=10).get_window_extent(figure.canvas.get_renderer()).width)


def note(axes: Any, text: str, point: tuple[float, float], offset: tuple[int, int], **kind: Any) -> None:
    """Write a text at an offset in points from a point of the axes."""
    axes.annotate(text, point, offset, textcoords="offset points", color=INK, annotation_clip=False, **kind)


def save_png(figure: Any, path: PathLike, colours: int = 0) -> Path:
    """Write a figure as PNG in one step; the same figure gives the same bytes. With at most so many `colours`, if they
    are given, the file of a drawing of lines is a third as large."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})  # without the version and the date
    if colours:
        from PIL import Image

        drawn, buffer = Image.open(buffer).convert("RGB"), io.BytesIO()
        drawn.quantize(colours).save(buffer, format="png", optimize=True)
    write_bytes(path, buffer.getvalue())
    return Path(path)


def plain_axes(axes: Any, title: str, x: str = "", y: str = "") -> None:
    """Give axes a title on the left, names of x and y, and a pale grid behind the data."""
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(labelsize=8, color=PALE, labelcolor=INK)
    axes.grid(color="#e8e8e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, fontsize=8.5, color=INK)
    axes.set_ylabel(y, fontsize=8.5, color=INK)
