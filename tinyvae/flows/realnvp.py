"""Affine coupling, the map of Real NVP (Dinh, Sohl-Dickstein & Bengio 2017), whose inverse is as cheap as the map.

One half of z stays, and decides with h how the other half is stretched and moved:

    (t, s) = net(z_stays, h),    f(z)_stays = z_stays,    f(z)_moves = z_moves exp(tanh(s)) + t,
    log |det df/dz| = sum over what moves of tanh(s)

The inverse is y_moves = (z_moves - t) exp(-tanh(s)), with the same t and s. The halves change places from step to step.
The network of q(z|x) gives h. The output of `net` is multiplied by factors that begin at 0: f begins as the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinyvae.engine.devices import namespace_of
from tinyvae.engine.tensor import Tensor
from tinyvae.flows.base import FlowFamily, flow
from tinyvae.flows.networks import MapNetwork


class CouplingMap(NamedTuple):
    """f with its network, h (rows, n), and which elements move, truth values (n,)."""

    net: MapNetwork
    h: Tensor
    moves: np.ndarray

    def map(self, f: Callable[[Tensor], Tensor]) -> CouplingMap:
        return CouplingMap(self.net.map(f), f(self.h), self.moves)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        t, s = self._move(z)
        return z * s.exp() + t, s.sum(-1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        t, s = self._move(z)
        return (z - t) * (-s).exp(), s.sum(-1)

    def _move(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """t and tanh(s), 0 where nothing moves; the network's first mask hides what moves from it."""
        t, s = self.net(z, self.h).split(2)
        moves = Tensor(namespace_of(z.data).asarray(self.moves.astype(z.dtype)))
        return t * moves, s.tanh() * moves


@flow("realnvp")
class RealNvp(FlowFamily):
    """A flow of affine couplings, by default of four."""

    least = 2
    default = 4

    def weights(self) -> dict[str, tuple[int, ...]]:
        return MapNetwork.shapes(self.n, self.n, self.hidden)

    def of_step(self, t: int, read: Tensor) -> CouplingMap:
        moves = np.arange(self.n) % 2 == t % 2
        masks = np.repeat(~moves[:, None], self.hidden, 1), np.ones((self.hidden, self.n), bool)
        return CouplingMap(MapNetwork(lambda name: self.weight(t, name), *masks), read, moves)
