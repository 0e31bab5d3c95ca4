"""Tables: which column is what, and the sentence for each column that cannot be used."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import tinyvae.data as data
from tinyvae.data.formats.table import column_of, frame_table, stacked

A, B, CLASS = [1.5, 2.0, 3.0], [4.0, np.nan, 6.0], ["dog", "cat", ""]


def test_columns_labels_and_classes():
    arrays, columns, names = frame_table({"a": A, "class": CLASS, "b": B}).chosen("it", "class")
    assert columns == ("a", "b")
    assert np.array_equal(arrays["images"].read(), np.column_stack([A, B]), equal_nan=True)
    assert (arrays["images_labels"].read().tolist(), names) == ([1, 0, -1], ("cat", "dog"))
    numbers = frame_table({"a": A, "y": [0, np.nan, 2]}).chosen("it", "y")[0]["images_labels"].read()
    assert numbers.tolist() == [0, -1, 2]


@pytest.mark.parametrize(("columns", "label", "said"), [
    ({"a": A, "b": CLASS}, None, "text in the column b, such as 'dog'; expected numbers: give it as --label-column b, "
                                 "if it says classes, leave it out, or make numbers of it"),
    ({"a": A, "b": CLASS, "c": CLASS}, "c", "text in the column b, such as 'dog'; expected numbers: leave it out, or"),
    ({"a": A, "b": CLASS, "c": CLASS}, None, "leave b, c out, or make"),
    ({"a": A, "b": ["", "1,5", "2,5"]}, None, "such as '1,5', with a comma in place of the point"),
    ({"a": A, "species": CLASS}, "specie", "has no column 'specie' .* one of a, species. Did you mean species?"),
    ({"a": A}, "a", "has no column besides the labels, a"),
    ({"a": A, "b": [1.0]}, None, "found a table with columns of 1, 3 values"),
    ({}, None, "found a table with columns of no values"),
])
def test_what_cannot_be_used(columns, label, said):
    with pytest.raises(data.DataError, match=said):
        frame_table(columns).chosen("it", label)


def test_two_columns_of_one_name(tmp_path):
    (tmp_path / "a.csv").write_text("x,x\n1,2\n3,4\n")
    with pytest.raises(data.DataError, match="two columns of the name 'x'; expected different names"):
        data.load(tmp_path / "a.csv")


@pytest.mark.parametrize("frame", [np.zeros(3), [[1, 2]], "a"])
def test_what_is_no_table(frame):
    with pytest.raises(data.DataError, match=r"expected a table|expected a DataFrame"):
        frame_table(frame)


def test_tables_that_are_parts_of_one():
    """The classes of their labels are those of all parts."""
    found = stacked({"train": frame_table({"a": A, "y": CLASS}), "test": frame_table({"a": [7.5], "y": ["ant"]})}, "it")
    arrays, columns, names = found.chosen("it", "y")
    assert (columns, names) == (("a",), ("ant", "cat", "dog"))
    assert {key: stored.read().ravel().tolist() for key, stored in arrays.items()} == {
        "train": A, "train_labels": [2, 1, -1], "test": [7.5], "test_labels": [0]}
    for other, said in (({"a": A, "z": A}, "tables one and two with different columns: y, z; expected the same"),
                        ({"y": CLASS, "a": A}, "different columns or another order of them; expected the same")):
        with pytest.raises(data.DataError, match=said):
            stacked({"one": frame_table({"a": A, "y": CLASS}), "two": frame_table(other)}, "it")


def test_values_of_any_type():
    assert np.array_equal(column_of(np.array([1, None, "2.5"], object)), [1, np.nan, 2.5], equal_nan=True)
    assert column_of([True, False]).tolist() == [1, 0]
    assert column_of(np.array(["x", None], object)).tolist() == ["x", ""]


def test_a_frame_of_any_library():
    """All that is asked of a data frame is its columns and their values."""
    frame = SimpleNamespace(columns=["a", "b"])
    kind = type("Frame", (), {"columns": frame.columns, "__getitem__": lambda self, name: {"a": A, "b": B}[name]})
    found = frame_table(kind())
    assert found.names == ("a", "b")
    assert np.array_equal(np.column_stack(found.cells), np.column_stack([A, B]), equal_nan=True)
    assert frame_table(np.column_stack([A, B])).names == ("1", "2")


def test_a_frame_of_pandas(tmp_path):
    pandas = pytest.importorskip("pandas", reason="optional: pandas, whose DataFrames are read")
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": pandas.array([1, None, 3], "Int64"), "c": CLASS})
    frame["c"] = frame["c"].astype("category")
    found = frame_table(frame)
    assert np.array_equal(np.column_stack(found.cells[:2]), [[1, 1], [2, np.nan], [3, 3]], equal_nan=True)
    assert found.cells[2].tolist() == CLASS
    with pytest.raises(data.DataError, match="two columns of the name 'a'"):
        frame_table(frame[["a", "a"]])


def test_a_parquet_file(tmp_path, monkeypatch):
    (tmp_path / "b.parquet").write_bytes(b"PAR1\x15")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(data.DataError, match=r"is a Parquet file; .*install pyarrow, .* pandas.read_parquet"):
            data.load(tmp_path / "b.parquet")
    pyarrow = pytest.importorskip("pyarrow", reason="optional: pyarrow, which reads Parquet files")
    from pyarrow import parquet

    with pytest.raises(data.DataError, match="is a Parquet file that cannot be read"):
        data.load(tmp_path / "b.parquet")
    parquet.write_table(pyarrow.table({"a": A, "b": [4, None, 6], "c": CLASS}), tmp_path / "a")
    monkeypatch.setattr("tinyvae.data.arrays.held_out", lambda count, size: (np.array([0, 2]), np.array([1])))
    found = data.load(tmp_path / "a", label_column="c")
    assert found.name == f"{tmp_path / 'a'}@c-real"
    assert found.columns == ("a", "b")
    own = np.concatenate([np.where(m, found.own_units(x), np.nan) for x, m in (
        (found.train, found.train_mask), (found.test, found.test_mask))])
    assert sorted(own[:, 0]) == pytest.approx(A)
    assert sorted(own[~np.isnan(own[:, 1]), 1]) == pytest.approx([4, 6])
