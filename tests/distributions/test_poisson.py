"""The Poisson distribution: SciPy, rates of 0 and by their logarithm, and draws that are exact at every rate."""

import numpy as np
import pytest
from discrete_families import WithoutRate
from integrals import T
from properties import check_frequencies
from scipy import special, stats
from support import DTYPES, assert_close, likely_zero

import tinyvae as tv
from tinyvae.distributions import LogTensor, Poisson, kl_per_dimension, poisson
from tinyvae.engine.devices import CPU
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


DRAWS = 20_000


class OffByOne(Poisson):
    """x! taken for Gamma(x)."""

    def log_density(self, w):
        return super().log_density(w) + (w + 1).lgamma() - (w + 0.5).lgamma()


def check_mass(found, expected, scale=None, units=8):
    assert_close(found.numpy(), expected, units, "log p", scale)


def poisson_terms(x, rate):
    """log p and the sizes of its terms, in which rounding is measured."""
    terms = special.xlogy(x, rate), rate + 0 * x, special.gammaln(x + 1)
    return terms[0] - terms[1] - terms[2], np.maximum(1, sum(map(np.abs, terms)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_mass(dtype):
    # rates and counts that float32 holds exactly
    rates = np.array([[0.25, 2.0, 11.0, 0.0, 2.0**-140, 1e4, 3.0]])
    x = np.array([[[0, 1, 2, 0, 0, 1e4, 7]], [[3, 0, 11, 2, 1, 9900, 1]], [[1, 2, 50, 0, 2, 0, 3.0]]])
    with np.errstate(divide="ignore"):
        check_poisson_mass(rates, x, dtype)


def check_poisson_mass(rates, x, dtype):
    expected, scale = poisson_terms(x, rates)
    assert np.array_equal(np.isneginf(expected), (rates == 0) & (x > 0))
    found = Poisson(T(rates, dtype)).log_density(T(x, dtype))
    check_mass(found, expected, scale, 2)
    check_mass(Poisson(T(rates, dtype)).log_prob(T(x, dtype)), expected.sum(-1), scale.sum(-1), 2)
    for wrong in (WithoutRate, OffByOne):
        with pytest.raises(AssertionError):
            check_mass(wrong(T(rates, dtype)).log_density(T(x, dtype)), expected, scale, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rate_known_by_its_logarithm(dtype):
    # exp(-200) is no float32, and log p(2) = -400 - log 2 is
    log_rate = Tensor(np.array([-200.0, -5.0, -np.inf], dtype), requires_grad=True)
    q = Poisson.from_raw(log_rate)
    value = q.log_density(T([2.0, 1.0, 0.0], dtype))
    assert_close(value.numpy(), [-400 - np.log(2), -5 - np.exp(-5.0), 0], 2)
    assert_close(grad(value.sum(), log_rate).numpy(), [2, 1 - np.exp(-5.0), 0], 2)
    with np.errstate(all="ignore"):
        lost = Poisson(Tensor(q.rate.data)).log_density(T([2.0, 1.0, 0.0], dtype))
    assert (dtype == np.float32) == np.isneginf(lost.numpy()[0])


def test_a_rate_of_zero_has_a_gradient():
    # d/drate (x log rate - rate) at 0 is -1 for x = 0, and infinite for x > 0; 0 / 0 would be NaN
    rate = Tensor(np.array([0.0, 0.0, 2.0]), requires_grad=True)
    with np.errstate(divide="ignore"):
        value = Poisson(rate).log_density(T([0.0, 1.0, 3.0]))
        assert value.numpy()[:2].tolist() == [0, -np.inf]
        assert grad(value.sum(), rate).numpy().tolist() == [-1, np.inf, 0.5]


@pytest.mark.parametrize("dtype", DTYPES)
def test_close_and_far_rates(dtype):
    # a log(a / b) + b - a: of 1000 and 1001 float32 would keep no digit of 0.0005, and a = 0 has no logarithm
    a, b = (np.array(v, dtype) for v in ([1000, 1e-30, 0, 0, 3, 2e6], [1001, 1e10, 4, 0, 0, 2.0005e6]))
    with np.errstate(all="ignore"):
        found = kl_per_dimension(Poisson(Tensor(a)), Poisson(Tensor(b))).numpy()
    s = 1 / 1000
    near = 1000 * (s - np.log1p(s)), 2e6 * (2.5e-4 - np.log1p(2.5e-4))
    assert_close(found[:5], [near[0], 1e10, 4, 0, np.inf], 8)
    assert_close(found[5], near[1], 2000)  # b - a times the logarithms' rounding, which what a network gives has not
    plain = a[:1] * np.log(a[:1] / b[:1]) + b[:1] - a[:1]
    with pytest.raises(AssertionError):
        assert_close(plain, near[:1], 8)


def check_counts(what, draws, rate):
    """Counts, in some forty cells of equal mass or in one each, and their mean."""
    law = stats.poisson(rate)
    assert (draws == np.floor(draws)).all()
    assert (draws >= 0).all()
    edges = np.unique(law.ppf(np.linspace(0, 1, 41)[1:-1]))
    p = np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    check_frequencies(what, np.bincount(np.searchsorted(edges, draws), minlength=len(p)), p)
    likely_zero(f"mean of {what}", draws.mean() - rate, np.sqrt(rate / draws.size))


GRID = [0.05, 1.0, 4.3, 9.999, 10.0, 14.05, 60.0, 2.5e3, 1e6, 1e9]


def test_poisson_draws():
    draws = Poisson(T(GRID)).sample(Noise(1), DRAWS).numpy()
    for i, rate in enumerate(GRID):
        check_counts(f"Poisson({rate})", draws[:, i], rate)
    normal = np.floor(10 + np.sqrt(10) * Noise(1).normal((DRAWS,), np.float64).numpy() + 0.5)
    ten = draws[:, 4]  # below: the normal of that variance; a step too far; another rate; a count that is never drawn
    for wrong, rate in ((normal.clip(0), 10), (ten + 1, 10), (ten, 10.3), (np.where(ten == 10, 11, ten), 10)):
        with pytest.raises(AssertionError):
            check_counts("wrong draws", wrong, rate)


def largest_chance(rate):
    """The chance to be accepted where it is largest: at the outer end of the u that give one k, over all k.

    (2 a / s + b) u = y with s = 1/2 - u is b u^2 - (2 a + b / 2 + y) u + y / 2 = 0.
    """
    b = 0.931 + 2.53 * np.sqrt(rate)
    a = -0.059 + 0.02483 * b
    k = np.arange(max(0, np.floor(rate - 12 * np.sqrt(rate) - 20)), np.ceil(rate + 12 * np.sqrt(rate) + 40))
    ends = np.stack([k - rate - 0.43, k + 1 - rate - 0.43])
    y = np.abs(ends).max(0)
    half = 2 * a + b / 2 + y
    u = np.sign(ends.sum(0)) * y / (half + np.sqrt(half**2 - 2 * b * y)) * (1 - 1e-9)
    found, chance = poisson._proposal(CPU, u, np.full(len(k), rate))
    assert np.array_equal(found, k)
    return float(np.exp(chance.max()))


def test_the_rejection_is_exact():
    """Nowhere is p(k) above what is proposed: a chance above 1 would make those counts too rare."""
    rates = [*np.arange(10, 30, 0.05), *np.geomspace(30, 1e5, 100)]
    worst = max(map(largest_chance, rates))
    assert 0.999 < worst <= 1
    with pytest.MonkeyPatch.context() as patch:  # the constants as published
        patch.setattr(poisson, "C", 1.0)
        assert max(map(largest_chance, rates)) > 1.005


def check_log_mass(log_mass, rate):
    """Right at 16, where the series begins, and from one count to the next: log p(k) - log p(k - 1) = log(rate / k)."""
    k = np.floor(rate + np.sqrt(rate) * np.linspace(-8, 8, 101)).clip(1)
    k = np.unique(np.concatenate([k, np.arange(1.0, 40)]) if rate < 100 else k)
    steps = log_mass(CPU, k, rate) - log_mass(CPU, k - 1, rate)
    assert np.abs(steps - np.log1p((rate - k) / k)).max() <= 64 * np.finfo(float).eps * np.sqrt(rate)
    if rate < 1e6:
        assert np.abs(log_mass(CPU, k, rate) - stats.poisson(rate).logpmf(k)).max() <= 1e-10


@pytest.mark.parametrize("rate", [10.0, 40.0, 1e4, 1e9, 1e13])
def test_the_mass_keeps_its_digits(rate):
    check_log_mass(poisson._log_mass, rate)
    if rate > 1e4:  # the sum of terms as high as rate * log(rate)
        with pytest.raises(AssertionError):
            check_log_mass(lambda xp, k, rate: k * np.log(rate) - rate - special.gammaln(k + 1), rate)


def test_extreme_rates():
    rates = np.array([0.0, 1e-300, -1.0, np.inf, np.nan, 1e15])
    draws = Poisson(T(rates)).sample(Noise(2), 100).numpy()
    assert (draws[:, :2] == 0).all()
    assert np.isnan(draws[:, 2:5]).all()
    assert (np.abs(draws[:, 5] - 1e15) < 8 * np.sqrt(1e15)).all()


def test_a_poisson_from_a_network_keeps_its_logarithm():
    log_rate = [[0.0, 2.0, -1.3]]
    assert isinstance(Poisson.from_raw(T(log_rate)).rate, LogTensor)
    assert Poisson.from_raw(T(log_rate)).rate.log().data.tolist() == log_rate
