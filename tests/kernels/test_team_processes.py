"""Threads that run programs, over the life of a process: many programs, sleep, forks, and the interpreter's end.

Each check is a process of its own, so that a deadlock or a crash is a failure and not the end of the test run.
"""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from support import run_python

pytest.importorskip("tinyvae_kernels.cpu.runtime.team", reason="Numba is missing", exc_type=ImportError)

# A program of two jobs, the second of which reads what the first has written; both are cut into as many parts as there
# can be. `check(program)` runs it and looks at the result.
PROGRAMS = """
import atexit, os, sys, threading, time
import numpy as np
from tinyvae_kernels.cpu import activations
from tinyvae_kernels.cpu.runtime import team as team_module
from tinyvae_kernels.cpu.runtime.jobs import Job, Program
from tinyvae_kernels.cpu.runtime.team import team


def make(rows=32, width=48, work=1e12):
    x, y, bias = np.random.default_rng(0).normal(size=(rows, width)), np.zeros((rows, width)), np.zeros(width)
    one = np.ones(width)
    program = Program([Job(activations._identity, x, one, y, work=work),
                       Job(activations._column_sums, y, bias, rows, width, work=work)])
    program.places = y, bias
    program.expected = np.zeros(width)
    for row in x + 1:
        program.expected += row
    return program


def check(program):
    y, bias = program.places
    y[...], bias[...] = np.nan, np.nan
    program()
    if not np.array_equal(bias, program.expected):
        os.write(2, b"a wrong result\\n")
        os._exit(9)


"""


def finished(code, threads=4, timeout=60, **environment):
    """The output of a process that must come to a good end."""
    done = run_python(PROGRAMS + code, timeout=timeout, NUMBA_NUM_THREADS=str(threads), **environment)
    assert done.returncode == 0, done.stderr or f"killed by signal {-done.returncode}"
    assert "Error" not in done.stderr, done.stderr
    return done.stdout.split()


def together(*calls):
    """The results of several calls, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def all_finished(*codes):
    """The outputs of several processes."""
    return together(*(partial(finished, code) for code in codes))


# ---- no deadlock ---------------------------------------------------------------------

MANY = """
programs = [make(), make(5, 16), make(64, 100), make(work=0), Program.join([make() for _ in range(3)])]
joined = programs.pop()
for i in range(5000):
    check(programs[i % 4])
    joined()
print("done", len(team._helpers))
"""


@pytest.mark.parametrize("threads", [2, 4])
def test_many_thousands_of_short_programs(threads):
    assert finished(MANY, threads) == ["done", str(threads - 1)]


PAUSES = """
program = make()
for pause in [0, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 0.1] * 5:  # helpers look for some 3 ms before they sleep
    time.sleep(pause)
    check(program)
deadline = time.monotonic() + 30
while len(team._sleeping) < team.count - 1 and time.monotonic() < deadline:
    time.sleep(0.01)
print("asleep", len(team._sleeping))
check(program)
print("awake")
time.sleep(0.1)
"""


def test_programs_after_pauses():
    """Before, while and after the helpers fall asleep; the end comes while they sleep."""
    assert finished(PAUSES, 4) == ["asleep", "3", "awake"]


BUSY = """
stop = []
def run():
    program = make()
    while not stop:
        check(program)

threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(100):  # threads come and go beside them
    short = threading.Thread(target=lambda: check(make()))
    short.start()
    short.join()
stop.append(True)
for thread in threads:
    thread.join()
print("done")
"""


def test_many_python_threads_at_once():
    assert finished(BUSY) == ["done"]


# ---- forks ---------------------------------------------------------------------------

FORK = """
import warnings

warnings.simplefilter("ignore")  # Python warns of forks beside threads, which are what is tried here
program = make()


def fork(leave):
    child = os.fork()
    if not child:
        for _ in range(20):
            check(program)
        print(len(team._helpers), flush=True)
        leave(0)
    check(program)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


"""
LIVES = """
fork(os._exit)  # before the first program
for pause in (0, 0.1):  # helpers awake, helpers asleep
    check(program)
    time.sleep(pause)
    fork(os._exit)
    fork(sys.exit)
"""
WHILE_BUSY = """
stop = []
def run():
    own = make()
    while not stop:
        check(own)

thread = threading.Thread(target=run)
thread.start()
fork(os._exit)
fork(sys.exit)
stop.append(True)
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="optional: no fork here")
def test_a_fork_has_helpers_of_its_own():
    """A fork has one thread only, whatever its parent had; parent and child go on working, and both end well.

    It must not wait for a thread that it does not have, such as one that ran a program when it was forked.
    """
    lives, busy = all_finished(FORK + LIVES, FORK + WHILE_BUSY)
    assert lives == ["3", "0"] * 5
    assert busy == ["3", "0"] * 2


# ---- the end -------------------------------------------------------------------------

ENDS = {
    "before any program": "make()",
    "in a handler": "atexit.register(lambda: (check(make()), print('late')))",
    "in a handler, after sys.exit in a thread": """
thread = threading.Thread(target=lambda: (check(make()), sys.exit(0)))
thread.start()
thread.join()
atexit.register(lambda: (check(make()), print('late')))
""",
    "while daemon threads run programs": """
def run():
    program = make()
    while True:
        check(program)

for _ in range(2):
    threading.Thread(target=run, daemon=True).start()
time.sleep(0.05)
""",
    "after stop": "check(make()); team.stop(); check(make()); check(make())",
}


def test_the_interpreter_ends_cleanly():
    for how, output in zip(ENDS, all_finished(*ENDS.values()), strict=True):
        assert output == (["late"] if "late" in ENDS[how] else []), how


def test_the_last_handler_and_a_fault():
    """A handler registered before the kernels were imported runs after the helpers have ended: its program runs alone.

    An exception ends the process with status 1, not with a crash.
    """
    first = "import atexit\natexit.register(lambda: (check(make()), check(make()), print('last', flush=True)))\n"
    run = partial(run_python, timeout=60, NUMBA_NUM_THREADS="4")
    last, fault = together(lambda: run(first + PROGRAMS + "check(make())"),
                           lambda: run(PROGRAMS + "check(make()); raise KeyError('mine')"))  # fmt: skip
    assert (last.returncode, last.stdout.split(), last.stderr) == (0, ["last"], "")
    assert (fault.returncode, fault.stderr.splitlines()[-1]) == (1, "KeyError: 'mine'")


WINDOWS = """
import sys
from tinyvae_kernels.cpu.runtime import cache, compiled, helpers, memory, shares

system, sys.platform = sys.platform, "win32"  # while the team is compiled
from tinyvae_kernels.cpu.runtime import team

sys.platform = system
assert team._sched_yield is None
"""


def test_a_system_without_sched_yield(tmp_path):
    """On Windows a waiting thread pauses, and after a while it sleeps; the programs end, with the same results."""
    done = run_python(WINDOWS + PROGRAMS + PAUSES, timeout=120, NUMBA_NUM_THREADS="3", NUMBA_CACHE_DIR=str(tmp_path))
    assert (done.returncode, done.stdout.split()) == (0, ["asleep", "2", "awake"]), done.stderr


# ---- how many ------------------------------------------------------------------------

COUNT = "check(make()); print(team.count, len(team._helpers), threading.active_count(), make().jobs[0].row[4])"


def test_how_many_threads():
    """NUMBA_NUM_THREADS is obeyed, and 1 means one thread and one part; else the processors of this process count."""
    answers = together(lambda: finished(COUNT, 1), lambda: finished(COUNT, 3))
    for threads, output in zip((1, 3), answers, strict=True):
        count, helpers, active, parts = map(int, output)
        assert (count, helpers, active) == (threads, threads - 1, threads)
        assert (parts == 1) == (threads == 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="optional: no sched_setaffinity here")
def test_the_processors_of_this_process_count():
    """Not those of the machine: in a container or under taskset there are fewer."""
    one = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
    done = run_python(one + PROGRAMS + COUNT, timeout=60, NUMBA_NUM_THREADS="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "0", "1", "1"]


# ---- the checks notice ---------------------------------------------------------------


def test_wrong_results_hangs_and_crashes_are_found():
    def fault(kind, code, **options):
        with pytest.raises(kind) as caught:
            finished(code, **options)
        return str(caught.value)

    wrong, _, crash = together(
        lambda: fault(AssertionError, "p = make(); p.expected[0] += 1; check(p)"),
        lambda: fault(subprocess.TimeoutExpired, "threading.Event().wait()", timeout=2),
        lambda: fault(AssertionError, "atexit.register(os.abort)"),
    )  # fmt: skip
    assert wrong.startswith("a wrong result")
    assert crash.startswith("killed by signal 6")
