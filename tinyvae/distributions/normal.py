"""The normal distribution with a diagonal covariance, and its form for grey pixels, whose mean is a sigmoid.

The parameter is logvar = log sigma^2, everywhere under this name. With log q(z) = -1/2 (log 2 pi + logvar +
(z - mu)^2 / sigma^2) and E_q[(z - m)^2] = sigma^2 + (mu - m)^2, the KL of q from p = N(m, s^2) is

    E_q[log q(z) - log p(z)] = 1/2 (sigma^2 / s^2 + (mu - m)^2 / s^2 - 1 - log(sigma^2 / s^2))

and for p = N(0, 1) it is 1/2 (mu^2 + sigma^2 - 1 - log sigma^2) (AEVB appendix B). With t = log(sigma^2 / s^2) and
z = (mu - m) / s it is computed as 1/2 ((exp(t) - 1 - t) + z^2), whose two terms are not negative (divergence.py).

A deviation is divided by sigma before it is squared, by a row that knows sigma's logarithm (stable.py), so densities,
KLs and their derivatives are right at every finite logvar at which they do not overflow themselves. A KL keeps 64
rounding units of its value in both types, from the row that draws as well 32; it is never negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form, kl
from tinyvae.distributions.pixel_rows import pixel_log_prob
from tinyvae.distributions.registry import family, likelihood
from tinyvae.engine.devices import CPU, Namespace, namespace_of, to_host
from tinyvae.engine.rules import ANY, of_shapes, rule
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

LOG_2PI = math.log(2 * math.pi)


@likelihood("normal", pixels="real")
@family("normal", prior=("normal", 0.0, 0.0))  # N(0, 1)
class Normal(Distribution):
    """N(mu, exp(logvar)), elementwise. `raw` is the network's output that holds both side by side, if there is one."""

    def __init__(self, mu: Tensor, logvar: Tensor, raw: Tensor | None = None) -> None:
        self.mu, self.logvar, self.raw = mu, logvar, raw
        self.mean = mu

    path = "reparam"
    parameters = property(lambda self: {"mu": self.mu, "logvar": self.logvar})
    variance = property(lambda self: self.logvar.exp())

    @classmethod
    def from_raw(cls, raw: Tensor) -> Normal:
        """From one tensor (batch, 2 n): mu in the first half of the last axis, logvar in the second."""
        mu, logvar = raw.split(2)
        return cls(mu, logvar, raw)

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        return mean

    @classmethod
    def standard(cls, size: int, dtype: Any = np.float32, xp: Namespace = CPU) -> Normal:
        """N(0, 1) in `size` dimensions."""
        return cls(Tensor(xp.zeros(size, dtype)), Tensor(xp.zeros(size, dtype)))

    @property
    def sigma(self) -> Tensor:
        """The standard deviation."""
        return (0.5 * self.logvar).exp()

    def is_standard(self) -> bool:
        """Is this N(0, 1) itself: zeros that nothing computed and that nothing trains?"""
        return all(t.launch is None and not t.requires_grad and not to_host(t.data).any()
                   for t in (self.mu, self.logvar))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(x).sum(-1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return self.at(self.noise(noise, samples))

    def draw(self, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        eps = self.noise(noise, samples)
        return self.at(eps), -0.5 * (LOG_2PI + self.logvar + eps * eps).sum(-1)  # (z - mu) / sigma is eps itself

    def noise(self, noise: Noise, samples: int) -> Tensor:
        """eps ~ N(0, 1), (samples, batch, n)."""
        return noise.normal((samples, *self.mu.shape), self.mu.dtype)

    def at(self, eps: Tensor) -> Tensor:
        """The reparameterization trick: eps is drawn outside, and z = mu + sigma eps is a smooth function of mu and
        logvar (AEVB eq. (4))."""
        return self.mu + self.sigma * eps

    def entropy(self) -> Tensor:
        return (0.5 * (LOG_2PI + 1 + self.logvar)).sum(-1)

    def log_density(self, w: Tensor) -> Tensor:
        z = self.standardise(w)
        return -0.5 * (LOG_2PI + self.logvar + z * z)

    def standardise(self, w: Tensor) -> Tensor:
        return w if self.is_standard() else (w - self.mu).apply("over_exp", 0.5 * self.logvar)

    def _moments(self) -> tuple[Tensor, Tensor]:
        return self.mu, self.sigma

    def sample_with_kl(self, prior: Distribution, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        if self.raw is not None and isinstance(prior, Normal):
            if prior.is_standard():
                return apply("gaussian_sample_kl", self.raw, self.noise(noise, samples))
            if prior.raw is not None and prior.raw.shape == self.raw.shape:
                return apply("gaussian_sample_kl_from", self.raw, prior.raw, self.noise(noise, samples))
        return super().sample_with_kl(prior, noise, samples)


@closed_form(Normal, Normal)
def _kl(q: Normal, p: Normal) -> Tensor:
    z = p.standardise(q.mu)
    return 0.5 * ((q.logvar - p.logvar).apply("exp_remainder") + z * z)


# ---- a sample and KL(q(z|x) || N(0, 1)) in one pass ------------------------------------------------------------------


def _sample_kl(raw: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    q = Normal.from_raw(raw)
    return q.at(eps), kl(q, Normal.standard(eps.shape[-1], eps.dtype, namespace_of(eps.data)))


def _sample_kl_grads(g: Any, y: Any, raw: Tensor, eps: Tensor) -> tuple[Tensor, None]:
    return g[0].contiguous().apply("gaussian_sample_kl_grad", g[1].contiguous(), raw, eps), None


def _sample_kl_grad(dz: Tensor, dkl: Tensor, raw: Tensor, eps: Tensor) -> Tensor:
    q, by_kl = Normal.from_raw(raw), dkl.reshape(-1, 1)
    by_mu = dz.sum(0) + by_kl * q.mu  # dz/dmu = 1, dKL/dmu = mu
    by_logvar = 0.5 * ((dz * eps).sum(0) * q.sigma + by_kl * q.logvar.expm1())  # dz/dlogvar = sigma eps / 2
    return by_mu.concatenate(by_logvar, axis=-1)


# raw is (batch, 2 latent), mu and logvar side by side; eps is (samples, batch, latent)
rule("gaussian_sample_kl", twin=_sample_kl, grads=_sample_kl_grads, domain=(ANY, ANY), outputs=2, constants=(1,),
     kernel="gaussian_sample_kl",
     accepts=of_shapes(lambda raw, eps: len(eps) == 3 and raw == (eps[1], 2 * eps[2])),
     flops=lambda z, raw, eps: 4 * raw.size + 2 * eps.size)
rule("gaussian_sample_kl_grad", twin=_sample_kl_grad, domain=(ANY, ANY, ANY, ANY), kernel="gaussian_sample_kl_grad",
     accepts=of_shapes(lambda dz, dkl, raw, eps: len(eps) == 3 and dz == eps and dkl == eps[1:2]
                       and raw == (eps[1], 2 * eps[2])),
     flops=lambda y, dz, dkl, raw, eps: 5 * raw.size + 3 * eps.size)


# ---- a sample and KL(q(z|x) || p(z|c)) in one pass, where both are normal --------------------------------------------


def _sample_kl_from(raw: Tensor, other: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    q = Normal.from_raw(raw)
    return q.at(eps), kl(q, Normal.from_raw(other))


def _sample_kl_from_grads(g: Any, y: Any, raw: Tensor, other: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, None]:
    by_raw, by_other = g[0].contiguous().apply("gaussian_sample_kl_from_grad", g[1].contiguous(), raw, other, eps)
    return by_raw, by_other, None


def _sample_kl_from_grad(dz: Tensor, dkl: Tensor, raw: Tensor, other: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    q, p, by_kl = Normal.from_raw(raw), Normal.from_raw(other), dkl.reshape(-1, 1)
    z = p.standardise(q.mu)  # KL = (exp(t) - 1 - t + z^2) / 2 with t = logvar - log s^2
    by_mu, by_logvar = by_kl * z.apply("over_exp", 0.5 * p.logvar), 0.5 * by_kl * (q.logvar - p.logvar).expm1()
    by_raw = (dz.sum(0) + by_mu).concatenate(0.5 * ((dz * eps).sum(0) * q.sigma) + by_logvar, axis=-1)
    return by_raw, (-by_mu).concatenate(-by_logvar - 0.5 * by_kl * z * z, axis=-1)


# raw and other are (batch, 2 latent), mean and log-variance of q and of p side by side; eps is (samples, batch, latent)
rule("gaussian_sample_kl_from", twin=_sample_kl_from, grads=_sample_kl_from_grads, domain=(ANY, ANY, ANY), outputs=2,
     constants=(2,), kernel="gaussian_sample_kl_from",
     accepts=of_shapes(lambda raw, other, eps: len(eps) == 3 and raw == other == (eps[1], 2 * eps[2])),
     flops=lambda z, raw, other, eps: 8 * raw.size + 2 * eps.size)
rule("gaussian_sample_kl_from_grad", twin=_sample_kl_from_grad, domain=(ANY,) * 5, outputs=2,
     kernel="gaussian_sample_kl_from_grad",
     accepts=of_shapes(lambda dz, dkl, raw, other, eps: len(eps) == 3 and dz == eps and dkl == eps[1:2]
                       and raw == other == (eps[1], 2 * eps[2])),
     flops=lambda y, dz, dkl, raw, other, eps: 10 * raw.size + 3 * eps.size)


@likelihood("gaussian", pixels="grey")
@family("grey-normal")
class GreyNormal(Distribution):
    """Grey pixels: N(sigmoid(a), exp(logvar)), the mean inside (0, 1) (AEVB section 5, Frey faces).

    `raw` (batch, 2 n) holds a and logvar side by side. A density: log_prob may be above 0.
    """

    path = "reparam"

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw
        self.activation, self.logvar = raw.split(2)

    parameters = property(lambda self: {"raw": self.raw})

    @classmethod
    def from_raw(cls, raw: Tensor) -> GreyNormal:
        return cls(raw)

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        return np.log(mean / (1 - mean))  # the inverse of the sigmoid

    variance = property(lambda self: self.logvar.exp())

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.activation.sigmoid()

    def log_prob(self, x: Tensor) -> Tensor:
        return apply("gaussian_log_prob", self.raw, x)[0]

    def log_density(self, w: Tensor) -> Tensor:
        return Normal(self.mean, self.logvar).log_density(w)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return Normal(self.mean, self.logvar).sample(noise, samples)

    def entropy(self) -> Tensor:
        return Normal(self.mean, self.logvar).entropy()


def _grey_log_prob(raw: Tensor, x: Tensor) -> Tensor:
    a, logvar = raw.split(2)
    return Normal(a.sigmoid(), logvar).log_prob(x)


pixel_log_prob("gaussian_log_prob", _grey_log_prob, per_pixel=2, flops=9)
