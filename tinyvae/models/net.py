"""A network that gives p(t|c) at once, without a latent variable: what a conditional VAE of the same size has to beat.

Given c, its target's pixels are independent (the baseline NN of Sohn, Lee & Yan 2015, section 5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from tinyvae.distributions import LIKELIHOODS
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Terms
from tinyvae.models.base import Model
from tinyvae.models.batch import Batch
from tinyvae.models.conditions import condition_of, forms


class Net(Model, kind="net"):
    """p(t|c); `given` says what the condition c is."""

    options: ClassVar = {"given": f"What is given: {forms()}."}

    def build(self, pixels: int, shape: Sequence[int], classes: int = 0, given: str = "label",
              hidden: int | Sequence[int] = 400, activation: str = "relu", likelihood: str = "bernoulli") -> None:
        self.condition = c = condition_of(given, shape, classes)
        self.needs, pixel = c.needs, LIKELIHOODS[likelihood].family
        self.decoder = self.network("decoder", c.width, hidden, pixel, len(c.pixels), activation)

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        read = replace(batch, x=self.seen(batch.x))  # of counts log(1 + x)
        return Terms(likelihood=self.decoder(self.condition.of(read)).log_prob(self.target(batch)))

    def answers(self, c: Tensor, noise: Noise, draws: int, temperature: float) -> Tensor:
        mean = self.decoder(c).mean
        return mean.reshape(1, *mean.shape)
