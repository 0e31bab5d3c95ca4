"""A layer's bias and activation in one pass, and both gradients in one pass back."""

from __future__ import annotations

import numpy as np

from tinyvae_kernels.cuda.runtime.arguments import in_pieces, new_like, rows_of, same_type, warps, whole
from tinyvae_kernels.cuda.runtime.jobs import Array, Job, Launcher, Plan, blocks
from tinyvae_kernels.launching import chosen

# A block sums this many rows for a bias gradient; more where that would leave more sums than this, but never so many
# that the digits of a long sum are lost. The order depends on shapes only.
ROWS, MOST = 128, 2048
_FORWARD = {"identity": "identity", "relu": "relu", "tanh": "hyperbolic", "softplus": "softplus"}
_BACKWARD = {kind: f"{name}_grad" for kind, name in _FORWARD.items() if kind != "identity"}


@Launcher.question
def activates(*arrays: Array, kind: str) -> bool:
    """Is there a kernel of this activation?"""
    return kind in _FORWARD


@Launcher
def bias_activation(pre: Array, bias: Array, out: Array | None, kind: str) -> Plan:
    """activation(pre + bias): pre (..., n), bias (n,), result as pre."""
    out = new_like(pre) if out is None else out
    dtype, (rows, width) = same_type(pre, bias, out), rows_of(pre)
    pieces = in_pieces(width, pre, bias, out)
    columns = warps(width, dtype, pieces)
    grid = (columns, blocks(-(-rows // 8), columns))
    arguments = (pre, bias, out, whole(rows), np.int32(width), pieces)
    return out, [Job("activations", chosen(_FORWARD, kind), dtype, grid, (32, 8), arguments)] if pre.size else []


def _sum_columns(kernel: str, first: tuple[Array, ...], bias: Array, like: Array) -> list[Job]:
    (rows, width), dtype = rows_of(like), same_type(*first, bias)
    chunk = min(MOST, max(ROWS, -(-rows // ROWS)))
    chunks = max(1, -(-rows // chunk))
    sums = bias if chunks == 1 else new_like(bias, (chunks, width))
    pieces = in_pieces(width, *first, sums)
    arguments = (*first, sums, whole(rows), np.int32(width), np.int32(chunk), pieces)
    grid = (warps(width, dtype, pieces), chunks)
    jobs = [Job("activations", kernel, dtype, grid, (32, 8), arguments)]
    return jobs if chunks == 1 else jobs + _sum_columns("column_sums", (sums,), bias, sums)


@Launcher
def bias_activation_grad(g: Array, y: Array, out: tuple[Array, Array] | None, kind: str) -> Plan:
    """From the gradient g by the activation y: those by pre (as y) and by bias (n,)."""
    before, bias = out if out is not None else (new_like(y), new_like(y, y.shape[-1:]))
    return (before, bias), _sum_columns(chosen(_BACKWARD, kind), (g, y, before), bias, y)


@Launcher
def bias_grad(g: Array, out: Array | None) -> Plan:
    """The gradient by a bias, (n,): the sum of g (..., n) over all rows."""
    out = new_like(g, g.shape[-1:]) if out is None else out
    return out, _sum_columns("column_sums", (g,), out, g)
