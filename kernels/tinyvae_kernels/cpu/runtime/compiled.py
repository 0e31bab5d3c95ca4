"""How a kernel is written, compiled and kept.

    @kernel()
    def double(p, n, s, part, parts):
        a, out = vector(p[0], n[0]), vector(p[1], n[0])
        first, last = share(n[0], part, parts)
        for i in range(first, last): ...

`p` points to arrays of the kernel's floating type, `n` holds whole numbers (sizes, and addresses of arrays of other
types), `s` real numbers. A kernel does the share `part` of `parts` of the work and returns nothing, so any number of
threads can do it together, and a list of kernels with their arguments is a program that needs no Python (team.py).
What an element's value is never depends on `parts`: the bits are the same for any number of threads.

Rules, each measured. `error_model="numpy"` on kernels and helpers: a check for division by zero would block
vectorisation. Helpers are functions of their own, so that a kernel's flags do not loosen their arithmetic, and must be
inlined, or a loop that calls one stays scalar. Every constant has the type of the data: a plain 0.5 is float64 and
would widen float32.
"""

from __future__ import annotations

import gc
import hashlib
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import carray, cfunc, config, types
from numba.core import caching
from numba.core.errors import NumbaWarning
from numba.extending import intrinsic as _intrinsic
from numba.extending import overload

# (the wrappers, by which Python and C would call a helper, are a seventh of all compilation)
HELPER: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz"}, "forceinline": True,
                          "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
SUM = {"contract", "nsz", "reassoc"}  # a row's sum may be formed in vector lanes; no flag here assumes away NaN
intrinsic: Any = _intrinsic  # (mypy would take a call of one for a call of its Python function)
TYPES = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}


class Kernel:
    """A kernel for float32 and float64; each is compiled when it is first asked for, and kept on disk."""

    def __init__(self, function: Callable, fastmath: set[str]) -> None:
        self.function, self.name = function, function.__name__.strip("_")
        self.options: dict[str, Any] = {"error_model": "numpy", "fastmath": fastmath}
        self._compiled: dict[Any, Any] = {}

    def compiled(self, dtype: Any) -> Any:
        """Numba's C function for one type."""
        dtype = np.dtype(dtype)
        if dtype not in self._compiled:
            if dtype not in TYPES:
                raise TypeError(f"{self.name} found numbers of type {dtype}; expected float32 or float64")
            pointer = types.CPointer(types.CPointer(TYPES[dtype]))
            whole, real = types.CPointer(types.int64), types.CPointer(types.float64)
            signature = types.void(pointer, whole, real, types.int64, types.int64)
            self._compiled[dtype] = keep(lambda **cache: cfunc(signature, **cache, **self.options)(self.function),
                                         self.function)
        return self._compiled[dtype]

    def address(self, dtype: Any) -> int:
        """Where the machine code for one type begins."""
        return int(self.compiled(dtype).address)


def kernel(fastmath: set[str] = HELPER["fastmath"]) -> Callable[[Callable], Kernel]:
    """Make a kernel of the function below."""
    return lambda function: Kernel(function, fastmath)


def keep(compile: Callable[..., Any], function: Callable) -> Any:
    """Compile with machine code kept on disk, or without where no folder for it can be written."""
    collecting, level = gc.isenabled(), config.OPT  # type: ignore[attr-defined]
    gc.disable()  # a compiler makes many objects and hardly any garbage: a tenth of its time
    config.OPT = type(level)(1)  # type: ignore[attr-defined] # as fast as level 3, with helpers that must be inlined
    try:
        if _sources() != LOADED:  # edited since: what is compiled now must not be kept as the new sources' code
            return compile()
        forget_stale(function)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaWarning)  # a cache that cannot be written is no news to a user
            return compile(cache=True)
    except Exception:  # a read-only installation and no home, a full disk, a broken file: whatever hinders keeping
        return compile()
    finally:
        config.OPT = level  # type: ignore[attr-defined]
        if collecting:
            gc.enable()


def helper(function: Callable, fastmath: set[str] = HELPER["fastmath"]) -> Callable:
    """Make a function that kernels call. It becomes part of their loops and is nothing by itself."""

    def stub(*arguments: Any) -> Any:
        raise TypeError(f"{function.__name__} is for compiled kernels only")

    options: Any = HELPER | {"fastmath": fastmath}
    overload(stub, jit_options=options, strict=False)(lambda *arguments: function)
    return stub


# ---- a cache that never lies -----------------------------------------------------------------------------------------
# Numba compiles a kernel anew when its own file has changed, but not when a helper in another file has. Beside the
# machine code therefore lies the digest of all sources of this package; if it is another, the machine code goes.

FOLDER = Path(__file__).parents[2]
_checked: set[Path] = set()


def _sources() -> list[tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in FOLDER.rglob("*.py"))


def digest() -> bytes:
    """Of all sources of this package."""
    found = hashlib.sha256()
    for path in sorted(FOLDER.rglob("*.py")):
        found.update(path.relative_to(FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest().encode()


LOADED = _sources()  # as this process has them


def forget_stale(function: Callable) -> None:
    """Delete, where the machine code of `function` is kept, that of other sources, and what a power failure emptied."""
    folder = Path(caching.FunctionCache(function).cache_path)
    if folder in _checked:
        return
    stamp, now = folder / "tinyvae_kernels.digest", digest()
    modules, stale = {path.stem for path in FOLDER.rglob("*.py")}, not stamp.exists() or stamp.read_bytes() != now
    for index in folder.glob("*.nbi"):
        if index.name.split(".")[0].split("-")[0] in modules and (stale or not index.stat().st_size):
            index.unlink(missing_ok=True)
    if stale:
        folder.mkdir(parents=True, exist_ok=True)
        stamp.write_bytes(now)
    _checked.add(folder)


# ---- memory ----------------------------------------------------------------------------------------------------------


@helper
def vector(pointer: Any, size: Any) -> Any:
    """Memory as an array (size,)."""
    return carray(pointer, (size,))


@helper
def matrix(pointer: Any, rows: Any, columns: Any) -> Any:
    """Memory as an array (rows, columns)."""
    return carray(pointer, (rows, columns))


@partial(helper, fastmath=SUM)
def total(values: Any) -> Any:
    """The sum of an array, formed in vector lanes.

    Nothing is written in this loop. Where a loop writes, LLVM looks at run time whether its arrays lie too near to each
    other for vectors and may take a loop without, which would add in another order.
    """
    found = values.dtype.type(0)
    for i in range(values.size):
        found += values[i]
    return found


@helper
def share(count: Any, part: Any, parts: Any) -> Any:
    """The first and the last (exclusive) of `count` that are this part's."""
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


def _cast(source: Any, target: Any, operation: str) -> Any:
    @intrinsic
    def cast(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, operation)(arguments[0], context.get_value_type(target))

        return target(source), generate

    return cast


# the same bits as another type
as_float32 = _cast(types.int32, types.float32, "bitcast")
as_float64 = _cast(types.int64, types.float64, "bitcast")
as_int32 = _cast(types.float32, types.int32, "bitcast")
as_int64 = _cast(types.float64, types.int64, "bitcast")
# a whole number that is an address
at_int64 = _cast(types.int64, types.CPointer(types.int64), "inttoptr")
at_int32 = _cast(types.int64, types.CPointer(types.int32), "inttoptr")
at_uint32 = _cast(types.int64, types.CPointer(types.uint32), "inttoptr")
at_float32 = _cast(types.int64, types.CPointer(types.float32), "inttoptr")
at_float64 = _cast(types.int64, types.CPointer(types.float64), "inttoptr")
at_uint8 = _cast(types.int64, types.CPointer(types.uint8), "inttoptr")


def integer(value: int) -> Any:
    """A constant of 64 bits in generated code."""
    return ir.Constant(ir.IntType(64), value)
