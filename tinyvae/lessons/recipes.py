"""Sixteen distributions q(z; v) with a differentiable g(eps; v), by the three recipes of the reparameterization trick.

For z ~ q(z; v) take eps ~ p(eps), a fixed law without parameters, and g with g(eps; v) ~ q(z; v). Then

    E_q[f(z)] = E_eps[f(g(eps; v))],    and the gradient by v passes through g.

AEVB section 2.4 names three ways to find g ("Reparameterization trick"):

1. inverse distribution function:  eps ~ U(0, 1), g = F^-1
2. location and scale:             eps from the standard member, g = location + scale * eps
3. composition:                    g puts together variates that are easy to draw

A family says what q is (a distribution of `tinyvae.distributions`, or a function z(w) of one), and g says how it is
drawn. The two share no arithmetic, so that their agreement is a finding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyvae.distributions import Beta, Gamma, LogTensor
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.lessons.families import FAMILIES, Family, Member, Parameter, member, positive, real

INVERSE, LOCATION_SCALE, COMPOSITION = "inverse distribution function", "location and scale", "composition"


@dataclass(frozen=True)
class Recipe:
    """How a family is reparameterized."""

    family: Family
    way: str
    formula: str  # g as a person writes it
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

recipe(FAMILIES["normal"], LOCATION_SCALE, "mu + sigma * eps, eps ~ N(0, 1)", "normal",
       lambda eps, mu, sigma: mu + sigma * eps[0])
# the logarithms of two uniform numbers are exponential variates, and the difference of two of these is Laplace's
recipe(FAMILIES["laplace"], LOCATION_SCALE, "mu + scale * eps, eps = log(u1 / u2) ~ Laplace(0, 1)", "uniform",
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


recipe(replace(FAMILIES["log-normal"], parameters={"mu": real(), "sigma": positive(0.5)}),
       COMPOSITION, "exp(mu + sigma * eps), eps ~ N(0, 1)", "normal",
       lambda eps, mu, sigma: (mu + sigma * eps[0]).exp(), heavy=True)
recipe(replace(FAMILIES["gamma"], parameters={"shape": whole(3.0), "rate": positive()}),
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
recipe(replace(FAMILIES["beta"], parameters={"a": whole(2.0), "b": whole(3.0)}),
       COMPOSITION, "G1 / (G1 + G2), Gamma variates of shapes a and b", "uniform", share, lambda a, b: a + b)
recipe(Family("dirichlet", {"a1": whole(2.0), "a2": whole(3.0), "a3": whole(4.0)},
              lambda first, *others: Beta(first, sum(others[1:], others[0])), most=20),
       COMPOSITION, "G1 / (G1 + G2 + ...), Gamma variates; z is the first component", "uniform", share,
       lambda *counts: sum(counts))
