"""Matrix products: a @ b, a.T @ b and a @ b.T.

The result is made of tiles that stay in registers while k runs from first to last (runtime/tiles.py), so an element is
summed in one fixed order: its bits depend neither on the number of threads nor on the place of a tile's border.
Networks of this kind need no packing of blocks: their matrices fit into a processor's caches. At batches of 20 to 1 000
a core reaches nine tenths or more of its peak here, where OpenBLAS reaches a third to nine tenths.

Sums of more than LONG terms, as over a very large batch, are made of the sums of LONG terms each: of 2^20 equal float32
numbers that are added one by one, a hundredth is lost.

Batches of small matrices, such as one triangular factor for each datum, are multiplied by plain loops; a batch of large
ones is a job for each of its matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.helpers import helper
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan
from tinyvae_kernels.cpu.runtime.memory import (
    Address,
    Matrix,
    Pointer,
    StridedAddress,
    StridedPointer,
    Vector,
    vector,
)
from tinyvae_kernels.cpu.runtime.shares import GROUP, grouped, share
from tinyvae_kernels.cpu.runtime.tiles import (
    ROWS,
    VECTOR,
    dot_tile,
    four,
    four_narrow,
    four_partial,
    full,
    full_narrow,
    full_partial,
    lanes_of,
    one,
    one_narrow,
    one_partial,
)

# Of a @ b.T, b is transposed first where that costs less than it spares: sums of so few terms, in products of so few
# multiply-adds that one thread does them, lose more to adding up lanes; and with so many rows the tiles of a @ b, which
# load half as much for each multiply-add, save more.
SHORT, SMALL, TALL = 64, 2**20, 256
SQUARE = 16  # numbers: the side of a block that is transposed within a processor's caches
LONG = 4096
TINY = 4096  # multiply-adds of a matrix that is not worth a job of its own in a batch
MULTIPLY_ADDS = 16  # a thread's grain in multiply-adds is so many times that in simple operations


@helper
def _ranges(rows: Any, width: Any, panel: Any, upright: Any, part: Any, parts: Any) -> Any:
    # The rows and columns of the result that belong to a part: whole rows where they are asked for, and where there are
    # too few panels of columns.
    if rows >= 4 * parts and (upright or width < panel * parts):
        first, last = grouped(rows, GROUP, part, parts)
        return first, last, 0, width
    first, last = grouped(width, panel, part, parts)
    return 0, rows, first, last


# `like` gives the type; addresses and strides are in bytes: a[i, k] lies at a + i a_row + k a_step.


@kernel()
def _rows_product(like: Pointer, a: StridedAddress, b: StridedAddress, c: Address, rows: int, width: int, steps: int,
                  a_row: int, a_step: int, b_step: int, c_row: int, part: int, parts: int) -> None:
    panel = 2 * lanes_of(like)
    size = VECTOR // lanes_of(like)
    first, last, start, stop = _ranges(rows, width, panel, a_row < a_step, part, parts)
    for j in range(start, stop, panel):
        right, left, i = b + j * size, stop - j, first
        while i < last:
            above, here = a + i * a_row, c + i * c_row + j * size
            done = ROWS if last - i >= ROWS else 4 if last - i >= 4 else 1
            if left >= panel:
                if done == ROWS:
                    full(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
                elif done == 4:
                    four(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
                else:
                    one(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
            elif 2 * left > panel:
                if done == ROWS:
                    full_partial(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
                elif done == 4:
                    four_partial(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
                else:
                    one_partial(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
            elif done == ROWS:
                full_narrow(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
            elif done == 4:
                four_narrow(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
            else:
                one_narrow(like, above, a_row, a_step, right, b_step, here, c_row, steps, left)
            i += done


@kernel()
def _dot_product(like: Pointer, a: StridedAddress, b: StridedAddress, c: Address, rows: int, width: int, steps: int,
                 a_row: int, b_row: int, c_row: int, part: int, parts: int) -> None:
    lanes = lanes_of(like)
    height = 4 if lanes > 4 else 2
    breadth = lanes // height
    size = VECTOR // lanes
    first, last, start, stop = _ranges(rows, width, 16, False, part, parts)
    for j in range(start, stop, breadth):
        for i in range(first, last, height):
            dot_tile(like, a + i * a_row, a_row, b + j * b_row, b_row, c + i * c_row + j * size, c_row, steps,
                      last - i, stop - j)


@kernel()
def _transpose(b: StridedPointer, out: Pointer, rows: int, width: int, stride: int, part: int, parts: int) -> None:
    first, last = grouped(rows, SQUARE, part, parts)
    for top in range(first, last, SQUARE):
        for start in range(0, width, SQUARE):
            for i in range(top, min(top + SQUARE, last)):
                for j in range(start, min(start + SQUARE, width)):
                    out[i * width + j] = b[j * stride + i]


@kernel()
def _add(a: Vector, out: Vector, part: int, parts: int) -> None:
    first, last = share(out.size, part, parts)
    for i in range(first, last):
        out[i] += a[i]


def in_pieces(steps: int, out: Array, product: Callable[[int, int, Array], list[Job]]) -> list[Job]:
    """The jobs of a product: `product(first, last, out)` gives those for the terms first .. last of its sums."""
    jobs = product(0, min(LONG, steps), out)
    piece = np.empty_like(out) if steps > LONG else out
    for first in range(LONG, steps, LONG):
        jobs += [*product(first, min(first + LONG, steps), piece), Job(_add, piece, out, work=out.size)]
    return jobs


@kernel()
def _small_products(a: StridedPointer, b: StridedPointer, c: Pointer, batch: Matrix[np.int64], count: int, rows: int,
                    width: int, steps: int, a_row: int, a_step: int, b_step: int, b_column: int, part: int,
                    parts: int) -> None:
    # a row of `batch` is an axis of the batch: its size, and how far a and b move along it, as all strides in numbers
    dtype = vector(c, 1).dtype.type
    first, last = share(count, part, parts)
    for t in range(first, last):
        rest, left, right = t, 0, 0
        for axis in range(len(batch) - 1, -1, -1):
            place = rest % batch[axis, 0]
            left, right, rest = left + place * batch[axis, 1], right + place * batch[axis, 2], rest // batch[axis, 0]
        for i in range(rows):
            for j in range(width):
                total = dtype(0)
                for k in range(steps):
                    total += a[left + i * a_row + k * a_step] * b[right + k * b_step + j * b_column]
                c[(t * rows + i) * width + j] = total


@Launcher.question
def multiplies(a: Array, b: Array) -> bool:
    """Are these two matrices, or batches, that `matmul` can take: each unbroken along rows or along columns, not
    a.T @ b.T? A batch of small matrices may have any strides."""
    if not VECTOR or a.ndim < 2 or b.ndim < 2 or 0 in a.shape or 0 in b.shape:
        return False
    if a.ndim > 2 or b.ndim > 2:
        try:
            np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            return False
        if any(stride % array.itemsize for array in (a, b) for stride in array.strides):
            return False
        if _multiply_adds(a, b) <= TINY:
            return True
        a, b = a[(0,) * (a.ndim - 2)], b[(0,) * (b.ndim - 2)]
    return (_along(a) and (_along(b) or _across(b))) or (_across(a) and _along(b))


def _along(a: Array) -> bool:
    return (a.shape[1] == 1 or a.strides[1] == a.itemsize) and (a.shape[0] == 1 or a.strides[0] > 0)


def _across(a: Array) -> bool:
    return _along(a.T)


def _multiply_adds(a: Array, b: Array) -> int:
    return a.shape[-2] * a.shape[-1] * b.shape[-1]


@Launcher
def matmul(a: Array, b: Array, out: Array | None) -> Plan:
    """a (..., m, k) @ b (..., k, n) as (..., m, n); of each pair either may be a transposed view, not both."""
    if not multiplies(a, b) or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"found factors {a.shape} of strides {a.strides} and {b.shape} of {b.strides}; expected "
                         "(m, k) and (k, n), each unbroken along rows or columns, and not both along columns")
    return _batch(a, b, out) if a.ndim > 2 or b.ndim > 2 else _matrix(a, b, out)


def _batch(a: Array, b: Array, out: Array | None) -> Plan:
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*lead, a.shape[-2], b.shape[-1])
    out = np.empty(shape, a.dtype) if out is None else out
    if out.shape != shape:
        raise ValueError(f"found a result of shape {out.shape}; expected {shape}")
    a, b = np.broadcast_to(a, (*lead, *a.shape[-2:])), np.broadcast_to(b, (*lead, *b.shape[-2:]))
    if _multiply_adds(a, b) > TINY:
        return out, [job for place in np.ndindex(lead) for job in _matrix(a[place], b[place], out[place])[1]]
    (*a_batch, a_row, a_step), (*b_batch, b_step, b_column) = (
        [stride // array.itemsize for stride in array.strides] for array in (a, b))
    batch = np.array(list(zip(lead, a_batch, b_batch, strict=True)), np.int64).reshape(-1, 3)
    count, sizes = math.prod(lead), (*shape[-2:], a.shape[-1])
    return out, [Job(_small_products, a, b, out, batch, count, *sizes, a_row, a_step, b_step, b_column,
                     work=count * _multiply_adds(a, b))]


def _matrix(a: Array, b: Array, out: Array | None) -> Plan:
    (rows, steps), width = a.shape, b.shape[1]
    out = np.empty((rows, width), a.dtype) if out is None else out
    if out.shape != (rows, width):
        raise ValueError(f"found a result of shape {out.shape}; expected {(rows, width)}")
    return out, in_pieces(steps, out, lambda first, last, piece: _product(a[:, first:last], b[first:last], piece))


def _product(a: Array, b: Array, out: Array) -> list[Job]:
    (rows, steps), width = a.shape, b.shape[1]
    work, first = rows * width * steps / MULTIPLY_ADDS, []
    long = (steps > SHORT or rows * width * steps > SMALL) and rows < TALL
    if not _along(b) and (long or b.strides[1] % b.itemsize):
        bytes_a, bytes_b = a.strides[0], b.strides[1]
        return [Job(_dot_product, out, a, b, out, rows, width, steps, bytes_a, bytes_b, out.strides[0], work=work)]
    if not _along(b):
        transposed = np.empty((steps, width), b.dtype)
        first = [Job(_transpose, b, transposed, steps, width, b.strides[1] // b.itemsize, work=steps * width)]
        b = transposed
    strides = (a.strides[0], a.strides[1], b.strides[0], out.strides[0])
    return [*first, Job(_rows_product, out, a, b, out, rows, width, steps, *strides, work=work)]
