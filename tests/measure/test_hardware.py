"""The machine's peaks: the roofline over made-up ones, and a small measurement. No time decides here."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyvae.measure import hardware
from tinyvae.measure.hardware import Level, Peaks


def made_up(rates=(100.0, 50.0, 10.0), products=(200.0, 80.0)):
    levels = tuple(Level(size, rate) for size, rate in zip((2**18, 2**22, 2**27), rates, strict=True))
    return Peaks(levels, {"float32": products[0], "float64": products[1]}, 2, 5)


amounts = st.just(0.0) | st.floats(1, 1e15)  # counts


def check_roofline(peaks, flops, size):
    """Both roofs hold, one is reached, and more work never takes less time."""
    rate, seconds = peaks.attainable_gigaflops(flops, size), peaks.least_seconds(flops, size)
    product, bandwidth = peaks.product_gigaflops["float32"], peaks.gigabytes_per_second(size)
    assert rate <= product * (1 + 1e-12)
    if size and flops:
        assert rate == pytest.approx(min(product, flops / size * bandwidth))
    assert peaks.least_seconds(2 * flops, size) >= seconds
    assert peaks.least_seconds(flops, 2 * size) >= seconds
    assert peaks.gigabytes_per_second(2 * size) <= bandwidth


@given(amounts, amounts, st.tuples(*[st.floats(1e-3, 1e4)] * 3))
def test_roofline(flops, size, rates):
    check_roofline(made_up(rates), flops, size)


def test_wrong_rooflines_are_found():
    """No roof of the products; the bandwidth of the first level for all; a roof that rises with the size."""

    class Endless(Peaks):
        def least_seconds(self, flops, moved, held=None, dtype=np.float32):
            return moved / (1e9 * self.gigabytes_per_second(moved))

    class Rising(Peaks):
        def gigabytes_per_second(self, size):
            return 1 + size

    for wrong in (Endless, Rising):
        with pytest.raises(AssertionError):
            check_roofline(wrong(**vars(made_up())), 1e12, 1e3)


def test_the_level_in_which_the_bytes_fit():
    peaks = made_up()
    for size, rate in ((0, 100), (2**18, 100), (2**18 + 1, 50), (2**22, 50), (2**27, 10), (2**40, 10)):
        assert peaks.gigabytes_per_second(size) == rate
    # a smaller set that came out slower was disturbed: what holds more holds less, too
    assert made_up((5.0, 50.0, 10.0)).gigabytes_per_second(1) == 50
    # bytes that are read and written lie in half the memory
    assert peaks.least_seconds(0, 2**19, held=2**18) < peaks.least_seconds(0, 2**19)


def test_the_roof_by_hand():
    """1 MB at 50 GB/s is 20 us; so are 4 million operations at 200 GFLOP/s; in float64 they take 50 us."""
    peaks = made_up()
    assert peaks.least_seconds(1, 1e6) == pytest.approx(20e-6)
    assert peaks.least_seconds(4e6, 1e3) == pytest.approx(20e-6)
    assert peaks.least_seconds(4e6, 1e3, dtype=np.float64) == pytest.approx(50e-6)
    assert peaks.attainable_gigaflops(1e6, 1e6) == pytest.approx(50)
    assert peaks.attainable_gigaflops(1e6, 0) == pytest.approx(200)
    assert peaks.attainable_gigaflops(0, 1e6) == 0
    assert peaks.attainable_gigaflops(0, 0) == 200


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_what_is_no_number_is_refused(bad):
    for call in (lambda: made_up().least_seconds(bad, 1), lambda: made_up().least_seconds(1, bad),
                 lambda: made_up().attainable_gigaflops(1, 1, held=bad), lambda: made_up().gigabytes_per_second(bad)):
        with pytest.raises(ValueError, match="expected a finite number, at least 0"):
            call()
    for call in (lambda: made_up(rates=(1.0, bad, 1.0)), lambda: made_up(products=(bad, 1.0))):
        with pytest.raises(ValueError, match="expected positive finite rates"):
            call()


def test_levels_must_grow():
    level = Level(2**20, 1.0)
    for levels in ((), (level, Level(2**10, 1.0))):
        with pytest.raises(ValueError, match="growing"):
            Peaks(levels, {"float32": 1.0}, 1, 1)


def test_measured_peaks():
    """A small measurement: positive, finite, of growing sets; readable, and ready for JSON."""
    peaks = hardware.measure(rounds=2, in_cache=(2**14, 2**16), beyond=2**18, moved=2**20, sides=(32, 64))
    assert peaks.rounds == 2
    assert peaks.threads >= 1
    rates = [level.gigabytes_per_second for level in peaks.levels] + list(peaks.product_gigaflops.values())
    assert all(0 < rate < math.inf for rate in rates)
    assert set(peaks.product_gigaflops) == {"float32", "float64"}
    text = str(peaks)
    for part in ("GB/s at", "kB", "GFLOP/s float32", "GFLOP/s float64", "medians of 2 rounds", "read + written"):
        assert part in text
    read = json.loads(json.dumps(peaks.as_dict()))
    assert Peaks.from_dict(read) == peaks
    assert [Level(**level) for level in read["levels"]] == list(peaks.levels)


def test_peaks_are_measured_once(monkeypatch):
    made = []
    monkeypatch.setattr(hardware, "measure", lambda: made.append(1) or made_up())
    hardware.peaks.cache_clear()
    try:
        assert hardware.peaks() is hardware.peaks()
        assert len(made) == 1
    finally:
        hardware.peaks.cache_clear()


def test_a_stream_moves_what_it_says():
    """Of 240 bytes held 360 move in each of four passes, two reads and a write; in the first, a copy, only 240."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        run, moved = hardware._stream(pool, 2, 2 * 4 * 2 * 15, 1500)
        run()
    assert moved == 3 * 360 + 240


@pytest.mark.parametrize(("size", "text"), [(2**18, "256 kB"), (2**22, "4 MB"), (3 * 2**19, "1.5 MB"), (512, "0.5 kB")])
def test_readable_bytes(size, text):
    assert hardware.readable_bytes(size) == text
