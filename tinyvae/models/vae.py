"""The variational auto-encoder: a prior p(z), p(x|z) by a decoder network, q(z|x) by an encoder network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvae.distributions import LIKELIHOODS, Normal, posteriors, prior_of
from tinyvae.engine.devices import namespace
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.nn.layers import MLP, Parameters


class VAE:
    """A VAE of two multilayer perceptrons that mirror each other.

    Parameters
    ----------
    pixels
        Numbers in a datum.
    hidden
        Width of the hidden layer, or widths of several, encoder first; the decoder has them in reverse.
    latent
        Dimensions of z.
    activation
        `relu`, `tanh` or `softplus`.
    likelihood
        `bernoulli` for pixels in {0, 1}; for grey pixels `gaussian` (mean in (0, 1), free variance) or
        `continuous-bernoulli`.
    init
        `glorot`, or `aevb` for N(0, 0.01^2) as in the paper.
    posterior
        The family of q(z|x), each with its prior: `normal`, `full-normal`, `log-normal`, `gamma`, `beta`, `dirichlet`.
    data_mean
        If given, (pixels,) in [0, 1]: the decoder's output bias starts where it reproduces this mean.
    device
        `cpu`, or `cuda` for an NVIDIA GPU through CuPy.
    """

    def __init__(self, pixels: int, hidden: int | Sequence[int] = 400, latent: int = 20, activation: str = "relu",
                 likelihood: str = "bernoulli", init: str = "glorot", seed: int = 0, dtype: Any = "float32",
                 data_mean: np.ndarray | None = None, device: str = "cpu", posterior: str = "normal") -> None:
        widths = tuple(hidden) if isinstance(hidden, (list, tuple)) else (hidden,)
        if not all(isinstance(size, int) and not isinstance(size, bool) for size in (pixels, latent, *widths)):
            raise TypeError(f"found sizes pixels={pixels!r}, hidden={hidden!r}, latent={latent!r}; each is a whole "
                            "number, hidden may be several")
        if min((pixels, latent, *widths)) < 1 or not widths:
            raise ValueError(f"found sizes pixels={pixels}, hidden={hidden}, latent={latent}; each must be at least 1, "
                             "and hidden at least one width")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"found likelihood {likelihood!r}; expected one of {', '.join(LIKELIHOODS)}")
        if posterior not in posteriors():
            raise ValueError(f"found posterior {posterior!r}; expected one of {', '.join(posteriors())}")
        if latent < (least := posteriors()[posterior].least):
            raise ValueError(f"found latent={latent} with a {posterior} posterior, which needs at least {least}")
        self.xp = namespace(device)
        self.config = {"pixels": pixels, "hidden": list(widths), "latent": latent, "activation": activation,
                       "likelihood": likelihood, "init": init, "seed": seed, "dtype": np.dtype(dtype).name,
                       "posterior": posterior}
        self.posterior_family = posteriors()[posterior]
        self._family = LIKELIHOODS[likelihood].family
        encoder = (pixels, *widths, self.posterior_family.width(latent))
        decoder = (latent, *reversed(widths), self._family.width(pixels))
        self.parameters = Parameters(MLP.shapes("encoder", encoder) | MLP.shapes("decoder", decoder), np.dtype(dtype),
                                     self.xp)
        self.encoder = MLP(self.parameters, "encoder", len(encoder) - 1, activation)
        self.decoder = MLP(self.parameters, "decoder", len(decoder) - 1, activation)
        self.prior = prior_of(posterior, latent, self.dtype, self.xp)
        self.parameters.initialise(init, seed)
        if data_mean is not None:
            self.start_at(data_mean)

    dtype = property(lambda self: self.parameters.flat.dtype)
    pixels = property(lambda self: self.config["pixels"])
    latent = property(lambda self: self.config["latent"])
    device = property(lambda self: self.xp.device)

    def start_at(self, data_mean: np.ndarray) -> None:
        """Set the decoder's output bias where, were its weights 0, the mean image is `data_mean`."""
        mean = np.clip(np.asarray(data_mean, np.float64), 1e-3, 1 - 1e-3)
        # of two numbers a pixel (Gaussian), the first half belongs to the mean
        start = np.asarray(self._family.parameter_of_mean(mean), self.dtype)
        self.decoder.layers[-1].bias.data[: self.pixels] = self.xp.asarray(start)

    # ---- the two directions ------------------------------------------------------------------------------------------

    def q(self, x: Tensor) -> Any:
        """The encoder: q(z|x) for x (batch, pixels), N(mu(x), exp(logvar(x))) if it is the normal one."""
        return self.posterior_family.from_raw(self.encoder(x))

    def likelihood(self, z: Tensor) -> Any:
        """The decoder: p(x|z) for z (..., latent)."""
        return self._family.from_raw(self.decoder(z))

    # ---- on plain arrays ---------------------------------------------------------------------------------------------

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log-variance of z under q(z|x), each (batch, latent), for x (batch, pixels) in [0, 1]."""
        posterior = self.q(self._tensor(x, self.pixels, "x"))
        logvar = posterior.logvar if isinstance(posterior, Normal) else posterior.variance.log()
        return posterior.mean.numpy(), logvar.numpy()

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The mean image of p(x|z), (batch, pixels) in [0, 1], for z (batch, latent)."""
        return self.likelihood(self._tensor(z, self.latent, "z")).mean.numpy()

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """The mean image decoded from the posterior mean, (batch, pixels)."""
        return self.decode(self.encode(x)[0])

    def generate(self, count: int, seed: int = 0) -> np.ndarray:
        """Mean images of `count` draws from the prior, (count, pixels)."""
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"found a count of {count!r} images; expected a whole number, at least 1")
        draw = Noise(seed, "generate", self.xp.zeros(1, np.int64))
        return self.decode(self.prior.sample(draw, count).numpy())

    def _tensor(self, values: Any, width: int, name: str) -> Tensor:
        array = np.ascontiguousarray(values, dtype=self.dtype)
        if array.ndim != 2 or array.shape[1] != width:
            raise ValueError(f"found {name} of shape {array.shape}; this model takes (batch, {width})")
        return Tensor(self.xp.asarray(array))

    def __repr__(self) -> str:
        sizes = "-".join(map(str, (self.pixels, *self.config["hidden"], self.latent)))
        kind = f"{self.config['activation']}, {self.config['likelihood']}"
        return f"VAE({sizes}, {kind}, {self.parameters.count:,} parameters)"
