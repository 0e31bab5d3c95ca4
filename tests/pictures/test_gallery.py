"""The gallery: every picture of every model, also of one latent dimension and of one test image."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import tinyvae as tv
from tinyvae.data import DataSet
from tinyvae.evidence.evaluation import evaluate
from tinyvae.pictures import figures, gallery, page

ALL = {"curves.png", "samples.png", "reconstructions.png", "traversal.png", "traversal.gif", "latents.png",
       "interpolation.png", "interpolation.gif", "manifold.png"}  # fmt: skip


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Pictures of few pixels, which take less time."""
    monkeypatch.setattr(page, "DPI", 70)


def data_set(tests=30, pixels="dynamic", labels=True):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 17, (n, 12)).astype(np.uint8) for n in (40, tests))
    of_train, of_test = (np.arange(n) % 4 if labels else None for n in (40, tests))
    return DataSet(f"made-{pixels}", train, test, (4, 3), 16.0, pixels, "bernoulli", of_train, of_test)


def trained(latent, data, likelihood="bernoulli"):
    model = tv.VAE(12, hidden=8, latent=latent, likelihood=likelihood)
    return model, tv.fit(model, data, epochs=2, batch=10, lr=0.01)


def assert_picture(file):
    """It opens, it is not blank, and an animation moves."""
    with Image.open(file) as image:
        frames = []
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            frames.append(np.asarray(image.convert("L"), np.float64))
        assert min(frame.var() for frame in frames) > 1, f"{file} is blank"
        if file.suffix == ".gif":
            assert len(frames) > 1
            assert any((frame != frames[0]).any() for frame in frames[1:]), f"{file} stands still"


def test_a_blank_picture_is_noticed(tmp_path):
    Image.new("L", (20, 20), 200).save(tmp_path / "grey.png")
    with pytest.raises(AssertionError, match="blank"):
        assert_picture(tmp_path / "grey.png")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9), np.uint8))
    noise.save(tmp_path / "still.gif", save_all=True, append_images=[noise.copy()])
    with pytest.raises(AssertionError):
        assert_picture(tmp_path / "still.gif")


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_every_picture_of_every_latent_size(latent, tmp_path):
    data = data_set()
    model, records = trained(latent, data)
    files = gallery.all_pictures(model, data, records, tmp_path / "new" / "figures")
    expected = ALL - ({"manifold.png"} if latent == 1 else set())
    assert {file.name for file in files} == expected == {file.name for file in (tmp_path / "new/figures").iterdir()}
    for file in files:
        assert_picture(file)


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_one_test_image_is_enough(latent, tmp_path):
    data = data_set(tests=1)
    model, records = trained(latent, data)
    files = gallery.all_pictures(model, data, records, tmp_path)
    assert {file.name for file in files} == ALL - {"interpolation.png", "interpolation.gif"} - (
        {"manifold.png"} if latent == 1 else set())
    for file in files:
        assert_picture(file)
    with pytest.raises(ValueError, match="made-dynamic has 1 test image; an interpolation needs two"):
        gallery.interpolate(model, data, tmp_path)


def test_a_manifold_needs_two_dimensions(tmp_path):
    data = data_set()
    with pytest.raises(ValueError, match="1 latent dimension; a manifold needs two: use traverse"):
        gallery.manifold(tv.VAE(12, 8, 1), data, tmp_path)


@pytest.mark.parametrize(("pixels", "likelihood"), [("gray", "gaussian"), ("gray", "continuous-bernoulli")])
def test_grey_images_without_labels(pixels, likelihood, tmp_path):
    data = data_set(tests=5, pixels=pixels, labels=False)
    model, records = trained(2, data, likelihood)
    for file in gallery.all_pictures(model, data, records, tmp_path):
        assert_picture(file)


def test_before_the_first_epoch_there_are_no_curves(tmp_path):
    data = data_set()
    assert gallery.curves([], tmp_path) == []
    files = gallery.all_pictures(tv.VAE(12, 8, 2), data, [], tmp_path)
    assert {file.name for file in files} == ALL - {"curves.png"}


def test_pictures_are_a_function_of_the_seed(tmp_path):
    data = data_set()
    model, _ = trained(3, data)
    contents = {}
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / run).mkdir()
        for draw in (gallery.sample, gallery.reconstruct, gallery.traverse, gallery.interpolate):
            for file in draw(model, data, tmp_path / run, seed):
                contents[run, file.name] = file.read_bytes()
    for name in {name for _, name in contents}:
        assert contents["a", name] == contents["b", name]
        assert contents["a", name] != contents["c", name], name


def test_the_most_used_latents_come_first():
    data = data_set()
    model, _ = trained(5, data)
    used = evaluate(model, data).kl_per_dimension
    assert [used[j] for j in gallery.by_activity(model, data)] == sorted(used, reverse=True)


def captured(monkeypatch, name):
    """What the gallery hands to the figure of that name."""
    calls, real = [], getattr(figures, name)

    def draw(*arguments, **options):
        calls.append((arguments, options))
        return real(*arguments, **options)

    monkeypatch.setattr(figures, name, draw)
    return calls


def test_a_traversal_varies_one_latent_a_row(monkeypatch, tmp_path):
    data = data_set()
    model, _ = trained(3, data)
    decoded, real = [], model.decode
    monkeypatch.setattr(model, "decode", lambda z: decoded.append(z) or real(z))
    gallery.traverse(model, data, tmp_path)
    z = decoded[0].reshape(3, len(gallery.SPAN), 3)
    for row, j in enumerate(gallery.by_activity(model, data)):
        assert (z[row, :, j] == gallery.SPAN.astype(z.dtype)).all()
        others = np.delete(z[row], j, axis=1)
        assert (others == others[0]).all()


def test_an_interpolation_ends_at_two_reconstructions(monkeypatch, tmp_path):
    data = data_set()
    model, _ = trained(3, data)
    calls = captured(monkeypatch, "interpolation")
    gallery.interpolate(model, data, tmp_path, seed=2)
    frames = calls[0][0][0]
    images, _ = gallery.chosen_images(model, data, 2 * len(frames), seed=2)
    ends = model.reconstruct(images).reshape(len(frames), 2, 12)
    assert np.abs(frames[:, 0] - ends[:, 0]).max() <= 1e-5
    assert np.abs(frames[:, -1] - ends[:, 1]).max() <= 1e-5


def test_reconstructions_are_of_the_images_shown(monkeypatch, tmp_path):
    data = data_set()
    bits = {part: np.where(getattr(data, part) > 8, 16, 0).astype(np.uint8) for part in ("train", "test")}
    data = dataclasses.replace(data, **bits)  # which are drawn as they are
    model, _ = trained(3, data)
    calls = captured(monkeypatch, "reconstructions")
    gallery.reconstruct(model, data, tmp_path, count=6)
    shown, made = calls[0][0][:2]
    assert set(np.unique(shown)) <= {0, 1}  # as the model sees them: drawn pixels
    assert (made == model.reconstruct(shown)).all()
    assert (calls[0][1]["grey"] == shown).all()
    gallery.reconstruct(model, dataclasses.replace(data, pixels="static"), tmp_path, count=6)
    assert calls[1][1]["grey"] is None


def test_chosen_images_keep_their_labels():
    data = data_set(pixels="gray", tests=9)
    images, labels = gallery.chosen_images(tv.VAE(12, 8, 2, likelihood="gaussian"), data, 5, seed=1)
    for image, label in zip(images, labels, strict=True):
        at = np.flatnonzero((data.test / np.float32(16) == image).all(1))
        assert data.test_labels[at[0]] == label


def test_classes_go_by_their_names(tmp_path, monkeypatch):
    """Also a datum whose class is not known."""
    data, seen = data_set(), []
    labels = np.arange(len(data.test)) % 3 - 1
    named = dataclasses.replace(data, test_labels=labels, class_names=("cat", "dog"))
    monkeypatch.setattr(gallery.charts, "latents", lambda means, labels, *_: seen.append(labels))
    gallery.latents(tv.VAE(12, 8, 2), named, tmp_path)
    counts = [int((labels == number).sum()) for number in (0, 1, -1)]
    assert [int((seen[0] == name).sum()) for name in ("cat", "dog", "")] == counts


def test_means_that_leave_0_to_1_are_drawn_as_black_and_white(tmp_path):
    """Those of counts and real numbers, as likelihoods of pixels, do."""
    model, data = tv.VAE(12, 8, 2, likelihood="normal"), data_set()
    model.decoder.layers[-1].bias.data[:12] = np.linspace(-1, 2, 12)
    with np.errstate(all="ignore"):
        assert model.generate(3).max() > 1
    assert gallery.sample(model, data, tmp_path, count=4)[0].exists()
    images = np.linspace(-1, 2, 4)
    assert gallery.shown(model, images).tolist() == [0, 0, 1, 1]
    assert gallery.shown(tv.VAE(12, 8, 2), images) is images  # a probability that leaves [0, 1] is a fault
