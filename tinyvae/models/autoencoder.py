"""A plain auto-encoder: a code of x, and x from its code. It is what a VAE is without a prior and without noise.

    maximise log p(x | code(x))

The code of a datum is a point and not a distribution. The VAE's objective for a point would be minus infinity, because
a point is infinitely far from any prior density in KL. So there is no bound on log p(x) here, nothing to draw new data
from, and no answer to what a missing pixel may be. What it has is a code and a reconstruction, to which nothing is
added: at its optimum it reconstructs the training data as well as these networks can.

With linear networks, without hidden layers, and the squared error, the best codes span the principal components (Baldi
& Hornik 1989), so that PCA is the auto-encoder that one solves for instead of training it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyvae.choices import chosen
from tinyvae.data.checks import check_range
from tinyvae.distributions import LIKELIHOODS
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Terms
from tinyvae.models.base import Model, check_finite, widths_of
from tinyvae.models.batch import Batch


class Code:
    """The family of a network whose last layer is a code itself: one number for each dimension."""

    @staticmethod
    def width(n: int) -> int:
        return n

    @staticmethod
    def from_raw(raw: Tensor) -> Tensor:
        return raw


class Autoencoder(Model, kind="autoencoder"):
    """The networks of a `VAE` of the same options, without p(z) and q(z|x).

    `hidden` may be (), for a linear auto-encoder.
    """

    goal = "log p(x|code)"

    def build(self, pixels: int, hidden: int | Sequence[int] = 400, latent: int = 20, activation: str = "relu",
              likelihood: str = "bernoulli") -> None:
        widths, pixel = widths_of(hidden), chosen("likelihood", likelihood, LIKELIHOODS).family
        self.encoder = self.network("encoder", pixels, widths, Code, latent, activation)
        self.decoder = self.network("decoder", latent, widths[::-1], pixel, pixels, activation)

    def code(self, x: Tensor) -> Tensor:
        """The code of x (rows, pixels), (rows, latent)."""
        return self.encoder(self.seen(x))

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        return Terms(reconstruction=self.decoder(self.code(batch.x)).log_prob(batch.x))

    def features(self, x: np.ndarray) -> np.ndarray:
        """The code of x (rows, pixels), as arrays; of a VAE `encode` gives the mean of q(z|x) in its place."""
        check_finite(self, "with which nothing can be encoded")
        found = self.code(self.tensor(x, self.pixels, "x"))
        check_range(np.asarray(x), "x", kind=self.takes)
        return found.numpy()

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise TypeError("an autoencoder has no q(z|x) with a mean and a variance, and its code is a point: take "
                        "features(x)")

    def decode(self, z: np.ndarray) -> np.ndarray:
        check_finite(self, "with which nothing can be decoded")
        if not np.isfinite(np.asarray(z)).all():
            raise ValueError("found NaN or infinite numbers in z; expected finite ones")
        return self.decoder(self.tensor(z, self.latent, "z")).mean.numpy()

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        return self.decode(self.features(x))

    def generate(self, count: int, seed: int = 0) -> np.ndarray:
        raise TypeError("an autoencoder has no p(z) from which a code could be drawn; take a vae")
