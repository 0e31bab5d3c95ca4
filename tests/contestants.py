"""Contestants for the tests of the peers' benchmark: an honest one, and ones that are each wrong in one way."""

import time

import numpy as np

import tinyvae as tv
from benchmarks import nets


class Honest:
    """The step written out over our engine, with NumPy's generator and an Adam of its own."""

    scale, rate, start = 1.0, 1e-3, 0  # what some of the wrong ones change

    def __init__(self, net):
        self.net, self.model = net, tv.VAE(net.pixels, net.hidden, net.latent)
        self.data, self.order = nets.data_set(net), nets.order(net)
        self.restart()

    def restart(self):
        self.random = np.random.default_rng(1)
        self.model.parameters.load(nets.weights(self.net))
        self.moments = {name: (0.0, 0.0) for name in self.model.parameters.arrays()}
        self.t = 0

    def about(self):
        return {"generator": "PCG64"}

    def batch(self, rows):
        grey = self.data.train[rows] / np.float32(self.data.scale)
        eps = self.random.standard_normal((len(rows), self.net.latent), np.float32)
        return self.pixels(grey).astype(np.float32), eps

    def pixels(self, grey):
        return self.random.random(grey.shape) < grey

    def first_batch(self):
        return self.batch(self.order[self.start])

    def loss_and_gradients(self, x, eps):
        raw = self.model.encoder.raw(tv.Tensor(x))
        mu, logvar = raw.split(2)
        z = mu + (0.5 * logvar).exp() * eps
        kl = 0.5 * (mu * mu + logvar.exp() - 1 - logvar).sum(-1)
        logits = self.model.decoder.raw(z)
        loss = (kl - (tv.Tensor(x) * logits - logits.softplus()).sum(-1)).mean()
        tensors = self.model.parameters.tensors
        gradients = tv.grad(loss, list(tensors.values()))
        return float(loss), {name: self.scale * g.numpy() for name, g in zip(tensors, gradients, strict=True)}

    def step(self, rows):
        loss, gradients = self.loss_and_gradients(*self.batch(rows))
        self.t += 1
        for name, theta in self.model.parameters.arrays().items():
            m, v = self.moments[name]
            m, v = 0.9 * m + 0.1 * gradients[name], 0.999 * v + 0.001 * gradients[name] ** 2
            self.moments[name] = m, v
            theta -= self.rate * (m / (1 - 0.9**self.t)) / (np.sqrt(v / (1 - 0.999**self.t)) + 1e-8)
        return loss

    def losses(self, count):
        self.restart()
        return [self.step(rows) for rows in self.order[:count]]

    def epoch(self):
        for rows in self.order[:2]:  # enough for a test
            self.step(rows)


class SteepGradient(Honest):
    scale = 1.001


class OtherLoss(Honest):
    def loss_and_gradients(self, x, eps):
        loss, gradients = super().loss_and_gradients(x, eps)
        return loss + 0.1, gradients


class NoNumber(Honest):
    def loss_and_gradients(self, x, eps):
        return float("nan"), super().loss_and_gradients(x, eps)[1]


class Undrawn(Honest):
    def pixels(self, grey):
        return grey


class Bright(Honest):
    def pixels(self, grey):
        return self.random.random(grey.shape) < 1.5 * grey


class OtherRows(Honest):
    start = 1


class Narrow(Honest):
    def batch(self, rows):
        x, eps = super().batch(rows)
        return x, 0.5 * eps


class Hasty(Honest):
    rate = 1e-2


class Backward(Honest):
    rate = -1e-3


class Broken(Honest):
    def losses(self, count):
        raise RuntimeError("out of luck")


class Dead(Honest):
    def losses(self, count):
        raise SystemExit


class Clock:
    """Takes a known time an epoch."""

    def __init__(self, net):
        self.net = net

    def epoch(self):
        time.sleep(0.01)
