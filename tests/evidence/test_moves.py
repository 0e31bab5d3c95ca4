"""The averages over the moves of many chains, and the groups in which the chains run."""

import numpy as np
import pytest

from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.hamiltonian import moves
from tinyvae.evidence.hamiltonian.hmc import Chains
from tinyvae.evidence.hamiltonian.moves import MoveAverages, groups

START = np.random.default_rng(0).standard_normal((3, 5, 3))  # (chains, batch, latent)


def test_the_averages_are_those_of_the_moves():
    averages, chains = MoveAverages(5), Chains(lambda z: -0.5 * (z * z).sum(-1), START, Noise(0))
    made = [chains.transition(np.full(5, 1.2), 3) for _ in range(7)]
    for move in made:
        averages.add(move)
    acceptance, accepted, change = (np.concatenate([getattr(m, name) for m in made])
                                    for name in ("acceptance", "accepted", "energy_error"))
    assert 0 < accepted.sum() < accepted.size
    expected = np.minimum(1, np.exp(-change))
    assert np.abs(acceptance - expected).max() <= 1e-12
    found = averages.means()
    assert np.abs(found[0] - expected.mean(0)).max() <= 1e-12
    assert np.abs(found[1] - [np.abs(change[:, j][accepted[:, j]]).mean() for j in range(5)]).max() <= 1e-12
    assert all(np.isnan(mean).all() for mean in MoveAverages(2).means())


@pytest.mark.parametrize("chains", [1, 7, 8])
def test_groups_are_all_chains(chains, monkeypatch):
    x = Tensor(np.zeros((5, 4)))
    for chunk, largest in ((10, 1), (60, 3), (10**6, chains)):
        monkeypatch.setattr(moves, "CHUNK", chunk)
        sizes = list(groups(chains, x))
        assert sum(sizes) == chains
        assert max(sizes) == min(largest, chains)
