"""A conditional VAE (Sohn, Lee & Yan 2015): p(t|c) = E_p(z|c)[p(t|z, c)] for a target t and a condition c.

    log p(t|c) >= E_q(z|t,c)[log p(t|z, c)] - KL(q(z|t, c) || p(z|c))                                         (eq. 4)

The prior p(z|c) is a network, too. Where it is normal, as q is, their KL has a closed form (distributions/normal.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from tinyvae.distributions import LIKELIHOODS, Distribution, prior_family
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.flows import posterior_family
from tinyvae.inference.bounds import Generator, Joint
from tinyvae.models.base import Model, widths_of
from tinyvae.models.batch import Batch
from tinyvae.models.conditions import condition_of, forms


class CVAE(Model, kind="cvae"):
    """p(z|c), q(z|t, c) and p(t|z, c), each a network; `given` says what the condition c is."""

    options: ClassVar = {"given": f"What is given: {forms()}."}

    def build(self, pixels: int, shape: Sequence[int], classes: int = 0, given: str = "label",
              hidden: int | Sequence[int] = 400, latent: int = 20, activation: str = "relu",
              likelihood: str = "bernoulli", posterior: str = "normal") -> None:
        self.condition = c = condition_of(given, shape, classes)
        self.needs = c.needs
        family, pixel = posterior_family(posterior, latent, widths_of(hidden)), LIKELIHOODS[likelihood].family
        self.prior = self.network("prior", c.width, hidden, prior_family(posterior), latent, activation)
        self.encoder = self.network("encoder", c.seen_widths(), hidden, family, latent, activation)
        self.decoder = self.network("decoder", (latent, c.width), hidden, pixel, len(c.pixels), activation)

    def generator(self, batch: Batch | None) -> Generator:
        if batch is None:
            raise ValueError(f"found no condition for a cvae; it generates when it is given {self.condition.words}")
        c = self.condition.of(self.read(batch))
        return Joint(self.prior(c), lambda z: self.decoder(z, c))

    def posterior(self, batch: Batch) -> Distribution:
        return self.encoder(*self.condition.seen(self.read(batch)))

    def read(self, batch: Batch) -> Batch:
        """The batch as networks read it: of counts log(1 + x)."""
        return replace(batch, x=self.seen(batch.x))

    def answers(self, c: Tensor, noise: Noise, draws: int, temperature: float) -> Tensor:
        prior = self.prior(c)
        z = prior.mean + temperature * (prior.sample(noise, draws) - prior.mean)
        return self.decoder(z, c).mean
