"""Minibatches: the order of the rows, and the rates of each step.

The *rates* of a step are the numbers that a schedule sets: the learning rate, and the weight of each scheduled term of
the objective. When an epoch begins, its order and its plan (one row of rates for each batch) are written into arrays.
A step reads both at the cursor in `counters`, so a recorded step fetches the next batch whenever it is replayed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinyvae.engine.devices import Array, namespace_of, read
from tinyvae.engine.noise import Window, permutation
from tinyvae.engine.rules import ANY, INDEX, into, rule
from tinyvae.engine.tensor import Tensor, apply
from tinyvae.models.batch import Batch, Rows

# The indices of `counters`, an int64 vector: the number of the step since the start of the training, which addresses
# the noise; the position of the batch's first row in the epoch's order; and the number of the batch within the epoch.
STEP, CURSOR, BATCH = range(3)


def _next_indices(xp: Any, order: Any, counters: Any, out: Any, batch: int) -> Any:
    # After the last row of the order comes the first one again.
    rows = order[(read(counters[CURSOR]) + xp.arange(batch)) % len(order)]
    return into(out, rows)


def _next_rates(xp: Any, plan: Any, counters: Any, out: Any) -> Any:
    rates = plan[read(counters[BATCH]) % len(plan)]
    if out is None:
        return rates.copy()
    out[...] = rates
    return out


def _tick(xp: Any, counters: Any, batch: int) -> None:
    counters += xp.asarray((1, batch, 1))


rule("next_indices", _next_indices, (None, None), (INDEX, INDEX), kernel="next_indices", picks=True)
rule("next_rates", _next_rates, (None, None), (ANY, INDEX), kernel="next_rates", picks=True)
rule("tick", _tick, domain=(INDEX,), writes=(0,), kernel="tick")


class Shard(NamedTuple):
    """A part of a step: some rows of its batch, and of its labelled batch, if it has one."""

    rows: Window
    labelled: Window | None


class Batches:
    """The minibatches of a training set; each epoch has its own random order.

    Parameters
    ----------
    rows
        The training data.
    batch
        The number of rows in a step; the last step of an epoch has the remaining rows.
    seed
        The seed of the orders.
    counters
        The position of the training; see the indices above.
    labelled
        The rows with labels, if the model needs them.
    labelled_batch
        The number of labelled rows in each step, 0 for as many as `batch`; all of them if they are fewer. They come in
        a random order of their own, which starts again at its end.
    """

    def __init__(self, rows: Rows, batch: int, seed: int, counters: Array, labelled: Rows | None = None,
                 labelled_batch: int = 0) -> None:
        if not 1 <= batch:
            raise ValueError(f"found a batch size of {batch}; expected at least 1")
        self.xp, self.rows, self.labelled, self.seed = namespace_of(counters), rows, labelled, seed
        self.count, self.counters = len(rows.stored), counters
        self.size = min(batch, self.count)
        self.steps = -(-self.count // self.size)
        self.order = self.xp.zeros(self.count, np.int64)
        self.labelled_order = None if labelled is None else self.xp.zeros(len(labelled.stored), np.int64)
        self.labelled_size = 0 if labelled is None else min(labelled_batch or batch, len(labelled.stored))
        # like `counters`, for the labelled rows: their cursor moves by another number of rows
        self.labelled_counters = self.xp.zeros(3, np.int64)
        self.plan_for(1)

    def plan_for(self, rates: int) -> None:
        """Allocate `plan`, (batches, rates), which the caller fills when an epoch begins."""
        self.plan = self.xp.zeros((self.steps, rates), self.rows.dtype)

    def begin(self, epoch: int) -> None:
        """Write the order of an epoch; the caller sets the cursor."""
        self.order[...] = self.xp.asarray(permutation(self.seed, "shuffle", epoch, self.count))
        if self.labelled_order is not None:
            self.labelled_order[...] = self.xp.asarray(
                permutation(self.seed, "shuffle-labelled", epoch, len(self.labelled_order)))

    def size_now(self) -> int:
        """The number of rows in the batch at the cursor."""
        return min(self.size, self.count - read(self.counters[CURSOR]))

    def sizes(self) -> list[int]:
        """The number of rows in each batch of an epoch; the last batch has the remaining rows."""
        return [min(self.size, self.count - start) for start in range(0, self.count, self.size)]

    def next(self, size: int, shard: Shard | None = None) -> tuple[Batch, Tensor]:
        """The batch at the cursor or a shard of it, and its rates."""
        window, of_labelled = shard or (None, None)
        for rows, part in ((self.rows, window), (self.labelled, of_labelled)):
            if rows is not None and rows.draw is not None:
                rows.draw.restart(rows=part)
        index = apply("next_indices", Tensor(self.order), Tensor(self.counters), batch=size)
        rates = self.rates()
        labelled = None
        if self.labelled is not None:
            labelled = self.labelled.at(apply("next_indices", Tensor(self.labelled_order),
                                              Tensor(self.labelled_counters), batch=self.labelled_size),
                                        window=of_labelled)
        return self.rows.at(index, labelled, window), rates

    def rates(self) -> Tensor:
        """The rates of the batch at the cursor."""
        return apply("next_rates", Tensor(self.plan), Tensor(self.counters))

    def tick(self, size: int) -> None:
        """Move the counters past a batch, as an operation of the recorded step."""
        apply("tick", Tensor(self.counters), batch=size)
        if self.labelled is not None:
            apply("tick", Tensor(self.labelled_counters), batch=self.labelled_size)
