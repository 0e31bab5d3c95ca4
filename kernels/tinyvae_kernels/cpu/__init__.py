"""The kernels for NumPy arrays, in Numba. `tinyvae_kernels.kernels_for("cpu")` has their launchers.

Arrays are C-contiguous (the factors of a product may be transposed) and of one floating type, float32 or float64; a
launcher refuses others. A launcher allocates its results when `out` is None and otherwise writes into `out`. No
kernel's bits depend on the number of threads.
"""

try:
    from numba import config
except ImportError:  # where Numba is missing, the import of this package says so
    raise
except Exception as fault:  # whatever an environment variable of Numba's leads to
    raise ImportError(f"Numba does not start: {fault}") from None

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set, so Numba compiles nothing")
