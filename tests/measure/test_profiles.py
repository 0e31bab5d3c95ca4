"""Programs with times, and their shares of the machine's peak. No time decides here."""

import json
import math
import re

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.engine import table
from tinyvae.engine.tensor import Tensor
from tinyvae.measure import hardware, profile, profiles
from tinyvae.measure.hardware import Level, Peaks

PEAKS = Peaks((Level(2**27, 10.0),), {"float32": 100.0, "float64": 50.0}, 2, 5)


@pytest.fixture(autouse=True)
def _known_peaks(monkeypatch):
    monkeypatch.setattr(hardware, "peaks", lambda: PEAKS)


def floats(*shape):
    return Tensor(np.ones(shape, np.float32))


def test_a_profile_is_a_list_of_launches_with_seconds():
    with tv.Tape() as tape:
        (floats(40, 30) @ floats(30, 20)).tanh().reshape(-1).exp()
    calls = []
    found = profile(tape, rounds=4, reset=lambda: calls.append(1))
    assert len(calls) == 4
    assert [launch.rule.name for launch, _ in found] == ["matmul", "tanh", "exp"]
    assert found.rounds.shape == (4, 3)
    assert [seconds for _, seconds in found] == np.median(found.rounds, axis=0).tolist()


def check_rows(found, peaks):
    """Every number by the definition of its unit, from the launch and its time."""
    for row, (launch, seconds), times in zip(found.rows(peaks), found, found.rounds.T, strict=True):
        moved, work = table.traffic(launch), table.flops(launch)
        assert row["microseconds"] == pytest.approx(seconds * 1e6)
        low, high = np.quantile(times, (0.25, 0.75))
        assert (row["lower_quartile"], row["upper_quartile"]) == pytest.approx((low * 1e6, high * 1e6))
        assert row["gigabytes_per_second"] == pytest.approx(moved / 1e9 / seconds)
        assert row["gigaflops"] == pytest.approx(work / 1e9 / seconds)
        roof = max(moved / 10e9, work / (100e9 if launch.outputs[0].dtype == np.float32 else 50e9))
        assert row["share_of_peak"] == pytest.approx(roof / seconds)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rates_and_shares(dtype):
    with tv.Tape() as tape:
        (Tensor(np.ones((40, 30), dtype)) @ Tensor(np.ones((30, 20), dtype))).tanh().sum()
    launches = tape.working()
    found = profiles.Profile(launches, np.array([[1e-4, 2e-6, 3e-6], [2e-4, 4e-6, 3e-6], [4e-4, 5e-6, 3e-6]]))
    check_rows(found, PEAKS)
    assert json.loads(json.dumps(found.rows(PEAKS)))[1]["inputs"] == "40x20"
    with pytest.raises(AssertionError):
        check_rows(found, Peaks((Level(2**27, 20.0),), PEAKS.product_gigaflops, 2, 5))


def test_a_profile_prints_a_table():
    """One line a launch, the sums below, every number with its unit and direction; the columns line up."""
    with tv.Tape() as tape:
        (floats(100, 30) @ floats(30, 20)).tanh()
    text = str(profiles.Profile(tape.working(), np.array([[10e-6, 1e-6], [10e-6, 1e-6], [30e-6, 3e-6]])))
    lines = text.splitlines()
    head, product, activation, whole = (re.split(r"\s{2,}", line.strip()) for line in lines[:4])
    assert head == ["operation", "inputs", "outputs", "us", "quartiles", "ns/element", "GB/s", "GFLOP/s", "of peak"]
    moved = 4 * (3000 + 600 + 2000)
    assert product == ["0", "matmul", "100x30 30x20", "100x20", "10.0", "10.0 to 20.0", f"{10e3 / 3000:.3g}",
                       f"{moved / 10e3:.3g}", "12", f"{moved / 10e9 / 10e-6:.1%}"]
    assert activation[:6] == ["1", "tanh", "100x20", "100x20", "1.0", "1.0 to 2.0"]
    assert whole[:2] == ["2 launches", "11.0"]
    assert whole[-1] == f"{(moved + 16_000) / 10e9 / 11e-6:.1%}"
    assert len({len(line) for line in lines[:4]}) == 1
    for part in ("medians of 3 rounds", "lower is better", "higher is better", "roofline", str(PEAKS)):
        assert part in text


def test_an_empty_profile_prints():
    with tv.Tape() as tape:
        pass
    assert profile(tape, 2) == []
    assert "0 launches" in str(profile(tape, 2))


def test_nan_is_no_share():
    with pytest.raises(ValueError, match="expected a finite number"):
        PEAKS.least_seconds(math.nan, 1)
