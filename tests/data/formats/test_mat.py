"""MATLAB 5 files: images along the last axis, labels as a column or a row, and damaged ones."""

import re
import struct
import sys

import numpy as np
import pytest
from scipy import io as matlab

import tinyvae.data as data
from tinyvae.data.formats import mat, registry
from tinyvae.data.formats.registry import Stored

RNG = np.random.default_rng(0)
COLOURS, LABELS = RNG.integers(0, 256, (20, 4, 5, 3), np.uint8), np.arange(20)


def test_images_and_labels_as_matlab_has_them(tmp_path):
    """As in SVHN: X (rows, columns, 3, count) and y (count, 1); text, cells and structures are left out."""
    others = {"note": "words", "more": {"a": np.ones(3)}, "cell": np.array([np.ones(2), "b"], object)}
    matlab.savemat(tmp_path / "a.mat", {"X": np.moveaxis(COLOURS, 0, -1), "y": LABELS[:, None]} | others,
                   do_compression=True)
    with pytest.warns(UserWarning, match="taken as 20 images of 4 x 5 in colour, along the last axis"):
        found = data.load(tmp_path / "a.mat")
    assert (found.name, found.shape) == (f"{tmp_path / 'a.mat'}-color", (4, 5, 3))
    assert np.array_equal(found.train, COLOURS.reshape(20, 60)[found.train_labels])


def test_version_4_has_no_mark_and_is_known_by_its_header(tmp_path):
    head = struct.pack("<5i", 50, 20, 20, 0, 3) + b"ff\0" + bytes(400)  # 50: full, bytes
    for right in (head, struct.pack(">5i", 1050, 20, 20, 0, 3) + head[20:], head[:20] + b"a_\0" + head[23:]):
        assert registry.recognised(right).name == "a .mat file"
    for wrong in (bytes(512), head[:21], head[:16] + bytes(4) + head[20:], head[:20] + b"f \0" + head[23:],
                  head[:22] + b"a" + head[23:], struct.pack("<i", 53) + head[4:], struct.pack("<i", 1050) + head[4:]):
        assert registry.recognised(wrong) is None
    table = COLOURS.reshape(20, 60)
    matlab.savemat(tmp_path / "a.mat", {"images": table}, format="4")
    assert np.array_equal(mat.read(tmp_path / "a.mat")["images"].read(), table)


def test_axes_of_matlab():
    """A row is a vector; three axes have the images along the longer one of the first and the last."""
    grey = COLOURS[..., 0]
    assert mat.as_matlab("y", Stored.of(LABELS[None]), "a.mat").shape == (20,)
    assert mat.as_matlab("y", Stored.of(LABELS[None]), "a.mat").read().tolist() == LABELS.tolist()
    assert mat.as_matlab("x", Stored.of(grey), "a.mat").read() is grey
    with pytest.warns(UserWarning, match=re.escape("a.mat (x) has shape (4, 5, 20), which is taken as 20 images")):
        found = mat.as_matlab("x", Stored.of(np.moveaxis(grey, 0, -1)), "a.mat")
    assert found.shape == grey.shape
    assert np.array_equal(found.read(), grey)


def test_a_damaged_file_and_one_beyond_the_memory_get_a_sentence(tmp_path, monkeypatch):
    """The program that reads, here without a process of its own, ends with the reason."""
    path = tmp_path / "a.mat"
    matlab.savemat(path, {"images": COLOURS}, do_compression=True)
    content = bytearray(path.read_bytes())

    def program(most):
        monkeypatch.setattr(sys, "argv", ["", str(path), str(tmp_path / "b.npz"), str(most)])
        exec(mat.PROGRAM, {})

    program(1200)
    with pytest.raises(SystemExit, match="its arrays claim 1,200 bytes, and at most 1,199 are possible"):
        program(1199)
    content[200:230] = bytes([255]) * 30
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=r"is a MATLAB file that cannot be read .*: truncated, damaged or too"):
        data.load(path)


def test_a_reader_that_crashes_gets_a_sentence(tmp_path, monkeypatch):
    matlab.savemat(tmp_path / "a.mat", {"images": COLOURS})
    monkeypatch.setattr(mat, "PROGRAM", "import os; os.abort()")
    with pytest.raises(data.DataError, match=r"cannot be read .its reader ended with -6."):
        data.load(tmp_path / "a.mat")
