"""x @ w for data x that are mostly zeros, such as pixels: the kernels leave the zeros out."""

from __future__ import annotations

from typing import Any

from tinyvae.engine.rules import ANY, INDEX, UNIT, of_shapes, rule
from tinyvae.engine.tensor import Tensor


def _nonzero(x: Any) -> int:
    return int((x != 0).sum())


# The kernel also gives the index of what is not 0, which its gradient reads; the twin has none to give. `pays`, beside
# the kernel, counts whether so many numbers of x are zeros that leaving them out is faster.
rule("sparse_matmul", twin=lambda x, w: (x @ w, None),
     grads=lambda g, y, x, w: (None, g[0].contiguous().apply("sparse_matmul_grad", y[1], x)),
     domain=(UNIT, ANY), outputs=2, kernel="sparse_matmul", asks="pays", constants=(0,),
     accepts=of_shapes(lambda x, w: len(x) == len(w) == 2 and x[1] == w[0]),
     flops=lambda y, x, w: 2 * _nonzero(x) * y.shape[-1])
rule("sparse_matmul_grad", twin=lambda g, index, x: x.swap() @ g, domain=(ANY, INDEX, UNIT),
     kernel="sparse_matmul_grad",
     accepts=of_shapes(lambda g, index, x: len(x) == 2 and g[:1] == x[:1] and index == (x[0], -(-x[1] // 64))),
     flops=lambda y, g, index, x: 2 * _nonzero(x) * y.shape[-1])


def sparse_matmul(x: Tensor, w: Tensor) -> Tensor:
    """x (rows, inputs) @ w (inputs, n) for data x, by which the kernel has no derivative (its twin has)."""
    return x.apply("sparse_matmul", w)[0]
