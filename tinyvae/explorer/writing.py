"""The page as one text: a template, its style and scripts, and the run's facts and arrays as data that never run.

The Content-Security-Policy of the page forbids every request, and allows the one script and the one style whose SHA-256
it names. So names of runs, data and labels can hold anything: in the JSON, "<" is written as an escape, and the script
shows names as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from tinyvae.choices import path_of
from tinyvae.explorer.contents import contents
from tinyvae.explorer.served import PAGE, check, scripts
from tinyvae.runs import CheckpointError, opened
from tinyvae.runs.files import plain, write_bytes

ALIGN = 4  # bytes; each array begins at a multiple


def explore(run: str | Path, out: str | Path | None = None, data: str | None = None,
            data_dir: str | None = None) -> Path:
    """Write a run as one HTML page, which a browser opens without a server or a network; returns its path.

    The page holds encoder and decoder (float16 weights) and up to 1000 test data, and computes all that it shows.

    Parameters
    ----------
    run
        A run folder, or a checkpoint in one, of images.
    out
        The file; by default explorer.html in the run folder.
    data
        The name of other data than the run's own.
    data_dir
        The folder that holds them, where they have moved.

    Raises
    ------
    ValueError, CheckpointError
        For a run that the page cannot show, or a file that cannot be written.
    """
    folder = path_of("a run folder", run)
    folder = folder if folder.is_dir() else folder.parent
    file = path_of("the page", folder / "explorer.html" if out is None else out)
    if file.is_dir():
        raise CheckpointError(f"{file} is a folder; expected the name of a file, as {file / 'explorer.html'}")
    model, data_set = opened(run, data, data_dir)
    check(model, data_set)
    facts, arrays = contents(model, data_set, folder.resolve().name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, page(facts, arrays).encode())
    return file


def page(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """The HTML of facts and arrays."""
    table, packed = pack(arrays)
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    script = '"use strict";\n(() => {\n' + "\n".join(text for _, text in scripts()) + "})();\n"
    policy = (f"default-src 'none'; script-src '{sha256(script)}'; style-src '{sha256(style)}'; base-uri 'none'; "
              "form-action 'none'")
    text = json.dumps(plain({**facts, "arrays": table}), allow_nan=False).replace("<", "\\u003c")
    template = Template((PAGE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(f"{facts['name']}: {facts['data']}"), policy=policy, style=style,
                               script=script, facts=text, arrays=base64.b64encode(packed).decode())


def sha256(text: str) -> str:
    """The digest of a script or a style as a policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def pack(arrays: dict[str, np.ndarray]) -> tuple[dict[str, dict[str, Any]], bytes]:
    """Arrays as little-endian bytes, compressed by zlib, and for each its type, its place and its count of numbers."""
    table, content = {}, bytearray()
    for name, array in arrays.items():
        kind = "bits" if array.dtype == bool else array.dtype.name
        stored = np.packbits(array) if kind == "bits" else array.astype(array.dtype.newbyteorder("<"))
        content += bytes(-len(content) % ALIGN)
        table[name] = {"type": kind, "at": len(content), "count": array.size}
        content += stored.tobytes()
    return table, zlib.compress(bytes(content))
