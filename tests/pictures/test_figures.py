"""Figures: the pixels are in their places, bad input gets a sentence, the same input gives the same bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinyvae.pictures import charts, figures
from tinyvae.pictures import page as sheet
from tinyvae.pictures.page import GAP
from tinyvae.runs.files import CheckpointError

SHAPE = (4, 3)  # not square, so that a swapped axis shows


def pictures(*axes: int) -> np.ndarray:
    """Images (*axes, 12) with values on the grid of 8-bit greys."""
    return np.random.default_rng(0).integers(0, 256, size=(*axes, 12)) / 255


def page(path: Path) -> np.ndarray:
    """A PNG as (rows, columns) of 8-bit grey."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def tile(image: np.ndarray, scale: int) -> np.ndarray:
    return np.rint(255 * image.reshape(SHAPE)).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)


def places(content: np.ndarray, wanted: np.ndarray) -> list[tuple[int, int]]:
    """Where in a page a block of pixels occurs exactly."""
    high, wide = wanted.shape
    rows, columns = np.nonzero(content[: -high + 1, : -wide + 1] == wanted[0, 0])
    return [
        (int(r), int(c))
        for r, c in zip(rows, columns, strict=True)
        if np.array_equal(content[r : r + high, c : c + wide], wanted)
    ]


DRAWINGS: dict[str, Callable[[Path], Path]] = {
    "samples": lambda path: figures.samples(pictures(6), SHAPE, path),
    "reconstructions": lambda path: figures.reconstructions(pictures(5), pictures(5), SHAPE, path, columns=3),
    "traversal": lambda path: figures.traversal(pictures(2, 3), SHAPE, path, values=[-1, 0, 1]),
    "interpolation": lambda path: figures.interpolation(pictures(2, 4), SHAPE, path),
    "animation": lambda path: figures.animation(pictures(4, 5), SHAPE, path, seconds=1),
    "manifold": lambda path: figures.manifold(pictures(9), SHAPE, path, side=3),
    "latents": lambda path: charts.latents(
        np.random.default_rng(1).normal(size=(60, 4)), np.arange(60) % 10, path, np.array([0.1, 2, 0, 1.5])
    ),
    "curves": lambda path: charts.curves(
        [{"epoch": e, "train_elbo": -9 / e, "test_elbo": -10 / e, "test_kl": e, "test_reconstruction": -e}
         for e in range(1, 5)], path,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_file_that_is_not_blank_and_always_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.gif" if name == "animation" else "x.png")
    assert DRAWINGS[name](path) == path
    content = path.read_bytes()
    DRAWINGS[name](path)
    assert path.read_bytes() == content
    assert page(path).std() > 10
    for secret in (b"Software", b"matplotlib", b"tEXt", b"tIME"):  # nothing that depends on when and by what
        assert secret not in content


def test_every_image_of_a_grid_is_drawn_pixel_by_pixel(tmp_path: Path) -> None:
    images = pictures(7)
    content = page(figures.samples(images, SHAPE, tmp_path / "x.png", columns=4))
    scale = round(sheet.TILE / 4)
    found = [places(content, tile(image, scale)) for image in images]
    assert all(len(at) == 1 for at in found)
    rows, columns = np.array(found)[:, 0].T
    assert (np.diff(columns[:4]) == 3 * scale + sheet.GAP).all()
    assert (rows[4:] - rows[:3] == 4 * scale + sheet.GAP).all()
    assert (columns[4:] == columns[:3]).all()


def test_pairs_stand_one_above_the_other(tmp_path: Path) -> None:
    data, again = pictures(5), 1 - pictures(5)
    content = page(figures.reconstructions(data, again, SHAPE, tmp_path / "x.png", columns=3))
    scale = round(sheet.TILE / 4)
    for original, reconstruction in zip(data, again, strict=True):
        [(top, left)] = places(content, tile(original, scale))
        assert places(content, tile(reconstruction, scale)) == [(top + 4 * scale + sheet.GAP, left)]


def test_bits_stand_between_the_grey_pixels_and_the_reconstruction(tmp_path: Path) -> None:
    grey, again = pictures(3), 1 - pictures(3)
    bits = (grey > 0.5).astype(float)
    content = page(figures.reconstructions(bits, again, SHAPE, tmp_path / "x.png", columns=2, grey=grey))
    scale = round(sheet.TILE / 4)
    high, wide = 4 * scale, 3 * scale
    for number in range(3):
        [(top, left)] = places(content, tile(grey[number], scale))
        for below, kind in ((1, bits), (2, again)):
            begin = top + below * (high + sheet.GAP)
            assert (content[begin : begin + high, left : left + wide] == tile(kind[number], scale)).all()


def test_the_manifold_agrees_with_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 4
    z = figures.normal_grid(side)
    assert z.shape == (16, 2)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(z[0], [-1.150349, 1.150349], rtol=1e-6)  # top left: the 1/8 and 7/8 quantiles
    assert z[1, 0] > z[0, 0]
    assert z[side, 1] < z[0, 1]
    images = pictures(16)
    for small in (False, True):  # large images touch each other
        monkeypatch.setattr(figures, "SMALL", 4 if small else 3)
        content = page(figures.manifold(images, SHAPE, tmp_path / "x.png", side))
        scale, gap = round(sheet.TILE * 2 // 3 / 4), sheet.GAP if small else 0
        tiles = [np.pad(tile(i, scale), ((0, gap), (0, gap)), constant_values=255) for i in images]
        whole = np.vstack([np.hstack(tiles[r : r + side]) for r in range(0, 16, side)])
        assert len(places(content, whole[: len(whole) - gap, : whole.shape[1] - gap])) == 1  # rows downwards


def test_an_animation_runs_forth_and_back_for_ever(tmp_path: Path) -> None:
    frames = np.stack([np.full((2, 12), level) for level in (0.0, 0.25, 0.5, 1.0)])
    with Image.open(figures.animation(frames, SHAPE, tmp_path / "x.gif", seconds=1.2)) as gif:
        assert gif.n_frames == 6  # type: ignore[attr-defined]
        assert gif.info["loop"] == 0
        middle = []
        for number in range(6):
            gif.seek(number)
            assert gif.info["duration"] == 200
            grey = np.asarray(gif.convert("L"))
            middle.append(int(grey[grey.shape[0] // 2, 20]))
    np.testing.assert_allclose(middle, np.array([0, 0.25, 0.5, 1, 0.5, 0.25]) * 255, atol=2.5)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_animations(steps: int, tmp_path: Path) -> None:
    with Image.open(figures.animation(pictures(steps, 2), SHAPE, tmp_path / "x.gif", seconds=1)) as gif:
        assert getattr(gif, "n_frames", 1) == steps


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
@pytest.mark.parametrize("name", ["samples", "reconstructions", "traversal", "animation", "manifold"])
def test_pixels_out_of_range(name: str, value: float, tmp_path: Path) -> None:
    path = tmp_path / "x"
    bad = pictures(2, 2)
    bad[1, 0, 5] = value
    draw: dict[str, Callable[[], Any]] = {
        "samples": lambda: figures.samples(bad[1], SHAPE, path),
        "reconstructions": lambda: figures.reconstructions(pictures(2), bad[1], SHAPE, path),
        "traversal": lambda: figures.traversal(bad, SHAPE, path),
        "animation": lambda: figures.animation(bad, SHAPE, path),
        "manifold": lambda: figures.manifold(bad.reshape(4, 12), SHAPE, path, side=2),
    }
    with pytest.raises(ValueError, match="expected 0 to 1: give means, not logits") as caught:
        draw[name]()
    assert ("1 of them NaN" if np.isnan(value) else f"{value:.4g}") in str(caught.value)
    assert not path.exists()


def test_all_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="12 of them NaN"):
        figures.samples(np.full((1, 12), np.nan), SHAPE, tmp_path / "x")


@pytest.mark.parametrize(
    "call",
    [
        lambda path: figures.samples(np.zeros((3, 11)), SHAPE, path),
        lambda path: figures.samples(np.zeros((0, 12)), SHAPE, path),
        lambda path: figures.samples(np.zeros(12), SHAPE, path),
        lambda path: figures.reconstructions(pictures(2), pictures(3), SHAPE, path),
        lambda path: figures.traversal(pictures(2), SHAPE, path),
        lambda path: figures.traversal(pictures(2, 3), SHAPE, path, values=[1, 2]),
        lambda path: figures.traversal(pictures(2, 3), SHAPE, path, dimensions=[1, 2, 3]),
        lambda path: figures.manifold(pictures(8), SHAPE, path, side=3),
        lambda path: charts.latents(np.zeros((3, 0)), None, path),
        lambda path: charts.latents(np.full((3, 2), np.nan), None, path),
        lambda path: charts.latents(np.zeros((3, 2)), np.zeros(4), path),
        lambda path: charts.latents(np.zeros((3, 2)), None, path, np.zeros(3)),
        lambda path: charts.curves([], path),
        lambda path: charts.curves([{"epoch": 1, "test_elbo": None}], path),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected|give|fill|no finite"):
        call(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_latents_of_every_kind(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    means = rng.normal(size=(50, 3))
    charts.latents(means, None, tmp_path / "plain.png")
    charts.latents(means, np.array(["cat", "dog"] * 25), tmp_path / "named.png")
    charts.latents(means, np.arange(50), tmp_path / "many.png")
    charts.latents(means[:, :1], np.arange(50) % 3, tmp_path / "one.png", np.array([1.0]))
    charts.latents(rng.normal(size=(50, 64)), None, tmp_path / "wide.png", rng.random(64))
    assert all(page(file).std() > 10 for file in tmp_path.iterdir())


def test_each_label_has_a_colour_and_a_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The point of a datum has the shape that the legend shows beside its label."""
    seen: list[Any] = []
    monkeypatch.setattr(charts, "save_png", lambda figure, path: seen.append(figure))
    labels = np.array([2, 0, 1, 2, 7])
    charts.latents(np.random.default_rng(1).normal(size=(5, 2)), labels, tmp_path / "x.png")
    axes = seen[0].axes[0]
    legend = axes.get_legend()
    assert legend.get_title().get_text() == "label"
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["0", "1", "2", "7"]
    handles = [handle.get_paths()[0] for handle in legend.legend_handles]
    assert len({path.vertices.tobytes() for path in handles}) == 4
    for path, label in zip(axes.collections[0].get_paths(), labels, strict=True):
        assert path.vertices.tobytes() == handles[names.index(str(label))].vertices.tobytes()


def test_curves_with_gaps(tmp_path: Path) -> None:
    charts.curves([{"epoch": 1, "train_elbo": -3.0}], tmp_path / "one.png")
    charts.curves([{"epoch": 1, "test_kl": 2.0}, {"epoch": 2}, {"test_kl": None}], tmp_path / "kl.png")
    records: list[dict[str, Any]] = [{}, {"epoch": 1, "test_elbo": -3.0, "train_elbo": float("inf")}]
    charts.curves(records, tmp_path / "elbo.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_curves_show_the_bound_that_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of iwae, which the epoch lines show, and not the ELBO of one draw beside it."""
    seen: list[Any] = []
    monkeypatch.setattr(charts, "save_png", lambda figure, path: seen.append(figure))
    records = [{"epoch": e, "train_elbo": -50.0 * e, "test_elbo": -60.0 * e, "train_bound": -4.0 / e,
                "test_bound": -5.0 / e, "importance_samples": 20, "best": e == 2} for e in (1, 2)]
    charts.curves(records, tmp_path / "curves.png")
    axes = seen[0].axes[0]
    assert axes.get_title("left") == "L_20, the bound of iwae, nats per datum (higher is better)"
    assert [line.get_ydata().tolist() for line in axes.lines] == [[-4.0, -2.0], [-5.0, -2.5]]
    assert "kept: epoch 2, test −2.50" in [text.get_text() for text in axes.get_legend().get_texts()]
    charts.curves([r | {"importance_samples": k} for k, r in enumerate(records)], tmp_path / "curves.png")
    assert seen[1].axes[0].get_title("left").startswith("L_K, the bound of iwae")  # a change between the epochs


@pytest.mark.parametrize("test_elbo", [(-30.0, -20.0), (-20.0, -30.0), (-45.0, -44.0)])
def test_the_legend_of_a_short_run_lies_on_no_line(test_elbo: tuple[float, float], tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(charts, "save_png", lambda figure, path: seen.append(figure))
    charts.curves([{"epoch": number + 1, "train_elbo": -40.0 + 10 * number, "test_elbo": value, "best": True}
                   for number, value in enumerate(test_elbo)], tmp_path / "curves.png")
    figure, axes = seen[0], seen[0].axes[0]
    figure.draw_without_rendering()
    legend = axes.get_legend().get_window_extent()
    for line in axes.lines:
        ends = axes.transData.transform(line.get_xydata())
        between = ends[0] + np.linspace(0, 1, 200)[:, None] * (ends[1] - ends[0])
        assert not any(legend.contains(x, y) for x, y in between)


def test_a_title_asks_for_no_more_room_than_it_has(tmp_path: Path) -> None:
    """A page is as wide as the images and the names beside them, or as a title that is wider."""
    title = "a title of sixty letters, which stands above the six images."
    with Image.open(figures.samples(pictures(12), SHAPE, tmp_path / "x.png", columns=12, title=title)) as image:
        assert image.width == 12 * (SHAPE[1] * figures._scale(SHAPE, 12) + GAP) - GAP + 2 * 40
    with Image.open(figures.samples(pictures(1), SHAPE, tmp_path / "y.png", title=title)) as image:
        ink = np.flatnonzero((np.asarray(image.convert("L")) < 128).any(0))
        assert 30 <= image.width - ink.max() <= 50


def test_an_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="make the folder"):
        figures.samples(pictures(2), SHAPE, tmp_path / "no" / "x.png")


def test_the_import_is_light_and_no_global_state_is_touched() -> None:
    program = (
        "import sys, pathlib, tempfile; from tinyvae.pictures import figures; import numpy as np\n"
        "heavy = {'matplotlib', 'PIL', 'scipy'} & set(sys.modules); assert not heavy, heavy\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    figures.samples(np.zeros((2, 4)), (2, 2), pathlib.Path(folder) / 'x.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_curves_mark_the_epoch_that_was_kept(tmp_path):
    """Not the best test value: that would show a choice by the test data, and an epoch that nobody saved."""
    records = [{"epoch": 1, "test_elbo": -5.0, "best": True}, {"epoch": 2, "test_elbo": -3.0, "best": False},
               {"epoch": 3, "test_elbo": -4.0, "best": True}]
    plain = [{key: value for key, value in record.items() if key != "best"} for record in records]
    other = [record | {"best": record["epoch"] < 3} for record in records]
    drawn = [charts.curves(r, tmp_path / f"{n}.png").read_bytes() for n, r in enumerate((records, plain, other))]
    assert len(set(drawn)) == 3


# ---- colour --------------------------------------------------------------------------

RED = np.tile([1.0, 0.0, 0.0], 12)


def colours_of(path: Path) -> dict[tuple[int, ...], int]:
    """How many pixels have each colour that is no grey, over all frames."""
    found: dict[tuple[int, ...], int] = {}
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            for count, colour in image.convert("RGB").getcolors(2**24):
                if len(set(colour)) > 1:
                    found[colour] = found.get(colour, 0) + count
    return found


IN_COLOUR: dict[str, Callable[[np.ndarray, Path], Path]] = {
    "samples": lambda red, path: figures.samples(np.tile(red, (7, 1)), (*SHAPE, 3), path),
    "reconstructions": lambda red, path: figures.reconstructions(*np.tile(red, (2, 5, 1)), (*SHAPE, 3), path, 3),
    "traversal": lambda red, path: figures.traversal(np.tile(red, (2, 3, 1)), (*SHAPE, 3), path),
    "manifold": lambda red, path: figures.manifold(np.tile(red, (9, 1)), (*SHAPE, 3), path, 3),
    "animation": lambda red, path: figures.animation(np.tile(red, (3, 4, 1)), (*SHAPE, 3), path),
}


@pytest.mark.parametrize("name", IN_COLOUR)
def test_red_stays_red(name: str, tmp_path: Path) -> None:
    """Every pixel of the images is exactly red, and all others of the page are white or grey."""
    path = IN_COLOUR[name](RED, tmp_path / ("x.gif" if name == "animation" else "x.png"))
    found = colours_of(path)
    assert set(found) == {(255, 0, 0)}
    assert min(found.values()) > 12 * 20**2


def test_colours_and_places_of_a_grid(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(6, 36)) / 255
    with Image.open(figures.samples(images, (*SHAPE, 3), tmp_path / "x.png", columns=3)) as image:
        content = np.asarray(image.convert("RGB"))
    scale = round(sheet.TILE / 4)
    channels = [[places(content[..., c], tile(each[c::3], scale)) for c in range(3)] for each in images]
    assert all(len(at[0]) == 1 and at[0] == at[1] == at[2] for at in channels)


def test_an_animation_keeps_few_colours_exactly(tmp_path: Path) -> None:
    """Red, green and blue one after another, on a white ground."""
    frames = np.stack([np.tile(np.eye(3)[step % 3], (2, 12)) for step in range(4)])
    assert set(colours_of(figures.animation(frames, (*SHAPE, 3), tmp_path / "x.gif"))) == {
        (255, 0, 0), (0, 255, 0), (0, 0, 255)}
    with Image.open(tmp_path / "x.gif") as gif:
        gif.seek(1)
        assert gif.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert gif.convert("RGB").getpixel((20, 20)) == (0, 255, 0)


def test_an_animation_of_many_colours_is_close_and_has_a_white_ground(tmp_path: Path) -> None:
    ramp = np.stack(np.meshgrid(*[np.linspace(0, 1, 12)] * 3), -1).reshape(12, 4, 108)  # 1,728 colours
    with Image.open(figures.animation(ramp, (6, 6, 3), tmp_path / "x.gif")) as gif:
        gif.seek(3)
        content = np.asarray(gif.convert("RGB"), float)
    assert content[0, 0].tolist() == [255] * 3
    first = content[sheet.GAP :, sheet.GAP :][: 6 * 15 : 15, : 6 * 15 : 15]
    assert np.abs(first - 255 * ramp[3, 0].reshape(6, 6, 3)).mean() < 12


@pytest.mark.parametrize(("shape", "name"), [(SHAPE, "grey data"), ((2, 2, 3), "colour data")])
def test_what_bits_were_drawn_from_is_named(shape: tuple[int, ...], name: str, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(figures, "_table", lambda rows, path, title, names, *more, **kind: found.extend(names))
    figures.reconstructions(pictures(2), pictures(2), shape, tmp_path / "x.png", grey=pictures(2))
    assert found == [name, "bits drawn", "reconstruction"]
