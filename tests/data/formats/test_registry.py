"""Formats by their bytes: each is named, with what to do; and headers that claim more, or less, than there is."""

import gzip
import io
import os
import pickle
import sqlite3
import struct
import tarfile
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

import tinyvae.data as data
from tinyvae.data.formats import idx, npz, registry

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 4, 5), np.uint8)


def refused(path, said):
    with pytest.raises(data.DataError, match=said) as caught:
        data.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def same_images(path):
    found = data.load(path)
    assert found.shape == (4, 5)
    assert sorted(map(bytes, [*found.train, *found.test])) == sorted(map(bytes, GREY.reshape(20, 20)))


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def pngs(folder):
    folder.mkdir()
    for number, image in enumerate(GREY):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


# ---- named, with what to do ----------------------------------------------------------


@pytest.mark.parametrize(("content", "said"), [
    (b"ARROW1\0\0", "is an Arrow file; .*read_feather"),
    (b"BZh91AY", "is a file compressed by bzip2; .*bunzip2"), (b"\xfd7zXZ\0", "is a file compressed by xz; .*unxz"),
    (b"\x28\xb5\x2f\xfd", "is a file compressed by Zstandard; .*unzstd"), (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
    (b"Rar!\x1a\x07", "is a RAR archive"), (b"%PDF-1.7", "is a PDF document"), (b"%!PS-Adobe", "is a PostScript docum"),
    (b"<!DOCTYPE html>", "is a web page; .*the download gave a page in place of the file: get it again"),
    (b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS; .*git lfs pull"),
    (pickle.dumps([1]), "is a pickle, which could run code"), (b"words and words", "is text that begins with 'words"),
    (b"\xf0\x9f\x98\x80", r"begins with the bytes f0 9f 98 80; expected an .h5, .mat, .*\(.gz\) file or a fol"),
])  # fmt: skip
def test_a_format_is_named_by_its_bytes(tmp_path, content, said):
    for name in ("a.npy", "b", "c.csv"):  # not by the name of the file
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, said)


def test_a_database_is_named(tmp_path):
    with sqlite3.connect(tmp_path / "a") as database:
        database.execute("create table t (x)")
    database.close()
    refused(tmp_path / "a", "is a database of SQLite")


def test_what_is_packed_is_unpacked_by_the_advice(tmp_path):
    packed = tmp_path / "a.npy.gz"
    packed.write_bytes(gzip.compress(npy(GREY)))
    assert refused(packed, "compressed by gzip and holds an .npy file").endswith(": unpack it with gunzip a.npy.gz.")
    (tmp_path / "a.npy").write_bytes(gzip.decompress(packed.read_bytes()))  # as gunzip does
    same_images(tmp_path / "a.npy")
    folder = pngs(tmp_path / "images")
    for name, said in (("a.tar", "is a tar archive; .*unpack it with tar xf, and give the folder of its images"),
                       ("a.tgz", "compressed by gzip and holds a tar archive")):  # fmt: skip
        with tarfile.open(tmp_path / name, "w:gz" if name == "a.tgz" else "w") as archive:
            archive.add(folder, "unpacked")
        refused(tmp_path / name, said)
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    same_images(tmp_path / "unpacked")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    refused(tmp_path / "a.zip", "zip archive with other files than arrays .*unpack it and give the folder")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "unzipped")
    same_images(tmp_path / "unzipped")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1]))
    refused(tmp_path / "a.pt", "it is a file of PyTorch: save the tensor with np.save")


def test_pickled_arrays_and_lists_of_images_are_saved_by_the_advice(tmp_path):
    listed = np.empty(20, object)
    listed[:] = list(GREY)
    np.save(tmp_path / "a.npy", listed, allow_pickle=True)
    assert "save np.stack(list(images))" in refused(tmp_path / "a.npy", "holds Python objects, which could run code")
    np.save(tmp_path / "a.npy", np.stack(list(listed)))
    same_images(tmp_path / "a.npy")


def test_a_folder_of_idx_files_is_a_data_set(tmp_path):
    """As MNIST and its relatives come, compressed or not."""
    labels = np.arange(20, dtype=np.uint8)
    for name, array in (("train-images-idx3-ubyte", GREY), ("train-labels-idx1-ubyte", labels),
                        ("t10k-images-idx3-ubyte.gz", GREY[:4]), ("t10k-labels-idx1-ubyte.gz", labels[:4])):
        content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = data.load(tmp_path)
    assert np.array_equal(found.train, GREY.reshape(20, 20))
    assert np.array_equal(found.test, GREY[:4].reshape(4, 20))
    assert (found.train_labels.tolist(), found.test_labels.tolist()) == ([*range(20)], [0, 1, 2, 3])


def test_a_new_format_is_one_registration(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "FORMATS", [*registry.FORMATS])
    registry.reads("an .odd file", b"ODD")(lambda path: {"images": registry.Stored.of(GREY)})
    (tmp_path / "a").write_bytes(b"ODD")
    same_images(tmp_path / "a")
    assert registry.expected() == ("an .h5, .mat, .npy, .npz, .odd or IDX(.gz) file or a folder of images, or a table "
                                   "(.csv, .tsv, .parquet)")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    """Nothing ever comes from this pipe, and no end from /dev/zero."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        refused(tmp_path / name, "is neither a file nor a folder; expected an .h5")
    refused(tmp_path, "link is neither a file nor a folder")
    pngs(tmp_path / "images")
    (tmp_path / "images" / "99.png").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "images", "99.png is neither a file nor a folder")


# ---- headers that lie ----------------------------------------------------------------

HOLE = 2**24  # bytes of zeros that must not be read


@contextmanager
def little_memory():
    """Within this block not even a quarter of the hole may be allocated."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < HOLE / 4


def idx_head(*shape):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def test_a_small_header_before_a_huge_content(tmp_path):
    hole = gzip.compress(bytes(HOLE), 1)
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_head(30, 8, 8)) + hole * 200)  # members of gzip follow each other
    with little_memory():
        refused(tmp_path / "a.gz", r"more bytes after its header; expected 1920, .* says shape \(30, 8, 8\)")


@pytest.mark.parametrize("shape", [(2**30, 28, 28), (2**32 - 1, 2**32 - 1), (4000, 8, 8)])
def test_a_huge_header_before_a_small_content(tmp_path, shape):
    for name, content in (("a", idx_head(*shape)), ("a.gz", gzip.compress(idx_head(*shape) + bytes(99)))):
        (tmp_path / name).write_bytes(content)
        with little_memory():
            refused(tmp_path / name, r"holds (at most )?\d+ bytes after its header; expected \d+, .* get it again")


def archive(path, **members):
    """An archive of arrays (bytes are written as they are), compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in members.items():
            file.writestr(f"{name}.npy", array if isinstance(array, bytes) else npy(array))
    return path


def npy_head(*shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_arrays_that_are_not_wanted_are_not_read(tmp_path):
    path = archive(tmp_path / "a.npz", images=GREY, other=npy_head(HOLE) + bytes(HOLE))
    with little_memory(), pytest.warns(UserWarning, match=r"not used: other \(16777216,\) uint8; used are images"):
        assert len(data.load(path).train) == 18


def test_arrays_that_do_not_fit_are_not_read(tmp_path):
    """The shape is wrong, so no number is needed to refuse it."""
    path = archive(tmp_path / "a.npz", images=npy_head(2, 2, HOLE // 4, 1, 1) + bytes(HOLE))
    with little_memory():
        refused(path, r"has shape \(2, 2, 4194304, 1, 1\); expected \(count, pixels\)")


@pytest.mark.parametrize("content", [
    npy_head(30, 8, 8) + bytes(HOLE), npy_head(2**40, 8, 8) + bytes(99), npy_head(30, 8, 8), npy_head(30, 8, 8)[:40],
    npy_head(2**62, 2**62), b"", b"\x93NUMPY\x03\x00" + npy_head(3)[8:]],
    ids=["more", "less", "none", "cut", "beyond", "empty", "version 3"])  # fmt: skip
def test_members_whose_header_does_not_fit(tmp_path, content):
    path = archive(tmp_path / "a.npz", images=content)
    with little_memory():
        refused(path, "cannot be read .*: truncated, damaged or too large; write it again")


def test_a_directory_that_lies_with_the_header(tmp_path):
    """Both say 3 GiB, which no compression makes of so few bytes."""
    head = npy_head(3 * 2**20, 2**10)
    path = archive(tmp_path / "a.npz", images=head + bytes(999))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")  # in the central directory; the size of the member stands at 24
    content[entry + 24 : entry + 28] = struct.pack("<I", len(head) + 3 * 2**30)
    path.write_bytes(content)
    with little_memory():
        refused(path, r"says 3221225472 bytes, and \d+ can follow it\): truncated, damaged or too large")


@pytest.mark.parametrize("module", [idx, npz])
def test_an_array_larger_than_the_memory_is_refused(tmp_path, monkeypatch, module):
    monkeypatch.setattr(registry, "physical_memory", lambda: 300)
    path = tmp_path / "a"
    if module is idx:
        path.write_bytes(idx_head(20, 4, 5) + GREY.tobytes())
    else:
        np.savez(path.with_suffix(".npz"), GREY)
        path = path.with_suffix(".npz")
    refused(path, r"array of shape \(20, 4, 5\), .* store train.npy and test.npy in a folder")
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "train.npy", GREY[:18])
    np.save(folder / "test.npy", GREY[18:])
    same_images(folder)


# ---- what is ours --------------------------------------------------------------------


def test_nobody_is_told_to_remove_a_file_of_a_run(tmp_path, monkeypatch):
    """A data set that has the name of its run folder: what is there is a run, and its files are named as such."""
    import tinyvae as tv

    monkeypatch.chdir(tmp_path)
    bits = RNG.integers(0, 2, (12, 9), np.uint8)
    mine = tv.DataSet("faces", bits, bits[:3], (3, 3), 1.0, "static", "bernoulli")
    tv.fit(tv.VAE(9, 4, 2), mine, "faces", epochs=1, quiet=True)
    with pytest.raises(data.DataError, match="faces is the folder of a tinyvae run and holds no images") as caught:
        tv.resume("faces", epochs=2, quiet=True)
    assert "remove" not in str(caught.value)
    assert str(caught.value).endswith("in Python tv.resume('faces', data=data)")
    assert len(tv.resume("faces", mine, epochs=2, quiet=True)) == 2
    for left in ("config.json", "last.safetensors"):  # whatever of it is left
        folder = tmp_path / left.partition(".")[0]
        folder.mkdir()
        (tmp_path / "faces" / left).rename(folder / left)
        refused(folder, "is the folder of a tinyvae run and holds no images")
