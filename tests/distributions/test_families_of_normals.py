"""Distributions against SciPy, against quadrature and against their own samples.

Each check is a function, and is also run on a family made wrong on purpose, which must fail it.
"""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import integrate, special, stats
from support import DTYPES, assert_close, likely, likely_zero

import tinyvae as tv
from tinyvae.distributions import Bernoulli, ContinuousBernoulli, Distribution, GreyNormal, Normal, kl, kl_per_dimension
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad

DRAWS = 20_000


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


def T(values, dtype=np.float64):
    return Tensor(np.array(values, dtype))


def raw(a, logvar, dtype=np.float64):
    return T(np.concatenate([np.atleast_2d(a), np.atleast_2d(logvar)], axis=-1), dtype)


MU, LOGVAR = np.array([[0.0, 2.0, -1.3], [0.4, -5.0, 1e-3]]), np.array([[0.0, 1.2, -3.0], [2.5, -0.7, 0.1]])
LOGITS = np.array([[0.0, 2.0, -1.3], [-6.0, 4.0, 0.05]])
CB_LOGITS = [1e-6, 0.05, 0.0999, 0.1001, 1.0, 30.0, -1e-6, -0.0999, -0.1001, -1.0, -30.0]


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


class Flipped(Bernoulli):
    """Wrong: the logit of 0, not of 1."""

    mean = property(lambda self: (-self.logits).sigmoid())

    def log_prob(self, x):
        return Bernoulli(-self.logits).log_prob(x)


class WithoutConstant(ContinuousBernoulli):
    """Wrong: the Bernoulli's formula on grey pixels, which integrates to less than 1."""

    def log_constant(self):
        return self.logits * 0.0

    @property
    def mean(self):
        return self.logits.sigmoid()

    def sample(self, noise, samples=1):
        return Bernoulli(self.logits).sample(noise, samples)


# ---- log_prob, mean, entropy against SciPy ------------------------------------------------------------------------


def normal_reference(mu, logvar):
    return stats.norm(mu, np.exp(0.5 * logvar))


def check_against_scipy(distribution, reference, log_density, x):
    assert_close(distribution.log_prob(T(x)).numpy(), log_density(x).sum(-1), 20, "log_prob")
    assert_close(distribution.mean.numpy(), reference.mean(), 4, "mean")
    assert_close(distribution.entropy().numpy(), reference.entropy().sum(-1), 20, "entropy")


X = np.array([[0.5, -2.0, 0.25], [1.0, 0.0, 3.0]])
BITS = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])


def test_normal_agrees_with_scipy():
    reference = normal_reference(MU, LOGVAR)
    check_against_scipy(Normal(T(MU), T(LOGVAR)), reference, reference.logpdf, X)
    with pytest.raises(AssertionError):
        check_against_scipy(WithStd(T(MU), T(LOGVAR)), reference, reference.logpdf, X)


def test_bernoulli_agrees_with_scipy():
    reference = stats.bernoulli(special.expit(LOGITS))
    check_against_scipy(Bernoulli(T(LOGITS)), reference, reference.logpmf, BITS)
    with pytest.raises(AssertionError):
        check_against_scipy(Flipped(T(LOGITS)), reference, reference.logpmf, BITS)


def test_grey_normal_agrees_with_scipy():
    reference = normal_reference(special.expit(MU), LOGVAR)
    check_against_scipy(GreyNormal(raw(MU, LOGVAR)), reference, reference.logpdf, X)
    with pytest.raises(AssertionError):
        check_against_scipy(MeanIsNotSquashed(raw(MU, LOGVAR)), reference, reference.logpdf, X)


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


def exactly(logit):
    """log C(l) and the mean with 60 digits: log(l / tanh(l / 2)), and 1 / (1 - exp(-l)) - 1 / l."""
    with localcontext() as context:
        context.prec = 60
        l = Decimal(logit)
        constant = (l * (l.exp() + 1) / (l.exp() - 1)).ln()
        return float(constant), float(1 / (1 - (-l).exp()) - 1 / l)


def check_digits(distribution, logits):
    constants, means = np.array([exactly(logit) for logit in logits]).T
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


@pytest.mark.parametrize("family", [Bernoulli, ContinuousBernoulli, GreyNormal, Normal])
def test_parameters_and_data_of_different_shapes(family):
    # parameters of a batch and several samples; several samples of parameters and one batch; one row of either
    def make(parameters):
        return family(*parameters.split(2)) if family is Normal else family(parameters)

    width = 6 if family in (Normal, GreyNormal) else 3
    rng = np.random.default_rng(0)
    shapes = [((2,), (5, 2)), ((5, 2), (2,)), ((2,), (1,)), ((1,), (2,)), ((), (2,)), ((), ()), ((5, 2), (5, 2))]
    for leading, of_x in shapes:
        parameters, x = rng.standard_normal((*leading, width)), rng.uniform(0, 1, (*of_x, 3))
        both = np.broadcast_shapes(leading, of_x)
        found = make(T(parameters)).log_prob(T(x)).numpy()
        rows = zip(np.broadcast_to(parameters, (*both, width)).reshape(-1, 1, width),
                   np.broadcast_to(x, (*both, 3)).reshape(-1, 1, 3), strict=True)
        expected = np.array([make(T(p)).log_prob(T(one)).item() for p, one in rows]).reshape(both)
        assert_close(found, expected, 8, f"parameters {leading}, x {of_x}")


def test_data_of_another_width_are_refused():
    # a kernel would read beside the row
    for distribution in (Bernoulli(T(MU)), ContinuousBernoulli(T(MU)), GreyNormal(raw(MU, LOGVAR))):
        for width in (2, 4):
            with pytest.raises(ValueError, match=r"mul cannot combine shapes|sub cannot combine shapes"):
                distribution.log_prob(T(np.zeros((2, width))))


def test_samples_have_a_leading_axis():
    grey = GreyNormal(raw(MU, LOGVAR))
    for distribution in (Normal(T(MU), T(LOGVAR)), Bernoulli(T(MU)), ContinuousBernoulli(T(MU)), grey):
        assert distribution.sample(Noise(0), 5).shape == (5, 2, 3)
        assert distribution.mean.shape == (2, 3)
        assert distribution.log_prob(distribution.sample(Noise(0), 5)).shape == (5, 2)


# ---- samples ------------------------------------------------------------------------------------------------------


def check_samples(what, distribution, cdf, seed):
    """Draws follow their own density: Kolmogorov and Smirnov's test, against the integral of exp(log_prob)."""
    draws = distribution.sample(Noise(seed), DRAWS).numpy().reshape(-1)
    likely(f"samples of {what}", stats.kstest(draws, cdf).pvalue)


def check_mean(what, distribution, seed):
    """The mean of draws is the mean that the family states."""
    draws = distribution.sample(Noise(seed), DRAWS).numpy().reshape(DRAWS)
    likely_zero(f"mean of {what}", draws.mean() - distribution.mean.item(), draws.std() / np.sqrt(DRAWS))


def check_variance(what, distribution, variance, seed):
    """(n - 1) s^2 / sigma^2 of normal draws is chi-squared."""
    draws = distribution.sample(Noise(seed), DRAWS).numpy().reshape(-1)
    statistic = draws.var(ddof=1) * (DRAWS - 1) / variance
    tails = stats.chi2(DRAWS - 1)
    likely(f"variance of {what}", 2 * min(tails.cdf(statistic), tails.sf(statistic)))


@pytest.mark.parametrize("logvar", [-2.0, 1.5])
def test_normal_samples_have_variance_exp_logvar(logvar):
    right, wrong = (family(T([[1.0]]), T([[logvar]])) for family in (Normal, WithStd))
    check_variance(f"N(1, exp({logvar}))", right, np.exp(logvar), 1)
    check_samples(f"N(1, exp({logvar}))", right, stats.norm(1, np.exp(logvar / 2)).cdf, 1)
    check_mean(f"N(1, exp({logvar}))", right, 1)
    with pytest.raises(AssertionError):
        check_variance("std taken for variance", wrong, np.exp(logvar), 1)
    with pytest.raises(AssertionError):
        check_samples("std taken for variance", wrong, stats.norm(1, np.exp(logvar / 2)).cdf, 1)


def test_grey_normal_samples():
    right, wrong = (family(raw([[0.7]], [[-1.0]])) for family in (GreyNormal, MeanIsNotSquashed))
    cdf = stats.norm(special.expit(0.7), np.exp(-0.5)).cdf
    check_samples("GreyNormal", right, cdf, 2)
    wrong_draws = Normal(wrong.mean, wrong.logvar)
    with pytest.raises(AssertionError):
        check_samples("mean not squashed", wrong_draws, cdf, 2)


@pytest.mark.parametrize("logit", [-1.3, 3.0])
def test_bernoulli_samples(logit):
    draws = Bernoulli(T([[logit]])).sample(Noise(3), DRAWS).numpy()
    assert set(np.unique(draws)) <= {0.0, 1.0}
    check_mean(f"Bernoulli({logit})", Bernoulli(T([[logit]])), 3)
    wrong = Bernoulli(T([[logit]]))
    wrong.sample = lambda noise, samples: 1 - Bernoulli(T([[logit]])).sample(noise, samples)
    with pytest.raises(AssertionError):
        check_mean("zeros for ones", wrong, 3)


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


# ---- Kullback-Leibler divergences ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mu", "sigma", "nats"), [(2.0, 1.0, 2.0), (0.0, 0.1, 1.8076), (0.0, 1.0, 0.0)])
def test_known_divergences(mu, sigma, nats):
    q = Normal(T([[mu]]), T([[2 * np.log(sigma)]]))
    assert abs(kl(q, Normal.standard(1, np.float64)).item() - nats) <= 5e-5
    # the same from the row that draws and charges at once
    together = Normal.from_raw(raw([[mu]], [[2 * np.log(sigma)]]))
    assert abs(together.sample_with_kl(Normal.standard(1, np.float64), Noise(0))[1].item() - nats) <= 5e-5


def check_divergence(what, q, p, closed, seed=7):
    """E_q[log q - log p], by sampling, is the closed form."""
    z = q.sample(Noise(seed), DRAWS)
    gap = (q.log_prob(z) - p.log_prob(z)).numpy().reshape(-1)
    likely_zero(f"KL of {what}", gap.mean() - closed, gap.std() / np.sqrt(DRAWS))


def test_normal_divergence_is_the_mean_log_ratio():
    q, p = Normal(T([[0.5, -1.0]]), T([[-1.0, 0.3]])), Normal(T([[0.0, 1.0]]), T([[0.5, -0.4]]))
    check_divergence("two normals", q, p, kl(q, p).item())
    with pytest.raises(AssertionError):
        check_divergence("p and q exchanged", q, p, kl(p, q).item())
    with pytest.raises(AssertionError):
        check_divergence("std taken for variance", WithStd(q.mu, q.logvar), WithStd(p.mu, p.logvar), kl(q, p).item())


def test_normal_divergence_against_quadrature():
    q, p = normal_reference(0.5, -1.0), normal_reference(-0.3, 0.4)
    by_hand = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -10, 10, epsabs=1e-13)[0]
    found = kl(Normal(T([[0.5]]), T([[-1.0]])), Normal(T([[-0.3]]), T([[0.4]]))).item()
    assert abs(found - by_hand) <= 1e-11


def test_bernoulli_divergence_is_the_sum_over_both_values():
    a, b = special.expit(LOGITS), special.expit(LOGITS[::-1])
    expected = a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
    found = kl_per_dimension(Bernoulli(T(LOGITS)), Bernoulli(T(LOGITS[::-1]))).numpy()
    assert_close(found, expected, 20)
    assert (found >= 0).all()


def test_divergence_of_a_distribution_from_itself_is_zero():
    q = Normal(T(MU), T(LOGVAR))
    assert_close(kl_per_dimension(q, q).numpy(), np.zeros_like(MU), 2)
    b = Bernoulli(T(LOGITS))
    assert (kl_per_dimension(b, b).numpy() == 0).all()


def test_an_unknown_pair_is_named():
    q, p = Normal(T(MU), T(LOGVAR)), Bernoulli(T(MU))
    with pytest.raises(TypeError, match=r"KL\(Normal \|\| Bernoulli\).*Normal/Normal.*elbo-a"):
        kl(q, p)


def test_a_family_says_what_it_lacks():
    class Empty(Distribution):
        pass

    for call in (lambda: Empty().log_prob(T([0.0])), lambda: Empty().sample(Noise(0)), lambda: Empty().entropy()):
        with pytest.raises(TypeError, match="Empty has no"):
            call()
    with pytest.raises(TypeError, match="ContinuousBernoulli has no closed-form entropy"):
        ContinuousBernoulli(T([[0.0]])).entropy()


def test_one_pass_sample_and_divergence_equal_the_two():
    # the fused row of the raw parameters and the plain formulas, drawn from the same noise
    for samples in (1, 4):
        q = Normal.from_raw(raw(MU, LOGVAR))
        prior = Normal.standard(3, np.float64)
        z, divergence = q.sample_with_kl(prior, Noise(8), samples)
        assert_close(z.numpy(), Normal(T(MU), T(LOGVAR)).sample(Noise(8), samples).numpy(), 4)
        assert_close(divergence.numpy(), kl(Normal(T(MU), T(LOGVAR)), prior).numpy(), 8)
    other = Normal(T([1.0, 0.0, 0.0]), T([0.0, 0.0, 0.0]))  # not the standard prior: the general formula
    assert_close(q.sample_with_kl(other, Noise(8))[1].numpy(), kl(q, other).numpy(), 8)


# ---- gradients ----------------------------------------------------------------------------------------------------

GRADIENTS = {
    "normal log_prob": (lambda m, v, x: Normal(m, v).log_prob(x), MU, LOGVAR, X),
    "normal sample": (lambda m, v: Normal(m, v).sample(Noise(1), 3), MU, LOGVAR),
    "normal entropy": (lambda m, v: Normal(m, v).entropy() + m.sum() * 0, MU, LOGVAR),
    "normal kl": (lambda a, b, c, d: kl(Normal(a, b), Normal(c, d)), MU, LOGVAR, MU[::-1], LOGVAR[::-1]),
    "bernoulli log_prob": (lambda a: Bernoulli(a).log_prob(T(BITS)), LOGITS),
    "bernoulli log_prob by x": (lambda a, x: Bernoulli(a).log_prob(x), LOGITS, BITS),
    "bernoulli entropy": (lambda a: Bernoulli(a).entropy(), LOGITS),
    "bernoulli kl": (lambda a, b: kl(Bernoulli(a), Bernoulli(b)), LOGITS, LOGITS[::-1]),
    "grey log_prob": (lambda j: GreyNormal(j).log_prob(T(X)), np.concatenate([MU, LOGVAR], axis=-1)),
    "grey sample": (lambda j: GreyNormal(j).sample(Noise(1), 3), np.concatenate([MU, LOGVAR], axis=-1)),
    "grey entropy": (lambda j: GreyNormal(j).entropy(), np.concatenate([MU, LOGVAR], axis=-1)),
    "continuous log_prob": (lambda a: ContinuousBernoulli(a).log_prob(T([CB_LOGITS])), np.array([CB_LOGITS]) / 3),
    "continuous mean": (lambda a: ContinuousBernoulli(a).mean, np.array([CB_LOGITS]) / 3),
    "continuous sample": (lambda a: ContinuousBernoulli(a).sample(Noise(1), 3), np.array([[0.5, -0.05, 3.0, -8.0]])),
    "raw sample and kl": (lambda j: sample_and_kl(j), np.concatenate([MU, LOGVAR], axis=-1)),
}  # fmt: skip


def sample_and_kl(both):
    z, divergence = Normal.from_raw(both).sample_with_kl(Normal.standard(3, np.float64), Noise(1), 2)
    return (z * z).sum((0, 2)) + divergence


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name):
    f, *points = GRADIENTS[name]
    tv.testing.check_gradients(f, *points)


def test_a_gradient_that_stops_on_the_way_is_found():
    # what the check above would say of a sampler that is not reparameterized
    with pytest.raises(tv.testing.GradientError):
        tv.testing.check_gradients(lambda m, v: Normal(m, v).sample(Noise(1)).detach() + 0 * m + 0 * v, MU, LOGVAR)


# ---- float32 and extremes -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_bernoulli_logits_are_exact(dtype):
    # where 1 - sigmoid(l) is 0 and its logarithm would be -inf
    logits = Tensor(np.array([[1e4], [-1e4], [1e4], [-1e4]], dtype), requires_grad=True)
    x = T([[1], [1], [0], [0]], dtype)
    values = Bernoulli(logits).log_prob(x)
    assert values.numpy().tolist() == [0, -1e4, -1e4, 0]
    assert grad(values.sum(), logits).numpy().reshape(-1).tolist() == [0, 1, -1, 0]
    assert Bernoulli(logits).entropy().numpy().tolist() == [0, 0, 0, 0]
    assert kl(Bernoulli(logits), Bernoulli(-logits)).numpy().tolist() == [1e4] * 4
    mean = Bernoulli(logits).mean.numpy().reshape(-1)
    assert mean.tolist() == [1, 0, 1, 0]
    with np.errstate(all="ignore"):
        naive = x * logits.sigmoid().log() + (1 - x) * (1 - logits.sigmoid()).log()
    with pytest.raises(AssertionError):
        assert np.isfinite(naive.numpy()).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_bernoulli_logits_have_no_entropy(dtype):
    assert Bernoulli(T([[np.inf, -np.inf]], dtype)).entropy().numpy().tolist() == [0]


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
