"""What training refuses, every other entrance refuses with the same sentence."""

import dataclasses
from functools import partial

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.data import as_data_set
from tinyvae.models.batch import rows_of
from tinyvae.models.cvae import CVAE
from tinyvae.models.m2 import M2
from tinyvae.pictures import gallery
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

RNG = np.random.default_rng(0)


def data_set(width=9, pixels="dynamic", name="made", **more):
    train, test = RNG.integers(0, 17, (12, width), np.uint8), RNG.integers(0, 17, (6, width), np.uint8)
    return tv.DataSet(f"{name}-{pixels}", train, test, (width // 3, 3), 16.0, pixels, "bernoulli", **more)


def training(model, data, folder):
    Training(model, data, Settings(epochs=1))


def evaluation(model, data, folder):
    tv.evaluate(model, data)


def picture(name):
    return lambda model, data, folder: getattr(gallery, name)(model, data, folder)


ENTRANCES = {
    "evaluate": evaluation, "rows_of": lambda model, data, folder: rows_of(model, data, "train"),
    **{name: picture(name) for name in ("sample", "reconstruct", "traverse", "interpolate", "manifold", "latents")},
    "all_pictures": lambda model, data, folder: gallery.all_pictures(model, data, [], folder / "figures"),
}  # fmt: skip


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize(("model", "data"), [
    (tv.VAE(9, 4, 2), data_set(pixels="gray")), (tv.VAE(9, 4, 2), data_set(width=12)),
    (tv.VAE(12, 4, 2, likelihood="gaussian"), data_set(pixels="gray"))],
    ids=["grey under bernoulli", "more pixels", "fewer pixels"])  # fmt: skip
def test_one_sentence_everywhere(tmp_path, entrance, model, data):
    with pytest.raises(ValueError, match=r"made-gray has numbers from 0 to 1|pixels a datum") as first:
        training(model, data, tmp_path)
    with pytest.raises(ValueError, match="made") as caught:
        ENTRANCES[entrance](model, data, tmp_path)
    assert str(caught.value) == str(first.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on bits, and grey images of the same size."""
    folder = tmp_path_factory.mktemp("trained")
    bits = RNG.integers(0, 2, (12, 9), np.uint8)
    np.savez(folder / "bits.npz", train=bits, test=bits)
    np.savez(folder / "grey.npz", train=bits * np.uint8(100) + np.arange(9, dtype="u1"), test=bits)
    tv.fit(tv.VAE(9, 4, 2), str(folder / "bits.npz"), folder / "run", epochs=1, quiet=True)
    return folder / "run", folder / "grey.npz"


def test_the_pictures_of_the_command_line_make_no_folder_for_data_they_refuse(trained, run, tmp_path):
    folder, grey = trained
    for command in (("evaluate",), ("sample", "--out", "new"), ("latents", "--out", "new")):
        code, _, said = run(command[0], folder, "--data", grey, *command[1:])
        assert code == 2
        assert "tinyvae: the likelihood bernoulli takes 0 and 1, and " in said
        assert "take its -dynamic, -static or -threshold form" in said
    assert not (tmp_path / "new").exists()
    code, _, said = run("evaluate", folder, "--data", f"{grey}-threshold")  # the cure
    assert code == 0, said


def test_evaluation_takes_names_as_fit_does(tmp_path):
    np.savez(tmp_path / "a.npz", train=np.eye(12, 9, dtype=np.uint8), test=np.eye(6, 9, dtype=np.uint8))
    model = tv.VAE(9, 4, 2)
    for name in (str(tmp_path / "a.npz"), tmp_path / "a.npz"):
        assert tv.evaluate(model, name) == tv.evaluate(model, tv.data.load(tmp_path / "a.npz"))
    assert tv.evaluate(tv.VAE(64, 4, 2), "digits").data == "digits-dynamic"


# ---- arrays --------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "said"), [
    (255.0, r"found values from 0 to 255 in {}; expected numbers from 0 to 1. Store np.float32\(images / 255\)"),
    (-0.5, r"found values from -0.5 to 1 in {}; expected"), (np.nan, "found NaN in 1 of 6 images in {}; expected"),
    (1 + 2**-52, r"found values from 0 to 1.0000000000000002 in {}; expected .* np.clip\(images, 0, 1\)")])
def test_arrays_out_of_range_are_refused(wrong, said):
    model, x = tv.VAE(9, 4, 2, likelihood="gaussian"), np.eye(6, 9)
    x[3, 3] = wrong
    for what, entrance in (("the array", lambda: tv.evaluate(model, x)), ("x", lambda: model.encode(x)),
                           ("x", lambda: model.reconstruct(x))):
        with pytest.raises(tv.DataError, match=said.format(what)):
            entrance()


def test_an_array_of_grey_pixels_is_not_judged_by_a_bernoulli():
    model, bits = tv.VAE(9, 4, 2), np.eye(6, 9)
    assert tv.evaluate(model, bits).data == "the array"
    with pytest.raises(ValueError, match="bernoulli takes 0 and 1, and the array has numbers from 0 to 1; likelihoods"):
        tv.evaluate(model, bits / 2)
    assert tv.evaluate(tv.VAE(9, 4, 2, likelihood="gaussian"), bits / 2).data_count == 6
    # the encoder alone takes grey values, the probabilities of pixels that are drawn
    assert model.encode(bits / 2)[0].shape == (6, 2)


def test_latents_that_are_not_finite_are_not_decoded():
    with pytest.raises(ValueError, match="found NaN or infinite numbers in z"):
        tv.VAE(9, 4, 2).decode([[0.0, 1.0], [np.nan, 0.0]])


def test_what_is_a_data_set():
    data = data_set()
    assert as_data_set(data) is data
    for array, kind in ((np.eye(3), "binary"), (np.eye(3, dtype=bool), "binary"), (np.eye(3) / 2, "grey")):
        found = as_data_set(array)
        assert (found.kind, found.scale, len(found.train), len(found.test)) == (kind, 1.0, 3, 3)


@pytest.mark.parametrize(("mean", "said"), [
    (np.full(9, 128.0), "found values from 128 to 128 in data_mean"), (np.full(9, np.nan), "NaN .* in data_mean"),
    (np.full(8, 0.5), r"found data_mean of shape \(8,\) and type float64; expected \(9,\)"),
    (0.5, r"data_mean of shape \(\) and type float64; expected")])
def test_means_that_are_none(mean, said):
    with pytest.raises(ValueError, match=said):
        tv.VAE(9, 4, 2, data_mean=mean)


# ---- labels --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [M2, partial(CVAE, shape=(3, 3), classes=10)])
@pytest.mark.parametrize("labels", [[0, 1, 10, 2] * 3, [0, -2, 1, 2] * 3])
def test_labels_without_a_class_are_refused(kind, labels, tmp_path):
    """They would be taken for unknown ones."""
    data = data_set(train_labels=np.array(labels), test_labels=np.zeros(6, int))
    with pytest.raises(ValueError, match=rf"found train labels from {min(labels)} to {max(labels)} in made-dynamic; "
                                         r"an? \w+ with classes=10 takes 0 to 9, and -1 for an unknown one"):
        training(kind(9), data, tmp_path)
    right = dataclasses.replace(data, train_labels=np.clip(labels, -1 if kind is M2 else 0, 9))
    training(kind(9), right, tmp_path)
    judged = dataclasses.replace(right, test_labels=np.full(6, 10))
    for entrance in (training, evaluation):  # before an epoch is lost
        with pytest.raises(ValueError, match="found test labels from 10 to 10 in made-dynamic"):
            entrance(kind(9), judged, tmp_path)
