"""Pictures of classes: what they show is in its place, and what they cannot show gets a sentence."""

from itertools import groupby

import numpy as np
import pytest
from PIL import Image

import tinyvae as tv
from tinyvae.models.m2 import M2
from tinyvae.pictures import classes, gallery

SHAPE = (4, 3)
COUNTS = np.array([[5, 0], [1, 3]])


def draw(name, path):
    confidence = np.array([np.nan, 0.3, 0.9])
    return {
        "confusion": lambda: classes.confusion(COUNTS, ("a", "b"), path),
        "reliability": lambda: classes.reliability(confidence, confidence - 0.1, np.array([0, 4, 6]), 0.1, path),
        "analogies": lambda: classes.analogies(np.full((2, 12), 0.5), np.random.default_rng(0).random((2, 3, 12)),
                                               ("0", "1", "2"), SHAPE, path),
    }[name]()


@pytest.mark.parametrize("name", ["confusion", "reliability", "analogies"])
def test_a_file_that_is_not_blank_and_always_the_same(name, tmp_path):
    path = draw(name, tmp_path / "x.png")
    content = path.read_bytes()
    with Image.open(path) as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert draw(name, tmp_path / "y.png").read_bytes() == content


def test_a_dark_cell_is_a_large_share_of_its_row(tmp_path):
    with Image.open(classes.confusion(np.array([[9, 0], [0, 9]]), ("a", "b"), tmp_path / "x.png")) as image:
        grey = np.asarray(image.convert("L"))
    high, wide = grey.shape
    middle = grey[high // 8 : -high // 8, wide // 6 : -wide // 6]
    halves = middle[: len(middle) // 2, : middle.shape[1] // 2], middle[: len(middle) // 2, middle.shape[1] // 2 :]
    assert halves[0].mean() < halves[1].mean() - 60  # the diagonal is dark


def test_a_bin_of_one_datum_is_seen(tmp_path, monkeypatch):
    """Its share has an error, its count stands there, counts are whole numbers, and no bar lies below the legend."""
    seen = []
    monkeypatch.setattr(classes, "save_png", lambda figure, path: seen.append(figure))
    classes.reliability(np.array([0.2, 0.6, 0.9]), np.array([1.0, 1.0, 2 / 3]), np.array([1, 3, 3]), 0.1, tmp_path)
    figure, (above, below) = seen[0], seen[0].axes
    figure.draw_without_rendering()
    (bars,) = above.containers[1].lines[2]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert ends[:2] == pytest.approx(np.array([[0.5, 1.0], [0.75, 1.0]]))
    assert [text.get_text() for text in below.texts] == ["1", "3", "3"]
    assert all(tick == round(tick) for tick in below.get_yticks())
    legend = above.get_legend().get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in (above, below))
    assert legend.y0 > max(text.get_window_extent().y1 for text in below.texts)


def test_the_error_of_a_share():
    """Wilson's interval solves (p - share)^2 = p (1 - p) / count."""
    share, count = np.array([0.0, 0.3, 1.0]), np.array([4, 10, 1])
    down, up = classes.wilson(share, count)
    for p in (share - down, share + up):
        np.testing.assert_allclose((p - share) ** 2, p * (1 - p) / count, atol=1e-12)
    assert (down + up > 0).all()


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda p: classes.confusion(COUNTS, ("a",), p), r"counts are \(2, 2\) with a sum of 9; expected \(1, 1\) counts"),
    (lambda p: classes.confusion(0 * COUNTS, ("a", "b"), p), "with a sum of 0; .* of at least one datum"),
    (lambda p: classes.reliability(np.ones(3), np.ones(2), np.ones(3), 0, p), r"expected \(bins,\) each"),
    (lambda p: classes.analogies(np.ones((2, 12)), np.ones((2, 3, 12)), ("a",), SHAPE, p), "expected 2 rows of 1 c"),
])  # fmt: skip
def test_what_cannot_be_drawn_gets_a_sentence(call, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        call(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_analogies_in_colour(tmp_path):
    """Each image keeps its colour, and a white gap stands after the first."""
    made = np.eye(3)[[[0, 1], [2, 0]]]
    shown = classes.analogies(np.tile(np.eye(3)[:2], 12), np.tile(made, 12), ("a", "b"), (4, 3, 3), tmp_path / "x.png")
    with Image.open(shown) as image:
        content = np.asarray(image.convert("RGB"))
    colours = {colour for colour in map(tuple, content.reshape(-1, 3).tolist()) if len(set(colour)) > 1}
    assert colours == {(255, 0, 0), (0, 255, 0), (0, 0, 255)}
    second = content[np.flatnonzero((content == [0, 0, 255]).all(-1).any(1))[0]]  # a line of pixels of the second row
    tiles = [colour for colour, _ in groupby(map(tuple, second.tolist())) if colour in colours]
    assert tiles == [(0, 255, 0), (0, 0, 255), (255, 0, 0)]


def test_a_run_with_a_classifier_gets_these_pictures(tmp_path):
    model, data = M2(64, hidden=10, latent=2), tv.data.load("digits")
    drawn = gallery.all_pictures(model, data, [], tmp_path)
    assert {file.name for file in drawn} == {"confusion.png", "reliability.png", "analogies.png"}
    assert gallery.of_classes(tv.VAE(64, 5, 2), data) == []
