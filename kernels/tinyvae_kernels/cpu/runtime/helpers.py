"""Functions that kernels call, and the flags by which they are compiled.

Each rule below was measured. `error_model="numpy"` stands on kernels and on helpers: a check for division by zero would
block vectorisation. Helpers are functions of their own, so that a kernel's flags do not loosen their arithmetic; they
must be inlined, or a loop that calls one stays scalar. Every constant has the type of the data: a plain 0.5 is float64
and would widen float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
from numba.extending import intrinsic as _intrinsic
from numba.extending import overload

# (the wrappers, by which Python and C would call a helper, are a seventh of all compilation)
HELPER: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz"}, "forceinline": True,
                          "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
SUM = {"contract", "nsz", "reassoc"}  # a row's sum may be formed in vector lanes; no flag here assumes away NaN
intrinsic: Any = _intrinsic  # (mypy would take a call of one for a call of its Python function)


def helper(function: Callable, fastmath: set[str] = HELPER["fastmath"]) -> Callable:
    """Make a function that kernels call. It becomes part of their loops and is nothing by itself."""

    def stub(*arguments: Any) -> Any:
        raise TypeError(f"{function.__name__} is for compiled kernels only")

    options: Any = HELPER | {"fastmath": fastmath}
    overload(stub, jit_options=options, strict=False)(lambda *arguments: function)
    return stub


def integer(value: int) -> Any:
    """A constant of 64 bits in generated code."""
    return ir.Constant(ir.IntType(64), value)
