"""The table of models: a contestant that trains to another loss is not timed, and the rows say what was asked."""

import importlib
import json
from contextlib import contextmanager

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import models, parts, workers


class Same(models.Ours):
    """A contestant that does what it should."""


class WithoutKl(models.Ours):
    """A contestant whose loss lacks a tenth."""

    def losses(self, count):
        return [0.9 * loss for loss in super().losses(count)]


class Here:
    """A worker without a process, whose turns all take as many seconds as its class says."""

    def __init__(self, contestant, seconds):
        self.contestant, self.seconds = contestant, seconds

    def ask(self, method, *arguments):
        if method == "timed":
            getattr(self.contestant, arguments[0])()
            return arguments[1] * self.seconds
        return getattr(self.contestant, method)(*arguments)


@pytest.fixture
def one_case(monkeypatch):
    """Measure M2 alone, in this process, beside a contestant in the place of Pyro."""

    def put(peer):
        @contextmanager
        def team(places, case):
            assert list(places) == [models.OURS, models.VAE, models.PYRO]
            kinds = {models.OURS: (models.Ours, 0.08), models.VAE: (models.Plain, 0.01), models.PYRO: (peer, 0.16)}
            yield {name: Here(kind(case), seconds) for name, (kind, seconds) in kinds.items()}

        monkeypatch.setattr(workers, "team", team)
        monkeypatch.setattr(models, "PACKAGE", "numpy")  # one that is installed
        monkeypatch.setattr(models, "SMALL", models.SMALL[:1])

    return put


def test_the_rows_are_seconds_a_pass_and_ratios(one_case, tmp_path):
    one_case(Same)
    parts.measure([models.table_of(True)], True, tmp_path)
    ours, vae, pyro = json.loads((tmp_path / "models.json").read_text())["rows"]
    passes = 1497 / 50 / models.STEPS  # turns in a pass over the digits
    for row, seconds in ((ours, 0.08), (vae, 0.01), (pyro, 0.16)):
        assert row["seconds_a_pass"] == pytest.approx(seconds * passes)
    assert (ours["times_vae"], ours["reached"], pyro["times_our_time"], pyro["reached"]) == (
        pytest.approx(8), True, pytest.approx(2), False)


@pytest.mark.parametrize("case", models.SMALL, ids=str)
def test_pyro_trains_to_the_same_loss(case):
    pytest.importorskip("pyro", reason="optional: pyro-ppl is not installed")
    contestant = getattr(importlib.import_module("benchmarks.peer_pyro"), case.model.upper())(case)
    models.check(case, {models.OURS: Here(models.Ours(case), 1), models.PYRO: Here(contestant, 1)})
    contestant.some()
    assert contestant.about()["pyro"]


def test_another_loss_is_refused(one_case, tmp_path):
    one_case(WithoutKl)
    with pytest.raises(SystemExit, match=r"m2: Pyro trains to a loss of .* nothing was timed"):
        parts.measure([models.table_of(True)], True, tmp_path)
