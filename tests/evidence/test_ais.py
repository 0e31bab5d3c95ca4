"""Annealed importance sampling: weights with exactly the mean p(x), and bounds from both sides."""

import dataclasses
import gc
import math
import tracemalloc

import numpy as np
import pytest
from oracles import LinearGaussian, mutate
from scipy.special import logsumexp
from support import assert_same_bits, likely_zero

import tinyvae as tv
from tinyvae.distributions import posteriors
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence import ais, harmonic
from tinyvae.evidence.ais import Annealing, bidirectional, schedule
from tinyvae.evidence.hamiltonian import densities, moves
from tinyvae.evidence.hamiltonian.hmc import Chains
from tinyvae.evidence.hamiltonian.moves import MoveAverages

ONE, X = LinearGaussian.of_one_dimension(), np.array([[1.3]])  # log p(1.3) = -1.8412
MODEL = LinearGaussian.random(pixels=4, latent=3, seed=1)
MILD = LinearGaussian([[1, 0], [0.5, 0.8]], [0, 0], [1, 1])  # prior and posterior are near: weights without a long tail


def annealing(model, x, temperatures, start="encoder", seed=0, leapfrog=3):
    x = Tensor(np.array(x))
    return Annealing(model, model.q(x), x, Noise(seed), temperatures, leapfrog, start)


# ---- the weights -----------------------------------------------------------------------------------------------------


def check_unbiased(backwards=False, start="encoder", temperatures=3, chains=20_000):
    """E[w] = p(x) with few temperatures and moves that are often refused; backwards, E[w'] = 1 / p(x)."""
    x = MILD.simulate(1, seed=3)[1]
    path = annealing(MILD, x, temperatures, start)
    path.steps = [1.3 * step for step in path.steps]
    begin = MILD.posterior_draws(x, chains, 4) if backwards else path.initial.draw(path.noise, chains, 1)
    averages = MoveAverages(1)
    log_w = path.weights(path.chains_at(begin), backwards, averages)[:, 0]
    assert averages.means()[0] < 0.85, "the Metropolis test must have work to do"
    w = np.exp(log_w + (1 if backwards else -1) * MILD.log_evidence(x)[0])
    likely_zero("w / p(x)", w.mean() - 1, w.std() / math.sqrt(chains))


@pytest.mark.parametrize("start", ["encoder", "prior"])
def test_the_weights_mean_is_the_evidence(start):
    check_unbiased(start=start)


def test_backwards_it_is_its_inverse():
    check_unbiased(backwards=True)


INCREMENT = "(betas[t] - betas[t - 1]) * chains.go_to(betas[t])"
WRONG = {
    "moves at the temperature before": (Annealing, "weights", INCREMENT,
                                        "(betas[t] - betas[t - 1]) * chains.go_to(betas[t - 1])"),
    "the first increment is left out": (Annealing, "weights", "range(1, len(betas))", "range(2, len(betas))"),
    "the last increment is left out": (Annealing, "weights", "range(1, len(betas))", "range(1, len(betas) - 1)"),
    "increments of equal size": (Annealing, "weights", INCREMENT, "1 / (len(betas) - 1) * chains.go_to(betas[t])"),
    "the sign": (Annealing, "weights", INCREMENT, "-" + INCREMENT),
    "no Metropolis test": (Chains, "transition", "xp.log1p(-u[0]) < -change", "change < 1e9"),
    "the density is not renewed": (ais.AnnealedChains, "go_to", "self.refresh()", "pass"),
    "half of the initial density": (densities.InitialDistribution, "log_density", "return log_density",
                                    "return 0.5 * log_density"),
}  # fmt: skip
OF_THE_PRIOR = ("moves at the temperature before", "increments of equal size")  # else the weights are too alike to tell


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("fault", WRONG)
def test_wrong_weights_fail(fault, backwards, monkeypatch):
    mutate(monkeypatch, *WRONG[fault])
    with pytest.raises(AssertionError):
        check_unbiased(backwards, "prior" if fault in OF_THE_PRIOR else "encoder")


def test_one_temperature_is_importance_sampling():
    # the same draws, the same weights
    _, x = MODEL.simulate(3, seed=5)
    path, chains = annealing(MODEL, x, 1), 50
    begin = path.initial.draw(path.noise, chains, 3)
    log_w = path.weights(path.chains_at(begin), False, MoveAverages(3))
    z, q = Tensor(begin), MODEL.q(Tensor(x))
    expected = MODEL.likelihood(z).log_prob(Tensor(x)) + MODEL.prior.log_prob(z) - q.log_prob(z)
    assert np.abs(log_w - expected.data).max() <= 1e-10


def test_with_the_exact_posterior_to_begin_with_every_weight_is_the_evidence(monkeypatch):
    mean, covariance = ONE.exact_posterior(X)
    exact = tv.distributions.Normal(Tensor(mean), Tensor(np.log(covariance)))
    monkeypatch.setattr(ONE, "q", lambda x: exact, raising=False)
    for chains in (1, 5):
        found = annealing(ONE, X, 10).run(chains)
        assert abs(found.log_evidence[0] - -1.8412) <= 5e-5
        assert abs(found.effective_samples[0] - chains) <= 1e-9
        assert math.isnan(found.variance[0]) if chains == 1 else abs(found.variance[0]) <= 1e-12


@pytest.mark.parametrize("temperatures", [1, 2, 7, 200])
def test_the_schedule(temperatures):
    betas = schedule(temperatures)
    assert (len(betas), betas[0], betas[-1]) == (temperatures + 1, 0, 1)
    assert (np.diff(betas) > 0).all()
    assert np.abs(betas + betas[::-1] - 1).max() <= 1e-12  # no end is preferred
    if temperatures > 2:
        assert np.diff(betas)[0] < 1 / temperatures < np.diff(betas)[temperatures // 2]


# ---- the estimate ----------------------------------------------------------------------------------------------------


def check_estimate(model, x, found, sign=1):
    """log p(x) within its error, once the bias of a logarithm, half the variance, is taken out."""
    error = found.log_evidence + sign * 0.5 * found.variance - model.log_evidence(x)
    likely_zero("log p(x)", error.mean(), math.sqrt(found.variance.mean() / len(x)))
    assert found.variance.mean() <= 0.2
    assert ((found.acceptance > 0.6) & (found.acceptance < 1)).all()
    assert ((found.energy_error > 0) & (found.energy_error < 1)).all()


@pytest.mark.parametrize("start", ["encoder", "prior"])
def test_the_one_dimensional_example(start):
    found = annealing(ONE, X, 60, start).run(400)
    check_estimate(ONE, X, found)
    assert abs(found.log_evidence[0] - -1.8412) <= 0.1
    with pytest.raises(AssertionError):
        check_estimate(ONE, X, found._replace(log_evidence=found.log_evidence + 0.3))


@pytest.mark.parametrize(("pixels", "latent"), [(1, 1), (3, 2), (5, 4), (10, 8)])
def test_random_linear_gaussian_models(pixels, latent):
    model = LinearGaussian.random(pixels, latent, seed=latent)
    x = model.simulate(30, seed=6)[1]
    for start in ("encoder", "prior"):
        check_estimate(model, x, annealing(model, x, 60, start).run(40))


def test_the_variance_is_that_of_repetitions():
    x = np.repeat(MILD.simulate(1, seed=7)[1], 400, axis=0)
    found = annealing(MILD, x, 10).run(30)  # 400 times the same datum
    squares = (found.log_evidence - found.log_evidence.mean()) ** 2
    likely_zero("variance", squares.mean() * 400 / 399 - found.variance.mean(),
                math.hypot(squares.std(), found.variance.std()) / 20)


def test_float32_agrees_with_float64():
    wide, narrow = (tv.VAE(9, 6, 3, activation="tanh", dtype=kind, seed=2) for kind in (np.float64, np.float32))
    for name, tensor in narrow.parameters.tensors.items():
        wide.parameters[name].data[...] = tensor.data
    x = np.random.default_rng(0).integers(0, 2, (20, 9)).astype(np.float32)
    a, b = (annealing(model, x.astype(model.dtype), 40).run(30) for model in (wide, narrow))
    spread = math.sqrt((a.variance + b.variance).mean() / 20)
    assert abs((a.log_evidence - b.log_evidence).mean()) <= 5 * spread
    assert spread < 0.05
    assert b.log_evidence.dtype == np.float64


@pytest.mark.parametrize("posterior", posteriors())
def test_latents_that_are_not_free_move_in_their_coordinate(posterior):
    """Positive, in (0, 1), with sum 1: annealing agrees with the mean of p(x|z) over the prior."""
    model = tv.VAE(6, hidden=5, latent=2, activation="tanh", dtype="float64", seed=2, posterior=posterior)
    x = Tensor(np.random.default_rng(0).integers(0, 2, (20, 6)).astype(float))
    draws = model.prior.sample(Noise(1), 20_000)  # log p(x) = log E[p(x|z)], from weights below 1
    of_x = model.likelihood(draws.reshape(20_000, 1, 2)).log_prob(x).data
    exact = logsumexp(of_x, axis=0) - math.log(20_000)
    for start in ("encoder", "prior") if posterior != "planar" else ("prior",):
        found = Annealing(model, model.q(x), x, Noise(0), 20, 3, start).run(60)
        difference = found.log_evidence + found.variance / 2 - exact
        likely_zero("difference", difference.mean(), math.sqrt(found.variance.mean() / 20))
        assert np.median(found.variance) < 0.02


def test_a_model_that_is_not_finite_gets_no_number():
    model = tv.VAE(6, hidden=5, latent=2, activation="tanh", dtype="float64")
    model.parameters["decoder.0.weight"].data[0, 0] = np.nan
    x = Tensor(np.zeros((3, 6)))
    found = Annealing(model, model.q(x), x, Noise(0), 5, 2).run(4)
    assert np.isnan(found.log_evidence).all()
    assert (found.acceptance == 0).all()


# ---- manners ---------------------------------------------------------------------------------------------------------


def test_exactly_so_many_chains_in_constant_memory(monkeypatch):
    x = MODEL.simulate(8, seed=5)[1]
    monkeypatch.setattr(moves, "CHUNK", 7 * x.size)
    path, peaks, begun = annealing(MODEL, x, 3), [], []
    whole = path.weights

    def weights(moving, *rest):
        log_w = whole(moving, *rest)
        begun.append(log_w)
        return log_w

    monkeypatch.setattr(path, "weights", weights)
    path.noise.restart()
    found = path.run(30)
    log_w = np.concatenate(begun)
    assert [len(part) for part in begun] == [7, 7, 7, 7, 2]
    assert np.abs(found.log_evidence - logsumexp(log_w, axis=0) + math.log(30)).max() <= 1e-12
    w = np.exp(log_w - log_w.max(0))
    assert np.abs(found.effective_samples - w.sum(0) ** 2 / (w**2).sum(0)).max() <= 1e-9
    assert np.abs(found.variance - w.var(0, ddof=1) / 30 / w.mean(0) ** 2).max() <= 1e-12
    monkeypatch.undo()
    gc.disable()  # it may come late; the arrays of a group must not wait for it
    for chains, chunk in ((14, 7), (14, 7), (140, 7), (140, 140)):  # the first time, caches are filled
        monkeypatch.setattr(moves, "CHUNK", chunk * x.size)
        tracemalloc.start()
        path.run(chains)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    gc.enable()
    print(f"peaks in bytes: {peaks}")
    assert peaks[2] - peaks[1] <= 0.1 * (peaks[3] - peaks[1])  # what stays is one number for each chain and datum


def test_the_same_seed_gives_the_same_bits():
    x = MODEL.simulate(4, seed=5)[1]
    a, b, other = (annealing(MODEL, x, 5, seed=seed).run(3) for seed in (1, 1, 2))
    for first, second in zip(a, b, strict=True):
        assert_same_bits(first, second)
    assert not np.array_equal(a.log_evidence, other.log_evidence)


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="found start 'q'; expected one of encoder, prior"):
        annealing(MODEL, MODEL.simulate(1, 0)[1], 5, "q")


def test_a_device_gives_the_same(driver, monkeypatch):
    """Chains and estimates stay on their device, and agree with the host's."""
    for module, name in ((ais, "SETTLE"), (harmonic, "SETTLE"), (harmonic, "CANDIDATES")):
        monkeypatch.setattr(module, name, 4)
    x = (np.random.default_rng(0).random((7, 36)) < 0.5).astype(float)
    models = [tv.VAE(36, 17, 3, dtype="float64", device=device) for device in ("cpu", "cuda")]
    settings = {"ais": {"chains": 2, "temperatures": 4}, "hmc": {"chains": 6, "draws": 10}}
    for method, options in settings.items():
        here, there = (tv.evaluate(model, x, method=method, leapfrog=2, **options) for model in models)
        for name in ("log_evidence", "acceptance", "energy_error", "log_evidence_sampling_stderr"):
            assert abs(getattr(there, name) / getattr(here, name) - 1) <= 1e-8, name
    here, there = (bidirectional(model, 5, chains=2, temperatures=3, leapfrog=2) for model in models)
    assert abs(there.gap - here.gap) <= 1e-8


# ---- from both sides -------------------------------------------------------------------------------------------------


def check_two_sided(model, found, seed, count):
    """lower <= log p(x) <= upper within their errors, for the very data that were made."""
    noise = Noise(seed, "simulated")
    z = model.prior.sample(noise, count)
    exact = model.log_evidence(model.likelihood(z).sample(noise).data[0]).mean()
    assert -5 * found.gap_stderr <= exact - found.lower <= found.gap + 5 * found.gap_stderr
    assert -5 * found.gap_stderr <= found.upper - exact <= found.gap + 5 * found.gap_stderr
    assert abs(found.gap - (found.upper - found.lower)) <= 1e-9
    assert found.gap_stderr <= 0.9 * min(found.lower_stderr, found.upper_stderr)  # paired: most of theirs is the data's


@pytest.mark.parametrize(("pixels", "latent", "start"), [(1, 1, "prior"), (4, 3, "encoder"), (4, 3, "prior")])
def test_both_bounds_hold(pixels, latent, start):
    model = LinearGaussian.random(pixels, latent, seed=1)
    found = bidirectional(model, 60, seed=2, chains=8, temperatures=40, leapfrog=3, start=start)
    check_two_sided(model, found, 2, 60)
    with pytest.raises(AssertionError):
        check_two_sided(model, dataclasses.replace(found, lower=found.upper + 0.3, upper=found.lower - 0.3), 2, 60)


def test_few_temperatures_leave_a_gap_on_both_sides():
    # too few: each bound is off by more than its error, each to its own side; more close the gap
    few, many = (bidirectional(MODEL, 150, 2, 2, temperatures, 3, "prior") for temperatures in (8, 100))
    for found in (few, many):
        check_two_sided(MODEL, found, 2, 150)
    assert few.gap > 6 * few.gap_stderr
    assert many.gap < few.gap / 3
    assert few.lower < many.lower < many.upper < few.upper


@pytest.mark.parametrize(("old", "new"), [
    ("-found if backwards else found", "found"),
    ("self.betas[::-1], self.steps[::-1]", "self.betas, self.steps"),
])
def test_wrong_bounds_fail(old, new, monkeypatch):
    mutate(monkeypatch, Annealing, "run" if "found" in old else "weights", old, new)
    with pytest.raises(AssertionError):
        check_two_sided(MODEL, bidirectional(MODEL, 60, 2, 4, 40, 3), 2, 60)


def test_both_bounds_say_what_they_are(monkeypatch):
    monkeypatch.setattr(ais, "BATCH", 4)
    shares = []
    found = bidirectional(MODEL, 10, chains=2, temperatures=5, leapfrog=2, progress=shares.append)
    assert found.to_dict() == dataclasses.asdict(found)
    assert (found.data_count, found.chains, found.temperatures, found.leapfrog, found.start) == (10, 2, 5, 2, "encoder")
    assert 0 < found.acceptance <= 1
    assert shares == sorted(shares)
    assert abs(shares[-1] - 1) <= 1e-12
    assert found == bidirectional(MODEL, 10, chains=2, temperatures=5, leapfrog=2)
    assert found.lower != bidirectional(MODEL, 10, 1, chains=2, temperatures=5, leapfrog=2).lower
    with pytest.raises(ValueError, match="found a count of 0 simulated data"):
        bidirectional(MODEL, 0)
