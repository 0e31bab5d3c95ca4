"""The options of `tinyvae train`: what a model's own option may be, and what is said of one that cannot be."""

import importlib.util
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from colours import coloured_digits
from PIL import Image

from tests.cli.test_main import assert_sentence
from tinyvae.choices import an
from tinyvae.models import MODELS, options_of
from tinyvae.pictures import page

SMALL = ["--hidden", "4", "--latent", "2", "--epochs", 1, "--no-pictures", "--out", "r"]
WRONG = [
    (["latent=2.5"], "found --option latent=2.5; expected a whole number, as latent=20"),
    (["latent=NaN"], "found --option latent=NaN; expected a whole number"),
    (["latent=1e400"], "found --option latent=Infinity; expected a whole number"),
    (["latent=true"], "found --option latent=true; expected a whole number"),
    (["latent=" + "[" * 5000], "expected a whole number, as latent=20"),
    (["hidden=[2.5]"], "found --option hidden=[2.5]; expected a whole number, as hidden=[400]"),
    (['hidden={"a":1}'], 'found --option hidden={"a": 1}; expected a whole number'),
    (['hidden=["3"]'], 'found --option hidden=["3"]; expected a whole number'),
    (["hidden=[]"], "found --option hidden=[]; expected a whole number"),
    (["latent=[2]"], "latent=[2]; expected whole numbers"),
    (["activation=3"], "found --option activation=3; expected text"),
    (["latent=2", "latent=3"], "found --option latent and the same again; leave one of them out"),
    (["pixels=10"], "found --option pixels with --model vae; expected one of its own: hidden, latent"),
    (["a=1"], "found --option a with --model vae; expected one of its own: hidden, latent, activation"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sentence"), WRONG, ids=[options[0][:12] for options, _ in WRONG])
def test_a_wrong_option_is_one_sentence(options, sentence, run):
    arguments = [part for option in options for part in ("--option", option)]
    assert_sentence(run("train", *arguments, "--out", "r"), sentence)
    assert not os.path.exists("r")


def test_an_option_in_two_ways_is_refused(run):
    assert_sentence(run("train", "--option", "hidden=5", *SMALL), "found --option hidden and --hidden; leave one")


def test_a_number_that_is_none_is_refused_from_an_option_of_its_own(run):
    assert_sentence(run("train", "--model", "m2", "--alpha", "nan", "--out", "r"), "found --alpha=NaN; expected a")


def test_an_option_of_another_model_is_named_as_it_was_written(run):
    assert_sentence(run("train", "--first-epochs", "2", "--out", "r"), "found --first-epochs with --model vae")
    assert_sentence(run("train", "--model", "m1m2", "--given", "label", "--out", "r"), "first-epochs, hidden2")


def test_an_epoch_line_has_only_what_a_model_has(run):
    """A stack has no active units of one latent variable, and M2's bound is not told twice."""
    for kind, more in (("m1m2", ["--first-epochs", "1", "--epochs", "2"]), ("m2", ["--epochs", "1"])):
        code, out, err = run("train", "--model", kind, "--labels", "100", "--out", kind, "--no-pictures", *SMALL[:4],
                             *more)
        assert code == 0, err
        lines = [line for line in out.splitlines() if line.startswith("epoch ")]
        assert len(lines) == len(more) // 2
        assert not any("None" in line or "active" in line or ", unlabelled" in line for line in lines), lines


def test_right_options_reach_the_model(run):
    code, _, err = run("train", "--option", "hidden=[5,4]", "--option", "latent=3", "--option", "activation=tanh",
                       *SMALL[4:])
    assert code == 0, err
    config = json.loads(Path("r/config.json").read_text())["model"]
    assert (config["hidden"], config["latent"], config["activation"]) == ([5, 4], 3, "tanh")


# ---- a run that goes on ----------------------------------------------------------------------------------------------


@pytest.fixture
def began(run):
    """A run of one epoch on data in a file, with another treatment of the pixels than a file of bits has by itself."""
    np.save("there.npy", np.random.default_rng(0).integers(0, 2, (40, 3, 4), np.uint8))
    code, _, err = run("train", "there.npy-dynamic", *SMALL)
    assert code == 0, err


@pytest.mark.usefixtures("began")
def test_data_that_moved_are_named_and_found_from_then_on(run):
    os.rename("there.npy", "moved.npy")
    for command, cure in ((["train", "--resume", "r", "--epochs", 2], "tinyvae train DATA --resume r"),
                          (["sample", "r"], "with --data DATA, or for good with tinyvae train DATA --resume r"),
                          (["evaluate", "r"], "--data DATA")):
        assert_sentence(run(*command), "there.npy; expected", "was trained on them: say where they are now", cure)
    np.save("other.npy", np.random.default_rng(1).integers(0, 2, (40, 3, 4), np.uint8))
    result = run("train", "other.npy", "--resume", "r", "--epochs", 2)
    assert_sentence(result, "was trained on other data: the SHA-256 of", "other.npy-dynamic is")
    code, out, err = run("train", "moved.npy", "--resume", "r", "--epochs", 2)
    assert (code, err) == (0, "")
    assert "moved.npy-dynamic: " in out
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    for command in (["train", "--resume", "../r", "--epochs", 3], ["sample", "../r"]):
        assert run(*command)[0] == 0
    config = json.loads(Path("../r/config.json").read_text())
    assert config["data"] == str(Path("../moved.npy").resolve()) + "-dynamic"
    assert config["settings"]["epochs"] == 3


@pytest.mark.usefixtures("began")
def test_a_finished_run_says_so(run):
    more = "; more epochs by: tinyvae train --resume r --epochs COUNT"
    before = Path("r/config.json").read_bytes(), Path("r/last.safetensors").read_bytes()
    code, out, _ = run("train", "--resume", "r")
    assert code == 0
    assert f"nothing left to do{more}" in out
    assert (Path("r/config.json").read_bytes(), Path("r/last.safetensors").read_bytes()) == before
    assert f"nothing left to do; lr recorded for later epochs{more}" in run("train", "--resume", "r", "--lr", "0.1")[1]
    assert "nothing left" not in run("train", "--resume", "r", "--epochs", 2)[1]


@pytest.mark.usefixtures("began")
def test_what_cannot_go_on_gets_a_cure_that_works(run):
    """The checkpoint is not to blame for an option."""
    code, _, err = result = run("train", "--resume", "r", "--patience", 2)
    assert_sentence(result, "needs validation data", "leave patience out, or start a new run", "--init-from r")
    assert "another checkpoint" not in err
    if importlib.util.find_spec("cupy") is None:
        code, _, err = run("train", "--resume", "r", "--device", "cuda")
        assert code == 2
        assert "CuPy" in err
        assert "another checkpoint" not in err


def test_a_data_folder_has_to_exist(run):
    for command in (["train", "digits", "--out", "r"], ["evaluate", "r"]):
        assert_sentence(run(*command, "--data-dir", "nowhere"), "found --data-dir nowhere, where there is no folder")
    assert not os.path.exists("r")


def test_the_help_names_every_activation(run):
    printed = run("train", "--help")[1]
    assert [name for name in ("relu", "tanh", "softplus", "identity") if name not in printed] == []


@pytest.mark.parametrize(("model", "sentence"), [
    ((), "a vae, which reads no labels as it is: take one that does, "),
    (("--model", "cvae", "--given", "quadrants:1"), "a cvae, which reads no labels as it is: take --given label, or")])
def test_labels_that_a_model_does_not_read_are_refused(run, model, sentence):
    np.save("labels.npy", np.arange(1497) % 10)
    assert_sentence(run("train", "digits", "--labels-from", "labels.npy", *model, *SMALL),
                    f"found --labels-from labels.npy with {sentence}")
    assert not os.path.exists("r")
    assert run("train", "digits", "--labels-from", "labels.npy", "--model", "classifier", "--epochs", 0, "--out", "r",
               "--no-pictures")[0] == 0


def test_a_model_that_learns_from_labels_says_how_to_give_them(run):
    rows = "".join(f"{i % 7 / 2},{i % 3},{i % 2}\n" for i in range(40))
    Path("table.csv").write_text(f"a,b,kind\n{rows}")
    Path("unknown.csv").write_text(f"a,b,kind\n{re.sub(',[01]$', ',', rows, flags=re.MULTILINE)}")
    np.save("images.npy", np.random.default_rng(0).integers(0, 2, (40, 3, 4), np.uint8))
    from_file = "take the labels from a file of their own, --labels-from FILE, or take another model"
    for data, model, cure in (
            ("table.csv-real", "m2", f"name the column that holds the labels, --label-column NAME, or {from_file}"),
            ("unknown.csv@kind-real", "classifier", f"give another column than kind with --label-column NAME, or "
                                                    f"{from_file}"),
            ("images.npy", "m1", from_file), ("frey-faces", "m1", from_file)):
        what = "frey-faces-gray" if data == "frey-faces" else f"{os.getcwd()}/{data}".replace(".npy", ".npy-static")
        result = run("train", data, "--model", model, "--out", "r")
        assert_sentence(result, f"found no labels in {what}, and {an(model)} learns from them: {cure}")
    assert_sentence(run("train", "table.csv-real", "--model", "cvae", "--out", "r"), "found given='label' for data "
                    "without labels; expected data with labels: take --label-column NAME or --labels-from FILE")
    assert_sentence(run("train", "images.npy", "--model", "cvae", "--out", "r"), "found given='label' for data without "
                    "labels; expected data with labels: take --labels-from FILE, or another condition: quadrants:1|2|3")
    assert not os.path.exists("r")


def test_an_option_of_another_model_names_that_model(run):
    """Each option of each model, with a model that has it not."""
    for name in {name for model in MODELS.values() for name in model.options}:
        takers = [kind for kind in MODELS if name in options_of(kind)]
        kind = next(kind for kind in MODELS if kind not in takers)
        option, take = name.replace("_", "-"), takers[0] if len(takers) == 1 else "one of them"
        code, _, err = run("train", "digits", "--model", kind, f"--{option}", "1", "--out", "r")
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"tinyvae: found --{option} with --model {kind}; expected one of its own: ")
        assert err.endswith(f"; {option} is an option of {', '.join(takers)}: take {take} as --model, or leave it "
                            "out\n")


def test_a_run_with_labels_from_a_file_keeps_them_where_its_data_moved(run):
    rng = np.random.default_rng(0)
    np.save("there.npy", rng.integers(0, 2, (40, 3, 4), np.uint8))
    np.save("labels.npy", np.arange(36) % 3 - 1)
    code, _, err = run("train", "there.npy", "--labels-from", "labels.npy", "--model", "m2", *SMALL)
    assert code == 0, err
    os.rename("there.npy", "moved.npy")
    code, _, err = run("train", "moved.npy", "--resume", "r", "--epochs", 2)
    assert code == 0, err
    assert run("train", "--resume", "r", "--epochs", 3)[0] == 0


def test_a_folder_of_photographs_in_colour(run, monkeypatch):
    """Every picture, completion and classes: a run on PNG files, one on an array with the channels first."""
    monkeypatch.setattr(page, "DPI", 50)
    images, labels = coloured_digits(40)
    os.mkdir("photos")
    for number, image in enumerate(images):
        Image.fromarray(image).save(f"photos/{number:02}.png")
    np.savez("photos.npz", train=np.moveaxis(images, -1, 1), train_labels=labels)
    sizes = ("--hidden", 12, "--latent", 2, "--epochs", 1, "--batch", 10)
    code, out, err = run("train", "photos", *sizes, "--out", "r")
    assert (code, err) == (0, "")
    assert "9 pictures in r/figures" in out
    assert json.loads(Path("r/config.json").read_text())["data"].endswith("photos-color")
    assert run("complete", "r", "--missing", "left", "--draws", 2, "--sweeps", 2, "--out", "c.csv")[0::2] == (0, "")
    assert len(Path("c.csv").read_text().splitlines()[0].split(",")) == 2 + 192
    sizes = (*sizes, "--no-pictures")
    assert run("train", "photos.npz", *sizes, "--model", "m2", "--labels", 20, "--out", "m")[0] == 0
    code, out, err = run("classify", "m", "photos")
    assert (code, err) == (0, "")
    assert_sentence(run("classify", "m", "photos-gray"), "no file or folder photos-gray")
    Image.fromarray(images[0, :4]).save("small.png")
    assert_sentence(run("classify", "m", "small.png"), "found images of 4 x 8 x 3 pixels in small.png; the run learned "
                    "from 8 x 8 x 3")
