"""Chapters as notebooks: how their cells are folded in the site, and the files that a reader takes away.

A chapter is Python in the percent format. The site holds that file, and a notebook made from it in every build.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jupytext

CHAPTERS = Path(__file__).parents[1] / "book"
FOLDED = {  # by the tag of a cell: what is folded, and what its button says
    "solution": ("hide-input", "Show a solution"),
    "drawing": ("hide-input", "Show how this is drawn"),
    "answer": ("hide-output", "Show what comes out"),
    "outcome": ("hide-cell", "Show its picture"),
}
LINKS = ('<p class="take-away">Take this chapter away and run it: <a href="{0}.py" download>{0}.py</a>, '
         'or as a notebook: <a href="{0}.ipynb" download>{0}.ipynb</a>.</p>\n')


def read(text: str) -> Any:
    """A chapter as a notebook, with the folds of its tags."""
    notebook = jupytext.reads(text, fmt="py:percent")
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            fold, button = FOLDED[tag]
            cell.metadata["tags"] = [tag, fold]
            cell.metadata["mystnb"] = {"code_prompt_show": button, "code_prompt_hide": "Hide it again"}
    return notebook


def link(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """A chapter ends with links to its files."""
    folder, _, name = page.rpartition("/")
    if folder == "book" and (CHAPTERS / f"{name}.py").is_file():
        context["body"] += LINKS.format(name)


def write(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for chapter in sorted(CHAPTERS.glob("*.py")):
            there = Path(app.outdir) / "book" / chapter.name
            shutil.copyfile(chapter, there)
            jupytext.write(jupytext.read(chapter, fmt="py:percent"), there.with_suffix(".ipynb"))
        if Path(app.doctreedir).is_relative_to(app.outdir):
            shutil.rmtree(app.doctreedir)  # no part of the site; every build executes all chapters anyway


def register(app: Any) -> None:
    app.connect("html-page-context", link)
    app.connect("build-finished", write)
