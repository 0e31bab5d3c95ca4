"""What a run folder says against what its sealed state says; lost lines, links, permissions; what is never saved."""

import json
import math
import os
import signal
import warnings

import numpy as np
import pytest
from run_folders import SETTINGS, begin, bits, edit, files_of, reseal, vae

import tinyvae as tv
from tinyvae.runs import RunFolder, checkpoint, files, log
from tinyvae.runs.files import CheckpointError
from tinyvae.training.faults import NonFiniteError


@pytest.fixture
def run(tmp_path):
    return begin(tmp_path / "run")


def refused(out, match, data=None, **changes):
    """The run is refused, and no file of it is changed."""
    before = files_of(out)
    with pytest.raises(CheckpointError, match=match) as caught:
        tv.resume(out, bits() if data is None else data, **changes)
    assert files_of(out) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- the data --------------------------------------------------------------------------------------------------------


def test_other_data_are_refused_with_the_way_to_start_anew(run):
    data = bits()
    data.train[3, 2] ^= 1  # one pixel
    words = refused(run, r"trained on other data: the SHA-256 of mine-static was (\w{12}), and that of .* is (\w{12}); "
                    r"put the data back, or start a new run .*init_from=", data, epochs=3)
    assert bits().fingerprint[:12] in words
    assert data.fingerprint[:12] in words
    refused(run, "trained on other data", tv.DataSet("mine-static", bits().train[:-1], bits().test, (3, 4), 1.0,
                                                     "static", "bernoulli"))


def test_data_that_moved_are_the_same(run):
    assert len(tv.resume(run, bits(name="elsewhere-static"), epochs=3)) == 3


def test_evaluation_of_changed_data_is_refused(tmp_path):
    """The command judges a run on its own data, or on those that --data names."""
    from tinyvae.cli.options import opened

    file = tmp_path / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(file, train=rng.random((20, 3, 4), np.float32), test=rng.random((5, 3, 4), np.float32))
    out = tmp_path / "run"
    tv.fit(vae(likelihood="continuous-bernoulli"), str(file), out=out, **SETTINGS)
    assert opened(out, None, None)[1].name == f"{file}-gray"
    np.savez(file, train=rng.random((20, 3, 4), np.float32), test=rng.random((5, 3, 4), np.float32))
    with pytest.raises(CheckpointError, match=r"trained on other data.*as they are now: --data"):
        opened(out, None, None)
    assert len(opened(out, str(file), None)[1].test) == 5


# ---- the state -------------------------------------------------------------------------------------------------------


def test_the_state_of_another_run_is_refused(run, tmp_path):
    """Of other settings, and of the same settings with another history."""
    other = begin(tmp_path / "other", lr=0.02)
    ours = (run / "last.safetensors").read_bytes()
    (run / "last.safetensors").write_bytes((other / "last.safetensors").read_bytes())
    refused(run, r"config.json says lr=0.01, and the state .* with lr=0.02: .*put the run's own last.safetensors back")
    (run / "last.safetensors").write_bytes(ours)

    def shift(arrays, meta):
        arrays["decoder.0.bias"] += 1

    reseal(run / "last.safetensors", shift)
    refused(run, r"holds the parameters (\w+) after epoch 2, and metrics.jsonl says (\w+): it is the state of another")


def test_a_newer_configuration_says_so(run):
    edit(run, lambda config: config.update(version=2))
    refused(run, "has version 2, newer than version 1 that this tinyvae reads; upgrade tinyvae")


def test_a_place_that_is_none_is_refused(run):
    for index, value in ((0, -3), (0, 7), (1, 5), (2, 4)):
        out = run

        def move(arrays, meta, index=index, value=value):
            arrays["training.counters"][index] = value

        before = (out / "last.safetensors").read_bytes()
        reseal(out / "last.safetensors", move)
        refused(out, "which is no place in a training of 3 batches an epoch")
        (out / "last.safetensors").write_bytes(before)


def test_a_run_of_version_0_2_0_goes_on(tmp_path):
    """Its configuration and its state have the entries below and no others; the bits are those of one long run."""
    whole = begin(tmp_path / "whole", epochs=4)
    out = begin(tmp_path / "run")
    old = {"config": {"format", "version", "model", "data", "data_dir", "settings", "environment"},
           "last": {"kind", "model", "data", "settings", "epoch", "best", "best_epoch", "first_losses"},
           "best": {"kind", "model", "data", "record"}}  # fmt: skip

    def only(entries):
        def change(arrays, meta):
            assert entries < set(meta)
            for name in set(meta) - entries:
                del meta[name]

        return change

    edit(out, lambda config: only(old["config"])(None, config))
    for kind in ("last", "best"):
        reseal(out / f"{kind}.safetensors", only(old[kind]))
    assert isinstance(tv.load(out), tv.VAE)
    records = tv.resume(out, bits(), epochs=4)
    assert records == log.read_lines(whole / "metrics.jsonl")
    assert (out / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()


def test_step_0_of_version_0_2_0_goes_on(tmp_path):
    """Its first checkpoint held parameters only."""
    whole, out = begin(tmp_path / "whole"), begin(tmp_path / "run", epochs=0)

    def parameters(arrays, meta):
        for name in [name for name in arrays if name.startswith(("optimizer", "training"))]:
            del arrays[name]
        meta["settings"]["epochs"] = 2

    reseal(out / "last.safetensors", parameters)
    edit(out, lambda config: config["settings"].update(epochs=2))
    tv.resume(out, bits())
    assert (out / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()


# ---- changes on purpose ----------------------------------------------------------------------------------------------


def test_a_change_is_made_and_recorded(run, tmp_path):
    """The rate of the next epoch is the new one, another run without the change has other bits, and both files say it.
    """
    records = tv.resume(run, bits(), epochs=3, lr=3e-4)
    assert [record["learning_rate"] for record in records] == pytest.approx([0.01, 0.01, 3e-4])
    config, (_, meta) = files.read_json(run / "config.json"), checkpoint.load(run / "last.safetensors")
    change = {"epoch": 2, "step": 6, "epochs": [2, 3], "lr": [0.01, 3e-4]}
    assert config["changes"] == meta["changes"] == [change]
    assert config["settings"]["lr"] == meta["settings"]["lr"] == 3e-4
    assert "was" not in meta
    tv.resume(run, bits(), epochs=4)
    assert files.read_json(run / "config.json")["changes"] == [change]  # a longer run is no other training
    whole = begin(tmp_path / "whole", epochs=4)
    prints = [[record["fingerprint"] for record in log.read_lines(out / "metrics.jsonl")] for out in (run, whole)]
    assert prints[0][:2] == prints[1][:2]
    assert prints[0][2] != prints[1][2]


def test_a_change_that_was_cut_short_is_finished(run, monkeypatch):
    """Killed after the state was written and before config.json was: the run goes on with the change."""

    def die(*_):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", die)
        with pytest.raises(SystemExit):
            tv.resume(run, bits(), epochs=3, lr=3e-4)
    assert files.read_json(run / "config.json")["settings"]["lr"] == 0.01
    assert len(tv.resume(run, bits())) == 3
    assert files.read_json(run / "config.json")["settings"] == checkpoint.load(run / "last.safetensors")[1]["settings"]
    assert files.read_json(run / "config.json")["changes"][0]["lr"] == [0.01, 3e-4]


def test_an_edit_can_be_made_a_change(run):
    """The option that the refusal names works."""
    edit(run, lambda config: config["settings"].update(lr=0.5))
    refused(run, "--lr 0.5")
    tv.resume(run, bits(), lr=0.5)
    assert checkpoint.load(run / "last.safetensors")[1]["settings"]["lr"] == 0.5


def test_what_cannot_change_is_named(run):
    with pytest.raises(ValueError, match=r"found batch, which cannot change .* \(only epochs, lr, .*init_from"):
        tv.resume(run, bits(), batch=4)
    with pytest.raises(ValueError, match="lr=-1"):
        tv.resume(run, bits(), lr=-1.0)
    with pytest.raises(ValueError, match="found lr='abc'"):
        tv.resume(run, bits(), lr="abc")


# ---- a new run from old parameters -----------------------------------------------------------------------------------


def test_a_run_begins_with_the_parameters_of_another(run, tmp_path):
    out = tmp_path / "new"
    tv.fit(vae(seed=9), bits(1), out=out, init_from=run, **SETTINGS | {"epochs": 0})
    assert tv.load(out).parameters.flat.tobytes() == tv.load(run).parameters.flat.tobytes()
    entry = files.read_json(out / "config.json")["init_from"]
    best = [r for r in log.read_lines(run / "metrics.jsonl") if r["best"]][-1]
    assert entry == {"run": str(run), "checkpoint": "best.safetensors", "epoch": best["epoch"],
                     "fingerprint": best["fingerprint"]}  # fmt: skip
    (out / "last.safetensors").unlink()  # killed before the first checkpoint
    assert len(tv.resume(out, bits(1), epochs=1)) == 1


def test_parameters_of_another_model_are_refused(run, tmp_path):
    for model, message in ((vae(hidden=7), r"a model with hidden=\[6\], and this one has hidden=\[7\]"),
                           (vae(activation="tanh"), "activation='relu', and this one has activation='tanh'")):
        with pytest.raises(CheckpointError, match=message):
            tv.fit(model, bits(), out=tmp_path / "new", init_from=run)
    with pytest.raises(ValueError, match="found data_mean_bias with init_from"):
        tv.fit(vae(), bits(), init_from=run, data_mean_bias=True)
    assert not (tmp_path / "new").exists()


def test_parameters_that_are_not_finite_begin_nothing(run, tmp_path):
    reseal(run / "best.safetensors", lambda arrays, meta: arrays["decoder.0.bias"].fill(np.nan))
    model = vae()
    before = model.parameters.flat.tobytes()
    with pytest.raises(CheckpointError, match=r"best\.safetensors holds 6 parameters that are not finite"):
        tv.fit(model, bits(), out=tmp_path / "new", init_from=run)
    assert model.parameters.flat.tobytes() == before
    assert not (tmp_path / "new").exists()


def test_parameters_that_cannot_be_made_again_are_not_replaced(tmp_path, monkeypatch):
    """A model with parameters of its own, killed before they were saved, does not begin with others."""
    model = vae()
    model.parameters["decoder.0.bias"].data[...] = 1
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_last", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            tv.fit(model, bits(), out=tmp_path / "run", **SETTINGS)
    assert os.listdir(tmp_path / "run") == ["config.json"]
    refused(tmp_path / "run", "its parameters (.+) cannot be made again .* in which nothing was trained")


def test_nothing_is_left_where_the_first_checkpoint_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "save_last", lambda *_: (_ for _ in ()).throw(CheckpointError("full")))
    with pytest.raises(CheckpointError, match="full"):
        begin(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    with pytest.raises(CheckpointError, match="full"):
        begin(tmp_path / "mine")
    assert os.listdir(tmp_path) == ["mine"]  # an empty folder of the user stays
    assert os.listdir(tmp_path / "mine") == []


def test_what_a_killed_start_left_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.config.json.77.tmp").write_bytes(b"half")
    assert (begin(tmp_path / "run") / "best.safetensors").exists()


# ---- lines, links, permissions ---------------------------------------------------------------------------------------


def test_lost_and_damaged_lines_are_noticed(run):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(lines[1])
    with pytest.warns(RuntimeWarning, match=r"metrics.jsonl lacks epoch 1; the run goes on"):
        tv.resume(run, bits())
    (run / "metrics.jsonl").write_bytes(lines[0].replace(b"{", b"<", 1) + lines[1])
    with pytest.warns(RuntimeWarning, match=r"lacks epoch 1 and was damaged, and is kept as .*metrics.jsonl.damaged"):
        tv.resume(run, bits())
    assert (run / "metrics.jsonl").read_bytes() == lines[1]
    assert (run / "metrics.jsonl.damaged").read_bytes() == lines[0].replace(b"{", b"<", 1) + lines[1]
    (run / "metrics.jsonl").write_bytes(b"".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tv.resume(run, bits())  # of whole lines nothing is said


@pytest.mark.parametrize("name", ["config.json", "last.safetensors", "best.safetensors", "metrics.jsonl"])
def test_a_link_is_not_followed(name, run, tmp_path):
    (run / name).rename(tmp_path / name)
    (run / name).symlink_to(tmp_path / name)
    refused(run, f"{name} is a symbolic link, and a run rewrites its files: put the file .*{name} itself there")


def test_a_folder_can_be_a_link(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    assert len(tv.resume(tmp_path / "link", bits(), epochs=3)) == 3


def test_permissions_stay(run):
    for name in ("config.json", "last.safetensors", "best.safetensors", "metrics.jsonl"):
        (run / name).chmod(0o600)
    tv.resume(run, bits(), epochs=4)
    for name in ("config.json", "last.safetensors", "best.safetensors", "metrics.jsonl"):
        assert (run / name).stat().st_mode & 0o777 == 0o600, name


# ---- what is not finite ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_dead_model_is_never_the_best(seed, tmp_path):
    """Bad batches are skipped and the rate is huge: no parameter that is saved is infinite, and no best epoch has a
    bound that is not finite."""
    out = tmp_path / "run"
    with pytest.raises(NonFiniteError, match=r"parameters are not finite after step|batches of epoch \d+ were skipped"):
        begin(out, epochs=5, lr=1e38, on_nonfinite="skip", optimizer="sgd", seed=seed)
    for file in out.glob("*.safetensors"):
        for name, array in checkpoint.load(file)[0].items():
            assert np.isfinite(array).all() or name.startswith("training."), (file.name, name)
    for record in log.read_lines(out / "metrics.jsonl"):
        assert not record["best"] or math.isfinite(record["test_elbo"])
    assert json.loads((out / "fault.json").read_text())["message"]


@pytest.mark.parametrize("interrupted", [False, True])
def test_parameters_that_are_not_finite_are_not_saved(interrupted, tmp_path):
    """The last step of the second epoch was too long; neither the epoch's end nor Ctrl-C saves what it left."""
    model, states = vae(), []

    def on_step(training, done):
        states.append((tmp_path / "run/last.safetensors").read_bytes())
        if training.epoch == 1 and done == 3:
            model.parameters["decoder.0.bias"].data[0] = np.inf
            if interrupted:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(NonFiniteError, match=r"1 of 208 parameters are not finite after step 6, .* smaller --lr"):
        tv.fit(model, bits(), out=tmp_path / "run", on_step=on_step, **SETTINGS | {"on_nonfinite": "skip"})
    assert (tmp_path / "run/last.safetensors").read_bytes() == states[-1]
    assert np.isfinite(tv.load(tmp_path / "run").parameters.flat).all()
    assert json.loads((tmp_path / "run/fault.json").read_text())["wrong"] == 1


def test_a_state_that_is_not_finite_does_not_go_on(run):
    """The rate is not to blame for numbers that were NaN before the first step."""
    def forge(arrays, meta):
        arrays["decoder.0.bias"][0] = np.nan

    reseal(run / "last.safetensors", forge)
    (run / "metrics.jsonl").write_text("")
    goes_on = r"found 1 of .* from which no training goes on"
    with pytest.warns(RuntimeWarning, match="lacks epochs 1, 2"), pytest.raises(CheckpointError, match=goes_on):
        tv.resume(run, bits(), epochs=4)


def test_parameters_that_are_not_finite_end_a_training_without_a_folder():
    model = vae()

    def on_step(training, done):
        model.parameters["decoder.0.bias"].data[0] = np.inf

    with pytest.raises(NonFiniteError, match="parameters are not finite after step"):
        tv.fit(model, bits(), on_step=on_step, quiet=True, **SETTINGS | {"on_nonfinite": "skip", "batch": 20})


def test_an_epoch_without_a_finite_judgement_is_not_the_best(tmp_path, monkeypatch):
    from tinyvae.training import epochs

    real = epochs.evaluate

    def evaluate(model, data, **options):
        result = real(model, data, **options)
        return result if len(seen) else (seen.append(1), result.__class__(**vars(result) | {"elbo": math.nan}))[1]

    seen = []
    monkeypatch.setattr(epochs, "evaluate", evaluate)
    out = begin(tmp_path / "run")
    assert [record["best"] for record in log.read_lines(out / "metrics.jsonl")] == [False, True]
    assert checkpoint.load(out / "best.safetensors")[1]["record"]["epoch"] == 2
