"""Gamma at shapes from 0.1 to 100: moments, entropy, standardised moments and divergences by quadrature."""

import pytest
from integrals import T
from properties import divergence, standardised_moments, summaries

import tinyvae as tv
from tinyvae.distributions import Gamma

SHAPES_AND_RATES = [(0.1, 2.0), (1.0, 0.5), (7.3, 1.0), (100.0, 3.0)]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("i", range(4))
def test_small_and_large_shapes(i, kernel):
    q, p = (Gamma(*(T([[v]]) for v in SHAPES_AND_RATES[j])) for j in (i, i - 3))
    with tv.fused(kernel):
        summaries(q)
        standardised_moments(q)
        divergence(q, p)
