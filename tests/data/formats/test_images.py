"""Image files as people have them: turned, transparent, animated, in colour, large; and no program runs."""

import gzip
import re
import struct
import subprocess
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

import tinyvae.data as data
from tinyvae.data.formats import images as reader
from tinyvae.data.formats.images import read_images

RNG = np.random.default_rng(0)
GREY = RNG.integers(1, 255, (6, 4, 7), np.uint8)


def folder(path, images, suffix="png", **options):
    """A folder with these images of Pillow or arrays, in their order."""
    path.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(path / f"{number:02}.{suffix}", **options)
    return path


def read(path):
    return read_images(path, sorted(path.iterdir()))


def refused(path, said):
    with pytest.raises(data.DataError, match=said) as caught:
        data.load(path)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["ico", "tga", "pcx", "jp2"])
def test_other_formats_are_not_opened(tmp_path, suffix):
    said = f"00.{suffix} is no readable image .none of PNG, JPEG, .*; expected only images"
    refused(folder(tmp_path / "a", GREY, suffix), said)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif", "webp", "pgm"])
def test_the_documented_formats_are_read(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read(folder(tmp_path / "a", GREY, suffix, **options)), GREY)


def test_a_jpeg_is_read(tmp_path):
    smooth = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8)[None] * 8
    assert np.abs(read(folder(tmp_path / "a", smooth, "jpg", quality=95)).astype(int) - smooth).max() <= 6


# ---- orientation ---------------------------------------------------------------------

# EXIF 2.3, tag 0x0112: where row 0 and column 0 of the stored image are in the picture, so how it is turned upright.
UPRIGHT = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a),
}  # fmt: skip


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_orientation_is_applied(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read(folder(tmp_path / "a", GREY, suffix, exif=exif))
    assert np.array_equal(found, np.stack([UPRIGHT[orientation](image) for image in GREY]))


def test_damaged_exif_data_do_not_matter(tmp_path):
    path = folder(tmp_path / "a", GREY, exif=b"Exif\0\0" + b"MM\0*" + b"\xff" * 20)
    assert np.array_equal(read(path), GREY)


# ---- transparency --------------------------------------------------------------------


def with_alpha(shade, mode, alpha):
    colour = np.full((*alpha.shape, 3), shade, np.uint8)
    return [Image.fromarray(np.dstack([c, a])).convert(mode) for c, a in zip(colour, alpha, strict=True)]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("shade", "ground"), [(0, "white"), (40, "white"), (255, "black"), (200, "black")])
def test_ink_in_alpha_stays_visible(tmp_path, mode, shade, ground):
    """Laid on white or black, a (1 - alpha) G + alpha c, rounded: the ink differs from the ground where it is."""
    alpha = RNG.integers(0, 256, (5, 6, 6)).astype(np.uint8)
    alpha[:, 0] = 0
    path = folder(tmp_path / "a", with_alpha(shade, mode, alpha))
    seen = "dark" if shade < 100 else "bright"
    with pytest.warns(UserWarning, match=f"has 5 transparent images, .* are {seen}: they are laid on {ground}"):
        found = read(path)
    white = 255 * (ground == "white")
    a = alpha / 255
    assert np.array_equal(found, np.floor(a * shade + (1 - a) * white + 0.5))
    assert found.min() < 128 < found.max()


def test_the_colour_of_what_is_not_visible_does_not_matter(tmp_path):
    pixels = np.repeat(GREY[..., None], 4, axis=-1)
    pixels[:, 1:3] = RNG.integers(0, 256, (6, 2, 7, 4))
    pixels[..., 3] = 255
    pixels[:, 1:3, :, 3] = 0
    with pytest.warns(UserWarning, match="6 transparent images"):
        found = read(folder(tmp_path / "a", pixels))
    assert found.shape == GREY.shape
    assert np.array_equal(found[:, [0, 3]], GREY[:, [0, 3]])


def test_all_images_are_laid_on_one_ground(tmp_path):
    """A bright image among dark ones, and an opaque one, which stays as it is."""
    alpha = np.full((4, 5, 5), 100, np.uint8)
    images = [*with_alpha(0, "RGBA", alpha[:3]), *with_alpha(250, "RGBA", alpha[3:]),
              *with_alpha(10, "RGBA", np.full((1, 5, 5), 255, np.uint8))]  # fmt: skip
    with pytest.warns(UserWarning, match="4 transparent images.* laid on white"):
        found = read(folder(tmp_path / "a", images))
    assert found[:, 0, 0].tolist() == [155, 155, 155, 253, 10]


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_a_colour_that_stands_for_nothing_is_transparent(tmp_path, mode):
    images = [Image.fromarray(np.where(image > 128, np.uint8(255), np.uint8(0))).convert(mode) for image in GREY]
    path = folder(tmp_path / "a", images, transparency=0)
    with pytest.warns(UserWarning, match="bright: they are laid on black"):
        assert np.array_equal(read(path), (GREY > 128) * np.uint8(255))


def test_images_of_which_nothing_is_visible(tmp_path):
    colours = [Image.fromarray(np.dstack([image] * 3 + [image * 0])) for image in GREY]
    said = refused(folder(tmp_path / "a", colours), "only images that are transparent everywhere .* nothing to see")
    assert said.endswith("save them without it: image.convert('RGB').")
    cured = [eval("image.convert('RGB')", {"image": image}) for image in colours]
    assert np.array_equal(read(folder(tmp_path / "b", cured)), GREY)


# ---- colour, depth, frames -----------------------------------------------------------


COLOURS = ("red", "lime", "blue", "white")
BYTES = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)


@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "png"), ("P", "png"), ("RGBA", "png"), ("P", "gif"),
                                              ("RGB", "bmp"), ("RGB", "tif"), ("RGB", "webp"), ("RGB", "ppm")])
def test_colours_are_read_as_they_are(tmp_path, mode, suffix):
    """The last image is grey, and becomes a colour."""
    images = [Image.new("RGB", (3, 2), colour).convert(mode) for colour in COLOURS]
    path = folder(tmp_path / "a", images, suffix, **({"lossless": True} if suffix == "webp" else {}))
    with pytest.warns(UserWarning, match="1 grey images among 3 in colour: they are taken as colours with equal red"):
        found = read(path)
    assert found.shape == (4, 2, 3, 3)
    assert (found == BYTES[:, None, None]).all()


def test_noise_in_colour_keeps_every_byte_and_its_place(tmp_path):
    colours = RNG.integers(0, 256, (5, 4, 7, 3), np.uint8)
    colours[0] = colours[0, ..., :1]  # a first image that is grey
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.warns(UserWarning, match="1 grey images among 4"):
        found = read(folder(tmp_path / "a", colours, exif=exif))
    assert np.array_equal(found, np.stack([np.rot90(image, -1) for image in colours]))
    with pytest.warns(UserWarning, match="1 grey images among 4"):
        loaded = data.load(tmp_path / "a")
    assert (loaded.name, loaded.pixels, loaded.shape, loaded.kind) == (f"{tmp_path / 'a'}-color", "color", (7, 4, 3),
                                                                       "grey")
    assert sorted(map(bytes, [*loaded.train, *loaded.test])) == sorted(map(bytes, found.reshape(5, -1)))


def test_a_photograph_in_colour_is_read(tmp_path):
    smooth = np.stack([np.add.outer(np.arange(16), np.arange(16)) * k for k in (8, 4, 1)], -1).astype(np.uint8)[None]
    found = read(folder(tmp_path / "a", smooth, "jpg", quality=95, subsampling=0))
    assert np.abs(found.astype(int) - smooth).max() <= 8


def test_inks_are_turned_into_colours_with_a_line(tmp_path):
    images = [Image.new("RGB", (3, 2), colour).convert("CMYK") for colour in COLOURS[:3]]
    with pytest.warns(UserWarning, match=r"has 3 images of inks \(CMYK\): .* without a colour profile"):
        found = read(folder(tmp_path / "a", images, "tif"))
    assert (found == BYTES[:3, None, None]).all()


def test_colours_of_sixteen_bits_keep_the_upper_ones_with_a_line(tmp_path):
    deep = RNG.integers(0, 65536, (3, 4, 5, 3)).astype(np.uint16)
    deep[:, 0, 0] = 0, 30000, 65535
    for number, image in enumerate(deep[:2]):
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
        (tmp_path / f"{number}.png").write_bytes(png(5, 4, 16, 2, rows))
    (tmp_path / "2.ppm").write_bytes(b"P6 5 4 65535\n" + deep[2].astype(">u2").tobytes())
    with pytest.warns(UserWarning, match="3 images of 16 bits a channel: the upper 8 are taken; to keep all, store"):
        found = read(tmp_path)
    assert np.abs(found - deep / 257).max() < 1


def test_transparent_colours_are_laid_on_the_ground(tmp_path):
    """a c + (1 - a) 255, rounded, in each channel: the visible pixels are dark."""
    pixels = RNG.integers(0, 120, (4, 5, 6, 4), np.uint8)
    with pytest.warns(UserWarning, match="4 transparent images, .* are dark: they are laid on white"):
        found = read(folder(tmp_path / "a", pixels))
    colours, a = pixels[..., :3], pixels[..., 3:] / 255
    assert np.array_equal(found, np.floor(a * colours + (1 - a) * 255 + 0.5))


def test_colours_become_grey_on_request(tmp_path):
    """The brightness that Pillow gives."""
    colours = RNG.integers(0, 256, (40, 4, 7, 3), np.uint8)
    path = folder(tmp_path / "a", colours)
    with pytest.warns(UserWarning, match="-gray takes their brightness, 0.299 red"):
        found = data.load(f"{path}-gray")
    assert (found.name, found.shape) == (f"{path}-gray", (4, 7))
    right = [np.asarray(Image.fromarray(image).convert("L")).tobytes() for image in colours]
    assert sorted(map(bytes, [*found.train, *found.test])) == sorted(right)


def test_equal_red_green_and_blue_are_grey(tmp_path):
    assert np.array_equal(read(folder(tmp_path / "a", np.repeat(GREY[..., None], 3, axis=-1))), GREY)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_become_numbers_from_0_to_1(tmp_path, suffix):
    deep = RNG.integers(0, 65536, (4, 5, 6)).astype(np.uint16)
    path = folder(tmp_path / "a", deep, suffix)
    found = read(path)
    assert (found.dtype, found.tolist()) == (np.uint16, deep.tolist())
    loaded = data.load(path)
    assert sorted(map(bytes, [*loaded.train, *loaded.test])) == sorted(
        map(bytes, (deep.reshape(4, 30) / 65535).astype(np.float32)))


def test_one_depth_is_expected(tmp_path):
    path = folder(tmp_path / "a", [*GREY, GREY[0].astype(np.uint16) * 200])
    refused(path, "06.png has 16 bits a channel, 00.png has 8; expected as many in all: move one kind elsewhere")


def test_images_of_floats_are_divided_by_their_white(tmp_path):
    floats = RNG.random((4, 5, 6), np.float32) * 1000
    said = refused(folder(tmp_path / "a", floats, "tif"), "pixel mode F; expected 8 or 16 bits a channel")
    images = [Image.open(file) for file in sorted((tmp_path / "a").iterdir())]
    line, words = re.search(r"one array, (.*), (where white is .*)\.$", said).groups()
    assert words == "where white is the value of a white pixel"
    cured = eval(line, {"np": np, "images": images, "white": 1000})
    np.savez(tmp_path / "b.npz", train=cured, test=cured)
    assert np.abs(data.load(tmp_path / "b.npz").train - floats.reshape(4, 30) / 1000).max() <= 1e-6


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_all_frames_of_a_file_are_images(tmp_path, suffix):
    frames = [Image.fromarray(image) for image in GREY]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(data.formats.read(tmp_path / f"a.{suffix}")["images"].read(), GREY)
    path = folder(tmp_path / "b", GREY[:2])
    (tmp_path / f"a.{suffix}").rename(path / f"z.{suffix}")
    assert np.array_equal(read(path), np.concatenate([GREY[:2], GREY]))


def test_a_single_image_is_put_into_a_folder_with_others(tmp_path):
    folder(tmp_path, GREY[:1])
    said = refused(tmp_path / "00.png", "is one image; expected an .h5, .mat, .npy")
    assert said.endswith("put at least two images of one size into a folder, and give that folder.")
    assert len(data.load(folder(tmp_path, GREY[:2])).train) == 1


def test_an_image_of_another_size_is_resized(tmp_path):
    path = folder(tmp_path / "a", [*GREY, GREY[0].T])
    refused(path, r"06.png has \(7, 4\) rows and columns, 00.png has \(4, 7\); .*: resize it, or move it elsewhere")
    cured = Image.open(path / "06.png").resize((7, 4))
    cured.save(path / "06.png")
    assert len(read(path)) == 7


# ---- what would harm -----------------------------------------------------------------


def png(width, height, bits=8, kind=0, rows=bytes(9)):
    """A PNG file whose header claims this size, by default with next to no pixels in it."""
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(13000, 13000), (4097, 4096), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_an_image_that_claims_too_many_pixels_is_not_decoded(tmp_path, monkeypatch, size, action):
    warnings.simplefilter(action, Image.DecompressionBombWarning)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(*size))
    refused(tmp_path, "expected at most 16,777,216 pixels: make it smaller, by image.resize")


def test_a_page_that_claims_too_many_pixels_is_not_decoded(tmp_path):
    pages = [Image.fromarray(GREY[0]), Image.new("L", (4097, 4096))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    refused(tmp_path / "a.tif", "a.tif has 4096 x 4097 pixels; expected at most 16,777,216 pixels")


def test_many_pixels_from_little_are_refused(tmp_path, monkeypatch):
    """Frames without content take no bytes: a file of 10 kB could fill the memory."""
    monkeypatch.setattr(reader, "LOTS", 10**6)
    blank = [Image.new("L", (400, 300), 100 + number) for number in range(40)]
    blank[0].save(tmp_path / "a.gif", save_all=True, append_images=blank[1:])
    size = (tmp_path / "a.gif").stat().st_size
    refused(tmp_path / "a.gif", f"a.gif claims 4,800,000 pixels in {size:,} bytes of files; if this is right, store")
    monkeypatch.setattr(reader, "LOTS", 10**7)
    found = data.formats.read(tmp_path / "a.gif")["images"].read()
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "train.npy", found[:30])  # the cure
    np.save(tmp_path / "b" / "test.npy", found[30:])
    assert data.load(tmp_path / "b").train.shape == (30, 120_000)


def test_the_cure_of_a_large_image(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LARGEST", 27)
    refused(folder(tmp_path / "a", GREY), r"00.png has 4 x 7 pixels; expected at most 27 pixels: .*image.resize")
    cured = [Image.fromarray(image).resize((6, 4)) for image in GREY]
    assert data.load(folder(tmp_path / "a", cured)).shape == (4, 6)


def test_no_program_is_started_for_a_document(tmp_path, monkeypatch):
    """Pillow starts Ghostscript for EPS, by whatever name the file goes."""
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **more: pytest.fail(f"{arguments} was started"))
    path = folder(tmp_path / "a", GREY)
    Image.fromarray(GREY[0]).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(path / "02.png")
    refused(path, "02.png is a PostScript document; expected only images there: move it elsewhere")
    with pytest.raises(data.DataError, match=r"02.png is no readable image"):  # nor if its mark were not known
        read_images(path, [path / "02.png"])
    (path / "02.png").rename(tmp_path / "elsewhere")
    assert len(data.load(path).train) == 4


def test_files_that_are_no_images_are_named(tmp_path):
    for content, said in ((b"\x89HDF\r\n\x1a\n", "is an .h5 file"), (gzip.compress(b"a"), "is an IDX.* file"),
                          (b"a,b", "is no readable image")):  # fmt: skip
        path = folder(tmp_path / "a", GREY)
        (path / "07.png").write_bytes(content)
        refused(path, f"07.png {said}.*; expected only images.*: move it elsewhere")


def test_what_systems_leave_in_folders_is_passed_over(tmp_path):
    path = folder(tmp_path / "a", GREY)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (path / name).write_bytes(b"anything")
    assert len(data.load(path).train) == 5
