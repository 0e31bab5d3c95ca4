"""Bernoulli log p(x) with Numba's own exp and log1p, which call the C library for one number at a time.

Lesson: elementary functions must be arithmetic that LLVM can vectorise: on one thread of this machine this form takes
about 20 times as long.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

OPERATION, CASES = "bernoulli_log_prob", ("",)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})
def _loop(logits: Any, x: Any, total: Any, residual: Any) -> None:
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    for i in range(logits.shape[0]):
        row = zero
        for j in range(logits.shape[1]):
            a = logits[i, j]
            e = math.exp(-abs(a))
            row += x[i, j] * a - (max(a, zero) + math.log1p(e))
            residual[i, j] = x[i, j] - (e if a < zero else one) / (one + e)
        total[i] = row


def value(xp: Any, logits: Any, x: Any, out: Any = None) -> Any:
    """As the row: one draw a datum, (1, batch, pixels)."""
    total, residual = out if out is not None else (np.empty(logits.shape[:-1], logits.dtype), np.empty_like(logits))
    _loop(logits.reshape(x.shape), x, total.reshape(-1), residual.reshape(x.shape))
    return total, residual
