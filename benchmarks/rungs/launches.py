"""A training step in fewer launches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tinyvae_kernels.cuda.runtime.arguments import new_like, same
from tinyvae_kernels.cuda.runtime.jobs import THREADS, Array, Job, Merge

from benchmarks.rungs import Rung, beside
from benchmarks.rungs.update import FILE as UPDATE

FILE = beside(__file__)
COLUMNS = 8  # of pieces, of which a block makes the sums; see rows_and_sums in launches.cu
MERGES: dict[tuple[str, str], Merge] = {}


def neighbours(first: tuple[str, ...], second: tuple[str, ...]) -> Callable[[Merge], Merge]:
    """Register a merge of the kernels of a file and those of another, each given as (file, kernel, kernel, ...)."""

    def register(merge: Merge) -> Merge:
        def checked(one: Job, other: Job) -> Job | None:  # another rung may have other kernels of these names
            return merge(one, other) if (one.file, other.file) == (first[0], second[0]) else None

        MERGES.update({(one, other): checked for one in first[1:] for other in second[1:]})
        return merge

    return register


def ticket(near: Array) -> Array:
    """The counter by which a launch finds out which of its blocks is the last to finish; 0 between launches."""
    counter = new_like(near, (1,), np.uint32)
    counter.fill(0)
    return counter


# ---- the batch -------------------------------------------------------------------------------------------------------

GATHERS = ("grey_bytes", "grey_floats", "binarise_bytes", "binarise_floats")


@neighbours(("steps", "begin_step"), ("noise", *GATHERS))
def next_rows(begin: Job, gather: Job) -> Job | None:
    """The indices of a batch, its rates, and its rows."""
    order, counters, index, count, batch, *of_rates = begin.arguments
    stored, taken, *rest = gather.arguments
    clock = rest.pop(0) if gather.kernel.startswith("binarise") else counters
    fit = begin.dtype == gather.dtype and rest[1] == batch and count < 2**31  # (rest: the rows, how many, ...)
    if not (fit and same(index, taken) and same(counters, clock)):
        return None
    return gather._replace(file=FILE, kernel=f"next_{gather.kernel}",
                           arguments=(order, counters, index, count, stored, *rest, *of_rates))


# ---- the bias of a last layer, and what reads its rows ---------------------------------------------------------------


@neighbours(("activations", "identity"), ("posterior", "drawn_sample_kl"))
def biased_sample(layer: Job, sample: Job) -> Job | None:
    pre, bias, raw, *_ = layer.arguments
    if not same(raw, sample.arguments[4]):
        return None
    return sample._replace(file=FILE, kernel="biased_sample_kl", arguments=(pre, bias, *sample.arguments))


@neighbours(("activations", "identity"), ("likelihoods", "bernoulli", "gaussian"))
def biased_likelihood(layer: Job, likelihood: Job) -> Job | None:
    pre, bias, output, *_, bias_in_pieces = layer.arguments
    rows, *_, in_pieces = likelihood.arguments
    if not same(output, rows) or (in_pieces and not bias_in_pieces):
        return None
    return likelihood._replace(file=FILE, kernel=f"biased_{likelihood.kernel}",
                               arguments=(pre, bias, *likelihood.arguments))


@neighbours((FILE, "biased_bernoulli", "biased_gaussian"), ("steps", "objective_and_grad"))
@neighbours(("likelihoods", "bernoulli", "gaussian"), ("steps", "objective_and_grad"))
def likelihood_and_objective(likelihood: Job, objective: Job) -> Job | None:
    """The likelihood of few rows, each of which has a block, and the objective and its gradient."""
    reconstruction, kl, rates, loss, _, *gradient = objective.arguments
    sums = likelihood.arguments[-6]
    if not same(reconstruction, sums) or likelihood.block != (THREADS,):
        return None
    return likelihood._replace(file=FILE, kernel=f"{likelihood.kernel}_objective",
                               arguments=(*likelihood.arguments, kl, rates, loss, *gradient, ticket(loss)))


# ---- rows of gradients and the sums of their columns -----------------------------------------------------------------


@neighbours(("likelihoods", "scale_rows"), ("activations", "column_sums"))
def scaled_rows_and_sums(scale: Job, sums: Job) -> Job | None:
    g, a, out, *_, scaled_in_pieces = scale.arguments
    rows, first, *rest = sums.arguments
    width, pieces = rest[1], rest[-1]
    if not same(out, rows) or (pieces and not scaled_in_pieces):
        return None
    columns = width // (16 // scale.dtype.itemsize) if pieces else width
    return sums._replace(file=FILE, kernel="scale_rows_and_sums", grid=(-(-int(columns) // COLUMNS), sums.grid[1]),
                         block=(THREADS,), arguments=(g, a, out, first, *rest))


@neighbours(("posterior", "sample_kl_grad"), ("activations", "column_sums"))
def sample_grad_and_sums(grad: Job, sums: Job) -> Job | None:
    rows, first, _, width, chunk, _ = sums.arguments
    if not same(grad.arguments[4], rows):
        return None
    return sums._replace(file=FILE, kernel="sample_kl_grad_and_sums", grid=(-(-int(width) // COLUMNS), sums.grid[1]),
                         block=(THREADS,), arguments=(*grad.arguments, first, chunk))


# ---- the guard and the update ----------------------------------------------------------------------------------------


@neighbours(("optimizers", "squares"), ("optimizers", "verdict"))
def squares_and_verdict(squares: Job, verdict: Job) -> Job | None:
    loss, sums, status, _, most = verdict.arguments
    if squares.dtype != verdict.dtype or not same(sums, squares.arguments[1]):
        return None
    return squares._replace(file=FILE, kernel="squares_and_verdict",
                            arguments=(*squares.arguments, loss, status, most, ticket(sums)))


@neighbours((FILE, "squares_and_verdict"), (UPDATE, "adam_scales"))
def verdict_and_scales(verdict: Job, scales: Job) -> Job | None:
    """The guard, and what the rung `update` makes of its verdict."""
    rates, status, *rest = scales.arguments
    if verdict.dtype != scales.dtype or not same(status, verdict.arguments[5]):
        return None
    return verdict._replace(kernel="squares_verdict_and_scales", arguments=(*verdict.arguments, rates, *rest))


@neighbours(("optimizers", "adam"), ("steps", "end_step"))
@neighbours((UPDATE, "adam_scaled"), ("steps", "end_step"))
def adam_and_end(adam: Job, end: Job) -> Job | None:
    """Adam, and a block more for the end of the step."""
    *terms, status, data, counters, batch = end.arguments
    if adam.dtype != end.dtype or not same(status, adam.arguments[5]):
        return None
    return adam._replace(file=FILE, kernel=f"{adam.kernel}_and_end", grid=(adam.grid[0] + 1,),
                         arguments=(*adam.arguments, *terms, data, counters, batch))


RUNG = Rung("one launch for the batch, its indices and its rates; for the bias of a last layer, what reads it and the "
            "objective; for a gradient and its bias's; for the guard; for Adam and the end of the step", merges=MERGES)
