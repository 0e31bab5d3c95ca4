"""Draws of log Gamma by rejection: the kernel against the readable form, addresses, attempts, what is no shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits, likely

import tinyvae as tv
from tinyvae.distributions import rejection as module
from tinyvae.distributions.rejection import log_gamma
from tinyvae.engine.noise import Noise


def draw(shape, samples=1, seed=5, step=0, kernel=True, sites=0):
    noise = Noise(seed, "test").restart(step)
    for _ in range(sites):
        noise.next_site()
    with tv.fused(kernel):
        return log_gamma(tv.Tensor(shape), noise, samples).data


def shapes(count, dtype, seed=0):
    """Shapes from 1e-3 to 1e5."""
    return np.exp(np.random.default_rng(seed).uniform(np.log(1e-3), np.log(1e5), count)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(count=st.integers(1, 300), samples=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_kernel_and_readable_form_accept_the_same_attempts(dtype, count, samples, seed):
    """Equal but for the last bits of logarithm and cosine, which grow where 1 + c x is near 0: another attempt would be
    another number altogether."""
    pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
    a = shapes(count, dtype, seed % 1000)
    found, twin = draw(a, samples, seed), draw(a, samples, seed, kernel=False)
    assert found.shape == twin.shape == (samples, count)
    assert found.dtype == dtype
    assert_close(found, twin, 1e6 if dtype == np.float64 else 2, scale=np.maximum(1, np.abs(twin)))


def test_a_kernel_that_skips_a_test_is_noticed(monkeypatch):
    """Everybody's first attempt, accepted or not, is not the readable draw."""
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    twin = draw(shapes(2000, np.float64), kernel=False)
    refused = np.isnan(twin).mean()
    print(f"{refused:.1%} of first attempts are refused")
    assert 0.001 < refused < 0.05
    with pytest.raises(AssertionError):
        assert_close(draw(shapes(2000, np.float64)), twin, 8)


def test_draws_have_addresses():
    """The same at the same address, others at another seed, step or site; a sample more changes none before."""
    a = shapes(50, np.float64)
    assert_same_bits(draw(a), draw(a))
    for other in ({"seed": 6}, {"step": 1}, {"sites": 1}):
        assert not (draw(a) == draw(a, **other)).any(), other
    assert_same_bits(draw(a, samples=3)[:2], draw(a, samples=2))


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("a", [1e-3, 0.3, 1.0, 2.5, 1e3])
def test_the_law_is_gammas(a, kernel):
    from scipy.special import gammaln
    from scipy.stats import gamma, kstest

    x = draw(np.full(20_000, a), seed=11, kernel=kernel)[0]
    # log G's distribution function, for G itself is 0 at small shapes: there F(w) = exp(a w) / Gamma(a + 1)
    below = lambda w: np.where(w < -50, np.exp(np.minimum(a * w - gammaln(a + 1), 0)), gamma(a).cdf(np.exp(w)))
    likely(f"shape {a}", kstest(x, below).pvalue)


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_shapes_are_no_zeros(dtype):
    w = draw(np.full(463_800, 1e-3, dtype))
    assert np.isfinite(w).all()
    assert w.min() < -5000
    assert (np.exp(w) == 0).mean() > 0.3


def test_what_is_no_shape_gives_no_number():
    for kernel in (True, False):
        with np.errstate(all="ignore"):
            found = draw(np.array([np.nan, -1.0, 2.0]), kernel=kernel)[0]
        assert np.isfinite(found).tolist() == [False, False, True]
