"""log p(x) from posterior draws (AEVB appendix D): for few latents, where it is exact to a few thousandths."""

import math
import tracemalloc

import numpy as np
import pytest
from oracles import LinearGaussian, mutate
from scipy.stats import multivariate_normal
from support import assert_same_bits, likely_zero

import tinyvae as tv
from tinyvae.distributions import Normal, posteriors
from tinyvae.engine.devices import CPU
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence import harmonic
from tinyvae.evidence.hamiltonian import hmc, moves
from tinyvae.evidence.harmonic import Mixture, log_evidence, resampled

ONE, X = LinearGaussian.of_one_dimension(), np.array([[1.3]])  # log p(1.3) = -1.8412


def estimate(model, x, chains=8, draws=40, seed=0, leapfrog=4):
    return log_evidence(model, model.q(Tensor(x)), Tensor(x), Noise(seed), chains, draws, leapfrog)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(harmonic, "CANDIDATES", 64)
    monkeypatch.setattr(harmonic, "SETTLE", 60)


# ---- against exact answers -------------------------------------------------------------------------------------------


def check(model, x, exact, **options):
    """log p(x) within its error, once the bias of a logarithm, half the variance, is taken out."""
    found = estimate(model, x, **options)
    error = found.log_evidence - 0.5 * found.variance - exact
    likely_zero("log p(x)", error.mean(), math.sqrt(found.variance.mean() / len(x)))
    assert found.variance.mean() <= 0.01
    assert ((found.acceptance > 0.75) & (found.acceptance < 1)).all()
    assert ((found.energy_error > 0) & (found.energy_error < 1)).all()
    return found


def test_the_one_dimensional_example():
    found = check(ONE, X, -1.841221554, chains=16, draws=200)
    assert abs(found.log_evidence[0] - -1.8412) <= 0.05


@pytest.mark.parametrize("latent", [1, 2, 3, 4])
def test_random_linear_gaussian_models(latent):
    model = LinearGaussian.random(latent + 2, latent, seed=latent)
    x = model.simulate(40, seed=6)[1]
    check(model, x, model.log_evidence(x))


@pytest.mark.parametrize(("owner", "name", "old", "new"), [
    (harmonic, "log_evidence", "fit.log_prob(z) - log_f", "fit.log_prob(z) + log_f"),  # the sign
    (harmonic, "log_evidence", "fit.log_prob(z) - log_f", "-log_f"),  # the harmonic mean of p(x, z)
    (harmonic, "log_evidence", "math.log(n * draws) - total", "math.log(draws) - total"),
    (Mixture, "finish", "values.shape[-1] * math.log(2 * math.pi)", "math.log(2 * math.pi)"),
    (Mixture, "log_prob", "- math.log(len(parts))", ""),
    (Mixture, "finish", "/ np.sqrt(values)", "/ values"),
    (hmc.Chains, "transition", "xp.log1p(-u[0]) < -change", "change < 0.1"),  # draws that are not the posterior's
])
def test_wrong_estimates_fail(owner, name, old, new, monkeypatch):
    mutate(monkeypatch, owner, name, old, new)
    monkeypatch.setitem(globals(), "log_evidence", harmonic.log_evidence)
    model = LinearGaussian.random(4, 2, seed=2)
    x = model.simulate(40, seed=6)[1]
    with pytest.raises(AssertionError):
        check(model, x, model.log_evidence(x))


def test_with_the_posterior_itself_for_the_density_every_draw_gives_the_evidence(monkeypatch):
    model = LinearGaussian.random(4, 2, seed=3)
    x = model.simulate(3, seed=6)[1]
    mean, covariance = model.exact_posterior(x)

    class Exact(Mixture):
        def finish(self):
            self.means, self.scatters, self.count = [mean[None]], [np.stack([covariance] * 3)[None]], 2
            super().finish()

    monkeypatch.setattr(harmonic, "Mixture", Exact)
    found = estimate(model, x, draws=20)
    assert np.abs(found.log_evidence - model.log_evidence(x)).max() <= 1e-10
    assert np.abs(found.effective_samples - 4 * 20).max() <= 1e-6
    assert np.abs(found.variance).max() <= 1e-12


def test_the_variance_is_that_of_repetitions():
    # of the chains' means: single draws, of which those of a chain are alike, would make it too small
    model = LinearGaussian.random(4, 2, seed=2)
    x = np.repeat(model.simulate(1, seed=7)[1], 300, axis=0)
    found = estimate(model, x, chains=16, draws=10, leapfrog=1)
    squares = (found.log_evidence - found.log_evidence.mean()) ** 2
    spread = math.hypot(squares.std(), found.variance.std()) / math.sqrt(300)
    likely_zero("variance", squares.mean() - found.variance.mean(), spread)


class TwoModes:
    """p(z) = N(0, 1), p(x|z) = N(z^2, 0.1^2): z is near sqrt(x) or -sqrt(x); q knows the first only."""

    xp, prior, latent = CPU, Normal.standard(1, np.float64), 1

    def likelihood(self, z):
        return Normal(z * z, Tensor(np.array([2 * math.log(0.1)])))

    def q(self, x):
        return Normal(Tensor(np.sqrt(x.data)), Tensor(np.full(x.shape, math.log(0.01))))

    def log_evidence(self, x):
        z = np.linspace(-6, 6, 40_001)
        joint = -0.5 * ((x - z**2) / 0.1) ** 2 - math.log(0.1) - 0.5 * z**2 - math.log(2 * math.pi)
        return np.log(np.exp(joint).sum(1) * (z[1] - z[0]))


def test_both_modes_are_found_though_the_encoder_knows_one(monkeypatch):
    monkeypatch.setattr(harmonic, "CANDIDATES", 256)
    model, x = TwoModes(), np.linspace(1, 2, 30)[:, None]
    exact = model.log_evidence(x)
    found = estimate(model, x, chains=32)
    sides = np.sign(resampled(model, model.q(Tensor(x)), Tensor(x), Noise(1), 200)[..., 0])
    assert 0.35 < (sides > 0).mean() < 0.65
    assert abs((found.log_evidence - exact).mean()) <= 0.1
    # begun at draws of q(z|x), all chains stay on its side: half of p(x) is missed, and the stated error is small
    monkeypatch.setattr(harmonic, "resampled", lambda model, q, x, noise, chains: q.sample(noise, chains).data)
    missed = estimate(model, x, chains=32)
    assert abs((missed.log_evidence - exact).mean() + math.log(2)) <= 0.1
    assert math.sqrt(missed.variance.mean()) < 0.1


@pytest.mark.parametrize("posterior", posteriors())
def test_latents_that_are_not_free_move_in_their_coordinate(posterior):
    """Where the coordinate's prior is normal; the tails of the others are not those of the density that is fitted."""
    model = tv.VAE(6, hidden=5, latent=2, activation="tanh", dtype="float64", seed=2, posterior=posterior)
    x = np.random.default_rng(0).integers(0, 2, (20, 6)).astype(float)
    if type(model.prior).__name__ not in ("Normal", "LogNormal"):
        with pytest.raises(ValueError, match=f"found a prior {type(model.prior).__name__}; .* fits normal densities"):
            estimate(model, x)
        return
    if posterior == "planar":
        with pytest.raises(ValueError, match=r"log q\(z\) is known of its own draws alone, .* the method hmc"):
            estimate(model, x)
        return
    draws = model.prior.sample(Noise(1), 20_000)  # log p(x) = log E[p(x|z)], from weights below 1
    of_x = model.likelihood(draws.reshape(20_000, 1, 2)).log_prob(Tensor(x)).data
    found = estimate(model, x, chains=16)
    error = found.log_evidence - 0.5 * found.variance - np.log(np.exp(of_x).mean(0))
    likely_zero("log p(x)", error.mean(), math.sqrt(found.variance.mean() / 20))
    assert found.variance.mean() <= 0.01


# ---- the density that is fitted --------------------------------------------------------------------------------------


def test_the_mixture_is_that_of_the_draws():
    rng = np.random.default_rng(0)
    draws, chains, batch = 30, 5, 4
    mixed = np.einsum("dcbi,bij->dcbj", rng.standard_normal((draws, chains, batch, 3)), rng.standard_normal((4, 3, 3)))
    z = mixed + 1e6  # so far out, the difference of two sums of squares would have few digits
    z[:, 2] += 3
    fit = Mixture()
    for group in (slice(0, 2), slice(2, 5)):
        fit.begin()
        for draw in z[:, group]:
            fit.add(draw)
    fit.finish()
    for j in range(batch):
        own = [np.cov(z[:, c, j].T) for c in range(chains)]
        parts = [multivariate_normal(z[:, c, j].mean(0), (own[c] + np.mean(own, axis=0)) / 2) for c in range(chains)]
        expected = np.log(np.mean([part.pdf(z[7, :, j]) for part in parts], axis=0))
        assert np.abs(fit.log_prob(z[7])[:, j] - expected).max() <= 1e-6


def test_a_part_without_an_inverse_gives_no_number():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((20, 3, 4, 2))
    z[:, :, 1, 0] = 3.0
    z[:, :, 2, 1] = 2 * z[:, :, 2, 0]
    z[4, 0, 3, 0] = np.nan
    fit = Mixture()
    with np.errstate(all="ignore"):
        for draw in z:
            fit.add(draw)
        fit.finish()
        found = fit.log_prob(z[0])
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:, 1:]).all()


# ---- manners ---------------------------------------------------------------------------------------------------------


def test_more_latents_and_too_few_draws_are_refused():
    model = tv.VAE(6, hidden=5, latent=5)
    with pytest.raises(ValueError, match=r"found 5 latents; .* at most 4, because it fits a density"):
        estimate(model, np.zeros((2, 6), np.float32))
    for options in ({"chains": 3}, {"chains": 4, "draws": 4}):
        with pytest.raises(ValueError, match="expected at least 4 chains, and at least 10 draws in half of them"):
            estimate(ONE, X, **options)


def test_a_model_that_is_not_finite_gets_no_number():
    model = tv.VAE(6, hidden=5, latent=2, activation="tanh", dtype="float64")
    for name in ("decoder.0.weight", "encoder.0.weight"):
        model.parameters[name].data[0, 0] = np.nan
        found = estimate(model, np.ones((3, 6)))
        assert np.isnan(found.log_evidence).all()
        assert (found.acceptance == 0).all()


def test_more_draws_take_no_more_memory_and_groups_are_all_chains(monkeypatch):
    model = LinearGaussian.random(4, 2, seed=2)
    x, peaks, made = model.simulate(8, seed=5)[1], [], []
    monkeypatch.setattr(moves, "CHUNK", 3 * x.size)
    monkeypatch.setattr(harmonic, "CANDIDATES", 4)
    monkeypatch.setattr(harmonic, "SETTLE", 4)
    for draws in (5, 5, 40):  # the first time, caches are filled
        tracemalloc.start()
        log_evidence(model, model.q(Tensor(x)), Tensor(x), Noise(0), 9, draws, 2, made.append)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] <= 1.1 * peaks[1]
    assert sum(made) == 9 * (5 + 5 + 40)


def test_the_same_seed_gives_the_same_bits():
    model = LinearGaussian.random(3, 2, seed=2)
    x = model.simulate(3, seed=5)[1]
    a, b, other = (estimate(model, x, seed=seed) for seed in (1, 1, 2))
    for first, second in zip(a, b, strict=True):
        assert_same_bits(first, second)
    assert not np.array_equal(a.log_evidence, other.log_evidence)
