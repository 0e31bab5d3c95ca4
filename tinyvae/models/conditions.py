"""What a conditional model is given, and which pixels it answers with.

A condition c and its target t are parts of a datum, and the model learns p(t|c). `given` names a kind of condition,
with its number where it has one:

    label         the label; the target is the image
    quadrants:1   the bottom left quarter of the image; the target is the rest (Sohn, Lee & Yan 2015, section 5.1)
    quadrants:2   the left half
    quadrants:3   all but the bottom right quarter
    pooled:N      the grey image averaged over N x N pixels, or each channel of one in colour; the target is the image

A part of an image and the rest come from one draw of its pixels, and a pixel has all its channels in one of them. A
pooled image comes from the grey values, of which the pixels of the target are drawn, and not from these pixels.

A class under `@kind(NAME)` is a further kind, also in a file of one's own (`--use FILE`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from tinyvae.data import DataSet
from tinyvae.engine.tensor import Tensor
from tinyvae.models.batch import Batch, one_hot

Shape = Sequence[int]  # (rows, columns) of an image, or (rows, columns, 3) in colour
Box = tuple[int, int, int, int]  # the first row, the row after the last one, and the same for the columns

CONDITIONS: dict[str, type[Condition]] = {}


class Condition:
    """A kind of condition, for images of one shape.

    Attributes
    ----------
    form : how `given` names the kind, such as "pooled:N"
    needs : the fields of a batch that it reads beside the pixels
    words : what is given, in words
    width : how many numbers the condition c has
    pixels : (targets,) the numbers of the target's pixels within an image, in their order in the target
    """

    form: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    words: str
    width: int

    def __init__(self, number: int, shape: Shape, classes: int) -> None:
        self.shape = tuple(map(int, shape))
        self.pixels = np.arange(math.prod(self.shape))

    def _check_images(self, name: str, number: int, classes: int) -> None:
        """Raise ValueError unless the data are images of rows and columns, which may have channels."""
        if len(self.shape) not in (2, 3) or self.shape[0] == 1:  # a table has one row of its columns
            found = f"one row of {self.shape[1]} numbers, as of a table" if len(self.shape) == 2 else (
                f"shape {self.shape}")
            cure = "" if classes else ", for which data need labels, as by --label-column NAME or --labels-from FILE"
            raise ValueError(f"found given='{name}:{number}' for data of {found}; expected images of rows and columns, "
                             f"which a condition on pixels needs: take given='label'{cure}")

    # ---- of a batch --------------------------------------------------------------------------------------------------

    def of(self, batch: Batch) -> Tensor:
        """c, (rows, width)."""
        raise NotImplementedError

    def target(self, batch: Batch) -> Tensor:
        """t, (rows, targets)."""
        return batch.x

    def seen(self, batch: Batch) -> tuple[Tensor, ...]:
        """Target and condition together: what q(z|t, c) reads."""
        return batch.x, self.of(batch)

    def seen_widths(self) -> tuple[int, ...]:
        """The width of each part of `seen`."""
        return math.prod(self.shape), self.width

    def rows(self, data: DataSet, part: str) -> np.ndarray | None:
        """For a kind that needs `given`: c of each datum of a part of the data, (count, width) float32."""
        return None

    def every(self) -> np.ndarray | None:
        """All conditions that there are, (count, width), if they are few; else None."""
        return None

    # ---- of a user ---------------------------------------------------------------------------------------------------

    def from_label(self, label: int) -> np.ndarray:
        """c for a label, (1, width); ValueError if this is no condition of the kind."""
        raise ValueError(f"found the label {label} as the condition; this model is given {self.words}: give an image")

    def from_images(self, images: np.ndarray) -> np.ndarray:
        """c for images (count, *shape) in [0, 1], (count, width); ValueError if they are no conditions."""
        if images.shape[1:] != self.shape:
            raise ValueError(f"found a condition of {_size(images.shape[1:])} pixels; expected {self._expected()}, "
                             f"because this model is given {self.words}")
        return self._cut(images)

    def _cut(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def shapes(self) -> list[Shape]:
        """The shapes of images that can be a condition."""
        return [self.shape]

    def _expected(self) -> str:
        return f"an image of {_size(self.shape)}"

    # ---- for pictures ------------------------------------------------------------------------------------------------

    def whole(self, c: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The images, (..., pixels), of targets (..., targets) and the conditions c (rows, width) that they answer."""
        return target

    def picture(self, c: np.ndarray) -> np.ndarray | None:
        """c as images (rows, pixels) in [0, 1], with 1/2 where nothing is known; None for a label."""
        return None

    def captions(self, c: np.ndarray) -> list[str]:
        """The name of each condition, (rows,)."""
        return [""] * len(c)


def _size(shape: Shape) -> str:
    return " x ".join(map(str, shape))


K = TypeVar("K", bound=type[Condition])


def kind(name: str) -> Callable[[K], K]:
    """Register the class below as the kind of condition `name`."""

    def register(cls: K) -> K:
        CONDITIONS[name] = cls
        return cls

    return register


def forms(of: str = "") -> str:
    """How `given` can be written, in words: every way, or those whose conditions a user gives as a "label" or an
    "image"."""
    found = [cls.form for cls in CONDITIONS.values()
             if not of or (cls.from_label is not Condition.from_label) == (of == "label")]
    return " or ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def condition_of(given: Any, shape: Shape, classes: int) -> Condition:
    """The condition that `given` names, for images (rows, columns) with labels 0 to classes - 1; ValueError if none."""
    name, _, number = str(given).partition(":")
    cls = CONDITIONS.get(name)
    if cls is None or (":" in cls.form) != bool(number) or not (number.isdecimal() or not number):
        raise ValueError(f"found given={given!r}; expected {forms()}")
    return cls(int(number or 0), shape, classes)


@kind("label")
class Label(Condition):
    """The label, one-hot."""

    form = "label"
    needs = ("y",)
    words = "a label"

    def __init__(self, number: int, shape: Shape, classes: int) -> None:
        super().__init__(number, shape, classes)
        if classes < 1:
            # a table has one row of its columns, of which no other condition can be
            cure = "take --label-column NAME or --labels-from FILE" if self.shape[0] == 1 else (
                f"take --labels-from FILE, or another condition: {forms('image')}")
            raise ValueError(f"found given='label' for data without labels; expected data with labels: {cure}")
        self.width = classes

    def of(self, batch: Batch) -> Tensor:
        assert batch.y is not None
        return batch.y

    def every(self) -> np.ndarray:
        return np.eye(self.width, dtype=np.float32)[:10]

    def from_label(self, label: int) -> np.ndarray:
        if not 0 <= label < self.width:
            raise ValueError(f"found the label {label}; this model was trained on labels from 0 to {self.width - 1}")
        return one_hot(np.array([label]), self.width).astype(np.float32)

    def from_images(self, images: np.ndarray) -> np.ndarray:
        raise ValueError("found an image as the condition; this model is given a label: give a number from 0 to "
                         f"{self.width - 1}")

    def captions(self, c: np.ndarray) -> list[str]:
        return [f"label {row.argmax()}" if row.any() else "no label" for row in c]


@kind("quadrants")
class Quadrants(Condition):
    """One, two or three quarters of the image; the target is the rest."""

    form = "quadrants:1|2|3"
    names = ("the bottom left quarter of an image", "the left half of an image",
             "all of an image but its bottom right quarter")  # fmt: skip

    def __init__(self, number: int, shape: Shape, classes: int) -> None:
        super().__init__(number, shape, classes)
        self._check_images("quadrants", number, classes)
        if not 1 <= number <= 3:
            raise ValueError(f"found given='quadrants:{number}'; expected 1 ({self.names[0]}), 2 ({self.names[1]}) or "
                             f"3 ({self.names[2]})")
        high, wide = self.shape[:2]
        if min(high, wide) < 2:
            raise ValueError(f"found given='quadrants:{number}' for images of {_size(shape)} pixels; expected at "
                             "least 2 x 2, which have quarters")
        top, left = high // 2, wide // 2
        upper, lower_left, lower_right = (0, top, 0, wide), (top, high, 0, left), (top, high, left, wide)
        known: list[list[Box]] = [[lower_left], [(0, high, 0, left)], [upper, lower_left]]
        rest: list[list[Box]] = [[upper, lower_right], [(0, high, left, wide)], [lower_right]]
        self.words, self.known, self.rest = self.names[number - 1], known[number - 1], rest[number - 1]
        numbers = self.pixels.reshape(self.shape)
        self.given, self.pixels = (np.concatenate([numbers[a:b, c:d].reshape(-1) for a, b, c, d in boxes])
                                   for boxes in (self.known, self.rest))
        self.width = len(self.given)

    def _part(self, x: Tensor, boxes: list[Box]) -> Tensor:
        images, channels = x.reshape(-1, *self.shape), math.prod(self.shape[2:])
        parts = [images[:, a:b, c:d].reshape(-1, (b - a) * (d - c) * channels) for a, b, c, d in boxes]
        return parts[0] if len(parts) == 1 else parts[0].concatenate(*parts[1:], axis=1)

    def of(self, batch: Batch) -> Tensor:
        return self._part(batch.x, self.known)

    def target(self, batch: Batch) -> Tensor:
        return self._part(batch.x, self.rest)

    def seen(self, batch: Batch) -> tuple[Tensor, ...]:
        return (batch.x,)  # has both

    def seen_widths(self) -> tuple[int, ...]:
        return (math.prod(self.shape),)

    def _cut(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, self.given]

    def whole(self, c: np.ndarray, target: np.ndarray) -> np.ndarray:
        images = np.empty((*target.shape[:-1], len(self.given) + len(self.pixels)), target.dtype)
        images[..., self.given], images[..., self.pixels] = c, target
        return images

    def picture(self, c: np.ndarray) -> np.ndarray:
        return self.whole(c, np.full((len(c), len(self.pixels)), 0.5, c.dtype))


@kind("pooled")
class Pooled(Condition):
    """The mean of each block of N x N pixels, in each channel."""

    form = "pooled:N"
    needs = ("given",)

    def __init__(self, number: int, shape: Shape, classes: int) -> None:
        super().__init__(number, shape, classes)
        self._check_images("pooled", number, classes)
        sides = self.shape[:2]
        if number < 2 or any(side % number for side in sides):
            fits = [n for n in range(2, min(sides) + 1) if not any(side % n for side in sides)]
            what = f"found given='pooled:{number}' for images of {_size(self.shape)} pixels"
            raise ValueError(f"{what}; expected one of {', '.join(map(str, fits))}, by which rows and columns can be "
                             "divided" if fits else f"{what}, of which no number divides rows and columns; expected "
                             f"another condition: {forms()}")
        self.number, self.low = number, (sides[0] // number, sides[1] // number, *self.shape[2:])
        self.words = f"an image averaged over {number} x {number} pixels"
        self.width = math.prod(self.low)

    def of(self, batch: Batch) -> Tensor:
        assert batch.given is not None
        return batch.given

    def rows(self, data: DataSet, part: str) -> np.ndarray:
        return self.pooled(np.asarray(getattr(data, part))) / np.float32(data.scale)

    def pooled(self, images: np.ndarray) -> np.ndarray:
        """The means of the blocks of images (..., pixels), (..., width) float32."""
        n, (high, wide, *channels) = self.number, self.low
        before = images.shape[:-1]
        blocks = images.reshape(*before, high, n, wide, n, *channels)
        means = blocks.mean((len(before) + 1, len(before) + 3), dtype=np.float32)
        return means.reshape(*before, self.width)

    def from_images(self, images: np.ndarray) -> np.ndarray:
        if images.shape[1:] == self.low:
            return images.reshape(len(images), -1)
        return super().from_images(images)

    def _cut(self, images: np.ndarray) -> np.ndarray:
        return self.pooled(images.reshape(len(images), -1))

    def shapes(self) -> list[Shape]:
        return [self.shape, self.low]

    def _expected(self) -> str:
        return f"{_size(self.low)}, or {_size(self.shape)} to be averaged"

    def picture(self, c: np.ndarray) -> np.ndarray:
        low = c.reshape(len(c), *self.low)
        return low.repeat(self.number, 1).repeat(self.number, 2).reshape(len(c), -1)
