"""log p(x|z) of rows of pixels, and in the same pass its derivative by the decoder's output."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cuda.runtime.arguments import accesses, count, in_pieces, new_like, rows_of, same_type
from tinyvae_kernels.cuda.runtime.jobs import THREADS, Array, Job, Launcher, Plan, spread

FEW = 4096  # rows of pixels: fewer get a block each, because by warps they would leave most of a card idle


def _likelihood(kernel: str, parameters: Array, x: Array, out: Any) -> Plan:
    sums, residual = out if out is not None else (new_like(parameters, parameters.shape[:-1]), new_like(parameters))
    dtype = same_type(parameters, x, sums, residual)
    rows, width = sums.size, x.shape[-1]
    pieces = in_pieces(width, parameters, x, residual)
    arguments = (parameters, x, sums, residual, count(rows), np.int32(width), count(len(x)), pieces)
    grid, block = ((rows,), (THREADS,)) if rows < FEW else ((-(-rows // 8),), (32, 8))
    jobs = [Job("likelihoods", kernel, dtype, grid, block, arguments)] if rows else []
    return (sums, residual), jobs


@Launcher
def bernoulli_log_prob(logits: Array, x: Array, out: tuple[Array, Array] | None) -> Plan:
    """log p(x) of each row under Bernoulli pixels, (..., batch), and its derivative by the logits, x - sigmoid."""
    return _likelihood("bernoulli", logits, x, out)


@Launcher
def gaussian_log_prob(raw: Array, x: Array, out: tuple[Array, Array] | None) -> Plan:
    """log p(x) of each row under N(sigmoid(a), exp(logvar)) pixels, and its derivative by raw = (a, logvar)."""
    return _likelihood("gaussian", raw, x, out)


@Launcher
def scale_rows(g: Array, a: Array, out: Array | None) -> Plan:
    """g[..., None] * a."""
    out = new_like(a) if out is None else out
    dtype, (rows, width) = same_type(g, a, out), rows_of(a)
    pieces = in_pieces(width, a, out)
    arguments = (g, a, out, count(rows), count(width), pieces)
    return out, spread("likelihoods", "scale_rows", dtype, accesses(a, pieces), *arguments)
