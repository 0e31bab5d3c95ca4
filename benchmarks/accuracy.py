"""The error that density, entropy and divergence of each family keep, in value and gradient, measured against mpmath.

Each family has a row in accuracy_exact.py: the ranges of its parameters, and its formulas with 60 digits. Parameters
are drawn evenly over their ranges, or over the logarithm of a range of positive numbers, and x from the family itself.
All are numbers that float32 holds exactly, so that the exact value belongs to these numbers. An error is given in
rounding units of the type, 2^-23 for float32 and 2^-52 for float64, of the condition of the problem

    max(1, |f| + sum over the inputs v of |v df/dv|),

which is how far a rounding of the inputs alone may move f. No formula can do better than about one unit. A gradient's
error is that of v df/dv, for each input v, in units of its own condition. The worst of all draws counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

from benchmarks import results, tables
from benchmarks.accuracy_exact import EXACT, Exact, Vectors
from tinyvae.distributions import FAMILIES, has_closed_kl, kl
from tinyvae.distributions.base import Distribution
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad

DIGITS = 60
STEP = mpmath.mpf(10) ** -15  # of the exact differences: their error is the square of it
TYPES = ("float32", "float64")
DRAWS = 100
Row = dict[str, Any]


def unmeasured() -> list[str]:
    """The registered families without a row in accuracy_exact.py."""
    return [name for name in FAMILIES if name not in EXACT]


def parameters(exact: Exact, rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Parameters over their ranges, each (count, length), of numbers that float32 holds."""
    found = []
    for low, high, length in exact.ranges:
        if low > 0:
            numbers = np.exp(rng.uniform(np.log(low), np.log(high), (count, length)))
        else:  # evenly, and near 0 too
            numbers = rng.uniform(low, high, (count, length)) * 10 ** rng.uniform(-4, 0, (count, 1))
        found.append(numbers.astype(np.float32).astype(np.float64))
    return found


def near(arrays: Sequence[np.ndarray], exact: Exact, rng: np.random.Generator) -> list[np.ndarray]:
    """Other parameters, as far from these as they are from each other, or close: down to 1e-6 of their size."""
    others = parameters(exact, rng, len(arrays[0]))
    share = 10 ** rng.uniform(-6, 0, (len(arrays[0]), 1))
    close = rng.random((len(arrays[0]), 1)) < 0.7
    return [np.where(close, a * (1 + share * rng.uniform(-0.5, 0.5, a.shape)), b).astype(np.float32).astype(np.float64)
            for a, b in zip(arrays, others, strict=True)]


def make(name: str, arrays: Sequence[Tensor]) -> Distribution:
    """The family of its parameters, (count, length) each."""
    return EXACT[name].make(*arrays) if EXACT[name].make else FAMILIES[name](*arrays)


def quantities(name: str) -> dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]]:
    """What a family offers, by name: as a function of tensors, and with many digits as one of vectors."""
    exact, count = EXACT[name], len(EXACT[name].ranges)
    found: dict[str, Any] = {"log_prob": (lambda *t: make(name, t[:-1]).log_prob(t[-1]), exact.log_prob)}
    if FAMILIES[name].entropy is not Distribution.entropy:
        found["entropy"] = (lambda *t: make(name, t).entropy(), exact.entropy)
    q = make(name, [Tensor(a) for a in parameters(exact, np.random.default_rng(0), 1)])
    if has_closed_kl(q, q):
        found["KL"] = (lambda *t: kl(make(name, t[:count]), make(name, t[count:])), exact.kl)
    return found


def inputs(name: str, quantity: str, draws: int, seed: int) -> tuple[list[np.ndarray], int]:
    """The arrays of a quantity, (draws, length) each, and how many of them have derivatives."""
    exact, rng = EXACT[name], np.random.default_rng(seed)
    arrays = parameters(exact, rng, draws)
    if quantity == "KL":
        return [*arrays, *near(arrays, exact, rng)], 2 * len(arrays)
    if quantity == "entropy":
        return arrays, len(arrays)
    q = make(name, [Tensor(a) for a in arrays])
    with np.errstate(all="ignore"):
        x = q.sample(Noise(seed)).numpy()[0].astype(np.float32).astype(np.float64)
    inside = np.isfinite(x).all(-1) & ((x > 1e-30).all(-1) if q.support in ("positive", "simplex") else True)
    inside &= ((x > 1e-30) & (x < 1)).all(-1) if q.support == "unit" else True  # the ends are limits, not numbers
    return [a[inside] for a in (*arrays, x)], len(arrays) + (q.path is not None)


def exact_terms(f: Callable[..., Any], vectors: Vectors, moving: int) -> tuple[Any, list[Any], Any, list[Any]]:
    """f, v df/dv of each number v, and the conditions of both, by differences with DIGITS digits."""
    places = [(i, j) for i in range(moving) for j in range(len(vectors[i]))]

    def at(*steps: tuple[tuple[int, int], int]) -> Any:
        moved = [list(v) for v in vectors]
        for (i, j), sign in steps:
            moved[i][j] = moved[i][j] * (1 + sign * STEP)
        return f(*moved)

    value = at()
    ahead, behind = ({p: at((p, sign)) for p in places} for sign in (1, -1))
    first = {p: (ahead[p] - behind[p]) / (2 * STEP) for p in places}
    second = {(p, p): (ahead[p] - 2 * value + behind[p]) / STEP**2 + first[p] for p in places}
    for p, r in itertools.combinations(places, 2):
        cross = at((p, 1), (r, 1)) - at((p, 1), (r, -1)) - at((p, -1), (r, 1)) + at((p, -1), (r, -1))
        second[p, r] = second[r, p] = cross / (4 * STEP**2)
    of_value = max(mpmath.mpf(1), abs(value) + sum(map(abs, first.values())))
    of_first = [max(mpmath.mpf(1), abs(first[p]) + sum(abs(second[p, r]) for r in places)) for p in places]
    return value, list(first.values()), of_value, of_first


def measure(name: str, quantity: str, draws: int, seed: int = 0) -> Row:
    """The largest errors of a quantity in rounding units of its condition, of value and gradient, in both types."""
    f, exact = quantities(name)[quantity]
    arrays, moving = inputs(name, quantity, draws, seed)
    with mpmath.workdps(DIGITS):
        terms = [exact_terms(exact, [[mpmath.mpf(float(v)) for v in a[i]] for a in arrays], moving)
                 for i in range(len(arrays[0]))]
        row: Row = {"family": name, "quantity": quantity, "draws": len(terms)}
        for kind in TYPES:
            leaves = [Tensor(a.astype(kind), requires_grad=i < moving) for i, a in enumerate(arrays)]
            with np.errstate(all="ignore"):
                value = f(*leaves)
                slopes = grad(value.sum(), leaves[:moving])
            by = np.concatenate([g.data.astype(np.float64) * a for g, a in zip(slopes, arrays, strict=False)], axis=-1)
            unit = float(np.finfo(kind).eps)
            errors = [abs(mpmath.mpf(float(v)) - t[0]) / t[2] for v, t in zip(value.data, terms, strict=True)]
            of_slopes = [abs(mpmath.mpf(float(g)) - e) / c for gs, t in zip(by, terms, strict=True)
                         for g, e, c in zip(gs, t[1], t[3], strict=True)]
            row |= {f"{kind}_value": worst(errors) / unit, f"{kind}_gradient": worst(of_slopes) / unit}
    return row


def worst(errors: Sequence[Any]) -> float:
    """The largest; infinite if one is not a number."""
    return max((float(e) if mpmath.isfinite(e) else float("inf") for e in errors), default=0.0)


COLUMNS: tables.Columns = {
    "family": lambda row: row["family"], "quantity": lambda row: row["quantity"],
    **{f"{kind}, {of}": lambda row, key=f"{kind}_{of}": f"{row[key]:.1f}" for kind in TYPES  # type: ignore[misc]
       for of in ("value", "gradient")},
}  # fmt: skip


def run(quick: bool, out: Path) -> None:
    """Measure and print all families; write accuracy.json."""
    if missing := unmeasured():
        raise SystemExit(f"{', '.join(missing)}: no row in benchmarks/accuracy_exact.py")
    rows = []
    for name in FAMILIES:
        for quantity in quantities(name):
            rows.append(measure(name, quantity, 5 if quick else DRAWS))
            print("  ".join(read(rows[-1]) for read in COLUMNS.values()), flush=True)
    print(f"written: {results.write('accuracy', out, rows, quick=quick)}")
