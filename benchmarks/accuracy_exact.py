"""Density, entropy and divergence of each family with as many digits as mpmath is told to keep: a row each.

A row's functions take vectors, which are lists of mpmath's numbers: first the parameters, in the order of the family's
constructor, then x, or the parameters of another member. Every formula is the textbook one, whose cancellation leaves
enough of 60 digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath as mp

from tinyvae.distributions import GreyNormal
from tinyvae.distributions.base import Distribution
from tinyvae.engine.tensor import Tensor

Vectors = Sequence[Sequence[Any]]


class Exact(NamedTuple):
    """A family: of each parameter the lowest and the highest number and the length of its vector; its formulas."""

    ranges: list[tuple[float, float, int]]
    log_prob: Callable[..., Any]
    entropy: Callable[..., Any] | None = None
    kl: Callable[..., Any] | None = None
    make: Callable[..., Distribution] | None = None  # where the constructor takes the parameters in another form
    units: tuple[float, float] = (16, 128)  # the bound of all its errors in float32 and in float64: see accuracy.py


def of_first(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers as one of vectors of one number."""
    return lambda *vectors: f(*(v[0] for v in vectors))


def softplus(a: Any) -> Any:
    return mp.log1p(mp.exp(a))


def sigmoid(a: Any) -> Any:
    return 1 / (1 + mp.exp(-a))


# ---- normal, log-normal, Laplace -------------------------------------------------------------------------------------


def normal(mu: Any, v: Any, x: Any) -> Any:
    return -(mp.log(2 * mp.pi) + v + (x - mu) ** 2 * mp.exp(-v)) / 2


def normal_entropy(mu: Any, v: Any) -> Any:
    return (mp.log(2 * mp.pi) + 1 + v) / 2


def normal_kl(mu: Any, v: Any, mu0: Any, v0: Any) -> Any:
    return (v0 - v + (mp.exp(v) + (mu - mu0) ** 2) * mp.exp(-v0) - 1) / 2


def laplace_kl(mu: Any, b: Any, mu0: Any, b0: Any) -> Any:
    return mp.log(b0 / b) + abs(mu - mu0) / b0 + b / b0 * mp.exp(-abs(mu - mu0) / b) - 1


def factor(v: Sequence[Any], lower: Sequence[Any]) -> Any:
    return mp.matrix([[mp.exp(v[0] / 2), 0], [lower[0], mp.exp(v[1] / 2)]])


def full_normal(mu: Sequence[Any], v: Sequence[Any], lower: Sequence[Any], x: Sequence[Any]) -> Any:
    first = (x[0] - mu[0]) * mp.exp(-v[0] / 2)
    second = (x[1] - mu[1] - lower[0] * first) * mp.exp(-v[1] / 2)
    return -(2 * mp.log(2 * mp.pi) + v[0] + v[1] + first**2 + second**2) / 2


def full_normal_kl(mu: Any, v: Any, lower: Any, mu0: Any, v0: Any, lower0: Any) -> Any:
    inverse = mp.inverse(factor(v0, lower0))
    ratio, d = inverse * factor(v, lower), inverse * mp.matrix([mu[0] - mu0[0], mu[1] - mu0[1]])
    squares = sum(r**2 for r in ratio) + d[0] ** 2 + d[1] ** 2
    return (squares - 2 + v0[0] + v0[1] - v[0] - v[1]) / 2


# ---- discrete --------------------------------------------------------------------------------------------------------


def log_softmax(logits: Sequence[Any]) -> list[Any]:
    total = mp.log(sum(map(mp.exp, logits)))
    return [a - total for a in logits]


def categorical(logits: Sequence[Any], x: Sequence[Any]) -> Any:
    return sum(a * b for a, b in zip(log_softmax(logits), x, strict=True))


def categorical_kl(q: Sequence[Any], p: Sequence[Any]) -> Any:
    return sum(mp.exp(a) * (a - b) for a, b in zip(log_softmax(q), log_softmax(p), strict=True))


def bernoulli_kl(q: Any, p: Any) -> Any:
    return sigmoid(q) * (q - p) - softplus(q) + softplus(p)


def log_integral(l: Any) -> Any:
    """The logarithm of the integral of exp(l x) from 0 to 1, whose derivative is the mean of a continuous Bernoulli."""
    return mp.log(mp.expm1(l) / l)


def mean_of_grey(l: Any) -> Any:
    return 1 + 1 / mp.expm1(l) - 1 / l


# ---- Gamma, Beta, Dirichlet, Poisson ---------------------------------------------------------------------------------


def gap(a0: Any, a: Any) -> Any:
    """The divergence of log Gamma as a convex function."""
    return mp.loggamma(a0) - mp.loggamma(a) - (a0 - a) * mp.digamma(a)


def gamma(a: Any, b: Any, x: Any) -> Any:
    return a * mp.log(b) - mp.loggamma(a) + (a - 1) * mp.log(x) - b * x


def gamma_entropy(a: Any, b: Any) -> Any:
    return a - mp.log(b) + mp.loggamma(a) + (1 - a) * mp.digamma(a)


def gamma_kl(a: Any, b: Any, a0: Any, b0: Any) -> Any:
    return gap(a0, a) + a0 * mp.log(b / b0) + a * (b0 / b - 1)


def log_normaliser(a: Sequence[Any]) -> Any:
    return sum(map(mp.loggamma, a)) - mp.loggamma(sum(a))


def dirichlet(a: Sequence[Any], x: Sequence[Any]) -> Any:
    """At x / sum x: the last digit of a sum of 1 that is not 1 would count."""
    total = sum(x)
    return sum((p - 1) * mp.log(z / total) for p, z in zip(a, x, strict=True)) - log_normaliser(a)


def dirichlet_entropy(a: Sequence[Any]) -> Any:
    s = sum(a)
    return log_normaliser(a) + (s - len(a)) * mp.digamma(s) - sum((p - 1) * mp.digamma(p) for p in a)


def dirichlet_kl(a: Sequence[Any], a0: Sequence[Any]) -> Any:
    return sum(map(gap, a0, a)) - gap(sum(a0), sum(a))


def poisson(rate: Any, x: Any) -> Any:
    return x * mp.log(rate) - rate - mp.loggamma(x + 1)


def negative_binomial(m: Any, t: Any, x: Any) -> Any:
    return (mp.loggamma(x + t) - mp.loggamma(t) - mp.loggamma(x + 1) + t * mp.log(t / (t + m))
            + x * mp.log(m / (t + m)))


def student_t(mu: Any, scale: Any, df: Any, x: Any) -> Any:
    return (mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(df * mp.pi) / 2 - mp.log(scale)
            - (df + 1) / 2 * mp.log1p(((x - mu) / scale) ** 2 / df))


def grey(location: Tensor, logvar: Tensor) -> GreyNormal:
    return GreyNormal(location.concatenate(logvar, axis=-1))


FAR, LOGVAR, SHAPE = (-1e4, 1e4, 1), (-40.0, 40.0, 1), (1e-3, 1e6, 1)
EXACT: dict[str, Exact] = {
    "normal": Exact([FAR, LOGVAR], of_first(normal), of_first(normal_entropy), of_first(normal_kl)),
    "log-normal": Exact([(-20.0, 20.0, 1), (-40.0, 4.0, 1)],
                        of_first(lambda mu, v, x: normal(mu, v, mp.log(x)) - mp.log(x)),
                        of_first(lambda mu, v: normal_entropy(mu, v) + mu), of_first(normal_kl)),
    "full-normal": Exact([(-1e4, 1e4, 2), (-40.0, 40.0, 2), (-10.0, 10.0, 1)], full_normal,
                         lambda mu, v, lower: normal_entropy(mu, v[0]) + normal_entropy(mu, v[1]), full_normal_kl),
    "grey-normal": Exact([(-30.0, 30.0, 1), LOGVAR], of_first(lambda l, v, x: normal(sigmoid(l), v, x)),
                         of_first(normal_entropy), make=grey),
    "laplace": Exact([FAR, (1e-6, 1e6, 1)], of_first(lambda mu, b, x: -mp.log(2 * b) - abs(x - mu) / b),
                     of_first(lambda mu, b: 1 + mp.log(2 * b)), of_first(laplace_kl)),
    "bernoulli": Exact([(-80.0, 80.0, 1)], of_first(lambda l, x: x * l - softplus(l)),
                       of_first(lambda l: softplus(l) - l * sigmoid(l)), of_first(bernoulli_kl)),
    "categorical": Exact([(-80.0, 80.0, 3)], categorical, lambda l: -sum(a * mp.exp(a) for a in log_softmax(l)),
                         categorical_kl, units=(64, 128)),
    "continuous-bernoulli": Exact([(-80.0, 80.0, 1)], of_first(lambda l, x: x * l - log_integral(l)),
                                  of_first(lambda l: log_integral(l) - l * mean_of_grey(l)),
                                  of_first(lambda l, l0: mean_of_grey(l) * (l - l0) - log_integral(l)
                                           + log_integral(l0))),
    "gamma": Exact([SHAPE, (1e-4, 1e4, 1)], of_first(gamma), of_first(gamma_entropy), of_first(gamma_kl)),
    "beta": Exact([SHAPE, SHAPE], of_first(lambda a, b, x: dirichlet([a, b], [x, 1 - x])),
                  of_first(lambda a, b: dirichlet_entropy([a, b])),
                  of_first(lambda a, b, a0, b0: dirichlet_kl([a, b], [a0, b0]))),
    "dirichlet": Exact([(1e-3, 1e6, 3)], dirichlet, dirichlet_entropy, dirichlet_kl),
    "poisson": Exact([(1e-4, 1e6, 1)], of_first(poisson), kl=of_first(
        lambda a, b: a * mp.log(a / b) + b - a)),
    "negative-binomial": Exact([(1e-4, 1e6, 1), SHAPE], of_first(negative_binomial), units=(64, 128)),
    "student-t": Exact([FAR, (1e-6, 1e6, 1), (1e-2, 1e6, 1)], of_first(student_t)),
}  # fmt: skip
