"""Hamiltonian Monte Carlo: a motion that is reversible and keeps volumes, and draws of the right law."""

import math

import numpy as np
import pytest
from oracles import LinearGaussian, mutate
from support import assert_same_bits, likely_zero

import tinyvae as tv
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.hamiltonian import hmc
from tinyvae.evidence.hamiltonian.hmc import Chains, first_step_size, kinetic
from tinyvae.evidence.hamiltonian.moves import MoveAverages

MODEL = LinearGaussian.random(pixels=4, latent=3, seed=1)
X = MODEL.simulate(5, seed=2)[1]
# wrong leapfrogs: the last momentum moves a whole step; all of it does, at the old place (Euler's method)
LATE = ("if i < steps else 0.5 * step", "if i < steps else step")
EULER = ("r + 0.5 * step * force", "r + step * force")


def gaussian(start, seed=0, step=0):
    """Chains in the posterior of the linear-Gaussian model."""
    x = Tensor(X[:, :])
    noise = Noise(seed, "test", np.full(1, step))
    return Chains(lambda z: MODEL.prior.log_prob(z) + MODEL.likelihood(z).log_prob(x), start, noise)


def curved(start):
    """Chains in the posterior of a VAE: neither Gaussian nor symmetric."""
    model = tv.VAE(6, hidden=5, latent=2, activation="tanh", dtype="float64", init="glorot", seed=3)
    model.parameters.flat *= 3
    x = Tensor(np.random.default_rng(0).integers(0, 2, (start.shape[1], 6)).astype(float))
    return Chains(lambda z: model.prior.log_prob(z) + model.likelihood(z).log_prob(x), start, Noise(0))


def starts(chains, batch, latent, seed=0):
    return np.random.default_rng(seed).standard_normal((chains, batch, latent))


# ---- the motion ------------------------------------------------------------------------------------------------------


def test_the_tape_gives_the_log_density_and_its_gradient():
    chains = gaussian(starts(2, 5, 3))
    mean, covariance = MODEL.exact_posterior(X)
    for seed in (0, 1):  # at the start, then by replay
        z = starts(2, 5, 3, seed)
        log_f, force = chains.at(z) if seed else (chains.log_f, chains.force)
        assert np.abs(force - (mean - z) @ np.linalg.inv(covariance)).max() <= 1e-12
        d = z - mean
        constant = -0.5 * (3 * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1])
        quadratic = -0.5 * np.einsum("cbi,ij,cbj->cb", d, np.linalg.inv(covariance), d)
        assert np.abs(log_f - (constant + quadratic + MODEL.log_evidence(X))).max() <= 1e-12


def check_reversible():
    chains = curved(starts(4, 3, 2))
    z, r = chains.z.copy(), starts(4, 3, 2, seed=1)
    step = np.array([0.05, 0.1, 0.2])[:, None]
    there, momentum, _, force = chains.leapfrog(z, r, step, 9, chains.force)
    assert np.abs(there - z).max() > 0.5
    back, reversed_, _, _ = chains.leapfrog(there, -momentum, step, 9, force.copy())
    assert np.abs(back - z).max() <= 1e-12
    assert np.abs(reversed_ + r).max() <= 1e-12


def check_volume():
    """The determinant of d(z, r)'/d(z, r), by central differences: each chain's is one column of two."""
    h, base = 1e-5, np.concatenate([starts(1, 1, 2)[0, 0], starts(1, 1, 2, 1)[0, 0]])
    points = np.concatenate([base + h * np.eye(4), base - h * np.eye(4)])[:, None]
    chains = curved(points[..., :2].copy())
    z, r, _, _ = chains.leapfrog(chains.z, points[..., 2:], 0.3, 5, chains.force)
    ends = np.concatenate([z, r], axis=-1)[:, 0]
    assert abs(np.linalg.det((ends[:4] - ends[4:]) / (2 * h)) - 1) <= 1e-6


def check_energy_order():
    """Over a fixed time, half the step errs a quarter in the energy."""
    errors = []
    for steps in (32, 64):
        chains = curved(starts(20, 3, 2))
        r = starts(20, 3, 2, seed=1)
        _, end, log_f, _ = chains.leapfrog(chains.z, r, 1.0 / steps, steps, chains.force)
        errors.append(np.abs(kinetic(end) - log_f - kinetic(r) + chains.log_f).mean())
    assert errors[1] > 0
    assert 3.7 <= errors[0] / errors[1] <= 4.3


@pytest.mark.parametrize("check", [check_reversible, check_volume, check_energy_order])
def test_the_leapfrog(check):
    check()


@pytest.mark.parametrize(("check", "old", "new"), [
    (check_reversible, *LATE), (check_reversible, *EULER), (check_energy_order, *LATE), (check_energy_order, *EULER),
    (check_energy_order, "r + 0.5 * step * force", "r - 0.5 * step * force"),
    (check_volume, "z = z + step * r", "z = z + step * r * (1 + 0.01 * z)"),  # place and momentum no longer apart
])
def test_a_wrong_leapfrog_fails(check, old, new, monkeypatch):
    mutate(monkeypatch, Chains, "leapfrog", old, new)
    with pytest.raises(AssertionError):
        check()


# ---- the law of the draws --------------------------------------------------------------------------------------------

WIDE = LinearGaussian.random(pixels=3, latent=2, seed=4)
ONE_X = WIDE.simulate(1, seed=5)[1]


def check_law(step=1.5, moves=3, chains=30_000):
    """Chains that begin in the posterior stay in it: first and second moments, and E[exp(-dH)] = 1 (Creutz 1988)."""
    x, mean, covariance = Tensor(ONE_X), *WIDE.exact_posterior(ONE_X)
    widths = np.sqrt(np.linalg.eigvalsh(covariance))  # from two of the smallest on, steps are unstable
    moving = Chains(lambda z: WIDE.prior.log_prob(z) + WIDE.likelihood(z).log_prob(x),
                    WIDE.posterior_draws(ONE_X, chains, seed=1), Noise(3))
    for i in range(moves):
        move = moving.transition(np.full(1, step * widths.min()), 3)
        if i == 0:
            ratio = np.exp(-move.energy_error[:, 0])
            likely_zero("exp(-dH)", ratio.mean() - 1, ratio.std() / math.sqrt(chains))
    acceptance = move.acceptance.mean()
    assert 0.2 < acceptance < 0.9, f"{acceptance}: at this step the test must have work to do"
    white = (moving.z[:, 0] - mean) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    for i in range(2):
        likely_zero("mean", white[:, i].mean(), white[:, i].std() / math.sqrt(chains))
        for j in range(i + 1):
            product = white[:, i] * white[:, j]
            likely_zero("covariance", product.mean() - (i == j), product.std() / math.sqrt(chains))


def test_draws_stay_in_the_posterior():
    check_law()


@pytest.mark.parametrize(("old", "new"), [
    ("xp.log1p(-u[0]) < -change", "change < 1e9"),  # no Metropolis test
    ("xp.log1p(-u[0]) < -change", "xp.log1p(-u[0]) < change"),  # its sign
    ("kinetic(r) - log_f - before", "self.log_f - log_f"),  # without the momentum's energy
    ("r = self.noise.normal(self.z.shape, dtype).data", "r = 0.7 * self.noise.normal(self.z.shape, dtype).data"),
])
def test_a_wrong_transition_fails(old, new, monkeypatch):
    mutate(monkeypatch, Chains, "transition", old, new)
    with pytest.raises(AssertionError):
        check_law()


# ---- steps, acceptance, determinism ----------------------------------------------------------------------------------


def check_tuning(target):
    chains = gaussian(starts(40, 5, 3))
    step = chains.settle(first_step_size(chains), 200, 4, target)
    assert step.shape == (5,)
    averages = MoveAverages(5)
    for _ in range(150):
        averages.add(chains.transition(step, 4))
    acceptance, error = averages.means()
    assert averages.moves == 150 * 40
    assert np.abs(acceptance - target).max() <= 0.04
    assert ((error > 0.01) & (error < 1)).all()


@pytest.mark.parametrize("target", [0.65, 0.9])
def test_the_step_is_tuned_to_the_acceptance(target):
    check_tuning(target)


def test_a_wrong_tuning_fails(monkeypatch):
    mutate(monkeypatch, hmc, "tuned", "gain * (acceptance - target))", "gain * (target - acceptance))")
    with pytest.raises(AssertionError):
        check_tuning(0.65)


def test_a_chain_is_a_function_of_seed_and_step():
    def end(seed, step):
        chains = gaussian(starts(2, 5, 3), seed, step)
        for _ in range(3):
            chains.transition(np.full(5, 0.3), 4)
        return chains.z

    assert_same_bits(end(1, 2), end(1, 2))
    for other in ((1, 3), (2, 2)):
        assert not np.array_equal(end(1, 2), end(*other))


def test_what_the_chains_hold_is_what_the_density_says():
    # also of those that were refused
    chains = gaussian(starts(6, 5, 3))
    accepted = [chains.transition(np.full(5, 0.6), 3).accepted for _ in range(4)]
    assert 0 < np.mean(accepted) < 1
    kept = [a.copy() for a in (chains.z, chains.log_f, chains.force)]
    chains.refresh()
    for a, b in zip(kept, (chains.z, chains.log_f, chains.force), strict=True):
        assert np.abs(a - b).max() <= 1e-12


def test_chains_refuse_where_there_is_no_number():
    # log f(z) = log z: no number below 0; a chain that begins there may come out, one that begins well never enters
    start = np.array([[[0.5]], [[0.2]], [[-1.0]]])
    with np.errstate(all="ignore"):
        chains = Chains(lambda z: (z.log() - z).sum(-1), start, Noise(0))
    for _ in range(50):
        move = chains.transition(np.full(1, 0.7), 3)
        assert np.isfinite(move.acceptance).all()
        assert (chains.z[:2] > 0).all()
    assert not np.isfinite(move.energy_error).all() or (chains.z > 0).all()


def test_a_density_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"log density of shape \(4, 3, 2\) for z \(4, 3, 2\); expected \(4, 3\)"):
        Chains(lambda z: -z * z, starts(4, 3, 2), Noise(0))
