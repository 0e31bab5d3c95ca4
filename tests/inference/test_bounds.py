"""The bounds against a model whose evidence is known: ELBO + KL(q || posterior) = log p(x)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import Given, LinearGaussian, Nodes, fixed
from scipy.special import logsumexp
from support import assert_close, assert_same_bits, likely_zero, make_wrong

import tinyvae as tv
from tinyvae.distributions import Laplace, Normal, divergence
from tinyvae.engine.noise import Noise
from tinyvae.engine.rules import TABLE
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference.bounds import ELBOS, GRADIENTS, elbo, free_bits_kl, iwae, terms

EXACT = 1e-10
ONE = LinearGaussian.of_one_dimension()
X = np.array([[1.3]])
# (mu, variance) of q and the bound it gives at x = 1.3
KNOWN = [(0.61176470588, 1 / 17, -1.8412), (0.5, 0.0588, -1.9474), (0.612, 0.5, -4.5212), (0.0, 1.0, -11.6058)]


class WithStd(Normal):
    """Wrong: exp(logvar) taken for the standard deviation, in the sample only."""

    sigma = property(lambda self: self.logvar.exp())


def from_raw(mu, logvar):
    """q whose parameters lie side by side, as a network makes them: drawn and charged by one row."""
    both = np.concatenate([np.array(mu, np.float64), np.array(logvar, np.float64)], axis=-1)
    return lambda x: Normal.from_raw(Tensor(both))


def exact(model, q, x, bound):
    """The bound of each datum without sampling error."""
    return elbo(model, q, Tensor(x), Nodes(model.latent), 2 * model.latent, bound).numpy()


def check_identity(model, q, mu, logvar, x, bound):
    """ELBO + KL(q || p(z|x)) = log p(x), in float64."""
    left = exact(model, q, x, bound) + model.kl_to_posterior(mu, logvar, x)
    error = np.abs(left - model.log_evidence(x)).max()
    assert error <= EXACT, f"{bound}: ELBO + KL(q || posterior) misses log p(x) by {error:.2g} nats"


@pytest.mark.parametrize("bound", ELBOS)
@pytest.mark.parametrize(("mu", "variance", "value"), KNOWN)
def test_known_bounds_in_one_dimension(mu, variance, value, bound):
    mu, logvar = np.array([[mu]]), np.log([[variance]])
    assert abs(ONE.log_evidence(X)[0] - -1.8412) <= 5e-5
    assert abs(exact(ONE, fixed(mu, logvar), X, bound)[0] - value) <= 5e-5
    check_identity(ONE, fixed(mu, logvar), mu, logvar, X, bound)


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "twin"])
@pytest.mark.parametrize("bound", ELBOS)
@pytest.mark.parametrize("make", [fixed, from_raw], ids=["two tensors", "raw"])
def test_identity_in_many_dimensions(make, bound, fused):
    model, rng = LinearGaussian.random(pixels=7, latent=3, seed=1), np.random.default_rng(2)
    x, mu, logvar = rng.standard_normal((5, 7)), rng.standard_normal((5, 3)), rng.uniform(-3, 1, (5, 3))
    with tv.fused(fused):
        check_identity(model, make(mu, logvar), mu, logvar, x, bound)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4))
def test_the_bound_is_never_above_the_evidence(seed, pixels, latent):
    model, rng = LinearGaussian.random(pixels, latent, seed), np.random.default_rng(seed)
    x, mu, logvar = rng.standard_normal((3, pixels)), rng.standard_normal((3, latent)), rng.uniform(-4, 2, (3, latent))
    for bound in ELBOS:
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
    monkeypatch.setitem(divergence.CLOSED_FORMS, (Normal, Normal), WRONG_KL[fault])
    with pytest.raises(AssertionError, match="misses log p"):
        check_identity(ONE, fixed(mu, logvar), mu, logvar, X, "elbo-b")


@pytest.mark.parametrize("bound", ELBOS)
def test_the_identity_finds_a_wrong_sampler(bound, monkeypatch):
    mu, logvar = np.array([[0.3]]), np.array([[-0.4]])
    monkeypatch.setitem(divergence.CLOSED_FORMS, (WithStd, Normal), divergence.CLOSED_FORMS[Normal, Normal])
    with pytest.raises(AssertionError, match="misses log p"):
        check_identity(ONE, fixed(mu, logvar, WithStd), mu, logvar, X, bound)


def test_at_the_posterior_estimator_a_has_no_variance():
    # log p(x, z) - log q(z|x) = log p(x) for every z: each single draw gives the evidence
    mean, covariance = ONE.exact_posterior(X)
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
@pytest.mark.parametrize("bound", ELBOS)
def test_both_estimators_are_unbiased(bound, samples, monkeypatch):
    model, rng = LinearGaussian.random(4, 2, seed=4), np.random.default_rng(5)
    x, mu, logvar = rng.standard_normal((1, 4)), rng.standard_normal((1, 2)), rng.uniform(-2, 0, (1, 2))
    truth = exact(model, fixed(mu, logvar), x, bound)[0]
    check_unbiased(bound, repeated(model, mu, logvar, x, bound, samples), truth)
    monkeypatch.setitem(divergence.CLOSED_FORMS, (WithStd, Normal), divergence.CLOSED_FORMS[Normal, Normal])
    with pytest.raises(AssertionError):
        check_unbiased("std for variance", repeated(model, mu, logvar, x, bound, samples, family=WithStd), truth)


def test_estimator_b_has_lower_variance_on_a_vae():
    # AEVB section 2.3: the divergence in closed form takes its noise away. A random network, one datum many times
    model = tv.VAE(16, hidden=8, latent=3, dtype="float64", seed=1)
    x = Tensor(np.broadcast_to(np.random.default_rng(0).integers(0, 2, (1, 16)), (10_000, 16)).astype(np.float64))
    a, b = (elbo(model, model.q, x, Noise(6), bound=bound).numpy() for bound in ELBOS)
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


@pytest.mark.parametrize("bound", ELBOS)
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


def test_an_unknown_bound_or_gradient_is_refused():
    q = fixed([[0.0]], [[0.0]])
    with pytest.raises(ValueError, match=r"found bound 'elbo-c'; expected one of elbo-a, elbo-b"):
        terms(ONE, q, Tensor(X), Noise(0), bound="elbo-c")
    with pytest.raises(ValueError, match=r"found the gradient of elbo-b 'stl'; expected one of path$"):
        elbo(ONE, q, Tensor(X), Noise(0), gradient="stl")
    with pytest.raises(ValueError, match=r"found the gradient of elbo-a 'dreg'; expected one of path, stl$"):
        elbo(ONE, q, Tensor(X), Noise(0), bound="elbo-a", gradient="dreg")
    with pytest.raises(ValueError, match=r"found the gradient of iwae 'score'; expected one of path, stl, dreg$"):
        iwae(ONE, q, Tensor(X), Noise(0), gradient="score")


# ---- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ELBOS)
def test_gradients_of_the_bound(bound):
    model, rng = LinearGaussian.random(4, 2, seed=9), np.random.default_rng(5)
    x, mu, logvar = (rng.standard_normal((3, n)) for n in (4, 2, 2))
    eps = rng.standard_normal((2, 3, 2))

    def value(m, v):
        return elbo(model, lambda _: Normal(m, v), Tensor(x), Given(eps), 2, bound)

    tv.testing.check_gradients(value, mu, logvar)


@pytest.mark.parametrize("bound", ELBOS)
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
    for bound in ELBOS:
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


def test_free_bits_need_a_closed_divergence():
    q = Normal.standard(2, np.float64)
    with pytest.raises(ValueError, match=r"found free_bits=0.3 with KL\(Normal \|\| Laplace\); expected .* leave free"):
        free_bits_kl(q, Laplace(q.mu, q.sigma), 0.3)


# ---- the importance-weighted bound --------------------------------------------------------------------------------

LOGVAR = np.log(0.15)
Q = np.array([[0.4]]), np.array([[LOGVAR]])  # a q that is not the posterior of ONE at x = 1.3
DRAWS = 100_000


def log_weight(eps, mu, logvar, x=1.3):
    """log w = log p(x, z) - log q(z|x) of ONE at z = mu + sigma eps, by the formulas of the three densities."""
    z = mu + np.exp(logvar / 2) * eps
    return (-0.5 * (np.log(2 * np.pi * 0.25) + (x - 2 * z) ** 2 / 0.25 + np.log(2 * np.pi) + z**2)
            + 0.5 * (np.log(2 * np.pi) + logvar + eps**2))  # fmt: skip


def exact_iwae(k, mu=0.4, logvar=LOGVAR, nodes=60):
    """L_K of ONE at x = 1.3 by Gauss-Hermite quadrature in K dimensions."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    log_w = log_weight(points, mu, logvar)
    total, probability = log_w, weights / weights.sum()
    for axis in range(1, k):
        total = np.logaddexp(total[..., None], log_w.reshape([1] * axis + [nodes]))
        probability = probability[..., None] * weights / weights.sum()
    return float((probability * (total - np.log(k))).sum())


def spread(count=DRAWS):
    """ONE's datum and q so many times: x, and leaves for mu and logvar."""
    return Tensor(np.repeat(X, count, 0)), *(Tensor(np.repeat(a, count, 0), requires_grad=True) for a in Q)


def draws(k, gradient="path", seed=11, count=DRAWS):
    """Independent estimates of L_K, (count,), and of its derivatives by mu and logvar, (2, count)."""
    x, mu, logvar = spread(count)
    bound, _ = iwae(ONE, lambda _: Normal(mu, logvar), x, Noise(seed), k, gradient=gradient)
    return bound.numpy(), np.stack([g.numpy()[:, 0] for g in grad(bound.sum(), [mu, logvar])])


def test_the_exact_bounds_rise_to_the_evidence():
    found = [exact_iwae(k) for k in (1, 2, 3)]
    assert abs(found[0] - exact(ONE, fixed(*Q), X, "elbo-b")[0]) <= EXACT
    assert abs(exact_iwae(3, nodes=40) - found[2]) <= 1e-7  # the quadrature has converged
    assert found[0] < found[1] < found[2] < ONE.log_evidence(X)[0]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_estimates_have_the_exact_mean(k, monkeypatch):
    check_unbiased(f"L_{k}", draws(k)[0], exact_iwae(k))
    faults = [("logsumexp", lambda xp, a, out, axis, keepdims: np.log(np.exp(a).mean(axis)))]  # divided by K twice
    faults += [("logsumexp", lambda xp, a, out, axis, keepdims: a.mean(axis) + np.log(k))]  # the ELBO after all
    for name, value in faults if k > 1 else []:
        make_wrong(monkeypatch, name, value=value)
        with pytest.raises(AssertionError):
            check_unbiased(f"a wrong L_{k}", draws(k)[0], exact_iwae(k))


def test_the_bound_rises_with_k_and_stays_below_the_evidence():
    # in ten dimensions, where few draws are far from enough; each step up is many standard errors
    model, rng = LinearGaussian.random(12, 10, seed=1), np.random.default_rng(2)
    x, (mu, logvar) = rng.standard_normal((1, 12)), model.best_diagonal(rng.standard_normal((1, 12)))
    mu = model.best_diagonal(x)[0]
    many = lambda a: np.repeat(a, 4000, 0)
    found = [iwae(model, fixed(many(mu), many(logvar)), Tensor(many(x)), Noise(k), k)[0].numpy() for k in (1, 5, 50)]
    means, errors = [v.mean() for v in found], [v.std() / np.sqrt(len(v)) for v in found]
    print(means, errors, model.log_evidence(x))
    for k in (0, 1):
        assert means[k + 1] - means[k] > 6 * np.hypot(errors[k], errors[k + 1])
    assert means[2] < model.log_evidence(x)[0] + 6 * errors[2]


def test_with_one_draw_it_is_the_sampled_elbo():
    model, rng = LinearGaussian.random(4, 2, seed=4), np.random.default_rng(5)
    x, mu, logvar = (rng.standard_normal((3, n)) for n in (4, 2, 2))
    eps = rng.standard_normal((6, 3, 2))
    for samples in (1, 6):
        bound, parts = iwae(model, fixed(mu, logvar), Tensor(x), Given(eps), 1, samples)
        expected = terms(model, fixed(mu, logvar), Tensor(x), Given(eps), samples, "elbo-a")
        for one, other in zip(parts, expected, strict=True):
            assert_same_bits(one.numpy(), other.numpy())
        assert_close(bound.numpy(), (expected[0] - expected[1]).numpy(), 16)
    # with more draws the terms are those of the ELBO still, which the bound exceeds draw by draw (Jensen)
    bound, parts = iwae(model, fixed(mu, logvar), Tensor(x), Given(eps), 6)
    assert_close((parts[0] - parts[1]).numpy(), (expected[0] - expected[1]).numpy(), 16)
    assert (bound.numpy() > (parts[0] - parts[1]).numpy() + 0.01).all()


def test_repetitions_are_a_mean_of_bounds():
    model, rng = LinearGaussian.random(4, 2, seed=4), np.random.default_rng(5)
    x, mu, logvar = (rng.standard_normal((3, n)) for n in (4, 2, 2))
    eps = rng.standard_normal((6, 3, 2))
    together = iwae(model, fixed(mu, logvar), Tensor(x), Given(eps), 2, 3)[0].numpy()
    single = [iwae(model, fixed(mu, logvar), Tensor(x), Given(e), 2)[0].numpy() for e in eps.reshape(3, 2, 3, 2)]
    assert_close(together, np.mean(single, axis=0), 16)
    other = iwae(model, fixed(mu, logvar), Tensor(x), Given(eps), 3, 2)[0].numpy()
    assert np.abs(together - other).max() > 0.01  # K and L are not the same thing


@pytest.mark.parametrize("k", [1, 4])
def test_at_the_posterior_every_draw_is_the_evidence(k):
    mean, covariance = ONE.exact_posterior(X)
    at = lambda shift: fixed(np.full((50, 1), mean[0, 0] + shift), np.full((50, 1), np.log(covariance[0, 0])))
    x = Tensor(np.repeat(X, 50, 0))
    assert np.abs(iwae(ONE, at(0.0), x, Noise(0), k)[0].numpy() - ONE.log_evidence(X)).max() <= EXACT
    assert np.abs(iwae(ONE, at(0.1), x, Noise(0), k)[0].numpy() - ONE.log_evidence(X)).max() > 0.1


# ---- estimates of its gradient ------------------------------------------------------------------------------------


class Learned(LinearGaussian):
    """The model with its weight, (latent, pixels), and bias as tensors that are learned."""

    def __init__(self, *arrays):
        super().__init__(*arrays)
        self.w = Tensor(self.weight.T.copy(), requires_grad=True)
        self.b = Tensor(self.bias.copy(), requires_grad=True)

    def likelihood(self, z):
        mean = z.reshape(-1, self.latent) @ self.w + self.b
        return Normal(mean.reshape(*z.shape[:-1], self.pixels), Tensor(np.log(self.variance)))


def by_hand(model, x, mu, logvar, eps, gradient):
    """The derivatives of the sum of L_K over the data by mu, logvar, weight and bias, as the papers' formulas say.

    `eps` is (L, K, batch, latent).
    """
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps
    residual = (x - z @ model.weight.T - model.bias) / model.variance
    log_w = (-0.5 * (residual**2 * model.variance + np.log(2 * np.pi * model.variance)).sum(-1)
             - 0.5 * (z**2).sum(-1) + 0.5 * (logvar + eps**2).sum(-1))  # fmt: skip
    weight = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))[..., None] / len(eps)
    by_z = residual @ model.weight - z + eps / sigma  # dlog w/dz with q's parameters held fixed
    by_phi = weight * by_z * (weight * len(eps) if gradient == "dreg" else 1)
    by_mu, by_logvar = by_phi, by_phi * 0.5 * sigma * eps
    if gradient == "path":  # and less dlog q(z|x)/dphi at the same z
        by_mu = by_mu - weight * eps / sigma
        by_logvar = by_logvar - weight * 0.5 * (eps**2 - 1)
    found = by_mu.sum((0, 1)), by_logvar.sum((0, 1))
    return *found, np.einsum("lkni,lknj->ij", weight * z, residual), (weight * residual).sum((0, 1, 2))


def check_formula(gradient, k=4, samples=2):
    model, rng = Learned(*vars_of(LinearGaussian.random(5, 3, seed=9))), np.random.default_rng(5)
    x, mu, logvar = rng.standard_normal((3, 5)), rng.standard_normal((3, 3)), rng.uniform(-2, 0, (3, 3))
    eps = rng.standard_normal((samples, k, 3, 3))
    leaves = [Tensor(mu, requires_grad=True), Tensor(logvar, requires_grad=True), model.w, model.b]
    noise = Given(eps.reshape(-1, 3, 3))
    bound, _ = iwae(model, lambda _: Normal(*leaves[:2]), Tensor(x), noise, k, samples, gradient)
    expected = by_hand(model, x, mu, logvar, eps, gradient)
    for name, found, right in zip(("mu", "logvar", "weight", "bias"), grad(bound.sum(), leaves), expected, strict=True):
        error = np.abs(found.numpy() - right).max() / max(1, np.abs(right).max())
        assert error <= 1e-12, f"{gradient}, by {name}: off by {error:.2g}"


def vars_of(model):
    return model.weight, model.bias, model.variance


def test_the_formulas_by_hand_differ():
    model, rng = LinearGaussian.random(5, 3, seed=9), np.random.default_rng(5)
    arrays = (*(rng.standard_normal((3, n)) for n in (5, 3, 3)), rng.standard_normal((2, 4, 3, 3)))
    path, stl, dreg = (by_hand(model, *arrays, name) for name in GRADIENTS["iwae"])
    for i in (0, 1):
        for a, b in ((path, stl), (path, dreg), (stl, dreg)):
            assert np.abs(a[i] - b[i]).max() > 0.01
    for i in (2, 3):  # the decoder's is one
        assert_same_bits(path[i], stl[i])
        assert_same_bits(path[i], dreg[i])


@pytest.mark.parametrize("gradient", GRADIENTS["iwae"])
def test_gradients_are_those_of_the_papers(gradient):
    check_formula(gradient)
    check_formula(gradient, k=1, samples=1)


def unnormalised(g, y, a, axis, keepdims):
    return g.reshape(-1, 1, a.shape[-1]) * (a - 1.0).exp()


def upside_down(g, y, a, axis, keepdims):
    return g.reshape(-1, 1, a.shape[-1]) * (-a).log_softmax(1).exp()


def of_minus(xp, a, out, axis):
    return xp.subtract(-a, TABLE["logsumexp"].value(xp, -a, None, axis, True), out=out)


WRONG = {
    "unnormalised weights": ("logsumexp", {"grads": (unnormalised,)}, GRADIENTS["iwae"]),
    "the worst draw weighs most": ("logsumexp", {"grads": (upside_down,)}, GRADIENTS["iwae"]),
    "the worst draw weighs most on the way to q": ("log_softmax", {"value": of_minus}, ("dreg",)),
    "weights not squared": ("scale_gradient", {"grads": (lambda g, y, a, by: g,)}, ("dreg",)),
    "weights cubed": ("scale_gradient", {"grads": (lambda g, y, a, by: g * by[0] * by[0],)}, ("dreg",)),
}


@pytest.mark.parametrize(("fault", "gradient"), [(fault, name) for fault in WRONG for name in WRONG[fault][2]])
def test_wrong_weights_are_found(fault, gradient, monkeypatch):
    name, change, _ = WRONG[fault]
    make_wrong(monkeypatch, name, **change)
    with pytest.raises(AssertionError, match=f"{gradient}, by .*: off by"):
        check_formula(gradient)


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_a_log_q_that_is_not_stopped_is_found(gradient, monkeypatch):
    monkeypatch.setattr(Normal, "map", lambda q, f: q)
    with pytest.raises(AssertionError, match=f"{gradient}, by mu: off by"):
        check_formula(gradient)


def check_unbiased_gradient(gradient, k):
    """Each derivative's mean over many draws, against the exact bound's by differences."""
    h, (mu, logvar) = 1e-4, (a.item() for a in Q)
    truth = [(exact_iwae(k, mu + h, logvar) - exact_iwae(k, mu - h, logvar)) / (2 * h),
             (exact_iwae(k, mu, logvar + h) - exact_iwae(k, mu, logvar - h)) / (2 * h)]  # fmt: skip
    for name, found, right in zip(("mu", "logvar"), draws(k, gradient)[1], truth, strict=True):
        check_unbiased(f"{gradient}, K = {k}, by {name}", found, right)


@pytest.mark.parametrize(("gradient", "k"), [("path", 1), ("path", 3), ("stl", 1), ("dreg", 1), ("dreg", 3)])
def test_gradients_are_unbiased(gradient, k):
    check_unbiased_gradient(gradient, k)


def test_sticking_the_landing_is_biased_with_several_draws():
    # Tucker et al. 2019: the term left out has no mean of 0 under the weights; not squaring dreg's weights is the same
    with pytest.raises(AssertionError, match="stl, K = 3"):
        check_unbiased_gradient("stl", 3)


@pytest.mark.parametrize("fault", ["unnormalised weights", "the worst draw weighs most"])
def test_wrong_weights_are_biased(fault, monkeypatch):
    name, change, _ = WRONG[fault]
    make_wrong(monkeypatch, name, **change)
    with pytest.raises(AssertionError, match="path, K = 3"):
        check_unbiased_gradient("path", 3)


def variance_at_the_posterior(bound, gradient, k):
    """The largest variance of a derivative by mu or logvar over 1000 draws, where q is the posterior."""
    mean, covariance = ONE.exact_posterior(X)
    mu = Tensor(np.repeat(mean, 1000, 0), requires_grad=True)
    logvar = Tensor(np.repeat(np.log(covariance), 1000, 0), requires_grad=True)
    x, q = Tensor(np.repeat(X, 1000, 0)), lambda _: Normal(mu, logvar)
    value = (iwae(ONE, q, x, Noise(3), k, gradient=gradient)[0] if bound == "iwae"
             else elbo(ONE, q, x, Noise(3), k, bound, gradient))  # fmt: skip
    return max(g.numpy().var() for g in grad(value.sum(), [mu, logvar]))


@pytest.mark.parametrize(("bound", "gradient", "k"), [("elbo-a", "stl", 1), ("elbo-a", "stl", 3), ("iwae", "stl", 5),
                                                      ("iwae", "dreg", 5)])  # fmt: skip
def test_at_the_posterior_nothing_is_left_to_vary(bound, gradient, k, monkeypatch):
    assert variance_at_the_posterior(bound, gradient, k) < 1e-25
    assert variance_at_the_posterior(bound, "path", k) > 0.01
    monkeypatch.setattr(Normal, "map", lambda q, f: q)
    assert variance_at_the_posterior(bound, gradient, k) > 0.01


def test_dreg_has_the_lowest_variance():
    path, stl, dreg = (draws(5, name)[1].var(axis=1) for name in GRADIENTS["iwae"])
    assert (dreg < stl).all()
    assert (stl < path).all()


class Steep:
    """log p(x|z) = -10000 |z|^2, by which log w spreads over tens of thousands of nats."""

    prior = Normal.standard(2, np.float32)

    def __init__(self, z):
        self.z = z

    likelihood = classmethod(lambda cls, z: cls(z))

    def log_prob(self, x):
        return (-1e4 * self.z * self.z).sum(-1)


def robust(gradient):
    """The bound and gradient of a batch in float32 over draws whose weights differ by e^10000."""
    leaves = [Tensor(np.full((50, 2), value, np.float32), requires_grad=True) for value in (0.5, 0.0)]
    bound, parts = iwae(Steep, lambda _: Normal(*leaves), Tensor(np.zeros((50, 1), np.float32)), Noise(0), 5,
                        gradient=gradient)  # fmt: skip
    assert bound.dtype == np.float32
    assert (parts.reconstruction.numpy() < -5e3).any()
    return [bound.numpy(), *(g.numpy() for g in grad(bound.mean(), leaves))]


@pytest.mark.parametrize("gradient", GRADIENTS["iwae"])
def test_weights_of_any_size_are_finite(gradient, monkeypatch):
    assert all(np.isfinite(values).all() for values in robust(gradient))
    make_wrong(monkeypatch, "logsumexp",  # without its shift by the largest
               value=lambda xp, a, out, axis, keepdims: np.log(np.exp(a).sum(axis, keepdims=keepdims)))
    with np.errstate(all="ignore"):
        assert not all(np.isfinite(values).all() for values in robust(gradient))


# ---- the terms of a model --------------------------------------------------------------------------------------------


def test_terms_that_are_put_together_keep_theirs_and_what_records_show():
    a, b, c = (Tensor(np.full(2, value)) for value in (1.0, 2.0, 3.0))
    made = tv.Terms({"plain": a}, weighted=b) | tv.Terms(other=c)
    assert dict(made) == {"weighted": b, "other": c}
    assert made.reported == {"plain": a, "other": c}
    grown = tv.Terms(other=c)
    grown |= tv.Terms({"plain": a}, weighted=b)
    assert (dict(grown), grown.reported) == ({"other": c, "weighted": b}, {"plain": a, "other": c})
