"""A step whose batch is cut into M shards:

    for each shard    its rows -> terms -> loss -> gradient
    the sums of the shards' gradients and terms, in a tree (tree.py)
    guard and update, and the totals

Shard i of a batch of b rows has the rows from floor(i b / M) to floor((i + 1) b / M), so some are empty if b < M. A
batch of labelled rows beside it is cut likewise, into as many parts as there are shards that are not empty. The pixels
and the noise of a shard are those that its rows have in the whole batch, and its loss is the part of the batch's loss
that its rows make. The bits of a training depend on M, but not on how many processes share the shards (ranks.py).
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
from tinyvae.inference.bounds import Terms
from tinyvae.models import Model, Phase
from tinyvae.training.batches import Batches, Shard
from tinyvae.training.objective import accumulate_sums, objective, sum_terms
from tinyvae.training.settings import Settings
from tinyvae.training.shards.nccl import mover
from tinyvae.training.shards.ranks import launched, ranks
from tinyvae.training.shards.tree import Tree
from tinyvae.training.step import Step

MIXING = ("moving-average", "fitted")  # the baselines that compare a row with others


def windows(size: int, shards: int) -> list[Window]:
    """The rows of each shard of a batch of `size` rows."""
    edges = [i * size // shards for i in range(shards + 1)]
    return [Window(first, last - first, size) for first, last in pairwise(edges)]


def shards_of(size: int, labelled: int, shards: int) -> list[Shard | None]:
    """The shards of a batch of `size` rows beside `labelled` labelled ones; None for an empty one."""
    rows = windows(size, shards)
    parts = iter(windows(labelled, min(size, shards)))
    return [Shard(part, next(parts) if labelled else None) if part.size else None for part in rows]


def check(model: Model, phase: Phase, settings: Settings) -> None:
    """Raise ValueError for what cannot be computed shard by shard."""
    reasons = (
        (model.mixes, f"{an(model.kind)} with {model.mixes}"),
        (phase.chains, "the learner mcem, which moves a chain for each datum"),
        (settings.free_bits, f"free_bits={settings.free_bits:g}, which compares the mean KL of all rows of a batch"),
        (settings.baseline in MIXING, f"baseline={settings.baseline}, which is estimated from all rows of a batch"))
    for wrong, what in reasons:
        if wrong:
            alone = ", and start one process" if launched() > 1 else ""
            raise ValueError(f"found shards={settings.shards} with {what}: leave shards out{alone}")


def check_labelled(batches: Batches, shards: int) -> None:
    """Raise ValueError for fewer labelled rows in a step than shards."""
    if (size := batches.labelled_size) and size < (needed := min(shards, batches.size)):
        have = batches.labelled.rows.count if batches.labelled else 0
        cure = f"take labelled_batch={needed}, or " if have >= needed else ""
        raise ValueError(f"found shards={shards} with {size} labelled data in a step, of which each shard needs one: "
                         f"{cure}take at most {size} shards")


class ShardedStep(Step):
    """The step of one phase, whose batch is cut into `settings.shards` shards."""

    def __init__(self, model: Model, phase: Phase, batches: Batches, settings: Settings, counters: Any,
                 exchange: str = "mpi") -> None:
        check(model, phase, settings)
        check_labelled(batches, settings.shards)
        super().__init__(model, phase, batches, settings, counters)
        # the loss of a shard, which is its part of the batch's loss, and the sum over its rows of each reported term
        self.sums = model.xp.zeros(1 + len(self.reported_names))
        self.batch_loss = Tensor(model.xp.zeros((), model.dtype))
        self.gradients, self.terms = Tree(self.gradient), Tree(self.sums)
        self.ranks = ranks()
        self.nccl = mover(exchange, self.ranks)
        self.share = self.ranks.share(settings.shards)
        self.program_of_shard = Program(self.build_shard)  # one recording for each shard of each batch size

    def _trial_terms(self) -> Terms:
        terms = super()._trial_terms()
        everything = dict(terms) | terms.reported
        # the terms that have a number for each row of the labelled batch
        self.of_labelled = {name for name, term in everything.items() if term.shape == (self.batches.labelled_size,)}
        return terms

    def count(self, name: str, shard: Shard) -> float:
        """For how many rows of the batch this shard's value of a term counts. For a term of the labelled batch they are
        the same share of the batch as the shard's rows are of the labelled batch."""
        part = shard.labelled if name in self.of_labelled and shard.labelled else shard.rows
        return part.size if part.of == shard.rows.of else part.size / part.of * shard.rows.of

    def objective(self, terms: Terms, rates: Tensor, shard: Shard | None) -> Tensor:
        if shard is None:
            return super().objective(terms, rates, shard)
        weights, rows = self.model.weights, shard.rows
        shares = {name: self.count(name, shard) / rows.size for name in terms}
        weights = dict(weights) | {name: share * weights.get(name, 1.0) for name, share in shares.items() if share != 1}
        return objective(terms, weights, rates, self.scheduled) * (rows.size / rows.of)

    def build_shard(self, shard: Shard) -> None:
        """The gradient of a shard and its sums, which `program_of_shard` records."""
        loss, terms, _ = self.loss(shard.rows.of, shard)
        sum_terms(terms, [self.count(name, shard) for name in terms.reported], loss, self.sums)

    def build(self, size: int) -> None:
        """The operations after the sums are known, which `program` records."""
        self.optimize(self.batch_loss, self.batches.rates())
        accumulate_sums(self.sums, size, self.totals, self.optimizer.status)
        self.batches.tick(size)

    def own(self, size: int) -> list[Shard | None]:
        """The shards of a batch that this process computes; None for an empty one."""
        shards = shards_of(size, self.batches.labelled_size, self.settings.shards)
        return shards[self.share.start : self.share.stop]

    def _collect(self, size: int, make: Any) -> None:
        """Leave the sums over all shards in `gradient`, `sums` and `batch_loss`."""
        for shard in self.own(size):
            if shard:
                make(shard)
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
        self.ranks.add(self.gradient, self.nccl)
        # the few sums go by MPI, together with the wish, which a host has
        message = np.append(to_host(self.sums), float(self.ranks.wish))
        self.ranks.add(message)
        self.sums[...] = self.model.xp.asarray(message[:-1])
        self.ranks.stopping = bool(message[-1])

    def advance(self, size: int) -> None:
        with np.errstate(all="ignore"):
            self._collect(size, self.program_of_shard)
        self.program(size)

    def load(self, size: int) -> None:
        self.batches.load(size, self.own)

    def eager(self, size: int) -> None:
        self.load(size)
        with np.errstate(all="ignore"):
            self._collect(size, self.build_shard)
            self.build(size)

    def is_settled(self, size: int) -> bool:
        return super().is_settled(size) and all(self.program_of_shard.is_settled(shard)
                                                for shard in self.own(size) if shard)

    def forget(self) -> None:
        super().forget()
        self.program_of_shard.clear()
