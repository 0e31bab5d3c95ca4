"""The normal with a full covariance: without correlation, element by element, and its triangular rows."""

import mpmath
import numpy as np
import pytest
from exact import check_relative, exactly
from integrals import T
from scipy_families import LOGVAR, LOWER, MU, ROWS, covariance
from support import DTYPES, assert_close, assert_same_bits

from tinyvae.distributions import FullNormal, Normal, kl, kl_per_dimension
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.engine.testing import check_gradients


def test_a_full_normal_without_correlation_is_a_normal():
    full, diagonal = FullNormal(T(MU), T(LOGVAR), T(LOWER * 0)), Normal(T(MU), T(LOGVAR))
    x = full.sample(Noise(0), 5)
    assert_close(x.numpy(), diagonal.sample(Noise(0), 5).numpy(), 4)
    assert_close(full.log_prob(x).numpy(), diagonal.log_prob(x).numpy(), 8)
    for p in (ROWS["normal"].others(), Normal.standard(3, np.float64)):
        assert_close(kl_per_dimension(full, p).numpy(), kl_per_dimension(diagonal, p).numpy(), 8)


def test_divergence_of_a_full_normal_by_element():
    """Element j's share is what the conditional q(z_j | z_1 .. z_(j-1)) diverges by, in the mean over those before."""
    q, p = ROWS["full-normal"].make(), ROWS["normal"].others()
    shares = kl_per_dimension(q, p).numpy()
    assert shares.shape == (2, 3)
    assert (shares >= 0).all()
    for i in range(2):
        S, P = covariance(LOGVAR[i], LOWER[i]), np.diag(np.exp(p.logvar.numpy()[i]))
        d = MU[i] - p.mu.numpy()[i]
        for j in range(1, 4):  # the first j elements by themselves
            s, r = S[:j, :j], P[:j, :j]
            whole = 0.5 * (np.trace(np.linalg.solve(r, s)) + d[:j] @ np.linalg.solve(r, d[:j]) - j
                           + np.linalg.slogdet(r)[1] - np.linalg.slogdet(s)[1])
            assert_close(shares[i, :j].sum(), whole, 64)
    # between two full ones, the whole
    other = ROWS["full-normal"].others()
    for i in range(2):
        S, P = covariance(LOGVAR[i], LOWER[i]), covariance(LOGVAR[1 - i], LOWER[1 - i])
        d = MU[i] - MU[1 - i]
        whole = 0.5 * (np.trace(np.linalg.solve(P, S)) + d @ np.linalg.solve(P, d) - 3
                       + np.linalg.slogdet(P)[1] - np.linalg.slogdet(S)[1])
        assert abs(kl(q, other).numpy()[i] - whole) <= 1e-12 * whole


def test_one_dimension_of_a_full_normal():
    q = FullNormal.from_raw(T([[0.5, -1.0]]))
    assert q.lower.shape == (1, 0)
    x = T([[0.2]])
    assert_close(q.log_prob(x).numpy(), Normal(T([[0.5]]), T([[-1.0]])).log_prob(x).numpy(), 4)
    assert q.factor.shape == (1, 1, 1)


def test_a_full_normal_says_what_it_expects():
    with pytest.raises(ValueError, match="found 6 numbers; expected 5 for 2 dimensions, 9 for 3"):
        FullNormal.from_raw(T([[0.0] * 6]))
    with pytest.raises(ValueError, match="found 2 numbers below the diagonal of 3 x 3; expected 3"):
        FullNormal(T([[0.0] * 3]), T([[0.0] * 3]), T([[0.0] * 2]))


def test_triangles():
    """Row by row below the diagonal, and back."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5):
        numbers = rng.normal(size=(2, 4, n * (n - 1) // 2))
        expected = np.zeros((2, 4, n, n))
        expected[..., *np.tril_indices(n, -1)] = numbers
        found = T(numbers).apply("strict_lower", n=n)
        assert_same_bits(found.numpy(), expected)
        assert_same_bits(found.apply("below_diagonal").numpy(), numbers)
    check_gradients(lambda a: a.apply("strict_lower", n=3) ** 2, rng.normal(size=(2, 3)), order=2)
    check_gradients(lambda a: a.apply("below_diagonal") ** 2, rng.normal(size=(2, 3, 3)), order=2)


@pytest.mark.parametrize("transposed", [False, True])
def test_triangular_solve(transposed):
    rng = np.random.default_rng(1)
    L = np.tril(rng.normal(size=(4, 3, 3)), -1) + np.eye(3) * rng.uniform(0.5, 2, (4, 1, 3))
    above = L + np.triu(rng.normal(size=(3, 3)), 1)  # which is not read
    b = rng.normal(size=(5, 4, 3))
    matrix = L.swapaxes(-1, -2) if transposed else L
    expected = np.linalg.solve(matrix, b[..., None])[..., 0]
    for dtype in DTYPES:
        found = T(above, dtype).apply("solve_lower", T(b, dtype), transposed=transposed)
        assert found.dtype == dtype
        assert_close(found.numpy(), expected, 64)
    for shape in ((5, 4, 3), (3,), (1, 3)):  # vectors of a batch, one for all
        check_gradients(lambda L, b: L.apply("solve_lower", b, transposed=transposed), above, rng.normal(size=shape),
                        order=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_divergence_keeps_its_digits_and_is_never_negative(dtype):
    """Of two dimensions, near and far from each other, from a diagonal normal and from a full one."""
    rng = np.random.default_rng(0)
    q, p = (10.0 ** rng.uniform(-6, 1, (2, 200, 5)) * rng.choice([-1, 1], (2, 200, 5))).astype(dtype)
    full, other = (FullNormal.from_raw(Tensor(v)) for v in (q, p))
    diagonal = Normal(Tensor(p[:, :2]), Tensor(p[:, 2:4]))

    def exact(m1, m2, l1, l2, c, n1, n2, k1, k2, e):
        # in eps = L_p^-1 (z - mu_p), with the factor M = L_p^-1 L_q = ((a, 0), (b, d))
        a, d = mpmath.exp((l1 - k1) / 2), mpmath.exp((l2 - k2) / 2)
        s = mpmath.exp(k2 / 2)
        b, first = (c - e * a) / s, (m1 - n1) * mpmath.exp(-k1 / 2)
        second = (m2 - n2 - e * first) / s
        return (a**2 + b**2 + d**2 - 2 - (l1 - k1) - (l2 - k2) + first**2 + second**2) / 2

    # the solve's own differences may cancel, so its error is relative to their terms, here below 1e9
    found = kl_per_dimension(full, other).numpy()
    assert (found >= 0).all()
    near = np.abs(p[:, 4]) < 1e-2
    check_relative("KL of full ones", kl(full, other).numpy()[near],
                   exactly(exact, *q[near].T, *p[near].T), 2000)
    found = kl_per_dimension(full, diagonal).numpy()
    assert (found >= 0).all()
    check_relative("KL from a diagonal one", kl(full, diagonal).numpy(),
                   exactly(lambda *v: exact(*v, 0), *q.T, *p[:, :4].T), 64)
