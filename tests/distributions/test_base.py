"""Every registered family has the properties of properties.py, and each check refuses families that lack its own."""

import numpy as np
import pytest
from integrals import T, member
from properties import (
    CHECKS,
    check_addresses,
    check_density,
    check_derivatives,
    check_draws,
    check_estimators,
    check_from_raw,
    check_precision,
    check_replay,
    check_round_trips,
    check_shapes,
    check_standardised_moments,
    check_summaries,
)
from scipy_families import Diagonal
from support import assert_close

import tinyvae as tv
from tinyvae.distributions import (
    FAMILIES,
    Bernoulli,
    Beta,
    Categorical,
    ContinuousBernoulli,
    Dirichlet,
    Distribution,
    FullNormal,
    Gamma,
    GreyNormal,
    Laplace,
    LogNormal,
    Normal,
    Poisson,
)
from tinyvae.distributions.registry import DISCRETE
from tinyvae.engine.devices import CPU, namespace, to_host
from tinyvae.engine.noise import Noise
from tinyvae.engine.rules import TABLE
from tinyvae.engine.tensor import Tensor
from tinyvae.engine.testing import GradientError
from tinyvae.inference.estimators import choices


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name, check):
    check(FAMILIES[name])


# ---- wrong on purpose ------------------------------------------------------------------------------------------------


def wrong(family, **changes):
    """The family with some methods changed."""
    return type(f"Wrong{family.__name__}", (family,), changes)


def without_jacobian(self, w):
    z = self.from_stable(w)
    return Beta.log_density(self, w) - z.log() - (1 - z).log()


WRONG = [
    (check_density, wrong(Gamma, log_prob=lambda self, x: Gamma.log_prob(self, x) + 1e-6)),
    (check_density, wrong(Poisson, log_density=lambda self, w: Poisson.log_density(self, w) + self.rate)),
    (check_density, wrong(Categorical, log_prob=lambda self, x: (self.logits * x).sum(-1))),
    (check_summaries, wrong(Laplace, variance=property(lambda self: self.scale**2))),
    (check_summaries, wrong(Beta, mean=property(lambda self: self.b / (self.a + self.b)))),
    (check_summaries, wrong(LogNormal, entropy=lambda self: self.log_law.entropy())),
    (check_precision, wrong(Gamma, log_prob=lambda self, x: Gamma.log_prob(self, x) + 1e4 - 1e4)),
    (check_derivatives, wrong(Normal, log_prob=lambda self, x: self.map(Tensor.detach).log_density(x).sum(-1))),
    (check_derivatives, wrong(Normal, sample=lambda self, noise, samples=1: Normal.sample(
        self, noise, samples).detach() + 0 * self.mu)),
    (check_from_raw, wrong(Gamma, from_raw=classmethod(lambda cls, raw: cls(*raw.split(2))))),
    (check_from_raw, wrong(Normal, from_raw=classmethod(lambda cls, raw: cls(raw.split(2)[0], 0 * raw.split(2)[1])))),
    (check_round_trips, wrong(Normal, draw=lambda self, noise, samples=1: (
        self.sample(noise, samples), self.log_prob(self.sample(noise, samples) + 0.1)))),
    (check_round_trips, wrong(Gamma, parameters=property(lambda self: {"shape": self.rate, "rate": self.shape}))),
    (check_round_trips, wrong(Gamma, map=lambda self, f: self)),
    (check_round_trips, wrong(Beta, from_stable=lambda self, w: Beta.from_stable(self, -w))),
    (check_round_trips, wrong(Beta, log_density=without_jacobian)),
    (check_round_trips, wrong(Gamma, log_scale=lambda self: 0 * Gamma.log_scale(self))),
    (check_draws, wrong(Laplace, sample=lambda self, noise, samples=1: 1.1 * Laplace.sample(self, noise, samples))),
    (check_draws, wrong(Bernoulli, sample=lambda self, noise, samples=1: 1 - Bernoulli.sample(self, noise, samples))),
    (check_draws, wrong(FullNormal, sample=lambda self, noise, samples=1: FullNormal(
        self.mu, self.logvar, -self.lower).sample(noise, samples))),
    (check_draws, wrong(Dirichlet, sample=lambda self, noise, samples=1: Dirichlet(
        self.concentration + 0.1).sample(noise, samples))),
    (check_shapes, wrong(Normal, log_prob=lambda self, x: Normal.log_prob(self, x) + 0.1 * x.ndim)),
    (check_addresses, wrong(Normal, sample=lambda self, noise, samples=1: Normal.sample(
        self, noise, samples) + 1e-3 * self.mu.mean())),
    (check_addresses, wrong(Normal, sample=lambda self, noise, samples=1: Normal.sample(self, Noise(0), samples))),
    (check_replay, wrong(Normal, sample=lambda self, noise, samples=1: Tensor(
        Normal.sample(self, noise, samples).data.copy()))),
    (check_standardised_moments, wrong(Gamma, _moments=lambda self: (
        self.shape.digamma(), self.shape.polygamma(1).sqrt()))),
    (check_standardised_moments, Diagonal),
    (check_estimators, wrong(Poisson, log_density=lambda self, w: 0.9 * Poisson.log_density(self, w))),
    (check_estimators, wrong(Gamma, log_scale=lambda self: 0.5 * Gamma.log_scale(self))),
    (check_estimators, wrong(Normal, sample=lambda self, noise, samples=1: Normal.sample(
        self.map(Tensor.detach), noise, samples) + 0 * self.mu)),
]  # fmt: skip


@pytest.mark.parametrize(("check", "family"), WRONG, ids=[f"{c.__name__}-{f.__name__}" for c, f in WRONG])
def test_a_wrong_family_is_refused(check, family):
    with pytest.raises((AssertionError, GradientError)), np.errstate(all="ignore"):
        check(family)


def test_every_check_refuses_one():
    assert {check for check, _ in WRONG} == set(CHECKS)


def test_a_family_says_what_it_lacks():
    class Empty(Distribution):
        pass

    q, x = Empty(), Tensor(np.zeros(1))
    for call in (lambda: q.log_prob(x), lambda: q.sample(Noise(0)), lambda: q.entropy(), lambda: q.parameters,
                 lambda: q.moments):
        with pytest.raises(TypeError, match="Empty has no"):
            call()
    with pytest.raises(TypeError, match="Empty cannot be made of a network's output"):
        Empty.from_raw(x)
    with pytest.raises(TypeError, match="NoDensity has no log_density"):
        type("NoDensity", (Empty,), {"to_stable": lambda self, z: z.log()})().log_density(x)


# ---- shapes, types, devices ------------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["kernel", "twin"])
def _fused(request):
    """For what holds with the kernels and with their readable twins."""
    with tv.fused(request.param):
        yield


def check_float32(make, arrays, x, units):
    """log p(x) in float32, in rounding units of the sum of its terms' sizes."""
    double = make(*(T(a) for a in arrays)).log_prob
    single = make(*(T(a, np.float32) for a in arrays)).log_prob(T(x, np.float32)).numpy()
    assert single.dtype == np.float32
    terms = np.array([[double_term(make, arrays, x, i, j) for j in range(x.shape[1])] for i in range(x.shape[0])])
    return assert_close(single, double(T(x)).numpy(), units, scale=np.maximum(1, np.abs(terms)).sum(-1))


def double_term(make, arrays, x, i, j):
    pick = slice(i, i + 1), slice(j, j + 1)
    if len(arrays) == 1 and arrays[0].shape[1] == 2 * x.shape[1]:
        a = arrays[0]
        return make(T(a[i : i + 1, [j, j + x.shape[1]]])).log_prob(T(x[pick])).item()
    return make(*(T(a[pick]) for a in arrays)).log_prob(T(x[pick])).item()


@pytest.mark.parametrize("family", ["normal", "bernoulli", "grey", "continuous"])
@pytest.mark.usefixtures("_fused")
def test_float32_is_accurate(family):
    # values that float32 holds exactly, so that only the formula's own rounding is measured. Where a variable of size s
    # goes through exp, one rounding of it is s units of the result: parameters here are below 8, hence 8 units
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-6, 6, (4, 10)).astype(np.float32).astype(np.float64) for _ in range(2))
    grey = rng.uniform(0, 1, (4, 10)).astype(np.float32).astype(np.float64)
    make, arrays, x = {
        "normal": (Normal, (a, b), 3 * grey),
        "bernoulli": (Bernoulli, (a,), np.rint(grey)),
        "grey": (GreyNormal, (np.concatenate([a, b], axis=1),), grey),
        "continuous": (ContinuousBernoulli, (a,), grey),
    }[family]
    x = x.astype(np.float32).astype(np.float64)
    check_float32(make, arrays, x, 8)
    if family == "bernoulli":  # the formula that loses its digits must fail
        class Clipped(Bernoulli):
            def log_prob(self, x):
                p = self.mean
                return (x * (p + 1e-4).log() + (1 - x) * (1 - p + 1e-4).log()).sum(-1)

        with pytest.raises(AssertionError):
            assert_close(Clipped(T(a, np.float32)).log_prob(T(x, np.float32)).numpy(),
                         Bernoulli(T(a)).log_prob(T(x)).numpy(), 8)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("_fused")
def test_data_of_another_width_are_refused(name):
    # a kernel would read beside the row
    for width in (2, 4):
        with pytest.raises(ValueError, match="cannot combine shapes"):
            member(FAMILIES[name], 3, rows=2).log_prob(T(np.full((2, width), 0.5)))


@pytest.mark.parametrize("name", FAMILIES)
def test_more_axes_are_more_rows(name):
    """Parameters (samples, batch, n), as a decoder gives them: each sample has the values that it has alone."""
    family = FAMILIES[name]
    raw = np.random.default_rng(0).normal(size=(2, 4, family.width(3)))
    together, each = family.from_raw(tv.Tensor(raw)), [family.from_raw(tv.Tensor(part)) for part in raw]
    x = together.sample(Noise(0)).numpy()[0]
    values = [lambda q, x: q.mean, lambda q, x: q.variance, lambda q, x: q.log_prob(tv.Tensor(x))]
    if family.entropy is not Distribution.entropy:
        values.append(lambda q, x: q.entropy())
    for value in values:
        assert_close(value(together, x).numpy(), np.stack([value(q, part).numpy() for q, part in zip(
            each, x, strict=True)]), 4, name)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_discrete_family_has_the_score_alone(name):
    family = FAMILIES[name]
    assert (family.path is None) == (family.support in DISCRETE) == (choices(family) == ["score"])


@pytest.mark.parametrize("name", ["categorical", "poisson", "laplace"])
def test_draws_run_on_a_device(driver, name):
    """The samplers ask their namespace for all they do."""
    here, there = CPU, namespace("cuda")
    found = []
    for xp in (here, there):
        numbers, counters = xp.asarray(np.array([[0.5, 2.0, 30.0]])), xp.asarray(np.array([3]))
        rule, shape = TABLE[name], {"shape": (4, 3), "dtype": np.dtype(np.float32)}
        inputs, attributes = ((counters,), shape) if name == "laplace" else ((numbers, counters), {"samples": 4})
        found.append(to_host(rule.value(xp, *inputs, out=None, seed=1, stream="noise", site=2, **attributes)))
    assert_close(found[1], found[0], 2)
