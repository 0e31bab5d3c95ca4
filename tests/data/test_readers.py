"""Data from a path: formats, shapes, ranges, splits, and every kind of bad input with its sentence."""

import gzip
import pickle
import struct
import zipfile

import numpy as np
import PIL.Image
import pytest

import tinyvae.data as data
from tinyvae.data.dataset import held_out
from tinyvae.data.formats.idx import read_idx
from tinyvae.data.formats.mat import read_mat


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYVAE_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TINYVAE_DATA", raising=False)


def grey(count, *shape):
    """Bytes, all different images, with 0 and 255 among them."""
    images = (np.arange(count * np.prod(shape), dtype=np.uint32) * 37 % 256).astype(np.uint8)
    return images.reshape(count, *shape)


def saved(path, array):
    np.save(path, array)
    return path


def refused(path, said):
    with pytest.raises(data.DataError, match=said) as caught:
        data.load(path)
    assert str(path) in str(caught.value)  # every message names the file
    return str(caught.value)


def idx(code, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.tobytes()


# ---- formats ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
@pytest.mark.parametrize("compressed", [False, True])
def test_idx_of_all_types(tmp_path, code, dtype, compressed):
    array = np.arange(-30 if dtype[1] in "if" else 0, 30, dtype=np.int64).astype(dtype).reshape(2, -1, 5)
    path = tmp_path / "array-idx"
    path.write_bytes(gzip.compress(idx(code, array)) if compressed else idx(code, array))
    read = read_idx(path)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(read, array)
    assert read.flags.writeable


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz", "renamed.bin"])
def test_idx_is_known_by_its_content(tmp_path, name):
    images = grey(20, 6, 5)
    path = tmp_path / name
    path.write_bytes(gzip.compress(idx(8, images)) if "gz" in name else idx(8, images))
    found = data.load(path)
    assert found.name == f"{path}-gray"
    assert found.shape == (6, 5)
    assert len(found.train) == 18
    assert np.array_equal(found.train, images.reshape(20, 30)[held_out(20, 2)[0]])


def test_npz_with_its_own_split(tmp_path):
    train, test, valid = grey(5, 4, 4), grey(3, 4, 4), grey(2, 4, 4)
    path = tmp_path / "set.npz"
    ours, keras = ("train", "test", "train_labels", "test_labels"), ("x_train", "x_test", "y_train", "y_test")
    for names in (ours, keras):
        arrays = dict(zip(names, (train, test, np.arange(5), np.arange(3)), strict=True))
        np.savez(path, valid=valid, **arrays)
        found = data.load(path)
        assert np.array_equal(found.train, train.reshape(5, 16))
        assert np.array_equal(found.test, test.reshape(3, 16))
        assert np.array_equal(found.valid, valid.reshape(2, 16))
        assert found.train_labels.tolist() == [0, 1, 2, 3, 4]
        assert found.test_labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("key", ["images", "data", "x", "arr_0", "train", "anything"])
def test_npz_with_one_array_is_split(tmp_path, key):
    images = grey(30, 4, 4)
    np.savez_compressed(tmp_path / "set.npz", **{key: images})
    found = data.load(tmp_path / "set.npz")
    train, test = held_out(30, 3)
    assert np.array_equal(found.train, images.reshape(30, 16)[train])
    assert np.array_equal(found.test, images.reshape(30, 16)[test])
    assert found.train_labels is None


def test_labels_follow_their_images(tmp_path):
    images = grey(40, 4, 4)
    images[:, 0, 0] = np.arange(40)
    labels = np.arange(40, dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=labels, names=np.array(["a", "b"]))
    with pytest.warns(UserWarning, match=r"arrays that are not used: names \(2,\) <U1; used are images, labels"):
        found = data.load(tmp_path / "set.npz")
    assert np.array_equal(found.train[:, 0], found.train_labels)
    assert np.array_equal(found.test[:, 0], found.test_labels)


def is_mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_folder_of_two_arrays_is_memory_mapped(tmp_path, dtype):
    train, test = grey(50, 8, 8).astype(dtype), grey(10, 8, 8).astype(dtype)
    if dtype == np.float32:
        train, test = train / 255, test / 255
    before = saved(tmp_path / "train.npy", train).read_bytes()
    saved(tmp_path / "test.npy", test)
    found = data.load(tmp_path)
    assert is_mapped(found.train)
    assert is_mapped(found.test)
    assert type(found.train) is np.ndarray
    assert np.array_equal(found.train, train.reshape(50, 64))
    assert np.array_equal(found.test, test.reshape(10, 64))
    with pytest.raises(ValueError, match="read-only"):  # the file stays as it is
        found.train[0, 0] = 1
    del found
    assert (tmp_path / "train.npy").read_bytes() == before


def test_a_folder_of_images_in_the_order_of_names(tmp_path):
    images = grey(12, 5, 7)
    for number in reversed(range(12)):
        PIL.Image.fromarray(images[number]).save(tmp_path / f"{number:02}.png")
    (tmp_path / ".hidden").write_text("not an image")
    found = data.load(tmp_path)
    assert found.shape == (5, 7)
    assert np.array_equal(found.train, images.reshape(12, 35)[held_out(12, 1)[0]])
    assert np.array_equal(found.test, images.reshape(12, 35)[held_out(12, 1)[1]])


# ---- shapes, types, ranges --------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((4, 36), (6, 6)),
        ((4, 35), (1, 35)),
        ((4, 5, 7), (5, 7)),
        ((4, 5, 7, 1), (5, 7)),
        ((4, 1, 5, 7), (5, 7)),
    ],
)
def test_accepted_shapes(tmp_path, stored, shape):
    images = grey(*stored)
    found = data.load(saved(tmp_path / "a.npy", images))
    assert found.shape == shape
    train, test = held_out(4, 1)
    assert np.array_equal(found.train, images.reshape(4, -1)[train])
    assert np.array_equal(found.test, images.reshape(4, -1)[test])


def test_fortran_order_is_put_right(tmp_path):
    images = grey(4, 5, 7)
    for name in ("train", "test"):
        saved(tmp_path / f"{name}.npy", np.asfortranarray(images))
    found = data.load(tmp_path)
    assert np.array_equal(found.train, images.reshape(4, 35))
    assert found.train.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, ">u2"])
def test_integers_are_bytes(tmp_path, dtype):
    images = grey(4, 9)
    found = data.load(saved(tmp_path / "a.npy", images.astype(dtype)))
    assert (found.train.dtype, found.scale) == (np.uint8, 255)
    assert (found.pixels, found.likelihood) == ("gray", "continuous-bernoulli")
    assert np.array_equal(found.train, images[held_out(4, 1)[0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_are_float32(tmp_path, dtype):
    images = (grey(4, 9) / 255).astype(dtype)
    found = data.load(saved(tmp_path / "a.npy", images))
    assert (found.train.dtype, found.scale, found.pixels) == (np.dtype(np.float32), 1, "gray")
    assert np.array_equal(found.train, images.astype(np.float32)[held_out(4, 1)[0]])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_only_zeros_and_ones_are_bits(tmp_path, dtype):
    bits = grey(5000, 9) % 2
    path = saved(tmp_path / "a.npy", bits.astype(dtype))
    found = data.load(path)
    assert (found.name, found.pixels, found.likelihood) == (f"{path}-static", "static", "bernoulli")
    assert (found.train.dtype, found.scale, found.is_bits) == (np.uint8, 1, True)
    assert np.array_equal(found.train, bits[held_out(5000, 500)[0]])


def test_one_grey_value_among_many_bits_is_grey(tmp_path):
    bits = (grey(9000, 4) % 2).astype(np.float32)
    bits[8999, 3] = 0.5
    assert data.load(saved(tmp_path / "a.npy", bits)).pixels == "gray"


def test_train_and_test_are_judged_together(tmp_path):
    """A test set that happens to be dark is on the scale of its training set."""
    np.savez(tmp_path / "a.npz", train=grey(4, 9), test=np.ones((2, 9), np.uint8))
    found = data.load(tmp_path / "a.npz")
    assert (found.scale, found.pixels) == (255, "gray")
    assert found.test.max() == 1


@pytest.mark.parametrize("pixels", data.PIXELS)
def test_a_suffix_on_a_path(tmp_path, pixels):
    images = grey(400, 16)
    path = saved(tmp_path / "a.npy", images)
    found = data.load(f"{path}-{pixels}")
    assert (found.name, found.pixels) == (f"{path}-{pixels}", pixels)
    assert found.likelihood == ("continuous-bernoulli" if pixels == "gray" else "bernoulli")
    stored = images[held_out(400, 40)[0]]
    if pixels in ("gray", "dynamic"):
        assert found.scale == 255
        assert np.array_equal(found.train, stored)
    else:
        assert found.is_bits
        assert set(np.unique(found.train)) == {0, 1}
        expected = (stored > 127).mean() if pixels == "threshold" else stored.mean() / 255
        assert abs(found.train.mean() - expected) < (1e-12 if pixels == "threshold" else 0.02)
        assert np.array_equal(found.train, stored > 127) == (pixels == "threshold")


def test_bits_with_a_suffix_stay_the_same_bits(tmp_path):
    bits = grey(20, 17) % 2
    path = saved(tmp_path / "a.npy", bits)
    for pixels in data.PIXELS:
        found = data.load(f"{path}-{pixels}")
        assert found.pixels == pixels
        assert np.array_equal(found.train, bits[held_out(20, 2)[0]])


def test_an_existing_path_that_ends_like_a_suffix(tmp_path):
    path = saved(tmp_path / "faces-static", grey(4, 9)).with_name("faces-static.npy")
    folder = tmp_path / "photos-static"
    folder.mkdir()
    path.rename(folder / "faces.npy")
    (tmp_path / "photos").mkdir()  # not taken, for the whole path exists
    assert data.load(folder).name == f"{folder}-gray"
    assert data.load(f"{folder}-threshold").name == f"{folder}-threshold"


@pytest.mark.parametrize(("count", "tested"), [(2, 1), (19, 1), (20, 2), (1000, 100)])
def test_a_tenth_is_held_out(tmp_path, count, tested):
    found = data.load(saved(tmp_path / "a.npy", grey(count, 9)))
    assert (len(found.train), len(found.test)) == (count - tested, tested)


# ---- bad input --------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((4, 9), 256), r"values from 256 to 256; expected integers from 0 to 255. Every pixel is 256, so look"),
        (np.full((4, 9), 1.5), r"values from 1.5 to 1.5; expected floats in \[0, 1\]. Every pixel is 1.5, so look"),
        (np.linspace(-1, 1, 36).reshape(4, 9), r"values from -1 to 1; .*\(images \+ 1\) / 2"),
        (np.linspace(-3, 3, 36).reshape(4, 9), r"values from -3 to 3; .*np.interp\(images, \(-3, 3\), \(0, 1\)\)"),
        (np.full((4, 9), np.nan), "holds only NaN, which means a missing value; expected some numbers"),
        (np.where(np.eye(4, 9), np.inf, 0), r"values from 0 to inf; .* No image is free of them"),
        (np.where(np.eye(4, 9, 6), -np.inf, 0), r"values from -inf to 0; .*Drop .*isfinite"),
        (np.zeros(9, np.uint8), r"shape \(9,\); expected \(count, pixels\)"),
        (np.zeros((), np.uint8), r"shape \(\); expected"),
        (np.zeros((4, 5, 7, 4), np.uint8), r"shape \(4, 5, 7, 4\); expected .* np.uint8\(np.rint\(images"),
        (np.zeros((2, 2, 2, 2, 1), np.uint8), r"shape \(2, 2, 2, 2, 1\); expected"),
        (np.zeros((0, 9), np.uint8), r"shape \(0, 9\), without any pixel; expected at least one image"),
        (np.zeros((4, 0), np.uint8), r"shape \(4, 0\), without any pixel"),
        (np.zeros((1, 9), np.uint8), r"holds 1 image; expected at least 2"),
        (np.zeros((4, 9), complex), r"holds complex128; expected integers"),
        (np.zeros((4, 9), "datetime64[s]"), r"holds datetime64\[s\]; expected integers"),
        (np.zeros((4, 9), "U3"), r"holds <U3; expected integers"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, said):
    refused(saved(tmp_path / "a.npy", array), said)


class Bomb:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_loading_never_runs_code(tmp_path):
    mark = tmp_path / "ran"
    bombs = np.array([Bomb(mark), Bomb(mark)], dtype=object)
    np.save(tmp_path / "a.npy", bombs)
    np.savez(tmp_path / "b.npz", images=bombs)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Bomb(mark)))
    refused(tmp_path / "a.npy", "holds Python objects, which could run code when loaded; expected numbers")
    refused(tmp_path / "b.npz", "holds Python objects, which could run code when loaded; expected numbers")
    refused(tmp_path / "c.npy", "is a pickle, which could run code")
    assert not mark.exists()
    pickle.loads((tmp_path / "c.npy").read_bytes()).close()
    assert mark.exists()  # the bomb works


@pytest.mark.parametrize("kept", [9, 40, 127, 200])
def test_a_truncated_npy(tmp_path, kept):
    path = saved(tmp_path / "a.npy", grey(40, 9))
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "truncated, damaged or too large; write it again")


def test_an_npy_with_a_damaged_header(tmp_path):
    path = saved(tmp_path / "a.npy", grey(40, 9))
    content = path.read_bytes()
    shape = b"(40, 9)"
    for old, new in ((shape, b"(40, 9 "), (shape, b"(90, 9)"), (b"'descr'", b"'desc\n'"), (b"|u1", b"|u7")):
        path.write_bytes(content.replace(old, new))
        refused(path, "truncated, damaged or too large; write it again")


@pytest.mark.parametrize("kept", [10, 300])
def test_a_truncated_npz(tmp_path, kept):
    path = tmp_path / "a.npz"
    np.savez(path, images=grey(40, 9))
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "truncated, damaged or too large; write it again")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("place", [-3, 16])  # near the end of the array; the checksum, which the directory has
def test_a_damaged_npz(tmp_path, save, place):
    path = tmp_path / "a.npz"
    save(path, images=grey(40, 9))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + place] ^= 0xFF
    path.write_bytes(content)
    refused(path, "truncated, damaged or too large; write it again")


def test_a_zip_that_is_no_npz(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "words")
    refused(path, "zip archive with other files than arrays")


def test_an_npz_whose_arrays_are_not_clear(tmp_path):
    np.savez(tmp_path / "a.npz", left=grey(4, 9), right=grey(4, 9))
    refused(tmp_path / "a.npz", r"has the arrays left \(4, 9\) uint8, right \(4, 9\) uint8; expected train and")
    np.savez(tmp_path / "b.npz")
    refused(tmp_path / "b.npz", r"has the arrays \(none\); expected")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(3), r"int64 labels of shape \(3,\); expected one for each image, shape \(4,\)"),
        (np.eye(4), r"float64 labels of shape \(4, 4\); .*argmax"),
        (np.ones((4, 2)), r"float64 labels of shape \(4, 2\); expected one for each image, shape \(4,\)\.$"),
        (np.arange(4) / 2, r"float64 labels from 0 to 1.5; expected whole numbers"),
        (np.array([0, 1, np.inf, 0]), r"float64 labels from 0 to inf; expected whole numbers"),
        (np.array([0, 1, 2**63, 0], np.uint64), r"uint64 labels from 0 to 9223372036854775808; expected whole"),
        (np.array([0, 1, np.nan, 0]), r"has 1 label of NaN; expected whole numbers, -1 for an unknown one"),
        (np.zeros(4, complex), r"complex128 labels; expected whole numbers, or strings"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, labels, said):
    np.savez(tmp_path / "a.npz", images=grey(4, 9), labels=labels)
    refused(tmp_path / "a.npz", said)


def test_train_and_test_of_different_widths_or_types(tmp_path):
    np.savez(tmp_path / "a.npz", train=grey(4, 9), test=grey(4, 16))
    refused(tmp_path / "a.npz", r"different sizes: train \(3, 3\), test \(4, 4\); expected one size")
    np.savez(tmp_path / "b.npz", train=grey(4, 9), test=grey(4, 9) / 255)
    refused(tmp_path / "b.npz", "mixes uint8 and float64; expected train and test to be both")


def test_a_truncated_gz(tmp_path):
    path = tmp_path / "images-idx3-ubyte.gz"
    content = gzip.compress(idx(8, grey(40, 9, 9)))
    for kept in (2, 12, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:kept])
        refused(path, "truncated or damaged .*; get it again")


def test_a_damaged_gz(tmp_path):
    path = tmp_path / "images-idx3-ubyte.gz"
    content = bytearray(gzip.compress(idx(8, grey(40, 9, 9)), compresslevel=0))
    content[len(content) // 2] ^= 0xFF  # the stored bytes: only the checksum can tell
    path.write_bytes(content)
    refused(path, "truncated or damaged .*CRC")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"hello world", mtime=0), r"compressed by gzip and holds a file that begins with .*68 65 6c 6c"),
        (gzip.compress(b"", mtime=0), r"magic number ''; expected that of IDX"),
        (b"\0\0\x07\x03" + bytes(12), r"begins with the bytes 00 00 07 03 00 00 00 00; expected an .h5"),
        (gzip.compress(b"\0\0\x07\x03" + bytes(12), mtime=0), r"magic number '00 00 07 03'; expected that of IDX"),
        (b"\0\0\x08", r"magic number '00 00 08'"),
        (b"\0\0\x08\x03" + bytes(5), r"ends in its header, after 9 of 16 bytes"),
        (idx(8, grey(4, 3, 3))[:-1], r"35 bytes after its header; expected 36, .* shape \(4, 3, 3\)"),
        (idx(8, grey(4, 3, 3)) + b"!", r"37 bytes after its header; expected 36"),
        (b"\0\0\x08\x02" + b"\xff" * 8, r"0 bytes after its header; expected 18446744065119617025"),
        (b"\0\0\x08\x00", r"shape \(\); expected \(count, pixels\)"),
        (idx(8, grey(4)), r"shape \(4,\); expected \(count, pixels\)"),
        (b"", r"is empty; expected an .h5, .mat, .npy"),
        (b"\xf0xel,pixel\n1,2\n", r"begins with the bytes f0 78 65 6c 2c 70 69 78; expected an .h5"),
    ],
)
def test_files_that_are_no_idx(tmp_path, content, said):
    path = tmp_path / "file"
    path.write_bytes(content)
    refused(path, said)


def test_folders_that_are_not_of_images(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(folder, "has no images; expected images of one size")
    for name in ("a.png", "b.png"):
        PIL.Image.fromarray(grey(5, 7)).save(folder / name)
    odd = folder / "c.png"
    PIL.Image.fromarray(grey(7, 5)).save(odd)
    said = refused(folder, r"has \(7, 5\) rows and columns, a.png has \(5, 7\); expected images of one size")
    assert "c.png" in said
    odd.write_text("words")
    assert "c.png" in refused(folder, "is no readable image .*; expected only images")
    odd.write_bytes((folder / "a.png").read_bytes()[:-30])
    assert "c.png" in refused(folder, "is no readable image")
    PIL.Image.fromarray(np.full((5, 7), 40000, np.uint16)).save(odd)
    assert "c.png" in refused(folder, "has 16 bits a channel, a.png has 8; expected as many in all")
    odd.unlink()
    odd.mkdir()
    assert "c.png" in refused(folder, "is a folder; expected only images there")


def test_a_folder_with_an_array_that_is_truncated(tmp_path):
    for name in ("train.npy", "test.npy"):
        saved(tmp_path / name, grey(40, 9))
    (tmp_path / "test.npy").write_bytes(b"")
    assert "test.npy" in refused(tmp_path, "truncated, damaged or too large")


def test_paths_that_are_not_there(tmp_path):
    refused(tmp_path / "a.npy", r"there is no file or folder .*a.npy; expected an .h5, .mat, .npy")
    with pytest.raises(data.DataError, match=r"there is no file or folder .*a.npy; expected"):  # without the suffix
        data.load(f"{tmp_path / 'a.npy'}-gray")
    refused(tmp_path / "folder", "there is no file or folder")
    path = saved(tmp_path / "b.npy", grey(4, 9))
    with pytest.raises(data.DataError, match=r"unknown suffix -grey of .*b.npy; expected -dynamic, -static"):
        data.load(f"{path}-grey")
    with pytest.raises(data.DataError, match=r"there is no file or folder a.npy"):
        data.load("a.npy")


def test_a_mat_file_that_is_none(tmp_path):
    path = tmp_path / "a.mat"
    for content in (b"", b"words" * 100, bytes(200)):
        path.write_bytes(content)
        with pytest.raises(data.DataError, match=r"a.mat is not a MATLAB 5 file"):
            read_mat(path, "ff")


def test_a_mat_file_without_the_array(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"gg": grey(4, 9)})
    assert np.array_equal(read_mat(tmp_path / "a.mat", "gg"), grey(4, 9))
    with pytest.raises(data.DataError, match="has no array 'ff'"):
        read_mat(tmp_path / "a.mat", "ff")


def test_a_relative_path_means_the_same_in_every_folder(tmp_path, monkeypatch):
    """A run remembers where its data are, and is resumed from another folder."""
    saved(tmp_path / "b.npy", grey(4, 9))
    monkeypatch.chdir(tmp_path)
    for name, absolute in (("b.npy", "b.npy"), ("b.npy-threshold", "b.npy-threshold")):
        assert data.anywhere(name) == str(tmp_path / absolute)
    assert data.anywhere("mnist-static") == "mnist-static"
    assert data.anywhere("nothing.npy") == "nothing.npy"


def test_integers_that_are_nearly_black_get_a_warning(tmp_path):
    """The digits of scikit-learn as they come, 0 to 16, would be taken for almost black bytes."""
    images = np.arange(36).reshape(2, 18).astype(np.uint8) % 17
    with pytest.warns(UserWarning, match=r"integers from 0 to 16.* store np.float32\(images / 16\)"):
        data.load(saved(tmp_path / "b.npy", images))
