"""Bernoulli, categorical and Poisson: masses, sums over all values, draws, and the score estimator's exact mean.

Each check is a function, and is also run on a family made wrong on purpose, which must fail it.
"""

import itertools

import numpy as np
import pytest
from scipy import special, stats
from support import DTYPES, assert_close, assert_same_bits, likely, likely_zero

import tinyvae as tv
from tinyvae.distributions import (
    Bernoulli,
    Categorical,
    Laplace,
    LogTensor,
    Poisson,
    UnitTensor,
    base,
    kl,
    kl_per_dimension,
    poisson,
)
from tinyvae.engine.devices import CPU
from tinyvae.engine.noise import Noise, open_unit
from tinyvae.engine.program import Tape
from tinyvae.engine.rules import TABLE
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference.estimators import Latent, Term, choices, no_baseline, surrogate

DRAWS = 20_000
FAMILIES = {"bernoulli": Bernoulli, "categorical": Categorical, "poisson": Poisson}


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


def T(values, dtype=np.float64):
    return Tensor(np.array(values, dtype))


LOGITS = np.array([[0.0, 2.0, -1.3], [-6.0, 4.0, 0.05]])
OTHERS = np.array([[0.7, -1.0, 0.2], [-1.0, 2.5, 3.0]])
RATES, OTHER_RATES = np.array([[0.3, 2.0, 11.0], [1e-3, 7.5, 25.0]]), np.array([[1.1, 2.01, 9.0], [0.4, 0.01, 24.0]])
BITS = np.array([list(itertools.product([0.0, 1.0], repeat=3))]).swapaxes(0, 1)  # (8, 1, 3)
ONES = np.eye(3)[:, None]  # every one-hot vector, (3, 1, 3)
COUNTS = np.arange(150.0)[:, None, None]  # every count that rates up to 25 have, up to 1e-60


def log_softmax(logits):
    return logits - special.logsumexp(logits, axis=-1, keepdims=True)


# ---- made wrong on purpose -------------------------------------------------------------------------------------------


class Flipped(Bernoulli):
    """The logit of 0, not of 1."""

    def log_density(self, w):
        return Bernoulli(-self.logits).log_density(w)


class Unnormalised(Categorical):
    """The logits taken for log probabilities."""

    def log_prob(self, x):
        return (self.logits * x).sum(-1)


class WithoutRate(Poisson):
    """exp(-rate) forgotten."""

    def log_density(self, w):
        return super().log_density(w) + self.rate


class OffByOne(Poisson):
    """x! taken for Gamma(x)."""

    def log_density(self, w):
        return super().log_density(w) + (w + 1).lgamma() - (w + 0.5).lgamma()


# ---- masses, moments, entropies, divergences -------------------------------------------------------------------------


def check_mass(found, expected, scale=None, units=8):
    assert_close(found.numpy(), expected, units, "log p", scale)


def test_bernoulli_elements():
    # of each element, and their sum is the fused log_prob
    expected = np.where(BITS == 1, special.log_expit(LOGITS), special.log_expit(-LOGITS))
    check_mass(Bernoulli(T(LOGITS)).log_density(T(BITS)), expected)
    check_mass(Bernoulli(T(LOGITS)).log_prob(T(BITS[:1, 0])), expected[0].sum(-1))
    with pytest.raises(AssertionError):
        check_mass(Flipped(T(LOGITS)).log_density(T(BITS)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_bernoulli_logits(dtype):
    # x l - log(1 + exp(l)) would be 0 from l = 37 (float64) or 17 (float32) on
    logits = T([40.0, -40.0, 1e4, -1e4, np.inf, -np.inf], dtype)
    found = Bernoulli(logits).log_density(T([1, 0, 0, 1, 1, 0], dtype)).numpy()
    assert_close(found[:2] / -np.exp(-40.0).astype(dtype), [1, 1], 4)
    assert found[2:].tolist() == [-1e4, -1e4, 0, 0]
    variance = Bernoulli(logits).variance.numpy()
    assert_close(variance[:2] / np.exp(-40.0).astype(dtype), [1, 1], 4)


def test_categorical_mass():
    expected = log_softmax(LOGITS).T  # (3, 2): of each category
    check_mass(Categorical(T(LOGITS)).log_prob(T(ONES)), expected)
    check_mass(Categorical(T(LOGITS)).log_density(T(ONES)), expected)
    with pytest.raises(AssertionError):
        check_mass(Unnormalised(T(LOGITS)).log_prob(T(ONES)), expected)


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


def moments(q, values):
    """Mean, variance and entropy as sums over all values, (batch, n) each; log p itself is rounded at its own size."""
    x, p = values, np.exp(q.log_density(T(values)).numpy())
    p = p[..., None] if isinstance(q, Categorical) else p
    mean = (p * x).sum(0)
    return mean, (p * (x - mean) ** 2).sum(0), special.entr(p).sum(0)


def check_moments(q, values):
    mean, variance, entropy = moments(q, values)
    assert_close(q.mean.numpy(), mean, 64, "mean")
    assert_close(q.variance.numpy(), variance, 64, "variance")
    if not isinstance(q, Poisson):
        assert_close(q.entropy().numpy(), entropy.sum(-1), 16, "entropy")


def test_moments_are_sums_over_all_values():
    everything = ((Bernoulli(T(LOGITS)), np.array([0.0, 1.0])[:, None, None]), (Categorical(T(LOGITS)), ONES),
                  (Poisson(T(RATES)), COUNTS))  # fmt: skip
    for q, values in everything:
        check_moments(q, values)
    for wrong, values in ((Flipped(T(LOGITS)), everything[0][1]), (Unnormalised(T(LOGITS)), ONES),
                          (WithoutRate(T(RATES)), COUNTS)):  # fmt: skip
        with pytest.raises(AssertionError):
            check_moments(wrong, values)


def test_a_count_has_no_closed_entropy():
    with pytest.raises(TypeError, match="Poisson has no closed-form entropy"):
        Poisson(T(RATES)).entropy()


def check_divergence(family, a, b, values, found, units=64):
    log_q, log_p = (family(T(v)).log_density(T(values)).numpy() for v in (a, b))
    expected = (np.exp(log_q) * (log_q - log_p)).sum(0)
    expected = expected[:, None] if family is Categorical else expected
    assert_close(found.numpy(), expected, units, "KL")
    assert (found.numpy() >= 0).all()


def test_divergences_are_sums_over_all_values():
    for family, a, b, values in ((Categorical, LOGITS, OTHERS, ONES), (Poisson, RATES, OTHER_RATES, COUNTS)):
        q, p = family(T(a)), family(T(b))
        check_divergence(family, a, b, values, kl_per_dimension(q, p))
        assert (kl_per_dimension(q, q).numpy() == 0).all()
        assert kl(q, p).shape == (2,)
        with pytest.raises(AssertionError):
            check_divergence(family, a, b, values, kl_per_dimension(p, q))


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


GRADIENTS = {
    "bernoulli log_density": (lambda a: Bernoulli(a).log_density(T(BITS)), LOGITS),
    "bernoulli variance": (lambda a: Bernoulli(a).variance, LOGITS),
    "categorical log_prob": (lambda a: Categorical(a).log_prob(T(ONES)), LOGITS),
    "categorical mean": (lambda a: Categorical(a).mean + Categorical(a).variance, LOGITS),
    "categorical entropy": (lambda a: Categorical(a).entropy(), LOGITS),
    "categorical kl": (lambda a, b: kl(Categorical(a), Categorical(b)), LOGITS, OTHERS),
    "poisson log_density": (lambda a: Poisson(a).log_density(T(COUNTS[:12])), RATES + 0.2),
    "poisson by log rate": (lambda a: Poisson.from_raw(a).log_prob(T(COUNTS[:12])), np.log(RATES)),
    "poisson kl": (lambda a, b: kl(Poisson(a), Poisson(b)), RATES + 0.2, OTHER_RATES + 0.2),
    "poisson kl by log rates": (lambda a, b: kl(Poisson.from_raw(a), Poisson.from_raw(b)), LOGITS / 2, OTHERS),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name):
    f, *points = GRADIENTS[name]
    tv.testing.check_gradients(f, *points)


def test_a_lost_gradient_is_found():
    with pytest.raises(tv.testing.GradientError):
        tv.testing.check_gradients(lambda a: Poisson(a.detach()).log_prob(T(COUNTS[:12])) + 0 * a.sum(), RATES + 0.2)


# ---- draws -----------------------------------------------------------------------------------------------------------


def check_law(what, observed, p):
    """Chi-square of how often each cell was met; cells expected fewer than ten times count as one."""
    expected = observed.sum() * np.asarray(p)
    rare = expected < 10
    merged = [np.append(v[~rare], v[rare].sum()) for v in (observed, expected)]
    if merged[1][-1] < 1:  # no cell was rare, or the rest is nothing
        assert merged[0][-1] <= 5, f"{what}: {merged[0][-1]} draws where {merged[1][-1]:.2g} were expected"
        merged = [v[:-1] for v in merged]
    likely(f"draws of {what}", stats.chisquare(merged[0], merged[1] * merged[0].sum() / merged[1].sum()).pvalue)


def check_counts(what, draws, rate):
    """Counts, in some forty cells of equal mass or in one each, and their mean."""
    law = stats.poisson(rate)
    assert (draws == np.floor(draws)).all()
    assert (draws >= 0).all()
    edges = np.unique(law.ppf(np.linspace(0, 1, 41)[1:-1]))
    p = np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    check_law(what, np.bincount(np.searchsorted(edges, draws), minlength=len(p)), p)
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


LAW = np.array([0.5, -np.inf, -3.0, 2.0, 0.0, 1.1])


def check_categories(what, draws, logits):
    assert set(np.unique(draws)) <= {0.0, 1.0}
    assert (draws.sum(-1) == 1).all()
    check_law(what, draws.reshape(-1, len(logits)).sum(0), special.softmax(logits))


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
    assert np.isnan(draws[:, :3]).all()
    assert (draws[:, 3] == [1, 0]).all()


def test_the_ends_of_the_unit_interval():
    """All bits 0 and all bits 1 are inside, and as far from its two ends."""
    low, high = (float(open_unit(np.uint64(w), np.uint64(w))) for w in (0, 2**32 - 1))
    assert 0 < low == 1 - high < 2e-16
    assert high < 1


@pytest.mark.parametrize("family", ["categorical", "poisson"])
def test_draws_are_a_function_of_their_address(family):
    """The same anywhere, of any type of number, whatever the neighbours are; other ones at each site and step."""
    free = np.array([[0.5, 2.0, 3.5], [1.0, -2.0, 4.0]])
    make = (lambda v, dtype=np.float64: Poisson(T(np.exp(v), dtype))) if family == "poisson" else (
        lambda v, dtype=np.float64: Categorical(T(v, dtype)))  # fmt: skip
    noise = Noise(5)
    first, second = make(free).sample(noise, 50).numpy(), make(free).sample(noise, 50).numpy()
    assert not np.array_equal(first, second)
    assert_same_bits(make(free).sample(Noise(5), 50).numpy(), first)
    single = make(np.log(np.float32(np.exp(free))), np.float32).sample(Noise(5), 50)
    assert single.dtype == np.float32
    # the float32 rate is another number, so here and there a count differs by one: not the noise
    assert (single.numpy() != first).mean() < 0.01
    other = free.copy()
    other[1] += 3.0
    assert_same_bits(make(other).sample(Noise(5), 50).numpy()[:, 0], first[:, 0])
    with Tape() as tape:
        noise = Noise(5)
        drawn = make(free).sample(noise, 50)
    noise.counters[0] = 1
    tape.replay()
    assert_same_bits(drawn.data, make(free).sample(Noise(5).restart(1), 50).numpy())
    assert not np.array_equal(drawn.data, first)


@pytest.mark.parametrize("name", ["categorical", "poisson", "laplace"])
def test_draws_run_on_a_device(driver, name):
    """The samplers ask their namespace for all they do."""
    from tinyvae.engine.devices import namespace, to_host

    here, there = CPU, namespace("cuda")
    found = []
    for xp in (here, there):
        numbers, counters = xp.asarray(np.array([[0.5, 2.0, 30.0]])), xp.asarray(np.array([3]))
        rule, shape = TABLE[name], {"shape": (4, 3), "dtype": np.dtype(np.float32)}
        inputs, attributes = ((counters,), shape) if name == "laplace" else ((numbers, counters), {"samples": 4})
        found.append(to_host(rule.value(xp, *inputs, out=None, seed=1, stream="noise", site=2, **attributes)))
    assert_close(found[1], found[0], 2)


# ---- what a family offers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_offers(name):
    family, free = FAMILIES[name], T(LOGITS)
    q = family.from_raw(free)
    assert family.width(3) == 3
    again = type(q)(**q.parameters)
    draws = q.sample(Noise(6), 5)
    assert draws.shape == (5, 2, 3)
    assert not draws.requires_grad
    assert_same_bits(again.log_prob(draws).numpy(), q.log_prob(draws).numpy())
    elements = q.log_density(draws)
    assert elements.shape == ((5, 2) if family is Categorical else (5, 2, 3))
    whole = elements if family is Categorical else elements.sum(-1)
    assert_close(whole.numpy(), q.log_prob(draws).numpy(), 8)
    assert family.path is None
    assert choices(family) == ["score"]
    assert family.support in ("binary", "one-hot", "counts")


def test_a_poisson_from_a_network_keeps_its_logarithm():
    assert isinstance(Poisson.from_raw(T(LOGITS)).rate, LogTensor)
    assert Poisson.from_raw(T(LOGITS)).rate.log().data.tolist() == LOGITS.tolist()


# ---- the score estimator's mean --------------------------------------------------------------------------------------
# A discrete z has so many values: the estimate's mean is the sum over all of them of p(z) times the estimate at z.

SMALL = {
    "bernoulli": (Bernoulli, LOGITS[:1], BITS),
    "categorical": (Categorical, LOGITS[:1], ONES),
    "poisson": (Poisson, np.array([[0.2, 1.3]]),
                np.array(list(itertools.product(range(18), range(28))), float)[:, None]),
}  # fmt: skip


def terms_of(z, v):
    """f(z; v): a term of each element and one of all together, both with a derivative by v themselves."""
    each = (z - 0.4) ** 2 * (v + 1.5)
    together = (z * np.arange(1.0, z.shape[-1] + 1)).sum(-1).tanh() * (v * v).sum()
    return [Term(each, "nd", ("z",)), Term(together, "n", ("z",))]


def less_three(f, latent):
    """The baseline 3, as good as any constant."""
    return (f - 3.0) * (latent.log_q - latent.log_q.detach())


def check_score(family, parameter, values, base=None, terms=terms_of, stopped=False):
    """sum over z of p(z) * gradient of the surrogate at z = gradient of sum over z of p(z) f(z)."""
    v = Tensor(parameter.copy(), requires_grad=True)
    z = Tensor(values)
    p = (base or family)(v).log_prob(z).exp().reshape(-1)
    f = sum(term.value.sum(tuple(range(1, term.value.ndim))) for term in terms_of(z, v))
    exact = grad((p * f).sum(), v).numpy()
    for baseline in (no_baseline, less_three):
        latent = Latent("z", family(v), z, "score", "nd")
        latent.log_q = latent.log_q.detach() if stopped else latent.log_q
        estimates = surrogate(terms(latent.z, v), [latent], baseline)
        assert estimates.shape == (len(values),)
        assert_close(estimates.numpy(), f.numpy(), 4, "the value")
        mean = grad((p.detach() * estimates).sum(), v).numpy()
        assert_close(mean, exact, 64, "the mean", scale=np.abs(exact).max())


@pytest.mark.parametrize("name", SMALL)
def test_the_score_estimator_is_exact_in_the_mean(name):
    family, parameter, values = SMALL[name]
    check_score(family, parameter, values)
    with pytest.raises(AssertionError, match="the mean"):  # no score at all
        check_score(family, parameter, values, stopped=True)
    with pytest.raises(AssertionError, match="the mean"):  # a term that does not say that it contains z
        check_score(family, parameter, values,
                    terms=lambda z, v: [term._replace(of=()) if term.axes == "n" else term for term in terms_of(z, v)])


@pytest.mark.parametrize(("wrong", "name"), [(Flipped, "bernoulli"), (Unnormalised, "categorical"),
                                             (WithoutRate, "poisson")])  # fmt: skip
def test_the_score_of_a_wrong_density_is_found(wrong, name):
    family, parameter, values = SMALL[name]
    with pytest.raises(AssertionError, match="the mean"):
        check_score(wrong, parameter, values, base=family)


def test_an_impossible_category_has_no_part_in_the_mean():
    """By enumeration over what is possible, as a sampler meets it; its logit gets no gradient."""
    logits = Tensor(np.array([[0.3, -np.inf, 1.0]]), requires_grad=True)
    latent = Latent("z", Categorical(logits), Tensor(ONES[[0, 2]]), "score", "nd")
    f = (latent.z * np.array([3.0, 100.0, -1.0])).sum(-1)
    p = Categorical(logits).log_prob(latent.z).exp().reshape(-1)
    estimates = surrogate([Term(f, "n", ("z",))], [latent])
    a = special.expit(-0.7)
    assert_close(grad((p.detach() * estimates).sum(), logits).numpy(), [[4 * a * (1 - a), 0, -4 * a * (1 - a)]], 8)


def check_scores(q, draws, free):
    """`scores`, which the fitted baseline uses, lead from each parameter to what the network gave: d log q / d free."""
    latent = Latent("z", q, draws, "score", "nd")
    by_parameter = sum((h * (v - v.detach())).sum() for v, h in latent.scores())
    assert_close(grad(by_parameter, free).numpy(), grad(latent.log_q.sum(), free).numpy(), 16)


def test_the_scores_of_a_parameter_known_by_its_logarithm(monkeypatch):
    for family in (Poisson, Laplace, Bernoulli, Categorical):
        free = Tensor(np.concatenate([LOGITS, OTHERS], -1), requires_grad=True)
        q = family.from_raw(free)
        check_scores(q, q.sample(Noise(7), 4).detach(), free)
    monkeypatch.setattr(base, "LogTensor", UnitTensor)  # the logarithm forgotten
    for family in (Poisson, Laplace):
        q = family.from_raw(free)
        with pytest.raises(AssertionError):
            check_scores(q, q.sample(Noise(7), 4).detach(), free)
