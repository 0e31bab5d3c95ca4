"""What a run or a figure was made with: the processor, the packages, and the BLAS behind NumPy's matrix products.

A product can differ twofold in time, and in its last bits, with the kernel that the BLAS chose.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

# What changes the speed or the bits of a computation, and nothing that tells whose machine it is.
VARIABLES = (
    "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "MKL_ENABLE_INSTRUCTIONS", "BLIS_NUM_THREADS", "BLIS_ARCH_TYPE", "VECLIB_MAXIMUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES", "NUMBA_NUM_THREADS", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES",
    "NUMBA_DISABLE_JIT", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "cupy", "cupy-cuda12x", "cupy-cuda13x")
# The generations of OpenBLAS kernels on x86: what a processor must know, and the kernels that make use of it.
GENERATIONS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    ("SkylakeX", frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}),
     frozenset({"skylakex", "cooperlake", "sapphirerapids"})),
    ("Haswell", frozenset({"avx2", "fma"}), frozenset({"haswell", "zen", "excavator"})),
    ("Sandybridge", frozenset({"avx"}), frozenset({"sandybridge", "bulldozer", "piledriver", "steamroller"})),
)  # fmt: skip


def environment() -> dict[str, Any]:
    """What a figure depends on, for a JSON file; nothing that names the machine or its owner."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed(name)) is not None},
        "blas": blas(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def installed(package: str) -> str | None:
    """The version of an installed package, found without importing it, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def blas() -> dict[str, Any]:
    """The BLAS that NumPy multiplies matrices with.

    `library`, `version`; `kernel`, the processor generation whose code it runs; `threads`; `pinned_by`, the
    environment variable that chose the kernel, if one did; `newer_kernel`, one that this processor could run
    where the kernel in use is older. What cannot be found out is None.
    """
    found: dict[str, Any] = dict.fromkeys(
        ("library", "version", "kernel", "threads", "pinned_by", "newer_kernel")
    )
    pool = _numpy_pool()
    if pool is None:  # Accelerate, for one, does not tell more than its name
        found["library"] = _numpy_build()
        return found
    found["library"], found["version"] = pool["internal_api"], pool.get("version")
    found["kernel"], found["threads"] = pool.get("architecture"), pool.get("num_threads")
    if found["library"] == "openblas":
        if "OPENBLAS_CORETYPE" in os.environ:
            found["pinned_by"] = f"OPENBLAS_CORETYPE={os.environ['OPENBLAS_CORETYPE']}"
        found["newer_kernel"] = newer_kernel(found["kernel"], cpu_flags())
    return found


def differing_blas(before: dict[str, Any]) -> str:
    """In what the BLAS differs from that of an earlier `environment()`, in words; "" if in nothing.

    Products that a BLAS makes (where our kernels do not serve) repeat only with its kernel and number of threads, and
    another kernel is a sign of another processor, whose vectors may be shorter.
    """
    then, now = before.get("blas") or {}, blas()
    keys = ("library", "version", "kernel", "threads")
    return "; ".join(f"{key} {then[key]} then, {now.get(key)} now" for key in keys
                     if key in then and then[key] != now.get(key))


def newer_kernel(kernel: str | None, flags: frozenset[str] | None) -> str | None:
    """The generation of OpenBLAS kernels that a processor of `flags` runs, if `kernel` is of an older."""
    if kernel is None or flags is None:
        return None
    for name, needs, kernels in GENERATIONS:
        if kernel.lower() in kernels:
            return None
        if needs <= flags:
            return name
    return None


def cpu_flags(path: str = "/proc/cpuinfo") -> frozenset[str] | None:
    """The instruction sets of an x86 processor as Linux names them; None elsewhere."""
    flags = _cpuinfo("flags", path)
    return frozenset(flags.split()) if flags else None


def cpu_model() -> str:
    """The processor's name, or its architecture where the name is not to be had."""
    return _cpuinfo("model name", "/proc/cpuinfo") or platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may use: not those of the machine, if it was given fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(key: str, path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        pass
    return None


def _numpy_pool() -> dict[str, Any] | None:
    import numpy  # noqa: F401 - it loads the library that is asked about
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool.get("user_api") == "blas"]
    # SciPy brings a BLAS of its own: prefer the one that lies with NumPy.
    pools.sort(key=lambda pool: "numpy" not in (pool.get("filepath") or ""))
    return pools[0] if pools else None


def _numpy_build() -> str | None:
    import numpy

    configuration: Any = numpy.show_config(mode="dicts")
    return ((configuration or {}).get("Build Dependencies", {}).get("blas") or {}).get("name")
