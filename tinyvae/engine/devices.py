"""Where an array lives, and the one place that makes arrays.

A rule is written once over a namespace `xp`: NumPy's functions for NumPy arrays, CuPy's for CuPy arrays, and in
both the special functions under `xp.special`. The namespace is found from the array's type, so nothing here
imports CuPy: an array of CuPy's can only exist if CuPy was imported already.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
from typing import Any

import numpy as np

from tinyvae.choices import an

Array = Any  # an ndarray of NumPy's or of CuPy's
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

OLDEST = 70  # ten times the compute capability that the kernels need


class DeviceError(ValueError):
    """Arrays of two devices met, or a device cannot be used."""


class Namespace:
    """An array library with its special functions: `xp.exp`, `xp.special.gammaln`."""

    def __init__(self, device: str, library: str, special: str) -> None:
        self.device = device
        self._library, self._special = importlib.import_module(library), special
        # for `take` where all indices are known to be in bounds: with "wrap", NumPy needs no second buffer; CuPy always
        # wraps
        self.checked = {"mode": "wrap"} if device == "cpu" else {}

    def __getattr__(self, name: str) -> Any:
        # Python calls this for names that are no attributes yet; what is found becomes one, so the next use is quick.
        found = importlib.import_module(self._special) if name == "special" else getattr(self._library, name)
        self.__dict__[name] = found
        return found

    def read(self, array: Array) -> Any:
        """As the function `read` below; rules.py, which imports nothing, reaches it here."""
        return read(array)

    def __reduce__(self) -> Any:
        return namespace, (self.device,)  # a copy, or what `pickle` loads, is the one namespace of the device

    def add_rows(self, out: Array, index: Array, values: Array) -> None:
        """out[index] += values, where the values of a row that `index` names several times add up, in a fixed order.

        CuPy's `add.at` adds in an order that changes from run to run. Therefore on a GPU the values are sorted by their
        rows, and every value takes up those before it in its row: first the neighbour, then the sum of two, of four.
        The last value of a row is then its sum (Hillis and Steele 1986, "Data parallel algorithms").
        """
        if self.device == "cpu":
            self.add.at(out, index, values)
        elif index.size and values.size:
            row, sums = index.reshape(-1) % len(out), values.reshape(index.size, -1)
            order = self.argsort(row)
            row, sums, step = row[order], sums[order], 1
            while step < index.size:
                same = (row[step:] == row[:-step]).reshape(-1, 1)
                sums[step:] += self.where(same, sums[:-step], 0)
                step *= 2
            rows = self.arange(len(out))
            last = self.searchsorted(row, rows, side="right") - 1
            # A row that is not named has no sum: `last` stands at an earlier row then, or is -1, the place of the end.
            named = (row[last] == rows).reshape(-1, 1)
            out += self.where(named, sums[last], 0).reshape(out.shape)

    def __repr__(self) -> str:
        return f"Namespace({self.device!r})"


NAMESPACES: dict[str, Namespace] = {"numpy": Namespace("cpu", "numpy", "scipy.special")}
CPU = NAMESPACES["numpy"]


def namespace(device: str) -> Namespace:
    """The namespace of a device by its name, `cpu` or `cuda`; DeviceError says what a GPU lacks."""
    if device not in ("cpu", "cuda"):
        raise DeviceError(f"found device {device!r}; expected cpu or cuda")
    return CPU if device == "cpu" else namespace_of(require_cuda().zeros(0))


def install_line(driver: int | None) -> str:
    """The pip line of the CuPy for a driver of this CUDA version (13000 is 13.0), with all that it needs."""
    return f'pip install "cupy-cuda{12 if driver is not None and driver < 13000 else 13}x[ctk]"'


# the variables in which launchers of MPI say the place of a process among those of its machine: MPICH's and Intel's,
# Open MPI's
PLACES = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK")
_place: int | None = None  # the same as MPI says it


def take_gpu(place: int) -> None:
    """Let this process compute on the GPU of its place among the processes of its machine. If there are more processes
    than GPUs, several share one."""
    global _place
    _place = place


def own_place() -> int:
    """The place of this process among those of its machine. A program may make a model before a training asks MPI for
    it; then the launcher's variable says it."""
    if _place is not None:
        return _place
    # srun, by PMIx or PMI-2, leaves it to a variable of its own
    by_slurm = ("SLURM_LOCALID",) if {"PMIX_RANK", "PMI_RANK"} & os.environ.keys() else ()
    return next((int(value) for name in (*PLACES, *by_slurm) if (value := os.environ.get(name, "")).isdigit()), 0)


def require_cuda() -> Any:
    """CuPy with the GPU of this process, if it can compute; else DeviceError with one sentence: what is missing, and
    what to do."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as fault:
        raise DeviceError(f"device='cuda' needs CuPy, which cannot be imported ({fault}): {install_line(None)}, or for "
                          f"an NVIDIA driver of CUDA 12 {install_line(12000)}") from None
    found, runtime = f"CuPy {cupy.__version__} is installed, but", cupy.cuda.runtime
    if not runtime.driverGetVersion():
        raise DeviceError(f"{found} no NVIDIA driver was found (libcuda.so.1): install the driver, or compute with "
                          "device='cpu'")
    try:
        count, reason = runtime.getDeviceCount(), "it counts none"
    except Exception as fault:  # CuPy's own error, whose type cannot be named without importing CuPy
        count, reason = 0, str(fault)
    if not count:
        raise DeviceError(f"{found} the NVIDIA driver reports no usable GPU ({reason}): look at nvidia-smi and "
                          "CUDA_VISIBLE_DEVICES, or compute with device='cpu'")
    if number := own_place() % count:
        cupy.cuda.Device(number).use()
    capability = int(cupy.cuda.Device().compute_capability)
    if capability < OLDEST:
        raise DeviceError(f"{found} the GPU has compute capability {capability / 10}, and the kernels need "
                          f"{OLDEST / 10} or newer: compute with device='cpu'")
    try:
        cupy.cuda.nvrtc.getVersion()  # (an attribute: there is no module of this name)
    except Exception as fault:  # a loader's error of any kind
        raise DeviceError(f"{found} NVRTC, which compiles the kernels, was not found ({fault}): "
                          f"{install_line(runtime.driverGetVersion())}") from None
    return cupy


def memory_in_use() -> tuple[int, int, int]:
    """Of the GPU, in bytes: what this process's arrays hold, what is free (with what the pool keeps), all."""
    cupy = importlib.import_module("cupy")
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    free, total = cupy.cuda.runtime.memGetInfo()
    return pool.used_bytes(), free + pool.free_bytes(), total


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API (sysinfoapi.h)."""

    _fields_ = (("length", ctypes.c_uint32), ("load", ctypes.c_uint32),
                *((name, ctypes.c_uint64) for name in ("total_physical", "free_physical", "total_page", "free_page",
                                                       "total_virtual", "free_virtual", "free_extended")))  # fmt: skip


def physical_memory() -> float:
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


def floating(dtype: Any) -> np.dtype:
    """A type of tensors that have derivatives, by any of its names; ValueError for another."""
    try:
        found = np.dtype("O" if dtype is None else dtype)
    except TypeError:
        found = np.dtype("O")
    if found not in FLOATS:
        raise ValueError(f"found dtype {dtype!r}; expected float32 or float64")
    return found


def to_host(array: Array) -> Any:
    """The values as a NumPy array: the array itself if it is one, else a copy."""
    return array if isinstance(array, (np.ndarray, np.generic)) else array.get()


def read(array: Array) -> Any:
    """The value of an array with one element, as a Python number; on a GPU this waits for the device."""
    value = to_host(array)
    if isinstance(value, np.ndarray):
        return value.item()
    return int(value) if value.dtype.kind in "iu" else float(value)  # (NumPy keeps some memory for item() of these)


def namespace_of(array: Array) -> Namespace:
    """The namespace of the library that made `array`."""
    if type(array) is np.ndarray:
        return CPU
    library = type(array).__module__.partition(".")[0]
    if library == "cupy" and library not in NAMESPACES:
        NAMESPACES[library] = Namespace("cuda", "cupy", "cupyx.scipy.special")
    if library not in NAMESPACES:
        raise DeviceError(f"found {an(type(array).__name__)}; expected a NumPy or CuPy array")
    return NAMESPACES[library]


def as_array(value: Any, dtype: Any = None, like: Namespace = CPU) -> Array:
    """`value` as an array of the namespace `like`; an array that is one already is not copied."""
    if isinstance(value, np.ndarray) and dtype is None and like is CPU:
        return value
    if type(value).__module__.partition(".")[0] in NAMESPACES and not isinstance(value, (np.ndarray, np.generic)):
        return value
    try:
        return like.asarray(value, dtype=dtype)
    except ValueError:
        raise TypeError(f"found {value!r:.60} for a tensor, with rows of different lengths; expected numbers or truth "
                        "values, as many in each row") from None
