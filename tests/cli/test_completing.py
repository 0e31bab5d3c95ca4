"""`tinyvae complete`: tables, pictures and files, and one sentence for each mistake."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import tinyvae as tv
from tinyvae import data as data_sets

FEW = ("--count", 6, "--draws", 4, "--sweeps", 6)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completing") / "run"
    tv.fit(tv.VAE(64, 12, 2), "digits", out=folder, epochs=1)
    return folder


def test_the_numbers_and_the_picture(run, digits):
    code, out, err = run("complete", digits, "--missing", "left", *FEW)
    assert (code, err) == (0, "")
    for part in ("digits-dynamic, 6 data, 50% of the pixels missing", "-log p(hidden | observed), gibbs",
                 "each pixel's training mean", "one-shot re-encoding", "nats per hidden pixel", "gibbs: 4 chains"):
        assert part in out
    with Image.open(digits / "figures" / "completion-gibbs.png") as image:
        assert np.asarray(image.convert("L")).var() > 1


def test_as_json(run, digits, tmp_path):
    arguments = ("complete", digits, "--missing", "random:0.5", "--method", "metropolis", "--gibbs-sweeps", 2, *FEW,
                 "--out", tmp_path, "--json")
    code, out, _ = run(*arguments)
    found = json.loads(out)
    assert code == 0
    assert (found["method"], found["gibbs_sweeps"], found["hidden_count"]) == ("metropolis", 2, 6 * 32)
    assert {q["name"] for q in found["quantities"]} >= {"acceptance", "wrong pixels, metropolis"}
    assert (tmp_path / "completion-metropolis.png").exists()
    assert run(*arguments)[1] == out
    assert run(*arguments, "--seed", 1)[1] != out


def test_files(run, digits, tmp_path):
    for name, more in (("a.npz", ()), ("b.csv", ()), ("c.csv", ("--draws", 3))):
        code, out, _ = run("complete", digits, "--missing", "top", "--count", 5, "--sweeps", 4, *more, "--out",
                           tmp_path / name)
        assert code == 0
        assert str(tmp_path / name) in out
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["draws"].shape == (20, 5, 64)
    assert (arrays["mean"][:, 32:] == arrays["x"][:, 32:]).all()
    assert arrays["missing"][:, :32].all()
    means = np.loadtxt(tmp_path / "b.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(means, arrays["mean"], atol=1e-8)
    draws = np.loadtxt(tmp_path / "c.csv", delimiter=",", skiprows=1)
    assert draws.shape == (15, 65)
    assert (draws[:, 0] == np.repeat([1, 2, 3], 5)).all()
    assert set(np.unique(draws[:, 1:])) <= {0, 1}


def test_a_run_with_holes_is_imputed(run, tmp_path, monkeypatch):
    """Its data come with masks from the data room; here a loader stands in that makes holes in the digits."""
    whole = tv.data.load("digits-static")
    mask = [(np.random.default_rng(i).uniform(size=part.shape) < 0.7).astype(np.uint8) for i, part in enumerate(
        (whole.train, whole.test))]
    data = dataclasses.replace(whole, train=whole.train * mask[0], test=whole.test * mask[1], train_mask=mask[0],
                               test_mask=mask[1])
    tv.fit(tv.models.model_for("miwae", data, hidden=12, latent=2), data, out=tmp_path / "run", epochs=1)
    monkeypatch.setattr(data_sets, "load", lambda *_: data)
    code, out, err = run("complete", tmp_path / "run", "--draws", 5, "--sweeps", 4, "--out", tmp_path / "full.csv")
    assert code == 0, err
    assert "digits-static, 300 data, 30% of the pixels missing" in out
    assert "importance: means over 20 independent draws of z a datum" in out
    rows = np.loadtxt(tmp_path / "full.csv", delimiter=",", skiprows=1).reshape(5, 300, 65)[..., 1:]
    assert (rows[:, mask[1] == 1] == data.test[mask[1] == 1]).all()
    assert 0.05 < rows[:, mask[1] == 0].mean() < 0.6


@pytest.mark.parametrize(("arguments", "sentence"), [
    ((), "found nothing missing in the test data of digits-dynamic; expected data with holes, or pixels to hide"),
    (("--missing", "right"), "found no file right and no mask of that name; expected left, top, quadrant, center, "),
    (("--missing", "left", "--method", "guess"), "found the method 'guess'; expected one of gibbs, metropolis"),
    (("--missing", "left", "--part", "valid"), "digits-dynamic has no part 'valid'"),
    (("--missing", "left", "--out", "full.txt"), "found --out full.txt; expected a file that ends in .npz or .csv, or"),
    (("--missing", "left", "--method", "metropolis", "--sweeps", "4"), "found gibbs_sweeps=10 of 4 sweeps"),
])  # fmt: skip
def test_mistakes_get_a_sentence(run, digits, arguments, sentence):
    code, out, err = run("complete", digits, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"tinyvae: {sentence}")
    assert err.count("\n") == 1
