"""CONTRIBUTING.md does what it says: its files are put into a copy of the repository, and its commands are run there."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from support import ROOT

PAGE = ROOT / "CONTRIBUTING.md"
if not PAGE.is_file():
    pytest.skip("optional: CONTRIBUTING.md is not here, only the tests", allow_module_level=True)
TEXT = PAGE.read_text()
FILES = re.findall(r"^<!--(file|append) (\S+)-->\n```\w+\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
            for line in block.splitlines()]  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository with all files of the page in it."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in ("tinyvae", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for what, name, text in FILES:
        path = copy / name
        assert path.exists() == (what == "append"), f"{name}: a new file that exists, or an old one that does not"
        path.write_text((path.read_text() if what == "append" else "") + text)
    return copy


def in_copy(copy, command):
    """A command of the page, as its reader runs it: exit code and all that it prints."""
    python = shlex.quote(sys.executable)
    command = re.sub(r"^python ", f"{python} ", re.sub(r"^tinyvae ", f"{python} -m tinyvae ", command))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), str(ROOT / "kernels")])}
    done = subprocess.run(["bash", "-c", command], cwd=copy, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
    return done.returncode, done.stdout


def test_all_examples_are_found():
    """Each section has its file and its commands: a mark that was misspelt would leave one out."""
    assert len(FILES) == TEXT.count("```python\n")
    assert {"pytest", "train", "evaluate", "--use"} <= {word for line in COMMANDS for word in line.split()}


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=lambda i: " ".join(COMMANDS[i].split()[:5]))
def test_a_command_does_what_the_page_says(copy, number):
    """In the page's order. Of a test run at least one test passes and none is skipped."""
    code, printed = in_copy(copy, COMMANDS[number])
    assert code == 0, printed
    if "pytest" in COMMANDS[number]:
        assert re.search(r"[1-9]\d* passed", printed), printed
        assert "skipped" not in printed
    if "evaluate" in COMMANDS[number]:
        assert "nats" in printed


def test_the_files_are_in_the_style_of_the_house(copy):
    """Linters find nothing, and the rules of the rooms hold for the new files."""
    ruff = shutil.which("ruff", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    assert ruff is not None, "found no ruff: pip install '.[test]'"
    names = " ".join(name for _, name, _ in FILES if (copy / name).is_file())
    code, printed = in_copy(copy, f"{ruff} check {names}")
    assert code == 0, printed
    code, printed = in_copy(copy, "python -m pytest -q tests/house/test_rooms.py -k 'arrows or circle or private or two_ideas'")
    assert code == 0, printed


def test_a_run_asks_for_its_file_again(copy):
    """Without `--use`, a run that was made with a file is refused in a sentence that names it."""
    code, printed = in_copy(copy, "tinyvae evaluate runs/mine")
    assert code == 2
    assert "--use my_family.py" in printed
