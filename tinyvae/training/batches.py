"""Minibatches: the order of the rows, and the rates of each step.

The *rates* of a step are the numbers that a schedule sets: the learning rate, and the weight of each scheduled term of
the objective. When an epoch begins, its order and its plan (one row of rates for each batch) are written into arrays.
A step reads both at the cursor in `counters`, so a recorded step fetches the next batch whenever it is replayed. Rows
that stay in files are read from outside, before each step (`Batches.load`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvae.engine.devices import Array, namespace_of, read
from tinyvae.engine.noise import Window, permutation
from tinyvae.engine.rules import ANY, INDEX, into, rule
from tinyvae.engine.tensor import Tensor, apply
from tinyvae.models.batch import Batch, Rows, RowsInFiles

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


def span(windows: Sequence[Window]) -> slice:
    """The rows of neighbouring windows."""
    return slice(windows[0].first, windows[-1].first + windows[-1].size) if windows else slice(0, 0)


TRIAL = 3  # the most rows of the step before the training that shows which terms a model has
TOGETHER = 1024  # rows in files that are read together: to begin a reading costs 0.1 ms, which small batches share
SHUFFLED = 2**24  # rows that one permutation shuffles; it takes about 30 bytes a row
BLOCK, GROUP = 2**8, 2**14  # of more rows: the rows of a block, and the blocks whose rows are shuffled together


class Order:
    """The order of the rows in an epoch: a function of the seed, the epoch, and their number.

    Up to `SHUFFLED` rows it is a random permutation. More are cut into blocks of neighbours, which are shuffled, and
    then the rows of each `GROUP` blocks are shuffled among each other; the order of a group is made when it is read.
    """

    def __init__(self, seed: int, stream: str, epoch: int, count: int) -> None:
        self.seed, self.stream, self.epoch, self.count = seed, stream, epoch, count
        if count <= SHUFFLED:
            self.blocks, sizes = None, np.array([count])
        else:
            self.blocks = permutation(seed, f"{stream}-blocks", epoch, -(-count // BLOCK))
            lengths = np.minimum(BLOCK, count - BLOCK * self.blocks)  # the last block can be shorter
            sizes = np.add.reduceat(lengths, np.arange(0, len(lengths), GROUP))
        self.ends = np.cumsum(sizes)
        self.made: dict[int, np.ndarray] = {}  # the orders of the groups that were read last

    def rows(self, start: int, size: int) -> np.ndarray:
        """The numbers of `size` rows from place `start` on; after the last place comes the first one."""
        found, place = [], start % self.count
        while size:
            group = int(np.searchsorted(self.ends, place, side="right"))
            part = self._group(group)[place - (self.ends[group - 1] if group else 0) :][:size]
            found.append(part)
            size, place = size - len(part), (place + len(part)) % self.count
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _group(self, number: int) -> np.ndarray:
        if number not in self.made:
            if len(self.made) > 1:  # a batch can lie in two groups
                self.made.pop(next(iter(self.made)))
            self.made[number] = self._make(number)
        return self.made[number]

    def _make(self, number: int) -> np.ndarray:
        if self.blocks is None:
            return permutation(self.seed, self.stream, self.epoch, self.count)
        blocks = self.blocks[number * GROUP : (number + 1) * GROUP]
        rows = (BLOCK * blocks[:, None] + np.arange(BLOCK)).reshape(-1)
        rows = rows[rows < self.count]
        return rows[permutation(self.seed, f"{self.stream}-{number}", self.epoch, len(rows))]


class Stream:
    """The rows of a part of a step, in the order of the epoch.

    `index` has the numbers of all rows in the order of the epoch; of rows in files, of which there may be more than fit
    into memory, those of the batch that was loaded.

    Parameters
    ----------
    rows, size, counters
        The rows, the number of them in a batch, and the position of the training.
    seed, name
        What the order depends on besides the epoch.
    endless
        Whether it begins again at its end, with whole batches; else the last batch has the remaining rows.
    """

    def __init__(self, rows: Rows, size: int, counters: Array, seed: int, name: str, endless: bool = False) -> None:
        self.xp, self.rows, self.size, self.counters = namespace_of(counters), rows, size, counters
        self.seed, self.name, self.endless = seed, name, endless
        self.order: Order | None = None  # before the first epoch begins
        self.together = max(1, TOGETHER // size) * size  # how many rows in files are read together
        # Of each batch that was read, by its place in the order: the first of its rows that this process reads, where
        # that row lies among the rows that were read together, and how many rows this process reads.
        self.there: dict[int, tuple[int, int, int]] = {}
        room = max(size, TRIAL)
        self.index = self.xp.zeros(room if isinstance(rows, RowsInFiles) else rows.count, np.int64)
        if isinstance(rows, RowsInFiles):
            rows.reserve(room, self.together)

    def begin(self, epoch: int) -> None:
        """Write the order of an epoch."""
        self.order, self.there = Order(self.seed, self.name, epoch, self.rows.count), {}
        if not isinstance(self.rows, RowsInFiles):
            self.index[...] = self.xp.asarray(self.order.rows(0, self.rows.count))

    def numbers(self, start: int, size: int) -> np.ndarray:
        """The numbers of the rows of a batch that begins at this place of the order."""
        return np.zeros(size, np.int64) if self.order is None else self.order.rows(start, size)

    def load(self, size: int, share: Callable[[int], slice]) -> None:
        """Read the rows of the batch at the cursor, of which this process computes a share, together with those of the
        batches after it, and have further ones read meanwhile; nothing to do for rows in memory."""
        if not isinstance(self.rows, RowsInFiles):
            return
        start = read(self.counters[CURSOR])
        if start not in self.there:
            now, later = (self._shares(begin, share) for begin in (start, start + self.together))
            self.rows.load(*(np.concatenate([rows for _, _, rows in part] or [np.zeros(0, np.int64)])
                             for part in (now, later)))
            places = np.cumsum([0, *(len(rows) for _, _, rows in now)]).tolist()
            self.there = {begin: (first, place, len(rows)) for (begin, first, rows), place in zip(now, places,
                                                                                                  strict=False)}
        self.index[:size] = self.xp.asarray(self.numbers(start, size))
        self.rows.take(*self.there[start])

    def _shares(self, start: int, share: Callable[[int], slice]) -> list[tuple[int, int, np.ndarray]]:
        """Of each batch that is read together with the one at this place: its place, the first row of this process's
        share, and the numbers of its rows."""
        found = []
        for begin in range(start, start + self.together, self.size):
            size = self.size if self.endless else min(self.size, self.rows.count - begin)
            if size > 0:
                mine = share(size)
                found.append((begin, mine.start, self.numbers(begin, size)[mine]))
        return found

    def at(self, size: int, window: Window | None, labelled: Batch | None = None) -> Batch:
        """The batch at the cursor, or some of its rows."""
        if self.rows.draw is not None:
            self.rows.draw.restart(rows=window)
        if isinstance(self.rows, RowsInFiles):
            index = Tensor(self.index)[:size]
        else:
            index = apply("next_indices", Tensor(self.index), Tensor(self.counters), batch=size)
        return self.rows.at(index, labelled, window)


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
        self.xp, self.counters, self.count = namespace_of(counters), counters, rows.count
        self.size = min(batch, self.count)
        self.steps = -(-self.count // self.size)
        self.labelled_size = 0 if labelled is None else min(labelled_batch or batch, labelled.count)
        # like `counters`, for the labelled rows: their cursor moves by another number of rows
        self.labelled_counters = self.xp.zeros(3, np.int64)
        self.stream = Stream(rows, self.size, counters, seed, "shuffle")
        self.labelled = labelled and Stream(labelled, self.labelled_size, self.labelled_counters, seed,
                                            "shuffle-labelled", endless=True)
        self.dtype = rows.dtype
        self.plan_for(1)

    def plan_for(self, rates: int) -> None:
        """Allocate `plan`, (batches, rates), which the caller fills when an epoch begins."""
        self.plan = self.xp.zeros((self.steps, rates), self.dtype)

    def begin(self, epoch: int) -> None:
        """Write the order of an epoch; the caller sets the cursor."""
        self.stream.begin(epoch)
        if self.labelled:
            self.labelled.begin(epoch)

    def size_now(self) -> int:
        """The number of rows in the batch at the cursor."""
        return min(self.size, self.count - read(self.counters[CURSOR]))

    def sizes(self) -> list[int]:
        """The number of rows in each batch of an epoch; the last batch has the remaining rows."""
        return [min(self.size, self.count - start) for start in range(0, self.count, self.size)]

    def load(self, size: int, own: Callable[[int], Sequence[Shard | None]] | None = None) -> None:
        """Read the rows of the batch at the cursor that lie in files: those of all shards, or of a process's `own`."""

        def share(rows: int) -> slice:
            return slice(0, rows) if own is None else span([shard.rows for shard in own(rows) if shard])

        self.stream.load(size, share)
        if self.labelled:  # which are few, so that each process reads all of them
            self.labelled.load(self.labelled_size, lambda rows: slice(0, rows))

    def next(self, size: int, shard: Shard | None = None) -> tuple[Batch, Tensor]:
        """The batch at the cursor or a shard of it, and its rates."""
        window, of_labelled = shard or (None, None)
        labelled = self.labelled.at(self.labelled_size, of_labelled) if self.labelled else None
        rates = self.rates()
        return self.stream.at(size, window, labelled), rates

    def rates(self) -> Tensor:
        """The rates of the batch at the cursor."""
        return apply("next_rates", Tensor(self.plan), Tensor(self.counters))

    def tick(self, size: int) -> None:
        """Move the counters past a batch, as an operation of the recorded step."""
        apply("tick", Tensor(self.counters), batch=size)
        if self.labelled:
            apply("tick", Tensor(self.labelled_counters), batch=self.labelled_size)
