"""Conjugate pairs against SciPy: the posterior by integration, the evidence by the distributions that it has."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from tinyvae.bayes.conjugate import BetaBernoulli, GammaPoisson, NormalNormal
from tinyvae.distributions import Beta, Gamma, Normal
from tinyvae.engine.tensor import Tensor

TOSSES, COUNTS, NUMBERS = np.array([1, 0, 1, 1, 0, 1]), np.array([3, 0, 2, 5]), np.array([1.3, -0.4, 2.2])

# Each: prior, data, the prior's density, the likelihood of one datum by theta, and where theta lies.
PAIRS = {
    "beta-bernoulli": (BetaBernoulli(1.5, 2.5), TOSSES, stats.beta(1.5, 2.5).pdf,
                       lambda x, t: stats.bernoulli.pmf(x, t), (0, 1)),
    "gamma-poisson": (GammaPoisson(2.5, 0.7), COUNTS, stats.gamma(2.5, scale=1 / 0.7).pdf,
                      lambda x, t: stats.poisson.pmf(x, t), (0, 40)),
    "normal-normal": (NormalNormal(-0.5, 2.0, 0.8), NUMBERS, stats.norm(-0.5, math.sqrt(2.0)).pdf,
                      lambda x, t: stats.norm.pdf(x, t, math.sqrt(0.8)), (-15, 15)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_the_posterior_is_prior_times_likelihood(name):
    """Its density, mean and evidence by SciPy's quadrature."""
    prior, x, density, likelihood, ends = PAIRS[name]

    def joint(t):
        return density(t) * np.prod(likelihood(x, t))

    evidence, mean = (integrate.quad(f, *ends, epsabs=0, epsrel=1e-11, limit=200)[0]
                      for f in (joint, lambda t: t * joint(t)))
    after = prior.update(x)
    assert prior.log_evidence(x) == pytest.approx(math.log(evidence), rel=1e-10)
    assert float(after.law.mean.data[0]) == pytest.approx(mean / evidence, rel=1e-9)
    for t in (0.2, 0.45, 0.9):
        assert float(after.law.log_prob(Tensor([t])).data) == pytest.approx(math.log(joint(t) / evidence), rel=1e-9)


def test_closed_forms():
    assert BetaBernoulli(1, 1).update(TOSSES) == BetaBernoulli(5, 3)
    assert GammaPoisson(2, 1).update(COUNTS) == GammaPoisson(12, 5)
    assert vars(NormalNormal(0, 1, 0.25).update(1.3)) == pytest.approx({"mean": 1.04, "variance": 0.2, "noise": 0.25})
    # the number of ones among n is beta-binomial, one count is negative binomial, and numbers are jointly normal
    ones = stats.betabinom(6, 1.5, 2.5).logpmf(4) - math.log(math.comb(6, 4))
    assert BetaBernoulli(1.5, 2.5).log_evidence(TOSSES) == pytest.approx(ones, rel=1e-12)
    assert GammaPoisson(2.5, 0.7).log_evidence(4) == pytest.approx(stats.nbinom(2.5, 0.7 / 1.7).logpmf(4), rel=1e-12)
    law = stats.multivariate_normal(np.full(3, -0.5), 2.0 + 0.8 * np.eye(3))
    assert NormalNormal(-0.5, 2.0, 0.8).log_evidence(NUMBERS) == pytest.approx(law.logpdf(NUMBERS), rel=1e-12)


def test_their_laws():
    beta, gamma, normal = BetaBernoulli(2, 3).law, GammaPoisson(4, 0.5).law, NormalNormal(1, 4).law
    assert (type(beta), type(gamma), type(normal)) == (Beta, Gamma, Normal)
    assert [float(law.mean.data[0]) for law in (beta, gamma, normal)] == pytest.approx([0.4, 8, 1])
    assert [float(law.variance.data[0]) for law in (beta, gamma, normal)] == pytest.approx([0.04, 16, 4])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(PAIRS)), st.lists(st.integers(0, 1), max_size=12), st.integers(0, 12))
def test_data_one_by_one_give_what_they_give_together(name, x, cut):
    """p(x, y) = p(x) p(y | x), and the order does not matter."""
    prior = PAIRS[name][0]
    first, second = x[:cut], x[cut:]
    together, one_by_one = prior.update(x), prior.update(first).update(second)
    assert vars(one_by_one) == pytest.approx(vars(together), rel=1e-12)
    assert vars(prior.update(x[::-1])) == pytest.approx(vars(together), rel=1e-12)
    chain = prior.log_evidence(first) + prior.update(first).log_evidence(second)
    assert chain == pytest.approx(prior.log_evidence(x), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(("use", "message"), [
    (lambda: BetaBernoulli(0, 1), "found a=0 of a BetaBernoulli; expected a finite number above 0"),
    (lambda: GammaPoisson(1, math.inf), "found rate=inf of a GammaPoisson; expected a finite number above 0"),
    (lambda: NormalNormal(math.nan), "found mean=nan of a NormalNormal; expected a finite number"),
    (lambda: NormalNormal(0, -1), "found variance=-1 of a NormalNormal; expected a finite number above 0"),
    (lambda: BetaBernoulli().update([0, 2]), "found the datum 2 of a Bernoulli; expected 0 and 1"),
    (lambda: GammaPoisson().update([1, 2.5]), "found the datum 2.5 of a Poisson distribution; expected counts"),
    (lambda: GammaPoisson().log_evidence(-1), "found the datum -1 of a Poisson distribution"),
    (lambda: NormalNormal().update([1, math.nan]), "found the datum nan; expected finite numbers: leave missing"),
    (lambda: NormalNormal().update("many"), "found the data 'many'; expected numbers")])  # fmt: skip
def test_wrong_use_gets_a_sentence(use, message):
    with pytest.raises(ValueError, match=message):
        use()
