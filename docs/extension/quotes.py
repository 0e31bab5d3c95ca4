"""Lines of source files that chapters quote beside an equation:

    ```{line} tinyvae/inference/bounds.py
    return reconstruction - kl
    ```

A quote is one line of the file, or several that follow each other, without their common indentation. It must be there,
and only once; so it says which line it is, and a change of the file is noticed.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

QUOTE = re.compile(r"^```\{line\} (?P<file>\S+)\n(?P<text>.*?)\n```$", re.MULTILINE | re.DOTALL)


def line_number(root: Path, file: str, text: str) -> int:
    """The number of the first of the lines that `text` quotes from `file`; ValueError unless one place has them."""
    path = root / file
    if not path.is_file():
        raise ValueError(f"found a quote of {file}, which does not exist")
    lines, wanted = path.read_text().splitlines(), text.strip("\n").splitlines()
    places = [start for start in range(len(lines) - len(wanted) + 1)
              if textwrap.dedent("\n".join(lines[start : start + len(wanted)])).splitlines() == wanted]
    if len(places) != 1:
        raise ValueError(f"found {len(places)} places in {file} that read {text!r}; expected one: quote the lines as "
                         "they are, and more of them if there are several such places")
    return places[0] + 1
