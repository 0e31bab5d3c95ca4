"""Kernels in place of readable operations: how they are found, and how they are switched off.

A row of the table names its kernel, one pass over memory where the readable form takes several, and the readable form
stays beside it: its `value`, or its `twin`, a composition of other rows. The kernels live in the package
`tinyvae_kernels` and are imported when the first row with a kernel runs:

    with tinyvae.fused(False):  ...   # the readable forms, in this block; no Numba needed
    tinyvae.fused(False)              # or from here on, in this thread

A row with a twin gives all its gradients in one launch. It has no second derivative; its twin has.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Self

from tinyvae.engine.devices import Array, Namespace, namespace_of
from tinyvae.engine.rules import Rule
from tinyvae.engine.tape import recording


class Switch:
    """A setting of this thread, which a call changes from now on, or a `with` block until its end.

    A new thread begins with the default, whatever the thread that starts it has set, as with `numpy.errstate`. To hand
    it this thread's settings, let it run in a copy of this thread's context: `contextvars.copy_context().run(work)`.
    """

    setting: ContextVar[bool]

    def __init__(self, on: bool = True) -> None:
        if on not in (True, False):
            raise TypeError(f"found {type(self).__name__}({on!r}); expected True or False")
        self._before = self.setting.get()
        self.setting.set(bool(on))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.setting.set(self._before)


class fused(Switch):
    """Run fused operations by their kernels (True) or by their readable twins (False), from now on or in a block, in
    this thread; a new thread begins with True."""

    setting = ContextVar("fused", default=True)


class tf32(Switch):
    """Let a GPU's products of float32 matrices round factors to TF32's 11 bits (True) or not (False), from now on or in
    a block, in this thread: faster, and a product's error is about 1e-3 of its terms. A new thread begins with False. A
    recorded step keeps what it was recorded with; the CPU and float64 know no TF32."""

    setting = ContextVar("tf32", default=False)


@functools.cache
def load(device: str) -> ModuleType | None:
    """The kernels of a device, or None after one warning that names what is missing."""
    try:
        from tinyvae_kernels import kernels_for

        return kernels_for(device)
    except (ImportError, KeyError) as fault:
        warnings.warn(f"the fused {device} kernels cannot be loaded ({fault}); their readable twins run instead, with "
                      "the same results to rounding, more slowly", RuntimeWarning, stacklevel=2)
        return None


def lay_out(vector: Array, matrices: Sequence[tuple[int, int, int]]) -> None:
    """Tell the CPU's kernels of which matrices a flat vector is made, as (first number, rows, columns)."""
    if namespace_of(vector).device == "cpu" and importlib.util.find_spec("tinyvae_kernels"):
        importlib.import_module("tinyvae_kernels.layouts").lay_out(vector, matrices)


class Kernel:
    """A row's kernel on one device, called like the row's value. `bind` gives it as a call over fixed arrays, which a
    tape joins with its neighbours into one."""

    def __init__(self, launcher: Any, prepare: Callable[..., dict[str, Any]] | None) -> None:
        self.launcher, self.prepare = launcher, prepare or (lambda arrays, **attributes: attributes)

    def __call__(self, xp: Any, *arrays: Any, **attributes: Any) -> Any:
        return self.launcher(*arrays, **self.prepare(arrays, **attributes))

    def bind(self, xp: Any, *arrays: Any, **attributes: Any) -> Callable[[], Any]:
        return self.launcher.bind(*arrays, **self.prepare(arrays, **attributes))


def kernel_of(row: Rule, xp: Namespace) -> Any:
    """The kernel of a row on a device, or None: a device need not have all. It is looked up once.

    NumPy has many rows as one pass, and on the CPU nothing takes their place. On a GPU a recorded step becomes a CUDA
    graph, of which launches of the array library cannot be parts; so there such rows have kernels of their own names,
    which say what they take. A row that replaces one of them has none.
    """
    if row.kernel is None and (row.replaced or xp.device != "cuda"):
        return None
    if xp.device not in row.kernels:
        launcher = getattr(load(xp.device), row.kernel or row.name, None)
        there = launcher is not None and (row.kernel or getattr(launcher, "takes", None))
        row.kernels[xp.device] = Kernel(launcher, row.prepare) if there else None
    return row.kernels[xp.device]


def serves(row: Rule, xp: Namespace, arrays: Sequence[Array], attributes: Mapping[str, Any]) -> bool:
    """Can the row's kernel take these arrays and attributes?

    A kernel trusts what it is given. So what broadcasts in another way goes to the twin, and what is wrong gets the
    twin's error instead of foreign memory.
    """
    if row.kernel is None and xp.device == "cuda":  # outside of a recording the array library is as fast
        return recording() is not None and row.kernels[xp.device].launcher.takes(*arrays, **attributes)
    return ((row.strided or all(array.flags.c_contiguous for array in arrays))
            and (row.accepts is None or row.accepts(*arrays))
            and (row.asks is None or getattr(load(xp.device), row.asks)(*arrays, **attributes)))

