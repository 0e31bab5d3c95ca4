"""Running many chains: how many move at once, and the averages over their moves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyvae.engine.devices import to_host
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.diagnostics import LOWER, Quantity
from tinyvae.evidence.hamiltonian.hmc import TARGET, Move

# The largest number of pixels, over all chains, that move at once. It bounds the memory and lets the arrays fit into
# the caches.
CHUNK, CHUNK_OF_A_GPU = 2**17, 2**24


def groups(chains: int, x: Tensor) -> Iterator[int]:
    """The sizes of the groups of chains that run one after the other; each datum of x has `chains` chains in all."""
    size = max(1, (CHUNK if x.device == "cpu" else CHUNK_OF_A_GPU) // x.size)
    for start in range(0, chains, size):
        yield min(size, chains - start)


class MoveAverages:
    """The mean acceptance and the mean energy error of each datum's moves, in memory that does not grow with them."""

    def __init__(self, batch: int) -> None:
        self.moves, (self._probability, self._accepted, self._error) = 0, np.zeros((3, batch))

    def add(self, move: Move) -> None:
        """Add one transition of some chains."""
        error = abs(move.energy_error)
        error[~move.accepted] = 0
        self.moves += len(error)
        self._probability += to_host(move.acceptance.sum(0))
        self._accepted += to_host(move.accepted.sum(0))
        self._error += to_host(error.sum(0))

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean acceptance probability, and the mean |dH| of accepted moves in nats, each (batch,)."""
        with np.errstate(all="ignore"):  # NaN if no move was added
            return self._probability / np.float64(self.moves), self._error / self._accepted


def move_quantities(acceptance: float | None, energy_error: float | None, leapfrog: int | None) -> list[Quantity]:
    """The averages over moves for a table; none for a method without moves."""
    if acceptance is None or energy_error is None:
        return []
    return [Quantity("acceptance", acceptance, None, f"of {leapfrog} leapfrog steps", f"aim: {TARGET}"),
            Quantity("energy error", energy_error, None, "nats, if accepted", LOWER)]
