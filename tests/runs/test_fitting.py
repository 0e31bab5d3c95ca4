"""Runs: killed at any moment and resumed, a run ends with the bits of one that was never disturbed."""

import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import safetensors.numpy
from support import ROOT, assert_same_bits

import tinyvae as tv
from tinyvae import runs
from tinyvae.data import DataSet
from tinyvae.runs import Interrupted, RunFolder, checkpoint, environment, files, fitting, folder, log
from tinyvae.runs.files import CheckpointError
from tinyvae.training.batches import BATCH, CURSOR, STEP
from tinyvae.training.faults import NonFiniteError
from tinyvae.training.fingerprint import fingerprint
from tinyvae.training.settings import Settings

# 43 images less 5 for validation, in batches of 8: the last of an epoch has 6. Everything that has a state is in use.
SETTINGS = {"epochs": 4, "batch": 8, "seed": 3, "schedule": "cosine", "warmup": 2.0, "clip": 5.0, "validation": 5,
            "patience": 9, "data_mean_bias": True, "lr": 0.01}
STEPS = 5  # an epoch


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A data file, so that a resumed run can find its data by name."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    file = folder / "images.npz"
    np.savez(file, train=rng.random((43, 3, 4), np.float32), test=rng.random((12, 3, 4), np.float32))
    return f"{file}-dynamic"


def vae():
    return tv.VAE(12, hidden=6, latent=2)


def begin(images, out, **settings):
    return tv.fit(vae(), images, out=out, **(SETTINGS | settings))


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    begin(images, out)
    return out


def assert_same_run(run, whole):
    """Same parameters, same metrics file with no line twice, same state."""
    for file in ("metrics.jsonl", "last.safetensors", "best.safetensors"):
        assert (run / file).read_bytes() == (whole / file).read_bytes(), file
    records = log.read_lines(run / "metrics.jsonl")
    assert [r["epoch"] for r in records] == list(range(1, len(records) + 1))
    assert [r["epoch"] for r in log.read_lines(run / "timings.jsonl")] == list(range(1, len(records) + 1))
    assert not list(run.glob(".*.tmp"))


def test_the_comparison_sees_another_seed(images, whole, tmp_path):
    begin(images, tmp_path / "run", seed=4)
    with pytest.raises(AssertionError, match=r"metrics\.jsonl"):
        assert_same_run(tmp_path / "run", whole)


def test_a_run_of_version_0_1_0_goes_on(images, whole, tmp_path):
    """Its model had no kind, and two arrays of its state other names; it resumes, in the middle of an epoch, too."""
    def stop(training, done):
        if training.now(STEP) == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        tv.fit(vae(), images, out=tmp_path / "run", on_step=stop, **SETTINGS)
    run = tmp_path / "run"
    old = {new: name for name, new in folder.RENAMED.items()}
    assert set(old.values()) == {"training.clock", "training.control"}
    for file in ("last", "best"):
        arrays, meta = checkpoint.load(run / f"{file}.safetensors")
        del meta["model"]["kind"]
        if file == "last":
            meta["first_loss"] = meta.pop("first_losses")[""]
        checkpoint.save(run / f"{file}.safetensors", {old.get(name, name): a for name, a in arrays.items()}, meta)
    config = files.read_json(run / "config.json")
    del config["model"]["kind"]
    files.write_json(run / "config.json", config)
    assert isinstance(tv.load(run), tv.VAE)
    records = tv.resume(run)
    undisturbed = log.read_lines(whole / "metrics.jsonl")
    assert [r["fingerprint"] for r in records] == [r["fingerprint"] for r in undisturbed]


# ---- kill -9 --------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys, time
import numpy as np
import tinyvae as tv
from tinyvae.runs import checkpoint, log

out, images, at, settings = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def on_step(training, done):
    print("step", flush=True)
    if at == f"step {int(training.counters[0])}":
        die()
    if at == "slowly":
        time.sleep(0.01)

real_save, real_append, epochs = checkpoint.save, log.append_line, []

def save(path, arrays, meta):
    if at == "before last" and os.path.basename(path) == "last.safetensors" and meta["epoch"] == 2:
        die()
    real_save(path, arrays, meta)
    if at == "after best" and os.path.basename(path) == "best.safetensors":
        die()

def append_line(path, record):
    if at == "within the line" and record["epoch"] == 2 and os.path.basename(path) == "metrics.jsonl":
        open(path, "ab").write(b'{"epoch": 2, "st')
        die()
    real_append(path, record)
    if at == "after the line" and record["epoch"] == 2 and os.path.basename(path) == "metrics.jsonl":
        die()

checkpoint.save, log.append_line = save, append_line
if os.path.exists(out):
    tv.resume(out, on_step=on_step)
else:
    tv.fit(tv.VAE(12, hidden=6, latent=2), images, out=out, on_step=on_step, **settings)
"""


def child(out, images, at):
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return subprocess.Popen([sys.executable, "-c", CHILD, str(out), images, at, repr(SETTINGS)], text=True,
                            env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


MOMENTS = ["step 3", "step 10", "after best", "within the line", "after the line", "before last"]


@pytest.mark.parametrize("at", MOMENTS)
def test_a_run_killed_at_a_chosen_moment_resumes_to_the_same_bits(at, images, whole, tmp_path):
    # in the middle of an epoch, at its end, and between the writes with which an epoch closes
    out = tmp_path / "run"
    process = child(out, images, at)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == -signal.SIGKILL, errors
    assert (out / "metrics.jsonl").exists() == (at not in ("step 3", "after best"))
    records = tv.resume(out)
    assert_same_run(out, whole)
    assert records == log.read_lines(whole / "metrics.jsonl")


def test_a_run_killed_again_and_again_resumes_to_the_same_bits(images, whole, tmp_path):
    # kill -9 from outside at random moments, steps slowed down so that most fall into training
    out, moments = tmp_path / "run", random.Random(0)
    for _ in range(4):
        process = child(out, images, "slowly")
        process.stdout.readline()  # it trains, or it is done
        time.sleep(moments.uniform(0, 0.12))
        process.kill()
        process.communicate(timeout=120)
    tv.resume(out)
    assert_same_run(out, whole)


def test_resuming_a_finished_run_changes_nothing(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    tv.resume(out)
    for file in whole.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("at", [2, 5, 7])
def test_an_interrupt_finishes_the_step_and_saves(name, at, images, whole, tmp_path):
    out = tmp_path / "run"

    def on_step(training, done):
        if training.counters[STEP] == at:
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(Interrupted, match=rf"the state is saved, go on with: tinyvae train --resume {out}"):
        tv.fit(vae(), images, out=out, on_step=on_step, **SETTINGS)
    assert signal.getsignal(getattr(signal, name)) == before
    arrays, meta = checkpoint.load(out / "last.safetensors")
    assert arrays["training.counters"].tolist()[STEP] == at
    assert arrays["training.counters"].tolist()[BATCH] == (at - 1) % STEPS + 1  # within an epoch, or at its end
    assert meta["epoch"] == (at - 1) // STEPS
    tv.resume(out)
    assert_same_run(out, whole)


def test_an_interrupt_during_the_evaluation_loses_no_epoch(images, whole, tmp_path, monkeypatch):
    out, real = tmp_path / "run", fitting.Training.end_epoch

    def end_epoch(training):
        record = real(training)
        if training.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return record

    monkeypatch.setattr(fitting.Training, "end_epoch", end_epoch)
    with pytest.raises(Interrupted):
        begin(images, out)
    monkeypatch.undo()
    assert len(log.read_lines(out / "metrics.jsonl")) == 2
    tv.resume(out)
    assert_same_run(out, whole)


def test_a_second_interrupt_stops_at_once(images, tmp_path):
    def on_step(training, done):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        tv.fit(vae(), images, out=tmp_path / "run", on_step=on_step, **SETTINGS)
    assert not isinstance(caught.value, Interrupted)
    tv.resume(tmp_path / "run", epochs=1)  # the step-0 checkpoint is whole


# ---- what is written, and when --------------------------------------------------------------------------------------


def test_config_and_first_checkpoint_are_written_before_anything_is_trained(images, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def steps(training):
        raise SystemExit("no step was done")
        yield

    monkeypatch.setattr(fitting.Training, "steps", steps)
    with pytest.raises(SystemExit):
        begin(images, out)
    assert sorted(os.listdir(out)) == ["config.json", "last.safetensors"]
    arrays, meta = checkpoint.load(out / "last.safetensors")
    assert meta["epoch"] == 0
    for name, array in vae().parameters.arrays().items():
        assert_same_bits(arrays[name], array)


def test_config_says_what_was_run(whole, images):
    config = json.loads((whole / "config.json").read_text())
    assert config["model"] == vae().config
    assert config["data"] == images
    assert Settings.from_dict(config["settings"]) == Settings(**SETTINGS)
    assert {"library", "kernel", "threads"} <= set(config["environment"]["blas"])


def test_nothing_that_must_repeat_depends_on_the_clock(images, whole, tmp_path, monkeypatch):
    # another day, another pace: the same bytes, but for the timings
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(time, "perf_counter", iter(x * 1.7 for x in range(10**6)).__next__)
    begin(images, tmp_path / "run")
    monkeypatch.undo()
    assert_same_run(tmp_path / "run", whole)
    assert (tmp_path / "run/timings.jsonl").read_bytes() != (whole / "timings.jsonl").read_bytes()
    for record in log.read_lines(whole / "metrics.jsonl"):
        assert not [key for key in record if "second" in key or "time" in key]


def test_epochs_have_their_fingerprint(whole):
    records = log.read_lines(whole / "metrics.jsonl")
    prints = [record["fingerprint"] for record in records]
    assert len(set(prints)) == len(prints) == 4
    arrays, _ = checkpoint.load(whole / "last.safetensors")
    parameters = {name: a for name, a in arrays.items() if not name.startswith(("optimizer.", "training."))}
    assert fingerprint(parameters) == prints[-1]


def test_weights_are_readable_by_others(whole):
    # (in, out), under plain names
    arrays = safetensors.numpy.load_file(whole / "last.safetensors")
    assert arrays["encoder.0.weight"].shape == (12, 6)
    assert arrays["decoder.1.bias"].shape == (12,)
    model = tv.load(whole / "last.safetensors")
    x = np.random.default_rng(0).random((3, 12), np.float32)
    hidden = np.maximum(x @ arrays["encoder.0.weight"] + arrays["encoder.0.bias"], 0)
    mu = (hidden @ arrays["encoder.1.weight"] + arrays["encoder.1.bias"])[:, :2]
    assert np.abs(mu - model.encode(x)[0]).max() <= 1e-6


def test_load_takes_the_best_epoch_of_a_folder(images, whole):
    records = log.read_lines(whole / "metrics.jsonl")
    best = [r for r in records if r["best"]][-1]
    for path, record in ((whole, best), (whole / "best.safetensors", best), (whole / "last.safetensors", records[-1])):
        model = tv.load(path)
        assert fingerprint(model.parameters.arrays()) == record["fingerprint"]
        assert tv.evaluate(model, tv.data.load(images)).elbo == record["test_elbo"]


def test_the_last_epoch_is_loaded_where_no_best_one_is(images, tmp_path):
    begin(images, tmp_path / "run", epochs=1)
    (tmp_path / "run/best.safetensors").unlink()
    last = tv.load(tmp_path / "run/last.safetensors")
    assert_same_bits(tv.load(tmp_path / "run").parameters.flat, last.parameters.flat)


def test_epochs_can_be_added(images, tmp_path):
    # with a constant learning rate the longer run is the same as one that was planned so
    settings = {"schedule": "constant", "patience": 0}
    begin(images, tmp_path / "long", **settings)
    begin(images, tmp_path / "short", **settings, epochs=2)
    records = tv.resume(tmp_path / "short", epochs=4)
    assert len(records) == 4
    for file in ("metrics.jsonl", "last.safetensors", "config.json"):
        assert (tmp_path / "short" / file).read_bytes() == (tmp_path / "long" / file).read_bytes()


def test_a_run_can_go_on_with_data_from_memory(tmp_path):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 2, (n, 12), np.uint8) for n in (20, 5))
    data = DataSet("mine-static", train, test, (3, 4), 1.0, "static", "bernoulli")
    tv.fit(vae(), data, out=tmp_path / "run", epochs=1, batch=8)
    assert len(tv.resume(tmp_path / "run", data=data, epochs=3)) == 3
    with pytest.raises(ValueError, match="mine"):  # by its name it cannot be found
        tv.resume(tmp_path / "run")


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_a_folder_that_exists_is_not_overwritten(images, whole):
    before = {file.name: file.read_bytes() for file in whole.iterdir()}
    with pytest.raises(CheckpointError, match=rf"{whole} exists and is not empty; .*tinyvae train --resume {whole}"):
        begin(images, whole)
    assert {file.name: file.read_bytes() for file in whole.iterdir()} == before


def test_an_empty_folder_is_taken_and_a_file_is_not(images, tmp_path):
    (tmp_path / "empty").mkdir()
    begin(images, tmp_path / "empty", epochs=1)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="exists"):
        begin(images, tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot be made"):
        begin(images, tmp_path / "file" / "run")


def test_resume_of_nothing_names_the_train_command(tmp_path):
    with pytest.raises(CheckpointError, match=rf"does not exist; .*tinyvae train --out {tmp_path}/run"):
        tv.resume(tmp_path / "run")


def test_a_run_killed_before_it_began_says_so(whole, tmp_path):
    with pytest.raises(CheckpointError, match=r"stopped before it began.*tinyvae train DATA --out"):
        tv.resume(tmp_path)
    shutil.copy(whole / "last.safetensors", tmp_path / "last.safetensors")  # nobody is told to remove a state
    with pytest.raises(CheckpointError, match=r"has no config\.json: put the file back, or .* --init-from"):
        tv.resume(tmp_path)


def test_a_run_killed_before_its_first_checkpoint_starts(images, whole, tmp_path):
    """A loop that calls `--resume` until it succeeds goes on, whenever the run was killed."""
    shutil.copy(whole / "config.json", tmp_path / "config.json")
    (tmp_path / ".last.safetensors.77.tmp").write_bytes(b"half")
    tv.resume(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_state_that_is_lost_is_not_begun_again(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    (out / "last.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no last\.safetensors, although the run had begun: put the file back"):
        tv.resume(out)
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_best_cannot_be_resumed(whole, tmp_path):
    reason = r"without the optimizer's state.*cannot be resumed.*tinyvae train --resume"
    with pytest.raises(CheckpointError, match=reason):
        tv.resume(whole / "best.safetensors")
    with pytest.raises(CheckpointError, match="is a file; give the run's folder"):
        tv.resume(whole / "last.safetensors")
    # nor under the other's name
    out = shutil.copytree(whole, tmp_path / "run")
    shutil.copy(out / "best.safetensors", out / "last.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no training state.*'best' checkpoint.*cannot be resumed"):
        tv.resume(out)


def edited(whole, out, **changes):
    """A copy of a run folder whose config.json was edited by hand."""
    shutil.copytree(whole, out)
    config = json.loads((out / "config.json").read_text())
    for name, value in changes.items():
        config["settings" if name in config["settings"] else "model"][name] = value
    (out / "config.json").write_text(json.dumps(config))
    return out


@pytest.mark.parametrize(("name", "value", "says", "cure"), [
    ("lr", 0.02, "lr=0.02, .* trained with lr=0.01", "on purpose: tinyvae train --resume .* --lr 0.02"),
    ("epochs", 9, "epochs=9, .* trained with epochs=4", "--epochs 9"),
    ("batch", 9, "batch=9, .* trained with batch=8", "start a new run .*--init-from"),
    ("seed", 4, "seed=4, .* trained with seed=3", "--init-from"),
    ("optimizer", "sgd", "optimizer='sgd', .* optimizer='adam'", "--init-from"),
    ("hidden", [7], r"the model's hidden=\[7\], .* hidden=\[6\]", "--init-from"),
    ("activation", "tanh", "the model's activation='tanh', .* activation='relu'", "--init-from"),
    ("likelihood", "gaussian", "the model's likelihood='gaussian', .*likelihood='bernoulli'", "--init-from"),
])  # fmt: skip
def test_an_edited_configuration_is_refused(name, value, says, cure, whole, tmp_path):
    """The sealed state says what the run was trained with; both values are named, and nothing is changed."""
    out = edited(whole, tmp_path / "run", **{name: value})
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(CheckpointError, match=rf"config\.json says {says}.*: undo the edit, .*{cure}"):
        tv.resume(out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_setting_that_was_forged_in_both_files_is_no_error_of_the_data(whole, tmp_path):
    """Sealed anew, and the same in config.json, so that only the data show that it cannot be."""
    out = edited(whole, tmp_path / "run", validation=2**31)
    arrays, meta = checkpoint.load(out / "last.safetensors")
    meta["settings"]["validation"] = 2**31
    checkpoint.save(out / "last.safetensors", arrays, meta)
    said = r"last\.safetensors: found validation=2147483648 .*use another checkpoint"
    with pytest.raises(CheckpointError, match=said):
        tv.resume(out)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b"\x80\x04N.", b'{"format": "other"}', b"\xff\xfe"])
def test_a_config_that_is_none_is_refused(content, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    (out / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not the configuration of a tinyvae run"):
        tv.resume(out)


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "pickle"])
def test_a_damaged_checkpoint_is_refused_and_kept(damage, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    content = bytearray((out / "last.safetensors").read_bytes())
    pickled = b"\x80\x04cos\nsystem\n(S'false'\ntR."
    content = {"truncated": content[:-9], "empty": b"", "pickle": pickled}.get(damage, content)
    if damage == "flipped":
        content[-9] ^= 1
    (out / "last.safetensors").write_bytes(content)
    expected = {"truncated": "is truncated", "empty": "is empty", "flipped": "checksum", "pickle": "never loaded"}
    with pytest.raises(CheckpointError, match=expected[damage]):
        tv.resume(out)
    with pytest.raises(CheckpointError, match=expected[damage]):
        tv.load(out / "last.safetensors")
    assert (out / "last.safetensors").read_bytes() == content
    tv.load(out)  # the best one is still good


# ---- when the disk is full, when numbers are not finite, when the machine is another --------------------------------


def test_a_full_disk_keeps_the_last_good_checkpoint(images, whole, tmp_path, monkeypatch):
    out, real = tmp_path / "run", os.write

    def full(descriptor, content):
        if full.armed and len(content) > 4000:  # half of the checkpoint fits
            real(descriptor, content[:2000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content)

    def on_epoch(record, timings):
        full.armed = record["epoch"] == 2

    full.armed = False
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CheckpointError, match="make room"):
        tv.fit(vae(), images, out=out, on_epoch=on_epoch, **SETTINGS)
    monkeypatch.undo()
    assert checkpoint.load(out / "last.safetensors")[1]["epoch"] == 2
    assert not list(out.glob(".*.tmp"))
    tv.resume(out)
    assert_same_run(out, whole)


def test_a_file_size_limit_keeps_the_last_good_checkpoint(images, whole, tmp_path):
    # the real thing: the system refuses to write more than a few kilobytes to any file
    out = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def on_epoch(record, timings):
        if record["epoch"] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))

    try:
        with pytest.raises(CheckpointError, match=r"ulimit -f.*what was there before is untouched"):
            tv.fit(vae(), images, out=out, on_epoch=on_epoch, **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert checkpoint.load(out / "last.safetensors")[1]["epoch"] == 2
    tv.resume(out)
    assert_same_run(out, whole)


def test_a_step_that_is_not_finite_is_never_saved(images, tmp_path):
    out = tmp_path / "run"

    def on_epoch(record, timings):
        on_epoch.model.parameters["decoder.0.bias"].data[0] = np.inf

    on_epoch.model = vae()
    with pytest.raises(NonFiniteError, match="epoch 2, batch 0"):
        tv.fit(on_epoch.model, images, out=out, on_epoch=on_epoch, **SETTINGS)
    arrays, meta = checkpoint.load(out / "last.safetensors")
    assert meta["epoch"] == 1
    assert all(np.isfinite(array).all() for array in arrays.values())
    faults = [json.loads(file.read_text()) for file in out.glob("*.json") if file.name != "config.json"]
    assert len(faults) == 1  # what went wrong lies beside the checkpoint
    assert faults[0]["epoch"] == 2
    assert len(faults[0]["indices"]) == 8


def test_another_blas_is_warned_of(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole, tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tv.resume(out)  # under the same one it says nothing
    blas = environment.blas()
    monkeypatch.setattr(environment, "blas", lambda: blas | {"kernel": "Abacus", "threads": 77})
    expected = r"another BLAS \(kernel .* then, Abacus now; threads .* then, 77 now\).*bits may"
    with pytest.warns(RuntimeWarning, match=expected):
        tv.resume(out)


def test_a_resumed_training_has_its_place(images, tmp_path):
    # the order of the epoch, the batch within it, the step of the noise: not one of them starts again
    out = tmp_path / "run"

    def on_step(training, done):
        if training.counters[STEP] == 8:
            on_step.order = training.batches.stream.index.copy()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        tv.fit(vae(), images, out=out, on_step=on_step, **SETTINGS)
    _, training = runs.prepare(out)
    assert (training.counters[STEP], training.counters[BATCH], training.counters[CURSOR]) == (8, 3, 24)
    assert training.epoch == 1
    training.begin_epoch()
    assert_same_bits(training.batches.stream.index, on_step.order)


def test_left_over_temporary_files_are_swept(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    (out / ".last.safetensors.123.tmp").write_bytes(b"half")
    tv.resume(out)
    assert not list(out.glob(".*.tmp"))


def test_the_folder_has_its_parts(whole):
    run = RunFolder(whole)
    assert {file.name for file in whole.iterdir()} == {
        file.name for file in (run.config_file, run.last, run.best, run.metrics, run.timings)}


def test_a_second_process_is_kept_out(images, tmp_path):
    """Two at once would write every epoch's line twice; the first goes on undisturbed."""
    tv.fit(vae(), images, out=tmp_path / "run", **SETTINGS | {"epochs": 1, "schedule": "constant"})
    run = runs.RunFolder(tmp_path / "run")
    lines, config = run.metrics.read_bytes(), run.config_file.read_bytes()
    with run.locked(), pytest.raises(CheckpointError, match="in use: another process is training there"):
        tv.resume(tmp_path / "run", images, epochs=2)
    assert (run.metrics.read_bytes(), run.config_file.read_bytes()) == (lines, config)
    assert len(tv.resume(tmp_path / "run", images, epochs=2)) == 2  # the lock is free again


def test_fewer_epochs_than_were_done_are_refused(images, tmp_path):
    tv.fit(vae(), images, out=tmp_path / "run", **SETTINGS | {"epochs": 2, "schedule": "constant"})
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(ValueError, match="has done 2 epochs already, more than epochs=1"):
        tv.resume(tmp_path / "run", images, epochs=1)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_more_epochs_under_a_schedule_get_a_warning(images, tmp_path):
    """A cosine over three epochs is another training than one over two and one more."""
    tv.fit(vae(), images, out=tmp_path / "run", **SETTINGS | {"epochs": 2, "schedule": "cosine"})
    with pytest.warns(RuntimeWarning, match="the cosine schedule now runs over 3 epochs, not 2"):
        tv.resume(tmp_path / "run", images, epochs=3)


def test_settings_of_another_type_are_refused(images, tmp_path):
    """A config.json edited by hand gets a sentence."""
    tv.fit(vae(), images, out=tmp_path / "run", **SETTINGS | {"epochs": 1})
    config = tmp_path / "run" / "config.json"
    config.write_text(re.sub(r'"lr": [^,]*', '"lr": "abc"', config.read_text()))
    with pytest.raises(CheckpointError, match="found lr='abc'; expected a number"):
        tv.resume(tmp_path / "run", images)
