"""The options of `tinyvae train`: what a model's own option may be, and what is said of one that cannot be."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.test_main import assert_sentence

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


def test_right_options_reach_the_model(run):
    code, _, err = run("train", "--option", "hidden=[5,4]", "--option", "latent=3", "--option", "activation=tanh",
                       *SMALL[4:])
    assert code == 0, err
    config = json.loads(Path("r/config.json").read_text())["model"]
    assert (config["hidden"], config["latent"], config["activation"]) == ([5, 4], 3, "tanh")
