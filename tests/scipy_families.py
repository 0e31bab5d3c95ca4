"""The continuous families that SciPy has too: two rows of parameters, what SciPy knows of them, and wrong ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from integrals import T
from scipy import stats

from tinyvae.distributions import Beta, Dirichlet, Distribution, FullNormal, Gamma, Laplace, LogNormal, Normal
from tinyvae.engine.tensor import Tensor


class ScaleForRate(Gamma):
    """The second parameter taken for the scale, as SciPy has it."""

    def __init__(self, shape, rate):
        super().__init__(shape, 1 / rate)


class Exchanged(Beta):
    """a and b exchanged."""

    def __init__(self, a, b):
        super().__init__(b, a)


class OfPowers(Dirichlet):
    """The concentrations taken for the powers of z."""

    def __init__(self, concentration):
        super().__init__(concentration + 1)


class Turned(FullNormal):
    """L^T for L."""

    factor = property(lambda self: FullNormal.factor.fget(self).swap())


class StdForVar(LogNormal):
    """exp(logvar) taken for the standard deviation."""

    def __init__(self, mu, logvar):
        super().__init__(mu, 2 * logvar)


class Diagonal(Dirichlet):
    """Standardised element by element: the log-ratios' correlation, which they all have from z_n, forgotten."""

    def _moments(self):
        variance = self.concentration.polygamma(1)
        return self._location(), (variance[..., :-1] + variance[..., -1:]).sqrt()

    standardise, unstandardise = Distribution.standardise, Distribution.unstandardise

    def log_scale(self):
        return self._moments()[1].log().sum(-1)


class Row(NamedTuple):
    """A family with two rows of parameters, and what SciPy knows of it."""

    family: type
    parameters: tuple[np.ndarray, ...]
    marginals: Callable[..., Any]  # of each element, (2, n), as a frozen distribution of SciPy's
    # log p(x) and the entropy of the vector, and of draws the distribution functions F(z_j | z_1 .. z_(j-1)), which are
    # independent and uniform; where the elements are independent all is in the marginals
    log_prob: Callable[..., np.ndarray] | None = None
    entropy: Callable[..., np.ndarray] | None = None
    uniforms: Callable[..., np.ndarray] | None = None
    wrong: type | None = None  # the family made wrong, which checks must refuse
    units: tuple[int, int] = (16, 16)  # of log_prob in float32, and in float64 against SciPy: see condition()

    def make(self, dtype=np.float64, requires_grad=False):
        return self.family(*(T(p, dtype, requires_grad) for p in self.parameters))

    def others(self):
        """A second member: the rows exchanged, so that each row has a neighbour to diverge from."""
        return self.family(*(T(p[::-1]) for p in self.parameters))

    def near(self, count, rng):
        """Parameters between a third of and three times those of the row, `count` rows of them."""
        return [p[rng.integers(0, 2, count)] * np.exp(rng.uniform(-1.1, 1.1, (count, p.shape[-1])))
                for p in self.parameters]

    def reference_log_prob(self, x):
        if self.log_prob is not None:
            return self.log_prob(x, *self.parameters)
        return self.marginals(*self.parameters).logpdf(x).sum(-1)

    def reference_entropy(self):
        if self.entropy is not None:
            return self.entropy(*self.parameters)
        return self.marginals(*self.parameters).entropy().sum(-1)

    def reference_uniforms(self, z):
        if self.uniforms is not None:
            return self.uniforms(z, *self.parameters)
        return self.marginals(*self.parameters).cdf(z)


def by_row(f):
    """A function of one row of parameters for rows of them: x is (samples, rows, n), or not given."""
    return lambda *arrays: np.stack([f(*(a[..., i, :] for a in arrays)) for i in range(arrays[-1].shape[-2])], axis=-1)


def covariance(logvar, lower):
    factor = np.diag(np.exp(logvar / 2))
    factor[np.tril_indices(len(logvar), -1)] = lower
    return factor @ factor.T


def dirichlet_uniforms(z, a):
    # stick-breaking: z_j / (1 - z_1 - .. - z_(j-1)) ~ Beta(a_j, a_(j+1) + ..), independent
    rest = np.cumsum(a[..., ::-1], -1)[..., ::-1][..., 1:]
    left = np.cumsum(z[..., ::-1], -1)[..., ::-1][..., :-1]
    return stats.beta(a[..., :-1], rest).cdf(z[..., :-1] / left)


def full_normal_uniforms(z, mu, logvar, lower):
    factors = np.stack([np.linalg.cholesky(covariance(v, l)) for v, l in zip(logvar, lower, strict=True)])
    return stats.norm.cdf(np.linalg.solve(factors, (z - mu)[..., None])[..., 0])


MU, LOGVAR = np.array([[0.0, 2.0, -1.3], [0.4, -0.5, 1e-3]]), np.array([[0.0, 1.2, -3.0], [0.5, -0.7, 0.1]])
FAR_MU, FAR_LOGVAR = np.array([[0.0, 2.0, -1.3], [0.4, -5.0, 1e-3]]), np.array([[0.0, 1.2, -3.0], [2.5, -0.7, 0.1]])
POSITIVE, OTHERS = np.array([[0.7, 1.0, 2.5], [12.0, 0.3, 1.4]]), np.array([[2.0, 0.4, 1.0], [3.1, 0.6, 5.0]])
LOWER = np.array([[0.5, -1.2, 0.3], [-0.4, 0.8, 0.1]])

ROWS = {
    "normal": Row(Normal, (MU, LOGVAR), lambda mu, v: stats.norm(mu, np.exp(v / 2))),
    "log-normal": Row(LogNormal, (MU, LOGVAR), lambda mu, v: stats.lognorm(np.exp(v / 2), scale=np.exp(mu)),
                      wrong=StdForVar),
    "laplace": Row(Laplace, (MU, POSITIVE), stats.laplace),
    "gamma": Row(Gamma, (POSITIVE, OTHERS), lambda a, b: stats.gamma(a, scale=1 / b), wrong=ScaleForRate),
    "beta": Row(Beta, (POSITIVE, OTHERS), stats.beta, wrong=Exchanged),
    "dirichlet": Row(
        Dirichlet, (POSITIVE,), lambda a: stats.beta(a, a.sum(-1, keepdims=True) - a),
        by_row(lambda x, a: stats.dirichlet(a).logpdf(x.T)), by_row(lambda a: stats.dirichlet(a).entropy()),
        dirichlet_uniforms, OfPowers),
    "full-normal": Row(
        FullNormal, (MU, LOGVAR, LOWER),
        lambda mu, v, l: stats.norm(mu, by_row(lambda v, l: np.diag(covariance(v, l)) ** 0.5)(v, l).T),
        by_row(lambda x, mu, v, l: stats.multivariate_normal(mu, covariance(v, l)).logpdf(x)),
        by_row(lambda mu, v, l: stats.multivariate_normal(mu, covariance(v, l)).entropy()),
        full_normal_uniforms, Turned),
}  # fmt: skip


# ---- quadrature in the standardised stable form ----------------------------------------------------------------------


def nodes(q, count=6001, reach=45.0):
    """Quadrature over w: nodes (count, 1, free) and the logarithm of their weights, (count,), one row of q.

    The trapezoidal rule in eps, which is exact to rounding for smooth integrands that fall off at both ends: in eps
    the densities here fall at least like exp(-|eps|). E_q[f] = sum of exp(log weight + log density) f.
    """
    line = np.linspace(-reach, reach, count)
    free = q.to_stable(q.mean).shape[-1]
    eps = np.stack(np.meshgrid(*[line] * free, indexing="ij"), axis=-1).reshape(-1, 1, free)
    w = q.unstandardise(T(eps))
    log_weight = free * np.log(line[1] - line[0]) + q.log_scale().numpy().sum()
    return Tensor(w.numpy()), np.full(len(eps), log_weight)


def expectation(q, f, count=6001):
    """E_q[f(w)], f giving (nodes, ...)."""
    with np.errstate(all="ignore"):
        w, log_weight = nodes(q, count)
        density = q.log_density(w).numpy().reshape(len(w), -1).sum(-1)
        values = np.nan_to_num(np.asarray(f(w)).reshape(len(w), -1))
    return np.exp(density + log_weight) @ values


SINGLE = {
    "normal": [(0.3, -1.0), (2.0, 1.0)], "log-normal": [(0.3, -1.0), (2.0, 1.0)],
    "gamma": [(0.1, 2.0), (1.0, 0.5), (7.3, 1.0), (100.0, 3.0)],
    "beta": [(0.1, 0.2), (0.5, 4.0), (1.0, 1.0), (30.0, 2.0), (80.0, 100.0)],
}  # fmt: skip


def plane(family):
    """A member with two free numbers, and the nodes a side that its quadrature takes."""
    if family is Dirichlet:
        return Dirichlet(T([[0.8, 2.0, 3.5]])), 701
    return FullNormal(T([[0.3, -1.0]]), T([[0.2, -0.8]]), T([[0.7]])), 701


def pairs(name):
    """Members with one or two free numbers, each with others to diverge from, and the nodes a side of a quadrature."""
    family = ROWS[name].family
    if name in SINGLE:
        members = [family(*(T([[v]]) for v in values)) for values in SINGLE[name]]
        return [(q, [p], 6001) for q, p in zip(members, members[1:] + members[:1], strict=True)]
    if family is Dirichlet:
        others = [Dirichlet(T([[3.0, 0.9, 1.1]]))]
    else:
        mu, logvar = T([[1.0, 0.0]]), T([[-0.1, 0.9]])
        others = [FullNormal(mu, logvar, T([[-0.4]])), Normal(mu, logvar)]
    return [(plane(family)[0], others, plane(family)[1])]


OF_FEW = [*SINGLE, "dirichlet", "full-normal"]
