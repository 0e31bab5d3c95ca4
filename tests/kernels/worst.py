"""The worst inputs, for every kernel that has a row: what the kernel makes of them is what the readable form makes."""


import numpy as np

import tinyvae as tv
from benchmarks import cases
from tinyvae.engine.devices import CPU
from tinyvae.engine.fusion import Kernel
from tinyvae.engine.rules import TABLE
from tinyvae.engine.tensor import Tensor

SIZES = {"PIXELS": 37, "HIDDEN": 19, "LATENT": 5, "BATCH": 7, "WEIGHTS": 141}


def numbers(dtype):
    """NaN, infinities, zeros of both signs, denormals, large, small and whole negative numbers."""
    info = np.finfo(dtype)
    tiny = [info.smallest_subnormal, info.tiny, 1e-30]
    return np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, *tiny, *(-v for v in tiny), 1e-3 * info.max, -1e-3 * info.max,
                     -1.0, -2.0, -1e6, -1e9, 1e9], dtype)  # fmt: skip


def of_every_kernel():
    """The cases of the benchmarks, one an operation and label, in small sizes."""
    before = {name: getattr(cases, name) for name in SIZES}
    try:
        for name, size in SIZES.items():
            setattr(cases, name, size)
        return cases.cases()
    finally:
        for name, size in before.items():
            setattr(cases, name, size)


NEVER_NEGATIVE = {"adam": {3}, "adagrad": {2}, "bias_activation_grad": {1}}  # sums of squares, softplus
NOT_READ = {"sparse_matmul_grad": {2}}  # pixels whose places are given
SUMS = ("matmul", "sparse_matmul", "sparse_matmul_grad")  # infinity minus infinity depends on their order of addition


def spoiled(case, dtype):
    """The worst numbers in one input of the case after another, and which input it is; then in all, and None."""
    row, rng = TABLE[case.operation], np.random.default_rng(0)
    places = [i for i in range(len(case.arrays)) if row.domain_of(i).kind == "number"]
    arrays = [a.astype(dtype) if i in places else a for i, a in enumerate(case.arrays)]
    for some in [*([i] for i in places if i not in NOT_READ.get(case.operation, ())), places]:
        changed = [a.copy() for a in arrays]
        for i in some:
            shape = np.shape(arrays[i])
            changed[i] = np.asarray(rng.choice(numbers(dtype), shape), dtype).reshape(shape)
            if i in NEVER_NEGATIVE.get(case.operation, ()):
                changed[i] = np.abs(changed[i])
        yield (some[0] if len(some) == 1 else None), changed


def run(call, row, arrays, attributes):
    """The results of a call, or the inputs that it changed; the arrays are copied."""
    arrays = [a.copy() for a in arrays]
    with np.errstate(all="ignore"):
        found = call(*arrays, **attributes) if row.writes else call(*arrays, out=None, **attributes)
    if row.writes:
        return [arrays[i] for i in row.writes]
    found = found if isinstance(found, tuple) else (found,)
    return [np.asarray(y.data if isinstance(y, Tensor) else y) for y in found if y is not None]


def twin(row):
    def call(*arrays, out=None, **attributes):
        with tv.fused(False):
            if row.value is None:
                return row.twin(*map(Tensor, arrays), **attributes)
            return row.value(CPU, *arrays, **({} if row.writes else {"out": None}), **attributes)

    return call


def kernel(row, launcher):
    """The launcher as the row calls it."""
    return lambda *arrays, **attributes: Kernel(launcher, row.prepare)(CPU, *arrays, **attributes)


def check(case, dtype, launcher):
    """Of one spoiled input: NaN and infinities where the twin has them, and its numbers elsewhere. Of all: every number
    of the result is written.

    The tolerance is loose, as rounding is other tests' matter: here a limit, a pole or an overflow could be missed.
    """
    row = TABLE[case.operation]
    attributes = case.attributes | ({"dtype": np.dtype(dtype)} if "dtype" in case.attributes else {})
    for place, arrays in spoiled(case, dtype):
        what = f"{case} in {np.dtype(dtype)}, input {place} spoiled"
        found = run(kernel(row, launcher), row, arrays, attributes)
        for fill in (np.nan, 7.0) if not row.writes else ():
            out = [np.full_like(y, 1 if y.dtype.kind in "iu" else fill) for y in found]
            with np.errstate(all="ignore"):
                kernel(row, launcher)(*arrays, out=tuple(out) if len(out) > 1 else out[0], **attributes)
            assert [y.tobytes() for y in out] == [y.tobytes() for y in found], f"{what}: not all is written"
        if place is not None:
            for y, expected in zip(found, run(twin(row), row, arrays, attributes), strict=False):
                assert y.shape == expected.shape, what
                compare(y, expected, case.operation not in SUMS, what)


def compare(found, expected, exactly, what, tolerance=1e-2, smallest=1e-29):
    if expected.dtype.kind != "f":
        assert np.array_equal(found, expected), what
        return
    tests = (np.isnan, np.isposinf, np.isneginf) if exactly else (np.isfinite,)
    for test in tests:
        wrong = np.argwhere(test(found) != test(expected))
        assert not len(wrong), f"{what}: {found[tuple(wrong[0])]}, and by the twin {expected[tuple(wrong[0])]}"
    finite = np.isfinite(expected)
    found, expected = (y[finite].astype(np.float64) / 2 for y in (found, expected))  # their difference is finite
    error = np.abs(found - expected)
    wrong = ~(error <= tolerance * np.abs(expected) + smallest)
    assert not wrong.any(), f"{what}: {2 * found[wrong][0]}, and by the twin {2 * expected[wrong][0]}"
