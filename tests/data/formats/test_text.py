"""Tables as text: the line that the error gives is run, and what it writes is the images and labels of the table."""

import numpy as np
import pytest

import tinyvae.data as data

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(0, 256, (12, 9)), RNG.integers(0, 10, 12)
HEAD = [f"pixel{number}" for number in range(9)]


def table(path, rows, mark, head=()):
    lines = [mark.join(head)] * bool(head) + [mark.join(map(str, row)) for row in rows.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def followed(path, monkeypatch):
    """Run the Python in the error about a table, in the folder of the table; the data set of what it wrote."""
    with pytest.raises(data.DataError, match="is a table of numbers as text") as caught:
        data.load(path)
    code = str(caught.value).rpartition(": store it with ")[2].removesuffix(".")
    monkeypatch.chdir(path.parent)
    exec(code, {"np": np})
    written = [file for file in path.parent.iterdir() if file.name in ("images.npy", "images.npz")]
    assert len(written) == 1
    return data.load(written[0])


def pixels_of(found):
    """The images in the order of the table: the held out rows are put back."""
    from tinyvae.data.dataset import held_out

    images = np.empty((12, 9))
    train, test = held_out(12, 1)
    images[train], images[test] = found.train / found.scale, found.test / found.scale
    return images


@pytest.mark.parametrize("mark", [",", ";", "\t", " "])
@pytest.mark.parametrize("head", [(), HEAD])
def test_a_table_of_pixels(tmp_path, monkeypatch, mark, head):
    found = followed(table(tmp_path / "a.csv", PIXELS, mark, head), monkeypatch)
    assert np.array_equal(pixels_of(found), PIXELS / 255)
    assert found.shape == (3, 3)


def test_a_table_of_fractions(tmp_path, monkeypatch):
    found = followed(table(tmp_path / "a.txt", PIXELS / 255, ","), monkeypatch)
    assert np.abs(pixels_of(found) - PIXELS / 255).max() <= 1e-7


@pytest.mark.parametrize("head", [(), ["label", *HEAD], [*HEAD, "class"]])
def test_a_table_with_a_label_in_each_line(tmp_path, monkeypatch, head):
    last = bool(head) and head[-1] == "class"
    rows = np.column_stack([PIXELS, LABELS] if last else [LABELS, PIXELS])
    found = followed(table(tmp_path / "it's a.csv", rows, ",", head), monkeypatch)
    assert np.array_equal(pixels_of(found), PIXELS / 255)
    assert sorted([*found.train_labels, *found.test_labels]) == sorted(LABELS)
    order = {bytes(image.astype(np.uint8)): label for image, label in zip(PIXELS, LABELS, strict=True)}
    assert [order[bytes(image)] for image in found.train] == found.train_labels.tolist()


@pytest.mark.parametrize("content", ["words", "a,b\n", "a,b\nc,d\n", "\n", "1\n2\n", "{\"a\": 1}", "\ufeff"])
def test_text_that_is_no_table(tmp_path, content):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(data.DataError, match="is text that begins with"):
        data.load(tmp_path / "a.csv")
