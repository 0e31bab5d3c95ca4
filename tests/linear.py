"""A linear-Gaussian VAE, of which everything is known in closed form:

    p(z) = N(0, I),  p(x|z) = N(W z + b, S),  q(z|x) = N(A x + c, D)    with diagonal S and D

so p(x) = N(b, W W' + S), and every conditional of (x, z) is normal. Weights are set by hand, in float64.
"""

import math
from typing import NamedTuple

import numpy as np

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.models import MODELS


class LinearGaussian(tv.Model, kind="tests-linear-gaussian"):
    """Both networks have a single layer, which is linear."""

    def build(self, pixels, latent=2):
        self.encoder = self.network("encoder", pixels, (), Normal, latent)
        self.decoder = self.network("decoder", latent, (), Normal, pixels)
        self.prior = Normal.standard(latent, self.dtype, self.xp)

    def generator(self, batch):
        return tv.Joint(self.prior, lambda z: self.decoder(z))

    def posterior(self, batch):
        return self.encoder(batch.x)


del MODELS["tests-linear-gaussian"]  # no list of models has one more because this file was imported


def set_layer(network, weight, bias, logvar):
    """A linear layer whose mean is weight x + bias, (outputs, inputs) and (outputs,), and whose logvar is constant."""
    layer, size = network.layers[0], len(bias)
    layer.weight.data[...] = 0
    layer.weight.data[: weight.shape[1], :size] = weight.T
    layer.bias.data[:size], layer.bias.data[size:] = bias, logvar


class Law(NamedTuple):
    """A normal distribution, N(mean, covariance)."""

    mean: np.ndarray
    covariance: np.ndarray

    def given(self, seen, x):
        """The rest of the vector, given that its elements `seen` (truth values) are x."""
        rest = ~seen
        gain = np.linalg.solve(self.covariance[np.ix_(seen, seen)], self.covariance[np.ix_(seen, rest)]).T
        return Law(self.mean[rest] + gain @ (x - self.mean[seen]),
                   self.covariance[np.ix_(rest, rest)] - gain @ self.covariance[np.ix_(seen, rest)])

    def of(self, chosen):
        """Some elements alone."""
        return Law(self.mean[chosen], self.covariance[np.ix_(chosen, chosen)])

    def log_density(self, x):
        gap = x - self.mean
        _, log_det = np.linalg.slogdet(2 * math.pi * self.covariance)
        return -0.5 * (log_det + gap @ np.linalg.solve(self.covariance, gap))


def linear_gaussian(pixels=5, latent=2, seed=0):
    """(model, the law of x, the exact posterior as (A, c, covariance)), with q at the exact posterior's diagonal."""
    rng = np.random.default_rng(seed)
    weight, bias, logvar = rng.normal(size=(pixels, latent)), rng.normal(size=pixels), rng.uniform(-1.5, 0, pixels)
    model = LinearGaussian(pixels, latent=latent, dtype="float64")
    set_layer(model.decoder, weight, bias, logvar)
    precision = np.eye(latent) + weight.T @ (weight / np.exp(logvar)[:, None])
    covariance = np.linalg.inv(precision)
    slope = covariance @ (weight / np.exp(logvar)[:, None]).T
    set_encoder(model.encoder, slope, -slope @ bias, covariance)
    return model, Law(bias, weight @ weight.T + np.diag(np.exp(logvar))), (slope, -slope @ bias, covariance)


def set_encoder(network, slope, offset, covariance, shift=0.0, widen=1.0):
    """q(z|x) at the exact posterior without its correlations; `shift` and `widen` make it wrong on purpose."""
    set_layer(network, slope, offset + shift, np.log(widen * np.diag(covariance)))
