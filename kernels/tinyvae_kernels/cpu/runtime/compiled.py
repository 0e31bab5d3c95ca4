"""How a kernel is written and compiled.

    @kernel()
    def _double(a: Vector, out: Vector, part: int, parts: int) -> None:
        first, last = share(a.size, part, parts)
        for i in range(first, last):
            out[i] = a[i] + a[i]

A kernel does the share `part` of `parts` of its work and returns nothing, so several threads can do it together; a
kernel that names no parts is done by one thread. The value of an element never depends on `parts`, so the bits are the
same for any number of threads.

Machine code has one form for all kernels, `(p, n, s, part, parts)`, so that a list of kernels with their arguments is a
program that needs no Python (team.py): `p` points to the addresses of the arrays of the kernel's floating type, `n` to
whole numbers (sizes, and the addresses of arrays of other types), `s` to real numbers. The decorator reads the
annotations and writes, above the body of the kernel, the lines that give each argument its name. `packed` lays the
arguments out in the same order.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import cfunc, types

from tinyvae_kernels.cpu.runtime import memory
from tinyvae_kernels.cpu.runtime.cache import COMPILING, keep
from tinyvae_kernels.cpu.runtime.helpers import HELPER

ANY_TYPE = np.dtype(np.float32)  # of kernels without numbers of a type of their own
TYPES = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}
SHARED = ("part", "parts")


class Parameter(NamedTuple):
    """One parameter of a kernel: `kind` is a class of memory.py, int or float; `dtype` is None for the kernel's own."""

    name: str
    kind: Any
    dtype: np.dtype | None = None


def parameters_of(function: Callable) -> list[Parameter]:
    """What the annotations of a kernel say."""
    found = []
    for name, hint in typing.get_type_hints(function).items():
        if name not in (*SHARED, "return"):
            inner = typing.get_args(hint)
            found.append(Parameter(name, typing.get_origin(hint) or hint, np.dtype(inner[0]) if inner else None))
    return found


def unpacked(function: Callable, parameters: Sequence[Parameter]) -> Callable:
    """The same kernel as a function of (p, n, s, part, parts)."""
    lines, arrays, whole, real = [], 0, 0, 0
    for name, kind, dtype in parameters:
        if kind is float:
            lines.append(f"{name} = _s[{real}]")
            real += 1
            continue
        place = f"_n[{whole}]"
        if issubclass(kind, memory.Memory) and not kind.whole:
            if dtype is None:
                place, arrays = f"_p[{arrays}]", arrays + 1
            else:
                place, whole = f"_memory.at_{dtype}(_n[{whole}])", whole + 1
            if kind.sizes:
                sizes = ", ".join(f"_n[{whole + i}]" for i in range(kind.sizes))
                place, whole = f"_memory.{kind.__name__.lower()}({place}, {sizes})", whole + kind.sizes
        else:
            whole += 1
        lines.append(f"{name} = {place}")
    above = "\n" * (function.__code__.co_firstlineno - 1)  # so that the lines have the numbers of the file
    tree = ast.parse(above + textwrap.dedent(inspect.getsource(function)))
    written: Any = tree.body[0]
    head: Any = ast.parse("def head(_p, _n, _s, part, parts): ...").body[0]
    written.decorator_list, written.args, written.returns = [], head.args, None
    written.body[:0] = ast.parse("\n".join(lines)).body
    function.__globals__["_memory"] = memory
    made: dict[str, Any] = {}
    exec(compile(tree, function.__code__.co_filename, "exec"), function.__globals__, made)
    return made[function.__name__]


class Kernel:
    """A kernel for float32 and float64, of the form (p, n, s, part, parts); compiled when it is first asked for."""

    def __init__(self, function: Callable, fastmath: set[str], parameters: Sequence[Parameter] = ()) -> None:
        self.function, self.name, self.parameters = function, function.__name__.strip("_"), parameters
        # which argument has the kernel's own type
        self.typed = next((i for i, (_, kind, dtype) in enumerate(parameters)
                           if issubclass(kind, memory.Memory) and dtype is None), None)  # fmt: skip
        self.options: dict[str, Any] = {"error_model": "numpy", "fastmath": fastmath}
        self._compiled: dict[Any, Any] = {}

    def compiled(self, dtype: Any) -> Any:
        """Numba's C function for one type."""
        dtype = np.dtype(dtype)
        found = self._compiled.get(dtype)
        return self._compile(dtype) if found is None else found

    def _compile(self, dtype: np.dtype) -> Any:
        # A second thread waits for the first one's code: with two copies, the one that is thrown away takes along
        # machine code whose address a program may hold.
        with COMPILING:
            if dtype in self._compiled:
                return self._compiled[dtype]
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

    def make(function: Callable) -> Kernel:
        parameters = parameters_of(function)
        return Kernel(unpacked(function, parameters), fastmath, parameters)

    return make


def address(array: np.ndarray) -> int:
    """Where an array's memory begins."""
    return int(array.__array_interface__["data"][0])


def packed(kernel: Kernel, arguments: Sequence[Any]) -> tuple[np.dtype, np.ndarray, np.ndarray, np.ndarray]:
    """The kernel's floating type for these arguments, and p, n and s."""
    if len(arguments) != len(kernel.parameters):
        names = ", ".join(parameter.name for parameter in kernel.parameters)
        raise TypeError(f"{kernel.name} found {len(arguments)} arguments; expected {names}")
    own = ANY_TYPE if kernel.typed is None else arguments[kernel.typed].dtype
    p: list[int] = []
    n: list[int] = []
    s: list[float] = []
    for (name, kind, dtype), value in zip(kernel.parameters, arguments, strict=True):
        if kind is int or kind is float:
            (n if kind is int else s).append(value)
            continue
        if value.dtype != (dtype or own):
            raise TypeError(f"{kernel.name} found {name} of type {value.dtype}; expected {dtype or own}")
        if kind.unbroken and not value.flags.c_contiguous:
            raise ValueError(f"found an array of strides {value.strides}; a kernel needs unbroken (C-contiguous) "
                             "memory")
        (p if dtype is None and not kind.whole else n).append(address(value))
        if kind.sizes:
            n += (value.size,) if kind.sizes == 1 else rows_of(value)
    return own, np.array(p, np.int64), np.array(n, np.int64), np.array(s, np.float64)


def rows_of(array: np.ndarray) -> tuple[int, int]:
    """(..., n) as a number of rows and n."""
    width = array.shape[-1]
    return array.size // width if width else 0, width
