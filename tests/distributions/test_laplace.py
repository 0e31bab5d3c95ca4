"""Laplace, beyond what test_base.py asks of every family: its tails, its kink, its divergence, its estimators."""

import itertools

import mpmath
import numpy as np
import pytest
from exact import check_relative, exactly
from scipy import integrate, stats
from support import DTYPES, assert_close, assert_same_bits, likely, likely_zero

from tinyvae.distributions import Laplace, LogTensor, kl, kl_per_dimension, laplace
from tinyvae.engine import noise
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference.estimators import Latent, Term, choices, surrogate

MANY = 100_000


def T(values, dtype=np.float64):
    return Tensor(np.array(values, dtype))


class Deviation(Laplace):
    """Wrong: the scale taken for the standard deviation."""

    def __init__(self, mu, scale):
        super().__init__(mu, scale * np.sqrt(0.5))


# ---- draws -----------------------------------------------------------------------------------------------------------


def check_draws(draws):
    """At location 1 and scale 2: the law, the sign, and the two tails, which are exponential again."""
    eps = (draws - 1) / 2
    likely("Laplace, Kolmogorov-Smirnov", stats.kstest(eps, "laplace").pvalue)
    likely("as often above as below", stats.binomtest(int((eps > 0).sum()), eps.size).pvalue)
    for side in (eps, -eps):
        tail = side[side > 5] - 5
        likely("how many are in a tail", stats.binomtest(tail.size, eps.size, 0.5 * np.exp(-5)).pvalue)
        likely("a tail", stats.kstest(tail, "expon").pvalue)
    likely_zero("variance", (eps**2).mean() - 2, np.sqrt(20 / eps.size))


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_have_both_tails(dtype):
    draws = Laplace(T([1.0], dtype), T([2.0], dtype)).sample(Noise(2), MANY)
    assert draws.dtype == dtype
    draws = draws.numpy().astype(np.float64).reshape(-1)
    check_draws(draws)
    # another scale, one sign, and the inverse of the distribution function of a uniform number with three digits
    other = Deviation(T([1.0], dtype), T([2.0], dtype)).sample(Noise(2), MANY).numpy().reshape(-1)
    coarse = (np.floor(Noise(2).uniform((MANY,), np.float64).numpy() * 1000) + 0.5) / 1000
    for wrong in (other, np.abs(draws - 1) + 1, 1 + 2 * stats.laplace.ppf(coarse)):
        with pytest.raises(AssertionError):
            check_draws(wrong)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_of_the_range(monkeypatch, dtype):
    """Words of all bits 0 and of all bits 1 give finite draws; the outermost is the same on both sides."""
    found = []
    for word in (0, 1, 2**32 - 2, 2**32 - 1):
        monkeypatch.setattr(laplace, "words_of", lambda *_, word=word, **__: np.array([word], np.uint64))
        found.append(Laplace(T([0.0], dtype), T([1.0], dtype)).sample(Noise(0)).item())
    assert found[0] == -found[1]
    assert found[2] == -found[3]
    assert_close(np.abs(found[0]).astype(dtype), 32 * np.log(2), 1)
    assert 0 < abs(found[2]) < 2.0**-31


def test_one_bit_is_the_sign():
    draws, bits = Laplace(T([0.0] * 6), T([1.0] * 6)).sample(Noise(3), 4), noise.words(3, "noise", 0, 0, 24)
    assert_same_bits(np.sign(draws.numpy()), np.where(bits % np.uint64(2), 1.0, -1.0).reshape(4, 6))


# ---- divergence ------------------------------------------------------------------------------------------------------


def check_divergence(q, p, found):
    """By quadrature, from kink to kink."""
    a, b = stats.laplace(*q), stats.laplace(*p)
    first, last = q[0] - 60 * q[1], q[0] + 60 * q[1]
    kinks = [first, *sorted(at for at in {q[0], p[0]} if first < at < last), last]
    expected = sum(integrate.quad(lambda z: a.pdf(z) * (a.logpdf(z) - b.logpdf(z)), *piece, epsabs=1e-13, limit=200)[0]
                   for piece in itertools.pairwise(kinks))  # fmt: skip
    assert abs(found - expected) <= 1e-10 * max(1, expected)


@pytest.mark.parametrize(("q", "p"), [((0.3, 1.2), (-0.5, 0.7)), ((0.0, 1.0), (0.0, 3.0)), ((5.0, 0.1), (0.0, 1.0))])
def test_divergence_against_quadrature(q, p):
    def of(a, b):
        return kl(Laplace(*(T([[v]]) for v in a)), Laplace(*(T([[v]]) for v in b))).item()

    check_divergence(q, p, of(q, p))
    with pytest.raises(AssertionError):
        check_divergence(q, p, of(p, q))


def test_equal_locations_have_a_gradient():
    """|d| has a kink, the divergence has none: its slope is 0 at d = 0."""
    mu = Tensor(np.array([[1.0]]), requires_grad=True)
    q, p = Laplace(mu, T([[0.5]])), Laplace(T([[1.0]]), T([[2.0]]))
    assert grad(kl(q, p).sum(), mu).item() == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log_scale", [-80.0, 80.0])
def test_extreme_scales(log_scale, dtype):
    q = Laplace.from_raw(T([[0.0, log_scale]], dtype))
    assert isinstance(q.scale, LogTensor)
    assert q.scale.log().item() == log_scale, "the logarithm is not the one that was given"
    at = np.exp(T([[log_scale]], dtype).numpy())
    assert_close(q.log_prob(Tensor(at)).numpy(), [-np.log(2) - log_scale - 1], 2)
    assert_close(q.entropy().numpy(), [1 + np.log(2) + log_scale], 1)
    standard = Laplace(T([0.0], dtype), T([1.0], dtype))
    # one rounding of 80 is 80 units of its exponential
    assert_close(kl(q, standard).numpy(), [np.exp(log_scale) - 1 - log_scale], 80)
    far = Laplace(T([[100.0]], dtype), T([[1e-20]], dtype))  # exp(-|d| / scale) is 0, and may be
    assert_close(kl_per_dimension(far, standard).numpy(), [[99 + 20 * np.log(10)]], 2)


# ---- estimators ------------------------------------------------------------------------------------------------------


def mean_gradient(estimator, family=Laplace):
    """The mean of an estimator's gradient of E[z^2 + z^3], by Gauss and Laguerre's rule for each half of the law."""
    v = Tensor(np.array([[0.4, 0.7]]), requires_grad=True)
    nodes, weights = np.polynomial.laguerre.laggauss(12)
    eps, p = np.concatenate([nodes, -nodes]), np.concatenate([weights, weights]) / 2
    mu, scale = v.split(2)
    latent = Latent("z", family(mu, scale), mu + scale * Tensor(eps[:, None, None]), estimator, "nd")
    estimates = surrogate([Term(latent.z**2 + latent.z**3, "nd", ("z",))], [latent])
    return grad((estimates * p).sum(), v).numpy()


def test_estimators_are_exact_in_the_mean():
    mu, b = 0.4, 0.7  # E[z^2 + z^3] = mu^2 + 2 b^2 + mu^3 + 6 mu b^2
    expected = [[2 * mu + 3 * mu**2 + 6 * b**2, 4 * b + 12 * mu * b]]
    assert choices(Laplace) == ["reparam", "grep", "score"]
    for estimator in choices(Laplace):
        assert_close(mean_gradient(estimator), expected, 64, estimator)
    with pytest.raises(AssertionError):
        assert_close(mean_gradient("score", Deviation), expected, 64)


# ---- near and far ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_divergence_keeps_its_digits_and_is_never_negative(dtype):
    rng = np.random.default_rng(0)
    mu, log_q, other, log_p = (10.0 ** rng.uniform(-6, 1, (4, 300)) * rng.choice([-1, 1], (4, 300))).astype(dtype)

    def exact(mu, log_q, other, log_p):
        d, t = abs(mu - other), log_q - log_p
        return d * mpmath.exp(-log_p) + mpmath.exp(t - d * mpmath.exp(-log_q)) - 1 - t

    q, p = (Laplace.from_raw(Tensor(np.stack(v, axis=1))) for v in ((mu, log_q), (other, log_p)))
    found = kl_per_dimension(q, p).numpy()
    assert (found >= 0).all()
    check_relative("KL", found[:, 0], exactly(exact, mu, log_q, other, log_p), 64)
    collapsed = Laplace.from_raw(Tensor(np.stack([0 * mu, log_q * dtype(1e-3)], axis=1)))
    assert (kl_per_dimension(collapsed, Laplace(T([0.0], dtype), T([1.0], dtype))).numpy() >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log_scale", [-1000.0, -200.0, -110.0, -89.0, 89.0, 110.0, 1000.0])
def test_the_density_at_every_scale(log_scale, dtype):
    """At its location and beside it, also where the scale itself rounds to 0."""
    for d in (0.0, 1e-30, 1.0, 1e30):
        leaf = Tensor(np.array([[0.0, log_scale]], dtype), requires_grad=True)
        with np.errstate(over="ignore"):
            value = Laplace.from_raw(leaf).log_prob(T([[d]], dtype))
            by_mu, by_log_scale = grad(value.sum(), leaf).numpy()[0]
        rate = exactly(lambda v: mpmath.exp(-v), [log_scale])
        ratio = rate * mpmath.mpf(float(dtype(d)))
        check_relative("log p", value.numpy(), -np.array([mpmath.log(2) + log_scale]) - ratio, 400)
        check_relative("by mu", np.array([by_mu]), np.sign(d) * rate, 400)
        check_relative("by log scale", np.array([by_log_scale]), ratio - 1, 400, 1e-3)
