"""The house: which module may import which, how long files are, what names mean, and the rules of the test run."""

import ast
import functools
import importlib
import inspect
import io
import os
import pkgutil
import re
import shutil
import statistics
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from support import ROOT, run_python

import tinyvae

TESTS = Path(__file__).resolve().parents[1]

# From the bottom to the top; a room may import from the rooms before it, never from those after it.
ORDER = ("progress", "choices", "protocols", "engine", "data", "nn", "distributions", "flows", "inference", "models",
         "evidence", "bayes", "training", "runs", "tasks", "measure", "pictures", "explorer", "lessons", "cli",
         "__main__")  # fmt: skip
# Closer limits than the order gives: these import from no other room than those named.
ONLY = {"engine": {"choices", "protocols"}, "nn": {"choices", "engine"}, "distributions": {"choices", "engine", "nn"},
        "data": {"choices", "engine"}}
FILES = 9  # in a folder of a room, `__init__.py` not counted
EXEMPT = ("distributions", "models", "data/formats")  # one file a family, model or format


def unguarded(tree):
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from unguarded(child)


@functools.cache
def imports(text):
    """What a source text imports of tinyvae, wherever in it, as dotted names without `tinyvae.`."""
    found = set()
    for node in unguarded(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            names = [f"{name.name}.__init__" for name in node.names]
        else:
            continue
        found |= {name.removeprefix("tinyvae.") for name in names if name.startswith("tinyvae.")}
    return found


def room_of(path):
    return path.relative_to(ROOT / "tinyvae").parts[0].removesuffix(".py")


SOURCES = {path.relative_to(ROOT / "tinyvae").as_posix(): path for path in sorted((ROOT / "tinyvae").rglob("*.py"))
           if path.parent != ROOT / "tinyvae"}  # fmt: skip


def check_arrows(room, text):
    assert room in ORDER, f"{room} is a new room: give it a place in ORDER"
    found = {name.partition(".")[0] for name in imports(text)} - {room}
    upward = {other for other in found if other not in ORDER[: ORDER.index(room)]}
    assert not upward, f"{room} imports {', '.join(sorted(upward))}, which stand no lower"
    assert found <= ONLY.get(room, found), f"{room} imports {', '.join(sorted(found - ONLY[room]))}"


@pytest.mark.parametrize("name", SOURCES)
def test_arrows_point_one_way(name):
    """No room imports from a room above it; imports for types do not count."""
    check_arrows(room_of(SOURCES[name]), SOURCES[name].read_text())


def test_upward_arrows_are_found():
    for room, text in (("engine", "from tinyvae.nn.layers import MLP"), ("nn", "def f():\n    import tinyvae.models"),
                       ("data", "from tinyvae import distributions"), ("engine", "import tinyvae"),
                       ("novel", "")):  # fmt: skip
        with pytest.raises(AssertionError, match=room):
            check_arrows(room, text if text != "import tinyvae" else "from tinyvae import data")
    check_arrows("engine", "if TYPE_CHECKING:\n    from tinyvae.nn.layers import MLP")


def test_inside_a_room_there_is_no_circle():
    """Within each room, too, every module can be imported first."""
    for room in ORDER[:-1]:
        texts = {".".join(path.relative_to(ROOT / "tinyvae" / room).with_suffix("").parts): path.read_text()
                 for path in SOURCES.values() if room_of(path) == room and path.stem != "__init__"}  # fmt: skip
        check_no_circle(room, texts)


def check_no_circle(room, texts):
    """`texts` has the source of each module by its dotted name in the room, such as "formats.npy"."""
    edges = {module: {other for name in imports(text) for other in met(name.removeprefix(room + "."), texts)}
             for module, text in texts.items()}  # fmt: skip
    while edges:
        free = [module for module, inner in edges.items() if not inner & set(edges) - {module}]
        assert free, f"a circle in {room}: {edges}"
        for module in free:
            del edges[module]


def met(name, modules):
    """The modules that an import of this name needs: one, or all of the folder from whose `__init__` it comes."""
    if outer := [module for module in modules if f"{name}.".startswith(f"{module}.")]:
        return outer
    return [module for module in modules if module.startswith(f"{name.rpartition('.')[0]}.")]


def test_circles_are_found():
    texts = {"top": "from tinyvae.data.formats import read", "formats.a": "", "formats.b": "import os"}
    check_no_circle("data", texts)
    for more in ({"formats.a": "from tinyvae.data.top import load"}, {"formats.b": "from tinyvae.data import top"},
                 {"formats.a": "from tinyvae.data.formats import b", "formats.b": "import tinyvae.data.formats.a"}):
        with pytest.raises(AssertionError, match="a circle in data"):
            check_no_circle("data", texts | more)


def test_rooms_are_small():
    folders = {path.parent for path in SOURCES.values()}
    for folder in sorted(folders):
        name = folder.relative_to(ROOT / "tinyvae").as_posix()
        count = sum(path.parent == folder and path.stem != "__init__" for path in SOURCES.values())
        print(f"{name:<14}{count} files")
        assert name in EXEMPT or count <= FILES, f"{name} has {count} files, allowed {FILES}"


def test_no_private_name_crosses_a_room():
    for name, path in SOURCES.items():
        crossing = {inner for inner in imports(path.read_text())
                    if inner.partition(".")[0] != room_of(path) and inner.rpartition(".")[2].startswith("_")
                    and not inner.endswith("__init__")}  # fmt: skip
        assert not crossing, f"{name} imports {crossing}"


def test_kernels_know_nothing_of_tinyvae():
    for path in (ROOT / "kernels").rglob("*.py"):
        assert not imports(path.read_text()), path.name


def test_kernels_are_reached_through_the_rule_table():
    """Only fusion loads them; the doctor may look whether they are there."""
    users = {name for name, path in SOURCES.items()
             if re.search(r"^\s*(from|import) tinyvae_kernels", path.read_text(), re.M)}  # fmt: skip
    assert "engine/fusion.py" in users
    assert users <= {"engine/fusion.py", "measure/doctor.py"}


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
    for package in [room for room in ORDER if (ROOT / "tinyvae" / room).is_dir()]:
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
ENGINE_LINES = 300  # of code in each
FILE_LINES = 400
MEDIAN_LINES = (60, 200)


def length(path):
    return len(path.read_text().splitlines())


def code_lines(text):
    """Lines that hold code: blank ones, comments and docstrings are not counted."""
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in empty]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_is_small(name):
    lines = code_lines((ROOT / "tinyvae" / "engine" / f"{name}.py").read_text())
    print(f"{name}: {lines} lines of code, allowed {ENGINE_LINES}")
    assert lines <= ENGINE_LINES


def test_lines_of_code():
    text = '"""A module."""\n\n# a comment\nx = """a\nb"""\n\ndef f():\n    """What."""\n    return x\n'
    assert code_lines(text) == 4


def test_no_file_is_two_ideas():
    """The longest file, and the median of all: printed, and within limits."""
    sizes = {path.relative_to(ROOT).as_posix(): length(path) for folder in ("tinyvae", "kernels")
             for path in (ROOT / folder).rglob("*.py") if path.stem != "__init__"}  # fmt: skip
    longest, middle = max(sizes, key=sizes.get), statistics.median(sizes.values())
    print(f"{len(sizes)} files, {sum(sizes.values())} lines, median {middle:g}; {longest} has {sizes[longest]}")
    assert sizes[longest] <= FILE_LINES, f"{longest} has {sizes[longest]} lines, allowed {FILE_LINES}"
    assert MEDIAN_LINES[0] <= middle <= MEDIAN_LINES[1]


def test_every_file_says_what_it_is():
    """A module begins with a docstring."""
    for path in [*(ROOT / "tinyvae").rglob("*.py"), *(ROOT / "kernels").rglob("*.py"), *TESTS.rglob("*.py")]:
        assert not path.read_text().strip() or says_what_it_is(path), f"{path.name} has no docstring"


def says_what_it_is(path):
    """Whether the first statement is a string with something in it; the rest of the file is not read."""
    with tokenize.open(path) as file:
        tokens = (token for token in tokenize.generate_tokens(file.readline)
                  if token.type not in (tokenize.COMMENT, tokenize.NL))  # fmt: skip
        first, second = next(tokens), next(tokens)
    if (first.type, second.type) != (tokenize.STRING, tokenize.NEWLINE):
        return False
    return bool(ast.get_docstring(ast.parse(first.string)))


@pytest.mark.parametrize(("text", "right"), [
    ('"""What it is."""\nx = 1\n', True), ("# who\n\n'what'\n", True), ("x = 1\n", False), ('""\nx = 1\n', False),
    ('b"bytes"\n', False), ('"what".strip()\n', False), ('f"{1}"\n', False), ("import ast\n'what'\n", False)])
def test_a_file_without_a_docstring_is_noticed(text, right, tmp_path):
    (tmp_path / "file.py").write_text(text)
    assert says_what_it_is(tmp_path / "file.py") == right


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
from tinyvae.engine.rules import TABLE

def test_error_state():
    np.seterr(divide="ignore")

def test_switch():
    tv.fused(False)

def test_tape():
    tv.Tape().__enter__()

def test_row():
    tv.rule("leak", lambda xp, a, out: a)

def test_clean():
    assert "leak" not in TABLE and tv.fused.setting.get() and np.geterr()["divide"] == "warn"
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
    whole_file = tmp_path / "test_whole_file.py"
    whole_file.write_text("import pytest\npytest.importorskip('no_such_module', reason='no compiler')\n")
    out, status = run_tests(tmp_path)
    assert status == 0, out
    assert "4 skipped, 1 xfailed" in out
    out, status = run_tests(tmp_path, TINYVAE_REQUIRE_ALL="1")
    assert status != 0, out
    assert "no compiler" in out
    whole_file.unlink()
    out, status = run_tests(tmp_path, TINYVAE_REQUIRE_ALL="1")
    assert status != 0, out
    assert "1 failed, 1 skipped, 1 xfailed, 1 error" in out  # a skip by a mark happens before the test: an error
    assert "Numba is missing" in out
    assert "no data: train-images is missing" in out
    assert "optional: no second device" in out


def test_leaks_fail_the_test_that_leaks(tmp_path):
    """A test that leaves a tape, a switch, a row or NumPy's error handling changed fails; the next one starts clean."""
    (tmp_path / "test_leaks.py").write_text(LEAKING)
    out, status = run_tests(tmp_path)
    assert status != 0
    assert "5 passed, 4 errors" in out, out
    for what in ("NumPy's error handling", "the switch of the fused kernels", "tapes that record", "the rows of the"):
        assert f"did not restore: {what}" in out
