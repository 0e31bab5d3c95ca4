"""Noise, pixels and the sampled posterior by pieces of 16 bytes."""

from __future__ import annotations

import numpy as np
from tinyvae_kernels.cuda.runtime.arguments import accesses, count, flat, in_pieces, new_like, on_pieces, same_type
from tinyvae_kernels.cuda.runtime.jobs import Array, Job, Plan, spread
from tinyvae_kernels.launching import chosen

from benchmarks.rungs import Launcher, Rung, beside

FILE = beside(__file__)
WARPS = 2  # a block of the posterior has so few that a small step has blocks on several multiprocessors
_BINARISE, _GREY = ({"uint8": f"{name}_bytes", "float32": f"{name}_floats"} for name in ("binarise", "grey"))


@Launcher
def normal(counters: Array, out: Array, seed: int, stream: int, site: int) -> Plan:
    """Standard normal numbers of the address (seed, stream, counters[STEP], site) into `out`."""
    arguments = (counters, out, count(out.size), np.uint32(seed), np.uint32(stream), np.uint32(site), on_pieces(out))
    return out, spread(FILE, "normal_fours", same_type(out), -(-out.size // 4), *arguments)


@Launcher
def binarised_rows(stored: Array, index: Array, counters: Array, out: Array, seed: int, stream: int, site: int,
                   scale: float) -> Plan:
    """The rows `index` of the stored grey images, each pixel drawn 0 or 1 at its grey value; out (batch, pixels)."""
    dtype, (rows, width) = same_type(out), out.shape
    pieces = np.bool_(width % 4 == 0 and on_pieces(stored, out))
    arguments = (*flat(stored, index, counters, out), count(rows), count(width), dtype.type(scale), np.uint32(seed),
                 np.uint32(stream), np.uint32(site), pieces)
    kernel = chosen(_BINARISE, stored.dtype.name)
    return out, spread(FILE, kernel, dtype, -(-int(count(out.size)) // 4), *arguments)


@Launcher
def grey_rows(stored: Array, index: Array, out: Array, scale: float) -> Plan:
    """The rows `index` of the stored images over `scale`; out (batch, pixels)."""
    dtype, (rows, width) = same_type(out), out.shape
    pieces = np.bool_(in_pieces(width, out) and on_pieces(stored))
    arguments = (*flat(stored, index, out), count(rows), count(width), dtype.type(scale), pieces)
    return out, spread(FILE, chosen(_GREY, stored.dtype.name), dtype, accesses(out, pieces), *arguments)


@Launcher
def gaussian_sample_kl(raw: Array, eps: Array, out: tuple[Array, Array] | None) -> Plan:
    """z = mu + sigma eps, (samples, batch, latent), and KL(N(mu, sigma^2) || N(0, 1)), (batch,)."""
    z, kl = out if out is not None else (new_like(eps), new_like(raw, raw.shape[:1]))
    dtype, (samples, batch, latent) = same_type(raw, eps, z, kl), eps.shape
    count(2 * eps.size)
    pieces = in_pieces(latent, raw, eps, z)
    each = 16 // dtype.itemsize if pieces else 1  # a lane has so many numbers in a turn
    lanes = max(1, min(32, latent) // each)
    arguments = (raw, eps, z, kl, np.int32(samples), count(batch), count(latent), count(lanes), pieces)
    grid = (-(-batch // (WARPS * (32 // lanes))),)
    job = Job(FILE, "sample_kl_pieces", dtype, grid, (32, WARPS), arguments)
    return (z, kl), [job] if batch else []


def drawn_sample(draw: Job, sample: Job) -> Job | None:
    """Noise and the sample made of it: the noise is drawn where it is used, and kept for the gradient."""
    counters, eps, _, *address, _ = draw.arguments
    if sample.arguments[1] is not eps:
        return None
    return sample._replace(kernel="drawn_sample_kl_pieces", arguments=(counters, *address, *sample.arguments))


RUNG = Rung("a thread reads and writes 16 bytes or four pixels at a time, where it stored numbers 16 bytes apart and "
            "read pixels one by one; a row of the posterior has as many lanes as it needs, where it had a warp",
            launchers=(normal, binarised_rows, grey_rows, gaussian_sample_kl),
            merges={("normal_fours", "sample_kl_pieces"): drawn_sample})
