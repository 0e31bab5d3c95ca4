"""Models whose evidence, posterior and bounds are known exactly, and noise that makes an expectation exact.

The linear-Gaussian model is p(z) = N(0, I), p(x|z) = N(W z + b, diag(s^2)). Then

    p(x) = N(b, W W^T + diag(s^2)),    p(z|x) = N(S W^T diag(1/s^2) (x - b), S),    S = (I + W^T diag(1/s^2) W)^-1.
"""

import copy
import inspect
import math
import sys
import textwrap

import numpy as np

from tinyvae.distributions import Normal
from tinyvae.engine.devices import CPU
from tinyvae.engine.tensor import Tensor
from tinyvae.models import Model


class LinearGaussian:
    """The model, as bounds and evaluation take it: a prior, and a likelihood for z (..., latent)."""

    xp = CPU

    def __init__(self, weight, bias, variance):
        self.weight, self.bias, self.variance = (np.array(a, np.float64) for a in (weight, bias, variance))
        self.pixels, self.latent = self.weight.shape
        self.targets = self.pixels
        self.dtype = np.dtype(np.float64)
        self.prior = Normal.standard(self.latent, np.float64)

    @classmethod
    def of_one_dimension(cls):
        """p(z) = N(0, 1), p(x|z) = N(2z, 0.25): log p(1.3) = -1.8412, posterior N(0.6118, 0.0588)."""
        return cls([[2.0]], [0.0], [0.25])

    @classmethod
    def random(cls, pixels, latent, seed):
        rng = np.random.default_rng(seed)
        return cls(rng.standard_normal((pixels, latent)), rng.standard_normal(pixels), rng.uniform(0.2, 2, pixels))

    # what a model is to evaluation: see tinyvae/models/base.py
    kind, needs, condition, log_weights, target = "linear-gaussian", (), None, Model.log_weights, Model.target

    def has(self, name):
        return True

    def generator(self, batch):
        return self

    def posterior(self, batch):
        return self.q(batch.x)

    def with_q(self, q):
        """The same model with another posterior: a distribution, or a function of x."""
        other = copy.copy(self)
        other.q = q if callable(q) else lambda x: q
        return other

    def likelihood(self, z):
        rows = z.reshape(-1, self.latent) @ self.weight.T.copy() + self.bias
        mean = rows.reshape(*z.shape[:-1], self.pixels)
        return Normal(mean, Tensor(np.log(self.variance)))

    def q(self, x):
        """A posterior as an encoder might give it: diagonal, and a little wide."""
        mu, logvar = self.best_diagonal(x.data)
        return Normal(Tensor(mu), Tensor(logvar + math.log(1.3)))

    def simulate(self, count, seed):
        """z ~ p(z) and x ~ p(x|z), so that z is a draw of p(z|x): (count, latent) and (count, pixels)."""
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((count, self.latent))
        return z, z @ self.weight.T + self.bias + np.sqrt(self.variance) * rng.standard_normal((count, self.pixels))

    def posterior_draws(self, x, chains, seed):
        """Exact draws of p(z|x), (chains, batch, latent)."""
        mean, covariance = self.exact_posterior(x)
        eps = np.random.default_rng(seed).standard_normal((chains, *mean.shape))
        return mean + eps @ np.linalg.cholesky(covariance).T

    # ---- exact answers -----------------------------------------------------------------------------------------------

    def log_evidence(self, x):
        """log p(x) of each row."""
        covariance = self.weight @ self.weight.T + np.diag(self.variance)
        d = x - self.bias
        quadratic = np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance), d)
        return -0.5 * (self.pixels * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + quadratic)

    def exact_posterior(self, x):
        """The mean of p(z|x) for each row, (count, latent), and its covariance, (latent, latent)."""
        by_noise = self.weight.T / self.variance
        covariance = np.linalg.inv(np.eye(self.latent) + by_noise @ self.weight)
        return (x - self.bias) @ by_noise.T @ covariance, covariance

    def kl_to_posterior(self, mu, logvar, x):
        """KL(N(mu, diag(exp(logvar))) || p(z|x)) of each row."""
        mean, covariance = self.exact_posterior(x)
        precision, d = np.linalg.inv(covariance), mean - mu
        trace = np.exp(logvar) @ np.diag(precision)
        quadratic = np.einsum("ni,ij,nj->n", d, precision, d)
        return 0.5 * (trace + quadratic - self.latent + np.linalg.slogdet(covariance)[1] - logvar.sum(-1))

    def best_diagonal(self, x):
        """The diagonal q that maximises the bound: the posterior's mean, and one over its precision's diagonal."""
        mean, covariance = self.exact_posterior(x)
        logvar = -np.log(np.diag(np.linalg.inv(covariance)))
        return mean, np.broadcast_to(logvar, mean.shape).copy()


class NormalGamma:
    """tau ~ Gamma(a, b), mu | tau ~ N(m, 1 / (k tau)), x_i ~ N(mu, 1 / tau), for data x (n,): conjugate.

    The posterior has k' = k + n, m' = (k m + sum x) / k', a' = a + n / 2, b' = b + (sum x^2 + k m^2 - k' m'^2) / 2, and
    p(x) = Gamma(a') / Gamma(a) b^a / b'^a' sqrt(k / k') (2 pi)^(-n / 2).
    """

    def __init__(self, x, m=0.0, k=1.0, a=2.0, b=2.0):
        self.x, self.m, self.k, self.a, self.b = np.asarray(x, np.float64), m, k, a, b
        n = len(self.x)
        self.k_after, self.a_after = k + n, a + n / 2
        self.m_after = (k * m + self.x.sum()) / self.k_after
        self.b_after = b + (np.sum(self.x**2) + k * m * m - self.k_after * self.m_after**2) / 2

    def log_joint(self, z):
        """log p(x, mu, tau) for draws {"mu", "tau"} of shape (samples, 1), as one number a sample."""
        mu, tau = z["mu"], z["tau"]
        log_tau, d = tau.log(), mu - self.m
        prior_tau = self.a * math.log(self.b) - math.lgamma(self.a) + (self.a - 1) * log_tau - self.b * tau
        prior_mu = 0.5 * (log_tau + (math.log(self.k) - math.log(2 * math.pi)) - self.k * tau * d * d)
        squares = np.sum(self.x**2) - 2 * self.x.sum() * mu + len(self.x) * mu * mu
        likelihood = 0.5 * (len(self.x) * (log_tau - math.log(2 * math.pi)) - tau * squares)
        return (prior_tau + prior_mu + likelihood).sum(-1)

    def log_evidence(self):
        n = len(self.x)
        return (math.lgamma(self.a_after) - math.lgamma(self.a) + self.a * math.log(self.b)
                - self.a_after * math.log(self.b_after) + 0.5 * math.log(self.k / self.k_after)
                - n / 2 * math.log(2 * math.pi))  # fmt: skip

    def best_mean_field(self):
        """The fixed point of coordinate ascent (Blei et al. 2017, section 3): mu's mean and variance, tau's a and b."""
        n, rate = len(self.x), self.b_after
        shape = self.a + (n + 1) / 2
        for _ in range(1000):
            variance = 1 / (self.k_after * shape / rate)
            spread = np.sum((self.x - self.m_after) ** 2) + n * variance
            rate = self.b + 0.5 * (spread + self.k * ((self.m_after - self.m) ** 2 + variance))
        return self.m_after, variance, shape, rate


class Mixture:
    """z ~ Categorical(weights), x | z ~ N(mean_z, variance_z), for one datum: everything by enumeration."""

    def __init__(self, weights=(0.5, 0.3, 0.2), means=(-1.0, 0.5, 2.0), variances=(0.5, 1.0, 0.25), x=0.8):
        self.weights, self.means, self.variances = (np.array(a) for a in (weights, means, variances))
        self.log_terms = np.log(self.weights) - 0.5 * (
            np.log(2 * math.pi * self.variances) + (x - self.means) ** 2 / self.variances)  # fmt: skip

    def log_joint(self, z):
        """log p(x, z) for one-hot draws {"z"} of shape (samples, 3)."""
        return (z["z"] * self.log_terms).sum(-1)

    def log_evidence(self):
        return float(np.logaddexp.reduce(self.log_terms))

    def posterior(self):
        return np.exp(self.log_terms - self.log_evidence())


def fixed(mu, logvar, family=Normal):
    """An inference model that answers N(mu, exp(logvar)) whatever x is."""
    return lambda x: family(Tensor(np.array(mu, np.float64)), Tensor(np.array(logvar, np.float64)))


class Nodes:
    """Instead of noise: 2 n points of mean 0 and covariance 1 in n dimensions, +-sqrt(n) along each axis.

    Their plain average is the exact expectation over N(0, I) of every polynomial of degree 3 or less (the cubature of
    that degree), hence of a linear-Gaussian model's log densities, which are quadratic.
    """

    def __init__(self, latent):
        self.samples = 2 * latent
        self.points = math.sqrt(latent) * np.concatenate([np.eye(latent), -np.eye(latent)])

    def normal(self, shape, dtype=np.float64):
        assert shape[0] == self.samples, f"ask for {self.samples} samples"
        return Tensor(np.broadcast_to(self.points[:, None], shape).astype(dtype))


class Given:
    """Instead of noise: the numbers that are given, (samples, batch, n), in the order in which they are asked for."""

    def __init__(self, eps):
        self.eps, self.used = np.array(eps), 0

    def normal(self, shape, dtype=np.float64):
        part = self.eps[self.used : self.used + shape[0]]
        assert part.shape == tuple(shape), f"asked for {shape}, {part.shape} are left"
        self.used += shape[0]
        return Tensor(part.astype(dtype))


def mutate(monkeypatch, owner, name, old, new):
    """Until the test ends, `owner.name` with a piece of its source replaced: the check under test must notice."""
    function = getattr(owner, name)
    text = textwrap.dedent(inspect.getsource(function))
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
    module = vars(sys.modules[function.__module__])
    made = {}
    exec(text.replace(old, new), module, made)  # what it defines goes to `made`, not into the module
    monkeypatch.setattr(owner, name, made[name])
