"""The rung of small products on the host: every layout, tile and order of threads, layers in one launch, mutants."""

import re
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import card, host
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DTYPES, assert_same_bits
from tinyvae_kernels import kernels_for
from tinyvae_kernels.cuda.runtime import jobs

import tinyvae as tv
from tests.kernels.cuda.test_jobs import KINDS, check_products, laid_out, training
from tinyvae.engine.devices import namespace, to_host

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import rungs
from benchmarks.rungs import small_products as ours

CUDA = kernels_for("cuda")
pytestmark = pytest.mark.skipif(host.compiler() is None and not card.ON_A_CARD, reason=host.NO_COMPILER)
on_the_host = pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only: orders of threads, and mutants")
EVERY = ours.TILES
PLACES = range(3)  # these are the places of the tiles there
DRAW = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def climbed(driver):
    """A test's products are those of the rung."""
    with rungs.climbed("small_products"):
        yield


def only(patch, place, multiprocessors=ours.MULTIPROCESSORS):
    """Let every product have this tile, and so many warps as on a card of so many multiprocessors."""
    patch.setattr(ours, "TILES", {dtype: tiles[place : place + 1] for dtype, tiles in EVERY.items()})
    patch.setattr(ours, "MULTIPROCESSORS", multiprocessors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", PLACES)
def test_products_of_every_layout(driver, monkeypatch, dtype, place):
    @settings(max_examples=15)
    @given(m=st.integers(1, 70), k=st.integers(1, 70), n=st.integers(1, 70), seed=st.integers(0, 2**31),
           kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
           multiprocessors=st.sampled_from((1, 4, 132)))  # fmt: skip
    def check(m, k, n, seed, kinds, multiprocessors):
        only(monkeypatch, place, multiprocessors)
        check_products(dtype, m, k, n, kinds, seed)

    check()
    assert card.ON_A_CARD or {f"product_{EVERY[np.dtype(dtype)][place].name}"} == set(driver.launches)


@on_the_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", PLACES)
def test_the_order_of_threads_changes_no_bit(driver, monkeypatch, dtype, place):
    """Nor does it matter where a factor begins: the order of a sum depends on shapes only."""
    only(monkeypatch, place, 4)
    a, b = DRAW.normal(size=(35, 70)).astype(dtype), DRAW.normal(size=(70, 36)).astype(dtype)
    found = []
    for driver.schedule in host.SCHEDULES:
        for kind in ("rows", "off pieces", "turned part"):
            found.append(to_host(CUDA.matmul(laid_out(a, kind), laid_out(b, kind), None)))
    for other in found[1:]:
        assert_same_bits(other, found[0])


def layer(dtype, kind, sizes=(9, 37, 21)):
    """A layer on the device: its product and its activation, replayed, and the names of its launches."""
    xp, (m, k, n) = namespace("cuda"), sizes
    draw = np.random.default_rng(1)
    x, weight, bias = (tv.Tensor(xp.asarray(draw.normal(size=size).astype(dtype))) for size in ((m, k), (k, n), (n,)))
    with tv.Tape() as tape:
        pre = x @ weight
        y = tv.apply("bias_activation", pre.reshape(1, m, n), bias, kind=kind)
    eager = [to_host(one.data).copy() for one in (pre, y)]
    for one in (pre, y):
        one.data[...] = 0  # the recording's own value must not pass for the replay's
    tape.replay()
    found = [to_host(one.data) for one in (pre, y)]
    for one, same in zip(found, eager, strict=True):
        assert_same_bits(one, same, "replayed")
    return found, [job.kernel for job in tape.calls[0].jobs]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["identity", "relu", "tanh", "softplus"])
def test_a_layer_in_one_launch_leaves_the_bits_of_two(driver, monkeypatch, dtype, kind):
    for place in PLACES:
        with pytest.MonkeyPatch.context() as patch:
            only(patch, place)
            for sizes in ((9, 37, 21), (33, 20, 36)):
                one, names = layer(dtype, kind, sizes)
                assert names == [f"layer_{ours.TILES[np.dtype(dtype)][0].name}"]
                patch.setattr(jobs, "MERGES", {})
                two, names = layer(dtype, kind, sizes)
                assert len(names) == 2
                patch.setattr(jobs, "MERGES", ours.MERGES)
                for a, b in zip(one, two, strict=True):
                    assert_same_bits(a, b, kind)


@on_the_host
def test_all_layers_and_products_of_a_step_are_these(driver):
    ready = training(epochs=9)
    ready.step()
    ready.counters[1] = ready.counters[2] = 0
    ready.step()
    (program,) = ready.step_now().program.tape(25).calls
    names = [job.kernel for job in program.jobs]
    assert [sum(name.startswith(kind) for name in names) for kind in ("layer_", "product_")] == [4, 7]


def test_neighbours_that_are_no_layer_stay_two(driver):
    """An activation of another array, of other rows of the same numbers, and one that overwrites a factor."""
    xp = namespace("cuda")
    x, weight = xp.asarray(DRAW.normal(size=(4, 6))), xp.asarray(DRAW.normal(size=(6, 6)))
    pre, product = jobs_of("matmul", x, weight, None)
    bias = xp.asarray(DRAW.normal(size=6))
    for before, by, out, together in ((pre, bias, None, 1), (pre, bias, pre, 1), (pre + pre, bias, None, 2),
                                      (pre, bias, x, 2), (pre.reshape(8, 3), bias[:3], None, 2)):  # fmt: skip
        activation = jobs_of("bias_activation", before, by, out, kind="tanh")[1]
        assert len(jobs.together([*product, *activation])) == together
    expected = np.tanh(to_host(x) @ to_host(weight) + to_host(bias))
    jobs.Program(jobs.together([*product, *jobs_of("bias_activation", pre, bias, pre, kind="tanh")[1]]))()
    assert np.abs(to_host(pre) - expected).max() <= 1e-14


def jobs_of(name, *arrays, **attributes):
    """What a launcher plans, which has not run."""
    return getattr(CUDA, name).__wrapped__(*arrays, **attributes)


def test_large_products_and_tf32_are_cublas(driver):
    xp = namespace("cuda")
    small, large = xp.ones((100, 100)), xp.ones((500, 500))
    for a, tf32, kind in ((small, False, jobs.Job), (large, False, jobs.Product), (small, True, jobs.Product)):
        (job,) = jobs_of("matmul", a, a, None, tf32)[1]
        assert isinstance(job, kind)
    with pytest.raises(ValueError, match=r"expected \(m, k\) and \(k, n\)"):
        jobs_of("matmul", small, large, None)


def test_the_table_of_estimates_has_the_tiles_that_are_chosen():
    row = re.compile(r"\((\d+), (\d+)\) @ \((\d+), (\d+)\) +\d+ +(\w+) +(\d+) +(\d+) ")
    rows = row.findall(ours.__doc__)
    assert len(rows) == 11
    for m, k, same, n, name, blocks, warps in rows:
        tile, of_each = ours.shared_out(int(m), int(n), int(k), np.dtype(np.float32))
        assert (k, name, int(blocks), int(warps)) == (same, tile.name, tile.blocks(int(m), int(n)), of_each)


def test_both_files_have_the_same_tiles():
    text = Path(f"{ours.FILE}.cu").read_text()
    for which, tiles in enumerate((ours.TILES[np.dtype(np.float32)], ours.TILES[np.dtype(np.float64)])):
        chosen = re.sub(r"SINGLE \? (\d+) : (\d+)", rf"\{which + 1}", text)
        found = [list(map(int, words.split(", "))) for words in re.findall(r"typedef Tile<(.*)> \w+;", chosen)]
        assert tiles == tuple(ours.Tile(r * down, c * 32 // down, pieces, warps) for r, c, down, pieces, warps in found)


MUTANTS = [("  __syncthreads();\n  for (int u", "  for (int u"), ("    __syncwarp();\n    down.read", "    down.read"),
           ("    __syncwarp();  // every lane", "    // every lane"), ("w < warps;", "w < warps - 1;"),
           ("e < numbers ?", "e <= numbers ?"), ("if (e < most)", "if (e <= most)")]  # fmt: skip


@on_the_host
@pytest.mark.parametrize("place", range(len(MUTANTS)))
def test_a_wrong_kernel_is_noticed(driver, monkeypatch, place):
    """Of the smallest tile, in float64; the other kernels are left out, which saves compiling them."""
    old, new = MUTANTS[place]
    right, kernel = driver.module, re.compile(r'extern "C" __global__.*?\n}\n', re.S)

    def module(code, options):
        assert code.count(old) == 1, "there is no such place any more: change the mutant"
        code = kernel.sub(lambda found: found[0] if "product_8x16" in found[0] else "", code.replace(old, new))
        return right(code, options)

    monkeypatch.setattr(driver, "module", module)
    only(monkeypatch, 2, 4)
    with pytest.raises((AssertionError, host.KernelError)):
        check_products(np.float64, 31, 71, 33, ("part", "turned part"))
