"""How gradient estimators compare: mean, variance and cost of each on the same draws.

What counts is variance x cost: an estimator of half the variance may take twice the time and be no better.

Means are along one direction u, which is 1 for a single parameter; for many it is the direction of the gradient itself,
as an earlier pilot run found it, so that a bias shows in the number that matters for a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tinyvae.lessons.gradient_estimates import Problem, Program, Row, Spread, costs, gather
from tinyvae.lessons.quadrature import Exact

NORMAL_95 = 1.959963984540054

Report = Callable[[int, int], Any]  # steps done, of how many


@dataclass(frozen=True)
class Line:
    """An estimator in one table. Variances are of one draw; a part of a sum has no z, no cost, and is never best."""

    row: Row
    mean: float
    stderr: float
    z: float | None  # (mean - exact) over the standard error of the difference
    variance: float
    interval: tuple[float, float]  # 95 %
    microseconds: float | None  # a draw, of a gradient by all parameters, replayed
    product: float | None  # variance x microseconds
    largest: float  # share of the largest estimate in the sum of squares
    exact_variance: float | None = None  # of a draw, by quadrature, where that is known


@dataclass(frozen=True)
class Table:
    """The estimators of the derivatives by one group of parameters."""

    parameter: str
    size: int  # how many numbers it is
    exact: Exact
    lines: list[Line]

    def best(self, by: str = "variance") -> Line:
        """The line with the least variance, or `product`; of equals the cheapest."""
        lines = [line for line in self.lines if not line.row.part]
        values = [getattr(line, by) for line in lines]
        limit = min(values) * (1 + 1e-6) + 1e-24 * max(values)
        return min((line for line in lines if getattr(line, by) <= limit), key=lambda line: line.microseconds or 0.0)

    def gains(self) -> list[str]:
        """What each idea divides the variance by, after those before it; a sentence, where f has several terms."""
        lines = {line.row: line for line in self.lines}
        whole, score = lines.get(Row("score", whole=True)), lines.get(Row("score"))
        if whole is None or score is None:
            return []
        based = min((line for line in self.lines if line.row.estimator == "score" and line.row.baseline != "none"),
                    key=lambda line: line.variance, default=score)
        best = self.best()
        rao, cut, rest = (before.variance / after.variance for before, after in
                          ((whole, score), (score, based), (based, best)))
        last = f", {best.row.name} by {rest:.3g} beyond that" if best is not based else ""
        return [f"by {self.parameter}, Rao-Blackwell divides the score's variance by {rao:.3g}, {based.row.baseline} "
                f"by {cut:.3g} more{last}."]


@dataclass(frozen=True)
class Comparison:
    """All that `compare` found."""

    title: str
    how_exact: str
    samples: int  # L
    draws: int  # of each estimator
    batches: int  # over whose variances the intervals are bootstrapped
    tables: list[Table]
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        tables = [asdict(table) | {
            "lines": [asdict(line) | {"row": line.row._asdict(), "name": line.row.name} for line in table.lines],
            "exact": table.exact._asdict(), "least_variance": table.best().row.name,
            "least_product": table.best("product").row.name} for table in self.tables]
        return asdict(self) | {"tables": tables}


def compare(problem: Problem, rows: Sequence[Row], samples: int, steps: int, seed: int = 0,
            exact: Mapping[str, Exact] | None = None, report: Report = lambda done, of: None) -> Comparison:
    """Run the rows on the same draws and hold them against the exact gradient, by table name.

    Without `exact` the reference is the estimator that a pilot run finds best, on twice as many draws of its own.
    """
    names, full = list(problem.parameters), [row for row in rows if not row.part]
    work, first = (steps, 0) if exact else (steps // 4 + 3 * steps, steps // 4)
    directions, how = {name: np.ones(1) for name in names}, "quadrature"
    if exact is None:
        pilot = gather(Program(problem, full, samples, seed, "pilot"), first, report=lambda done: report(done, work))
        best = {name: min(full, key=lambda row: pilot[row, name].trace) for name in names}
        directions = {name: _unit(pilot[best[name], name].total) for name in names}
        chosen = Program(problem, list(dict.fromkeys(best.values())), samples, seed, "reference")
        far = gather(chosen, 2 * steps, directions, lambda done: report(first + done, work))
        spreads = {name: far[best[name], name].spread() for name in names}
        exact = {name: Exact(spread.mean, NORMAL_95 * spread.stderr) for name, spread in spreads.items()}
        how = f"mean of {2 * steps * samples * problem.replicas:,} other draws, 95 %"
    tallies = gather(Program(problem, rows, samples, seed), steps, directions,
                     lambda done: report(work - steps + done, work))
    cost, width = costs(problem, full, samples, seed), 1.0 if how == "quadrature" else NORMAL_95
    tables = [Table(name, sum(tensor.size for tensor in problem.parameters[name]) // problem.replicas, exact[name],
                    [_line(row, tallies[row, name].spread(), exact[name], width, samples, cost.get(row))
                     for row in rows]) for name in names]
    batches = len(next(iter(tallies.values())).traces)
    return Comparison(problem.title, how, samples, steps * samples * problem.replicas, batches, tables)


def _unit(vector: np.ndarray) -> np.ndarray:
    size = float(np.linalg.norm(vector))
    return vector / size if size > 0 else np.full(len(vector), len(vector) ** -0.5)


def _line(row: Row, spread: Spread, exact: Exact, width: float, samples: int, cost: float | None) -> Line:
    stderr = math.hypot(spread.stderr, exact.error / width, 1e-15 * abs(exact.value))
    off = spread.mean - exact.value
    z = None if row.part else off / stderr if stderr > 0 else math.copysign(math.inf, off) if off else 0.0
    low, high = (samples * limit for limit in spread.interval)
    variance = samples * spread.variance
    return Line(row, spread.mean, spread.stderr, z, variance, (low, high), cost,
                None if cost is None else variance * cost, spread.largest)
