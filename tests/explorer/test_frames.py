"""How data lie in their images, by hand."""

import numpy as np

from tinyvae.explorer.frames import frame_of


def test_a_square_beside_the_middle():
    images = np.zeros((3, 10, 8), np.float32)
    images[:, 2:6, 1:5] = 0.9
    images[:, 8, 7] = 0.2  # too pale
    assert frame_of(images) == {"ground": 0.0, "size": 0.5, "row": 4.0, "column": 3.0, "whole": False}
    assert frame_of(1 - images)["ground"] == 1.0
    assert frame_of(1 - images)["row"] == 4.0


def test_the_centre_of_mass_is_weighted_by_ink():
    images = np.zeros((1, 4, 8), np.float32)
    images[0, 1, 1], images[0, 1, 5] = 0.9, 0.3
    found = frame_of(images)
    np.testing.assert_allclose((found["row"], found["column"]), (1.5, (0.9 * 1.5 + 0.3 * 5.5) / 1.2), rtol=1e-6)
    assert found["size"] == 5 / 8


def test_medians_over_images_with_ink():
    images = np.zeros((5, 6, 6), np.float32)
    for number, wide in enumerate((1, 2, 4)):
        images[number, 0, :wide] = 1
    assert frame_of(images)["size"] == 2 / 6


def test_images_that_are_full_or_empty():
    noise = np.random.default_rng(0).integers(0, 2, (9, 6, 6)).astype(np.float32)
    assert frame_of(noise)["whole"] is True
    assert frame_of(np.zeros((2, 4, 4), np.float32)) == {"ground": 0.0, "size": 1.0, "row": 2.0, "column": 2.0,
                                                         "whole": True}  # fmt: skip
