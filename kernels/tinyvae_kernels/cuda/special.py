"""Special functions, a number a thread: see the CPU's file of the same name for the formulas."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from tinyvae_kernels.cuda.runtime.arguments import count, new_like, same_type
from tinyvae_kernels.cuda.runtime.jobs import Array, Job, Launcher, Plan, spread
from tinyvae_kernels.launching import chosen


def _each(kernel: str, arrays: tuple[Array, ...], *numbers: Any) -> list[Job]:
    """A loop over the numbers of the last array, which is the result."""
    size = count(arrays[-1].size)
    return spread("special", kernel, same_type(*arrays), int(size), *arrays, size, *numbers)


@Launcher
def lgamma(a: Array, out: Array | None) -> Plan:
    """log |Gamma(a)|, of any shape."""
    out = new_like(a) if out is None else out
    return out, _each("log_abs_gamma", (a, out))


@Launcher
def polygamma(a: Array, out: Array | None, order: int) -> Plan:
    """The derivative of digamma of that order, 0 for digamma itself, of any shape; at 0 the limit from above, NaN at
    negative whole numbers and below -1e6."""
    out = new_like(a) if out is None else out
    return out, _each("polygamma", (a, out), np.int32(order))


@Launcher
def stirling(a: Array, out: Array | None, order: int) -> Plan:
    """Stirling's remainder mu(a), or its derivative of that order, of any shape; at 0 the limit, NaN below."""
    out = new_like(a) if out is None else out
    if order > 0:
        return out, _each("stirling_derivative", (a, out), np.int32(order))
    return out, _each("stirling", (a, out))


@Launcher
def log_ratio(x: Array, y: Array, w: Array, out: Array | None) -> Plan:
    """log(x / y), where w = log x has the digits of a tiny x; y has the last axes of x."""
    out = new_like(x) if out is None else out
    return out, _each("log_ratio", (x, y, w, out), count(y.size))


@Launcher
def deviance(a: Array, y: Array, w: Array, out: Array | None) -> Plan:
    """y - a - a log(y / a), where w = log y has the digits of a tiny y; a has the last axes of y."""
    out = new_like(y) if out is None else out
    return out, _each("deviance", (a, y, w, out), count(a.size))


RULES = {"float32": (12, 19.5), "float64": (24, 35.0)}  # nodes, and e^-reach is left out


@cache
def _nodes(each: int, library: str) -> Array:
    """t / end of Gauss and Legendre's nodes and their weights, (2, each), in the memory of an array library."""
    x, weights = np.polynomial.legendre.leggauss(each)
    x = (1 + x) / 2
    return sys.modules[library].asarray(np.array([x * (1 + x) / 2, weights * (1 + 2 * x) / 4]))


@Launcher
def gamma_log_sample_grad(w: Array, a: Array, out: Array | None) -> Plan:
    """dw/da of w = log z, z ~ Gamma(a, 1), at a fixed quantile; w and a of one shape."""
    out, (each, reach) = new_like(w) if out is None else out, chosen(RULES, w.dtype.name)
    dtype, size = same_type(w, a, out), count(w.size)
    arguments = (w, a, _nodes(each, type(w).__module__.partition(".")[0]), out, size, np.int32(each), np.float64(reach))
    return out, spread("special", "gamma_log_sample_grad", dtype, int(size), *arguments)
