"""Labels from a file of their own: what is read, what is refused, and that a run does not go on with others."""

import dataclasses

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.data import DataError, anywhere, outline, with_labels
from tinyvae.models.m2 import M2
from tinyvae.runs.files import CheckpointError

ROWS = np.array([[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]] * 2, np.uint8)


@pytest.fixture
def images(tmp_path):
    np.savez(tmp_path / "images.npz", train=ROWS.reshape(-1, 2, 2), test=ROWS[:4].reshape(-1, 2, 2))
    return str(tmp_path / "images.npz")


def labelled(images, tmp_path, content, name="labels.csv"):
    file = tmp_path / name
    if isinstance(content, str):
        file.write_text(content)
    else:
        np.save(file, content)
    return tv.data.load(with_labels(images, file))


@pytest.mark.parametrize("content", [
    "0\n1\n-1\n2\n\n1\n0\n-1\n", "label\n0\n1\n-1\n2\n\n1\n0\n-1", "0.0\n1.0\nnan\n2\n-1\n1\n0\n\n"])
def test_numbers_of_a_text(images, tmp_path, content):
    data = labelled(images, tmp_path, content)
    assert data.train_labels.tolist() == [0, 1, -1, 2, -1, 1, 0, -1]
    assert data.classes == outline(data.name).classes == 3
    assert tv.data.load(data.name).fingerprint == data.fingerprint


@pytest.mark.parametrize("content", [np.array([0, 1, -1, 2, -1, 1, 0, -1]),
                                     np.array([0, 1, np.nan, 2, -1, 1, 0, -1.0])])
def test_numbers_of_an_array(images, tmp_path, content):
    assert labelled(images, tmp_path, content, "labels.npy").train_labels.tolist() == [0, 1, -1, 2, -1, 1, 0, -1]


def test_names_of_classes(images, tmp_path):
    data = labelled(images, tmp_path, "b\na\n\n-1\nb\na\nb\n\n")
    assert (data.class_names, data.train_labels.tolist()) == (("a", "b"), [1, 0, -1, -1, 1, 0, 1, -1])


@pytest.mark.parametrize(("content", "sentence"), [
    ("0\n1\n", r"found 2 labels in .*labels.csv; expected 8, one for each training datum of .*images.npz-static"),
    ("0\n" * 7 + "-2\n", "found labels from -2 to 0 in .*; expected whole numbers from 0 on, and -1"),
    ("\xff\xfe" * 9, "found 1 label in"),
    ("", "labels.csv is empty; expected 8 lines with a label in each, -1 for an unknown one"),
    (" \n\n", "labels.csv is empty; expected 8 lines"),
    ("a,b\n0,1\n1,2\n", "found 2 columns in .*labels.csv; expected one, with a label in each line: write the column"),
    ("0;a;2\n" * 8, "found 3 columns in .*labels.csv; expected one"),
    ("0\t1\n" * 8, "found 2 columns in .*labels.csv; expected one"),
    ("-1\n\n" * 4, "found only -1 or nothing in .*labels.csv, which stand for an unknown label; expected the label of "
                   "at least one training datum of .*images.npz-static"),
    (np.full(8, -1), "found only -1 or nothing in .*labels.npy"),
    (np.full(8, np.nan), "found only -1 or nothing in .*labels.npy"),
    (np.zeros((8, 2)), r"found float64 of shape \(8, 2\) in .*; expected \(8,\) labels")])
def test_labels_that_are_none_get_a_sentence(images, tmp_path, content, sentence):
    with pytest.raises(DataError, match=sentence):
        labelled(images, tmp_path, content, "labels.csv" if isinstance(content, str) else "labels.npy")


def test_a_name_of_a_class_may_hold_a_separator(images, tmp_path):
    data = labelled(images, tmp_path, '"b, c"\n"a"\n-1\n\n"b, c"\na\na\n"a"\n')
    assert (data.class_names, data.train_labels.tolist()) == (("a", "b, c"), [1, 0, -1, -1, 1, 0, 0, 0])


def test_labels_beyond_the_classes_of_the_data(tmp_path):
    (tmp_path / "l.txt").write_text("10\n" + "\n" * 1496)
    with pytest.raises(DataError, match=r"found the label 10 in .*; digits-dynamic has 10 classes, 0 to 9"):
        tv.data.load(with_labels("digits", tmp_path / "l.txt"))
    (tmp_path / "l.txt").write_text("seven\n" + "\n" * 1496)
    with pytest.raises(DataError, match=r"found the label 'seven' in .*, and the test labels of digits-dynamic are"):
        tv.data.load(with_labels("digits", tmp_path / "l.txt"))


def test_one_label_that_is_no_whole_number_is_named(tmp_path):
    labels = np.arange(1497) % 10.0
    labels[7] = 2.5
    np.save(tmp_path / "half.npy", labels)
    with pytest.raises(DataError, match=r"found the label '2.5' in .*half.npy, .* are whole numbers; expected whole"):
        tv.data.load(with_labels("digits", tmp_path / "half.npy"))


def test_a_missing_file_and_a_second_one(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*nowhere.csv; expected an .npy file, or text"):
        with_labels("digits", tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"found labels from .* beside those of"):
        with_labels("digits+labels:a.csv", tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"there is no file .*gone.csv; expected the labels"):
        tv.data.load(f"digits+labels:{tmp_path / 'gone.csv'}")


def test_a_run_does_not_go_on_with_other_labels(images, tmp_path):
    content = "0\n1\n-1\n1\n\n1\n0\n-1\n"
    data = labelled(images, tmp_path, content)
    assert anywhere(data.name) == data.name
    tv.fit(M2(4, classes=2, hidden=3, latent=2), data.name, out=tmp_path / "run", epochs=1, quiet=True)
    assert len(tv.resume(tmp_path / "run", epochs=2, quiet=True)) == 2
    (tmp_path / "labels.csv").write_text(content.replace("-1\n1", "-1\n0"))
    with pytest.raises(CheckpointError, match="was trained on other data"):
        tv.resume(tmp_path / "run", epochs=3, quiet=True)


def test_a_run_whose_labels_changed_says_which_data_to_give(run, images, tmp_path):
    """With them it classifies its own test data, which need no label of the training data."""
    file = tmp_path / "labels.csv"
    data = labelled(images, tmp_path, "0\n1\n-1\n1\n\n1\n0\n-1\n")
    tv.fit(M2(4, classes=2, hidden=3, latent=2), data.name, out=tmp_path / "run", epochs=1, quiet=True)
    assert run("classify", "run")[0] == 0
    file.write_text(file.read_text().replace("-1\n1", "-1\n0"))
    code, out, error = run("classify", "run")
    assert (code, out, error.count("\n")) == (2, "", 1)
    cure = f"--data {images}-static"
    assert error.endswith(f"put the data back, or take them without the labels of {file}, of which only training needs "
                          f"any: {cure}\n")
    for command in ("classify", "evaluate"):
        assert run(command, "run", *cure.split(" "))[0] == 0


def test_a_run_whose_data_changed_says_which_data_to_give(run, images, tmp_path):
    tv.fit(tv.VAE(4, 3, 2), images, out=tmp_path / "run", epochs=1, quiet=True)
    np.savez(tmp_path / "images.npz", train=1 - ROWS.reshape(-1, 2, 2), test=ROWS[:4].reshape(-1, 2, 2))
    code, out, error = run("evaluate", "run")
    assert (code, out) == (2, "")
    cure = f"--data {images}-static"
    assert error.endswith(f"put the data back, or take them as they are now: {cure}\n")
    assert run("evaluate", "run", *cure.split(" "))[0] == 0


def test_a_class_without_a_label_gets_a_sentence(images, tmp_path):
    data = labelled(images, tmp_path, "0\n1\n\n-1\n1\n0\n1\n\n")
    data = dataclasses.replace(data, test_labels=np.array([0, 1, 2, 2]))
    with pytest.raises(ValueError, match=r"found no training label of class 2 of .*at least one of each of its 3 "
                                         r"classes: give one of that class in .*labels.csv, or leave its data out"):
        tv.fit(M2(4, classes=3, hidden=3, latent=2), data, epochs=1, quiet=True)


def test_the_command_takes_them_and_a_later_run_others(run, images, tmp_path):
    first, second = (tmp_path / name for name in ("first.csv", "second.csv"))
    first.write_text("0\n1\n-1\n1\n\n1\n0\n-1\n")
    second.write_text("0\n1\n1\n1\n0\n1\n0\n-1\n")
    small = ("--hidden", 3, "--latent", 2, "--epochs", 1, "--no-pictures")
    code, out, error = run("train", images, "--model", "m2", "--labels-from", first, *small)
    assert (code, error) == (0, "")
    assert f"+labels:{first}" in out
    folder = tmp_path / "runs" / "images.npz-static"  # named after the data, not after the labels
    code, out, error = run("train", "--init-from", folder, "--labels-from", second, "--epochs", 1, "--no-pictures")
    assert (code, error) == (0, "")
    assert f"+labels:{second}" in out
    code, _, error = run("train", images, "--model", "m2", "--labels-from", tmp_path / "none.csv", *small)
    assert (code, error.count("\n")) == (2, 1)
    assert "there is no file" in error
