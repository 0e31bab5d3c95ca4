"""`tinyvae bench`: checked first, timed second, every number with its unit. No time decides here."""

import json
import math
import re
import sys
import warnings

import numpy as np
import pytest

from tinyvae import progress
from tinyvae.cli import main as cli
from tinyvae.engine.tape import TapeError
from tinyvae.measure import bench, hardware, profiles, timing
from tinyvae.measure.hardware import Level, Peaks
from tinyvae.runs import environment

TINY = bench.Net(12, (6, 5), 2, 10)
PEAKS = Peaks((Level(2**27, 10.0),), {"float32": 100.0, "float64": 50.0}, 2, 5)


@pytest.fixture(autouse=True)
def _known_peaks(monkeypatch):
    monkeypatch.setattr(hardware, "peaks", lambda: PEAKS)


@pytest.fixture(scope="module")
def seen():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "peaks", lambda: PEAKS)
        return bench.look(TINY, steps=25, rounds=3, least=1e-4)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_the_stages_and_a_file_none(terminal, monkeypatch, capsys):
    """A person sees within the first second what is measured; a file receives the page alone."""
    monkeypatch.setattr(progress, "is_interactive", lambda: terminal)
    bench.look(TINY, steps=2, rounds=1, least=1e-5)
    stages = capsys.readouterr().err.splitlines()
    assert [line[-12:] for line in stages] == [f", {n} of 4 ..." for n in (1, 2, 3, 4)] * terminal


def test_every_number_has_its_unit(seen):
    """The page: machine, BLAS, peaks, what was checked, the step, the launches; units, directions, rounds."""
    text = str(seen)
    for part in (environment.cpu_model(), "BLAS", "GB/s", "GFLOP/s", str(PEAKS), "12-6-5-2, batch 10, float32",
                 "same bits in each of 25 steps", "medians of 3 rounds", "medians of 6 rounds", "us: lower is better",
                 "images/s: higher is better", "roofline", "binarised_rows", "adam"):
        assert part in text
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("step "))
    assert re.split(r"\s{2,}", head) == ["step", "us", "quartiles", "images/s", "floor/step"]
    place = lines.index(head)
    names = [re.split(r"\s{2,}", line)[0] for line in lines[place + 1 : place + 5]]
    assert names == [bench.TWINS, bench.KERNELS, bench.REPLAYED, bench.FLOOR]


def test_rows_are_ready_for_json(seen):
    rows = json.loads(json.dumps(seen.rows()))
    assert [row["step"] for row in rows] == [bench.TWINS, bench.KERNELS, bench.REPLAYED, bench.FLOOR]
    for row in rows:
        assert (row["net"], row["batch"], row["rounds"]) == ("12-6-5-2", 10, 3)
        assert all(0 < row[name] < math.inf for name in ("microseconds", "images_per_second", "share_of_floor"))
        assert row["lower_quartile"] <= row["microseconds"] <= row["upper_quartile"]
        assert row["images_per_second"] == pytest.approx(10 / row["microseconds"] * 1e6)
    assert rows[-1]["share_of_floor"] == 1


def test_a_busy_machine_is_said_to_be_one(seen):
    """Products that take longer alone than in a step: another process had the processors."""
    def look(products, step):
        times = {bench.REPLAYED: timing.Timing("", (step,) * 3, 1), bench.FLOOR: timing.Timing("", (products,) * 3, 1)}
        return bench.Look(TINY, PEAKS, 25, 11, times, seen.profile)

    assert look(1.1, 1.0).disturbed() == ""
    assert "the products alone took 30.0 times as long as a step" in str(look(30.0, 1.0))


def test_the_profile_is_of_the_replayed_step(seen):
    assert isinstance(seen.profile, profiles.Profile)
    assert "adam" in [launch.rule.name for launch, _ in seen.profile]


def test_the_floor_is_all_products():
    """Forward, by the input and by the weights for each layer, but nobody asks for the pixels' gradient; by NumPy."""
    launches = bench.products(TINY)
    layers = 2 * (len(TINY.hidden) + 1)
    assert len(launches) == 3 * layers - 1
    for launch in launches:
        launch.outputs[0][...] = np.nan
    bench.in_turn(launches)()
    for launch in launches:
        a, b = (tensor.data for tensor in launch.inputs)
        assert launch.outputs[0].tobytes() == np.matmul(a, b).tobytes()


def test_a_candidate_can_be_repeated_for_ever():
    """More often than the epoch has steps, and each run is a step: the parameters move and stay finite."""
    found, ready, tape = bench.candidates(TINY)
    assert list(found) == [bench.TWINS, bench.KERNELS, bench.REPLAYED]
    assert tape.working()
    before = ready.model.parameters.flat.copy()
    for step in found.values():
        for _ in range(bench.STEPS + 3):
            step()
    assert ready.counters[0] == bench.STEPS + 4  # the recording is a step, too
    assert (before != ready.model.parameters.flat).any()
    assert np.isfinite(ready.model.parameters.flat).all()


def crooked():
    """A maker of trainings of which the second learns at twice the rate."""
    honest, made = bench.training, []

    def make(net):
        made.append(honest(net))
        if len(made) == 2:
            made[1].batches.plan[:, 0] *= 2
        return made[-1]

    return make


def test_a_step_that_differs_is_refused_and_not_timed(monkeypatch):
    bench.check_replay(bench.training, TINY, 3)
    monkeypatch.setattr(bench, "training", crooked())
    monkeypatch.setattr(timing, "measure", lambda *_, **__: pytest.fail("was timed"))
    with pytest.raises(TapeError, match=r"step 1: replay and eager differ in parameters; nothing was timed"):
        bench.look(TINY)


def program(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["tinyvae", "bench", *map(str, words)])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench, "look", lambda net: asked.append(net) or "a page")
    assert program(monkeypatch, capsys)[:2] == (0, "a page\n")
    assert program(monkeypatch, capsys, "--pixels", 64, "--hidden", "30,20", "--latent", 3, "--batch", 7)[0] == 0
    assert asked == [bench.Net(784, (400,), 20, 128), bench.Net(64, (30, 20), 3, 7)]


@pytest.mark.parametrize(("words", "part"), [
    (["--pixels", 0], "at least 1"), (["--batch", 0], "batch=0"), (["--latent", -1], "at least 1"),
    (["--hidden", "9x9"], "one whole number or several"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(words, part, monkeypatch, capsys):
    code, out, err = program(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("tinyvae: ")
    assert part in err
    assert len(err.splitlines()) == 1


def test_a_step_that_differs_is_one_sentence_too(monkeypatch, capsys):
    monkeypatch.setattr(bench, "training", crooked())
    code, out, _ = program(monkeypatch, capsys, "--pixels", 12, "--hidden", 6, "--latent", 2, "--batch", 10)
    assert "step 1: replay and eager differ" in str(code)
    assert out == ""
