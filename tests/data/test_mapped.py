"""Rows in several files: what an array of them would give, and a folder of pieces that is one array."""

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.data.mapped.rows import BLOCK, MappedRows, in_file, selected

ROWS = np.random.default_rng(0).integers(0, 256, (2 * BLOCK + 50, 6)).astype(np.uint8)
ENDS = (700, 701, BLOCK + 9)  # of the first pieces; the third one has rows of two blocks


def in_pieces(folder, rows=ROWS, ends=ENDS, name="part-{:03}.npy"):
    for number, piece in enumerate(np.split(rows, ends)):
        np.save(folder / name.format(number), piece)
    return [np.load(folder / name.format(number), mmap_mode="r") for number in range(len(ends) + 1)]


KEYS = [slice(None), slice(690, 720), slice(-5, None), slice(0, 9000, 1000), 700, -1, np.array([8000, 3, 701, 3]),
        np.array([], int), np.arange(len(ROWS)) % 1000 == 7, (slice(3, 9), 2), (5, 1), (slice(None), slice(1, 3)),
        (np.array([9, 1]), slice(0, 2))]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_what_is_read_is_what_an_array_gives(tmp_path, key):
    rows, chosen = MappedRows(in_pieces(tmp_path)), np.random.default_rng(1).permutation(len(ROWS))[:8500]
    for found, right in ((rows, ROWS), (rows.select(chosen), ROWS[chosen]), (rows.astype(np.float32), ROWS)):
        if not (isinstance(key, np.ndarray) and key.dtype == bool and len(right) != len(key)):
            np.testing.assert_array_equal(found[key], right[key])
            assert found[key].shape == right[key].shape
    assert rows.astype(np.float32)[key].dtype == np.float32


def test_the_rest_of_what_an_array_has(tmp_path):
    rows = MappedRows(in_pieces(tmp_path))
    assert (rows.shape, rows.size, rows.nbytes, len(rows), rows.dtype) == (
        ROWS.shape, ROWS.size, ROWS.nbytes, len(ROWS), ROWS.dtype)
    for axis in (None, 0):
        np.testing.assert_array_equal(np.min(rows, axis=axis), ROWS.min(axis))
        np.testing.assert_array_equal(np.max(rows, axis=axis), ROWS.max(axis))
    np.testing.assert_array_equal(np.asarray(rows), ROWS)
    np.testing.assert_array_equal(np.asarray(rows.select(np.array([5, 2]))[:]), ROWS[[5, 2]])
    with pytest.raises(IndexError, match="found rows from 9000 to 9000; expected them below 8242"):
        rows[9000]
    assert rows.reshape(len(rows), -1) is rows
    with pytest.raises(ValueError, match=r"found the shape \(2, 3\)"):
        rows.reshape(2, 3)


def test_what_lies_in_a_file(tmp_path):
    files = in_pieces(tmp_path)
    assert in_file(ROWS) is None
    assert in_file(files[0].reshape(-1, 3)[5:]) is not None
    assert in_file(np.array(files[0])) is None
    assert isinstance(selected(MappedRows(files), np.array([1])), MappedRows)


@pytest.mark.parametrize("test_part", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_a_folder_of_pieces_is_the_array_of_them(tmp_path, test_part, dtype):
    """Also of a type that is read as another one; without a test part it is split as a single file is."""
    images = (ROWS[:3000].reshape(-1, 2, 3) / (255 if dtype == np.float64 else 1)).astype(dtype)
    pieces, whole = tmp_path / "pieces", tmp_path / "whole"
    for folder in (pieces, whole):
        folder.mkdir()
        if test_part:
            np.save(folder / "test.npy", images[:20])
            np.save(folder / "train_labels.npy", np.arange(3000) % 4)
    in_pieces(pieces, images, (700, 701, 2000))
    np.save(whole / "train.npy", images)
    found, right = tv.data.load(pieces), tv.data.load(whole if test_part else whole / "train.npy")
    assert isinstance(found.train, MappedRows)
    assert found.fingerprint == right.fingerprint
    assert str(found).split(": ")[1] == str(right).split(": ")[1]
    for pixels in ("threshold", "static", "dynamic"):
        assert tv.data.load(f"{pieces}-{pixels}").fingerprint == tv.data.load(
            f"{whole if test_part else whole / 'train.npy'}-{pixels}").fingerprint


def test_pieces_that_do_not_fit_together(tmp_path):
    in_pieces(tmp_path, name="part-{:03}.npy")
    np.save(tmp_path / "part-002.npy", ROWS[:3, :4])
    with pytest.raises(tv.data.DataError, match=r"part-002.npy holds uint8 of shape \(3, 4\), and part-000"):
        tv.data.load(tmp_path)
    (tmp_path / "part-002.npy").unlink()
    with pytest.raises(tv.data.DataError, match=r"has part-003.npy after part-001.npy; expected files without a gap"):
        tv.data.load(tmp_path)


@pytest.mark.parametrize(("name", "array", "said"), [
    ("part-002.npy", ROWS[:0], r"part-002.npy holds uint8 of shape \(0, 6\); expected numbers, at least one image"),
    ("part-000.npy", np.array(3), r"part-000.npy holds int64 of shape \(\); expected numbers"),
    ("part-001.npy", np.array([["a"]]), r"part-001.npy holds <U1 of shape \(1, 1\); expected numbers"),
    ("part-01.npy", ROWS[:3], "has part-001.npy and part-01.npy, which have one number"),
    ("train.npy", ROWS[:3], "has train.npy beside part-000.npy; expected one of them")])
def test_a_piece_that_is_none_is_named(tmp_path, name, array, said):
    in_pieces(tmp_path)
    np.save(tmp_path / "test.npy", ROWS[:9])
    np.save(tmp_path / name, array)
    with pytest.raises(tv.data.DataError, match=said):
        tv.data.load(tmp_path)


def test_a_file_that_is_no_array_is_named(tmp_path):
    in_pieces(tmp_path)
    (tmp_path / "part-001.npy").write_bytes(b"not numbers")
    with pytest.raises(tv.data.DataError, match=r"part-001.npy is no array, though its name ends in .npy: it begins w"):
        tv.data.load(tmp_path)


def test_pieces_are_in_the_order_of_their_numbers(tmp_path):
    in_pieces(tmp_path, ROWS[:1200].reshape(-1, 2, 3), range(100, 1200, 100), "part{}.npy")  # part10 after part9
    np.save(tmp_path / "test.npy", ROWS[:9].reshape(-1, 2, 3))
    np.testing.assert_array_equal(np.asarray(tv.data.load(tmp_path).train), ROWS[:1200])
