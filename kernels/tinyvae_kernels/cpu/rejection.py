"""Draws of log Gamma(shape, 1) by rejection (Marsaglia & Tsang 2000), with the attempts of counter-based noise.

The words of the first attempts, of which nineteen in twenty are taken, are drawn for many elements at once; who is
refused draws the words of his next attempt by himself. All is decided in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.noise import _words_job
from tinyvae_kernels.cpu.runtime.compiled import at_int64, at_uint32, helper, kernel, share, vector
from tinyvae_kernels.cpu.runtime.elementary import cosine_of_turn, log
from tinyvae_kernels.cpu.runtime.team import Array, Job, Launcher, Plan, flat

ATTEMPTS = 64
UNIT = 2.0**-32


@helper
def _philox(index: Any, site: Any, step: Any, attempt: Any, seed: Any, stream: Any) -> Any:
    c0, c1, c2, c3 = np.uint32(index), np.uint32(site), np.uint32(step), np.uint32(attempt)
    k0, k1 = np.uint32(seed), np.uint32(stream)
    for _ in range(10):
        p0, p1 = np.uint64(c0) * np.uint64(0xD2511F53), np.uint64(c2) * np.uint64(0xCD9E8D57)
        c0, c2 = np.uint32(p1 >> np.uint64(32)) ^ c1 ^ k0, np.uint32(p0 >> np.uint64(32)) ^ c3 ^ k1
        c1, c3 = np.uint32(p1), np.uint32(p0)
        k0, k1 = np.uint32(k0 + np.uint32(0x9E3779B9)), np.uint32(k1 + np.uint32(0xBB67AE85))
    return c0, c1, c2, c3


@kernel()
def _log_gamma(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    # n: draws, shapes, the first attempts' words, site, the counters, seed, stream
    shape, out, words = p[0], p[1], vector(at_uint32(n[2]), 4 * n[0])
    dtype, step = vector(p[0], 1).dtype.type, at_int64(n[4])[0]
    first, last = share(n[0], part, parts)
    for i in range(first, last):
        a = np.float64(shape[i % n[1]])
        d = (a + 1.0 if a < 1.0 else a) - 1.0 / 3.0
        c = 1.0 / np.sqrt(9.0 * d)
        w0, w1, w2, w3 = words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]
        boost = log((np.float64(w3) + 0.5) * UNIT) / a if a < 1.0 else 0.0
        found = np.nan
        for attempt in range(ATTEMPTS):
            if attempt > 0:
                w0, w1, w2, w3 = _philox(i, n[3], step, attempt, n[5], n[6])
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
def log_gamma(shape: Array, counters: Array, out: Array, seed: int, stream: int, site: int) -> Plan:
    """log G for G ~ Gamma(shape, 1) of the address (seed, stream, counters[0], site) into `out`, (samples, *shape)."""
    words, draw = _words_job(counters, 4 * out.size, seed, stream, site)
    whole = (out.size, shape.size, words, site, flat(counters), seed, stream)
    return out, [draw, Job(_log_gamma, (flat(shape), flat(out)), whole, work=60 * out.size)] if out.size else []
