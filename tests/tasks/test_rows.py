"""Rows in own units: draws have the law of a model that is known, codes and reconstructions are the model's."""

import csv

import numpy as np
import pytest
from scipy import stats
from support import likely
from tables import counts, table, zero

import tinyvae as tv
from tinyvae.data.dataset import held_out
from tinyvae.tasks import rows


def test_samples_have_the_models_law_in_own_units():
    data = table()
    drawn = rows.samples(zero(data), data, 1200, seed=3)
    assert drawn.shape == (1200, 3)
    for j in range(3):
        likely(f"column {j}", stats.kstest(drawn[:, j], stats.norm(data.center[j], data.spread[j]).cdf).pvalue)
    assert len(np.unique(drawn[:, 0])) == 1200  # blocks of draws have noise of their own
    assert np.array_equal(rows.samples(zero(data), data, 1200, seed=3), drawn)
    assert not np.isin(rows.samples(zero(data), data, 10, seed=4), drawn).any()


def test_samples_of_counts_are_counts():
    drawn = rows.samples(zero(counts()), counts(), 500)
    assert ((drawn >= 0) & (drawn == np.floor(drawn))).all()


def test_samples_of_images_are_means():
    data, model = tv.data.load("digits"), tv.VAE(64, 4, 2)
    assert np.array_equal(rows.samples(model, data, 5, 1), model.generate(5, 1))


def test_codes_and_reconstructions():
    data = table()
    model = tv.VAE(3, 4, 2, likelihood="normal")
    mean, deviation = rows.codes(model, data)
    expected, logvar = model.encode(data.test)
    assert np.array_equal(mean, expected)
    assert deviation == pytest.approx(np.exp(logvar / 2))
    original, found = rows.reconstructions(model, data)
    np.testing.assert_allclose(original, data.own_units(data.test), rtol=1e-6, atol=1e-6)
    assert np.array_equal(found, model.reconstruct(data.test) * data.spread + data.center)


def test_what_was_observed_has_the_digits_it_was_given_with():
    """Near 0, far from 0 beside the spread, and small; and no other value is stored as the same number."""
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(300, 3)), 4) * [1, 1, 1e-6] + [0.0, 1e2, 0.0]
    x[0, 0] = 2.6342
    data = tv.data.from_table(dict(zip("abc", x.T, strict=True)))
    given = x[held_out(300, 30)[0]]
    found = rows.as_written(data, data.train)
    assert [f"{v:.15g}" for v in found[:, :2].ravel()] == [f"{v:.15g}" for v in given[:, :2].ravel()]
    np.testing.assert_allclose(found[:, 2], given[:, 2], atol=1e-12)
    assert np.array_equal(((found - data.center) / data.spread).astype(np.float32), data.train)
    assert f"{data.own_units(data.train)[0, 0]:.15g}" != f"{found[0, 0]:.15g}"  # as it was before
    image = tv.data.load("digits")
    grey = np.array([[0.3, 0.0, 1 / 3, np.nan]], np.float32)
    assert [f"{v:.15g}" for v in rows.as_written(image, grey)[0]] == ["0.3", "0", "0.33333334", "nan"]


@pytest.mark.parametrize("labels", [None, ("no", "yes", "yes")])
def test_files_say_what_their_columns_are(tmp_path, labels):
    columns = {"a, b": np.array([1.5, -2.25e-7, 0.0]), "n": np.array([3, 4, 7])}
    if labels:
        columns["label"] = np.array(labels)
    rows.write(tmp_path / "a.csv", columns, {})
    with open(tmp_path / "a.csv", newline="") as file:
        head, *lines = csv.reader(file)
    assert head == list(columns)
    assert [[float(cell) for cell in line[:2]] for line in lines] == [[1.5, 3], [-2.25e-7, 4], [0, 7]]
    rows.write(tmp_path / "a.npz", columns, {"data": np.eye(2)})
    with np.load(tmp_path / "a.npz") as found:
        assert found["columns"].tolist() == ["a, b", "n"]
        assert np.array_equal(found["rows"], [[1.5, 3], [-2.25e-7, 4], [0, 7]])
        assert np.array_equal(found["data"], np.eye(2))
        assert ("label" in found) == (labels is not None)
    again = tv.data.load(f"{tmp_path}/a.csv@label-real") if labels else None
    assert again is None or again.class_names == ("no", "yes")


def test_numbers_keep_their_digits(tmp_path):
    values = 1e3 + 1e-9 * np.arange(5)  # far from 0 beside their spread
    rows.write(tmp_path / "a.csv", {"x": values, "y": np.arange(5, dtype=np.float32) / 3}, {})
    found = np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1)
    assert np.abs(found[:, 0] - values).max() < 1e-11
    assert np.array_equal(found[:, 1].astype(np.float32), np.arange(5, dtype=np.float32) / 3)


def test_labels_of_codes_are_names_of_classes():
    data = tv.data.from_table({"a": np.arange(20.0), "y": ["u", "", "v", "u"] * 5}, label="y")
    columns, _ = rows.of_codes(tv.VAE(1, 4, 2, likelihood="normal"), data, 0, 0)
    assert list(columns) == ["z0", "z1", "sd0", "sd1", "label"]
    names = {-1: "", 0: "u", 1: "v"}
    assert columns["label"].tolist() == [names[label] for label in data.test_labels.tolist()]
