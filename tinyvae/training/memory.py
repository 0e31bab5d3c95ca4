"""The memory of this machine, and whether a model and its steps fit into it; on a GPU the allocation itself fails."""

from __future__ import annotations

import ctypes
import math
import os
from typing import Any

from tinyvae.engine.devices import CPU
from tinyvae.models import Model
from tinyvae.nn.network import layer_outputs
from tinyvae.training.settings import Settings


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API (sysinfoapi.h)."""

    _fields_ = (("length", ctypes.c_uint32), ("load", ctypes.c_uint32),
                *((name, ctypes.c_uint64) for name in ("total_physical", "free_physical", "total_page", "free_page",
                                                       "total_virtual", "free_virtual", "free_extended")))  # fmt: skip


def physical() -> float:
    """The bytes of memory that this machine has: by sysconf on Linux and macOS, by GlobalMemoryStatusEx on Windows.

    Infinite where the system tells neither.
    """
    try:
        if hasattr(os, "sysconf"):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        windows: Any = ctypes.windll.kernel32  # type: ignore[attr-defined]
        return status.total_physical if windows.GlobalMemoryStatusEx(ctypes.byref(status)) else math.inf
    except (ValueError, OSError, AttributeError):
        return math.inf


def check_memory(model: Model, settings: Settings) -> None:
    """Raise ValueError if two arrays for each layer and draw of a step exceed this machine's memory."""
    if model.xp is not CPU:
        return
    rows = settings.batch * settings.samples * settings.importance_samples
    needed, there = 2 * rows * layer_outputs(model.parameters) * model.dtype.itemsize, physical()
    if needed > there:
        raise ValueError(f"a step of {rows:,} draws needs about {needed / 2**30:,.0f} GiB, and this machine has "
                         f"{there / 2**30:,.0f}: make --batch, --samples or --importance-samples smaller")
