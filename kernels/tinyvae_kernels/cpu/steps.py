"""The small work of a training step: which rows come next, the objective, the epoch's sums, the counters.

The arrays `counters` (int64), `totals` and `status` (float64) are those of tinyvae's training and optimizers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import at_float64, at_int64, kernel, matrix, vector
from tinyvae_kernels.cpu.runtime.team import Array, Job, Launcher, Plan, flat

STEP, CURSOR, BATCH = range(3)  # the places of `counters`
KL_WEIGHT = 1  # a place of `rates`
FINITE, NORM = 0, 2  # of `status`
DATA_COUNT, RECONSTRUCTION, KL, OBJECTIVE, NORMS, SOUND, SKIPPED = range(7)  # of `totals`
ANY_TYPE = np.float32  # for kernels that touch no numbers of the floating type


@kernel()
def _next_indices(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    order, out, cursor = vector(at_int64(n[0]), n[3]), vector(at_int64(n[2]), n[4]), at_int64(n[1])[CURSOR]
    for i in range(out.size):
        row = cursor + i
        out[i] = order[row if row < order.size else row % order.size]


@kernel()
def _next_rates(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    plan, out = matrix(p[0], n[0], n[1]), vector(p[1], n[1])
    batch = at_int64(n[2])[BATCH] % n[0]
    for i in range(out.size):
        out[i] = plan[batch, i]


@kernel()
def _objective(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    reconstruction, kl, weight = vector(p[0], n[0]), vector(p[1], n[0]), p[2][KL_WEIGHT]
    out = p[3]
    total, charged = 0.0, 0.0  # in float64
    for i in range(n[0]):
        total += np.float64(reconstruction[i])
        charged += np.float64(kl[i])
    out[0] = weight * kl.dtype.type(charged / n[0]) - kl.dtype.type(total / n[0])


@kernel()
def _objective_grad(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    g, weight, by_reconstruction, by_kl = p[0][0], p[1][KL_WEIGHT], vector(p[2], n[0]), vector(p[3], n[0])
    each = g / by_kl.dtype.type(n[0])
    for i in range(n[0]):
        by_reconstruction[i] = -each
        by_kl[i] = each * weight


@kernel()
def _accumulate(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    totals, status = vector(at_float64(n[1]), 7), vector(at_float64(n[2]), 4)
    if status[FINITE] != 1.0:
        totals[SKIPPED] += 1.0
        return
    reconstruction, kl, loss = vector(p[0], n[0]), vector(p[1], n[0]), p[2][0]
    first, second = 0.0, 0.0
    for i in range(n[0]):
        first += np.float64(reconstruction[i])
        second += np.float64(kl[i])
    totals[DATA_COUNT] += n[0]
    totals[RECONSTRUCTION] += first
    totals[KL] += second
    totals[OBJECTIVE] += n[0] * np.float64(loss)
    totals[NORMS] += status[NORM]
    totals[SOUND] += 1.0


@kernel()
def _tick(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    counters = at_int64(n[0])
    counters[STEP] += 1
    counters[CURSOR] += n[1]
    counters[BATCH] += 1


@Launcher
def next_indices(order: Array, counters: Array, out: Array | None, batch: int) -> Plan:
    """The `batch` indices of `order` from the counters' cursor on."""
    out = np.empty(batch, np.int64) if out is None else out
    whole = (flat(order), flat(counters), flat(out), order.size, batch)
    return out, [Job(_next_indices, (), whole, dtype=ANY_TYPE)]


@Launcher
def next_rates(plan: Array, counters: Array, out: Array | None) -> Plan:
    """The row of `plan` (batches, rates) for the counters' batch."""
    out = np.empty(plan.shape[1], plan.dtype) if out is None else out
    return out, [Job(_next_rates, (flat(plan), flat(out)), (*plan.shape, flat(counters)))]


@Launcher
def objective(reconstruction: Array, kl: Array, rates: Array, out: Array | None) -> Plan:
    """weight * mean(kl) - mean(reconstruction), one number; the weight is rates[1]."""
    out = np.empty((), kl.dtype) if out is None else out
    return out, [Job(_objective, (flat(reconstruction), flat(kl), flat(rates), flat(out)), (kl.size,))]


@Launcher
def objective_grad(g: Array, kl: Array, rates: Array, out: tuple[Array, Array] | None) -> Plan:
    """The gradients of the objective by reconstruction and kl, each (batch,)."""
    both = out if out is not None else (np.empty_like(kl), np.empty_like(kl))
    return both, [Job(_objective_grad, (flat(g), flat(rates), *map(flat, both)), (kl.size,))]


@Launcher
def accumulate(reconstruction: Array, kl: Array, loss: Array, totals: Array, status: Array) -> Plan:
    """Add a batch to the sums over the epoch, or count it as skipped."""
    arrays = (flat(reconstruction), flat(kl), flat(loss))
    return None, [Job(_accumulate, arrays, (kl.size, flat(totals), flat(status)))]


@Launcher
def tick(counters: Array, batch: int) -> Plan:
    """Move the counters past a batch."""
    return None, [Job(_tick, (), (flat(counters), batch), dtype=ANY_TYPE)]
