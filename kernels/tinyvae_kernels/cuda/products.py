"""Matrix products, by cuBLAS."""

from __future__ import annotations

from tinyvae_kernels.cuda.runtime import driver
from tinyvae_kernels.cuda.runtime.arguments import flat, new_like
from tinyvae_kernels.cuda.runtime.cublas import layout
from tinyvae_kernels.cuda.runtime.jobs import Array, Launcher, Plan, Product


@Launcher.question
def multiplies(a: Array, b: Array, tf32: bool = False) -> bool:
    """Are these two matrices of one type, each unbroken along rows or along columns, and is cuBLAS there?"""
    return a.dtype == b.dtype and None not in (layout(a), layout(b)) and driver.current.blas is not None


@Launcher
def matmul(a: Array, b: Array, out: Array | None, tf32: bool = False) -> Plan:
    """a (m, k) @ b (k, n) as (m, n); with `tf32` the factors' numbers are rounded to 11 bits (float32 only)."""
    if not multiplies(a, b) or a.shape[1] != b.shape[0]:
        raise ValueError(f"found factors {a.shape} of strides {a.strides} and {b.shape} of {b.strides}; expected "
                         "(m, k) and (k, n), each unbroken along rows or columns")
    out = new_like(a, (a.shape[0], b.shape[1])) if out is None else out
    if flat(out)[0].shape != (a.shape[0], b.shape[1]):
        raise ValueError(f"found a result of shape {out.shape}; expected {(a.shape[0], b.shape[1])}")
    return out, [Product(a, b, out, tf32)]


@Launcher.question
def pays(x: Array, w: Array) -> bool:
    """Leaving out the zeros of data does not pay beside a card's dense products."""
    return False
