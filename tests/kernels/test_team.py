"""Threads that run programs: every part once, every job after the one before it, the same bits for any number of them.

Kernels of these tests are written in Python, so that they can say which part ran in which thread, and wait for each
other. A program that never ends is a failure after a minute and not a hang.
"""

import ctypes
import functools
import gc
import itertools
import threading
import time
import weakref

import numpy as np
import pytest
import tinyvae_kernels
from support import KERNEL, assert_same_bits, run_parts

import tinyvae as tv
from tinyvae.data import DataSet
from tinyvae.engine.devices import CPU
from tinyvae.engine.fusion import kernel_of
from tinyvae.engine.rules import TABLE
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

team_module = pytest.importorskip("tinyvae_kernels.cpu.runtime.team", reason="Numba is missing", exc_type=ImportError)
numba = pytest.importorskip("numba", reason="Numba is missing")
pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
cpu = tinyvae_kernels.kernels_for("cpu")
from tinyvae_kernels.cpu import activations  # noqa: E402
from tinyvae_kernels.cpu.runtime.jobs import Job, Program  # noqa: E402
from tinyvae_kernels.cpu.runtime.team import Team  # noqa: E402

MINUTE = 60
COUNTS = (1, 2, 4, 7)  # threads: more than there are processors must do too

# ---- tools ---------------------------------------------------------------------------


def ends(test):
    """Run a test in a thread of its own, and fail if it has not come back after a minute."""
    @functools.wraps(test)
    def run(*arguments, **named):
        outcome = []

        def body():
            try:
                test(*arguments, **named)
                outcome.append(None)
            except BaseException as fault:
                outcome.append(fault)

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(MINUTE)
        assert outcome, f"no end after {MINUTE} s"
        if outcome[0] is not None:
            raise outcome[0]

    return run


@functools.cache
def team_of(count):
    return Team(count)


@pytest.fixture
def work_with(monkeypatch):
    """Let programs that are made from now on be run by so many threads."""
    def change(count):
        team = team_of(count)
        monkeypatch.setattr(team_module, "team", team)
        return team

    return change


class Written:
    """A kernel written in Python: `function(part, parts)`."""

    name, parameters, typed = "written", (), None

    def __init__(self, function):
        self.call = KERNEL(lambda p, n, s, part, parts: function(part, parts))

    def address(self, dtype):
        return ctypes.cast(self.call, ctypes.c_void_p).value


def job(function, parts):
    """A job of so many parts."""
    made = Job(Written(function))
    made.row = (*made.row[:4], parts)
    return made


def recorded(*parts):
    """A program of such jobs, and the list into which they write (job, part, parts, thread) when they run."""
    log = []

    def record(number):
        return lambda part, parts: log.append((number, part, parts, threading.get_ident()))

    return Program([job(record(number), count) for number, count in enumerate(parts)]), log


# ---- every part once, in order -------------------------------------------------------


def check_log(log, parts, alone=False):
    """Each part of each job once, and no job before the one before it was done."""
    numbers = [number for number, *_ in log]
    assert numbers == sorted(numbers), "a job began before the one before it was done"
    for number, count in enumerate(parts):
        count = 1 if alone else count
        assert sorted(part for n, part, *_ in log if n == number) == list(range(count)), f"the parts of job {number}"
        assert all(total == count for n, _, total, _ in log if n == number), f"the number of parts of job {number}"
    assert len(log) == sum(1 if alone else count for count in parts)


@pytest.mark.parametrize("count", COUNTS)
@ends
def test_every_part_runs_once_and_jobs_in_order(work_with, count):
    work_with(count)
    parts = [1, 2, count, 1, 1, 4 * count, 3, 61, 5, 1]
    program, log = recorded(*parts)
    for _ in range(100):
        log.clear()
        program()
        check_log(log, parts, alone=count == 1)


def test_wrong_orders_are_found():
    """A part left out, a part done twice, a job begun too early, another number of parts."""
    parts = [1, 3, 2]
    log = [(number, part, count, 0) for number, count in enumerate(parts) for part in range(count)]
    check_log(log, parts)
    for wrong in (log[:-1], [*log, log[-1]], [log[i] for i in (0, 1, 2, 4, 3, 5)], [(n, p, 3, 0) for n, p, *_ in log]):
        with pytest.raises(AssertionError):
            check_log(wrong, parts)


@pytest.mark.parametrize("count", COUNTS)
@ends
def test_empty_programs_and_large_numbers_of_parts(work_with, count):
    work_with(count)
    Program([])()
    Program.join([])()
    Program.join([Program([]), Program([])])()
    program, log = recorded(1000)
    program()
    check_log(log, [1000], alone=count == 1)


def test_how_work_is_cut():
    """Little work is one part, much is as many as the threads need; one thread gets everything in one."""
    for count in COUNTS:
        team = team_of(count)
        sizes = [team.parts(work) for work in (0, 1, team_module.GRAIN, 1e5, 1e6, 1e12)]
        assert sizes == sorted(sizes)
        assert sizes[:3] == [1, 1, 1]
        assert sizes[-1] == team.most
        assert (team.most == 1) == (count == 1)
        assert sizes[-1] >= count
    assert Job(activations._column_sums, np.zeros((1, 1)), np.zeros(1), 1, 1, work=1e12).row[4] == team_module.team.most


@pytest.mark.parametrize("count", COUNTS)
def test_shares_cover_everything_once(count):
    """The parts of rows and of columns, at any size, cover it without gap or overlap."""
    from tinyvae_kernels.cpu.runtime import shares

    with pytest.raises(TypeError, match="share is for compiled kernels only"):
        shares.share(1, 0, 1)

    def callable_from_python(helper):
        return numba.njit(lambda size, part, parts: helper(size, part, parts))

    share, columns = map(callable_from_python, (shares.share, shares.columns))
    for cut, size in itertools.product((share, columns), (0, 1, 15, 16, 17, 33, 100, 784, 1000)):
        for parts in (1, count, 4 * count):
            pieces = [cut(size, part, parts) for part in range(parts)]
            assert (pieces[0][0], pieces[-1][1]) == (0, size)
            assert all(first <= last for first, last in pieces)
            assert all(before[1] == after[0] for before, after in itertools.pairwise(pieces))


# ---- who works -----------------------------------------------------------------------


def met(count):
    """A job whose parts each wait for all others, so that it ends only if so many threads work at once."""
    barrier, seen = threading.Barrier(count), set()

    def meet(part, parts):
        try:
            barrier.wait(MINUTE / 2)
            seen.add(threading.get_ident())
        except threading.BrokenBarrierError:
            pass

    return job(meet, count), seen


def wait_for(what, true):
    deadline = time.monotonic() + MINUTE / 2
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


@pytest.mark.parametrize("count", [n for n in COUNTS if n > 1])
@ends
def test_all_threads_work_at_once(count):
    """Also after they have gone to sleep. A helper that is just about to sleep may miss its signal, and leaves its part
    to the others, who cannot take it here: so all sleep before each meeting."""
    team = team_of(count)
    for _ in range(2):
        if team._helpers:
            wait_for("helpers never sleep", lambda: len(team._sleeping) == count - 1)
        meeting, seen = met(count)
        program = Program([meeting])
        team.run(*program._arguments)
        assert len(seen) == count
    wait_for("helpers never sleep", lambda: len(team._sleeping) == count - 1)


@ends
def test_a_helper_that_does_not_come_is_not_waited_for(monkeypatch):
    """Nothing is kept for a helper that has not begun: the leader does it all."""
    team = Team(4)
    monkeypatch.setattr(team, "_rouse", lambda: None)
    program, log = recorded(4, 16, 1, 16)
    for _ in range(20):
        log.clear()
        team.run(*program._arguments)
        check_log(log, [4, 16, 1, 16])
        assert {thread for *_, thread in log} == {threading.get_ident()}


@ends
def test_a_helper_that_is_held_up_holds_up_only_what_it_has_begun():
    """All other parts of the job are done by the others meanwhile."""
    team, leader = team_of(2), threading.get_ident()
    begun, others = threading.Event(), threading.Event()
    done, late = [], []

    def work(part, parts):
        if threading.get_ident() == leader:
            begun.wait(MINUTE / 2)
        elif not begun.is_set():
            begun.set()
            late.append(others.wait(MINUTE / 2))  # held up until all but this part are done
        done.append(part)
        if len(done) == parts - 1:
            others.set()

    team.run(*Program([job(work, 8)])._arguments)
    assert sorted(done) == list(range(8))
    assert late == [True]


@ends
def test_small_jobs_need_no_helper():
    """A program whose jobs have one part each starts no thread."""
    team, before = Team(4), threading.active_count()
    program, log = recorded(1, 1, 1)
    team.run(*program._arguments)
    check_log(log, [1, 1, 1])
    assert {thread for *_, thread in log} == {threading.get_ident()}
    assert (team._helpers, threading.active_count()) == ([], before)


@ends
def test_a_second_python_thread_runs_alone():
    """While one thread has the helpers, another gets its program done by itself, in whole jobs."""
    team = team_of(4)
    inside, leave = threading.Event(), threading.Event()

    def stay(part, parts):
        inside.set()
        leave.wait(MINUTE / 2)

    first = threading.Thread(target=lambda: team.run(*Program([job(stay, 4)])._arguments), daemon=True)
    first.start()
    assert inside.wait(MINUTE / 2)
    program, log = recorded(16, 1, 16)
    team.run(*program._arguments)
    check_log(log, [16, 1, 16], alone=True)
    assert {thread for *_, thread in log} == {threading.get_ident()}
    assert not leave.is_set()
    leave.set()
    first.join()
    log.clear()
    team.run(*program._arguments)  # and now again with helpers
    check_log(log, [16, 1, 16])


# ---- results -------------------------------------------------------------------------


def chain(length, rows=48, width=80):
    """Rows plus a bias, then the sums of their columns, which are the next bias: cut one way, then the other.

    Each number depends on all numbers before it, so a part that began too early changes the bits of the end.
    """
    rng = np.random.default_rng(0)
    x, y, bias = rng.normal(size=(rows, width)), np.empty((rows, width)), np.zeros(width)
    programs = []
    for _ in range(length):
        programs.append(Program([Job(activations._identity, x, bias, y, work=1e12)]))
        programs.append(Program([Job(activations._column_sums, y, bias, rows, width, work=1e12)]))
    return programs, bias


@functools.cache
def end_of_chain(length):
    """The bias at the end, by every part of every job one after the other."""
    programs, bias = chain(length)
    run_parts(Program.join(programs), 1)
    return bias


def check_chain(make, length=40, times=50):
    for _ in range(times):
        programs, bias = chain(length)
        make(programs)()
        assert_same_bits(bias, end_of_chain(length), "the chain")


@pytest.mark.parametrize("count", COUNTS)
@ends
def test_joined_programs_run_in_order(work_with, count):
    work_with(count)
    check_chain(Program.join)
    check_chain(lambda programs: Program.join([Program.join(programs[:7]), Program([]), *programs[7:]]), times=5)


@ends
def test_a_wrong_order_changes_the_end_of_the_chain(work_with):
    """Two jobs exchanged; a job left out; one part of a job begun before the job before it."""
    work_with(2)

    def early(programs):
        def run():
            Program.join(programs[:20])()
            code, p, n, s, _ = programs[21].jobs[0].row
            KERNEL(code)(p, n, s, 31, 32)
            kept = programs[21].jobs[0].keep[1][1][-1]  # the last column's sum
            Program.join(programs[20:22])()
            programs[21].jobs[0].keep[1][1][-1] = kept
            Program.join(programs[22:])()

        return run

    for wrong in (lambda programs: Program.join([*programs[:8], programs[9], programs[8], *programs[10:]]),
                  lambda programs: Program.join(programs[:-1]), early):  # fmt: skip
        with pytest.raises(AssertionError, match="the chain"):
            check_chain(wrong, times=1)


@ends
def test_many_python_threads(work_with):
    """Each with programs of its own, whoever has the helpers."""
    work_with(4)
    faults = []

    def run():
        try:
            check_chain(Program.join, times=20)
        except AssertionError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def trained():
    """The state of a run after some steps whose every launch is large enough to be cut into parts."""
    pixels = np.random.default_rng(0).integers(0, 256, (330, 400)).astype(np.uint8)
    data = DataSet("made-dynamic", pixels[:300], pixels[300:], (20, 20), 255.0, "dynamic", "bernoulli")
    training = Training(tv.VAE(400, hidden=120, latent=20), data, Settings(batch=120, epochs=4, clip=50.0))
    for training.epoch in range(4):
        for _ in training.steps():
            pass
        training.counters[1:] = 0
    return training


def check_training(work_with, counts):
    """The same bits at the end, by one program a step whose jobs are cut into parts."""
    states = {}
    for count in counts:
        work_with(count)
        training = trained()
        states[count] = {name: array.copy() for name, array in training.state().items()}
        tape = training.step_now().program.tape(120)
        programs = [call for call in tape.calls if isinstance(call, Program)]
        parts = [job.row[4] for program in programs for job in program.jobs]
        assert (max(parts) > 1) == (count > 1)
        assert len(programs) < 4 < len(parts), "the step is not one program"
    for count, (name, array) in itertools.product(counts, states[counts[0]].items()):
        assert_same_bits(states[count][name], array, f"{name}, {count} threads")


@ends
def test_a_training_has_the_same_bits_with_any_number_of_threads(work_with):
    check_training(work_with, COUNTS)


@ends
def test_a_sum_over_the_parts_is_found(work_with, monkeypatch):
    """A bias gradient whose rows are summed part by part: right to rounding, and not the same bits."""
    right = kernel_of(TABLE["bias_grad"], CPU)

    def by_parts(xp, g, out=None):
        pieces = np.array_split(g, team_module.team.count)
        found = np.sum([right(xp, np.ascontiguousarray(piece), out=None) for piece in pieces], axis=0)
        return found if out is None else np.copyto(out, found) or out

    monkeypatch.setitem(TABLE["bias_grad"].kernels, "cpu", by_parts)
    with pytest.raises(AssertionError, match="2 threads: the bits differ"):
        check_training(work_with, (1, 2))


# ---- memory --------------------------------------------------------------------------


def test_jobs_keep_their_arrays_alive():
    """A program is addresses: what they point to lives as long as it does, and no longer."""
    arrays = [np.full((9, 7), 2.0), np.ones(7), np.zeros((9, 7))]
    out, kept = arrays[2], [weakref.ref(a) for a in arrays]
    program = Program.join([cpu.bias_activation.bind(*arrays[:2], out=out, kind="identity")])
    del arrays
    gc.collect()
    noise_around = [np.full((9, 7), -1.0) for _ in range(100)]  # would take the place of what was freed
    program()
    assert (out == 3).all()
    assert all(ref() is not None for ref in kept)
    index = np.arange(3)
    program = cpu.next_indices.bind(np.arange(9), np.array([0, 4, 0]), index, batch=3)
    gc.collect()
    noise_around += [np.full(9, -1) for _ in range(100)]
    program()
    assert index.tolist() == [4, 5, 6]
    del program, out
    gc.collect()
    assert not any(ref() is not None for ref in kept)
