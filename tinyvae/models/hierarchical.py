"""A VAE with several layers of latent variables (Burda, Grosse & Salakhutdinov 2016, section 3; Soenderby et al. 2016):

    p(x, z) = p(z_L) p(z_(L-1)|z_L) ... p(z_1|z_2) p(x|z_1),    each law a network of the layer above it,

with one of two orders of inference (distributions/layered.py):

    bottom-up    q(z|x) = q(z_1|x) q(z_2|z_1) ... q(z_L|z_(L-1))
    top-down     q(z|x) = q(z_L|x) q(z_(L-1)|x, z_L) ... q(z_1|x, z_2), which shares the way down with p

All layers together are one z for everything else, the lowest first: draws, bounds, log p(x) and pictures.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tinyvae.choices import chosen, known, whole_numbers
from tinyvae.distributions import LIKELIHOODS, Normal
from tinyvae.distributions.layered import BottomUp, Downward, Layered, TopDown
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Generator, Joint, Terms
from tinyvae.models.base import Model, widths_of
from tinyvae.models.batch import Batch
from tinyvae.models.priors import STANDARD, pseudo_inputs_of, vamp
from tinyvae.models.vae import VAE, check_sizes

BOTTOM_UP, TOP_DOWN = "bottom-up", "top-down"


class Hierarchical(Model, kind="hierarchical"):
    """A VAE whose z has layers of the sizes `latent`, from the data upward.

    The networks between the data and z_1 have the widths `hidden`; those of each layer above have half of the widths
    of the layer below.
    """

    options: ClassVar = {
        "inference": "The order in which q draws the layers: bottom-up or top-down.",
        "prior": VAE.options["prior"], "pseudo_inputs": VAE.options["pseudo_inputs"],
    }  # fmt: skip

    def build(self, pixels: int, hidden: Any = (200, 200), latent: Any = (100, 50), activation: str = "relu",
              likelihood: str = "bernoulli", inference: str = BOTTOM_UP, prior: str = STANDARD,
              pseudo_inputs: int = 0) -> None:
        self.layers, hidden = whole_numbers((latent,), "latent"), widths_of(hidden)
        for size in self.layers:
            check_sizes(pixels, hidden, size)
        ladder = known("inference", inference, (BOTTOM_UP, TOP_DOWN)) == TOP_DOWN
        count = pseudo_inputs_of(prior, pseudo_inputs)
        if count and not ladder:
            raise ValueError(f"found the prior {prior} with inference={BOTTOM_UP}, whose q(z_L|x) is known for given "
                             f"z_1 to z_(L-1) alone: take inference={TOP_DOWN}")
        widths = [tuple(max(1, width >> l) for width in hidden) for l in range(len(self.layers))]
        inputs = [pixels, *(2 * size if ladder else size for size in self.layers)]  # of the networks of q
        names = ["", *map(str, range(2, len(self.layers) + 1))]
        self.up = [self.network(f"encoder{name}", read, width, Normal, size, activation)
                   for name, read, width, size in zip(names, inputs, widths, self.layers, strict=False)]
        self.down = [self.network(f"decoder{name}", self.layers[l + 1], widths[l + 1][::-1], Normal, self.layers[l],
                                  activation) for l, name in enumerate(names[1:])]
        self.decoder = self.network("decoder", self.layers[0], widths[0][::-1],
                                    chosen("likelihood", likelihood, LIKELIHOODS).family, pixels, activation)
        self.encoder = self.up[0]
        self.standard = Normal.standard(self.layers[-1], self.dtype, self.xp)
        self.pseudo = self.matrix("pseudo_inputs", count, pixels) if count else None

    latent = property(lambda self: sum(self.layers))

    @property
    def prior(self) -> Downward:
        if self.pseudo is None:
            return Downward(self.standard, self.down, self.layers)
        top = vamp(self.pseudo, self.takes, lambda u: self.seen_by_layers(u)[-1])
        return Downward(top, self.down, self.layers)

    def seen_by_layers(self, x: Tensor) -> list[Normal]:
        """What the encoder of top-down inference says of each layer: each network reads mean and log-variance of the
        layer below."""
        found: list[Normal] = []
        for network in self.up:
            found.append(network(found[-1].raw if found else self.seen(x)))
        return found

    def q(self, x: Tensor) -> Layered:
        if self.config["inference"] == TOP_DOWN:
            return TopDown(self.seen_by_layers(x), self.down, self.layers)
        return BottomUp(self.encoder(self.seen(x)), self.up[1:], self.layers)

    def generator(self, batch: Batch | None) -> Generator:
        return Joint(self.prior, lambda z: self.decoder(z[..., : self.layers[0]]))

    def posterior(self, batch: Batch) -> Layered:
        return self.q(batch.x)

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        """With free bits each layer has them, not each dimension: `free_bits` is in nats per layer."""
        if not draw.free_bits:
            return super().terms(batch, draw)
        p, q = self.generator(batch), self.q(batch.x)
        z, kl = q.sample_with_kls(p.prior, draw.noise, draw.samples)
        reconstruction = p.likelihood(z).log_prob(batch.x).mean(0)
        return Terms({"reconstruction": reconstruction, "kl": kl.sum(-1)}, reconstruction=reconstruction,
                     kl=kl.mean(0).maximum(draw.free_bits).sum())
