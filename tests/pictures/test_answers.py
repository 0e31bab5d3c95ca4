"""Pictures of answers: a row for each thing, a column for each condition, in the same bytes every time."""

import numpy as np
import pytest
from PIL import Image

from tinyvae.pictures import answers as pictures
from tinyvae.pictures.page import GAP
from tinyvae.tasks.generation.conditional import Answers
from tinyvae.tasks.generation.upscaling import Upscaled

SHAPE, SCALE = (4, 4), 22  # a tile of 88 pixels


def found(rows=3, captions=None, pictures=True):
    rng = np.random.default_rng(0)
    images = np.full((8, rows, 16), 0.5)
    images[:, :, 15] = rng.random((8, rows))
    shown = np.full((rows, 16), 0.25) if pictures else None
    return Answers("the left half of an image", captions or [""] * rows, np.zeros((rows, 8)), shown, images, 1.0)


def tiles(file, left=210, head=0):
    """The tiles of a table as (rows, columns, 4, 4) in [0, 1], each pixel from its middle."""
    grey = np.asarray(Image.open(file).convert("L")) / 255
    top, side = 40 + 60 + head, 4 * SCALE
    step = side + GAP
    rows, columns = (grey.shape[0] - top - 40 + GAP) // step, (grey.shape[1] - left - 80 + GAP) // step
    at = np.arange(4) * SCALE + SCALE // 2
    return np.array([[grey[np.ix_(top + r * step + at, 40 + left + c * step + at)] for c in range(columns)]
                     for r in range(rows)])


def test_rows_of_an_answer(tmp_path):
    file = pictures.answers(found(), SHAPE, tmp_path / "a.png", np.full((3, 16), 0.75), columns=12)
    table = tiles(file)[:, :3]
    assert len(table) == 1 + 6 + 2 + 1  # condition, answers, mean and spread, data
    assert table[0] == pytest.approx(0.25, abs=0.01)
    assert table[-1] == pytest.approx(0.75, abs=0.01)
    spread = table[-2].reshape(3, 16)
    assert spread[:, :15] == pytest.approx(0, abs=0.01)
    assert spread.max() == pytest.approx(1, abs=0.01)  # the largest is white
    assert table[-3].reshape(3, 16)[:, 15] == pytest.approx(found().mean[:, 15], abs=0.01)
    again = pictures.answers(found(), SHAPE, tmp_path / "b.png", np.full((3, 16), 0.75), columns=12)
    assert file.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_answers_that_are_all_the_same_have_no_spread(noise, tmp_path):
    """Rounding is not stretched to white."""
    images = np.full((8, 3, 16), 0.5) + noise * np.random.default_rng(0).random((8, 3, 16))
    same = Answers("the left half of an image", [""] * 3, np.zeros((3, 8)), None, images, 1.0)
    table = tiles(pictures.answers(same, SHAPE, tmp_path / "a.png"))[:, :3]
    assert table[-2] == pytest.approx(0.5, abs=0.01)
    assert not table[-1].any()


def test_labels_have_names_and_no_picture(tmp_path):
    with_names = pictures.answers(found(captions=["label 3"] * 3, pictures=False), SHAPE, tmp_path / "a.png")
    assert len(tiles(with_names, head=36)) == 6 + 2


def test_ways_of_super_resolution(tmp_path):
    shown = {name: np.full((2, 16), value) for name, value in (("nearest", 0.2), ("bicubic", 0.4), ("original", 0.8))}
    file = pictures.upscaled(Upscaled(2, 2, [], shown, np.zeros((2, 16)), np.zeros((2, 16))), SHAPE, tmp_path / "a.png")
    table = tiles(file)
    assert table[:, 0].mean((1, 2)) == pytest.approx([0.2, 0.4, 0.8], abs=0.01)
