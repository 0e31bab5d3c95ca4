"""The estimators of d/dv E_q[f(z)] in one dimension: their table, their exact variances, and a sweep over q.

The score function and G-REP make of a draw z one number g(z), so the variance of it is an integral,

    Var[g] = int (g(z(w)) - E[g])^2 q(w) dw,

summed here over nodes that stand in the place of draws, a Gauss rule on each of many panels, which end where f has an
edge. A coarser sum over a shorter line says what may be wrong with it.

Leave-one-out joins L draws: the mean of (f_l - mean of the others) h_l, with h the score, is the sample covariance of f
and h, whose variance is known:

    L Var = E[(f - E f)^2 h^2] - Cov(f, h)^2 + (Var f Var h + Cov(f, h)^2) / (L - 1).

A path may hold more than z does (Beta's, which goes through two Gamma draws), so its variance is that of draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyvae.engine.tensor import Tensor
from tinyvae.inference.estimators import choices
from tinyvae.lessons.expressions import Expression, parse
from tinyvae.lessons.gradient_estimates import Program, Row, Tally, rows_for
from tinyvae.lessons.quadrature import Member, _crossings, derivative, expectation
from tinyvae.lessons.variance import Comparison, Report, compare
from tinyvae.lessons.variance_problems import OneLatent

TOGETHER, LEAST, FEWEST = 8192, 20, 16  # draws in one step, so that time goes into arithmetic; steps; replicas
MOST = 10**8  # draws
JUMPS = "f jumps, and a gradient through z does not see a jump"
REACH, SHORTER, PANEL = 16.0, 14.0, 20  # t in w = centre + scale sinh t: a tail exp(1e-4 w) has 400 nats; nodes a panel
ACCURATE = 1e-4  # relative error of a variance that may be called exact
ROUNDING = 1e-24  # a variance is nothing beside so much of the squares it is made of
VALUES, NODES, FINE = 25, 1201, 20001  # of a swept parameter; at each of them; for a single member
SPREAD, STEPS = 1280, 60  # replicas of each value, and steps, where draws are needed
ALIKE = 1.1  # ratio of variances that draws do not tell apart
TRUSTED = 0.1  # share of the largest estimate in a sum of squares, above which a sample variance is no measurement


def estimators_for(q: Member, f: Expression, asked: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The estimators that q and f have, or those asked for; and notes on what is left out.

    ValueError for one that q does not have, or that would be wrong.
    """
    family = type(OneLatent(q, f, 2).factors()["z"][0])
    known = choices(family)
    for name in asked:
        if name not in known:
            raise ValueError(f"found estimator {name!r}; {q.family.name} has {', '.join(known)}")
        if name != "score" and not f.differentiable:
            raise ValueError(f"found estimator {name!r} with f = {f}: {JUMPS}; use score")
    wanted = [name for name in known if not asked or name in asked]
    if f.differentiable:
        return wanted, []
    return ["score"], [f"{JUMPS}: {' and '.join(name for name in known if name != 'score')} would "
                       "be wrong, and are left out."]


def of_expectation(q: Member, f: Expression, asked: Sequence[str] = (), samples: int = 8,
                   draws: int | None = None, seed: int = 0, report: Report = lambda done, of: None) -> Comparison:
    """Compare the estimators of d/dv E_q[f(z)]; each gets about so many draws, `samples` an estimate."""
    draws = check_sizes(samples, draws, 10**6, LEAST * FEWEST)
    estimators, notes = estimators_for(q, f, asked)
    expectation(q, Square(f), f"({f})**2")  # without it there are no variances
    exact = {name: derivative(q, f, name, str(f)) for name in q.at}
    notes.append("Rao-Blackwell: f is one term with one latent, so there is nothing to leave out.")
    if samples == 1:
        notes.append("Leave-one-out and fitted need other draws, and are left out with one sample.")
    replicas = max(FEWEST, min(TOGETHER // samples, draws // (LEAST * samples)))
    steps = draws // (replicas * samples)
    found = compare(OneLatent(q, f, replicas), rows_for(estimators, samples), samples, steps, seed, exact, report)
    found.notes.extend(notes)
    known = exact_variances([q], f, [line.row for line in found.tables[0].lines], samples, FINE)
    return replace(found, tables=[replace(table, lines=[
        replace(line, exact_variance=_finite(known.get((table.parameter, line.row)))) for line in table.lines])
        for table in found.tables])


def _finite(values: np.ndarray | None) -> float | None:
    return None if values is None or not math.isfinite(values[0]) else float(values[0])


def check_sizes(samples: int, draws: int | None, usual: int, estimates: int) -> int:
    """How many draws: those asked for, or the usual number; ValueError if they make fewer than so many estimates."""
    if not 1 <= samples <= 4096:
        raise ValueError(f"found {samples} samples; expected 1 to 4096 draws an estimate")
    least = estimates * samples
    draws = max(usual, least) if draws is None else draws
    if not least <= draws <= MOST:
        raise ValueError(f"found {draws:,} draws; expected {least:,} to {MOST:,}, {samples} an estimate")
    return draws


class Square:
    """f(z)^2."""

    def __init__(self, f: Expression) -> None:
        self.f, self.edges = f, f.edges

    def __call__(self, z: Tensor) -> Tensor:
        value = self.f(z)
        return value * value


# ---- variances by quadrature -----------------------------------------------------------------------------------------


class Unchecked(OneLatent):
    """The same at parameters for which f may be infinite."""

    def check(self) -> None:
        pass


class Nodes:
    """f, and what each node would give as a draw, for members of one family; arrays are (members, nodes)."""

    def __init__(self, members: Sequence[Member], f: Expression, count: int, reach: float = REACH) -> None:
        scan, panels = np.linspace(-reach, reach, 2001) + 1e-3 / math.pi, np.linspace(-reach, reach, count // PANEL + 1)
        ends = [sorted([*panels, 0.0, *[s for edge in f.edges for s in _crossings(edge, q, scan)][:100]])
                for q in members]  # at 0 Laplace has a kink
        most = max(map(len, ends))
        x, rule = np.polynomial.legendre.leggauss(PANEL)
        w, weights = [], []
        for q, end in zip(members, ends, strict=True):
            centre, scale = q.family.middle(*q.at.values())
            half = np.diff([*end, *[end[-1]] * (most - len(end))])[:, None] / 2  # those of no width make lengths equal
            t = (np.array([*end[:-1], *[end[-1]] * (most - len(end))])[:, None] + half * (1 + x)).ravel()
            w.append(centre + scale * np.sinh(t))
            weights.append(q.density(w[-1]) * scale * np.cosh(t) * (half * rule).ravel())
        self.members, self.f, self.weights, self.w = members, f, np.stack(weights), np.stack(w)
        self.values = f(members[0].family.from_stable(Tensor(self.w))).data

    def gradients(self, rows: Sequence[Row], f: Expression | None = None) -> dict[tuple[str, Row], np.ndarray]:
        """g(z) by the derivative's parameter and the row."""
        at = {name: np.repeat([q.at[name] for q in self.members], self.w.shape[1]) for name in self.members[0].at}
        problem = Unchecked(self.members[0], f or self.f, self.w.size, at)
        draws = {"z": self.members[0].family.from_stable(Tensor(self.w.reshape(1, -1, 1)))}
        program = Program(problem, rows, 1, draws=draws)
        return {(by, row): program.estimates(row, by).reshape(self.w.shape) for by in at for row in rows}

    def mean(self, g: np.ndarray) -> np.ndarray:
        """E[g] of each member, (members, 1)."""
        return np.where(self.weights > 0, g * self.weights, 0.0).sum(1, keepdims=True)

    def variance(self, g: np.ndarray) -> np.ndarray:
        return self.mean((g - self.mean(g)) ** 2)


@np.errstate(all="ignore")  # for some members f may be infinite
def exact_variances(members: Sequence[Member], f: Expression, rows: Sequence[Row], samples: int,
                    count: int) -> dict[tuple[str, Row], np.ndarray]:
    """The variance of a draw, (members,), by the derivative's parameter and the row; rows without one are left out.

    NaN where it is not known to ACCURATE; 0 where it is rounding.
    """
    found, coarse = (_variances(Nodes(members, f, n, reach), rows, samples)
                     for n, reach in ((count, REACH), (2 * count // 3, SHORTER)))
    return {key: np.where(value <= least, 0.0, np.where(abs(value - coarse[key][0]) <= ACCURATE * value + least, value,
                                                        np.nan)) for key, (value, least) in found.items()}


def _variances(nodes: Nodes, rows: Sequence[Row], samples: int) -> dict[tuple[str, Row], tuple[np.ndarray, np.ndarray]]:
    """Of each row its variances, and what of them may be rounding."""
    joined, found = Row("score", "leave-one-out"), {}
    alone = [row for row in rows if row.estimator in ("score", "grep") and row.baseline == "none"]
    scores = nodes.gradients([Row("score")], parse("1"))
    for (by, row), g in (nodes.gradients(alone) if alone else {}).items():
        terms = nodes.mean(g**2) + nodes.mean((nodes.values * scores[by, Row("score")]) ** 2)
        found[by, row] = nodes.variance(g)[:, 0], ROUNDING * terms[:, 0]
    if joined in rows and samples > 1:
        off, f_variance = nodes.values - nodes.mean(nodes.values), nodes.variance(nodes.values)
        for (by, _), h in scores.items():
            covariance = nodes.mean(off * h)
            rest = (f_variance * nodes.variance(h) + covariance**2) / (samples - 1) - covariance**2
            terms = nodes.mean((nodes.values * h) ** 2)
            found[by, joined] = (nodes.mean((off * h) ** 2) + rest)[:, 0], ROUNDING * terms[:, 0]
    return found


# ---- over a parameter of q -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sweep:
    """Variances of a draw over one parameter of q; NaN where there is none, or draws do not tell."""

    q: Member
    text: str  # of f
    parameter: str
    values: np.ndarray
    samples: int  # L, of which leave-one-out depends
    curves: dict[tuple[str, Row], np.ndarray]  # (values,), by the derivative's parameter and the row

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"parameter": self.parameter, "values": self.values.tolist(), "samples": self.samples, "curves": [
            {"derivative": by, "row": row._asdict(), "variance": curve.tolist()}
            for (by, row), curve in self.curves.items()]}

    def words(self) -> list[str]:
        """Where each estimator has the least variance, as sentences, one for each derivative."""
        lines = [f"Over {self.parameter} from {self.values[0]:.3g} to {self.values[-1]:.3g}, the others held, of the "
                 "estimators in the picture:"]
        for by in self.q.at:
            curves = {row: curve for (of, row), curve in self.curves.items() if of == by}
            stack = np.array(list(curves.values()))
            known = np.isfinite(stack).all(0)
            if len(curves) < 2 or not known.any():
                continue
            x, stack = self.values[known], stack[:, known]
            near = stack <= ALIKE * stack.min(0)
            winners = [" or ".join(row.name for row, is_near in zip(curves, column, strict=True) if is_near)
                       for column in near.T]
            for i in range(1, len(winners) - 1):  # a single value that differs is chance
                winners[i] = winners[i - 1] if winners[i - 1] == winners[i + 1] else winners[i]
            text = f"by {by}, least variance: " + ", ".join(
                f"{name} {_reach(x, begin, end)}" for name, begin, end in _stretches(winners))
            if (by, Row("score")) in self.curves and (by, Row("grep")) in self.curves:
                with np.errstate(all="ignore"):
                    text += "; " + _duel(self.values, curves[Row("grep")] / curves[Row("score")])
            lines.append(f"{text}.")
        return lines if len(lines) > 1 else []


def _stretches(items: list[str]) -> Iterator[tuple[str, int, int]]:
    """Runs of equal items: the item, the first place and the last."""
    begin = 0
    for place in range(1, len(items) + 1):
        if place == len(items) or items[place] != items[begin]:
            yield items[begin], begin, place - 1
            begin = place


def _reach(x: np.ndarray, begin: int, end: int) -> str:
    if begin == 0 and end == len(x) - 1:
        return "everywhere"
    if begin == 0:
        return f"up to {x[end]:.2g}"
    return f"from {x[begin]:.2g}" + (f" to {x[end]:.2g}" if end < len(x) - 1 else "")


def _duel(x: np.ndarray, ratio: np.ndarray) -> str:
    """G-REP over the plain score: where the ratio crosses 1, by interpolation in logarithms."""
    t, r = np.log(x[known := np.isfinite(ratio)]), np.log(np.maximum(ratio[known], 1e-30))  # G-REP's may be 0
    if not len(r):
        return "G-REP and the plain score are not both known"
    first, last = ("below" if end < 0 else "above" for end in (r[0], r[-1]))
    crossed = np.flatnonzero(r[1:] * r[:-1] < 0)
    if not len(crossed):
        return f"G-REP is {first} the plain score throughout"
    at = [math.exp(t[i] + (t[i + 1] - t[i]) * r[i] / (r[i] - r[i + 1])) for i in crossed]
    if len(at) == 1:
        return f"G-REP is {first} the plain score up to {at[0]:.2g}, {last} it beyond"
    return f"G-REP is {first} the plain score up to {at[0]:.2g}, {last} it from {at[-1]:.2g}, and changes in between"


def sweep(q: Member, f: Expression, asked: Sequence[str] = (), samples: int = 8, seed: int = 0,
          report: Report = lambda done, of: None) -> Sweep:
    """The variance of the main estimators as one parameter of q goes through its range, all values at once."""
    name, low, high = q.family.swept
    values = np.geomspace(min(low, q.at[name]), max(high, q.at[name]), VALUES)
    rows = [Row(estimator) for estimator in reversed(estimators_for(q, f, asked)[0])]
    if samples > 1 and rows[0].estimator == "score":
        rows.insert(1, Row("score", "leave-one-out"))
    exact = exact_variances([q.with_(name, value) for value in values], f, rows, samples, NODES)
    drawn = [row for row in rows if row.estimator not in ("score", "grep")]
    sampled = _sampled(q, f, name, values, drawn, seed, report) if drawn else {}
    curves = {(by, row): exact[by, row] if (by, row) in exact else sampled[by, row] for by in q.at for row in rows}
    return Sweep(q, str(f), name, values, samples, curves)


def _sampled(q: Member, f: Expression, name: str, values: np.ndarray, rows: Sequence[Row], seed: int,
             report: Report) -> dict[tuple[str, Row], np.ndarray]:
    """Sample variances; what is a draw's own does not depend on how many are joined, so one is."""
    program = Program(Unchecked(q, f, len(values) * SPREAD, {name: values.repeat(SPREAD)}), rows, 1, seed, "sweep")
    tallies = {(by, row): [Tally() for _ in values] for by in q.at for row in rows}
    for step in range(STEPS):
        program.step()
        with np.errstate(all="ignore"):
            for (by, row), each in tallies.items():
                parts = program.estimates(row, by).reshape(len(values), -1, 1)
                for tally, part in zip(each, parts, strict=True):
                    tally.add(part)
        report(step + 1, STEPS)
    return {key: np.array([_trusted(tally) for tally in each]) for key, each in tallies.items()}


def _trusted(tally: Tally) -> float:
    if tally.trace <= ROUNDING * float((tally.total**2).sum()) / len(tally.traces) ** 2:
        return 0.0
    trusted = math.isfinite(tally.trace) and tally.largest <= TRUSTED * tally.trace * tally.count
    return tally.trace if trusted else math.nan
