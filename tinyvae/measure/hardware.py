"""The measured peaks of this machine: its memory bandwidth and its arithmetic rate.

An operation that moves B bytes and makes F arithmetic operations takes at least

    max(B / bandwidth, F / product rate)

(the roofline model; Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model"). Both
peaks are measured with NumPy alone, on all cores that the process may use, and so do not depend on the kernels of this
package: the bandwidth by adding one array to another in place, the arithmetic rate by the BLAS's fastest product.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tinyvae.measure import timing
from tinyvae.runs import environment

KILO, MEGA = 2**10, 2**20
# Working sets in bytes per core, within its own cache and within the shared cache; beyond the caches, the larger of a
# total and of a number per core.
IN_CACHE = 256 * KILO, MEGA, 2 * MEGA, 4 * MEGA, 8 * MEGA
BEYOND, BEYOND_A_CORE = 128 * MEGA, 16 * MEGA
MOVED = 400_000_000  # bytes in a measurement, so many that the start of threads (some 0.1 ms) does not matter
SIDES = (256, 512, 768)  # the sides of the square matrices
ROUNDS = 7
REST = 0.05  # seconds after which the threads of a BLAS sleep again


@dataclass(frozen=True)
class Level:
    """The bandwidth of all cores together for working sets of up to `working_set_bytes`."""

    working_set_bytes: int
    gigabytes_per_second: float  # counts bytes read and bytes written

    def __str__(self) -> str:
        return f"{self.gigabytes_per_second:.3g} GB/s at {readable_bytes(self.working_set_bytes)}"


@dataclass(frozen=True)
class Peaks:
    """The peaks of a machine; each is a median over `rounds`, and higher is better."""

    levels: tuple[Level, ...]  # from the smallest working set to the largest
    product_gigaflops: dict[str, float]  # by type, "float32" and "float64": 2 m k n operations a product
    threads: int  # for the bandwidth; the products use the BLAS's own number of threads
    rounds: int

    def __post_init__(self) -> None:
        rates = [*(level.gigabytes_per_second for level in self.levels), *self.product_gigaflops.values()]
        sizes = [level.working_set_bytes for level in self.levels]
        if not (rates and all(0 < rate < math.inf for rate in rates)):  # NaN fails
            raise ValueError(f"found peaks of {rates}; expected positive finite rates")
        if not sizes or sizes != sorted(sizes):
            raise ValueError(f"found levels of {sizes} bytes; expected at least one, and growing sizes")

    def gigabytes_per_second(self, size: float) -> float:
        """The bandwidth of the smallest level into which `size` bytes fit, or of the last level.

        A larger level holds these bytes as well, so the result is at least the bandwidth of every larger level.
        """
        _refuse(size)
        fitting = [i for i, level in enumerate(self.levels) if size <= level.working_set_bytes]
        first = fitting[0] if fitting else -1
        return max(level.gigabytes_per_second for level in self.levels[first:])

    def least_seconds(self, flops: float, moved: float, held: float | None = None, dtype: Any = np.float32) -> float:
        """The least time of `flops` operations on `moved` bytes: max(moved / bandwidth, flops / product rate).

        `held`, the size of the arrays, selects the level of the bandwidth; by default it is `moved`. The two differ if
        arrays are both read and written.
        """
        _refuse(flops)
        _refuse(moved)
        moving = moved / (1e9 * self.gigabytes_per_second(moved if held is None else held))
        return max(moving, flops / (1e9 * self.product_gigaflops[np.dtype(dtype).name]))

    def attainable_gigaflops(self, flops: float, moved: float, held: float | None = None,
                             dtype: Any = np.float32) -> float:
        """The roofline: min(product rate, intensity * bandwidth) with the intensity flops / moved."""
        seconds = self.least_seconds(flops, moved, held, dtype)
        return flops / seconds / 1e9 if seconds else self.product_gigaflops[np.dtype(dtype).name]

    def as_dict(self) -> dict[str, Any]:
        """The peaks for a JSON file, with the units in the names."""
        return {"levels": [vars(level) for level in self.levels], "product_gigaflops": self.product_gigaflops,
                "threads": self.threads, "rounds": self.rounds}  # fmt: skip

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Peaks:
        """The peaks that `as_dict` gave."""
        return cls(**{**found, "levels": tuple(Level(**level) for level in found["levels"])})

    def __str__(self) -> str:
        products = ", ".join(f"{rate:.3g} GFLOP/s {name}" for name, rate in self.product_gigaflops.items())
        return (f"memory {', '.join(map(str, self.levels))} (read + written, {self.threads} "
                f"thread{'s' * (self.threads > 1)}); products {products}; medians of {self.rounds} rounds")


def _refuse(amount: float) -> None:
    if not 0 <= amount < math.inf:  # NaN fails
        raise ValueError(f"found {amount} operations or bytes; expected a finite number, at least 0")


@cache
def peaks() -> Peaks:
    """This machine's peaks, measured at the first call in a process, which takes about a second."""
    return measure()


def measure(rounds: int = ROUNDS, in_cache: tuple[int, ...] = IN_CACHE, beyond: int | None = None,
            moved: int = MOVED, sides: tuple[int, ...] = SIDES) -> Peaks:
    """Measure the peaks.

    `in_cache` holds working sets in bytes per core; `beyond` is one for all cores together; `moved` is the number of
    bytes in a measurement, and `sides` holds the sides of the matrices.
    """
    time.sleep(REST)
    threads = environment.usable_cores()
    beyond = beyond or max(BEYOND, threads * BEYOND_A_CORE)
    sizes = sorted({*(threads * size for size in in_cache), beyond})
    with ThreadPoolExecutor(threads) as pool:
        streams = {str(size): _stream(pool, threads, size, moved) for size in sizes}
        times = timing.measure({name: run for name, (run, _) in streams.items()}, rounds, calls=1)
    levels = tuple(Level(size, streams[str(size)][1] / times[str(size)].median / 1e9) for size in sizes)
    del streams
    products: dict[str, Callable[[], Any]] = {
        f"{dtype} {side}": _product(dtype, side) for dtype in ("float32", "float64") for side in sides}  # fmt: skip
    took = timing.measure(products, rounds, calls=1)
    best = {dtype: max(2 * side**3 / took[f"{dtype} {side}"].median / 1e9 for side in sides)
            for dtype in ("float32", "float64")}  # fmt: skip
    return Peaks(levels, best, threads, rounds)


def _stream(pool: ThreadPoolExecutor, threads: int, size: int, moved: int) -> tuple[Callable[[], Any], int]:
    """A function that goes through a working set of `size` bytes again and again, and the number of bytes it moves."""
    length = size // (2 * threads * 4)
    passes = max(2, 2 * moved // (3 * size))
    # A sum over an outer axis of stride 0 makes many passes in one call, and NumPy releases its lock during the call.
    # The sum is in place, because a cache would otherwise also read the lines that are only written.
    views = [np.lib.stride_tricks.as_strided(np.ones(length, np.float32), (passes, length), (0, 4))
             for _ in range(threads)]
    sums = [np.ones(length, np.float32) for _ in range(threads)]

    def run() -> None:
        list(pool.map(lambda view, total: np.add.reduce(view, axis=0, out=total), views, sums))

    return run, 4 * length * (3 * passes - 1) * threads  # the first pass only copies


def _product(dtype: str, side: int) -> Callable[[], Any]:
    a, b, out = (np.ones((side, side), dtype) for _ in range(3))
    return lambda: np.matmul(a, b, out=out)


def readable_bytes(size: float) -> str:
    """A size such as 256 kB or 4 MB, in powers of 1024."""
    return f"{size / MEGA:.3g} MB" if size >= MEGA else f"{size / KILO:.3g} kB"
