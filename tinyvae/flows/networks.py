"""The network of a flow's map: two numbers for each element of z, from z and from h, with connections left out.

    hidden = relu((W_z * mask_in) z + W_h h + b),    outputs = gain * ((W * mask_out) hidden + c)

A mask holds 0 where an output must not depend on an input (Germain, Gregor, Murray & Larochelle 2015).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyvae.engine.devices import namespace_of
from tinyvae.engine.tensor import Tensor
from tinyvae.nn.layers import Linear


class MapNetwork:
    """The network, with its weights by name, and the masks (n, hidden) and (hidden, n) as truth values."""

    def __init__(self, weight: Callable[[str], Tensor], reads: np.ndarray, gives: np.ndarray) -> None:
        self.weights = {name: weight(name) for name in self.shapes(0, 0, 0)}
        self.reads, self.gives = reads, gives

    @staticmethod
    def shapes(n: int, given: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights, for z of n numbers and h of `given`."""
        return {"0.weight": (n, hidden), "0.weight.1": (given, hidden), "0.bias": (hidden,),
                "1.weight": (hidden, 2 * n), "1.bias": (2 * n,), "gain": (2 * n,)}

    def map(self, f: Callable[[Tensor], Tensor]) -> MapNetwork:
        return MapNetwork(lambda name: f(self.weights[name]), self.reads, self.gives)

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """The outputs, the first numbers of all elements beside the second ones, (samples, rows, 2 n), for z (samples,
        rows, n) and h (rows, given)."""
        w = self.weights
        masks = (Tensor(namespace_of(z.data).asarray(mask.astype(z.dtype)))
                 for mask in (self.reads, np.concatenate([self.gives, self.gives], 1)))
        first, last = (w[name] * mask for name, mask in zip(("0.weight", "1.weight"), masks, strict=True))
        hidden = Linear(first, w["0.bias"], "relu", w["0.weight.1"])(z, h)
        return w["gain"] * Linear(last, w["1.bias"])(hidden)
