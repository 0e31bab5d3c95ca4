"""Timing: who is called when, what the numbers mean, and what is said of the machine."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import pytest

from tinyvae.measure import timing
from tinyvae.measure.timing import Timing


class Clock:
    """A clock that moves only when a candidate says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def candidate(self, name: str, seconds: float) -> Any:
        def call() -> None:
            self.calls.append(name)
            self.now += seconds

        return call


def test_candidates_alternate_and_take_turns_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = timing.measure({n: clock.candidate(n, s) for n, s in [("a", 1.0), ("b", 2.0)]}, rounds=4, calls=1)
    assert "".join(clock.calls) == "ab" + "abbaabba"
    assert found["a"] == Timing("a", (1.0,) * 4, 1)
    assert found["b"].median == 2.0
    assert found["a"].times_faster_than(found["b"]) == 2.0


def test_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    candidates = {"slow": clock.candidate("s", 0.5), "fast": clock.candidate("f", 2.0**-14)}
    found = timing.measure(candidates, rounds=3, least=2.0**-7)
    assert found["slow"].calls == 1
    assert 128 <= found["fast"].calls <= 256
    assert found["fast"].median == 2.0**-14
    found = timing.measure(candidates, rounds=3, calls={"slow": 2, "fast": 5})
    assert (found["slow"].calls, found["fast"].calls) == (2, 5)
    for wrong in (0, {"slow": 0, "fast": 1}):
        with pytest.raises(ValueError, match="expected at least 1"):
            timing.measure(candidates, calls=wrong)
    with pytest.raises(ValueError, match="at least one"):
        timing.measure({})


def test_a_device_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = timing.measure(
        {"a": clock.candidate("a", 0.0)}, rounds=2, calls=1, synchronize=clock.candidate("wait", 3.0)
    )
    assert found["a"].seconds == (3.0, 3.0)


def test_a_pause_stands_before_each_turn_and_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.candidate(f"({seconds})", 7.0)())
    candidates = {name: clock.candidate(name, 1.0) for name in "ab"}
    found = timing.measure(candidates, rounds=2, calls=2, pause=0.5)
    assert "".join(clock.calls) == "ab" + "(0.5)aa(0.5)bb" + "(0.5)bb(0.5)aa"
    assert found["a"].seconds == found["b"].seconds == (1.0, 1.0)


def test_the_garbage_collector_is_restored() -> None:
    def fail() -> None:
        if not gc.isenabled():
            raise KeyError

    assert gc.isenabled()
    with pytest.raises(KeyError):
        timing.measure({"a": fail}, rounds=1, calls=1)
    assert gc.isenabled()


def test_a_real_clock() -> None:
    small, large = np.ones(10), np.ones(300_000)
    found = timing.measure({"small": small.sum, "large": large.sum}, rounds=5, least=1e-4)
    assert 0 < found["small"].median < found["large"].median
    assert found["small"].times_faster_than(found["large"]) > 1


def test_the_numbers_of_a_timing() -> None:
    one = Timing("x", (4e-3, 1e-3, 2e-3, 3e-3, 100e-3), calls=7)
    assert one.median == 3e-3
    assert one.quartiles == (2e-3, 4e-3)
    assert one.as_dict() == {
        "name": "x", "median_s": 3e-3, "lower_quartile_s": 2e-3, "upper_quartile_s": 4e-3,
        "rounds": 5, "calls": 7,
    }  # fmt: skip
    assert str(one) == "x: 3.00 ms (2.00 ms to 4.00 ms)"
    assert Timing("x", (2.0,), 1).quartiles == (2.0, 2.0)
    with pytest.raises(ValueError, match="5 and 1 rounds"):
        one.times_faster_than(Timing("y", (1.0,), 1))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.38e-3, "1.38 ms"), (96e-6, "96.0 us"), (12.1, "12.1 s"), (0.99951, "1.00 s"), (123e-9, "123 ns"),
     (123.4, "123 s"), (4321.4, "4321 s"), (0, "0 s"), (5e-10, "0.500 ns")],
)  # fmt: skip
def test_readable(seconds: float, text: str) -> None:
    assert timing.readable(seconds) == text


def test_stopwatch() -> None:
    with timing.Stopwatch() as watch:
        time.sleep(0.002)
    assert 0.002 <= watch.seconds < 2
    with pytest.raises(KeyError), timing.Stopwatch() as watch:
        raise KeyError
    assert watch.seconds > 0
