"""Noise is a function, not a state: eps = normal(seed, stream, step, site, index).

A counter-based generator (Philox 4x32-10; Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy
as 1, 2, 3") turns the address of a draw into 128 random bits. Nothing is carried from one draw to the next, so
a resumed run, a replayed tape and another device draw the same numbers, and there is no state to save.

The address is

    key     = (seed, stream)                    who draws: 32 bits each, the stream by the CRC-32 of its name
    counter = (index // 4, site, step, attempt) which draw: 32 bits each

`site` is the running number of the draw within a step, so that two draws of one step never share a counter;
`attempt` is for rejection samplers. One counter gives four 32-bit words, hence `index // 4`. `index` is the place in
the draw for the whole batch, so a part of the rows of a batch gets the numbers that these rows get there.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tinyvae.choices import whole, whole_numbers
from tinyvae.engine.devices import floating, namespace_of, read
from tinyvae.engine.rules import INDEX, into, rule
from tinyvae.engine.tensor import Tensor, apply

# The multipliers and the key increments ("Weyl constants") of Philox 4x32.
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
PIECE = 2**16  # the labels of a permutation that are drawn at a time
WORD = 0xFFFFFFFF


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int], xp: Any = np) -> tuple[Any, Any, Any, Any]:
    """Philox 4x32-10: four counter words and two key words give four random words.

    The counter words are uint64 arrays (or integers) below 2**32 that broadcast together; so are the results.
    A round multiplies two words into 64 bits, keeps the low halves, and mixes the high halves with the other
    two words and the key.
    """
    c0, c1, c2, c3 = (xp.asarray(c, dtype=xp.uint64) for c in counter)
    k0, k1 = key
    low, high = xp.uint64(WORD), xp.uint64(32)
    for _ in range(ROUNDS):
        p0, p1 = c0 * xp.uint64(M0), c2 * xp.uint64(M1)
        c0, c1, c2, c3 = (p1 >> high) ^ c1 ^ xp.uint64(k0), p1 & low, (p0 >> high) ^ c3 ^ xp.uint64(k1), p0 & low
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return c0, c1, c2, c3


@cache
def stream_number(stream: str) -> int:
    """The 32-bit number of a named stream: a shuffle can never disturb the noise, for they differ in the key."""
    return zlib.crc32(stream.encode())


def words(
    seed: int, stream: str, step: int, site: int, count: int, attempt: int = 0, first: int = 0, xp: Any = np
) -> Any:
    """`count` random 32-bit words, as (count,) uint64, those with index `first`, `first + 1`, ... of the address."""
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed <= WORD:
        raise ValueError(f"found seed {seed!r}; expected a whole number from 0 to {WORD} (32 bits)")
    if not isinstance(stream, str):
        raise TypeError(f"found the stream {stream!r:.60}; expected its name, as text")
    count = whole("a count of random numbers,", count)
    begin, end = first // 4, -(-(first + count) // 4)
    block = xp.arange(begin, end, dtype=xp.uint64)
    four = philox((block, site, step, attempt), (seed, stream_number(stream)), xp)
    return xp.stack(xp.broadcast_arrays(*four), axis=-1).reshape(-1)[first - 4 * begin :][:count]


class Window(NamedTuple):
    """Some rows of a batch: those from number `first` on, `size` of the `of` rows of the batch.

    The rows of a draw lie on its last axis but one, which may hold several copies of them one after another. A draw for
    a window gives the numbers that a draw for the whole batch has in these rows.
    """

    first: int
    size: int
    of: int

    def runs(self, shape: Sequence[int]) -> list[int]:
        """The place in the whole draw at which each run of neighbouring numbers begins, for a draw of this shape; there
        is a run for each copy of the rows. ValueError if the draw has other rows."""
        *before, rows, width = shape if len(shape) > 1 else (0, 0)
        copies, rest = divmod(rows, self.size)
        if rest or not copies:
            raise ValueError(f"found a draw of shape {tuple(shape)} for {self.size} of the {self.of} rows of a batch; "
                             "expected the rows on the last axis but one: draw what belongs to no row with shared=True")
        return [(i * self.of + self.first) * width for i in range(math.prod(before) * copies)]


def places(shape: tuple[int, ...], rows: Window | None, xp: Any = np) -> Any:
    """The index of each number of a draw, as uint64 of this shape: 0, 1, 2, ..., or the places of a window."""
    count = math.prod(shape)
    if rows is None:
        return xp.arange(count, dtype=xp.uint64).reshape(shape)
    begins = xp.asarray(np.array(rows.runs(shape), np.uint64))[:, None]
    return (begins + xp.arange(count // max(1, len(begins)), dtype=xp.uint64)).reshape(shape)


def words_of(seed: int, stream: str, step: int, site: int, shape: tuple[int, ...], rows: Window | None = None,
             xp: Any = np) -> Any:
    """A random 32-bit word for each number of a draw, as uint64 of this shape."""
    if rows is None:
        return words(seed, stream, step, site, math.prod(shape), xp=xp).reshape(shape)
    begins = rows.runs(shape)
    each = rows.size * shape[-1]
    runs = [words(seed, stream, step, site, each, first=begin, xp=xp) for begin in begins]
    return (xp.concatenate(runs) if runs else xp.zeros(0, xp.uint64)).reshape(shape)


def uniform(
    seed: int, stream: str, step: int, site: int, shape: tuple[int, ...], dtype: Any = np.float32, first: int = 0,
    xp: Any = np, rows: Window | None = None,
) -> Any:
    """Uniform numbers in [0, 1): the upper 24 bits of a word in float32, all 32 in float64; 1 never occurs."""
    if rows is None:
        bits = words(seed, stream, step, site, math.prod(shape), first=first, xp=xp)
    else:
        bits = words_of(seed, stream, step, site, shape, rows, xp)
    if np.dtype(dtype) == np.float32:
        return ((bits >> xp.uint64(8)).astype(dtype) * xp.float32(2.0**-24)).reshape(shape)
    return (bits.astype(dtype) * 2.0**-32).reshape(shape)


def normal(
    seed: int, stream: str, step: int, site: int, shape: tuple[int, ...], dtype: Any = np.float32, xp: Any = np,
    rows: Window | None = None,
) -> Any:
    """Standard normal numbers by Box and Muller's transform of pairs of words, computed in `dtype`.

    With u, v uniform on (0, 1), sqrt(-2 log u) (cos 2 pi v, sin 2 pi v) is a pair of independent normals.
    u = (word + 1/2) / 2**32 is never 0, so the logarithm is finite; the largest draw is 6.77.
    """
    if rows is not None:  # a run may begin in the middle of a pair
        count = rows.size * shape[-1]
        runs = [_normals(seed, stream, step, site, begin - begin % 2, begin % 2 + count, dtype, xp)[begin % 2 :]
                for begin in rows.runs(shape)]
        return (xp.concatenate(runs) if runs else xp.zeros(0, dtype)).reshape(shape)
    return _normals(seed, stream, step, site, 0, math.prod(shape), dtype, xp).reshape(shape)


def _normals(seed: int, stream: str, step: int, site: int, first: int, count: int, dtype: Any, xp: Any) -> Any:
    """`count` normal numbers from place `first` on, which is even."""
    bits = words(seed, stream, step, site, count + count % 2, first=first, xp=xp).astype(dtype).reshape(-1, 2)
    scale, half = np.dtype(dtype).type(2.0**-32), np.dtype(dtype).type(2.0**-33)
    u, v = bits[:, 0] * scale + half, bits[:, 1] * scale
    radius = xp.sqrt(-2 * xp.log(u))
    angle = np.dtype(dtype).type(2 * math.pi) * v
    pairs = xp.stack((radius * xp.cos(angle), radius * xp.sin(angle)), axis=-1)
    return pairs.reshape(-1)[:count]


def open_unit(high: Any, low: Any = None) -> Any:
    """A word as a number in (0, 1), or two: 32 bits and a half, or 52, which float64 holds exactly."""
    if low is None:
        return (high.astype(np.float64) + 0.5) * 2.0**-32
    return ((high << np.uint64(20) | low >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def permutation(seed: int, stream: str, step: int, count: int) -> np.ndarray:
    """A random order of 0 .. count-1, as (count,) int64: the indices sorted by a 64-bit random label each.

    Labels rather than Fisher-Yates, because each label has an address of its own; equal labels (chance
    count**2 / 2**65) keep their order.
    """
    labels = np.empty(whole("the count of a permutation,", count), np.uint64)
    for first in range(0, count, PIECE):  # which bounds the memory, and changes no label
        part = labels[first : first + PIECE]
        bits = words(seed, stream, step, 0, 2 * len(part), first=2 * first).reshape(-1, 2)
        part[...] = bits[:, 0] << np.uint64(32) | bits[:, 1]
    return np.argsort(labels, kind="stable").astype(np.int64, copy=False)


# ---- noise as an operation -------------------------------------------------------------------------------------------


def for_kernel(arrays: Any, shape: Sequence[int], dtype: Any, stream: str, out: Any, **rest: Any) -> dict[str, Any]:
    """The attributes of a kernel that draws: an array for its result, and the stream by its number."""
    if rest.get("rows"):
        rest["rows"].runs(shape)  # refuses other rows, which a kernel would not see
    out = namespace_of(arrays[0]).empty(tuple(shape), dtype) if out is None else out
    return {"out": out, "stream": stream_number(stream), **rest}


# Standard normal numbers of the step that the array `counters` holds, so that a replay draws new ones.
rule("normal", lambda xp, counters, out, seed, stream, site, shape, dtype, rows=None:
     into(out, normal(seed, stream, read(counters[0]), site, shape, dtype, xp, rows)), (None,), (INDEX,),
     kernel="normal", prepare=for_kernel, asks="draws", flops=6)
# Uniform numbers in [0, 1), likewise.
rule("uniform", lambda xp, counters, out, seed, stream, site, shape, dtype, rows=None:
     into(out, uniform(seed, stream, read(counters[0]), site, shape, dtype, xp=xp, rows=rows)), (None,), (INDEX,))


class Noise:
    """The draws of one stream within a step, each at a site of its own.

    `counters` is an int64 array whose first element is the number of the step. A launch or the caller changes it, and
    every draw reads it when it runs. `restart` begins the next step: sites count from 0 again. With a window the draws
    are those of some rows of a batch.
    """

    def __init__(self, seed: int, stream: str = "noise", counters: np.ndarray | None = None) -> None:
        words(seed, stream, 0, 0, 0)  # refuses a seed that does not fit, which a kernel would not see
        self.seed, self.stream, self.site = seed, stream, 0
        self.rows: Window | None = None
        if counters is not None and not hasattr(counters, "dtype"):
            raise TypeError(f"found counters={counters!r:.60}; expected an array whose first element is the step")
        self.counters = np.zeros(1, np.int64) if counters is None else counters

    def restart(self, step: int | None = None, rows: Window | None = None) -> Noise:
        """Count sites from 0 again, and draw for all rows or for those of a window; with `step`, also set the number
        of the step."""
        self.site, self.rows = 0, rows
        if step is not None:
            self.counters[0] = step
        return self

    @contextmanager
    def of(self, rows: Window) -> Iterator[None]:
        """Draw for the rows of another batch of the same step."""
        before, self.rows = self.rows, rows
        try:
            yield
        finally:
            self.rows = before

    def next_site(self) -> int:
        """The number of the next draw: two draws of one step never share counters."""
        self.site += 1
        return self.site - 1

    def normal(self, shape: Sequence[int], dtype: Any = np.float32, shared: bool = False) -> Tensor:
        """Standard normal numbers; `shared` ones belong to no row, and are the same for every window."""
        return self._draw("normal", shape, dtype, shared)

    def uniform(self, shape: Sequence[int], dtype: Any = np.float32) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return self._draw("uniform", shape, dtype)

    def _draw(self, kind: str, shape: Sequence[int], dtype: Any, shared: bool = False) -> Tensor:
        shape = whole_numbers((shape,), "shape")
        if min(shape, default=0) < 0:
            raise ValueError(f"found shape {shape} to draw; expected lengths of at least 0")
        return self.draw(kind, shared=shared, shape=shape, dtype=floating(dtype))

    def draw(self, kind: str, *inputs: Tensor, shared: bool = False, **attributes: Any) -> Tensor:
        """A row that draws, by its name: `inputs` and the counters, at the next site."""
        if self.rows is not None and not shared:
            attributes["rows"] = self.rows
            if "shape" in attributes:
                self.rows.runs(attributes["shape"])
        return apply(kind, *inputs, Tensor(self.counters), seed=self.seed, stream=self.stream, site=self.next_site(),
                     **attributes)
