"""Damaged files of every format, at every public entrance: nothing but a DataError comes out, or a data set."""

import gzip
import io
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import tinyvae as tv
import tinyvae.data as data

GREY = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(save, **more):
    stream = io.BytesIO()
    save(stream, images=GREY, labels=np.array(["a", "b", "a"]), other=np.zeros(9), **more)
    return stream.getvalue()


def image(kind, frames=1, **options):
    stream = io.BytesIO()
    first, *more = (Image.fromarray(grey) for grey in GREY[:frames])
    first.save(stream, kind, **({"save_all": True, "append_images": more} if more else {}), **options)
    return stream.getvalue()


def zipped(name, content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


IDX = bytes([0, 0, 8, 3]) + struct.pack(">3I", *GREY.shape) + GREY.tobytes()
EXIF = Image.Exif()
EXIF[0x0112] = 3  # upside down
FILES = {
    "npy": npy(GREY), "npy of floats": npy(GREY / 255), "npz": npz(np.savez),
    "npz, compressed": npz(np.savez_compressed), "idx": IDX, "idx.gz": gzip.compress(IDX, mtime=0),
    "npy.gz": gzip.compress(npy(GREY), mtime=0), "zip": zipped("a.txt", b"words"),
    "csv": b"a,b,c,d\n1,2,3,4\n2,1,2.5,7\n0,,1,9\n", "gif": image("GIF", 3), "tiff": image("TIFF", 3),
    "png": image("PNG", exif=EXIF), "jpeg": image("JPEG", exif=EXIF), "bmp": image("BMP"), "webp": image("WEBP"),
    "pgm": image("PPM"), "tiff, packed": image("TIFF", compression="tiff_lzw", exif=EXIF), "apng": image("PNG", 3),
    "transparent": image("PNG", transparency=7),
}  # fmt: skip
OF_THE_MODEL = ("the model takes 20", "the likelihood bernoulli takes")  # of sound data of another kind
NUMBERS = [struct.pack(order + kind, value) for order in "<>" for kind, value in
           (("I", 0), ("I", 2**32 - 1), ("I", 2**31 - 1), ("H", 2**16 - 1), ("Q", 2**63), ("I", 10**9))]  # fmt: skip

place = st.integers(0, 2**16)  # taken modulo the length
written = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(NUMBERS))
changes = st.lists(st.one_of(
    st.tuples(st.just("write"), place, written), st.tuples(st.just("head"), st.integers(0, 40), written),
    st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("cut"), place, st.just(b"")), st.tuples(st.just("double"), place, st.just(b""))),
    min_size=1, max_size=3)  # fmt: skip


def changed(content, made):
    for kind, where, new in made:
        where %= len(content) + 1
        keep = where + (len(new) if kind in ("write", "head") else 0)
        content = content[:where] + ({"cut": b"", "double": content}.get(kind, new)) + (
            b"" if kind == "cut" else content[keep:])
    return content


def alone(path):
    return path


def among_images(path):
    """In a folder, with an image of the same size before it."""
    Image.fromarray(GREY[0]).save(path.parent / "a.png")
    return path.parent


def as_test_part(path):
    (path.parent / "train.npy").write_bytes(npy(GREY))
    path.rename(path.parent / "test.npy")
    return path.parent


ENTRANCES = {
    "load": data.load, "a treatment": lambda path: data.load(f"{path}-dynamic"), "outline": data.outline,
    "as_data_set": data.as_data_set, "evaluate": lambda path: tv.evaluate(tv.VAE(20, 4, 2), path),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(made=changes, where=st.sampled_from([alone, among_images, as_test_part]), entrance=st.sampled_from([*ENTRANCES]))
def test_damaged_files_give_only_our_errors(kind, made, where, entrance):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "file.npy"
        path.write_bytes(changed(FILES[kind], made))
        try:
            ENTRANCES[entrance](where(path))
            return
        except data.DataError as error:
            said = str(error)
        except ValueError as error:
            said = str(error)
            if entrance != "evaluate" or not any(words in said for words in OF_THE_MODEL):
                raise
        assert str(path.parent) in said


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore:.*(not used|transparent)")
def test_sound_files_are_read_or_named(kind, tmp_path):
    """So the damage above is done to files that are right."""
    path = tmp_path / "file"
    path.write_bytes(FILES[kind])
    if kind in ("zip", "npy.gz"):
        with pytest.raises(data.DataError, match=r"is a zip archive|is compressed by gzip"):
            data.load(path)
    elif kind == "csv":
        assert data.load(path).column_names == ("a", "b", "c", "d")
    elif data.formats.registry.recognised(FILES[kind]).is_data_set or kind in ("gif", "tiff", "apng"):
        assert len(data.load(path).train) == 2
    else:
        assert data.formats.read(among_images(path))["images"].shape[0] == 2
