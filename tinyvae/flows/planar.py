"""Planar flows (Rezende & Mohamed 2015, eqs. 10 to 12): each map bends space along one direction.

    f(z) = z + u tanh(w . z + b),    log |det df/dz| = log |1 + (u . w) (1 - tanh^2(w . z + b))|

It is invertible if u . w > -1. For any u' that holds of u = u' + (m(w . u') - w . u') w / |w|^2 with m(a) = log(1 +
(e - 1) exp(a)) - 1, since u . w = m(w . u') > -1. Here m(0) = 0, so u' = 0 is the identity. The network of q(z|x) gives
u', w and b of every map for each x, u' times a factor that begins at 0. There is no closed form of the inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tinyvae.engine.tensor import Tensor
from tinyvae.flows.base import FlowFamily, OneWayFlow, flow

TINY = 1e-12  # beside |w|^2, which may be 0


class PlanarMap(NamedTuple):
    """f for each row: u' and w (rows, n), b (rows, 1)."""

    u: Tensor
    w: Tensor
    b: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> PlanarMap:
        return PlanarMap(*(f(each) for each in self))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        along = (self.w * self.u).sum(-1, keepdims=True)  # w . u'
        wanted = (along + math.log(math.e - 1)).softplus() - 1  # m(w . u') = w . u
        u = self.u + (wanted - along) * self.w / ((self.w * self.w).sum(-1, keepdims=True) + TINY)
        bent = ((self.w * z).sum(-1, keepdims=True) + self.b).tanh()
        return z + u * bent, (wanted * (1 - bent * bent)).log1p().sum(-1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        raise TypeError("a planar map has no inverse in closed form")


@flow("planar")
class Planar(FlowFamily):
    """A planar flow, by default of ten maps; all of its parameters but a factor depend on x."""

    law = OneWayFlow
    default = 10

    def read(self, n: int) -> int:
        return self.steps * (2 * n + 1)

    def weights(self) -> dict[str, tuple[int, ...]]:
        return {"gain": (self.n,)}

    def of_steps(self, read: Tensor) -> list[PlanarMap]:
        all_u = self.steps * self.n  # u' of all maps, then w of all, then b of all
        parts = (read[..., :all_u], read[..., all_u : 2 * all_u], read[..., 2 * all_u :])
        return [PlanarMap(u * self.weight(t, "gain"), w, b)
                for t, (u, w, b) in enumerate(zip(*(part.split(self.steps) for part in parts), strict=True))]
