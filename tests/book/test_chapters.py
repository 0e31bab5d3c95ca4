"""The chapters of docs/book/ without the site: their parts, quotes, exercises, and what they say of the article."""

import ast
import re
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.extension.quotes import QUOTE, line_number
from tinyvae.lessons.book import Exercise

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "docs" / "book").glob("*.py"))
STATEMENTS = Path(__file__).parent / "statements"
ARTICLE = [path for path in CHAPTERS if path.stem[:2] <= "11"]  # its chapters; then the sources and the appendix
LEAST = 3  # exercises of a chapter
PARTS = ("What you need to know", "Predict, then run", "Exercises", "What the sources say")

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


class Cell(NamedTuple):
    """A cell of a chapter: is it Markdown, and its text without the marks of comments."""

    markdown: bool
    text: str


def cells(chapter):
    found = []
    for part in re.split(r"^# %%", chapter.read_text(), flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        markdown = head.strip() == "[markdown]"
        found.append(Cell(markdown, re.sub(r"^# ?", "", body, flags=re.MULTILINE) if markdown else body))
    return found


def prose(chapter):
    return "\n".join(cell.text for cell in cells(chapter) if cell.markdown)


def plain(text):
    """Without line breaks and the marks of block quotes."""
    return " ".join(re.sub(r"^> ?", "", text, flags=re.MULTILINE).split())


@each_chapter
def test_a_chapter_has_its_parts(chapter):
    text = prose(chapter)
    number = chapter.stem.partition("_")[0].lstrip("0")
    assert text.lstrip().startswith(f"# {number}. "), "a chapter begins with its number and title"
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert set(PARTS) <= set(headings), f"found {headings}"
    claims = re.findall(r"^(?:> .*\n?(?:>.*\n?)*)", text, re.MULTILINE)
    assert len(claims) == 1
    assert claims[0].startswith("> **Claim.** "), "the one block quote is the claim"
    code = "\n".join(cell.text for cell in cells(chapter) if not cell.markdown)
    assert re.search(r"^\s*(show|drawn)\(", code, re.MULTILINE), "no picture"
    ast.parse(code)  # and no magic, which plain Python would refuse


@each_chapter
def test_quotes_are_lines_of_the_code(chapter):
    quotes = list(QUOTE.finditer(prose(chapter)))
    assert quotes, "no line of the code stands beside an equation"
    assert len(quotes) == prose(chapter).count("```{line}")
    for quote in quotes:
        assert line_number(ROOT, quote["file"], quote["text"]) >= 1


def test_a_quote_that_is_not_there_is_noticed(tmp_path):
    (tmp_path / "code.py").write_text("def f(x):\n    y = x\n    return y\n\n\ndef g(x):\n    y = x\n    return x\n")
    assert line_number(tmp_path, "code.py", "y = x\nreturn y") == 2
    assert line_number(tmp_path, "code.py", "def g(x):\n    y = x") == 6
    for file, text, told in (("code.py", "return z", "found 0 places"), ("code.py", "y = x", "found 2 places"),
                             ("other.py", "y = x", "does not exist")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            line_number(tmp_path, file, text)


def exercises(chapter):
    """The exercises, from the chapter's imports and the cells under the heading "Exercises" alone."""
    inside, parts, imports = False, [], []
    for cell in cells(chapter):
        if cell.markdown:
            inside |= bool(re.search(r"^## Exercises$", cell.text, re.MULTILINE))
        elif inside:
            parts.append(cell.text)
        else:
            imports += [node for node in ast.parse(cell.text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {"__name__": chapter.stem}
    exec("\n".join(map(ast.unparse, imports)), names)
    for part in parts:
        exec(compile(part, chapter.name, "exec"), names)
    return {name: value for name, value in names.items() if isinstance(value, Exercise)}


@each_chapter
def test_exercises_refuse_the_stub_and_take_the_solution(chapter):
    found = exercises(chapter)
    assert len(found) >= LEAST
    for name, one in found.items():
        assert one.solved is not None, f"{name} has no solution"
        assert one.wrong_with(one.answer), f"the check of {name} passes on the stub"
        assert not one.wrong_with(one.solved), f"the solution of {name} does not pass: {one.wrong_with(one.solved)}"


@pytest.mark.parametrize("chapter", ARTICLE, ids=lambda path: path.stem)
def test_the_statements_of_the_article_are_there(chapter):
    """Each is said by the chapter in a sentence, or corrected in one."""
    text = plain(prose(chapter))
    for statement in tomllib.loads((STATEMENTS / f"{chapter.stem}.toml").read_text())["statement"]:
        assert set(statement) - {"corrected"} == {"article", "chapter"}
        assert plain(statement["chapter"]) in text, textwrap.shorten(f"missing: {statement['article']}", 200)


def test_every_list_of_statements_has_its_chapter():
    assert {path.stem for path in STATEMENTS.glob("*.toml")} <= {path.stem for path in CHAPTERS}
