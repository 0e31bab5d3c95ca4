"""The benchmarks run in their quick form, and refuse to time what is wrong."""

import importlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tinyvae.runs import environment

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import nets, parts, plots, reproduce, start, step

ROOT = Path(__file__).resolve().parents[2]
TINY = nets.Net(16, 8, 2, 10)


def run(*words):
    command = [sys.executable, "-m", "benchmarks", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_reproductions_run_in_their_quick_form(tmp_path):
    """Every reproduction writes its rows; a quick one is marked as such and claims nothing."""
    done = run("reproduce", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in reproduce.NAMES:
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert content["quick"] is True
        assert content["rows"]
        assert all(abs(row["value"]) < 1e4 for row in content["rows"])  # NaN fails
        assert content["environment"]["blas"]["kernel"]


@pytest.mark.parametrize(("elbos", "reached"), [
    ({3: -105.0, 10: -102.0, 20: -101.0, 200: -101.5}, [True, True, True, True]),
    ({3: -105.0, 10: -106.0, 20: -107.0, 200: -101.5}, [False, False, False, True]),
    ({3: math.nan, 10: -102.0, 20: -101.0, 200: math.nan}, [False, False, True, False])])  # fmt: skip
def test_more_latents_are_claimed_to_be_better(monkeypatch, tmp_path, elbos, reached):
    """And 3 worse than 10; a number that is none reaches nothing."""
    def trained(name, model, *_, **__):
        found = {"data": "made-up", "test_elbo": elbos[model["latent"]], "test_elbo_stderr": 0.1, "test_data_count": 9,
                 "epoch": 17}
        return [found], 1.0

    monkeypatch.setattr(reproduce, "_train", trained)
    content = {}
    for part in reproduce.aevb_latents(False).values():
        content["rows"] = [*content.get("rows", []), *part(content).get("rows", [])]
    assert [row["reached"] for row in content["rows"]] == reached


def test_unknown_reproduction_names_the_known_ones(tmp_path):
    done = run("reproduce", "nonsense", "--out", tmp_path)
    assert done.returncode != 0
    assert "aevb-latents" in done.stderr


# ---- a step and its floor --------------------------------------------------------------------------------------------


def finite(rows, *more):
    """Every measured number is there, positive and finite."""
    keys = ("microseconds", "lower_quartile", "upper_quartile", "images_per_second", "share_of_floor", *more)
    assert rows
    assert all(0 < row[key] < math.inf for row in rows for key in keys), rows
    assert all(row["lower_quartile"] <= row["microseconds"] <= row["upper_quartile"] for row in rows)


def test_step_is_checked_and_timed(tmp_path):
    """The quick form writes a row a candidate, for fixed and for drawn pixels, and a plot."""
    done = run("step", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "step.json").read_text())
    rows = content["rows"]
    names = ["products alone", "replayed", "eager, kernels", "eager, twins"]
    assert [(row["pixels"], row["step"]) for row in rows] == [(p, n) for p in ("fixed", "dynamic") for n in names]
    finite(rows, "steps_with_equal_bits")
    assert content["quick"] is True
    assert "lower is better" in done.stdout
    assert (tmp_path / "step.svg").stat().st_size > 1000


def test_sweep_is_timed(tmp_path):
    done = run("sweep", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    finite(rows, "microseconds_an_image")
    for by in ("batch", "hidden"):
        sizes = [row[by] for row in rows if row["sweep"] == by and row["step"] == "replayed"]
        assert len(sizes) > 1
        assert sizes == sorted(set(sizes))
    assert (tmp_path / "sweep.svg").stat().st_size > 1000


def test_a_step_that_differs_is_not_timed(monkeypatch):
    """The check before the timing can fail: an eager step that trains on another rate leaves other bits."""
    honest, made = nets.training, []

    def crooked(net):
        made.append(honest(net))
        if len(made) == 2:
            made[1].batches.plan[:, 0] *= 2
        return made[-1]

    monkeypatch.setattr(nets, "training", crooked)
    with pytest.raises(SystemExit, match="replay and eager differ in parameters; nothing was timed"):
        step.check_bits(TINY, 3)


@pytest.mark.parametrize("net", [TINY, replace(TINY, dynamic=True)], ids=str)
def test_the_floor_is_the_products_of_the_step(net):
    """It leaves each product's result in the step's own arrays, and refuses a tape that lacks one."""
    with nets.dense():
        _, step_once, tape = nets.replayed(net)
    launches = [launch for launch in tape.working() if launch.rule.name == "matmul"]
    step_once()
    assert len(launches) == 11
    expected = [np.matmul(*(tensor.data for tensor in launch.inputs)) for launch in launches]
    for launch in launches:
        launch.outputs[0][...] = np.nan
    nets.floor(net, tape)()
    last = {id(launch.outputs[0]): i for i, launch in enumerate(launches)}
    assert all((launches[i].outputs[0] == expected[i]).all() for i in last.values())
    tape.launches.remove(launches[3])
    with pytest.raises(SystemExit, match="not its floor"):
        nets.floor(net, tape)


def test_epochs_follow_one_another():
    """The step goes through all full batches and begins anew: 20,000 rows are 666 batches of 30 and some rows."""
    net = nets.Net(4, 3, 2, 30)
    ready, step_once, _ = nets.replayed(net)
    for _ in range(700):
        step_once()
    assert nets.steps_an_epoch(net) == 666
    assert ready.counters.tolist() == [703, (703 - 666) * 30, 703 - 666]


def test_pixels():
    """Fixed ones are bits; dynamic ones stay grey; both are dark and dense, and the same each time."""
    fixed, dynamic = (nets.data_set(replace(TINY, dynamic=dynamic)) for dynamic in (False, True))
    assert (fixed.pixels, fixed.scale, np.unique(fixed.train).tolist()) == ("static", 1, [0, 1])
    assert (dynamic.pixels, dynamic.scale) == ("dynamic", 255)
    assert abs(fixed.train.mean() - 0.25) < 0.01
    assert abs(dynamic.train.mean() / 255 - 0.25) < 0.01


def test_missing_mnist_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TINYVAE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = nets.chosen(quick=False)
    assert "MNIST was not found" in capsys.readouterr().out
    assert len(found) == 2 * (len(nets.SIZES) - 1)
    assert nets.MNIST not in {net.data for net in found}


# ---- plots -----------------------------------------------------------------------------------------------------------


def a_row(name, microseconds, **more):
    return {**TINY.as_dict(), "step": name, "microseconds": microseconds, "lower_quartile": 0.9 * microseconds,
            "upper_quartile": 1.2 * microseconds, "rounds": 7, "share_of_floor": 100 / microseconds, **more}


@pytest.mark.parametrize("name", ["step", "peers", "sweep"])
def test_plots(name, tmp_path):
    """From a results file alone: what is shown, its unit and direction, and the same bytes each time."""
    times = {"products alone": 100.0, "replayed": 250.0, "another one": 1234.0}
    if name == "sweep":
        rows = [a_row(step, us, sweep=by, hidden=8 * i, batch=10 * i, microseconds_an_image=us / (10 * i))
                for by in ("batch", "hidden") for i in (1, 2) for step, us in times.items()]
    else:
        rows = [a_row(step, us, pixels=pixels) for pixels in ("fixed", "dynamic") for step, us in times.items()]
    content = {"rows": rows, "quick": False, "environment": environment.environment()}
    drawn = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"{name}.json"
        path.write_text(json.dumps(content))
        drawn.append(getattr(plots, name)(path).read_bytes())
    assert drawn[0] == drawn[1]
    text = drawn[0].decode()
    assert "lower is better" in text
    assert "7 rounds" in text
    assert ("us an image" if name == "sweep" else "1.23 ms") in text
    assert "replayed" in text
    assert "dc:date" not in text


# ---- the command -----------------------------------------------------------------------------------------------------


def test_without_a_command_all_tables_are_made(monkeypatch, tmp_path):
    """In their order, each with the options that were given."""
    main = importlib.import_module("benchmarks.__main__")
    assert list(main.MEASUREMENTS) == ["kernels", "step", "peers", "models", "sweep", "start"]
    monkeypatch.setattr(main, "measurements", lambda quick, *names: [
        parts.Table(name, {"all": lambda content: {"rows": [{"quick": quick}]}}, lambda content: None)
        for name in names])  # fmt: skip
    done = CliRunner().invoke(main.app, ["--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for name in main.MEASUREMENTS:
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert (content["name"], content["rows"][0]["quick"]) == (name, True)


def test_options_before_a_command_are_refused(tmp_path):
    """They would be ignored."""
    main = importlib.import_module("benchmarks.__main__")
    done = CliRunner().invoke(main.app, ["--quick", "step"])
    assert done.exit_code == 2
    assert "after the command" in done.output


IN_A_CACHE = """
import os, pathlib
kept = pathlib.Path(os.environ["NUMBA_CACHE_DIR"], "kept")
print(1.0 if kept.exists() else 2.0)
kept.touch()
"""


def test_the_first_step_is_timed_with_and_without_compiled_kernels(monkeypatch, tmp_path):
    """Two processes over one cache, which is empty at first; here they only look into it, and compile nothing."""
    monkeypatch.setattr(start, "STEP", IN_A_CACHE)
    parts.measure([start.table_of(True)], True, tmp_path)
    rows = json.loads((tmp_path / "start.json").read_text())["rows"]
    assert [(row["kernels"], row["seconds"]) for row in rows] == [("nothing compiled yet", 2), ("from the cache", 1)]


def test_the_first_step_is_a_step():
    """The program that is timed, over the kernels that these tests use."""
    assert 0 < start.first_step("") < math.inf
