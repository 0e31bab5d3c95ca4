"""The host that runs CUDA kernels without a GPU notices what a GPU would do wrongly and silently."""

import numpy as np
import pytest
from cuda_on_cpu import host
from cuda_on_cpu.host import HERE, SCHEDULES, Driver, KernelError

pytestmark = pytest.mark.skipif(host.compiler() is None,
                                reason=host.NO_COMPILER)


@pytest.fixture(scope="module")
def bad():
    return Driver().module((HERE / "bad.cu").read_text())


def run(module, name, arrays, threads=64, numbers=(), schedule=0):
    module.driver.schedule = schedule
    module.get_function(name)((1,), (threads,), (*arrays, *numbers))


def x():
    return np.arange(64, dtype=np.float32) + 1


@pytest.mark.parametrize(("name", "count"), [("missing_barrier", 64), ("missing_second_barrier", 192)])
def test_a_missing_barrier_changes_the_result(bad, name, count):
    """Each order of the threads gives its own; with the barrier they would agree."""
    results = set()
    for schedule in SCHEDULES:
        out = np.zeros(64, np.float32)
        numbers = (np.int32(3),) if count > 64 else ()
        run(bad, name, (np.arange(count, dtype=np.float32), out), numbers=numbers, schedule=schedule)
        results.add(out.tobytes())
    assert len(results) > 1


def test_a_barrier_that_cannot_be_met_is_reported(bad):
    with pytest.raises(KernelError, match=r"deadlock: of 64 threads 2 wait at __syncthreads, 62 at a warp collective"):
        run(bad, "divergent_barrier", (np.zeros(64, np.float32),))


@pytest.mark.parametrize(("name", "numbers"), [("early_return", (np.int32(20),)), ("shuffle_in_branch", ())])
def test_lanes_that_are_not_there_give_nan(bad, name, numbers):
    """One has left, or takes the other branch."""
    out = np.zeros(32, np.float32)
    run(bad, name, (x(), out), threads=32, numbers=numbers)
    assert np.isnan(out[:20]).any()


def test_shared_memory_begins_as_nan(bad):
    out = np.zeros(32, np.float32)
    run(bad, "uninitialised_shared", (out,), threads=32)
    assert np.isnan(out).all()


@pytest.mark.parametrize(("name", "message"), [
    ("out_of_bounds", "outside its arrays|out of bounds"), ("reads_beyond", "outside its arrays"),
    ("writes_const", "const and was written")])  # fmt: skip
def test_memory_is_guarded(bad, name, message):
    out = np.zeros(40, np.float32)
    with pytest.raises(KernelError, match=message):
        run(bad, name, (x()[:40].copy(), out), threads=64 if name == "out_of_bounds" else 40, numbers=(np.int32(40),))
    out = np.zeros(64, np.float32)  # and the next launch runs
    run(bad, "right", (x(), out), numbers=(np.int32(64),))
    assert np.array_equal(out, 2 * x())


@pytest.mark.parametrize(("arguments", "message"), [
    ((np.zeros(4, np.float64), np.zeros(4, np.float32), np.int32(4)), "array of float64"),
    ((np.zeros(8, np.float32)[::2], np.zeros(4, np.float32), np.int32(4)), "C-contiguous"),
    ((np.zeros(4, np.float32), np.zeros(4, np.float32), 4), "a NumPy number of type int32"),
    ((np.zeros(4, np.float32), np.zeros(4, np.float32), np.int64(4)), "a NumPy number of type int32"),
    ((np.zeros(4, np.float32), np.zeros(4, np.float32)), "2 arguments for 3 parameters")])  # fmt: skip
def test_arguments_are_checked(bad, arguments, message):
    """The driver of a GPU checks none of these."""
    with pytest.raises(TypeError, match=message):
        bad.get_function("right")((1,), (4,), arguments)


def test_without_a_compiler_the_extra_is_named(monkeypatch, tmp_path):
    """In a sentence, both where tests are skipped and where they are not."""
    monkeypatch.setattr(host, "compiler", lambda: None)
    with pytest.raises(KernelError, match=r"found no C.. compiler: install g") as caught:
        Driver(folder=tmp_path).module('extern "C" __global__ void f(float* x) {}')
    assert ".[compiler]" in str(caught.value)


def test_a_source_that_does_not_compile_says_why():
    with pytest.raises(KernelError, match="nonsense"):
        Driver().module('extern "C" __global__ void f(float* x) { nonsense; }')
