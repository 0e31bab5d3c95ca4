"""A report on this machine and installation: what tinyvae can use, what is wrong, and what to do about it.

Each probe checks one part and returns a line. Its `status` is "ok", "note" (the part works, but more slowly or with
fewer features than possible) or "fault". `found` describes the part, `cure` says what to do, and `details` are for
programs. A probe can meet any kind of broken installation, so an exception in a probe becomes a fault.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyvae.engine.devices import install_line
from tinyvae.runs import environment

Line = dict[str, Any]
Report = dict[str, Line]

CUPY = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")  # packages that install the same module
LOW_DISK, TIGHT_DISK = 2**26, 2**30  # bytes of free space: below the first a fault, below the second a note


def report(data_dir: str | os.PathLike[str] | None = None) -> Report:
    """The line of each part by name, for JSON. Never raises an error."""
    lines = {}
    for name, probe in PROBES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the line reports what matters
                lines[name] = probe(data_dir) if probe is _data else probe()
        except Exception as error:  # an unexpected error is a fault of this part, and the other probes go on
            cure = "reinstall tinyvae, or report this line"
            lines[name] = _fault(f"the check failed: {_reason(error)}", cure)
    return lines


def faults(lines: Report) -> list[str]:
    """The names of the parts with a fault."""
    return [name for name, line in lines.items() if line["status"] == "fault"]


def show(lines: Report, console: Any = None) -> None:
    """Print a report as a table, to the terminal or to a `rich.console.Console`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "note": "yellow", "fault": "bold red"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("part", "status", "found", "what to do"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("part", "status"))
    for name, line in lines.items():
        # Text keeps rich from reading the brackets of "cupy-cuda13x[ctk]" as a style.
        status = Text(line["status"], style=colours[line["status"]])
        table.add_row(Text(name), status, Text(line["found"]), Text(line.get("cure", "")))
    (console or Console()).print(table)


# ---- lines -----------------------------------------------------------------------------------------------------------


def _line(status: str, found: str, cure: str = "", details: Any = None) -> Line:
    line: Line = {"status": status, "found": found}
    if cure:
        line["cure"] = cure
    if details is not None:
        line["details"] = details
    return line


def _ok(found: str, details: Any = None) -> Line:
    return _line("ok", found, details=details)


def _note(found: str, cure: str = "", details: Any = None) -> Line:
    return _line("note", found, cure, details)


def _fault(found: str, cure: str, details: Any = None) -> Line:
    return _line("fault", found, cure, details)


def _reason(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


# ---- Python and NumPy ------------------------------------------------------------------------------------------------


def _python() -> Line:
    return _ok(f"{platform.python_version()} on {platform.system()} {platform.machine()}, "
               f"{environment.usable_cores()} cores: {environment.cpu_model()}")  # fmt: skip


def _numpy() -> Line:
    import numpy

    return _ok(numpy.__version__)


def _blas() -> Line:
    blas = environment.blas()
    parts = [blas["library"] or "unknown", blas["version"], blas["kernel"] and f"{blas['kernel']} kernel"]
    found = ", ".join(part for part in parts if part)
    if blas["threads"]:
        found += f", {blas['threads']} thread{'s' * (blas['threads'] > 1)}"
    if blas["newer_kernel"]:
        found += f"; this processor can run the {blas['newer_kernel']} kernel"
        if blas["pinned_by"]:
            variable = blas["pinned_by"].partition("=")[0]
            found += f", but {blas['pinned_by']} pins the older one"
            return _note(found, f"unset {variable} for faster products (their last bits change)", blas)
        return _note(found, "upgrade NumPy: its BLAS does not know this processor", blas)
    if blas["threads"] and blas["threads"] > environment.usable_cores():
        cores = environment.usable_cores()
        cure = f"set OPENBLAS_NUM_THREADS={cores}: more threads than cores wait for each other"
        return _note(f"{found} on {cores} cores", cure, blas)
    return _ok(found, blas)


# ---- Numba -----------------------------------------------------------------------------------------------------------


def _without_variables(cure: str) -> str:
    """The cure after another one, where variables of Numba's are set: a wrong value breaks it, too."""
    given = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_")]
    return f"unset {', '.join(given)}; if that does not help: {cure}" if given else cure


def _numba() -> Line:
    cure = 'pip install --upgrade "numba>=0.60"; until then the readable twins run, more slowly'
    try:
        numba = importlib.import_module("numba")
    except ModuleNotFoundError as error:
        if error.name == "numba":
            return _fault("not installed", cure)
        return _fault(f"installed, but broken: {_reason(error)}", cure)
    except Exception as error:
        return _fault(f"installed, but broken: {_reason(error)}", _without_variables(cure))
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return _note(f"{numba.__version__}, switched off", "unset NUMBA_DISABLE_JIT: the slower readable twins run")
    try:
        three = numba.njit(_add)(1, 2)
    except Exception as error:
        return _fault(f"{numba.__version__} cannot compile: {_reason(error)}", _without_variables(cure))
    if three != 3:
        return _fault(f"{numba.__version__} computes 1 + 2 = {three}", cure)
    return _ok(f"{numba.__version__}, compiles")


def _add(a: int, b: int) -> int:
    return a + b


def _cache() -> Line:
    """The folder of compiled kernels: $NUMBA_CACHE_DIR, else the source's folder, else the user's cache."""
    folders = [Path(os.environ["NUMBA_CACHE_DIR"])] if os.environ.get("NUMBA_CACHE_DIR") else []
    kernels = importlib.util.find_spec("tinyvae_kernels")
    if kernels is None:
        return _fault("tinyvae_kernels is missing", "reinstall tinyvae, or add kernels/ to PYTHONPATH")
    folders += [Path(kernels.origin).parent / "__pycache__"] if kernels.origin else []
    home = os.path.expanduser("~")
    cache = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home != "~" else "")
    folders += [Path(cache) / "numba"] if cache else []
    for folder in folders:
        if _writable(folder):
            return _ok(f"compiled kernels are kept in {folder}", {"folder": str(folder)})
    return _note("no folder to keep compiled kernels in: each start compiles them anew",
                 "set NUMBA_CACHE_DIR to a folder that you may write to")  # fmt: skip


def _writable(folder: Path) -> bool:
    """Whether files can be made in the folder, or in the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):  # a test of the permissions would be wrong for root
            return True
    except OSError:
        return False


# ---- CuPy and the GPU ------------------------------------------------------------------------------------------------


def _driver_state() -> tuple[int | None, str]:
    """The CUDA version of the NVIDIA driver (13000 is 13.0) or None, and the hindrance to its use or ""."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return None, f"no NVIDIA driver ({name})"
    version, count = ctypes.c_int(), ctypes.c_int()
    if code := driver.cuInit(0):
        return None, f"the NVIDIA driver reports no usable GPU (cuInit gives {code})"
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    return version.value, "" if count.value else "the NVIDIA driver reports no GPU"


def _import_cupy() -> tuple[Any, str]:
    """CuPy and "", or None and the reason; the reason is "" if CuPy is not installed."""
    try:
        return importlib.import_module("cupy"), ""
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not _wheels()
        return None, "" if absent else f"installed ({', '.join(_wheels())}), but broken: {_reason(error)}"


def _wheels() -> list[str]:
    return [name for name in CUPY if environment.installed(name)]


def _driver() -> Line:
    version, hindrance = _driver_state()
    if hindrance:
        if _import_cupy()[0] is None:
            return _note(hindrance, "nothing to do for the CPU")
        return _fault(hindrance, "install the NVIDIA driver, or use the CPU: CuPy needs the driver")
    assert version is not None
    return _ok(f"CUDA {version // 1000}.{version % 1000 // 10}", {"version": version})


def _cupy() -> Line:
    version, _ = _driver_state()
    cupy, reason = _import_cupy()
    wheels = _wheels()
    if cupy is None and not reason:
        return _note("not installed", "needed for --device cuda only: "
                     f"{install_line(version)}")
    if len(wheels) > 1:
        cure = f"pip uninstall {' '.join(wheels)}; {install_line(version)}"
        return _fault(f"{', '.join(wheels)} overwrite each other", cure)
    if cupy is None:
        return _fault(reason, f"pip uninstall {' '.join(wheels) or 'cupy'}; {install_line(version)}")
    wheel = wheels[0] if wheels else "cupy"
    built = {"cupy-cuda11x": 11000, "cupy-cuda12x": 12000, "cupy-cuda13x": 13000}.get(wheel, 0)
    if version is not None and version < built:
        cure = f"pip uninstall {wheel}; {install_line(version)}, or upgrade the driver"
        return _fault(f"{wheel} {cupy.__version__} is newer than the driver's CUDA {version // 1000}", cure)
    return _ok(f"{wheel} {cupy.__version__}")


def _nvrtc() -> Line:
    cupy, _ = _import_cupy()
    if cupy is None:
        return _note("not looked for, without CuPy")
    try:
        major, minor = cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        wheel = (_wheels() or ["cupy-cuda13x"])[0]
        found = f"the compiler of GPU kernels is missing: {_reason(error)}"
        return _fault(found, f'pip install "{wheel}[ctk]"')
    return _ok(f"NVRTC {major}.{minor}")


def _gpu() -> Line:
    """Compile and run a kernel on the default stream, because a new stream can fail once more when it is deleted."""
    cupy, _ = _import_cupy()
    hindrance = "CuPy is not there" if cupy is None else _driver_state()[1]
    if hindrance:
        return _note(f"none used: {hindrance}")
    try:
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        three = int(cupy.arange(3).sum())
    except Exception as error:
        return _fault(f"cannot run a kernel: {_reason(error)}", "see the lines on CuPy, driver and NVRTC")
    if three != 3:
        return _fault(f"the GPU computes 0 + 1 + 2 = {three}", "see the lines on CuPy and driver")
    name = properties["name"]
    name = name.decode() if isinstance(name, bytes) else name
    return _ok(f"{name}, {properties['totalGlobalMem'] / 2**30:.0f} GiB, runs kernels")


# ---- data, disk, terminal --------------------------------------------------------------------------------------------


def _data(data_dir: str | os.PathLike[str] | None = None) -> Line:
    from tinyvae import data

    if importlib.util.find_spec("sklearn") is None:
        return _fault("scikit-learn, which holds the digits, is not installed", "pip install scikit-learn")
    records = [data.find(name, data_dir) for name in data.NAMES]
    there = [record["name"] for record in records if record["found"]]
    damaged = [record for record in records if not record["found"] and record["folder"]]
    fetched = [record["name"] for record in records if not record["found"] and record["fetched"]]
    absent = [r["name"] for r in records if not r["found"] and not r["folder"] and not r["fetched"]]
    found = ", ".join(there) or "none"
    if damaged:
        names = ", ".join(record["name"] for record in damaged)
        return _fault(f"{found}; damaged: {names}", damaged[0]["advice"], records)
    if fetched:
        found += f"; fetched on use: {', '.join(fetched)}"
    if absent:
        cure = "to use them, set TINYVAE_DATA (or give --data-dir) to a folder that holds them"
        return _note(f"{found}; not found: {', '.join(absent)}", cure, records)
    return _ok(found, records)


def _disk() -> Line:
    free = shutil.disk_usage(".").free
    found = f"{free / 2**30:.1f} GiB free in the current folder"
    details = {"free_bytes": free}
    if not _writable(Path(".")):
        return _fault(f"{found}, which you may not write to", "go to another folder or give --out", details)
    if free < LOW_DISK:
        return _fault(found, "make room: a run could not be saved", details)
    if free < TIGHT_DISK:
        return _note(found, "make room before a long run", details)
    return _ok(found, details)


def _terminal() -> Line:
    encoding = getattr(sys.stdout, "encoding", None) or "unknown"
    kind = "a terminal" if sys.stdout is not None and sys.stdout.isatty() else "no terminal: output is plain"
    found = f"{kind}, {shutil.get_terminal_size().columns} columns, {encoding}"
    if encoding.lower().replace("-", "") != "utf8":
        return _note(found, "set PYTHONUTF8=1 to see Greek letters and bars")
    return _ok(found)


PROBES: dict[str, Callable[..., Line]] = {
    "Python": _python, "NumPy": _numpy, "BLAS": _blas, "Numba": _numba, "kernel cache": _cache, "CuPy": _cupy,
    "driver": _driver, "NVRTC": _nvrtc, "GPU": _gpu, "data": _data, "disk": _disk, "terminal": _terminal,
}  # fmt: skip
