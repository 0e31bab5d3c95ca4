"""Noise: published vectors of the generator, laws and independence of the draws, readable form against kernel.

Statistical checks share one false-alarm rate (see support.py), have fixed seeds, and print what they found.
"""

import math
import zlib

import numpy as np
import pytest
import scipy.stats
import tinyvae_kernels
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits, likely, likely_zero

import tinyvae as tv
from tinyvae.engine import noise
from tinyvae.engine.noise import Noise, Window, normal, permutation, philox, uniform, words

MANY = 200_000


def kernels():
    pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
    return tinyvae_kernels.kernels_for("cpu")


# ---- Philox 4x32-10 ------------------------------------------------------------------
# The known answers published with the generator (Random123, kat_vectors).

KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers(counter, key, answer):
    assert tuple(int(word) for word in philox(counter, key)) == answer
    rows = philox((np.full(3, counter[0]), *counter[1:]), key)  # and as an array of counters
    assert all(np.array_equal(np.broadcast_to(row, 3), [word] * 3) for row, word in zip(rows, answer, strict=True))


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers_of_the_kernel(counter, key, answer):
    from tinyvae_kernels.cpu.noise import words_job
    from tinyvae_kernels.cpu.runtime.jobs import Program

    first, site, step, attempt = counter
    words, job = words_job(np.array([step]), 4, *key, site, attempt, first)
    Program([job])()
    assert tuple(int(word) for word in words[0, :4]) == answer


@pytest.mark.parametrize(("constant", "wrong"), [("ROUNDS", 9), ("M0", 0xD2511F55), ("W1", 0xBB67AE84)])
def test_a_wrong_philox_is_found(monkeypatch, constant, wrong):
    """Nine rounds, or one wrong digit in a constant: random to look at, but another generator."""
    monkeypatch.setattr(noise, constant, wrong)
    with pytest.raises(AssertionError):
        test_philox_known_answers(*KNOWN[2])


# ---- the address of a draw -----------------------------------------------------------


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_slice_of_a_draw_is_that_slice(first, count):
    """`first` continues a draw anywhere, also inside a group of four words."""
    whole = words(3, "noise", 5, 1, first + count)
    assert_same_bits(words(3, "noise", 5, 1, count, first=first), whole[first:])
    grey = uniform(3, "noise", 5, 1, (first + count,))
    assert_same_bits(uniform(3, "noise", 5, 1, (count,), first=first), grey[first:])


def test_every_part_of_the_address_counts():
    """Seed, stream, step, site and attempt each give other words; the same address always the same."""
    addresses = [(1, "a", 0, 0, 0), (2, "a", 0, 0, 0), (1, "b", 0, 0, 0), (1, "a", 1, 0, 0), (1, "a", 0, 1, 0),
                 (1, "a", 0, 0, 1), (2**32 - 1, "a", 2**31, 0, 0)]  # fmt: skip
    draws = [words(*a[:4], 8, attempt=a[4]) for a in addresses]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(addresses)
    assert_same_bits(words(1, "a", 0, 0, 8), draws[0])
    assert noise.stream_number("shuffle") == zlib.crc32(b"shuffle")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_does_not_fit(seed):
    """On the readable road and, as the kernel looks at nothing, where the noise is made."""
    with pytest.raises(ValueError, match=f"found seed {seed}; expected a whole number from 0 to 4294967295"):
        words(seed, "noise", 0, 0, 4)
    with pytest.raises(ValueError, match=f"found seed {seed}; expected a whole number from 0 to 4294967295"):
        Noise(seed)


def test_the_ends_of_the_range(monkeypatch):
    """All bits 0 and all bits 1: a uniform number below 1, a normal one that is finite and no larger than 6.77."""
    for word in (0, 2**32 - 1):
        fixed = np.full(4, word, np.uint64)
        monkeypatch.setattr(noise, "words", lambda *a, fixed=fixed, **k: fixed)
        for dtype in DTYPES:
            u, z = uniform(0, "s", 0, 0, (4,), dtype), normal(0, "s", 0, 0, (4,), dtype)
            assert (u >= 0).all()
            assert (u < 1).all()
            assert (np.abs(z) <= 6.77).all()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (5, 7), (2, 0, 3)])
def test_shapes_and_types(shape):
    for dtype in DTYPES:
        for draw in (uniform, normal):
            assert (draw(0, "s", 0, 0, shape, dtype).shape, draw(0, "s", 0, 0, shape, dtype).dtype) == (shape, dtype)
        drawn = Noise(0).normal(shape, dtype)
        assert (drawn.shape, drawn.dtype) == (shape, dtype)
    assert_same_bits(normal(0, "s", 0, 0, (3,)), normal(0, "s", 0, 0, (4,))[:3], "an odd count")


# ---- laws ----------------------------------------------------------------------------


def check_uniform(draw):
    """Kolmogorov-Smirnov, and chi-square over 256 bins (the upper byte) and over the lower byte of 24 bits."""
    u = np.asarray(draw, np.float64)
    likely("uniform, Kolmogorov-Smirnov", scipy.stats.kstest(u, "uniform").pvalue)
    for name, scale in (("upper", 256), ("lower", 2**24)):
        counts = np.bincount(np.floor(u * scale).astype(np.int64) % 256, minlength=256)
        likely(f"uniform, {name} byte", scipy.stats.chisquare(counts).pvalue)


def check_normal(draw):
    """Kolmogorov-Smirnov, variance and fourth moment: the tails weigh little in the first."""
    z = np.asarray(draw, np.float64)
    likely("normal, Kolmogorov-Smirnov", scipy.stats.kstest(z, "norm").pvalue)
    likely_zero("normal, variance", np.mean(z**2) - 1, math.sqrt(2 / z.size))
    likely_zero("normal, fourth moment", np.mean(z**4) - 3, math.sqrt(96 / z.size))
    beyond = scipy.stats.binomtest(int(np.sum(np.abs(z) > 4)), z.size, math.erfc(4 / math.sqrt(2)))
    likely("normal, beyond 4", beyond.pvalue)


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_numbers_are_uniform(dtype):
    check_uniform(uniform(11, "noise", 3, 0, (MANY,), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_numbers_are_normal(dtype):
    check_normal(normal(12, "noise", 3, 0, (MANY,), dtype))


def test_wrong_laws_are_found():
    """A standard deviation where a log-variance was meant; a transform with one uniform number; a coarse one."""
    logvar = 0.2
    right, wrong = math.exp(0.5 * logvar), math.exp(logvar)
    with pytest.raises(AssertionError):
        check_normal(normal(12, "noise", 3, 0, (MANY,)) * wrong / right)
    u = uniform(12, "noise", 3, 0, (MANY,), np.float64)
    with pytest.raises(AssertionError):
        check_normal(np.sqrt(-2 * np.log(u + 2.0**-33)) * np.cos(2 * math.pi * u))
    with pytest.raises(AssertionError, match="lower byte"):
        check_uniform(np.floor(u * 2**16) / 2**16)
    with pytest.raises(AssertionError):
        check_uniform(u * np.float64("nan"))


# ---- independence --------------------------------------------------------------------


def check_independent(a, b, what):
    """No correlation of the numbers nor of their squares."""
    a, b = (np.asarray(v, np.float64).ravel() for v in (a, b))
    likely_zero(f"{what}, product", np.mean(a * b), 1 / math.sqrt(a.size))
    likely_zero(f"{what}, product of squares", np.mean((a**2 - 1) * (b**2 - 1)), 2 / math.sqrt(a.size))


@pytest.mark.parametrize(("what", "other"), [
    ("sites", (1, "noise", 0, 1)), ("steps", (1, "noise", 1, 0)), ("seeds", (2, "noise", 0, 0)),
    ("streams", (1, "shuffle", 0, 0)),
])  # fmt: skip
def test_neighbouring_draws_are_independent(what, other):
    check_independent(normal(1, "noise", 0, 0, (MANY,)), normal(*other, (MANY,)), what)


@pytest.mark.parametrize("lag", [1, 2, 4])
def test_numbers_of_one_draw_are_independent(lag):
    z = normal(7, "noise", 0, 0, (MANY,))
    check_independent(z[lag:], z[:-lag], f"lag {lag}")


def test_the_two_of_a_pair_are_independent():
    """The cosine and the sine of one angle: uncorrelated, and so are their squares only if the radius is right."""
    pairs = normal(8, "noise", 0, 0, (MANY, 2))
    check_independent(pairs[:, 0], pairs[:, 1], "pair")


def check_two_draws(draws):
    check_independent(draws.normal((MANY,)).data, draws.normal((MANY,)).data, "two draws of a step")


def test_two_draws_of_a_step_are_independent():
    check_two_draws(Noise(5))


def test_shared_numbers_are_found():
    """Two draws at one site, or draws of equal radius: the faults that the numbering of draws is there to prevent."""
    class OneSite(Noise):
        def next_site(self):
            return 0

    with pytest.raises(AssertionError, match="two draws of a step"):
        check_two_draws(OneSite(5))
    angle = 2 * math.pi * uniform(9, "noise", 0, 0, (MANY,), np.float64)
    with pytest.raises(AssertionError, match="product of squares"):  # without a radius: uncorrelated, yet dependent
        check_independent(math.sqrt(2) * np.cos(angle), math.sqrt(2) * np.sin(angle), "circle")


# ---- float32, float64, kernel --------------------------------------------------------


def check_same_pairs(single, double):
    """Box-Muller pairs of both types: radius and angle agree to the rounding of the uniform numbers behind them.

    r^2 = -2 log u. In float32 u has a relative error of two half units, 2^-23, so r^2 one of 2^-22 beside its own
    rounding. The angle is at most 2 pi, with three roundings.
    """
    single, double = (np.asarray(z, np.float64).reshape(-1, 2) for z in (single, double))
    squares = [np.sum(z**2, axis=1) for z in (single, double)]
    assert (np.abs(squares[0] - squares[1]) <= 2.0**-21 + 2.0**-20 * squares[1]).all()
    turn = np.subtract(*(np.arctan2(z[:, 1], z[:, 0]) for z in (single, double)))[squares[1] > 1e-5]
    assert (np.abs(np.sin(turn / 2)) <= math.pi * 2.0**-22).all()


def test_float32_and_float64_draw_the_same_numbers():
    """Uniform: the first 24 bits of 32. Normal: to rounding, which near u = 1 the logarithm magnifies."""
    u32, u64 = (uniform(4, "noise", 2, 0, (MANY,), dtype) for dtype in DTYPES)
    difference = u64 - u32
    assert (difference >= 0).all()
    assert (difference < 2.0**-24).all()
    z32, z64 = (normal(4, "noise", 2, 0, (MANY,), dtype) for dtype in DTYPES)
    check_same_pairs(z32, z64)
    for wrong in (z32 * (1 + 1e-5), -z32, z32[::-1], z32.astype(np.float16)):
        with pytest.raises(AssertionError):
            check_same_pairs(wrong, z64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 4001])
def test_the_kernel_draws_the_readable_numbers(dtype, count):
    """The same words, hence the same normal numbers up to the last bits of log, cos and sin."""
    counters = np.array([123456, 7, 7])
    for seed, stream, site in ((0, "noise", 0), (2**32 - 1, "posterior", 5)):
        found = kernels().normal(counters, np.empty(count, dtype), seed, noise.stream_number(stream), site)
        assert_close(found, normal(seed, stream, 123456, site, (count,), dtype), 16, "normal")


def test_another_site_is_found():
    found = kernels().normal(np.array([1]), np.empty(9), 0, noise.stream_number("noise"), 3)
    with pytest.raises(AssertionError, match="rounding units"):
        assert_close(found, normal(0, "noise", 1, 2, (9,), np.float64), 16, "normal")


@given(st.integers(1, 9), st.integers(1, 21), st.sampled_from([1, 16, 255]), st.sampled_from(DTYPES), st.integers(0, 9))
def test_binarised_rows_are_the_same_bits_on_both_roads(batch, width, scale, dtype, seed):
    """Drawn pixels decide what is learned: kernel and readable form agree exactly, in any shape and type."""
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, scale, (6, width), endpoint=True).astype(np.uint8)
    index, counters = rng.integers(0, 6, batch), np.array([rng.integers(0, 2**31)])

    def draw():
        return tv.apply("binarised_rows", stored, index, counters, seed=seed, stream="binarise", site=3, scale=scale,
                        dtype=np.dtype(dtype)).data

    kernels()
    fast = draw()
    with tv.fused(False):
        readable = draw()
    assert fast.dtype == dtype
    assert_same_bits(fast, readable)
    assert_same_bits(fast[stored[index] == 0], np.zeros((stored[index] == 0).sum(), dtype))
    assert_same_bits(fast[stored[index] == scale], np.ones((stored[index] == scale).sum(), dtype))


# ---- some rows of a batch ------------------------------------------------------------

DRAWN = {"normal": {}, "uniform": {}, "laplace": {}, "log_gamma": {"samples": 2}, "poisson": {"samples": 2},
         "categorical": {"samples": 2}, "binarised_rows": {"scale": 1.0}}  # fmt: skip


def draw_of(kind, batch, width, rows, dtype):
    """A draw of (2, batch, width), or of pixels (batch, width), or of some of its rows."""
    source = Noise(3, "noise", np.array([5])).restart(rows=rows)
    first, count, _ = rows or (0, batch, batch)
    numbers = np.random.default_rng(batch).uniform(0.2, 15, (batch, width)).astype(dtype)
    if kind == "binarised_rows":
        grey = tv.Tensor((numbers / 15).astype(np.float32))
        index = tv.Tensor(np.arange(first, first + count))
        return source.draw(kind, grey, index, dtype=dtype, **DRAWN[kind]).data[None]
    if DRAWN[kind]:
        return source.draw(kind, tv.Tensor(numbers[first : first + count]), **DRAWN[kind]).data
    return source.draw(kind, shape=(2, count, width), dtype=dtype).data


def check_rows(kind, batch, width, dtype, shift=0):
    """The draw of each part of a batch's rows has the bits that these rows have in the draw of all."""
    whole = draw_of(kind, batch, width, None, dtype)
    for first in range(batch):
        for count in range(1, batch - first + 1):
            part = draw_of(kind, batch, width, Window(first, count, batch + shift), dtype)
            assert_same_bits(part, whole[:, first : first + count])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", DRAWN)
def test_some_rows_of_a_batch_get_the_numbers_that_they_get_in_all(kind, fused):
    """Also where a run of numbers begins in the middle of a pair, or of the four words of a counter."""
    with tv.fused(fused):
        for batch, width in ((5, 3), (4, 1), (3, 4)):
            for dtype in map(np.dtype, DTYPES):
                check_rows(kind, batch, width, dtype)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["normal", "log_gamma"])
def test_copies_of_the_rows_get_their_numbers(kind, fused):
    """Where the rows lie three times one after another, as for three classes."""
    numbers = np.random.default_rng(0).uniform(0.2, 15, (3, 5, 2))

    def drawn(first, count, rows):
        source, mine = Noise(3).restart(rows=rows), numbers[:, first : first + count].copy().reshape(-1, 2)
        found = source.normal((2, 3 * count, 2), np.float64) if kind == "normal" else source.draw(
            kind, tv.Tensor(mine), samples=2)
        return found.data.reshape(2, 3, count, 2)

    with tv.fused(fused):
        whole = drawn(0, 5, None)
        for first, count in ((0, 2), (2, 3), (1, 1), (0, 5)):
            assert_same_bits(drawn(first, count, Window(first, count, 5)), whole[:, :, first : first + count])


def test_rows_of_another_batch_are_found():
    """With two samples for each row, the place of the second one depends on the rows of the whole batch."""
    with pytest.raises(AssertionError):
        check_rows("normal", 5, 3, np.dtype(np.float64), shift=1)


def test_draws_for_some_rows_say_which_axis_has_them():
    source = Noise(3).restart(rows=Window(2, 3, 9))
    with pytest.raises(ValueError, match=r"^found a draw of shape \(4, 2\) for 3 of the 9 rows .* shared=True"):
        source.normal((4, 2))
    source.restart(rows=Window(2, 3, 9))
    assert_same_bits(source.normal((4, 2), shared=True).data, Noise(3).normal((4, 2)).data)


@pytest.mark.parametrize("fused", [True, False])
def test_pixels_are_drawn_at_their_grey_value(fused):
    """Over many steps each pixel is 1 with the probability of its grey value, and neighbours are independent."""
    if fused:
        kernels()
    stored, count = np.arange(256, dtype=np.uint8).reshape(16, 16), 400
    counters, total, pairs = np.zeros(1, np.int64), np.zeros((16, 16)), 0.0
    p = stored / 255
    with tv.fused(fused):
        for step in range(count):
            counters[0] = step
            drawn = tv.apply("binarised_rows", stored, np.arange(16), counters, seed=1, stream="binarise", site=0,
                             scale=255, dtype=np.dtype(np.float64)).data
            total += drawn
            pairs += np.sum((drawn - p)[:, 1:] * (drawn - p)[:, :-1])
    variance = p * (1 - p)
    inner = variance > 0
    z = (total - count * p)[inner] / np.sqrt(count * variance[inner])
    likely("grey values, chi-square", scipy.stats.chi2.sf(np.sum(z**2), z.size))
    likely_zero("grey values, mean", np.sum(z), math.sqrt(z.size))
    likely_zero("neighbouring pixels", pairs, math.sqrt(count * np.sum(variance[:, 1:] * variance[:, :-1])))


# ---- noise as an operation -----------------------------------------------------------


def test_noise_reads_its_clock_and_counts_its_sites():
    drawn = Noise(3, "noise")
    first, second = drawn.normal((4,)), drawn.normal((4,))
    again = drawn.restart().normal((4,))
    assert_same_bits(first.data, again.data)
    assert not np.array_equal(first.data, second.data)
    later = drawn.restart(9).normal((4,), np.float64)
    assert_close(later.data, normal(3, "noise", 9, 0, (4,), np.float64), 16)
    assert_same_bits(drawn.restart(2).uniform((3,)).data, uniform(3, "noise", 2, 0, (3,)))


@pytest.mark.parametrize("fused", [True, False])
def test_a_replay_draws_anew(fused):
    """The step is read from the counters when a launch runs: never a frozen number, on both roads."""
    drawn = Noise(3)
    with tv.fused(fused), tv.Tape() as tape:
        z, u = drawn.normal((5,)), drawn.uniform((5,))
    for step in (1, 7, 0):
        drawn.counters[0] = step
        tape.replay()
        assert_close(z.data, normal(3, "noise", step, 0, (5,)), 16)
        assert_same_bits(u.data, uniform(3, "noise", step, 1, (5,)))


# ---- permutations --------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 99))
def test_a_permutation_is_one(count, step):
    order = permutation(1, "shuffle", step, count)
    assert order.dtype == np.int64
    assert_same_bits(np.sort(order), np.arange(count))
    assert_same_bits(permutation(1, "shuffle", step, count), order)


def check_permutations(make):
    """All 24 orders of four things, by chi-square."""
    seen = [tuple(make(step)) for step in range(6000)]
    orders = sorted(set(seen))
    counts = np.array([seen.count(order) for order in orders])
    assert len(orders) == 24
    likely("permutations of 4", scipy.stats.chisquare(counts).pvalue)


def test_permutations_are_uniform():
    check_permutations(lambda step: permutation(1, "shuffle", step, 4))


def test_biased_permutations_are_found():
    """Labels of three bits tie often, and ties keep their order."""
    with pytest.raises(AssertionError, match="permutations of 4"):
        check_permutations(lambda step: np.argsort(words(1, "shuffle", step, 0, 4) % 8, kind="stable"))
