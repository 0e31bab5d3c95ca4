"""Answers to a condition: what the target may be, by a model of p(target|condition), with its mean and its spread.

A draw z of the prior p(z|c) gives one answer, the mean of p(t|z, c). At the temperature T the draw is

    z = m + T (z' - m),    z' ~ p(z|c) with mean m,

which for a normal prior is a draw of N(m, (T sigma)^2): 0 gives the same answer always, 1 the model's own spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.choices import an, whole
from tinyvae.engine.noise import Noise
from tinyvae.models import check_model, conditions
from tinyvae.tasks.inputs import images_of

CHUNK = 2**22  # the largest number of pixels that are decoded at a time, which bounds the memory


@dataclass(frozen=True)
class Answers:
    """Answers to conditions; `mean` and `spread` are over the draws.

    Attributes
    ----------
    given : what is given, in words
    captions : (rows,), the name of each condition; "" for an image
    conditions : (rows, width), what the model read
    pictures : (rows, pixels), the conditions as images, with 1/2 where nothing is known; None for labels
    images : (draws, rows, pixels) in [0, 1], the answers, with the given pixels in their places
    temperature : the factor of the distance of z from its mean
    """

    given: str
    captions: list[str]
    conditions: np.ndarray
    pictures: np.ndarray | None
    images: np.ndarray
    temperature: float

    @property
    def mean(self) -> np.ndarray:
        """(rows, pixels)."""
        return self.images.mean(0)

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation over the draws, (rows, pixels)."""
        return self.images.std(0)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of an .npz file by their names."""
        return {"answers": self.images, "mean": self.mean, "spread": self.spread, "conditions": self.conditions}


def check_conditional(model: Any, forms: str = "") -> None:
    """Raise ValueError for a model that is given nothing; `forms` says what it should be given, by default anything."""
    check_model(model)
    if model.condition is None or not model.has("answers"):
        raise ValueError(f"found {an(model.kind)}, which generates without a condition; expected a run that was "
                         f"trained with one: tinyvae train --model cvae --given {forms or conditions.forms()}")


def answer(model: Any, label: int | None = None, images: Any = None, draws: int = 8, temperature: float = 1.0,
           seed: int = 0) -> Answers:
    """Answers of a conditional model to a label, or to images.

    Parameters
    ----------
    label
        The label, for a model that is given one.
    images
        For any other model: an array (count, rows, columns) in [0, 1], or the path of an image, of a folder of images
        or of an .npy file. Of a whole image, the model reads what it is given; a pooled image may be given itself.
    draws
        The number of answers to each condition.
    temperature
        At least 0; see the head of this file.

    Raises
    ------
    ValueError
        For a model without a condition, or a condition that is none of its kind.
    """
    check_conditional(model, "" if (label is None) == (images is None) else
                      conditions.forms("image" if label is None else "label"))
    if (label is None) == (images is None):
        raise ValueError(f"found {'neither a label nor an image' if label is None else 'a label and an image'}; "
                         f"expected one of them: this model is given {model.condition.words}")
    if label is not None:
        c = model.condition.from_label(whole("the label", label))
    else:
        c = model.condition.from_images(images_of(images, model.condition.shapes()))
    return answers_to(model, c, draws, temperature, seed)


def answers_to(model: Any, c: np.ndarray, draws: int = 8, temperature: float = 1.0, seed: int = 0) -> Answers:
    """Answers of a conditional model to conditions as it reads them, (rows, width)."""
    condition, noise = model.condition, Noise(seed, "answer", model.xp.zeros(1, np.int64))
    check_temperature(model, temperature)
    found = drawn(model, c, noise, whole("draws", draws, 1), temperature)
    return Answers(condition.words, condition.captions(c), c, condition.picture(c), condition.whole(c, found),
                   float(temperature))


def check_temperature(model: Any, temperature: float) -> None:
    """Raise ValueError for a temperature below 0, or one that can push z out of the prior's support."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"found the temperature {temperature}; expected a number of at least 0")
    if temperature > 1 and model.config.get("posterior", "normal") not in ("normal", "full-normal"):
        raise ValueError(f"found the temperature {temperature} with {an(model.config['posterior'])} prior, which has "
                         "no numbers beyond its limits; expected 0 to 1")


def drawn(model: Any, c: np.ndarray, noise: Noise, draws: int, temperature: float) -> np.ndarray:
    """The targets, (draws, rows, targets), of conditions c (rows, width), from noise of one step."""
    chunk = max(1, CHUNK // (len(c) * model.targets))
    parts = []
    with model.parameters.used(), np.errstate(all="ignore"):
        given = model.tensor(c, model.condition.width, "conditions")
        for start in range(0, draws, chunk):
            wanted = min(chunk, draws - start)
            found = model.answers(given, noise, wanted, temperature).numpy()
            parts.append(np.broadcast_to(found, (wanted, *found.shape[1:])))
    return np.concatenate(parts)

