"""The pictures of the lessons: what is on them, that nothing is cut off, and the same bytes for the same numbers."""

from functools import cache

import numpy as np
import pytest
from PIL import Image

from tinyvae.lessons import elbo, figures
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import drawable
from tinyvae.lessons.montecarlo import study
from tinyvae.pictures import page

lesson = cache(elbo.lesson)  # several tests draw the same one


def colours(file):
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)


@pytest.fixture
def coarse(monkeypatch):
    """Pictures of few pixels, which take less time."""
    monkeypatch.setattr(page, "DPI", 70)
    monkeypatch.setattr(figures, "SCREEN", 70)


@pytest.mark.parametrize("options", [{}, {"mu": -20.0}, {"mu": -100.0}, {"mu": 300.0}, {"shape": 1e6},
                                     {"preset": "exponential", "mu": 1.0}])  # fmt: skip
def test_pictures_of_the_elbo(options, tmp_path, coarse):
    found = lesson(**options, frames=6)
    strip = figures.elbo_strip(found, tmp_path / "a.png")
    film = figures.elbo_animation(found, tmp_path / "a.gif")
    for file in (strip, film):
        pixels = colours(file)
        assert (pixels[:4] > 250).all()  # nothing is cut off at an edge
        assert (pixels[:, :4] > 250).all()
        for colour in ((0, 114, 178), (213, 94, 0)):  # p and q
            assert (np.abs(pixels - np.array(colour, np.int16)).sum(-1) < 40).sum() > 20
    with Image.open(film) as gif:
        assert gif.n_frames == len(found.points)
        assert gif.info["loop"] == 0
    if not options:
        content = strip.read_bytes(), film.read_bytes()
        assert figures.elbo_strip(found, tmp_path / "b.png").read_bytes() == content[0]
        assert figures.elbo_animation(found, tmp_path / "b.gif").read_bytes() == content[1]


@pytest.mark.parametrize(("text", "f"), [("beta(2, 3)", "log(z)"), ("cauchy", "1/(1 + z**2)")])
def test_the_picture_of_a_study(text, f, tmp_path, coarse):
    found = study(*drawable(text), parse(f), 64, 10)
    file = figures.montecarlo(found, tmp_path / "a.png")
    pixels = colours(file)
    assert (pixels[:4] > 250).all()
    assert (np.abs(pixels - np.array((0, 114, 178), np.int16)).sum(-1) < 40).sum() > 20
    assert figures.montecarlo(found, tmp_path / "b.png").read_bytes() == file.read_bytes()


def test_short_numbers():
    shown = {-3.167e-5: "−3.2 · 10⁻⁵", 0.0: "0", 16.7686: "16.8", -1.85: "−1.85", 123456.0: "123,456", 0.0123: "0.0123",
             -1.25e11: "−1.2 · 10¹¹"}
    assert {value: figures._number(value) for value in shown} == shown
    assert figures._number(-0.02066, 3) == "−0.021"
    assert figures._number(-0.0) == "0"


@pytest.mark.parametrize(("mu", "seen"), [(-3.0, True), (0.5, True), (4.0, False), (-100.0, False), (300.0, False)])
def test_the_caption_tells_of_what_is_seen(mu, seen):
    axes = page.new_figure(4, 3).add_subplot()
    _, hatched = figures._densities(axes, lesson(mu=mu, frames=6))
    assert hatched == seen


def test_no_line_from_nowhere_at_zero():
    """A density that is 0 at 0 and high on the next point begins at its mode; others are drawn whole."""
    axes = page.new_figure(4, 3).add_subplot()
    found = lesson(mu=-3.0, frames=6)
    curve, _ = figures._densities(axes, found)
    figures._move(curve, found.best)
    y = curve.get_ydata()
    assert np.isnan(y[0])
    assert (np.diff(y[np.isfinite(y)]) <= 0).all()
    figures._move(curve, found.points[0])
    assert np.isfinite(curve.get_ydata()).all()
