"""The picture of completed images: a row each for data, observed pixels, completions, mean and spread."""

import numpy as np
from PIL import Image

from tinyvae.pictures.completions import DARK, LIGHT, completions
from tinyvae.tasks.completion import Completion


def made(missing, hidden, x=0.2):
    data = np.full((2, 12), x)
    draws = np.where(missing, np.array([0.3, 1.7])[:, None, None], data)
    return Completion("made", "gibbs", 2, 4, 0, 4, data, missing, hidden, draws, np.where(missing, 0.8, data),
                      np.where(missing, 0.125, 0.0), np.zeros(2))


def greys(path):
    """The grey levels that fill more than a few pixels."""
    with Image.open(path) as image:
        return {level for count, level in image.convert("L").getcolors() if count > 200}


def level(grey):
    return int(np.rint(255 * grey))


def test_what_it_shows(tmp_path):
    missing = np.tile(np.arange(12) < 6, (2, 1))
    shown = greys(completions(made(missing, missing), (3, 4), tmp_path / "a.png"))
    # the data, the ground, the completions (the second one is cut to 1), the mean, the spread over the largest one
    assert {level(g) for g in (0.2, LIGHT, DARK, 0.3, 1.0, 0.8, 0.0)} <= shown
    without = greys(completions(made(missing, missing), (3, 4), tmp_path / "b.png", answers=0))
    assert shown - without >= {level(0.3)}
    assert level(LIGHT) not in greys(completions(made(missing & False, missing & False), (3, 4), tmp_path / "c.png"))


def test_red_stays_red(tmp_path):
    """Also below a mask, where the ground is grey; the spread of one channel alone is shown in its colour."""
    red, missing = np.tile([1.0, 0.0, 0.0], (2, 4)), np.tile(np.arange(12) < 6, (2, 1))
    found = Completion("made", "gibbs", 1, 4, 0, 4, red, missing, missing, red[None], red, 0.1 * missing * red,
                       np.zeros(2), of_colour=True)
    with Image.open(completions(found, (2, 2, 3), tmp_path / "a.png")) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(2**24)}
    assert {colour for colour in colours if len(set(colour)) > 1} == {(255, 0, 0)}
    assert {(level(LIGHT),) * 3, (level(DARK),) * 3, (0, 0, 0)} <= colours
