"""Student's t distribution, by location, scale and degrees of freedom: for real data with outliers.

With e = (x - mu) / scale and nu degrees of freedom, and c(nu) the constant by which the density integrates to 1,

    log p(x) = c(nu) - log scale - (nu + 1) / 2 log(1 + e^2 / nu)
    c(nu)    = log Gamma((nu + 1) / 2) - log Gamma(nu / 2) - log(nu pi) / 2

At large nu the two log Gamma are large and cancel. With a = nu / 2 and Stirling's remainder mu (stirling.py) they leave

    c(nu) = a log(1 + 1 / (2 a)) - (1 + log 2 pi) / 2 + mu(a + 1/2) - mu(a)

which goes to -log(2 pi) / 2, that of the normal distribution. The mean exists for nu > 1, the variance for nu > 2. A
draw is mu + scale n / sqrt(G / a) with n ~ N(0, 1) and G ~ Gamma(a, 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.registry import family, likelihood
from tinyvae.distributions.rejection import log_gamma
from tinyvae.distributions.stable import LogTensor, supported
from tinyvae.distributions.stirling import LOG_2PI, remainder, wide
from tinyvae.engine.rules import ANY, POSITIVE, into, rule
from tinyvae.engine.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

LEAST = 3.0  # a network's degrees of freedom lie above it, so that its data have a variance (Mattei & Frellsen 2019)


def _log1p_square(xp: Any, u: Any, out: Any) -> Any:
    size = xp.abs(u)
    near, far = xp.minimum(size, 1), xp.maximum(size, 1)
    return into(out, xp.where(size < 1, xp.log1p(near * near), 2 * xp.log(far) + xp.log1p((1 / far) ** 2)))


def _slope(xp: Any, u: Any, out: Any) -> Any:
    size = xp.abs(u)
    with np.errstate(divide="ignore"):
        near = xp.minimum(size, 1 / size)  # 2 u / (1 + u^2) is the same for u and 1 / u
    return xp.copysign(2 * near / (1 + near * near), u, out=out)


def _slope_grad(g: Tensor, y: Tensor, u: Tensor) -> Tensor:
    # 2 / (1 + u^2) - y^2, where y = 2 u / (1 + u^2)
    small = abs(u) < 1
    near, far = small.where(u, 0.0), small.where(1.0, u)
    return g * (small.where(2 / (1 + near * near), y / far) - y * y)


# log(1 + u^2), also where u^2 overflows, and its derivative
rule("log1p_square", _log1p_square, (lambda g, y, u: g * u.apply("log1p_square_slope"),), (ANY,),
     reference=lambda u: np.log(1 + u * u))
rule("log1p_square_slope", _slope, (_slope_grad,), (ANY,), reference=lambda u: 2 * u / (1 + u * u))


# ---- the constant ----------------------------------------------------------------------------------------------------
# Both functions of df are a kernel each, because here a step would evaluate Stirling's remainder and its derivative
# twice. At tiny a, Gamma(a) is 1 / a: then c = log(a / 2) / 2.

TINY = 1e-150


def _constant(xp: Any, df: Any, out: Any) -> Any:
    (nu,) = wide(xp, df)
    a = xp.clip(0.5 * nu, TINY, 1e150)
    with np.errstate(all="ignore"):
        value = a * xp.log1p(0.5 / a) - 0.5 * (1 + LOG_2PI) + (remainder(xp, a + 0.5, 0) - remainder(xp, a, 0))
        value = xp.where(0.5 * nu < TINY, 0.5 * xp.log(0.25 * nu), value)
        return into(out, xp.where(nu >= 0, value, xp.nan).astype(df.dtype))


def _constant_slope(xp: Any, df: Any, out: Any) -> Any:
    (nu,) = wide(xp, df)
    a = xp.clip(0.5 * nu, TINY, 1e150)
    with np.errstate(all="ignore"):
        value = 0.5 * (xp.log1p(0.5 / a) - 0.5 / (a + 0.5) + (remainder(xp, a + 0.5, 1) - remainder(xp, a, 1)))
        value = xp.where(0.5 * nu < TINY, 0.5 / nu, value)
        return into(out, xp.where(nu >= 0, value, xp.nan).astype(df.dtype))


def _constant_curve(g: Tensor, y: Tensor, df: Tensor) -> Tensor:
    # with a = df / 2, c'(a) = psi(a + 1/2) - psi(a) - 1 / (2 a)
    a = 0.5 * df
    return 0.25 * g * ((a + 0.5).polygamma(1) - a.polygamma(1) + 0.5 / (a * a))


# c(df), and its derivative
rule("student_constant", _constant, (lambda g, y, df: g * df.apply("student_constant_slope"),), (POSITIVE,),
     kernel="student_constant")
rule("student_constant_slope", _constant_slope, (_constant_curve,), (POSITIVE,), kernel="student_constant_slope")


@likelihood("student-t", pixels="real")
@family("student-t")
class StudentT(Distribution):
    """x with density proportional to (1 + ((x - mu) / scale)^2 / df)^(-(df + 1) / 2), elementwise; df > 0."""

    path = "implicit"

    def __init__(self, mu: Tensor, scale: Tensor, df: Tensor) -> None:
        self.mu, self.scale, self.df = mu, scale, df

    parameters = property(lambda self: {"mu": self.mu, "scale": self.scale, "df": self.df})

    @classmethod
    def from_raw(cls, raw: Tensor) -> StudentT:
        """From mu, log scale and a number whose softplus lies above 3 degrees of freedom, side by side."""
        mu, log_scale, df = raw.split(3)
        return cls(mu, LogTensor(log_scale), LEAST + df.softplus())

    @classmethod
    def width(cls, n: int) -> int:
        return 3 * n

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        return mean

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """mu; NaN where df <= 1."""
        return (self.df > 1).where(self.mu, np.nan)

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """scale^2 df / (df - 2); infinite where 1 < df <= 2, NaN below."""
        known = self.df > 2
        df = known.where(self.df, 3.0)
        return known.where(self.scale**2 * (df / (df - 2)), (self.df > 1).where(self.df + np.inf, np.nan))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(x).sum(-1)

    def log_density(self, w: Tensor) -> Tensor:
        possible = supported(w, -np.inf)  # at an infinite w the derivatives, too, are 0
        u = (possible.where(w, 0.0) - self.mu) / self.scale / self.df.sqrt()
        formula = (self.df.apply("student_constant") - self.scale.log()
                   - (0.5 + 0.5 * self.df) * u.apply("log1p_square"))
        return possible.where(formula, -np.inf)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        a = 0.5 * self.df
        normal = noise.normal((samples, *self.mu.shape), self.mu.dtype)
        return self.mu + self.scale * normal * (0.5 * (a.log() - log_gamma(a, noise, samples))).exp()
