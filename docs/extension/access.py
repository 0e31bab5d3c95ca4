"""What Sphinx and its theme leave out for those who read with a keyboard or a screen reader."""

from __future__ import annotations

from typing import Any

CHANGES = {
    ' role="heading"': ' role="heading" aria-level="2"',  # the captions of the list of pages
    "<pre>": '<pre tabindex="0">',  # code that is wider than the page can be scrolled by keys
}
PARTS = ("body", "furo_navigation_tree")


def mend(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    for part in PARTS:
        for old, new in CHANGES.items():
            context[part] = str(context.get(part, "")).replace(old, new)


def register(app: Any) -> None:
    app.connect("html-page-context", mend, priority=900)  # after the theme
