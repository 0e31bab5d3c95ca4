"""Bernoulli: SciPy, and logits so far out that other formulas round to 0 or to infinity."""

import mpmath
import numpy as np
import pytest
from discrete_families import BITS, LOGITS, Flipped
from exact import check_relative, exactly
from integrals import T
from scipy import special, stats
from support import DTYPES, assert_close, likely_zero

import tinyvae as tv
from tinyvae.distributions import Bernoulli, kl, kl_per_dimension
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


def check_against_scipy(q, x):
    reference = stats.bernoulli(special.expit(LOGITS))
    assert_close(q.log_prob(T(x)).numpy(), reference.logpmf(x).sum(-1), 20, "log_prob")
    assert_close(q.mean.numpy(), reference.mean(), 4, "mean")
    assert_close(q.entropy().numpy(), reference.entropy().sum(-1), 20, "entropy")


def test_bernoulli_agrees_with_scipy():
    check_against_scipy(Bernoulli(T(LOGITS)), BITS)
    with pytest.raises(AssertionError):
        check_against_scipy(Bernoulli(T(-LOGITS)), BITS)


def check_mass(found, expected, scale=None, units=8):
    assert_close(found.numpy(), expected, units, "log p", scale)


def test_bernoulli_elements():
    # of each element, and their sum is the fused log_prob
    expected = np.where(BITS == 1, special.log_expit(LOGITS), special.log_expit(-LOGITS))
    check_mass(Bernoulli(T(LOGITS)).log_density(T(BITS)), expected)
    check_mass(Bernoulli(T(LOGITS)).log_prob(T(BITS[:1, 0])), expected[0].sum(-1))
    with pytest.raises(AssertionError):
        check_mass(Flipped(T(LOGITS)).log_density(T(BITS)), expected)


def check_mean(what, draws, mean):
    likely_zero(f"mean of {what}", draws.mean() - mean, draws.std() / np.sqrt(draws.size))


@pytest.mark.parametrize("logit", [-1.3, 3.0])
def test_bernoulli_samples(logit):
    draws = Bernoulli(T([[logit]])).sample(Noise(3), 20_000).numpy()
    assert set(np.unique(draws)) <= {0.0, 1.0}
    check_mean(f"Bernoulli({logit})", draws, special.expit(logit))
    with pytest.raises(AssertionError):
        check_mean("zeros for ones", 1 - draws, special.expit(logit))


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_bernoulli_logits(dtype):
    # x l - log(1 + exp(l)) would be 0 from l = 37 (float64) or 17 (float32) on
    logits = T([40.0, -40.0, 1e4, -1e4, np.inf, -np.inf], dtype)
    found = Bernoulli(logits).log_density(T([1, 0, 0, 1, 1, 0], dtype)).numpy()
    assert_close(found[:2] / -np.exp(-40.0).astype(dtype), [1, 1], 4)
    assert found[2:].tolist() == [-1e4, -1e4, 0, 0]
    variance = Bernoulli(logits).variance.numpy()
    assert_close(variance[:2] / np.exp(-40.0).astype(dtype), [1, 1], 4)


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


# ---- divergence and entropy ------------------------------------------------------------------------------------------


def exact_kl(a, b):
    q, rest = 1 / (1 + mpmath.exp(-a)), 1 / (1 + mpmath.exp(a))
    return q * mpmath.log(q * (1 + mpmath.exp(-b))) + rest * mpmath.log(rest * (1 + mpmath.exp(b)))


def exact_entropy(a):
    p = 1 / (1 + mpmath.exp(-a))
    return -p * mpmath.log(p) - (1 - p) * mpmath.log(1 - p)


def pairs_of_logits(dtype):
    """Of all sizes, with differences of all sizes."""
    rng = np.random.default_rng(0)
    a = (rng.normal(size=300) * rng.choice([0.1, 3, 20], 300)).astype(dtype)
    return a, (a + rng.normal(size=300) * 10.0 ** rng.uniform(-7, 1.5, 300)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_divergence_keeps_its_digits_and_is_never_negative(dtype):
    a, b = pairs_of_logits(dtype)
    q, p = (Tensor(v[:, None], requires_grad=True) for v in (a, b))
    divergence = kl(Bernoulli(q), Bernoulli(p))
    by_q, by_p = (g.numpy()[:, 0] for g in grad(divergence.sum(), [q, p]))
    assert (divergence.numpy() >= 0).all()
    check_relative("KL", divergence.numpy(), exactly(exact_kl, a, b), 8)
    sigmoid = lambda v: 1 / (1 + mpmath.exp(-v))
    check_relative("by q", by_q, exactly(lambda a, b: sigmoid(a) * sigmoid(-a) * (a - b), a, b), 4)
    check_relative("by p", by_p, exactly(lambda a, b: sigmoid(b) - sigmoid(a), a, b), 4)
    check_relative("entropy", Bernoulli(q).entropy().numpy(), exactly(exact_entropy, a), 8)
    with np.errstate(all="ignore"):  # the definition, whose terms cancel
        q, p = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
        assert (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)) < 0).any()


INFINITE_PAIRS = [  # a, b, KL, its derivatives by a and b
    (np.inf, np.inf, 0.0, 0.0, 0.0), (-np.inf, -np.inf, 0.0, 0.0, 0.0),
    (np.inf, 2.0, np.log1p(np.exp(-2.0)), 0.0, -special.expit(-2.0)), (-np.inf, 2.0, np.logaddexp(0, 2.0), 0.0,
                                                                       special.expit(2.0)),
    (2.0, np.inf, np.inf, None, special.expit(-2.0)), (2.0, -np.inf, np.inf, None, -special.expit(2.0)),
    (np.inf, -np.inf, np.inf, 0.0, -1.0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("a", "b", "nats", "by_q", "by_p"), INFINITE_PAIRS)
def test_the_divergence_at_infinite_logits_is_the_limit(a, b, nats, by_q, by_p, dtype):
    q, p = (Tensor(np.array([[v]], dtype), requires_grad=True) for v in (a, b))
    divergence = kl_per_dimension(Bernoulli(q), Bernoulli(p))
    slopes = [g.item() for g in grad(divergence.sum(), [q, p])]
    assert_close(divergence.numpy(), [[nats]], 2)
    assert_close(np.array(slopes[1], dtype), by_p, 2)
    assert by_q is None or slopes[0] == by_q


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_entropy_at_infinite_logits(dtype):
    leaf = Tensor(np.array([[np.inf, -np.inf, 1.0]], dtype), requires_grad=True)
    assert grad(Bernoulli(leaf).entropy().sum(), leaf).numpy()[0, :2].tolist() == [0, 0]
