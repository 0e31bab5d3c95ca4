"""Beta at shapes from 0.1 to 100: moments, entropy, standardised moments and divergences by quadrature."""

import pytest
from integrals import T
from properties import divergence, standardised_moments, summaries

import tinyvae as tv
from tinyvae.distributions import Beta

SHAPES = [(0.1, 0.2), (0.5, 4.0), (1.0, 1.0), (30.0, 2.0), (80.0, 100.0)]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("i", range(5))
def test_small_and_large_shapes(i, kernel):
    q, p = (Beta(*(T([[v]]) for v in SHAPES[j])) for j in (i, i - 4))
    with tv.fused(kernel):
        summaries(q)
        standardised_moments(q)
        divergence(q, p)
