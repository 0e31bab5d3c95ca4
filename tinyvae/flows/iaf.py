"""Inverse autoregressive flow (Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016).

    (m, s) = net(z, h),    g = sigmoid(s + 2),    f(z) = g z + (1 - g) m,    log |det df/dz| = sum_i log g_i

The i-th elements of m and s depend on z_1 .. z_(i-1) and on h alone, so df/dz is triangular, with g on its diagonal.
All elements are computed at once. The inverse finds one element after the other: y_i = (z_i - (1 - g_i) m_i) / g_i,
where m_i and g_i follow from y_1 .. y_(i-1), as many passes as there are dimensions. Every second step goes through the
elements in reverse order.

The network of q(z|x) gives h. The output of `net` is multiplied by factors that begin at 0, so a step begins as f(z) =
0.88 z; g is near 1, as in the paper, so that a step at first changes little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinyvae.engine.tensor import Tensor
from tinyvae.flows.base import FlowFamily, flow
from tinyvae.flows.networks import MapNetwork

OPEN = 2.0  # what is added to s


class IafMap(NamedTuple):
    """f with its network, and h (rows, n)."""

    net: MapNetwork
    h: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> IafMap:
        return IafMap(self.net.map(f), f(self.h))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.net(z, self.h)
        gate = (s + OPEN).sigmoid()
        return gate * z + (1 - gate) * m, -((-OPEN - s).softplus()).sum(-1)  # log sigmoid(a) = -log(1 + exp(-a))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y = z
        for _ in range(z.shape[-1]):  # after k passes k elements are right
            m, s = self.net(y, self.h)
            gate = (s + OPEN).sigmoid()
            y = (z - (1 - gate) * m) / gate
        return y, self.forward(y)[1]


@flow("iaf")
class Iaf(FlowFamily):
    """An inverse autoregressive flow, by default of two steps."""

    def weights(self) -> dict[str, tuple[int, ...]]:
        return MapNetwork.shapes(self.n, self.n, self.hidden)

    def of_step(self, t: int, read: Tensor) -> IafMap:
        place = np.arange(1, self.n + 1)  # of each element in the order of this step
        order = place if t % 2 == 0 else place[::-1]
        # A hidden unit of degree d reads the elements up to the d-th, and serves those beyond it; of degree 0, h alone.
        degree = np.arange(self.hidden) % self.n
        masks = order[:, None] <= degree[None, :], degree[:, None] < order[None, :]
        return IafMap(MapNetwork(lambda name: self.weight(t, name), *masks), read)
