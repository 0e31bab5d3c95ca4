"""Downloads without a network: mirrors, hashes, sizes, interruption, and the steps to do it by hand."""

import gzip
import hashlib
import struct
from dataclasses import replace

import pooch
import pytest

import tinyvae.data as data
from tinyvae.data import download, loading, readers
from tinyvae.data.sources import SOURCES, Source, SourceFile

MIRRORS = ("https://first.invalid/", "https://second.invalid/", "https://third.invalid/")
CONTENT = {"a.gz": b"the first file", "b.gz": b"the second file"}


def source(content, read=None):
    named = [SourceFile(name, len(body), hashlib.sha256(body).hexdigest()) for name, body in content.items()]
    return Source(
        "mnist", "gray", shape=(2, 2), count=6, classes=10, read=read, folder="mnist", files=tuple(named),
        origin="https://origin.invalid/", mirrors=MIRRORS,
    )


@pytest.fixture
def network(monkeypatch, tmp_path):
    """A network of `served` files by address, all else is out of reach; and the list of what was asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TINYVAE_DATA", raising=False)
    monkeypatch.delenv("TINYVAE_OFFLINE", raising=False)
    monkeypatch.setattr(pooch.get_logger(), "disabled", True)
    served, asked = {}, []

    def transfer(self, url, output_file, pooch, check_only=False):
        asked.append(url)
        if url not in served:
            raise ConnectionError("no route")
        body = served[url]
        with open(output_file, "wb") as stream:
            stream.write(body if isinstance(body, bytes) else b"half")
        if not isinstance(body, bytes):
            raise body

    monkeypatch.setattr(pooch.downloaders.HTTPDownloader, "__call__", transfer)
    return served, asked


def left(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_first_mirror_serves(network, tmp_path):
    served, asked = network
    served.update({MIRRORS[0] + name: body for name, body in CONTENT.items()})
    download.fetch(source(CONTENT), tmp_path / "new" / "mnist")
    assert asked == [MIRRORS[0] + name for name in CONTENT]
    for name, body in CONTENT.items():
        assert (tmp_path / "new" / "mnist" / name).read_bytes() == body
    download.fetch(source(CONTENT), tmp_path / "new" / "mnist")
    assert len(asked) == len(CONTENT)  # what is there and right is not asked for again


def test_mirrors_are_tried_in_order_and_a_wrong_file_is_refused(network, tmp_path):
    served, asked = network
    served[MIRRORS[1] + "a.gz"] = b"<html>a page</html>"
    served[MIRRORS[2] + "a.gz"] = CONTENT["a.gz"]
    served[MIRRORS[0] + "b.gz"] = b"the second fils"  # the right size
    served[MIRRORS[1] + "b.gz"] = CONTENT["b.gz"]
    download.fetch(source(CONTENT), tmp_path)
    assert asked == [f"{mirror}a.gz" for mirror in MIRRORS] + [f"{mirror}b.gz" for mirror in MIRRORS[:2]]
    assert left(tmp_path) == ["a.gz", "b.gz"]
    assert (tmp_path / "a.gz").read_bytes() == CONTENT["a.gz"]
    assert (tmp_path / "b.gz").read_bytes() == CONTENT["b.gz"]


def test_when_all_mirrors_fail_the_steps_by_hand(network, tmp_path):
    served, asked = network
    served[MIRRORS[1] + "a.gz"] = b"wrong"
    with pytest.raises(data.DataError) as caught:
        download.fetch(source(CONTENT), tmp_path / "mnist")
    said = str(caught.value)
    assert "a.gz of mnist could not be fetched from any of 3 mirrors" in said
    assert f"{MIRRORS[0]}a.gz: no route" in said
    assert f"{MIRRORS[1]}a.gz: SHA256 hash of downloaded file" in said
    assert f"put these files from https://origin.invalid/ into {tmp_path / 'mnist'}:" in said
    for file in source(CONTENT).files:
        assert f"{file.name} ({file.size} bytes, SHA-256 {file.sha256})" in said
    assert asked == [mirror + "a.gz" for mirror in MIRRORS]
    assert left(tmp_path / "mnist") == []  # nothing half-written


def test_an_interruption_leaves_nothing_half_written(network, tmp_path):
    served, _ = network
    served[MIRRORS[0] + "a.gz"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        download.fetch(source(CONTENT), tmp_path)
    assert left(tmp_path) == []


def test_a_wrong_size_in_the_catalogue_is_noticed(network, tmp_path):
    served, _ = network
    body = CONTENT["a.gz"]
    served.update({mirror + "a.gz": body for mirror in MIRRORS})
    right = source({"a.gz": body})
    wrong = replace(right, files=(replace(right.files[0], size=3),))
    with pytest.raises(data.DataError, match=f"{len(body)} bytes instead of 3"):
        download.fetch(wrong, tmp_path)


@pytest.mark.parametrize(("value", "forbidden"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_offline_forbids_the_network(network, monkeypatch, tmp_path, value, forbidden):
    _, asked = network
    monkeypatch.setenv("TINYVAE_OFFLINE", value)
    said = "TINYVAE_OFFLINE forbids fetching it.* put these files" if forbidden else "could not be fetched"
    with pytest.raises(data.DataError, match=said):
        data.load("mnist")
    assert bool(asked) is not forbidden
    assert (tmp_path / "cache").exists() is not forbidden


def test_a_cache_that_cannot_be_written(network, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(data.DataError, match=r"mnist cannot be stored in .*; set XDG_CACHE_HOME"):
        data.load("mnist")
    assert network[1] == []


@pytest.mark.parametrize("name", ["frey-faces", "olivetti", "omniglot", "mnist-binarized"])
def test_sets_without_mirrors_never_ask(network, name):
    with pytest.raises(data.DataError, match="was not found"):
        data.load(name)
    assert network[1] == []


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_more_than_one_mirror(name):
    mirrors = SOURCES[name].mirrors
    assert len({mirror.split("/")[2] for mirror in mirrors}) == len(mirrors) >= 2
    assert all(mirror.endswith("/") for mirror in mirrors)


def test_load_fetches_into_the_cache_and_then_reads(network, monkeypatch, tmp_path):
    """The whole way, with a small set in place of MNIST."""
    served, asked = network
    shapes = ((6, 2, 2), (6,), (3, 2, 2), (3,))
    content = {}
    for name, shape in zip(readers.MNIST_FILES, shapes, strict=True):
        count = shape[0] * (4 if len(shape) == 3 else 1)
        body = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(range(count))
        content[name] = gzip.compress(body, mtime=0)

    def read(folder):
        train, train_labels, test, test_labels = (readers.read_idx(folder / file) for file in content)
        return readers._grey("mnist", train, test, (2, 2), labels=(train_labels, test_labels))

    monkeypatch.setitem(loading.SOURCES, "mnist", source(content, read))
    served.update({MIRRORS[1] + name: body for name, body in content.items()})
    found = data.load("mnist")
    assert found.name == "mnist-gray"
    assert found.train.tolist()[5] == [20, 21, 22, 23]
    assert found.test_labels.tolist() == [0, 1, 2]
    assert left(tmp_path / "cache" / "tinyvae" / "mnist") == sorted(content)
    count = len(asked)
    data.load("mnist")
    assert len(asked) == count  # found in the cache
