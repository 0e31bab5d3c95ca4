"""The GPU's benchmark on a GPU that is not there: each part runs at tiny sizes, and what is wrong is not timed."""

import json
import math

import contestants
import numpy as np
import pytest
from cuda_on_cpu import card, fake_cupy, host
from small_gpu import made_up
from typer.testing import CliRunner

import tinyvae as tv

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import __main__ as command
from benchmarks import (
    cases,
    gpu,
    gpu_clock,
    gpu_compare,
    gpu_kernels,
    gpu_peers,
    gpu_steps,
    kernels,
    parts,
    peers,
    workers,
)
from tinyvae.engine.devices import namespace, require_cuda

pytestmark = [
    pytest.mark.skipif(host.compiler() is None, reason=host.NO_COMPILER),
    pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only: a card has the benchmark itself"),
]
PEAK = gpu_clock.Peaks(1000.0, 50.0, 300.0)


def finite(rows, *keys):
    assert rows
    assert all(0 < row[key] < math.inf for row in rows for key in keys), rows


def test_all_parts_are_checked_and_written(small, tmp_path, capsys):
    small["honest"] = contestants.Honest
    parts.measure([gpu.table_of(True)], True, tmp_path)
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["case"] for row in content["kernels"]] == ["gaussian_sample_kl", "next_indices", "tick"]
    assert [row["case"] for row in content["large"]] == ["gaussian_sample_kl"]
    finite(content["kernels"], "gpu_microseconds", "cpu_microseconds", "share_of_copy", "gigabytes_per_second")
    finite(content["large"], "gpu_microseconds", "share_of_copy", "numbers")
    assert [row["precision"] for row in content["rows"]] == ["float32", "TF32"]
    finite(content["rows"], "gpu_microseconds", "fit_microseconds", "cpu_microseconds", "teraflops",
           "share_of_products", "gradient_error")
    exact, rounded = content["rows"]
    assert 20 < exact["kernels"] == rounded["kernels"] < 45
    forms = [row["form"] for name in ("rows", "kernels", "large") for row in content[name]]
    assert {*forms, content["contestants"]["tinyvae"]["form"]} == {"1 graph"}
    assert exact["gradient_error"] < 1e-5 < rounded["gradient_error"] < 0.2
    assert [row["step"] for row in content["peers"]] == ["products alone", "tinyvae", "honest"]
    finite(content["peers"], "microseconds", "share_of_floor", "steps_per_second", "times_our_time")
    assert [(v["batch"], v["best"], v["target"]) for v in content["targets"]] == [(50, "honest", 1.5)]
    assert content["card"]["name"] == "no GPU at all"
    assert "compare" not in content
    assert "no GPU at all" in (tmp_path / "gpu.svg").read_text()
    assert "times the steps/s of the best peer (honest), target at least 1.5" in capsys.readouterr().out
    assert require_cuda()._core.get_compute_type(np.float32) == 1, "the array library was left with TF32"


# ---- kernels ---------------------------------------------------------------------------------------------------------


def test_a_wrong_kernel_is_not_timed(small, driver, monkeypatch, tmp_path):
    right = driver.module
    wrong = lambda code, options: right(code.replace("exp_remainder(logvar))", "1 + exp_remainder(logvar))"), options)
    monkeypatch.setattr(driver, "module", wrong)
    with pytest.raises(SystemExit, match=r"gaussian_sample_kl.*nothing was timed"):
        parts.measure([gpu.table_of(True)], True, tmp_path)
    content = json.loads((tmp_path / "gpu.unfinished.json").read_text())
    assert [row["case"] for row in content["kernels"]] == ["next_indices", "tick"]
    assert set(content["faults"]) == {"kernel, gaussian_sample_kl", "2,000 numbers, gaussian_sample_kl",
                                      "step, batch 50"}


def test_every_large_case_is_its_twin(driver):
    """The twin on the device, in float64; and the cases hold as many numbers as they were asked to."""
    xp, seen = namespace("cuda"), set()
    for case in cases.large(3200):
        recorded = kernels.record(case, kernels.KERNEL, np.dtype(np.float32), xp)
        expected = kernels.record(case, kernels.TWIN, np.dtype(np.float64), xp).results
        gpu_kernels.check(case, kernels.replayed(case, recorded), expected, kernels.BOUNDS[case.operation])
        assert 1500 < max(a.size for a in (*recorded.inputs, *recorded.results)) <= 3200, case
        seen.add(case.operation)
    assert len(seen) == 20


def test_not_a_number_is_wrong(driver):
    case = next(cases.large(2000))
    nan = namespace("cuda").asarray(np.array([1.0, np.nan]))
    with pytest.raises(SystemExit, match="inf rounding units"):
        gpu_kernels.check(case, [nan], [namespace("cuda").asarray(np.ones(2))], 1e9)


def test_a_twin_is_not_timed_as_a_kernel(driver):
    case = next(cases.large(2000))
    recorded = kernels.record(case, kernels.TWIN, np.dtype(np.float32), namespace("cuda"))
    with pytest.raises(SystemExit, match="its kernel did not run"):
        gpu_clock.of_launches(recorded.tape.working())


def test_what_was_not_captured_is_not_called_a_graph(small, monkeypatch, capsys):
    """A step, a kernel and our step beside the peers, whose capture fails, are labelled as launches."""
    def fail(self):
        fake_cupy.Stream.capturing = None
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(fake_cupy.Stream, "end_capture", fail)
    content = {"peaks": PEAK._asdict()}
    found = gpu.table_of(True).parts
    for name in ("kernel, tick", "step, batch 50", "peers, batch 50, float32"):
        with pytest.warns(RuntimeWarning, match="could not be captured"):
            content |= found[name](content)
    launches = f"{content['rows'][0]['kernels']} launches"
    assert [row["form"] for row in content["rows"]] == [launches] * 2
    assert content["contestants"]["tinyvae"]["form"] == launches
    assert content["kernels"][0]["form"] == "2 launches"
    gpu_steps.show(content)
    assert launches in capsys.readouterr().out


def test_a_form_counts_graphs_and_launches():
    def program(captured, jobs=3):
        found = gpu_clock.Program([])
        found.jobs, found._run = (None,) * jobs, print if captured else found._run
        return found

    for calls, expected in (([program(True)], "1 graph"), ([program(False)], "3 launches"), ([], ""),
                            ([program(True), print, program(True), program(False, 1)], "2 graphs, 2 launches"),
                            ([print], "1 launch")):  # fmt: skip
        assert gpu_clock.form(calls) == expected


def test_peaks_are_of_random_numbers(small, monkeypatch):
    """Zeros need less power, so that a card multiplies them faster than any data."""
    seen, xp = [], namespace("cuda")
    matmul = xp.matmul
    monkeypatch.setattr(xp, "matmul", lambda a, b, out: seen.append((a.get(), b.get())) or matmul(a, b, out=out))
    gpu_clock.peaks()
    for a, b in seen:
        assert min(a.std(), b.std()) > 0.5


# ---- steps -----------------------------------------------------------------------------------------------------------


def test_a_step_that_differs_from_the_cpus_is_not_timed(small, monkeypatch):
    begin = gpu_steps.begin

    def other(net, device, tf32=False):
        found = begin(net, device, tf32)
        return found._replace(losses=found.losses * (1 + 1e-3 * (device == "cuda")))

    monkeypatch.setattr(gpu_steps, "begin", other)
    with pytest.raises(SystemExit, match=r"the losses of the first steps differ by 0\.001 from those of the CPU"):
        gpu_steps.parts((50,), 1)["step, batch 50"]({})


@pytest.mark.parametrize("bad", [np.nan, 1.3])
def test_a_wrong_gradient_is_not_timed(bad):
    right = gpu_steps.Begun(None, np.ones(2), {"w": np.ones(3)})
    with pytest.raises(SystemExit, match=r"TF32: the gradients of the first steps differ.*from those of float32"):
        gpu_steps.compare(gpu_steps.NET, "TF32", right._replace(gradients={"w": np.array([1, bad, 1])}), right)


# ---- peers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peer", "message"), [
    (contestants.SteepGradient, "in the gradient by encoder.0.weight"), (contestants.OtherRows, "first batch"),
    (contestants.Backward, "does not train"),
])  # fmt: skip
def test_a_wrong_peer_is_refused(small, monkeypatch, peer, message):
    small["wrong"] = peer
    monkeypatch.setattr(workers, "measure", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(SystemExit, match=message):
        gpu_peers.parts(True, 1)["peers, batch 50, float32"]({})


def test_who_sees_no_gpu_is_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu_peers, "PEERS", {
        "blind": ("numpy", "a:B", "raise RuntimeError('no card')"), "sees": ("numpy", "c:D", "pass"),
        "absent": ("no_such_package", "e:F", "pass"), gpu_peers.GRAPH: ("numpy", "g:H", "pass"),
    })  # fmt: skip
    assert gpu_peers.installed(True) == {"sees": "c:D"}
    out = capsys.readouterr().out
    assert "blind is left out: it cannot use this GPU (RuntimeError: no card)" in out
    assert "absent is left out: no_such_package is not installed" in out
    assert f"{gpu_peers.GRAPH} is left out of a quick run" in out


def test_the_best_peer_is_who_counts():
    rows = [{"batch": 100, "precision": "TF32", "step": name, "microseconds": us, "times_our_time": us / 40}
            for name, us in (("products alone", 20), ("tinyvae", 40), ("torch, eager", 10), ("JAX, scan", 80),
                             ("torch.compile, graph", 56))]  # fmt: skip
    (found,) = gpu_peers.verdicts(rows)
    assert (found["best"], found["times"], found["reached"]) == ("torch.compile, graph", 1.4, False)
    assert not gpu_peers.verdicts(rows[:3])


def test_an_epoch_has_the_steps_that_are_compared():
    for batch in gpu_peers.TARGETS:
        net = gpu_peers.net_of(batch)
        assert net.rows // batch >= peers.STEPS


# ---- training --------------------------------------------------------------------------------------------------------


def compared():
    """What the parts of all seeds say together; it is printed, too."""
    content = {}
    for part in gpu_compare.parts(made_up()).values():
        for name, value in part(content).items():
            content[name] = [*content.get(name, []), *value] if isinstance(value, list) else value
    gpu_compare.show(content)
    return gpu_compare.summary(content)


def test_a_net_is_trained_here_and_there(small, capsys):
    found = compared()
    assert [row["seed"] for row in found["rows"]] == [0, 1]
    assert len({row["cpu_nats"] for row in found["rows"]}) == 2
    assert found["each_near"]
    assert found["same_gradient"]
    assert 0 < found["gradient_error"] <= 1e-5
    out = capsys.readouterr().out
    assert "lower is better" in out
    assert "is within 0.3 nats" in out


def test_runs_that_differ_are_said_to(small, monkeypatch, capsys):
    monkeypatch.setattr(gpu_compare, "trained", lambda data, device, seed, folder: seed + 2.0 * (device == "cuda"))
    monkeypatch.setattr(gpu_compare, "gradient_error", lambda *_: math.nan)
    found = compared()
    assert not any(found[what] for what in ("by_chance", "each_near", "same_gradient"))
    assert capsys.readouterr().out.count("is NOT within") == 3


def test_data_that_are_not_there_are_one_sentence(monkeypatch, capsys):
    def missing(name):
        raise tv.DataError("digits come with scikit-learn, which is not installed")

    monkeypatch.setattr(tv.data, "load", missing)
    assert gpu_compare.data_set(None) is None
    assert "training on CPU and GPU is not compared: digits come with scikit-learn" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--compare mnist: digits come"):
        gpu_compare.data_set("mnist")


def test_a_quick_run_trains_nothing(driver, tmp_path):
    done = CliRunner().invoke(command.app, ["gpu", "--quick", "--compare", "digits-dynamic", "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert "leave --quick out" in done.output
