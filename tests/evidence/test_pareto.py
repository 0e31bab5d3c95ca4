"""The Pareto k of importance weights, on laws whose tail is known."""

import math
import tracemalloc

import numpy as np
import pytest
from oracles import mutate
from scipy.stats import genpareto
from support import assert_close, likely_zero

from tinyvae.evidence import pareto
from tinyvae.evidence.pareto import LIMIT, SMALLEST, Tail, fit, high, tail_size


def draws_of(k, count, batch, seed=0):
    """Generalized Pareto draws with shape k, in rising order; SciPy's shape has the same sign."""
    sigma = np.random.default_rng(seed).uniform(0.01, 100, batch)
    return np.sort(genpareto.rvs(k, scale=sigma, size=(count, batch), random_state=seed), axis=0)


# ---- the fit ---------------------------------------------------------------------------------------------------------


def check_fit(k):
    """Unbiased up to 1/n, with the variance (1 + k)^2 / n of the best estimate; the pull to 1/2 taken out."""
    n, batch = 2000, 50
    found = ((n + 10) * fit(draws_of(k, n, batch)) - 5) / n
    likely_zero(f"k = {k}", found.mean() - k, (1 + k) / math.sqrt(n * batch))
    spread = found.std(ddof=1) * math.sqrt(n) / (1 + k)
    assert 0.7 <= spread <= 1.3, f"{spread}"


KNOWN = [-0.3, 0.0, 0.4, 0.7, 1.0, 1.8]


@pytest.mark.parametrize("k", KNOWN)
def test_the_shape_of_known_tails(k):
    check_fit(k)


@pytest.mark.parametrize(("old", "new"), [
    ("np.log1p(-t * y).mean(0)", "-np.log1p(-t * y).mean(0)"),  # the other sign convention
    ("np.log(-theta / k) - k - 1", "np.log(-theta / k) + k - 1"),
    ("(theta * weight).sum(0)", "theta.sum(0)"),
])
def test_a_wrong_fit_fails(old, new, monkeypatch):
    mutate(monkeypatch, pareto, "fit", old, new)
    monkeypatch.setitem(globals(), "fit", pareto.fit)
    with pytest.raises(AssertionError):
        check_fit(0.7)


@pytest.mark.parametrize("k", [-0.2, 0.3, 1.2])
def test_it_is_near_scipys_maximum_of_the_likelihood(k):
    n = 1000
    y = draws_of(k, n, 3, seed=1)
    for j in range(3):
        best, _, _ = genpareto.fit(y[:, j], floc=0)
        found = ((n + 10) * fit(y[:, j : j + 1])[0] - 5) / n
        assert abs(found - best) <= 0.3 * (1 + k) / math.sqrt(n)  # of a standard error


def test_few_draws_are_drawn_to_a_half():
    # 10 draws weigh as much as the 10 that are imagined
    y = draws_of(2.0, 10, 2000)
    assert 1.0 <= fit(y).mean() <= 1.4
    assert abs(fit(np.sort(np.random.default_rng(0).random((10, 2000)), axis=0)).mean() - (-1 + 0.5) / 2) <= 0.1


def test_ties_and_what_is_no_number():
    y = np.zeros((40, 4))
    y[-5:, 1] = 1.0  # more ties than a quarter
    y[:, 2] = np.linspace(0, 1, 40)
    y[:, 3] = np.nan
    found = fit(y)
    assert found[0] == -math.inf
    assert np.isfinite(found[1:3]).all()
    assert np.isnan(found[3])
    assert high(np.array([-math.inf, LIMIT, LIMIT + 1e-9, math.inf, math.nan])).tolist() == [False] * 2 + [True] * 3


# ---- the tail of weights ---------------------------------------------------------------------------------------------


def test_the_size_of_the_tail():
    # min(K/5, 3 sqrt K); below 20 nothing is said
    assert [tail_size(k) for k in (0, 1, 25, 95, 96, 100, 225, 1000, 10**6)] == [0, 0, 0, 0, 20, 20, 45, 95, 3000]
    assert tail_size(5 * SMALLEST) == SMALLEST


@pytest.mark.parametrize("chunk", [1, 7, 300, 1000])
def test_weights_that_stream_by_give_what_all_at_once_would(chunk):
    rng = np.random.default_rng(0)
    log_w = rng.standard_normal((1000, 6)) * np.array([0, 0.1, 0.5, 1, 2, 4]) - np.array([0, 1e5, -700, 0, 0, 0])
    tail = Tail(1000, 6)
    for start in range(0, 1000, chunk):
        tail.add(log_w[start : start + chunk])
    w = np.sort(np.exp(log_w - log_w.max(0)), axis=0)
    assert_close(tail.shape()[1:], fit(w[-95:] - w[-96])[1:], 100)
    assert tail.shape()[0] == -math.inf  # all weights are equal: no tail
    assert tail.shape()[1] < tail.shape()[4] < tail.shape()[5]  # the wider the logarithms, the longer the tail


def test_a_tail_takes_no_more_memory_for_more_weights():
    rng, peaks = np.random.default_rng(0), []
    chunk = rng.standard_normal((100, 50))
    for chunks in (10, 10, 200):  # the first time, caches are filled
        tail = Tail(1000, 50)
        tracemalloc.start()
        for _ in range(chunks):
            tail.add(chunk)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] <= 1.1 * peaks[1]


def check_narrow_proposal(variance):
    """Weights of N(0, 1) for draws of N(0, s^2) have a tail of exactly 1 - s^2, up to slowly varying factors."""
    samples, batch = 50_000, 40
    tail = Tail(samples, batch)
    for seed in range(5):
        eps = np.random.default_rng(seed).standard_normal((samples // 5, batch))
        tail.add(0.5 * (1 - variance) * eps**2)
    assert abs(np.median(tail.shape()) - (1 - variance)) <= 0.08


@pytest.mark.parametrize("variance", [0.1, 0.25, 0.5, 0.9])
def test_a_proposal_that_is_too_narrow(variance):
    check_narrow_proposal(variance)


@pytest.mark.parametrize(("name", "old", "new"), [
    ("add", "[-self.size - 1 :]", "[: self.size + 1]"),  # the smallest
    ("add", "np.concatenate([self.largest, log_w])", "np.concatenate([log_w[: self.size], log_w])"),  # forgets
    ("shape", "w[1:] - w[0]", "w[1:]"),  # no threshold
    ("shape", "w[1:] - w[0]", "ordered[1:] - ordered[0]"),  # of the logarithms
])
def test_a_wrong_tail_fails(name, old, new, monkeypatch):
    mutate(monkeypatch, Tail, name, old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        test_weights_that_stream_by_give_what_all_at_once_would(300)


@pytest.mark.parametrize("k", [0.2, 0.9])
def test_pareto_weights(k):
    # w = u^-k has P(w > t) = t^(-1/k): a Pareto tail from the beginning
    tail = Tail(20_000, 30)
    tail.add(-k * np.log(np.random.default_rng(1).random((20_000, 30))))
    found = tail.shape()
    size = tail_size(20_000)
    likely_zero("k", ((size + 10) * found - 5).mean() / size - k, (1 + k) / math.sqrt(30 * size))
    assert (high(found) == (k > LIMIT)).all()


def test_weights_of_no_use():
    few = Tail(20, 3)
    few.add(np.zeros((20, 3)))
    assert np.isnan(few.shape()).all()  # too few to tell
    tail = Tail(200, 4)
    log_w = np.random.default_rng(0).standard_normal((200, 4))
    log_w[3, 0], log_w[3, 1], log_w[:150, 2], log_w[:, 3] = math.nan, math.inf, -math.inf, -math.inf
    tail.add(log_w)
    with np.errstate(all="ignore"):
        found = tail.shape()
    assert np.isnan(found[[0, 1, 3]]).all()
    assert np.isfinite(found[2])
