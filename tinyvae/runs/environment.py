"""The environment of a run or a figure: the processor, the packages, and the BLAS that multiplies NumPy's matrices.

The kernel that the BLAS chooses can change the time of a product twofold, and it changes the last bits.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

# Environment variables that change the speed or the bits of a computation; none of them identifies the machine.
VARIABLES = (
    "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "MKL_ENABLE_INSTRUCTIONS", "BLIS_NUM_THREADS", "BLIS_ARCH_TYPE", "VECLIB_MAXIMUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES", "NUMBA_NUM_THREADS", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES",
    "NUMBA_DISABLE_JIT", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
KERNEL_VARIABLES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_DISABLE_JIT")
PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "cupy", "cupy-cuda12x", "cupy-cuda13x")
# The generations of OpenBLAS kernels on x86: the instruction sets that they need, and the names of the kernels.
GENERATIONS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    ("SkylakeX", frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}),
     frozenset({"skylakex", "cooperlake", "sapphirerapids"})),
    ("Haswell", frozenset({"avx2", "fma"}), frozenset({"haswell", "zen", "excavator"})),
    ("Sandybridge", frozenset({"avx"}), frozenset({"sandybridge", "bulldozer", "piledriver", "steamroller"})),
)  # fmt: skip


def environment() -> dict[str, Any]:
    """The environment for a JSON file, without the name of the machine or its owner."""
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

    The keys are `library`; `version`; `kernel`, the processor generation of its code; `threads`; `pinned_by`, the
    environment variable that chose the kernel, if one did; and `newer_kernel`, a newer kernel that this processor can
    run. Unknown values are None.
    """
    found: dict[str, Any] = dict.fromkeys(
        ("library", "version", "kernel", "threads", "pinned_by", "newer_kernel")
    )
    pool = _numpy_pool()
    if pool is None:  # Accelerate, for example, tells only its name
        found["library"] = _numpy_build()
        return found
    found["library"], found["version"] = pool["internal_api"], pool.get("version")
    found["kernel"], found["threads"] = pool.get("architecture"), pool.get("num_threads")
    if found["library"] == "openblas":
        if "OPENBLAS_CORETYPE" in os.environ:
            found["pinned_by"] = f"OPENBLAS_CORETYPE={os.environ['OPENBLAS_CORETYPE']}"
        found["newer_kernel"] = newer_kernel(found["kernel"], cpu_flags())
    return found


def differing(before: dict[str, Any], shared: bool = False) -> str:
    """The differences from an earlier `environment()` that change bits, in words; "" if there are none.

    They are those of the BLAS, and of the variables for which Numba compiles other instructions.

    The products that the BLAS computes (where this package has no kernel) have the same bits only with the same kernel
    and number of threads. Another BLAS kernel also indicates another processor, on which the kernels of this package
    may use shorter vectors. Of a training in shards, which is `shared` out among processes that share the processors,
    the number of threads is no difference.
    """
    then, now = before.get("blas") or {}, blas()
    keys = ("library", "version", "kernel", *(() if shared else ("threads",)))
    found = [f"{key} {then[key]} then, {now.get(key)} now" for key in keys if key in then and then[key] != now.get(key)]
    variables = before.get("variables")
    if not isinstance(variables, dict):
        return "; ".join(found)
    for name in KERNEL_VARIABLES:
        if variables.get(name) != os.environ.get(name):
            found.append(f"{name}={variables.get(name, '')} then, {name}={os.environ.get(name, '')} now")
    return "; ".join(found)


def newer_kernel(kernel: str | None, flags: frozenset[str] | None) -> str | None:
    """The generation of OpenBLAS kernels that a processor with these flags can run, if `kernel` is older than that."""
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
    """The processor's name, or its architecture if the name is unknown."""
    return _cpuinfo("model name", "/proc/cpuinfo") or platform.processor() or platform.machine()


def usable_cores() -> int:
    """The number of cores that this process may use, which can be fewer than the machine has."""
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
    import numpy  # noqa: F401 - the import loads the BLAS that threadpoolctl finds
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool.get("user_api") == "blas"]
    # SciPy comes with its own BLAS; the first entry is that of NumPy.
    pools.sort(key=lambda pool: "numpy" not in (pool.get("filepath") or ""))
    return pools[0] if pools else None


def _numpy_build() -> str | None:
    import numpy

    configuration: Any = numpy.show_config(mode="dicts")
    return ((configuration or {}).get("Build Dependencies", {}).get("blas") or {}).get("name")
