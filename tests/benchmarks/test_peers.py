"""The peers' benchmark: whoever does not do the same step is not timed, and who takes part is timed in turn."""

import importlib.util
import json
import math
import multiprocessing
import time

import contestants
import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import nets, parts, peers, workers
from benchmarks.peer_tinyvae import Replayed

FIXED, DYNAMIC = nets.Net(16, 8, 2, 50), nets.Net(16, 8, 2, 50, dynamic=True)


class Here:
    """A worker without a process."""

    def __init__(self, contestant):
        self.contestant = contestant

    def ask(self, method, *arguments):
        return getattr(self.contestant, method)(*arguments)


def team(net, peer):
    return {peers.OURS: Here(Replayed(net)), "peer": Here(peer(net))}


@pytest.mark.parametrize("net", [FIXED, DYNAMIC], ids=str)
def test_the_same_step_passes(net):
    peers.check(net, team(net, contestants.Honest))


@pytest.mark.parametrize(("peer", "message"), [
    (contestants.SteepGradient, "differs from tinyvae in the gradient by encoder.0.weight"),
    (contestants.OtherLoss, "has a loss of"),
    (contestants.NoNumber, "has a loss of nan"),
    (contestants.Undrawn, "expected bits"),
    (contestants.Bright, "draws its pixels wrongly"),
    (contestants.OtherRows, "does not gather the first batch"),
    (contestants.Narrow, "draws normals of mean"),
    (contestants.Hasty, "trains to a loss of"),
    (contestants.Backward, "does not train"),
], ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
def test_another_step_is_refused(peer, message):
    """Each contestant is wrong in one way; the check says which, in a sentence."""
    with pytest.raises(SystemExit, match=message) as refusal:
        peers.check(DYNAMIC, team(DYNAMIC, peer))
    assert "nothing was timed" in str(refusal.value)


def test_other_rows_are_noticed_among_fixed_bits_too():
    with pytest.raises(SystemExit, match="does not gather the first batch"):
        peers.check(FIXED, team(FIXED, contestants.OtherRows))


def test_the_reference_is_a_replayed_step_from_the_first_weights():
    """What peers are held against comes from the program that is timed, whatever ran before."""
    ours, calls = Replayed(DYNAMIC), []
    replay = ours.tape.replay
    ours.tape.replay = lambda: (calls.append(1), replay())
    before = ours.reference()
    assert ours.losses(5)[0] == before["loss"]
    again = ours.reference()
    assert (again["loss"], again["x"].tobytes()) == (before["loss"], before["x"].tobytes())
    assert len(calls) == 7


# ---- the table -------------------------------------------------------------------------------------------------------


def only(monkeypatch, **places):
    monkeypatch.setattr(peers, "PEERS", {name: ("numpy", place) for name, place in places.items()})
    monkeypatch.setattr(nets, "chosen", lambda quick: [DYNAMIC])


def test_table_and_plot(monkeypatch, tmp_path, capsys):
    """A row a contestant with finite positive numbers, in processes of their own; no process stays behind."""
    only(monkeypatch, honest="contestants:Honest")
    parts.measure([peers.table_of(True)], True, tmp_path)
    content = json.loads((tmp_path / "peers.json").read_text())
    assert [row["step"] for row in content["rows"]] == ["products alone", "tinyvae", "honest"]
    for row in content["rows"]:
        for key in ("microseconds", "lower_quartile", "upper_quartile", "images_per_second", "share_of_floor",
                    "times_our_time"):
            assert 0 < row[key] < math.inf, (key, row)
        assert row["lower_quartile"] <= row["microseconds"] <= row["upper_quartile"]
    assert content["rows"][1]["times_our_time"] == content["rows"][0]["share_of_floor"] == 1
    assert content["contestants"]["honest"] == {"generator": "PCG64"}
    assert "honest" in (tmp_path / "peers.svg").read_text()
    out = capsys.readouterr().out
    assert "higher is better" in out or "above 1 tinyvae is faster" in out
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("peer", "message"), [
    ("SteepGradient", "in the gradient by"), ("Broken", "RuntimeError: out of luck"), ("Dead", "without an answer"),
    ("Missing", "AttributeError"),
])  # fmt: skip
def test_a_wrong_peer_is_recorded_and_nothing_of_its_net_is_timed(monkeypatch, tmp_path, peer, message):
    only(monkeypatch, wrong=f"contestants:{peer}")
    monkeypatch.setattr(workers, "measure", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(SystemExit, match=message):
        parts.measure([peers.table_of(True)], True, tmp_path)
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    assert (file.name, "rows" in content, list(content["faults"])) == ("peers.unfinished.json", False, [str(DYNAMIC)])
    assert not multiprocessing.active_children()


def test_who_is_not_installed_is_named(monkeypatch, tmp_path, capsys):
    """Without JAX and PyTorch there is a line on each, and a table of us alone."""
    only(monkeypatch)
    monkeypatch.setattr(peers, "PEERS", {"JAX": ("no_such_package", "benchmarks.peer_jax:Scan")})
    parts.measure([peers.table_of(True)], True, tmp_path)
    assert "JAX is left out: no_such_package is not installed" in capsys.readouterr().out
    rows = json.loads((tmp_path / "peers.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ["products alone", "tinyvae"]


def test_rounds_alternate(monkeypatch):
    """Each contestant begins in its turn, is asked alone, and rests before."""
    asked, times = [], {"a": 0.25, "b": 1.0}

    class Counting:
        def __init__(self, name):
            self.name = name

        def ask(self, method, what, calls):
            asked.append(f"{self.name}{calls}")
            return times[self.name] * calls

    monkeypatch.setattr(time, "sleep", lambda seconds: asked.append("."))
    turns = {name: (Counting(name), "epoch") for name in "ab"}
    steps = nets.steps_an_epoch(FIXED)
    found = workers.measure(turns, steps, 3, least=0.5, pause=0.1)
    assert "".join(asked) == "a1a1b1b1" + ".a2.b1" + ".b1.a2" + ".a2.b1"
    assert found["a"].seconds == (0.25 / steps,) * 3
    assert found["a"].times_faster_than(found["b"]) == 4


def test_a_worker_tells_the_time():
    with workers.team({"clock": "contestants:Clock"}, FIXED) as team:
        assert 0.03 <= team["clock"].ask("timed", "epoch", 3) < 3


@pytest.mark.parametrize("name", [name for name in peers.PEERS if name not in peers.SLOW_TO_START])
def test_real_peers_do_the_same_step(name):
    package, place = peers.PEERS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"optional: {package} is not installed")
    places = {peers.OURS: "benchmarks.peer_tinyvae:Replayed", name: place}
    with workers.team(places, DYNAMIC, device="cpu") as team:  # as it is by default
        peers.check(DYNAMIC, team)
