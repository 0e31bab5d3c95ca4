"""Pictures and pages in a chapter: shown under the cell that made them, with a text for those who do not see them.

In a notebook a picture is a part of the page, whichever backend Matplotlib would use. A chapter that runs as a plain
program prints the text in its place.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tinyvae.pictures.page import save_png

# What the button under a page does: the frame holds the text of the page, and a file of it opens like any other.
OPEN = ("window.open(window.URL.createObjectURL(new Blob([this.parentElement.querySelector('iframe').srcdoc], "
        "{type: 'text/html'})))")
FLAT = 2.0  # of 255: the standard deviation of the grey values below which a picture shows nothing


def show(figure: Any, text: str) -> None:
    """Show a Matplotlib figure; `text` says what is to be seen in it."""
    drawn(lambda path: save_png(figure, path), text=text)


def drawn(draw: Callable[..., Any], *arguments: Any, text: str, form: str = "png") -> None:
    """Show what `draw(*arguments, path)` writes: a function of tinyvae.lessons.figures or of tinyvae.pictures.

    `form` is png, svg, or gif for an animation, which the reader starts. ValueError for a picture of pixels that is
    blank.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"picture.{form}"
        draw(*arguments, path)
        content = path.read_bytes()
        if form != "svg":
            check_not_blank(path, text)
    if in_a_notebook():
        from IPython.display import HTML, display

        display(HTML(html(content, text, form)))
    else:
        print(f"Picture: {text}")


def embedded(page: Path, text: str, height: int = 760) -> None:
    """Show an HTML file, a page of its own, within the chapter, `height` pixels high; `text` is its title.

    It scrolls in its frame, and a button opens it by itself.
    """
    if in_a_notebook():
        from IPython.display import HTML, display

        display(HTML(frame(page.read_text(), text, height)))
    else:
        print(f"Page: {text}")


def frame(page: str, text: str, height: int) -> str:
    """A page as a part of another, which holds all of it, so that nothing is fetched."""
    return (f'<figure class="made"><iframe title="{escape(text)}" srcdoc="{escape(page)}" loading="lazy" '
            f'style="width: 100%; height: {height}px; border: 0"></iframe>'
            f'<button type="button" onclick="{escape(OPEN)}">Open this page by itself</button></figure>')


def html(content: bytes, text: str, form: str) -> str:
    """The picture as a part of a page; an animation stays folded until it is asked for."""
    data = base64.b64encode(content).decode("ascii")
    kind = "svg+xml" if form == "svg" else form
    image = f'<img src="data:image/{kind};base64,{data}" alt="{escape(text)}">'
    if form == "gif":
        image = f"<details><summary>Show the animation</summary>{image}</details>"
    return f'<figure class="made">{image}</figure>'


def check_not_blank(path: Path, text: str) -> None:
    from PIL import Image

    with Image.open(path) as image:
        spread = float(np.asarray(image.convert("L"), np.float64).std())
    if not spread >= FLAT:
        raise ValueError(f"found a blank picture where {text!r} should be; draw into the figure before it is shown")


def in_a_notebook() -> bool:
    """Is this the kernel of a notebook? A plain program, or IPython in a terminal, shows no pictures."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")
