"""Adam whose moments can become denormal numbers, like those of weights whose pixels stay dark.

Lesson: denormal numbers take some processors ten times as long. On one thread of this machine, a quarter of idle
weights costs about a fifth of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from benchmarks.alternatives import adam_row
from benchmarks.cases import IDLE

OPERATION, CASES = "adam", (IDLE,)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def _loop(theta: Any, g: Any, m: Any, v: Any, clip: Any, rate: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any,
          correct: Any, epsilon: Any) -> None:
    for i in range(theta.size):
        d = clip * g[i]
        first = beta1 * m[i] + rest1 * d
        second = beta2 * v[i] + rest2 * d * d
        m[i], v[i] = first, second
        theta[i] -= rate * first / (np.sqrt(second * correct) + epsilon)


value = adam_row.around(_loop)
