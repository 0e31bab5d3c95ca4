"""The rung of fewer launches: each merge beside the jobs that it stands for, one by one, and what does not go together.
test_rungs.py has whole steps with it."""

from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import card, host
from support import DTYPES, assert_same_bits
from tinyvae_kernels import kernels_for
from tinyvae_kernels.cuda.runtime import jobs
from tinyvae_kernels.cuda.runtime.arguments import same

import tinyvae as tv
from tests.kernels.cuda.test_step import made_up
from tinyvae.engine.devices import namespace, to_host
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import rungs
from benchmarks.rungs import launches, update

CUDA = kernels_for("cuda")
pytestmark = pytest.mark.skipif(host.compiler() is None and not card.ON_A_CARD, reason=host.NO_COMPILER)
on_the_host = pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only: the stand-in and its mutants")
SIZES = (1, 33)  # rows
LONG = 300  # rows, of which several blocks make the sums of the columns


# ---- whole steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pixels", "climbed", "before", "after"), [
    ("dynamic", ("launches",), 30, 22), ("static", ("launches",), 30, 22), ("dynamic", ("update", "launches"), 30, 22),
    ("dynamic", ("update", "launches", "small_products"), 30, 20)])  # fmt: skip
def test_a_step_has_fewer_launches(driver, pixels, climbed, before, after):
    def launched(*names):
        ready = Training(tv.VAE(36, 17, 5, device="cuda"), made_up(pixels), Settings(batch=25))
        ready.begin_epoch()
        with rungs.climbed(*names):
            ready.step()
            tape = ready.step_now().program.tape(25)
            tape.replay()
        return sum(len(call.jobs) for call in tape.calls)

    assert (launched(), launched(*climbed)) == (before, after)


# ---- each merge: the programs that it makes one, and all that they write ---------------------------------------------


class Arrays:
    """Arrays on the device, the same for the same seed."""

    def __init__(self, dtype):
        self.xp, self.dtype, self.draw = namespace("cuda"), np.dtype(dtype), np.random.default_rng(0)

    def drawn(self, *shape, dtype=None):
        return self.xp.asarray(self.draw.normal(size=shape).astype(dtype or self.dtype))

    def empty(self, *shape):
        return self.xp.asarray(np.full(shape, np.nan, self.dtype))

    def whole(self, *numbers):
        return self.xp.asarray(np.array(numbers, np.int64))


def batch(gather, stored, count=301, width=7):
    def make(arrays, size):
        counters, index, out = arrays.whole(9, 290, 1), arrays.whole(*[-1] * size), arrays.empty(size, width)
        order = arrays.whole(*arrays.draw.permutation(count))
        grey = arrays.xp.asarray((255 * arrays.draw.random((count, width))).astype(stored))
        rows = (CUDA.grey_rows.bind(grey, index, out, scale=255.0) if gather == "grey" else
                CUDA.binarised_rows.bind(grey, index, counters, out, seed=3, stream=4, site=5, scale=255.0))
        rates = arrays.empty(2)
        return [CUDA.next_rates.bind(arrays.drawn(4, 2), counters, rates),
                CUDA.next_indices.bind(order, counters, index, batch=size), rows], [rates, index, out]

    return make


def identity(arrays, *shape):
    out = arrays.empty(*shape)
    return CUDA.bias_activation.bind(arrays.drawn(*shape), arrays.drawn(shape[-1]), out, kind="identity"), out


def sample(arrays, size, samples=2, latent=37):
    layer, raw = identity(arrays, size, 2 * latent)
    eps, z, kl = arrays.empty(samples, size, latent), arrays.empty(samples, size, latent), arrays.empty(size)
    noise = CUDA.normal.bind(arrays.whole(5, 0, 0), eps, seed=7, stream=8, site=9)
    return [layer, noise, CUDA.gaussian_sample_kl.bind(raw, eps, (z, kl))], [raw, eps, z, kl]


def likelihood(name, samples, width=36):
    def make(arrays, size):
        each = 2 if name == "gaussian" else 1
        layer, output = identity(arrays, samples, size, each * width)
        sums, residual = arrays.empty(samples, size), arrays.empty(samples, size, each * width)
        pixels = arrays.xp.asarray(arrays.draw.integers(0, 2, (size, width)).astype(arrays.dtype))
        program = getattr(CUDA, f"{name}_log_prob").bind(output, pixels, (sums, residual))
        if samples > 1:  # as many rows have a warp each
            program = jobs.Program([program.jobs[0]._replace(grid=(-(-samples * size // 8),), block=(32, 8))])
        return [layer, program], [output, sums, residual]

    return make


def objective(name, width=35, bias=True):
    def make(arrays, size):
        programs, results = likelihood(name, 1, width)(arrays, size)
        kl, rates, g, loss, by_reconstruction, by_kl = (arrays.drawn(size), arrays.drawn(2), arrays.drawn(),
                                                        arrays.empty(), arrays.empty(size), arrays.empty(size))
        reconstruction = results[1].reshape((size,))
        programs += [CUDA.objective.bind(reconstruction, kl, rates, loss),
                     CUDA.objective_grad.bind(g, kl, rates, (by_reconstruction, by_kl))]
        if not bias:
            programs.pop(0)()
        return programs, [*results, loss, by_reconstruction, by_kl]

    return make


def scaled(width):
    def make(arrays, size):
        out, sums = arrays.empty(size, width), arrays.empty(width)
        return [CUDA.scale_rows.bind(arrays.drawn(size), arrays.drawn(size, width), out),
                CUDA.bias_grad.bind(out, sums)], [out, sums]

    return make


def sample_grad(arrays, size, samples=2, latent=37):
    out, sums = arrays.empty(size, 2 * latent), arrays.empty(2 * latent)
    dz, dkl, raw, eps = (arrays.drawn(samples, size, latent), arrays.drawn(size), arrays.drawn(size, 2 * latent),
                         arrays.drawn(samples, size, latent))
    return [CUDA.gaussian_sample_kl_grad.bind(dz, dkl, raw, eps, out), CUDA.bias_grad.bind(out, sums)], [out, sums]


def guarded(arrays, size):
    """A guard over `size` chunks of squares, the last a part."""
    g, loss, status = arrays.drawn(4096 * size - 5), arrays.drawn(), arrays.drawn(4, dtype=np.float64)
    return [CUDA.guard.bind(loss, g, status, max_norm=1.0)], [status]


def guarded_and_scaled(arrays, size):
    programs, (status,) = guarded(arrays, size)
    scales, _ = update_of(update.adam, arrays, 3, status)
    return [*programs, scales], [status, scales.jobs[0].arguments[2]]


def update_of(adam, arrays, count, status):
    """One program for each job of an update, of which Adam's is the last."""
    vectors = [arrays.xp.abs(arrays.drawn(count)) for _ in range(4)]
    bound = adam.bind(*vectors, arrays.drawn(2), status, beta1=0.9, beta2=0.99, epsilon=1e-8)
    return [jobs.Program([job]) for job in bound.jobs]


def ended(adam):
    def make(arrays, size):
        sound = float(size > 1)  # one row stands for a step that is not finite
        status, totals = arrays.xp.asarray(np.array([sound, 0.7, 2.5, 4.0])), arrays.xp.asarray(np.arange(7.0))
        *scales, updated = update_of(adam, arrays, 11 * size, status)
        for program in scales:  # which goes together with the guard
            program()
        counters, terms = arrays.whole(9, 3, 1), (arrays.drawn(size), arrays.drawn(size), arrays.drawn())
        theta, _, *moments = updated.jobs[0].arguments[:4]
        return [updated, CUDA.accumulate.bind(*terms, totals, status), CUDA.tick.bind(counters, batch=size)], [
            theta, *moments, totals, counters]  # fmt: skip

    return make


MERGED = {
    "next_grey_bytes": batch("grey", np.uint8), "next_grey_floats": batch("grey", np.float32),
    "next_binarise_bytes": batch("binarise", np.uint8), "next_binarise_floats": batch("binarise", np.float32),
    "biased_sample_kl": sample,
    "biased_bernoulli": likelihood("bernoulli", 3), "biased_gaussian": likelihood("gaussian", 1),
    "bernoulli_objective": objective("bernoulli", bias=False), "gaussian_objective": objective("gaussian", bias=False),
    "biased_bernoulli_objective": objective("bernoulli"), "biased_gaussian_objective": objective("gaussian"),
    "scale_rows_and_sums": scaled(260), "sample_kl_grad_and_sums": sample_grad,
    "squares_and_verdict": guarded, "squares_verdict_and_scales": guarded_and_scaled,
    "adam_and_end": ended(CUDA.adam), "adam_scaled_and_end": ended(update.adam),
}  # fmt: skip


def listed(name, dtype, size):
    """The jobs of a case one by one, and what they write."""
    programs, results = MERGED[name](Arrays(dtype), size)
    return [job for program in programs for job in program.jobs], results


def together(several):
    with rungs.climbed("update", "launches"):
        return jobs.together(several)


def check(driver, name, dtype, sizes=SIZES, schedules=host.SCHEDULES):
    """In every order of the threads, with the first block first and with the last."""
    for driver.schedule in schedules:
        for size in sizes:
            check_one(name, dtype, size)


def check_one(name, dtype, size):
    """Two runs of the launches one by one, and two of the one launch: the same bits after each."""
    found = []
    for merge in (False, True):
        todo, results = listed(name, dtype, size)
        if merge:
            todo = together(todo)
            assert [job.kernel for job in todo] == [name, *["column_sums"] * (size == LONG)]
        for _ in range(2):
            for job in todo:
                job.bind()()
            found += [to_host(result) for result in results]
    half = len(found) // 2
    for one, two in zip(found[:half], found[half:], strict=True):
        assert_same_bits(two, one, f"{name}, {size} rows")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MERGED)
def test_one_launch_leaves_the_same_bits(driver, name, dtype):
    check(driver, name, dtype, (*SIZES, LONG) if name.endswith("and_sums") else SIZES)


def test_every_kernel_of_the_rung_is_tested():
    assert set(MERGED) == set(host.KERNEL.findall(Path(f"{launches.FILE}.cu").read_text()))


HEAD = "Neighbours of a training step"  # how the rung's source begins
# In each kernel a fault of its own, and in functions that several share.
FAULTS = [
    ("next_grey_bytes", "batches, rates);", "batches, rates - 1);"),
    ("next_grey_floats", "Next(order,", "Next(order + 1,"),
    ("next_binarise_bytes", "counters[STEP]", "counters[BATCH]"),
    ("biased_sample_kl", "__syncwarp();", ""),
    ("biased_bernoulli", "(pre, bias, logits, x", "(pre, pre, logits, x"),
    ("biased_bernoulli_objective", "arrives_last(ticket)", "blockIdx.x == gridDim.x - 1"),
    ("biased_gaussian_objective", "by_kl, rows);", "by_kl, rows - 1);"),
    ("bernoulli_objective", "value(sums, kl,", "value(kl, sums,"),
    ("scale_rows_and_sums", "LANES>{g, a, width / LANES}", "LANES>{g, a, width}"),
    ("sample_kl_grad_and_sums", "{dz, dkl, raw, eps, samples", "{dz, dkl, raw, dz, samples"),
    ("squares_and_verdict", "status, most, ticket);", "status, most + 1, ticket);"),
    ("squares_verdict_and_scales", "log(beta2)", "log(beta1)"),
    ("adam_and_end", "if (blockIdx.x == 0)", "if (blockIdx.x == 1)"),
    ("adam_scaled_and_end", "scales[0], scales[1]", "scales[0], scales[0]"),
]
SHARED_FAULTS = [
    ("biased_gaussian", "  __syncthreads();\n  log_prob<Law>", "  log_prob<Law>"),
    ("next_binarise_floats", "order[(start + row) % count]", "order[start + row]"),
    ("scale_rows_and_sums", "for (int k = 1; k < 8; k++) {", "for (int k = 7; k > 0; k--) {"),
    ("squares_and_verdict", "atomicInc(ticket, gridDim.x - 1)", "atomicAdd(ticket, 1)"),
]


def faulty(text, shared):
    """The source with all faults of one kind, so that it is compiled once."""
    for kernel, old, new in SHARED_FAULTS if shared else FAULTS:
        start = text.index(HEAD if shared else f"\n{kernel}(")
        place = text.index(old, start)
        text = text[:place] + new + text[place + len(old) :]
    return text


@on_the_host
@pytest.mark.parametrize(("shared", "name"), [(shared, name) for shared, faults in enumerate((FAULTS, SHARED_FAULTS))
                                              for name, _, _ in faults])  # fmt: skip
def test_a_fault_in_a_launch_is_noticed(driver, monkeypatch, shared, name):
    def module(code, options):
        return right(faulty(code, shared) if HEAD in code else code, options)

    right = driver.module
    monkeypatch.setattr(driver, "module", module)
    with pytest.raises((AssertionError, host.KernelError)):
        check(driver, name, np.float32, (33,), (0, 1))


# ---- what does not go together ---------------------------------------------------------------------------------------


def assert_apart(several):
    assert len(together(several)) > 1


def with_argument(job, place, value):
    return job._replace(arguments=(*job.arguments[:place], value, *job.arguments[place + 1 :]))


@pytest.mark.parametrize("name", MERGED)
def test_jobs_of_other_arrays_or_files_stay_apart(driver, name):
    """A later job has a copy of an array that an earlier one has, or the first job is of another rung."""
    several, _ = listed(name, np.float32, 5)
    array = type(namespace("cuda").asarray(np.zeros(1)))
    shared = [(number, place) for number, job in enumerate(several) for place, theirs in enumerate(job.arguments)
              if isinstance(theirs, array) and any(isinstance(ours, array) and same(ours, theirs)
                                                   for before in several[:number] for ours in before.arguments)]
    assert shared
    for number, place in shared:
        copied = with_argument(several[number], place, several[number].arguments[place].copy())
        assert_apart([*several[:number], copied, *several[number + 1 :]])
    first = 2 if name.startswith("next") else 0  # the two before it are one in the present form already
    assert_apart([*several[:first], several[first]._replace(file=launches.FILE), *several[first + 1 :]])


def test_jobs_that_one_kernel_cannot_do_stay_apart(driver):
    """An order of too many rows, an objective of rows that have a warp each, arrays that do not begin on pieces where
    others do, numbers of two types."""
    rates, indices, rows = listed("next_grey_bytes", np.float32, 5)[0]
    assert_apart([rates, with_argument(indices, 3, np.int64(2**31)), rows])
    assert_apart([rates, indices, with_argument(rows, 3, np.uint32(4))])
    assert_apart([rates._replace(dtype=np.dtype(np.float64)), indices, rows])
    layer, likelihood, *objective = listed("biased_bernoulli_objective", np.float32, 5)[0]
    assert_apart([layer, likelihood._replace(block=(32, 8)), *objective])
    layer, likelihood = listed("biased_bernoulli", np.float32, 5)[0]
    assert_apart([with_argument(layer, 5, np.bool_(False)), likelihood])
    scale, sums = listed("scale_rows_and_sums", np.float32, 5)[0]
    assert_apart([with_argument(scale, 5, np.bool_(False)), sums])
    for name in ("squares_and_verdict", "squares_verdict_and_scales", "adam_and_end"):
        first, *rest = listed(name, np.float32, 5)[0]
        assert_apart([first._replace(dtype=np.dtype(np.float64)), *rest])
