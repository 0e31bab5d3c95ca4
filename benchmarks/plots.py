"""Plots of the results files, as SVG beside them. The same file gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.tables import FLOOR, Row
from tinyvae.runs import files

OURS, OTHER, BELOW = "#c8502d", "#8fa3b5", "#3d4a57"
REPLAYED = "replayed"
OUR_STEPS = ("tinyvae", REPLAYED)  # the prefixes of the names of our steps
STYLE = {"svg.hashsalt": "tinyvae", "svg.fonttype": "none", "font.size": 9, "axes.titlesize": 9,
         "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def save(figure: Figure, path: Path) -> Path:
    """Save a figure without its date, which would change the bytes."""
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def step(path: Path) -> Path:
    """Plot the milliseconds of each form of a step, with a panel for each net."""
    return _bars(path, "One training step: milliseconds, lower is better")


def peers(path: Path) -> Path:
    """Plot the milliseconds of each library's step, with a panel for each net."""
    return _bars(path, "One training step in three libraries: milliseconds, lower is better")


def _bars(path: Path, title: str) -> Path:
    with matplotlib.rc_context(STYLE):
        content = files.read_json(path)
        panels: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
        for row in content["rows"]:
            size = row["size"], row["batch"], row["data"]
            panels.setdefault(size, {}).setdefault(row["pixels"], []).append(row)
        columns = list(dict.fromkeys(row["pixels"] for row in content["rows"]))
        bars = max(len(rows) for panel in panels.values() for rows in panel.values())
        figure, grid = plt.subplots(len(panels), len(columns), sharex="row", squeeze=False, layout="constrained",
                                    figsize=(5 * len(columns), 0.7 + (0.5 + 0.22 * bars) * len(panels)))
        for (size, panel), line in zip(panels.items(), grid, strict=True):
            for pixels, axes in zip(columns, line, strict=True):
                _panel(axes, panel[pixels])
                axes.tick_params(labelleft=axes is line[0])  # the panels of a line share the names
                axes.set_title(f"{size[0]}, batch {size[1]:,}, {size[2]}, {pixels} pixels")
        _caption(figure, content, title)
        return save(figure, path.with_suffix(".svg"))


def _panel(axes: Axes, rows: list[Row]) -> None:
    """Draw a bar with quartiles for each row, the first on top, and a line at the time of the products alone."""
    names = [row["step"] for row in rows]
    values = [row["microseconds"] / 1e3 for row in rows]
    colours = [OURS if name.startswith(OUR_STEPS) else BELOW if name == FLOOR else OTHER for name in names]
    axes.barh(names, values, xerr=_errors(rows, 1e3), color=colours, height=0.7,
              error_kw={"elinewidth": 0.8, "ecolor": "black"})
    for i, (row, value) in enumerate(zip(rows, values, strict=True)):
        end = max(value, row["upper_quartile"] / 1e3)
        axes.annotate(f"{value:.3g} ms", (end, i), (4, 0), textcoords="offset points", va="center")
    axes.axvline(values[names.index(FLOOR)], color=BELOW, linewidth=0.8, linestyle=":")
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.tick_params(left=False)


def _errors(rows: list[Row], unit: float) -> list[list[float]]:
    return [[(row["microseconds"] - row["lower_quartile"]) / unit for row in rows],
            [(row["upper_quartile"] - row["microseconds"]) / unit for row in rows]]


def sweep(path: Path) -> Path:
    """Plot the time per image and the floor's share of it over the batch and over the hidden width."""
    with matplotlib.rc_context(STYLE):
        content = files.read_json(path)
        figure, grid = plt.subplots(2, 2, sharex="col", sharey="row", layout="constrained", figsize=(10, 6))
        for by, (above, below) in zip(("batch", "hidden"), grid.T, strict=True):
            rows = [row for row in content["rows"] if row["sweep"] == by]
            for name, colour in ((FLOOR, BELOW), (REPLAYED, OURS)):
                found = [row for row in rows if row["step"] == name]
                sizes, batches = ([row[key] for row in found] for key in (by, "batch"))
                low, high = ([e / n for e, n in zip(side, batches, strict=True)] for side in _errors(found, 1))
                line = {"color": colour, "marker": "o", "markersize": 4, "linewidth": 1.2}
                above.errorbar(sizes, [row["microseconds_an_image"] for row in found], (low, high), label=name, **line)
                below.plot(sizes, [100 * row["share_of_floor"] for row in found], **line)
            net = rows[0]
            above.set_title(f"{net['size']}, {net['data']}, {net['pixels']} pixels" if by == "batch" else
                            f"the same with other hidden widths, batch {net['batch']:,}")
            below.set(xlabel="batch" if by == "batch" else "hidden width", xscale="log")
            below.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
        for axes in grid.flat:
            axes.minorticks_off()
            axes.grid(axis="y", linewidth=0.4, alpha=0.5)
        grid[0, 0].set(ylabel="us an image, lower is better", yscale="log")
        grid[0, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        grid[0, 0].yaxis.set_minor_locator(NullLocator())
        grid[0, 0].yaxis.set_major_formatter("{x:g}")
        grid[1, 0].set(ylabel="floor / step in %, higher is better", ylim=(0, None))
        grid[0, 0].legend(frameon=False)
        _caption(figure, content, "A replayed training step and its matrix products alone")
        return save(figure, path.with_suffix(".svg"))


def gpu(path: Path) -> Path:
    """Plot each kernel's share of a copy's bandwidth, and the time of a step by device and library over the batch."""
    with matplotlib.rc_context(STYLE):
        content = files.read_json(path)
        figure, (shares, steps) = plt.subplots(1, 2, layout="constrained",
                                               figsize=(12, 1.5 + 0.22 * len(content["large"])))
        names, values = ([row[key] for row in content["large"]] for key in ("case", "share_of_copy"))
        shares.barh(names, [100 * value for value in values], color=OURS, height=0.7)
        shares.axvline(80, color=BELOW, linewidth=0.8, linestyle=":")
        shares.invert_yaxis()
        shares.set(title=f"kernels over {max(row['numbers'] for row in content['large']):,} numbers",
                   xlabel="bandwidth in % of a copy's, higher is better; dots: 80 %")
        for name, key, precision, colour, dash in (
            ("CPU", "cpu_microseconds", "float32", BELOW, "-"), ("tinyvae", "gpu_microseconds", "float32", OURS, "-"),
            ("tinyvae, TF32", "gpu_microseconds", "TF32", OURS, "--"),
            ("products alone", "products_microseconds", "float32", BELOW, ":"),
        ):  # fmt: skip
            rows = [row for row in content["rows"] if row["precision"] == precision and row[key] is not None]
            steps.plot([row["batch"] for row in rows], [row[key] for row in rows], label=name, color=colour,
                       linestyle=dash, marker="o", markersize=4, linewidth=1.2)
        rivals = [row for row in content.get("peers", []) if not row["step"].startswith((*OUR_STEPS, FLOOR))]
        for marker, name in zip("sD^v", dict.fromkeys(row["step"] for row in rivals), strict=False):
            for precision, fill in (("float32", OTHER), ("TF32", "none")):
                rows = [row for row in rivals if (row["step"], row["precision"]) == (name, precision)]
                steps.plot([row["batch"] for row in rows], [row["microseconds"] for row in rows], linestyle="",
                           marker=marker, color=OTHER, markerfacecolor=fill,
                           label=name if precision == "float32" else f"{name}, TF32")
        steps.set(title=content["rows"][0]["size"], xlabel="batch", ylabel="us a step, lower is better", xscale="log",
                  yscale="log")
        batches = sorted({row["batch"] for row in content["rows"]})
        steps.set_xticks(batches, labels=[f"{batch:,}" for batch in batches])
        steps.minorticks_off()
        steps.yaxis.set_major_formatter("{x:,g}")
        steps.grid(axis="y", linewidth=0.4, alpha=0.5)
        steps.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        card, rounds = content["card"], max(row["rounds"] for row in content["rows"])
        quick = "; a quick run: no claim" if content["quick"] else ""
        figure.suptitle(f"Kernels and training steps on a GPU\n{card['name']}, CuPy {card['cupy']}; medians of "
                        f"{rounds} rounds{quick}", fontsize=10, x=0.01, ha="left")
        return save(figure, path.with_suffix(".svg"))


def _caption(figure: Figure, content: dict[str, Any], title: str) -> None:
    """Write the title, and the machine below it."""
    environment = content["environment"]
    blas, rounds = environment["blas"], max(row["rounds"] for row in content["rows"])
    machine = f"{environment['cpu']}, {environment['cores']} cores, {blas['library']} with {blas['kernel']} kernels"
    quick = "; a quick run: no claim" if content["quick"] else ""
    text = f"{title}\n{machine}; medians and quartiles of {rounds} rounds{quick}"
    figure.suptitle(text, fontsize=10, x=0.01, ha="left")
