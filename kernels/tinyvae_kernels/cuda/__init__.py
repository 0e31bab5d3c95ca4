"""The kernels for CuPy arrays, in CUDA C: a file of launchers beside each .cu, all in `kernels_for("cuda")`.

The calls are those of the CPU: arrays are C-contiguous and of one floating type, a launcher allocates its results when
`out` is None and otherwise writes into `out`, and `bind` gives the same jobs as a call without arguments. Whole
numbers, counters and sums live on the device like everything else, so a bound step moves nothing between host and
device.
"""
