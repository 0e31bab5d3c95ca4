"""The cures of images out of range: each is followed to the letter, and its result is looked at."""

import re

import numpy as np
import pytest

import tinyvae.data as data
from tinyvae.data.checks import check_rows, cure, degeneracy, sameness

RNG = np.random.default_rng(0)


def followed(sentence, images):
    """The value of the expression that a sentence tells to store."""
    line = re.search(r"[Ss]tore (.*?)(?: instead|, if | to make|\.$|$)", sentence)[1]
    return eval(line, {"np": np, "images": images})


def spread(low, high, dtype=np.float64):
    """Different images whose lowest and highest pixel are these."""
    images = low + (high - low) * RNG.random((6, 9))
    images.flat[[0, 53]] = low, high
    return images.astype(dtype)


CURES = {  # what is stored, the cure, and what it must give, written otherwise
    "rounding above": (spread(0, 1 + 2**-52), "np.clip", lambda x: np.minimum(x, 1)),
    "rounding below": (spread(-1e-9, 1), "np.clip", lambda x: np.maximum(x, 0)),
    "rounding of float32": (spread(-1e-7, 1.001, np.float32), "np.clip", lambda x: np.minimum(np.maximum(x, 0), 1)),
    "bytes as floats": (np.rint(spread(0, 255)), "/ 255)", lambda x: x / 255),
    "resized bytes": (spread(0, 251.7), "/ 255)", lambda x: x / 255),
    "16 bits": (spread(0, 65535, np.int64), "/ 65535)", lambda x: x / 65535),
    "12 bits as floats": (spread(0, 4095.0), "/ 4095)", lambda x: x / 4095),
    "16 grey levels as floats": (np.rint(spread(0, 16)), "/ 16)", lambda x: x / 16),
    "a little above 1": (spread(0, 1.5), "/ 1.5)", lambda x: x / 1.5),
    "from -1 to 1": (spread(-1, 1), "(images + 1) / 2)", lambda x: 0.5 * x + 0.5),
    "from -1 to 1, rounded": (spread(-1 - 1e-7, 1 + 1e-7), "np.clip((images + 1) / 2", lambda x: 0.5 * x + 0.5),
    "-1 and 1": (np.where(spread(0, 1) > 0.5, 1, -1), "(images + 1) / 2)", lambda x: (x > 0) * 1.0),
    "standardised": (spread(-0.4242129623889923, 2.821486711502075, np.float32), "np.interp",
                     lambda x: (x.astype(float) + 0.4242129623889923) / 3.2456996738910675),
    "signed bytes": (spread(-128, 127, np.int8), "np.interp", lambda x: (x.astype(float) + 128) / 255),
    "overshoot": (spread(-0.2, 1.0), "np.interp", lambda x: (x + 0.2) / 1.2),
}  # fmt: skip


@pytest.mark.parametrize("what", CURES)
def test_a_cure_that_is_followed_gives_the_images(tmp_path, what):
    images, words, right = CURES[what]
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(data.DataError) as caught:
        data.load(tmp_path / "a.npy")
    assert words in str(caught.value)
    mended = followed(str(caught.value), images)
    assert np.abs(mended - right(images)).max() <= 2e-7  # the rounding of float32
    np.savez(tmp_path / "b.npz", train=mended, test=mended)
    if what == "-1 and 1":  # floats of two values are bits
        assert data.load(tmp_path / "b.npz").is_bits
    loaded = data.load(tmp_path / "b.npz")
    assert np.abs(loaded.train / loaded.scale - right(images)).max() <= 2e-7


def test_train_and_test_are_brought_into_range_by_one_line(tmp_path):
    """The range of both parts together: each part by its own would put them on different scales."""
    train, test = spread(-2, 3), spread(-1, 1)
    np.savez(tmp_path / "a.npz", train=train, test=test)
    with pytest.raises(data.DataError) as caught:
        data.load(tmp_path / "a.npz")
    mended = {name: followed(str(caught.value), part) for name, part in (("train", train), ("test", test))}
    np.savez(tmp_path / "b.npz", **mended)
    loaded = data.load(tmp_path / "b.npz")
    assert np.abs(loaded.train - (train + 2) / 5).max() <= 2e-7
    assert np.abs(loaded.test - (test + 2) / 5).max() <= 2e-7


@pytest.mark.parametrize("wrong", [np.inf, -np.inf])  # NaN means a missing value
def test_the_images_with_infinite_numbers_are_dropped(tmp_path, wrong):
    images, labels = spread(0, 1), np.arange(6)
    images[[1, 4], 3] = wrong
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(data.DataError, match="Drop those images and their labels") as caught:
        data.load(tmp_path / "a.npy")
    line = re.search(r"labels: images\[(.*)\]\.$", str(caught.value))[1]
    kept = eval(line, {"np": np, "images": images})
    np.savez(tmp_path / "b.npz", train=images[kept], test=images[kept], train_labels=labels[kept])
    loaded = data.load(tmp_path / "b.npz")
    assert loaded.train_labels.tolist() == [0, 2, 3, 5]
    assert np.array_equal(loaded.train, images[[0, 2, 3, 5]].astype(np.float32))


def test_where_no_cure_is_right_none_is_given():
    every = spread(0, 1)
    every[:, 2] = np.nan
    assert cure([every]) == "No image is free of them, so look at how the images were made."
    assert cure([np.full((3, 4), 300)]) == "Every pixel is 300, so look at how the images were made."


@pytest.mark.parametrize(("shape", "kind"), [((6, 5, 7, 4), "u1"), ((6, 4, 5, 7), "u1"), ((6, 5, 7, 4), "f4"),
                                             ((6, 5, 7, 2), "u1"), ((6, 4, 5, 7), "u2"), ((6, 5, 7, 4), "u2")])
def test_opacity_is_laid_on_white(tmp_path, shape, kind):
    """a c + (1 - a) white, in each channel; the shape stays that of the array, with a channel less."""
    white = {"u1": 255, "u2": 65535, "f4": 1}[kind]
    images = RNG.random(shape).astype(kind) if kind == "f4" else RNG.integers(0, white + 1, shape).astype(kind)
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(data.DataError, match=r"1 channel of grey or 3 of colour. If the last of its") as caught:
        data.load(tmp_path / "a.npy")
    mended = eval(re.search(r"opacity, store (.*), which lays", str(caught.value))[1], {"np": np, "images": images})
    assert mended.dtype == kind
    np.savez(tmp_path / "b.npz", train=mended, test=mended)
    loaded = data.load(tmp_path / "b.npz")
    last = np.moveaxis(images, shape.index(min(shape)), -1).astype(float) / white
    right = last[..., :-1] * last[..., -1:] + 1 - last[..., -1:]
    assert loaded.shape == ((5, 7, 3) if min(shape) == 4 else (5, 7))
    assert np.abs(loaded.train / loaded.scale - right.reshape(6, -1)).max() <= {"u1": 0.5001 / 255}.get(kind, 1e-5)


@pytest.mark.parametrize("shape", [(6, 5, 7, 4), (6, 4, 5, 7)])
def test_channels_that_are_images_of_their_own(tmp_path, shape):
    images = RNG.integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(data.DataError, match="is an image of its own") as caught:
        data.load(tmp_path / "a.npy")
    mended = eval(re.search(r"image of its own, (.*)\.$", str(caught.value))[1], {"np": np, "images": images})
    first = images[0, ..., 1] if shape[3] == 4 else images[0, 1]
    assert mended.shape == (24, 5, 7)
    assert np.array_equal(mended[1], first)


@pytest.mark.parametrize(("kind", "high", "white"), [("i4", 65000, 65535), ("i8", 4095, 4095)])
def test_whole_numbers_beyond_bytes_are_divided_by_their_white(tmp_path, kind, high, white):
    images = np.rint(spread(0, high)).astype(kind)
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(data.DataError, match=f"images / {white}") as caught:
        data.load(tmp_path / "a.npy")
    mended = followed(str(caught.value), images)
    np.savez(tmp_path / "b.npz", train=mended, test=mended)
    assert np.abs(data.load(tmp_path / "b.npz").train - images / white).max() <= 1e-7


def test_images_along_two_axes_are_put_along_one(tmp_path):
    images = RNG.integers(0, 256, (4, 20, 5, 6), np.uint8)
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(data.DataError) as caught:
        data.load(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", train=followed(str(caught.value), images), test=images[0])
    assert np.array_equal(data.load(tmp_path / "b.npz").train.reshape(4, 20, 5, 6), images)


def test_dark_integers_are_divided_by_their_white(tmp_path):
    images = np.rint(spread(0, 16)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", train=images, test=images)
    with pytest.warns(UserWarning, match="almost black") as caught:
        data.load(tmp_path / "a.npz")
    mended = followed(str(caught[0].message), images)
    np.savez(tmp_path / "b.npz", train=mended, test=mended)
    assert np.array_equal(data.load(tmp_path / "b.npz").train, (images / 16).astype(np.float32))


# ---- too much alike ------------------------------------------------------------------


def test_what_is_degenerate_is_named():
    images = spread(0.1, 0.9)
    copies = np.repeat(images[:3], 4, axis=0)
    fixed = images.copy()
    fixed[:, 2:5] = 0.5
    assert sameness(np.full((9000, 4), 0.5)) == "every pixel of all 9000 images is 0.5"
    assert sameness(np.repeat(images[:1], 5000, axis=0)) == "all 5000 images are the same"
    assert degeneracy(copies) == "only 3 of 12 images differ from each other"
    assert degeneracy(fixed) == "3 of 9 pixels are the same in every image"
    assert sameness(copies) == sameness(fixed) == sameness(images[:1]) == degeneracy(images) == ""
    late = np.full((9000, 4), 0.5)
    late[8999, 3] = 0.6
    assert sameness(late) == ""


def test_data_that_are_all_the_same_get_a_line(tmp_path):
    np.save(tmp_path / "a.npy", np.full((30, 9), 7.0) / 255)
    with pytest.warns(UserWarning, match="nothing to learn from: every pixel of all 30 images is 0.02745098"):
        data.load(tmp_path / "a.npy")


@pytest.mark.parametrize(("rows", "said"), [
    ([[0.5]], "found these of type list; expected an array"), (np.zeros(4), r"these of shape \(4,\)"),
    (np.zeros((0, 4)), r"these of shape \(0, 4\)"), (np.array([["a"]]), "these holds <U1; expected"),
    (np.array([[1, None]]), "these holds Python objects"), (np.array([[0.5, 2]]), "values from 0.5 to 2 in these")])
def test_rows_that_are_none(rows, said):
    with pytest.raises(data.DataError, match=said):
        check_rows(rows, "these")
