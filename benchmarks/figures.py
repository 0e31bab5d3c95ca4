"""Inserting the figures of committed results files into README and docs, between two marks:

    <!--figure FILE:PATH:FORMAT-->102.01<!--/figure-->     the number at PATH in FILE.json, printed by FORMAT
    <!--rooms-->...<!--/rooms-->                           the rooms of the code and the files in each, as a table
    <!--accuracy-->...<!--/accuracy-->                     the rows of accuracy.json as a table
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import tinyvae
from benchmarks import results

PATH = r"(?:\[[^\]>]*\]|[^:>\[])+"  # no colon but within brackets
MARK = re.compile(rf"<!--figure (?P<file>[\w-]+):(?P<path>{PATH}):(?P<format>[^>]*?)-->.*?<!--/figure-->", re.DOTALL)

ROOMS = re.compile(r"<!--rooms-->.*?<!--/rooms-->", re.DOTALL)
ACCURACY = re.compile(r"<!--accuracy-->.*?<!--/accuracy-->", re.DOTALL)


def documents() -> list[Path]:
    """The files that can contain figures."""
    docs = results.ROOT / "docs"
    return [results.ROOT / "README.md", *sorted(docs.glob("*.md")), *sorted((docs / "book").glob("*.py"))]


def value(file: str, path: str) -> Any:
    """The value at a path such as `rows[setting=epoch 10].value` in a results file."""
    found: Any = results.quotable(file)
    for part in re.findall(r"[^.\[]+(?:\[[^\]]*\])?", path):  # split at the dots outside brackets
        name, _, condition = part.partition("[")
        found = found[name]
        if condition:
            wanted = dict(pair.split("=", 1) for pair in condition.rstrip("]").split("&"))
            found = next(row for row in found if all(str(row[key]) == text for key, text in wanted.items()))
    return found


def rooms() -> str:
    """The table of the rooms: the sentence of the package's docstring about each room, and its files."""
    lines = ["| room | what it holds | files |", "| --- | --- | --- |"]
    for room, words in re.findall(r"^    (\w+) {2,}(.+)$", tinyvae.__doc__ or "", re.MULTILINE):
        files = sorted(path.stem for path in (results.ROOT / "tinyvae" / room).glob("*.py") if path.stem != "__init__")
        if "one file a " in words:  # another family or model does not change the table
            files = []
        lines.append(f"| [{room}](tinyvae/{room}) | {words} | {', '.join(files)} |")
    return "\n".join(lines)


def accuracy(_: Any = None) -> str:
    """The table of accuracy.json: a line for each quantity of each family, with the errors and the bounds in units."""
    lines = ["| family | quantity | float32: value | gradient | float64: value | gradient |", "| --- " * 6 + "|"]
    for row in results.read("accuracy")["rows"]:
        errors = (f"{row[f'{kind}_{of}']:.1f}" for kind in ("float32", "float64") for of in ("value", "gradient"))
        lines.append(f"| {row['family']} | {row['quantity']} | {' | '.join(errors)} |")
    return "\n".join(["<!--accuracy-->", *lines, "<!--/accuracy-->"])


def filled(text: str) -> str:
    """The text of a document with the figures of the results files, and with the tables of rooms and of accuracy."""
    def insert(match: re.Match[str]) -> str:
        shown = format(value(match["file"], match["path"]), match["format"])
        return f"<!--figure {match['file']}:{match['path']}:{match['format']}-->{shown}<!--/figure-->"

    return ACCURACY.sub(accuracy, ROOMS.sub(f"<!--rooms-->\n{rooms()}\n<!--/rooms-->", MARK.sub(insert, text)))


def run(check: bool) -> None:
    """Rewrite the documents; with `check`, only report those that are out of date (exit code 1)."""
    stale = []
    for document in documents():
        before = document.read_text()
        after = filled(before)
        if before != after:
            stale.append(document.name)
            if not check:
                document.write_text(after)
    print(f"{'out of date' if check else 'renewed'}: {', '.join(stale) or 'nothing'}")
    if check and stale:
        sys.exit(1)
