"""What the page can compute: each thing is declared in JavaScript, beside the lines that compute it.

    likelihood("bernoulli", { ... });        in page/maths/likelihoods.js

Such a line at its left margin makes the name one of those that are served; nothing else lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from tinyvae.choices import an
from tinyvae.data import DataSet
from tinyvae.models.learners import FULL_VB
from tinyvae.models.priors import STANDARD

PAGE = files("tinyvae.explorer") / "page"
DECLARED = re.compile(r'^(activation|likelihood|family|model|condition)\("([^"]+)"', re.MULTILINE)


def scripts(folder: Traversable = PAGE) -> Iterator[tuple[str, str]]:
    """The JavaScript files of the page, name and text, in the order of their folders and names; main.js is the last."""
    for entry in sorted(folder.iterdir(), key=lambda entry: (entry.name == "main.js", entry.name)):
        if entry.is_dir():
            yield from scripts(entry)
        elif entry.name.endswith(".js"):
            yield entry.name, entry.read_text(encoding="utf-8")


@cache
def served() -> dict[str, list[str]]:
    """The names that are served, by "activation", "likelihood", "family" (of q(z|x)), "model" and "condition"."""
    found: dict[str, list[str]] = {}
    for _, text in scripts():
        for what, name in DECLARED.findall(text):
            found.setdefault(what, []).append(name)
    return found


def check(model: Any, data: DataSet) -> None:
    """Raise ValueError, with one sentence, for what the page cannot show."""
    config = model.config
    wanted = {"model": model.kind, "activation": config.get("activation"), "likelihood": config.get("likelihood"),
              "family": config.get("posterior"), "condition": str(config.get("given", "")).partition(":")[0]}
    for what, name in wanted.items():
        if name and name not in served()[what]:
            named = {"model": an(name), "family": f"the posterior {name}"}.get(what, f"the {what} {name}")
            raise ValueError(f"found {named}, which the page of explore cannot compute; expected one of "
                             f"{', '.join(served()[what])}")
    if (prior := config.get("prior", STANDARD)) != STANDARD:
        raise ValueError(f"found the prior {prior}, which the page of explore cannot draw from; expected a run with "
                         f"prior={STANDARD}: tinyvae sample draws from every prior")
    if config.get("learner") == FULL_VB:
        raise ValueError(f"found learner={FULL_VB}, whose p(x|z) is a mean over weights; the page of explore has one "
                         "decoder, and expected a run with another learner")
    if data.is_table:
        raise ValueError(f"found {data.name}, a table; explore shows images, and expected a run that was trained on "
                         "them: what a table's run has is in tinyvae latents and tinyvae reconstruct")
    if data.has_missing:
        raise ValueError(f"found missing pixels in {data.name}; explore shows whole images: give others with --data")
    model.check(data)
