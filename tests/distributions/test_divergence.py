"""Every closed KL divergence against its definition; what is not known is named."""

import warnings

import mpmath
import numpy as np
import pytest
from discrete_families import DISCRETE_ROWS, LOGITS, OTHER_RATES, OTHERS, RATES
from exact import check_relative, exactly
from integrals import T, agrees, expectation, member, raw, size, values_of
from properties import mean_log_ratio
from scipy_families import FAR_LOGVAR, FAR_MU, LOGVAR, MU, OF_FEW, ROWS, pairs
from scipy_families import expectation as expectation_of_stable_form
from support import DTYPES, assert_close

import tinyvae as tv
from tinyvae.distributions import Bernoulli, Categorical, Normal, Poisson, has_closed_kl, kl, kl_per_dimension
from tinyvae.distributions.divergence import CLOSED_FORMS
from tinyvae.distributions.registry import DISCRETE
from tinyvae.engine.tensor import Tensor
from tinyvae.engine.testing import check_gradients


def check_divergence(first, second):
    """The closed KL(q || p) of two families is its definition, never negative, 0 if q is p, and has derivatives."""
    n = max(size(first), size(second))
    for seed in range(3):
        divergence(member(first, n, seed=seed), member(second, n, seed=seed + 10))
    for dtype in DTYPES:
        many = [member(family, 3, 200, i, 3.0, dtype) for i, family in enumerate((first, second))]
        never_negative(*many)
    check_gradients(lambda a, b: kl_per_dimension(first.from_raw(a), second.from_raw(b)), raw(first, 3, 2),
                    raw(second, 3, 2, seed=1))


def never_negative(q, p):
    """Not below rounding; and of q with itself 0, of a discrete q without any rounding."""
    each = kl_per_dimension(q, p).numpy()
    assert each.dtype == q.mean.dtype
    assert (each >= -1e3 * np.finfo(each.dtype).eps).all()
    if type(q) is type(p):
        zero = kl_per_dimension(q, q).numpy()
        assert np.abs(zero).max() <= (0 if q.support in DISCRETE else 16 * np.finfo(zero.dtype).eps)


def divergence(q, p):
    assert has_closed_kl(q, p)
    agrees(f"KL({type(q).__name__} || {type(p).__name__})", kl_per_dimension(q, p).sum(-1).numpy(),
           expectation(q, lambda x: (q.log_prob(x) - p.log_prob(x)).numpy(), values_of(q)))


PAIRS = list(CLOSED_FORMS)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{q.__name__}-{p.__name__}" for q, p in PAIRS])
def test_every_closed_form(first, second):
    check_divergence(first, second)


WRONG = {
    "q and p exchanged": lambda right: lambda q, p: right(p, q), "half": lambda right: lambda q, p: 0.5 * right(q, p),
    "another constant": lambda right: lambda q, p: right(q, p) + 1e-6,
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("family", [q for q, p in PAIRS if q is p])
def test_a_wrong_form_is_refused(monkeypatch, family, fault):
    monkeypatch.setitem(CLOSED_FORMS, (family, family), WRONG[fault](CLOSED_FORMS[family, family]))
    with pytest.raises(AssertionError):
        check_divergence(family, family)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_terms_of_a_divergence_keep_their_digits(dtype):
    """exp(t) - 1 - t, also where its series ends, at |t| = 1."""
    size = np.concatenate([np.linspace(0.8, 1.2, 60), 10.0 ** np.linspace(-9, 1.9, 60)])
    t = np.concatenate([-size, size]).astype(dtype)
    found = tv.apply("exp_remainder", tv.Tensor(t)).numpy()
    check_relative("exp(t) - 1 - t", found, exactly(lambda t: mpmath.expm1(t) - t, t), 4)
    assert tv.apply("exp_remainder", tv.Tensor(np.array([-np.inf, np.inf, 0], dtype))).numpy().tolist() == [
        np.inf, np.inf, 0]  # fmt: skip


def test_an_unknown_pair_is_named():
    q, p = member(Normal, 3), member(Bernoulli, 3)
    assert not has_closed_kl(q, p)
    for divergence in (kl, kl_per_dimension):
        with pytest.raises(TypeError, match=r"KL\(Normal \|\| Bernoulli\).*Normal/Normal.*elbo-a"):
            divergence(q, p)


def test_one_number_a_datum():
    q, p = (member(Normal, 3, rows=2, seed=seed) for seed in (0, 1))
    assert kl(q, p).shape == (2,)
    np.testing.assert_array_equal(kl(q, p).numpy(), kl_per_dimension(q, p).numpy().sum(-1))


# ---- at given parameters, beside the random ones of properties.py ----------------------------------------------------


@pytest.fixture(params=[True, False], ids=["kernel", "twin"])
def _fused(request):
    """For what holds with the kernels and with their readable twins."""
    with tv.fused(request.param):
        yield


def check_by_quadrature(q, p, closed, count):
    """By the definition in the stable form: a change of variable leaves the KL as it is."""
    by_definition = expectation_of_stable_form(q, lambda w: np.subtract(*(
        d.log_density(w).numpy().reshape(len(w), -1).sum(-1) for d in (q, p))), count)[0]
    assert abs(closed.item() - by_definition) <= 1e-10 * max(1, by_definition)


@pytest.mark.parametrize("name", OF_FEW)
@pytest.mark.usefixtures("_fused")
def test_by_quadrature(name):
    for q, others, count in pairs(name):
        for p in others:
            check_by_quadrature(q, p, kl(q, p), count)
            if type(q) is type(p):
                with pytest.raises(AssertionError):
                    check_by_quadrature(q, p, kl(p, q), count)


OF_ROWS = [*((name, name) for name in ROWS), ("full-normal", "normal")]


@pytest.mark.parametrize(("first", "second"), OF_ROWS)
def test_the_mean_log_ratio(first, second):
    q, p = ROWS[first].make(), ROWS[second].others()
    mean_log_ratio(q, p, kl(q, p).numpy())
    if first == second:
        with pytest.raises(AssertionError):
            mean_log_ratio(q, p, kl(p, q).numpy())


@pytest.mark.parametrize(("first", "second"), OF_ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_never_negative_and_zero_for_equals(first, second, dtype):
    rng = np.random.default_rng(4)
    never_negative(*(ROWS[name].family(*(T(p, dtype) for p in ROWS[name].near(200, rng))) for name in (first, second)))


def check_sum(row, found):
    log_q, log_p = (row.family(T(v)).log_density(T(row.values)).numpy() for v in (row.parameter, row.other))
    expected = (np.exp(log_q) * (log_q - log_p)).sum(0)
    expected = expected[:, None] if row.family is Categorical else expected
    assert_close(found.numpy(), expected, row.units, "KL")
    assert (found.numpy() >= 0).all()


@pytest.mark.parametrize("name", DISCRETE_ROWS)
@pytest.mark.usefixtures("_fused")
def test_sums_over_all_values(name):
    row = DISCRETE_ROWS[name]
    q, p = row.family(T(row.parameter)), row.family(T(row.other))
    check_sum(row, kl_per_dimension(q, p))
    never_negative(q, p)
    with pytest.raises(AssertionError):
        check_sum(row, kl_per_dimension(p, q))


SLOPES = {  # what makes q and p, and of which numbers
    **{name: (row.family, row.parameters, row.family, [p[::-1] for p in row.parameters]) for name, row in ROWS.items()},
    "full-normal and normal": (ROWS["full-normal"].family, ROWS["full-normal"].parameters, Normal, (MU[::-1], LOGVAR)),
    "far normals": (Normal, (FAR_MU, FAR_LOGVAR), Normal, (FAR_MU[::-1], FAR_LOGVAR[::-1])),
    "bernoulli": (Bernoulli, (LOGITS,), Bernoulli, (LOGITS[::-1],)),
    "categorical": (Categorical, (LOGITS,), Categorical, (OTHERS,)),
    "poisson": (Poisson, (RATES + 0.2,), Poisson, (OTHER_RATES + 0.2,)),
    "poisson by log rates": (Poisson.from_raw, (LOGITS / 2,), Poisson.from_raw, (OTHERS,)),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.usefixtures("_fused")
def test_derivatives_at(name):
    first, a, second, b = SLOPES[name]
    check_gradients(lambda *t: kl_per_dimension(first(*t[: len(a)]), second(*t[len(a):])), *a, *b)


def test_a_divergence_beyond_the_type_is_infinite_without_a_warning():
    """KL(N(0, e^200) || N(0, 1)) is (e^200 - 201) / 2, which float32 cannot hold."""
    q, p = (Normal(Tensor(np.zeros((1, 1), np.float32)), Tensor(np.full((1, 1), logvar, np.float32)))
            for logvar in (200.0, 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kl(q, p).item() == np.inf
