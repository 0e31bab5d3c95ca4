"""Families q(z) with a differentiable g(eps): the three recipes of the reparameterization trick, a row a family.

For z ~ q(z; v) take eps ~ p(eps), a fixed law without parameters, and g with g(eps; v) ~ q(z; v). Then

    E_q[f(z)] = E_eps[f(g(eps; v))],    and the gradient by v passes through g.

AEVB section 2.4 names three ways to find g ("Reparameterization trick"):

1. inverse distribution function:  eps ~ U(0, 1), g = F^-1
2. location and scale:             eps from the standard member, g = location + scale * eps
3. composition:                    g puts together variates that are easy to draw

`g` is written in Tensor operations. `log_density` is the family's textbook density, in NumPy; the two share no
arithmetic, so that their agreement is a finding.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor

INVERSE, LOCATION_SCALE, COMPOSITION = "inverse distribution function", "location and scale", "composition"


@dataclass(frozen=True)
class Kind:
    """Which numbers a parameter may be."""

    low: float
    high: float
    whole: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and (not self.whole or value == int(value))  # so that NaN fails

    def __str__(self) -> str:
        return f"a {'whole ' * self.whole}number from {self.low:g} to {self.high:g}"


REAL, SCALE, SHAPE, WHOLE = Kind(-1e4, 1e4), Kind(1e-4, 1e4), Kind(0.1, 100), Kind(1, 100, whole=True)


@dataclass(frozen=True)
class Recipe:
    """A row of the table: a family, how it is reparameterized, and what is known of it."""

    name: str
    way: str
    formula: str  # g as a person writes it
    parameters: dict[str, tuple[float, Kind]]  # by name, the default value and the kind
    eps: str  # "normal" or "uniform": the law of one base variate
    g: Callable[..., Tensor]  # (eps, *parameters) -> z; the first axis of eps counts base variates
    log_density: Callable[..., Any]  # (z, *parameters), in nats, on the support
    support: Callable[..., tuple[float, float]] = lambda *_: (-math.inf, math.inf)
    variates: Callable[..., int] = lambda *_: 1  # how many base variates one z takes
    middle: Callable[..., tuple[float, float]] = lambda *_: (0.0, 1.0)  # a place in the bulk of q, and its width
    heavy: bool = False  # a tail so long that z**2 has no variance, or a wild one
    more: bool = False  # may there be 2 to 20 parameters of this kind?


@dataclass(frozen=True)
class Law:
    """A member of a family: q(z; v)."""

    recipe: Recipe
    values: tuple[float, ...]

    @property
    def support(self) -> tuple[float, float]:
        return self.recipe.support(*self.values)

    @property
    def middle(self) -> tuple[float, float]:
        return self.recipe.middle(*self.values)

    def log_density(self, z: Any) -> Any:
        """log q(z) in nats, for z inside of the support."""
        return self.recipe.log_density(z, *self.values)

    def eps(self, noise: Noise, count: int) -> Tensor:
        """Draws of the base variates, (variates, count); uniform ones lie inside (0, 1), not on its edge."""
        shape = (self.recipe.variates(*self.values), count)
        if self.recipe.eps == "normal":
            return noise.normal(shape, np.float64)
        return noise.uniform(shape, np.float64) + 2.0**-33  # half of their grid's step

    def g(self, eps: Tensor, *values: Any) -> Tensor:
        """z = g(eps; v), (count,); `values` in place of v may be tensors, by which it can be differentiated."""
        return self.recipe.g(eps, *(values or self.values))

    def __str__(self) -> str:
        return f"{self.recipe.name}({', '.join(f'{value:g}' for value in self.values)})"


TABLE: dict[str, Recipe] = {}


def recipe(name: str, *rest: Any, **more: Any) -> None:
    TABLE[name] = Recipe(name, *rest, **more)


def law(text: str) -> Law:
    """"gamma(3, 2)" as a law; numbers left out are the row's own. ValueError names what is wrong and the choices.

    >>> str(law("normal"))
    'normal(0, 1)'
    """
    match = re.fullmatch(r"\s*([a-z-]+)\s*(?:\((.*)\)\s*)?", text)
    row = TABLE.get(match[1]) if match else None
    if match is None or row is None:
        raise ValueError(f"found q {text!r}; expected one of {', '.join(map(signature, TABLE.values()))}")
    try:
        values = [float(part) for part in match[2].split(",")] if (match[2] or "").strip() else []
    except ValueError:
        raise ValueError(f"found q {text!r}; expected numbers in the bracket: {signature(row)}") from None
    names, defaults, kinds = list(row.parameters), *zip(*row.parameters.values(), strict=True)
    if row.more and 2 <= len(values) <= 20:
        names, kinds, defaults = names[:1] * len(values), kinds[:1] * len(values), ()
    elif len(values) > len(names) or (row.more and values):
        raise ValueError(f"found {len(values)} in the bracket of q {text!r}; expected {signature(row)}")
    values += defaults[len(values):]
    for name, kind, value in zip(names, kinds, values, strict=True):
        if value not in kind:
            raise ValueError(f"found {name} {value:g} in q {text!r}; expected {kind}")
    if row.name == "uniform" and not values[0] < values[1]:
        raise ValueError(f"found low {values[0]:g} and high {values[1]:g} in q {text!r}; expected low < high")
    return Law(row, tuple(values))


def signature(row: Recipe) -> str:
    return f"{row.name}({', '.join(row.parameters)}{', ... up to 20' * row.more})"


# ---- 1. inverse distribution function: eps ~ U(0, 1), z = F^-1(eps) --------------------------------------------------

LOCATION = {"location": (0.0, REAL), "scale": (1.0, SCALE)}
LOG_2PI = math.log(2 * math.pi)


def _positive(*_: float) -> tuple[float, float]:
    return 0.0, math.inf


def _unit(*_: float) -> tuple[float, float]:
    return 0.0, 1.0


def _here(location: float, scale: float) -> tuple[float, float]:
    return location, scale


def _logistic(z: Any, location: float, scale: float) -> Any:
    x = np.abs((z - location) / scale)  # the density is even
    return -x - 2 * np.log1p(np.exp(-x)) - math.log(scale)


def _gumbel(z: Any, location: float, scale: float) -> Any:
    x = (z - location) / scale
    return -x - np.exp(-x) - math.log(scale)


recipe("exponential", INVERSE, "-log(1 - eps) / rate", {"rate": (1.0, SCALE)}, "uniform",
       lambda eps, rate: -(-eps[0]).log1p() / rate,
       lambda z, rate: math.log(rate) - rate * z, _positive, middle=lambda rate: (0.0, 1 / rate))
recipe("logistic", INVERSE, "location + scale * log(eps / (1 - eps))", LOCATION, "uniform",
       lambda eps, location, scale: location + scale * (eps[0].log() - (-eps[0]).log1p()), _logistic, middle=_here)
recipe("gumbel", INVERSE, "location - scale * log(-log(eps))", LOCATION, "uniform",
       lambda eps, location, scale: location - scale * (-eps[0].log()).log(), _gumbel, middle=_here)
recipe("cauchy", INVERSE, "location + scale * tan(pi (eps - 1/2))", LOCATION, "uniform",
       lambda eps, location, scale: location + scale * (math.pi * (eps[0] - 0.5)).tan(),
       lambda z, location, scale: -math.log(math.pi * scale) - np.log1p(((z - location) / scale) ** 2), middle=_here,
       heavy=True)
recipe("rayleigh", INVERSE, "scale * sqrt(-2 log(1 - eps))", {"scale": (1.0, SCALE)}, "uniform",
       lambda eps, scale: scale * (-2.0 * (-eps[0]).log1p()).sqrt(),
       lambda z, scale: np.log(z / scale) - math.log(scale) - (z / scale) ** 2 / 2, _positive,
       middle=lambda scale: (0.0, scale))
recipe("weibull", INVERSE, "scale * (-log(1 - eps))**(1 / shape)", {"shape": (2.0, SHAPE), "scale": (1.0, SCALE)},
       "uniform", lambda eps, shape, scale: scale * (-(-eps[0]).log1p()) ** (1 / shape),
       lambda z, shape, scale: math.log(shape / scale) + (shape - 1) * np.log(z / scale) - (z / scale) ** shape,
       _positive, middle=lambda shape, scale: (0.0, scale))
recipe("pareto", INVERSE, "scale * (1 - eps)**(-1 / shape)", {"shape": (3.0, SHAPE), "scale": (1.0, SCALE)},
       "uniform", lambda eps, shape, scale: scale * (1 - eps[0]) ** (-1 / shape),
       lambda z, shape, scale: math.log(shape / scale) - (shape + 1) * np.log(z / scale),
       lambda shape, scale: (scale, math.inf), middle=lambda shape, scale: (scale, scale / shape), heavy=True)

# ---- 2. location and scale: z = location + scale * eps ---------------------------------------------------------------

recipe("normal", LOCATION_SCALE, "mu + sigma * eps, eps ~ N(0, 1)", {"mu": (0.0, REAL), "sigma": (1.0, SCALE)},
       "normal", lambda eps, mu, sigma: mu + sigma * eps[0],
       lambda z, mu, sigma: -0.5 * (LOG_2PI + ((z - mu) / sigma) ** 2) - math.log(sigma), middle=_here)
# the logarithms of two uniform numbers are exponential variates, and the difference of two of these is Laplace's
recipe("laplace", LOCATION_SCALE, "location + scale * eps, eps = log(u1 / u2) ~ Laplace(0, 1)", LOCATION, "uniform",
       lambda eps, location, scale: location + scale * (eps[0].log() - eps[1].log()),
       lambda z, location, scale: -np.abs(z - location) / scale - math.log(2 * scale), variates=lambda *_: 2,
       middle=_here)
recipe("uniform", LOCATION_SCALE, "low + (high - low) * eps, eps ~ U(0, 1)", {"low": (0.0, REAL), "high": (1.0, REAL)},
       "uniform", lambda eps, low, high: low + (high - low) * eps[0],
       lambda z, low, high: np.full(np.shape(z), -math.log(high - low)), lambda low, high: (low, high))

# ---- 3. composition: other variates put together ---------------------------------------------------------------------


def _gammas(eps: Tensor, *counts: float) -> list[Tensor]:
    """Independent Gamma(n, 1) for each whole n: the sum of n exponential variates, -log(u1 u2 ... un)."""
    ends = np.cumsum([0, *counts]).astype(int).tolist()
    return [-eps[start:end].log().sum(0) for start, end in itertools.pairwise(ends)]


def _log_beta(z: Any, a: float, b: float) -> Any:
    constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return constant + (a - 1) * np.log(z) + (b - 1) * np.log1p(-z)


def _gamma(z: Any, shape: float, rate: float) -> Any:
    return shape * math.log(rate) - math.lgamma(shape) + (shape - 1) * np.log(z) - rate * z


def _log_normal(z: Any, mu: float, sigma: float) -> Any:
    return -0.5 * (LOG_2PI + ((np.log(z) - mu) / sigma) ** 2) - math.log(sigma) - np.log(z)


def _f(z: Any, d1: float, d2: float) -> Any:
    # d1 z / (d1 z + d2) is Beta(d1 / 2, d2 / 2)
    constant = math.lgamma((d1 + d2) / 2) - math.lgamma(d1 / 2) - math.lgamma(d2 / 2) + d1 / 2 * math.log(d1 / d2)
    return constant + (d1 / 2 - 1) * np.log(z) - (d1 + d2) / 2 * np.log1p(d1 * z / d2)


def _share(eps: Tensor, *counts: float) -> Tensor:
    """The first of several Gamma variates, as a part of all."""
    first, *others = _gammas(eps, *counts)
    return first / sum(others, first)


recipe("log-normal", COMPOSITION, "exp(mu + sigma * eps), eps ~ N(0, 1)",
       {"mu": (0.0, Kind(-100, 100)), "sigma": (0.5, Kind(0.01, 10))}, "normal",
       lambda eps, mu, sigma: (mu + sigma * eps[0]).exp(), _log_normal, _positive,
       middle=lambda mu, sigma: (0.0, math.exp(mu)), heavy=True)
recipe("gamma", COMPOSITION, "the sum of -log(u) over so many uniform u as its shape, / rate",
       {"shape": (3.0, WHOLE), "rate": (1.0, SCALE)}, "uniform",
       lambda eps, shape, rate: _gammas(eps, shape)[0] / rate, _gamma, _positive, lambda shape, rate: int(shape),
       lambda shape, rate: (0.0, shape / rate))
recipe("chi-square", COMPOSITION, "the sum of eps**2 over so many eps ~ N(0, 1) as its degrees of freedom",
       {"degrees": (3.0, WHOLE)}, "normal", lambda eps, degrees: (eps * eps).sum(0),
       lambda z, degrees: _gamma(z, degrees / 2, 0.5), _positive, int, lambda degrees: (0.0, degrees))
recipe("f", COMPOSITION, "the mean of eps**2 over d1 eps ~ N(0, 1), / that over d2 others",
       {"d1": (4.0, WHOLE), "d2": (12.0, WHOLE)}, "normal",
       lambda eps, d1, d2: (eps[: int(d1)] ** 2).mean(0) / (eps[int(d1) :] ** 2).mean(0), _f, _positive,
       lambda d1, d2: int(d1 + d2), heavy=True)
recipe("beta", COMPOSITION, "G1 / (G1 + G2), Gamma variates of shapes a and b",
       {"a": (2.0, WHOLE), "b": (3.0, WHOLE)}, "uniform", _share, _log_beta, _unit, lambda a, b: int(a + b))
recipe("dirichlet", COMPOSITION, "G1 / (G1 + G2 + ...), Gamma variates; z is the first component",
       {"a1": (2.0, WHOLE), "a2": (3.0, WHOLE), "a3": (4.0, WHOLE)}, "uniform", _share,
       lambda z, first, *others: _log_beta(z, first, sum(others)), _unit, lambda *counts: int(sum(counts)), more=True)
