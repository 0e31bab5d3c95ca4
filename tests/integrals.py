"""Members of a family and integrals over its support, made from `from_raw`, `support` and `log_prob` alone.

    E_q[f] = sum over the nodes x of exp(log weight + log q(x)) f(x)

The nodes follow from `support`, so a new family has its quadrature without any list of parameters.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from tinyvae.distributions import LogTensor, UnitTensor
from tinyvae.distributions.registry import DISCRETE
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor

LINE = 60_001  # nodes of a quadrature in one dimension
# Errors allowed to an integral: of a smooth density, and of one with a corner, of which half of the nodes give another
# value than all.
EXACT, ROUGH, SAME = 1e-10, 1e-6, 1e-12
COUNTS = 400


def T(values, dtype=np.float64, requires_grad=False):
    return Tensor(np.array(values, dtype), requires_grad)


def is_vector(family):
    """Do the elements of a draw depend on each other?"""
    q = member(family, family.least)
    return q.log_density(q.to_stable(q.sample(Noise(0)))).ndim == 2


def size(family):
    """The fewest dimensions in which all that a family can do is seen."""
    return family.least + is_vector(family)


def raw(family, n, rows=1, seed=0, spread=1.0):
    """Unconstrained numbers, (rows, width), between -spread and spread."""
    return np.random.default_rng(seed).uniform(-spread, spread, (rows, family.width(n)))


def member(family, n, rows=1, seed=0, spread=1.0, dtype=np.float64, requires_grad=False):
    return family.from_raw(Tensor(raw(family, n, rows, seed, spread).astype(dtype), requires_grad))


def members(family):
    """Three members in the fewest dimensions that show all."""
    return [member(family, size(family), seed=seed) for seed in range(3)]


def values_of(q):
    """The nodes for a member with one row of parameters."""
    return quadrature(q.support, q.mean.shape[-1])


class Nodes(NamedTuple):
    """Values x, (nodes, 1, n), and the logarithms of their weights, (nodes,)."""

    x: Tensor
    log_weight: np.ndarray
    line: bool = False  # do they lie on one line, so that every second one is a quadrature too?


def lines(low, high, dimensions, side):
    """The nodes of the trapezoidal rule, (nodes, 1, dimensions), and the logarithm of their common weight."""
    line = np.linspace(low, high, LINE if dimensions == 1 else side)
    t = np.stack(np.meshgrid(*[line] * dimensions, indexing="ij"), axis=-1).reshape(-1, 1, dimensions)
    return t, dimensions * math.log(line[1] - line[0])


@cache
def quadrature(support, n):
    """The trapezoidal rule in a t over all real numbers, in which the densities fall off exponentially or faster; it is
    exact to rounding for smooth ones. A discrete support has all its values (of counts, the first 400)."""
    if support in DISCRETE:
        values = {"binary": np.array([[0.0], [1.0]]), "counts": np.arange(COUNTS)[:, None] * 1.0, "one-hot": np.eye(n)}
        x = values[support][:, None]
        return Nodes(Tensor(x), np.zeros(len(x)))
    if support == "real":
        t, log_weight = lines(-35, 35, n, 0) if n == 1 else lines(-20, 20, n, 301)
        return Nodes(Tensor(np.sinh(t)), log_weight + np.log(np.cosh(t)).sum(-1)[:, 0], n == 1)
    far = 400 if n == 1 else 100  # shapes from 0.1, and from 0.3, have no mass beyond
    if support == "positive":
        t, log_weight = lines(-far, 40, n, 601)
        return Nodes(LogTensor(Tensor(t)), log_weight + t.sum(-1)[:, 0], n == 1)
    if support == "unit":
        t, log_weight = lines(-far, far, n, 601)
        log, log_rest = -np.logaddexp(0, -t), -np.logaddexp(0, t)
        return Nodes(UnitTensor(Tensor(log), Tensor(log_rest)), log_weight + (log + log_rest).sum(-1)[:, 0], n == 1)
    assert support == "simplex", f"no quadrature over {support!r}"
    t, log_weight = lines(-100, 100, n - 1, 601)
    free = np.concatenate([t, np.zeros((len(t), 1, 1))], axis=-1)
    log = free - np.logaddexp.reduce(free, axis=-1, keepdims=True)
    return Nodes(LogTensor(Tensor(log)), log_weight + log.sum(-1)[:, 0], n == 2)


def expectation(q, f, nodes):
    """E_q[f(x)], f giving (nodes, ...), and how much half of the nodes would change it."""
    with np.errstate(all="ignore"):
        p = np.exp(nodes.log_weight + q.log_prob(nodes.x).numpy()[:, 0])
        each = np.nan_to_num(p[:, None] * np.asarray(f(nodes.x)).reshape(len(p), -1))  # 0 times infinity at an end
    assert np.isfinite(p).all(), "the density is not a number"
    total = each.sum(0)
    return total, np.abs(2 * each[::2].sum(0) - total) if nodes.line else 0.0


def agrees(what, found, expected_and_error):
    expected, error = expected_and_error
    found = np.ravel(found)
    scale = np.maximum(1, np.abs(expected))
    allowed = scale * np.where(error <= SAME * scale, EXACT, ROUGH)
    assert (np.abs(found - expected) <= allowed).all(), f"{what}: found {found}, by quadrature {expected}"
