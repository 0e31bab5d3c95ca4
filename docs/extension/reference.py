"""The reference: every public name of tinyvae and of its public modules, in the directive `public-names`.

What is public is what `__all__` says, and of a module without one what it defines under a name without underscore.
No list of names stands anywhere else.

Docstrings are plain text with code in `backticks`, so marks that mean something in reStructuredText are escaped.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import tinyvae

CODE = re.compile(r"`+([^`]+)`+")


def public(module: ModuleType) -> dict[str, Any]:
    """The public names of a module, and what each is."""
    own = (name for name, value in vars(module).items()
           if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__)
    return {name: getattr(module, name) for name in sorted(getattr(module, "__all__", own), key=str.lower)}


def modules() -> list[ModuleType]:
    """tinyvae, and the modules that are themselves among its public names."""
    return [tinyvae, *(value for value in public(tinyvae).values() if inspect.ismodule(value))]


def text() -> Iterator[str]:
    """The reference as reStructuredText: a section for each module, an entry for each name."""
    shown: list[Any] = []  # a class that several modules offer is described where it comes first
    for module in modules():
        title = module.__name__
        yield from (title, "-" * len(title), "", (inspect.getdoc(module) or "").partition("\n")[0], "")
        for name, value in public(module).items():
            if not inspect.ismodule(value) and not any(value is other for other in shown):
                shown.append(value)
                kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
                yield from (f".. auto{kind}:: {title}.{name}", *["   :no-value:"] * (kind == "data"), "")


class PublicNames(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(text()), allow_section_headings=True)


def escape(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """A docstring, in place, as text that means in reStructuredText what it reads."""
    for number, line in enumerate(lines):
        parts = CODE.split(line)
        parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = [f"``{part}``\\ " if after[:1].isalnum() else f"``{part}``"
                       for part, after in zip(parts[1::2], parts[2::2], strict=True)]
        lines[number] = "".join(parts)


def register(app: Any) -> None:
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before numpydoc's
