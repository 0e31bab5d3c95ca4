"""Pictures of the lessons: the ELBO as q moves, Monte Carlo's error, and how far gradient estimators spread.

As in pictures/page.py, every function writes one file in one step and returns its path; the same input gives the
same bytes.
"""

from __future__ import annotations

import io
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.distributions import Gamma
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.lessons.elbo import Lesson, Point
from tinyvae.lessons.estimates import NAMES, Choice, Report
from tinyvae.lessons.expectations import Line, scan
from tinyvae.lessons.montecarlo import Study
from tinyvae.lessons.variance import Comparison, Sweep
from tinyvae.pictures.page import INK, PALE, TEST, TRAIN, PathLike, new_figure, plain_axes, save_png
from tinyvae.runs.files import write_bytes

P, Q = TRAIN, TEST  # the colours of p and q
SCREEN = 100  # dots per inch of an animation
SECONDS = 8.0  # that it takes, without the rest at its end
REST = 2.0
Q_NAMES = {"gamma": "q(z) = Gamma(a, b)", "exponential": "q(z) = Gamma(1, b)", "chi-square": "q(z) = Gamma(a, 1/2)"}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ELBO_CAPTION = ("p is normalised and there are no data, so the ELBO is −KL(q ‖ p) ≤ 0. All mass of q is on z > 0, and "
                "what p has elsewhere\n{}costs: not even the best q of any form gets above log P(z > 0) "
                "under p, the dashed line.")
SEEN = 0.02  # of a panel's height or width
# By Okabe and Ito, for the colour-blind too. A baseline is a dashed line in its estimator's colour.
COLOURS = {"score": "#D55E00", "grep": "#0072B2", "reparam": "#009E73", "implicit": "#009E73"}
BY_DRAWS = ("reparam", "implicit")

# ---- the ELBO --------------------------------------------------------------------------------------------------------


def elbo_animation(lesson: Lesson, path: PathLike, report: Report = lambda share: None) -> Path:
    """A GIF: both densities below, the ELBO above, as q's parameters go their way; it rests at the optimum."""
    from PIL import Image

    figure = new_figure(7.6, 5.6)
    figure.set_dpi(SCREEN)
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.15), left=0.12, right=0.97, bottom=0.2, top=0.93, hspace=0.42)
    top, below = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    values = _course(top, lesson, faint=True)
    line, = top.plot([], [], color=Q, linewidth=1.8, solid_capstyle="round", animated=True)
    dot, = top.plot([], [], "o", color=Q, markersize=6, animated=True, clip_on=False)
    title = top.text(0, 1.06, "", transform=top.transAxes, fontsize=9.5, color=INK, animated=True)
    curve, hatched = _densities(below, lesson)
    _caption(figure, hatched)
    curve.set_animated(True)
    figure.canvas.draw()
    still = figure.canvas.copy_from_bbox(figure.bbox)  # all that does not move is drawn once
    pages = []
    for number, point in enumerate(lesson.points):
        line.set_data(np.arange(number + 1), values[: number + 1])
        dot.set_data([number], [values[number]])
        title.set_text(f"ELBO = −KL(q ‖ p) = {_number(point.elbo, 3)} nats at a = {_number(point.shape)}, "
                       f"b = {_number(point.rate)}")
        _move(curve, point)
        figure.canvas.restore_region(still)
        for artist in (line, dot, title, curve):
            artist.axes.draw_artist(artist)
        pages.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[:, :, :3].copy()))
        report((number + 1) / len(values))
    # one palette for all pages, or colours would flicker: the commonest of the first and the last page, white as white
    pixels = np.concatenate([np.asarray(page).reshape(-1, 3) for page in (pages[0], pages[-1])])
    colours, counts = np.unique(pixels @ np.array([1, 256, 65536]), return_counts=True)
    commonest = colours[np.argsort(-counts, kind="stable")[:128], None] // [1, 256, 65536] % 256
    commonest[commonest.min(1) > 244] = 255
    palette = Image.new("P", (1, 1))
    palette.putpalette(commonest.ravel().tolist())
    pages = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    each = 10 * max(2, round(100 * SECONDS / len(pages)))
    buffer = io.BytesIO()
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], loop=0, optimize=False,
                  duration=[*[each] * (len(pages) - 1), int(1000 * REST)])
    write_bytes(path, buffer.getvalue())
    return Path(path)


def elbo_strip(lesson: Lesson, path: PathLike) -> Path:
    """The same on paper, as PNG: the whole course of the ELBO, and below it the densities at five moments."""
    points, best = lesson.points, lesson.best
    ends = np.cumsum([len(stage.points) for stage in lesson.stages]) - 1  # start, middle and end of what moves; optimum
    moments = [0, *([ends[0] // 2] if len(ends) == 3 else [ends[0] // 3, 2 * ends[0] // 3]), *ends]
    figure = new_figure(7.2, 5.4)
    grid = figure.add_gridspec(2, len(moments), height_ratios=(1.25, 1), left=0.105, right=0.985, bottom=0.23,
                               top=0.94, hspace=0.7, wspace=0.14)
    top = figure.add_subplot(grid[0, :])
    values = _course(top, lesson, faint=False)
    top.set_title(f"ELBO as q moves, nats (higher is better); optimum {_number(best.elbo)} at "
                  f"a = {_number(best.shape)}, b = {_number(best.rate)}", loc="left", fontsize=9, color=INK)
    for number, moment in enumerate(moments):
        top.text(moment, values[moment], str(number + 1), fontsize=7.5, color="white", ha="center", va="center",
                 bbox={"boxstyle": "circle", "color": Q}, zorder=5)
        point, part = points[moment], figure.add_subplot(grid[1, number])
        curve, hatched = _densities(part, lesson, [points[m] for m in moments])
        part.locator_params(axis="x", nbins=2)
        _move(curve, point)
        part.set_title(f"{number + 1}:  ELBO {_number(point.elbo)}\na = {_number(point.shape)}\n"
                       f"b = {_number(point.rate)}", loc="left", fontsize=8, color=INK)
        if number:
            part.tick_params(labelleft=False)
            part.set_ylabel("")
    _caption(figure, hatched)
    figure.legend(*part.get_legend_handles_labels(), loc="lower center", bbox_to_anchor=(0.55, 0.09), frameon=False,
                  ncols=2, fontsize=8.5, labelcolor=INK)
    return save_png(figure, path)


def _caption(figure: Any, hatched: bool) -> None:
    figure.text(0.03, 0.03, ELBO_CAPTION.format("(hatched) " * hatched), fontsize=8, color=INK, va="bottom",
                linespacing=1.4)


def _course(axes: Any, lesson: Lesson, faint: bool) -> np.ndarray:
    """The ELBO of all points over their number, the bound, and which stage is which; returns the values."""
    from matplotlib.ticker import SymmetricalLogLocator

    values = np.array([point.elbo for point in lesson.points])
    axes.plot(values, color="#eab9a0" if faint else Q, linewidth=1.6)
    plain_axes(axes, "", y="ELBO, nats")
    high, low = max(lesson.bound, lesson.best.elbo), values.min()
    room, low = 0.17 * (high - low), low - 0.05 * (high - low)
    if high - low > max(30, 10 * abs(high)):  # from tenths to thousands of nats
        linear = max(1.0, 2 * abs(high))
        axes.set_yscale("symlog", linthresh=linear, linscale=max(1.0, math.log10(-low / linear) / 4))
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear))
        axes.yaxis.get_major_locator().numticks = 7
        room = 0.9 * linear
    axes.set(xlim=(-0.02 * len(values), 1.02 * len(values) - 1), ylim=(low, high + room), xticks=[])
    axes.axhline(lesson.bound, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(f"log P(z > 0) = {_number(lesson.bound)} nats", (0.01, lesson.bound), (0, 1.5), color=INK,
                  xycoords=axes.get_yaxis_transform(), textcoords="offset points", va="bottom", fontsize=8)
    begin = 0
    for number, stage in enumerate(lesson.stages):
        end = begin + len(stage.points)
        if number % 2 == 0:
            axes.axvspan(begin - 0.5, end - 0.5, color="#f4f4f4", zorder=0, linewidth=0)
        axes.annotate(stage.name, ((begin + end - 1) / 2, 0), (0, -5), xycoords=axes.get_xaxis_transform(), ha="center",
                      textcoords="offset points", va="top", fontsize=8.5, color=INK, annotation_clip=False)
        begin = end
    return values


def _densities(axes: Any, lesson: Lesson, shown: list[Point] | None = None) -> tuple[Any, bool]:
    """p, and the curve of q, empty yet; the axes have room for q at the points that are shown.

    Returns the curve, and whether p is seen below 0.
    """
    mu, sigma, best = lesson.mu, lesson.sigma, lesson.best
    # the bulk of p and of the best q; of a p that is far on the left, its end on this side
    high = max(mu + 3.5 * sigma, (best.shape + 3.5 * math.sqrt(best.shape) + 1) / best.rate)
    low = min(max(mu - 3.5 * sigma, -1.5 * high), -0.08 * high)
    z = np.unique([*np.linspace(low, high, 1201), *np.geomspace(1e-12 * high, high / 20, 300), 0.0])
    p = np.exp(-0.5 * ((z - mu) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    axes.fill_between(z, p, where=z >= 0, color=P, alpha=0.22, linewidth=0)
    axes.fill_between(z, p, where=z <= 0, facecolor="none", edgecolor=P, alpha=0.5, hatch="////", linewidth=0)
    axes.plot(z, p, color=P, linewidth=1.6, label=f"p(z) = N({_number(mu)}, {_number(sigma)}²)", clip_on=False,
              zorder=2.6)  # on the axis too, where p is nearly 0
    curve, = axes.plot(z[z > 0], np.zeros((z > 0).sum()), color=Q, linewidth=1.8, label=Q_NAMES[lesson.preset],
                       zorder=2.7)
    plain_axes(axes, "", "z", "density")
    # a q that shoots up at 0, or is a needle, is cut off
    *tops, top = (float(np.quantile(_gamma(z[z > 0], point), 0.99)) for point in [*(shown or lesson.points), best])
    height = 1.12 * max(p.max(), min(top, 8 * p.max()), min(max(tops), 3 * p.max()))
    if p.max() < SEEN * top:  # p is elsewhere
        height = 1.12 * top
    axes.set(xlim=(low, high), ylim=(0, height))
    if shown is None:
        axes.legend(loc="upper right", frameon=False, fontsize=8.5, labelcolor=INK)
    return curve, bool(p[z <= 0].max() > SEEN * height)


def _move(curve: Any, point: Point) -> None:
    z = curve.get_xdata()
    mode = (point.shape - 1) / point.rate
    # a density that falls on its last steps to 0 would be an upright line from nowhere
    curve.set_ydata(np.where((z < mode) & (mode < SEEN * z[-1]), np.nan, _gamma(z, point)))


def _gamma(z: np.ndarray, point: Point) -> np.ndarray:
    q, log_z = Gamma(Tensor(np.array(point.shape)), Tensor(np.array(point.rate))), np.log(z)
    return np.exp(np.minimum(q.log_density(Tensor(log_z)).data - log_z, 100.0))


def _number(number: float, places: int | None = None) -> str:
    """Three digits, or so many places, with a true minus sign; tiny and huge numbers by a power of ten."""
    if (places is None and 0 < abs(number) < 5e-4) or abs(number) >= 1e9:
        digits, power = f"{number:.1e}".split("e")
        return f"{digits} · 10{str(int(power)).translate(SUPERSCRIPTS)}".replace("-", "−")
    number = (number if places is None else round(number, places)) + 0.0  # no minus before 0
    text = f"{number:.3g}" if places is None else f"{number:.{places}f}"
    return (f"{number:,.0f}" if "e" in text else text).replace("-", "−")


# ---- Monte Carlo -----------------------------------------------------------------------------------------------------


def montecarlo(study: Study, path: PathLike, seed: int = 0) -> Path:
    """As PNG: draws of g(eps) against the density of q, and the error of both routes against the number of draws."""
    figure = new_figure(9.2, 4.0)
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.25), left=0.07, right=0.985, bottom=0.14, top=0.9, wspace=0.25)
    _draws(figure.add_subplot(grid[0]), study, seed)
    _errors(figure.add_subplot(grid[1]), study)
    return save_png(figure, path)


def _draws(axes: Any, study: Study, seed: int) -> None:
    q, count = study.q, 20_000
    z = study.recipe.draw(q, Noise(seed, "picture"), count).data
    low, high = np.quantile(z, (0.02, 0.98) if study.recipe.heavy else (0.0005, 0.9995))
    low = low if q.support[0] == -math.inf else q.support[0]
    edges = np.linspace(low, high, 51)
    heights = np.histogram(z, edges)[0] / (count * (edges[1] - edges[0]))
    axes.stairs(heights, edges, fill=True, color=Q, alpha=0.35, label=f"{count:,} draws of g(ε)")
    places, log_q = q.log_density(Line(q).w(scan(12.0, 50_001)).data)
    inside = (places > low) & (places < high)
    axes.plot(places[inside], np.exp(log_q[inside]), color=P, linewidth=1.6, label="density of q")
    plain_axes(axes, f"q = {q}", "z", "density")
    axes.set(xlim=(low, high), ylim=(0, 1.3 * heights.max()))
    axes.legend(loc="upper right", frameon=False, fontsize=8, labelcolor=INK)


def _errors(axes: Any, study: Study) -> None:
    from matplotlib.ticker import LogLocator

    L = np.array([row.draws for row in study.rows])
    axes.plot(L, [row.expected for row in study.rows], color=INK, linewidth=1, linestyle=(0, (4, 3)),
              label="sd of f / √L", zorder=1)
    for i, (name, colour, marker) in enumerate((("draws of q", P, "s"), ("f(g(ε))", Q, "o"))):
        rms, error = (np.array([getattr(row, what)[i] for row in study.rows]) for what in ("rms", "rms_stderr"))
        bars = np.abs(rms * np.exp(1.96 * np.array([[-1.0], [1.0]]) * error) - rms)
        slope = study.slopes[i]
        low, high = slope.interval
        label = f"{name}: slope {slope.value:.2f} (95 %: {low:.2f} to {high:.2f})".replace("-", "−")
        axes.errorbar(L * (0.96, 1.04)[i], rms, bars, fmt=marker, color=colour, markersize=5, linewidth=1.2,
                      label=label)
    axes.set_xscale("log", base=4)
    axes.set_yscale("log")
    plain_axes(axes, f"Error of the mean of f(z) = {textwrap.shorten(study.f.text, 28)}, {study.repetitions} "
               "repetitions", "L, draws in a mean", "root mean squared error")
    axes.set_xticks(L, [f"{n:,}" for n in L], fontsize=8)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(loc="lower left", frameon=False, fontsize=8, labelcolor=INK)


# ---- gradient estimators ---------------------------------------------------------------------------------------------


def over_parameter(sweep: Sweep, path: PathLike) -> Path:
    """Variance of a draw over one parameter of q, a panel for each derivative, double logarithmic, as PNG."""
    panels, here = list(sweep.q.at), sweep.q.at[sweep.parameter]
    figure = new_figure(4.9 * len(panels), 4.3)
    grid = figure.add_gridspec(1, len(panels), left=0.075, right=0.985, bottom=0.2, top=0.79, wspace=0.17)
    for number, by in enumerate(panels):
        axes = figure.add_subplot(grid[number])
        curves = {row: variance for (of, row), variance in sweep.curves.items() if of == by}
        for row, variance in curves.items():
            _curve(axes, sweep.values, row, variance)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(whole_decades(*axes.get_ylim()))
        axes.yaxis.set_minor_formatter("")
        none = [row.name for row, variance in curves.items() if not variance.any()]
        plain_axes(axes, f"derivative by {by}" + (f"; 0: {', '.join(none)}" if none else ""), f"{sweep.parameter} of q",
                   "" if number else "variance of a draw")
        axes.axvline(here, color=PALE, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        axes.set_xlim(sweep.values[0], sweep.values[-1])
        axes.xaxis.set_major_formatter("{x:g}")
    held = ", ".join(f"{name} = {value:g}" for name, value in sweep.q.at.items() if name != sweep.parameter)
    figure.text(0.012, 0.975, "Variance of estimators of the gradient of E[f(z)], f(z) = "
                f"{textwrap.shorten(sweep.text, 36)}, q = {sweep.q.family.name}, {held}", fontsize=10, color=INK,
                va="top")
    drawn = [NAMES[row.estimator] for row in curves if row.estimator in BY_DRAWS]
    by_draws = f" ({drawn[0]}: of draws; a curve ends where single draws decide)" if drawn else ""
    loo = f" leave-one-out of L = {sweep.samples};" if any(row.baseline != "none" for row in curves) else ""
    figure.text(0.012, 0.905, f"by quadrature{by_draws};{loo} dotted: {sweep.parameter} = {here:g}", fontsize=8.5,
                color=INK, va="top")
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=8.5,
                  labelcolor=INK, bbox_to_anchor=(0.5, 0.0))
    return save_png(figure, path)


def whole_decades(low: float, high: float) -> tuple[float, float]:
    """The limits of a logarithmic axis, of one whole decade at least, for its ticks."""
    return (10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high))) if high < 100 * low else (low, high)


def _curve(axes: Any, x: np.ndarray, row: Choice, variance: np.ndarray) -> None:
    # equal estimators lie on one another: the one below is wide and pale, so that both are seen
    below = row.estimator in BY_DRAWS
    axes.plot(x, np.where(variance > 0, variance, np.nan), color=COLOURS[row.estimator], label=row.name,
              linewidth=4.0 if below else 1.8, alpha=0.45 if below else 1.0, zorder=1 if below else 2,
              linestyle="solid" if row.baseline == "none" else (0, (3, 2)))


def side_by_side(found: Comparison, path: PathLike) -> Path:
    """Variance of a draw of each estimator, a panel for each group of parameters, logarithmic, as PNG."""
    rows = [line.row for line in found.tables[0].lines]
    figure = new_figure(2.6 + 2.1 * max(2, len(found.tables)), 1.4 + 0.27 * len(rows))
    high, wide, places = figure.get_figheight(), figure.get_figwidth(), np.arange(len(rows))
    grid = figure.add_gridspec(1, len(found.tables), left=2.35 / wide, right=0.98, bottom=0.55 / high,
                               top=1 - 0.8 / high, wspace=0.18)
    for number, table in enumerate(found.tables):
        axes = figure.add_subplot(grid[number])
        for place, line in zip(places, table.lines, strict=True):
            if line.variance > 1e-20 * max(other.variance for other in table.lines):
                span = np.array([[line.variance - line.interval[0]], [line.interval[1] - line.variance]])
                axes.errorbar(line.variance, place, xerr=np.maximum(span, 0), fmt="o", markersize=5, linewidth=1.4,
                              color=COLOURS[line.row.estimator],
                              markerfacecolor="white" if line.row.part else None)
            else:
                axes.annotate("0", (0, place), (4, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                              va="center", fontsize=8.5, color=COLOURS[line.row.estimator])
        axes.set_xscale("log")
        axes.set_xlim(whole_decades(*axes.get_xlim()))
        axes.xaxis.set_minor_formatter("")
        plain_axes(axes, f"by {table.parameter}" + (f" ({table.size:,})" if table.size > 1 else ""),
                   "variance of a draw")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(places, [row.name for row in rows] if number == 0 else [""] * len(rows))
        axes.tick_params(axis="y", length=0)
    title = textwrap.fill(f"Gradient of {found.title}".replace("-ELBO", "−ELBO"), int(14 * wide))
    whole = "\nall of f: every score times all terms; the others: times those that contain its latent (Rao-Blackwell)"
    figure.text(0.012, 1 - 0.1 / high, title, fontsize=9.5, color=INK, va="top")
    if any(row.whole for row in rows):
        figure.text(0.012, 1 - 0.1 / high - 0.01, "\n" * title.count("\n") + whole, fontsize=8, color=INK, va="top")
    return save_png(figure, path)
