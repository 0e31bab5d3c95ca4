"""Images of two values are bits, wherever they come from; and images in colour of every layout and type."""

import numpy as np
import pytest
from PIL import Image

import tinyvae.data as data
from tinyvae.data.dataset import held_out

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


# ---- colour --------------------------------------------------------------------------

COLOURS = np.random.default_rng(1).integers(0, 256, (20, 6, 5, 3), np.uint8)
LAYOUTS = {"channels last": lambda a: a, "channels first": lambda a: np.moveaxis(a, -1, 1),
           "images last": lambda a: np.moveaxis(a, 0, -1)}  # as MATLAB has them
STORED = {"u1": lambda a: a, "i8": lambda a: a.astype(np.int64), "u2": lambda a: a.astype(np.uint16) * 257,
          "f4": lambda a: a.astype(np.float32) / np.float32(255), "f8": lambda a: a / 255}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.filterwarnings("ignore:.*along the last axis")
def test_arrays_in_colour(tmp_path, layout, kind, suffix):
    """A row has the three channels of a pixel together, of each layout and of each type with the same values."""
    array = LAYOUTS[layout](STORED[kind](COLOURS))
    if suffix == "npy":
        np.save(tmp_path / "a.npy", array)
    else:
        np.savez(tmp_path / "a.npz", images=array, labels=np.arange(20))
    found = data.load(tmp_path / f"a.{suffix}")
    assert (found.pixels, found.likelihood, found.kind, found.shape) == ("color", "continuous-bernoulli", "grey",
                                                                         (6, 5, 3))
    assert (found.is_colour, found.dimensions, found.classes) == (True, 90, 20 * (suffix == "npz"))
    assert "18 train, 2 test, 6 x 5 x 3" in str(found)
    train, test = held_out(20, 2)
    for rows, index in ((found.train, train), (found.test, test)):
        right = COLOURS[index].reshape(-1, 90)
        assert np.abs(rows / found.scale - right / 255).max() <= 6e-8
        assert kind in ("u2", "f4", "f8") or np.array_equal(rows, right)


def test_images_along_the_last_axis_get_a_line(tmp_path):
    np.save(tmp_path / "a.npy", np.moveaxis(COLOURS, 0, -1))
    with pytest.warns(UserWarning, match=r"shape \(6, 5, 3, 20\), which is taken as 20 images of 6 x 5 in colour"):
        data.load(tmp_path / "a.npy")


def test_colours_of_two_values_are_bits_of_each_channel(tmp_path):
    bits = COLOURS // 128
    np.save(tmp_path / "a.npy", bits * 255)
    with pytest.warns(UserWarning, match="only the values 0 and 255"):
        found = data.load(tmp_path / "a.npy")
    assert (found.pixels, found.likelihood, found.kind, found.shape) == ("static", "bernoulli", "binary", (6, 5, 3))
    assert np.array_equal(found.train, bits[held_out(20, 2)[0]].reshape(18, 90))


@pytest.mark.parametrize("pixels", ["dynamic", "threshold", "color"])
def test_a_treatment_is_that_of_each_channel(tmp_path, pixels):
    np.save(tmp_path / "a.npy", COLOURS)
    found = data.load(f"{tmp_path / 'a.npy'}-{pixels}")
    assert (found.pixels, found.shape) == (pixels, (6, 5, 3))
    right = COLOURS > 127 if pixels == "threshold" else COLOURS
    assert np.array_equal(found.train, right[held_out(20, 2)[0]].reshape(18, 90))


@pytest.mark.parametrize("kind", STORED)
def test_brightness(tmp_path, kind):
    np.save(tmp_path / "a.npy", STORED[kind](COLOURS))
    with pytest.warns(UserWarning, match="-gray takes their brightness"):
        found = data.load(f"{tmp_path / 'a.npy'}-gray")
    right = (COLOURS / 255 @ [0.299, 0.587, 0.114])[held_out(20, 2)[0]].reshape(18, 30)
    assert np.abs(found.train / found.scale - right).max() <= (0.51 / 255 if kind in ("u1", "i8") else 2e-5)


def test_grey_images_are_no_colours(tmp_path):
    np.save(tmp_path / "a.npy", COLOURS[..., 0])
    with pytest.raises(data.DataError, match=r"holds grey images of 6 x 5; expected red, green and blue.*: take -gray"):
        data.load(f"{tmp_path / 'a.npy'}-color")
    with pytest.raises(data.DataError, match="mnist-color does not exist, because mnist are grey images; expec"):
        data.load("mnist-color")
    with pytest.raises(data.DataError, match=r"expected .*-color, -real, -counts. Did you mean -color\?"):
        data.load(f"{tmp_path / 'a.npy'}-colour")


@pytest.mark.parametrize(("shape", "pixels"), [((2, 5, 3), "gray"), ((2, 5, 3), "real"), ((5, 6), "color"),
                                               ((5, 3, 2), "color"), ((1, 2, 5, 3), "color")])
def test_shape_and_treatment_agree(shape, pixels):
    rows = np.full((3, 30), 0.5, np.float32)
    with pytest.raises(data.DataError, match=r"found shape=.*; expected"):
        data.DataSet("mine", rows, rows, shape, 1.0, pixels)


@pytest.mark.parametrize(("shape", "said"), [
    ((4, 192), r"rows of 192 numbers, .* grey images of one row; if they are 8 x 8 pixels in colour, store imag"),
    ((8, 9, 3), r"shape \(8, 9, 3\), which is taken as 8 grey images of 9 x 3; if it is one image in colour")])
def test_what_may_be_meant_as_colour_gets_a_line(tmp_path, shape, said):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    with pytest.warns(UserWarning, match=said):
        assert data.load(tmp_path / "a.npy").pixels == "gray"


def test_sixteen_bits_are_divided_by_65535_unless_they_hold_bytes(tmp_path):
    grey = COLOURS[..., 0]
    for name, array, scale in (("a", grey.astype(np.uint16), 255), ("b", grey.astype(">u2") * 200, 1)):
        np.save(tmp_path / f"{name}.npy", array)
        found = data.load(tmp_path / f"{name}.npy")
        assert found.scale == scale
        right = array[held_out(20, 2)[0]].reshape(18, 30) / (255 if scale == 255 else 65535)
        assert np.abs(found.train / found.scale - right).max() <= 6e-8
    np.save(tmp_path / "c.npy", grey.astype(np.uint16) * 16)  # 12 bits
    with pytest.warns(UserWarning, match=r"4080, which divided by 65535 are almost black; .*np.float32\(images / 4080"):
        data.load(tmp_path / "c.npy")
