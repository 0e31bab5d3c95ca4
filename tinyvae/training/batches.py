"""Minibatches as launches: which rows come next, in which order, and the weights of the step.

An epoch's order and its plan (the learning rate and the weights of the model's terms, batch by batch) are written into
arrays when it begins; from then on a step only reads them at its cursor, so a recorded step fetches the next batch
whenever it is replayed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae.engine.devices import Array, namespace_of, read
from tinyvae.engine.noise import permutation
from tinyvae.engine.rules import ANY, INDEX, into, rule
from tinyvae.engine.tensor import Tensor, apply
from tinyvae.models.batch import Batch, Rows

# The places of `counters`, an int64 vector: the running number of the step (it addresses the noise), the first row of
# the batch within the epoch's order, and the number of the batch within the epoch.
STEP, CURSOR, BATCH = range(3)


def _next_indices(xp: Any, order: Any, counters: Any, out: Any, batch: int) -> Any:
    # (who replays a step more often than the epoch has batches begins it anew)
    rows = order[(read(counters[CURSOR]) + xp.arange(batch)) % len(order)]
    return into(out, rows)


def _next_weights(xp: Any, plan: Any, counters: Any, out: Any) -> Any:
    weights = plan[read(counters[BATCH]) % len(plan)]
    if out is None:
        return weights.copy()
    out[...] = weights
    return out


def _tick(xp: Any, counters: Any, batch: int) -> None:
    counters += xp.asarray((1, batch, 1))


rule("next_indices", _next_indices, (None, None), (INDEX, INDEX), kernel="next_indices", picks=True)
rule("next_rates", _next_weights, (None, None), (ANY, INDEX), kernel="next_rates", picks=True)
rule("tick", _tick, domain=(INDEX,), writes=(0,), kernel="tick")


class Batches:
    """The minibatches of one training set, epoch after epoch, each epoch in an order of its own.

    Parameters
    ----------
    rows
        The training data.
    batch
        Rows a step; the last step of an epoch has fewer where the count does not divide.
    seed
        Of the orders.
    counters
        The state that says where the training is; see the head of this file.
    labelled
        The rows with known labels, where the model asks for them: each step takes as many as of the others, in an
        order of their own, again from the start when they are used up.
    """

    def __init__(self, rows: Rows, batch: int, seed: int, counters: Array, labelled: Rows | None = None) -> None:
        if not 1 <= batch:
            raise ValueError(f"found a batch size of {batch}; expected at least 1")
        self.xp, self.rows, self.labelled, self.seed = namespace_of(counters), rows, labelled, seed
        self.count, self.counters = len(rows.stored), counters
        self.size = min(batch, self.count)
        self.steps = -(-self.count // self.size)
        self.order = self.xp.zeros(self.count, np.int64)
        self.labelled_order = None if labelled is None else self.xp.zeros(len(labelled.stored), np.int64)
        self.plan_for(1)

    def plan_for(self, weights: int) -> None:
        """Make room for the numbers that change from batch to batch: `plan` is (batches, weights), for the caller to
        fill when an epoch begins."""
        self.plan = self.xp.zeros((self.steps, weights), self.rows.dtype)

    def begin(self, epoch: int) -> None:
        """Lay out the order of an epoch; the cursor is the caller's to set."""
        self.order[...] = self.xp.asarray(permutation(self.seed, "shuffle", epoch, self.count))
        if self.labelled_order is not None:
            self.labelled_order[...] = self.xp.asarray(
                permutation(self.seed, "shuffle-labelled", epoch, len(self.labelled_order)))

    def size_now(self) -> int:
        """Rows in the batch at the cursor."""
        return min(self.size, self.count - read(self.counters[CURSOR]))

    def sizes(self) -> list[int]:
        """Rows in each batch of an epoch: fewer in the last one if the count does not divide."""
        return [min(self.size, self.count - start) for start in range(0, self.count, self.size)]

    def next(self, size: int) -> tuple[Batch, Tensor]:
        """The batch at the cursor, and its row of the plan."""
        for rows in (self.rows, self.labelled):
            if rows is not None and rows.draw is not None:
                rows.draw.restart()
        index = apply("next_indices", Tensor(self.order), Tensor(self.counters), batch=size)
        weights = apply("next_rates", Tensor(self.plan), Tensor(self.counters))
        labelled = None
        if self.labelled is not None:
            labelled = self.labelled.at(apply("next_indices", Tensor(self.labelled_order), Tensor(self.counters),
                                              batch=min(size, len(self.labelled.stored))))
        return self.rows.at(index, labelled), weights

    def tick(self, size: int) -> None:
        """Move the counters past a batch, as a launch."""
        apply("tick", Tensor(self.counters), batch=size)
