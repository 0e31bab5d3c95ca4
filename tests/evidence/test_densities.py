"""The densities of stable forms that chains move in."""

import numpy as np

import tinyvae as tv
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.hamiltonian.densities import log_density


def test_log_densities_are_summed_over_the_latents():
    # a normal gives one number for each element, a full normal one for each vector
    w = Tensor(np.random.default_rng(0).standard_normal((4, 3, 2)))
    normal = tv.distributions.Normal.standard(2, np.float64)
    full = tv.distributions.FullNormal(Tensor(np.zeros((3, 2))), Tensor(np.zeros((3, 2))), Tensor(np.zeros((3, 1))))
    for law in (normal, full):
        assert np.abs(log_density(law, w).data - normal.log_prob(w).data).max() <= 1e-12
