"""The chapter "Monte Carlo estimator": an expectation is estimated by a mean over draws, and how wrong that is.

    E_q[f(z)] ~ 1/L sum_l f(z_l),  z_l ~ q(z)                 draws of q itself
    E_q[f(z)] ~ 1/L sum_l f(g(eps_l)),  eps_l ~ p(eps)        the reparameterization trick

Both have the expectation E_q[f] and the standard error sd_q[f] / sqrt(L): a hundred times more draws make the error ten
times smaller. Here both are held against the exact value, which quadrature gives in one dimension.

"Draws of q itself" use nothing of q but its density: the distribution function is tabulated and inverted. If both
routes agree, g has the law of q.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.lessons.expectations import REACH, Function, Line, NotFinite, expectation
from tinyvae.lessons.expressions import Expression
from tinyvae.lessons.families import Member, Recipe

FIRST, FACTOR = 16, 4  # the smallest L, and from one L to the next
BLOCK = 2**21  # base variates drawn at once
MOST = 10**8  # draws
WIDEST = 2**25  # base variates of a mean: they are in memory at once
GRID = 60_001  # of the tabulated distribution function
NORMAL_95 = 1.959963984540054  # half of the width of a 95 % interval, in standard errors

Draw = Callable[[int], np.ndarray]  # so many draws of z


class Means(NamedTuple):
    """One L: what the first of all repetitions finds, and how wrong they all are. Pairs are (direct, g(eps))."""

    draws: int
    estimate: list[float]
    stderr: list[float]  # the sample's own, s / sqrt(L)
    rms: list[float]  # over the repetitions, of estimate - exact
    rms_stderr: list[float]  # of log rms
    expected: float  # sd_q[f] / sqrt(L)


class Slope(NamedTuple):
    """The straight line through log(rms) over log(L), least squares."""

    value: float
    stderr: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 %."""
        return self.value - NORMAL_95 * self.stderr, self.value + NORMAL_95 * self.stderr


class Study(NamedTuple):
    """What `study` finds."""

    q: Member
    recipe: Recipe
    f: Expression
    exact: float
    sd: float
    kurtosis: float
    repetitions: int
    rows: list[Means]
    slopes: list[Slope]
    difference: tuple[float, float]  # of the two routes' means over all draws of the largest L, and its standard error

    @property
    def rests_on_rare_draws(self) -> bool:
        """Is the mean of squared errors at the smallest L uncertain by more than a half? (It varies by
        (kurtosis / L + 2) / repetitions, relative and squared.)"""
        return not (self.kurtosis / FIRST + 2) / self.repetitions <= 0.25


def study(q: Member, recipe: Recipe, f: Expression, largest: int = 16384, repetitions: int = 100, seed: int = 0,
          report: Callable[[float], Any] = lambda share: None) -> Study:
    """Estimate E_q[f(z)] with L = 16, 64, ... `largest` draws, by both routes, `repetitions` times each.

    `report` receives the share of the work that is done.
    """
    variates = int(recipe.variates(*q.at.values()))
    for right, found, expected in (
        (largest >= FIRST * FACTOR, f"{largest} samples", f"{FIRST * FACTOR} or more"),
        (repetitions >= 10, f"{repetitions} repetitions", "10 or more"),
        (largest * repetitions <= MOST, f"{largest} samples in {repetitions} repetitions", f"{MOST:,} draws at most"),
        (largest * variates <= WIDEST, f"{largest} samples of {q}, each of {variates} variates",
         f"{WIDEST // variates} samples at most"),
    ):  # fmt: skip
        if not right:
            raise ValueError(f"found {found}; expected {expected}")
    exact, variance, kurtosis = moments(q, f)
    sampler, direct, eps = Sampler(q), Noise(seed, "direct"), Noise(seed, "eps")
    routes: tuple[tuple[Draw, int], ...] = (
        (lambda count: sampler(direct.uniform((count,), np.float64).data + 2.0**-33), 1),
        (lambda count: recipe.draw(q, eps, count).data, variates))  # fmt: skip
    ladder = [FIRST * FACTOR**n for n in range(int(math.log(largest / FIRST, FACTOR) + 1e-9) + 1)]
    rows, errors = [], np.zeros((2, 1))
    for draws in ladder:
        each = [means(draw, f, draws, repetitions, width) for draw, width in routes]
        errors = np.array([mean - exact for mean, _ in each])
        mse, spread = np.mean(errors**2, 1), np.var(errors**2, 1, ddof=1)
        estimate, stderr = np.array(each)[:, :, 0].T  # of the first repetition
        rows.append(Means(draws, estimate.tolist(), stderr.tolist(), np.sqrt(mse).tolist(),
                          (np.sqrt(spread / repetitions) / (2 * mse)).tolist(), math.sqrt(variance / draws)))
        report(draws / ladder[-1])
    gap = float(errors[0].mean() - errors[1].mean())
    gap_stderr = math.sqrt(float(np.var(errors, 1, ddof=1).sum()) / repetitions)
    slopes = [fit(ladder, [row.rms[i] for row in rows], [row.rms_stderr[i] for row in rows]) for i in (0, 1)]
    return Study(q, recipe, f, exact, math.sqrt(variance), kurtosis, repetitions, rows, slopes, (gap, gap_stderr))


def moments(q: Member, f: Expression) -> tuple[float, float, float]:
    """The expectation of f, its variance, and its kurtosis, which may be infinite."""
    exact = expectation(q, f).value
    try:
        variance = expectation(q, f, exact, 2).value
    except NotFinite:
        raise NotFinite(f"f(z) = {f} has the expectation {exact:.6g} under {q}, but an infinite variance, so errors do "
                        "not fall as 1/sqrt(L); choose an f that grows more slowly, such as 1/(1+z**2)") from None
    if not variance > 1e-24 * exact**2:
        raise ValueError(f"f(z) = {f} is {exact:g} under {q} with no variance, so there is nothing to estimate; choose "
                         "an f that varies")
    try:
        return exact, variance, expectation(q, f, exact, 4).value / variance**2
    except NotFinite:
        return exact, variance, math.inf


class Sampler:
    """Draws of q by its density alone: z = F^-1(u), F tabulated along the line and interpolated."""

    def __init__(self, q: Member) -> None:
        self.line, t = Line(q), np.linspace(-REACH, REACH, GRID)
        mass = self.line.mass(t)
        bulk = np.flatnonzero(mass > 1e-18 * mass.max())
        self.t = np.linspace(t[max(0, bulk[0] - 1)], t[min(GRID - 1, bulk[-1] + 1)], GRID)
        z, mass = self.line.z(self.t[[0, -1]]).data, self.line.mass(self.t)
        F = np.concatenate([[0.0], np.cumsum((mass[1:] + mass[:-1]) / 2)])
        self.F, self.rising = F / F[-1], z[0] < z[1]

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return self.line.z(np.interp(u if self.rising else 1 - u, self.F, self.t)).data


def means(draw: Draw, f: Function, draws: int, repetitions: int, variates: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """1/L sum_l f(z_l) of each repetition, (repetitions,), and its standard error s / sqrt(L)."""
    together = min(repetitions, max(1, BLOCK // (draws * variates)))
    found = []
    for begin in range(0, repetitions, together):
        count = min(together, repetitions - begin)
        values = f(Tensor(draw(count * draws))).data.reshape(count, draws)
        found.append((values.mean(1), values.std(1, ddof=1) / math.sqrt(draws)))
    mean, stderr = zip(*found, strict=True)
    return np.concatenate(mean), np.concatenate(stderr)


def fit(ladder: list[int], rms: list[float], stderr: list[float]) -> Slope:
    """Least squares of log rms over log L; each log rms has the standard error given."""
    x, y = np.log(ladder), np.log(rms)
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # the slope is a weighted sum of the y
    return Slope(float(weight @ y), float(np.sqrt(weight**2 @ np.square(stderr))))
