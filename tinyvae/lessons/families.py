"""A one-dimensional distribution by its name and its numbers, "gamma(3, 2)": what it is, and how it can be drawn.

Every family here is a distribution of `tinyvae.distributions`, or a function of one. These keep a draw z in a stable
form w (z itself, log z or logit z), in which the density is smooth and has light tails; a family is a function z(w).

A recipe makes a family's draws by the reparameterization trick. For z ~ q(z; v) take eps ~ p(eps), a fixed law without
parameters, and g with g(eps; v) ~ q(z; v). Then

    E_q[f(z)] = E_eps[f(g(eps; v))],    and the gradient by v passes through g.

AEVB section 2.4 names three ways to find g ("Reparameterization trick"):

1. inverse distribution function:  eps ~ U(0, 1), g = F^-1
2. location and scale:             eps from the standard member, g = location + scale * eps
3. composition:                    g puts together variates that are easy to draw

z(w) and g share no arithmetic, so that their agreement is a finding.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tinyvae.distributions import Beta, Distribution, Gamma, Laplace, LogNormal, LogTensor, Normal
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad

INVERSE, LOCATION_SCALE, COMPOSITION = "inverse distribution function", "location and scale", "composition"


class Parameter(NamedTuple):
    """A parameter's value where none is given, and which values it may have."""

    default: float
    low: float
    high: float
    whole: bool = False

    def __str__(self) -> str:
        return f"a {'whole ' * self.whole}number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Family:
    """One-dimensional distributions by named parameters: z(w) with w the stable form of a distribution."""

    name: str
    parameters: dict[str, Parameter]
    build: Callable[..., Distribution]  # of the parameters' tensors
    z: Callable[..., Tensor] | None = None  # of w and the parameters; None: the distribution's own `from_stable`
    swept: tuple[str, float, float] | None = None  # the parameter that a picture varies, from, to
    most: int = 0  # so many parameters of the first one's kind there may be

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.parameters)}{f', ... up to {self.most}' * (self.most > 0)})"


def real(default: float = 0.0) -> Parameter:
    return Parameter(default, -1e6, 1e6)


def positive(default: float = 1.0) -> Parameter:
    return Parameter(default, 1e-4, 1e6)


GRADIENT_FAMILIES = {family.name: family for family in (  # those whose estimators are compared
    Family("normal", {"mu": real(), "sigma": positive()}, lambda mu, sigma: Normal(mu, 2 * sigma.log()),
           swept=("sigma", 0.1, 30.0)),
    Family("log-normal", {"mu": real(), "sigma": positive()}, lambda mu, sigma: LogNormal(mu, 2 * sigma.log()),
           swept=("sigma", 0.03, 1.0)),
    Family("gamma", {"shape": positive(2.0), "rate": positive()}, Gamma, swept=("shape", 0.1, 30.0)),
    Family("laplace", {"mu": real(), "scale": positive()}, Laplace, swept=("scale", 0.1, 30.0)),
    Family("beta", {"a": positive(2.0), "b": positive(2.0)}, Beta, swept=("a", 0.1, 30.0)))}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A member of a family: q(z; v)."""

    family: Family
    at: dict[str, float] = field(hash=False)

    def with_(self, name: str, value: float) -> Member:
        """The same with another value of one parameter."""
        return Member(self.family, {**self.at, name: value})

    @cached_property
    def distribution(self) -> Distribution:
        """The distribution whose stable form is w, in float64."""
        return self.family.build(*(Tensor(np.array(value)) for value in self.at.values()))

    def z(self, w: Tensor) -> Tensor:
        """z with stable form w."""
        return self.distribution.from_stable(w) if self.family.z is None else self.family.z(w, *self.at.values())

    @property
    def support(self) -> tuple[float, float]:
        """The least and the largest z."""
        with np.errstate(all="ignore"):
            low, high = sorted(self.z(Tensor(np.array([-math.inf, math.inf]))).data.tolist())
        return low, high

    def log_density(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z(w) and the log density of z there, log q(w) - log |dz/dw|."""
        leaf = Tensor(w, requires_grad=True)
        with np.errstate(all="ignore"):
            z = self.z(leaf)
            slope = grad(z.sum(), leaf).data
            return z.data, self.distribution.log_density(Tensor(w)).data - np.log(np.abs(slope))

    def __str__(self) -> str:
        return f"{self.family.name}({', '.join(f'{value:g}' for value in self.at.values())})"


def member(text: str, given: Mapping[str, float] | None = None,
           families: Mapping[str, Family] = GRADIENT_FAMILIES) -> Member:
    """"gamma(3, 2)" as a member of a family; `given` are parameters by name, and those left out have the family's own.

    ValueError names what is wrong and the choices.

    >>> str(member("gamma(3)", {"rate": 2.0}))
    'gamma(3, 2)'
    """
    match = re.fullmatch(r"\s*([a-z-]+)\s*(?:\((.*)\)\s*)?", text)
    family = families.get(match[1]) if match else None
    if match is None or family is None:
        raise ValueError(f"found q {text!r}; expected one of {', '.join(map(str, families.values()))}")
    try:
        numbers = [float(part) for part in match[2].split(",")] if (match[2] or "").strip() else []
    except ValueError:
        raise ValueError(f"found q {text!r}; expected numbers in the bracket: {family}") from None
    parameters = family.parameters
    if 2 <= len(numbers) <= family.most:
        parameters = {f"a{i + 1}": next(iter(parameters.values())) for i in range(len(numbers))}
    elif len(numbers) > len(parameters) or (family.most and numbers):
        raise ValueError(f"found {len(numbers)} in the bracket of q {text!r}; expected {family}")
    inside, given = dict(zip(parameters, numbers, strict=False)), given or {}
    if twice := inside.keys() & given.keys():
        raise ValueError(f"found {min(twice)} twice, in the bracket of q and beside it; give it once")
    given = inside | dict(given)
    for name, value in given.items():
        if name not in parameters:
            raise ValueError(f"found {name} {value:g} with q {family.name}, which has {' and '.join(parameters)}")
        wanted = parameters[name]
        if not wanted.low <= value <= wanted.high or (wanted.whole and value % 1):  # so that NaN fails
            raise ValueError(f"found {name} {value:g} with q {family.name}; expected {wanted}")
    at = {name: float(given.get(name, parameter.default)) for name, parameter in parameters.items()}
    if not at.get("low", 0) < at.get("high", 1):
        raise ValueError(f"found low {at['low']:g} and high {at['high']:g} with q uniform; expected low < high")
    return Member(family, at)


# ---- recipes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a family is reparameterized."""

    family: Family
    way: str
    formula: str  # g in plain notation
    base: str  # "normal" or "uniform": the law of one base variate
    g: Callable[..., Tensor]  # (eps, *parameters) -> z; the first axis of eps counts base variates
    variates: Callable[..., float] = lambda *_: 1  # how many base variates one z takes
    heavy: bool = False  # a tail so long that z**2 has no variance, or a wild one

    def eps(self, q: Member, noise: Noise, count: int) -> Tensor:
        """Draws of the base variates, (variates, count); uniform ones lie inside (0, 1), not on its edge."""
        shape = (int(self.variates(*q.at.values())), count)
        if self.base == "normal":
            return noise.normal(shape, np.float64)
        return noise.uniform(shape, np.float64) + 2.0**-33  # half of their grid's step

    def draw(self, q: Member, noise: Noise, count: int) -> Tensor:
        """z = g(eps; v), (count,)."""
        return self.g(self.eps(q, noise, count), *q.at.values())


RECIPES: dict[str, Recipe] = {}


def recipe(family: Family, *rest: Any, **more: Any) -> None:
    RECIPES[family.name] = Recipe(family, *rest, **more)


def drawable(text: str) -> tuple[Member, Recipe]:
    """"gamma(3, 2)" as a member of a family, with the family's recipe."""
    q = member(text, families={name: row.family for name, row in RECIPES.items()})
    return q, RECIPES[q.family.name]


# ---- 1. inverse distribution function: eps ~ U(0, 1), z = F^-1(eps) --------------------------------------------------
# In the families, w = log E is the stable form of an exponential variate, E ~ Gamma(1, 1), and w = logit U that of a
# uniform one, U ~ Beta(1, 1).

LOCATION = {"location": real(), "scale": positive()}
ONE, HALF = Tensor(np.array(1.0)), Tensor(np.array(0.5))

recipe(Family("exponential", {"rate": positive()}, lambda rate: Gamma(ONE, rate)),
       INVERSE, "-log(1 - eps) / rate", "uniform", lambda eps, rate: -(-eps[0]).log1p() / rate)
recipe(Family("logistic", LOCATION, lambda *_: Beta(ONE, ONE), lambda w, location, scale: location + scale * w),
       INVERSE, "location + scale * log(eps / (1 - eps))", "uniform",
       lambda eps, location, scale: location + scale * (eps[0].log() - (-eps[0]).log1p()))
recipe(Family("gumbel", LOCATION, lambda *_: Gamma(ONE, ONE), lambda w, location, scale: location - scale * w),
       INVERSE, "location - scale * log(-log(eps))", "uniform",
       lambda eps, location, scale: location - scale * (-eps[0].log()).log())
# (1 + x / sqrt(1 + x^2)) / 2 of a Cauchy variate x is Beta(1/2, 1/2), and its logit is 2 asinh x
recipe(Family("cauchy", LOCATION, lambda *_: Beta(HALF, HALF),
              lambda w, location, scale: location + scale * 0.5 * ((0.5 * w).exp() - (-0.5 * w).exp())),
       INVERSE, "location + scale * tan(pi (eps - 1/2))", "uniform",
       lambda eps, location, scale: location + scale * (math.pi * (eps[0] - 0.5)).tan(), heavy=True)
recipe(Family("rayleigh", {"scale": positive()}, lambda *_: Gamma(ONE, ONE),
              lambda w, scale: LogTensor(math.log(scale) + 0.5 * (math.log(2) + w))),
       INVERSE, "scale * sqrt(-2 log(1 - eps))", "uniform",
       lambda eps, scale: scale * (-2.0 * (-eps[0]).log1p()).sqrt())
recipe(Family("weibull", {"shape": positive(2.0), "scale": positive()}, lambda *_: Gamma(ONE, ONE),
              lambda w, shape, scale: LogTensor(math.log(scale) + w / shape)),
       INVERSE, "scale * (-log(1 - eps))**(1 / shape)", "uniform",
       lambda eps, shape, scale: scale * (-(-eps[0]).log1p()) ** (1 / shape))
recipe(Family("pareto", {"shape": positive(3.0), "scale": positive()}, lambda *_: Gamma(ONE, ONE),
              lambda w, shape, scale: LogTensor(math.log(scale) + w.exp() / shape)),
       INVERSE, "scale * (1 - eps)**(-1 / shape)", "uniform",
       lambda eps, shape, scale: scale * (1 - eps[0]) ** (-1 / shape), heavy=True)

# ---- 2. location and scale: z = location + scale * eps ---------------------------------------------------------------

recipe(GRADIENT_FAMILIES["normal"], LOCATION_SCALE, "mu + sigma * eps, eps ~ N(0, 1)", "normal",
       lambda eps, mu, sigma: mu + sigma * eps[0])
# the logarithms of two uniform numbers are exponential variates, and the difference of two of these is Laplace's
recipe(GRADIENT_FAMILIES["laplace"], LOCATION_SCALE, "mu + scale * eps, eps = log(u1 / u2) ~ Laplace(0, 1)", "uniform",
       lambda eps, mu, scale: mu + scale * (eps[0].log() - eps[1].log()), lambda *_: 2)
recipe(Family("uniform", {"low": real(), "high": real(1.0)}, lambda *_: Beta(ONE, ONE),
              lambda w, low, high: low + (high - low) * w.sigmoid()),
       LOCATION_SCALE, "low + (high - low) * eps, eps ~ U(0, 1)", "uniform",
       lambda eps, low, high: low + (high - low) * eps[0])

# ---- 3. composition: other variates put together ---------------------------------------------------------------------


def whole(default: float) -> Parameter:
    return Parameter(default, 1, 100, whole=True)


def gammas(eps: Tensor, *counts: float) -> list[Tensor]:
    """Independent Gamma(n, 1) for each whole n: the sum of n exponential variates, -log(u1 u2 ... un)."""
    ends = np.cumsum([0, *counts]).astype(int).tolist()
    return [-eps[start:end].log().sum(0) for start, end in itertools.pairwise(ends)]


def share(eps: Tensor, *counts: float) -> Tensor:
    """The first of several Gamma variates, as a part of all."""
    first, *others = gammas(eps, *counts)
    return first / sum(others, first)


recipe(replace(GRADIENT_FAMILIES["log-normal"], parameters={"mu": real(), "sigma": positive(0.5)}),
       COMPOSITION, "exp(mu + sigma * eps), eps ~ N(0, 1)", "normal",
       lambda eps, mu, sigma: (mu + sigma * eps[0]).exp(), heavy=True)
recipe(replace(GRADIENT_FAMILIES["gamma"], parameters={"shape": whole(3.0), "rate": positive()}),
       COMPOSITION, "the sum of -log(u) over so many uniform u as its shape, / rate", "uniform",
       lambda eps, shape, rate: gammas(eps, shape)[0] / rate, lambda shape, rate: shape)
recipe(Family("chi-square", {"degrees": whole(3.0)}, lambda degrees: Gamma(degrees / 2, HALF)),
       COMPOSITION, "the sum of eps**2 over so many eps ~ N(0, 1) as its degrees of freedom", "normal",
       lambda eps, degrees: (eps * eps).sum(0), lambda degrees: degrees)
# d1 z / (d1 z + d2) is Beta(d1 / 2, d2 / 2), and its logit is log(d1 z / d2)
recipe(Family("f", {"d1": whole(4.0), "d2": whole(12.0)}, lambda d1, d2: Beta(d1 / 2, d2 / 2),
              lambda w, d1, d2: LogTensor(w + math.log(d2 / d1))),
       COMPOSITION, "the mean of eps**2 over d1 eps ~ N(0, 1), / that over d2 others", "normal",
       lambda eps, d1, d2: (eps[: int(d1)] ** 2).mean(0) / (eps[int(d1) :] ** 2).mean(0), lambda d1, d2: d1 + d2,
       heavy=True)
recipe(replace(GRADIENT_FAMILIES["beta"], parameters={"a": whole(2.0), "b": whole(3.0)}),
       COMPOSITION, "G1 / (G1 + G2), Gamma variates of shapes a and b", "uniform", share, lambda a, b: a + b)
recipe(Family("dirichlet", {"a1": whole(2.0), "a2": whole(3.0), "a3": whole(4.0)},
              lambda first, *others: Beta(first, sum(others[1:], others[0])), most=20),
       COMPOSITION, "G1 / (G1 + G2 + ...), Gamma variates; z is the first component", "uniform", share,
       lambda *counts: sum(counts))
