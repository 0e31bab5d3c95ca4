"""Pixels drawn by Philox with ten rounds for one counter after the other.

Lesson: a round for many counters at once can be vectorised: on one thread of this machine this form takes about 5 times
as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tinyvae.engine.noise import stream_number

OPERATION, CASES = "binarised_rows", ("",)


@njit(cache=True, nogil=True, error_model="numpy")
def _philox(block: Any, site: Any, step: Any, seed: Any, stream: Any, words: Any) -> None:
    c0, c1, c2, c3 = np.uint32(block), np.uint32(site), np.uint32(step), np.uint32(0)
    k0, k1 = np.uint32(seed), np.uint32(stream)
    for _ in range(10):
        p0, p1 = np.uint64(c0) * np.uint64(0xD2511F53), np.uint64(c2) * np.uint64(0xCD9E8D57)
        c0, c2 = np.uint32((p1 >> np.uint64(32)) ^ c1 ^ k0), np.uint32((p0 >> np.uint64(32)) ^ c3 ^ k1)
        c1, c3 = np.uint32(p1), np.uint32(p0)
        k0, k1 = np.uint32(k0 + np.uint32(0x9E3779B9)), np.uint32(k1 + np.uint32(0xBB67AE85))
    words[0], words[1], words[2], words[3] = c0, c1, c2, c3


@njit(cache=True, nogil=True, error_model="numpy")
def _loop(stored: Any, index: Any, counters: Any, seed: Any, stream: Any, site: Any, scale: Any, out: Any) -> None:
    zero, one, unit = out.dtype.type(0), out.dtype.type(1), out.dtype.type(2.0**-24)
    width, words = out.shape[1], np.empty(4, np.uint32)
    for i in range(out.shape[0]):
        for j in range(width):
            number = i * width + j
            if j == 0 or number % 4 == 0:
                _philox(number // 4, site, counters[0], seed, stream, words)
            u = out.dtype.type(words[number % 4] >> np.uint32(8)) * unit
            out[i, j] = one if u < out.dtype.type(stored[index[i], j]) / scale else zero


def value(xp: Any, stored: Any, index: Any, counters: Any, out: Any = None, *, seed: int, stream: str, site: int,
          scale: float, dtype: Any) -> Any:
    """As the row."""
    out = np.empty((len(index), stored.shape[1]), dtype) if out is None else out
    _loop(stored, index, counters, seed, stream_number(stream), site, out.dtype.type(scale), out)
    return out
