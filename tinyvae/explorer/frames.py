"""How the data lie in their images, so that a reader's own image can be laid in the same way.

Handwritten digits fill a part of the image around its middle, on an empty ground; faces fill all of it. What differs
from the ground by more than `INK` is called ink here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

INK = 0.25
FULL = 0.95  # data whose ink reaches from edge to edge in both directions fill their images


def frame_of(images: np.ndarray) -> dict[str, Any]:
    """The frame of images (count, rows, columns) in [0, 1]: medians over those that have ink.

    ground       the grey value of the border
    size         the part of the rows, or of the columns, that the ink covers, whichever is larger
    row, column  its centre of mass, in pixels from the upper left corner
    whole        whether the ink fills the images, so that only their middle can be laid on them
    """
    rows, columns = images.shape[1:]
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    ground = float(np.median(border))
    ink = np.abs(images - ground)
    ink[ink <= INK] = 0
    ink = ink[(ink > 0).any((1, 2))]
    middle = {"row": rows / 2, "column": columns / 2}
    if not len(ink):
        return {"ground": ground, "size": 1.0, **middle, "whole": True}
    spans = [_span(ink.max(axis) > 0) for axis in (2, 1)]
    mass = ink.sum((1, 2))
    row = (ink.sum(2) @ (np.arange(rows) + 0.5)) / mass
    column = (ink.sum(1) @ (np.arange(columns) + 0.5)) / mass
    high, wide = np.median(spans[0]) / rows, np.median(spans[1]) / columns
    return {"ground": ground, "size": float(np.median(np.maximum(spans[0] / rows, spans[1] / columns))),
            "row": float(np.median(row)), "column": float(np.median(column)),
            "whole": bool(min(high, wide) >= FULL)}


def _span(used: np.ndarray) -> np.ndarray:
    """How many places lie from the first to the last that is true, (count,), for used (count, places)."""
    first, last = used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)
    return last - first
