"""`tinyvae complete`: tables, pictures and files, and one sentence for each mistake."""

import json

import numpy as np
import pytest
from PIL import Image

import tinyvae as tv
from tinyvae.data.dataset import held_out

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
    assert (arrays["row_in_test"] == range(5)).all()
    assert arrays["rows"].shape == (5, 64)
    means = np.loadtxt(tmp_path / "b.csv", delimiter=",", skiprows=1)
    assert (means[:, 0] == range(5)).all()
    np.testing.assert_allclose(means[:, 1:], arrays["mean"], atol=1e-8)
    draws = np.loadtxt(tmp_path / "c.csv", delimiter=",", skiprows=1)
    assert draws.shape == (15, 66)
    assert (draws[:, 0] == [*range(5)] * 3).all()
    assert (draws[:, 1] == np.repeat([1, 2, 3], 5)).all()
    assert set(np.unique(draws[:, 2:])) <= {0, 1}


def test_a_table_with_empty_cells_is_imputed(run, tmp_path):
    """In its own units, with the names of its columns; what was observed stays as it is, and each row has its number.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 1)) * [2.0, -3.0, 0.5] + [100.0, 0.0, 7.0] + 0.1 * rng.normal(size=(120, 3))
    x = np.round(x, 4)
    holes = rng.uniform(size=x.shape) < 0.2
    lines = ["a,b,c"] + [",".join("" if gone else f"{v:.4f}" for v, gone in zip(*row, strict=True))
                         for row in zip(x, holes, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    code, _, err = run("train", "t.csv-real", "--model", "miwae", "--hidden", 20, "--latent", 2, "--epochs", 40, "--lr",
                       0.01, "--out", "one", "--batch", 32, "--no-pictures")
    assert code == 0, err
    code, out, err = run("complete", "one", "--part", "train", "--draws", 5, "--sweeps", 30, "--out", "full.csv")
    assert code == 0, err
    assert "of the values missing" in out
    assert "importance: means over 150 independent draws of z a datum" in out
    assert (tmp_path / "full.csv").read_text().startswith("row_in_train,draw,a,b,c\n")
    written = [line.split(",") for line in (tmp_path / "full.csv").read_text().splitlines()[1:]]
    kept = [lines[1 + i].split(",") for i in held_out(120, 12)[0]]  # the file's rows that are training data
    for row, _, *cells in written:
        given = kept[int(row)]
        assert [float(cell) for cell, had in zip(cells, given, strict=True) if had] == [float(c) for c in given if c]
        assert all(len(cell) <= len("-100.1234") for cell, had in zip(cells, given, strict=True) if had)
    rows = np.array(written, float)[:, 2:].reshape(5, -1, 3)
    data = tv.data.load("t.csv-real")
    seen, own = data.train_mask == 1, data.own_units(data.train)
    assert rows.shape[1:] == data.train.shape
    truth = np.array([x[np.abs(np.where(seen[i], x - own[i], 0)).max(1).argmin()] for i in range(len(own))])
    for j, deviation in enumerate(x.std(0)):
        gone = ~seen[:, j] & seen.any(1)
        assert np.abs(rows[:, gone, j].mean(0) - truth[gone, j]).mean() < 0.4 * deviation
    code, out, err = run("complete", "one", "--missing", "random:0.3", "--sweeps", 10, "--out", "one.npz")
    assert code == 0, err
    for part in ("RMSE, importance", "RMSE, training mean", "each column's training mean", "nats per hidden value"):
        assert part in out
    assert "std. deviations of a column" in out
    code, out, err = run("complete", "one", "--missing", "random:0.3", "--out", "kt")
    assert (code, out) == (2, "")
    assert err == (f"tinyvae: found --out kt with {tmp_path / 't.csv-real'}, a table, of which no picture is drawn; "
                   "expected a file that ends in .csv or .npz\n")
    arrays = np.load("one.npz")
    assert arrays["columns"].tolist() == ["a", "b", "c"]
    assert (arrays["row_in_test"] == range(12)).all()


@pytest.mark.parametrize(("arguments", "sentence"), [
    ((), "found nothing missing in the test data of digits-dynamic; expected data with holes, or pixels to hide"),
    (("--missing", "right"), "found no file right and no mask of that name; expected left, top, quadrant, center, "),
    (("--missing", "left", "--method", "guess"), "found the method 'guess'; expected one of gibbs, metropolis"),
    (("--missing", "left", "--part", "valid"), "digits-dynamic has no part 'valid'"),
    (("--missing", "left", "--out", "full.txt"), "found --out full.txt; expected a file that ends in .csv or .npz, or"),
    (("--missing", "left", "--method", "metropolis", "--sweeps", "4"), "found gibbs_sweeps=10 of 4 sweeps"),
])  # fmt: skip
def test_mistakes_get_a_sentence(run, digits, arguments, sentence):
    code, out, err = run("complete", digits, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"tinyvae: {sentence}")
    assert err.count("\n") == 1
