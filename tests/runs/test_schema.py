"""Damaged, edited and forged run folders get one sentence, before memory is taken for what they claim."""

import json
import shutil

import numpy as np
import pytest
from run_folders import begin, bits, edit, files_of, reseal
from support import ROOT, run_python

import tinyvae as tv
from tinyvae.runs import schema
from tinyvae.runs.files import LONGEST_TEXT, CheckpointError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return begin(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def out(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def refused(out, match):
    before = files_of(out)
    with pytest.raises(CheckpointError, match=match) as caught:
        tv.resume(out, bits(), epochs=3)
    assert files_of(out) == before
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


UNKNOWN = "actyvation"
EDITS = {
    "a misspelt option": (lambda c: c["model"].update({UNKNOWN: c["model"].pop("activation")}),
                          f"config.json has '{UNKNOWN}' among the options of the model; a vae takes pixels, hidden"),
    "no model": (lambda c: c.update(model=None), "has model: found null; expected an object with pixels"),
    "a number for data": (lambda c: c.update(data=-1), "has data: found -1; expected text"),
    "a list for the environment": (lambda c: c.update(environment=[]), r"has environment: found \[\]; expected an obj"),
    "a list for the BLAS": (lambda c: c["environment"].update(blas=[1]), "has environment: found an object of"),
    "a number for settings": (lambda c: c.update(settings=3), "has settings: found 3; expected an object"),
    "an unknown setting": (lambda c: c["settings"].update(speed=3), "config.json: found unknown settings: speed"),
    "true for a number": (lambda c: c["settings"].update(epochs=True), "found epochs=True; expected a whole number"),
    "beyond 64 bits": (lambda c: c["settings"].update(batch=10**40), r"expected a whole number below 2\^63"),
    "a negative number": (lambda c: c["settings"].update(epochs=-1), "found epochs=-1; expected at least 0"),
    "no list of files": (lambda c: c.update(uses={"file": 3}), "has uses: found .* expected a list"),
    "a change that is none": (lambda c: c.update(changes=[{"epoch": 1}]), "has changes: found"),
    "a version in words": (lambda c: c.update(version="one"), "has version: found 'one'; expected a whole number"),
    "no data": (lambda c: c.pop("data"), "has data: found nothing; expected text"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_configuration(name, out):
    change, match = EDITS[name]
    edit(out, change)
    refused(out, match)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 50_000, b"{" + b" " * LONGEST_TEXT + b"}", b"\0" * 99])
def test_a_text_that_is_no_configuration(content, out):
    (out / "config.json").write_bytes(content)
    refused(out, "is not the configuration of a tinyvae run")


FORGED = {
    "an epoch below 0": (lambda m: m.update(epoch=-1), "has epoch: found -1; expected a whole number, at least 0"),
    "an epoch in words": (lambda m: m.update(epoch="two"), "has epoch: found 'two'"),
    "no epoch": (lambda m: m.pop("epoch"), "has epoch: found nothing"),
    "a best bound that is none": (lambda m: m.update(best=[]), r"has best: found \[\]; expected a number"),
    "a best bound of NaN": (lambda m: m.update(best=float("nan")), "has best: found nan; expected a number"),
    "a best epoch to come": (lambda m: m.update(best_epoch=99), "which is no place"),
    "losses in a list": (lambda m: m.update(first_losses=[1]), "has first_losses: found"),
    "no dictionary": (lambda m: m.update(settings=[]), r"has settings: found \[\]; expected an object"),
    "a setting of another type": (lambda m: m["settings"].update(lr="x"), "last.safetensors: found lr='x'"),
    "a model of another kind": (lambda m: m.update(model={"kind": ["vae"]}), "has model: found"),
    "a fingerprint that is a number": (lambda m: m.update(data_sha256=3), "has data_sha256: found 3; expected text"),
    "a kind of another sort": (lambda m: m.update(kind={}), "holds no training state"),
    "an epoch later": (lambda m: m.update(epoch=1), "which is no place in a training"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_state(name, out):
    """The checksum of such a file is right."""
    change, match = FORGED[name]
    reseal(out / "last.safetensors", lambda arrays, meta: change(meta))
    refused(out, match)


MODELS = {
    "an option that no model has": ({UNKNOWN: "relu"}, f"has '{UNKNOWN}' among the options of the model; a vae takes"),
    "a kind that is none": ({"kind": "cake"}, "holds no model that .* .found model 'cake'; expected one of"),
    "a kind in a list": ({"kind": ["vae"]}, "has model: found"),
    "a width in words": ({"hidden": "many"}, "holds no model"),
    "a width of 0": ({"hidden": [0]}, "each must be at least 1"),
    "a width too many": ({"hidden": [6, 6]}, r"'decoder\.1\.bias' as float32 \(12,\); .* expects float32 \(6,\)"),
    "an activation that is a number": ({"activation": 3}, "activation: found 3; expected a value like 'relu'"),
    "a type of numbers that is none": ({"dtype": "complex7"}, "holds no model"),
    "no pixels": ({"pixels": None}, "has model: found .*; expected an object with pixels"),
    "many latents": ({"latent": 10**12}, r"says latent=1000000000000 of a model with \d+ parameters"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_forged_model(name, out):
    config, match = MODELS[name]
    for file in ("best.safetensors", "last.safetensors"):
        reseal(out / file, lambda arrays, meta: meta["model"].update(config))
        with pytest.raises(CheckpointError, match=match):
            tv.load(out / file)
    edit(out, lambda c: c["model"].update(config))
    refused(out, match)


def test_a_record_that_is_none(out):
    reseal(out / "best.safetensors", lambda arrays, meta: meta.update(record={"epoch": "x"}))
    with pytest.raises(CheckpointError, match="has record: found"):
        tv.load(out)
    for record, is_one in (({"epoch": 1}, True), ({"epoch": "x"}, False), ({"epoch": 0}, False), ([], False),
                           ({"epoch": 1, "train_elbo": "high"}, False), ({"epoch": 1, "train_elbo": None}, True),
                           ({"epoch": 1, "kl_per_dimension": [0.5, None]}, True), ({"epoch": 1, "deep": [[]]}, False),
                           ({"epoch": True}, False), ({"epoch": 10**30}, False)):  # fmt: skip
        assert schema.is_record(record) == is_one, record


def test_a_line_that_is_no_record_draws_no_traceback(out):
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"epoch": "x"}\n[1]\n{"epoch": 1, "train_elbo": "high"}\n')
    with pytest.warns(RuntimeWarning, match="metrics.jsonl was damaged, and is kept as"):
        tv.resume(out, bits())


def test_values_in_sentences():
    assert [schema.shown(v) for v in (None, True, 3, "a", [1], {}, 10**30)] == [
        "null", "true", "3", "'a'", "[1]", "{}", "a number beyond 64 bits"]
    assert schema.shown(list(range(99))) == "a list of 99"
    assert len(schema.shown("x" * 999)) < 70


# ---- bombs -----------------------------------------------------------------------------------------------------------

BOMB = """
import resource, sys
sys.path.insert(0, {tests!r})
import tinyvae as tv
from run_folders import bits
from tinyvae import runs

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (lambda: tv.load({model!r}), lambda: tv.resume({model!r}, bits()), lambda: runs.described({model!r}),
             lambda: tv.resume({log!r}, bits()), lambda: tv.resume({state!r}, bits())):
    try:
        read()
        print("went on")
    except runs.CheckpointError as refusal:
        print(refusal)
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert taken < 2**19, f"{{taken}} kilobytes"
"""


def hole(file, size):
    """A file that ends with a hole: it says that it is large, and takes no room on the disk."""
    with open(file, "ab") as opened:
        opened.truncate(size)


def test_bombs(whole, tmp_path):
    """Small files that claim to be large: a model of [9000, 9000], a log and a state with a hole of 3 GiB each.

    They get a sentence, and half a gigabyte is not taken for them.
    """
    places = {name: shutil.copytree(whole, tmp_path / name) for name in ("model", "log", "state")}
    for file in ("best", "last"):
        reseal(places["model"] / f"{file}.safetensors", lambda arrays, meta: meta["model"].update(hidden=[9000, 9000]))
    edit(places["model"], lambda c: c["model"].update(hidden=[9000, 9000]))
    hole(places["log"] / "metrics.jsonl", 3 * 2**30)
    hole(places["state"] / "last.safetensors", 3 * 2**30)
    done = run_python(BOMB.format(tests=str(ROOT / "tests"), **{name: str(path) for name, path in places.items()}))
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 5
    for words in said[:3]:
        assert "says hidden=9000 of a model with 208 parameters" in words
    assert said[3] == "went on"
    assert "metrics.jsonl was damaged, and is kept as" in done.stderr
    assert "is not a readable safetensors file" in said[4]


def test_a_configuration_alone_that_is_a_bomb(whole, tmp_path):
    """Nothing says how large the model was, so the machine's memory is the limit."""
    (tmp_path / "run").mkdir()
    config = json.loads((whole / "config.json").read_text())
    config["model"]["hidden"] = [10**6, 10**7]
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="holds no model that can be built here"):
        tv.resume(tmp_path / "run", bits())
    assert np.isfinite(tv.load(whole).parameters.flat).all()
