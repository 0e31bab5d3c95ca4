"""The continuous Bernoulli: quadrature, sixty digits, draws, and logits near 0 and far out."""

from decimal import Decimal, localcontext

import mpmath
import numpy as np
import pytest
from exact import check_relative, exactly
from integrals import T
from scipy import integrate, stats
from support import DTYPES, assert_close, likely

import tinyvae as tv
from tinyvae.distributions import Bernoulli, ContinuousBernoulli, kl, kl_per_dimension
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.engine.testing import check_gradients


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


DRAWS = 20_000
CB_LOGITS = [1e-6, 0.05, 0.0999, 0.1001, 1.0, 30.0, -1e-6, -0.0999, -0.1001, -1.0, -30.0]


class WithoutConstant(ContinuousBernoulli):
    """Wrong: the Bernoulli's formula on grey pixels, which integrates to less than 1."""

    def log_constant(self):
        return self.logits * 0.0

    @property
    def mean(self):
        return self.logits.sigmoid()

    def sample(self, noise, samples=1):
        return Bernoulli(self.logits).sample(noise, samples)


def check_continuous_bernoulli(family, logit):
    """It integrates to 1 over [0, 1], and its mean is that of its density."""

    def density(x):
        return float(np.exp(family(T([[logit]])).log_prob(T([[x]])).numpy()[0]))

    total = integrate.quad(density, 0, 1, epsabs=1e-13, epsrel=1e-13)[0]
    assert abs(total - 1) <= 1e-12, f"l = {logit}: the density integrates to {total}"
    mean = integrate.quad(lambda x: x * density(x), 0, 1, epsabs=1e-13, epsrel=1e-13)[0]
    found = family(T([[logit]])).mean.item()
    assert abs(found - mean) <= 1e-12, f"l = {logit}: the mean is {found}, by quadrature {mean}"


@pytest.mark.parametrize("logit", CB_LOGITS)
def test_continuous_bernoulli_integrates_to_1(logit):
    # on both sides of |l| = 0.1, where a series takes over from the formula, and at its end, l = 0
    check_continuous_bernoulli(ContinuousBernoulli, logit)
    with pytest.raises(AssertionError):
        check_continuous_bernoulli(WithoutConstant, logit)


def by_decimals(logit):
    """log C(l) and the mean with 60 digits: log(l / tanh(l / 2)), and 1 / (1 - exp(-l)) - 1 / l."""
    with localcontext() as context:
        context.prec = 60
        l = Decimal(logit)
        constant = (l * (l.exp() + 1) / (l.exp() - 1)).ln()
        return float(constant), float(1 / (1 - (-l).exp()) - 1 / l)


def check_digits(distribution, logits):
    constants, means = np.array([by_decimals(logit) for logit in logits]).T
    assert_close(distribution.log_constant().numpy()[0], constants, 4, "log C")
    # 1 / (1 - exp(-l)) - 1 / l loses up to two digits where the series takes over
    assert_close(distribution.mean.numpy()[0], means, 20, "mean")


def test_continuous_bernoulli_keeps_its_digits():
    # every term of the series counts: each changes the value beside 0.1 by more than its rounding
    logits = [*CB_LOGITS, 1e-3, 0.09, -0.07, 0.11, 3.0, 700.0]
    check_digits(ContinuousBernoulli(T([logits])), logits)

    class WithoutLastTerm(ContinuousBernoulli):
        def log_constant(self):
            return super().log_constant() + (abs(self.logits) < 0.1).where(self.logits**8.0 * (127 / 4838400), 0.0)

    with pytest.raises(AssertionError, match="log C"):
        check_digits(WithoutLastTerm(T([logits])), logits)


def test_continuous_bernoulli_at_zero_is_uniform():
    distribution = ContinuousBernoulli(T([[0.0]]))
    assert distribution.mean.item() == 0.5
    assert_close(distribution.log_prob(T([[0.3]])).numpy(), [0.0], 2)


def check_samples(what, distribution, cdf, seed):
    """Draws follow their own density: Kolmogorov and Smirnov's test, against the integral of exp(log_prob)."""
    draws = distribution.sample(Noise(seed), DRAWS).numpy().reshape(-1)
    likely(f"samples of {what}", stats.kstest(draws, cdf).pvalue)


@pytest.mark.parametrize("logit", [1e-6, 0.05, 0.1001, 1.0, 30.0, -2.0])
def test_continuous_bernoulli_samples(logit):
    def cdf(x):
        return np.expm1(logit * x) / np.expm1(logit)

    check_samples(f"ContinuousBernoulli({logit})", ContinuousBernoulli(T([[logit]])), cdf, 4)
    with pytest.raises(AssertionError):
        check_samples("a Bernoulli's draws", WithoutConstant(T([[logit]])), cdf, 4)


def test_continuous_bernoulli_samples_are_continuous_in_the_logit():
    # where the series of a draw takes over from its formula, the same u gives the same x
    for bound in (1e-3, 0.1):
        for sign in (1, -1):
            at = (sign * bound * (1 - 1e-9), sign * bound * (1 + 1e-9))
            below, above = (ContinuousBernoulli(T([[logit]])).sample(Noise(5), 1000).numpy() for logit in at)
            assert np.abs(below - above).max() <= 1e-9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [-1e4, -90.0, -1e-3, 0.0, 1e-3, 90.0, 1e4])
def test_continuous_bernoulli_draws_stay_in_the_unit_interval(logit, dtype):
    draws = ContinuousBernoulli(T([[logit]], dtype)).sample(Noise(6), 1000).numpy()
    assert draws.dtype == dtype
    assert ((draws >= 0) & (draws <= 1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_continuous_bernoulli(dtype):
    # the limit is an exponential density |l| exp(-|l| t), t the distance from the end that l points to
    logits = Tensor(np.array([[1e4], [-1e4], [1e4], [-1e4]], dtype), requires_grad=True)
    x = T([[1], [0], [0], [1]], dtype)
    with np.errstate(over="ignore"):
        d = ContinuousBernoulli(logits)
        values, mean = d.log_prob(x), d.mean
        by_value, by_mean = grad(values.sum(), logits).numpy(), grad(mean.sum(), logits).numpy()
    top = np.log(1e4)
    assert_close(values.numpy(), [top, top, top - 1e4, top - 1e4], 4)
    assert_close(mean.numpy().reshape(-1), [1 - 1e-4, 1e-4, 1 - 1e-4, 1e-4], 2)
    assert_close(by_value.reshape(-1), [1e-4, -1e-4, -1 + 1e-4, 1 - 1e-4], 2)
    assert_close(by_mean.reshape(-1), [1e-8] * 4, 2)


def test_gradients_on_both_sides_of_the_series():
    logits = np.array([CB_LOGITS]) / 3
    for f in (lambda a: ContinuousBernoulli(a).log_prob(T([CB_LOGITS])), lambda a: ContinuousBernoulli(a).mean,
              lambda a: ContinuousBernoulli(a).variance):
        check_gradients(f, logits)
    check_gradients(lambda a: ContinuousBernoulli(a).sample(Noise(1), 3), np.array([[0.5, -0.05, 3.0, -8.0]]))


# ---- near 0, and at infinity -----------------------------------------------------------------------------------------


def check_near(name, draw_of, dtype):
    """Draws and their derivatives at |l| from 1e-9 to 10, against eighty digits; u away from the ends."""
    rng = np.random.default_rng(0)
    l = (10.0 ** rng.uniform(-9, 1, 300) * rng.choice([-1, 1], 300)).astype(dtype)
    u = rng.uniform(0.05, 0.95, 300).astype(dtype)
    leaf = Tensor(l, requires_grad=True)
    draw = draw_of(leaf, Tensor(u))
    slope = grad(draw.sum(), leaf).numpy()

    def exact(l, u):
        return mpmath.log1p(u * mpmath.expm1(l)) / l

    def exact_slope(l, u):
        return (u * mpmath.exp(l) / (1 + u * mpmath.expm1(l)) - exact(l, u)) / l

    check_relative(f"{name}: draws", draw.numpy(), exactly(exact, l, u), 2, 1)
    check_relative(f"{name}: their derivatives", slope, exactly(exact_slope, l, u), 32, 0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_near_zero_keep_their_digits(dtype):
    check_near("the row", lambda l, u: l.apply("continuous_bernoulli_draw", u), dtype)
    with pytest.raises(AssertionError, match="derivatives"):
        check_near("the plain formula", lambda l, u: (u * l.expm1()).log1p() / l, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_and_constant_keep_their_digits(dtype):
    """Mean, variance, log C and their derivatives, to a few units of each value."""
    rng = np.random.default_rng(1)
    l = (10.0 ** rng.uniform(-9, 2, 300) * rng.choice([-1, 1], 300)).astype(dtype)
    leaf = Tensor(l, requires_grad=True)
    q = ContinuousBernoulli(leaf)
    mean = exactly(lambda l: 1 / (1 - mpmath.exp(-l)) - 1 / l, l)
    variance = exactly(lambda l: 1 / l**2 - mpmath.exp(-l) / (1 - mpmath.exp(-l)) ** 2, l)
    check_relative("mean", q.mean.numpy(), mean, 4)
    check_relative("variance", q.variance.numpy(), variance, 16)
    check_relative("the mean's derivative", grad(q.mean.sum(), leaf).numpy(), variance, 16)
    constant = q.log_constant()
    check_relative("log C", constant.numpy(), exactly(lambda l: mpmath.log(l / mpmath.tanh(l / 2)), l), 4)
    check_relative("its derivative", grad(constant.sum(), leaf).numpy(),
                   exactly(lambda l: 1 / l - 1 / mpmath.sinh(l), l), 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_logits(dtype):
    """All mass at one end: an infinite density there, none elsewhere; mean, variance and draws; finite derivatives."""
    for logit, end in ((np.inf, 1.0), (-np.inf, 0.0)):
        leaf = Tensor(np.array([[logit]], dtype), requires_grad=True)
        q = ContinuousBernoulli(leaf)
        with np.errstate(invalid="ignore"):  # in the twin of the pixels' row
            values = [q.log_prob(T([[x]], dtype)) for x in (end, 0.5, 1 - end)]
            draws = q.sample(Noise(0), 1000)
            slopes = [grad(value.sum(), leaf).item() for value in (*values[:2], q.mean, q.variance, draws)]
        assert [value.item() for value in values] == [np.inf, -np.inf, -np.inf]
        assert [q.mean.item(), q.variance.item()] == [end, 0]
        assert (draws.numpy() == end).all()
        assert slopes == [0, 0.5 - end, 0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [-1e4, -30.0, -1.0, 1e-3, 1.0, 17.0, 30.0, 1e4, np.inf, -np.inf])
def test_draws_from_the_ends_of_the_uniform_numbers(logit, dtype):
    """u = 0, which is drawn once in 2^32, and numbers that 1 - u rounds to 1: never outside [0, 1]."""
    u = np.array([0, 2.0**-32, 2.0**-26, 0.5, 1 - 2.0**-24], dtype)
    draws = T(np.full(5, logit), dtype).apply("continuous_bernoulli_draw", Tensor(u)).numpy()
    assert ((draws >= 0) & (draws <= 1)).all()
    assert (np.diff(draws) >= 0).all()


# ---- divergence ------------------------------------------------------------------------------------------------------


def exact_kl(a, b):
    s = lambda l: mpmath.log(mpmath.sinh(l / 2) / (l / 2))
    return s(b) - s(a) - (b - a) * (mpmath.coth(a / 2) / 2 - 1 / a)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_divergence_keeps_its_digits_and_is_never_negative(dtype):
    """Logits of all sizes and signs, with differences of all sizes."""
    rng = np.random.default_rng(0)
    a = (10.0 ** rng.uniform(-6, 5, 400) * rng.choice([-1, 1], 400)).astype(dtype)
    b = (a + rng.normal(size=400) * 10.0 ** rng.uniform(-6, 4, 400)).astype(dtype)
    divergence = kl_per_dimension(ContinuousBernoulli(Tensor(a)), ContinuousBernoulli(Tensor(b))).numpy()
    assert (divergence >= 0).all()
    check_relative("KL", divergence, exactly(exact_kl, a, b), 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("a", "b", "nats", "by_p"), [
    (np.inf, np.inf, 0.0, 0.0), (-np.inf, -np.inf, 0.0, 0.0), (np.inf, 2.0, np.inf, None), (2.0, -np.inf, np.inf, None),
    (np.inf, -np.inf, np.inf, None), (0.0, 0.0, 0.0, 0.0), (1e4, 1e4, 0.0, 0.0),
])  # fmt: skip
def test_the_divergence_at_the_ends(a, b, nats, by_p, dtype):
    q, p = (Tensor(np.array([[v]], dtype), requires_grad=True) for v in (a, b))
    divergence = kl(ContinuousBernoulli(q), ContinuousBernoulli(p))
    assert divergence.numpy().tolist() == [nats]
    slopes = [g.item() for g in grad(divergence.sum(), [q, p])]
    assert by_p is None or slopes == [0, by_p]
    assert np.isfinite(slopes).all()
