"""Which part of the work belongs to which part of a job.

What one core has written costs another core some 30 ns a cache line to fetch, and 150 ns where the two share no cache.
The gradient of a weight is written, its norm is summed, the weight is updated: if each of these jobs cut a weight
matrix in its own way, most of the matrix would travel between the cores at every step. So all of them cut it between
the same rows, as `own` says. Cuts between columns would not do: a core's prefetching fetches the columns beyond a cut,
too. Only the forward product cuts columns, because its sums run down the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels import layouts
from tinyvae_kernels.cpu.runtime.helpers import helper

GROUP = 12  # rows that stay together: a multiple of the rows of a tile, see tiles.py


@helper
def share(count: Any, part: Any, parts: Any) -> Any:
    """The first and the last (exclusive) of `count` things that belong to a part."""
    return count * part // parts, count * (part + 1) // parts


@helper
def grouped(count: Any, group: Any, part: Any, parts: Any) -> Any:
    """As `share`, in groups that stay together."""
    first, last = share((count + group - 1) // group, part, parts)
    return min(count, first * group), min(count, last * group)


@helper
def columns(count: Any, part: Any, parts: Any) -> Any:
    """As `share`, so that two threads do not write to one cache line."""
    return grouped(count, 16, part, parts)


@helper
def own(matrices: Any, i: Any, part: Any, parts: Any) -> Any:
    """The numbers of the i-th matrix of a flat vector that belong to a part: the first, and the last (exclusive)."""
    begin, rows, width = matrices[i, 0], matrices[i, 1], matrices[i, 2]
    first, last = grouped(rows, GROUP, part, parts)
    return begin + first * width, begin + last * width


def matrices_of(*vectors: np.ndarray) -> np.ndarray:
    """(count, 3): begin, rows and columns of the matrices of which flat vectors are made, by the first that is known.

    In a vector of which nothing is known, and in a matrix of one row, each number counts as a row.
    """
    found = next(filter(None, map(layouts.layout_of, vectors)), [(0, 1, vectors[0].size)])
    return np.array([(begin, rows, width) if rows > 1 else (begin, width, 1) for begin, rows, width in found], np.int64)
