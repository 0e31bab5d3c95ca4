"""Normal, diagonal, and its squashed form for grey pixels: SciPy, known divergences, the fused row, extremes."""

import mpmath
import numpy as np
import pytest
from exact import check_relative, exactly
from integrals import T
from properties import mean_log_ratio
from scipy import integrate, special, stats
from scipy_families import FAR_LOGVAR as LOGVAR
from scipy_families import FAR_MU as MU
from support import DTYPES, assert_close, likely, likely_zero

import tinyvae as tv
from tinyvae.distributions import GreyNormal, Normal, kl, kl_per_dimension
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.engine.testing import check_gradients


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


DRAWS = 20_000
X = np.array([[0.5, -2.0, 0.25], [1.0, 0.0, 3.0]])


def raw(a, logvar, dtype=np.float64):
    return T(np.concatenate([np.atleast_2d(a), np.atleast_2d(logvar)], axis=-1), dtype)


class WithStd(Normal):
    """Wrong: exp(logvar) taken for the standard deviation, the fault most often made."""

    sigma = property(lambda self: self.logvar.exp())

    def entropy(self):
        return (0.5 * (np.log(2 * np.pi) + 1) + self.logvar).sum(-1)

    def log_prob(self, x):
        d = (x - self.mu) / self.sigma
        return (-0.5 * (np.log(2 * np.pi) + d * d) - self.logvar).sum(-1)


class MeanIsNotSquashed(GreyNormal):
    """Wrong: the mean leaves (0, 1)."""

    mean = property(lambda self: self.activation)

    def log_prob(self, x):
        return Normal(self.mean, self.logvar).log_prob(x)


def check_against_scipy(distribution, reference, log_density, x):
    assert_close(distribution.log_prob(T(x)).numpy(), log_density(x).sum(-1), 20, "log_prob")
    assert_close(distribution.mean.numpy(), reference.mean(), 4, "mean")
    assert_close(distribution.entropy().numpy(), reference.entropy().sum(-1), 20, "entropy")


def test_normal_agrees_with_scipy():
    reference = stats.norm(MU, np.exp(LOGVAR / 2))
    check_against_scipy(Normal(T(MU), T(LOGVAR)), reference, reference.logpdf, X)
    with pytest.raises(AssertionError):
        check_against_scipy(WithStd(T(MU), T(LOGVAR)), reference, reference.logpdf, X)


def test_grey_normal_agrees_with_scipy():
    reference = stats.norm(special.expit(MU), np.exp(LOGVAR / 2))
    check_against_scipy(GreyNormal(raw(MU, LOGVAR)), reference, reference.logpdf, X)
    with pytest.raises(AssertionError):
        check_against_scipy(MeanIsNotSquashed(raw(MU, LOGVAR)), reference, reference.logpdf, X)


def check_samples(what, distribution, cdf, seed):
    """Draws follow their own density: Kolmogorov and Smirnov's test, against the integral of exp(log_prob)."""
    draws = distribution.sample(Noise(seed), DRAWS).numpy().reshape(-1)
    likely(f"samples of {what}", stats.kstest(draws, cdf).pvalue)


def check_variance(what, distribution, variance, seed):
    """(n - 1) s^2 / sigma^2 of normal draws is chi-squared."""
    draws = distribution.sample(Noise(seed), DRAWS).numpy().reshape(-1)
    statistic = draws.var(ddof=1) * (DRAWS - 1) / variance
    tails = stats.chi2(DRAWS - 1)
    likely(f"variance of {what}", 2 * min(tails.cdf(statistic), tails.sf(statistic)))


@pytest.mark.parametrize("logvar", [-2.0, 1.5])
def test_normal_samples_have_variance_exp_logvar(logvar):
    right, wrong = (family(T([[1.0]]), T([[logvar]])) for family in (Normal, WithStd))
    what, cdf = f"N(1, exp({logvar}))", stats.norm(1, np.exp(logvar / 2)).cdf
    check_variance(what, right, np.exp(logvar), 1)
    check_samples(what, right, cdf, 1)
    draws = right.sample(Noise(1), DRAWS).numpy().reshape(DRAWS)
    likely_zero(f"mean of {what}", draws.mean() - 1, draws.std() / np.sqrt(DRAWS))
    with pytest.raises(AssertionError):
        check_variance("std taken for variance", wrong, np.exp(logvar), 1)
    with pytest.raises(AssertionError):
        check_samples("std taken for variance", wrong, cdf, 1)


def test_grey_normal_samples():
    right, wrong = (family(raw([[0.7]], [[-1.0]])) for family in (GreyNormal, MeanIsNotSquashed))
    cdf = stats.norm(special.expit(0.7), np.exp(-0.5)).cdf
    check_samples("GreyNormal", right, cdf, 2)
    wrong_draws = Normal(wrong.mean, wrong.logvar)
    with pytest.raises(AssertionError):
        check_samples("mean not squashed", wrong_draws, cdf, 2)


@pytest.mark.parametrize(("mu", "sigma", "nats"), [(2.0, 1.0, 2.0), (0.0, 0.1, 1.8076), (0.0, 1.0, 0.0)])
def test_known_divergences(mu, sigma, nats):
    q = Normal(T([[mu]]), T([[2 * np.log(sigma)]]))
    assert abs(kl(q, Normal.standard(1, np.float64)).item() - nats) <= 5e-5
    # the same from the row that draws and charges at once
    together = Normal.from_raw(raw([[mu]], [[2 * np.log(sigma)]]))
    assert abs(together.sample_with_kl(Normal.standard(1, np.float64), Noise(0))[1].item() - nats) <= 5e-5


def test_draws_come_with_their_density():
    """By SciPy; where mu and sigma move with their draw, log q(z) = -eps^2 / 2 - log sigma + ... moves with sigma."""
    mu, logvar = (Tensor(a, requires_grad=True) for a in (MU, LOGVAR))
    z, log_q = Normal(mu, logvar).draw(Noise(3), 4)
    assert_close(log_q.numpy(), stats.norm(MU, np.exp(LOGVAR / 2)).logpdf(z.numpy()).sum(-1), 64)
    np.testing.assert_array_equal(z.numpy(), Normal(mu, logvar).sample(Noise(3), 4).numpy())
    by_mu, by_logvar = grad(log_q.sum(), [mu, logvar])
    np.testing.assert_array_equal(by_mu.numpy(), 0)
    np.testing.assert_array_equal(by_logvar.numpy(), -0.5 * 4)


def test_divergence_is_the_mean_log_ratio():
    q, p = Normal(T([[0.5, -1.0]]), T([[-1.0, 0.3]])), Normal(T([[0.0, 1.0]]), T([[0.5, -0.4]]))
    mean_log_ratio(q, p, kl(q, p).numpy(), 7)
    for wrong, closed in (((q, p), kl(p, q)), ([WithStd(d.mu, d.logvar) for d in (q, p)], kl(q, p))):
        with pytest.raises(AssertionError):
            mean_log_ratio(*wrong, closed.numpy(), 7)


def test_divergence_against_quadrature():
    q, p = stats.norm(0.5, np.exp(-0.5)), stats.norm(-0.3, np.exp(0.2))
    by_hand = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -10, 10, epsabs=1e-13)[0]
    found = kl(Normal(T([[0.5]]), T([[-1.0]])), Normal(T([[-0.3]]), T([[0.4]]))).item()
    assert abs(found - by_hand) <= 1e-11


def test_the_divergence_from_itself_is_zero():
    q = Normal(T(MU), T(LOGVAR))
    assert_close(kl_per_dimension(q, q).numpy(), np.zeros_like(MU), 2)


def test_one_pass_sample_and_divergence_equal_the_two():
    # the fused row of the raw parameters and the plain formulas, drawn from the same noise
    for samples in (1, 4):
        q = Normal.from_raw(raw(MU, LOGVAR))
        prior = Normal.standard(3, np.float64)
        z, divergence = q.sample_with_kl(prior, Noise(8), samples)
        assert_close(z.numpy(), Normal(T(MU), T(LOGVAR)).sample(Noise(8), samples).numpy(), 4)
        assert_close(divergence.numpy(), kl(Normal(T(MU), T(LOGVAR)), prior).numpy(), 8)
        conditional = Normal.from_raw(raw(MU[::-1], LOGVAR[::-1]))  # a prior p(z|c) of the same shape
        z, divergence = q.sample_with_kl(conditional, Noise(8), samples)
        assert_close(z.numpy(), Normal(T(MU), T(LOGVAR)).sample(Noise(8), samples).numpy(), 4)
        assert_close(divergence.numpy(), kl(q, Normal(T(MU[::-1]), T(LOGVAR[::-1]))).numpy(), 8)
    one = raw(MU[:1], LOGVAR[:1])  # one prior for all rows, which the kernel does not take
    found = q.raw.apply("gaussian_sample_kl_from", one, Noise(8).normal((1, *MU.shape), np.float64))[1]
    assert_close(found.numpy(), kl(q, Normal(T(MU[:1]), T(LOGVAR[:1]))).numpy(), 8)
    other = Normal(T([1.0, 0.0, 0.0]), T([0.0, 0.0, 0.0]))  # not the standard prior: the general formula
    assert_close(q.sample_with_kl(other, Noise(8))[1].numpy(), kl(q, other).numpy(), 8)


def sample_and_kl(both):
    z, divergence = Normal.from_raw(both).sample_with_kl(Normal.standard(3, np.float64), Noise(1), 2)
    return (z * z).sum((0, 2)) + divergence


def test_the_gradient_of_the_one_pass():
    check_gradients(sample_and_kl, np.concatenate([MU, LOGVAR], axis=-1))


def test_the_gradient_as_one_operation():
    """Of sum(dz z) + sum(dkl KL): dz + dkl mu by mu, and (dz eps s + dkl (s^2 - 1)) / 2 by the log variance."""
    rng = np.random.default_rng(0)
    dz, dkl, eps = (rng.normal(size=shape) for shape in ((2, *MU.shape), MU.shape[:1], (2, *MU.shape)))
    found = T(dz).apply("gaussian_sample_kl_grad", T(dkl), raw(MU, LOGVAR), T(eps)).numpy()
    by_mu = dz.sum(0) + dkl[:, None] * MU
    by_logvar = 0.5 * ((dz * eps).sum(0) * np.exp(0.5 * LOGVAR) + dkl[:, None] * (np.exp(LOGVAR) - 1))
    assert_close(found, np.concatenate([by_mu, by_logvar], axis=-1), 16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_extreme_log_variances(logvar, dtype):
    # the density of a very narrow and of a very wide normal: finite, and right to rounding
    q = Normal(T([[0.0]], dtype), T([[logvar]], dtype))
    at = np.array([[np.exp(logvar / 2)]], dtype)
    expected = -0.5 * (np.log(2 * np.pi) + logvar + float(at[0, 0]) ** 2 * np.exp(-logvar))
    assert_close(q.log_prob(Tensor(at)).numpy(), [expected], 80)
    assert_close(q.entropy().numpy(), [0.5 * (np.log(2 * np.pi) + 1 + logvar)], 4)
    assert np.isfinite(kl(q, Normal.standard(1, dtype)).numpy()).all()


# ---- where exp(-logvar) or exp(logvar) overflows ---------------------------------------------------------------------
# z^2 = d^2 exp(-logvar) is a number whenever it is one, whatever exp(-logvar) is.

LOGVARS = (-2000.0, -400.0, -178.0, -89.0, -80.0, 0.0, 80.0, 89.0, 178.0, 400.0, 2000.0)
DEVIATIONS = (0.0, 1e-30, 0.5, 1e30)


def exact_log_prob(d, logvar):
    z = d * mpmath.exp(-logvar / 2)
    return -(mpmath.log(2 * mpmath.pi) + logvar + z**2) / 2


def check_far_log_variances(name, log_prob, dtype):
    """log p and its derivatives by d = x - mu and by logvar."""
    d, logvar = np.array([(d, logvar) for d in DEVIATIONS for logvar in LOGVARS], dtype).T
    leaves = [Tensor(v[:, None], requires_grad=True) for v in (d, logvar)]
    with np.errstate(over="ignore"):
        value = log_prob(*leaves)
        by_d, by_logvar = grad(value.sum(), leaves)
    least = 1e-3  # an underflow is as good as 0 beside the 1/2 of the derivative by logvar
    check_relative(f"log p of {name}", value.numpy(), exactly(exact_log_prob, d, logvar), 400)
    check_relative(f"{name} by logvar", by_logvar.numpy()[:, 0],
                   exactly(lambda d, logvar: (d**2 * mpmath.exp(-logvar) - 1) / 2, d, logvar), 400, least)
    check_relative(f"{name} by d", by_d.numpy()[:, 0],
                   exactly(lambda d, logvar: -d * mpmath.exp(-logvar), d, logvar), 400)


@pytest.mark.parametrize("dtype", DTYPES)
def test_densities_at_every_log_variance(dtype):
    check_far_log_variances("normal", lambda d, logvar: Normal(Tensor(0 * d.data), logvar).log_prob(d), dtype)

    def squared(d, logvar):
        return (-0.5 * (np.log(2 * np.pi) + logvar + d * d * (-logvar).exp())).sum(-1)

    with np.errstate(invalid="ignore"), pytest.raises((AssertionError, ValueError)):
        check_far_log_variances("0 * inf", squared, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logvar", LOGVARS)
def test_grey_pixels_at_every_log_variance(logvar, dtype):
    """A pixel at its mean, 1/2, and another: with kernels as without, whatever the log-variance is."""
    both = Tensor(np.array([[0.0, logvar]], dtype), requires_grad=True)
    for x in (0.5, 0.75):
        with np.errstate(over="ignore"):
            value = GreyNormal(both).log_prob(Tensor(np.array([[x]], dtype)))
            by_a, by_logvar = grad(value.sum(), both).numpy()[0]
        d = mpmath.mpf(x) - 0.5
        check_relative("log p", value.numpy(), exactly(lambda v, d=d: exact_log_prob(d, v), [logvar]), 400)
        check_relative("by a", np.array([by_a]),
                       exactly(lambda v, d=d: d * mpmath.exp(-v) / 4, [logvar]), 400)  # the sigmoid's slope is 1/4
        check_relative("by logvar", np.array([by_logvar]),
                       exactly(lambda v, d=d: (d**2 * mpmath.exp(-v) - 1) / 2, [logvar]), 400, 1e-3)


# ---- near collapse ---------------------------------------------------------------------------------------------------


def exact_kl(mu, logvar, m=0, other=0):
    return (mpmath.expm1(logvar - other) - (logvar - other) + (mu - m) ** 2 * mpmath.exp(-other)) / 2


def near_and_far(rng, count, dtype):
    """Numbers of all sizes and both signs."""
    return (10.0 ** rng.uniform(-6, 1.5, (count, 1)) * rng.choice([-1, 1], (count, 1))).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_divergence_keeps_its_digits_and_is_never_negative(dtype):
    """A nearly collapsed posterior, of which exp(t) - 1 - t forms a difference of rounding errors, and all others."""
    rng = np.random.default_rng(0)
    mu, logvar, m, other = (near_and_far(rng, 200, dtype) for _ in range(4))
    found = kl(Normal(*map(Tensor, (mu, logvar))), Normal(*map(Tensor, (m, other)))).numpy()
    check_relative("KL", found, exactly(exact_kl, mu[:, 0], logvar[:, 0], m[:, 0], other[:, 0]), 64)
    both = Tensor(np.concatenate([mu, logvar], axis=1), requires_grad=True)
    divergence = Normal.from_raw(both).sample_with_kl(Normal.standard(1, dtype), Noise(0))[1]
    check_relative("KL of the fused row", divergence.numpy(), exactly(exact_kl, mu[:, 0], logvar[:, 0]), 32)
    gradient = grad(divergence.sum(), both).numpy()
    check_relative("its derivative by logvar", gradient[:, 1], exactly(lambda v: mpmath.expm1(v) / 2, logvar[:, 0]), 16)
    collapsed = (rng.normal(size=(2000, 1)) * np.finfo(dtype).eps ** 0.5).astype(dtype)
    q = Normal.from_raw(Tensor(np.concatenate([0 * collapsed, collapsed], axis=1)))
    assert (q.sample_with_kl(Normal.standard(1, dtype), Noise(0))[1].numpy() >= 0).all()
    assert (kl(q, Normal.standard(1, dtype)).numpy() >= 0).all()
    naive = 0.5 * (np.exp(collapsed) - 1 - collapsed)
    assert (naive < 0).any(), "the check sees no cancellation"
