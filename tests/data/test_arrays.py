"""Which array of a file is what, by the names that other sets use; and labels of every kind."""

import numpy as np
import pytest

import tinyvae.data as data
from tinyvae.data.arrays import role_of

RNG = np.random.default_rng(0)


def grey(count):
    return RNG.integers(0, 256, (count, 3, 3), np.uint8)


# ---- names ---------------------------------------------------------------------------

NAMES = {
    ("", "images"): ("images", "imgs", "image", "X", "x", "data", "arr_0", "features", "inputs", "pixels"),
    ("train", "images"): ("train", "x_train", "X_train", "train_x", "train_images", "trainX", "xtrain", "Xtr",
                          "training", "train_data", "TrainImages", "train-images-idx3-ubyte", "X_TRAIN"),
    ("test", "images"): ("test", "x_test", "test_images", "testX", "Xte", "t10k-images-idx3-ubyte", "testing_data"),
    ("valid", "images"): ("valid", "val", "x_val", "val_images", "X_valid", "validation", "valX", "dev", "xval"),
    ("", "labels"): ("labels", "label", "y", "Y", "target", "targets", "class", "image_labels"),
    ("train", "labels"): ("y_train", "train_labels", "labels_train", "ytrain", "trainY", "train-labels-idx1-ubyte",
                          "train_targets", "Y_train"),
    ("test", "labels"): ("y_test", "test_labels", "t10k-labels-idx1-ubyte", "yte"),
    ("valid", "labels"): ("y_val", "val_labels"),
    None: ("names", "class_names", "character", "train_drawer", "arr_1", "", "0", "xylophone", "train_test", "strain"),
}  # fmt: skip


@pytest.mark.parametrize(("role", "name"), [(role, name) for role, names in NAMES.items() for name in names])
def test_names_that_other_sets_use(role, name):
    assert role_of(name) == role


def test_a_validation_part_is_used_with_and_without_a_test_part(tmp_path):
    train, valid, test = grey(20), grey(4), grey(3)
    np.savez(tmp_path / "a.npz", train_images=train, val_images=valid, test_images=test, val_labels=np.arange(4))
    found = data.load(tmp_path / "a.npz")
    assert np.array_equal(found.valid, valid.reshape(4, 9))
    assert found.valid_labels.tolist() == [0, 1, 2, 3]
    assert np.array_equal(found.train, train.reshape(20, 9))
    np.savez(tmp_path / "b.npz", x_train=train, x_val=valid, y_train=np.arange(20))
    found = data.load(tmp_path / "b.npz")
    assert np.array_equal(found.valid, valid.reshape(4, 9))
    assert (len(found.train), len(found.test)) == (18, 2)
    assert np.array_equal(train.reshape(20, 9)[found.test_labels], found.test)


def test_arrays_that_cannot_be_told_apart_are_listed(tmp_path):
    for arrays, said in (({"a": grey(4), "b": grey(4)}, r"arrays a \(4, 3, 3\) uint8, b \(4, 3, 3\) uint8; expected"),
                         ({"x_test": grey(4), "y": np.arange(4)}, r"arrays x_test \(4, 3, 3\) uint8, y \(4,\) int64"),
                         ({"x_train": grey(4), "train_images": grey(4)}, "two arrays of train images, x_train and"),
                         ({"y": np.arange(4)}, r"the arrays y \(4,\) int64; expected")):  # fmt: skip
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(data.DataError, match=said):
            data.load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x_train=grey(4))  # the cure of the third: without the other
    assert len(data.load(tmp_path / "a.npz").train) == 3
    np.savez(tmp_path / "a.npz", images=grey(4), a=grey(4))  # the cure of the first
    with pytest.warns(UserWarning, match=r"not used: a \(4, 3, 3\) uint8; used are images"):
        assert len(data.load(tmp_path / "a.npz").train) == 3


def test_the_one_array_of_images_is_found_by_its_shape(tmp_path):
    faces = grey(20)
    np.savez(tmp_path / "a.npz", faces=faces, labels=np.arange(20))
    found = data.load(tmp_path / "a.npz")
    assert np.array_equal(faces.reshape(20, 9)[found.train_labels], found.train)


# ---- labels --------------------------------------------------------------------------


def labelled(path, labels, **more):
    """Six images whose first pixel is their number, with these labels in the order of the images."""
    images = np.tile(np.arange(6, dtype=np.uint8)[:, None] * 40, (1, 9))
    np.savez(path / "a.npz", train=images, test=images, train_labels=labels, **more)
    return data.load(path / "a.npz")


@pytest.mark.parametrize("kind", ["u1", "i8", "f4", "f8", "u8", ">i4"])
@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 1)])
def test_whole_numbers_of_any_type_and_shape_are_labels(tmp_path, kind, shape):
    found = labelled(tmp_path, np.array([3, 1, 0, 3, 2, 9], kind).reshape(shape))
    assert found.train_labels.tolist() == [3, 1, 0, 3, 2, 9]
    assert found.train_labels.dtype == np.int64
    assert found.class_names is None


@pytest.mark.parametrize("kind", ["U", "S"])
def test_strings_name_the_classes_of_all_parts(tmp_path, kind):
    names = np.array(["dog", "cat", "dog", "emu", "cat", "dog"], kind)
    found = labelled(tmp_path, names, test_labels=np.array(["emu", "ant"] * 3, kind)[:, None])
    assert found.class_names == ("ant", "cat", "dog", "emu")
    assert [found.class_names[label] for label in found.train_labels] == ["dog", "cat", "dog", "emu", "cat", "dog"]
    assert [found.class_names[label] for label in found.test_labels] == ["emu", "ant"] * 3


def test_strings_in_one_part_alone_are_refused(tmp_path):
    with pytest.raises(data.DataError, match="labels that are strings and labels that are numbers"):
        labelled(tmp_path, np.array(list("abcabc")), test_labels=np.arange(6))


def test_the_cures_of_labels(tmp_path):
    right = [2, 0, 1, 1, 0, 2]
    with pytest.raises(data.DataError, match=r"store labels.argmax\(1\)\.$"):
        labelled(tmp_path, np.eye(3)[right])
    assert labelled(tmp_path, np.eye(3)[right].argmax(1)).train_labels.tolist() == right
    unknown = np.array([2, np.nan, 1, 1, np.nan, 2])
    with pytest.raises(data.DataError, match=r"2 labels of NaN.* store np.where") as caught:
        labelled(tmp_path, unknown)
    cured = eval(str(caught.value).rpartition(": store ")[2].rstrip("."), {"np": np, "labels": unknown})
    assert labelled(tmp_path, cured).train_labels.tolist() == [2, -1, 1, 1, -1, 2]
    with pytest.raises(data.DataError, match=r"holds Python objects.* strings with astype") as caught:
        labelled(tmp_path, np.array(list("abcabc"), object))
    assert labelled(tmp_path, np.array(list("abcabc"), object).astype(str)).class_names == ("a", "b", "c")
