"""How long things take, and on what: the one clock of all benchmarks, and the machine it stood on.

A machine that others use, too, drifts: candidates timed one after the other are timed on different machines.
`measure` therefore alternates them round by round and keeps every round, so that two candidates can be
compared within the rounds; it reports the median and the quartiles, never the best. `environment` and `blas`
say what a figure was measured with: a matrix product can differ twofold with the kernel that the BLAS chose.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Timing:
    """What one candidate took: `seconds` a call, one number a round, each a mean over `calls` calls."""

    name: str
    seconds: tuple[float, ...]
    calls: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The seconds below which a quarter and three quarters of the rounds lie."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return lower, upper

    def times_faster_than(self, other: Timing) -> float:
        """By what factor this is faster than `other`: the median over the rounds they ran side by side."""
        if len(self.seconds) != len(other.seconds):
            raise ValueError(f"{len(self.seconds)} and {len(other.seconds)} rounds; compare within one")
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file; every number in seconds a call."""
        lower, upper = self.quartiles
        return {"name": self.name, "median_s": self.median, "lower_quartile_s": lower,
                "upper_quartile_s": upper, "rounds": len(self.seconds), "calls": self.calls}  # fmt: skip

    def __str__(self) -> str:
        lower, upper = self.quartiles
        return f"{self.name}: {readable(self.median)} ({readable(lower)} to {readable(upper)})"


def measure(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int = 15,
    calls: int | Mapping[str, int] | None = None,
    least: float = 2e-3,
    synchronize: Callable[[], Any] | None = None,
    pause: float = 0.0,
) -> dict[str, Timing]:
    """Time `functions` in alternation; what they return is dropped.

    Parameters
    ----------
    functions : the candidates by name, each a call without arguments.
    rounds : how often each is timed. A round runs all of them, and each begins with another one.
    calls : how many calls make one round of a candidate, for all or by name; by default as many as take
        `least` seconds. Each is called once before the first round, so that compilation is not counted.
    synchronize : waits until a device has finished; called before the clock is read.
    pause : seconds of rest before each candidate's turn. A BLAS lets its helper threads spin for some 26 ms after a
        product, and they would take the next candidate's cores; 0.05 is enough for them to go to sleep.
    """
    if not functions or rounds < 1:
        raise ValueError(f"{len(functions)} functions, {rounds} rounds; give at least one of each")
    wait = synchronize or _nothing
    for function in functions.values():
        function()
    wait()
    if calls is None:
        counts = {name: _enough(function, wait, least) for name, function in functions.items()}
    else:
        counts = {name: calls if isinstance(calls, int) else calls[name] for name in functions}
    if min(counts.values()) < 1:
        raise ValueError(f"calls are {counts}; expected at least 1")
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()  # a collection would be charged to whoever happens to run
    try:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                time.sleep(pause)
                seconds[name].append(_run(functions[name], counts[name], wait) / counts[name])
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(name, tuple(seconds[name]), counts[name]) for name in names}


def _nothing() -> None:
    pass


def _run(function: Callable[[], Any], calls: int, wait: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    wait()
    return time.perf_counter() - begin


def _enough(function: Callable[[], Any], wait: Callable[[], Any], least: float) -> int:
    """How many calls take `least` seconds, found by doubling."""
    calls = 1
    while (took := _run(function, calls, wait)) < least and calls < 2**20:
        calls = max(2 * calls, int(calls * least / max(took, 1e-9)) // 2)
    return calls


@dataclass
class Stopwatch:
    """`with Stopwatch() as watch: ...` leaves the block's seconds in `watch.seconds`, also after an error."""

    seconds: float = 0.0
    _begin: float = field(default=0.0, repr=False)

    def __enter__(self) -> Stopwatch:
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin


def readable(seconds: float) -> str:
    """A duration in three digits and a fitting unit: 1.38 ms, 96.0 us, 12.1 s."""
    if seconds == 0 or abs(seconds) >= 999.5:
        return f"{seconds:.0f} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= 0.9995 * size:
            return f"{seconds / size:#.3g} {unit}".replace(". ", " ")
    return f"{seconds / 1e-9:#.3g} ns".replace(". ", " ")


# ---- the machine -------------------------------------------------------------------------------------------


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
