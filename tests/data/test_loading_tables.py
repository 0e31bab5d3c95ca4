"""Data that are no images: standardised columns, counts, missing values, and their way back into own units."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

import tinyvae as tv
import tinyvae.data as data
from tinyvae.data import DataError
from tinyvae.data.dataset import PARTS, held_out

RNG = np.random.default_rng(0)
OWN = RNG.normal(size=(50, 3)) * [1e-3, 1.0, 1e6] + [1e3, -2.0, 0.0]
COUNTS = RNG.poisson(3.0, (50, 3)).astype(float)


def holes(array, share=0.3):
    found = array.copy()
    found[RNG.random(array.shape) < share] = np.nan
    return found


def together(found, array):
    """An array of each part in the order of the source."""
    whole = np.empty((len(found.train) + len(found.test), *array(found, "train").shape[1:]))
    for index, part in zip(held_out(len(whole), len(found.test)), ("train", "test"), strict=True):
        whole[index] = array(found, part)
    return whole


def own(found, part):
    values = found.own_units(getattr(found, part))
    mask = getattr(found, f"{part}_mask")
    return values if mask is None else np.where(mask, values, np.nan)


def test_columns_are_standardised_by_the_training_part_and_given_back():
    found = data.from_table(OWN)
    assert (found.kind, found.likelihood, found.shape, found.train.dtype) == ("real", "normal", (1, 3), np.float32)
    assert np.abs(found.train.mean(0)).max() < 1e-6
    assert np.abs(found.train.std(0) - 1).max() < 1e-6
    assert np.abs(found.test.mean(0)).max() > 1e-3  # by its own mean it would be 0
    assert np.abs((together(found, own) - OWN) / OWN.std(0)).max() < 1e-6


@pytest.mark.parametrize("pixels", ["real", "counts"])
def test_nan_is_a_mask_and_counts_for_nothing(pixels):
    source = holes(OWN if pixels == "real" else COUNTS)
    found = data.from_table(source, pixels=pixels)
    assert np.array_equal(together(found, lambda d, part: getattr(d, f"{part}_mask")), ~np.isnan(source))
    assert all((getattr(found, part)[getattr(found, f"{part}_mask") == 0] == 0).all() for part in ("train", "test"))
    assert np.abs((together(found, own) - source)[~np.isnan(source)] / 1e6).max() < 1e-6
    if pixels == "real":
        train = source[held_out(50, 5)[0]]
        assert np.abs(found.center - np.nanmean(train, 0)).max() < 1e-6
        assert found.spread == pytest.approx(np.nanstd(train, 0))
    assert found.has_missing
    assert "some missing" in str(found)
    with pytest.raises(ValueError, match=r"the table has missing values .* a vae needs every value: .*--model miwae"):
        tv.fit(tv.VAE(3, 4, 2, likelihood=found.likelihood), found, epochs=1)


def test_grey_values_can_be_missing(tmp_path):
    grey = RNG.random((20, 9))
    grey[[3, 5], [0, 8]] = np.nan
    np.save(tmp_path / "a.npy", grey)
    found = data.load(tmp_path / "a.npy")
    assert (found.kind, found.shape) == ("grey", (3, 3))
    assert np.array_equal(together(found, lambda d, part: getattr(d, f"{part}_mask")), ~np.isnan(grey))
    assert np.abs(together(found, lambda d, part: getattr(d, part)) - np.nan_to_num(grey)).max() < 1e-7
    bits = np.where(np.isnan(grey), np.nan, np.rint(np.nan_to_num(grey)))
    np.save(tmp_path / "b.npy", bits)
    assert data.load(tmp_path / "b.npy").is_bits


def test_counts_are_whole_and_stay_as_they_are():
    found = data.from_table(COUNTS, pixels="counts")
    assert (found.kind, found.likelihood, found.center) == ("counts", "negative-binomial", None)
    assert np.array_equal(together(found, lambda d, part: getattr(d, part)), COUNTS)
    assert found.own_units(found.train) is found.train
    for wrong, said in ((COUNTS - 1, "from -1 to"), (COUNTS / 2, ", not all of them whole; expected counts"),
                        (COUNTS * 1e7, "from 0 to 16,777,216")):
        with pytest.raises(DataError, match=said):
            data.from_table(wrong, pixels="counts")


def test_columns_without_a_spread_or_a_value():
    constant = OWN.copy()
    constant[:, 1] = 0.1
    with pytest.warns(UserWarning, match="same number in the whole training part of the columns 2: nothing can be"):
        found = data.from_table(constant)
    assert (found.center[1], found.spread[1], np.abs(found.train[:, 1]).max()) == (0.1, 1, 0)
    constant[:, 1] = np.nan
    with pytest.raises(DataError, match="has no training value in the column 2; expected some: leave the column out"):
        data.from_table(constant)
    constant[:, 1], constant[7, 1] = 1, np.inf
    with pytest.raises(DataError, match="has infinite numbers in the column 2; expected finite ones, and NaN"):
        data.from_table(constant)


@pytest.mark.parametrize("cell", ["", "NA", "nan"])
@pytest.mark.parametrize("suffix", ["", "-real", "-counts", "-gray", "@kind", "@kind-counts"])
def test_a_table_without_any_value(tmp_path, cell, suffix):
    labelled = suffix.startswith("@")
    row = ",".join([cell, cell, *(["1"] if labelled else [])])
    (tmp_path / "a.csv").write_text("\n".join(["a,b,kind" if labelled else "a,b", *[row] * 20]))
    besides = " besides the labels, kind," if labelled else ""
    with pytest.raises(DataError, match=rf"every cell{besides} of .*a.csv is missing \(empty, or NaN\); expected some"):
        tv.data.load(f"{tmp_path}/a.csv{suffix}")
    with pytest.raises(DataError, match="every cell of the table is missing"):
        tv.data.from_table({"a": [None] * 20, "b": [float("nan")] * 20})


def test_numbers_of_any_size():
    found = data.from_table(OWN * 1e300)
    assert np.abs(found.train.std(0) - 1).max() < 1e-6


def test_the_density_in_own_units():
    """It is that of stored values times |d stored / d own|."""
    found = data.from_table(OWN)
    each = found.log_jacobian("test")
    assert each.shape == (5,)
    assert each == pytest.approx(-np.log(found.spread).sum())
    masked = data.from_table(holes(OWN))  # a missing value has no density
    observed = np.where(masked.test_mask, masked.test, np.nan)
    expected = np.nansum(stats.norm(masked.center, masked.spread).logpdf(masked.own_units(observed)), 1)
    assert masked.log_jacobian("test") + np.nansum(stats.norm.logpdf(observed), 1) == pytest.approx(expected, abs=1e-5)
    assert data.from_table(COUNTS, pixels="counts").log_jacobian("test") is None


def test_other_data_in_the_units_of_a_models_own():
    one, other = data.from_table(OWN), data.from_table(holes(OWN[:30] + OWN.std(0)))
    found = other.in_units_of(one)
    assert np.array_equal(found.center, one.center)
    assert np.abs((own(found, "test") - own(other, "test")) / one.spread)[found.test_mask == 1].max() < 1e-5
    assert (found.train[found.train_mask == 0] == 0).all()
    with pytest.raises(DataError, match=r"has 2 columns, 1, 2, real; expected those of the table, 3, 1, 2, 3, real"):
        data.from_table(OWN[:, :2]).in_units_of(one)


# ---- by name ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "a.csv"
    lines = [f"{row[0]!r},{row[1]!r},{'yes' if row[1] > -2 else 'no'}" for row in OWN.tolist()]
    path.write_text("\n".join(["width,the-real,kind", *lines]) + "\n")
    return path


def test_the_name_loads_the_same(table, monkeypatch):
    found = data.load(table, label_column="kind")
    assert found.name == f"{table}@kind-real"
    assert (found.columns, found.class_names) == (("width", "the-real"), ("no", "yes"))
    assert data.load(found.name).fingerprint == found.fingerprint
    monkeypatch.chdir(table.parent)
    assert data.anywhere("a.csv@kind-real") == found.name
    assert data.anywhere("a.csv@kind") == f"{table}@kind"
    assert data.load("a.csv@kind").name == "a.csv@kind-real"
    outline = data.outline("a.csv@kind-real")
    assert (outline.shape, outline.classes, outline.likelihood) == ((1, 2), 2, "normal")


def test_what_is_said_about_names(table):
    for name, label, said in (
        (table, None, "text in the column kind, such as '(yes|no)'; expected numbers: give it as --label-column kind"),
        (f"{table}-real", "knd", "has no column 'knd' for the labels; .* Did you mean kind"),
        ("digits", "kind", "found the label column kind with digits; expected the path of a table"),
        ("nowhere.csv", "kind", "there is no file or folder nowhere.csv; expected an .h5"),
        (f"{table}@kind", "kind", "found the label column kind with .*, which names one already; leave one of them"),
        ("digits-real", None, "digits-real does not exist, because digits are grey images; expected -dynamic, -static"),
        (f"{table}-rael", None, "unknown suffix -rael of .*a.csv; expected .*-gray, -color, -real, -counts"),
        (f"{table}@kind-counts", None, "not all of them whole; expected counts"),
    ):
        with pytest.raises(DataError, match=said):
            data.load(name, label_column=label)


def test_whole_numbers_get_a_line(tmp_path):
    np.savetxt(tmp_path / "a.csv", COUNTS, "%d", ",", header="a,b,c", comments="")
    with pytest.warns(UserWarning, match=r"holds whole numbers from 0 to .* taken as real ones; if they count "
                                         r"something, .*a.csv-counts may suit them better$"):
        assert data.load(tmp_path / "a.csv").kind == "real"
    assert data.load(f"{tmp_path}/a.csv-counts").columns == ("a", "b", "c")  # no warning
    assert data.load(f"{tmp_path}/a.csv-real").kind == "real"


def test_a_table_of_pixels_can_be_images(tmp_path):
    pixels = RNG.integers(0, 256, (12, 9))
    np.savetxt(tmp_path / "a.csv", np.column_stack([pixels, np.arange(12)]), "%d", ",")
    found = data.load(f"{tmp_path}/a.csv@10-gray")
    assert (found.shape, found.kind) == ((3, 3), "grey")
    assert np.abs(together(found, lambda d, part: getattr(d, part) / d.scale) - pixels / 255).max() < 1e-7
    assert together(found, lambda d, part: getattr(d, f"{part}_labels")).tolist() == list(range(12))
    assert data.load(f"{tmp_path}/a.csv@10-dynamic").kind == "binary"


@pytest.mark.parametrize("width", [30, 9])
def test_columns_out_of_range_are_pointed_to_real(tmp_path, width):
    """Dividing all columns by the largest number of any would ruin them."""
    np.save(tmp_path / "a.npy", RNG.normal(size=(20, width)) * np.arange(1, width + 1) ** 2)
    with pytest.raises(DataError, match=r"columns of a table, take .*a.npy-real, which standardises each") as caught:
        data.load(tmp_path / "a.npy")
    assert ("Store" in str(caught.value)) == (width == 9)  # these may be images of 3 x 3
    with pytest.raises(DataError, match=r"columns of a table, take tv.data.from_table, which standardises each"):
        data.as_data_set(np.load(tmp_path / "a.npy"))
    found = data.load(f"{tmp_path}/a.npy-real")
    assert (found.shape, found.kind) == ((1, width), "real")


def test_a_data_set_of_ones_own_is_checked():
    right = data.from_table(OWN)
    for changes, said in (
        ({"columns": ("a", "b")}, "found 2 names for 3 columns of the table"),
        ({"center": None}, "found spread=.*; expected center and spread together"),
        ({"spread": np.array([1.0, 0.0, 1.0])}, "found spread=.* the spread above 0"),
        ({"center": np.zeros(2)}, "found center=.* for each of 3 columns"),
        ({"train": np.full((4, 3), np.nan)}, "found NaN in 4 of 4 images in the train data of the table; exp"),
        ({"pixels": "counts"}, "expected counts, whole numbers from 0"),
    ):
        with pytest.raises(DataError, match=said):
            dataclasses.replace(right, **changes)


def test_units_and_names_change_the_fingerprint():
    one = data.from_table(OWN)
    changes = [{"columns": ("a", "b", "c")}, {"center": one.center + 1}, {"spread": one.spread * 2},
               {"center": None, "spread": None}]  # fmt: skip
    found = {one.fingerprint, *(dataclasses.replace(one, **change).fingerprint for change in changes)}
    assert len(found) == 5


def test_a_part_of_the_file_stays_a_part(tmp_path):
    np.savez(tmp_path / "a.npz", train=OWN[:30], valid=OWN[30:40], test=OWN[40:])
    found = data.load(f"{tmp_path}/a.npz-real")
    for part, rows in zip(PARTS, (OWN[:30], OWN[40:], OWN[30:40]), strict=True):
        assert np.abs((found.own_units(getattr(found, part)) - rows) / OWN.std(0)).max() < 1e-6


def test_a_folder_of_tables_has_its_parts(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, rows in (("train", OWN[:30]), ("valid", OWN[30:40]), ("test", OWN[40:])):
        np.savetxt(folder / f"{name}.csv", np.column_stack([rows, np.arange(len(rows)) % 3]), "%.17g", ",",
                   header="a,b,c,y", comments="")
    found = data.load(folder, label_column="y")
    assert found.name == f"{folder}@y-real"
    assert data.load(found.name).fingerprint == found.fingerprint
    for part, rows in zip(PARTS, (OWN[:30], OWN[40:], OWN[30:40]), strict=True):
        assert np.abs((found.own_units(getattr(found, part)) - rows) / OWN.std(0)).max() < 1e-6
        assert getattr(found, f"{part}_labels").tolist() == (np.arange(len(rows)) % 3).tolist()
    (folder / "notes.txt").write_text("words")
    with pytest.raises(DataError, match=r"notes.txt is text that begins with 'words'"):
        data.load(folder)


def test_rows_of_another_file_in_a_data_sets_units(table, tmp_path):
    """Columns are found by their names; the units are those of the data set."""
    like = data.load(table, label_column="kind")
    (tmp_path / "b.csv").write_text("more,the-real,width\nx,3.5,1000.25\ny,-1,999\n")
    found = data.rows_of(tmp_path / "b.csv", like)
    assert like.own_units(found) == pytest.approx(np.array([[1000.25, 3.5], [999, -1]]), rel=1e-6)
    (tmp_path / "c.csv").write_text("width,the-real\n1,\n2,3\n")
    (tmp_path / "d.csv").write_text("width,b\n1,2\n2,3\n")
    np.save(tmp_path / "e.npy", OWN)
    for name, said in (("c.csv", "has missing or infinite values in 1 of 2 rows"), ("d.csv", "has no column the-real"),
                       ("e.npy", "is no table; expected one with"), ("f.csv", "there is no file")):
        with pytest.raises(DataError, match=said):
            data.rows_of(tmp_path / name, like)
    counted = data.from_table({"a": np.arange(20), "b": np.arange(20)}, pixels="counts")
    (tmp_path / "g.csv").write_text("a,b\n1,2\n0.5,3\n")
    with pytest.raises(DataError, match="expected counts, whole numbers"):
        data.rows_of(tmp_path / "g.csv", counted)
