"""E_q[f(z)] of a one-dimensional q and its derivatives, by quadrature: what gradient estimators are held against.

In a stable form w in which the density is smooth and has light tails, which is z, log z or logit z,

    E_q[f] = int f(z(w)) q(w; v) dw,    d/dv E_q[f] = int f(z(w)) dq(w; v)/dv dw,

and the derivative of the density is a complex step, Im q(w; v + i h) / h: right to rounding, for no difference is
formed. Nothing here is shared with the estimators: the densities are written out once more, and neither a map nor a
tape nor a derivative of f is used.

The line is run through by t, with w = centre + scale sinh t: dense in the bulk of q, far out in few steps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tinyvae.distributions import Beta, Distribution, Gamma, Laplace, LogNormal, LogTensor, Normal, UnitTensor
from tinyvae.engine.tensor import Tensor

LOG_2PI = math.log(2 * math.pi)
REACH, POINTS = 20.0, 4001  # t of the scan; sinh 20 is 2e8
STEP = 1e-30  # h of the complex step, relative
NEGLIGIBLE = 1e-12  # of the integrand at the ends of the line, relative to its largest value

Function = Callable[[Tensor], Tensor]


class Kind(NamedTuple):
    """Which numbers a parameter may be."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"


ANY, POSITIVE = Kind(-1e6, 1e6), Kind(1e-4, 1e6)


@dataclass(frozen=True)
class Family:
    """A row of the table: one-dimensional distributions with named parameters."""

    name: str
    parameters: dict[str, tuple[float, Kind]]  # by name: the default value, and which numbers it may be
    build: Callable[..., Distribution]  # the tensors of the parameters -> q
    log_density: Callable[..., Any]  # (w, *parameters), in nats; each parameter may be complex
    middle: Callable[..., tuple[float, float]]  # a place in the bulk of w, and its width
    from_stable: Callable[[Tensor], Tensor]  # z of w
    swept: tuple[str, float, float]  # the parameter that a picture varies, from, to


def _normal(w: Any, mu: Any, sigma: Any) -> Any:
    return -0.5 * (LOG_2PI + ((w - mu) / sigma) ** 2) - np.log(sigma)


def _gamma(w: Any, shape: Any, rate: Any) -> Any:
    from scipy.special import loggamma

    u = w + np.log(rate)
    return shape * u - np.exp(u) - loggamma(shape)


def _laplace(w: Any, mu: Any, scale: Any) -> Any:
    d = w - mu
    return -d * np.sign(np.real(d)) / scale - np.log(2 * scale)


def _beta(w: Any, a: Any, b: Any) -> Any:
    from scipy.special import loggamma

    return loggamma(a + b) - loggamma(a) - loggamma(b) - a * np.logaddexp(0, -w) - b * np.logaddexp(0, w)


def _gamma_middle(shape: float, rate: float) -> tuple[float, float]:
    return math.log(shape / rate), min(1.0, shape**-0.5)  # the mode of log z; the left tail is as long as 1 / shape


def _beta_middle(a: float, b: float) -> tuple[float, float]:
    return math.log(a / b), min(1.0, (1 / a + 1 / b) ** 0.5)


def _here(location: float, scale: float) -> tuple[float, float]:
    return location, scale


FAMILIES = {family.name: family for family in (
    Family("normal", {"mu": (0.0, ANY), "sigma": (1.0, POSITIVE)}, lambda mu, sigma: Normal(mu, 2 * sigma.log()),
           _normal, _here, lambda w: w, ("sigma", 0.1, 30.0)),
    Family("log-normal", {"mu": (0.0, ANY), "sigma": (1.0, POSITIVE)},
           lambda mu, sigma: LogNormal(mu, 2 * sigma.log()), _normal, _here, LogTensor, ("sigma", 0.03, 1.0)),
    Family("gamma", {"shape": (2.0, POSITIVE), "rate": (1.0, POSITIVE)}, Gamma,
           _gamma, _gamma_middle, LogTensor, ("shape", 0.1, 30.0)),
    Family("laplace", {"mu": (0.0, ANY), "scale": (1.0, POSITIVE)}, Laplace,
           _laplace, _here, lambda w: w, ("scale", 0.1, 30.0)),
    Family("beta", {"a": (2.0, POSITIVE), "b": (2.0, POSITIVE)}, Beta,
           _beta, _beta_middle, lambda w: UnitTensor(-(-w).softplus(), -w.softplus()), ("a", 0.1, 30.0)),
)}


@dataclass(frozen=True)
class Member:
    """A member of a family: q(z; v)."""

    family: Family
    at: dict[str, float] = field(hash=False)

    def with_(self, name: str, value: float) -> Member:
        """The same with another value of one parameter."""
        return Member(self.family, {**self.at, name: value})

    def density(self, w: Any, **changed: Any) -> Any:
        """q(w), with other values of some parameters."""
        return np.exp(self.family.log_density(w, *{**self.at, **changed}.values()))

    def __str__(self) -> str:
        return f"{self.family.name}({', '.join(f'{name}={value:g}' for name, value in self.at.items())})"


def member(name: str, given: Mapping[str, float] | None = None) -> Member:
    """A member by the family's name and values of its parameters; those left out have the family's own.

    The name may bring them in a bracket, "gamma(2, 1)". ValueError names what is wrong and the choices.
    """
    match = re.fullmatch(r"\s*([a-z-]+)\s*(?:\((.*)\)\s*)?", name)
    family = FAMILIES.get(match[1]) if match else None
    if match is None or family is None:
        raise ValueError(f"found q {name!r}; expected one of {', '.join(FAMILIES)}")
    form = f"{family.name}({', '.join(family.parameters)})"
    try:
        numbers = [float(part) for part in match[2].split(",")] if (match[2] or "").strip() else []
    except ValueError:
        raise ValueError(f"found q {name!r}; expected numbers in the bracket: {form}") from None
    if len(numbers) > len(family.parameters):
        raise ValueError(f"found {len(numbers)} numbers in the bracket of q {name!r}; expected {form}")
    inside, given, name = dict(zip(family.parameters, numbers, strict=False)), given or {}, family.name
    if twice := inside.keys() & given.keys():
        raise ValueError(f"found {min(twice)} twice, in the bracket of q and beside it; give it once")
    given = inside | dict(given)
    at = {parameter: float(given.get(parameter, default)) for parameter, (default, _) in family.parameters.items()}
    for parameter, value in given.items():
        if parameter not in at:
            raise ValueError(f"found {parameter} {value:g} with q {name}, which has {' and '.join(at)}")
        low, high = family.parameters[parameter][1]
        if not low <= value <= high:  # so that NaN fails
            raise ValueError(f"found {parameter} {value:g} with q {name}; expected {family.parameters[parameter][1]}")
    return Member(family, at)


class Exact(NamedTuple):
    """A value by quadrature and what it may be wrong by."""

    value: float
    error: float


class NotFinite(ValueError):
    """By quadrature no finite value was found: the integral is infinite, or its tails fall off too slowly."""


def expectation(q: Member, f: Function, what: str = "f(z)") -> Exact:
    """E_q[f(z)]; `what` names f in messages."""
    return _exact(q, f, q.density, f"E[{what}]")


def derivative(q: Member, f: Function, by: str, what: str = "f(z)") -> Exact:
    """d/dv E_q[f(z)] by the parameter of that name."""
    v = q.at[by]
    h = STEP * max(1.0, abs(v))
    value, error = _exact(q, f, lambda w: q.density(w, **{by: complex(v, h)}).imag / h, f"dE[{what}]/d{by}")
    # d log q / dv is a difference of terms of the size of log v and 1 / v
    size = _integral(q, f, q.density, f"E[{what}]")[2]
    return Exact(value, error + 1e-15 * size * (1 + (abs(math.log(abs(v))) + 1 / abs(v) if v else 0)))


def _exact(q: Member, f: Function, weight: Callable[[Any], Any], what: str) -> Exact:
    value, error, size = _integral(q, f, weight, what)
    # what rounding does to the density shows in its mass, by and large; it is a few units of the terms in its logarithm
    mass, *_ = _integral(q, lambda z: z * 0.0 + 1.0, q.density, "1")
    centre, scale = q.family.middle(*q.at.values())
    terms = 4 + abs(centre) / scale + sum(abs(v) * (1 + abs(math.log(abs(v)))) for v in q.at.values() if v)
    return Exact(value, error + size * (4 * abs(mass - 1) + 2e-16 * terms))


def _integral(q: Member, f: Function, weight: Callable[[Any], Any], what: str) -> tuple[float, float, float]:
    """int f(z(w)) weight(w) dw, its error by quadrature alone, and the integral of its absolute value, roughly."""
    from scipy.integrate import quad

    centre, scale = q.family.middle(*q.at.values())

    def parts(t: Any) -> tuple[np.ndarray, np.ndarray]:
        """f and weight dw/dt, at t of shape (n,)."""
        w = centre + scale * np.sinh(t)
        with np.errstate(all="ignore"):
            return f(q.family.from_stable(Tensor(w))).data, weight(w) * scale * np.cosh(t)

    def integrand(t: Any) -> np.ndarray:
        value, mass = parts(t)
        with np.errstate(all="ignore"):
            return np.where(mass != 0, value * mass, 0.0)  # where q has no mass f may be what it likes

    t = np.linspace(-REACH, REACH, POINTS) + 1e-3 / math.pi  # beside round z, where f may have a pole
    value, mass = parts(t)
    if (lost := np.isnan(value) & (np.abs(mass) > 1e-100)).any():
        z = q.family.from_stable(Tensor(centre + scale * np.sinh(t[lost][np.argmax(np.abs(mass[lost]))]))).item()
        raise ValueError(f"found no value (NaN) of f at z = {z:.4g}, where {q} has mass; choose an f that has one for "
                         "every draw")
    size = np.abs(np.nan_to_num(integrand(t), nan=0.0, posinf=math.inf, neginf=math.inf))
    top = float(size.max())
    endless = NotFinite(f"{what} under {q}: no finite value was found by quadrature (a pole of f, an overflow, or "
                        "tails too heavy); choose an f that stays finite and grows more slowly, or a q with lighter "
                        "tails")
    reached = np.flatnonzero((mass != 0) & np.isfinite(value))  # beyond, q or f has left the range of numbers
    if not (math.isfinite(top) and len(reached)):
        raise endless
    ends = float(max(size[reached[0]], size[reached[-1]]))
    if not ends <= NEGLIGIBLE * top:
        raise endless
    if top == 0:
        return 0.0, 0.0, 0.0
    bulk = np.flatnonzero(size > 1e-20 * top)
    first, last = t[max(0, bulk[0] - 1)], t[min(POINTS - 1, bulk[-1] + 1)]
    jumps = [s for edge in getattr(f, "edges", ()) for s in _crossings(edge, q, t)]
    points = [s for s in (0.0, *np.linspace(first, last, 13), *jumps) if first < s < last]  # at 0 Laplace has a kink
    total = float(size.sum() * (t[1] - t[0]))
    found, error, _, *trouble = quad(lambda s: integrand(np.array([s]))[0], first, last, limit=500, full_output=1,
                                     points=sorted(set(points))[:100], epsabs=1e-13 * total, epsrel=1e-12)
    if not error <= 1e-6 * total or "divergent" in str(trouble):
        raise endless
    return float(found), float(error) + ends, total


def _crossings(g: Function, q: Member, t: np.ndarray) -> Sequence[float]:
    """The t at which g(z(t)) changes its sign."""
    centre, scale = q.family.middle(*q.at.values())
    return changes(lambda s: g(q.family.from_stable(Tensor(centre + scale * np.sinh(s)))).data > 0, t)


def changes(side: Callable[[np.ndarray], np.ndarray], t: np.ndarray) -> list[float]:
    """Where a truth value changes between neighbours of the grid t, by bisection."""
    with np.errstate(all="ignore"):
        sides = side(t)
        places = np.flatnonzero(sides[1:] != sides[:-1])
        left, right, begin = t[places], t[places + 1], sides[places]
        for _ in range(60):
            middle = (left + right) / 2
            same = side(middle) == begin
            left, right = np.where(same, middle, left), np.where(same, right, middle)
    return left.tolist()
