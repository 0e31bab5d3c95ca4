"""HDF5 files: arrays of groups, labels of text, MATLAB's version 7.3; nothing of other files, and no bombs."""

import sys

import numpy as np
import pytest

import tinyvae.data as data

RNG = np.random.default_rng(0)
COLOURS, LABELS = RNG.integers(0, 256, (20, 4, 5, 3), np.uint8), np.arange(20)


def written(path, arrays, userblock=0, **options):
    h5py = pytest.importorskip("h5py", reason="optional: h5py, which reads HDF5 files")
    with h5py.File(path, "w", userblock_size=userblock) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options if np.ndim(array) else {})
    return path


def test_arrays_of_groups(tmp_path):
    names = [("cat", "dog")[label % 2] for label in LABELS]
    path = written(tmp_path / "a.h5", {"train/images": COLOURS, "train/labels": names, "test/images": COLOURS[:3],
                                       "test/labels": names[:3]})
    found = data.load(path)
    assert (found.name, found.shape, found.class_names) == (f"{path}-color", (4, 5, 3), ("cat", "dog"))
    assert np.array_equal(found.train, COLOURS.reshape(20, 60))
    assert found.train_labels.tolist() == [0, 1] * 10


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_compressed_arrays_of_every_type(tmp_path, kind):
    array = COLOURS.astype(kind) * 257 if kind == "u2" else COLOURS.astype(kind) / np.float32(255)
    found = data.load(written(tmp_path / "a.h5", {"images": np.moveaxis(array, -1, 1)}, compression="gzip"))
    every = np.concatenate([found.train, found.test])
    right = (COLOURS / 255).reshape(20, 60)
    np.testing.assert_allclose(every[np.lexsort(every.T)], right[np.lexsort(right.T)], atol=1e-7)


def test_a_file_of_matlab(tmp_path):
    """It holds each array with its axes reversed, after 512 bytes that name MATLAB."""
    arrays = {"X": np.moveaxis(COLOURS, 0, -1).T, "y": LABELS[None], "#refs#/a": np.ones(3)}
    path = written(tmp_path / "a.mat", arrays, 512)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    with pytest.warns(UserWarning, match="taken as 20 images of 4 x 5 in colour, along the last axis"):
        found = data.load(path)
    assert np.array_equal(found.train, COLOURS.reshape(20, 60)[found.train_labels])


def test_what_is_never_read(tmp_path):
    """Numbers in another file, and a header that claims more than is there."""
    h5py = pytest.importorskip("h5py", reason="optional: h5py, which reads HDF5 files")
    (tmp_path / "secret").write_bytes(bytes(1000))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (20, 5, 5), "u1", external=[(str(tmp_path / "secret"), 0, 500)])
    with pytest.raises(data.DataError, match=r"has the arrays \(none\); expected"):
        data.load(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("images", (10**4, 100, 100), "u1", chunks=(100, 100, 100))
    with pytest.raises(data.DataError, match="images claims 100,000,000 bytes and holds 0"):
        data.load(tmp_path / "b.h5")


def test_a_damaged_file(tmp_path):
    path = written(tmp_path / "a.h5", {"images": COLOURS})
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(data.DataError, match=r"is an HDF5 file that cannot be read .*: truncated or damaged"):
        data.load(path)


@pytest.mark.parametrize("head", [b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file, Platform: GLNXA64"])
def test_a_missing_reader(tmp_path, monkeypatch, head):
    (tmp_path / "a").write_bytes(head)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(data.DataError, match=r"is an HDF5 file; expected an .h5, .mat, .npy.*: install h5py, which"):
        data.load(tmp_path / "a")
