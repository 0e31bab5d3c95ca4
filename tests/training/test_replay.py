"""What a replayed step takes and leaves: no memory, and the same bits in a process with another number of threads."""

import gc
import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support import run_python

import tinyvae as tv
from tinyvae.data import DataSet
from tinyvae.engine import fusion
from tinyvae.engine.devices import CPU
from tinyvae.engine.rules import TABLE
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)

TESTS = str(Path(__file__).resolve().parents[1])

# ---- a training of any size ----------------------------------------------------------

SIZES = {"small": (64, 32, 20), "large": (784, 200, 100)}  # pixels, hidden units, batch
STEPS = 70  # of an epoch


def made(size, likelihood="bernoulli", **settings):
    """A training at its first epoch's beginning; an array of a step is 2.5 kB or more, or 80 kB or more."""
    pixels, hidden, batch = SIZES[size]
    stored = np.random.default_rng(0).integers(0, 256, (STEPS * batch, pixels)).astype(np.uint8)
    kind = "dynamic" if likelihood == "bernoulli" else "gray"
    data = DataSet(f"made-{kind}", stored, stored[:10], (1, pixels), 255.0, kind, likelihood)
    model = tv.VAE(pixels, hidden=hidden, latent=8, likelihood=likelihood)
    training = Training(model, data, Settings(batch=batch, **settings))
    training.begin_epoch()
    return training


def warmed(training, steps=10):
    """After the step that is recorded and those that are compared, and whatever Python keeps of them."""
    for _ in range(steps):
        training.step()
    gc.collect()
    return training


# ---- memory --------------------------------------------------------------------------

ALLOWED = 2000  # bytes at a time, for Python's own numbers and tuples: less than any array of a step


def check_allocations(training):
    """The most that 50 replayed steps hold at a time beyond what there was before."""
    warmed(training)
    tracemalloc.start()
    try:
        training.step()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            training.step()
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    print(f"{most} bytes, allowed {ALLOWED}")
    assert most <= ALLOWED, f"a replayed step takes {most} bytes, allowed {ALLOWED}"


VARIANTS = {
    "adam": {}, "adagrad": {"optimizer": "adagrad", "weight_prior": True, "warmup": 2.0},
    "sgd, clipped": {"optimizer": "sgd", "clip": 1.0, "lr": 1e-4, "schedule": "cosine"},
    "gaussian": {"likelihood": "gaussian"},
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_replayed_step_allocates_nothing(size, name):
    check_allocations(made(size, **VARIANTS[name]))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_replayed_step_is_one_program(name):
    """All launches are kernels, joined into one native call: nothing of NumPy's runs in between."""
    training = warmed(made("small", **VARIANTS[name]), 3)
    tape, = training.step_now().program.tapes.values()
    strays = [str(launch) for launch in tape.working() if not isinstance(launch.call, fusion.Kernel)]
    assert not strays
    tape.replay()
    assert len(tape.calls) == 1
    assert len(tape.calls[0].jobs) >= len(tape.working())


def test_the_check_sees_what_is_allocated(monkeypatch):
    """The readable twins, which make arrays on their way; a kernel that ignores `out` and is copied from."""
    with tv.fused(False), pytest.raises(AssertionError, match="a replayed step takes"):
        check_allocations(made("small"))
    right = fusion.kernel_of(TABLE["bias_grad"], CPU)

    def wasteful(xp, g, out=None):
        found = right(xp, g, out=None)
        return found if out is None else np.copyto(out, found) or out

    monkeypatch.setitem(TABLE["bias_grad"].kernels, "cpu", wasteful)
    with pytest.raises(AssertionError, match="a replayed step takes"):
        check_allocations(made("large"))


def check_objects(training):
    """Less than one Python object is left by two steps: a helper that falls asleep meanwhile has a few of its own."""
    warmed(training, 20)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        training.step()
    gc.collect()
    after = len(gc.get_objects())
    assert after - before < 25, f"{after - before} more objects after 50 steps"


@pytest.mark.parametrize("name", VARIANTS)
def test_no_objects_are_left_behind(name):
    check_objects(made("small", **VARIANTS[name]))


def test_the_check_sees_objects_that_are_kept():
    training = made("small")
    step, kept = training.step, []
    training.step = lambda: (step(), kept.append([]))
    with pytest.raises(AssertionError, match="more objects after 50 steps"):
        check_objects(training)


RESIDENT = """
import gc, sys
sys.path.insert(0, {tests!r})
import tests.training.test_replay as test_replay

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def steps(count):
    for _ in range(count):
        training.step()
        if training.counters[2] == training.batches.steps:
            training.counters[1:] = 0

training = test_replay.made("small")
steps(500)
before = resident()
steps(4000)
print((resident() - before) // 1024)
step, kept = training.step, []
training.step = lambda: (step(), kept.append(bytes(1000)))
before = resident()
steps(1500)
print((resident() - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="optional: resident memory is read from /proc")
def test_resident_memory_does_not_grow():
    """By less than 1 MB over 4 000 steps: also what neither Python nor NumPy counts. A kilobyte a step is seen."""
    done = run_python(RESIDENT.format(tests=TESTS))
    assert done.returncode == 0, done.stderr
    grown, kept = map(int, done.stdout.split())
    print(f"grown by {grown} kB, in 1 500 steps with a kilobyte each by {kept} kB")
    assert grown < 1024
    assert kept >= 1024


# ---- bits ----------------------------------------------------------------------------

RUN = """
import json, sys, warnings
sys.path.insert(0, {tests!r})
import numpy as np, tinyvae as tv
import tests.training.test_replay as test_replay
from tinyvae_kernels.cpu.runtime.team import team

test_replay.STEPS = 20  # 2000 rows: three batches and a smaller one
data = test_replay.made("large").data
{begin}
print(json.dumps([records[-1]["fingerprint"], records[-1]["step"], team.count]))
"""
FIT = ("model = tv.VAE(784, hidden=200, latent=8)\n"
       "records = tv.fit(model, data, out={out!r}, epochs={epochs}, batch=600, seed=3, warmup=2.0)")  # fmt: skip
RESUME = "records = tv.resume({out!r}, data=data, epochs={epochs})"


def run(begin, out, epochs, threads):
    """The fingerprint of the parameters after a run, and the number of steps."""
    begin = begin.format(out=str(out), epochs=epochs)
    done = run_python(RUN.format(tests=TESTS, begin=begin, out=str(out)), NUMBA_NUM_THREADS=str(threads),
                      OPENBLAS_NUM_THREADS="2")  # unlike other tests, see conftest.py
    assert done.returncode == 0, done.stderr
    fingerprint, steps, count = json.loads(done.stdout)
    assert count == threads
    return fingerprint, steps


def test_a_run_resumed_under_other_threads_has_the_same_bits(tmp_path):
    """Begun by one thread and ended by two: the bits of a run by four that was never interrupted."""
    whole = run(FIT, tmp_path / "whole", 3, 4)
    half = run(FIT, tmp_path / "parts", 1, 1)
    assert half[0] != whole[0]
    assert run(RESUME, tmp_path / "parts", 3, 2) == whole


def test_small_models_are_replayed_as_they_were_run():
    """Arrays of some hundred bytes lie close together, now here and now there: no sum may depend on that.

    Training compares its first replays with steps run anew, to the bit, and stops if they differ.
    """
    for seed in range(20):
        rng = np.random.default_rng(seed)
        litter = [np.empty(size) for size in rng.integers(1, 60, 20)]  # noqa: F841 - other places for what comes
        x = rng.integers(0, 17, (7, 20)).astype(np.uint8)
        data = DataSet("made-dynamic", x, x, (4, 5), 16.0, "dynamic", "bernoulli")
        assert len(tv.fit(tv.VAE(20, hidden=5, latent=2), data, epochs=2, batch=2, seed=seed)) == 2
