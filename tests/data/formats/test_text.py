"""Tables as text: the numbers and names of a table whatever separates its cells, and what is no table."""

import numpy as np
import pytest

import tinyvae.data as data
from tinyvae.data.formats import text
from tinyvae.data.formats.text import is_text, read_text

ROWS = np.array([[1.5, -2.0, 3e5], [0.0, 7.25, -1e-3], [4.0, 5.0, 6.0]])
HEAD = ["width", "the height", "n"]


def written(path, rows, mark=",", head=()):
    lines = [mark.join(head)] * bool(head) + [mark.join(map(str, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t", " ", "   "])
@pytest.mark.parametrize("head", [(), HEAD])
def test_a_table_of_numbers(tmp_path, mark, head):
    names = [name.replace(" ", "_") for name in head] if mark.strip() == "" and mark != "\t" else head
    found = read_text(written(tmp_path / "a", ROWS.tolist(), mark, names))
    assert found.names == (tuple(names) or ("1", "2", "3"))
    assert np.array_equal(np.column_stack(found.cells), ROWS)


def test_quotes_and_a_mark_of_order_and_line_ends_of_windows(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"a, b",c\xc3\xa9\r\n1,"2"\r\n\r\n"3",4\r\n5,6\r\n')
    found = read_text(tmp_path / "a.csv")
    assert found.names == ("a, b", "cé")
    assert np.array_equal(np.column_stack(found.cells), [[1, 2], [3, 4], [5, 6]])
    assert data.load(f"{tmp_path}/a.csv-real").columns == ("a, b", "cé")


@pytest.mark.parametrize("missing", ["", "NA", "nan", " ", "NULL", "<NA>"])
def test_an_empty_cell_is_missing(tmp_path, missing):
    found = read_text(written(tmp_path / "a.csv", [["1", "2"], [missing, "4"], ["5", missing]], ",", ["a", "b"]))
    assert np.array_equal(np.column_stack(found.cells), [[1, 2], [np.nan, 4], [5, np.nan]], equal_nan=True)


def test_a_first_row_may_be_missing_as_any_other(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n,\n1,2\n,NA\n")
    found = read_text(tmp_path / "a.csv")
    assert found.names == ("a", "b")
    assert np.array_equal(np.column_stack(found.cells), [[np.nan] * 2, [1, 2], [np.nan] * 2], equal_nan=True)


def test_text_stays_text_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK", 2)
    rows = [["1", "1"], ["2", "2.5"], ["3", "x"], ["4", ""], ["5", "NA"]]
    found = read_text(written(tmp_path / "a.csv", rows, ",", ["a", "b"]))
    assert found.cells[0].tolist() == [1, 2, 3, 4, 5]
    assert found.cells[1].tolist() == ["1", "2.5", "x", "", ""]


def test_a_line_of_another_length_is_named(tmp_path):
    written(tmp_path / "a.csv", [["1", "2"], ["3"]], ",", ["a", "b"])
    with pytest.raises(data.DataError, match="has 1 cells in row 3; expected 2, as in the first"):
        data.load(tmp_path / "a.csv")


def test_what_does_not_fit_is_not_read(tmp_path, monkeypatch):
    path = written(tmp_path / "a.csv", ROWS.tolist())
    monkeypatch.setattr(text, "LONGEST", 8)
    with pytest.raises(data.DataError, match="has a line of more than 8 characters"):
        read_text(path)
    monkeypatch.undo()
    monkeypatch.setattr("tinyvae.data.formats.registry.physical_memory", lambda: 50)
    with pytest.raises(data.DataError, match=r"holds an array of shape \(3, 3\)"):
        read_text(path)


@pytest.mark.parametrize("content", ["words", "a,b\n", "a,b\nc,d\n", "\n", "1\n2\n", "{\"a\": 1}", "\ufeff"])
def test_text_that_is_no_table(tmp_path, content):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(data.DataError, match="is text that begins with"):
        data.load(tmp_path / "a.csv")


def test_text_is_known_by_its_bytes(tmp_path):
    assert is_text("größe,b\n1,2\n".encode())
    assert is_text(("é" * 300 + ",b\n1,2\n").encode()[:512]) is False  # no whole line is seen
    assert not is_text("größe,b\n1,2\n".encode("latin-1"))
    assert not is_text(b"a\0b\n")
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n" * 100 + "é,1\n".encode("latin-1"))
    with pytest.raises(data.DataError, match=r"is no UTF-8 text .* store it as UTF-8"):
        data.load(tmp_path / "a.csv")
