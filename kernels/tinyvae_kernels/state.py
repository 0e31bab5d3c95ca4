"""The places of the small arrays that a step's kernels read and write, by the same names on every device.

A kernel learns from these arrays what changes from step to step. The CPU's kernels import the numbers below, the CUDA
kernels get them from their compiler as defines.
"""

STEP, CURSOR, BATCH = range(3)  # of `counters`, int64: the running step, the first row of the batch, its number
LEARNING_RATE, KL_WEIGHT = range(2)  # of `rates`, in the type of the data
# of `status`, float64: 1 if the step is finite, the factor that clips the gradient, its norm before, the updates made
FINITE, CLIP, NORM, UPDATES = range(4)
# of `totals`, float64, sums over the epoch: data, their two terms, what was minimised; over sound steps the gradient's
# norm and the count; skipped steps
DATA_COUNT, RECONSTRUCTION, KL, OBJECTIVE, NORMS, SOUND, SKIPPED = range(7)
