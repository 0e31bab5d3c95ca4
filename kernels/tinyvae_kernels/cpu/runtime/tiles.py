"""Tiles of a matrix product: blocks of the result that stay in vector registers while they are summed.

    a @ b, a.T @ b    rows x 2 vectors: a number of a times two vectors of b, for every k one step of all rows
    a @ b.T           both factors lie along k: vectors of products, summed over the lanes at the end

LLVM cannot be told to keep numbers in registers, so the tiles are written in its own language, unrolled. An element is
summed over k from the first to the last, whatever tile it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np
from numba import types

from tinyvae_kernels.cpu.runtime.helpers import integer, intrinsic

_FEATURES = llvm.get_host_cpu_features()
# Bytes of a vector register, and how many rows of two vectors the registers hold beside the factors: a divisor of
# shares.GROUP. Elsewhere than on these processors NumPy's BLAS is taken: it knows units that LLVM does not, such as
# Apple's.
VECTOR, ROWS = (64, 12) if _FEATURES.get("avx512f") else (32, 4) if _FEATURES.get("fma") else (0, 0)


def lane(t: Any) -> tuple[Any, int]:
    """LLVM's type for one of Numba's, and its bytes."""
    return (ir.FloatType(), 4) if t == types.float32 else (ir.DoubleType(), 8)


class Writer:
    """Writes vector instructions for one tile."""

    def __init__(self, builder: Any, t: Any, lanes: int = 0) -> None:
        self.builder, self.type = builder, t
        self.scalar, self.bytes = lane(t)
        self.lanes = lanes or VECTOR // self.bytes
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def part(self, lanes: int) -> Writer:
        """The same for shorter vectors."""
        return Writer(self.builder, self.type, lanes)

    def _intrinsic(self, name: str, result: Any, arguments: list[Any]) -> Any:
        name += f".v{self.lanes}f{8 * self.bytes}"
        found = self.builder.module.globals.get(name)
        return found or ir.Function(self.builder.module, ir.FunctionType(result, arguments), name)

    def plus(self, pointer: Any, offset: Any) -> Any:
        return self.builder.add(pointer, integer(offset) if isinstance(offset, int) else offset)

    def load(self, pointer: Any, mask: Any = None) -> Any:
        place = self.builder.inttoptr(pointer, self.vector.as_pointer())
        if mask is None:
            value = self.builder.load(place)
            value.align = self.bytes
            return value
        function = self._intrinsic("llvm.masked.load", self.vector,
                                   [self.vector.as_pointer(), ir.IntType(32), mask.type, self.vector])
        return self.builder.call(function, [place, ir.Constant(ir.IntType(32), self.bytes), mask, self.zero])

    def store(self, value: Any, pointer: Any, mask: Any = None) -> None:
        place = self.builder.inttoptr(pointer, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, place).align = self.bytes
            return
        function = self._intrinsic("llvm.masked.store", ir.VoidType(),
                                   [self.vector, self.vector.as_pointer(), ir.IntType(32), mask.type])
        self.builder.call(function, [value, place, ir.Constant(ir.IntType(32), self.bytes), mask])

    def spread(self, pointer: Any) -> Any:
        """One number in all lanes."""
        value = self.builder.load(self.builder.inttoptr(pointer, self.scalar.as_pointer()))
        return self.spread_value(value, self.vector)

    def spread_value(self, value: Any, vector: Any) -> Any:
        undefined, i32 = ir.Constant(vector, ir.Undefined), ir.IntType(32)
        one = self.builder.insert_element(undefined, value, ir.Constant(i32, 0))
        return self.shuffle(one, undefined, [0] * self.lanes)

    def mask(self, count: Any, first: int) -> Any:
        """The lanes first, first + 1, ... that are below count."""
        numbers = ir.VectorType(ir.IntType(64), self.lanes)
        lanes = ir.Constant(numbers, list(range(first, first + self.lanes)))
        return self.builder.icmp_signed("<", lanes, self.spread_value(count, numbers))

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.call(self._intrinsic("llvm.fma", self.vector, [self.vector] * 3), [a, b, c])

    def shuffle(self, a: Any, b: Any, lanes: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _rows_tile(rows: int, count: int, partial: bool) -> Any:
    """rows x `count` vectors of a @ b; `partial`: only the first `width` columns of them.

    All pointers and strides are in bytes: c[i, :] += a[i, k] b[k, :] with a[i, k] at a + i a_row + k a_step.
    """

    @intrinsic
    def tile(typing: Any, like: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_row: Any,
             steps: Any, width: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w = Writer(builder, like.dtype)
            _, a, a_row, a_step, b, b_step, c, c_row, steps, width = arguments
            masks = [w.mask(width, v * w.lanes) if partial else None for v in range(count)]
            before, loop = builder.block, builder.append_basic_block("loop")
            after = builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            tile = [[builder.phi(w.vector) for _ in range(count)] for _ in range(rows)]
            k, at, bt = (builder.phi(ir.IntType(64)) for _ in range(3))
            vectors = [w.load(w.plus(bt, VECTOR * v), masks[v]) for v in range(count)]
            sums = []
            for i in range(rows):
                number = w.spread(builder.add(at, builder.mul(a_row, integer(i))))
                sums.append([w.multiply_add(number, vectors[v], tile[i][v]) for v in range(count)])
            flow = [(k, steps, builder.sub(k, integer(1))), (at, a, builder.add(at, a_step)),
                    (bt, b, builder.add(bt, b_step))]
            flow += [(tile[i][v], w.zero, sums[i][v]) for i in range(rows) for v in range(count)]
            for phi, start, following in flow:
                phi.add_incoming(start, before)
                phi.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed(">", k, integer(1)), loop, after)
            builder.position_at_end(after)
            for i in range(rows):
                row = builder.add(c, builder.mul(c_row, integer(i)))
                for v in range(count):
                    w.store(sums[i][v], w.plus(row, VECTOR * v), masks[v])
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 9), generate

    return tile


def _halves(lanes: int) -> list[tuple[list[int], list[int]]]:
    """For each step of a sum over lanes: which lanes of two vectors are added to which."""
    steps, groups = [], 1
    while 2 * groups <= lanes:
        block = lanes // (2 * groups)
        low = [2 * g * block + i for g in range(groups) for i in range(block)]
        steps.append((low + [lanes + i for i in low], [i + block for i in low] + [lanes + i + block for i in low]))
        groups *= 2
    return steps


def _sums_of_lanes(vectors: list[Any], lanes: int, add: Callable[[Any, Any, list[int], list[int]], Any]) -> Any:
    """As many vectors as lanes into one vector of their sums, by halving: two vectors become one at each step."""
    for low, high in _halves(lanes):
        half = len(vectors) // 2
        vectors = [add(vectors[i], vectors[i + half], low, high) for i in range(half)]
    return vectors[0]


def _lane_of_sum(lanes: int) -> list[int]:
    """In which lane `_sums_of_lanes` leaves the sum of each vector: found by doing it with names for numbers."""
    names: list[list[int]] = [[i] * lanes for i in range(lanes)]
    order = _sums_of_lanes(names, lanes, lambda a, b, low, high: [(a + b)[i] for i in low])
    return [order.index(i) for i in range(lanes)]


@intrinsic
def dot_tile(typing: Any, like: Any, a: Any, a_row: Any, b: Any, b_row: Any, c: Any, c_row: Any, steps: Any,
              rows: Any, width: Any) -> Any:
    """c[i, j] = sum over k of a[i, k] b[j, k] for up to 4 rows and as many columns as make one number a lane.

    Rows and columns beyond `rows` and `width` repeat the last one and are not stored. `steps` counts numbers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        w = Writer(builder, like.dtype)
        _, a, a_row, b, b_row, c, c_row, steps, rows, width = arguments
        height, breadth = _dot_shape(w.lanes)

        def lines(pointer: Any, stride: Any, count: Any, most: int) -> list[Any]:
            last = builder.sub(count, integer(1))
            inside = [builder.icmp_signed("<", integer(i), count) for i in range(most)]
            numbers = [builder.select(inside[i], integer(i), last) for i in range(most)]
            return [builder.add(pointer, builder.mul(stride, i)) for i in numbers]

        a_lines, b_lines = lines(a, a_row, rows, height), lines(b, b_row, width, breadth)
        whole = builder.mul(builder.sdiv(steps, integer(w.lanes)), integer(VECTOR))
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        tile = [builder.phi(w.vector) for _ in range(w.lanes)]
        k = builder.phi(ir.IntType(64))
        builder.cbranch(builder.icmp_signed("<", k, whole), body, after)

        def products(mask: Any) -> list[Any]:
            right = [w.load(builder.add(line, k), mask) for line in b_lines]
            found = []
            for i in range(height):
                left = w.load(builder.add(a_lines[i], k), mask)
                found += [w.multiply_add(left, right[j], tile[i * breadth + j]) for j in range(breadth)]
            return found

        builder.position_at_end(body)
        sums = products(None)
        for phi, start, following in ((k, integer(0), builder.add(k, integer(VECTOR))),
                                      *((tile[i], w.zero, sums[i]) for i in range(w.lanes))):
            phi.add_incoming(start, before)
            phi.add_incoming(following, body)
        builder.branch(head)
        builder.position_at_end(after)
        rest = builder.srem(steps, integer(w.lanes))
        with builder.if_then(builder.icmp_signed(">", rest, integer(0))):
            partial, inside = products(w.mask(rest, 0)), builder.block
        sums = []
        for whole_sum, partial_sum in zip(tile, partial, strict=True):
            sums.append(builder.phi(w.vector))
            sums[-1].add_incoming(whole_sum, after)
            sums[-1].add_incoming(partial_sum, inside)
        # so ordered that the sums come out row after row
        ordered = [sums[i] for i in np.argsort(_lane_of_sum(w.lanes))]
        total = _sums_of_lanes(ordered, w.lanes, lambda x, y, low, high: builder.fadd(w.shuffle(x, y, low),
                                                                                     w.shuffle(x, y, high)))
        short = w.part(breadth)
        mask = short.mask(width, 0)
        for i in range(height):
            with builder.if_then(builder.icmp_signed("<", integer(i), rows)):
                row = short.shuffle(total, total, list(range(i * breadth, (i + 1) * breadth)))
                short.store(row, builder.add(c, builder.mul(c_row, integer(i))), mask)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 9), generate


def _dot_shape(lanes: int) -> tuple[int, int]:
    """Rows and columns of a tile with one number a lane."""
    return (4, lanes // 4) if lanes > 4 else (2, lanes // 2)


full, four, one = (_rows_tile(rows, 2, False) for rows in (ROWS or 4, 4, 1))
full_partial, four_partial, one_partial = (_rows_tile(rows, 2, True) for rows in (ROWS or 4, 4, 1))
full_narrow, four_narrow, one_narrow = (_rows_tile(rows, 1, True) for rows in (ROWS or 4, 4, 1))


@intrinsic
def lanes_of(typing: Any, like: Any) -> Any:
    """How many numbers of a type a vector register holds."""
    return types.int64(like), lambda context, builder, signature, arguments: integer(VECTOR // lane(like.dtype)[1])
