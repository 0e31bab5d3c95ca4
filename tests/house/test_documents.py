"""README and docs: their snippets run, their figures are those of the committed results files, their commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import forks

from tinyvae.cli import main as cli

pytest.importorskip("benchmarks", reason="optional: README, docs and benchmarks/ are not here, only the tests")
from benchmarks import figures, results

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*DOCUMENTS, ROOT / "CONTRIBUTING.md"]


def snippets(document):
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def program():
    """Runs a program where every warning is an error, those of the imports among them."""
    with forks("-W", "error") as run:
        yield run


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if snippets(d)], ids=lambda d: d.name)
def test_snippets_run(document, program, tmp_path):
    """All snippets of a document, one after the other, as a reader would paste them."""
    (tmp_path / "snippets.py").write_text("\n".join(snippets(document)))
    done = program(tmp_path, "snippets.py")
    assert done.returncode == 0, done.stderr


# What fails is not made smaller, which takes longer than the tests.
RUN_ROW = """
import pytest
from hypothesis import Phase, settings

settings.register_profile("as it is", deadline=None, database=None, max_examples=25, phases=[Phase.generate])
words = ["-qx", {tests!r}, "-k", "gaussian_bump or every_row", "--hypothesis-profile", "as it is",
         "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of Hypothesis, which is imported above
raise SystemExit(pytest.main(words))
"""


def test_the_operation_of_the_document_passes_the_property_tests(tmp_path):
    """The row of docs/operations.md, and no edit anywhere else; with a wrong derivative the same tests fail."""
    example, tests = snippets(ROOT / "docs" / "operations.md")[0], ROOT / "tests" / "engine" / "test_rules.py"
    run = RUN_ROW.format(tests=str(tests))
    for old, new in (("", ""), ("g * (-0.5 * a * a).exp()", "g * (-0.4 * a * a).exp()")):
        assert old in example
        program = tmp_path / "example.py"
        program.write_text(f"{example.replace(old, new).partition('rng = ')[0]}\n{run}")
        done = subprocess.run([sys.executable, program], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode == 0) == (old == new), done.stdout + done.stderr
    assert "test_first_and_second_derivative[gaussian_bump]" in done.stdout


@pytest.mark.parametrize("document", figures.documents(), ids=lambda d: d.name)
def test_figures_are_up_to_date(document):
    """A figure in a document is what the results file says: `python -m benchmarks figures` renews them."""
    text = document.read_text()
    assert figures.filled(text) == text


def test_a_stale_figure_is_noticed():
    """The check above can fail: a number that nobody measured is replaced."""
    stale = "<!--figure mnist-ten-epochs:rows[setting=epoch 10].value:.2f-->1.00<!--/figure-->"
    assert figures.filled(stale) != stale


TORN = re.compile(r"^(?:# )?[ \t]*<!--figure.*$", re.MULTILINE)


@pytest.mark.parametrize("document", figures.documents(), ids=lambda d: d.name)
def test_no_line_of_text_begins_with_a_figure(document):
    """In Markdown a comment that begins a line ends the paragraph before it, so the sentence would be torn apart."""
    assert TORN.findall(document.read_text()) == []


def test_a_torn_sentence_is_noticed():
    for line in ("takes\n<!--figure a:b:d-->1<!--/figure--> s", "# takes\n#   <!--figure a:b:d-->1<!--/figure--> s"):
        assert TORN.search(line)
        assert not TORN.search(line.replace("\n", " "))


def test_every_reproduction_that_is_committed_says_what_it_needs():
    """A committed result has value, target, passes, seed, commit and seconds, was not a quick run, and is no edit."""
    for file in ("mnist-ten-epochs", "aevb-latents", "aevb-step-size"):
        content = results.read(file)
        assert content["quick"] is False
        assert re.fullmatch(r"[0-9a-f]{12}", content["commit"]), content["commit"]
        for row in content["rows"]:
            assert {"value", "stderr", "count", "target", "reached", "passes", "seed", "seconds"} <= set(row)


def test_commands_named_in_the_documents_exist():
    """A command that was renamed must be renamed in the README too."""
    known = {command.name or command.callback.__name__ for command in cli.put_together().registered_commands}
    for document in DOCUMENTS:
        for line in re.findall(r"tinyvae ((?:[a-z]+(?: \| )?)+)", document.read_text()):
            named = {word for word in line.split(" | ") if "|" in line}
            assert named <= known, f"{document.name}: {line}"


def anchor(heading):
    """The name that a page gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", PAGES, ids=lambda d: d.name)
def test_links_lead_somewhere(document):
    """Links to files, pictures and headings of this repository; addresses of the web are not fetched."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        if "://" not in target:
            there = document.parent / path if path else document
            assert there.exists(), f"{document.name} links to {path}, which does not exist"
            headings = [anchor(line) for line in re.findall(r"^#+ (.*)", there.read_text() if heading else "", re.M)]
            assert not heading or heading in headings, f"{document.name} links to {target}, which has no such heading"


@pytest.mark.parametrize("document", PAGES, ids=lambda d: d.name)
def test_files_named_in_the_documents_exist(document):
    """A file that moved has to move in the pages: `tinyvae/...`, `tests/...`, and so on."""
    files = {name for what, name in re.findall(r"<!--(file|append) (\S+)-->", document.read_text())}
    for name in re.findall(r"`((?:tinyvae|kernels|tests|benchmarks|examples|docs)/[\w/.-]*)`", document.read_text()):
        assert (ROOT / name).exists() or name in files, f"{document.name} names {name}, which does not exist"


def test_files_shown_in_the_documents_are_the_files():
    """Under <!--file NAME--> in docs/ stands that file, as it is."""
    shown = [(document, *found) for document in DOCUMENTS for found in
             re.findall(r"<!--file (\S+)-->\n```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)]
    for document, name, text in shown:
        assert (ROOT / name).read_text() == text, f"{document.name} shows another {name} than the file"


def test_the_map_of_the_readme_names_every_room():
    """Each folder of code is in the table, and so in the docstring of the package from which it is made."""
    text = (ROOT / "README.md").read_text()
    rooms = {path.parent.name for path in (ROOT / "tinyvae").glob("*/__init__.py")}
    assert set(re.findall(r"^\| \[(\w+)\]\(tinyvae/", text, re.MULTILINE)) == rooms
    assert figures.filled(text.replace("svi |", "|")) == text
