"""Operations that NumPy does in one pass, as kernels, so that a step which is made of them is one graph."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tinyvae_kernels.cuda.runtime.arguments import count, new_like, span
from tinyvae_kernels.cuda.runtime.driver import FLOATS
from tinyvae_kernels.cuda.runtime.jobs import THREADS, Array, Job, Launcher, Plan, spread

REASON = "NumPy has it as one pass; on a GPU a launch of the array library would break a step's graph into pieces"
AXES = 3  # of a layout
LONG = 32  # from so many numbers on, a line without gaps has a warp, and else a thread
LONGEST = 4096  # longer lines are the array library's
MOST = 2**31

UNARY = ("neg", "abs", "sqrt", "exp", "log", "expm1", "log1p", "tanh", "sigmoid", "softplus", "relu")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARE = ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")
REDUCE = ("sum", "mean", "max", "logsumexp")
SHARES = ("softmax", "log_softmax")

# ---- layouts ---------------------------------------------------------------------------------------------------------


def _steps(array: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many numbers an array moves along each axis of a shape to which it broadcasts."""
    own = [0 if n == 1 else step // array.itemsize for n, step in zip(array.shape, array.strides, strict=True)]
    return (*[0] * (len(shape) - len(own)), *own)


def _layout(shape: tuple[int, ...], *operands: Array) -> tuple[int, ...] | None:
    """The layout of operands that broadcast to a shape; None if no three axes are enough.

    Neighbouring axes become one where every operand moves along both as along one.
    """
    axes: list[tuple[int, ...]] = []  # each its length and the operands' steps
    for n, *steps in zip(shape, *(_steps(a, shape) for a in operands), strict=True):
        if n == 1:
            continue
        if axes and all(outer == n * inner for outer, inner in zip(axes[-1][1:], steps, strict=True)):
            axes[-1] = (axes[-1][0] * n, *steps)
        else:
            axes.append((n, *steps))
    if len(axes) > AXES:
        return None
    axes = [(1, *[0] * len(operands))] * (AXES - len(axes)) + axes
    firsts = [sum(max(0, -step) * (n - 1) for n, step in zip(a.shape, a.strides, strict=True)) // a.itemsize
              for a in operands]  # fmt: skip
    return (axes[1][0], axes[2][0], *(number for i, first in enumerate(firsts)
                                      for number in (first, *(axis[1 + i] for axis in axes))))  # fmt: skip


@cache
def _there(layout: tuple[int, ...], library: str) -> Array:
    """A layout in the memory of an array library."""
    return sys.modules[library].asarray(np.array(layout, np.int32))


def _shape(*arrays: Array) -> tuple[int, ...] | None:
    """The shape to which arrays broadcast together, or None."""
    try:
        return np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        return None


def _broadcasts(a: Array, shape: tuple[int, ...]) -> bool:
    rest = len(shape) - a.ndim
    return rest >= 0 and all(n in (1, m) for n, m in zip(a.shape, shape[rest:], strict=True))


def _within_reach(a: Array) -> bool:
    """Are the places of all numbers of an array below MOST, as the kernels count them?"""
    return sum(abs(step) * (n - 1) for n, step in zip(a.shape, a.strides, strict=True)) < MOST * a.itemsize


def _fit(shape: tuple[int, ...] | None, *arrays: Array) -> bool:
    """Do arrays of one floating type, or truth values, broadcast to a shape along three axes?"""
    types = {a.dtype for a in arrays if a.dtype != bool}
    if shape is None or len(types) > 1 or not types <= set(FLOATS) or math.prod(shape) >= MOST:
        return False
    return all(_broadcasts(a, shape) and _within_reach(a) for a in arrays) and _layout(shape, *arrays) is not None


def _each(kernel: str, dtype: Any, shape: tuple[int, ...], operands: Sequence[Array], out: Sequence[Array],
          *numbers: Any) -> list[Job]:
    """A loop over the numbers of a shape, to which the operands broadcast; `out` has its memory to itself."""
    size = count(math.prod(shape))
    if not size:
        return []
    layout = _layout(shape, *operands)
    assert layout is not None
    there = _there(layout, type(operands[0]).__module__.partition(".")[0])
    return spread("elementary", kernel, dtype, int(size), *map(span, operands), *out, there, size, *numbers)


def _register(name: str, plan: Callable[..., Plan], takes: Callable[..., bool]) -> None:
    plan.__name__ = plan.__qualname__ = name
    Launcher.alone(REASON, takes)(plan)


# ---- a number at a time ----------------------------------------------------------------------------------------------


def _unary(kind: int, name: str) -> None:
    def plan(a: Array, out: Array | None) -> Plan:
        out = new_like(a, a.shape) if out is None else out
        return out, _each("unary", out.dtype, a.shape, (a,), (out,), np.int32(kind))

    _register(name, plan, lambda a, **_: a.dtype != bool and _fit(a.shape, a))


def _binary(kind: int, name: str, kernel: str) -> None:
    def plan(a: Array, b: Array, out: Array | None) -> Plan:
        shape = np.broadcast_shapes(a.shape, b.shape)
        out = new_like(a, shape, bool if kernel == "compare" else a.dtype) if out is None else out
        return out, _each(kernel, a.dtype, shape, (a, b), (out,), np.int32(kind))

    _register(name, plan, lambda a, b, **_: bool not in (a.dtype, b.dtype) and _fit(_shape(a, b), a, b))


for _kind, _name in enumerate(UNARY):
    _unary(_kind, _name)
for _kind, _name in enumerate(BINARY):
    _binary(_kind, _name, "binary")
for _kind, _name in enumerate(COMPARE):
    _binary(_kind, _name, "compare")


def _where(flag: Array, a: Array, b: Array, out: Array | None) -> Plan:
    shape = np.broadcast_shapes(flag.shape, a.shape, b.shape)
    out = new_like(a, shape) if out is None else out
    return out, _each("choose", a.dtype, shape, (flag, a, b), (out,))


_register("where", _where, lambda flag, a, b, **_: flag.dtype == bool and bool not in (a.dtype, b.dtype) and _fit(
    _shape(flag, a, b), flag, a, b))  # fmt: skip


def _cast(flag: Array, out: Array | None, dtype: Any) -> Plan:
    out = new_like(flag, flag.shape, dtype) if out is None else out
    return out, _each("as_numbers", out.dtype, flag.shape, (flag,), (out,))


_register("cast", _cast, lambda flag, dtype, **_: flag.dtype == bool and dtype in FLOATS and _fit(flag.shape, flag))

# ---- copies ----------------------------------------------------------------------------------------------------------


def _moved(a: Array, place: Array) -> list[Job]:
    """`a`, repeated where it is smaller, into the memory of `place`."""
    return _each("move_into", place.dtype, place.shape, (a, place), ())


def _fit_places(pairs: Sequence[tuple[Array, Array]]) -> bool:
    return all(bool not in (a.dtype, place.dtype) and _fit(place.shape, a, place) for a, place in pairs)


def _copy(a: Array, out: Array | None) -> Plan:
    out = new_like(a, a.shape) if out is None else out
    return out, _moved(a, out)


_register("copy", _copy, lambda a, **_: a.dtype != bool and _fit(a.shape, a))


def _store(a: Array, home: Array) -> Plan:
    return None, _moved(a, home)


_register("store", _store, lambda a, home: _fit_places([(a, home)]))


def _unslice(g: Array, out: Array | None, key: Any, shape: tuple[int, ...]) -> Plan:
    out = new_like(g, shape) if out is None else out
    size = count(out.size)
    return out, spread("elementary", "clear", out.dtype, int(size), out, size) + _moved(g, out[key])


def _is_view(key: Any) -> bool:
    return all(isinstance(k, (int, np.integer, slice)) or k is None or k is ...
               for k in (key if isinstance(key, tuple) else (key,)))


_register("unslice", _unslice, lambda g, key, shape, **_: _is_view(key) and g.dtype != bool and _fit_places(
    [(g, np.empty(shape, g.dtype)[key])]))  # fmt: skip


def _parts(out: Array, arrays: Sequence[Array], axis: int) -> list[Array]:
    """The part of `out` for each of the arrays along an axis."""
    ends = np.cumsum([a.shape[axis] for a in arrays]).tolist()
    return [out[(slice(None),) * axis + (slice(end - a.shape[axis], end),)]
            for a, end in zip(arrays, ends, strict=True)]


def _concatenate(*arrays: Array, out: Array | None, axis: int) -> Plan:
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    out = new_like(arrays[0], tuple(shape)) if out is None else out
    return out, [job for a, part in zip(arrays, _parts(out, arrays, axis), strict=True) for job in _moved(a, part)]


def _can_concatenate(*arrays: Array, axis: int, **_: Any) -> bool:
    rest = {(a.dtype, a.ndim, *(n for i, n in enumerate(a.shape) if i != axis)) for a in arrays}
    return (axis >= 0 and len(rest) == 1 and arrays[0].dtype in FLOATS and sum(a.size for a in arrays) < MOST
            and all(_layout(a.shape, a) is not None and _within_reach(a) for a in arrays) and arrays[0].ndim <= AXES)


_register("concatenate", _concatenate, _can_concatenate)

# ---- along axes ------------------------------------------------------------------------------------------------------


def _lines(a: Array, axis: tuple[int, ...]) -> tuple[int, int] | None:
    """How many numbers lie along the axes, and how far apart; None where they are no line of unbroken memory."""
    places = [i for i, n in enumerate(a.shape) if n != 1]
    along = [places.index(i) for i in axis if i in places]
    if not a.flags.c_contiguous or (along and along != list(range(along[0], along[-1] + 1))):
        return None
    n = math.prod(a.shape[i] for i in axis)
    return n, math.prod(a.shape[places[i]] for i in range(along[-1] + 1, len(places))) if along else 1


def _are_lines(a: Array, axis: tuple[int, ...], **_: Any) -> bool:
    lines = _lines(a, axis)
    return a.dtype in FLOATS and 0 < a.size < MOST and lines is not None and lines[0] <= LONGEST


def _along(kernel: str, a: Array, out: Array, axis: tuple[int, ...], *last: Any) -> list[Job]:
    lines = _lines(a, axis)
    assert lines is not None
    size = count(a.size // lines[0])
    return spread("elementary", kernel, a.dtype, int(size), a, out, size, np.int32(lines[0]), count(lines[1]),
                  *last)


def _reduce(kind: int, name: str) -> None:
    def plan(a: Array, out: Array | None, axis: tuple[int, ...], keepdims: bool) -> Plan:
        kept = [1 if i in axis else n for i, n in enumerate(a.shape) if keepdims or i not in axis]
        out = new_like(a, tuple(kept)) if out is None else out
        n, inner = _lines(a, axis) or (0, 0)
        if n < LONG or inner > 1:
            return out, _along("reduce", a, out, axis, np.int32(kind))
        arguments = (a, out, count(a.size // n), np.int32(n), np.int32(kind))
        return out, [Job("elementary", "reduce_long", a.dtype, (-(-a.size // n // 8),), (THREADS,), arguments)]

    _register(name, plan, _are_lines)


def _share(name: str) -> None:
    def plan(a: Array, out: Array | None, axis: tuple[int, ...]) -> Plan:
        out = new_like(a, a.shape) if out is None else out
        return out, _along(name, a, out, axis)

    _register(name, plan, _are_lines)


for _kind, _name in enumerate(REDUCE):
    _reduce(_kind, _name)
for _name in SHARES:
    _share(_name)
