"""A layer's bias and activation in one pass, and both gradients in one pass back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import columns, kernel, share, vector
from tinyvae_kernels.cpu.runtime.elementary import exp, log1p, tanh
from tinyvae_kernels.cpu.runtime.team import Array, Job, Launcher, Plan, flat, rows_of

# Forward over rows, which memory gives fastest; back over columns, whose bias gradients a thread sums from the first
# row to the last. (Pointers instead of arrays, because an index that starts from anything but 0 might be negative, and
# Numba would look.)


@kernel()
def _identity(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    pre, bias, out, width = p[0], p[1], p[2], n[1]
    first, last = share(n[0], part, parts)
    for i in range(first, last):
        for j in range(width):
            out[i * width + j] = pre[i * width + j] + bias[j]


@kernel()
def _tanh(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    pre, bias, out, width = p[0], p[1], p[2], n[1]
    first, last = share(n[0], part, parts)
    for i in range(first, last):
        for j in range(width):
            out[i * width + j] = tanh(pre[i * width + j] + bias[j])


@kernel()
def _relu(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    pre, bias, out, width, zero = p[0], p[1], p[2], n[1], vector(p[0], 1).dtype.type(0)
    first, last = share(n[0], part, parts)
    for i in range(first, last):
        for j in range(width):
            a = pre[i * width + j] + bias[j]
            out[i * width + j] = zero if a < zero else a  # a NaN is not below zero, and stays


@kernel()
def _softplus(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    pre, bias, out, width, zero = p[0], p[1], p[2], n[1], vector(p[0], 1).dtype.type(0)
    first, last = share(n[0], part, parts)
    for i in range(first, last):
        for j in range(width):
            a = pre[i * width + j] + bias[j]
            out[i * width + j] = (zero if a < zero else a) + log1p(exp(-abs(a)))


@kernel()
def _tanh_grad(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    g, y, out, bias, width, t = p[0], p[1], p[2], p[3], n[1], vector(p[0], 1).dtype.type
    start, stop = columns(width, part, parts)
    for j in range(start, stop):
        bias[j] = 0
    for i in range(n[0]):
        for j in range(start, stop):
            k = i * width + j
            out[k] = g[k] * (t(1) - y[k] * y[k])
            bias[j] += out[k]


@kernel()
def _relu_grad(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    g, y, out, bias, width, t = p[0], p[1], p[2], p[3], n[1], vector(p[0], 1).dtype.type
    start, stop = columns(width, part, parts)
    for j in range(start, stop):
        bias[j] = 0
    for i in range(n[0]):
        for j in range(start, stop):
            k = i * width + j
            out[k] = g[k] if y[k] > t(0) else t(0)
            bias[j] += out[k]


@kernel()
def _softplus_grad(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    # y = log(1 + exp(a)) has the slope sigmoid(a) = 1 - exp(-y); for small y, where digits would cancel, the series
    g, y, out, bias, width, t = p[0], p[1], p[2], p[3], n[1], vector(p[0], 1).dtype.type
    start, stop = columns(width, part, parts)
    one, half, sixth, twenty_fourth, small = t(1), t(0.5), t(1 / 6), t(1 / 24), t(1e-3)
    for j in range(start, stop):
        bias[j] = 0
    for i in range(n[0]):
        for j in range(start, stop):
            k = i * width + j
            v = y[k]
            series = v * (one - v * (half - v * (sixth - v * twenty_fourth)))
            out[k] = g[k] * (series if v < small else one - exp(-v))
            bias[j] += out[k]


@kernel()
def _column_sums(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    g, bias, width = p[0], p[1], n[1]
    start, stop = columns(width, part, parts)
    for j in range(start, stop):
        bias[j] = 0
    for i in range(n[0]):
        for j in range(start, stop):
            bias[j] += g[i * width + j]


_FORWARD = {"identity": (_identity, 1), "tanh": (_tanh, 8), "relu": (_relu, 1), "softplus": (_softplus, 8)}
_BACKWARD = {"tanh": (_tanh_grad, 1), "relu": (_relu_grad, 1), "softplus": (_softplus_grad, 8)}


def activates(*arrays: Array, kind: str) -> bool:
    """Is there a kernel of this activation?"""
    return kind in _FORWARD


@Launcher
def bias_activation(pre: Array, bias: Array, out: Array | None, kind: str) -> Plan:
    """activation(pre + bias): pre (..., n), bias (n,), result as pre."""
    out = np.empty_like(pre) if out is None else out
    kernel, cost = _FORWARD[kind]
    return out, [Job(kernel, (flat(pre), flat(bias), flat(out)), rows_of(pre), work=cost * pre.size)]


@Launcher
def bias_activation_grad(g: Array, y: Array, out: tuple[Array, Array] | None, kind: str) -> Plan:
    """From the gradient g by the activation y: those by pre (as y) and by bias (n,)."""
    before, bias = out if out is not None else (np.empty_like(y), np.empty(y.shape[-1], y.dtype))
    kernel, cost = _BACKWARD[kind]
    arrays = (flat(g), flat(y), flat(before), flat(bias))
    return (before, bias), [Job(kernel, arrays, rows_of(y), work=cost * y.size)]


@Launcher
def bias_grad(g: Array, out: Array | None) -> Plan:
    """The gradient by a bias, (n,): the sum of g (..., n) over all rows."""
    out = np.empty(g.shape[-1], g.dtype) if out is None else out
    return out, [Job(_column_sums, (flat(g), flat(out)), rows_of(g), work=g.size)]
