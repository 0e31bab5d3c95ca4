"""Every registered family has the properties of properties.py, and each check refuses families that lack its own."""

import numpy as np
import pytest
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
    check_standardised_moments,
    check_summaries,
)

from tinyvae.distributions import (
    FAMILIES,
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Distribution,
    FullNormal,
    Gamma,
    Laplace,
    LogNormal,
    Normal,
    Poisson,
)
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.engine.testing import GradientError


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


def element_by_element(self):
    """The log-ratios' correlation, which they all have from z_n, forgotten."""
    variance = self.concentration.polygamma(1)
    return self._location(), (variance[..., :-1] + variance[..., -1:]).sqrt()


DIAGONAL = {"_moments": element_by_element, "standardise": Distribution.standardise,
            "unstandardise": Distribution.unstandardise,
            "log_scale": lambda self: self._moments()[1].log().sum(-1)}  # fmt: skip

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
    (check_addresses, wrong(Normal, sample=lambda self, noise, samples=1: Normal.sample(self, Noise(0), samples))),
    (check_replay, wrong(Normal, sample=lambda self, noise, samples=1: Tensor(
        Normal.sample(self, noise, samples).data.copy()))),
    (check_standardised_moments, wrong(Gamma, _moments=lambda self: (self.digamma, self.shape.polygamma(1).sqrt()))),
    (check_standardised_moments, wrong(Dirichlet, **DIAGONAL)),
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
