"""The rungs of the GPU on the host: each kernel beside the present form and its twin, each whole step beside the
present one. `python -m benchmarks card` holds them against each other on a card."""

import numpy as np
import pytest
from cuda_on_cpu import card, host
from support import DTYPES, assert_same_bits
from tinyvae_kernels.cuda.runtime import driver as drivers
from tinyvae_kernels.cuda.runtime import jobs

from tests.kernels.cuda import test_compile
from tests.kernels.cuda.test_step import losses
from tinyvae.engine import fusion
from tinyvae.engine.devices import namespace, to_host

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import rungs
from benchmarks.cases import cases, large
from benchmarks.gpu_kernels import LARGE_BOUNDS
from benchmarks.kernels import BOUNDS, KERNEL, TYPES, exact, record, replayed, units

pytestmark = pytest.mark.skipif(host.compiler() is None and not card.ON_A_CARD, reason=host.NO_COMPILER)
EVERY = rungs.every()
# every kernel that a rung replaces, at the size of a small step and at another that is no multiple of anything
CASES = [(name, launcher.__name__, number) for name, rung in EVERY.items() for launcher in rung.launchers
         for number, case in enumerate([*cases(), *large(6007)]) if case.operation == launcher.__name__]
STEPS = [("dynamic", {}), ("static", {"activation": "tanh", "samples": 2}),
         ("gray", {"likelihood": "gaussian", "activation": "softplus", "clip": 1.0})]  # fmt: skip
# The registers that a thread of these rungs may take: more than let four blocks share a multiprocessor. A product keeps
# the sums of a tile and the numbers that come next in registers, and its launcher wants 16 warps there, not 32.
REGISTERS = {"small_products": 2 * test_compile.REGISTERS}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "operation", "number"), CASES)
def test_a_kernel_of_a_rung(driver, name, operation, number, dtype):
    """Recorded and replayed: the bits of the present form where the rung promises them, and near the twin."""
    case = [*cases(), *large(6007)][number]
    xp, dtype = namespace("cuda"), np.dtype(dtype)

    def found():
        return list(map(to_host, replayed(case, record(case, KERNEL, dtype, xp))))

    present = found()
    with rungs.climbed(name):
        ours = found()
    # (the twin is in float64, so next to a kernel in float64 its own errors count)
    bounds = BOUNDS if number < len(cases()) and dtype == np.float32 else LARGE_BOUNDS
    for y, same, twin in zip(ours, present, exact(case), strict=True):
        if EVERY[name].same_bits:
            assert_same_bits(y, same, f"{name}: {case}")
        assert units(y, twin).max() <= bounds[operation]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("pixels", "options"), STEPS)
@pytest.mark.parametrize("names", [*((name,) for name in EVERY), tuple(EVERY)], ids="+".join)
def test_a_step_with_rungs(driver, names, pixels, options, dtype):
    """Recorded, compared and replayed, with a shorter last batch; with each rung, and with all of them."""
    present, parameters = losses("cuda", dtype, 6, pixels, **options)
    with rungs.climbed(*names):
        ours, learnt = losses("cuda", dtype, 6, pixels, **options)
    if all(EVERY[name].same_bits for name in names):
        assert_same_bits(ours, present, names)
        assert_same_bits(learnt, parameters, names)
    relative = 1e-5 if dtype == np.float32 else 1e-12
    assert np.abs(ours / present - 1).max() <= relative
    assert np.abs(learnt - parameters).max() <= 10 * relative


def test_a_rung_ends_with_its_block(driver):
    kernels = fusion.load("cuda")
    before, merges, driver_before = dict(vars(kernels)), dict(jobs.MERGES), drivers.current
    with rungs.climbed(*EVERY):
        assert vars(kernels) != before or not CASES
    assert vars(kernels) == before
    assert merges == jobs.MERGES
    assert drivers.current is driver_before
    with pytest.raises(ValueError, match="found 'ladder'; there are kernels for"), rungs.climbed("ladder"):
        pass


@pytest.mark.skipif(test_compile.nvrtc() is None, reason="NVRTC is missing: pip install '.[nvrtc]'")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("file", rungs.SOURCES, ids=lambda file: file.rpartition("/")[2])
def test_nvrtc_takes_every_rung(file, dtype):
    """For one generation of cards; a rung that wins is compiled for the others with the form that is used."""
    registers = REGISTERS.get(file.rpartition("/")[2], test_compile.REGISTERS)
    test_compile.check(drivers.source(file), "sm_90", *drivers.options(dtype), registers=registers)
