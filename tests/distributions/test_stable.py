"""Tensors that keep their logarithm, and draws at shapes so small that nothing else of them is left."""

import numpy as np
import pytest
from integrals import T, member
from scipy import special, stats
from support import DTYPES, assert_close, assert_same_bits, likely

from tinyvae.distributions import Beta, Dirichlet, Gamma, LogTensor, UnitTensor
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import grad

DRAWS = 20_000
TINY = 1e-3
SHAPES = (np.array([[0.7, 1.0, 2.5], [12.0, 0.3, 1.4]]), np.array([[2.0, 0.4, 1.0], [3.1, 0.6, 5.0]]))


def test_a_tensor_carries_its_logarithms():
    w = T([[-2000.0, 3.0, 2000.0]], requires_grad=True)
    z = Beta(T([1.0]), T([1.0])).from_stable(w)
    assert isinstance(z, UnitTensor)
    assert z.log().numpy().tolist() == [[-2000.0, -np.log1p(np.exp(-3.0)), 0.0]]
    assert (1 - z).log().numpy().tolist() == [[0.0, -np.logaddexp(0, 3.0), -2000.0]]
    assert_same_bits((1 - (1 - z)).log().numpy(), z.log().numpy())
    assert_same_bits(z.logit().numpy(), w.numpy())
    assert_same_bits((1.0 - z).numpy(), special.expit(-w.numpy()))
    for changed, same in ((z.reshape(3), w.reshape(3)), (z[..., 1:], w[..., 1:]), (z.T, w.T), (z.detach(), w.detach()),
                          (z.broadcast_to((2, 3)), w.broadcast_to((2, 3))), (z.contiguous(), w)):
        assert_same_bits(changed.logit().numpy(), same.numpy())
    assert (z**2).log().numpy()[0, 0] == -4000
    assert z.sqrt().log().numpy()[0, 0] == -1000
    assert grad(z.log().sum(), w).numpy()[0, 0] == 1  # where exp(-2000) is 0
    assert not z.detach().requires_grad
    assert not z.detach().log().requires_grad
    assert not isinstance(z + 1, LogTensor)
    assert_same_bits((2 - z).numpy(), 2 - z.numpy())


def log_gamma_cdf(w, a):
    """P(log z < w) for a small shape, also where z is below the smallest number: F = z^a / Gamma(a + 1) there."""
    return np.where(w > -600, special.gammainc(a, np.exp(w)), np.exp(a * w - special.gammaln(a + 1)))


def logit_cdf(w, a, b):
    """Likewise P(logit z < w) for a Beta: near 0, F = z^a / (a B(a, b))."""
    tail = np.where(w < 0, a, b)
    far = np.exp(-tail * np.abs(w) - np.log(tail) - special.betaln(a, b))
    return np.where(np.abs(w) < 30, special.betainc(a, b, special.expit(w)), np.where(w < 0, far, 1 - far))


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_at_tiny_shapes_keep_their_logarithms(dtype):
    """At shape 0.001 a Gamma draw is below float32's numbers nine times of ten; its logarithm is a number like any."""
    shape = T([[TINY]], dtype)
    z = Gamma(shape, T([[1.0]], dtype)).sample(Noise(21), DRAWS)
    w = z.log().numpy().astype(np.float64).reshape(-1)
    assert np.isfinite(w).all()
    assert (z.numpy() == 0).mean() > (0.4 if dtype == np.float64 else 0.8)
    likely("Gamma(0.001)", stats.kstest(log_gamma_cdf(w, TINY), "uniform").pvalue)

    z = Beta(shape, shape).sample(Noise(22), DRAWS)
    log_z, log_rest = (t.log().numpy().astype(np.float64).reshape(-1) for t in (z, 1 - z))
    assert np.isfinite(log_z).all()
    assert np.isfinite(log_rest).all()
    assert (np.maximum(log_z, log_rest) > -0.7).all()
    likely("Beta(0.001, 0.001)", stats.kstest(logit_cdf(log_z - log_rest, TINY, TINY), "uniform").pvalue)

    z = Dirichlet(T([[TINY] * 3], dtype)).sample(Noise(23), DRAWS)
    log_z = z.log().numpy().astype(np.float64).reshape(-1, 3)
    assert np.isfinite(log_z).all()
    # the largest's logarithm, some -1e-3 at most beside others of -10,000, has its digits: the sum is 1
    assert_close(np.exp(log_z).sum(-1).astype(dtype), np.ones(DRAWS), 4)
    first = log_z[:, 0] - np.logaddexp(log_z[:, 1], log_z[:, 2])
    likely("Dirichlet(0.001, 0.001, 0.001)", stats.kstest(logit_cdf(first, TINY, 2 * TINY), "uniform").pvalue)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [Gamma, Beta, Dirichlet])
def test_all_is_finite_at_tiny_shapes(family, dtype):
    """Value and gradient of all that is written in the kept logarithms."""
    count = len(member(family, 3).parameters)
    leaves = [T(np.full((1, 3), TINY), dtype, requires_grad=True) for _ in range(count)]
    q = family(*leaves)
    z = q.sample(Noise(24), 200)
    w = q.to_stable(z)
    eps = q.standardise(w)
    for what in (q.log_prob(z), q.log_density(w), q.log_density(q.unstandardise(eps.detach())), eps, q.entropy(),
                 q.log_scale()):
        assert np.isfinite(what.numpy()).all()
        for g in grad(what.sum(), leaves):
            assert np.isfinite(g.numpy()).all()


@pytest.mark.parametrize("family", [Gamma, Beta, Dirichlet])
def test_both_types_accept_the_same_attempts(family):
    """Rejection is decided in float64: a draw of float32 is that of float64, rounded."""
    parameters = SHAPES[: len(member(family, 3).parameters)]
    single, double = (family(*(T(p, dtype) for p in parameters)).sample(Noise(12), 2000).log().numpy()
                      for dtype in DTYPES)
    assert_close(single, double, 8, scale=1 + np.abs(double))
