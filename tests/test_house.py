"""The house: which module may import which, how long files are, what names mean, and the rules of the test run."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, run_python

import tinyvae

TESTS = Path(__file__).resolve().parent

# From the bottom to the top; a module may import what stands in a line above its own, nothing beside or below it.
LEVELS = (
    "rules devices checkpoint timing",
    "machine special",
    "listing",
    "tape",
    "tensor",
    "noise",
    "layers optimizers distributions batches data expressions recipes elbo_lesson",
    "estimators quadrature",
    "gradient_estimates",
    "bounds models fusion montecarlo hmc pareto variance variance_problems",
    "trust",
    "ais",
    "harmonic",
    "evidence testing settings variance_study inference",
    "training",
    "runs figures bench",
    "gallery doctor display lesson_figures variance_figure",
    "cli_lessons",
    "cli_variance",
    "cli",
    "__main__",
)
LEVEL = {name: i for i, line in enumerate(LEVELS) for name in line.split()}
# Closer limits than the order gives: these import nothing of tinyvae but what is named.
ONLY = {
    "rules": set(), "devices": set(), "checkpoint": set(), "timing": set(),
    "machine": {"timing"}, "listing": {"machine"},
    "tape": {"rules", "devices", "listing"}, "tensor": {"rules", "devices", "tape"},
    "noise": {"devices", "rules", "tensor"}, "special": {"rules"},
    "data": {"noise"}, "batches": {"devices", "noise", "rules", "tensor"},
    "optimizers": {"devices", "rules", "tensor"}, "layers": {"devices", "noise", "rules", "tensor"},
    "distributions": {"devices", "noise", "rules", "special", "tensor"},
    "estimators": {"devices", "distributions", "rules", "tensor"},
    "bounds": {"distributions", "estimators", "rules", "tensor"},
}  # fmt: skip


def unguarded(tree):
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from unguarded(child)


def imports(text, package="tinyvae", above=""):
    """What a source text imports of a package, wherever in it, by the first name below the package."""
    found, inside = set(), f"{above}{package}."
    for node in unguarded(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            names = [f"{name.name}.__init__" for name in node.names]
        else:
            continue
        found |= {name.removeprefix(inside).partition(".")[0] for name in names if name.startswith(inside)}
    return found


def modules():
    """Each module or subpackage of tinyvae with the sources it consists of."""
    for path in sorted((ROOT / "tinyvae").iterdir()):
        if path.suffix == ".py" and path.stem != "__init__":
            yield path.stem, [path]
        elif (path / "__init__.py").exists():
            yield path.name, sorted(path.rglob("*.py"))


SOURCES = dict(modules())


def check_arrows(name, texts):
    assert name in LEVEL, f"{name} is new: give it a place in LEVELS"
    found = set().union(*map(imports, texts)) - {name}
    upward = {other for other in found if LEVEL.get(other, len(LEVELS)) >= LEVEL[name]}
    assert not upward, f"{name} imports {', '.join(sorted(upward))}, which stand no lower"
    assert found <= ONLY.get(name, found), f"{name} imports {', '.join(sorted(found - ONLY[name]))}"


@pytest.mark.parametrize("name", SOURCES)
def test_arrows_point_one_way(name):
    """No module imports one of its own level or above, so there is no circle; imports for types do not count."""
    check_arrows(name, [path.read_text() for path in SOURCES[name]])


def test_upward_arrows_are_found():
    for name, text in (("tensor", "from tinyvae.noise import normal"), ("tape", "def f():\n    import tinyvae.tensor"),
                       ("data", "from tinyvae import batches"), ("noise", "import tinyvae"),
                       ("checkpoint", "from tinyvae.rules import rule"), ("novel", "")):
        with pytest.raises(AssertionError, match=name):
            check_arrows(name, [text])
    check_arrows("tape", ["if TYPE_CHECKING:\n    from tinyvae.tensor import Tensor"])


def test_inside_a_package_there_is_no_circle():
    """Within `data`, `distributions` and `models` too, every module can be imported first."""
    for name, paths in SOURCES.items():
        if len(paths) == 1:
            continue
        stems = {path.stem for path in paths}
        edges = {path.stem: imports(path.read_text(), name, "tinyvae.") & stems for path in paths}
        while edges:
            free = [stem for stem, inner in edges.items() if not inner & set(edges) - {stem}]
            assert free, f"a circle in {name}: {edges}"
            for stem in free:
                del edges[stem]


def test_kernels_know_nothing_of_tinyvae():
    for path in (ROOT / "kernels").rglob("*.py"):
        assert not imports(path.read_text()), path.name


def test_kernels_are_reached_through_the_rule_table():
    """Only fusion loads them; the doctor may look whether they are there."""
    users = {name for name, paths in SOURCES.items() if any(
        re.search(r"^\s*(from|import) tinyvae_kernels", path.read_text(), re.M) for path in paths)}  # fmt: skip
    assert "fusion" in users
    assert users <= {"fusion", "doctor"}


# ---- names ---------------------------------------------------------------------------


def test_no_function_shares_a_submodules_name():
    """Importing all submodules overwrites no public name: what was callable stays callable."""
    code = """
import importlib, pkgutil, types, tinyvae
before = {name: getattr(tinyvae, name) for name in tinyvae.__all__}
names = [m.name for m in pkgutil.walk_packages(tinyvae.__path__, "tinyvae.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
changed = [name for name in before if getattr(tinyvae, name) is not before[name]]
shadowed = [name for name, value in before.items() if "tinyvae." + name in names
            and not isinstance(value, types.ModuleType)]
print(len(names), changed, shadowed)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    count, rest = done.stdout.split(" ", 1)
    assert int(count) > 20
    assert rest.strip() == "[] []"


def test_subpackages_keep_their_names_too():
    for package in ("data", "distributions", "models"):
        outer = importlib.import_module(f"tinyvae.{package}")
        for module in pkgutil.iter_modules(outer.__path__):
            value = getattr(outer, module.name, None)
            assert value is None or inspect.ismodule(value), f"tinyvae.{package}.{module.name} is not the module"


def test_public_names():
    """All that is promised exists, is documented, and is callable or a module."""
    for name in tinyvae.__all__:
        value = getattr(tinyvae, name)
        assert callable(value) or inspect.ismodule(value), name
        assert inspect.getdoc(value), f"tinyvae.{name} has no docstring"


# ---- lengths -------------------------------------------------------------------------

ENGINE = ("tape", "rules", "tensor")
ENGINE_LINES = 850  # the aim is 600; lower this whenever the engine shrinks
FILE_LINES = 450
# Files that may be longer, and why.
LONGER = {
    "kernels/tinyvae_kernels/cpu.py": (600, "Numba's cache does not notice changes in other files, so kernels and "
                                            "the functions they inline stay in one"),
}  # fmt: skip


def length(path):
    return len(path.read_text().splitlines())


def test_the_engine_is_small():
    lines = {name: length(ROOT / "tinyvae" / f"{name}.py") for name in ENGINE}
    print(lines, "together", sum(lines.values()), "allowed", ENGINE_LINES)
    assert sum(lines.values()) <= ENGINE_LINES


def test_no_file_is_two_ideas():
    for path in [*(ROOT / "tinyvae").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        allowed, _ = LONGER.get(path.relative_to(ROOT).as_posix(), (FILE_LINES, ""))
        assert length(path) <= allowed, f"{path.name} has {length(path)} lines, allowed {allowed}"


def test_every_file_says_what_it_is():
    """A module begins with a docstring."""
    for path in [*(ROOT / "tinyvae").rglob("*.py"), *(ROOT / "kernels").rglob("*.py"), *TESTS.rglob("*.py")]:
        text = path.read_text()
        assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path.name} has no docstring"


# ---- the test run itself -------------------------------------------------------------

SKIPPING = """
import pytest

def test_wants_data():
    pytest.skip("no data: train-images is missing")

@pytest.mark.skipif(True, reason="Numba is missing")
def test_wants_numba(): pass

def test_optional():
    pytest.skip("optional: no second device")

@pytest.mark.xfail(strict=True)
def test_known_fault():
    assert False
"""
LEAKING = """
import numpy as np
import pytest
import tinyvae as tv
from tinyvae.rules import TABLE

def test_error_state():
    np.seterr(divide="ignore")

def test_switch():
    tv.fused(False)

def test_tape():
    tv.Tape().__enter__()

def test_row():
    tv.rule("leak", lambda xp, a, out: a)

def test_clean():
    assert "leak" not in TABLE and tv.devices.CPU.kernels and np.geterr()["divide"] == "warn"
"""


def run_tests(folder, **environment):
    """A pytest of its own over a folder with this suite's conftest; its outcome lines and exit status."""
    shutil.copy(TESTS / "conftest.py", folder)
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    kept = {name: value for name, value in os.environ.items() if name != "TINYVAE_REQUIRE_ALL"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)],
        env={**kept, "PYTHONPATH": path, **environment}, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout, done.returncode


def test_skips_fail_where_everything_is_required(tmp_path):
    """At a desk a missing file is a skip that says so; in CI it is a failure, unless the skip is optional."""
    (tmp_path / "test_skips.py").write_text(SKIPPING)
    out, status = run_tests(tmp_path)
    assert status == 0, out
    assert "3 skipped, 1 xfailed" in out
    out, status = run_tests(tmp_path, TINYVAE_REQUIRE_ALL="1")
    assert status != 0, out
    assert "1 failed, 1 skipped, 1 xfailed, 1 error" in out  # a skip by a mark happens before the test: an error
    assert "Numba is missing" in out
    assert "no data: train-images is missing" in out
    assert "optional: no second device" in out
    whole_file = "import pytest\npytest.importorskip('no_such_module', reason='no compiler')\n"
    (tmp_path / "test_skips.py").write_text(whole_file)
    assert "1 skipped" in run_tests(tmp_path)[0]
    out, status = run_tests(tmp_path, TINYVAE_REQUIRE_ALL="1")
    assert status != 0, out
    assert "no compiler" in out


def test_leaks_fail_the_test_that_leaks(tmp_path):
    """A test that leaves a tape, a switch, a row or NumPy's error handling changed fails; the next one starts clean."""
    (tmp_path / "test_leaks.py").write_text(LEAKING)
    out, status = run_tests(tmp_path)
    assert status != 0
    assert "5 passed, 4 errors" in out, out
    for what in ("NumPy's error handling", "the switch of the fused kernels", "tapes that record", "the rows of the"):
        assert f"did not restore: {what}" in out
