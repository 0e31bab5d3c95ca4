"""The page Sources: the directive `sources` shows each source of a file that a chapter names (citations.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from extension.citations import sources, users


def prose(chapter: Path) -> str:
    """The Markdown of a chapter; its first line is the title."""
    cells = jupytext.read(chapter, fmt="py:percent").cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


class Sources(SphinxDirective):
    """`{sources} FILE`, beside the chapters."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        file = Path(self.get_source_info()[0]).parent / self.arguments[0]
        for read in (file, *file.parent.glob("*.py")):
            self.env.note_dependency(str(read))
        return self.parse_text_to_nodes("\n".join(self.text(file)), allow_section_headings=True)

    def text(self, file: Path) -> Iterator[str]:
        texts = {chapter.name: prose(chapter) for chapter in sorted(file.parent.glob("*.py"))}
        for source in sources(file):
            if named := users(source, texts):
                title = f"*{source['title']}.* {source['where']}."
                links = ", ".join(f"[{texts[name].partition(chr(10))[0].lstrip('# ')}]({name})" for name in named)
                yield from (f"## {source['names'][0]}", "", title, "", source["says"], "", f"Used in: {links}.", "")


def register(app: Any) -> None:
    app.add_directive("sources", Sources)
