"""Counter-based noise: Philox 4x32-10 done for many counters at once, normal numbers, and pixels drawn at each use."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import (
    at_float32,
    at_int64,
    at_uint8,
    at_uint32,
    helper,
    kernel,
    matrix,
    share,
    vector,
)
from tinyvae_kernels.cpu.runtime.elementary import cosine_of_turn, log, sine_of_turn
from tinyvae_kernels.cpu.runtime.team import Array, Job, Launcher, Plan, flat, scratch

BLOCK = 64  # counters at a time; each gives four words


@kernel()
def _words(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    # The rounds are the outer loop and the counters the inner one, so that a round is done for many counters at once.
    # n: the words' place, their number, scratch memory, first counter, site, the counters, attempt, seed, stream
    words, memory = matrix(at_uint32(n[0]), n[1] // (4 * BLOCK), 4 * BLOCK), matrix(at_uint32(n[2]), 4 * parts, BLOCK)
    c0, c1, c2, c3 = memory[4 * part], memory[4 * part + 1], memory[4 * part + 2], memory[4 * part + 3]
    start, site, step, attempt = n[3], n[4], at_int64(n[5])[0], n[6]
    first, last = share(n[1] // (4 * BLOCK), part, parts)
    for block in range(first, last):
        for b in range(BLOCK):
            c0[b], c1[b] = np.uint32(start + block * BLOCK + b), np.uint32(site)
            c2[b], c3[b] = np.uint32(step), np.uint32(attempt)
        k0, k1 = np.uint32(n[7]), np.uint32(n[8])
        for _ in range(10):
            for b in range(BLOCK):
                p0, p1 = np.uint64(c0[b]) * np.uint64(0xD2511F53), np.uint64(c2[b]) * np.uint64(0xCD9E8D57)
                c0[b], c2[b] = np.uint32(p1 >> np.uint64(32)) ^ c1[b] ^ k0, np.uint32(p0 >> np.uint64(32)) ^ c3[b] ^ k1
                c1[b], c3[b] = np.uint32(p1), np.uint32(p0)
            k0, k1 = np.uint32(k0 + np.uint32(0x9E3779B9)), np.uint32(k1 + np.uint32(0xBB67AE85))
        out = words[block]
        for b in range(BLOCK):
            out[4 * b], out[4 * b + 1], out[4 * b + 2], out[4 * b + 3] = c0[b], c1[b], c2[b], c3[b]


def _words_job(counters: Array, count: int, seed: int, stream: int, site: int, attempt: int = 0,
               first: int = 0) -> tuple[Array, Job]:
    """At least `count` words of an address, and the job that draws them."""
    words = np.empty(-(-count // (4 * BLOCK)) * 4 * BLOCK, np.uint32)
    memory = scratch(4 * BLOCK, np.uint32)
    whole = (words, words.size, memory, first, site, flat(counters), attempt, seed, stream)
    return words, Job(_words, (), whole, work=4 * words.size, dtype=np.float32)


@kernel()
def _normal(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    # Box and Muller's transform of pairs of words: sqrt(-2 log u) (cos 2 pi v, sin 2 pi v)
    out, words, t = p[0], at_uint32(n[1]), vector(p[0], 1).dtype.type
    scale, offset, two = t(2.0**-32), t(2.0**-33), t(2)
    first, last = share(n[0] // 2, part, parts)
    for i in range(first, last):
        radius = np.sqrt(-two * log(t(words[2 * i]) * scale + offset))
        turn = t(words[2 * i + 1]) * scale
        out[2 * i] = radius * cosine_of_turn(turn)
        out[2 * i + 1] = radius * sine_of_turn(turn)


@kernel()
def _copy(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    for i in range(n[0]):
        p[0][i] = p[1][i]


@helper
def _binarise(stored: Any, p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    # pixel (i, j) is number i * width + j of the draw; 1 with the probability of its grey value
    rows, width = n[0], n[1]
    index, words, out = vector(at_int64(n[2]), rows), matrix(at_uint32(n[5]), rows, width), matrix(p[0], rows, width)
    zero, one, unit, scale = out.dtype.type(0), out.dtype.type(1), out.dtype.type(2.0**-24), out.dtype.type(s[0])
    first, last = share(rows, part, parts)
    for i in range(first, last):
        drawn, grey, pixels = words[i], stored[index[i]], out[i]
        for j in range(width):
            u = out.dtype.type(np.int32(drawn[j] >> np.uint32(8))) * unit
            pixels[j] = one if u < out.dtype.type(grey[j]) / scale else zero


@helper
def _grey(stored: Any, p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    rows, width = n[0], n[1]
    index, out = vector(at_int64(n[2]), rows), matrix(p[0], rows, width)
    scale = out.dtype.type(s[0])
    first, last = share(rows, part, parts)
    for i in range(first, last):
        grey, pixels = stored[index[i]], out[i]
        if scale == out.dtype.type(1):  # bits: a division would take longer than the memory
            for j in range(width):
                pixels[j] = out.dtype.type(grey[j])
        else:
            for j in range(width):
                pixels[j] = out.dtype.type(grey[j]) / scale


# Pixels are stored as bytes or as float32, whatever the kernel's own type.


@kernel()
def _binarise_bytes(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    _binarise(matrix(at_uint8(n[3]), n[4], n[1]), p, n, s, part, parts)


@kernel()
def _binarise_floats(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    _binarise(matrix(at_float32(n[3]), n[4], n[1]), p, n, s, part, parts)


@kernel()
def _grey_bytes(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    _grey(matrix(at_uint8(n[3]), n[4], n[1]), p, n, s, part, parts)


@kernel()
def _grey_floats(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    _grey(matrix(at_float32(n[3]), n[4], n[1]), p, n, s, part, parts)


@Launcher
def normal(counters: Array, out: Array, seed: int, stream: int, site: int) -> Plan:
    """Standard normal numbers of the address (seed, stream, counters[0], site) into `out`."""
    words, draw = _words_job(counters, out.size, seed, stream, site)
    even = out if out.size % 2 == 0 else np.empty(out.size + 1, out.dtype)
    jobs = [draw, Job(_normal, (flat(even),), (even.size, words), work=10 * out.size)]
    return out, jobs if even is out else [*jobs, Job(_copy, (flat(out), even), (out.size,))]


@Launcher
def binarised_rows(stored: Array, index: Array, counters: Array, out: Array, seed: int, stream: int, site: int,
                   scale: float) -> Plan:
    """The rows `index` of the stored grey images, each pixel drawn 0 or 1 at its grey value; out (batch, pixels)."""
    words, draw = _words_job(counters, out.size, seed, stream, site)
    kernel = _binarise_bytes if stored.dtype == np.uint8 else _binarise_floats
    whole = (*out.shape, flat(index), flat(stored), len(stored), words)
    return out, [draw, Job(kernel, (flat(out),), whole, (scale,), work=2 * out.size)]


@Launcher
def grey_rows(stored: Array, index: Array, out: Array, scale: float) -> Plan:
    """The rows `index` of the stored images over `scale`; out (batch, pixels)."""
    kernel = _grey_bytes if stored.dtype == np.uint8 else _grey_floats
    whole = (*out.shape, flat(index), flat(stored), len(stored))
    return out, [Job(kernel, (flat(out),), whole, (scale,), work=out.size)]
