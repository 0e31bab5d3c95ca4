"""Counter-based noise: Philox 4x32-10 for many counters at once, normal and Gamma numbers, pixels drawn at each use.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". A word of noise has an address, so no kernel keeps a
state: (seed, stream) is the key, (index, site, step, attempt) the counter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.elementary import cosine_of_turn, log, sine_of_turn
from tinyvae_kernels.cpu.runtime.helpers import helper
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan, scratch
from tinyvae_kernels.cpu.runtime.memory import Matrix, Pointer, Vector, matrix, vector
from tinyvae_kernels.cpu.runtime.shares import share
from tinyvae_kernels.launching import chosen
from tinyvae_kernels.state import STEP

BLOCK = 64  # counters at a time; each gives four words
ATTEMPTS = 64  # of a draw by rejection
UNIT = 2.0**-32


@helper
def _round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """One of the ten rounds of Philox 4x32."""
    p0, p1 = np.uint64(c0) * np.uint64(0xD2511F53), np.uint64(c2) * np.uint64(0xCD9E8D57)
    high0, high1 = np.uint32(p0 >> np.uint64(32)), np.uint32(p1 >> np.uint64(32))
    return high1 ^ c1 ^ k0, np.uint32(p1), high0 ^ c3 ^ k1, np.uint32(p0)


@helper
def _next_key(k0: Any, k1: Any) -> Any:
    return np.uint32(k0 + np.uint32(0x9E3779B9)), np.uint32(k1 + np.uint32(0xBB67AE85))


@kernel()
def _words(words: Pointer[np.uint32], memory: Pointer[np.uint32], counters: Pointer[np.int64], blocks: int, seed: int,
           stream: int, site: int, attempt: int, start: int, part: int, parts: int) -> None:
    # The rounds are the outer loop and the counters the inner one, so that a round is done for many counters at once.
    rows, results, step = matrix(memory, 4 * parts, BLOCK), matrix(words, blocks, 4 * BLOCK), counters[STEP]
    c0, c1, c2, c3 = rows[4 * part], rows[4 * part + 1], rows[4 * part + 2], rows[4 * part + 3]
    first, last = share(blocks, part, parts)
    for block in range(first, last):
        for b in range(BLOCK):
            c0[b], c1[b] = np.uint32(start + block * BLOCK + b), np.uint32(site)
            c2[b], c3[b] = np.uint32(step), np.uint32(attempt)
        k0, k1 = np.uint32(seed), np.uint32(stream)
        for _ in range(10):
            for b in range(BLOCK):
                c0[b], c1[b], c2[b], c3[b] = _round(c0[b], c1[b], c2[b], c3[b], k0, k1)
            k0, k1 = _next_key(k0, k1)
        out = results[block]
        for b in range(BLOCK):
            out[4 * b], out[4 * b + 1], out[4 * b + 2], out[4 * b + 3] = c0[b], c1[b], c2[b], c3[b]


def words_job(counters: Array, count: int, seed: int, stream: int, site: int, attempt: int = 0,
              first: int = 0) -> tuple[Array, Job]:
    """At least `count` words of an address, (blocks, 4 BLOCK), and the job that draws them."""
    words, memory = np.empty((-(-count // (4 * BLOCK)), 4 * BLOCK), np.uint32), scratch(BLOCK, np.uint32, 4)
    return words, Job(_words, words, memory, counters, len(words), seed, stream, site, attempt, first,
                      work=4 * words.size)


def words_from(counters: Array, begin: int, count: int, seed: int, stream: int, site: int) -> tuple[Array, Job]:
    """`count` words of an address from number `begin` on, (count,), and the job that draws them."""
    block, skip = divmod(begin, 4)
    words, draw = words_job(counters, skip + count, seed, stream, site, first=block)
    return words.reshape(-1)[skip : skip + count], draw


def runs(out: Array, rows: Any) -> list[tuple[int, Array]]:
    """The runs of neighbouring numbers of a draw: where each begins in the draw for the whole batch, and its part of
    `out`. The rows of a draw lie on the last axis but one, in one copy or several; `rows` are the first of them, their
    count, and how many the batch has, or None for all."""
    if rows is None:
        return [(0, out.reshape(-1))]
    (first, size, of), width = rows, out.shape[-1]
    return [((i * of + first) * width, part.reshape(-1)) for i, part in enumerate(out.reshape(-1, size, width))]


@Launcher.question
def draws(*_: Array, **__: Any) -> bool:
    """Whether the kernels draw these numbers."""
    return True


# ---- normal numbers --------------------------------------------------------------------------------------------------


@kernel()
def _normal(out: Pointer, words: Pointer[np.uint32], pairs: int, part: int, parts: int) -> None:
    # Box and Muller's transform of pairs of words: sqrt(-2 log u) (cos 2 pi v, sin 2 pi v)
    t = vector(out, 1).dtype.type
    scale, offset, two = t(2.0**-32), t(2.0**-33), t(2)
    first, last = share(pairs, part, parts)
    for i in range(first, last):
        radius = np.sqrt(-two * log(t(words[2 * i]) * scale + offset))
        turn = t(words[2 * i + 1]) * scale
        out[2 * i] = radius * cosine_of_turn(turn)
        out[2 * i + 1] = radius * sine_of_turn(turn)


@kernel()
def _copy(out: Vector, source: Pointer) -> None:
    for i in range(out.size):
        out[i] = source[i]


@Launcher
def normal(counters: Array, out: Array, seed: int, stream: int, site: int, rows: Any = None) -> Plan:
    """Standard normal numbers of the address (seed, stream, counters[STEP], site) into `out`."""
    jobs = []
    for begin, run in runs(out, rows):
        skip = begin % 2  # a run may begin in the middle of a pair, and end there
        count = run.size + skip + (run.size + skip) % 2
        pairs = run if count == run.size else np.empty(count, out.dtype)
        words, draw = words_from(counters, begin - skip, count, seed, stream, site)
        jobs += [draw, Job(_normal, pairs, words, count // 2, work=10 * count)]
        if pairs is not run:
            jobs.append(Job(_copy, run, pairs[skip:]))
    return out, jobs


# ---- Gamma numbers ---------------------------------------------------------------------------------------------------
# By rejection (Marsaglia & Tsang 2000). The words of the first attempts, of which nineteen in twenty are accepted, are
# drawn for many elements at once; the words of a later attempt are drawn for its element alone. Every decision is made
# in float64, so that all devices accept the same attempts.


@helper
def _philox(index: Any, site: Any, step: Any, attempt: Any, seed: Any, stream: Any) -> Any:
    c0, c1, c2, c3 = np.uint32(index), np.uint32(site), np.uint32(step), np.uint32(attempt)
    k0, k1 = np.uint32(seed), np.uint32(stream)
    for _ in range(10):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
        k0, k1 = _next_key(k0, k1)
    return c0, c1, c2, c3


@kernel()
def _log_gamma(shape: Vector, out: Vector, words: Pointer[np.uint32], counters: Pointer[np.int64], seed: int,
               stream: int, site: int, begin: int, part: int, parts: int) -> None:
    dtype, step = out.dtype.type, counters[STEP]
    first, last = share(out.size, part, parts)
    for i in range(first, last):
        a = np.float64(shape[i % shape.size])
        d = (a + 1.0 if a < 1.0 else a) - 1.0 / 3.0
        c = 1.0 / np.sqrt(9.0 * d)
        w0, w1, w2, w3 = words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]
        boost = log((np.float64(w3) + 0.5) * UNIT) / a if a < 1.0 else 0.0  # Gamma(a) = Gamma(a + 1) U^(1 / a)
        found = np.nan
        for attempt in range(ATTEMPTS):
            if attempt > 0:
                w0, w1, w2, w3 = _philox(begin + i, site, step, attempt, seed, stream)
            x = np.sqrt(-2.0 * log((np.float64(w0) + 0.5) * UNIT)) * cosine_of_turn(np.float64(w1) * UNIT)
            root = 1.0 + c * x
            v = root * root * root
            if v > 0.0:
                log_v = log(v)
                if log((np.float64(w2) + 0.5) * UNIT) < 0.5 * x * x + d - d * v + d * log_v:
                    found = log(d) + log_v
                    break
        out[i] = dtype(found + boost)


@Launcher
def log_gamma(shape: Array, counters: Array, out: Array, seed: int, stream: int, site: int, rows: Any = None) -> Plan:
    """log G, G ~ Gamma(shape, 1), of the address (seed, stream, counters[STEP], site) into `out` (samples, *shape)."""
    jobs = []
    for number, (begin, run) in enumerate(runs(out, rows) if out.size else []):
        words, draw = words_job(counters, 4 * run.size, seed, stream, site, first=begin)
        each = shape.reshape(-1, min(shape.size, run.size))  # a run can be one of several copies of the rows
        jobs += [draw, Job(_log_gamma, each[number % len(each)], run, words, counters, seed, stream, site, begin,
                           work=60 * run.size)]
    return out, jobs


# ---- pixels ----------------------------------------------------------------------------------------------------------
# Pixels are stored as bytes or as float32, whatever the kernel's own type is.


@helper
def _binarise(stored: Any, index: Any, words: Any, out: Any, scale: Any, part: Any, parts: Any) -> None:
    # pixel (i, j) is number i * width + j of the draw; it is 1 with the probability of its grey value
    rows, width = out.shape
    zero, one, unit = out.dtype.type(0), out.dtype.type(1), out.dtype.type(2.0**-24)
    divisor = out.dtype.type(scale)
    first, last = share(rows, part, parts)
    for i in range(first, last):
        drawn, grey, pixels = words[i], stored[index[i]], out[i]
        for j in range(width):
            u = out.dtype.type(np.int32(drawn[j] >> np.uint32(8))) * unit
            pixels[j] = one if u < out.dtype.type(grey[j]) / divisor else zero


@helper
def _grey(stored: Any, index: Any, out: Any, scale: Any, part: Any, parts: Any) -> None:
    rows, width = out.shape
    divisor = out.dtype.type(scale)
    first, last = share(rows, part, parts)
    for i in range(first, last):
        grey, pixels = stored[index[i]], out[i]
        if divisor == out.dtype.type(1):  # bits: a division would take longer than the memory
            for j in range(width):
                pixels[j] = out.dtype.type(grey[j])
        else:
            for j in range(width):
                pixels[j] = out.dtype.type(grey[j]) / divisor


@kernel()
def _binarise_bytes(stored: Matrix[np.uint8], index: Vector[np.int64], words: Matrix[np.uint32], out: Matrix,
                    scale: float, part: int, parts: int) -> None:
    _binarise(stored, index, words, out, scale, part, parts)


@kernel()
def _binarise_floats(stored: Matrix[np.float32], index: Vector[np.int64], words: Matrix[np.uint32], out: Matrix,
                     scale: float, part: int, parts: int) -> None:
    _binarise(stored, index, words, out, scale, part, parts)


@kernel()
def _grey_bytes(stored: Matrix[np.uint8], index: Vector[np.int64], out: Matrix, scale: float, part: int,
                parts: int) -> None:
    _grey(stored, index, out, scale, part, parts)


@kernel()
def _grey_floats(stored: Matrix[np.float32], index: Vector[np.int64], out: Matrix, scale: float, part: int,
                 parts: int) -> None:
    _grey(stored, index, out, scale, part, parts)


_BINARISE = {"uint8": _binarise_bytes, "float32": _binarise_floats}
_GREY = {"uint8": _grey_bytes, "float32": _grey_floats}


@Launcher
def binarised_rows(stored: Array, index: Array, counters: Array, out: Array, seed: int, stream: int, site: int,
                   scale: float, rows: Any = None) -> Plan:
    """The rows `index` of the stored grey images, each pixel drawn 0 or 1 at its grey value; out (batch, pixels)."""
    (begin, run), = runs(out, rows)
    words, draw = words_from(counters, begin, run.size, seed, stream, site)
    drawn = words.reshape(out.shape)
    kernel = chosen(_BINARISE, stored.dtype.name)
    return out, [draw, Job(kernel, stored, index, drawn, out, scale, work=2 * out.size)]


@Launcher
def grey_rows(stored: Array, index: Array, out: Array, scale: float) -> Plan:
    """The rows `index` of the stored images over `scale`; out (batch, pixels)."""
    return out, [Job(chosen(_GREY, stored.dtype.name), stored, index, out, scale, work=out.size)]
