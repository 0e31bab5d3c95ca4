"""Masks by name, by share and from files; each mistake gets one sentence."""

import numpy as np
import pytest
from PIL import Image

from tinyvae.tasks.masks import missing_pixels

NAMED = {"left": ["xx..."] * 4, "top": ["xxxxx"] * 2 + ["....."] * 2, "quadrant": ["....."] * 2 + ["..xxx"] * 2,
         "center": [".....", ".xxx.", ".xxx.", "....."]}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_masks_by_name(name):
    found = missing_pixels(name, (4, 5), 3)
    assert found.dtype == bool
    assert found.shape == (3, 20)
    for row in found:
        assert ["".join(".x"[int(value)] for value in line) for line in row.reshape(4, 5)] == NAMED[name]


def test_a_random_share_is_drawn_for_each_image():
    found = missing_pixels("random:0.3", (4, 5), 50, seed=1)
    assert (found.sum(1) == 6).all()
    assert len({row.tobytes() for row in found}) == 50
    assert 0.2 < found.mean(0).min() < found.mean(0).max() < 0.8 or found.mean(0).std() < 0.1
    assert (missing_pixels("random:0.3", (4, 5), 10, seed=1) == found[:10]).all()  # however many images there are
    assert (missing_pixels("random:0.3", (4, 5), 50, seed=2) != found).any()


@pytest.mark.parametrize("kind", ["png", "npy", "array", "rows"])
def test_a_mask_from_a_file_or_an_array(kind, tmp_path):
    mask = np.array([[True, False, False], [False, True, True]])
    path = tmp_path / f"mask.{kind}"
    if kind == "png":
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)
    elif kind == "npy":
        np.save(path, mask.astype(float))
    given = {"array": mask, "rows": np.stack([mask.reshape(-1), ~mask.reshape(-1)])}.get(kind, str(path))
    found = missing_pixels(given, (2, 3), 2)
    assert (found == [mask.reshape(-1), (~mask if kind == "rows" else mask).reshape(-1)]).all()


@pytest.mark.parametrize("given", ["left", "random:0.5", np.eye(4, 5), np.eye(4, 5).reshape(1, 20), "of each channel"])
def test_a_pixel_is_missing_with_all_its_channels(given):
    """Which pixels it are is the same as of grey images, unless an array says it of each channel."""
    if isinstance(given, str) and given == "of each channel":
        given = np.random.default_rng(0).random((4, 5, 3)) < 0.5
        assert (missing_pixels(given, (4, 5, 3), 6) == given.reshape(60)).all()
        return
    found = missing_pixels(given, (4, 5, 3), 6, seed=1).reshape(6, 20, 3)
    assert (found == missing_pixels(given, (4, 5), 6, seed=1)[..., None]).all()


@pytest.mark.parametrize(("given", "sentence"), [
    ("right", "found no file right and no mask of that name; expected left, top, quadrant, center, random:SHARE"),
    ("random:2", "found the mask random:2; expected random:SHARE with a share between 0 and 1, as random:0.5"),
    ("random:x", "found the mask random:x"), ("random:0.01", "found nothing missing in random:0.01 of 2 x 3"),
    (np.zeros((2, 3)), "found nothing missing in the mask of 2 x 3 pixels; expected some"),
    (np.ones((2, 3)), "found everything missing in the mask of 2 x 3 pixels"),
    (np.eye(3), r"found the mask of shape \(3, 3\); expected \(2, 3\), the shape of one image, or \(1, 6\)"),
    (np.array([["a"]]), "found <U1 in the mask"),
    ("random0.5", "found no file random0.5 and no mask of that name"), ("random:", "found the mask random:; expected"),
    (np.full((2, 3), 0.5), "found 0.5 everywhere in the mask; expected two values, as true and false or white and b"),
    (np.full((2, 3), np.nan), "found nan everywhere in the mask; expected two values"),
    (np.where(np.eye(2, 3), np.nan, 0), "found 0 and nan in the mask; expected two values"),
    (np.arange(6).reshape(2, 3), "found 6 different values in the mask; .*: compare it with a limit")])  # fmt: skip
def test_a_mask_that_does_not_fit_gets_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        missing_pixels(given, (2, 3))


def test_two_values_are_truth_values():
    """Whichever they are, and in a file whose name begins as that of a random mask."""
    for low, high in ((0, 1), (0, 255), (-1, 1), (200, 255), (0.0, 0.25)):
        assert (missing_pixels(np.where(np.eye(2, 3) > 0, high, low), (2, 3)) == np.eye(2, 3).reshape(1, 6)).all()
    assert (missing_pixels("random", (4, 5), 9) == missing_pixels("random:0.5", (4, 5), 9)).all()


def test_a_grey_image_is_no_mask(tmp_path):
    """Nobody has said from which grey on a pixel is missing."""
    Image.fromarray(np.arange(0, 240, 40, np.uint8).reshape(2, 3)).save(tmp_path / "random.png")
    with pytest.raises(ValueError, match=r"found 6 different values in the mask .*random.png; expected two values"):
        missing_pixels(str(tmp_path / "random.png"), (2, 3))


def test_a_file_that_is_no_mask_gets_a_sentence(tmp_path):
    (tmp_path / "mask.png").write_text("no image")
    with pytest.raises(ValueError, match=r"mask.png, which is no image and no array in a .npy file"):
        missing_pixels(str(tmp_path / "mask.png"), (2, 3))
