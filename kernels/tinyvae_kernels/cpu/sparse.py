"""Products with a matrix that is mostly zeros, such as pixels: what is multiplied by 0 is left out.

    x @ w, w (inputs, n)      row b: the sum of the rows of w at which x[b] is not 0
    x.T @ g, g (batch, n)     row p: the sum of the rows of g for which x[:, p] is not 0

A line is a row of x, or in the second product a column. Which of its numbers are not 0 is kept as bits, 64 in a word. A
word of a line chooses among 64 rows of the other factor. Of these a panel of a few vectors stays in the nearest cache
while the same word of many lines is served.

Each sum of up to LONG terms (products.py) runs in the same order as in the dense product, so for finite factors the
bits are the same; longer sums over a batch are made of such pieces, too. A NaN or an infinity in a factor is not left
out: every sum starts from 0 times all rows, which is 0, or NaN if one of them is not finite.
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
from tinyvae_kernels.cpu.runtime.memory import Address, Matrix, Pointer, at_int64
from tinyvae_kernels.cpu.runtime.shares import share
from tinyvae_kernels.cpu.runtime.tiles import VECTOR, Writer, lanes_of

WORD = 64  # places whose bits lie in a word
VECTORS = 5  # of a row that are summed together: a panel
LINES = 64  # of x that are served before the next word
MOST = 0.2  # of the numbers may be other than 0, or the dense product is faster


def _gather_tile(vectors: int, partial: bool) -> Any:
    """out[panel] = begin[panel] + the sum over the bits t of `word` of values[t] rows[t, panel], all addresses.

    A value is found at values + t * step bytes, a row at rows + t * row bytes; `partial`: the panel has only `width`
    columns.
    """

    @intrinsic
    def tile(typing: Any, like: Any, values: Any, step: Any, word: Any, rows: Any, row: Any, begin: Any, out: Any,
             width: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w = Writer(builder, like.dtype)
            _, values, step, word, rows, row, begin, out, width = arguments
            masks = [w.mask(width, v * w.lanes) if partial else None for v in range(vectors)]
            first = [w.load(w.plus(begin, VECTOR * v), masks[v]) for v in range(vectors)]
            before = builder.block
            head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
            builder.branch(head)
            builder.position_at_end(head)
            sums, left = [builder.phi(w.vector) for _ in range(vectors)], builder.phi(ir.IntType(64))
            builder.cbranch(builder.icmp_signed("!=", left, integer(0)), body, after)
            builder.position_at_end(body)
            t = builder.cttz(left, ir.Constant(ir.IntType(1), 1))  # the lowest bit, which goes next
            value = w.spread(builder.add(values, builder.mul(t, step)))
            here = builder.add(rows, builder.mul(t, row))
            for v in range(vectors):
                sums[v].add_incoming(first[v], before)
                sums[v].add_incoming(w.multiply_add(value, w.load(w.plus(here, VECTOR * v), masks[v]), sums[v]), body)
            left.add_incoming(word, before)
            left.add_incoming(builder.and_(left, builder.sub(left, integer(1))), body)
            builder.branch(head)
            builder.position_at_end(after)
            for v in range(vectors):
                w.store(sums[v], w.plus(out, VECTOR * v), masks[v])
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 8), generate

    return tile


_whole = _gather_tile(VECTORS, False)
_part_1, _part_2, _part_4, _part = (_gather_tile(vectors, True) for vectors in (1, 2, 4, VECTORS))


@intrinsic
def _not_zero(typing: Any, like: Any, place: Any) -> Any:
    """The bits of a word: which of the 64 numbers from an address on are not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        w = Writer(builder, like.dtype, WORD)
        return builder.bitcast(builder.fcmp_unordered("!=", w.load(arguments[1]), w.zero), ir.IntType(WORD))

    return types.int64(like, types.int64), generate


@intrinsic
def _lowest(typing: Any, word: Any) -> Any:
    """The place of the lowest bit of a word that is not 0."""
    return types.int64(word), lambda context, builder, signature, arguments: builder.cttz(
        arguments[0], ir.Constant(ir.IntType(1), 1))


@kernel()
def _index_rows(x: Matrix, place: Address, bits: Matrix[np.int64], item: int, part: int, parts: int) -> None:
    # which places of each row are not 0
    rows, width = x.shape
    whole = width // WORD
    first, last = share(rows, part, parts)
    for i in range(first, last):
        for k in range(whole):
            bits[i, k] = _not_zero(x, place + (i * width + WORD * k) * item)
        if width > WORD * whole:
            word = np.int64(0)
            for j in range(WORD * whole, width):
                if x[i, j] != 0:
                    word |= np.int64(1) << (j - WORD * whole)
            bits[i, whole] = word


@kernel()
def _index_columns(bits: Matrix[np.int64], lines: Matrix[np.int64], part: int, parts: int) -> None:
    # the same for the columns of x, each a line, from the bits of its rows
    rows, words = bits.shape
    first, last = share(words, part, parts)
    lines[WORD * first : WORD * last] = 0
    for b in range(rows):
        for k in range(first, last):
            word = bits[b, k]
            while word != 0:
                lines[WORD * k + _lowest(word), b // WORD] |= np.int64(1) << (b % WORD)
                word &= word - 1


@kernel()
def _sums(like: Pointer, lines: Address[np.int64], values: Address, rows: Address, start: Address, out: Address,
          count: int, width: int, words: int, values_bytes: int, step: int, part: int, parts: int) -> None:
    # for each line of bits: start + the sum of the rows at its places, each times its value
    lanes = lanes_of(like)
    panel, row = VECTORS * lanes, width * VECTOR // lanes
    groups = min(count, 2)  # of lines, so that there is enough to share out
    first, last = share((width + panel - 1) // panel * groups, part, parts)
    for unit in range(first, last):
        left, at = width - unit // groups * panel, unit // groups * VECTORS * VECTOR
        above, below = share(count, unit % groups, groups)
        for head in range(above, below, LINES):
            for k in range(words):
                chosen = rows + WORD * k * row + at
                for i in range(head, min(head + LINES, below)):
                    word = at_int64(lines + 8 * (i * words + k))[0]
                    target, numbers = out + i * row + at, values + i * values_bytes + WORD * k * step
                    begin = target if k else start + at
                    if word == 0 and k:
                        continue
                    if left >= panel:
                        _whole(like, numbers, step, word, chosen, row, begin, target, left)
                    elif left > 4 * lanes:
                        _part(like, numbers, step, word, chosen, row, begin, target, left)
                    elif left > 2 * lanes:
                        _part_4(like, numbers, step, word, chosen, row, begin, target, left)
                    elif left > lanes:
                        _part_2(like, numbers, step, word, chosen, row, begin, target, left)
                    else:
                        _part_1(like, numbers, step, word, chosen, row, begin, target, left)


def words_of(count: int) -> int:
    """How many words hold so many bits."""
    return -(-count // WORD)


def _jobs(x: Array, lines: Array, values_bytes: int, step: int, rows: Array, out: Array) -> list[Job]:
    """Two jobs: what all sums start from, which is 0 times all rows, and the sums."""
    every = np.full(words_of(len(rows)), -1, np.int64)
    if rest := len(rows) % WORD:
        every[-1] = (1 << rest) - 1
    zeros, nothing, start = (np.zeros(size, out.dtype) for size in (1, out.shape[1], out.shape[1]))
    work = 0.2 * x.size * out.shape[1] / 16
    return [Job(_sums, rows, every, zeros, rows, nothing, start, 1, out.shape[1], len(every), 0, 0, work=rows.size),
            Job(_sums, out, lines, x, rows, start, out, *out.shape, lines.shape[1], values_bytes, step, work=work)]


_DENSE = "a GPU multiplies dense matrices faster than it could leave out their zeros"


@Launcher.question
def pays(x: Array, w: Array) -> bool:
    """Are so many of the numbers of x (rows, inputs) zeros that leaving them out is faster than multiplying?"""
    return VECTOR > 0 and bool(np.count_nonzero(x) < MOST * x.size)


@Launcher.alone(_DENSE)
def sparse_matmul(x: Array, w: Array, out: tuple[Array, Array] | None) -> Plan:
    """x (rows, inputs) @ w (inputs, n), and the index of x: for each row the bits of the places that are not 0."""
    if out is None:
        out = np.empty((len(x), w.shape[1]), w.dtype), np.empty((len(x), words_of(x.shape[1])), np.int64)
    product, bits = out
    return out, [Job(_index_rows, x, x, bits, x.itemsize, work=x.size / 4),
                 *_jobs(x, bits, x.strides[0], x.itemsize, w, product)]


@Launcher.alone(_DENSE)
def sparse_matmul_grad(g: Array, index: Array, x: Array, out: Array | None) -> Plan:
    """x.T (inputs, rows) @ g (rows, n), with the index of x."""
    out = np.empty((x.shape[1], g.shape[1]), g.dtype) if out is None else out
    # whole words of lines, so that each word of the index has its own
    lines = np.empty((WORD * index.shape[1], words_of(min(LONG, len(x)))), np.int64)

    def product(first: int, last: int, piece: Array) -> list[Job]:
        rows, words = slice(first, last), words_of(last - first)
        part = lines[:, :words] if words == lines.shape[1] else np.empty((len(lines), words), np.int64)
        return [Job(_index_columns, index[rows], part, work=0.5 * x[rows].size),
                *_jobs(x[rows], part, x.itemsize, x.strides[0], g[rows], piece)]

    return out, in_pieces(len(x), out, product)
