"""What gradient estimators are compared on: an expectation in one dimension, a factorisation of counts, a VAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyvae.distributions import Distribution, Gamma, Poisson, kl
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.estimators import Term
from tinyvae.lessons.estimates import Problem
from tinyvae.lessons.expressions import Expression
from tinyvae.lessons.families import Member


class OneLatent(Problem):
    """d/dv E_q[f(z)] of a one-dimensional q, at `replicas` equal rows of v; `values` differ from row to row."""

    usual = 10**6

    def __init__(self, q: Member, f: Expression, replicas: int, values: Mapping[str, np.ndarray] | None = None) -> None:
        self.q, self.f, self.replicas, self.name = q, f, replicas, q.family.name
        self.title, self.smooth = f"E[{f}] under {q}", f.differentiable
        given = dict(q.at) | dict(values or {})
        self.parameters = {name: [Tensor(np.broadcast_to(value, (replicas,)).reshape(-1, 1).copy(), True, name=name)]
                           for name, value in given.items()}

    def factors(self) -> dict[str, tuple[Distribution, str]]:
        return {"z": (self.q.family.build(*(leaf for leaf, in self.parameters.values())), "rn")}

    def terms(self, z: dict[str, Tensor]) -> list[Term]:
        return [Term(self.f(z["z"]), "rn", ("z",))]

    def check(self, seen: Sequence[tuple[Tensor, Tensor]]) -> None:
        for z, value in seen:
            wrong = np.flatnonzero(~np.isfinite(value.data))
            if len(wrong):
                raise ValueError(f"found f = {self.f} to be {value.data.flat[wrong[0]]} at z = "
                                 f"{z.data.flat[wrong[0]]:.6g}, a draw from {self.q}; choose an f that is finite there")


class GammaPoisson(Problem):
    """Counts (n, d) as a product of Gamma scores z (n, k) and weights w (k, d): the gradient of the ELBO.

        log p(x, z, w) = sum_nd log Poisson(x_nd | sum_k z_nk w_kd) + sum_nk log p(z_nk) + sum_kd log p(w_kd)

    A score z_nk is in d + 1 of these n d + n k + k d terms.
    """

    name, usual, latents = "gamma-poisson", 25_600, 2
    title = "-ELBO of a gamma-poisson factorisation, 5 x 6 counts, 2 factors, each latent's q gamma(shape=2, rate=2)"

    def __init__(self, replicas: int = 32, seed: int = 0) -> None:
        self.replicas = replicas
        noise, one = Noise(seed, "gamma-poisson"), np.ones
        z, w = (Gamma(Tensor(one(shape)), Tensor(one(shape) / 2)).sample(noise)[0] for shape in ((5, 2), (2, 6)))
        self.x = Poisson(z @ w).sample(noise)
        self.parameters = {f"{name} {parameter}": [Tensor(np.full((replicas, *shape), 2.0), True)]
                           for name, shape in (("z", (5, 2)), ("w", (2, 6))) for parameter in ("shape", "rate")}
        self.prior = Gamma(Tensor(np.array(1.0)), Tensor(np.array(0.5)))

    def factors(self) -> dict[str, tuple[Distribution, str]]:
        leaf = {name: tensor for name, [tensor] in self.parameters.items()}
        return {name: (Gamma(leaf[f"{name} shape"], leaf[f"{name} rate"]), axes)
                for name, axes in (("z", "rnk"), ("w", "rkd"))}

    def terms(self, z: dict[str, Tensor]) -> list[Term]:
        likelihood = Poisson(z["z"] @ z["w"]).log_density(self.x)
        # log p(z) = log p(log z) - log z, for dz / dlog z = z
        priors = {name: self.prior.log_density(each.log()) - each.log() for name, each in z.items()}
        return [Term(-likelihood, "rnd", ("z", "w")), Term(-priors["z"], "rnk", ("z",)),
                Term(-priors["w"], "rkd", ("w",))]

    def closed(self) -> Tensor | None:
        entropies = [q.entropy().sum() for q, _ in self.factors().values()]
        return -(entropies[0] + entropies[1])


class Encoder(Problem):
    """The gradient of -ELBO of a minibatch x (batch, pixels) by the parameters of a VAE's encoder, nats per datum.

    The KL is in closed form. log p(x_n|z_n) is the only term that contains z_n: without Rao-Blackwell each datum's
    score is multiplied by the reconstruction of the whole batch.
    """

    name, usual, latents, replicas = "vae", 2400, 2, 1  # each datum has its latent

    def __init__(self, model: Any, x: np.ndarray) -> None:
        self.model, self.x = model, Tensor(np.asarray(x, model.dtype))
        sizes = "-".join(map(str, (model.pixels, *model.config["hidden"], model.latent)))
        self.title = f"-ELBO of {len(x)} data by the encoder of VAE({sizes}, {model.config['likelihood']})"
        layers: Sequence[Any] = model.encoder.layers
        self.parameters = {"encoder": [tensor for layer in layers for tensor in (layer.weight, layer.bias)]}
        self._q: Any = None

    def factors(self) -> dict[str, tuple[Distribution, str]]:
        self._q = self.model.q(self.x)
        return {"z": (self._q, "nd")}

    def terms(self, z: dict[str, Tensor]) -> list[Term]:
        return [Term(self.model.likelihood(z["z"]).log_prob(self.x) * (-1 / len(self.x)), "n", ("z",))]

    def closed(self) -> Tensor | None:
        return kl(self._q, self.model.prior).mean()
