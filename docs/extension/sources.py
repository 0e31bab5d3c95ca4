"""Pages that show source files with numbered lines, and everything that leads there.

A link of a page to a file outside docs/, and the link under a quoted line (quotes.py), become references to
`source:FILE#line-N`. For each file that is referred to in this way, the site gets a page of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from sphinx.util.docutils import SphinxDirective

from extension.quotes import line_number

ROOT = Path(__file__).resolve().parents[2]
# What makes the pages twice as large and is not seen: anchors as links, and marks of what has the colour of the text.
ANCHOR, PLAIN = re.compile(r'<a (id="line-\d+")[^>]*></a>'), re.compile(r'<span class="[nwp]">([^<]*)</span>')
LINK = re.compile(r"\]\((\.\./[^)\s]+)\)")  # the target of a Markdown link that leaves the folder


class Line(SphinxDirective):
    """A quoted line of a source file, and a link to it: see quotes.py."""

    required_arguments, has_content = 1, True

    def run(self) -> list[nodes.Node]:
        file, text = self.arguments[0], "\n".join(self.content)
        try:
            number = line_number(ROOT, file, text)
        except ValueError as wrong:
            raise self.error(str(wrong)) from wrong
        link = nodes.reference("", f"{file}, line {number}", refuri=f"source:{file}#line-{number}", internal=True)
        code = nodes.literal_block(text, text, language="python")
        return [nodes.container("", code, nodes.paragraph("", "", link), classes=["quoted-line"])]


def mark(app: Any, docname: str, content: list[str]) -> None:
    """Links to files outside docs/ become links to their pages."""
    def target(match: re.Match[str]) -> str:
        file = match[1].partition("#")[0]
        there = ((ROOT / "docs" / docname).parent / file).resolve()
        outside = there.exists() and not there.is_relative_to(ROOT / "docs")
        shown = outside and there.suffix in ("", ".py", ".cu", ".md")  # not a picture
        return f"](source:{there.relative_to(ROOT)})" if shown else match[0]

    content[0] = LINK.sub(target, content[0])


def resolve(app: Any, doctree: nodes.document, docname: str) -> None:
    """`source:FILE#line-N` becomes the way from this page to that one."""
    for node in doctree.findall(nodes.reference):
        scheme, _, target = node.get("refuri", "").partition(":")
        if scheme == "source":
            file, mark, line = target.partition("#")
            node["refuri"] = app.builder.get_relative_uri(docname, f"source/{file}") + mark + line


def shown(app: Any) -> set[str]:
    """The files to which some page refers."""
    doctrees = map(app.env.get_doctree, app.env.found_docs)
    addresses = (node.get("refuri", "") for doctree in doctrees for node in doctree.findall(nodes.reference))
    return {address.removeprefix("source:").partition("#")[0] for address in addresses if address.startswith("source:")}


def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The page of each file: its name, what the template gets, and the template."""
    for file in sorted(shown(app)):
        path = ROOT / file
        if path.is_dir():
            body = "".join(f"<li><code>{escape(inner.name)}</code></li>" for inner in sorted(path.iterdir())
                           if inner.suffix in (".py", ".cu"))
            body = f"<ul>{body}</ul>"
        else:
            code = highlight(path.read_text(), get_lexer_for_filename(file),
                             HtmlFormatter(lineanchors="line", wrapcode=True))
            code = PLAIN.sub(r"\1", ANCHOR.sub(r"<i \1></i>", code))
            body = f'<div class="numbered">{code}</div>'
        yield f"source/{file}", {"title": escape(file), "body": f"<h1>{escape(file)}</h1>\n{body}"}, "page.html"


def register(app: Any) -> None:
    app.add_directive("line", Line)
    app.connect("source-read", mark)
    app.connect("doctree-resolved", resolve)
    app.connect("html-collect-pages", pages)
