"""The small work of a training step: which rows come next, the objective, the epoch's sums, the counters."""

from __future__ import annotations

import numpy as np

from tinyvae_kernels.cuda.runtime.arguments import count, flat, new_like, same_type, whole
from tinyvae_kernels.cuda.runtime.jobs import Array, Job, Launcher, Plan, alone, neighbours, spread

ONE_BLOCK = 4096  # numbers that one block writes as fast as many do


ANY_TYPE = np.float32  # for kernels that touch no numbers of the floating type


@Launcher
def next_indices(order: Array, counters: Array, out: Array | None, batch: int) -> Plan:
    """The `batch` indices of `order` from the counters' cursor on."""
    out = new_like(order, (batch,)) if out is None else out
    arguments = (*flat(order, counters, out), whole(order.size), np.int32(batch))
    return out, alone("steps", "next_indices", ANY_TYPE, *arguments)


@Launcher
def next_rates(plan: Array, counters: Array, out: Array | None) -> Plan:
    """The row of `plan` (batches, rates) for the counters' batch."""
    out = new_like(plan, plan.shape[1:]) if out is None else out
    return out, alone("steps", "next_rates", same_type(plan, out), plan, counters, out, *map(np.int32, plan.shape))


@Launcher
def objective(reconstruction: Array, kl: Array, rates: Array, out: Array | None) -> Plan:
    """weight * mean(kl) - mean(reconstruction), one number; the weight is rates[1]."""
    out = new_like(kl, ()) if out is None else out
    arrays = (reconstruction, kl, rates, out)
    return out, alone("steps", "objective", same_type(*arrays), *arrays, whole(kl.size))


@Launcher
def objective_grad(g: Array, kl: Array, rates: Array, out: tuple[Array, Array] | None) -> Plan:
    """The gradients of the objective by reconstruction and kl, each (batch,)."""
    both = out if out is not None else (new_like(kl), new_like(kl))
    arrays = (g, rates, *both)
    return both, spread("steps", "objective_grad", same_type(*arrays), kl.size, *arrays, count(kl.size))


@Launcher
def accumulate(reconstruction: Array, kl: Array, loss: Array, totals: Array, status: Array) -> Plan:
    """Add a batch to the sums over the epoch, or count it as skipped."""
    arrays = (reconstruction, kl, loss)
    return None, alone("steps", "accumulate", same_type(*arrays), *arrays, totals, status, whole(kl.size))


@Launcher
def tick(counters: Array, batch: int) -> Plan:
    """Move the counters past a batch."""
    return None, alone("steps", "tick", ANY_TYPE, counters, np.int32(batch))


# ---- neighbours in one launch ----------------------------------------------------------------------------------------


@neighbours("next_rates", "next_indices")
def _begin_step(rates: Job, indices: Job) -> Job | None:
    plan, counters, *rest = rates.arguments
    if indices.arguments[1] is not counters:
        return None
    return rates._replace(kernel="begin_step", arguments=(*indices.arguments, plan, *rest))


@neighbours("objective", "objective_grad")
def _objective_and_grad(objective: Job, grad: Job) -> Job | None:
    g, rates, by_reconstruction, by_kl, count = grad.arguments
    if objective.arguments[2] is not rates or objective.arguments[3] is g or count > ONE_BLOCK:
        return None
    arguments = (*objective.arguments, g, by_reconstruction, by_kl)
    return objective._replace(kernel="objective_and_grad", arguments=arguments)


@neighbours("accumulate", "tick")
def _end_step(accumulate: Job, tick: Job) -> Job | None:
    return accumulate._replace(kernel="end_step", arguments=(*accumulate.arguments, *tick.arguments))
