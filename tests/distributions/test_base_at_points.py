"""The families at given parameters: against SciPy, by quadrature and by sums over all values."""

import warnings

import numpy as np
import pytest
from discrete_families import BITS, COUNTS, DISCRETE_ROWS, LOGITS, ONES, RATES
from integrals import T
from properties import DRAWS, condition, derivatives, precision, stable_form
from scipy import special, stats
from scipy_families import FAR_LOGVAR, FAR_MU, OF_FEW, ROWS, Diagonal, expectation, pairs, plane
from support import assert_close, likely, likely_zero

import tinyvae as tv
from tinyvae.distributions import (
    FAMILIES,
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    FullNormal,
    Gamma,
    GreyNormal,
    Normal,
    Poisson,
)
from tinyvae.engine.noise import Noise
from tinyvae.engine.testing import check_gradients

# ---- against SciPy, where SciPy has the family -----------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["kernel", "twin"])
def _fused(request):
    """For what holds with the kernels and with their readable twins."""
    with tv.fused(request.param):
        yield


def refuse(check, name, wrong=None):
    """The check does not take a wrong family for the right one."""
    if wrong := wrong or ROWS[name].wrong:
        with pytest.raises(AssertionError):
            check(name, ROWS[name]._replace(family=wrong))


def check_log_prob_of(name, row):
    x = ROWS[name].make().sample(Noise(1), 50)
    x = T(x.numpy())
    found = row.make().log_prob(x).numpy()
    assert found.shape == (50, 2)
    scale = condition(ROWS[name].family, [T(np.broadcast_to(p, (50, *p.shape))) for p in row.parameters], x)
    worst = assert_close(found, row.reference_log_prob(x.numpy()), row.units[1], "log_prob", scale)
    print(f"{name}: log_prob within {worst:.2g} units of SciPy's")


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.usefixtures("_fused")
def test_log_prob_agrees_with_scipy(name):
    check_log_prob_of(name, ROWS[name])
    refuse(check_log_prob_of, name)


def check_summaries_of(name, row):
    q, marginals = row.make(), row.marginals(*row.parameters)
    for what, found, expected in (("mean", q.mean, marginals.mean()), ("variance", q.variance, marginals.var())):
        assert found.shape == (2, 3)
        assert_close(found.numpy(), expected, 16, what, scale=np.abs(expected) + 1e-300)
    # the terms of the entropy are below 50
    assert_close(q.entropy().numpy(), row.reference_entropy(), 4, "entropy", scale=50)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.usefixtures("_fused")
def test_mean_variance_and_entropy_agree_with_scipy(name):
    check_summaries_of(name, ROWS[name])
    refuse(check_summaries_of, name)


def check_draws_of(name, row):
    """The whole law of a vector: each element's distribution function, given those before it."""
    z = row.make().sample(Noise(11), DRAWS)
    assert z.shape == (DRAWS, 2, 3)
    u = ROWS[name].reference_uniforms(z.numpy()).reshape(-1)
    likely(f"draws of {name}", stats.kstest(u, "uniform").pvalue)


@pytest.mark.parametrize("name", ROWS)
def test_draws_follow_the_density(name):
    check_draws_of(name, ROWS[name])
    refuse(check_draws_of, name)


# ---- by quadrature in the standardised form --------------------------------------------------------------------------


def check_by_quadrature(q, count):
    """1, E[eps], E[eps eps^T], the mean, the variance and the entropy: by their definitions."""
    free = q.to_stable(q.mean).shape[-1]

    def terms(w):
        eps, z = q.standardise(w).numpy()[:, 0], q.from_stable(w)
        products = (eps[:, :, None] * eps[:, None, :]).reshape(len(eps), -1)
        deviation = (z.numpy() - q.mean.numpy())[:, 0]
        return np.concatenate([np.ones((len(eps), 1)), eps, products, z.numpy()[:, 0], deviation**2,
                               -q.log_prob(z).numpy()], axis=-1)

    expected = np.concatenate([[1.0], np.zeros(free), np.eye(free).ravel(), q.mean.numpy()[0], q.variance.numpy()[0],
                               q.entropy().numpy()])
    found = expectation(q, terms, count)
    assert (np.abs(found - expected) <= 1e-10 * np.maximum(1, np.abs(expected))).all(), f"{found}, not {expected}"


@pytest.mark.parametrize("name", OF_FEW)
@pytest.mark.usefixtures("_fused")
def test_moments_and_entropy_by_quadrature(name):
    for q, _, count in pairs(name):
        check_by_quadrature(q, count)


def test_a_forgotten_correlation_is_found():
    with pytest.raises(AssertionError):
        check_by_quadrature(Diagonal(plane(Dirichlet)[0].concentration), 701)
    refuse(check_standardised_draws, "dirichlet", Diagonal)


def check_standardised_draws(name, row):
    """E[eps] = 0 and E[eps eps^T] = I over draws."""
    q = row.make()
    eps = q.standardise(q.to_stable(q.sample(Noise(33), DRAWS))).numpy()
    product = eps[..., 0] * eps[..., 1]
    for what, values in (("E[eps]", eps), ("E[eps^2] - 1", eps**2 - 1), ("E[eps_1 eps_2]", product)):
        mean = values.reshape(DRAWS, -1).mean(-1)
        likely_zero(f"{what} of {name}", mean.mean(), mean.std() / np.sqrt(DRAWS))


@pytest.mark.parametrize("name", ROWS)
def test_standardised_moments_of_draws(name):
    check_standardised_draws(name, ROWS[name])


# ---- discrete families: sums over all values -------------------------------------------------------------------------


def check_moments(q, values):
    """log p itself is rounded at its own size."""
    p = np.exp(q.log_density(T(values)).numpy())
    p = p[..., None] if isinstance(q, Categorical) else p
    mean = (p * values).sum(0)
    assert_close(q.mean.numpy(), mean, 64, "mean")
    assert_close(q.variance.numpy(), (p * (values - mean) ** 2).sum(0), 64, "variance")
    if not isinstance(q, Poisson):
        assert_close(q.entropy().numpy(), special.entr(p).sum(0).sum(-1), 16, "entropy")


@pytest.mark.parametrize("name", DISCRETE_ROWS)
@pytest.mark.usefixtures("_fused")
def test_moments_are_sums_over_all_values(name):
    row = DISCRETE_ROWS[name]
    check_moments(row.family(T(row.parameter)), row.values)
    with pytest.raises(AssertionError):
        check_moments(row.wrong(T(row.parameter)), row.values)


# ---- at given parameters, beside the random ones of properties.py ----------------------------------------------------

X = np.array([[0.5, -2.0, 0.25], [1.0, 0.0, 3.0]])
AT = {  # what makes a member, of which numbers, and x where it is not drawn
    **{name: (row.family, row.parameters, None) for name, row in ROWS.items()},
    "far normal": (Normal, (FAR_MU, FAR_LOGVAR), X),
    "grey-normal": (GreyNormal, (np.concatenate([FAR_MU, FAR_LOGVAR], axis=-1),), X),
    "bernoulli": (Bernoulli, (LOGITS,), BITS), "categorical": (Categorical, (LOGITS,), ONES),
    "poisson": (Poisson, (RATES + 0.2,), COUNTS[:12]),
    "poisson by log rate": (Poisson.from_raw, (np.log(RATES),), COUNTS[:12]),
}  # fmt: skip


@pytest.mark.parametrize("name", AT)
@pytest.mark.usefixtures("_fused")
def test_derivatives_at(name):
    make, numbers, x = AT[name]
    derivatives(make, *numbers, x=x)


@pytest.mark.usefixtures("_fused")
def test_derivatives_of_bernoulli_by_x():
    check_gradients(lambda a, x: Bernoulli(a).log_prob(x), LOGITS, BITS[1:7:5, 0])


def near(row, family):
    return family(*(T(p) for p in row.near(400, np.random.default_rng(2))))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.usefixtures("_fused")
def test_precision_and_stable_form_at(name):
    precision(near(ROWS[name], ROWS[name].family))
    stable_form(ROWS[name].make())


class Loses(Gamma):
    """The logarithm of the density itself, which loses digits."""

    def log_prob(self, x):
        return ((self.rate * x) ** (self.shape - 1) * (-self.rate * x).exp() * self.rate / self.shape.lgamma().exp()
                + 1e-7).log().sum(-1)


def test_lost_digits_are_found():
    with pytest.raises(AssertionError, match="rounding units"):
        precision(near(ROWS["gamma"], Loses))


# ---- outside the support ---------------------------------------------------------------------------------------------

# Parameters and points outside the support, at which SciPy has -inf as well; docs/accuracy.md lists the families that
# do not check their points.
OUTSIDE = {
    "log-normal": (stats.lognorm(0.5, 0, np.exp(0.3)), (0.3, 2 * np.log(0.5)),
                   (-1e-30, -1.0, -1e15, -np.inf, np.inf)),
    "gamma": (stats.gamma(2.0, scale=1 / 3), (2.0, 3.0), (-1e-30, -1.0, -1e15, -np.inf, np.inf)),
    "beta": (stats.beta(2.0, 3.0), (2.0, 3.0), (-1e-30, -1.0, 1.5, 1e15, -np.inf, np.inf)),
    "poisson": (stats.poisson(2.0), (2.0,), (-1.0, -1e15, -np.inf, np.inf)),
    "negative-binomial": (stats.nbinom(3.0, 0.6), (2.0, 3.0), (-1.0, -1e15, -np.inf, np.inf)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.usefixtures("_fused")
def test_outside_the_support_the_density_and_all_derivatives_are_0_without_a_warning(name, dtype):
    """As they are for every value of the parameters."""
    law, numbers, points = OUTSIDE[name]
    parameters = [tv.Tensor(np.array([[number]], dtype), requires_grad=True) for number in numbers]
    for point in points:
        x = tv.Tensor(np.array([[[point]], [[1.0]]], dtype), requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = FAMILIES[name](*parameters).log_prob(x)
            slopes = tv.grad(found[0].sum(), [x, *parameters])
        scipy_pdf = getattr(law, "logpmf", None) or law.logpdf
        assert found.numpy()[0].item() == -np.inf
        assert point == np.inf or scipy_pdf(point) == -np.inf  # (SciPy's gamma is NaN at infinity)
        assert not any(slope.numpy().any() for slope in slopes)
    missing = FAMILIES[name](*parameters).log_prob(T([[np.nan]], dtype))
    assert np.isnan(missing.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("numbers", "point"), [([[2.0, 3.0, 4.0]], -0.1), ([[2.0, 3.0, 4.0]], np.inf),
                                                ([[0.3] * 3, [0.2] * 3, [0.5] * 3], np.inf),
                                                ([[0.3] * 3, [0.2] * 3, [0.5] * 3], -np.inf)])
def test_a_vector_outside_the_support_has_derivatives_0(numbers, point, dtype):
    parameters = [tv.Tensor(np.array([row], dtype), requires_grad=True) for row in numbers]
    x = tv.Tensor(np.array([[[0.5, point, 0.5]], [[0.2, 0.5, 0.3]]], dtype), requires_grad=True)
    found = (Dirichlet if len(numbers) == 1 else FullNormal)(*parameters).log_prob(x)
    slopes = tv.grad(found[0].sum(), [x, *parameters])
    assert found.numpy()[0].item() == -np.inf
    assert not any(slope.numpy().any() for slope in slopes)
    assert np.isfinite(found.numpy()[1])


def test_a_row_at_an_end_of_the_support_leaves_the_derivatives_of_the_others():
    """Its own are infinite there, but no gradient arrives at it."""
    for family, numbers, end in ((Gamma, (2.0, 3.0), 0.0), (Beta, (2.0, 3.0), 0.0), (Beta, (2.0, 3.0), 1.0)):
        parameters = [tv.Tensor(np.array([[number]]), requires_grad=True) for number in numbers]
        at_both, alone = (family(*parameters).log_prob(T(x))[0].sum() for x in ([[[0.4]], [[end]]], [[[0.4]]]))
        for found, expected in zip(tv.grad(at_both, parameters), tv.grad(alone, parameters), strict=True):
            assert np.array_equal(found.numpy(), expected.numpy())


EXTREME = {  # the derivatives by x and by the parameters that a density goes to at 1e200; None: any number but NaN
    "normal": ((0.3, 0.0), (-1e200, 1e200, np.inf)), "laplace": ((0.3, 0.5), (-2.0, 2.0, 4e200)),
    "student-t": ((0.3, 1.0, 4.0), (-5e-200, 5e-200, 4.0, None)),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREME)
def test_at_extreme_values_there_is_the_right_limit_and_no_warning(name):
    numbers, expected = EXTREME[name]
    leaves = [tv.Tensor(np.array([[number]]), requires_grad=True) for number in (1e200, *numbers)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = FAMILIES[name](*leaves[1:]).log_prob(leaves[0])
        slopes = [slope.item() for slope in tv.grad(found.sum(), leaves)]
    for slope, limit in zip(slopes, expected, strict=True):
        assert not np.isnan(slope)
        assert limit is None or slope == pytest.approx(limit, rel=1e-14)
    assert name == "student-t" or FAMILIES[name](*leaves[1:]).log_prob(T([[np.inf]])).item() == -np.inf


def test_a_full_normal_whose_square_overflows_has_no_nan():
    q = FullNormal(*(tv.Tensor(np.full((1, n), v), requires_grad=True) for n, v in ((2, 0.3), (2, 0.2), (1, 0.5))))
    found = q.log_prob(T([[1e200, 0.0]]))
    assert found.item() == -np.inf
    assert not any(np.isnan(slope.numpy()).any() for slope in tv.grad(found.sum(), list(q.parameters.values())))


def test_families_that_do_not_check_their_points_evaluate_their_formula():
    """What docs/accuracy.md says of them."""
    logit = 0.8
    assert_close(Bernoulli(T([[logit]])).log_prob(T([[2.5]])).numpy(), [2.5 * logit - np.log1p(np.exp(logit))], 4)
    assert_close(Poisson(T([[2.0]])).log_prob(T([[0.5]])).numpy(), [0.5 * np.log(2) - 2 - special.gammaln(1.5)], 4)
    on = Dirichlet(T([[2.0, 3.0, 4.0]])).log_prob(T([[1.0, 1.0, 1.0]])).numpy()
    assert_close(on, [stats.dirichlet.logpdf([1 / 3, 1 / 3, 1 / 3], [2, 3, 4])], 8)
