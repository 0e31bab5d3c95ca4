"""The small work of a training step: which rows come next, the objective, the epoch's sums, the counters."""

from __future__ import annotations

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan
from tinyvae_kernels.cpu.runtime.memory import Matrix, Pointer, Vector
from tinyvae_kernels.state import (
    BATCH,
    CURSOR,
    DATA_COUNT,
    FINITE,
    KL,
    KL_WEIGHT,
    NORM,
    NORMS,
    OBJECTIVE,
    RECONSTRUCTION,
    SKIPPED,
    SOUND,
    STEP,
)


@kernel()
def _next_indices(order: Vector[np.int64], counters: Pointer[np.int64], out: Vector[np.int64]) -> None:
    cursor = counters[CURSOR]
    for i in range(out.size):
        row = cursor + i
        out[i] = order[row if row < order.size else row % order.size]


@kernel()
def _next_rates(plan: Matrix, counters: Pointer[np.int64], out: Vector) -> None:
    batch = counters[BATCH] % len(plan)
    for i in range(out.size):
        out[i] = plan[batch, i]


@kernel()
def _objective(reconstruction: Vector, kl: Vector, rates: Pointer, out: Pointer) -> None:
    total, charged = 0.0, 0.0  # in float64
    for i in range(kl.size):
        total += np.float64(reconstruction[i])
        charged += np.float64(kl[i])
    out[0] = rates[KL_WEIGHT] * kl.dtype.type(charged / kl.size) - kl.dtype.type(total / kl.size)


@kernel()
def _objective_grad(g: Pointer, rates: Pointer, by_reconstruction: Vector, by_kl: Vector) -> None:
    weight, each = rates[KL_WEIGHT], g[0] / by_kl.dtype.type(by_kl.size)
    for i in range(by_kl.size):
        by_reconstruction[i] = -each
        by_kl[i] = each * weight


@kernel()
def _accumulate(reconstruction: Vector, kl: Vector, loss: Pointer, totals: Pointer[np.float64],
                status: Pointer[np.float64]) -> None:
    if status[FINITE] != 1.0:
        totals[SKIPPED] += 1.0
        return
    first, second = 0.0, 0.0
    for i in range(kl.size):
        first += np.float64(reconstruction[i])
        second += np.float64(kl[i])
    totals[DATA_COUNT] += kl.size
    totals[RECONSTRUCTION] += first
    totals[KL] += second
    totals[OBJECTIVE] += kl.size * np.float64(loss[0])
    totals[NORMS] += status[NORM]
    totals[SOUND] += 1.0


@kernel()
def _tick(counters: Pointer[np.int64], batch: int) -> None:
    counters[STEP] += 1
    counters[CURSOR] += batch
    counters[BATCH] += 1


@Launcher
def next_indices(order: Array, counters: Array, out: Array | None, batch: int) -> Plan:
    """The `batch` indices of `order` from the counters' cursor on."""
    out = np.empty(batch, np.int64) if out is None else out
    return out, [Job(_next_indices, order, counters, out)]


@Launcher
def next_rates(plan: Array, counters: Array, out: Array | None) -> Plan:
    """The row of `plan` (batches, rates) for the counters' batch."""
    out = np.empty(plan.shape[1], plan.dtype) if out is None else out
    return out, [Job(_next_rates, plan, counters, out)]


@Launcher
def objective(reconstruction: Array, kl: Array, rates: Array, out: Array | None) -> Plan:
    """weight * mean(kl) - mean(reconstruction), one number; the weight is rates[KL_WEIGHT]."""
    out = np.empty((), kl.dtype) if out is None else out
    return out, [Job(_objective, reconstruction, kl, rates, out)]


@Launcher
def objective_grad(g: Array, kl: Array, rates: Array, out: tuple[Array, Array] | None) -> Plan:
    """The gradients of the objective by reconstruction and kl, each (batch,)."""
    both = out if out is not None else (np.empty_like(kl), np.empty_like(kl))
    return both, [Job(_objective_grad, g, rates, *both)]


@Launcher
def accumulate(reconstruction: Array, kl: Array, loss: Array, totals: Array, status: Array) -> Plan:
    """Add a batch to the sums over the epoch, or count it as skipped."""
    return None, [Job(_accumulate, reconstruction, kl, loss, totals, status)]


@Launcher
def tick(counters: Array, batch: int) -> Plan:
    """Move the counters past a batch."""
    return None, [Job(_tick, counters, batch)]
