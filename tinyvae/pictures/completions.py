"""Completed images: the data, what was observed of them, several completions, their mean and their spread."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tinyvae.pictures.figures import labelled_rows, spread
from tinyvae.pictures.page import PathLike, Shape
from tinyvae.tasks.completion import Completion

ANSWERS = 4  # completions that a picture shows of each datum
LIGHT, DARK = 0.62, 0.45  # the two greys of the chequered ground that stands for missing pixels


def completions(found: Completion, shape: Shape, path: PathLike, columns: int = 10, answers: int = ANSWERS) -> Path:
    """Draw the first `columns` data, one in each column, with the first `answers` completions of each, as PNG.

    The completions and the mean are cut to [0, 1], where they lie beyond, and the standard deviations divided by the
    largest of them.
    """
    chosen = slice(min(columns, len(found.x)))
    chequered = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2
    ground = np.where(chequered, LIGHT, DARK).reshape(-1).repeat(math.prod(shape[2:]))
    missing = found.missing[chosen]
    named = {"data": np.where(missing & ~found.hidden[chosen], ground, found.x[chosen])}
    named["observed"] = np.where(missing, ground, found.x[chosen])
    named |= {f"completion {i + 1}": draw[chosen] for i, draw in enumerate(found.draws[:answers])}
    named |= {"mean": found.mean[chosen], **spread(found.sd[chosen])}
    images = np.clip(np.array(list(named.values())), 0, 1)
    return labelled_rows(images, shape, path, f"Completions by {found.method}, {found.data}", list(named))
