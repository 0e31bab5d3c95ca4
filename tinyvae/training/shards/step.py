"""A step whose batch is cut into M shards:

    for each shard    its rows -> terms -> loss -> gradient
    the sums of the shards' gradients and terms, in a tree (tree.py)
    guard and update, and the totals

Shard i of a batch of b rows has the rows from floor(i b / M) to floor((i + 1) b / M), so some are empty if b < M. Its
pixels and noise are those that its rows have in the whole batch, and its loss is the part of the batch's loss that its
rows make. The bits of a training depend on M, but not on how many processes share the shards (ranks.py).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from tinyvae.choices import an
from tinyvae.engine.devices import to_host
from tinyvae.engine.noise import Window
from tinyvae.engine.program import Program
from tinyvae.engine.tensor import Tensor
from tinyvae.models import Model, Phase
from tinyvae.training.batches import Batches
from tinyvae.training.objective import accumulate_sums, sum_terms
from tinyvae.training.settings import Settings
from tinyvae.training.shards.ranks import ranks
from tinyvae.training.shards.tree import Tree
from tinyvae.training.step import Step

MIXING = ("moving-average", "fitted")  # the baselines that compare a row with others


def windows(size: int, shards: int) -> list[Window]:
    """The rows of each shard of a batch of `size` rows."""
    edges = [i * size // shards for i in range(shards + 1)]
    return [Window(first, last - first, size) for first, last in pairwise(edges)]


def check(model: Model, phase: Phase, settings: Settings) -> None:
    """Raise ValueError for what cannot be computed shard by shard."""
    reasons = (
        ("labelled" in model.needs, f"{an(model.kind)}, whose steps take a second batch of labelled data"),
        (phase.chains, "the learner mcem, which moves a chain for each datum"),
        (settings.free_bits, f"free_bits={settings.free_bits:g}, which compares the mean KL of all rows of a batch"),
        (settings.baseline in MIXING, f"baseline={settings.baseline}, which is estimated from all rows of a batch"))
    for wrong, what in reasons:
        if wrong:
            raise ValueError(f"found shards={settings.shards} with {what}: leave shards out")


class ShardedStep(Step):
    """The step of one phase, whose batch is cut into `settings.shards` shards."""

    def __init__(self, model: Model, phase: Phase, batches: Batches, settings: Settings, counters: Any) -> None:
        check(model, phase, settings)
        super().__init__(model, phase, batches, settings, counters)
        # the loss of a shard, which is its part of the batch's loss, and the sum over its rows of each reported term
        self.sums = model.xp.zeros(1 + len(self.reported_names))
        self.batch_loss = Tensor(model.xp.zeros((), model.dtype))
        self.gradients, self.terms = Tree(self.gradient), Tree(self.sums)
        self.ranks = ranks()
        self.share = self.ranks.share(settings.shards)
        self.shard = Program(self.build_shard)  # one recording for each shard of each batch size

    def build_shard(self, rows: Window) -> None:
        """The gradient of a shard and its sums, which `shard` records."""
        loss, terms, _ = self.loss(rows.of, rows)
        sum_terms(terms, rows.size, loss, self.sums)

    def build(self, size: int) -> None:
        """The operations after the sums are known, which `program` records."""
        self.optimize(self.batch_loss, self.batches.rates())
        accumulate_sums(self.sums, size, self.totals, self.optimizer.status)
        self.batches.tick(size)

    def own(self, size: int) -> list[Window]:
        """The shards of a batch that this process computes."""
        return windows(size, self.settings.shards)[self.share.start : self.share.stop]

    def _collect(self, size: int, make: Any) -> None:
        """Leave the sums over all shards in `gradient`, `sums` and `batch_loss`."""
        for rows in self.own(size):
            if rows.size:
                make(rows)
            else:
                self.gradient[...], self.sums[...] = 0, 0
            self.gradients.add(self.gradient)
            self.terms.add(self.sums)
        self.gradients.take(self.gradient)
        self.terms.take(self.sums)
        self._exchange()
        self.batch_loss.data[...] = self.sums[0]

    def _exchange(self) -> None:
        """Add the sums of all processes, and learn whether one of them was asked to stop."""
        if self.ranks.size == 1:
            return
        self.ranks.add(self.gradient)
        message = np.append(to_host(self.sums), float(self.ranks.wish))
        self.ranks.add(message)
        self.sums[...] = self.model.xp.asarray(message[:-1])
        self.ranks.stopping = bool(message[-1])

    def advance(self, size: int) -> None:
        with np.errstate(all="ignore"):
            self._collect(size, self.shard)
        self.program(size)

    def eager(self, size: int) -> None:
        with np.errstate(all="ignore"):
            self._collect(size, self.build_shard)
            self.build(size)

    def is_settled(self, size: int) -> bool:
        return super().is_settled(size) and all(self.shard.is_settled(rows) for rows in self.own(size) if rows.size)

    def forget(self) -> None:
        super().forget()
        self.shard.clear()
