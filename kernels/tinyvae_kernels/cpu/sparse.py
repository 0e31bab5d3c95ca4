"""Products with a matrix that is mostly zeros, such as pixels: what is multiplied by 0 is left out.

    x @ w, w (inputs, n)      row b: the sum of the rows of w at which x[b] is not 0
    x.T @ g, g (batch, n)     row p: the sum of the rows of g for which x[:, p] is not 0

Each sum of up to LONG terms (products.py) runs in the order of the dense product's, so for finite factors the bits are
the same; longer sums over a batch are made of such pieces, too. A NaN or an infinity in
a factor is not left out: every sum starts from 0 times all rows, which is 0, or NaN if one of them is not finite.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import types

from tinyvae_kernels.cpu.products import LONG, in_pieces
from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.helpers import integer, intrinsic
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan
from tinyvae_kernels.cpu.runtime.memory import Address, Matrix, Pointer, at_int32
from tinyvae_kernels.cpu.runtime.shares import share
from tinyvae_kernels.cpu.runtime.tiles import VECTOR, Writer, lanes_of

VECTORS = 8  # of a row that are summed together: a panel
MOST = 0.2  # of the numbers may be other than 0, or the dense product is faster


def _gather_tile(partial: bool) -> Any:
    """out[panel] = start[panel] + the sum over t < count of values[line[t]] rows[line[t], panel], all addresses.

    A value is found at values + line[t] * step bytes, a row at rows + line[t] * row bytes; `partial`: the panel has
    only `width` columns.
    """

    @intrinsic
    def tile(typing: Any, like: Any, values: Any, step: Any, line: Any, count: Any, rows: Any, row: Any, start: Any,
             out: Any, width: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w = Writer(builder, like.dtype)
            _, values, step, line, count, rows, row, start, out, width = arguments
            masks = [w.mask(width, v * w.lanes) if partial else None for v in range(VECTORS)]
            begin = [w.load(w.plus(start, VECTOR * v), masks[v]) for v in range(VECTORS)]
            before = builder.block
            head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
            builder.branch(head)
            builder.position_at_end(head)
            sums, t = [builder.phi(w.vector) for _ in range(VECTORS)], builder.phi(ir.IntType(64))
            builder.cbranch(builder.icmp_signed("<", t, count), body, after)
            builder.position_at_end(body)
            place = builder.inttoptr(builder.add(line, builder.mul(t, integer(4))), ir.IntType(32).as_pointer())
            chosen = builder.zext(builder.load(place), ir.IntType(64))
            value = w.spread(builder.add(values, builder.mul(chosen, step)))
            here = builder.add(rows, builder.mul(chosen, row))
            for v in range(VECTORS):
                sums[v].add_incoming(begin[v], before)
                sums[v].add_incoming(w.multiply_add(value, w.load(w.plus(here, VECTOR * v), masks[v]), sums[v]), body)
            t.add_incoming(integer(0), before)
            t.add_incoming(builder.add(t, integer(1)), body)
            builder.branch(head)
            builder.position_at_end(after)
            for v in range(VECTORS):
                w.store(sums[v], w.plus(out, VECTOR * v), masks[v])
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 9), generate

    return tile


_whole, _part = _gather_tile(False), _gather_tile(True)


@kernel()
def _index_rows(x: Matrix, index: Matrix[np.int32], part: int, parts: int) -> None:
    # For each row: how many of its places are not 0, and these places, then zeros. There is no branch, because the
    # processor would mispredict it.
    rows, width = x.shape
    first, last = share(rows, part, parts)
    for i in range(first, last):
        values, line = x[i], index[i]
        count = 0
        for j in range(width):
            line[1 + count] = j
            count += 1 if values[j] != 0 else 0
        line[0] = count
        for j in range(count, width):
            line[1 + j] = 0


@kernel()
def _index_columns(index: Matrix[np.int32], lines: Matrix[np.int32], part: int, parts: int) -> None:
    # the same for the columns of x, each a line, from the index of its rows
    rows, width = len(index), len(lines)
    first, last = share(width, part, parts)
    for j in range(first, last):
        lines[j, 0] = 0
    for i in range(rows):
        for t in range(index[i, 0]):
            j = index[i, 1 + t]
            if first <= j < last:
                lines[j, 0] += 1
                lines[j, lines[j, 0]] = i


@kernel()
def _sums(like: Pointer, lines: Address[np.int32], values: Address, rows: Address, start: Address, out: Address,
          count: int, width: int, line_bytes: int, values_bytes: int, step: int, part: int, parts: int) -> None:
    # for each line of places: start + the sum of the rows at these places, each times its value
    panel = VECTORS * lanes_of(like)
    row, panel_bytes = width * VECTOR // lanes_of(like), VECTORS * VECTOR
    groups = min(count, 2)  # of lines, so that there is enough to share out
    first, last = share((width + panel - 1) // panel * groups, part, parts)
    for unit in range(first, last):
        left, at = width - unit // groups * panel, unit // groups * panel_bytes
        above, below = share(count, unit % groups, groups)
        for i in range(above, below):
            line = lines + i * line_bytes
            if left >= panel:
                _whole(like, values + i * values_bytes, step, line + 4, at_int32(line)[0], rows + at, row, start + at,
                       out + i * row + at, left)
            else:
                _part(like, values + i * values_bytes, step, line + 4, at_int32(line)[0], rows + at, row, start + at,
                      out + i * row + at, left)


def _jobs(x: Array, lines: Array, values_bytes: int, step: int, rows: Array, out: Array) -> list[Job]:
    """Two jobs: what all sums start from, which is 0 times all rows, and the sums."""
    every = np.arange(-1, len(rows), dtype=np.int32)
    every[0] = len(rows)
    zeros, nothing, start = (np.zeros(size, out.dtype) for size in (1, out.shape[1], out.shape[1]))
    work = 0.2 * x.size * out.shape[1] / 16
    return [Job(_sums, rows, every, zeros, rows, nothing, start, 1, out.shape[1], 0, 0, 0, work=rows.size),
            Job(_sums, out, lines, x, rows, start, out, *out.shape, lines.strides[0], values_bytes, step, work=work)]


_DENSE = "a GPU multiplies dense matrices faster than it could leave out their zeros"


@Launcher.question
def pays(x: Array, w: Array) -> bool:
    """Are so many of the numbers of x (rows, inputs) zeros that leaving them out is faster than multiplying?"""
    return VECTOR > 0 and bool(np.count_nonzero(x) < MOST * x.size)


@Launcher.alone(_DENSE)
def sparse_matmul(x: Array, w: Array, out: tuple[Array, Array] | None) -> Plan:
    """x (rows, inputs) @ w (inputs, n), and the index of x: for each row, how many places are not 0, and which."""
    if out is None:
        out = np.empty((len(x), w.shape[1]), w.dtype), np.empty((len(x), x.shape[1] + 1), np.int32)
    product, index = out
    return out, [Job(_index_rows, x, index, work=2 * x.size),
                 *_jobs(x, index, x.strides[0], x.itemsize, w, product)]


@Launcher.alone(_DENSE)
def sparse_matmul_grad(g: Array, index: Array, x: Array, out: Array | None) -> Plan:
    """x.T (inputs, rows) @ g (rows, n), with the index of x."""
    out = np.empty((x.shape[1], g.shape[1]), g.dtype) if out is None else out
    lines = np.empty((x.shape[1], min(LONG, len(x)) + 1), np.int32)

    def product(first: int, last: int, piece: Array) -> list[Job]:
        rows = slice(first, last)
        return [Job(_index_columns, index[rows], lines, work=0.5 * x[rows].size),
                *_jobs(x[rows], lines, x.itemsize, x.strides[0], g[rows], piece)]

    return out, in_pieces(len(x), out, product)
