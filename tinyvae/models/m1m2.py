"""M1+M2: M2 on the latents of M1 (Kingma, Rezende, Mohamed & Welling 2014, section 3.1), in one run of two phases.

First a VAE with latents z1 learns from all data. Then its networks stay as they are, and M2 learns from draws of
q(z1|x): p(y) p(z2) p(z1|y, z2) with q(y|z1) and q(z2|z1, y). Together they are a model of x,

    log p(x) >= E_q(z1|x)[log p(x|z1) - log q(z1|x) - U(z1)],

since -U(z1) is a bound on M2's log p(z1): the `reconstruction`, and a `kl` that is at least that of q(z1|x) to M2's
p(z1). Evaluations give this bound; the records of the first phase give that of the VAE alone, whose p(z1) is N(0, I).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from tinyvae.choices import chosen
from tinyvae.distributions import LIKELIHOODS, Normal
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Joint, Terms, terms_of
from tinyvae.models.base import Phase, widths_of
from tinyvae.models.batch import Batch
from tinyvae.models.m2 import M2, check_alpha


class M1M2(M2, kind="m1m2"):
    """The VAE encoder, decoder; and q_y, q_z, p_x of M2, which read z1 in place of x."""

    bound = ("reconstruction", "kl")
    options: ClassVar = {
        "alpha": M2.options["alpha"], "features": "The number of dimensions of z1, the latents of M1.",
        "first_epochs": "The number of epochs of the first phase, in which M1 learns.",
        "hidden2": "The width of the hidden layer of M2's networks.",
    }  # fmt: skip

    def build(self, pixels: int, classes: int = 10, hidden: int | Sequence[int] = 400, latent: int = 20,
              activation: str = "relu", alpha: float = 1.0, likelihood: str = "bernoulli",
              posterior: str = "normal", features: int = 50, first_epochs: int = 20, hidden2: int = 300) -> None:
        pixel = chosen("likelihood", likelihood, LIKELIHOODS).family
        check_alpha(alpha)
        if first_epochs < 1:
            raise ValueError(f"found first_epochs={first_epochs}; expected at least 1, in which M1 learns")
        self.encoder = self.network("encoder", pixels, hidden, Normal, features, activation)
        self.decoder = self.network("decoder", features, widths_of(hidden)[::-1], pixel, pixels, activation)
        self.standard = Normal.standard(features, self.dtype, self.xp)
        self.declare(features, classes, hidden2, latent, activation, Normal, posterior)
        self.weights = {"kl": -1.0, "classifier": alpha}

    def phases(self) -> Sequence[Phase]:
        return (Phase("m1", self.first, ("encoder", "decoder"), self.config["first_epochs"]),
                Phase("m2", self.second, ("q_y", "q_z", "p_x")))

    def q(self, x: Tensor) -> Normal:
        """q(z1|x), whose network reads log(1 + x) of counts."""
        return self.encoder(self.seen(x))

    def read(self, x: Tensor) -> Tensor:
        """What q_y and q_z read: z1 as it is."""
        return x

    def first(self, batch: Batch, draw: Draw) -> Terms:
        """The terms of M1, a VAE."""
        return terms_of(Joint(self.standard, self.decoder), self.q, batch.x, draw)

    def second(self, batch: Batch, draw: Draw) -> Terms:
        """The terms of M2 for draws of z1; records show those of the bound on log p(x) beside them."""
        q = self.q(batch.x)
        z = q.sample(draw.noise)
        seen = batch.labelled
        if seen is not None:
            with draw.of(seen):
                seen = replace(seen, x=self.q(seen.x).sample(draw.noise)[0].detach())
        inner = super().terms(replace(batch, x=z[0].detach(), labelled=seen), draw)
        shown = self.stacked(batch.x, z, q, inner["unlabelled"])
        return Terms(inner.reported | dict(shown), **inner)

    def stacked(self, x: Tensor, z: Tensor, q: Normal, inner: Tensor) -> Terms:
        """The terms of the bound on log p(x), for a draw z (1, rows, features) and -U(z) in `inner`."""
        return Terms(reconstruction=self.decoder(z).log_prob(x)[0], kl=q.log_prob(z)[0] - inner)

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        q = self.q(batch.x)
        z = q.sample(draw.noise)
        return self.stacked(batch.x, z, q, self.unlabelled(z[0], draw))

    def log_weights(self, batch: Batch, draw: Draw, samples: int) -> Tensor:
        """Each weight is p(x|z1) / q(z1|x) times the weight of M2 for that draw of z1, whose mean is p(z1)."""
        q = self.q(batch.x)
        z, log_q = q.draw(draw.noise, samples)
        rows = z.reshape(-1, z.shape[-1])
        inner = self.class_weights(rows, draw, 1).logsumexp(1).reshape(samples, -1)
        return self.decoder(z).log_prob(batch.x) - log_q + inner

    def classify(self, batch: Batch) -> Tensor:
        return self.q_y(self.q(batch.x).mean).mean

    def restyled(self, x: Tensor, y: Tensor) -> Tensor:
        return self.decoder(super().restyled(self.q(x).mean, y)).mean
