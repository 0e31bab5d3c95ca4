"""The negative binomial distribution: SciPy, mpmath at extreme parameters, the Poisson as its limit, and draws."""

import mpmath as mp
import numpy as np
import pytest
from integrals import T
from properties import check_frequencies
from scipy import stats
from support import DTYPES, assert_close

from tinyvae.distributions import LogTensor, NegativeBinomial, Poisson
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad

MU, THETA = np.array([0.25, 3.0, 40.0]), np.array([0.5, 8.0, 2.0])
COUNTS = np.arange(60.0)[:, None]


class DispersionForTheta(NegativeBinomial):
    """1 / theta taken for theta."""

    def log_density(self, w):
        return NegativeBinomial(self.mu, 1 / self.theta).log_density(w)


def check(q, x, expected, units=16):
    assert_close(q.log_density(x).numpy(), expected, units)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mass_is_scipys(dtype):
    # (to its 1e-13; mpmath has all digits)
    expected = np.vectorize(lambda *numbers: exactly(*numbers)[0])(MU, THETA, COUNTS)
    assert np.abs(expected - stats.nbinom(THETA, THETA / (THETA + MU)).logpmf(COUNTS)).max() < 1e-12
    check(NegativeBinomial(T(MU, dtype), T(THETA, dtype)), T(COUNTS, dtype), expected)
    with pytest.raises(AssertionError):
        check(DispersionForTheta(T(MU, dtype), T(THETA, dtype)), T(COUNTS, dtype), expected)


def exactly(mu, theta, x):
    with mp.workdps(60):
        m, t, x = map(mp.mpf, (mu, theta, x))
        value = (mp.loggamma(x + t) - mp.loggamma(t) - mp.loggamma(x + 1) - t * mp.log1p(m / t)
                 + x * (mp.log(m) - mp.log(t + m)))
        return float(value), float((x - m) * t / (t + m))  # and the derivative by log mu


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mu", [2.0**-12, 3.0, 2.0**20])
@pytest.mark.parametrize("theta", [2.0**-30, 1.0, 2.0**30])
@pytest.mark.parametrize("x", [0.0, 1.0, 5.0, 2.0**20])
def test_extreme_numbers(dtype, mu, theta, x):
    # the log Gamma of 2^30 are 2e10, where the mass of theta = 2^30 is that of a Poisson
    value, slope = exactly(mu, theta, x)
    leaf = T([mu], dtype, requires_grad=True)
    found = NegativeBinomial(leaf, T([theta], dtype)).log_prob(T([x], dtype))
    moved = abs(value) + abs(slope)  # how far a rounding of the inputs alone may move it
    assert_close(found.numpy(), value, 16, scale=max(1, moved))
    of_slope = max(1, abs(slope) + mu * theta / (theta + mu))
    assert_close(grad(found, leaf).numpy() * mu, [slope], 16, scale=of_slope)


def test_parameters_known_by_their_logarithm():
    # e^-120 is no float32, and the logarithm of it is
    for log_mu, log_theta in ((-120.0, 0.0), (0.0, -120.0)):
        raw = [Tensor(np.array([v], np.float32)) for v in (log_mu, log_theta)]
        found = NegativeBinomial(*map(LogTensor, raw)).log_prob(T([2.0], np.float32)).item()
        assert found == pytest.approx(exactly(*map(mp.exp, (log_mu, log_theta)), 2)[0], rel=1e-6)


def test_a_large_theta_gives_the_poisson():
    rate = T([0.5, 3.0, 20.0])
    found = NegativeBinomial(rate, T([1e13] * 3)).log_density(T(COUNTS)).numpy()
    assert np.abs(found - Poisson(rate).log_density(T(COUNTS)).numpy()).max() < 1e-9


def test_what_is_no_count():
    q = NegativeBinomial(T([2.0]), T([3.0]))
    assert q.log_prob(T([-1.0])).item() == -np.inf
    assert np.isfinite(q.log_prob(T([1e15])).item())


def test_draws_have_this_law():
    z = NegativeBinomial(T(MU), T(THETA)).sample(Noise(5), 20_000).numpy()
    for j in range(3):
        mass = stats.nbinom(THETA[j], THETA[j] / (THETA[j] + MU[j])).pmf(np.arange(400))
        check_frequencies(f"counts of mean {MU[j]}", np.bincount(z[:, j].astype(int), minlength=400), mass)
