"""Readers of the named sets; each returns grey values, split into training and test data."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data.checks import DataError
from tinyvae.data.dataset import SEED, DataSet, held_out
from tinyvae.data.formats.idx import read_idx
from tinyvae.data.formats.mat import read_mat
from tinyvae.data.formats.npz import read_npz
from tinyvae.engine import noise

MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def read_digits(folder: Path) -> DataSet:
    """The 8x8 digits bundled with scikit-learn: grey values 0..16, 1497 for training and 300 for test.

    scikit-learn stores them as a table with 64 pixels and the label in each row. The table is read without importing
    scikit-learn, which would take more than a second. If the table is not in its usual place, scikit-learn itself loads
    it. `folder` is not used.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("digits come with scikit-learn, which is not installed: pip install scikit-learn.")
    table = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if table.is_file():
        with gzip.open(table, "rt", encoding="ascii") as lines:  # (by a path, NumPy would look for the current folder)
            values = np.loadtxt(lines, np.uint8, delimiter=",")
        images, labels = values[:, :64], values[:, 64]
    else:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
    train, test = held_out(len(images), 300)
    images = images.astype(np.uint8)
    return _grey("digits", images[train], images[test], (8, 8), 16.0, (labels[train], labels[test]))


def read_mnist(name: str, folder: Path) -> DataSet:
    """The four IDX files of MNIST or Fashion-MNIST: 60000 for training, 10000 for test, 28x28."""
    shapes = ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    train, train_labels, test, test_labels = (
        _expect(read_idx(folder / file), shape, folder / file)
        for file, shape in zip(MNIST_FILES, shapes, strict=True)
    )
    return _grey(name, train, test, (28, 28), labels=(train_labels, test_labels))


def read_omniglot(folder: Path) -> DataSet:
    """Omniglot at 28x28: 19280 images of 30 alphabets for training, 13180 of 20 other alphabets for test.

    Ink is 255 on a ground of 0, as in MNIST. No test alphabet occurs in the training data. This is harder than the
    usual random split, so log likelihoods cannot be compared with published ones. The labels are the characters,
    0..1622.
    """
    train, train_labels, test, test_labels = _arrays(
        folder / "omniglot_28x28.npz",
        train_images=(19280, 28, 28), train_character=(19280,),
        test_images=(13180, 28, 28), test_character=(13180,),
    )
    return _grey("omniglot", train, test, (28, 28), labels=(train_labels, test_labels))


def read_frey_faces(folder: Path) -> DataSet:
    """Brendan Frey's face, 1965 consecutive frames of a video, 28x20: the last 465 are the test set.

    Neighbouring frames are nearly equal, so a random split would put near copies of the test data into the training
    data.
    """
    path = folder / "frey_rawface.mat"
    frames = _expect(read_mat(path, "ff"), (560, 1965), path).T
    return _grey("frey-faces", frames[:1500], frames[1500:], (28, 20))


def read_olivetti(folder: Path) -> DataSet:
    """Olivetti faces, 64x64, ten of each of 40 people: 32 people for training, 8 others (80 faces) for test.

    The split is by person (stream "split"), so nobody is in both parts. The labels are the persons, 0..39.
    """
    images, person = _arrays(folder / "olivetti_faces.npz", images=(400, 64, 64), target=(400,))
    test = np.isin(person, noise.permutation(SEED, "split", 0, 40)[:8])
    return _grey("olivetti", images[~test], images[test], (64, 64), labels=(person[~test], person[test]))


def read_mnist_binarized(folder: Path) -> DataSet:
    """Larochelle's fixed binarisation of MNIST: 50000 for training, 10000 for validation and 10000 for test, no labels.

    The order of the rows differs from that of MNIST, and the test data are sorted by class.
    """
    path = folder / "binarized_mnist_packed.npz"
    packed = _arrays(path, train=(50000, 98), valid=(10000, 98), test=(10000, 98))
    train, valid, test = (np.unpackbits(part, axis=1) for part in packed)
    return _grey("mnist-binarized", train, test, (28, 28), 1.0, valid=valid)


def _expect(array: Any, shape: tuple[int, ...], path: Path) -> Any:
    """The array, read or not; DataError unless it has this shape and bytes (for labels, unsigned integers)."""
    images = len(shape) > 1
    if array.shape != shape or array.dtype.kind != "u" or (images and array.dtype != np.uint8):
        raise DataError(f"{path} has {array.dtype} of shape {array.shape}; expected uint8 of shape {shape}.")
    return array


def _arrays(path: Path, **shapes: tuple[int, ...]) -> list[np.ndarray]:
    """The named arrays of an .npz file, each of the shape it must have."""
    arrays = read_npz(path)
    for key in shapes:
        if key not in arrays:
            raise DataError(f"{path} has no array {key!r}, only {', '.join(arrays)}; make it again.")
    for key, shape in shapes.items():
        _expect(arrays[key], shape, path)
    return [arrays[key].read() for key in shapes]


def _grey(
    name: str,
    train: np.ndarray,
    test: np.ndarray,
    shape: tuple[int, int],
    scale: float = 255.0,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
    valid: np.ndarray | None = None,
) -> DataSet:
    """A data set of images with any number of axes, as rows of pixels."""

    def rows(images: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(images).reshape(len(images), -1)

    return DataSet(
        name, rows(train), rows(test), shape, scale,
        train_labels=None if labels is None else labels[0].astype(np.int64),
        test_labels=None if labels is None else labels[1].astype(np.int64),
        valid=None if valid is None else rows(valid),
    )
