"""What a data set is, and what its name says about its pixels.

The same images give other numbers when their pixels are treated in another way (a Bernoulli on grey values
is not on the scale of a Bernoulli on bits), so the treatment is part of the name and every result line
prints it:

    -dynamic     a pixel is 1 with probability grey, drawn anew at each use (the training code draws; here it
                 stays grey)
    -static      the same, drawn once, the same for everyone: bits
    -threshold   1 where grey > 1/2: bits
    -gray        the grey values themselves

Grey values are kept in the type of their file (bytes stay bytes); grey = stored / scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinyvae.engine import noise

# The suffixes of a name, and the likelihood that each means by default. Where a pixel is 0 in every image, as at the
# border of a digit, a Gaussian with a free variance has no largest likelihood: grey means the continuous Bernoulli, but
# for the two sets of faces, which mean the Gaussian of AEVB.
PIXELS = {"dynamic": "bernoulli", "static": "bernoulli", "threshold": "bernoulli", "gray": "continuous-bernoulli"}

# "The same for everyone": these draws never depend on the seed of a run.
SEED = 0
# Rows drawn at a time are chosen to hold about this many pixels; the draws do not depend on it.
CHUNK = 2**18


class DataError(ValueError):
    """Data that cannot be used; the message says what was found, what was expected and what to do."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images as rows of pixels, split into train and test.

    Attributes
    ----------
    name : the full name, such as "mnist-dynamic"; `load(name)` gives the same data again
    train, test : (count, pixels), uint8 or float32, C-contiguous; grey value = stored / scale, in [0, 1]
    shape : (rows, columns) of one image; a row of `train` reshaped to it is the picture
    scale : 255 for bytes, 16 for digits, 1 for bits and for floats
    pixels : "dynamic", "static", "threshold" or "gray": see the head of this file
    likelihood : what name and treatment mean by default: "bernoulli", "continuous-bernoulli" or "gaussian"
    train_labels, test_labels : (count,) int64, or None where the source has none
    valid, valid_labels : like `train`, only where the source has a validation part of its own, or one is held out
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    shape: tuple[int, int]
    scale: float
    pixels: str = "gray"
    likelihood: str = "continuous-bernoulli"
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    valid: np.ndarray | None = None
    valid_labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        scale = self.scale if isinstance(self.scale, (int, float, np.number)) else 0
        if not 0 < scale < np.inf:
            raise DataError(f"found scale={self.scale!r} of {self.name}; expected a number above 0, for grey is stored "
                            "over scale")
        for part in ("train", "test", "valid"):
            stored = getattr(self, part)
            if stored is None and part == "valid":
                continue
            if not isinstance(stored, np.ndarray) or stored.ndim != 2 or not stored.size:
                found = f"shape {stored.shape}" if isinstance(stored, np.ndarray) else type(stored).__name__
                raise DataError(f"found {part} data of {self.name} of {found}; expected an array (count, pixels) that "
                                "is not empty")
            if len(self.shape) != 2 or stored.shape[1] != self.shape[0] * self.shape[1]:
                raise DataError(f"found {stored.shape[1]} pixels a datum in the {part} data of {self.name}, and images "
                                f"of {' x '.join(map(str, self.shape))}; expected as many pixels as the shape has")
            low, high = stored.min(), stored.max()
            if not (low >= 0 and high <= scale):  # NaN fails
                raise DataError(f"found values from {low} to {high} in the {part} data of {self.name}; expected 0 to "
                                f"the scale, {scale:g}")

    @property
    def dimensions(self) -> int:
        """The number of pixels of one image."""
        return self.train.shape[1]

    @property
    def is_bits(self) -> bool:
        """Whether the stored values are only 0 and 1."""
        return self.train.dtype == np.uint8 and self.scale == 1

    def __str__(self) -> str:
        valid = "" if self.valid is None else f"{len(self.valid)} valid, "
        return (
            f"{self.name}: {len(self.train)} train, {valid}{len(self.test)} test, "
            f"{self.shape[0]} x {self.shape[1]}, {self.train.dtype} / {self.scale:g}, {self.likelihood}"
        )

    __repr__ = __str__


def split_suffix(name: str) -> tuple[str, str | None]:
    """("mnist", "static") of "mnist-static"; (name, None) where the name ends in none of the suffixes."""
    for pixels in PIXELS:
        if name.endswith("-" + pixels):
            return name.removesuffix("-" + pixels), pixels
    return name, None


def treated(data: DataSet, pixels: str) -> DataSet:
    """The grey data set with its pixels treated as `pixels` says. Name and labels are kept."""
    data = replace(data, pixels=pixels, likelihood=PIXELS[pixels])
    if pixels in ("dynamic", "gray") or data.is_bits:  # bits are their own static draw and threshold
        return data

    def bits(part: np.ndarray, site: int) -> np.ndarray:
        return draw_static(part, data.scale, site) if pixels == "static" else above_half(part, data.scale)

    return replace(
        data,
        train=bits(data.train, 0),
        test=bits(data.test, 1),
        valid=None if data.valid is None else bits(data.valid, 2),
        scale=1.0,
    )


def above_half(images: np.ndarray, scale: float) -> np.ndarray:
    """1 where grey > 1/2, as (count, pixels) uint8.

    "Greater", as in the usual data loaders. Of bytes none is equal (127.5 is between two), but 8 of the
    digits' 16 is.
    """
    return (images > scale / 2).view(np.uint8)


def draw_static(images: np.ndarray, scale: float, site: int, chunk: int = CHUNK) -> np.ndarray:
    """Each pixel drawn once: 1 with probability stored / scale, as (count, pixels) uint8.

    The draw of pixel p of image n has the address (seed 0, stream "binarise-static", step 0, site, index
    n * pixels + p), site 0 for train, 1 for test and 2 for valid. So it depends neither on the chunk, which
    only bounds the memory, nor on how many images there are.
    """
    count, width = images.shape
    bits = np.empty(images.shape, np.uint8)
    rows = max(1, chunk // width)
    for first in range(0, count, rows):
        stored = images[first : first + rows]
        u = noise.uniform(SEED, "binarise-static", 0, site, stored.shape, first=first * width)
        # uniform lies in [0, 1): a grey value of 0 is never 1, and a grey value of 1 always
        bits[first : first + rows] = u < stored.astype(np.float32) / np.float32(scale)
    return bits


def held_out(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of train and of test, `size` of the `count` drawn at random for test, each in increasing order.

    The same for everyone: seed 0, stream "split".
    """
    order = noise.permutation(SEED, "split", 0, count)
    return np.sort(order[size:]), np.sort(order[:size])
