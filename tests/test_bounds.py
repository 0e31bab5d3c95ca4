"""The bounds against a model whose evidence is known: ELBO + KL(q || posterior) = log p(x)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import Given, LinearGaussian, Nodes, fixed
from support import assert_close, likely_zero

import tinyvae as tv
from tinyvae.bounds import BOUNDS, elbo, free_bits_kl, terms
from tinyvae.distributions import Normal, base
from tinyvae.noise import Noise
from tinyvae.tensor import Tensor, grad

EXACT = 1e-10
ONE = LinearGaussian.of_one_dimension()
X = np.array([[1.3]])
# (mu, variance) of q and the bound it gives at x = 1.3
KNOWN = [(0.61176470588, 1 / 17, -1.8412), (0.5, 0.0588, -1.9474), (0.612, 0.5, -4.5212), (0.0, 1.0, -11.6058)]


class WithStd(Normal):
    """Wrong: exp(logvar) taken for the standard deviation, in the sample only."""

    sigma = property(lambda self: self.logvar.exp())


def from_joint(mu, logvar):
    """q whose parameters lie side by side, as a network makes them: drawn and charged by one row."""
    both = np.concatenate([np.array(mu, np.float64), np.array(logvar, np.float64)], axis=-1)
    return lambda x: Normal.from_joint(Tensor(both))


def exact(model, q, x, bound):
    """The bound of each datum without sampling error."""
    return elbo(model, q, Tensor(x), Nodes(model.latent), 2 * model.latent, bound).numpy()


def check_identity(model, q, mu, logvar, x, bound):
    """ELBO + KL(q || p(z|x)) = log p(x), in float64."""
    left = exact(model, q, x, bound) + model.kl_to_posterior(mu, logvar, x)
    error = np.abs(left - model.log_evidence(x)).max()
    assert error <= EXACT, f"{bound}: ELBO + KL(q || posterior) misses log p(x) by {error:.2g} nats"


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(("mu", "variance", "value"), KNOWN)
def test_known_bounds_in_one_dimension(mu, variance, value, bound):
    mu, logvar = np.array([[mu]]), np.log([[variance]])
    assert abs(ONE.log_evidence(X)[0] - -1.8412) <= 5e-5
    assert abs(exact(ONE, fixed(mu, logvar), X, bound)[0] - value) <= 5e-5
    check_identity(ONE, fixed(mu, logvar), mu, logvar, X, bound)


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "twin"])
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("make", [fixed, from_joint], ids=["two tensors", "joint"])
def test_identity_in_many_dimensions(make, bound, fused):
    model, rng = LinearGaussian.random(pixels=7, latent=3, seed=1), np.random.default_rng(2)
    x, mu, logvar = rng.standard_normal((5, 7)), rng.standard_normal((5, 3)), rng.uniform(-3, 1, (5, 3))
    with tv.fused(fused):
        check_identity(model, make(mu, logvar), mu, logvar, x, bound)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4))
def test_the_bound_is_never_above_the_evidence(seed, pixels, latent):
    model, rng = LinearGaussian.random(pixels, latent, seed), np.random.default_rng(seed)
    x, mu, logvar = rng.standard_normal((3, pixels)), rng.standard_normal((3, latent)), rng.uniform(-4, 2, (3, latent))
    for bound in BOUNDS:
        assert (exact(model, fixed(mu, logvar), x, bound) <= model.log_evidence(x) + EXACT).all()


WRONG_KL = {
    "std for variance": lambda q, p: 0.5 * ((2 * q.logvar).exp() + q.mu * q.mu - 1 - 2 * q.logvar),
    "no half": lambda q, p: q.logvar.exp() + q.mu * q.mu - 1 - q.logvar,
    "other sign": lambda q, p: -0.5 * (q.logvar.exp() + q.mu * q.mu - 1 - q.logvar),
    "p || q": lambda q, p: 0.5 * ((-q.logvar).exp() * (1 + q.mu * q.mu) - 1 + q.logvar),
}


@pytest.mark.parametrize("fault", WRONG_KL)
def test_the_identity_finds_a_wrong_divergence(fault, monkeypatch):
    mu, logvar = np.array([[0.3]]), np.array([[-0.4]])
    check_identity(ONE, fixed(mu, logvar), mu, logvar, X, "elbo-b")
    monkeypatch.setitem(base._KL, (Normal, Normal), WRONG_KL[fault])
    with pytest.raises(AssertionError, match="misses log p"):
        check_identity(ONE, fixed(mu, logvar), mu, logvar, X, "elbo-b")


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_identity_finds_a_wrong_sampler(bound, monkeypatch):
    mu, logvar = np.array([[0.3]]), np.array([[-0.4]])
    monkeypatch.setitem(base._KL, (WithStd, Normal), base._KL[Normal, Normal])
    with pytest.raises(AssertionError, match="misses log p"):
        check_identity(ONE, fixed(mu, logvar, WithStd), mu, logvar, X, bound)


def test_at_the_posterior_estimator_a_has_no_variance():
    # log p(x, z) - log q(z|x) = log p(x) for every z: each single draw gives the evidence
    mean, covariance = ONE.posterior(X)
    q = fixed(np.broadcast_to(mean, (100, 1)), np.full((100, 1), np.log(covariance[0, 0])))
    draws = elbo(ONE, q, Tensor(np.broadcast_to(X, (100, 1)).copy()), Noise(0), bound="elbo-a").numpy()
    assert np.abs(draws - ONE.log_evidence(X)).max() <= EXACT


# ---- sampling -----------------------------------------------------------------------------------------------------


def repeated(model, mu, logvar, x, bound, samples=1, count=20_000, seed=3, family=Normal):
    """Independent estimates of the bound of one datum, (count,)."""
    spread = [np.broadcast_to(np.array(a, np.float64), (count, a.shape[1])).copy() for a in (mu, logvar, x)]
    return elbo(model, fixed(*spread[:2], family), Tensor(spread[2]), Noise(seed), samples, bound).numpy()


def check_unbiased(what, estimates, truth):
    error = estimates.std() / np.sqrt(len(estimates))
    likely_zero(f"{what}, {len(estimates)} estimates", estimates.mean() - truth, error)


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("bound", BOUNDS)
def test_both_estimators_are_unbiased(bound, samples, monkeypatch):
    model, rng = LinearGaussian.random(4, 2, seed=4), np.random.default_rng(5)
    x, mu, logvar = rng.standard_normal((1, 4)), rng.standard_normal((1, 2)), rng.uniform(-2, 0, (1, 2))
    truth = exact(model, fixed(mu, logvar), x, bound)[0]
    check_unbiased(bound, repeated(model, mu, logvar, x, bound, samples), truth)
    monkeypatch.setitem(base._KL, (WithStd, Normal), base._KL[Normal, Normal])
    with pytest.raises(AssertionError):
        check_unbiased("std for variance", repeated(model, mu, logvar, x, bound, samples, family=WithStd), truth)


def test_estimator_b_has_lower_variance_on_a_vae():
    # AEVB section 2.3: the divergence in closed form takes its noise away. A random network, one datum many times
    model = tv.VAE(16, hidden=8, latent=3, dtype="float64", seed=1)
    x = Tensor(np.broadcast_to(np.random.default_rng(0).integers(0, 2, (1, 16)), (10_000, 16)).astype(np.float64))
    a, b = (elbo(model, model.q, x, Noise(6), bound=bound).numpy() for bound in BOUNDS)
    error = np.sqrt((a.var() + b.var()) / len(a))
    likely_zero("mean of A less mean of B", a.mean() - b.mean(), error)
    assert b.var() < 0.5 * a.var()


def test_the_mean_over_samples_lowers_the_variance_by_their_number():
    mu, logvar = np.array([[0.3]]), np.array([[-0.4]])
    one, five = (repeated(ONE, mu, logvar, X, "elbo-b", samples, seed=8) for samples in (1, 5))
    # the logarithm of a ratio of variances is about normal; its own variance comes from the fourth moments
    kurtosis = sum(np.mean((v - v.mean()) ** 4) / v.var() ** 2 - 1 for v in (one, five))
    error = np.sqrt(kurtosis / len(one))
    likely_zero("variance of the mean of 5", np.log(5 * five.var() / one.var()), error)
    with pytest.raises(AssertionError):  # five copies of one draw
        likely_zero("variance of a draw repeated", np.log(5 * one.var() / one.var()), error)


@pytest.mark.parametrize("bound", BOUNDS)
def test_several_samples_are_the_mean_of_single_ones(bound):
    # with the same noise, to rounding: L draws of a datum, not of the batch
    model, rng = LinearGaussian.random(4, 2, seed=4), np.random.default_rng(5)
    x, mu, logvar = (rng.standard_normal((3, n)) for n in (4, 2, 2))
    eps = rng.standard_normal((6, 3, 2))
    together = elbo(model, fixed(mu, logvar), Tensor(x), Given(eps), 6, bound).numpy()
    single = [elbo(model, fixed(mu, logvar), Tensor(x), Given(e[None]), 1, bound).numpy() for e in eps]
    assert_close(together, np.mean(single, axis=0), 64)


def test_an_estimate_is_what_its_noise_makes_it():
    # from the drawn eps by the formula of the paper, eq. (10): 1/2 sum(1 + logvar - mu^2 - var) + log p(x|z)
    mu, logvar = np.array([[0.3], [0.1]]), np.array([[-0.4], [1.0]])
    x, eps = np.array([[1.3], [-2.0]]), np.array([[[0.7], [-1.1]]])
    z = mu + np.exp(logvar / 2) * eps[0]
    reconstruction = -0.5 * (np.log(2 * np.pi * 0.25) + (x - 2 * z) ** 2 / 0.25)
    expected = 0.5 * (1 + logvar - mu**2 - np.exp(logvar)) + reconstruction
    assert_close(elbo(ONE, fixed(mu, logvar), Tensor(x), Given(eps)).numpy(), expected.sum(1), 16)


def test_an_unknown_bound_is_refused():
    with pytest.raises(ValueError, match=r"found bound 'iwae'; expected one of elbo-a, elbo-b"):
        terms(ONE, fixed([[0.0]], [[0.0]]), Tensor(X), Noise(0), bound="iwae")


# ---- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BOUNDS)
def test_gradients_of_the_bound(bound):
    model, rng = LinearGaussian.random(4, 2, seed=9), np.random.default_rng(5)
    x, mu, logvar = (rng.standard_normal((3, n)) for n in (4, 2, 2))
    eps = rng.standard_normal((2, 3, 2))

    def value(m, v):
        return elbo(model, lambda _: Normal(m, v), Tensor(x), Given(eps), 2, bound)

    tv.testing.check_gradients(value, mu, logvar)


@pytest.mark.parametrize("bound", BOUNDS)
def test_at_the_best_q_the_gradient_is_zero(bound):
    model = LinearGaussian.random(4, 2, seed=9)
    x = np.random.default_rng(5).standard_normal((3, 4))

    def gradient(shift):
        leaves = [Tensor(a + shift, requires_grad=True) for a in model.best_diagonal(x)]
        value = elbo(model, lambda _: Normal(*leaves), Tensor(x), Nodes(2), 4, bound).sum()
        return max(np.abs(g.numpy()).max() for g in grad(value, leaves))

    assert gradient(0.0) <= EXACT
    assert gradient(1e-3) > 1e-4  # and only there


def test_gradients_of_a_whole_vae():
    # every parameter of both networks, in float64, along random directions
    model = tv.VAE(9, hidden=5, latent=2, activation="tanh", dtype="float64")
    x = Tensor(np.random.default_rng(0).integers(0, 2, (4, 9)).astype(np.float64))
    for bound in BOUNDS:
        leaves = list(model.parameters)
        gradients = grad(elbo(model, model.q, x, Noise(1), 2, bound).sum(), leaves)
        for leaf, g in zip(leaves, gradients, strict=True):
            direction = np.random.default_rng(2).standard_normal(leaf.shape)
            home, values = leaf.data.copy(), []
            for sign in (1, -1):
                leaf.data[...] = home + sign * 1e-5 * direction
                values.append(elbo(model, model.q, x, Noise(1), 2, bound).sum().item())
            leaf.data[...] = home
            expected = (values[0] - values[1]) / 2e-5
            assert abs((g.numpy() * direction).sum() - expected) <= 1e-6 * max(1, abs(expected)), leaf.name


# ---- free bits ----------------------------------------------------------------------------------------------------


def test_free_bits_charge_only_above_the_floor():
    # dimension 0 carries less than the floor on average, dimension 1 more, though not for every datum
    mu = Tensor(np.array([[0.1, 2.0], [0.2, 0.1]]), requires_grad=True)
    logvar = Tensor(np.zeros((2, 2)))
    each = 0.5 * np.array([[0.01, 4.0], [0.04, 0.01]])
    charged = free_bits_kl(Normal(mu, logvar), Normal.standard(2, np.float64), 0.3)
    assert_close(charged.numpy(), 0.3 + each[:, 1].mean(), 4)
    slope = grad(charged, mu).numpy()
    assert (slope[:, 0] == 0).all()  # free: no gradient
    assert_close(slope[:, 1], mu.numpy()[:, 1] / 2, 4)
    none = free_bits_kl(Normal(mu, logvar), Normal.standard(2, np.float64), 0.0)
    assert_close(none.numpy(), each.mean(0).sum(), 4)
