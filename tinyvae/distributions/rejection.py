"""Draws of log G for G ~ Gamma(shape, 1), by rejection (Marsaglia & Tsang 2000), from counter-based noise.

For shape a >= 1, let d = a - 1/3, c = 1 / sqrt(9 d), x ~ N(0, 1) and v = (1 + c x)^3. The number d v is accepted as a
draw if log u < x^2/2 + d - d v + d log v for u uniform on (0, 1), which happens in 95 % of attempts at a = 1 and more
often above. For a < 1, G_a = G_(a+1) u^(1/a) with another uniform u: log u / a is added to log G_(a+1), and that sum
cannot underflow.

Each attempt of each element has its own counter, whose four random words give x (two words), the u of the test and the
u of the power. Acceptance is decided in float64, so that every device accepts the same attempt.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyvae.distributions import special  # noqa: F401 - registers the row of the derivative
from tinyvae.engine.devices import read
from tinyvae.engine.noise import Noise, Window, for_kernel, open_unit, philox, places, stream_number
from tinyvae.engine.rules import INDEX, POSITIVE, into, rule
from tinyvae.engine.tensor import Tensor

ATTEMPTS = 64  # a valid shape is refused so often with a chance of 0.05^64; what is left is no shape, and stays NaN


def _log_gamma(xp: Any, shape: Any, counters: Any, out: Any, seed: int, stream: str, site: int, samples: int,
               rows: Window | None = None) -> Any:
    a = xp.broadcast_to(shape, (samples, *shape.shape)).astype(np.float64)
    index, step = places(a.shape, rows, xp), read(counters[0])
    d = xp.where(a < 1, a + 1, a) - 1 / 3
    c = 1 / xp.sqrt(9 * d)
    log_g, waiting, boost = xp.full(a.shape, np.nan), xp.ones(a.shape, bool), 0.0
    for attempt in range(ATTEMPTS):
        first, second, third, fourth = philox((index, site, step, attempt), (seed, stream_number(stream)), xp)
        x = xp.sqrt(-2 * xp.log(open_unit(first))) * xp.cos(2 * math.pi * (second.astype(np.float64) * 2.0**-32))
        v = (1 + c * x) ** 3
        log_v = xp.log(xp.where(v > 0, v, xp.nan))
        accepted = waiting & (xp.log(open_unit(third)) < 0.5 * x * x + d - d * v + d * log_v)  # NaN is not below
        log_g = xp.where(accepted, xp.log(d) + log_v, log_g)
        if attempt == 0:
            boost = xp.where(a < 1, xp.log(open_unit(fourth)) / a, 0.0)
        waiting = waiting & ~accepted
        if not read(waiting.any()):
            break
    return into(out, (log_g + boost).astype(shape.dtype))


def _by_shape(g: Tensor, y: Tensor, shape: Tensor, counters: Tensor, **_: Any) -> Tensor:
    return g * y.apply("gamma_log_sample_grad", shape.broadcast_to(y.shape).contiguous())


def _prepare(arrays: Any, samples: int, **rest: Any) -> dict[str, Any]:
    return for_kernel(arrays, (samples, *arrays[0].shape), arrays[0].dtype, **rest)


# log G of the step that `counters` holds, (samples, *shape). Its derivative by the shape is the implicit one, along
# which the distribution function keeps its value (Figurnov et al. 2018): see special.py.
rule("log_gamma", _log_gamma, (_by_shape, None), (POSITIVE, INDEX), kernel="log_gamma", prepare=_prepare,
     asks="draws")


def log_gamma(shape: Tensor, noise: Noise, samples: int) -> Tensor:
    """log G for G ~ Gamma(shape, 1), (samples, *shape)."""
    return noise.draw("log_gamma", shape, samples=samples)
