"""Where an array lives, and the one place that makes arrays.

A rule is written once over a namespace `xp`: NumPy's functions for NumPy arrays, CuPy's for CuPy arrays, and in
both the special functions under `xp.special`. The namespace is found from the array's type, so nothing here
imports CuPy: an array of CuPy's can only exist if CuPy was imported already.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

Array = Any  # an ndarray of NumPy's or of CuPy's
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class DeviceError(ValueError):
    """Arrays of two devices met, or of none that is known."""


class Namespace:
    """An array library with its special functions: `xp.exp`, `xp.special.gammaln`."""

    def __init__(self, device: str, library: str, special: str) -> None:
        self.device = device
        self.kernels = True  # do fused rows run their kernels on arrays of this library? `tinyvae.fused` switches it
        self._library, self._special = importlib.import_module(library), special

    def __getattr__(self, name: str) -> Any:
        # Called for names not seen before only: what is found is kept, so the next use is a plain attribute.
        found = importlib.import_module(self._special) if name == "special" else getattr(self._library, name)
        self.__dict__[name] = found
        return found

    def __repr__(self) -> str:
        return f"Namespace({self.device!r})"


NAMESPACES: dict[str, Namespace] = {"numpy": Namespace("cpu", "numpy", "scipy.special")}
CPU = NAMESPACES["numpy"]


def namespace_of(array: Array) -> Namespace:
    """The namespace of the library that made `array`."""
    if type(array) is np.ndarray:
        return CPU
    library = type(array).__module__.partition(".")[0]
    if library == "cupy" and library not in NAMESPACES:
        NAMESPACES[library] = Namespace("cuda", "cupy", "cupyx.scipy.special")
    if library not in NAMESPACES:
        raise DeviceError(f"found a {type(array).__name__}; expected a NumPy or CuPy array")
    return NAMESPACES[library]


def as_array(value: Any, dtype: Any = None, like: Namespace = CPU) -> Array:
    """`value` as an array of the namespace `like`; an array that is one already is not copied."""
    if isinstance(value, np.ndarray) and dtype is None and like is CPU:
        return value
    if type(value).__module__.partition(".")[0] in NAMESPACES and not isinstance(value, (np.ndarray, np.generic)):
        return value
    return like.asarray(value, dtype=dtype)
