"""The categorical distribution: SciPy, impossible categories, the law of its draws."""

import mpmath
import numpy as np
import pytest
from discrete_families import LOGITS, ONES, Unnormalised
from exact import check_relative
from integrals import T
from properties import check_frequencies
from scipy import special
from support import DTYPES, assert_close, likely_zero

import tinyvae as tv
from tinyvae.distributions import Categorical, kl
from tinyvae.engine.noise import Noise, open_unit
from tinyvae.engine.tensor import Tensor, grad


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


DRAWS = 20_000


def log_softmax(logits):
    return logits - special.logsumexp(logits, axis=-1, keepdims=True)


def check_mass(found, expected, scale=None, units=8):
    assert_close(found.numpy(), expected, units, "log p", scale)


def test_categorical_mass():
    expected = log_softmax(LOGITS).T  # (3, 2): of each category
    check_mass(Categorical(T(LOGITS)).log_prob(T(ONES)), expected)
    check_mass(Categorical(T(LOGITS)).log_density(T(ONES)), expected)
    with pytest.raises(AssertionError):
        check_mass(Unnormalised(T(LOGITS)).log_prob(T(ONES)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_impossible_categories(dtype):
    """-inf in values and gradients: as if the category were not there."""
    logits = np.array([[0.5, -np.inf, 2.0], [1.0, 3.0, -np.inf]], dtype)
    fewer = [Categorical(T([[0.5, 2.0]], dtype)), Categorical(T([[1.0, 3.0]], dtype))]
    left = [[0, 2], [0, 1]]
    for name in ("entropy", "mean", "log_prob", "kl"):
        def of(q, prior, x, name=name):
            return {"entropy": q.entropy, "mean": lambda: q.mean, "log_prob": lambda: q.log_prob(x),
                    "kl": lambda: kl(q, prior)}[name]()

        leaf = Tensor(logits.copy(), requires_grad=True)
        x = np.array([[0, 0, 1], [0, 1, 0]], dtype)
        value = of(Categorical(leaf), Categorical(T(np.ones((2, 3)), dtype)), Tensor(x))
        weights = np.arange(value.size, dtype=dtype).reshape(value.shape)
        gradient = grad((value * weights).sum(), leaf).numpy()
        assert np.isfinite(value.numpy()).all(), name
        assert np.isfinite(gradient).all(), name
        assert (gradient[np.isinf(logits)] == 0).all(), name
        for row, q in enumerate(fewer):
            if name == "kl":  # two categories of three: log 3 - log 2 more
                expected = (kl(q, Categorical(T([[0.0, 0.0]], dtype))).numpy() + np.log(1.5)).tolist()
            else:
                expected = of(q, None, Tensor(x[row : row + 1, left[row]])).numpy().tolist()
            found = value.numpy()[row : row + 1]
            assert_close(found[:, left[row]] if name == "mean" else found, expected, 4, name)
    impossible = Categorical(T(logits, dtype)).log_prob(T([[0, 1, 0], [0, 0, 1]], dtype)).numpy()
    assert impossible.tolist() == [-np.inf, -np.inf]
    assert kl(Categorical(T([[0.0, 0.0, 0.0]], dtype)), Categorical(T(logits[:1], dtype))).item() == np.inf
    certain = Categorical(T([[-np.inf, 7.0]], dtype))
    assert certain.entropy().item() == certain.log_prob(T([[0, 1]], dtype)).item() == 0


LAW = np.array([0.5, -np.inf, -3.0, 2.0, 0.0, 1.1])


def check_categories(what, draws, logits):
    assert set(np.unique(draws)) <= {0.0, 1.0}
    assert (draws.sum(-1) == 1).all()
    check_frequencies(what, draws.reshape(-1, len(logits)).sum(0), special.softmax(logits))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_categorical_draws(shift, dtype):
    shifted = np.round(4 * LAW) / 4 + shift  # quarters, which float32 holds beside 10,000
    draws = Categorical(T(shifted, dtype)).sample(Noise(3), DRAWS).numpy()
    check_categories(f"Categorical, {shift}", draws, shifted)
    assert not draws[:, 1].any(), "the impossible category was drawn"
    wrong = Categorical(T(2 * shifted, dtype)).sample(Noise(3), DRAWS).numpy()
    with pytest.raises(AssertionError):
        check_categories("twice the logits", wrong, shifted)
    with pytest.raises(AssertionError):
        check_categories("the neighbour's", np.roll(draws, 1, axis=-1), shifted)


def test_many_categories():
    # of all batches and samples, each by itself; a Zipf law of 300
    logits = -np.log(np.arange(1, 301))
    draws = Categorical(T(np.broadcast_to(logits, (2, 3, 300)).copy())).sample(Noise(4), 700).numpy()
    assert draws.shape == (700, 2, 3, 300)
    check_categories("Zipf's law", draws, logits)
    chosen = draws.argmax(-1).reshape(700, 6)
    for i in range(5):
        agree = (chosen[:, i] == chosen[:, i + 1]).mean()
        p = (special.softmax(logits) ** 2).sum()
        likely_zero("neighbours agree by chance", agree - p, np.sqrt(p * (1 - p) / 700))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_category_is_no_number(dtype):
    rows = T([[-np.inf, -np.inf], [np.nan, 0], [np.inf, 0], [0, -np.inf]], dtype)
    with np.errstate(invalid="ignore"):
        draws = Categorical(rows).sample(Noise(0), 2).numpy()
    assert np.isnan(draws[:, :2]).all()
    assert (draws[:, 2:] == [1, 0]).all()  # a logit of inf makes a category certain


def test_the_ends_of_the_unit_interval():
    """All bits 0 and all bits 1 are inside, and as far from its two ends."""
    low, high = (float(open_unit(np.uint64(w), np.uint64(w))) for w in (0, 2**32 - 1))
    assert 0 < low == 1 - high < 2e-16
    assert high < 1


# ---- divergence, where it is small or a logit is infinite ------------------------------------------------------------


def exact_kl(a, b):
    a, b = ([mpmath.mpf(float(v)) for v in row] for row in (a, b))
    size, other = (mpmath.log(sum(map(mpmath.exp, row))) for row in (a, b))
    return sum(mpmath.exp(x - size) * ((x - size) - (y - other)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_slopes_of_a_nearly_certain_category_keep_their_digits(dtype):
    """d KL / d a_k = -q_k (t_k - sum_j q_j t_j), t = log(p / q). Where q_k is nearly 1, t_k and the sum are nearly
    the same; the exact slope of that category is minus the sum of the others', which are tiny."""
    a = np.array([[14.0, -2.0, 3.0], [20.0, 1.5, 4.0]], dtype)
    b = np.array([[-30.0, 41.0, 7.0], [2.0, -60.0, 1.0]], dtype)
    q = Tensor(a, requires_grad=True)
    found = grad(kl(Categorical(q), Categorical(Tensor(b))).sum(), q).numpy()
    expected = []
    with mpmath.workdps(80):
        for x, y in zip(a, b, strict=True):
            x, y = ([mpmath.mpf(float(v)) for v in row] for row in (x, y))
            log_q, log_p = ([v - mpmath.log(sum(map(mpmath.exp, row))) for v in row] for row in (x, y))
            t = [s - r for r, s in zip(log_q, log_p, strict=True)]
            mean = sum(mpmath.exp(r) * v for r, v in zip(log_q, t, strict=True))
            expected.append([-mpmath.exp(r) * (v - mean) for r, v in zip(log_q, t, strict=True)])
    check_relative("slopes", found, np.array(expected, object), 64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_divergence_keeps_its_digits_and_is_never_negative(dtype):
    rng = np.random.default_rng(0)
    a = (rng.normal(size=(200, 5)) * rng.choice([0.1, 3, 20], (200, 1))).astype(dtype)
    b = (a + rng.normal(size=(200, 5)) * 10.0 ** rng.uniform(-6, 1.5, (200, 1))).astype(dtype)
    divergence = kl(Categorical(Tensor(a)), Categorical(Tensor(b))).numpy()
    assert (divergence >= 0).all()
    with mpmath.workdps(80):
        expected = np.array([exact_kl(*rows) for rows in zip(a, b, strict=True)], object)
    check_relative("KL", divergence, expected, 128)
    log_q, log_p = (special.log_softmax(v, -1) for v in (a, b))
    assert ((np.exp(log_q) * (log_q - log_p)).sum(-1) < 0).any(), "the check sees no cancellation"


INF = np.inf
CERTAIN = [  # q, p, KL, and its derivative by p, which is p - q
    ([INF, 0, 1], [INF, 0, 1], 0.0, [0, 0, 0]), ([-INF, 0, 1], [-INF, 0, 1], 0.0, [0, 0, 0]),
    ([INF, 0, 1], [2, 0, 1], -special.log_softmax([2, 0, 1])[0], special.softmax([2, 0, 1]) - [1, 0, 0]),
    ([0, -INF, 0], [0, 0, 0], np.log(1.5), [-1 / 6, 1 / 3, -1 / 6]), ([0, 0, 0], [0, -INF, 0], INF, None),
    ([-INF, -INF, 0], [INF, -INF, 0], INF, None),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("a", "b", "nats", "slopes"), CERTAIN)
def test_the_divergence_at_infinite_logits_is_the_limit(a, b, nats, slopes, dtype):
    q, p = (Tensor(np.array([v], dtype), requires_grad=True) for v in (a, b))
    divergence = kl(Categorical(q), Categorical(p))
    assert_close(divergence.numpy(), [nats], 4)
    if slopes is not None:
        by_q, by_p = (g.numpy() for g in grad(divergence.sum(), [q, p]))
        assert_close(by_p, [slopes], 4)
        assert_close(by_q[~np.isfinite(q.data)], np.zeros((~np.isfinite(q.data)).sum()), 2)
        assert np.isfinite(by_q).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_logit_of_infinity_makes_a_category_certain(dtype):
    leaf = Tensor(np.array([[INF, 0, 1]], dtype), requires_grad=True)
    q = Categorical(leaf)
    assert q.log_prob(T(np.eye(3)[:, None], dtype)).numpy()[:, 0].tolist() == [0, -INF, -INF]
    assert q.mean.numpy().tolist() == [[1, 0, 0]]
    assert q.entropy().item() == 0
    for value in (q.entropy(), q.log_prob(T([[1, 0, 0]], dtype))):
        assert grad(value.sum(), leaf).numpy().tolist() == [[0, 0, 0]]
    two = Categorical(T([[INF, 0, INF]], dtype))
    assert two.mean.numpy().tolist() == [[0.5, 0, 0.5]]
