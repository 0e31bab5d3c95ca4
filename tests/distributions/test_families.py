"""One set of checks for every continuous family that an inference model can have: a row of FAMILIES is all they need.

Each check is a function of a row, and is also run on rows made wrong on purpose, which it must refuse.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import special, stats
from support import DTYPES, assert_close, assert_same_bits, likely, likely_zero

import tinyvae as tv
from tinyvae.distributions import (
    Beta,
    Dirichlet,
    Distribution,
    FullNormal,
    Gamma,
    Laplace,
    LogNormal,
    LogTensor,
    Normal,
    UnitTensor,
    kl,
    kl_per_dimension,
)  # fmt: skip
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.engine.testing import check_gradients

DRAWS = 20_000


@pytest.fixture(params=[True, False], ids=["kernel", "twin"])
def _fused(request):
    """For what holds with the kernels and with their readable twins."""
    with tv.fused(request.param):
        yield


def T(values, dtype=np.float64, requires_grad=False):
    return Tensor(np.array(values, dtype), requires_grad)


# ---- the families ----------------------------------------------------------------------------------------------------


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
    units: tuple[int, int] = (16, 16)  # of log_prob in float32, and in float64 against SciPy: see condition()
    smooth: bool = True  # has the density of w derivatives everywhere?

    def make(self, dtype=np.float64, requires_grad=False):
        return self.family(*(T(p, dtype, requires_grad) for p in self.parameters))

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
POSITIVE, OTHERS = np.array([[0.7, 1.0, 2.5], [12.0, 0.3, 1.4]]), np.array([[2.0, 0.4, 1.0], [3.1, 0.6, 5.0]])
LOWER = np.array([[0.5, -1.2, 0.3], [-0.4, 0.8, 0.1]])

FAMILIES = {
    "normal": Row(Normal, (MU, LOGVAR), lambda mu, v: stats.norm(mu, np.exp(v / 2))),
    "log-normal": Row(LogNormal, (MU, LOGVAR), lambda mu, v: stats.lognorm(np.exp(v / 2), scale=np.exp(mu))),
    "laplace": Row(Laplace, (MU, POSITIVE), stats.laplace, smooth=False),
    "gamma": Row(Gamma, (POSITIVE, OTHERS), lambda a, b: stats.gamma(a, scale=1 / b)),
    "beta": Row(Beta, (POSITIVE, OTHERS), stats.beta),
    "dirichlet": Row(
        Dirichlet, (POSITIVE,), lambda a: stats.beta(a, a.sum(-1, keepdims=True) - a),
        by_row(lambda x, a: stats.dirichlet(a).logpdf(x.T)), by_row(lambda a: stats.dirichlet(a).entropy()),
        dirichlet_uniforms),
    "full normal": Row(
        FullNormal, (MU, LOGVAR, LOWER),
        lambda mu, v, l: stats.norm(mu, by_row(lambda v, l: np.diag(covariance(v, l)) ** 0.5)(v, l).T),
        by_row(lambda x, mu, v, l: stats.multivariate_normal(mu, covariance(v, l)).logpdf(x)),
        by_row(lambda mu, v, l: stats.multivariate_normal(mu, covariance(v, l)).entropy()),
        full_normal_uniforms),
}  # fmt: skip


def each(*names):
    return pytest.mark.parametrize("name", names or FAMILIES)


# ---- wrong on purpose ------------------------------------------------------------------------------------------------


class ScaleForRate(Gamma):
    """The second parameter taken for the scale, as SciPy has it."""

    def __init__(self, shape, rate):
        super().__init__(shape, 1 / rate)


class Exchanged(Beta):
    """a and b exchanged."""

    def __init__(self, a, b):
        super().__init__(b, a)


class WithoutJacobian(Beta):
    """The density of z for that of its logit."""

    def log_density(self, w):
        z = self.from_stable(w)
        return super().log_density(w) - z.log() - (1 - z).log()


class OfPowers(Dirichlet):
    """The concentrations taken for the powers of z."""

    def __init__(self, concentration):
        super().__init__(concentration + 1)


class Diagonal(Dirichlet):
    """Standardised element by element: the log-ratios' correlation, which they all have from z_n, forgotten."""

    def _moments(self):
        variance = self.concentration.polygamma(1)
        return self._location(), (variance[..., :-1] + variance[..., -1:]).sqrt()

    standardise, unstandardise = Distribution.standardise, Distribution.unstandardise

    def log_scale(self):
        return self._moments()[1].log().sum(-1)


class Turned(FullNormal):
    """L^T for L."""

    factor = property(lambda self: FullNormal.factor.fget(self).swap())


class StdForVar(LogNormal):
    """exp(logvar) taken for the standard deviation."""

    def __init__(self, mu, logvar):
        super().__init__(mu, 2 * logvar)


class Unscaled(Gamma):
    """The scale of eps left out of its density."""

    def log_scale(self):
        return super().log_scale() * 0


WRONG = {"log-normal": StdForVar, "gamma": ScaleForRate, "beta": Exchanged, "dirichlet": OfPowers,
         "full normal": Turned}


def refuse(check, name, wrong, *arguments):
    """The check does not take the wrong family for the right one."""
    with pytest.raises(AssertionError):
        check(name, FAMILIES[name]._replace(family=wrong), *arguments)


# ---- values ----------------------------------------------------------------------------------------------------------


def full_leaves(row, samples, dtype=np.float64):
    """The parameters repeated for each sample, to be differentiated one by one."""
    return [T(np.broadcast_to(p.astype(dtype), (samples, *p.shape)), requires_grad=True) for p in row.parameters]


def condition(row, parameters, x):
    """How far a rounding of each input moves log p(x), in rounding units: |f| + |x df/dx| + |v df/dv|, and at least 1.

    It is the scale by which a result can be called accurate: no formula can be better than its inputs.
    """
    leaves = [T(p.data, requires_grad=True) for p in (*parameters, x)]
    value = row.family(*leaves[:-1]).log_prob(leaves[-1])
    total = np.abs(value.data)
    for leaf, g in zip(leaves, grad(value.sum(), leaves), strict=True):
        total = total + np.abs(leaf.data * g.data).sum(-1)
    return np.maximum(1, total)


def check_log_prob(name, row):
    x = FAMILIES[name].make().sample(Noise(1), 50)
    x = T(x.numpy())
    found = row.make().log_prob(x).numpy()
    assert found.shape == (50, 2)
    scale = condition(FAMILIES[name], full_leaves(row, 50), x)
    worst = assert_close(found, row.reference_log_prob(x.numpy()), row.units[1], "log_prob", scale)
    print(f"{name}: log_prob within {worst:.2g} units of SciPy's")


@each()
@pytest.mark.usefixtures("_fused")
def test_log_prob_agrees_with_scipy(name):
    check_log_prob(name, FAMILIES[name])
    if name in WRONG:
        refuse(check_log_prob, name, WRONG[name])


def check_summaries(name, row):
    q, marginals = row.make(), row.marginals(*row.parameters)
    for what, found, expected in (("mean", q.mean, marginals.mean()), ("variance", q.variance, marginals.var())):
        assert found.shape == (2, 3)
        assert_close(found.numpy(), expected, 16, what, scale=np.abs(expected) + 1e-300)
    # the terms of the entropy are below 50
    assert_close(q.entropy().numpy(), row.reference_entropy(), 4, "entropy", scale=50)


@each()
@pytest.mark.usefixtures("_fused")
def test_mean_variance_and_entropy_agree_with_scipy(name):
    check_summaries(name, FAMILIES[name])
    if name in WRONG:
        refuse(check_summaries, name, WRONG[name])


def check_float32(name, row, make=None):
    """log p(x) in float32 against float64 at the same numbers, in units of condition()."""
    rng = np.random.default_rng(2)
    parameters = [p.astype(np.float32) for p in full_leaves_near(row, 400, rng)]
    x = row.family(*(T(p) for p in parameters)).sample(Noise(3)).numpy()[0].astype(np.float32)
    with np.errstate(all="ignore"):
        inside = np.isfinite(row.family(*(T(p) for p in parameters)).log_prob(T(x)).numpy())  # not rounded to an end
        assert inside.mean() > 0.9
        parameters, x = [p[inside] for p in parameters], x[inside]
        exact = row.family(*(T(p) for p in parameters)).log_prob(T(x)).numpy()
        single = (make or row.family)(*(T(p, np.float32) for p in parameters)).log_prob(T(x, np.float32)).numpy()
    assert single.dtype == np.float32
    scale = condition(row, [T(p) for p in parameters], T(x))
    worst = assert_close(single, exact, row.units[0], "log_prob in float32", scale)
    print(f"{name}: float32 within {worst:.2g} rounding units, allowed {row.units[0]}")


def full_leaves_near(row, count, rng):
    """Parameters between a third of and three times those of the row, `count` rows of them."""
    return [p[rng.integers(0, 2, count)] * np.exp(rng.uniform(-1.1, 1.1, (count, p.shape[-1])))
            for p in row.parameters]


@each()
@pytest.mark.usefixtures("_fused")
def test_float32_is_accurate(name):
    check_float32(name, FAMILIES[name])


def test_lost_digits_are_found():
    class Loses(Gamma):
        def log_prob(self, x):
            return ((self.rate * x) ** (self.shape - 1) * (-self.rate * x).exp() * self.rate
                    / self.shape.lgamma().exp() + 1e-7).log().sum(-1)

    with pytest.raises(AssertionError, match="rounding units"):
        check_float32("gamma", FAMILIES["gamma"], Loses)


@each()
def test_a_family_is_made_of_its_parameters_and_of_free_numbers(name):
    q = FAMILIES[name].make()
    x = q.sample(Noise(0), 2)
    assert_same_bits(type(q)(**q.parameters).log_prob(x).numpy(), q.log_prob(x).numpy())
    raw = T(np.random.default_rng(0).normal(0, 3, (4, q.width(3))), requires_grad=True)
    made = type(q).from_raw(raw)
    z = made.sample(Noise(0), 3)
    assert z.shape == (3, 4, 3)
    assert np.isfinite(made.log_prob(z).numpy()).all()
    moved = grad((made.entropy() + made.log_prob(z.detach()).sum(0)).sum(), raw).numpy()
    assert np.isfinite(moved).all()
    assert (moved != 0).all()  # each number counts


# ---- draws -----------------------------------------------------------------------------------------------------------


def check_draws(name, row):
    """The whole law of a vector: each element's distribution function, given those before it."""
    z = row.make().sample(Noise(11), DRAWS)
    assert z.shape == (DRAWS, 2, 3)
    u = FAMILIES[name].reference_uniforms(z.numpy()).reshape(-1)
    likely(f"draws of {name}", stats.kstest(u, "uniform").pvalue)


@each()
def test_draws_follow_the_density(name):
    check_draws(name, FAMILIES[name])
    if name in WRONG:
        refuse(check_draws, name, WRONG[name])


@each()
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_draw_is_a_function_of_seed_step_and_site(name, dtype):
    q = FAMILIES[name].make(dtype)

    def draw(seed=0, step=0, sites=0):
        noise = Noise(seed).restart(step)
        for _ in range(sites):
            noise.normal((1,))
        return q.sample(noise, 3).numpy()

    assert draw().dtype == dtype
    assert_same_bits(draw(5, 7, 2), draw(5, 7, 2))
    kinds = [draw(), draw(seed=1), draw(step=1), draw(sites=4)]
    for i, a in enumerate(kinds):
        for b in kinds[:i]:
            assert (a != b).all()
    one = Noise(0)
    assert (q.sample(one, 3).numpy() != q.sample(one, 3).numpy()).all(), "two draws of one step"


@each()
def test_a_replay_draws_anew(name):
    """A recorded draw reads the clock when it runs: the kept logarithms and all that is made of them are renewed."""
    q, noise = FAMILIES[name].make(requires_grad=True), Noise(3)
    with tv.Tape() as tape:
        z = q.sample(noise, 4)
        w = q.to_stable(z)
        g = grad((w * w).sum(), list(q.parameters.values()))
    noise.counters[0] = 9
    tape.replay()
    again = q.sample(Noise(3).restart(9), 4)
    assert_same_bits(z.data, again.data)
    assert_same_bits(w.data, q.to_stable(again).data)
    fresh = grad((q.to_stable(again) ** 2).sum(), list(q.parameters.values()))
    for a, b in zip(g, fresh, strict=True):
        assert_close(a.data, b.data, 64, scale=np.abs(b.data) + 1)


@each("gamma", "beta", "dirichlet")
def test_both_types_accept_the_same_attempts(name):
    """Rejection is decided in float64: a draw of float32 is that of float64, rounded."""
    single, double = (FAMILIES[name].make(dtype).sample(Noise(12), 2000).log().numpy() for dtype in DTYPES)
    assert_close(single, double, 8, scale=1 + np.abs(double))


def log_gamma_cdf(w, a):
    """P(log z < w) for a small shape, also where z is below the smallest number: F = z^a / Gamma(a + 1) there."""
    return np.where(w > -600, special.gammainc(a, np.exp(w)), np.exp(a * w - special.gammaln(a + 1)))


def logit_cdf(w, a, b):
    """Likewise P(logit z < w) for a Beta: near 0, F = z^a / (a B(a, b))."""
    tail = np.where(w < 0, a, b)
    far = np.exp(-tail * np.abs(w) - np.log(tail) - special.betaln(a, b))
    return np.where(np.abs(w) < 30, special.betainc(a, b, special.expit(w)), np.where(w < 0, far, 1 - far))


TINY = 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_at_tiny_shapes_keep_their_logarithms(dtype):
    """At shape 0.001 a Gamma draw is below float32's numbers nine times of ten; its logarithm is a number like any."""
    shape = T([[TINY]], dtype)
    z = Gamma(shape, T([[1.0]], dtype)).sample(Noise(21), DRAWS)
    w = z.log().numpy().astype(np.float64).reshape(-1)
    assert np.isfinite(w).all()
    assert (z.numpy() == 0).mean() > (0.4 if dtype == np.float64 else 0.8)
    likely("Gamma(0.001)", stats.kstest(log_gamma_cdf(w, TINY), "uniform").pvalue)

    z = Beta(shape, shape).sample(Noise(22), DRAWS)
    log_z, log_rest = (t.log().numpy().astype(np.float64).reshape(-1) for t in (z, 1 - z))
    assert np.isfinite(log_z).all()
    assert np.isfinite(log_rest).all()
    assert (np.maximum(log_z, log_rest) > -0.7).all()
    likely("Beta(0.001, 0.001)", stats.kstest(logit_cdf(log_z - log_rest, TINY, TINY), "uniform").pvalue)

    z = Dirichlet(T([[TINY] * 3], dtype)).sample(Noise(23), DRAWS)
    log_z = z.log().numpy().astype(np.float64).reshape(-1, 3)
    assert np.isfinite(log_z).all()
    # the largest's logarithm, some -1e-3 at most beside others of -10,000, has its digits: the sum is 1
    assert_close(np.exp(log_z).sum(-1).astype(dtype), np.ones(DRAWS), 4)
    first = log_z[:, 0] - np.logaddexp(log_z[:, 1], log_z[:, 2])
    likely("Dirichlet(0.001, 0.001, 0.001)", stats.kstest(logit_cdf(first, TINY, 2 * TINY), "uniform").pvalue)


@pytest.mark.parametrize("dtype", DTYPES)
@each("gamma", "beta", "dirichlet")
def test_all_is_finite_at_tiny_shapes(name, dtype):
    """Value and gradient of all that is written in the kept logarithms."""
    family = FAMILIES[name].family
    leaves = [T(np.full((1, 3), TINY), dtype, requires_grad=True) for _ in FAMILIES[name].parameters]
    q = family(*leaves)
    z = q.sample(Noise(24), 200)
    w = q.to_stable(z)
    eps = q.standardise(w)
    for what in (q.log_prob(z), q.log_density(w), q.log_density(q.unstandardise(eps.detach())), eps, q.entropy(),
                 q.log_scale()):
        assert np.isfinite(what.numpy()).all()
        for g in grad(what.sum(), leaves):
            assert np.isfinite(g.numpy()).all()


def test_a_tensor_carries_its_logarithms():
    w = T([[-2000.0, 3.0, 2000.0]], requires_grad=True)
    z = Beta(T([1.0]), T([1.0])).from_stable(w)
    assert isinstance(z, UnitTensor)
    assert z.log().numpy().tolist() == [[-2000.0, -np.log1p(np.exp(-3.0)), 0.0]]
    assert (1 - z).log().numpy().tolist() == [[0.0, -np.logaddexp(0, 3.0), -2000.0]]
    assert_same_bits((1 - (1 - z)).log().numpy(), z.log().numpy())
    assert_same_bits(z.logit().numpy(), w.numpy())
    assert_same_bits((1.0 - z).numpy(), special.expit(-w.numpy()))
    for changed, same in ((z.reshape(3), w.reshape(3)), (z[..., 1:], w[..., 1:]), (z.T, w.T), (z.detach(), w.detach()),
                          (z.broadcast_to((2, 3)), w.broadcast_to((2, 3))), (z.contiguous(), w)):
        assert_same_bits(changed.logit().numpy(), same.numpy())
    assert (z**2).log().numpy()[0, 0] == -4000
    assert z.sqrt().log().numpy()[0, 0] == -1000
    assert grad(z.log().sum(), w).numpy()[0, 0] == 1  # where exp(-2000) is 0
    assert not z.detach().requires_grad
    assert not z.detach().log().requires_grad
    assert not isinstance(z + 1, LogTensor)
    assert_same_bits((2 - z).numpy(), 2 - z.numpy())


# ---- the coordinate --------------------------------------------------------------------------------------------------


def jacobian(f, at, step=1e-5):
    """The matrix of central differences of a function of vectors."""
    columns = []
    for i in range(len(at)):
        h = np.zeros_like(at)
        h[i] = step * max(1.0, abs(at[i]))
        columns.append((f(at + h) - f(at - h)) / (2 * h[i]))
    return np.stack(columns, axis=-1)


def check_coordinate(name, row):
    """The density of w is that of z times |dz / dw|, and `value` is the inverse of `coordinate`."""
    q = row.make()
    z = q.sample(Noise(31), 4)
    w = q.to_stable(z)
    density = q.log_density(w)
    assert density.shape in ((4, 2), (4, 2, 3))
    assert_close(q.from_stable(w).numpy(), z.numpy(), 16, "value(coordinate(z))")
    total = density.numpy() if density.ndim == 2 else density.numpy().sum(-1)
    free = w.shape[-1]

    for i in range(4):
        for j in range(2):
            def value(at, j=j):
                place = np.tile(at, (2, 1))
                return q.from_stable(T(place)).numpy()[j][:free]

            determinant = np.linalg.det(jacobian(value, w.numpy()[i, j]))
            expected = FAMILIES[name].reference_log_prob(z.numpy())[i, j] + np.log(abs(determinant))
            assert abs(total[i, j] - expected) <= 1e-7 * max(1, abs(expected)), f"{name}: {total[i, j]}, {expected}"


@each()
def test_density_of_the_coordinate(name):
    check_coordinate(name, FAMILIES[name])


def test_a_density_without_its_jacobian_is_found():
    refuse(check_coordinate, "beta", WithoutJacobian)


def check_standardised(name, row):
    """standardise and unstandardise are each other's inverse, and log_scale is the determinant between them."""
    q = row.make()
    w = T(q.to_stable(q.sample(Noise(32), 4)).numpy())
    eps = q.standardise(w)
    assert_close(q.unstandardise(eps).numpy(), w.numpy(), 64, "w")
    assert_close(q.standardise(q.unstandardise(eps)).numpy(), eps.numpy(), 64, "eps")
    found = q.log_scale().numpy()
    found = found if found.ndim == 1 else found.sum(-1)
    for j in range(2):
        def turned(at, j=j):
            return q.unstandardise(T(np.tile(at, (2, 1)))).numpy()[j]

        expected = np.linalg.slogdet(jacobian(turned, eps.numpy()[0, j]))[1]
        assert abs(found[j] - expected) <= 1e-8, f"{name}: log_scale {found[j]}, by differences {expected}"


@each()
def test_standardised_coordinate(name):
    check_standardised(name, FAMILIES[name])


def test_a_forgotten_scale_is_found():
    refuse(check_standardised, "gamma", Unscaled)


def check_statistically(name, row):
    """E[eps] = 0 and E[eps eps^T] = I over draws."""
    q = row.make()
    eps = q.standardise(q.to_stable(q.sample(Noise(33), DRAWS))).numpy()
    product = eps[..., 0] * eps[..., 1]
    for what, values in (("E[eps]", eps), ("E[eps^2] - 1", eps**2 - 1), ("E[eps_1 eps_2]", product)):
        mean = values.reshape(DRAWS, -1).mean(-1)
        likely_zero(f"{what} of {name}", mean.mean(), mean.std() / np.sqrt(DRAWS))


@each()
def test_standardised_moments_of_draws(name):
    check_statistically(name, FAMILIES[name])


def test_a_forgotten_correlation_is_found():
    refuse(check_statistically, "dirichlet", Diagonal)


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


def check_moments_exactly(q, count):
    def moments(w):
        eps = q.standardise(w).numpy()
        pairs = eps[..., :, None] * eps[..., None, :]
        return np.concatenate([np.ones((len(eps), 1)), eps[:, 0], pairs.reshape(len(eps), -1)], axis=-1)

    found = expectation(q, moments, count)
    free = q.to_stable(q.mean).shape[-1]
    expected = np.concatenate([[1.0], np.zeros(free), np.eye(free).reshape(-1)])
    assert np.abs(found - expected).max() <= 1e-10, f"1, E[eps], E[eps eps^T] are {found}"


@each(*SINGLE)
def test_standardised_moments_by_quadrature(name):
    """And the density of w integrates to 1."""
    for values in SINGLE[name]:
        check_moments_exactly(FAMILIES[name].family(*(T([[v]]) for v in values)), 6001)


@pytest.mark.parametrize("family", [Dirichlet, FullNormal])
def test_standardised_moments_by_quadrature_in_the_plane(family):
    check_moments_exactly(*plane(family))
    if family is Dirichlet:
        with pytest.raises(AssertionError):
            check_moments_exactly(Diagonal(T([[0.8, 2.0, 3.5]])), 701)


# ---- entropy and divergences -----------------------------------------------------------------------------------------


def check_by_quadrature(q, p, closed, count=6001):
    """Entropy of q and KL(q || p), both by their definitions; a change of variable leaves the KL as it is."""
    def terms(w):
        own, other = (d.log_density(w).numpy().reshape(len(w), -1).sum(-1) for d in (q, p))
        return np.stack([-q.log_prob(q.from_stable(w)).numpy()[:, 0], own - other], axis=-1)

    entropy, divergence = expectation(q, terms, count)
    assert abs(q.entropy().item() - entropy) <= 1e-10 * max(1, abs(entropy))
    assert abs(closed.item() - divergence) <= 1e-10 * max(1, divergence)


@each(*SINGLE)
@pytest.mark.usefixtures("_fused")
def test_entropy_and_divergence_by_quadrature(name):
    members = [FAMILIES[name].family(*(T([[v]]) for v in values)) for values in SINGLE[name]]
    for q, p in zip(members, members[1:] + members[:1], strict=True):
        check_by_quadrature(q, p, kl(q, p))
        with pytest.raises(AssertionError):
            check_by_quadrature(q, p, kl(p, q))


def test_entropy_and_divergence_by_quadrature_in_the_plane():
    pairs = [(plane(Dirichlet)[0], Dirichlet(T([[3.0, 0.9, 1.1]])))]
    for p in (FullNormal(T([[1.0, 0.0]]), T([[-0.1, 0.9]]), T([[-0.4]])), Normal(T([[1.0, 0.0]]), T([[-0.1, 0.9]]))):
        pairs.append((plane(FullNormal)[0], p))
    for q, p in pairs:
        check_by_quadrature(q, p, kl(q, p), 701)


PAIRS = [*[(name, name) for name in FAMILIES], ("full normal", "normal")]


def others(name):
    """A second member: the rows exchanged, so that each row has a neighbour to diverge from."""
    return FAMILIES[name].family(*(T(p[::-1]) for p in FAMILIES[name].parameters))


def check_divergence(q, p, closed, what):
    z = q.sample(Noise(41), DRAWS)
    gap = q.log_prob(z).numpy() - p.log_prob(z).numpy()
    for j in range(2):
        likely_zero(f"KL of {what}", gap[:, j].mean() - closed[j], gap[:, j].std() / np.sqrt(DRAWS))


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_divergence_is_the_mean_log_ratio(first, second):
    q, p = FAMILIES[first].make(), others(second)
    check_divergence(q, p, kl(q, p).numpy(), f"{first} || {second}")
    if first == second:
        with pytest.raises(AssertionError):
            check_divergence(q, p, kl(p, q).numpy(), "q and p exchanged")


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_divergences_are_never_negative_and_zero_for_equals(first, second, dtype):
    rng = np.random.default_rng(4)
    many = [[T(p, dtype) for p in full_leaves_near(FAMILIES[name], 200, rng)] for name in (first, second)]
    q, p = (FAMILIES[name].family(*arrays) for name, arrays in zip((first, second), many, strict=True))
    found = kl_per_dimension(q, p).numpy()
    assert found.dtype == dtype
    assert (found >= -1e3 * np.finfo(dtype).eps).all()
    assert kl(q, p).shape == (200,)
    if first == second:
        assert np.abs(kl_per_dimension(q, q).numpy()).max() <= 16 * np.finfo(dtype).eps


# ---- the families with one vector a latent ---------------------------------------------------------------------------


def test_a_dirichlet_of_two_is_a_beta():
    a, b = POSITIVE.reshape(-1, 1), OTHERS.reshape(-1, 1)
    two, beta = Dirichlet(T(np.concatenate([a, b], -1))), Beta(T(a), T(b))
    w = T(np.random.default_rng(0).normal(0, 3, (5, 6, 1)))
    assert_close(two.log_density(w).numpy(), beta.log_density(w).numpy()[..., 0], 32)
    for what in ("standardise", "unstandardise"):
        assert_close(getattr(two, what)(w).numpy(), getattr(beta, what)(w).numpy(), 16, what)
    assert_close(two.log_scale().numpy(), beta.log_scale().numpy()[:, 0], 8)
    assert_close(two.entropy().numpy(), beta.entropy().numpy(), 64)
    assert_close(two.from_stable(w).numpy()[..., :1], beta.from_stable(w).numpy(), 4)
    other = Dirichlet(T(np.concatenate([b, a], -1)))
    assert_close(kl(two, other).numpy(), kl(beta, Beta(T(b), T(a))).numpy(), 128)


def test_a_full_normal_without_correlation_is_a_normal():
    full, diagonal = FullNormal(T(MU), T(LOGVAR), T(LOWER * 0)), Normal(T(MU), T(LOGVAR))
    x = full.sample(Noise(0), 5)
    assert_close(x.numpy(), diagonal.sample(Noise(0), 5).numpy(), 4)
    assert_close(full.log_prob(x).numpy(), diagonal.log_prob(x).numpy(), 8)
    for p in (others("normal"), Normal.standard(3, np.float64)):
        assert_close(kl_per_dimension(full, p).numpy(), kl_per_dimension(diagonal, p).numpy(), 8)


def test_divergence_of_a_full_normal_by_element():
    """Element j's share is what the conditional q(z_j | z_1 .. z_(j-1)) diverges by, in the mean over those before."""
    q, p = FAMILIES["full normal"].make(), others("normal")
    shares = kl_per_dimension(q, p).numpy()
    assert shares.shape == (2, 3)
    assert (shares >= 0).all()
    for i in range(2):
        S, P = covariance(LOGVAR[i], LOWER[i]), np.diag(np.exp(p.logvar.numpy()[i]))
        d = MU[i] - p.mu.numpy()[i]
        for j in range(1, 4):  # the first j elements by themselves
            s, r = S[:j, :j], P[:j, :j]
            whole = 0.5 * (np.trace(np.linalg.solve(r, s)) + d[:j] @ np.linalg.solve(r, d[:j]) - j
                           + np.linalg.slogdet(r)[1] - np.linalg.slogdet(s)[1])
            assert_close(shares[i, :j].sum(), whole, 64)
    # between two full ones, the whole
    other = others("full normal")
    for i in range(2):
        S, P = covariance(LOGVAR[i], LOWER[i]), covariance(LOGVAR[1 - i], LOWER[1 - i])
        d = MU[i] - MU[1 - i]
        whole = 0.5 * (np.trace(np.linalg.solve(P, S)) + d @ np.linalg.solve(P, d) - 3
                       + np.linalg.slogdet(P)[1] - np.linalg.slogdet(S)[1])
        assert abs(kl(q, other).numpy()[i] - whole) <= 1e-12 * whole


def test_one_dimension_of_a_full_normal():
    q = FullNormal.from_raw(T([[0.5, -1.0]]))
    assert q.lower.shape == (1, 0)
    x = T([[0.2]])
    assert_close(q.log_prob(x).numpy(), Normal(T([[0.5]]), T([[-1.0]])).log_prob(x).numpy(), 4)
    assert q.factor.shape == (1, 1, 1)


def test_a_full_normal_says_what_it_expects():
    with pytest.raises(ValueError, match="found 6 numbers; expected 5 for 2 dimensions, 9 for 3"):
        FullNormal.from_raw(T([[0.0] * 6]))
    with pytest.raises(ValueError, match="found 2 numbers below the diagonal of 3 x 3; expected 3"):
        FullNormal(T([[0.0] * 3]), T([[0.0] * 3]), T([[0.0] * 2]))


def test_triangles():
    """Row by row below the diagonal, and back."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5):
        numbers = rng.normal(size=(2, 4, n * (n - 1) // 2))
        expected = np.zeros((2, 4, n, n))
        expected[..., *np.tril_indices(n, -1)] = numbers
        found = T(numbers).apply("strict_lower", n=n)
        assert_same_bits(found.numpy(), expected)
        assert_same_bits(found.apply("below_diagonal").numpy(), numbers)
    check_gradients(lambda a: a.apply("strict_lower", n=3) ** 2, rng.normal(size=(2, 3)), order=2)
    check_gradients(lambda a: a.apply("below_diagonal") ** 2, rng.normal(size=(2, 3, 3)), order=2)


@pytest.mark.parametrize("transposed", [False, True])
def test_triangular_solve(transposed):
    rng = np.random.default_rng(1)
    L = np.tril(rng.normal(size=(4, 3, 3)), -1) + np.eye(3) * rng.uniform(0.5, 2, (4, 1, 3))
    above = L + np.triu(rng.normal(size=(3, 3)), 1)  # which is not read
    b = rng.normal(size=(5, 4, 3))
    matrix = L.swapaxes(-1, -2) if transposed else L
    expected = np.linalg.solve(matrix, b[..., None])[..., 0]
    for dtype in DTYPES:
        found = T(above, dtype).apply("solve_lower", T(b, dtype), transposed=transposed)
        assert found.dtype == dtype
        assert_close(found.numpy(), expected, 64)
    for shape in ((5, 4, 3), (3,), (1, 3)):  # vectors of a batch, one for all
        check_gradients(lambda L, b: L.apply("solve_lower", b, transposed=transposed), above, rng.normal(size=shape),
                        order=2)


# ---- gradients -------------------------------------------------------------------------------------------------------


@each()
def test_gradients(name):
    """log_prob by parameters and x, twice; entropy, mean, variance, KL; the coordinate's functions."""
    row = FAMILIES[name]
    family, arrays = row.family, row.parameters
    q = row.make()
    x = 0.5 * (q.sample(Noise(51), 2) + q.mean).numpy()  # not near an end, where differences are inexact
    w = q.to_stable(T(x)).numpy()
    check_gradients(lambda *t: family(*t[:-1]).log_prob(t[-1]), *arrays, x, order=2)
    for what in (lambda q, w: q.log_density(w), lambda q, w: q.standardise(w), lambda q, w: q.unstandardise(0.3 * w),
                 lambda q, w: q.log_scale(), lambda q, w: q.entropy(), lambda q, w: q.mean, lambda q, w: q.variance):
        check_gradients(lambda *t, what=what: what(family(*t[:-1]), t[-1]), *arrays, w)
    check_gradients(lambda *t: kl(family(*t[: len(arrays)]), family(*t[len(arrays):])), *arrays,
                    *(p[::-1] for p in arrays))
    if family.path == "reparam":
        check_gradients(lambda *t: family(*t).sample(Noise(52), 2), *arrays)
    if family is FullNormal:
        check_gradients(lambda *t: kl_per_dimension(FullNormal(*t[:3]), Normal(*t[3:])), *arrays, MU[::-1], LOGVAR)
