"""E_q[f(z)] of a one-dimensional q and its derivatives, exact by quadrature: what estimates are held against.

With w the stable form of z (see families.py), in which the density is smooth and has light tails,

    E_q[f] = int f(z(w)) q(w; v) dw,    d/dv E_q[f] = int f(z(w)) q(w; v) d log q(w; v)/dv dw.

The derivative of the density comes from the tape; no path through z and no derivative of f is used, so that gradient
estimators, which use both, are held against something else. The variable of integration is t, with
w = centre + scale sinh t: equal steps of t are small steps of w in the bulk of q, and large ones far out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tinyvae.distributions import Beta, Gamma
from tinyvae.engine.fusion import fused
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.lessons.families import Member

REACH, POINTS = 20.0, 4001  # t of the scan; sinh 20 is 2e8
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)  # of one panel, on (-1, 1)
HALVINGS, PANELS = 60, 2000  # of a panel that is not accurate yet; how many at once
NEGLIGIBLE = 1e-12  # of the integrand at the ends of the line, relative to its largest value

Function = Callable[[Tensor], Tensor]


class Exact(NamedTuple):
    """A value by quadrature and what it may be wrong by."""

    value: float
    error: float


class NotFinite(ValueError):
    """Quadrature found no finite value: the integral is infinite, or its tails fall off too slowly."""


def expectation(q: Member, f: Function, about: float = 0.0, order: int = 1) -> Exact:
    """E_q[(f(z) - about)^order]. NotFinite, or a ValueError for an f that has no value (NaN) where q has mass."""
    return _exact(q, f, about, order)[0]


def derivative(q: Member, f: Function, by: str) -> Exact:
    """d/dv E_q[f(z)] by the parameter of that name."""
    (value, error), v = _exact(q, f, by=by)[0], q.at[by]
    # d log q / dv is a difference of terms of the size of log v and 1 / v
    size = _exact(q, f)[1]
    return Exact(value, error + 1e-15 * size * (1 + (abs(math.log(abs(v))) + 1 / abs(v) if v else 0)))


class Line:
    """The stable form w of a member as a function of t: w = centre + scale sinh t."""

    def __init__(self, q: Member) -> None:
        self.q, base = q, q.distribution
        # a place in the bulk of w, and its width: 1 at most where tails are exponential
        if isinstance(base, Gamma):
            shape, rate = base.shape.item(), base.rate.item()
            self.centre, self.scale = math.log(shape / rate), min(1.0, shape**-0.5)
        elif isinstance(base, Beta):
            a, b = base.a.item(), base.b.item()
            self.centre, self.scale = math.log(a / b), min(1.0, (1 / a + 1 / b) ** 0.5)
        else:
            self.centre, self.scale = q.at.values()

    def w(self, t: np.ndarray) -> Tensor:
        return Tensor(self.centre + self.scale * np.sinh(t))

    def z(self, t: np.ndarray) -> Tensor:
        with np.errstate(all="ignore"):
            return self.q.z(self.w(t))

    def mass(self, t: np.ndarray, by: str | None = None) -> np.ndarray:
        """q(w) dw/dt; with `by`, that times d log q(w; v)/dv by the parameter of this name."""
        with np.errstate(all="ignore"), fused(False):
            mass = np.exp(self.q.distribution.log_density(self.w(t)).data) * self.scale * np.cosh(t)
            if by is None:
                return mass
            leaves = {name: Tensor(np.full(t.shape, value), name == by) for name, value in self.q.at.items()}
            log_q = self.q.family.build(*leaves.values()).log_density(self.w(t))
            return mass * grad(log_q.sum(), leaves[by]).data

    def edges(self, f: Function, t: np.ndarray) -> list[float]:
        """Where f may jump or have a kink: the t at which a function of `f.edges` changes its sign, by bisection."""
        found: list[float] = []
        for edge in getattr(f, "edges", ()):
            with np.errstate(all="ignore"):
                sides = edge(self.z(t)).data > 0
                places = np.flatnonzero(sides[1:] != sides[:-1])
                left, right = t[places], t[places + 1]
                for _ in range(60):
                    middle = (left + right) / 2
                    same = (edge(self.z(middle)).data > 0) == sides[places]
                    left, right = np.where(same, middle, left), np.where(same, right, middle)
            found += left.tolist()
        return found


def gauss(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's nodes and weights on each panel from left to right, (panels, nodes)."""
    half = (right - left)[..., None] / 2
    return left[..., None] + half * (1 + NODES), half * WEIGHTS


def scan(reach: float, points: int) -> np.ndarray:
    """A grid of t that lies beside round z, where f may have a pole."""
    return np.linspace(-reach, reach, points) + 1e-3 / math.pi


def _exact(q: Member, f: Function, about: float = 0.0, order: int = 1, by: str | None = None) -> tuple[Exact, float]:
    """The integral, and roughly that of its absolute value."""
    line, text = Line(q), getattr(f, "text", "f(z)")
    text = f"E[{text}]" if order == 1 else f"E[({text}{f' - {about:.4g}' if about else ''})**{order}]"

    def values(z: Tensor) -> np.ndarray:
        value = f(z).data
        return value if (about, order) == (0, 1) else (value - about) ** order

    edges = line.edges(f, scan(REACH, POINTS))
    value, error, size = _integral(line, values, edges, by, f"d{text}/d{by}" if by else text)
    # Rounding changes the density: its mass is not quite 1, and the terms of its logarithm are rounded each.
    mass, *_ = _integral(line, lambda z: np.ones(z.shape), [], None, "1")
    terms = 4 + abs(line.centre) / line.scale + sum(abs(v) * (1 + abs(math.log(abs(v)))) for v in q.at.values() if v)
    return Exact(value, error + size * (4 * abs(mass - 1) + 2e-16 * terms)), size


def _integral(line: Line, f: Callable[[Tensor], np.ndarray], edges: Sequence[float], by: str | None,
              what: str) -> tuple[float, float, float]:
    """The integral of f(z) q(z) over the line, its error by quadrature alone, and that of its absolute value, roughly.

    Panels, each with a Gauss rule, are halved until both halves together give what the whole gave.
    """

    def integrand(t: np.ndarray) -> np.ndarray:
        value, mass = f(line.z(t)), line.mass(t, by)
        return np.where(mass != 0, value * mass, 0.0)  # where q has no mass, even an infinite f does not count

    def sums(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        t, weights = gauss(left, right)
        return (integrand(t.ravel()).reshape(t.shape) * weights).sum(-1)

    with np.errstate(all="ignore"):
        t = scan(REACH, POINTS)
        z, mass = line.z(t), line.mass(t, by)
        value = f(z)
        if (lost := np.isnan(value) & (np.abs(mass) > 1e-100)).any():
            low, high = line.q.support
            raise ValueError(f"found no value (NaN) of f at z = {z.data[lost][np.argmax(np.abs(mass[lost]))]:.4g}, "
                             f"where {line.q} has mass; choose an f that has one for all z from {low:g} to {high:g}")
        endless = NotFinite(f"{what} under {line.q} is infinite, or cannot be computed (a pole of f, an overflow, or "
                            "tails that fall off too slowly); choose an f that stays finite and grows more slowly, or "
                            "a bounded one such as 1/(1+z**2)")
        reached = np.flatnonzero((mass != 0) & np.isfinite(value))  # beyond, q or f has left the range of numbers
        if not len(reached):
            raise endless
        inside, size = slice(reached[0], reached[-1] + 1), np.zeros(POINTS)
        size[inside] = np.abs(np.nan_to_num(value * mass, nan=0.0, posinf=math.inf, neginf=math.inf))[inside]
        ends, top, total = float(size[reached[[0, -1]]].max()), float(size.max()), float(size.sum() * (t[1] - t[0]))
        if not (math.isfinite(top) and ends <= NEGLIGIBLE * top):
            raise endless
        bulk = np.flatnonzero(size > 1e-20 * top)
        if not len(bulk):
            return 0.0, 0.0, 0.0
        first, last = t[max(0, bulk[0] - 1)], t[min(POINTS - 1, bulk[-1] + 1)]
        inner = [place for place in (0.0, *edges) if first < place < last][:100]  # at t = 0 Laplace has a kink
        cuts = np.unique([*np.linspace(first, last, 13), *inner])
        # the density is exp of a sum, and errs by the rounding of its exponent
        rounding = 1e-15 * float((size[bulk] * np.abs(np.log(np.abs(mass[bulk])))).sum() * (t[1] - t[0]))
        left, right, found, error = cuts[:-1], cuts[1:], 0.0, ends + rounding
        whole = sums(left, right)
        for halving in range(HALVINGS):
            middle = (left + right) / 2
            lower, upper = sums(left, middle), sums(middle, right)
            off = np.abs(lower + upper - whole)
            rough = ~(off <= 1e-13 * total)  # so that NaN is not accurate
            rough &= rough.sum() <= PANELS and halving < HALVINGS - 1
            found += float((lower + upper)[~rough].sum())
            error += 4 * float(off[~rough].sum())  # beside a pole the halves err by as much as they differ, or more
            left, right = np.append(left[rough], middle[rough]), np.append(middle[rough], right[rough])
            whole = np.append(lower[rough], upper[rough])
            if not len(left):
                break
    if not error <= 1e-6 * total:
        raise endless
    return found, error, total
