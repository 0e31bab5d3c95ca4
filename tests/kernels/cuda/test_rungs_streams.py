"""Products on a second stream: what waits for what, and the bits of a step whose graph runs in either extreme order."""

import numpy as np
import pytest
from cuda_on_cpu import card, fake_cupy, host
from hypothesis import given
from hypothesis import strategies as st
from support import assert_same_bits
from tinyvae_kernels.cuda.runtime import driver as drivers
from tinyvae_kernels.cuda.runtime import jobs

import tinyvae as tv
from tests.kernels.cuda.test_step import losses, made_up
from tinyvae.engine.devices import namespace, to_host
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import rungs
from benchmarks.rungs import streams

pytestmark = [pytest.mark.skipif(host.compiler() is None, reason=host.NO_COMPILER),
              pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only: the stand-in has both orders")]
ORDERS = "early", "late"
MODELS = [("dynamic", {}), ("dynamic", {"activation": "tanh", "hidden": (17, 9)}),
          ("static", {"bound": "iwae", "importance_samples": 3}),
          ("gray", {"likelihood": "gaussian", "samples": 2, "clip": 1.0})]  # fmt: skip


@pytest.fixture
def graphs(driver, monkeypatch):
    """The graphs that are captured in this test."""
    made = []

    class Kept(fake_cupy.Graph):
        def __init__(self, capture):
            super().__init__(capture)
            made.append(self)

    monkeypatch.setattr(fake_cupy, "Graph", Kept)
    return made


def forked(graphs):
    """How many of the launches of each graph that has any are on its second stream."""
    counts = [sum(node.stream is not graph._origin for node in graph.nodes) for graph in graphs]
    return [count for count in counts if count]


def longest(graph):
    """The number of launches on the longest chain of launches that wait for each other."""
    lengths = []
    for node in graph.nodes:
        lengths.append(1 + max((lengths[place] for place in node.after), default=0))
    return max(lengths)


# ---- the step ------------------------------------------------------------------------


@pytest.mark.parametrize(("pixels", "options"), MODELS)
def test_a_step_in_either_order_has_the_present_bits(graphs, monkeypatch, pixels, options):
    present, parameters = losses("cuda", np.float32, 8, pixels, **options)
    assert not forked(graphs)
    for order in ORDERS:
        graphs.clear()
        monkeypatch.setattr(fake_cupy.Stream, "order", order)
        with rungs.climbed("streams"):
            ours, learnt = losses("cuda", np.float32, 8, pixels, **options)
        assert forked(graphs)
        assert_same_bits(ours, present, order)
        assert_same_bits(learnt, parameters, order)


def step(hidden=17):
    """The program of a step, after its first runs."""
    ready = Training(tv.VAE(36, hidden, 5, device="cuda"), made_up(), Settings(batch=25))
    ready.begin_epoch()
    for _ in range(4):
        ready.counters[1] = ready.counters[2] = 0
        ready.step()
    (program,) = ready.step_now().program.tape(25).calls
    return program


@pytest.mark.parametrize(("hidden", "shapes"), [
    (17, [(17, 36), (5, 17), (17, 10)]), ((17, 9), [(17, 36), (9, 17), (5, 9), (9, 10), (17, 9)])])  # fmt: skip
def test_every_weight_gradient_but_the_last_is_on_the_second_stream(graphs, hidden, shapes):
    """Behind the last one, which is the first layer's, there is only the guard, which needs it."""
    step(hidden)
    with rungs.climbed("streams"):
        program = step(hidden)
    second, after = streams.schedule(program.jobs)
    assert [program.jobs[place - 1].out.shape for place in sorted(second)] == shapes
    names = {place: getattr(program.jobs[place - 1], "kernel", "product") for place in after}
    assert list(names.values()) == ["product"] * len(shapes) + ["squares"]
    before, ours = graphs
    assert forked(graphs) == [len(shapes)]
    assert longest(before) == len(before.nodes) == len(ours.nodes) == longest(ours) + len(shapes)


@pytest.mark.parametrize("order", ORDERS)
def test_small_products_go_there_too(graphs, monkeypatch, order):
    """The weight gradients of the other rung, which are jobs; those that have a layer's bias with them stay."""
    monkeypatch.setattr(fake_cupy.Stream, "order", order)
    with rungs.climbed("small_products"):
        present, parameters = losses("cuda", np.float32, 6)
        assert not forked(graphs)
        with rungs.climbed("streams"):
            ours, learnt = losses("cuda", np.float32, 6)
            second, _ = streams.schedule(step().jobs)
    assert forked(graphs)
    assert len(second) == 3
    assert_same_bits(ours, present, order)
    assert_same_bits(learnt, parameters, order)


def test_a_program_keeps_the_form_that_it_was_made_with(graphs):
    """Also where the block ends before its second run, which captures it, or begins before."""
    xp = namespace("cuda")
    a, products = xp.asarray(np.eye(3) + 1), [xp.asarray(np.zeros((3, 3))) for _ in range(3)]
    work = [jobs.Product(a, a, out, False) for out in products]
    outside = jobs.Program(work)
    with rungs.climbed("streams"):
        inside = jobs.Program(work)
        for _ in range(2):
            outside()
    assert not forked(graphs)
    for out in products:
        out[...] = 0
    for _ in range(2):
        inside()
    assert forked(graphs) == [2]
    assert (inside.captured, outside.captured) == (True, True)
    for out in products:
        assert_same_bits(to_host(out), (np.eye(3) + 1) @ (np.eye(3) + 1), "on two streams")


def weakened(waits, which, dropped, last):
    """Without one of the waits; or let it wait for the program's beginning only, or only the program's end for it."""
    place, other = list(waits.items())[which]
    waits = {key: value for key, value in waits.items() if key != place}
    if dropped:
        return waits
    return waits | ({last: other} if which == 3 else {place: 0})


@pytest.mark.parametrize("dropped", [True, False])
@pytest.mark.parametrize(("which", "order"), [(0, "early"), (1, "early"), (2, "early"), (3, "late")])
def test_every_wait_is_needed(driver, monkeypatch, which, order, dropped):
    """Three forks and a join: without one the numbers are wrong, or CUDA would refuse the capture."""
    right = streams.waits
    monkeypatch.setattr(fake_cupy.Stream, "order", order)
    monkeypatch.setattr(streams, "waits", lambda memory, second: weakened(right(memory, second), which, dropped,
                                                                          len(memory) - 1))
    refused = dropped and which in (0, 3)  # then the second stream takes no part in the capture, or is not joined
    with rungs.climbed("streams"), pytest.raises(RuntimeWarning if refused else tv.TapeError):
        losses("cuda", np.float32, 8)


def test_each_stream_needs_a_workspace(driver, monkeypatch):
    """Two products at once in one workspace would spoil each other's sums, which the stand-in refuses."""
    monkeypatch.setattr(streams, "beside", lambda current: (fake_cupy.Stream(non_blocking=True), current.blas))
    with rungs.climbed("streams"), pytest.warns(RuntimeWarning, match="the workspace of another stream"):
        step()


# ---- what waits for what ---------------------------------------------------------------


def test_the_memory_of_jobs(driver):
    """Views of one vector conflict where they overlap, and two that only read never do."""
    vector = namespace("cuda").asarray(np.zeros(40, np.float32))
    left, right, middle = (vector[i : i + 16].reshape(4, 4) for i in (0, 16, 8))
    begin = vector.data.ptr
    assert streams.span(right) == (begin + 64, begin + 128)
    assert streams.span(right[:, :2].T) == (begin + 64, begin + 120)
    assert streams.span(right[:0]) == (begin + 64, begin + 64)

    def conflict(one, other):
        found = {streams.conflict(streams.access(jobs.Product(*a, False)), streams.access(jobs.Product(*b, False)))
                 for a, b in ((one, other), (other, one))}  # fmt: skip
        (answer,) = found
        return answer

    other, more = (namespace("cuda").asarray(np.zeros((4, 4), np.float32)) for _ in range(2))
    assert not conflict((left, right, other), (right, middle, more))
    assert not conflict((other, other, left), (other, other, right))
    assert conflict((other, other, left), (other, other, middle))
    assert conflict((other, other, left), (middle, other, more))
    assert conflict((other, middle, more), (other, other, right))


@pytest.mark.parametrize("file", [*drivers.FILES, *rungs.SOURCES], ids=lambda file: file.rpartition("/")[2])
def test_the_signature_of_every_kernel(driver, file):
    """What a kernel only reads, as C++ says it of the compiled kernel."""
    for kernel in host.KERNEL.findall(drivers.source(file)):
        codes = driver.module(drivers.source(file), drivers.options(np.float32)).get_function(kernel).signature
        assert streams.constant(file, kernel) == tuple({"p": True, "P": False}.get(code[0]) for code in codes), kernel
    with pytest.raises(ValueError, match="found no kernel 'none'"):
        streams.constant(file, "none")


def access(reads, write):
    return streams.Access(tuple((i, i + 1) for i in reads), ((write, write + 1),))


accesses = st.builds(access, st.sets(st.integers(0, 7), max_size=3), st.integers(0, 7))


def ordered(count, second, waits):
    """For each place those that are over before it begins."""
    before = []
    for place in range(count):
        same = [other for other in range(place) if (other in second) == (place in second)]
        direct = {*same[-1:], *([waits[place]] if place in waits else [])}
        before.append(direct.union(*(before[other] for other in direct)))
    return before


@given(work=st.lists(st.tuples(accesses, st.booleans()), min_size=1, max_size=12))
def test_every_conflict_is_ordered_and_no_wait_is_superfluous(work):
    memory = [streams.EVERYTHING, *(memory for memory, _ in work), streams.EVERYTHING]
    second = streams.apart(memory, {place for place, (_, product) in enumerate(work, 1) if product})
    waits = streams.waits(memory, second)
    pairs = [(one, other) for other in range(len(memory)) for one in range(other)
             if streams.conflict(memory[one], memory[other])]  # fmt: skip

    def safe(waits):
        before = ordered(len(memory), second, waits)
        return all(one in before[other] for one, other in pairs)

    assert safe(waits)
    for place in waits:
        assert not safe({key: value for key, value in waits.items() if key != place})
    for place in second:
        following = min(other for other in range(place + 1, len(memory)) if other not in second)
        assert not streams.conflict(memory[place], memory[following])
