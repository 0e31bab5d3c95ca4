"""How gradient estimators compare: mean, variance and cost of each on the same draws.

What counts is variance x cost: an estimator of half the variance may take twice the time and be no better.

Means are along one direction u, which is 1 for a single parameter; for many it is the direction of the gradient itself,
as an earlier pilot run found it, so that a bias shows in the number that matters for a step.

In one dimension the variances of the score function and of G-REP are known, too. Each makes of a draw z one number
g(z), so its variance is an integral,

    Var[g] = int (g(z(w)) - E[g])^2 q(w) dw,

summed here over nodes that stand in the place of draws, a Gauss rule on each of many panels, which end where f has an
edge. A coarser sum over a shorter line says what may be wrong with it. Leave-one-out joins L draws: the mean of
(f_l - mean of the others) h_l, with h the score, is the sample covariance of f and h, whose variance is known:

    L Var = E[(f - E f)^2 h^2] - Cov(f, h)^2 + (Var f Var h + Cov(f, h)^2) / (L - 1).

A path may hold more than z does (Beta's, which goes through two Gamma draws), so its variance is that of draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tinyvae.inference.estimators import choices
from tinyvae.lessons.estimates import Choice, Estimates, Problem, Report, Spread, costs, gather, variants
from tinyvae.lessons.expectations import Exact, Line, derivative, expectation, gauss, scan
from tinyvae.lessons.expressions import Expression, parse
from tinyvae.lessons.families import Member
from tinyvae.lessons.montecarlo import NORMAL_95
from tinyvae.lessons.problems import OneLatent

TOGETHER, LEAST, FEWEST = 8192, 20, 16  # draws in one step, so that time goes into arithmetic; steps; replicas
MOST = 10**8  # draws
JUMPS = "f jumps, and a gradient through z does not see a jump"
REACH, SHORTER, PANEL = 16.0, 14.0, 20  # t in w = centre + scale sinh t: a tail exp(1e-4 w) has 400 nats; nodes a panel
ACCURATE = 1e-4  # relative error of a variance that may be called exact
ROUNDING = 1e-24  # a variance is nothing beside so much of the squares it is made of
VALUES, NODES, FINE = 25, 1201, 20001  # of a swept parameter; at each of them; for a single member
SPREAD, STEPS = 1280, 60  # replicas of each value, and steps, where draws are needed
TRUSTED = 0.1  # share of the largest estimate in a sum of squares, above which a sample variance is no measurement


class Entry(NamedTuple):
    """An estimator in one table. Variances are of one draw; a part of a sum has no z, no cost, and is never best."""

    name: str
    row: Choice
    mean: float
    stderr: float
    z: float | None  # (mean - exact) over the standard error of the difference
    variance: float
    interval: tuple[float, float]  # 95 %
    microseconds: float | None  # a draw, of a gradient by all parameters, replayed
    product: float | None  # variance x microseconds
    largest: float  # share of the largest estimate in the sum of squares
    exact_variance: float | None = None  # of a draw, by quadrature, where that is known


class Table(NamedTuple):
    """The estimators of the derivatives by one group of parameters."""

    parameter: str
    size: int  # how many numbers it is
    exact: Exact
    lines: list[Entry]
    least_variance: str  # the name of the best estimator
    least_product: str


class Comparison(NamedTuple):
    """What `compare` finds."""

    title: str
    how_exact: str
    samples: int  # L
    draws: int  # of each estimator
    batches: int  # over whose variances the intervals are bootstrapped
    tables: list[Table]
    notes: list[str]  # what was left out, and why


def estimators_for(problem: Problem, asked: Sequence[str] = ()) -> list[str]:
    """The estimators for a problem, or those asked for; the score alone where f jumps. ValueError for a wrong one."""
    known = choices(type(next(iter(problem.factors().values()))[0]))
    for name in asked:
        if name not in known:
            raise ValueError(f"found estimator {name!r}; {problem.name} has {', '.join(known)}")
        if name != "score" and not problem.smooth:
            raise ValueError(f"found estimator {name!r} with {problem.title}: {JUMPS}; use score")
    return [name for name in known if (not asked or name in asked) and (problem.smooth or name == "score")]


def sizes(problem: Problem, samples: int, draws: int | None, estimates: int) -> int:
    """How many draws: those asked for, or the usual number; ValueError if they make fewer than so many estimates."""
    if not 1 <= samples <= 4096:
        raise ValueError(f"found {samples} samples; expected 1 to 4096 draws an estimate")
    least = estimates * samples
    draws = max(problem.usual, least) if draws is None else draws
    if not least <= draws <= MOST:
        raise ValueError(f"found {draws:,} draws; expected {least:,} to {MOST:,}, {samples} an estimate")
    return draws


def compare(problem: Problem, rows: Sequence[Choice], samples: int, steps: int, seed: int = 0,
            exact: Mapping[str, Exact] | None = None, report: Report = lambda share: None,
            variances: Mapping[tuple[str, Choice], float] | None = None, notes: Sequence[str] = ()) -> Comparison:
    """Run the choices on the same draws and hold them against the exact gradient, by table name.

    Without `exact` the reference is the estimator that a pilot run finds best, on twice as many draws of its own.
    """
    names, full = list(problem.parameters), [row for row in rows if not row.part]
    directions, how, work = None, "quadrature", 1.0  # the share of the work that is the comparison itself
    if exact is None:
        work = 1 / 3.25
        pilot = gather(Estimates(problem, full, samples, seed, "pilot"), steps // 4,
                       report=lambda share: report(share * 0.25 * work))
        best = {name: min(full, key=lambda row: pilot[row, name].variance) for name in names}
        directions = {name: _unit(pilot[best[name], name].gradient) for name in names}
        chosen = Estimates(problem, list(dict.fromkeys(best.values())), samples, seed, "reference")
        far = gather(chosen, 2 * steps, directions, lambda share: report((0.25 + 2 * share) * work))
        exact = {name: Exact(far[best[name], name].mean, NORMAL_95 * far[best[name], name].stderr) for name in names}
        how = f"mean of {2 * steps * samples * problem.replicas:,} other draws, 95 %"
    spreads = gather(Estimates(problem, rows, samples, seed), steps, directions,
                     lambda share: report(1 - work + share * work))
    cost, width, tables = costs(problem, full, samples, seed), 1.0 if how == "quadrature" else NORMAL_95, []
    for name in names:
        lines = [_entry(row, spreads[row, name], exact[name], width, samples, cost.get(row),
                        (variances or {}).get((name, row))) for row in rows]
        tables.append(Table(name, problem.size(name), exact[name], lines, _least(lines, "variance"),
                            _least(lines, "product")))
    batches = len(next(iter(spreads.values())).variances)
    return Comparison(problem.title, how, samples, steps * samples * problem.replicas, batches, tables, list(notes))


def _unit(vector: np.ndarray) -> np.ndarray:
    size = float(np.linalg.norm(vector))
    return vector / size if size > 0 else np.full(len(vector), len(vector) ** -0.5)


def _least(lines: list[Entry], what: str) -> str:
    """The estimator with the least variance, or product; of equals the cheapest."""
    values = {line: getattr(line, what) for line in lines if not line.row.part}
    limit = min(values.values()) * (1 + 1e-6) + ROUNDING * max(values.values())
    return min((line for line in values if values[line] <= limit), key=lambda line: line.microseconds or 0.0).name


def _entry(row: Choice, spread: Spread, exact: Exact, width: float, samples: int, cost: float | None,
           exact_variance: float | None) -> Entry:
    stderr = math.hypot(spread.stderr, exact.error / width, 1e-15 * abs(exact.value))
    off = spread.mean - exact.value
    z = None if row.part else off / stderr if stderr > 0 else math.copysign(math.inf, off) if off else 0.0
    low, high = (samples * limit for limit in spread.interval)
    variance = samples * spread.variance
    known = exact_variance is not None and math.isfinite(exact_variance)
    return Entry(row.name, row, spread.mean, spread.stderr, z, variance, (low, high), cost,
                 None if cost is None else variance * cost, spread.largest, exact_variance if known else None)


def of_problem(problem: Problem, asked: Sequence[str] = (), samples: int = 8, draws: int | None = None, seed: int = 0,
               report: Report = lambda share: None) -> Comparison:
    """Compare the estimators of a problem of many latents."""
    known = estimators_for(problem, asked)
    draws = sizes(problem, samples, draws, 40 * problem.replicas)
    if not asked and "reparam" in known:  # which is what G-REP of a normal q is
        known.remove("grep")
    return compare(problem, variants(known, samples, problem.latents), samples, draws // (samples * problem.replicas),
                   seed, report=report)


# ---- one dimension ---------------------------------------------------------------------------------------------------


def of_expectation(q: Member, f: Expression, asked: Sequence[str] = (), samples: int = 8, draws: int | None = None,
                   seed: int = 0, report: Report = lambda share: None) -> Comparison:
    """Compare the estimators of d/dv E_q[f(z)]; each gets about so many draws, `samples` an estimate."""
    problem = OneLatent(q, f, 1)
    draws = sizes(problem, samples, draws, LEAST * FEWEST)
    estimators = estimators_for(problem, asked)
    expectation(q, f, order=2)  # without it there are no variances
    exact = {name: derivative(q, f, name) for name in q.at}
    notes = ["f is one term with one latent, so Rao-Blackwell has nothing to leave out."]
    if not f.differentiable:
        left = [name for name in choices(type(q.distribution)) if name != "score"]
        notes.append(f"{JUMPS}: {' and '.join(left)} would be wrong, and are left out.")
    if samples == 1:
        notes.append("Leave-one-out and fitted need other draws, and are left out with one sample.")
    rows = variants(estimators, samples)
    replicas = max(FEWEST, min(TOGETHER // samples, draws // (LEAST * samples)))
    return compare(OneLatent(q, f, replicas), rows, samples, draws // (replicas * samples), seed, exact, report,
                   exact_variances(q, f, rows, samples, FINE), notes)


class Nodes:
    """The nodes that stand in the place of draws: their weights, f, and what each would give as a draw."""

    def __init__(self, q: Member, f: Expression, count: int, reach: float = REACH) -> None:
        line = Line(q)
        inner = [0.0, *line.edges(f, scan(reach, 2001))[:100]]  # at t = 0 Laplace has a kink
        cuts = np.sort([*np.linspace(-reach, reach, count // PANEL + 1), *inner])
        t, weights = (part.ravel() for part in gauss(cuts[:-1], cuts[1:]))
        self.q, self.weights, self.w = q, line.mass(t) * weights, line.w(t)
        self.f = f(q.z(self.w)).data

    def gradients(self, rows: Sequence[Choice], f: Expression) -> dict[tuple[str, Choice], np.ndarray]:
        """g(z) by the derivative's parameter and the choice."""
        z = self.q.z(self.w.reshape(1, -1, 1))
        found = Estimates(OneLatent(self.q, f, self.w.size), rows, 1, draws={"z": z})
        return {(by, row): found.by(row, by)[:, 0] for by in self.q.at for row in rows}

    def mean(self, g: np.ndarray) -> float:
        """E[g]."""
        return float(np.where(self.weights > 0, g * self.weights, 0.0).sum())

    def variance(self, g: np.ndarray) -> float:
        return self.mean((g - self.mean(g)) ** 2)


def exact_variances(q: Member, f: Expression, rows: Sequence[Choice], samples: int,
                    count: int) -> dict[tuple[str, Choice], float]:
    """The variance of a draw by the derivative's parameter and the choice, where it can be had by so many nodes.

    NaN where it is not known to ACCURATE; 0 where it is rounding.
    """
    with np.errstate(all="ignore"):  # f may be infinite
        fine, coarse = (_variances(Nodes(q, f, n, reach), f, rows, samples)
                        for n, reach in ((count, REACH), (2 * count // 3, SHORTER)))
    return {key: 0.0 if value <= rounding else value if abs(value - coarse[key][0]) <= ACCURATE * value + rounding
            else math.nan for key, (value, rounding) in fine.items()}


def _variances(nodes: Nodes, f: Expression, rows: Sequence[Choice],
               samples: int) -> dict[tuple[str, Choice], tuple[float, float]]:
    """Of each choice its variance, and what of that may be rounding."""
    plain, joined, found = Choice("score"), Choice("score", "leave-one-out"), {}
    scores = {by: h for (by, _), h in nodes.gradients([plain], parse("1")).items()}
    squares = {by: nodes.mean((nodes.f * h) ** 2) for by, h in scores.items()}
    alone = [row for row in rows if row.estimator in ("score", "grep") and row.baseline == "none"]
    for (by, row), g in nodes.gradients(alone, f).items():
        found[by, row] = nodes.variance(g), ROUNDING * (nodes.mean(g**2) + squares[by])
    for by, h in scores.items() if joined in rows and samples > 1 else ():
        off = nodes.f - nodes.mean(nodes.f)
        covariance = nodes.mean(off * h) ** 2
        rest = (nodes.variance(nodes.f) * nodes.variance(h) + covariance) / (samples - 1) - covariance
        found[by, joined] = nodes.mean((off * h) ** 2) + rest, ROUNDING * squares[by]
    return found


# ---- over a parameter of q -------------------------------------------------------------------------------------------


class Sweep(NamedTuple):
    """Variances of a draw over one parameter of q; NaN where there is none, or draws do not tell."""

    q: Member
    text: str  # of f
    parameter: str
    values: np.ndarray
    samples: int  # L, of which leave-one-out depends
    curves: dict[tuple[str, Choice], np.ndarray]  # (values,), by the derivative's parameter and the choice


def sweep(q: Member, f: Expression, asked: Sequence[str] = (), samples: int = 8, seed: int = 0,
          report: Report = lambda share: None) -> Sweep:
    """The variance of the main estimators as one parameter of q goes through its range, all values at once."""
    if q.family.swept is None:
        raise ValueError(f"found a sweep of {q.family}, which names no parameter to sweep; take another family")
    name, low, high = q.family.swept
    values = np.geomspace(min(low, q.at[name]), max(high, q.at[name]), VALUES)
    rows = [Choice(estimator) for estimator in reversed(estimators_for(OneLatent(q, f, 1), asked))]
    if samples > 1 and rows[0].estimator == "score":
        rows.insert(1, Choice("score", "leave-one-out"))
    exact = [exact_variances(q.with_(name, value), f, rows, samples, NODES) for value in values]
    found = {key: np.array([each[key] for each in exact]) for key in exact[0]}
    drawn = [row for row in rows if row.estimator not in ("score", "grep")]
    found |= _sampled(q, f, name, values, drawn, seed, report) if drawn else {}
    return Sweep(q, str(f), name, values, samples, {(by, row): found[by, row] for by in q.at for row in rows})


def _sampled(q: Member, f: Expression, name: str, values: np.ndarray, rows: Sequence[Choice], seed: int,
             report: Report) -> dict[tuple[str, Choice], np.ndarray]:
    """Sample variances; what is a draw's own does not depend on how many are joined, so one is."""
    problem = OneLatent(q, f, len(values) * SPREAD, {name: values.repeat(SPREAD)})
    found, keys = Estimates(problem, rows, 1, seed, "sweep"), [(by, row) for by in q.at for row in rows]
    mean, variance, worst = np.zeros((3, len(keys), len(values)))
    for step in range(STEPS):
        found.step()
        with np.errstate(all="ignore"):
            for i, (by, row) in enumerate(keys):
                g = found.by(row, by).reshape(len(values), SPREAD)
                centre, each = g.mean(1, keepdims=True), g.var(1, ddof=1)
                mean[i] += centre[:, 0] / STEPS
                variance[i] += each / STEPS
                worst[i] = np.maximum(worst[i], ((g - centre) ** 2).max(1))
        report((step + 1) / STEPS)
    trusted = np.isfinite(variance) & (worst <= TRUSTED * variance * STEPS * SPREAD)
    with np.errstate(all="ignore"):
        curves = np.where(variance <= ROUNDING * mean**2, 0.0, np.where(trusted, variance, np.nan))
    return dict(zip(keys, curves, strict=True))
