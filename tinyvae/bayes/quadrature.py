"""The evidence p(x) = int p(x|z) N(z; 0, I) dz by quadrature, and what it costs.

The rule of Gauss and Hermite with n points, in the probabilists' form, integrates f(z) N(z; 0, 1) exactly for every
polynomial f of degree up to 2 n - 1:

    int f(z) N(z; 0, 1) dz ~ sum_i w_i f(z_i) / sqrt(2 pi)

In d dimensions every point of one axis meets every point of the others, which makes n^d evaluations of the decoder:
with 20 points that is 20, 400, 8,000, 160,000. Importance sampling (tinyvae/evidence/importance.py) has an error that
falls like 1 / sqrt(evaluations) in every dimension.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tinyvae.choices import an, whole
from tinyvae.distributions import Normal
from tinyvae.engine.devices import to_host
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Generator

MOST = 10**6  # evaluations of the decoder for each datum
FINEST = 250  # points of an axis; NumPy's weights overflow not far above
CHUNK = 2**20  # numbers that the decoder gives at a time, which bounds the memory


class Quadrature(NamedTuple):
    """log p(x) by quadrature."""

    log_evidence: np.ndarray  # (batch,) float64, in nats
    points: int  # n, of each axis
    evaluations: int  # n^d, of the decoder for each datum


def by_quadrature(p: Generator, x: Tensor, points: int) -> Quadrature:
    """log p(x) of each datum x (batch, pixels) under a model with a normal prior of its own for all data.

    Parameters
    ----------
    p
        The prior and the likelihood, as `model.generator(None)` or `tv.Joint(prior, likelihood)` gives them.
    points
        n, the points of each axis.

    Raises
    ------
    ValueError
        For another prior, more than 250 points, or more than 10^6 evaluations.
    """
    points, prior = whole("points", points, 1), p.prior
    if points > FINEST:
        raise ValueError(f"found {points} points of each axis; expected at most {FINEST}, beyond which the rule has no "
                         "weights in float64: take fewer, or importance sampling")
    if not isinstance(prior, Normal) or prior.mu.ndim != 1:
        raise ValueError(f"found {an(type(prior).__name__)} prior with parameters {prior.mean.shape}; expected one "
                         "normal prior for all data, with parameters (latent,)")
    mu, sigma = to_host(prior.mu.data).astype(np.float64), np.exp(to_host(prior.logvar.data).astype(np.float64) / 2)
    latent, evaluations = len(mu), points ** len(mu)
    if evaluations > MOST:
        fewer = int(MOST ** (1 / latent) + 1e-9)
        raise ValueError(f"found {points} points on each of {latent} axes, which are {evaluations:,} evaluations; "
                         f"expected at most {MOST:,}: "
                         + (f"take at most {fewer} points" if fewer > 1 else "take importance sampling"))
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    log_weights = np.log(weights) - 0.5 * math.log(2 * math.pi)
    total, rows = np.full(len(x), -np.inf), max(1, CHUNK // max(1, x.size))
    for start in range(0, evaluations, rows):
        # the numbers of the points of each axis, for the next rows of the product of all axes
        each = np.stack(np.unravel_index(np.arange(start, min(start + rows, evaluations)), (points,) * latent), axis=-1)
        z = Tensor((mu + sigma * nodes[each]).astype(x.dtype)[:, None, :].repeat(len(x), axis=1))
        log_p = p.likelihood(z).log_prob(x).numpy().astype(np.float64)  # (rows, batch)
        weighted = log_p + log_weights[each].sum(-1)[:, None]
        total = np.logaddexp(total, np.logaddexp.reduce(weighted, axis=0))
    return Quadrature(total, points, evaluations)


def refined(p: Generator, x: Tensor, tolerance: float, first: int = 4) -> Quadrature:
    """`by_quadrature` with as few points as a tolerance in nats asks for.

    The points of each axis grow by half until log p(x) of every datum changed by less than `tolerance` twice in a row
    (once may be luck). ValueError, from `by_quadrature`, where that takes too many points or evaluations.
    """
    if not tolerance > 0:
        raise ValueError(f"found tolerance={tolerance}; expected nats, above 0")
    found, settled = by_quadrature(p, x, whole("first", first, 1)), 0
    while settled < 2:
        before, found = found, by_quadrature(p, x, found.points + (found.points + 1) // 2)
        is_near = (np.abs(found.log_evidence - before.log_evidence) < tolerance).all()
        settled = settled + 1 if is_near else 0
    return found
