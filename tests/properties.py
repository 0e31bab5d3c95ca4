"""What every registered family must satisfy: one function a property, each of a class alone.

The members under test come from `from_raw` of random numbers and their integrals from integrals.py, so registering a
family is enough to test it.
"""

import math

import numpy as np
import pytest
from integrals import agrees, expectation, member, members, quadrature, raw, size, values_of
from scipy import stats
from support import DTYPES, assert_close, assert_same_bits, likely, likely_zero

from tinyvae import fused
from tinyvae.distributions import Distribution
from tinyvae.distributions.registry import DISCRETE
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Tape
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.engine.testing import check_gradients
from tinyvae.inference.estimators import Latent, Term, choices, surrogate

DRAWS = 20_000


# ---- density and summaries -------------------------------------------------------------------------------------------


def check_density(family):
    """The density integrates (or sums) to 1."""
    for q in members(family):
        agrees("the integral of the density", 1.0, expectation(q, lambda x: np.ones(len(x)), values_of(q)))


def check_summaries(family):
    """Mean, variance and, where it is in closed form, entropy: by their definitions."""
    for q in members(family):
        summaries(q)


def summaries(q):
    mean, nodes = q.mean.numpy(), values_of(q)
    agrees("mean", mean, expectation(q, lambda x: x.numpy(), nodes))
    agrees("variance", q.variance.numpy(), expectation(q, lambda x: (x.numpy() - mean) ** 2, nodes))
    if type(q).entropy is Distribution.entropy:
        with pytest.raises(TypeError, match="has no closed-form entropy"):
            q.entropy()
    else:
        agrees("entropy", q.entropy().numpy(), expectation(q, lambda x: -q.log_prob(x).numpy(), nodes))


def check_precision(family):
    """log p(x) in float32 against float64 at the same numbers, in units of `condition`."""
    precision(member(family, 3, rows=400, spread=2.0))


def precision(q):
    family = type(q)
    parameters = {name: Tensor(v.numpy().astype(np.float32)) for name, v in q.parameters.items()}
    wide = lambda t: Tensor(t.data.astype(np.float64))
    with np.errstate(all="ignore"):
        x = Tensor(family(**{name: wide(v) for name, v in parameters.items()}).sample(Noise(3)).numpy()[0].astype(
            np.float32))
        double = family(**{name: wide(v) for name, v in parameters.items()})
        exact = double.log_prob(wide(x)).numpy()
        found = family(**parameters).log_prob(x)
    inside = np.isfinite(exact)  # x was not rounded to an end of the support
    assert inside.mean() > 0.9
    assert found.dtype == np.float32
    scale = condition(family, [wide(v) for v in parameters.values()], wide(x))
    assert_close(found.numpy()[inside], exact[inside], 16, "log_prob in float32", scale[inside])


def condition(family, parameters, x):
    """How far a rounding of each input moves log p(x), in rounding units: |f| + |x df/dx| + |v df/dv|, and at least 1.

    No formula can be more accurate than its inputs, so this is the scale by which a result is called accurate.
    """
    leaves = [Tensor(p.data, requires_grad=True) for p in (*parameters, x)]
    with np.errstate(all="ignore"):
        value = family(*leaves[:-1]).log_prob(leaves[-1])
        total = np.abs(value.data)
        for leaf, g in zip(leaves, grad(value.sum(), leaves), strict=True):
            total = total + np.abs(leaf.data * g.data).reshape(*value.shape, -1).sum(-1)
    return np.maximum(1, total)


def check_derivatives(family):
    """All that depends on the raw numbers, on x and on w: against finite differences; log_prob of the twins twice."""
    derivatives(family.from_raw, raw(family, 3, rows=2))


def derivatives(make, *numbers, x=None):
    """Of what `make` makes of the numbers: by them, and by x, by default draws."""
    q = make(*(Tensor(v) for v in numbers))
    family = type(q)
    drawn = q.sample(Noise(51), 2) if x is None else Tensor(x)
    if family.support in DISCRETE:  # a draw has no derivative
        x = drawn

        def of(f, x=x, **options):
            check_gradients(lambda *a: f(make(*a), x), *numbers, **options)
    else:
        x = 0.5 * (drawn + q.mean) if x is None else drawn  # not near an end, where differences are inexact

        def of(f, x=x, **options):
            check_gradients(lambda *a: f(make(*a[:-1]), a[-1]), *numbers, x.numpy(), **options)

    def alone(f):
        check_gradients(lambda *a: f(make(*a)) + 0 * sum(v.sum() for v in a), *numbers)

    of(lambda q, x: q.log_prob(x))
    with fused(False):
        of(lambda q, x: q.log_prob(x), order=2)
    of(lambda q, w: q.log_density(w), q.to_stable(x))
    if "grep" in choices(family):
        of(lambda q, w: q.standardise(w), q.to_stable(x))
        of(lambda q, eps: q.unstandardise(eps), 0.3 * q.to_stable(x))
        alone(lambda q: q.log_scale())
    if family.entropy is not Distribution.entropy:
        alone(lambda q: q.entropy())
    alone(lambda q: q.mean)
    alone(lambda q: q.variance)
    if family.path == "reparam":
        alone(lambda q: q.sample(Noise(52), 2))


def check_shapes(family):
    """log_prob broadcasts: parameters of a batch and several samples x, the reverse, one row of either."""
    n = max(3, size(family))
    shapes = [((2,), (5, 2)), ((5, 2), (2,)), ((2,), (1,)), ((1,), (2,)), ((), (2,)), ((), ()), ((5, 2), (5, 2))]
    for leading, of_x in shapes:
        both = np.broadcast_shapes(leading, of_x)
        free = raw(family, n, math.prod(leading)).reshape(*leading, -1)
        x = member(family, n, math.prod(of_x), seed=1).sample(Noise(1)).numpy().reshape(*of_x, n)
        rows = zip(np.broadcast_to(free, (*both, free.shape[-1])).reshape(-1, 1, free.shape[-1]),
                   np.broadcast_to(x, (*both, n)).reshape(-1, 1, n), strict=True)
        rows = list(rows)
        for kernel in (True, False):
            with fused(kernel):
                found = family.from_raw(Tensor(free)).log_prob(Tensor(x)).numpy()
                expected = [family.from_raw(Tensor(v)).log_prob(Tensor(one)).item() for v, one in rows]
            assert_close(found, np.reshape(expected, both), 8, f"parameters {leading}, x {of_x}")


# ---- from raw numbers, and back --------------------------------------------------------------------------------------


def is_inside(support, z):
    """Which elements lie in the support, with its ends, to which a number may be rounded."""
    total = np.abs(z.sum(-1, keepdims=True) - 1) <= 1e-5
    return {"real": np.isfinite(z), "positive": z >= 0, "unit": (z >= 0) & (z <= 1), "simplex": (z >= 0) & total,
            "binary": (z == 0) | (z == 1), "counts": (z >= 0) & (z == np.floor(z)),
            "one-hot": ((z == 0) | (z == 1)) & total}[support]


def check_from_raw(family):
    """Any raw numbers make a distribution: its draws lie in the support, log_prob is finite, every number counts."""
    for n in (family.least, 3):
        free = Tensor(np.random.default_rng(0).normal(0, 3, (4, family.width(n))), requires_grad=True)
        q = family.from_raw(free)
        z = q.sample(Noise(0), 3)
        assert z.shape == (3, 4, n)
        assert z.requires_grad == (family.path is not None)
        assert q.mean.shape == q.variance.shape == (4, n)
        assert is_inside(family.support, z.numpy()).all(), f"a draw is not {family.support}"
        value = q.log_prob(z.detach())
        assert value.shape == (3, 4)
        assert np.isfinite(value.numpy()).all()
        moved = grad((value * value).sum(), free).numpy()
        assert np.isfinite(moved).all()
        assert (moved != 0).all(), "a raw number changes nothing"
        if family.entropy is not Distribution.entropy:
            assert np.isfinite(grad(q.entropy().sum(), free).numpy()).all()


def check_round_trips(family):
    """parameters, map, draw, stable form and standardisation, each against what it undoes."""
    q, same = member(family, 3, rows=2, requires_grad=True), lambda t: t
    z, log_q = q.draw(Noise(31), 4)
    assert_same_bits(z.numpy(), q.sample(Noise(31), 4).numpy(), "draw and sample")
    expected = q.log_prob(z).numpy()
    assert_close(log_q.numpy(), expected, 64, "log q of a draw")
    for again in (family(**q.parameters), q.map(same)):
        assert type(again) is family
        assert_same_bits(again.log_prob(z).numpy(), expected, "rebuilt from its parameters")
    assert q.log_prob(z.detach()).requires_grad
    assert not q.map(Tensor.detach).log_prob(z.detach()).requires_grad
    doubled = q.map(lambda v: v.broadcast_to((2, *v.shape)))  # two copies side by side
    assert_close(doubled.log_prob(z[:2]).numpy(), expected[:2], 4, "map of each parameter")
    stable_form(q)


def stable_form(q):
    """Of a member with two rows: the stable form of draws, its density, and the standardised form."""
    family, z = type(q), q.sample(Noise(31), 4)
    expected, w = q.log_prob(z).numpy(), q.to_stable(z)
    assert_close(q.from_stable(w).numpy(), z.numpy(), 16, "from_stable(to_stable(z))")
    density = q.log_density(w).numpy()
    assert density.shape in ((4, 2), w.shape)
    density = density if density.ndim == 2 else density.sum(-1)
    if family.support in DISCRETE:
        assert_close(density, expected, 8, "log q(w), which is log q(z)")
    for i in range(4 if family.support not in DISCRETE else 0):
        for j in range(2):
            def value(at, j=j):
                return q.from_stable(Tensor(np.tile(at, (2, 1)))).numpy()[j][: w.shape[-1]]

            in_w = expected[i, j] + np.linalg.slogdet(jacobian(value, w.numpy()[i, j]))[1]
            assert abs(density[i, j] - in_w) <= 1e-7 * max(1, abs(in_w)), \
                f"log q(w) = {density[i, j]}; log q(z) + log |dz/dw| = {in_w}"
    if "grep" in choices(family):
        eps = q.standardise(w)
        assert_close(q.unstandardise(eps).numpy(), w.numpy(), 64, "w of its standardised form")
        assert_close(q.standardise(q.unstandardise(eps)).numpy(), eps.numpy(), 64, "eps")
        scale = q.log_scale().numpy()
        scale = scale if scale.ndim == 1 else scale.sum(-1)
        for j in range(2):
            def turned(at, j=j):
                return q.unstandardise(Tensor(np.tile(at, (2, 1)))).numpy()[j]

            by_differences = np.linalg.slogdet(jacobian(turned, eps.numpy()[0, j]))[1]
            assert abs(scale[j] - by_differences) <= 1e-8, f"log |dw/deps| = {scale[j]}, not {by_differences}"


def jacobian(f, at, step=1e-5):
    """The matrix of central differences of a function of vectors."""
    columns = []
    for i in range(len(at)):
        h = np.zeros_like(at)
        h[i] = step * max(1.0, abs(at[i]))
        columns.append((f(at + h) - f(at - h)) / (2 * h[i]))
    return np.stack(columns, axis=-1)


# ---- draws -----------------------------------------------------------------------------------------------------------


def check_draws(family):
    """Each element's distribution function, and the means of products: of draws, and by quadrature of the density."""
    n = size(family)
    nodes = quadrature(family.support, n)
    q = member(family, n)
    z = q.sample(Noise(11), DRAWS).numpy()[:, 0]
    p = np.exp(nodes.log_weight + q.log_prob(nodes.x).numpy()[:, 0])
    for j in range(n):
        values, place = np.unique(nodes.x.numpy()[:, 0, j], return_inverse=True)
        mass = np.bincount(place.ravel(), p)
        if family.support in DISCRETE:
            met = np.bincount(np.searchsorted(values, z[:, j]), minlength=len(values))
            check_frequencies(f"element {j} of {family.__name__}", met, mass)
        else:  # half of a node's mass lies below it
            u = np.interp(z[:, j], values, np.cumsum(mass) - 0.5 * mass)
            likely(f"element {j} of {family.__name__}", stats.kstest(u, "uniform").pvalue)
        for i in range(j + 1):
            pairs = lambda x, i=i, j=j: np.tanh(x[:, i]) * np.tanh(x[:, j])  # bounded: its mean has a variance
            gap = pairs(z) - expectation(q, lambda x, pairs=pairs: pairs(x.numpy()[:, 0]), nodes)[0]
            likely_zero(f"E[f(z_{i}) f(z_{j})] of {family.__name__}", gap.mean(), gap.std() / math.sqrt(DRAWS) + 1e-12)


def check_frequencies(what, observed, p):
    """Chi-square of how often each value was met; values expected fewer than ten times count as one."""
    expected = observed.sum() * p / p.sum()
    rare = expected < 10
    observed, expected = (np.append(v[~rare], v[rare].sum()) for v in (observed, expected))
    if expected[-1] < 1:  # of these no few draws can come
        assert observed[-1] <= 5, f"{what}: {observed[-1]} draws where {expected[-1]:.2g} were expected"
        observed, expected = observed[:-1], expected[:-1]
    likely(f"draws of {what}", stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


def check_addresses(family):
    """A draw is a function of seed, step and site, in the type of the parameters, whatever the other rows are."""
    for dtype in DTYPES:
        q = member(family, 3, rows=2, dtype=dtype)

        def draw(seed=0, step=0, sites=0, q=q):
            noise = Noise(seed).restart(step)
            for _ in range(sites):
                noise.next_site()
            return q.sample(noise, 50).numpy()

        assert draw().dtype == dtype
        assert_same_bits(draw(5, 7, 2), draw(5, 7, 2))
        noise = Noise(0)
        q.sample(noise, 50)
        kinds = [draw(), draw(seed=1), draw(step=1), draw(sites=4), q.sample(noise, 50).numpy()]
        for i, a in enumerate(kinds):
            for b in kinds[:i]:
                assert (a != b).any() if family.support in DISCRETE else (a != b).all()
        other = np.concatenate([raw(family, 3, 2)[:1], raw(family, 3, 1, seed=9)]).astype(dtype)
        assert_same_bits(family.from_raw(Tensor(other)).sample(Noise(0), 50).numpy()[:, 0], draw()[:, 0], "of one row")
    single, double = (member(family, 3, 2, dtype=dtype).sample(Noise(0), 500).numpy() for dtype in DTYPES)
    assert np.isclose(single, double, rtol=1e-3, atol=1e-3).mean() > 0.99  # a count may differ, not the noise


def check_replay(family):
    """A recorded draw reads the counters when it runs: what a tape replays is the draw of the new step."""
    free, noise = Tensor(raw(family, 3, rows=2), requires_grad=True), Noise(3)

    def drawn(noise):
        q = family.from_raw(free)
        z = q.sample(noise, 4)
        w = q.to_stable(z)
        of_w = [grad((w * w).sum(), free)] if family.path else []  # along the draw alone
        return z, w, grad(q.log_density(w).sum(), free), *of_w

    with Tape() as tape:
        z, w, *gradients = drawn(noise)
    noise.counters[0] = 9
    tape.replay()
    z_again, w_again, *fresh = drawn(Noise(3).restart(9))
    assert_same_bits(z.data, z_again.data, "a replayed draw")
    assert_same_bits(w.data, w_again.data, "its stable form")
    for found, expected in zip(gradients, fresh, strict=True):
        assert_close(found.data, expected.data, 64, "its gradient", scale=np.abs(expected.data) + 1)


def check_standardised_moments(family):
    """E[eps] = 0 and E[eps eps^T] = I for all parameters, where the family standardises its stable form."""
    if "grep" in choices(family):
        for q in members(family):
            standardised_moments(q)


def standardised_moments(q):
    def moments(x):
        eps = q.standardise(q.to_stable(x)).numpy()[:, 0]
        return np.concatenate([eps, (eps[:, :, None] * eps[:, None, :]).reshape(len(eps), -1)], axis=-1)

    free = q.to_stable(q.mean).shape[-1]
    agrees("E[eps] and E[eps eps^T]", np.concatenate([np.zeros(free), np.eye(free).ravel()]),
           expectation(q, moments, values_of(q)))


# ---- estimators and divergences --------------------------------------------------------------------------------------


def check_estimators(family):
    """Each estimator that `choices` offers has the derivative of E[f(z)] by the raw numbers as its mean."""
    n = size(family)
    nodes, start = quadrature(family.support, n), raw(family, n)

    def f(q, z):
        return ((0.5 * q.to_stable(z)).tanh() * Tensor(np.arange(1.0, z.shape[-1] + 1)[: q.to_stable(z).shape[-1]])
                ).sum(-1)

    def mean(numbers):
        q = family.from_raw(Tensor(numbers))
        return expectation(q, lambda x: f(q, x).numpy(), nodes)[0][0]

    steps = 1e-4 * np.eye(start.size).reshape(-1, *start.shape)
    exact = np.array([(mean(start + h) - mean(start - h)) / 2e-4 for h in steps])
    assert np.abs(exact).max() > 1e-2, "nothing is estimated"
    for estimator in choices(family):
        free = Tensor(np.tile(start, (DRAWS, 1)), requires_grad=True)
        q = family.from_raw(free)
        latent = Latent("z", q, q.sample(Noise(7)), estimator, "bj")
        value = surrogate([Term(f(q, latent.z), "b", ("z",))], [latent])
        found = grad(value.sum(), free).numpy()
        for j, expected in enumerate(exact):
            likely_zero(f"{estimator} of {family.__name__}, number {j}", found[:, j].mean() - expected,
                        found[:, j].std() / math.sqrt(DRAWS) + 1e-7)


def mean_log_ratio(q, p, closed, seed=41):
    """E_q[log q(z) - log p(z)] of each row, over draws, is the closed form."""
    z = q.sample(Noise(seed), DRAWS)
    gap = (q.log_prob(z) - p.log_prob(z)).numpy()
    for j in range(gap.shape[1]):
        likely_zero(f"KL({type(q).__name__} || {type(p).__name__})", gap[:, j].mean() - closed[j],
                    gap[:, j].std() / math.sqrt(DRAWS))


# Of a class alone; those of two, divergences, are test_divergence.py's.
CHECKS = (check_density, check_summaries, check_precision, check_derivatives, check_shapes, check_from_raw,
          check_round_trips, check_draws, check_addresses, check_replay, check_standardised_moments,
          check_estimators)  # fmt: skip
