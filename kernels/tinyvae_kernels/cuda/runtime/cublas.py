"""Matrix products by cuBLAS, called directly: CuPy refuses its own calls of it while a CUDA graph is captured.

cuBLAS expects matrices column after column: what lies in memory row after row as a matrix (m, n) is, for cuBLAS, the
transpose (n, m). So c = a @ b is asked for as c^T = b^T a^T, and nothing has to be transposed in memory.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any
NAMES = ("libcublas.so.13", "libcublas.so.12", "libcublas.so")
WORKSPACE = 32 * 2**20  # bytes that cuBLAS may use for partial sums: what its manual asks for on sm_90
AS_IT_LIES, TRANSPOSED = 0, 1  # cublasOperation_t
EXACT, TF32 = 0, 3  # cublasMath_t: the default keeps float32's 24 bits; TF32 products round factors to 11
NO_MEMORY = 3  # cublasStatus_t; 0 is success
GEMM = {np.dtype(np.float32): ("cublasSgemm_v2", ctypes.c_float),
        np.dtype(np.float64): ("cublasDgemm_v2", ctypes.c_double)}


class CublasError(RuntimeError):
    """A call of cuBLAS failed."""


class Layout(NamedTuple):
    """How a matrix lies in memory: row after row or transposed, and how many numbers on the next line begins."""

    transposed: int
    step: int


def layout(a: Array) -> Layout | None:
    """The layout of a matrix whose rows, or whose columns, are unbroken; None for any other array."""
    if a.ndim != 2 or 0 in a.shape or a.dtype not in GEMM:
        return None
    (rows, columns), (down, along) = a.shape, (stride // a.itemsize for stride in a.strides)
    if (columns == 1 or along == 1) and (rows == 1 or down >= columns):
        return Layout(AS_IT_LIES, max(columns, down if rows > 1 else 0))
    if (rows == 1 or down == 1) and (columns == 1 or along >= rows):
        return Layout(TRANSPOSED, max(rows, along if columns > 1 else 0))
    return None


def library() -> ctypes.CDLL:
    """libcublas: where NVIDIA's wheels have it, else where the system's loader finds it. OSError if nowhere."""
    with contextlib.suppress(ImportError, RuntimeError):
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    for name in NAMES[:-1]:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return ctypes.CDLL(NAMES[-1])


class Cublas:
    """A handle of cuBLAS. `stream` gives the stream to run on at that moment; `workspace` is device memory."""

    def __init__(self, library: ctypes.CDLL, stream: Callable[[], int], workspace: Array) -> None:
        self._library, self._stream, self._workspace = library, stream, workspace
        self._handle, self._now = ctypes.c_void_p(), (-1, -1)
        self._call("cublasCreate_v2", ctypes.byref(self._handle))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status == NO_MEMORY:
            raise MemoryError(f"{name} found no memory")
        if status:
            raise CublasError(f"{name} failed with status {status}")

    def _use(self, mode: int) -> None:
        """This moment's stream and precision; a new stream takes the workspace away, so it is given again."""
        wanted = (self._stream(), mode)
        if wanted != self._now:
            self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(wanted[0]))
            self._call("cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(self._workspace.data.ptr),
                       ctypes.c_size_t(self._workspace.nbytes))
            self._call("cublasSetMathMode", self._handle, ctypes.c_int(mode))
            self._now = wanted

    def product(self, a: Array, b: Array, out: Array, tf32: bool) -> Callable[[], None]:
        """a (m, k) @ b (k, n) into out (m, n) as a call without arguments; factors by `layout`, out in rows."""
        first, second = layout(b), layout(a)
        assert first is not None
        assert second is not None
        (m, k), n = a.shape, b.shape[1]
        name, number = GEMM[a.dtype]
        one, zero, pointer = number(1), number(0), ctypes.c_void_p
        arguments = (self._handle, first.transposed, second.transposed, n, m, k, ctypes.byref(one), pointer(b.data.ptr),
                     first.step, pointer(a.data.ptr), second.step, ctypes.byref(zero), pointer(out.data.ptr), n)
        keep = (a, b, out)  # a graph holds addresses only

        def run(keep: Any = keep) -> None:
            self._use(TF32 if tf32 else EXACT)
            self._call(name, *arguments)

        return run
