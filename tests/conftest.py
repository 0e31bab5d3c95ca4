"""One profile for all property tests, and two rules for every test: leave no global state behind, and where
TINYVAE_REQUIRE_ALL is set, skip nothing for want of data, Numba or a compiler."""

import contextlib
import gc
import os
import sys
import warnings

# Two test processes share the cores with those that they start. The threads of a BLAS, which it makes when NumPy is
# imported, would wait for each other there, and count as busy while they wait.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

from tinyvae.engine import tape
from tinyvae.engine.devices import NAMESPACES, Namespace
from tinyvae.engine.fusion import fused, tf32
from tinyvae.engine.rules import TABLE

hypothesis.settings.register_profile(
    "tinyvae",
    deadline=None,  # the first example may compile a kernel
    derandomize=bool(os.environ.get("CI")),  # the same examples in every run of CI, new ones at a desk
    print_blob=True,  # how to reproduce a failure
    database=None,  # no memory of earlier runs
    max_examples=25,
    # where any failure will do, as to a mutant, no smaller example is looked for: each try may compile a kernel again
    phases=[phase for phase in hypothesis.Phase
            if phase.name not in ("shrink", "explain") or "TINYVAE_FIRST_FAILURE" not in os.environ],
)
hypothesis.settings.load_profile("tinyvae")

# The tests start more than a hundred processes, each of which would compile the same sources of Python again where
# this is set, as it is in many containers; and pytest would rewrite the assertions of all files in every run.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Thousands of tests are collected, and none is garbage: nobody need look for it among them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may be missing
def pytest_xdist_make_scheduler(config, log):
    """A file's tests run in one process, so that what they share, such as a trained model, is made once."""
    if config.getvalue("dist") != "load":  # another order was asked for
        return None
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


# ---- no test leaves global state behind ----------------------------------------------


def _global_state():
    return {
        "tapes that record": tape.RECORDING.get(),
        "TF32": tf32.setting.get(),
        "the switch of the fused kernels": fused.setting.get(),
        "the namespaces": dict(NAMESPACES),
        "NumPy's error handling": np.geterr(),
        "the rows of the table": dict(TABLE),
    }


def _restore(state):
    """So that one leak fails one test, not all that follow."""
    tape.RECORDING.set(state["tapes that record"])
    fused(state["the switch of the fused kernels"])
    tf32(state["TF32"])
    NAMESPACES.clear()
    NAMESPACES.update(state["the namespaces"])
    np.seterr(**state["NumPy's error handling"])
    TABLE.clear()
    TABLE.update(state["the rows of the table"])


@pytest.fixture(autouse=True)
def _no_leaks():
    before = _global_state()
    yield
    after = _global_state()
    changed = [what for what in before if before[what] != after[what]]
    if changed:
        _restore(before)
    assert not changed, f"the test changed and did not restore: {', '.join(changed)}"


@pytest.fixture
def driver(monkeypatch):
    """A stand-in for CuPy and a card, with the driver that runs its kernels; on a card nothing stands in."""
    from cuda_on_cpu import card, fake_cupy, host

    driver = host.Driver()
    if card.ON_A_CARD:
        monkeypatch.setitem(NAMESPACES, "cupy", Namespace("cuda", "cupy", "cupyx.scipy.special"))
    else:
        fake_cupy.install(monkeypatch, driver)
    return driver


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Call the program as its entry point does, in an empty folder: (exit code, standard output, standard error).

    Its pictures have few pixels, which take less time.
    """
    import matplotlib.font_manager  # noqa: F401  (it lists the fonts of the machine where its cache is empty)

    from tinyvae.cli import main as cli
    from tinyvae.pictures import page

    with contextlib.suppress(ImportError):  # it decides where machine code is kept, and not in this test's folder
        import tinyvae_kernels.cpu.runtime.cache  # noqa: F401
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TINYVAE_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which `main` changes
    monkeypatch.setattr(page, "DPI", 70)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tinyvae", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        if isinstance(code, str):  # what the interpreter does with such an exit
            return 1, printed.out, printed.err + code + "\n"
        return code or 0, printed.out, printed.err

    return call


# ---- what nobody catches -------------------------------------------------------------
# An exception in a kernel, a destructor or a callback of C has no caller: Python prints "Exception ignored" and goes
# on, and what should have been computed was not. pytest makes a warning of it, here it is a failure.


@pytest.fixture(autouse=True)
def _nothing_is_ignored(monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    yield
    assert not ignored, f"an exception was ignored: {[(one.err_msg, one.object, one.exc_value) for one in ignored]}"


# ---- skips ---------------------------------------------------------------------------
# A skip says what is missing. Where everything is meant to be there, it is a failure; "optional: ..." stays a skip.


def _refuse_skip(report):
    if os.environ.get("TINYVAE_REQUIRE_ALL") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith("optional:"):
        report.outcome = "failed"
        report.longrepr = f"{reason}\nTINYVAE_REQUIRE_ALL=1 refuses skips for want of something"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _refuse_skip((yield))


@pytest.fixture(scope="session")
def browser():
    """Chromium for all tests of pages: playwright allows one of its programs in a process."""
    from browser import launched

    with launched() as chromium:
        yield chromium
