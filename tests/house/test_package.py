"""What is installed is what is here: packages, version, entry point, types."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import tinyvae

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "setup.py").is_file():
    pytest.skip("optional: setup.py and the sources are not here, only the tests", allow_module_level=True)


def test_every_folder_of_code_is_a_package():
    """setup.py finds packages by their `__init__.py`; a folder of code without one would be missing from the wheel."""
    for base in (ROOT / "tinyvae", ROOT / "kernels" / "tinyvae_kernels"):
        for path in base.rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path.parent


def test_setup_lists_every_other_file():
    """The CUDA sources and the markers of types are in the wheel, too."""
    call = next(node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call))
    listed = ast.literal_eval(next(k.value for k in call.keywords if k.arg == "package_data"))
    for package, base in (("tinyvae", ROOT), ("tinyvae_kernels", ROOT / "kernels")):
        folder = base / package
        present = {path for path in folder.rglob("*.*") if path.is_file() and "__pycache__" not in path.parts
                   and path.suffix not in (".py", ".pyc")}  # fmt: skip
        assert present == {path for pattern in listed[package] for path in folder.glob(pattern)}


def test_benchmarks_find_the_kernels_of_the_checkout():
    """`python -m benchmarks` from the root, without an installation and without PYTHONPATH."""
    code = "import benchmarks, importlib.util; print(importlib.util.find_spec('tinyvae_kernels').origin)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(ROOT / "kernels" / "tinyvae_kernels" / "__init__.py"), done.stderr


def test_one_version_everywhere():
    """The number in pyproject.toml, in the package and the first in the changelog, below what is not released yet."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project["version"] == tinyvae.__version__ == newest.group(1)


def test_installed_distribution_is_this_one():
    """Of an installation: its version, and the command that it brings."""
    try:
        found = metadata.distribution("tinyvae")
    except metadata.PackageNotFoundError:
        pytest.skip("optional: tinyvae is not installed here, the checkout is tested")
    assert found.version == tinyvae.__version__
    assert {"tinyvae": "tinyvae.cli.main:main"}.items() <= {e.name: e.value for e in found.entry_points}.items()


def test_every_dependency_has_its_reason():
    """Dependencies are few, named in one place, each with why."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.optional-dependencies]")]
    for line in block.splitlines()[1:]:
        if line.strip().startswith('"'):
            assert "#" in line, f"no reason: {line}"


def test_packages_are_typed():
    assert (ROOT / "tinyvae" / "py.typed").is_file()
    assert (ROOT / "kernels" / "tinyvae_kernels" / "py.typed").is_file()


def test_the_project_names_no_machine():
    """No absolute path of somebody's machine in what is published."""
    for file in ROOT.rglob("*"):
        tracked = not {".git", ".venv", "runs", "build", "__pycache__"} & set(file.relative_to(ROOT).parts)
        if tracked and file.suffix in (".py", ".md", ".toml", ".json") and file.is_file():
            assert not re.search(r"(?<![\w.])/(?:home|root|Users)/\w", file.read_text()), file
