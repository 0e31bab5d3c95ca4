"""Minibatches as launches: which rows, in which order, and pixels drawn at each use.

An epoch's order and its learning rates are written into arrays when it begins; from then on a step only reads them
at its cursor, so a recorded step fetches the next batch whenever it is replayed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae.engine.devices import Array, namespace_of, read
from tinyvae.engine.noise import Noise, for_kernel, into, permutation, uniform
from tinyvae.engine.rules import ANY, DATA, INDEX, rule
from tinyvae.engine.tensor import Tensor, apply

# The places of `counters`, an int64 vector: the running number of the step (it addresses the noise), the first row of
# the batch within the epoch's order, and the number of the batch within the epoch.
STEP, CURSOR, BATCH = range(3)


def _next_indices(xp: Any, order: Any, counters: Any, out: Any, batch: int) -> Any:
    # (who replays a step more often than the epoch has batches begins it anew)
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


def _grey_rows(xp: Any, stored: Any, index: Any, out: Any, scale: float, dtype: Any) -> Any:
    rows = xp.take(stored, index, axis=0)
    return xp.divide(rows, dtype.type(scale), out=out, dtype=dtype, casting="unsafe")


def _binarised_rows(xp: Any, stored: Any, index: Any, counters: Any, out: Any, seed: int, stream: str, site: int,
                    scale: float, dtype: Any) -> Any:
    grey = _grey_rows(xp, stored, index, None, scale, dtype)
    u = uniform(seed, stream, read(counters[STEP]), site, grey.shape, np.float32, xp=xp)
    drawn = (u.astype(dtype) < grey).astype(dtype)
    return into(out, drawn)


def _accepts(stored: Any, index: Any, *_: Any) -> bool:
    return stored.dtype in (np.uint8, np.float32) and stored.ndim == 2 and index.dtype == np.int64 and index.ndim == 1


def _prepare_drawn(arrays: Any, dtype: Any, **rest: Any) -> dict[str, Any]:
    return for_kernel(arrays, (len(arrays[1]), arrays[0].shape[1]), dtype, **rest)


def _prepare_grey(arrays: Any, scale: float, dtype: Any, out: Any = None) -> dict[str, Any]:
    stored, index = arrays
    out = namespace_of(stored).empty((len(index), stored.shape[1]), dtype) if out is None else out
    return {"out": out, "scale": scale}


rule("next_indices", _next_indices, (None, None), (INDEX, INDEX), kernel="next_indices", picks=True)
rule("next_rates", _next_rates, (None, None), (ANY, INDEX), kernel="next_rates", picks=True)
rule("tick", _tick, domain=(INDEX,), writes=(0,), kernel="tick")
# stored pixels as numbers in [0, 1]
rule("grey_rows", _grey_rows, (None, None), (DATA, INDEX), kernel="grey_rows", prepare=_prepare_grey,
     accepts=_accepts, picks=True)
# each pixel 1 with the probability of its grey value, else 0
rule("binarised_rows", _binarised_rows, (None, None, None), (DATA, INDEX, INDEX), kernel="binarised_rows",
     prepare=_prepare_drawn, accepts=_accepts, picks=True, flops=3)


def rows(stored: Any, index: Tensor, scale: float, dtype: Any, draw: Noise | None) -> Tensor:
    """The chosen rows of stored images as (batch, pixels): drawn as 0 or 1 if `draw` is given, else grey."""
    dtype = np.dtype(dtype)
    if draw is None:
        return apply("grey_rows", stored, index, scale=scale, dtype=dtype)
    return draw.draw("binarised_rows", stored, index, scale=scale, dtype=dtype)


class Batches:
    """The minibatches of one training set, epoch after epoch, each epoch in an order of its own.

    Parameters: `stored` (count, pixels) with grey value = stored / `scale`; `dynamic` draws the pixels at each use;
    `plan` is filled by the caller at `begin` with one row of rates a batch.
    """

    def __init__(self, stored: np.ndarray, scale: float, batch: int, seed: int, dynamic: bool, dtype: Any,
                 counters: Array) -> None:
        if not 1 <= batch:
            raise ValueError(f"found a batch size of {batch}; expected at least 1")
        self.xp = namespace_of(counters)  # everything here lives where the counters does
        self.stored, self.scale, self.dtype, self.seed = Tensor(self.xp.asarray(stored)), scale, np.dtype(dtype), seed
        self.count, self.size, self.counters = len(stored), min(batch, len(stored)), counters
        self.steps = -(-self.count // self.size)
        self.order = self.xp.zeros(self.count, np.int64)
        self.plan = self.xp.zeros((self.steps, 2), self.dtype)
        self.draw = Noise(seed, "binarise", counters) if dynamic else None

    def begin(self, epoch: int) -> None:
        """Lay out the order of an epoch; the cursor is the caller's to set."""
        self.order[...] = self.xp.asarray(permutation(self.seed, "shuffle", epoch, self.count))

    def size_now(self) -> int:
        """Rows in the batch at the cursor."""
        return min(self.size, self.count - read(self.counters[CURSOR]))

    def sizes(self) -> list[int]:
        """Rows in each batch of an epoch: fewer in the last one if the count does not divide."""
        return [min(self.size, self.count - start) for start in range(0, self.count, self.size)]

    def next(self, size: int) -> tuple[Tensor, Tensor]:
        """The batch at the cursor, (size, pixels), and its rates (learning rate, KL weight)."""
        if self.draw is not None:
            self.draw.restart()
        index = apply("next_indices", Tensor(self.order), Tensor(self.counters), batch=size)
        rates = apply("next_rates", Tensor(self.plan), Tensor(self.counters))
        return rows(self.stored, index, self.scale, self.dtype, self.draw), rates

    def tick(self, size: int) -> None:
        """Move the counters past a batch, as a launch."""
        apply("tick", Tensor(self.counters), batch=size)
