"""Which numbers of a weight matrix are a thread's: as far as can be, the same ones in every job of a step.

What one core has written costs another some 30 ns a cache line to fetch, and 150 where the two share no cache. The
gradient of a weight is written, its norm summed, the weight updated: if each job shared a matrix out in its own way,
most of it would cross between the cores at every step. So all of them cut it between rows, here; the cores' own
prefetching makes cuts between columns cross too. Only the forward product cuts columns: its sums run down the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import grouped, helper

GROUP = 12  # rows that stay together: a multiple of a product's tiles, see products.py
Place = tuple[int, int, int]  # of a matrix in a flat vector: where it begins, its rows, its columns


@helper
def own(places: Any, i: Any, part: Any, parts: Any) -> Any:
    """A part's numbers of the i-th place: the first, and the last (exclusive)."""
    begin, rows, width = places[3 * i], places[3 * i + 1], places[3 * i + 2]
    first, last = grouped(rows, GROUP, part, parts)
    return begin + first * width, begin + last * width


def table(size: int, places: Sequence[Place]) -> np.ndarray:
    """(count, 3): the places of a flat vector of `size`; without places, and in vectors, each number is a row."""
    found = []
    for begin, rows, width in places or [(0, 1, size)]:
        if begin < 0 or begin + rows * width > size:
            raise ValueError(f"found a place of {rows} x {width} numbers from {begin}; expected all within {size} "
                             "numbers")
        found.append((begin, rows, width) if rows > 1 else (begin, width, 1))
    return np.array(found, np.int64)
