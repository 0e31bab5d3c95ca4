"""A conditional VAE (Sohn, Lee & Yan 2015): everything is given the label, the prior too."""

from tinyvae.distributions import LIKELIHOODS, Normal
from tinyvae.inference.bounds import Joint
from tinyvae.models import Model


class ConditionalVAE(Model):
    """p(z|y) p(x|z, y) with q(z|x, y), each a network; y is the one-hot label."""

    needs = ("y",)

    def build(self, pixels, classes=10, hidden=50, latent=5, likelihood="bernoulli"):
        self.prior = self.network("prior", classes, hidden, Normal, latent)
        self.encoder = self.network("encoder", pixels + classes, hidden, Normal, latent)
        self.decoder = self.network("decoder", latent + classes, hidden, LIKELIHOODS[likelihood].family, pixels)

    def generator(self, batch):
        return Joint(self.prior(batch.y), lambda z: self.decoder(z, batch.y))

    def posterior(self, batch):
        return self.encoder(batch.x, batch.y)
