"""What a kernel's arguments may be, and memory as arrays inside a kernel.

The classes below annotate the parameters of kernels. Memory in brackets has numbers of the type named there, memory
without brackets has numbers of the type that the kernel is compiled for: `Vector[np.int64]`, `Vector`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, TypeVar

from numba import carray, types

from tinyvae_kernels.cpu.runtime.helpers import SUM, helper, intrinsic

T = TypeVar("T")


class Memory(Generic[T]):
    """An array, handed over as the address of its first number."""

    sizes = 0  # how many sizes travel with the address
    unbroken = True  # only C-contiguous arrays are taken
    whole = False  # the kernel counts with the address
    shape: Any
    size: Any
    dtype: Any

    def __getitem__(self, place: Any) -> Any: ...

    def __setitem__(self, place: Any, value: Any) -> None: ...

    def __len__(self) -> Any: ...


class Pointer(Memory[T]):
    """The bare address. A loop that begins anywhere but at 0 needs it: Numba would look whether the index of an array
    is negative, and LLVM does not vectorise that."""


class StridedPointer(Pointer[T]):
    """The bare address of an array of any strides."""

    unbroken = False


class Vector(Memory[T]):
    """An array of any shape as (size,)."""

    sizes = 1


class Matrix(Memory[T]):
    """An array (..., n) as (rows, n)."""

    sizes = 2


class Address(Memory[T]):
    """A whole number: where an array begins, for code that counts in bytes."""

    whole = True

    def __add__(self, other: Any) -> Any: ...


class StridedAddress(Address[T]):
    """Where an array of any strides begins."""

    unbroken = False


# ---- arrays inside a kernel ------------------------------------------------------------------------------------------


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

    Nothing is written in this loop. Where a loop writes, LLVM compares at run time the places of its arrays and, where
    two of them overlap or nearly do, takes a loop without vectors, which adds in another order.
    """
    found = values.dtype.type(0)
    for i in range(values.size):
        found += values[i]
    return found


# ---- the same bits as another type -----------------------------------------------------------------------------------


def _cast(source: Any, target: Any, operation: str) -> Any:
    @intrinsic
    def cast(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, operation)(arguments[0], context.get_value_type(target))

        return target(source), generate

    return cast


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
