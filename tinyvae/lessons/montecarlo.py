"""The chapter "Monte Carlo estimator": an expectation is estimated by a mean over draws, and how wrong that is.

    E_q[f(z)] ~ 1/L sum_l f(z_l),  z_l ~ q(z)                 draws of q itself
    E_q[f(z)] ~ 1/L sum_l f(g(eps_l)),  eps_l ~ p(eps)        the reparameterization trick

Both have the expectation E_q[f] and the standard error sd_q[f] / sqrt(L): ten times more accurate by a hundred times
more draws. Here both are held against the exact value, which quadrature gives in one dimension.

"Draws of q itself" use nothing of q but its density: the distribution function is tabulated and inverted. So that
the two agree says that g is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.lessons.expressions import Expression
from tinyvae.lessons.quadrature import changes
from tinyvae.lessons.recipes import Law

FIRST, FACTOR = 16, 4  # the smallest L, and from one L to the next
BLOCK = 2**21  # base variates drawn at once
MOST = 10**8  # draws
WIDEST = 2**25  # base variates of a mean: they are in memory at once
GRID = 60_001
NORMAL_95 = 1.959963984540054  # half of the width of a 95 % interval, in standard errors
BOUNDED = "choose an f that stays finite and grows more slowly, or a bounded one such as 1/(1+z**2)"

Function = Callable[[np.ndarray], np.ndarray]


class Line:
    """The support of q, run through by t: dense in the bulk of q, and far out in few steps.

    On the real line z = c + s sinh t, above `low` z = low + s exp t, between two ends z = low + (high - low) sigmoid t.
    """

    def __init__(self, q: Law) -> None:
        self.q, (self.low, self.high), (self.centre, self.scale) = q, q.support, q.middle
        # as near to an end as numbers get: near 0 far nearer than near any other
        left = 300.0 if self.low in (0, -math.inf) else 36.0
        right = 300.0 if self.high == math.inf else 36.0
        self.t = np.linspace(-left, right, GRID) + 1e-3 / math.pi  # apart from round z, where f may have a pole

    def __call__(self, t: Any) -> tuple[Any, Any]:
        """z(t) and q(z) dz/dt."""
        with np.errstate(all="ignore"):
            if self.low == -math.inf:
                z, log_slope = self.centre + self.scale * np.sinh(t), np.log(self.scale * np.cosh(t))
            elif self.high == math.inf:
                z, log_slope = self.low + self.scale * np.exp(t), math.log(self.scale) + t
            else:
                part, width = 1 / (1 + np.exp(-t)), self.high - self.low
                z, log_slope = self.low + width * part, np.log(width * part) - np.log1p(np.exp(t))
            mass = np.exp(self.q.log_density(z) + log_slope)  # q alone may underflow, far out
        return z, np.where(mass >= 0, mass, 0.0)  # NaN at an end that z has reached by rounding


class NoExpectation(ValueError):
    """The integral is infinite, or its tails fall off too slowly to compute it."""


def expectation(f: Function, q: Law, what: str = "f", edges: Sequence[Function] = ()) -> float:
    """E_q[f(z)] by adaptive quadrature, right to about nine digits.

    Where a function of `edges` changes its sign, f may jump or have a kink; a jump that they do not tell of may be
    overlooked. Raises NoExpectation, and ValueError for an f that has no value (NaN) where q has mass.
    """
    from scipy.integrate import quad

    line = Line(q)

    def integrand(t: Any) -> np.ndarray:
        z, mass = line(t)
        with np.errstate(all="ignore"):
            return np.where(mass > 0, f(np.atleast_1d(z)) * mass, 0.0)  # where q has no mass, f may be what it likes

    z, mass = line(line.t)
    h = integrand(line.t)
    lost = np.isnan(h) & (mass > 1e-100)  # far out an f may come to inf - inf
    h[np.isnan(h)] = 0
    if lost.any():
        worst = z[lost][np.argmax(mass[lost])]
        low, high = q.support
        raise ValueError(f"{what} has no value at z = {worst:.4g}, where {q} has mass; choose an f that has one for "
                         f"all z from {low:g} to {high:g}")
    size = np.abs(h)
    top = float(size.max())
    # A power of z in the tail is an exponential in t, so what does not fall off here has no finite integral.
    endless = NoExpectation(f"E[{what}] under {q} is infinite, or cannot be computed (a pole of f, an overflow, "
                            f"or tails that fall off too slowly); {BOUNDED}")
    if not (math.isfinite(top) and max(size[0], size[-1]) <= 1e-6 * top):
        raise endless
    if top == 0:
        return 0.0
    bulk = np.flatnonzero(size > 1e-17 * top)
    first, last = line.t[max(0, bulk[0] - 1)], line.t[min(GRID - 1, bulk[-1] + 1)]
    points = np.unique([*np.linspace(first, last, 33), *(t for g in edges for t in crossings(g, line))])
    total = 0.0
    # each side of the middle by itself: the halves of a pole there, as of 1/z, would cancel
    for left, right in ((first, min(0.0, last)), (max(0.0, first), last)):
        if left < right:
            inside = points[(left < points) & (points < right)][:200]
            value, error, *_ = quad(lambda t: float(integrand(t)[0]), left, right, points=inside, limit=600,
                                    epsabs=1e-13 * top, epsrel=1e-11, full_output=1)
            if not error <= 1e-6 * (abs(value) + top) < math.inf:
                raise endless
            total += value
    return float(total)


def crossings(g: Function, line: Line) -> list[float]:
    """The t at which g(z(t)) changes its sign."""
    return changes(lambda t: g(line(t)[0]) > 0, line.t)


class Sampler:
    """Draws of q by its density alone: z = F^-1(u), F tabulated along the line and interpolated."""

    def __init__(self, q: Law) -> None:
        self.line = Line(q)
        _, mass = self.line(self.line.t)
        bulk = np.flatnonzero(mass > 1e-18 * mass.max())
        self.t = np.linspace(self.line.t[max(0, bulk[0] - 1)], self.line.t[min(GRID - 1, bulk[-1] + 1)], GRID)
        _, mass = self.line(self.t)
        F = np.concatenate([[0.0], np.cumsum((mass[1:] + mass[:-1]) / 2)])
        self.F = F / F[-1]

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return self.line(np.interp(u, self.F, self.t))[0]


@dataclass(frozen=True)
class Row:
    """One L: what the first of all repetitions finds, and how wrong they all are. Pairs are (direct, g(eps))."""

    draws: int
    estimate: tuple[float, float]
    stderr: tuple[float, float]  # the sample's own, s / sqrt(L)
    rms: tuple[float, float]  # over the repetitions, of estimate - exact
    rms_stderr: tuple[float, float]  # of log rms
    expected: float  # sd_q[f] / sqrt(L)


@dataclass(frozen=True)
class Slope:
    """The straight line through log(rms) over log(L), least squares."""

    value: float
    stderr: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 %."""
        return self.value - NORMAL_95 * self.stderr, self.value + NORMAL_95 * self.stderr


@dataclass(frozen=True)
class Study:
    """All that `study` finds."""

    q: Law
    f: Expression
    exact: float
    sd: float
    kurtosis: float
    repetitions: int
    rows: list[Row]
    slopes: tuple[Slope, Slope]
    difference: tuple[float, float]  # of the two routes' means over all draws of the largest L, and its standard error

    @property
    def rests_on_rare_draws(self) -> bool:
        """Is the mean of squared errors at the smallest L uncertain by more than a half? (It varies by
        (kurtosis / L + 2) / repetitions, relative and squared.)"""
        return not (self.kurtosis / FIRST + 2) / self.repetitions <= 0.25


def study(q: Law, f: Expression, largest: int = 16384, repetitions: int = 100, seed: int = 0) -> Study:
    """Estimate E_q[f(z)] with L = 16, 64, ... `largest` draws, by both routes, `repetitions` times each."""
    if not largest >= FIRST * FACTOR:
        raise ValueError(f"found {largest} samples; expected {FIRST * FACTOR} or more")
    if not repetitions >= 10:
        raise ValueError(f"found {repetitions} repetitions; expected 10 or more")
    if not largest * repetitions <= MOST:
        raise ValueError(f"found {largest} samples in {repetitions} repetitions; expected {MOST:,} draws at most")

    variates = q.recipe.variates(*q.values)
    if not largest * variates <= WIDEST:
        raise ValueError(f"found {largest} samples of {q}, each of {variates} variates; expected {WIDEST // variates} "
                         "samples at most")
    value, edges = on_arrays(f), [on_arrays(edge) for edge in f.edges]
    exact = expectation(value, q, f.text, edges)
    try:
        variance = expectation(lambda z: (value(z) - exact) ** 2, q, "", edges)
    except NoExpectation:
        raise NoExpectation(f"f(z) = {f} has the expectation {exact:.6g} under {q}, but an infinite variance, so "
                            f"errors do not fall as 1/sqrt(L); {BOUNDED}") from None
    if not variance > 1e-24 * exact**2:
        raise ValueError(f"f(z) = {f} is {exact:g} under {q} with no variance, so there is nothing to estimate; choose "
                         "an f that varies")
    try:
        kurtosis = expectation(lambda z: (value(z) - exact) ** 4, q, "", edges) / variance**2
    except NoExpectation:
        kurtosis = math.inf
    ladder = [FIRST * FACTOR**n for n in range(int(math.log(largest / FIRST, FACTOR) + 1e-9) + 1)]
    routes, rows, errors = (Direct(q, seed), Reparameterized(q, seed)), [], np.zeros((2, 1))
    for draws in ladder:
        found = [means(route, value, draws, repetitions) for route in routes]
        errors = np.array([mean - exact for mean, _ in found])
        mse, spread = np.mean(errors**2, 1), np.var(errors**2, 1, ddof=1)
        (mean, stderr), (mean_g, stderr_g) = found
        rows.append(Row(draws, (float(mean[0]), float(mean_g[0])), (float(stderr[0]), float(stderr_g[0])),
                        _pair(np.sqrt(mse)), _pair(np.sqrt(spread / repetitions) / (2 * mse)),
                        math.sqrt(variance / draws)))
    gap = float(errors[0].mean() - errors[1].mean())
    gap_stderr = math.sqrt(float(np.var(errors, 1, ddof=1).sum()) / repetitions)
    slopes = tuple(fit(ladder, [row.rms[i] for row in rows], [row.rms_stderr[i] for row in rows]) for i in (0, 1))
    return Study(q, f, exact, math.sqrt(variance), kurtosis, repetitions, rows, (slopes[0], slopes[1]),
                 (gap, gap_stderr))


class Direct:
    """z ~ q(z), from a stream of its own."""

    def __init__(self, q: Law, seed: int) -> None:
        self.sampler, self.noise, self.variates = Sampler(q), Noise(seed, "direct"), 1

    def __call__(self, count: int) -> np.ndarray:
        return self.sampler(self.noise.uniform((count,), np.float64).data + 2.0**-33)


class Reparameterized:
    """z = g(eps), eps ~ p(eps)."""

    def __init__(self, q: Law, seed: int) -> None:
        self.q, self.noise, self.variates = q, Noise(seed, "eps"), q.recipe.variates(*q.values)

    def __call__(self, count: int) -> np.ndarray:
        return self.q.g(self.q.eps(self.noise, count)).data


def on_arrays(f: Callable[[Tensor], Tensor]) -> Function:
    """A function of tensors as one of arrays."""
    return lambda z: f(Tensor(z)).data


def means(route: Any, f: Function, draws: int, repetitions: int) -> tuple[np.ndarray, np.ndarray]:
    """1/L sum_l f(z_l) of each repetition, (repetitions,), and its standard error s / sqrt(L)."""
    together = min(repetitions, max(1, BLOCK // (draws * route.variates)))
    found = []
    for begin in range(0, repetitions, together):
        count = min(together, repetitions - begin)
        values = f(route(count * draws)).reshape(count, draws)
        found.append((values.mean(1), values.std(1, ddof=1) / math.sqrt(draws)))
    mean, stderr = zip(*found, strict=True)
    return np.concatenate(mean), np.concatenate(stderr)


def fit(ladder: list[int], rms: list[float], stderr: list[float]) -> Slope:
    """Least squares of log rms over log L; each log rms has the standard error given."""
    x, y = np.log(ladder), np.log(rms)
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # the slope is a weighted sum of the y
    return Slope(float(weight @ y), float(np.sqrt(weight**2 @ np.square(stderr))))


def _pair(values: Any) -> tuple[float, float]:
    return float(values[0]), float(values[1])
