"""Each chapter to take away: the site holds its Python file, and a notebook made from it in every build."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jupytext

CHAPTERS = Path(__file__).parents[1] / "book"
LINKS = ('<p class="take-away">Take this chapter away and run it: <a href="{0}.py" download>{0}.py</a>, '
         'or as a notebook: <a href="{0}.ipynb" download>{0}.ipynb</a>.</p>\n')


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
        shutil.rmtree(app.doctreedir)  # it would lie in the site; every build executes all chapters anyway


def register(app: Any) -> None:
    app.connect("html-page-context", link)
    app.connect("build-finished", write)
