"""The variational auto-encoder (AEVB section 3):

    p(z)  a prior,    p(x|z)  the decoder, a network of z,    q(z|x)  the encoder, a network of x.

The prior is fixed, or learned (priors.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tinyvae.choices import chosen, known
from tinyvae.distributions import LIKELIHOODS, Distribution, prior_of
from tinyvae.distributions.weights import WeightPosterior
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.flows import posterior_family
from tinyvae.inference.bounds import Draw, Generator, Joint, Terms
from tinyvae.models.base import Model, Phase, widths_of
from tinyvae.models.batch import Batch
from tinyvae.models.learners import AEVB, FULL_VB, LEARNERS, MCEM, WEIGHT_DRAWS, Averaged
from tinyvae.models.priors import STANDARD, pseudo_inputs_of, vamp


class VAE(Model, kind="vae"):
    """A VAE whose encoder and decoder are multilayer perceptrons with mirrored hidden layers.

    Parameters
    ----------
    pixels
        The number of pixels of a datum.
    hidden
        The width of the hidden layer, or the widths of the encoder's hidden layers; the decoder reverses them.
    latent
        The number of dimensions of z.
    activation
        `relu`, `tanh`, `softplus`, or `identity` for linear networks.
    likelihood
        `bernoulli` for pixels in {0, 1}; for grey pixels `gaussian` (mean in (0, 1), free variance) or
        `continuous-bernoulli`; for real numbers `normal` (free mean and variance) or `student-t`; for counts
        `negative-binomial` or `poisson`, of which the encoder is given log(1 + x).
    init
        `glorot`, or `aevb` for N(0, 0.01^2) as in the paper.
    posterior
        The family of q(z|x), which also determines the prior: `normal`, `full-normal`, `log-normal`, `gamma`, `beta`,
        `dirichlet`; or a flow, `iaf`, `planar` or `realnvp`.
    flow_steps
        The number of maps of a flow, 0 for its default.
    prior, pseudo_inputs
        `standard`, the prior that goes with the posterior, or `vamp` with so many pseudo-inputs, 0 for 500
        (priors.py).
    learner
        `aevb`, `wake-sleep`, `mcem` or `full-vb` (learners.py).
    data_mean
        If given, (pixels,) in [0, 1]: the initial output bias of the decoder reproduces this mean.
    device
        `cpu`, or `cuda` for an NVIDIA GPU through CuPy.
    """

    reads = 1  # how many numbers the encoder reads of each pixel
    options: ClassVar = {
        "flow_steps": "The number of maps of a posterior that is a flow; 0 for its default.",
        "prior": "standard, or vamp for a mixture of posteriors at learned pseudo-inputs.",
        "pseudo_inputs": "The number of pseudo-inputs of the prior vamp; 0 for its default of 500.",
        "learner": f"How the encoder and the decoder learn: {' or '.join(LEARNERS)}.",
    }  # fmt: skip

    def __init__(self, pixels: int, hidden: int | Sequence[int] = 400, latent: int = 20, activation: str = "relu",
                 likelihood: str = "bernoulli", init: str = "glorot", seed: int = 0, dtype: Any = "float32",
                 data_mean: np.ndarray | None = None, device: str = "cpu", posterior: str = "normal",
                 flow_steps: int = 0, prior: str = STANDARD, pseudo_inputs: int = 0,
                 learner: str = AEVB) -> None:
        super().__init__(pixels, hidden=widths_of(hidden), latent=latent, activation=activation, likelihood=likelihood,
                         posterior=posterior, flow_steps=flow_steps, prior=prior, pseudo_inputs=pseudo_inputs,
                         learner=learner, init=init, seed=seed, dtype=dtype, device=device)
        if data_mean is not None:
            self.start_at(data_mean)

    def build(self, pixels: int, hidden: Any = (400,), latent: int = 20, activation: str = "relu",
              likelihood: str = "bernoulli", posterior: str = "normal", flow_steps: int = 0,
              prior: str = STANDARD, pseudo_inputs: int = 0, learner: str = AEVB) -> None:
        check_sizes(pixels, hidden, latent)
        known("learner", learner, LEARNERS)
        family = posterior_family(posterior, latent, widths_of(hidden), flow_steps)
        pixel = chosen("likelihood", likelihood, LIKELIHOODS).family
        self.encoder = self.network("encoder", self.reads * pixels, hidden, family, latent, activation)
        self.decoder = self.network("decoder", latent, tuple(reversed(hidden)), pixel, pixels, activation)
        self.standard = prior_of(posterior, latent, self.dtype, self.xp)
        if learner == FULL_VB:
            self.weights_of_decoder = self.add(WeightPosterior(self.decoder))
            self.weights = {"kl": -1.0, "weights": -1.0}
        if learner != AEVB:  # the objective is another one than the bound that records show
            self.bound = ("reconstruction", "kl")
        count = pseudo_inputs_of(prior, pseudo_inputs)
        if count and learner != AEVB:
            raise ValueError(f"found the prior {prior} with learner={learner}, whose encoder is not trained to be a "
                             f"part of the prior: take prior={STANDARD}, or learner={AEVB}")
        self.pseudo = self.matrix("pseudo_inputs", count, pixels) if count else None

    # ---- prior, encoder and decoder ----------------------------------------------------------------------------------

    @property
    def prior(self) -> Distribution:
        """p(z), computed anew at each call if it is learned."""
        return self.standard if self.pseudo is None else vamp(self.pseudo, self.takes, self.q)

    def q(self, x: Tensor) -> Any:
        """The encoder: q(z|x) for x (batch, pixels); for the family `normal`, N(mu(x), exp(logvar(x)))."""
        return self.encoder(self.seen(x))

    def likelihood(self, z: Tensor) -> Any:
        """The decoder: p(x|z) for z (..., latent), with full-vb the mean over draws of its weights."""
        if self.config["learner"] != FULL_VB:
            return self.decoder(z)
        noise = Noise(0, "weights")
        return Averaged([self.weights_of_decoder.draw(noise)(z) for _ in range(WEIGHT_DRAWS)])

    def generator(self, batch: Batch | None) -> Generator:
        return Joint(self.prior, self.likelihood)

    def posterior(self, batch: Batch) -> Distribution:
        return self.q(batch.x)

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        return LEARNERS[self.config["learner"]](self, batch, draw)

    def phases(self) -> Sequence[Phase]:
        return (Phase("", self.terms, chains=self.config["learner"] == MCEM),)

    def __repr__(self) -> str:
        sizes = "-".join(map(str, (self.pixels, *widths_of(self.config["hidden"]), self.latent)))
        kind = ", ".join(self.config[name] for name in ("activation", "likelihood")) + \
            f", {self.config['posterior']} posterior"
        return f"{type(self).__name__}({sizes}, {kind}, {self.parameters.count:,} parameters)"


def check_sizes(pixels: Any, hidden: Any, latent: Any) -> None:
    """Raise TypeError or ValueError for a size that is not a whole number of at least 1."""
    widths = widths_of(hidden)
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in (pixels, latent, *widths)):
        raise TypeError(f"found sizes pixels={pixels!r}, hidden={hidden!r}, latent={latent!r}; expected whole "
                        "numbers; hidden may be a list of them")
    if min((pixels, latent, *widths)) < 1 or not widths:
        raise ValueError(f"found sizes pixels={pixels}, hidden={hidden}, latent={latent}; each must be at least 1, "
                         "and hidden at least one width")
