"""Small matrix products by kernels of our own, with a layer's bias and activation in the same launch.

At batch 100 of 784-500-20 in float32 eleven products take 70 us of a step's 120 us on an H100 by cuBLAS, 3 to 10 us
each if timed one by one. The table estimates what these kernels take there, which no card has confirmed.

           factors                MFLOP   tile  blocks  warps       FMA   issue  shared    us
    x W    (100, 784) @ (784, 500)    78  16x32     112      8    3,136   5,908   4,704   5.1
    h W    (100, 500) @ (500, 40)      4   8x16      39     16      500   1,344   2,048   2.8
    z W    (100, 20) @ (20, 500)       2  16x32     112      2       80     422     192   1.8
    h W    (100, 500) @ (500, 784)    78  32x32     100      8    4,000   5,968   4,032   5.3
    g W.T  (100, 784) @ (784, 500)    78  16x32     112      8    3,136   5,908   5,488   5.1
    h.T g  (500, 100) @ (100, 784)    78  32x32     400      4    3,200   5,968   3,328   5.6
    g W.T  (100, 500) @ (500, 20)      2   8x16      26     16      500   1,344   2,304   2.9
    z.T g  (20, 100) @ (100, 500)      2   8x16      96      7      100     336     420   1.8
    g W.T  (100, 40) @ (40, 500)       4  16x32     112      3      160     422     336   1.8
    h.T g  (500, 100) @ (100, 40)      4   8x16     189      7      200     672     840   2.0
    x.T g  (784, 100) @ (100, 500)    78  32x32     400      4    3,200   5,968   3,328   5.6
                                                                                          39.7

The cycles are those of the multiprocessor with most blocks, in the loops over k. `FMA`: its 128 lanes multiply and do
nothing else. `issue`: its four schedulers issue one instruction a cycle for a warp, and a slice of k takes a warp 373
instructions in a tile of 32 x 32, 422 in 16 x 32 and 168 in 8 x 16 (counted in NVRTC's code for sm_90). `shared`:
shared memory serves a lane's 4 bytes in one cycle and its 16 bytes in two, and writes 16 bytes in four. The largest of
these, or 450 cycles for each slice of a warp if that is more, which is how long L2 takes to answer, is the time of the
loops. To it come 500 cycles until the first numbers are there, 300 until the last are stored, and what the sums of
several warps take in shared memory: all at 1.7 GHz. 1 us is added for the launch, as long as the smallest kernels of a
step take. A merged activation saves another launch of 1 to 1.5 us.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from tinyvae_kernels.cuda import products
from tinyvae_kernels.cuda.runtime.arguments import address, in_pieces, same, same_type, span
from tinyvae_kernels.cuda.runtime.cublas import layout
from tinyvae_kernels.cuda.runtime.jobs import Array, Job, Merge, Plan

from benchmarks.rungs import Launcher, Rung, beside

FILE = beside(__file__)
MOST = 200e6  # where a product takes more operations, multiplications and additions, cuBLAS's large tiles pay
# An H100 has 132 multiprocessors; each shall have 16 warps, and most of them a block. These numbers hold for every
# card, so that the order of a sum is the same on all.
MULTIPROCESSORS, WARPS, ENOUGH = 132, 16, 100
KINDS = "identity", "relu", "hyperbolic", "softplus"  # activations.cu has these kernels, in the order of its `Kind`


class Tile(NamedTuple):
    """What a block computes of a result: `rows` x `columns` numbers, by at most `warps` warps, which read slices of k
    of so many pieces of 16 bytes. The .cu file has a kernel for each, and the same numbers in its types."""

    rows: int
    columns: int
    pieces: int
    warps: int

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.columns}"

    def blocks(self, m: int, n: int) -> int:
        return -(-m // self.rows) * -(-n // self.columns)


TILES = {np.dtype(np.float32): (Tile(32, 32, 2, 8), Tile(16, 32, 4, 8), Tile(8, 16, 4, 16)),
         np.dtype(np.float64): (Tile(32, 32, 1, 4), Tile(16, 32, 2, 8), Tile(8, 16, 4, 16))}  # fmt: skip


def shared_out(m: int, n: int, k: int, dtype: np.dtype) -> tuple[Tile, int]:
    """The tile and the number of warps for a product (m, k) @ (k, n).

    The largest tile of which there are enough for a card: a large one reads fewer numbers for each that it multiplies.
    Then as many warps as have a slice of k to multiply, unless blocks that share a multiprocessor bring enough.
    """
    tile = next((tile for tile in TILES[dtype] if tile.blocks(m, n) >= ENOUGH), TILES[dtype][-1])
    slices, neighbours = -(-k // (tile.pieces * 16 // dtype.itemsize)), -(-tile.blocks(m, n) // MULTIPROCESSORS)
    return tile, max(1, min(tile.warps, slices, WARPS // neighbours))


@Launcher
def matmul(a: Array, b: Array, out: Array | None, tf32: bool = False) -> Plan:
    """a (m, k) @ b (k, n) as (m, n); by cuBLAS if the product is large or `tf32` is asked for."""
    result, jobs = products.matmul.__wrapped__(a, b, out, tf32)
    (m, k), n = a.shape, b.shape[1]
    if tf32 or 2 * m * n * k > MOST:
        return result, jobs
    (a_turned, a_step), (b_turned, b_step) = layout(a), layout(b)
    a, b = span(a), span(b)
    dtype = same_type(a, b, result)
    tile, warps = shared_out(m, n, k, dtype)
    pieces = [in_pieces(a_step, a) & in_pieces(m if a_turned else k, a),
              in_pieces(b_step, b) & in_pieces(k if b_turned else n, b), in_pieces(n, result)]  # fmt: skip
    arguments = (a, b, result, *map(np.int32, (m, n, k, a_step, b_step)), np.bool_(not a_turned),
                 np.bool_(b_turned), *pieces)
    return result, [Job(FILE, f"product_{tile.name}", dtype, (tile.blocks(m, n),), (32 * warps,), arguments)]


def overlap(a: Array, b: Array) -> bool:
    """Do two arrays share memory?"""
    return address(a) < address(b) + b.nbytes and address(b) < address(a) + a.nbytes


def layer(tile: Tile, product: Job, activation: Job) -> Job | None:
    """A product (m, n) and what a layer's bias (n,) and activation make of it; None where they do not belong together.

    Both are written, because another kernel may read either. Neither may lie where a block still reads a factor.
    """
    a, b, out, _, n, *_ = product.arguments
    pre, bias, y, _, width, _ = activation.arguments
    alike = same(pre, out) and (width, activation.dtype) == (n, product.dtype)
    if not alike or any(overlap(written, read) for written in (out, y) for read in (a, b, bias)):
        return None
    *rest, pieces = product.arguments
    kind = np.int32(KINDS.index(activation.kernel))
    return product._replace(kernel=f"layer_{tile.name}",
                            arguments=(*rest, pieces & in_pieces(n, y), bias, y, kind))  # fmt: skip


MERGES: dict[tuple[str, str], Merge] = {(f"product_{tile.name}", kind): partial(layer, tile)
                                        for tile in TILES[np.dtype(np.float32)] for kind in KINDS}
RUNG = Rung("small products have smaller tiles, so that more multiprocessors have work, and a layer's bias and "
            "activation come with its product", same_bits=False, launchers=(matmul,), merges=MERGES)
