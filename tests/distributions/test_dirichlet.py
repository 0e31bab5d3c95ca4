"""The Dirichlet of two numbers is a Beta."""

import numpy as np
from integrals import T
from scipy_families import OTHERS, POSITIVE
from support import assert_close

from tinyvae.distributions import Beta, Dirichlet, kl


def test_a_dirichlet_of_two_is_a_beta():
    a, b = POSITIVE.reshape(-1, 1), OTHERS.reshape(-1, 1)
    two, beta = Dirichlet(T(np.concatenate([a, b], -1))), Beta(T(a), T(b))
    w = T(np.random.default_rng(0).normal(0, 3, (5, 6, 1)))
    assert_close(two.log_density(w).numpy(), beta.log_density(w).numpy()[..., 0], 32)
    for what in ("standardise", "unstandardise"):
        assert_close(getattr(two, what)(w).numpy(), getattr(beta, what)(w).numpy(), 16, what)
    assert_close(two.log_scale().numpy(), beta.log_scale().numpy()[:, 0], 8)
    assert_close(two.entropy().numpy(), beta.entropy().numpy(), 64)
    assert_close(two.from_stable(w).numpy()[..., :1], beta.from_stable(w).numpy(), 4)
    other = Dirichlet(T(np.concatenate([b, a], -1)))
    assert_close(kl(two, other).numpy(), kl(beta, Beta(T(b), T(a))).numpy(), 128)
