"""Adam with Numba's default `error_model`, which tests for a zero before each division.

Lesson: the test, which can raise ZeroDivisionError, keeps LLVM from vectorising the loop: on one thread of this machine
this form takes about 8 times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from benchmarks.alternatives import adam_row

OPERATION, CASES = "adam", ("",)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _loop(theta: Any, g: Any, m: Any, v: Any, clip: Any, rate: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any,
          correct: Any, epsilon: Any) -> None:
    zero, tiny = theta.dtype.type(0), theta.dtype.type(1e-30)
    for i in range(theta.size):
        d = clip * g[i]
        first = beta1 * m[i] + rest1 * d
        second = beta2 * v[i] + rest2 * d * d
        m[i] = zero if abs(first) < tiny else first
        v[i] = zero if second < tiny else second
        theta[i] -= rate * m[i] / (np.sqrt(v[i] * correct) + epsilon)


value = adam_row.around(_loop)
