"""The sources of the book: docs/book/sources.toml says what each says, and the chapters say where it is used.

A chapter names a source by its authors and year, as "Kingma & Welling (2014)" or "Neal, "Annealed importance sampling"
(2001)", or by the short name that sources.toml gives it, as "AEVB". The page Sources shows those that a chapter names,
with links to these chapters; so no list of uses can go stale.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME, YEAR = r"[A-ZÉ][\w-]+", r"((?:19|20)\d\d)\b"
CITATION = re.compile(
    rf"((?:{NAME}(?:, {NAME})* & {NAME})|{NAME} et al\.) \(?{YEAR}"  # several authors
    rf"|({NAME}) \({YEAR}\)|\(({NAME}) {YEAR}\)")  # and one, where "In 2015" is none


def one_line(text: str) -> str:
    """Markdown as one line, with "&" for "and" and without a title between authors and year."""
    text = " ".join(re.sub(r"^[>#]* ?", "", text, flags=re.MULTILINE).split()).replace(" and ", " & ")
    return re.sub(r',? ["“][^"”]*["”](?= \()', "", text)


def citations(text: str) -> set[str]:
    """The citations in a text, as "Kingma & Welling 2014"."""
    return {" ".join(filter(None, found)) for found in CITATION.findall(one_line(text))}


def sources(file: Path) -> list[dict[str, Any]]:
    """The sources of a file, each with its `names`, the first by authors and year, `title`, `where` and `says`."""
    return tomllib.loads(file.read_text())["source"]


def users(source: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    """The keys of the texts that name a source."""
    short = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in source["names"][1:]) or r"(?!)")
    return [key for key, text in texts.items() if source["names"][0] in citations(text) or short.search(one_line(text))]


def unknown(text: str, known: Iterable[Mapping[str, Any]]) -> set[str]:
    """The citations in a text that are no name of a source."""
    return citations(text) - {name for source in known for name in source["names"]}
