"""Minibatches: every datum once an epoch, in an order that is a function of the seed; pixels drawn at each use."""

import numpy as np
import pytest
from scipy import stats
from support import DTYPES, assert_same_bits, likely, likely_zero

import tinyvae as tv
from tinyvae.engine.devices import CPU
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Tape
from tinyvae.models.batch import Rows
from tinyvae.training.batches import BATCH, CURSOR, STEP, Batches


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    with tv.fused(request.param):
        yield


def make(stored, scale=1.0, batch=4, seed=0, dynamic=False, dtype=np.float32):
    counters = np.zeros(3, np.int64)
    draw = Noise(seed, "binarise", counters) if dynamic else None
    return Batches(Rows(np.ascontiguousarray(stored), scale, dtype, CPU, draw), batch, seed, counters)


def epoch(batches, number):
    """The batches of an epoch, as arrays."""
    batches.begin(number)
    batches.counters[CURSOR] = batches.counters[BATCH] = 0
    found = []
    while batches.counters[BATCH] < batches.steps:
        size = batches.size_now()
        found.append(batches.next(size)[0].x.numpy().copy())
        batches.tick(size)
    return found


PARTS = [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 100, [3]), (5, 1, [1] * 5)]


@pytest.mark.parametrize(("count", "batch", "sizes"), PARTS)
def test_every_datum_exactly_once_an_epoch(count, batch, sizes):
    # the last batch holds what is left; a batch larger than the data is all of them
    batches = make(np.arange(count, dtype=np.float32)[:, None], batch=batch)
    for number in range(3):
        found = epoch(batches, number)
        assert [len(part) for part in found] == sizes
        assert sorted(np.concatenate(found)[:, 0].tolist()) == list(range(count))
    assert batches.counters.tolist() == [3 * len(sizes), count, len(sizes)]


def test_orders_differ_by_epoch_and_are_functions_of_the_seed():
    data = np.arange(50, dtype=np.float32)[:, None]
    orders = {(seed, number): np.concatenate(epoch(make(data, seed=seed), number))[:, 0].tobytes()
              for seed in (0, 1) for number in (0, 1, 2)}
    assert len(set(orders.values())) == 6
    # an epoch's order does not depend on the epochs before it: this is what a resumed run relies on
    batches = make(data, seed=1)
    epoch(batches, 0)
    assert np.concatenate(epoch(batches, 2))[:, 0].tobytes() == orders[1, 2]


def test_the_order_is_a_fair_shuffle():
    # where datum 0 comes in the order, over many epochs, is uniform
    batches = make(np.zeros((10, 1), np.float32))
    places = np.zeros(10)
    for number in range(5000):
        batches.begin(number)
        places[np.flatnonzero(batches.stream.index == 0)[0]] += 1
    likely("place of datum 0", stats.chisquare(places).pvalue)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "scale"), [(np.uint8, 255.0), (np.uint8, 16.0), (np.uint8, 1.0), (np.float32, 1.0)])
def test_grey_rows_are_scaled_exactly(kind, scale, dtype):
    # stored / scale, rounded once: what NumPy's division gives
    top = int(scale)
    floats = np.random.default_rng(0).random((9, 3), np.float32)
    stored = np.arange(top + 1, dtype=kind)[:, None] if kind == np.uint8 else floats
    found = np.concatenate(epoch(make(stored, scale, dtype=dtype, batch=7), 0))
    order = make(stored, scale)
    order.begin(0)
    assert_same_bits(found, (stored.astype(dtype) / dtype(scale))[order.stream.index])


GREY = np.array([0, 1, 4, 8, 15, 16], np.uint8)  # of 16, as in the digits


def drawn(batches, epochs):
    """How often each column was 1, over many epochs."""
    return sum(part.sum(0, dtype=np.float64) for number in range(epochs) for part in epoch(batches, number))


def check_frequency(stored, scale, expected, epochs=40, seed=3):
    """Each pixel is 1 as often as its grey value says."""
    ones = drawn(make(stored, scale, batch=32, seed=seed, dynamic=True), epochs)
    count = epochs * len(stored)
    for frequency, p in zip(ones / count, expected, strict=True):
        if p in (0, 1):
            assert frequency == p, "black is never drawn as 1, white always"
        else:
            likely_zero(f"grey {p:.3f}", frequency - p, np.sqrt(p * (1 - p) / count))


def test_dynamic_pixels_have_the_frequency_of_their_grey_value():
    stored = np.tile(GREY, (128, 1))
    check_frequency(stored, 16.0, GREY / 16)
    with pytest.raises(AssertionError):  # divided by 15
        check_frequency(stored, 15.0, GREY / 16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dynamic_pixels_are_drawn_anew_at_each_use(dtype):
    stored = np.full((6, 200), 8, np.uint8)
    batches = make(stored, 16.0, batch=3, dynamic=True, dtype=dtype)
    parts = [part for number in range(3) for part in epoch(batches, number)]
    assert all(part.dtype == dtype for part in parts)
    assert set(np.unique(np.concatenate(parts))) == {0.0, 1.0}
    assert len({row.tobytes() for part in parts for row in part}) == 18  # no two alike: by row, batch and epoch
    # and yet a function of (seed, step): set the counters back, and the same pixels come
    batches.begin(1)
    batches.counters[:] = (2, 0, 0)
    assert_same_bits(batches.next(3)[0].x.numpy(), parts[2])
    other = make(stored, 16.0, batch=3, dynamic=True, seed=1, dtype=dtype)
    assert (epoch(other, 0)[0] != parts[0]).any()


def test_a_replayed_step_fetches_the_next_batch():
    stored = np.random.default_rng(0).integers(0, 17, (9, 5), np.uint8)
    fresh = make(stored, 16.0, batch=3, dynamic=True)
    expected = epoch(fresh, 0)
    fresh.begin(0)
    rates = np.arange(6, dtype=np.float32).reshape(3, 2)
    batches = make(stored, 16.0, batch=3, dynamic=True)
    batches.begin(0)
    batches.plan_for(2)
    batches.plan[:] = rates
    with Tape() as tape:
        batch, now = batches.next(3)
        x = batch.x
        batches.tick(3)
    for step in range(3):
        if step:
            tape.replay()
        assert_same_bits(x.numpy(), expected[step])
        assert_same_bits(now.numpy(), rates[step])  # the learning rate and the KL's weight of this batch
    assert batches.counters[STEP] == 3


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="found a batch size of 0; expected at least 1"):
        make(np.zeros((3, 2), np.float32), batch=0)
