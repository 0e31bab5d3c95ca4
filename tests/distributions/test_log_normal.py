"""Log-normal: the edges of its support, every log-variance, and moments of which one factor overflows."""

import mpmath
import numpy as np
import pytest
from exact import check_relative, exactly
from integrals import T
from scipy import stats
from support import DTYPES, assert_close

from tinyvae.distributions import LogNormal, kl
from tinyvae.engine.tensor import Tensor, grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logvar", [-400.0, -89.0, -2.0, 0.0, 3.0, 500.0])
def test_the_edges_of_the_support(logvar, dtype):
    """SciPy's values at 0 and at infinity: the density is 0 there; and it falls to 0 in every parameter."""
    x = Tensor(np.array([[0.0]], dtype), requires_grad=True)
    mu, leaf = Tensor(np.array([[0.3]], dtype), requires_grad=True), Tensor(np.array([[logvar]], dtype), True)
    with np.errstate(all="ignore"):
        value = LogNormal(mu, leaf).log_prob(x)
        slopes = grad(value.sum(), [x, mu, leaf])
        far = LogNormal(mu, leaf).log_prob(Tensor(np.array([[np.inf]], dtype)))
        expected = stats.lognorm.logpdf([0, np.inf], np.exp(logvar / 2), 0, np.exp(0.3))
    assert [value.item(), far.item()] == expected.tolist()
    assert [slope.item() for slope in slopes] == [np.inf, -np.inf, np.inf]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logvar", [-2000.0, -400.0, -89.0, 80.0, 400.0, 2000.0])
def test_the_density_at_every_log_variance(logvar, dtype):
    """At log x = mu: -(log 2 pi + logvar) / 2 - mu."""
    mu, leaf = Tensor(np.array([[0.0]], dtype), requires_grad=True), Tensor(np.array([[logvar]], dtype), True)
    value = LogNormal(mu, leaf).log_prob(T([[1.0]], dtype))
    assert_close(value.numpy(), [-0.5 * (np.log(2 * np.pi) + logvar)], 2)
    by_mu, by_logvar = grad(value.sum(), [mu, leaf])
    assert [by_mu.item(), by_logvar.item()] == [0, -0.5]


def test_moments_whose_factors_overflow():
    """Var[z] = (exp(sigma^2) - 1) E[z]^2 is 1 where E[z]^2 is infinite in float32."""
    q = LogNormal(T([[45.0]], np.float32), T([[-80.0]], np.float32))
    assert_close(q.variance.numpy(), [[np.exp(10.0)]], 64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_divergence_is_never_negative(dtype):
    near = (np.random.default_rng(0).normal(size=(500, 1)) * np.finfo(dtype).eps ** 0.5).astype(dtype)
    q, p = LogNormal(Tensor(0 * near), Tensor(near)), LogNormal(Tensor(0 * near), Tensor(0 * near))
    assert (kl(q, p).numpy() >= 0).all()
    check_relative("KL", kl(q, p).numpy(), exactly(lambda t: (mpmath.expm1(t) - t) / 2, near[:, 0]), 8)
