"""Lower bounds on the evidence log p(x), in nats per datum: higher is better.

log p(x) = ELBO + KL(q(z|x) || p(z|x)), and that KL is not negative, hence the name of the evidence lower bound:
ELBO = E_q[log p(x, z) - log q(z|x)] = E_q[log p(x|z)] - KL(q(z|x) || p(z)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tinyvae.distributions import Distribution, kl_per_dimension
from tinyvae.tensor import Tensor

if TYPE_CHECKING:
    from tinyvae.noise import Noise

BOUNDS = ("elbo-a", "elbo-b")


class Generator(Protocol):
    """A generative model: a prior p(z) and, given z, a likelihood p(x|z)."""

    @property
    def prior(self) -> Distribution: ...

    def likelihood(self, z: Tensor) -> Any: ...


class Terms(NamedTuple):
    """The two terms of a bound, each (batch,), in nats: the bound is reconstruction - kl."""

    reconstruction: Tensor  # E_q[log p(x|z)], by sampling
    kl: Tensor  # KL(q(z|x) || p(z)); sampled (elbo-a) it may be negative, in closed form it is not


def terms(p: Generator, q: Callable[[Tensor], Any], x: Tensor, noise: Noise, samples: int = 1,
          bound: str = "elbo-b") -> Terms:
    """The terms of estimator A or B for a batch x (batch, pixels), with `samples` draws of z a datum."""
    posterior = q(x)  # q(z|x), (batch, latent)
    if bound == "elbo-b":  # AEVB eq. (7): the KL in closed form, only the reconstruction sampled
        # z = mu + sigma eps, (samples, batch, latent), and KL = 1/2 sum mu^2 + sigma^2 - 1 - log sigma^2, (batch,):
        # written out in distributions/normal.py, and as one kernel's twin in fusion.py
        z, kl = posterior.sample_with_kl(p.prior, noise, samples)
        return Terms(_over_samples(p.likelihood(z).log_prob(x)), kl)
    if bound == "elbo-a":  # AEVB eq. (6): everything sampled
        z = posterior.sample(noise, samples)
        kl = _over_samples(posterior.log_prob(z) - p.prior.log_prob(z))
        return Terms(_over_samples(p.likelihood(z).log_prob(x)), kl)
    raise ValueError(f"found bound {bound!r}; expected one of {', '.join(BOUNDS)}")


def _over_samples(values: Tensor) -> Tensor:
    """The mean of (samples, batch) over the samples; of one, without computing."""
    return values.reshape(values.shape[1:]) if len(values) == 1 else values.mean(0)


def elbo(p: Generator, q: Callable[[Tensor], Any], x: Tensor, noise: Noise, samples: int = 1,
         bound: str = "elbo-b") -> Tensor:
    """The evidence lower bound of each datum, (batch,), in nats."""
    reconstruction, kl = terms(p, q, x, noise, samples, bound)
    return reconstruction - kl


def free_bits_kl(posterior: Distribution, prior: Distribution, floor: float) -> Tensor:
    """sum_j max(floor, mean over the batch of KL_j), one number in nats.

    A dimension pays nothing for its first `floor` nats, so it is not given up early in training (Kingma & Welling
    2019, section 2.8). The bound that is reported keeps the plain KL.
    """
    return kl_per_dimension(posterior, prior).mean(0).maximum(floor).sum()
