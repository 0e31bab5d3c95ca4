"""Metropolis finds the exact conditional of a linear-Gaussian VAE even when q is wrong; gibbs alone then does not."""

from collections import deque

import numpy as np
import pytest
from linear import linear_gaussian, set_encoder
from scipy import stats
from support import ALARM, assert_same_bits, likely

import tinyvae as tv
from tinyvae.engine.devices import to_host
from tinyvae.models import Batch
from tinyvae.tasks.chains import chains, repeated

MISSING = np.array([False, True, False, True, False])
CHAINS = 6000


def wrong_model():
    """q is shifted by 0.4 and 2.5 times as wide as the posterior."""
    model, law, exact = linear_gaussian()
    set_encoder(model.encoder, *exact, shift=0.4, widen=2.5)
    return model, law


def run(model, x, missing, draws, sweeps, method, gibbs_sweeps=3, seed=0):
    batch = Batch(tv.Tensor(np.atleast_2d(x)))
    return chains(model, batch, np.atleast_2d(missing), np.zeros(missing.shape), tv.Noise(seed, "complete"), draws,
                  sweeps, method, gibbs_sweeps)


def last(*arguments, **more):
    return deque(run(*arguments, **more), maxlen=1)[0]


def p_values(draws, law):
    """Of independent draws (count, n): the p-value of their mean, and of each entry of their covariance.

    Whitened by the law, the elements y of a draw are independent N(0, 1): n |mean y|^2 is chi^2 distributed, the sum of
    y_i^2 as well, and sum_k (y_ki + y_kj)^2 / 2 too.
    """
    y = np.linalg.solve(np.linalg.cholesky(law.covariance), (draws - law.mean).T).T
    count, n = y.shape
    yield "mean", stats.chi2.sf(count * (y.mean(0) ** 2).sum(), n)
    for i in range(n):
        for j in range(i + 1):
            squares = ((y[:, i] + y[:, j]) ** 2).sum() / (4 if i == j else 2)
            yield f"covariance {i}, {j}", 2 * min(stats.chi2.cdf(squares, count), stats.chi2.sf(squares, count))


@pytest.mark.parametrize("method", ["metropolis", "gibbs"])
def test_the_conditional_under_a_wrong_posterior(method):
    """The last states of many chains are independent draws."""
    model, law = wrong_model()
    x = np.array([1.0, 9.0, -0.5, 9.0, 0.3])  # 9 is missing, and nothing reads it
    found = last(model, x, MISSING, CHAINS, 60, method)
    assert np.array_equal(found.x.data[:, ~MISSING], np.tile(x[~MISSING], (CHAINS, 1)))
    exact = law.given(~MISSING, x[~MISSING])
    values = dict(p_values(found.x.data[:, MISSING], exact))
    if method == "metropolis":
        assert found.accepted.mean() > 0.2
        for what, p in values.items():
            likely(what, p)
    else:
        assert values["mean"] < ALARM
        assert values["covariance 0, 0"] < ALARM


def test_gibbs_is_exact_where_q_is_the_posterior():
    """With one latent q has no correlations to leave out, so re-encoding is Gibbs sampling."""
    model, law, _ = linear_gaussian(latent=1, seed=1)
    x = np.array([1.0, 0.0, -0.5, 0.0, 0.3])
    found = last(model, x, MISSING, CHAINS, 30, "gibbs")
    for what, p in p_values(found.x.data[:, MISSING], law.given(~MISSING, x[~MISSING])):
        likely(what, p)


def test_where_q_is_the_posterior_every_proposal_is_taken():
    model, _, _ = linear_gaussian(latent=1, seed=1)
    states = list(run(model, np.array([1.0, 0.0, -0.5, 0.0, 0.3]), MISSING, 50, 6, "metropolis"))
    assert [state.accepted is None for state in states] == [True] * 3 + [False] * 3
    assert all(state.accepted.all() for state in states[3:])


def test_the_weights_of_importance_are_those_of_the_observed_pixels():
    """Their mean is p(x_obs), and weighted means over z are those of p(z|x_obs), although q is wrong."""
    model, law = wrong_model()
    x = np.array([1.0, 0.0, -0.5, 0.0, 0.3])
    weights, means = [], []
    for state in run(model, x, MISSING, CHAINS, 8, "importance"):
        weights.append(np.exp(state.log_weight))
        means.append(state.law.mean.data[:, MISSING])
    weights, means = np.array(weights[1:]), np.array(means[1:])  # (sweeps, chains), (sweeps, chains, missing)
    # The chains are independent of each other: the errors are those of their means.
    expected = np.exp(law.of(~MISSING).log_density(x[~MISSING]))
    each = weights.mean(0)
    likely("p(x_obs)", 2 * stats.norm.sf(abs(each.mean() - expected) / (each.std(ddof=1) / np.sqrt(CHAINS))))
    exact = law.given(~MISSING, x[~MISSING]).mean
    gap = (weights[..., None] * (means - exact)).mean(0)
    for i in range(2):
        z = gap[:, i].mean() / (gap[:, i].std(ddof=1) / np.sqrt(CHAINS))
        likely(f"conditional mean {i}", 2 * stats.norm.sf(abs(z)))


def test_rows_have_masks_of_their_own():
    model, law = wrong_model()
    x = np.random.default_rng(5).normal(size=(2, 5))
    missing = np.array([MISSING, [True, False, False, False, False]])
    found = last(model, x, missing, 2000, 40, "metropolis").x.data.reshape(2000, 2, 5)
    for row in range(2):
        seen = ~missing[row]
        assert (found[:, row, seen] == x[row, seen]).all()
        for what, p in p_values(found[:, row, missing[row]], law.given(seen, x[row, seen])):
            likely(f"row {row}, {what}", p)


@pytest.mark.parametrize("method", ["gibbs", "metropolis", "importance"])
def test_chains_repeat(method):
    model, _ = wrong_model()
    first, again, other = (last(model, np.zeros(5), MISSING, 4, 6, method, seed=seed) for seed in (3, 3, 4))
    for name in ("x", "z"):
        assert_same_bits(getattr(first, name).data, getattr(again, name).data)
    assert_same_bits(first.log_weight, again.log_weight)
    assert (first.x.data[:, MISSING] != other.x.data[:, MISSING]).all()


@pytest.mark.parametrize("posterior", ["gamma", "beta", "dirichlet", "full-normal"])
def test_other_posteriors_have_chains_too(posterior):
    model = tv.VAE(6, 5, 3, posterior=posterior, dtype="float64")
    x, missing = np.eye(6)[:2], np.array([0, 1, 1, 0, 0, 1], bool)
    for method in ("metropolis", "importance"):
        state = last(model, x, np.tile(missing, (2, 1)), 30, 8, method)
        assert np.isfinite(state.log_weight).all()
        assert set(np.unique(state.x.data)) == {0.0, 1.0}
        assert state.z.shape == (60, 3)


def test_a_batch_is_repeated_with_all_that_belongs_to_its_rows():
    x, y = tv.Tensor(np.arange(6.0).reshape(2, 3)), tv.Tensor(np.eye(2))
    found = repeated(Batch(x, y=y), 2)
    assert_same_bits(found.x.data, np.tile(x.data, (2, 1)))
    assert_same_bits(found.y.data, np.tile(y.data, (2, 1)))
    assert found.mask is None


@pytest.mark.parametrize("method", ["metropolis", "importance"])
def test_chains_run_on_a_device(driver, method):
    """With the draws of the host."""
    found = []
    for device in ("cpu", "cuda"):
        model = tv.VAE(6, 5, 2, device=device)
        x = tv.Tensor(model.xp.asarray(np.eye(6, dtype=np.float32)[:2]))
        noise = tv.Noise(0, "complete", model.xp.zeros(1, np.int64))
        states = chains(model, Batch(x), np.tile([True, False], (2, 3)), np.zeros(6), noise, 2, 3, method, 1)
        found.append(deque(states, maxlen=1)[0])
    np.testing.assert_allclose(to_host(found[1].z.data), found[0].z.data, atol=1e-5)
    np.testing.assert_allclose(found[1].log_weight, found[0].log_weight, atol=1e-5)
    assert (to_host(found[1].x.data) == found[0].x.data).all()
