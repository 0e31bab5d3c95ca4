"""The rung `memory` at widths, alignments and orders of threads that no step has: the bits of the present form."""

import numpy as np
import pytest
from cuda_on_cpu import card, host
from cuda_on_cpu.host import SCHEDULES, Driver
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_same_bits
from tinyvae_kernels import kernels_for
from tinyvae_kernels.cuda.runtime import driver as drivers
from tinyvae_kernels.cuda.runtime import jobs

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks.rungs import memory

pytestmark = [
    pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only, where threads have an order"),
    pytest.mark.skipif(host.compiler() is None, reason=host.NO_COMPILER),
]
DRIVER = Driver()
PRESENT = kernels_for("cuda")
ADDRESS = {"seed": 7, "stream": 2, "site": 3}
ELEMENTS = ("normal", "grey_rows", "binarised_rows")
SHIFTS = st.tuples(st.booleans(), st.booleans(), st.booleans())
WIDTHS = st.integers(1, 70) | st.integers(1, 40).map(lambda n: 4 * n)


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    DRIVER.schedule = 0
    monkeypatch.setattr(drivers, "current", DRIVER)
    monkeypatch.setattr(jobs, "BLOCKS", jobs.BLOCKS)  # what a test sets of it ends with it
    monkeypatch.setattr(jobs, "MERGES", dict(memory.RUNG.merges))


def placed(array, shifted):
    """The same numbers in memory that begins on a piece of 16 bytes, or one number behind it."""
    room = np.empty(array.nbytes + 32, np.uint8)
    begin = -room.__array_interface__["data"][0] % 16 + shifted * array.itemsize
    place = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    place[...] = array
    return place


def empty(shape, dtype, shifted=False):
    return placed(np.full(shape, np.nan, dtype), shifted)


def check_elements(name, batch, width, stored, dtype, shifts=(False, False)):
    """`normal`, `grey_rows` or `binarised_rows` beside the present form, with `stored` or `out` shifted."""
    rng, counters = np.random.default_rng(width), np.array([11, 0, 0])
    images, index = placed(rng.integers(0, 256, (5, width)).astype(stored), shifts[0]), rng.integers(0, 5, batch)
    arrays, named = {"normal": ((counters,), ADDRESS), "grey_rows": ((images, index), {"scale": 255.0}),
                     "binarised_rows": ((images, index, counters), {**ADDRESS, "scale": 255.0})}[name]  # fmt: skip
    expected = getattr(PRESENT, name)(*arrays, empty((batch, width), dtype), **named)
    found = getattr(memory, name)(*arrays, empty((batch, width), dtype, shifts[1]), **named)
    assert_same_bits(found, expected, name)


def check_sample(drawn, samples, batch, latent, dtype, shifts=(False, False, False)):
    """`gaussian_sample_kl` beside the present form, with raw, eps or z shifted: with given noise, or drawn in the same
    launch."""
    rng, counters = np.random.default_rng(latent), np.array([11, 0, 0])
    raw = placed(rng.normal(size=(batch, 2 * latent)).astype(dtype), shifts[0])
    noise = PRESENT.normal(counters, empty((samples, batch, latent), dtype), **ADDRESS)
    expected = noise, *PRESENT.gaussian_sample_kl(raw, noise, None)
    eps = empty(noise.shape, dtype, shifts[1]) if drawn else placed(noise, shifts[1])
    z, kl = empty(noise.shape, dtype, shifts[2]), empty(batch, dtype)
    program = memory.gaussian_sample_kl.bind(raw, eps, (z, kl))
    if drawn:
        program = jobs.Program.join([memory.normal.bind(counters, eps, **ADDRESS), program])
        assert not eps.size or [job.kernel for job in program.jobs] == ["drawn_sample_kl_pieces"]
    program()
    for what, found, same in zip(("noise", "sample", "KL"), (eps, z, kl), expected, strict=True):
        assert_same_bits(found, same, what)


@pytest.mark.parametrize("dtype", DTYPES)
@given(name=st.sampled_from(ELEMENTS), batch=st.integers(0, 9), width=WIDTHS, shifts=SHIFTS,
       stored=st.sampled_from([np.uint8, np.float32]), schedule=st.sampled_from(SCHEDULES),
       blocks=st.sampled_from([1, 2048]))  # fmt: skip
def test_noise_and_pixels(dtype, name, batch, width, shifts, stored, schedule, blocks):
    DRIVER.schedule, jobs.BLOCKS = schedule, blocks
    check_elements(name, batch, width, stored, dtype, shifts)


@pytest.mark.parametrize("dtype", DTYPES)
@given(drawn=st.booleans(), samples=st.integers(0, 3), batch=st.integers(0, 40), latent=WIDTHS, shifts=SHIFTS,
       schedule=st.sampled_from(SCHEDULES))  # fmt: skip
def test_sample(dtype, drawn, samples, batch, latent, shifts, schedule):
    DRIVER.schedule = schedule
    check_sample(drawn, samples, batch, latent, dtype, shifts)


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_blocks_and_turns_in_every_order(dtype):
    """More data than a block has, latents of one lane and of several turns; threads that have several pieces."""
    jobs.BLOCKS = 1
    for DRIVER.schedule in SCHEDULES:
        for batch, latent in ((261, 1), (131, 2), (70, 20), (33, 50), (3, 512)):
            for drawn in (False, True):
                check_sample(drawn, 2, batch, latent, dtype)
        for name, width in ((name, width) for name in ELEMENTS for width in (100, 101)):
            check_elements(name, 33, width, np.uint8, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_only_where_memory_allows(dtype):
    """Where rows consist of pieces, and the arrays that are read and written by them begin on one."""
    counters, index, lanes = np.array([11, 0, 0]), np.arange(3), 16 // np.dtype(dtype).itemsize
    for width, first, second in ((w, a, b) for w in (40, 41, 42) for a in (False, True) for b in (False, True)):
        images, out = placed(np.zeros((5, width), np.uint8), first), empty((3, width), dtype, second)
        raw, eps = empty((3, 2 * width), dtype, first), empty((1, 3, width), dtype, second)
        both = not first and not second
        for program, expected in (
            (memory.normal.bind(counters, out, **ADDRESS), not second),
            (memory.grey_rows.bind(images, index, out, scale=1.0), both and width % lanes == 0),
            (memory.binarised_rows.bind(images, index, counters, out, scale=1.0, **ADDRESS), both and width % 4 == 0),
            (memory.gaussian_sample_kl.bind(raw, eps, None), both and width % lanes == 0),
        ):
            assert bool(program.jobs[0].arguments[-1]) == expected


# ---- wrong kernels are noticed -------------------------------------------------------


# Each changes another kernel, or what is compared earlier, so that all are compiled as one source.
MUTANTS = [
    ("normal", lambda: check_elements("normal", 1, 3, np.uint8, np.float32),
     "if (aligned && 4 * i + 4 <= count)", "if (aligned)"),
    ("binarise", lambda: check_elements("binarised_rows", 5, 36, np.uint8, np.float32),
     "place(index, i, width / 4)", "place(index, i, width)"),
    ("grey_rows", lambda: check_elements("grey_rows", 33, 101, np.uint8, np.float32),
     "place(index, i + k * step, each)", "place(index, i, each)"),  # wrong where a thread has several pieces
    ("noise", lambda: check_sample(True, 1, 37, 21, np.float32), "at & 2 ? word[2] : word[0]", "word[0]"),
    ("KL", lambda: check_sample(False, 1, 37, 20, np.float32), "for (int d = 16 / N; d; d /= 2)",
     "for (int d = 1; d < 32 / N; d *= 2)"),  # the sum in another order
]  # fmt: skip


class Wrong(Driver):
    """Compiles the rung's source with all mutants."""

    def module(self, code, options=()):
        for *_, old, new in MUTANTS:
            code = code.replace(old, new)
        return super().module(code, options)


WRONG = Wrong()


@pytest.mark.parametrize("place", range(len(MUTANTS)))
def test_a_wrong_kernel_is_noticed(place, monkeypatch):
    what, check, old, _ = MUTANTS[place]
    assert drivers.source(memory.FILE).count(old) == 1, "there is no such place any more: change the mutant"
    jobs.BLOCKS = 1
    check()
    monkeypatch.setattr(drivers, "current", WRONG)
    with pytest.raises((AssertionError, host.KernelError), match=what):
        check()
