"""Counter-based noise: normal and Gamma numbers, and pixels drawn at each use."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cuda.runtime.arguments import count, flat, same_type
from tinyvae_kernels.cuda.runtime.jobs import Array, Launcher, Plan, spread
from tinyvae_kernels.launching import chosen


@Launcher
def normal(counters: Array, out: Array, seed: int, stream: int, site: int) -> Plan:
    """Standard normal numbers of the address (seed, stream, counters[STEP], site) into `out`."""
    arguments = (counters, out, count(out.size), np.uint32(seed), np.uint32(stream), np.uint32(site))
    return out, spread("noise", "normal", same_type(out), -(-out.size // 4), *arguments)


@Launcher.question
def draws(*_: Array, rows: Any = None, **__: Any) -> bool:
    """Whether the kernels draw these numbers: not those of some rows of a batch, whose readable form runs."""
    return rows is None


@Launcher
def log_gamma(shape: Array, counters: Array, out: Array, seed: int, stream: int, site: int) -> Plan:
    """log G, G ~ Gamma(shape, 1), of the address (seed, stream, counters[STEP], site) into `out` (samples, *shape)."""
    dtype, size = same_type(shape, out), count(out.size)
    arguments = (shape, *flat(counters), out, size, count(shape.size), np.uint32(seed), np.uint32(stream),
                 np.uint32(site))
    return out, spread("noise", "log_gamma", dtype, int(size), *arguments)


# Pixels are stored as bytes or as float32, whatever the kernel's own type is.
_BINARISE, _GREY = ({"uint8": f"{name}_bytes", "float32": f"{name}_floats"} for name in ("binarise", "grey"))


@Launcher
def binarised_rows(stored: Array, index: Array, counters: Array, out: Array, seed: int, stream: int, site: int,
                   scale: float) -> Plan:
    """The rows `index` of the stored grey images, each pixel drawn 0 or 1 at its grey value; out (batch, pixels)."""
    dtype, (rows, width) = same_type(out), out.shape
    arguments = (*flat(stored, index, counters, out), count(rows), count(width), dtype.type(scale), np.uint32(seed),
                 np.uint32(stream), np.uint32(site))
    kernel = chosen(_BINARISE, stored.dtype.name)
    return out, spread("noise", kernel, dtype, -(-int(count(out.size)) // 4), *arguments)


@Launcher
def grey_rows(stored: Array, index: Array, out: Array, scale: float) -> Plan:
    """The rows `index` of the stored images over `scale`; out (batch, pixels)."""
    dtype, (rows, width) = same_type(out), out.shape
    arguments = (*flat(stored, index, out), count(rows), count(width), dtype.type(scale))
    return out, spread("noise", chosen(_GREY, stored.dtype.name), dtype, int(count(out.size)), *arguments)
