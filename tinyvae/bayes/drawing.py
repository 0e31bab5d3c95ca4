"""The picture of a directed graph: each node below its parents, with an arrow from each parent, as SVG."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape

WIDE, HIGH = 150.0, 92.0  # the distance of neighbours in a row, and of rows
HALF_HIGH, LETTER, TIP = 20.0, 4.4, 11.0  # half the height of a node, half the width of a letter, an arrow's tip
INK, SEEN = "#1c2733", "#c9d3dc"


class Svg(str):
    """A picture as the text of an SVG file; a notebook shows it."""

    def _repr_svg_(self) -> str:
        return str(self)


def svg(parents: Mapping[str, Sequence[str]], observed: Collection[str] = ()) -> Svg:
    """The graph of nodes in an order in which each follows its parents; those that are observed are grey."""
    places = _places(parents)
    half = {name: max(HALF_HIGH, 12 + LETTER * len(name)) for name in parents}
    left = min(x - half[name] for name, (x, _) in places.items()) - 8
    width = max(x + half[name] for name, (x, _) in places.items()) + 8 - left
    height = max(y for _, y in places.values()) + 2 * (HALF_HIGH + 8)
    arrows = "".join(_arrow(parent, name, places, half) for name in parents for parent in parents[name])
    nodes = "".join(
        f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{half[name]:.1f}" ry="{HALF_HIGH}" stroke="{INK}" '
        f'fill="{SEEN if name in observed else "white"}"/><text x="{x:.1f}" y="{y + 5:.1f}">{escape(name)}</text>'
        for name, (x, y) in places.items())
    words = "; ".join(f"{name} depends on {' and '.join(parents[name])}" for name in parents if parents[name])
    words += f"; observed: {', '.join(observed)}" * bool(observed)
    return Svg(f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="{left:.1f} {-HALF_HIGH - 8:.1f} {width:.1f} {height:.1f}" style="background:white" '
            f'font-family="sans-serif" font-size="14" text-anchor="middle">'
            f'<title>{escape("Bayesian network: " + words)}</title>{arrows}<g fill="{INK}">{nodes}</g></svg>')


def _places(parents: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, float]]:
    """The middle of each node: its row is below those of all its parents, and its place there is near theirs."""
    row: dict[str, int] = {}
    for name in parents:
        row[name] = 1 + max((row[parent] for parent in parents[name]), default=-1)
    for name in reversed(list(parents)):  # a node without parents stands just above its first child
        children = [row[child] for child in parents if name in parents[child]]
        if not parents[name] and children:
            row[name] = min(children) - 1
    places: dict[str, tuple[float, float]] = {}
    for number in range(max(row.values()) + 1):
        wished = {name: sum(places[p][0] for p in parents[name]) / max(1, len(parents[name]))
                  for name in parents if row[name] == number}
        names = sorted(wished, key=lambda name: wished[name])
        middle = sum(wished.values()) / len(names)
        for i, name in enumerate(names):
            places[name] = (middle + (i - (len(names) - 1) / 2) * WIDE, number * HIGH)
    return places


def _arrow(start: str, end: str, places: Mapping[str, tuple[float, float]], half: Mapping[str, float]) -> str:
    """An arrow from the edge of one node to that of another, bent as little as keeps it clear of all others."""
    (x0, y0), (x1, y1) = places[start], places[end]

    def is_clear(bend: float) -> bool:
        """Whether the curve B(t) = (1 - t)^2 (x0, y0) + 2 t (1 - t) (cx, cy) + t^2 (x1, y1) meets no other node."""
        others = [(x, y, half[name] + 12) for name, (x, y) in places.items() if name not in (start, end)]
        for t in (number / 20 for number in range(1, 20)):
            bx = (1 - t) ** 2 * x0 + 2 * t * (1 - t) * ((x0 + x1) / 2 + bend) + t * t * x1
            by = y0 + t * (y1 - y0)
            if any(math.hypot((bx - x) / wide, (by - y) / (HALF_HIGH + 8)) < 1 for x, y, wide in others):
                return False
        return True

    bend = next(filter(is_clear, (0.0, *(side * part * WIDE for part in (0.5, 1, 1.5, 2, 3) for side in (-1, 1)))), 0.0)
    cx, cy = (x0 + x1) / 2 + bend, (y0 + y1) / 2
    ax, ay = _edge(x0, y0, cx, cy, half[start])
    bx, by = _edge(x1, y1, cx, cy, half[end])
    long = math.hypot(bx - cx, by - cy)
    dx, dy = TIP * (bx - cx) / long, TIP * (by - cy) / long
    tip = " ".join(f"{x:.1f},{y:.1f}" for x, y in (
        (bx, by), (bx - dx - dy / 2, by - dy + dx / 2), (bx - dx + dy / 2, by - dy - dx / 2)))
    return (f'<path d="M{ax:.1f} {ay:.1f} Q{cx:.1f} {cy:.1f} {bx - dx:.1f} {by - dy:.1f}" fill="none" stroke="{INK}" '
            f'stroke-width="1.4"/><polygon points="{tip}" fill="{INK}"/>')


def _edge(x: float, y: float, towards_x: float, towards_y: float, half: float) -> tuple[float, float]:
    """Where the way from the middle of a node to another place crosses the node's ellipse."""
    dx, dy = towards_x - x, towards_y - y
    part = 1 / math.hypot(dx / half, dy / HALF_HIGH)
    return x + part * dx, y + part * dy
