"""Images of two values are bits, wherever they come from."""

import numpy as np
import pytest
from PIL import Image

import tinyvae.data as data

BITS = np.random.default_rng(0).integers(0, 2, (20, 6, 5), np.uint8)


@pytest.mark.parametrize(("low", "high", "kind"), [(0, 255, "u1"), (0, 7, "i8"), (20, 240, "u1"), (0, 0.5, "f4"),
                                                   (0.25, 0.75, "f8")])
def test_arrays_of_two_values_are_bits(tmp_path, low, high, kind):
    train, test = np.where(BITS, high, low), np.full((2, 6, 5), high)
    np.savez(tmp_path / "a.npz", train=train.astype(kind), test=test.astype(kind))
    with pytest.warns(UserWarning, match=f"only the values {low} and {high}: they are taken as the bits 0 and 1"):
        found = data.load(tmp_path / "a.npz")
    assert found.is_bits
    assert (found.pixels, found.likelihood, found.kind) == ("static", "bernoulli", "binary")
    assert np.array_equal(found.train.reshape(BITS.shape), BITS)
    assert (found.test == 1).all()
    assert "bits, bernoulli" in str(found)


@pytest.mark.parametrize("kind", ["u1", "f8", "?"])
def test_zeros_and_ones_are_bits_without_a_warning(tmp_path, kind):
    np.save(tmp_path / "a.npy", BITS.astype(kind))
    found = data.load(tmp_path / "a.npy")
    assert found.is_bits
    assert "18 train, 2 test, 6 x 5, bits, bernoulli" in str(found)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_images_of_black_and_white_are_bits(tmp_path, mode):
    for number, bits in enumerate(BITS):
        Image.fromarray(bits * np.uint8(255)).convert(mode).save(tmp_path / f"{number:02}.png")
    with pytest.warns(UserWarning, match="only the values 0 and 255"):
        found = data.load(tmp_path)
    assert found.is_bits
    assert np.concatenate([found.train, found.test]).mean() == BITS.mean()


def test_one_grey_pixel_is_enough_for_grey(tmp_path):
    images = BITS * np.uint8(255)
    images[19, 5, 4] = 254
    np.savez(tmp_path / "a.npz", train=images[:10], test=images[10:])
    found = data.load(tmp_path / "a.npz")
    assert (found.scale, found.kind) == (255, "grey")
