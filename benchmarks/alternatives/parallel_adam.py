"""Adam on all cores by Numba's `parallel=True`.

Lesson: alone it is as fast as a kernel can be. Between two products with threads of their own, the three take about 4
times as long on this machine, because two thread pools compete for the cores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from benchmarks.alternatives import adam_row
from benchmarks.cases import BETWEEN

OPERATION, CASES = "adam", ("", BETWEEN)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath={"contract", "nsz"})
def _loop(theta: Any, g: Any, m: Any, v: Any, clip: Any, rate: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any,
          correct: Any, epsilon: Any) -> None:
    zero, tiny = theta.dtype.type(0), theta.dtype.type(1e-30)
    for i in prange(theta.size):
        d = clip * g[i]
        first = beta1 * m[i] + rest1 * d
        second = beta2 * v[i] + rest2 * d * d
        m[i] = zero if abs(first) < tiny else first
        v[i] = zero if second < tiny else second
        theta[i] -= rate * m[i] / (np.sqrt(v[i] * correct) + epsilon)


value = adam_row.around(_loop)
