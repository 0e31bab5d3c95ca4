"""How kernels reach a card: source text to functions, launches over arrays, and launches in order as one CUDA graph.

`driver` makes modules of source text, products and graphs; whoever runs the kernels elsewhere puts another there.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyvae_kernels.cuda.runtime.cublas import WORKSPACE, Cublas, library

Array = Any
FOLDER = Path(__file__).parents[1]
FILES = ("activations", "likelihoods", "noise", "optimizers", "posterior", "steps")
SHARED = {"noise": ("common", "philox"), "posterior": ("common", "philox")}  # what is compiled before a file
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
OPTIONS = ("-std=c++17",)


class CuPy:
    """The driver: source text to functions, products, and calls to graphs, by CuPy."""

    def __init__(self) -> None:
        self._capturing: Any = None  # the stream of all captures

    def module(self, code: str, options: tuple[str, ...]) -> Any:
        return importlib.import_module("cupy").RawModule(code=code, options=options)

    @cached_property
    def blas(self) -> Cublas | None:
        """cuBLAS, or None if its library is not found: then products are the array library's, outside of any graph."""
        cupy = importlib.import_module("cupy")
        try:
            return Cublas(library(), lambda: cupy.cuda.get_current_stream().ptr, cupy.empty(WORKSPACE, np.uint8))
        except OSError as fault:
            warnings.warn(f"cuBLAS was not found ({fault}), so products are CuPy's, outside of any graph: slower, "
                          "with the same results to rounding", RuntimeWarning, stacklevel=2)
            return None

    def graph(self, run: Callable[[], None]) -> Callable[[], Any]:
        """What `run` launches as one CUDA graph; where that fails `run` itself, and a warning."""
        cuda = importlib.import_module("cupy").cuda
        self._capturing = self._capturing or cuda.Stream(non_blocking=True)
        try:
            with self._capturing as stream:
                stream.begin_capture()
                try:
                    run()
                finally:
                    graph = stream.end_capture()
            return graph.launch
        except Exception as fault:  # CuPy's errors, whose types cannot be named without importing it
            warnings.warn(f"the step could not be captured as a CUDA graph ({fault}); it runs launch by launch, more "
                          "slowly, with the same results", RuntimeWarning, stacklevel=2)
            return run


driver: Any = CuPy()


def source(file: str) -> str:
    """The text that is compiled for a file of `FILES`."""
    names = (*SHARED.get(file, ("common",)), file)
    return "\n".join(f'#line 1 "{name}.cu"\n{(FOLDER / name).with_suffix(".cu").read_text()}' for name in names)


def options(dtype: Any) -> tuple[str, ...]:
    """The compiler's options for one floating type."""
    return (*OPTIONS, f"-DSINGLE={int(np.dtype(dtype) == np.float32)}")


@cache
def _module(driver: Any, file: str, dtype: np.dtype) -> Any:
    if dtype not in FLOATS:
        raise TypeError(f"found numbers of type {dtype}; expected float32 or float64")
    return driver.module(source(file), options(dtype))


class Launch(NamedTuple):
    """One kernel with its grid and its arguments: arrays, and NumPy numbers of the very types that it takes."""

    file: str
    kernel: str
    dtype: Any
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]

    def bind(self) -> Callable[[], Any]:
        function = _module(driver, self.file, np.dtype(self.dtype)).get_function(self.kernel)
        return functools.partial(function, self.grid, self.block, self.arguments)


class Product(NamedTuple):
    """A matrix product into `out`."""

    a: Array
    b: Array
    out: Array
    tf32: bool

    def bind(self) -> Callable[[], Any]:
        return driver.blas.product(*self)


class Program:
    """Launches in order, as one call. Several become a CUDA graph the second time: the first loads all they need."""

    def __init__(self, launches: Sequence[Launch | Product]) -> None:
        self.launches = tuple(launches)
        self._calls = [launch.bind() for launch in launches]
        self._runs, self._run = 0, self._one_by_one

    @classmethod
    def join(cls, programs: Sequence[Program]) -> Program:
        """Programs one after the other as one."""
        return cls(together([launch for program in programs for launch in program.launches]))

    def _one_by_one(self) -> None:
        for call in self._calls:
            call()

    def __call__(self) -> None:
        self._runs += 1
        if self._runs == 2 and len(self._calls) > 1:
            self._run = driver.graph(self._one_by_one)
        self._run()


# ---- neighbours ------------------------------------------------------------------------------------------------------
# A launch costs a small step about as much as its kernel does. Where one kernel does the work of two neighbours, with
# the same arithmetic, they become one launch.

Merge = Callable[[Launch, Launch], Launch | None]
ONE_BLOCK = 4096  # numbers that one block writes as fast as many do


def _drawn_sample(draw: Launch, sample: Launch) -> Launch | None:
    """Noise and the sample made of it: the noise is drawn where it is used, and kept for the gradient."""
    counters, eps, _, *address = draw.arguments
    if sample.arguments[1] is not eps:
        return None
    return sample._replace(kernel="drawn_sample_kl", arguments=(counters, *address, *sample.arguments))


def _begin_step(indices: Launch, rates: Launch) -> Launch | None:
    plan, counters, *rest = rates.arguments
    if indices.arguments[1] is not counters:
        return None
    return rates._replace(kernel="begin_step", arguments=(*indices.arguments, plan, *rest))


def _objective_and_grad(objective: Launch, grad: Launch) -> Launch | None:
    g, rates, by_reconstruction, by_kl, count = grad.arguments
    if objective.arguments[2] is not rates or objective.arguments[3] is g or count > ONE_BLOCK:
        return None
    arguments = (*objective.arguments, g, by_reconstruction, by_kl)
    return objective._replace(kernel="objective_and_grad", arguments=arguments)


def _end_step(accumulate: Launch, tick: Launch) -> Launch | None:
    return accumulate._replace(kernel="end_step", arguments=(*accumulate.arguments, *tick.arguments))


MERGES: dict[tuple[str, str], Merge] = {
    ("normal", "sample_kl"): _drawn_sample,
    ("next_indices", "next_rates"): _begin_step,
    ("objective", "objective_grad"): _objective_and_grad,
    ("accumulate", "tick"): _end_step,
}


def together(launches: Sequence[Launch | Product]) -> list[Launch | Product]:
    """The same work in fewer launches, where `MERGES` has a kernel for two neighbours."""
    done: list[Launch | Product] = []
    for launch in launches:
        before = done[-1] if done else None
        if isinstance(launch, Launch) and isinstance(before, Launch):
            merge = MERGES.get((before.kernel, launch.kernel))
            merged = merge(before, launch) if merge else None
            if merged is not None:
                done[-1] = merged
                continue
        done.append(launch)
    return done
