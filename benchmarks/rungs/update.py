"""Adam without arithmetic in float64 in every thread."""

from __future__ import annotations

import numpy as np
from tinyvae_kernels.cuda.runtime.arguments import accesses, count, new_like, on_pieces, same_type
from tinyvae_kernels.cuda.runtime.jobs import Array, Job, Plan, spread

from benchmarks.rungs import Launcher, Rung, beside

FILE = beside(__file__)


@Launcher
def adam(theta: Array, g: Array, m: Array, v: Array, rates: Array, status: Array, beta1: float, beta2: float,
         epsilon: float) -> Plan:
    """One step of Adam in place, with the learning rate in `rates`, if `status` says that the step is sound."""
    vectors, scales = (theta, g, m, v), new_like(rates, (2,))
    dtype, aligned = same_type(*vectors, rates), on_pieces(*vectors)
    betas = np.float64(beta1), np.float64(beta2)
    scale = Job(FILE, "adam_scales", dtype, (1,), (32,), (rates, status, scales, *betas))
    hyper = map(dtype.type, (beta1, 1 - beta1, beta2, 1 - beta2, epsilon))
    arguments = (*vectors, scales, status, count(theta.size), *hyper, aligned)
    return None, [scale, *spread(FILE, "adam_scaled", dtype, accesses(theta, aligned), *arguments)]


def verdict_and_scales(verdict: Job, scales: Job) -> Job | None:
    """The guard's verdict and what Adam makes of it."""
    rates, status, *rest = scales.arguments
    if verdict.arguments[2] is not status:
        return None
    return verdict._replace(file=FILE, kernel="verdict_and_scales", arguments=(*verdict.arguments, rates, *rest))


RUNG = Rung("Adam reads its rate and its correction, which the guard computes once, where each thread computed them in "
            "float64", launchers=(adam,), merges={("verdict", "adam_scales"): verdict_and_scales})
