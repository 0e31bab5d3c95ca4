"""Inverse autoregressive flow (Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016).

    (m, s) = net(z, h),    g = sigmoid(s + 2),    c = 1 / sigmoid(2),
    f(z) = c g z + (1 - g) m,    log |det df/dz| = sum_i log c g_i

The i-th elements of m and s depend on z_1 .. z_(i-1) and on h alone, so df/dz is triangular, with c g on its diagonal.
All elements are computed at once. The inverse finds one element after the other: y_i = (z_i - (1 - g_i) m_i) / (c g_i),
where m_i and g_i follow from y_1 .. y_(i-1), as many passes as there are dimensions. Every second step goes through the
elements in reverse order.

The network of q(z|x) gives h. The output of `net` is multiplied by factors that begin at 0, so a step begins as the
identity: the paper has c = 1, with which it would begin as f(z) = 0.88 z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyvae.engine.rules import ANY, of_shapes, rule
from tinyvae.engine.tensor import Tensor, apply
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
        return apply("gate", self.net(z, self.h), z, opening=OPEN)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y = z
        for _ in range(z.shape[-1]):  # after k passes k elements are right
            m, a = _opened(self.net(y, self.h), OPEN)
            y = (z - (-a).sigmoid() * m) / (a.sigmoid() / _sigmoid(OPEN))
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


# ---- what follows the network, in one pass ---------------------------------------------------------------------------


def _sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def _opened(raw: Tensor, opening: float) -> tuple[Tensor, Tensor]:
    """m, and the a of g = sigmoid(a) and 1 - g = sigmoid(-a)."""
    m, s = raw.split(2)
    return m, s + opening


def _gate(raw: Tensor, z: Tensor, opening: float) -> tuple[Tensor, Tensor]:
    m, a = _opened(raw, opening)
    first = _sigmoid(opening)
    log_det = -((-a).softplus() + math.log(first)).sum(-1)  # log sigmoid(a) = -log(1 + exp(-a))
    return a.sigmoid() / first * z + (-a).sigmoid() * m, log_det


def _gate_grads(g: Any, y: Any, raw: Tensor, z: Tensor, opening: float) -> tuple[Tensor, Tensor]:
    by_raw, by_z = g[0].contiguous().apply("gate_grad", g[1].contiguous(), raw, z, opening=opening)
    return by_raw, by_z


def _gate_grad(dout: Tensor, dsum: Tensor, raw: Tensor, z: Tensor, opening: float) -> tuple[Tensor, Tensor]:
    m, a = _opened(raw, opening)
    g, rest, first = a.sigmoid(), (-a).sigmoid(), _sigmoid(opening)
    by_s = (dout * (z / first - m) * g + dsum.reshape(*dsum.shape, 1)) * rest  # dg/ds = g (1 - g), d log g/ds = 1 - g
    return (dout * rest).concatenate(by_s, axis=-1), dout * (g / first)


# raw is (..., 2 n), m and s side by side, and z (..., n); of the results one is as z, and the other (...)
rule("gate", twin=_gate, grads=_gate_grads, domain=(ANY, ANY), outputs=2, kernel="gate",
     accepts=of_shapes(lambda raw, z: len(z) > 1 and raw == (*z[:-1], 2 * z[-1])), flops=lambda y, raw, z: 10 * z.size)
rule("gate_grad", twin=_gate_grad, domain=(ANY,) * 4, outputs=2, kernel="gate_grad",
     accepts=of_shapes(lambda dout, dsum, raw, z: len(z) > 1 and dout == z and dsum == z[:-1]
                       and raw == (*z[:-1], 2 * z[-1])),
     flops=lambda y, dout, dsum, raw, z: 12 * z.size)
