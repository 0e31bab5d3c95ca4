"""What the page serves: the names in its JavaScript, and one sentence for everything else."""

import dataclasses

import numpy as np
import pytest
from run_folders import bits, vae

import tinyvae as tv
from tinyvae.distributions import LIKELIHOODS, posteriors
from tinyvae.explorer.served import check, scripts, served
from tinyvae.models import MODELS
from tinyvae.models.conditions import CONDITIONS
from tinyvae.nn.activations import ACTIVATIONS


def test_all_that_is_served_exists():
    tables = {"activation": ACTIVATIONS, "likelihood": LIKELIHOODS, "family": posteriors(), "model": MODELS,
              "condition": CONDITIONS}  # fmt: skip
    assert set(served()) == set(tables)
    for what, names in served().items():
        assert set(names) <= set(tables[what]), what
    assert {"bernoulli", "gaussian", "continuous-bernoulli"} <= set(served()["likelihood"])
    assert {"vae", "m2", "cvae"} <= set(served()["model"])


def test_a_script_cannot_end_its_element():
    for name, text in scripts():
        assert "</script" not in text.lower(), name
        assert "<!--" not in text, name
        assert text.startswith("// ---- "), f"{name} does not say what it is"
        assert max(map(len, text.splitlines())) <= 140, name
    assert [name for name, _ in scripts()][-1] == "main.js"


@pytest.mark.parametrize(("options", "sentence"), [
    ({"likelihood": "poisson"}, "found the likelihood poisson, which the page of explore cannot compute; expected one "
     "of bernoulli, "),
    ({"prior": "vamp"}, "found the prior vamp, which the page of explore cannot draw from; expected a run with prior="),
    ({"learner": "full-vb"}, "found learner=full-vb, whose p.x.z. is a mean over weights; the page of explore has one"),
    ({"posterior": "dirichlet"}, "found the posterior dirichlet, which the page of explore cannot compute; expected "
     "one of normal, "),
])  # fmt: skip
def test_others_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(vae(**options), bits())


def test_other_models_and_activations_are_refused():
    model = tv.models.model_for("classifier", dataclasses.replace(bits(), train_labels=np.arange(20) % 2,
                                                                  test_labels=np.arange(5) % 2), hidden=4)
    with pytest.raises(ValueError, match="found a classifier, which the page of explore cannot compute; expected"):
        check(model, bits())
    model = vae()
    model.config["activation"] = "square"
    with pytest.raises(ValueError, match="found the activation square, which"):
        check(model, bits())


def test_other_data_are_refused():
    table = tv.DataSet("t-real", *(np.ones((n, 12), np.float32) for n in (20, 5)), (1, 12), 1.0, "real", "normal")
    with pytest.raises(ValueError, match="found t-real, a table; explore shows images"):
        check(vae(likelihood="normal"), table)
    holes = dataclasses.replace(bits(), test_mask=np.zeros((5, 12), np.uint8))
    with pytest.raises(ValueError, match="found missing pixels in mine-static; explore shows whole images"):
        check(vae(), holes)
    with pytest.raises(ValueError, match="mine-static has 12 pixels a datum; the model takes 9"):
        check(tv.VAE(9, 4, 2), bits())
