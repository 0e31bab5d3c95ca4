"""Images of a user: arrays, image files, folders and files with arrays; what is none gets a sentence."""

import numpy as np
import pytest
from PIL import Image

from tinyvae.tasks.inputs import images_of

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 6), np.uint8)


def test_every_kind_of_file_gives_the_same_images(tmp_path):
    for i, image in enumerate(IMAGES):
        (tmp_path / "folder").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "folder" / f"{i}.png")
    np.save(tmp_path / "many.npy", IMAGES)
    np.savez(tmp_path / "many.npz", images=IMAGES, labels=np.arange(3))
    np.savez(tmp_path / "parts.npz", train=IMAGES[::-1], test=IMAGES)
    for name in ("folder", "many.npy", "many.npz", "parts.npz"):
        np.testing.assert_allclose(images_of(tmp_path / name), IMAGES / 255, rtol=1e-6)
    one = images_of(str(tmp_path / "folder" / "1.png"))
    assert (one.shape, one.dtype) == ((1, 4, 6), np.float32)
    np.testing.assert_allclose(one[0], IMAGES[1] / 255, rtol=1e-6)


def test_an_array_of_an_expected_shape_is_one_image(tmp_path):
    image = IMAGES[0] / 255
    np.save(tmp_path / "one.npy", IMAGES[0])
    for given in (image, tmp_path / "one.npy"):
        np.testing.assert_allclose(images_of(given, [(4, 6)]), image[None], rtol=1e-6)
    np.testing.assert_allclose(images_of(IMAGES.reshape(3, 24) / 255, [(2, 3), (4, 6)]), IMAGES / 255, rtol=1e-6)
    assert images_of(np.zeros((5, 9))).shape == (5, 3, 3)


def test_images_in_colour(tmp_path):
    """(count, rows, columns, 3); a grey one among the colours that are expected has equal red, green and blue."""
    colours = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 3), np.uint8)
    Image.fromarray(colours[1]).save(tmp_path / "1.png")
    Image.fromarray(IMAGES[1]).save(tmp_path / "grey.png")
    np.save(tmp_path / "many.npy", np.moveaxis(colours, -1, 1))
    np.save(tmp_path / "one.npy", colours[1])
    shapes, one = [(4, 6, 3)], colours[1:2] / 255
    np.testing.assert_allclose(images_of(tmp_path / "many.npy"), colours / 255, rtol=1e-6)
    np.testing.assert_allclose(images_of(colours.reshape(3, 72) / 255, shapes), colours / 255, rtol=1e-6)
    for given in (tmp_path / "1.png", tmp_path / "one.npy", colours[1] / 255):
        np.testing.assert_allclose(images_of(given, shapes), one, rtol=1e-6)
    np.testing.assert_allclose(images_of(tmp_path / "grey.png", shapes), IMAGES[1:2, ..., None].repeat(3, 3) / 255,
                               rtol=1e-6)
    assert images_of(tmp_path / "grey.png", [*shapes, (4, 6)]).shape == (1, 4, 6)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda folder: folder / "missing.png", "there is no file or folder .*missing.png; expected an image"),
    (lambda folder: np.full((1, 2, 2), 2.0), "found values from 2 to 2 in the image; expected numbers from 0 to 1"),
    (lambda folder: np.array([["a"]]), "the image holds <U1; expected"),
    (lambda folder: np.zeros((1, 2, 2, 4)), r"the image has shape \(1, 2, 2, 4\); expected"),
    (lambda folder: written(folder / "few.csv", b"3\n4\n"), r"few.csv is text that begins with '3'; expected an .* or "
                                                            r"a folder of images\.$"),
    (lambda folder: written(folder / "few.npy", b"\x80\x04K\x01."), r"is a pickle.* file or a folder of images: save"),
    (lambda folder: written(folder / "few.bin", b"\x01\x02"), r"begins with the bytes 01 02; expected an .* images\.$"),
    (lambda folder: written(folder / "none.npy", b""), r"is empty; expected an .* file or a folder of images\.$"),
    (lambda folder: written(folder / "few.csv", b"a,b\n1,2\n3,4\n"), "few.csv is a table; expected an image, a folder"),
    (lambda folder: saved(folder / "x.npz", weights=IMAGES, bias=IMAGES), "has the arrays weights, bias; expected one"),
    (lambda folder: saved(folder / "y.npz", images=IMAGES - 3.5), "holds .* expected floats in"),
])
def test_what_is_no_image_gets_a_sentence(make, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        images_of(make(tmp_path))


def written(path, content):
    path.write_bytes(content)
    return path


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path
