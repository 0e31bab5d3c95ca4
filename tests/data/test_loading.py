"""The named data sets: known facts of the real files, treatments, splits, and where files are found.

The real files are looked for in $TINYVAE_DATA, else in ../shared/data beside the checkout. Tests that
need one that is not there are skipped, with a line that names it.
"""

import hashlib
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import tinyvae.data as data
from tinyvae.data import folders, readers
from tinyvae.data.checks import DataError
from tinyvae.data.dataset import DataSet, above_half, draw_static, held_out, treated
from tinyvae.data.loading import Outline, outline
from tinyvae.data.sources import SOURCES
from tinyvae.engine import noise

FALSE_ALARM = 1e-6  # chance that a right sampler fails a statistical test here

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = Path(os.environ.get("TINYVAE_DATA") or BESIDE)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No network, no data of this machine."""
    monkeypatch.setenv("TINYVAE_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TINYVAE_DATA", raising=False)


def load_real(name):
    base = name if name in SOURCES else name.rpartition("-")[0]
    source = SOURCES[base]
    for file in source.files:
        path = REAL / source.folder / file.name
        if not path.is_file():
            pytest.skip(f"no data: {path} is missing; set TINYVAE_DATA to a folder that has it")
    return data.load(name, REAL)


def sha(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


# ---- facts of the real files ---------------------------------------------------------

FACTS = {  # name: full name, train, test, shape, scale, likelihood, classes, mean grey of train and test
    "digits": ("digits-dynamic", 1497, 300, (8, 8), 16, "bernoulli", 10, None, None),
    "mnist": ("mnist-dynamic", 60000, 10000, (28, 28), 255, "bernoulli", 10, 0.1307, 0.1325),
    "fashion-mnist": ("fashion-mnist-dynamic", 60000, 10000, (28, 28), 255, "bernoulli", 10, 0.2860, 0.2868),
    "omniglot": ("omniglot-dynamic", 19280, 13180, (28, 28), 255, "bernoulli", 1623, 0.0779, 0.0843),
    "frey-faces": ("frey-faces-gray", 1500, 465, (28, 20), 255, "gaussian", 0, None, None),
    "olivetti": ("olivetti-gray", 320, 80, (64, 64), 255, "gaussian", 40, None, None),
    "mnist-binarized": ("mnist-binarized", 50000, 10000, (28, 28), 1, "bernoulli", 0, 0.1306, 0.1325),
}


def test_every_named_set_has_its_facts_checked():
    assert tuple(FACTS) == data.NAMES


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_a_named_set(name):
    full, train, test, shape, scale, likelihood, classes, train_mean, test_mean = FACTS[name]
    found = load_real(name)
    assert (found.name, found.shape, found.scale, found.likelihood) == (full, shape, scale, likelihood)
    assert (found.dimensions, found.classes) == (shape[0] * shape[1], classes)
    assert found.train.shape == (train, found.dimensions)
    assert found.test.shape == (test, found.dimensions)
    for part in (found.train, found.test):
        assert part.dtype == np.uint8  # bytes stay bytes: no float copy of a set
        assert part.flags.c_contiguous
        assert part.flags.writeable
        assert part.max() <= scale
    if train_mean is not None:
        assert found.train.mean() / scale == pytest.approx(train_mean, abs=5.1e-5)
        assert found.test.mean() / scale == pytest.approx(test_mean, abs=5.1e-5)
    for labels, part in ((found.train_labels, found.train), (found.test_labels, found.test)):
        assert labels is None or (labels.dtype == np.int64 and labels.shape == (len(part),))
    assert full in str(found)
    assert f"{train} train" in str(found)


def test_mnist_classes():
    found = load_real("mnist")
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(found.train_labels).tolist() == train
    assert np.bincount(found.test_labels).tolist() == test
    # labels belong to their images: the least inked class is 1, the most inked 0
    ink = [found.train[found.train_labels == digit].mean() for digit in range(10)]
    assert (np.argmin(ink), np.argmax(ink)) == (1, 0)


def test_fashion_mnist_classes():
    found = load_real("fashion-mnist")
    assert np.bincount(found.train_labels).tolist() == [6000] * 10
    assert np.bincount(found.test_labels).tolist() == [1000] * 10
    ink = [found.test[found.test_labels == kind].mean() for kind in range(10)]
    assert np.argmin(ink) == 5  # sandals


def test_omniglot_is_ink_on_zero_and_alphabets_do_not_mix():
    found = load_real("omniglot")
    border = found.train.reshape(-1, 28, 28)[:, [0, -1], :]
    assert border.mean() < found.train.mean() / 4  # strokes lie inside: 255 is ink
    assert found.train.max() == 255
    assert np.bincount(found.train_labels).tolist() == [20] * 964
    assert not np.isin(found.test_labels, found.train_labels).any()


def test_frey_faces_are_pictures_in_time_order():
    found = load_real("frey-faces")
    frames = np.concatenate([found.train, found.test]).astype(np.float64)
    assert frames.shape == (1965, 560)
    assert (frames.min(), frames.max()) == (8, 238)
    assert frames.mean() == pytest.approx(154.46, abs=0.005)
    # neighbours in time are near-copies, here too across the split; random pairs are not
    step = np.abs(np.diff(frames, axis=0)).mean(axis=1)
    other = np.abs(frames - frames[noise.permutation(0, "pairs", 0, len(frames))]).mean()
    assert np.median(step) < other / 2
    # so a test frame has its near-copy in the training set only at the boundary, not everywhere
    assert step[1499] < other
    pictures = frames.reshape(-1, *found.shape)
    wrong = frames.reshape(-1, *found.shape[::-1])
    assert np.abs(np.diff(pictures, axis=1)).mean() < np.abs(np.diff(wrong, axis=1)).mean() / 1.5


def test_olivetti_is_split_by_person_and_upright():
    found = load_real("olivetti")
    assert set(found.train_labels) | set(found.test_labels) == set(range(40))
    assert set(found.test_labels) == {5, 18, 21, 25, 34, 35, 36, 37}  # the same for everyone
    assert not set(found.train_labels) & set(found.test_labels)
    assert np.bincount(found.test_labels, minlength=40).max() == 10
    # labels belong to their faces: one is nearer to the mean of its person than to that of the next person
    for labels, images in ((found.train_labels, found.train), (found.test_labels, found.test)):
        means = np.stack([images[labels == person].mean(axis=0) for person in np.unique(labels)])
        own = np.unique(labels, return_inverse=True)[1]
        distance = [np.abs(images - means[(own + step) % len(means)]).mean(axis=1) for step in (0, 1)]
        assert (distance[0] < distance[1]).mean() > 0.95
    faces = found.train.reshape(-1, 64, 64).astype(float)
    mirrored, overturned = faces[:, :, ::-1], faces[:, ::-1, :]
    assert np.abs(faces - mirrored).mean() < np.abs(faces - overturned).mean()


def test_mnist_binarized_is_larochelles_bits():
    found = load_real("mnist-binarized")
    assert found.valid.shape == (10000, 784)
    assert found.valid.mean() == pytest.approx(0.13113, abs=5e-6)
    assert found.train.mean() == pytest.approx(0.13056, abs=5e-6)
    assert found.test.mean() == pytest.approx(0.13251, abs=5e-6)
    assert set(np.unique(found.train)) == {0, 1}
    assert (found.pixels, found.is_bits, found.train_labels) == ("static", True, None)
    again = load_real("mnist-binarized-static")
    assert again.name == "mnist-binarized"
    assert sha(again.test) == sha(found.test)


@pytest.mark.parametrize("pixels", ["gray", "dynamic", "threshold"])
def test_mnist_binarized_has_no_other_treatment(pixels):
    for function in (data.load, outline):
        with pytest.raises(data.DataError, match=rf"bits .* expected mnist-binarized, or mnist-{pixels}"):
            function(f"mnist-binarized-{pixels}")


@pytest.mark.parametrize("name", FACTS)
def test_the_outline_is_known_without_the_files(name):
    full, train, _, shape, _, likelihood, classes, *_ = FACTS[name]
    assert outline(name) == outline(full) == Outline(full, shape, train, likelihood, classes)


def test_the_outline_of_a_path_is_that_of_its_data(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(700.0).reshape(20, 5, 7) % 2)
    path = str(tmp_path / "a.npy")
    assert outline(path) == Outline(f"{path}-static", (5, 7), 18, "bernoulli", 0)
    assert outline(path + "-gray") == Outline(f"{path}-gray", (5, 7), 18, "continuous-bernoulli", 0)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    found = data.load("digits")
    train, test = held_out(1797, 300)
    assert np.array_equal(found.train, images[train])
    assert np.array_equal(found.test, images[test])
    assert np.array_equal(found.train_labels, labels[train])
    assert np.array_equal(found.test_labels, labels[test])


def test_digits_are_the_same_where_scikit_learn_keeps_them_elsewhere(monkeypatch, tmp_path):
    expected = data.load("digits")
    moved = type("Spec", (), {"origin": str(tmp_path / "sklearn" / "__init__.py")})
    monkeypatch.setattr(readers.importlib.util, "find_spec", lambda name: moved)
    found = data.load("digits")
    assert sha(found.train, found.test, found.test_labels) == sha(
        expected.train, expected.test, expected.test_labels
    )
    monkeypatch.setattr(readers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(data.DataError, match="pip install scikit-learn"):
        data.load("digits")


# ---- splits --------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(2, 1), (10, 1), (1797, 300)])
def test_held_out_is_a_split(count, size):
    train, test = held_out(count, size)
    assert len(test) == size
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(count))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()


def test_the_split_of_the_digits_never_changes():
    assert sha(data.load("digits").test) == "f99a47f142ca11ef0313551e2916304b943d368ab4977a5302dda3d25442df88"


# ---- treatments ----------------------------------------------------------------------


def test_static_is_the_same_for_everyone():
    found = data.load("digits-static")
    assert (found.pixels, found.likelihood, found.scale) == ("static", "bernoulli", 1.0)
    assert sha(found.train, found.test) == "fdb35b4b4543e3ce242fcd937fd87770e7ed96153dea1dae2e6c9ff085e3a0c7"


@pytest.mark.parametrize("width", [1, 63, 64])
def test_static_does_not_depend_on_the_chunk(width):
    images = noise.words(1, "grey", 0, 0, 40 * width).reshape(40, width).astype(np.uint8)
    whole = draw_static(images, 255.0, 0)
    for chunk in (1, width, 3 * width + 1, 7 * width):
        assert np.array_equal(draw_static(images, 255.0, 0, chunk), whole)
    assert np.array_equal(draw_static(images[:17], 255.0, 0), whole[:17])  # nor on the images that follow


def test_static_draws_have_the_stated_address():
    images = noise.words(1, "grey", 0, 0, 30 * 50).reshape(30, 50).astype(np.uint8)
    bits = draw_static(images, 255.0, 1)
    for image, pixel in ((0, 0), (3, 7), (29, 49)):
        u = noise.uniform(0, "binarise-static", 0, 1, (1,), first=image * 50 + pixel)[0]
        assert bits[image, pixel] == (u < images[image, pixel] / np.float32(255))


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_black_is_never_drawn_and_white_always(monkeypatch, u):
    monkeypatch.setattr(noise, "uniform", lambda *address, first: np.full(address[4], u, np.float32))
    assert draw_static(np.array([[0, 255]], np.uint8), 255.0, 0).tolist() == [[0, 1]]


def test_train_test_and_valid_are_drawn_apart():
    grey = np.full((50, 64), 8, np.uint8)
    found = treated(DataSet("grey", grey, grey, (8, 8), 16.0, valid=grey), "static")
    for one, other in ((found.train, found.test), (found.train, found.valid), (found.test, found.valid)):
        assert 0.4 < (one != other).mean() < 0.6


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_static_frequency_is_the_grey_value(name):
    """For each grey level, ones are binomial: z = (ones - n p) / sqrt(n p (1 - p)), one bound over all."""
    grey = load_real(name)
    bits = draw_static(grey.test, grey.scale, 1)
    count = np.bincount(grey.test.ravel(), minlength=int(grey.scale) + 1)
    ones = np.bincount(grey.test.ravel(), weights=bits.ravel(), minlength=int(grey.scale) + 1)
    assert ones[0] == 0  # black is never 1
    assert ones[-1] == count[-1]  # white always
    p = np.arange(1, grey.scale) / grey.scale
    z = (ones[1:-1] - count[1:-1] * p) / np.sqrt(count[1:-1] * p * (1 - p))
    bound = stats.norm.isf(FALSE_ALARM / 2 / len(z))
    assert np.abs(z).max() <= bound, f"z = {z[np.abs(z).argmax()]:.2f}, bound {bound:.2f}"


def test_static_makes_no_float_copy():
    images = np.full((5000, 784), 100, np.uint8)
    tracemalloc.start()
    draw_static(images, 255.0, 0, chunk=2**14)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * images.nbytes


def test_threshold_is_above_one_half():
    assert above_half(np.array([[0, 127, 128, 255]], np.uint8), 255.0).tolist() == [[0, 0, 1, 1]]
    assert above_half(np.array([[0, 8, 9, 16]], np.uint8), 16.0).tolist() == [[0, 0, 1, 1]]
    assert above_half(np.array([[0.0, 0.5, 0.50001, 1.0]], np.float32), 1.0).tolist() == [[0, 0, 1, 1]]
    grey, bits = data.load("digits-gray"), data.load("digits-threshold")
    assert np.array_equal(bits.train, grey.train > 8)
    assert np.array_equal(bits.test, grey.test > 8)
    assert bits.train.dtype == np.uint8
    assert (bits.scale, bits.pixels, bits.likelihood) == (1.0, "threshold", "bernoulli")


def test_dynamic_and_gray_keep_the_grey_values():
    dynamic, gray = data.load("digits-dynamic"), data.load("digits-gray")
    assert sha(dynamic.train, dynamic.test) == sha(gray.train, gray.test)
    assert (dynamic.scale, dynamic.pixels, dynamic.likelihood) == (16.0, "dynamic", "bernoulli")
    assert (gray.scale, gray.pixels, gray.likelihood) == (16.0, "gray", "continuous-bernoulli")


@pytest.mark.parametrize("pixels", data.PIXELS)
def test_a_name_with_a_suffix_is_a_full_name(pixels):
    found = data.load(f"digits-{pixels}")
    assert found.name == f"digits-{pixels}"
    assert found.pixels == pixels
    assert data.load().name == "digits-dynamic"


# ---- names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("minst", "unknown data set 'minst'.*Did you mean mnist?"),
        ("mnist_static", "Did you mean mnist-static?"),
        ("MNIST", "Did you mean mnist?"),
        ("frey", "Did you mean frey-faces?"),
        ("qqqqqq", "unknown data set 'qqqqqq'; expected digits, mnist,"),
        ("", "unknown data set ''"),
        ("mnist-grey", "unknown suffix -grey of mnist; expected -dynamic, -static, .*mnist-gray"),
        ("mnist-binarised", "unknown suffix -binarised of mnist.*Did you mean mnist-binarized?"),
        ("digits-static-gray", "unknown data set"),
        ("x" * 5000, "unknown data set 'xxx"),
        ("~nobody-of-this-name/a.npy", "there is no file or folder ~nobody-of-this-name/a.npy"),
        ("a\0b-gray", "unknown"),
    ],
)
def test_unknown_names(name, said):
    with pytest.raises(data.DataError, match=said):
        data.load(name)


@pytest.mark.parametrize("name", ["minst", "mnist_static", "MNIST", "frey", "mnist-grey", "mnist-binarised"])
def test_the_name_that_is_meant_exists(name):
    with pytest.raises(data.DataError) as caught:
        data.load(name)
    meant = str(caught.value).rpartition("Did you mean ")[2].removesuffix("?")
    assert outline(meant).name.startswith(meant)


def test_a_folder_does_not_hide_a_named_set(monkeypatch, tmp_path):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data.load("digits").name == "digits-dynamic"


# ---- where files are found -----------------------------------------------------------


def plant(folder, name, size=None):
    """The files of a set with the right sizes and nothing in them (sparse)."""
    source = SOURCES[name]
    for file in source.files:
        path = folder / source.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.truncate(file.size if size is None else size)
    return str(folder / source.folder)


def test_the_order_of_the_search(monkeypatch, tmp_path):
    given, named, cached = (tmp_path / folder for folder in ("given", "named", "cache/tinyvae"))
    monkeypatch.setenv("TINYVAE_DATA", str(named))
    expected = [str(folder / "mnist") for folder in (given, named, cached)]
    assert data.find("mnist", given)["searched"] == expected
    for folder in (cached, named, given):
        expected = plant(folder, "mnist")
        assert data.find("mnist", given)["folder"] == expected
    next((given / "mnist").iterdir()).unlink()  # a folder that lacks one file is passed over
    assert data.find("mnist", given)["folder"] == str(named / "mnist")


def test_the_cache_without_a_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert folders.cache_folder().is_absolute()


@pytest.mark.parametrize("name", [name for name in data.NAMES if SOURCES[name].files])
def test_find_says_what_is_missing(name, tmp_path):
    missing = data.find(name, tmp_path)
    assert (missing["found"], missing["folder"]) == (False, None)
    assert missing["fetched"] == (name in ("mnist", "fashion-mnist"))
    for file in SOURCES[name].files:
        assert f"{file.name} ({file.size} bytes, SHA-256 {file.sha256})" in missing["advice"]
    assert str(tmp_path / SOURCES[name].folder) in missing["advice"]
    assert "http" in missing["advice"]
    folder = plant(tmp_path, name)
    assert data.find(name, tmp_path) == {**missing, "found": True, "folder": folder, "advice": ""}


def test_find_of_the_digits_and_of_an_unknown_set():
    assert data.find("digits")["found"] is True
    with pytest.raises(data.DataError, match="unknown data set 'minst'"):
        data.find("minst")


@pytest.mark.parametrize("size", [0, 1000, 2000000])
def test_a_file_of_another_size_is_refused(tmp_path, size):
    plant(tmp_path, "frey-faces", size)
    with pytest.raises(data.DataError, match=rf"mat has {size} bytes; expected 1100584: .* Put the original"):
        data.load("frey-faces", tmp_path)
    found = data.find("frey-faces", tmp_path)
    assert found["found"] is False
    assert f"has {size} bytes" in found["advice"]
    plant(tmp_path, "frey-faces")  # the original in its place
    assert data.find("frey-faces", tmp_path)["found"] is True


def test_a_set_without_mirrors_says_where_to_get_it(tmp_path):
    with pytest.raises(data.DataError) as caught:
        data.load("frey-faces", tmp_path)
    said = str(caught.value)
    assert str(tmp_path / "freyfaces") in said
    assert str(tmp_path / "cache" / "tinyvae" / "freyfaces") in said
    assert SOURCES["frey-faces"].files[0].sha256 in said
    assert "https://cs.nyu.edu/~roweis/data/frey_rawface.mat" in said


def test_a_data_folder_that_is_not_there(tmp_path):
    with pytest.raises(data.DataError, match=r"there is no folder .*nowhere; expected one with mnist in it"):
        data.load("mnist", tmp_path / "nowhere")


def test_verify_compares_hashes(tmp_path):
    plant(tmp_path, "frey-faces")
    with pytest.raises(data.DataError, match=r"has SHA-256 .* expected 265a83a2"):
        data.load("frey-faces", tmp_path)  # SciPy's reader can crash on a damaged file, so it never sees one
    with pytest.raises(data.DataError, match=r"has SHA-256 .* expected 265a83a2"):
        data.verify("frey-faces", tmp_path)
    with pytest.raises(data.DataError, match="olivetti was not found"):
        data.verify("olivetti", tmp_path)
    assert data.verify("digits") == {}


@pytest.mark.parametrize("name", [name for name in data.NAMES if SOURCES[name].files])
def test_the_real_files_have_the_known_sizes_and_hashes(name):
    load_real(name)
    assert list(data.verify(name, REAL).values()) == [file.sha256 for file in SOURCES[name].files]
    for file in SOURCES[name].files:
        assert (REAL / SOURCES[name].folder / file.name).stat().st_size == file.size


@pytest.mark.parametrize("name", ["omniglot", "olivetti", "mnist-binarized"])
def test_a_repacked_file_of_other_arrays_is_refused(name, tmp_path):
    """Their size is not checked, for another packing of the same pixels is as good: their arrays are."""
    source = SOURCES[name]
    path = tmp_path / source.folder / source.files[0].name
    path.parent.mkdir()
    np.savez(path, something=np.zeros(3))
    with pytest.raises(data.DataError, match="has no array"):
        data.load(name, tmp_path)
    keys = ("images", "target", "train", "valid", "test")
    omniglot = [f"{part}_{kind}" for part in ("train", "test") for kind in ("images", "character")]
    np.savez(path, **{key: np.zeros((10, 98), np.uint8) for key in (*keys, *omniglot)})
    with pytest.raises(data.DataError, match=r"has uint8 of shape \(10, 98\); expected uint8 of shape"):
        data.load(name, tmp_path)


def test_nothing_heavy_is_imported_for_the_digits():
    code = "import sys, tinyvae.data as d; d.load('digits-static'); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tinyvae.data.loading" in run.stdout.split()
    assert not {"sklearn", "scipy", "pooch", "PIL", "numba", "requests"} & set(run.stdout.split())


# ---- one's own -----------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"scale": 0}, "found scale=0 of mine; expected a finite number above 0"),
    ({"scale": "gray"}, "found scale='gray'"),
    ({"train": [[1.0]]}, "found the train data of mine of type list"),
    ({"train": np.zeros((0, 6))}, r"of shape \(0, 6\)"),
    ({"test": np.zeros((2, 5))}, "found 5 pixels a datum in the test data of mine, and images of 2 x 3"),
    ({"shape": (3, 3)}, "found 6 pixels a datum in the train data of mine, and images of 3 x 3"),
    ({"train": np.eye(2, 6) * 255}, r"found values from 0 to 255 .* expected numbers from 0 to 1. .*images / 255\)"),
    ({"train": np.eye(2, 6) * 17, "scale": 16}, "values from 0 to 17 .* expected numbers from 0 to the scale, 16"),
    ({"valid": np.full((2, 6), np.nan)}, "found NaN in 2 of 2 images in the valid data"),
    ({"pixels": "grey"}, "found pixels='grey' of mine; expected one of dynamic, static, threshold, gray"),
    ({"pixels": "static", "train": np.full((4, 6), 0.5)}, "found grey values in the train data .* pixels are static"),
    ({"train_labels": np.arange(3)}, r"found train labels of mine of shape \(3,\) and type int64; expected a whole"),
    ({"valid": np.eye(2, 6), "valid_labels": np.zeros(2)}, r"valid labels of mine of shape \(2,\) and type float64"),
])
def test_a_data_set_of_ones_own_is_checked(changes, sentence):
    right = {"name": "mine", "train": np.zeros((4, 6)), "test": np.ones((2, 6)), "shape": (2, 3), "scale": 1.0}
    DataSet(**right)
    with pytest.raises(DataError, match=sentence):
        DataSet(**right | changes)


@pytest.mark.parametrize("pixels", ["dynamic", "gray"])
def test_grey_values_that_were_called_static_are_taken_as_advised(pixels):
    grey = np.full((4, 6), 0.5)
    with pytest.raises(DataError, match="take pixels='dynamic' or 'gray'"):
        DataSet("mine", grey, grey, (2, 3), 1.0, "static")
    assert DataSet("mine", grey, grey, (2, 3), 1.0, pixels).kind == {"dynamic": "binary", "gray": "grey"}[pixels]


# ---- its fingerprint -----------------------------------------------------------------


def test_the_fingerprint_is_the_sha256_of_the_content():
    """Against the digest of the same bytes put together by hand."""
    train, labels = np.arange(12, dtype=np.uint8).reshape(2, 6), np.array([1, 0])
    mine = DataSet("mine", train, train[:1], (2, 3), 16.0, train_labels=labels)
    types = '{"train": ["|u1", [2, 6]], "train_labels": ["<i8", [2]], "test": ["|u1", [1, 6]]}'
    head = f'["gray", 16.0, [2, 3], null, {types}]'
    content = head.encode() + train.tobytes() + labels.astype("<i8").tobytes() + train[:1].tobytes()
    assert mine.fingerprint == hashlib.sha256(content).hexdigest()


def test_every_part_of_the_content_changes_the_fingerprint():
    part, labels = np.zeros((4, 6), np.uint8), np.arange(4)
    one = DataSet("a", part, part, (2, 3), 1.0, train_labels=labels, test_labels=labels, valid=part,
                  valid_labels=labels)
    other, turned = np.eye(4, 6, dtype=np.uint8), labels[::-1].copy()
    changes = [{"train": other}, {"test": other}, {"valid": other}, {"train_labels": turned}, {"test_labels": turned},
               {"valid_labels": turned}, {"valid_labels": None}, {"shape": (3, 2)}, {"scale": 2.0}, {"train": part[:3],
               "train_labels": labels[:3]}, {"pixels": "static"}, {"train": part.astype(np.float32)},
               {"valid": None, "valid_labels": None}]  # fmt: skip
    found = [one.fingerprint, *(replace(one, **change).fingerprint for change in changes)]
    assert len(set(found)) == len(found)
    assert replace(one, name="b", train=part.copy()).fingerprint == one.fingerprint
    part[3, 5] = 1  # a change in place counts, too
    assert one.fingerprint not in found
