"""`tinyvae sample` and `tinyvae upscale` on conditional runs: pictures, numbers, and one sentence for every mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyvae as tv
from tinyvae.models import model_for
from tinyvae.runs import log
from tinyvae.tasks.generation.conditional import answer

GIVEN = {"label": "label", "quadrants": "quadrants:2", "pooled": "pooled:2"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on each kind of condition, and one without."""
    folder, data = tmp_path_factory.mktemp("runs"), tv.data.load("digits")
    for name, given in GIVEN.items():
        model = model_for("cvae", data, given=given, hidden=20, latent=2)
        tv.fit(model, data, out=folder / name, epochs=1, quiet=True)
    tv.fit(tv.VAE(64, 20, 2), data, out=folder / "vae", epochs=1, quiet=True)
    images = (data.test[:3] * 15).reshape(3, 8, 8)
    np.save(folder / "three.npy", images)
    np.save(folder / "low.npy", images.reshape(3, 4, 2, 4, 2).mean((2, 4)).astype(np.uint8))
    Image.fromarray(images[0]).save(folder / "digit.png")
    Image.fromarray(np.zeros((5, 5), np.uint8) + np.arange(0, 250, 50, dtype=np.uint8)).save(folder / "odd.png")
    return folder


def size_of(file):
    with Image.open(file) as image:
        assert np.asarray(image.convert("L")).var() > 1, f"{file} is blank"
        return image.size


def test_train_takes_the_condition_and_draws_answers(run, runs):
    code, out, err = run("train", "digits", "--model", "cvae", "--given", "quadrants:1", "--hidden", 12, "--latent", 2,
                         "--epochs", 1, "--out", "r")
    assert (code, err) == (0, "")
    config = json.loads(Path("r/config.json").read_text())["model"]
    assert (config["kind"], config["given"], config["shape"]) == ("cvae", "quadrants:1", [8, 8])
    assert "run folder r, 0 of 1 epoch done" in out
    assert "2 pictures in r/figures: curves.png, samples.png" in out
    assert size_of("r/figures/samples.png")
    assert log.read_lines("r/metrics.jsonl")[0]["test_kl"] >= 0
    code, out, err = run("evaluate", "r", "-k", 5)
    assert (code, err) == (0, "")
    assert "log p(x|c), 5 samples" in out
    assert "c is the bottom left quarter of an image" in out


def test_answers_to_a_label(run, runs):
    code, out, err = run("sample", runs / "label", "--label", 7, "--draws", 3, "--out", "pictures")
    assert (code, out.strip(), err) == (0, "pictures/samples.png", "")
    narrow = size_of("pictures/samples.png")
    assert run("sample", runs / "label", "--out", "pictures")[0] == 0  # a column for each label
    assert size_of("pictures/samples.png")[0] > narrow[0]


def test_answers_to_an_image_as_numbers(run, runs):
    for name in ("answers.npz", "answers.csv"):
        code, out, err = run("sample", runs / "quadrants", "--condition", runs / "three.npy", "--draws", 2, "--seed", 4,
                             "--temperature", 0.5, "--out", name)
        assert (code, out.strip(), err) == (0, name, "")
    expected = answer(tv.load(runs / "quadrants"), images=runs / "three.npy", draws=2, seed=4,
                                           temperature=0.5)
    with np.load("answers.npz") as found:
        assert set(found) == {"answers", "mean", "spread", "conditions", "shape"}
        np.testing.assert_array_equal(found["answers"], expected.images)
        assert found["shape"].tolist() == [8, 8]
    head, *lines = Path("answers.csv").read_text().splitlines()
    assert head.startswith("condition,draw,0,1,")
    table = np.array([line.split(",") for line in lines], float)
    assert table[:, :2].tolist() == [[row, draw] for draw in range(2) for row in range(3)]
    np.testing.assert_allclose(table[:, 2:].reshape(2, 3, 64), expected.images, rtol=1e-5)


def test_a_single_image_file(run, runs):
    code, out, err = run("sample", runs / "pooled", "--condition", runs / "digit.png", "--out", ".")
    assert (code, out.strip(), err) == (0, "samples.png", "")
    assert size_of("samples.png")


def test_an_unconditional_run_samples_as_before(run, runs, monkeypatch):
    loaded, load = [], tv.runs.load
    monkeypatch.setattr(tv.runs, "load", lambda *arguments: loaded.append(arguments) or load(*arguments))
    assert run("sample", runs / "vae", "--out", "p")[0] == 0
    assert size_of("p/samples.png")
    assert len(loaded) == 1
    assert run("sample", runs / "vae", "--out", "images.csv", "--count", 4, "--seed", 2)[0] == 0
    _, *lines = Path("images.csv").read_text().splitlines()
    found = np.array([line.split(",") for line in lines], float)
    np.testing.assert_allclose(found, tv.load(runs / "vae").generate(4, 2), rtol=1e-6)


def test_upscale_prints_a_table_and_draws(run, runs):
    code, out, err = run("upscale", runs / "pooled", "--draws", 3, "--count", 5, "--temperature", "0.2,1", "--out", ".")
    assert (code, err) == (0, "")
    assert "x2, 5 images" in out
    assert [line.split("  ")[0] for line in out.splitlines() if "T = " in line] == [
        f"{what}, T = {t}" for t in ("0.2", "1") for what in ("answer", "mean of 3")]
    assert size_of("upscaled.png")
    code, out, err = run("upscale", runs / "pooled", runs / "three.npy", "--draws", 3, "--json", "--out", "up.npz")
    assert (code, err) == (0, "")
    found = json.loads(out.partition("up.npz")[0])
    assert (found["factor"], found["count"], len(found["ways"])) == (2, 3, 8)
    assert found["ways"][1]["psnr"] > 5
    with np.load("up.npz") as arrays:
        assert arrays["mean"].shape == (3, 64)
        assert arrays["temperature"] == 1.0  # the last of 0.2, 0.6 and 1
    code, _, err = run("upscale", runs / "pooled", runs / "three.npy", "--draws", 3, "--temperature", "1,0.2",
                       "--out", "up.csv")
    assert (code, err) == (0, "")
    head, *lines = [line.split(",") for line in Path("up.csv").read_text().splitlines()]
    assert head[:3] == ["image", "temperature", "0"]
    assert [line[:2] for line in lines] == [[str(i), "0.2"] for i in range(3)]
    code, out, err = run("upscale", runs / "pooled", runs / "low.npy", "--draws", 2, "--count", 1, "--out", ".")
    assert (code, err) == (0, "")
    assert "x2, 1 image\n" in out


@pytest.mark.parametrize(("command", "sentence"), [
    (("sample", "quadrants", "--label", 3), "found the label 3 as the condition; this model is given the left half of"),
    (("sample", "label", "--label", 10), "found the label 10; this model was trained on labels from 0 to 9"),
    (("sample", "label", "--condition", "three.npy"), "found an image as the condition; this model is given a label"),
    (("sample", "vae", "--label", 3), "found a vae, which generates without a condition; expected a run that was "
     "trained with one: tinyvae train --model cvae --given label\n"),
    (("sample", "vae", "--condition", "three.npy"), "found a vae, which generates without a condition; expected a run "
     "that was trained with one: tinyvae train --model cvae --given quadrants:1|2|3 or pooled:N\n"),
    (("sample", "pooled", "--condition", "odd.png"), "found a condition of 5 x 5 pixels; expected 4 x 4, or 8 x 8 to"),
    (("sample", "pooled", "--condition", "none.png"), "there is no file or folder"),
    (("sample", "pooled", "--temperature", 2), "found --temperature without a condition"),
    (("sample", "vae", "--draws", 4), "found --draws with a vae, which generates without a condition"),
    (("sample", "pooled", "--out", "x.npz"), "found --out x.npz without a condition"),
    (("sample", "pooled", "--out", "x.jpg"), "found --out x.jpg; expected a file that ends in .csv or .npz, or a"),
    (("latents", "vae", "--out", "x.jpg"), "found --out x.jpg; expected a file that ends in .csv or .npz, or a"),
    (("sample", "label", "--label", 3, "--draws", -1), "found draws -1; expected a whole number, at least 1"),
    (("upscale", "quadrants"), "found a cvae that is given the left half of an image; upscale takes a run"),
    (("upscale", "vae"), "found a vae, which generates without a condition; expected a run that was trained with one: "
     "tinyvae train --model cvae --given pooled:N, which is given an image averaged over N x N pixels\n"),
    (("upscale", "pooled", "--temperature", "warm"), "found --temperature 'warm'; expected one number or several"),
    (("upscale", "pooled", "--count", 0), "found --count 0; expected at least 1"),
    (("train", "digits", "--given", "label"), "found --given with --model vae; expected one of its own: "),
    (("train", "digits", "--model", "cvae", "--given", "pooled:3"), "found given='pooled:3' for images of 8 x 8"),
])
def test_a_mistake_gets_one_sentence(run, runs, command, sentence):
    if command[0] != "train":
        command = (command[0], runs / command[1], *(runs / part if str(part).endswith((".npy", ".png")) else part
                                                    for part in command[2:]))
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert err.startswith(f"tinyvae: {sentence}")
    assert len(err.splitlines()) == 1


def test_complete_answers_by_the_conditional_prior(run, runs, tmp_path):
    """By default and by its name; what the condition is of stays as it is, and the rest is drawn by q of no image."""
    few = ("--count", 4, "--draws", 5, "--sweeps", 3)
    code, out, err = run("complete", runs / "quadrants", *few, "--out", tmp_path)
    assert (code, err) == (0, "")
    for part in ("digits-dynamic, 4 data, 50% of the pixels missing", "-log p(hidden | observed), prior",
                 "prior: means over 15 independent draws of z a datum"):
        assert part in out
    assert size_of(tmp_path / "completion-prior.png")
    code, again, err = run("complete", runs / "quadrants", "--method", "prior", *few, "--out", tmp_path / "a.npz")
    assert (code, err) == (0, "")
    assert out.splitlines()[:-1] == again.splitlines()[:len(out.splitlines()) - 1]
    found = np.load(tmp_path / "a.npz")
    right = np.tile(np.arange(8) >= 4, (4, 8))  # two quarters are given, those of the left half
    assert (found["missing"] == right).all()
    assert found["draws"].shape == (5, 4, 64)
    assert (found["draws"][:, ~right] == np.tile(found["x"][~right], (5, 1))).all()
    assert (found["draws"][0] != found["draws"][1]).any()


@pytest.mark.parametrize(("name", "arguments", "sentence"), [
    ("quadrants", ("--method", "gibbs"), "found the method gibbs with a cvae; the method prior goes with a"),
    ("quadrants", ("--missing", "left"), "found pixels to hide from a cvae that is given"),
    ("quadrants", ("--missing", "left", "--method", "prior"), "found the method prior with a cvae and pixels to hide"),
    ("vae", ("--missing", "left", "--method", "prior"), "found the method prior with a vae and pixels to hide; the"),
])  # fmt: skip
def test_complete_by_a_prior_that_does_not_fit(run, runs, name, arguments, sentence):
    code, out, err = run("complete", runs / name, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"tinyvae: {sentence}")
