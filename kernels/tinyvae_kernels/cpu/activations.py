"""A layer's bias and activation in one pass, and both gradients in one pass back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import Kernel, kernel, rows_of
from tinyvae_kernels.cpu.runtime.elementary import exp, log1p, tanh
from tinyvae_kernels.cpu.runtime.helpers import helper
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan
from tinyvae_kernels.cpu.runtime.memory import Matrix, Pointer, Vector, vector
from tinyvae_kernels.cpu.runtime.shares import columns, share
from tinyvae_kernels.launching import chosen

# The forward kernels go over rows, because memory delivers whole rows fastest. The backward kernels go over columns:
# one thread then sums the gradient of a bias from the first row to the last. The sums of each ROWS rows are a row of
# their own, and these rows are summed in their turn: of 2^20 equal float32 numbers that are added one by one, a
# hundredth is lost.

ROWS = 256


@kernel()
def _identity(pre: Matrix, bias: Vector, out: Matrix, part: int, parts: int) -> None:
    rows, width = pre.shape
    first, last = share(rows, part, parts)
    for i in range(first, last):
        for j in range(width):
            out[i, j] = pre[i, j] + bias[j]


@kernel()
def _tanh(pre: Matrix, bias: Vector, out: Matrix, part: int, parts: int) -> None:
    rows, width = pre.shape
    first, last = share(rows, part, parts)
    for i in range(first, last):
        for j in range(width):
            out[i, j] = tanh(pre[i, j] + bias[j])


@kernel()
def _relu(pre: Matrix, bias: Vector, out: Matrix, part: int, parts: int) -> None:
    rows, width = pre.shape
    zero = pre.dtype.type(0)
    first, last = share(rows, part, parts)
    for i in range(first, last):
        for j in range(width):
            a = pre[i, j] + bias[j]
            out[i, j] = zero if a < zero else a  # a NaN is not below zero, and stays


@kernel()
def _softplus(pre: Matrix, bias: Vector, out: Matrix, part: int, parts: int) -> None:
    rows, width = pre.shape
    zero = pre.dtype.type(0)
    first, last = share(rows, part, parts)
    for i in range(first, last):
        for j in range(width):
            a = pre[i, j] + bias[j]
            out[i, j] = (zero if a < zero else a) + log1p(exp(-abs(a)))  # log(1 + exp(a)), without overflow


@helper
def _clear(sums: Any, chunk: Any, width: Any, start: Any, stop: Any) -> Any:
    # the columns from `start` to `stop` of a row of sums; returns where this row begins
    for j in range(start, stop):
        sums[chunk * width + j] = 0
    return chunk * width


@kernel()
def _tanh_grad(g: Pointer, y: Pointer, out: Pointer, sums: Pointer, rows: int, width: int, part: int,
               parts: int) -> None:
    t = vector(g, 1).dtype.type
    start, stop = columns(width, part, parts)
    for chunk in range(max(1, (rows + ROWS - 1) // ROWS)):
        at = _clear(sums, chunk, width, start, stop)
        for i in range(chunk * ROWS, min(rows, (chunk + 1) * ROWS)):
            for j in range(start, stop):
                k = i * width + j
                out[k] = g[k] * (t(1) - y[k] * y[k])
                sums[at + j] += out[k]


@kernel()
def _relu_grad(g: Pointer, y: Pointer, out: Pointer, sums: Pointer, rows: int, width: int, part: int,
               parts: int) -> None:
    # where y is not above 0, it is 0, or NaN at a NaN: what the gradient is there
    t = vector(g, 1).dtype.type
    start, stop = columns(width, part, parts)
    for chunk in range(max(1, (rows + ROWS - 1) // ROWS)):
        at = _clear(sums, chunk, width, start, stop)
        for i in range(chunk * ROWS, min(rows, (chunk + 1) * ROWS)):
            for j in range(start, stop):
                k = i * width + j
                out[k] = g[k] if y[k] > t(0) else y[k]
                sums[at + j] += out[k]


@kernel()
def _softplus_grad(g: Pointer, y: Pointer, out: Pointer, sums: Pointer, rows: int, width: int, part: int,
                   parts: int) -> None:
    # y = log(1 + exp(a)) has the slope sigmoid(a) = 1 - exp(-y); for small y, where digits would cancel, the series
    t = vector(g, 1).dtype.type
    start, stop = columns(width, part, parts)
    one, half, sixth, twenty_fourth, small = t(1), t(0.5), t(1 / 6), t(1 / 24), t(1e-3)
    for chunk in range(max(1, (rows + ROWS - 1) // ROWS)):
        at = _clear(sums, chunk, width, start, stop)
        for i in range(chunk * ROWS, min(rows, (chunk + 1) * ROWS)):
            for j in range(start, stop):
                k = i * width + j
                v = y[k]
                series = v * (one - v * (half - v * (sixth - v * twenty_fourth)))
                out[k] = g[k] * (series if v < small else one - exp(-v))
                sums[at + j] += out[k]


@kernel()
def _column_sums(g: Pointer, sums: Pointer, rows: int, width: int, part: int, parts: int) -> None:
    start, stop = columns(width, part, parts)
    for chunk in range(max(1, (rows + ROWS - 1) // ROWS)):
        at = _clear(sums, chunk, width, start, stop)
        for i in range(chunk * ROWS, min(rows, (chunk + 1) * ROWS)):
            for j in range(start, stop):
                sums[at + j] += g[i * width + j]


# by activation: the kernel, and how many simple operations it takes for an element
_FORWARD = {"identity": (_identity, 1), "tanh": (_tanh, 8), "relu": (_relu, 1), "softplus": (_softplus, 8)}
_BACKWARD = {"tanh": (_tanh_grad, 1), "relu": (_relu_grad, 1), "softplus": (_softplus_grad, 8)}


@Launcher.question
def activates(*arrays: Array, kind: str) -> bool:
    """Is there a kernel of this activation?"""
    return kind in _FORWARD


@Launcher
def bias_activation(pre: Array, bias: Array, out: Array | None, kind: str) -> Plan:
    """activation(pre + bias): pre (..., n), bias (n,), result as pre."""
    out = np.empty_like(pre) if out is None else out
    kernel, cost = chosen(_FORWARD, kind)
    return out, [Job(kernel, pre, bias, out, work=cost * pre.size)]


def _sum_columns(kernel: Kernel, first: tuple[Array, ...], bias: Array, like: Array, cost: int = 1) -> list[Job]:
    """The jobs of a kernel that sums the columns of `like`, a row of sums for each ROWS rows, until one row is left."""
    rows, width = rows_of(like)
    chunks = max(1, -(-rows // ROWS))
    sums = bias if chunks == 1 else np.empty((chunks, width), bias.dtype)
    jobs = [Job(kernel, *first, sums, rows, width, work=cost * like.size)]
    return jobs if chunks == 1 else jobs + _sum_columns(_column_sums, (sums,), bias, sums)


@Launcher
def bias_activation_grad(g: Array, y: Array, out: tuple[Array, Array] | None, kind: str) -> Plan:
    """From the gradient g by the activation y: those by pre (as y) and by bias (n,)."""
    before, bias = out if out is not None else (np.empty_like(y), np.empty(y.shape[-1], y.dtype))
    kernel, cost = chosen(_BACKWARD, kind)
    return (before, bias), _sum_columns(kernel, (g, y, before), bias, y, cost)


@Launcher
def bias_grad(g: Array, out: Array | None) -> Plan:
    """The gradient by a bias, (n,): the sum of g (..., n) over all rows."""
    out = np.empty(g.shape[-1], g.dtype) if out is None else out
    return out, _sum_columns(_column_sums, (g,), out, g)
