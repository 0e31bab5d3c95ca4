"""How source text reaches a card: it becomes modules of functions; products and graphs come from here, too.

`current` is the driver in use; the tests put another one there, which runs the kernels on the host.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae_kernels import state
from tinyvae_kernels.cuda.runtime.cublas import WORKSPACE, Cublas, CublasError, library

FOLDER = Path(__file__).parents[1]
FILES = tuple(sorted(file.stem for file in FOLDER.glob("*.cu")))
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
OPTIONS = ("-std=c++17", *(f"-D{name}={place}" for name, place in vars(state).items() if name.isupper()))
INCLUDE = re.compile(r'^#include "(.*)"$', re.MULTILINE)


class CuPy:
    """The driver: source text to functions, products, and calls to graphs, by CuPy."""

    def __init__(self) -> None:
        self._capturing: Any = None  # the stream of all captures

    def module(self, code: str, options: tuple[str, ...]) -> Any:
        return importlib.import_module("cupy").RawModule(code=code, options=options)

    @cached_property
    def blas(self) -> Cublas | None:
        """cuBLAS, or None if it is not there or does not start: then products are CuPy's, outside of any graph."""
        cupy = importlib.import_module("cupy")
        try:
            return Cublas(library(), lambda: cupy.cuda.get_current_stream().ptr, cupy.empty(WORKSPACE, np.uint8))
        except (OSError, AttributeError, CublasError, MemoryError) as fault:
            missing = isinstance(fault, OSError)  # (an AttributeError: a library without the function)
            warnings.warn(f"cuBLAS {'was not found' if missing else 'could not be started'} ({fault}), so products are "
                          "CuPy's, outside of any graph: slower, with the same results to rounding", RuntimeWarning,
                          stacklevel=2)
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


current: Any = CuPy()


def source(file: str) -> str:
    """The text that is compiled for a file of `FILES`, with the files of this folder that it includes, each once."""
    there: set[Path] = set()

    def text(path: Path) -> str:
        if path in there:
            return ""
        there.add(path)
        included = INCLUDE.sub(lambda found: text(FOLDER / found[1]), path.read_text())
        return f'#line 1 "{path.name}"\n{included}'

    return text(FOLDER / f"{file}.cu")


def options(dtype: Any) -> tuple[str, ...]:
    """The compiler's options for one floating type; the places of state vectors travel as defines."""
    return (*OPTIONS, f"-DSINGLE={int(np.dtype(dtype) == np.float32)}")


@cache
def _module(driver: Any, file: str, dtype: np.dtype) -> Any:
    if dtype not in FLOATS:
        raise TypeError(f"found numbers of type {dtype}; expected float32 or float64")
    return driver.module(source(file), options(dtype))


def function(file: str, kernel: str, dtype: Any) -> Callable[..., Any]:
    """A kernel, for one floating type, compiled by the driver in use."""
    return _module(current, file, np.dtype(dtype)).get_function(kernel)
