"""What other processes use: the work of the machine without our own."""

import os

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import others


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine whose clocks are set by hand: the lines of /proc/stat, our own seconds, and the time."""
    stat, now = tmp_path / "stat", {"own": 0.0, "time": 0.0}
    monkeypatch.setattr(others, "STAT", stat)
    monkeypatch.setattr(others, "own_seconds", lambda: now["own"])
    monkeypatch.setattr(others.time, "perf_counter", lambda: now["time"])
    ticks = os.sysconf("SC_CLK_TCK")

    def set_to(time, own, **columns):
        names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
        stat.write_text(f"cpu  {' '.join(str(int(ticks * columns.get(name, 0))) for name in names)}\ncpu0 1 2 3\n")
        now.update(own=own, time=time)

    return set_to


@pytest.mark.parametrize(("columns", "cores"), [
    ({"user": 4}, 0.0), ({"user": 9}, 0.5), ({"user": 4, "steal": 10}, 1.0), ({"nice": 3, "system": 4}, 0.3),
    ({"user": 4, "idle": 100, "iowait": 9}, 0.0), ({"user": 5, "guest": 5}, 0.1), ({"irq": 3, "softirq": 2}, 0.1),
])  # fmt: skip
def test_others_are_the_rest(machine, columns, cores):
    """In ten seconds we work for four; idle time is nobody's, a guest's time is in the user's already."""
    machine(100.0, 7.0)
    with others.Watch() as watch:
        machine(110.0, 11.0, **columns)
    assert abs(watch.cores - cores) <= 1e-9
    assert watch.marks == {"others_cores": watch.cores, "busy": watch.cores > others.BUSY}


def test_where_it_is_not_known_nothing_is_marked(monkeypatch, tmp_path):
    monkeypatch.setattr(others, "STAT", tmp_path / "missing")
    with others.Watch() as watch:
        pass
    assert watch.marks == {"others_cores": None, "busy": None}


def test_our_own_seconds_grow_while_we_work():
    begin = others.own_seconds()
    while others.own_seconds() - begin < 0.05:
        sum(range(1000))
