"""Pictures of tables: which columns are shown, what missing values and whole numbers do, and that files are whole."""

import numpy as np
import pytest
from PIL import Image
from tables import counts, table, zero

from tinyvae.pictures import gallery, page, tables

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    monkeypatch.setattr(page, "DPI", 60)


def is_drawn(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, 3).std() > 1


def test_the_distance_is_that_of_kolmogorov_and_smirnov():
    from scipy import stats

    one, other = RNG.normal(size=50), RNG.normal(0.5, 2, size=80)
    assert tables.distance(one, other) == pytest.approx(stats.ks_2samp(one, other).statistic)
    holed = np.append(one, [np.nan, np.nan])
    assert tables.distance(holed, other) == tables.distance(one, other)


def test_the_columns_that_differ_most_come_first():
    data = RNG.normal(size=(200, 4))
    assert tables.worst(data, data + np.array([0, 3, 0.5, 0])).tolist()[:2] == [1, 2]


@pytest.mark.parametrize("draw", [tables.quantiles, tables.reconstructions])
def test_panels_stand_in_the_order_of_the_columns(draw, tmp_path, monkeypatch):
    """Also where those that differ most are chosen."""
    seen = []
    monkeypatch.setattr(tables, "save_png", lambda figure, path: seen.append(figure))
    monkeypatch.setattr(tables, "SHOWN", 3)
    data = RNG.normal(size=(200, 4))
    draw(data, data + np.array([0.3, 0, 2, 5]), list("deca"), tmp_path / "x.png")
    assert [axes.get_title("left") for axes in seen[0].axes] == ["d", "c", "a"]


def test_bins_around_whole_numbers():
    whole = np.array([0.0, 1, 5, np.nan])
    assert tables._bins(whole, np.array([0.0, 3]), -0.3, 5.3).tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert len(tables._bins(whole, np.array([0.5]), -0.3, 5.3)) == 25
    assert len(tables._bins(whole * 100, whole[:3] * 100, 0, 500)) == 25


def test_a_wide_tail_does_not_squeeze_the_rest():
    low, high = tables._limits(np.append(RNG.normal(size=5000), 1e6))
    assert -5 < low < high < 5
    assert tables._limits(np.full(3, 2.0)) == (1, 3)
    assert tables._limits(np.full(3, np.nan)) == (-0.06, 1.06)


@pytest.mark.parametrize("columns", [1, 4])
def test_every_number_of_columns_is_drawn(tmp_path, monkeypatch, columns):
    monkeypatch.setattr(tables, "PAIRED", 2)
    monkeypatch.setattr(tables, "SHOWN", 3)
    data = RNG.normal(size=(30, columns))
    data[3, 0] = np.nan
    names = [f"a column with a long name, {j}" for j in range(columns)]
    for draw in (tables.pairs, tables.quantiles, tables.reconstructions):
        path = draw(data, RNG.normal(size=data.shape), names, tmp_path / f"{draw.__name__}.png")
        assert is_drawn(path)
    assert tables.short(names[0]) == "a column with a l…"


def test_a_run_of_a_table_gets_pictures_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PAIRED", 2)
    data = counts(60)
    drawn = gallery.all_pictures(zero(data), data, [], tmp_path)
    assert [file.name for file in drawn] == ["pairs.png", "quantiles.png", "reconstructions.png", "latents.png"]
    assert all(map(is_drawn, drawn))


def test_few_test_data_are_replaced_by_training_data():
    data, more = table(60, holes=True), table(2100)
    known, which = gallery.known_rows(data)
    assert (which, known.shape) == ("training data", (54, 3))
    assert np.array_equal(np.isnan(known), data.train_mask == 0)
    assert gallery.known_rows(more)[1] == "test data"
