"""Answers to conditions as pictures: several answers, their mean and spread, and the data; ways of super-resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyvae.pictures.figures import labelled_rows, spread
from tinyvae.pictures.page import PathLike, Shape
from tinyvae.tasks.generation.conditional import Answers
from tinyvae.tasks.generation.upscaling import Upscaled


def upscaled(found: Upscaled, shape: Shape, path: PathLike) -> Path:
    """Draw the first images of each way to raise the resolution, from the given ones to the originals, as PNG."""
    images, names = np.array(list(found.shown.values())), list(found.shown)
    names[0] = "low resolution"  # enlarged by nearest neighbour
    return labelled_rows(np.clip(images, 0, 1), shape, path, f"Super-resolution x{found.factor}", names)


def answers(found: Answers, shape: Shape, path: PathLike, data: np.ndarray | None = None, columns: int = 10,
            shown: int = 6) -> Path:
    """Draw the first `columns` conditions, one in each column, with the first `shown` answers to each, as PNG.

    The standard deviations over all answers are divided by the largest of them; where all answers are the same, they
    are black. `data`, (rows, pixels), is the image of which each condition is a part.
    """
    chosen = slice(columns)
    named = {} if found.pictures is None else {"condition": found.pictures[chosen]}
    named |= {f"answer {i + 1}": draw[chosen] for i, draw in enumerate(found.images[:shown])}
    named |= {f"mean of {len(found.images)}": found.mean[chosen], **spread(found.spread[chosen])}
    if data is not None:
        named["data"] = data[chosen]
    heads = found.captions[chosen] if any(found.captions) else None
    return labelled_rows(np.clip(np.array(list(named.values())), 0, 1), shape, path,
                         f"Given {found.given}, temperature {found.temperature:g}", list(named), heads)
