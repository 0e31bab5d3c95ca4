"""A one-dimensional distribution by its name and its numbers: "gamma(3, 2)".

Every q here is a distribution of `tinyvae.distributions`, or a function of one. These keep a draw z in a stable form w
(z itself, log z or logit z), in which the density is smooth and has light tails. So a family is z(w) with w a
distribution's stable form; what is asked of it runs along w.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tinyvae.distributions import Beta, Distribution, Gamma, Laplace, LogNormal, Normal
from tinyvae.engine.tensor import Tensor, grad


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


FAMILIES = {family.name: family for family in (
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
           families: Mapping[str, Family] = FAMILIES) -> Member:
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
