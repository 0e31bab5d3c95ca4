"""What stands between the tape and a card: products by cuBLAS, neighbours in one launch, the step as one CUDA graph.

On the host a library with cuBLAS's names, columns and refusals multiplies, and the stand-in for CuPy captures launches
and refuses everything else meanwhile. `python -m benchmarks gpu-check` runs the same checks on a card.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu import card, fake_cupy, host
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits
from tinyvae_kernels import kernels_for
from tinyvae_kernels.cuda.runtime import cublas, jobs
from tinyvae_kernels.cuda.runtime import driver as drivers

import tinyvae as tv
from tests.kernels.cuda.test_step import losses, made_up
from tinyvae.engine.devices import namespace, to_host
from tinyvae.engine.noise import Noise
from tinyvae.nn import layers
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

CUDA = kernels_for("cuda")  # imported before a test puts anything in the place of what they import
pytestmark = pytest.mark.skipif(host.compiler() is None and not card.ON_A_CARD,
                                reason=host.NO_COMPILER)
on_the_host = pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only: the stand-in and its mutants")


# ---- products ------------------------------------------------------------------------

# How a factor lies in memory: as it is, turned, beside other columns, that turned, or off the pieces of 16 bytes.
KINDS = ("rows", "columns", "part", "turned part", "off pieces")


def laid_out(values, kind):
    """The same matrix on the device, in memory of that kind."""
    xp, (rows, columns) = namespace("cuda"), values.shape
    if kind == "rows":
        return xp.asarray(values)
    if kind == "columns":
        return xp.asarray(np.ascontiguousarray(values.T)).transpose((1, 0))
    if kind == "off pieces":
        return xp.asarray(np.append(values[:1, 0], values))[1:].reshape(values.shape)
    wide = np.full((rows, columns + 3) if kind == "part" else (columns, rows + 3), np.nan, values.dtype)
    if kind == "part":
        wide[:, :columns] = values
        return xp.asarray(wide)[:, :columns]
    wide[:, :rows] = values.T
    return xp.asarray(wide)[:, :rows].transpose((1, 0))


def check_products(dtype, m, k, n, kinds, seed=0):
    """A product of the table on the device, against NumPy's in float64."""
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(m, k)).astype(dtype), draw.normal(size=(k, n)).astype(dtype)
    first, second = laid_out(a, kinds[0]), laid_out(b, kinds[1])
    found = tv.matmul(tv.Tensor(first), tv.Tensor(second))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    scale = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    assert_close(to_host(found.data), exact, k + 1, f"{kinds}", scale=np.maximum(scale, 1e-300))


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_every_layout(driver, dtype):
    @given(m=st.integers(1, 9), k=st.integers(1, 9), n=st.integers(1, 9), seed=st.integers(0, 2**31),
           kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)))  # fmt: skip
    def check(m, k, n, seed, kinds):
        check_products(dtype, m, k, n, kinds, seed)

    check()
    if drivers.current.blas is None:
        pytest.fail("cuBLAS was not used")


@on_the_host
@pytest.mark.parametrize("wrong", [lambda a: cublas.Layout(0, a.shape[1]), lambda a: cublas.Layout(1, a.shape[0])])
def test_a_wrong_layout_is_noticed(driver, monkeypatch, wrong):
    monkeypatch.setattr(cublas, "layout", wrong)
    with pytest.raises((AssertionError, cublas.CublasError)):
        check_products(np.float64, 3, 5, 4, ("part", "turned part"))


def test_what_cublas_cannot_take_is_cupys(driver):
    """Batches of matrices, and views with gaps both ways; wrong shapes get a sentence."""
    xp = namespace("cuda")
    a, b = np.arange(24.0).reshape(2, 3, 4), np.ones((2, 4, 2))
    found = tv.matmul(tv.Tensor(xp.asarray(a)), tv.Tensor(xp.asarray(b)))
    assert_close(to_host(found.data), a @ b, 4)
    gaps = xp.asarray(a[0])[::2, ::2]
    assert cublas.layout(gaps) is None
    found = tv.matmul(tv.Tensor(gaps), tv.Tensor(xp.ones((2, 2))))
    assert_close(to_host(found.data), a[0][::2, ::2] @ np.ones((2, 2)), 4)
    with pytest.raises(ValueError, match=r"expected \(\.\.\., m, k\) and \(\.\.\., k, n\)"):
        tv.matmul(tv.Tensor(xp.ones((2, 3))), tv.Tensor(xp.ones((2, 3))))


def test_tf32_is_asked_for_and_has_its_error(driver):
    """Off by default; on, factors have at least 11 bits; float64 knows none; a recorded product keeps what it had.

    TF32 allows a card to round, and it may multiply a small product exactly all the same; the stand-in always rounds.
    """
    xp, draw = namespace("cuda"), np.random.default_rng(0)
    a, b = draw.normal(size=(16, 300)), draw.normal(size=(300, 8))
    scale = np.abs(a) @ np.abs(b)

    def error(dtype, on):
        with tv.tf32(on), tv.Tape() as tape:
            found = tv.matmul(tv.Tensor(xp.asarray(a.astype(dtype))), tv.Tensor(xp.asarray(b.astype(dtype))))
        eager = to_host(found.data).copy()
        with tv.tf32(not on):
            tape.replay()
        assert_same_bits(to_host(found.data), eager, "replayed under another switch")
        return float(np.max(np.abs(eager - a @ b) / scale))

    assert not tv.tf32.setting.get()
    assert error(np.float32, False) <= 1e-6
    assert (0 if card.ON_A_CARD else 1e-6) <= error(np.float32, True) <= 2.0**-11
    assert error(np.float64, True) <= 1e-14


# ---- neighbours ----------------------------------------------------------------------


def draw(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def noise_and_sample(dtype, xp, size):
    noise = Noise(7, "noise", xp.asarray(np.array([5, 0, 0])))
    raw = tv.Tensor(xp.asarray(draw((size, 74), dtype)))
    eps = noise.normal((2, size, 37), dtype)
    return [eps, *tv.apply("gaussian_sample_kl", raw, eps)]


def first_of_a_step(dtype, xp, size):
    counters = tv.Tensor(xp.asarray(np.array([9, 3, 1])))
    order, plan = tv.Tensor(xp.asarray(np.arange(1000)[::-1].copy())), tv.Tensor(xp.asarray(draw((4, 2), dtype)))
    return [tv.apply("next_rates", plan, counters), tv.apply("next_indices", order, counters, batch=size)]


def objective(dtype, xp, size):
    reconstruction, kl, rates = (tv.Tensor(xp.asarray(draw(shape, dtype, i)))
                                 for i, shape in enumerate(((size,), (size,), (2,))))
    g = tv.Tensor(xp.asarray(np.array(1.5, dtype)))
    return [tv.apply("objective", reconstruction, kl, rates), *tv.apply("objective_grad", g, kl, rates)]


def last_of_a_step(dtype, xp, size):
    terms = [tv.Tensor(xp.asarray(draw(size, dtype, i))) for i in (1, 2)]
    totals, counters = tv.Tensor(xp.asarray(np.arange(7.0))), tv.Tensor(xp.asarray(np.array([9, 3, 1])))
    status = tv.Tensor(xp.asarray(np.array([1.0, 1.0, 2.5, 4.0])))
    tv.apply("accumulate", *terms, tv.Tensor(xp.asarray(np.array(3.5, dtype))), totals, status)
    tv.apply("tick", counters, batch=size)
    return [totals, counters]


NEIGHBOURS = {"drawn_sample_kl": noise_and_sample, "begin_step": first_of_a_step, "objective_and_grad": objective,
              "end_step": last_of_a_step}


def check_neighbours(name, dtype, size):
    """What two launches leave, replayed one by one, and what they leave as one launch: the same bits."""
    results = []
    for merge in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if not merge:
                patch.setattr(jobs, "MERGES", {})
            with tv.Tape() as tape:
                found = NEIGHBOURS[name](dtype, namespace("cuda"), size)
            for result in found:
                if result.launch is not None:
                    result.data[...] = 0  # the recording's own value must not pass for the replay's
            tape.replay()
            names = [job.kernel for job in tape.calls[0].jobs]
            assert (len(names), name in names) == ((1, True) if merge else (2, False))
            results.append([to_host(t.data) for t in found])
    for one, two in zip(*results, strict=True):
        assert_same_bits(two, one, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_in_one_launch_leave_the_same_bits(driver, name, dtype):
    assert set(NEIGHBOURS) == {"drawn_sample_kl", "begin_step", "objective_and_grad", "end_step"}
    for schedule in host.SCHEDULES:
        driver.schedule = schedule
        for size in (1, 33, 300):
            check_neighbours(name, dtype, size)


MUTANTS = [
    ("drawn_sample_kl", "philox(index / 4", "philox(index / 2"),
    ("drawn_sample_kl", "index & 1 ? sine", "index & 2 ? sine"),
    ("drawn_sample_kl", "{(unsigned)counters[STEP], seed", "{(unsigned)counters[STEP] + 1, seed"),
    ("begin_step", "take_rates(plan, counters, rates_out, batches, rates);\n}\n\nextern", "}\n\nextern"),
    ("objective_and_grad", "gradient(g, rates, by_reconstruction, by_kl, (unsigned)count)",
     "gradient(g, rates, by_kl, by_reconstruction, (unsigned)count)"),
    ("end_step", "  advance(counters, batch);\n}", "}"),
]  # fmt: skip


@on_the_host
@pytest.mark.parametrize("place", range(len(MUTANTS)))
def test_a_wrong_merge_is_noticed(driver, monkeypatch, place):
    name, old, new = MUTANTS[place]
    right = driver.module

    texts = [drivers.source(file) for file in drivers.FILES]
    assert any(old in text for text in texts), "there is no such place any more: change the mutant"
    monkeypatch.setattr(driver, "module", lambda code, options: right(code.replace(old, new), options))
    with pytest.raises((AssertionError, host.KernelError)):
        check_neighbours(name, np.float64, 33)


@on_the_host
def test_neighbours_of_other_arrays_stay_two(driver):
    """A sample of other noise than the one drawn before it, and rates by another counters."""
    xp = namespace("cuda")
    raw, other = tv.Tensor(xp.asarray(draw((5, 6), np.float32))), tv.Tensor(xp.asarray(draw((1, 5, 3), np.float32)))
    order, plan = tv.Tensor(xp.asarray(np.arange(9))), tv.Tensor(xp.asarray(draw((4, 2), np.float32)))
    clocks = [tv.Tensor(xp.asarray(np.array([i, 1, 1]))) for i in (0, 1)]
    with tv.Tape() as tape:
        Noise(7, "noise", clocks[0].data).normal((1, 5, 3), np.float32)
        tv.apply("gaussian_sample_kl", raw, other)
        tv.apply("next_rates", plan, clocks[1])
        tv.apply("next_indices", order, clocks[0], batch=3)
    tape.replay()
    assert [job.kernel for job in tape.calls[0].jobs] == ["normal", "sample_kl", "next_rates",
                                                                       "next_indices"]  # fmt: skip


# ---- the captured step ---------------------------------------------------------------


def training(**settings):
    ready = Training(tv.VAE(36, 17, 5, device="cuda"), made_up(), Settings(batch=25, **settings))
    ready.begin_epoch()
    return ready


@on_the_host
def test_a_step_is_one_graph(driver):
    """Recorded, compared, then one call: nothing of a step is left outside, and later runs launch the graph alone."""
    ready = training(epochs=9)
    captured = []
    graph = drivers.CuPy.graph
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drivers.CuPy, "graph", lambda self, run: captured.append(graph(self, run)) or captured[-1])
        for _ in range(5):
            ready.counters[1] = ready.counters[2] = 0
            ready.step()
    (program,) = ready.step_now().program.tape(25).calls
    assert len(captured) == 1
    assert program._run is captured[0]
    before = len(driver.launches)
    ready.step()
    kernels = len(driver.launches) - before
    products = sum(isinstance(job, jobs.Product) for job in program.jobs)
    print(f"{len(program.jobs)} launches in a step, {products} of them products")
    assert (kernels + products, products) == (len(program.jobs), 11)
    assert len(program.jobs) <= 32


@on_the_host
def test_replays_and_new_runs_add_in_the_same_order(driver, monkeypatch):
    """cuBLAS may add in another order where a result does not begin on 16 bytes, as its stand-in does; a replay writes
    gradients into the gradient vector, a new run into memory of its own, so both have to begin there."""
    losses("cuda", np.float64, 4)
    monkeypatch.setattr(layers, "ALIGN", 1)
    with pytest.raises(tv.TapeError, match=r"differs from the same step run anew|leaves another state"):
        losses("cuda", np.float64, 4)


@on_the_host
@pytest.mark.parametrize("estimator", ["implicit", "grep"])
@pytest.mark.parametrize("posterior", ["gamma", "beta", "dirichlet"])
def test_a_step_of_the_gamma_family_is_one_graph(driver, posterior, estimator):
    """Draws by rejection, their derivatives, densities and all between them: no launch of the array library is left."""
    model = tv.VAE(36, 17, 5, device="cuda", posterior=posterior)
    chosen = {} if estimator == "implicit" else {"estimator": estimator}
    ready = Training(model, made_up(), Settings(batch=25, epochs=9, **chosen))
    ready.begin_epoch()
    for _ in range(4):
        ready.counters[1] = ready.counters[2] = 0
        ready.step()
    tape = ready.step_now().program.tape(25)
    (program,) = tape.calls
    assert program.captured
    print(f"{len(program.jobs)} launches in a step")
    drawn = sum(launch.rule.name == "log_gamma" for launch in tape.launches)
    assert driver.launches.count("log_gamma") >= drawn == (2 if posterior == "beta" else 1)
    with tv.fused(False):
        model = tv.VAE(36, 17, 5, device="cuda", posterior=posterior)
        library = Training(model, made_up(), Settings(batch=25, epochs=9, **chosen))
        library.begin_epoch()
        for _ in range(2):
            library.step()
    assert len(library.step_now().program.tape(25).calls) > 50


@on_the_host
def test_a_step_with_other_operations_is_several_graphs(driver):
    """What is not a kernel (here a row of free bits) is CuPy's, between the captured parts."""
    there, _ = losses("cuda", np.float64, 6, free_bits=0.1)
    here, _ = losses("cpu", np.float64, 6, free_bits=0.1)
    assert np.abs(there / here - 1).max() <= 1e-12


@on_the_host
def test_where_capture_fails_the_step_runs_on(driver, monkeypatch):
    def fail(self):
        fake_cupy.Stream.capturing = None
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(fake_cupy.Stream, "end_capture", fail)
    with pytest.warns(RuntimeWarning, match=r"could not be captured.*cudaErrorStreamCaptureInvalidated.*same results"):
        there, _ = losses("cuda", np.float64, 6)
    here, _ = losses("cpu", np.float64, 6)
    assert np.abs(there / here - 1).max() <= 1e-12


@on_the_host
def test_without_cublas_products_are_cupys(driver, monkeypatch):
    def gone():
        raise OSError("libcublas.so: cannot open shared object file")

    monkeypatch.setattr(drivers, "library", gone)
    with pytest.warns(RuntimeWarning, match="cuBLAS was not found"):
        there, _ = losses("cuda", np.float64, 6)
    here, _ = losses("cpu", np.float64, 6)
    assert np.abs(there / here - 1).max() <= 1e-12


@on_the_host
@pytest.mark.parametrize(("create", "reason"), [
    ({"cublasCreate_v2": lambda handle: 1}, "cublasCreate_v2 failed with status 1"),
    ({"cublasCreate_v2": lambda handle: cublas.NO_MEMORY}, "cublasCreate_v2 found no memory"),
    ({}, "has no attribute 'cublasCreate_v2'"),
])  # fmt: skip
def test_a_cublas_that_does_not_start_is_as_if_it_were_missing(driver, monkeypatch, create, reason):
    monkeypatch.setattr(drivers, "library", lambda: SimpleNamespace(**create))
    with pytest.warns(RuntimeWarning, match=f"cuBLAS could not be started .*{reason}"):
        assert drivers.current.blas is None
    a = namespace("cuda").asarray(np.eye(3))
    assert not CUDA.multiplies(a, a)
    assert_close(to_host(tv.matmul(tv.Tensor(a), tv.Tensor(a)).data), np.eye(3), 1)


@on_the_host
def test_the_stand_in_captures_kernels_only(driver):
    """It refuses an operation of CuPy's and a product on another stream, as CUDA would."""
    stream, xp = fake_cupy.Stream(), namespace("cuda")
    a = xp.asarray(np.ones((2, 2)))
    with stream:
        stream.begin_capture()
        with pytest.raises(fake_cupy.CaptureError, match="add while a graph is captured"):
            xp.add(a, a)
        stream.end_capture()
    run = drivers.current.blas.product(a, a, xp.asarray(np.zeros((2, 2))), False)
    monkey = drivers.current.blas
    run()
    monkey._stream = lambda: 0  # asks always for the default stream
    with stream, pytest.raises(fake_cupy.CaptureError, match="another stream"):
        run()


@on_the_host
def test_the_stand_in_joins_the_streams_of_a_capture(driver):
    """It refuses work on a stream that takes no part, events of elsewhere, a stream that nothing waits for in the end,
    and one workspace for two streams; and where no event says it, what was captured later may run earlier."""
    xp, blas = namespace("cuda"), drivers.current.blas
    first, second, stranger = (fake_cupy.Stream(non_blocking=True) for _ in range(3))
    before, fork, join = (fake_cupy.Event(disable_timing=True) for _ in range(3))
    first.record(before)
    a, out = xp.asarray(np.ones((2, 2))), xp.asarray(np.zeros((2, 2)))
    done = []
    with first:
        first.begin_capture()
        fake_cupy.Stream.submit(lambda: done.append("fork"))
        first.record(fork)
        fake_cupy.Stream.submit(lambda: done.append("first"))
        with pytest.raises(fake_cupy.CaptureError, match="takes no part"), stranger:
            fake_cupy.Stream.submit(print)
        with pytest.raises(fake_cupy.CaptureError, match="takes no part"):
            stranger.record(join)
        for elsewhere in (before, join):
            with pytest.raises(fake_cupy.CaptureError, match="in another capture"):
                second.wait_event(elsewhere)
        second.wait_event(fork)
        with second:
            fake_cupy.Stream.submit(lambda: done.append("second"))
        second.record(join)
        first.wait_event(join)
        fake_cupy.Stream.submit(lambda: done.append("join"))
        graph = first.end_capture()
        for order in ("early", "late"):
            fake_cupy.Stream.order = order
            graph.launch()
        fake_cupy.Stream.order = "early"
        with pytest.raises(fake_cupy.CaptureError, match="in another capture"):
            second.wait_event(join)

        first.begin_capture()
        blas.product(a, a, out, False)()
        first.record(fork)
        second.wait_event(fork)
        with second, pytest.raises(fake_cupy.CaptureError, match="the workspace of another stream"):
            blas.product(a, a, out, False)()
        with second:
            fake_cupy.Stream.submit(print)
        with pytest.raises(fake_cupy.CaptureError, match="cudaErrorStreamCaptureUnjoined"):
            first.end_capture()
        with pytest.raises(fake_cupy.CaptureError, match="began none"):
            first.end_capture()
    assert done == ["fork", "second", "first", "join", "fork", "first", "second", "join"]
    with pytest.raises(ValueError, match="keep none"):
        fake_cupy.elapsed(fork, join)
