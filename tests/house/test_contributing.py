"""CONTRIBUTING.md does what it says: its files are put into a copy of the repository, and its commands run there."""

import contextlib
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
from support import ROOT, forks

PAGE = ROOT / "CONTRIBUTING.md"
if not PAGE.is_file():
    pytest.skip("optional: CONTRIBUTING.md is not here, only the tests", allow_module_level=True)
BLOCK = re.compile(r"^(?:<!--(file|append|replace) (\S+)-->\n)?```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Section(NamedTuple):
    """What a section adds, as (how, name of the file, text), and its commands."""

    title: str
    files: list
    commands: list


def sections():
    """The sections that add something, by title."""
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        blocks = BLOCK.findall(text)
        commands = [line for how, _, block in blocks if not how for line in block.replace("\\\n", "").splitlines()]
        if commands:
            yield Section(title, [block for block in blocks if block[0]], commands)


SECTIONS = {section.title: section for section in sections()}
KERNEL = SECTIONS["A kernel"]


def repository(folder, added, kernels=False):
    """A copy with the files of some sections; the kernels are copied only where one is added, for they compile anew."""
    for name in ("tinyvae", "tests", "benchmarks", *["kernels"] * kernels):
        shutil.copytree(ROOT / name, folder / name)  # with the byte code
    shutil.copy(ROOT / "pyproject.toml", folder)
    appended = {}
    for how, name, text in [block for section in added for block in section.files]:
        path = folder / name
        before = path.read_text() if path.exists() else None
        assert (before is None) == (how == "file"), f"{name}: a new file that exists, or an old one that does not"
        if how == "replace":
            assert appended[name] in before
            path.write_text(before.replace(appended[name], text))
        else:
            path.write_text((before or "") + text)
            appended[name] = text
    return folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The copy without the section on kernels (False) and with it (True), made once: so is Python's byte code in it."""
    return functools.cache(lambda kernels: repository(
        tmp_path_factory.mktemp("copy"), [section for section in SECTIONS.values() if kernels or section is not KERNEL],
        kernels))  # fmt: skip


@pytest.fixture(scope="module")
def run_in():
    """Runs a command of the page in a folder, as its reader does: exit code and all that it prints."""
    with contextlib.ExitStack() as stack:
        @functools.cache
        def python_of(folder):
            kernels = next(base / "kernels" for base in (folder, ROOT) if (base / "kernels").is_dir())
            environment = {"PYTHONPATH": os.pathsep.join([str(folder), str(kernels)]), "COLUMNS": "200"}
            environment["PYTEST_ADDOPTS"] = "-rp"  # a line for each test that passed
            if kernels.parent == folder:  # its machine code is not that of the real kernels, and takes a while to make
                environment |= {"NUMBA_CACHE_DIR": str(folder / "cache"), "begin": "import tinyvae"}
            return stack.enter_context(forks(cwd=folder, **environment))

        def run(folder, command):
            program, *words = shlex.split(command)
            if program in ("python", "tinyvae"):
                done = python_of(folder)(folder, *(["-m", "tinyvae"] if program == "tinyvae" else []), *words)
            else:
                done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr

        yield run


def test_all_examples_are_found():
    """A mark or a fence that was misspelt would leave an example out."""
    assert set(SECTIONS) >= {"An operation", "A likelihood", "A model", "A kernel"}
    assert sum(len(section.files) for section in SECTIONS.values()) == PAGE.read_text().count("<!--")
    words = {word for section in SECTIONS.values() for line in section.commands for word in line.split()}
    assert words >= {"pytest", "train", "evaluate", "--use"}


def assert_tests_ran(command, printed):
    """Of each file and of each name after -k some test passed, and none was skipped."""
    passed = re.findall(r"^PASSED (.*)", printed, re.MULTILINE)
    words = shlex.split(command)
    names = words[words.index("-k") + 1].split(" or ") if "-k" in words else []
    for part in [word for word in words if word.startswith("tests/")] + names:
        assert any(part in test for test in passed), f"{part}\n{printed}"
    assert "skipped" not in printed


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_does_what_it_says(title, copy, run_in, tmp_path):
    """Its commands, in order, with the files of all sections in place. Of each test run some pass, none is skipped."""
    folder = copy(SECTIONS[title] is KERNEL)
    if any(" rm " in command for command in SECTIONS[title].commands):  # the other sections need what it removes
        folder = shutil.copytree(folder, tmp_path / "copy")
    for command in SECTIONS[title].commands:
        code, printed = run_in(folder, command)
        assert code == 0, f"{command}\n{printed}"
        if "pytest" in command:
            assert_tests_ran(command, printed)
        if "evaluate" in command:
            assert "nats" in printed
    if "--use" in SECTIONS[title].commands[-1]:  # without the file, the run is refused in a sentence that names it
        code, printed = run_in(folder, SECTIONS[title].commands[-1].partition(" --use")[0])
        assert code == 2
        assert "--use my_family.py" in printed


def test_the_files_are_in_the_style_of_the_house(copy, run_in):
    """Linters find nothing, and the rules of the rooms hold for the new files."""
    folder = copy(True)
    names = " ".join({name for section in SECTIONS.values() for _, name, _ in section.files if name.endswith(".py")})
    ruff = shutil.which("ruff", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    assert ruff is not None, "found no ruff: pip install '.[test]'"
    for command in (f"{ruff} check {names}", "python -m pytest -q tests/house/test_rooms.py -k "
                    "'arrows or circle or private or two_ideas or kernels_know'"):  # fmt: skip
        code, printed = run_in(folder, command)
        assert code == 0, printed
