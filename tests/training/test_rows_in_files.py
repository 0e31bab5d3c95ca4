"""Rows that stay in their files: the bits of the same data in memory, read ahead, in an order of any number of rows."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from cuda_on_cpu import host
from support import ROOT, assert_same_bits

import tinyvae as tv
from tinyvae.data.dataset import DataSet
from tinyvae.data.mapped.rows import MappedRows
from tinyvae.engine import noise
from tinyvae.models.batch import RowsInFiles
from tinyvae.training import batches
from tinyvae.training.batches import Order
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

WIDTH = 6


def in_memory(count=50, pixels="dynamic"):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, WIDTH)).astype(np.uint8) for n in (count, 12))
    return DataSet("made", train, test, (2, 3), 255.0, pixels, "bernoulli", np.arange(count) % 3, np.arange(12) % 3)


def in_files(data, folder, pieces):
    """The same data, whose training part lies in so many files."""
    parts = np.array_split(data.train, pieces)
    for number, part in enumerate(parts):
        np.save(folder / f"{number}.npy", part)
    files = [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(pieces)]
    return replace(data, train=files[0] if pieces == 1 else MappedRows(files))


def model_of(kind, data, **options):
    return tv.models.model_for(kind, data, hidden=5, latent=2, **options)


CASES = [("vae", {}, {}), ("vae", {}, {"shards": 3, "validation": 8}), ("vae", {"learner": "mcem"}, {}),
         ("m2", {}, {"labels": 30, "labelled_batch": 7}), ("cvae", {"given": "label"}, {})]  # fmt: skip


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize(("kind", "options", "settings"), CASES)
def test_a_training_has_the_bits_of_the_same_data_in_memory(tmp_path, pieces, kind, options, settings):
    """Also its evaluations, and after it was stopped between two epochs."""
    whole, files = in_memory(), in_files(in_memory(), tmp_path, pieces)
    settings = {"batch": 12, "quiet": True} | settings
    records = tv.fit(model_of(kind, whole, **options), whole, epochs=3, **settings)
    assert files.fingerprint == whole.fingerprint
    tv.fit(model_of(kind, files, **options), files, epochs=2, out=tmp_path / "run", **settings)
    assert tv.resume(tmp_path / "run", files, epochs=3, quiet=True) == records


def start(data, **settings):
    return Training(model_of("vae", data), data, Settings(batch=12, seed=1, **settings))


def test_a_step_finds_its_rows_read(tmp_path, monkeypatch):
    """The batches of an epoch are read two at a time, the first two when they are needed; of others, none is used."""
    monkeypatch.setattr(batches, "TOGETHER", 24)
    training = start(in_files(in_memory(), tmp_path, 3))
    rows, asked = training.batches.stream.rows, []
    assert isinstance(rows, RowsInFiles)
    read = rows.files.read
    rows.files.read = lambda index, out: asked.append(len(index)) or read(index, out)
    training.begin_epoch()
    for _ in training.steps():
        pass
    assert asked == [24, 24, 2]
    rows.load(np.array([3, 1]), np.array([5, 6]))
    rows.load(np.array([7, 8]), np.array([], int))  # not the ones that were read ahead
    rows.take(0, 0, 2)
    assert_same_bits(rows.buffer.data[rows.places.data[:2]], in_memory().train[[7, 8]])


def test_a_reader_that_gives_other_rows_is_found(tmp_path):
    whole, files = in_memory(), in_files(in_memory(), tmp_path, 2)
    right = start(whole)
    training = start(files)
    rows = training.batches.stream.rows
    read = rows.files.read
    rows.files.read = lambda index, out: read((index + 1) % 50, out)
    for one in (right, training):
        one.begin_epoch()
        one.step()
    assert not np.array_equal(right.model.parameters.flat, training.model.parameters.flat)


def test_a_process_reads_the_rows_of_its_shards_alone(tmp_path):
    training = start(in_files(in_memory(), tmp_path, 2), shards=4)
    step, rows, taken = training.step_now(), training.batches.stream.rows, []
    read = rows.files.read
    rows.files.read = lambda index, out: taken.append(index.copy()) or read(index, out)
    step.share = range(2, 4)
    training.begin_epoch()
    step.load(12)
    numbers = training.batches.stream.numbers
    assert_same_bits(taken[0], np.concatenate([*(numbers(12 * batch + 6, 6) for batch in range(4)), numbers(49, 1)]))
    assert_same_bits(rows.buffer.data[rows.places.data[6:12]], in_memory().train[numbers(6, 6)])


# ---- the order -----------------------------------------------------------------------


def small(monkeypatch):
    """Blocks of 4 rows, and groups of 3 blocks, of more than 20 rows."""
    for name, value in (("SHUFFLED", 20), ("BLOCK", 4), ("GROUP", 3)):
        monkeypatch.setattr(batches, name, value)


@pytest.mark.parametrize("count", [1, 20, 21, 24, 50, 97])
def test_an_order_has_every_row_once(monkeypatch, count):
    """In pieces, too, which go on at the beginning after the last row."""
    small(monkeypatch)
    order = Order(3, "shuffle", 1, count)
    whole = order.rows(0, count)
    assert sorted(whole) == list(range(count))
    assert_same_bits(Order(3, "shuffle", 1, count).rows(0, count), whole)
    for start_, size in ((0, 5), (7, 13), (count - 1, 4), (2 * count + 3, 9)):
        assert_same_bits(order.rows(start_, size), whole[(start_ + np.arange(size)) % count])
    if count > 20:
        others = [Order(*address, count).rows(0, count) for address in ((4, "shuffle", 1), (3, "shuffle", 2))]
        assert all(not np.array_equal(whole, other) for other in others)


def test_blocks_of_neighbours_are_shuffled_in_groups(monkeypatch):
    """The rows of a group come from its three blocks, in no order, and the blocks from everywhere."""
    small(monkeypatch)
    whole = Order(0, "shuffle", 0, 1200).rows(0, 1200).reshape(-1, 12)
    assert all(len(set(group // 4)) == 3 for group in whole)
    assert np.mean([np.all(np.diff(np.sort(group)) == 1) for group in whole]) < 0.1
    places = np.array([group.tolist() == sorted(group) for group in whole])
    assert not places.any()
    firsts = (whole // 4).min(1)
    assert abs(np.corrcoef(firsts, np.arange(len(firsts)))[0, 1]) < 0.4  # 4 standard errors of 100 groups


def test_a_permutation_does_not_depend_on_the_pieces_of_its_labels(monkeypatch):
    whole = noise.permutation(5, "shuffle", 2, 1000)
    monkeypatch.setattr(noise, "PIECE", 7)
    assert_same_bits(noise.permutation(5, "shuffle", 2, 1000), whole)


# ---- memory --------------------------------------------------------------------------

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, ({most}, {most}))
import tinyvae as tv
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings
data = tv.data.load({folder!r})
training = Training(tv.models.model_for("vae", data, hidden=5, latent=2), data, Settings(validation=1000))
training.begin_epoch()
training.step()
print(data.train.nbytes)
try:
    bytearray({size})
except MemoryError:
    print("limited")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="optional: limits of memory are those of Linux")
def test_data_that_do_not_fit_into_memory_are_trained_on(tmp_path):
    """448 MiB in two files that are empty but for a few rows, where a process may have 384 MiB."""
    for number in range(2):
        rows = np.lib.format.open_memmap(tmp_path / f"part-{number}.npy", "w+", np.uint8, (224 * 256, 64, 64))
        rows[:3] = np.random.default_rng(number).integers(0, 256, (3, 64, 64))
        del rows
    np.save(tmp_path / "test.npy", np.ones((2, 64, 64), np.uint8))
    program = LIMITED.format(most=384 * 2**20, folder=str(tmp_path), size=448 * 2**20)
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout.split() == [str(448 * 2**20), "limited"], found.stderr


# ---- a GPU ---------------------------------------------------------------------------


@pytest.mark.skipif(host.compiler() is None, reason=host.NO_COMPILER)
@pytest.mark.parametrize("free", [1, 10**6])
def test_a_gpu_is_given_all_rows_or_those_of_the_batches(driver, monkeypatch, tmp_path, free):
    """By the memory that it has; the bits are those of the same data in memory."""
    from tinyvae.models import batch

    monkeypatch.setattr(batch, "memory_in_use", lambda: (0, free, free))
    whole, files, found = in_memory(), in_files(in_memory(), tmp_path, 3), []
    for data in (whole, files):
        model = tv.models.model_for("vae", data, device="cuda", hidden=5, latent=2)
        training = Training(model, data, Settings(batch=12, seed=1))
        found.append(tv.fit(model, data, epochs=2, batch=12, quiet=True))
    assert isinstance(training.batches.stream.rows, RowsInFiles) == (free == 1)
    assert found[0] == found[1]
