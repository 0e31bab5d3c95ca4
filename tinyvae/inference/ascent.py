"""Variational inference for conditionally conjugate models: coordinate ascent (CAVI) and its stochastic form (SVI).

A mean-field q(z) = prod_j q_j(z_j) is improved one factor at a time. With all others fixed, the best factor is

    q_j(z_j) proportional to exp E_{others}[log p(z_j | z_others, x)]        (Blei, Kucukelbir & McAuliffe 2017, eq. 17)

(The ELBO as a function of q_j alone is -KL(q_j || that density) plus a constant, so no step lowers it.) If each
conditional p(z_j | z_others, x) is of an exponential family, q_j is of the same family, and its natural parameters are
the mean of those of the conditional. For a factor that all data share, that mean is a prior part plus a sum over data:

    lambda* = prior + sum_i E[t(x_i, z_i)]

The natural gradient of the ELBO by lambda is lambda* - lambda (Hoffman, Blei, Wang & Paisley 2013, eq. 22). So CAVI is
a natural-gradient step of length 1, and a sum over B of the n data, times n / B, makes it a stochastic gradient:

    lambda <- (1 - rho_t) lambda + rho_t (prior + n / B sum_{i in batch} E[t(x_i, z_i)]),    rho_t = (t + delay)^-kappa

With 1/2 < kappa <= 1 the steps are such that it converges (Robbins & Monro 1951).
"""

from __future__ import annotations

import math
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from tinyvae.choices import whole
from tinyvae.engine import noise

Q = TypeVar("Q")


class Conditional(Protocol[Q]):
    """A model that `coordinate_ascent` and `stochastic_ascent` fit."""

    def __len__(self) -> int:
        """The number of data."""

    def start(self, seed: int) -> Q:
        """The initial parameters of q."""

    def step(self, q: Q, rows: np.ndarray | slice, rate: float) -> Q:
        """A step of length `rate` for each factor that all data share, by the data `rows`."""

    def elbo(self, q: Q) -> float:
        """The ELBO in nats, of all data."""


class Ascent(NamedTuple, Generic[Q]):
    """The result: q, and the ELBO at the start and after each step or sweep, in nats of all data."""

    q: Q
    elbo: np.ndarray


def coordinate_ascent(model: Conditional[Q], sweeps: int = 1000, tolerance: float = 1e-9, seed: int = 0,
                      start: Q | None = None) -> Ascent[Q]:
    """CAVI: sweeps over all factors, until one gains less than `tolerance` nats; the ELBO never falls.

    A start decides which optimum is found; try several seeds, and keep the one with the highest ELBO.
    """
    q: Any = model.start(seed) if start is None else start
    elbo = [model.elbo(q)]
    for _ in range(whole("sweeps", sweeps)):
        q = model.step(q, slice(None), 1.0)
        elbo.append(model.elbo(q))
        if not elbo[-1] - elbo[-2] >= tolerance:
            break
    return Ascent(q, np.array(elbo))


def stochastic_ascent(model: Conditional[Q], steps: int, batch: int, delay: float = 1.0, kappa: float = 0.7,
                      seed: int = 0, start: Q | None = None) -> Ascent[Q]:
    """SVI: each step reads `batch` data, drawn without repetition; its ELBO may fall.

    Parameters
    ----------
    delay, kappa
        The step t = 1, 2, ... has the length (t + delay)^-kappa; kappa is above 1/2 and at most 1.
    seed
        Of the start and the batches.
    """
    batch, count = whole("batch", batch, 1), len(model)
    if batch > count:
        raise ValueError(f"found a batch of {batch} of {count} data; expected at most {count}")
    if not (0.5 < kappa <= 1 and 0 <= delay < math.inf):
        raise ValueError(f"found kappa={kappa} and delay={delay}; expected kappa above 0.5 and at most 1, with which "
                         "the steps converge, and a delay of at least 0")
    q: Any = model.start(seed) if start is None else start
    elbo = [model.elbo(q)]
    for t in range(1, 1 + whole("steps", steps)):
        rows = noise.permutation(seed, "stochastic-ascent", t, count)[:batch]
        q = model.step(q, rows, (t + delay) ** -kappa)
        elbo.append(model.elbo(q))
    return Ascent(q, np.array(elbo))
