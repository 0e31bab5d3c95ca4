"""MIWAE: a VAE that learns from data with holes (Mattei & Frellsen 2019).

What is missing is left out of the likelihood, and the bound is one on what was observed (eq. 4):

    log p(x_obs) >= E[log 1/K sum_k w_k],    w_k = p(x_obs|z_k) p(z_k) / q(z_k|x_obs),    z_k ~ q(z|x_obs)

It is the importance-weighted bound of bounds.py with p(x_obs|z) in place of p(x|z), so it rises with K, and every
setting of that bound is one here. The encoder reads 0 in the place of a missing value, with the mask beside the values.
This is right if whether a value is missing does not depend on values that are missing.

With the normalised weights, E[x_mis|x_obs] ~ sum_k w~_k E[x_mis|z_k] (eq. 8); tasks/completion.py imputes by it.
"""

from __future__ import annotations

from typing import ClassVar

from tinyvae.distributions import Distribution
from tinyvae.distributions.observed import Observed
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Generator, Joint
from tinyvae.models.batch import Batch
from tinyvae.models.vae import VAE


class MIWAE(VAE, kind="miwae"):
    """A VAE of the same options, trained on the observed entries alone; K is the setting `importance_samples`."""

    needs = ("mask",)
    reads = 2
    defaults: ClassVar = {"bound": "iwae", "importance_samples": 20}

    def q(self, x: Tensor, mask: Tensor | None = None) -> Distribution:
        """q(z|x_obs) for x and mask (batch, pixels); without a mask all pixels were observed."""
        if mask is None:
            mask = Tensor(self.xp.ones(x.shape, self.dtype))
        return self.encoder(self.seen((mask > 0).where(x, 0.0)), mask)

    def generator(self, batch: Batch | None) -> Generator:
        if batch is None or batch.mask is None:
            return super().generator(batch)
        mask = batch.mask
        return Joint(self.prior, lambda z: Observed(self.decoder(z), mask))

    def posterior(self, batch: Batch) -> Distribution:
        return self.q(batch.x, batch.mask)
