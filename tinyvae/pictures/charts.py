"""Charts of a run: the posterior means in latent space, and the bound over the epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.pictures.page import INK, LABELS, MARKERS, TEST, TRAIN, PathLike, new_figure, plain_axes, save_png


def latents(
    means: np.ndarray, labels: np.ndarray | None, path: PathLike, per_dimension_kl: np.ndarray | None = None,
    normal: bool = True,
) -> Path:  # fmt: skip
    """Draw the posterior means of data, as PNG.

    The scatter plot shows the two most active dimensions, coloured by label, with circles at one and two standard
    deviations if the prior is `normal`; each of up to ten labels has a marker, too. Bars beside it show the KL
    divergence of each dimension, if given.

    Parameters
    ----------
    means : (count, latent) posterior means. labels : (count,) class of each datum, or None. per_dimension_kl :
    (latent,) KL(q(z_j|x) || p(z_j)) in nats, the mean over the data, which orders the dimensions by activity.
        Without it, the variance of the posterior means orders them.
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
    room = (0.12, 0.12, 0.74, 0.79) if per_dimension_kl is None else (0.1, 0.12, 0.52, 0.79)
    _scatter(figure.add_axes(room), means, pair, labels, normal)
    if per_dimension_kl is not None:
        _bars(figure.add_axes((0.77, 0.12, 0.2, 0.79)), activity, order, pair)
    return save_png(figure, path)


def curves(records: Iterable[Mapping[str, Any]], path: PathLike, goal: str = "ELBO") -> Path:
    """Draw the bound of the training and test data over the epochs, and the two terms of the test ELBO, as PNG.

    The bound is the one that the training raises and the epoch lines show: that of iwae where the records have it, else
    the ELBO, or `goal`, which names what a model without a bound on log p(x) has in its place.

    `records` may have the keys `epoch`, `train_elbo`, `test_elbo`, `train_bound`, `test_bound`, `importance_samples`,
    `test_reconstruction` and `test_kl`, in nats per datum; a missing value leaves a gap. The last record with a true
    `best` is the epoch whose parameters were saved; a ring marks it on the test curve. (A ring at the best test value
    would choose the epoch by the test data.)
    """
    table = list(records)
    epochs = [record.get("epoch", number + 1) for number, record in enumerate(table)]
    bound = "bound" if any(f"{part}_bound" in r for r in table for part in ("train", "test")) else "elbo"
    train, test = f"train_{bound}", f"test_{bound}"
    lines = {
        key: np.array([np.nan if r.get(key) is None else float(r[key]) for r in table])
        for key in (train, test, "test_reconstruction", "test_kl")
    }
    known = {key for key, line in lines.items() if np.isfinite(line).any()}
    if not known:
        raise ValueError(f"the records hold no finite number under any of {', '.join(lines)}")
    if bound == "bound":
        draws = {r["importance_samples"] for r in table if "importance_samples" in r}
        goal = f"L_{draws.pop() if len(draws) == 1 else 'K'}, the bound of iwae"
    titles = {"test_reconstruction": "Test reconstruction, nats", "test_kl": "Test KL to the prior, nats"}
    terms = [key for key in titles if key in known]
    figure = new_figure(7.6, 3.8)
    from matplotlib.ticker import MaxNLocator

    edges = {"left": 0.09, "right": 0.98, "bottom": 0.13, "top": 0.9, "wspace": 0.25, "hspace": 0.42}
    grid = figure.add_gridspec(max(1, len(terms)), 2, width_ratios=(1.6, 1), **edges)
    style = {"linewidth": 1.6, "markersize": 3, "marker": "o" if len(table) <= 30 else None}
    axes = figure.add_subplot(grid[:, 0] if terms else grid[:, :])
    for key, name, colour in ((train, "train", TRAIN), (test, "test", TEST)):
        if key in known:
            axes.plot(epochs, lines[key], color=colour, label=name, **style)
    plain_axes(axes, f"{goal}, nats per datum (higher is better)")
    kept = max((number for number, record in enumerate(table) if record.get("best")), default=None)
    if kept is not None and np.isfinite(lines[test][kept]):
        x, y = epochs[kept], lines[test][kept]
        label = f"kept: epoch {x}, test {y:.2f}".replace("-", "−")
        axes.scatter(x, y, marker="o", s=64, facecolor="none", edgecolor=TEST, label=label)
    if axes.lines:
        axes.legend(loc="best", frameon=False, fontsize=8, labelcolor=INK)
    for row, key in enumerate(terms):
        part = figure.add_subplot(grid[row, 1])
        part.plot(epochs, lines[key], color=TEST, **style)
        plain_axes(part, titles[key])
    for part in figure.axes:
        part.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        if len(set(epochs)) < 4:  # widen a short axis, so that its ticks are whole epochs
            part.set_xlim(min(epochs) - 0.6, max(epochs) + 0.6)
    for part in {figure.axes[0], figure.axes[-1]}:
        part.set_xlabel("epoch", fontsize=8.5, color=INK)
    return save_png(figure, path)


def _scatter(axes: Any, means: np.ndarray, pair: np.ndarray, labels: np.ndarray | None, normal: bool) -> None:
    from matplotlib.markers import MarkerStyle
    from matplotlib.patches import Circle

    named = np.zeros(len(means)) if labels is None else np.asarray(labels)
    if named.shape != (len(means),):
        raise ValueError(f"labels are {named.shape}; expected one label for each of {len(means)} means")
    classes, index = np.unique(named, return_inverse=True)
    x = means[:, pair[0]]
    # With a single latent dimension, y separates the classes and spreads the points of a class in their order.
    y = means[:, pair[1]] if len(pair) == 2 else index + np.linspace(-0.35, 0.35, len(means))
    size = float(np.clip(9000 / len(means), 2.5, 18))
    colours = np.array(LABELS)[index % len(LABELS)]
    circles = normal and len(pair) == 2
    for radius in (1, 2) if circles else ():
        style = {"fill": False, "color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 2}
        axes.add_patch(Circle((0, 0), radius, **style))
    points = axes.scatter(x, y, c=colours, s=size, alpha=0.7, linewidths=0)  # in the data's order, not by class
    styles = [MarkerStyle(marker) for marker in MARKERS]
    shapes = [style.get_path().transformed(style.get_transform()) for style in styles]
    points.set_paths([shapes[number % len(shapes)] for number in index])
    plain_axes(axes, "Posterior means of test data" + (", dashed: 1 and 2 sd of the prior" if circles else ""))
    axes.set_xlabel(f"$z_{{{pair[0]}}}$", fontsize=10, color=INK)
    if len(pair) == 2:
        axes.set_ylabel(f"$z_{{{pair[1]}}}$", fontsize=10, color=INK, rotation=0, ha="right", labelpad=4)
        axes.set_aspect("equal", adjustable="datalim")
    else:
        axes.set_yticks(range(len(classes)), classes if len(classes) > 1 else [""])
        axes.invert_yaxis()
    if not 2 <= len(classes) <= len(LABELS):
        return  # a legend of one class or of very many classes is of no use
    for number, name in enumerate(classes):
        mine = index == number
        if len(pair) == 2:  # the names in the plot serve readers who cannot tell the colours apart
            badge = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": LABELS[number]}
            middle = np.median(x[mine]), np.median(y[mine])
            axes.text(*middle, str(name), fontsize=8, ha="center", va="center", color=INK, bbox=badge)
        axes.scatter([], [], color=LABELS[number], marker=MARKERS[number], s=22, label=str(name))
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "borderaxespad": 0.2}
    axes.legend(**place, title="label", frameon=False, fontsize=8, title_fontsize=8, labelcolor=INK, handletextpad=0.1)


def _bars(axes: Any, kl: np.ndarray, order: np.ndarray, pair: np.ndarray) -> None:
    """Draw the KL of each dimension in nats, the most active on top, with the two of the scatter plot highlighted."""
    shown = order[:40]
    colours = [TRAIN if j in pair else "#9db8cc" for j in shown]
    axes.barh(np.arange(len(shown)), kl[shown], color=colours, height=0.75)
    plain_axes(axes, f"KL to the prior, sum {kl.sum():.1f}", "nats per datum")
    axes.grid(axis="y", visible=False)
    axes.set_ylim(max(len(shown), 8) - 0.4, -0.6)
    names = [f"$z_{{{j}}}$" for j in shown]
    axes.set_yticks(np.arange(len(shown)), names, fontsize=7 if len(shown) > 24 else 8)
    axes.tick_params(axis="y", length=0)
