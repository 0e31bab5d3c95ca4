"""The command line: what it prints, what it writes, and one sentence with exit code 2 for every mistake."""

import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import ROOT

import tinyvae as tv
from tinyvae import models
from tinyvae.cli import main as cli
from tinyvae.models import extensions
from tinyvae.runs import checkpoint, environment, log
from tinyvae.training.epochs import Training

SMALL = ["--hidden", "12", "--latent", "2", "--batch", "200"]
COMMANDS = ["train", "evaluate", "sample", "upscale", "reconstruct", "traverse", "interpolate", "manifold", "latents",
            "doctor", "bench"]
PICTURES = {"sample": {"samples.png"}, "reconstruct": {"reconstructions.png"},
            "traverse": {"traversal.png", "traversal.gif"}, "interpolate": {"interpolation.png", "interpolation.gif"},
            "manifold": {"manifold.png"}, "latents": {"latents.png"}}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run folder of the bundled digits, made by the program, and what it printed."""
    folder = tmp_path_factory.mktemp("digits")
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, "-m", "tinyvae", "train", "digits", "--out", folder / "run", "--epochs", "2", *SMALL],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


def assert_picture(file):
    with Image.open(file) as image:
        image.load()
        assert np.asarray(image.convert("L")).var() > 1, f"{file} is blank"
        if file.suffix == ".gif":
            assert image.n_frames > 1


def assert_sentence(result, *parts, code=2):
    """Exit code and one message on standard error, without a traceback and without a result."""
    found, out, err = result
    assert found == code, err
    assert "Traceback" not in err
    message = err.strip()
    assert message.startswith("tinyvae: ") or "Error" in message
    assert len([line for line in message.splitlines() if line.startswith("tinyvae: ")]) <= 1
    for part in parts:
        assert part in err, f"{part!r} is not in {err!r}"
    return out


# ---- train --------------------------------------------------------------------------------------------------------


def test_train_prints_a_line_an_epoch_and_fills_its_folder(digits):
    run, out = digits
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    records = log.read_lines(run / "metrics.jsonl")
    for line, record in zip(lines, records, strict=True):
        assert record["fingerprint"] in line
        assert f"test {record['test_elbo']:.2f}" in line
    assert "digits-dynamic: 1,497 training, 300 test data" in out
    assert "nats per datum" in out
    assert "\x1b" not in out  # no colours and no bar where nobody looks
    assert {"config.json", "last.safetensors", "best.safetensors", "metrics.jsonl", "timings.jsonl",
            "figures"} == set(os.listdir(run))


def test_the_first_run_shows_its_pictures(digits):
    files = list((digits[0] / "figures").iterdir())
    assert {file.name for file in files} == set().union(*PICTURES.values()) | {"curves.png"}
    for file in files:
        assert_picture(file)


def test_json_is_one_object_an_epoch(run):
    code, out, err = run("train", "--json", "--no-pictures", "--out", "r", "--epochs", 2, *SMALL)
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["epoch"] for r in records] == [1, 2]
    assert records == log.read_lines("r/metrics.jsonl")
    assert not os.path.exists("r/figures")


def test_the_options_reach_the_run(run):
    code, _, err = run(
        "train", "digits-static", "--no-pictures", "--out", "r", "--epochs", 1, "--batch", 300, "--hidden", "9,8",
        "--latent", 3, "--activation", "softplus", "--optimizer", "adagrad", "--lr", 0.02, "--schedule", "linear",
        "--bound", "elbo-a", "--samples", 2, "--beta", 0.5, "--warmup", 1, "--posterior", "gamma",
        "--estimator", "grep", "--baseline", "leave-one-out", "--clip", 9, "--shards", 2,
        "--weight-prior", "--data-mean-bias", "--on-nonfinite", "skip", "--validation", 50, "--patience", 3,
        "--seed", 4, "--dtype", "float64", "--init", "aevb", "--device", "cpu", "--exchange", "mpi")  # fmt: skip
    assert code == 0, err
    config = json.loads(Path("r/config.json").read_text())
    assert config["data"] == "digits-static"
    assert config["model"] == {
        "kind": "vae", "pixels": 64, "hidden": [9, 8], "latent": 3, "activation": "softplus", "likelihood": "bernoulli",
        "init": "aevb", "seed": 4, "dtype": "float64", "posterior": "gamma", "flow_steps": 0, "prior": "standard",
        "pseudo_inputs": 0, "learner": "aevb"}  # fmt: skip
    assert config["settings"] == {
        "epochs": 1, "batch": 300, "optimizer": "adagrad", "lr": 0.02, "schedule": "linear", "bound": "elbo-a",
        "samples": 2, "importance_samples": 1, "gradient": "path", "estimator": "grep", "baseline": "leave-one-out",
        "beta": 0.5, "warmup": 1, "free_bits": 0.0, "clip": 9, "weight_prior": True,
        "data_mean_bias": True, "on_nonfinite": "skip", "validation": 50, "labels": 0, "labelled_batch": 0,
        "shards": 2, "patience": 3, "seed": 4}  # fmt: skip


def test_the_importance_weighted_bound(run):
    code, out, err = run("train", "--no-pictures", "--out", "r", "--epochs", 1, "--validation", 50, "--bound", "iwae",
                         "--importance-samples", 7, "--samples", 2, "--gradient", "dreg", *SMALL)
    assert code == 0, err
    settings = json.loads(Path("r/config.json").read_text())["settings"]
    assert [settings[name] for name in ("bound", "importance_samples", "samples", "gradient")] == ["iwae", 7, 2, "dreg"]
    assert "L_7, the bound of iwae, in nats per datum (higher is better)" in out
    record = log.read_lines("r/metrics.jsonl")[0]
    line = next(line for line in out.splitlines() if line.startswith("epoch "))
    for part in ("train", "valid", "test"):
        assert f"{part} {record[f'{part}_bound']:.2f}" in line
        assert record[f"{part}_bound"] > record[f"{part}_elbo"]
    assert f"± {record['test_bound_stderr']:.2f}  (ELBO {record['test_elbo']:.2f}, reconstruction" in line


def test_folders_are_numbered_where_no_name_is_given(run):
    for _ in range(2):
        assert run("train", "--no-pictures", "--epochs", 0, *SMALL)[0] == 0
    assert sorted(os.listdir("runs")) == ["digits-dynamic", "digits-dynamic-2"]


def test_images_of_ones_own(run, tmp_path):
    np.save("mine.npy", np.random.default_rng(0).random((30, 5, 4), np.float32))
    code, out, err = run("train", "mine.npy", "--epochs", 1, "--out", "r", *SMALL[:4])
    assert code == 0, err
    assert "mine.npy-gray: 27 training, 3 test data of 5 x 4 pixels" in out
    assert "continuous-bernoulli" in out  # grey pixels have the likelihood of grey pixels
    code, out, err = run("evaluate", "r", "--json")
    assert code == 0, err
    assert json.loads(out)["data_count"] == 3


def test_the_folder_comes_before_the_data_and_the_kernels(run, monkeypatch):
    # a run that is killed while 60 000 images are read can be resumed
    def load(*_):
        assert os.listdir("r") == ["config.json"]  # the first checkpoint carries the fingerprint of the data
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tv.data, "load", load)
        patch.setattr(tv.fusion, "load", load)
        code, _, err = run("train", "digits", "--out", "r", "--epochs", 1, *SMALL)
    assert code == 130
    assert "Traceback" not in err
    assert run("train", "--resume", "r", "--no-pictures")[0] == 0
    assert len(log.read_lines("r/metrics.jsonl")) == 1


def test_resume_goes_on_and_more_epochs_can_be_asked_for(run, digits):
    shutil.copytree(digits[0], "r")
    code, out, err = run("train", "--resume", "r", "--epochs", 3, "--no-pictures")
    assert code == 0, err
    assert "resuming r, 2 of 3 epochs done" in out
    assert re.findall(r"^epoch +(\S+)", out, re.MULTILINE) == ["3/3"]


def test_an_interrupt_says_how_to_go_on(run, monkeypatch):
    real = Training.step

    def step(training):
        real(training)
        os.kill(os.getpid(), 2)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", step)
        result = run("train", "--out", "r", "--epochs", 1, "--no-pictures", *SMALL)
    assert_sentence(result, "the state is saved, go on with: tinyvae train --resume r", code=130)
    assert run("train", "--resume", "r", "--no-pictures")[0] == 0


@pytest.mark.parametrize("at", ["tinyvae.training.epochs.Training", "tinyvae.pictures.gallery.all_pictures"])
def test_an_interrupt_beside_the_steps_says_how_to_go_on(at, run, monkeypatch):
    """Before the first step, and while the pictures are drawn."""
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at.endswith("Training"):
            patch.setattr(Training, "__init__", interrupt)
        else:
            patch.setattr(at, interrupt)
        result = run("train", "--out", "r", "--epochs", 1, *SMALL)
    assert_sentence(result, "tinyvae: interrupted; go on with: tinyvae train --resume r\n", code=130)
    code, _, err = run("train", "--resume", "r", "--no-pictures")
    assert code == 0, err


@pytest.mark.parametrize(("command", "at"), [
    (["evaluate", "RUN"], "tinyvae.evidence.evaluation.evaluate"),
    (["sample", "RUN"], "tinyvae.pictures.gallery.sample"),
    (["variance", "--problem", "vae"], "tinyvae.data.load"), (["bench"], "tinyvae.measure.bench.look")])
def test_an_interrupt_of_any_command_is_said(command, at, run, digits, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(at, interrupt)
    result = run(*(str(digits[0]) if word == "RUN" else word for word in command))
    assert result == (130, "", "tinyvae: interrupted\n")


def test_a_change_is_an_option(run, digits):
    shutil.copytree(digits[0], "r")
    code, _, err = run("train", "--resume", "r", "--epochs", 3, "--lr", "3e-4", "--no-pictures")
    assert code == 0, err
    assert [r["learning_rate"] for r in log.read_lines("r/metrics.jsonl")] == pytest.approx([1e-3, 1e-3, 3e-4])
    config = json.loads(Path("r/config.json").read_text())
    assert config["changes"] == [{"epoch": 2, "step": 16, "epochs": [2, 3], "lr": [0.001, 0.0003]}]
    assert_sentence(run("train", "--resume", "r", "--batch", 9), "batch was given too", "--init-from r")


def test_a_new_run_from_old_parameters(run, digits):
    code, out, err = run("train", "--init-from", digits[0], "--epochs", 0, "--no-pictures", "--out", "r")
    assert code == 0, err
    assert "VAE(64-12-2" in out  # the model of its run, and its data
    assert "digits-dynamic" in out
    old, new = tv.load(digits[0]), tv.load("r")
    assert new.parameters.flat.tobytes() == old.parameters.flat.tobytes()
    assert json.loads(Path("r/config.json").read_text())["init_from"]["run"] == str(digits[0])
    assert_sentence(run("train", "--init-from", digits[0], "--hidden", 9, "--out", "s"), "hidden was given too")
    assert_sentence(run("train", "--init-from", "nowhere", "--out", "s"), "nowhere")
    result = run("train", "digits-gray", "--init-from", digits[0], "--out", "s")
    assert_sentence(result, "digits-gray has numbers")
    assert "config.json" not in result[2]  # nobody has edited the file of a run that only begins
    assert not os.path.exists("s")


def test_pictures_are_drawn_as_the_run_began(run):
    assert run("train", "--no-pictures", "--out", "r", "--epochs", 1, *SMALL)[0] == 0
    assert run("train", "--resume", "r", "--epochs", 2)[0] == 0
    assert not os.path.exists("r/figures")
    assert run("train", "--resume", "r", "--pictures")[0] == 0
    assert os.path.exists("r/figures/curves.png")


def test_data_that_cannot_be_read_leave_no_folder(run, tmp_path, monkeypatch):
    """The set is known by its name, and its files are damaged."""
    monkeypatch.delenv("TINYVAE_DATA", raising=False)  # where a sound set may lie
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "sets" / "mnist"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"hello")
    for options in (["--out", "r"], []):
        assert_sentence(run("train", "mnist", "--data-dir", tmp_path / "sets", *options), "mnist")
    assert not os.path.exists("r")
    assert not os.path.exists("runs") or os.listdir("runs") == []


def test_a_batch_beyond_the_data_gets_a_line(run):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = run("train", "--batch", 100000, "--epochs", 1, "--out", "r", "--no-pictures", *SMALL[:4])
    assert code == 0
    assert err == "warning: found batch=100,000, and there are 1,497 training data: each step takes all of them\n"


INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(("module", "code", "err"), [
    ("tinyvae.data", -2, ""), ("tinyvae.cli.main", -2, ""), ("tinyvae.cli.lessons", 130, "tinyvae: interrupted\n")])
def test_an_interrupt_while_the_program_is_imported(module, code, err, tmp_path):
    """It ends as other programs do, without a traceback; from the first line of `main` on with a word."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(name=module))
    path = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run([sys.executable, "-m", "tinyvae", "doctor"], env={**os.environ, "PYTHONPATH": path},
                          capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (code, err)


LATE = """
import atexit, os, signal, sys
from tinyvae.cli import commands, main

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

class Deleted:
    __del__ = interrupt

def doctor():
    print("result")
    if {at!r} == "destructor":
        Deleted()
        print("more")
    elif {at!r} == "sentence":
        sys.stderr.write, write = lambda text: (interrupt(), write(text)), sys.stderr.write
        raise KeyboardInterrupt
    elif {at!r} == "text":
        exec("interrupt()")

if {at!r} == "exit":
    atexit.register(interrupt)
commands.doctor = doctor
main.main()
"""


@pytest.mark.parametrize(("at", "out", "err", "code"), [
    ("exit", "result\n", "", 0),
    ("sentence", "result\n", "tinyvae: interrupted\n", 130),
    ("text", "result\n", "tinyvae: interrupted\n", 130),
    ("destructor", "result\n", "tinyvae: interrupted\n", 130)])
def test_an_interrupt_never_shows_a_traceback(at, out, err, code, tmp_path):
    """While Python ends after the command, while the sentence is printed, in code that is run from text, after which
    Python would end by the signal, and in a destructor, whose errors Python would forget."""
    (tmp_path / "tinyvae.py").write_text(LATE.format(at=at))  # the name is the program's, so Ctrl-C is
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    called = f"import runpy, sys; sys.argv = [{str(tmp_path / 'tinyvae.py')!r}, 'doctor']; runpy.run_path(sys.argv[0])"
    done = subprocess.run([sys.executable, "-c", called], env={**os.environ, "PYTHONPATH": path},
                          capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (out, err, code)


def test_another_program_keeps_its_interrupts():
    """Only the program `tinyvae` sets what Ctrl-C does."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    code = "import signal, tinyvae; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)


# ---- evaluate, pictures, doctor, help -------------------------------------------------------------------------------


def test_evaluate_as_json(run, digits):
    code, out, err = run("evaluate", digits[0], "--importance-samples", 20, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    keys = {"elbo", "elbo_stderr", "reconstruction", "kl", "log_evidence", "log_evidence_stderr", "importance_samples",
            "active_units", "data_count", "effective_samples", "kl_per_dimension", "active_threshold"}  # fmt: skip
    assert keys <= set(found)
    assert (found["data_count"], found["importance_samples"], found["data"]) == (300, 20, "digits-dynamic")
    assert found["elbo"] < found["log_evidence"]
    assert found["elbo"] == pytest.approx(found["reconstruction"] - found["kl"])
    best = [r for r in log.read_lines(digits[0] / "metrics.jsonl") if r["best"]][-1]
    assert found["elbo"] == best["test_elbo"]  # the same draws as at the end of that epoch


def test_evaluate_as_a_table(run, digits):
    code, out, _ = run("evaluate", digits[0], "-k", 7)
    assert code == 0
    for part in ("ELBO", "nats per datum", "higher is better", "std. error", "log p(x), 7 samples", "active units",
                 "KL of z0", "KL of z1", "effective samples", "of 7", "bits per pixel", "300 test data"):  # fmt: skip
        assert part in out
    assert run("evaluate", digits[0])[1].count("log p(x)") == 0


def test_evaluate_by_annealing_and_by_posterior_draws(run, digits):
    code, out, err = run("evaluate", digits[0], "--method", "ais", "--count", 20, "--chains", 3, "--temperatures", 9,
                         "--leapfrog", 2, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    settings = {"method": "ais", "data_count": 20, "data_available": 300, "chains": 3, "temperatures": 9, "leapfrog": 2,
                "start": "encoder", "importance_samples": 0}  # fmt: skip
    assert settings.items() <= found.items()
    assert found["elbo"] < found["log_evidence"]
    code, out, err = run("evaluate", digits[0], "--method", "hmc", "--count", 10, "--chains", 6, "--draws", 8)
    assert (code, err) == (0, "")
    for part in ("the first 10 of 300 test data", "log p(x), hmc", "high on average", "of 24 draws", "acceptance",
                 "of 4 leapfrog steps", "energy error", "6 chains of 8 draws, half to fit a density to"):  # fmt: skip
        assert part in out, part
    out = run("evaluate", digits[0], "--method", "ais", "--start", "prior", "--count", 5, "--temperatures", 3)[1]
    for part in ("log p(x), ais", "low on average", "of 8 chains", "ais: from the prior by 3 temperatures"):
        assert part in out, part


def test_evaluate_says_whether_importance_sampling_is_to_be_trusted(run, digits):
    assert "too few draws for a diagnosis" in run("evaluate", digits[0], "-k", 7)[1]
    out = run("evaluate", digits[0], "-k", 200, "--count", 50)[1]
    assert "Pareto k > 0.7" in out
    assert "share of the data" in out
    assert "log p(x)" in out.splitlines()[-1]  # the verdict
    assert json.loads(run("evaluate", digits[0], "-k", 200, "--json")[1])["diagnosis"]


def test_evaluate_on_simulated_data(run, digits):
    options = ["--method", "ais", "--simulated", "--count", 30, "--chains", 2, "--temperatures", 10]
    code, out, err = run("evaluate", digits[0], *options, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["data_count"], found["chains"], found["checkpoint"]) == (30, 2, "best.safetensors")
    assert found["lower"] <= found["upper"] + 5 * found["gap_stderr"]
    code, out, _ = run("evaluate", digits[0], *options)
    assert code == 0
    for part in ("30 data made by the model", "log p(x), forwards", "log p(x), backwards", "gap", "low on average",
                 "high on average", "2 chains each way"):  # fmt: skip
        assert part in out, part


def test_evaluate_other_data_and_parts(run, digits):
    for arguments, count in ((["--part", "train"], 1497), (["--data", "digits-static"], 300)):
        code, out, _ = run("evaluate", digits[0], "--json", *arguments)
        assert code == 0
        assert json.loads(out)["data_count"] == count
    assert json.loads(run("evaluate", digits[0] / "last.safetensors", "--json")[1])["data_count"] == 300


@pytest.mark.parametrize("command", PICTURES)
def test_every_picture_command_writes_its_files(command, run, digits):
    code, out, err = run(command, digits[0], "--out", "figures")
    assert (code, err) == (0, "")
    files = list(Path("figures").iterdir())
    assert {file.name for file in files} == PICTURES[command]
    assert sorted(out.split()) == sorted(map(str, files))  # and says which
    for file in files:
        assert_picture(file)


def test_doctor_as_json(run):
    code, out, err = run("doctor", "--json")
    assert code in (0, 1), err
    report = json.loads(out)
    assert {"python", "numpy"} <= {str(key).lower() for key in json.loads(out.lower())}
    assert report
    assert run("doctor")[1]


def test_help_of_everything(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in COMMANDS:
        assert command in out
    for example in cli.EXAMPLES:
        assert example in out
    for command in COMMANDS:
        code, out, _ = run(command, "--help")
        assert code == 0
        assert re.search(rf"Usage: .*{command} \[OPTIONS\]", out)


def test_no_argument_teaches(run):
    _, out, err = run()
    assert "Usage" in out + err


def test_the_module_is_the_program():
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run([sys.executable, "-m", "tinyvae", "evaluate", "nowhere"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path}, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("tinyvae: ")
    assert "nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# ---- mistakes -------------------------------------------------------------------------------------------------------


def images(value=None, kind=np.float32):
    pixels = np.random.default_rng(0).random((20, 4, 4)).astype(kind)
    if value is not None:
        pixels[3, 2, 1] = value
    np.save("mine.npy", pixels)


MISTAKES = {
    "unknown data": (["digit"], "unknown data set 'digit'", "Did you mean digits?"),
    "missing file": (["no.npy"], "there is no file or folder no.npy"),
    "unknown option": (["--layers", 3], "--layers"),
    "no number": (["--latent", "two"], "found --latent 'two'; expected one whole number or several"),
    "bad widths": (["--hidden", "20x20"], "found --hidden '20x20'; expected one whole number or several: 400, or 200"),
    "zero width": (["--hidden", 0], "each must be at least 1"),
    "bad likelihood": (["--likelihood", "cauchy"], "found likelihood 'cauchy'; expected one of bernoulli"),
    "bad activation": (["--activation", "swish"], "found activation 'swish'"),
    "bad init": (["--init", "zeros"], "found init 'zeros'"),
    "bad type": (["--dtype", "float16"], "found --dtype 'float16'; expected float32 or float64"),
    "bad device": (["--device", "tpu"], "found device 'tpu'"),
    "bad exchange": (["--exchange", "gloo"], "found exchange=gloo; expected mpi or nccl"),
    "nccl without a GPU": (["--exchange", "nccl"], "found exchange=nccl on the cpu; NCCL expects GPUs: take"),
    "bad rate": (["--lr", -1], "lr=-1", "above 0"),
    "bad batch": (["--batch", 0], "batch=0", "at least 1"),
    "bad seed": (["--seed", -1], "seed=-1", "from 0 to 4294967295"),
    "bad bound": (["--bound", "elbo-c"], "bound=elbo-c", "elbo-a, elbo-b, iwae"),
    "bad gradient": (["--gradient", "stl"], "found gradient=stl", "stl goes with bound=elbo-a or iwae"),
    "dreg of the ELBO": (["--bound", "elbo-a", "--gradient", "dreg"], "gradient=dreg", "dreg goes with bound=iwae"),
    "importance samples of the ELBO": (["--importance-samples", 5], "importance_samples=5", "take bound=iwae"),
    "a weighed KL of iwae": (["--bound", "iwae", "--beta", 2], "found beta=2.0 with bound=iwae", "leave beta"),
    "bad optimizer": (["--optimizer", "lion"], "optimizer=lion", "adam, adagrad, sgd"),
    "too much validation": (["--validation", 1497], "validation=1497 of 1497", "some must be left"),
    "patience": (["--patience", 2], "needs validation data"),
    "no such folder": (["mnist", "--data-dir", "nowhere"], "nowhere"),
    "grey for a Bernoulli": (["digits-gray", "--likelihood", "bernoulli"], "digits-gray has numbers from 0 to 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_train_is_one_sentence(mistake, run):
    arguments, *parts = MISTAKES[mistake]
    assert_sentence(run("train", *arguments, "--out", "r"), *parts)
    assert not os.path.exists("r")  # nothing was begun, so nothing is left


def test_pixels_that_are_none(run):
    images(np.nan)
    assert_sentence(run("train", "mine.npy", "--out", "r"), "mine.npy", "NaN")
    images(1.5)
    assert_sentence(run("train", "mine.npy", "--out", "r"), "1.5", "[0, 1]")
    images(-3, np.int32)
    assert_sentence(run("train", "mine.npy", "--out", "r"), "-3", "255")
    images(np.inf)
    assert_sentence(run("train", "mine.npy", "--out", "r"), "mine.npy")
    assert not os.path.exists("r")


def test_files_that_are_damaged(run):
    whole = gzip.compress(b"\0\0\x08\x03" + np.array([9, 4, 4], ">u4").tobytes() + bytes(144))
    damaged = {"cut.gz": whole[:-30], "not.gz": b"hello" * 20, "empty.npy": b"", "no.npz": b"PK\x03\x04"}
    for name, content in damaged.items():
        Path(name).write_bytes(content)
        assert_sentence(run("train", name, "--out", "r"), name)
    assert not os.path.exists("r")


def test_resume_takes_no_other_options(run, digits):
    before = (digits[0] / "last.safetensors").read_bytes()
    result = run("train", "--resume", digits[0], "--latent", 3)
    assert_sentence(result, "--resume goes on with the run's own settings", "latent was given too")
    assert_sentence(run("train", "--resume", digits[0], "digits-gray"), "was trained on other data: the SHA-256 of")
    assert (digits[0] / "last.safetensors").read_bytes() == before


def test_resume_of_nothing(run, digits):
    assert_sentence(run("train", "--resume", "nothing"), "nothing does not exist", "tinyvae train --out nothing")
    os.mkdir("empty")
    assert_sentence(run("train", "--resume", "empty"), "stopped before it began", "tinyvae train DATA --out empty")
    Path("empty", "thesis.txt").write_text("years of work")
    assert_sentence(run("train", "--resume", "empty"), "empty is no run folder (it has no config.json)")
    assert_sentence(run("train", "--resume", digits[0] / "best.safetensors"), "cannot be resumed")


def test_a_run_folder_that_exists(run, digits):
    before = {file.name: file.read_bytes() for file in digits[0].iterdir() if file.is_file()}
    assert_sentence(run("train", "--out", digits[0], *SMALL), "exists and is not empty", "--resume")
    assert {file.name: file.read_bytes() for file in digits[0].iterdir() if file.is_file()} == before


@pytest.mark.parametrize("command", ["evaluate", "train --resume", "sample"])
def test_a_corrupted_checkpoint(command, run, digits):
    shutil.copytree(digits[0], "r")
    for name in ("last.safetensors", "best.safetensors"):
        file = Path("r", name)
        file.write_bytes(file.read_bytes()[:-100])
    assert_sentence(run(*command.split(), "r"), "safetensors is truncated")


def test_mistakes_of_the_other_commands(run, digits):
    assert_sentence(run("evaluate", "nowhere"), "nowhere")
    assert_sentence(run("evaluate", digits[0], "-k", -1), "found importance_samples -1")
    assert_sentence(run("evaluate", digits[0], "--part", "tests"), "found part 'tests'")
    assert_sentence(run("evaluate", digits[0], "--part", "valid"), "no part 'valid'")
    assert_sentence(run("evaluate", digits[0], "--method", "nuts"), "found method 'nuts'")
    assert_sentence(run("evaluate", digits[0], "--chains", 3), "found no method", "which chains need")
    assert_sentence(run("evaluate", digits[0], "--method", "hmc", "-k", 3), "found importance_samples")
    assert_sentence(run("evaluate", digits[0], "--count", 301), "found a count of 301 data; expected 1 to 300")
    assert_sentence(run("evaluate", digits[0], "--simulated"), "found --simulated without --method ais")
    for option in (["-k", 3], ["--part", "train"], ["--data", "digits"], ["--draws", 2]):
        assert_sentence(run("evaluate", digits[0], "--method", "ais", "--simulated", *option), "found --simulated with")
    assert_sentence(run("sample", digits[0], "--seed", -1), "seed")
    Path("file").touch()
    assert_sentence(run("sample", digits[0], "--out", "file"), "file")
    np.save("mine.npy", np.random.default_rng(0).random((30, 5, 4), np.float32))
    assert_sentence(run("evaluate", digits[0], "--data", "mine.npy"), "64")  # of another size
    assert_sentence(run("draw", digits[0]), "draw")


@pytest.mark.parametrize("options", [["--lr", "1e20"], ["--lr", "1e6", "--optimizer", "sgd"]])
def test_a_run_that_diverges_ends_with_1_and_its_last_good_checkpoint(options, run):
    result = run("train", "--out", "r", "--epochs", 2, "--no-pictures", *SMALL, *options)
    assert_sentence(result, "--lr", code=1)
    assert re.search(r"first in \w+\(|diverged in epoch", result[2])  # what went wrong, by name
    arrays, meta = checkpoint.load("r/last.safetensors")
    assert meta["epoch"] == 0
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert log.read_lines("r/metrics.jsonl") == []


def test_a_warning_is_one_line(run, digits, monkeypatch):
    # of another BLAS, for one: no file name, no source line
    shutil.copytree(digits[0], "r")
    blas = environment.blas()
    monkeypatch.setattr(environment, "blas", lambda: blas | {"kernel": "Abacus"})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = run("train", "--resume", "r", "--no-pictures")
    assert code == 0
    assert err.startswith("warning: the run began under another BLAS")
    assert len(err.strip().splitlines()) == 1


def test_parts_are_those_the_run_was_trained_on(run, tmp_path):
    """What --validation held out is judged as the validation part, and is no training data any more."""
    assert run("train", "--epochs", 1, "--hidden", 8, "--validation", 97, "--out", "run", "--no-pictures")[0] == 0
    for part, count in (("valid", 97), ("train", 1400), ("test", 300)):
        code, out, err = run("evaluate", "run", "--part", part, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["data_count"] == count


# ---- errors of a user's own model ------------------------------------------------------------------------------------

OWN = '''"""A model that goes wrong in the way that `fault` says."""
import tinyvae as tv
from tinyvae.distributions import Bernoulli, Normal

class Own(tv.Model, kind="tests-own"):
    needs = ("y",) if "NEEDS" == "y" else ()
    def build(self, pixels, fault="", latent=2):
        self.q, self.p = self.network("q", pixels, 4, Normal, latent), self.network("p", latent, 4, Bernoulli, pixels)
        self.prior = Normal.standard(latent, self.dtype, self.xp)
        if fault == "check":
            raise ValueError("a rule of my own")
    def generator(self, batch):
        return tv.Joint(self.prior, self.p)
    def posterior(self, batch):
        return self.q(batch.x)
    def terms(self, batch, draw):
        fault = self.config["fault"]
        if fault == "dict":
            return {"a": batch.x}
        if fault == "types":
            return tv.Terms(a=(batch.x + tv.Tensor("x")).sum(-1))
        if fault == "own":
            return tv.Terms(a=None + 1)
        return super().terms(batch, draw)
'''
FAULTS = {"dict": ["found dict from the terms of a tests-own; expected tv.Terms"],
          "types": ["found 'x' for a tensor; expected numbers", "(own.py, line 21)"],
          "check": ["a rule of my own (own.py, line 11)"]}  # fmt: skip


@pytest.fixture
def own(run, monkeypatch):
    """Train the model above with one fault."""
    monkeypatch.setattr(extensions, "USED", {})
    monkeypatch.setattr(extensions, "PATHS", {})

    def call(fault, needs=""):
        Path("own.py").write_text(OWN.replace("NEEDS", needs))
        try:
            return run("train", "--use", "own.py", "--model", "tests-own", "--option", f"fault={fault}", "--epochs", 1,
                       "--no-pictures", "--out", "r")
        finally:
            models.MODELS.pop("tests-own")

    return call


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sentence_of_ours_needs_no_traceback(fault, own):
    """Whatever its type: a TypeError with a sentence ends as a ValueError does, and names the line of the file."""
    assert_sentence(own(fault), *FAULTS[fault])
    assert not os.path.exists("r")


def test_needs_without_classes_is_a_sentence(own):
    assert_sentence(own("", needs="y"), "a tests-own needs labels, whose number of classes is its option `classes`")


def test_an_error_of_the_users_own_keeps_its_traceback(own):
    with pytest.raises(TypeError, match="unsupported operand"):
        own("own")


# ---- errors of the system --------------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_gets_a_cure(run, digits, monkeypatch):
    Path("runs").touch()  # a file where a folder has to be, as a folder without permissions would refuse, too
    assert_sentence(run("train", "digits", *SMALL), "cannot be made here: Not a directory; choose another place")
    assert_sentence(run("sample", digits[0], "--out", "runs/x"), "runs/x cannot be made: Not a directory; choose")
    for command in (["train", "--out"], ["train", "--resume"], ["evaluate"], ["sample"], ["train", "--use"]):
        result = run(*command, "a" * 300)
        assert_sentence(result)
        assert "Errno" not in result[2]

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `print` does where > /dev/full stands

    monkeypatch.setattr("tinyvae.measure.bench.look", full)
    assert_sentence(run("bench"), "tinyvae: standard output: No space left on device; choose another place\n")
