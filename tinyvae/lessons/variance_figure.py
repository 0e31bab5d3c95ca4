"""Pictures of how much gradient estimators scatter: over a parameter of q, and side by side.

As in figures.py, every function writes one file in one step and returns its path; the same input gives the same bytes.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.lessons.gradient_estimates import NAMES, Row
from tinyvae.lessons.variance import Comparison
from tinyvae.lessons.variance_study import Sweep
from tinyvae.pictures.figures import INK, PALE, PathLike, _axes, _figure, _save

# Okabe and Ito: told apart by everyone. A baseline is the lighter, dashed line of its estimator's colour.
COLOURS = {"score": "#D55E00", "grep": "#0072B2", "reparam": "#009E73", "implicit": "#009E73"}
BY_DRAWS = ("reparam", "implicit")


def over_parameter(sweep: Sweep, path: PathLike) -> Path:
    """Variance of a draw over one parameter of q, a panel for each derivative, double logarithmic, as PNG."""
    panels = list(sweep.q.at)
    figure = _figure(4.9 * len(panels), 4.3)
    grid = figure.add_gridspec(1, len(panels), left=0.075, right=0.985, bottom=0.2, top=0.79, wspace=0.17)
    for number, by in enumerate(panels):
        axes = figure.add_subplot(grid[number])
        for (of, row), variance in sweep.curves.items():
            if of == by:
                _curve(axes, sweep.values, row, variance)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _whole_decades(axes)
        none = [row.name for (of, row), variance in sweep.curves.items() if of == by and not variance.any()]
        _axes(axes, f"derivative by {by}" + (f"; 0: {', '.join(none)}" if none else ""))
        axes.axvline(sweep.q.at[sweep.parameter], color=PALE, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        axes.set_xlim(sweep.values[0], sweep.values[-1])
        _plain_ticks(axes.xaxis)
        axes.set_xlabel(f"{sweep.parameter} of q", fontsize=9, color=INK)
        if number == 0:
            axes.set_ylabel("variance of a draw", fontsize=8.5, color=INK)
    held = ", ".join(f"{name} = {value:g}" for name, value in sweep.q.at.items() if name != sweep.parameter)
    figure.text(0.012, 0.975, f"Variance of estimators of the gradient of E[f(z)], f(z) = {_short(sweep.text)}, "
                f"q = {sweep.q.family.name}, {held}", fontsize=10, color=INK, va="top")
    drawn = [NAMES[row.estimator] for by, row in sweep.curves if by == panels[0] and row.estimator in BY_DRAWS]
    by_draws = f" ({drawn[0]}: of draws; a curve ends where single draws decide)" if drawn else ""
    loo = f" leave-one-out of L = {sweep.samples};" if any(row.baseline != "none" for _, row in sweep.curves) else ""
    figure.text(0.012, 0.905, f"by quadrature{by_draws};{loo} dotted: {sweep.parameter} = "
                f"{sweep.q.at[sweep.parameter]:g}", fontsize=8.5, color=INK, va="top")
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=8.5,
                  labelcolor=INK, bbox_to_anchor=(0.5, 0.0))
    return _save(figure, path)


def _curve(axes: Any, x: np.ndarray, row: Row, variance: np.ndarray) -> None:
    # equal estimators lie on one another: the one below is wide and pale, so that both are seen
    below = row.estimator in BY_DRAWS
    axes.plot(x, np.where(variance > 0, variance, np.nan), color=COLOURS[row.estimator], label=row.name,
              linewidth=4.0 if below else 1.8, alpha=0.45 if below else 1.0, zorder=1 if below else 2,
              linestyle="solid" if row.baseline == "none" else (0, (3, 2)))


def _whole_decades(axes: Any) -> None:
    """Ticks at powers of ten alone, one of them at least."""
    low, high = axes.get_ylim()
    if high < 100 * low:
        axes.set_ylim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    axes.yaxis.set_minor_formatter(lambda value, _: "")


def _plain_ticks(axis: Any) -> None:
    """0.1, 1, 10 instead of powers."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def side_by_side(found: Comparison, path: PathLike) -> Path:
    """Variance of a draw of each estimator, a panel for each group of parameters, logarithmic, as PNG."""
    rows = [line.row for line in found.tables[0].lines]
    figure = _figure(2.6 + 2.1 * max(2, len(found.tables)), 1.4 + 0.27 * len(rows))
    high = figure.get_figheight()
    grid = figure.add_gridspec(1, len(found.tables), left=2.35 / figure.get_figwidth(), right=0.98, bottom=0.55 / high,
                               top=1 - 0.8 / high, wspace=0.1)
    places = np.arange(len(rows))
    for number, table in enumerate(found.tables):
        axes = figure.add_subplot(grid[number])
        for place, line in zip(places, table.lines, strict=True):
            if line.variance > 1e-20 * max(other.variance for other in table.lines):
                span = np.array([[line.variance - line.interval[0]], [line.interval[1] - line.variance]])
                axes.errorbar(line.variance, place, xerr=np.maximum(span, 0), fmt="o", markersize=5, linewidth=1.4,
                              color=COLOURS[line.row.estimator], markerfacecolor="white" if line.row.part else None)
            else:
                axes.annotate("0", (0, place), (4, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                              va="center", fontsize=8.5, color=COLOURS[line.row.estimator])
        axes.set_xscale("log")
        _axes(axes, f"by {table.parameter}" + (f" ({table.size:,})" if table.size > 1 else ""))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(places, [row.name for row in rows] if number == 0 else [""] * len(rows))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("variance of a draw", fontsize=8.5, color=INK)
    title = textwrap.fill(f"Gradient of {found.title}".replace("-ELBO", "−ELBO"), int(14 * figure.get_figwidth()))
    whole = "\nall of f: every score times all terms; the others: times those that contain its latent (Rao-Blackwell)"
    figure.text(0.012, 1 - 0.1 / high, title, fontsize=9.5, color=INK, va="top")
    if any(row.whole for row in rows):
        figure.text(0.012, 1 - 0.1 / high - 0.01, "\n" * title.count("\n") + whole, fontsize=8, color=INK, va="top")
    return _save(figure, path)


def _short(text: str) -> str:
    return text if len(text) <= 36 else f"{text[:34]}..."
