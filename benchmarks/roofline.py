"""The roofline plot of the kernels: GFLOP/s over FLOP per byte with logarithmic axes, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tinyvae.measure.hardware import Peaks, readable_bytes

MARGIN = 1.7  # the factor between the outermost points and the edges


def plot(rows: list[dict[str, Any]], peaks: Peaks, path: Path) -> Path:
    """Write the plot; the same rows and peaks give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "tinyvae"}):
        draw(rows, peaks).savefig(path, format="svg", metadata={"Date": None})
    return path


def draw(rows: list[dict[str, Any]], peaks: Peaks) -> Figure:
    """The plot of float32 rows with the keys of kernels.json: operation, case, flops, bytes, gigaflops."""
    figure = Figure(figsize=(9, 8.5), layout="none")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.19, 0.6, 0.76))
    axes.set(xscale="log", yscale="log", xlabel="intensity (FLOP a byte read or written)",
             ylabel="GFLOP/s (higher is better)")
    title = f"Kernels under the measured roofs of this machine ({peaks.threads} threads), float32"
    axes.set_title(title, loc="left", fontsize=11)
    points = [(row["flops"] / row["bytes"], row["gigaflops"], name(row)) for row in rows]
    product = peaks.product_gigaflops["float32"]
    ridge = product / min(level.gigabytes_per_second for level in peaks.levels)
    low, high = min(x for x, _, _ in points) / MARGIN, max([ridge, *(x for x, _, _ in points)]) * MARGIN
    heights = [y for _, y, _ in points]  # a point can lie above a roof that was measured while the machine was busier
    axes.set(xlim=(low, high), ylim=(min(heights) / MARGIN, max([product, *heights]) * MARGIN))
    blues = matplotlib.colormaps["Blues"](np.linspace(1, 0.4, len(peaks.levels)))
    for level, colour in zip(peaks.levels, blues, strict=True):
        x = np.array([low, product / level.gigabytes_per_second])
        axes.plot(x, x * level.gigabytes_per_second, color=colour, linewidth=1,
                  label=f"{level.gigabytes_per_second:.0f} GB/s, sets up to {readable_bytes(level.working_set_bytes)}")
    top = product / max(level.gigabytes_per_second for level in peaks.levels)
    axes.plot([top, high], [product, product], "k", linewidth=1, label=f"{product:.0f} GFLOP/s, matrix products")
    axes.grid(alpha=0.25, which="major")
    figure.legend(loc="lower left", bbox_to_anchor=(0.065, 0), ncols=3, fontsize=8, frameon=False)
    _label(axes, points)
    return figure


def name(row: dict[str, Any]) -> str:
    """The name of a case: its operation and its label."""
    return f"{row['operation']} {row['case']}".strip()


def _label(axes: Any, points: list[tuple[float, float, str]]) -> None:
    """Write the names in a column beside the axes, in the order of the points, each with a line to its point."""
    ordered = sorted(points, key=lambda point: (point[1], point[0]))
    colours = matplotlib.colormaps["tab10"]
    for i, (x, y, text) in enumerate(ordered):
        colour, place = colours(i % 10), (i + 0.5) / len(ordered)
        axes.plot(x, y, "o", color=colour, markersize=5, zorder=3)
        axes.annotate(f"{text}, {y:.3g}", (x, y), (1.03, place), textcoords="axes fraction", fontsize=8, va="center",
                      annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.7,
                                  "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)})  # fmt: skip
