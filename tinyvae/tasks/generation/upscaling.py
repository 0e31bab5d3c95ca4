"""Super-resolution: answers to images of low resolution by a model that was given images averaged over N x N pixels.

Judged are nearest neighbour, Pillow's bicubic filter, and at each temperature one answer and the mean of several:

    psnr, ssim    the likeness with the original image (likeness.py)
    consistency   the PSNR of the answer, averaged over N x N pixels again, and the given image
    diversity     the standard deviation of a pixel over the draws, its mean over the pixels

An answer is the mean of p(x|z, y), so it is grey also where the pixels that the model learned from are bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyvae.choices import an, counted, whole
from tinyvae.engine import table
from tinyvae.engine.noise import Noise
from tinyvae.evidence.diagnostics import HIGHER, mean_and_error
from tinyvae.models.conditions import Pooled
from tinyvae.tasks.generation.conditional import check_conditional, check_temperature, drawn
from tinyvae.tasks.generation.likeness import colour_ssim, psnr, ssim
from tinyvae.tasks.inputs import images_of

BATCH = 100  # the number of images that are answered together; their numbers address the noise, so it stays fixed
TEMPERATURES = (0.2, 0.6, 1.0)
QUANTITIES = {"psnr": f"dB, {HIGHER}", "ssim": HIGHER, "consistency": f"dB, {HIGHER}", "diversity": "of a pixel"}


@dataclass(frozen=True)
class Way:
    """One way to raise the resolution: means over the images with standard errors; None for what is not known."""

    name: str
    temperature: float | None
    draws: int  # of which the answer is the mean; 0 for an interpolation
    psnr: float | None
    psnr_stderr: float | None
    ssim: float | None
    ssim_stderr: float | None
    consistency: float
    consistency_stderr: float
    diversity: float | None
    diversity_stderr: float | None


@dataclass(frozen=True)
class Upscaled:
    """The result of `upscale`; `print` shows its numbers as a table.

    Attributes
    ----------
    factor : N
    count : the number of images
    ways : the numbers of each way
    shown : by name, the first images of each way, (shown, pixels); nearest neighbour shows the given ones
    images : (count, pixels), the means of the draws at the last temperature
    spread : (count, pixels), their standard deviations
    """

    factor: int
    count: int
    ways: list[Way]
    shown: dict[str, np.ndarray]
    images: np.ndarray
    spread: np.ndarray

    def way(self, draws: int, temperature: float) -> Way:
        """The way by the mean of so many draws at a temperature."""
        return next(way for way in self.ways if (way.draws, way.temperature) == (draws, temperature))

    def to_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "count": self.count, "ways": [asdict(way) for way in self.ways]}

    def __str__(self) -> str:
        def cell(value: float | None, error: float | None, digits: int) -> list[str]:
            return ["", ""] if value is None or error is None else [
                f"{value:.{digits}f}", "" if math.isnan(error) else f"{error:.{digits}f}"]

        rows = [("", *[text for name, unit in QUANTITIES.items() for text in (f"{name}", "± std. error")])]
        rows += [(way.name, *cell(way.psnr, way.psnr_stderr, 2), *cell(way.ssim, way.ssim_stderr, 4),
                  *cell(way.consistency, way.consistency_stderr, 2), *cell(way.diversity, way.diversity_stderr, 4))
                 for way in self.ways]
        units = "; ".join(f"{name}: {unit}" for name, unit in QUANTITIES.items())
        return f"x{self.factor}, {counted(self.count, 'image')}\n{table.lines(rows, left=(0,))}\n{units}"


def upscale(model: Any, images: Any, temperatures: Sequence[float] = TEMPERATURES, draws: int = 32, seed: int = 0,
            shown: int = 10, progress: Callable[[float], Any] = lambda share: None) -> Upscaled:
    """Raise the resolution of images by a model that was trained with given="pooled:N".

    Parameters
    ----------
    images
        An array (count, rows, columns), or (count, rows, columns, 3) in colour, in [0, 1], or a path, as `images_of`
        takes them. Images of the model's own size are averaged first and compared with the answers afterwards; small
        ones have no original.
    temperatures
        The factors of the spread of z, each at least 0.
    draws
        The number of answers of which the mean is judged.
    shown
        The number of images that are kept of each way, for a picture.
    progress
        A function that is called now and then with the share that is done.

    Raises
    ------
    ValueError
        For a model that is given anything else, images of another size, or no temperature.
    """
    check_conditional(model, f"{Pooled.form}, which is given an image averaged over N x N pixels")
    condition, draws = model.condition, whole("draws", draws, 1)
    if not isinstance(condition, Pooled):
        raise ValueError(f"found {an(model.kind)} that is given {condition.words}; upscale takes a run that was "
                         f"trained with --given {Pooled.form}, which is given an image averaged over N x N pixels")
    if not temperatures:
        raise ValueError("found no temperature; expected at least one number, such as 0.2")
    for temperature in temperatures:
        check_temperature(model, temperature)
    given = images_of(images, condition.shapes())
    low = condition.from_images(given)
    originals = given.reshape(len(given), -1) if given.shape[1:] == condition.shape else None
    judge = _Judge(condition, shown)
    noise, spread, means = Noise(seed, "upscale", model.xp.zeros(1, np.int64)), [], []
    starts = range(0, len(low), BATCH)
    for number, start in enumerate(starts):
        part = slice(start, start + BATCH)
        y, x = low[part], None if originals is None else originals[part]
        judge.take(("nearest", None, 0), condition.picture(y), y, x)
        judge.take(("bicubic", None, 0), bicubic(y.reshape(-1, *condition.low), condition.shape), y, x)
        for temperature in temperatures:
            noise.restart(number)  # at every temperature the same draws
            found = drawn(model, y, noise, draws, temperature)
            mean, sd = found.mean(0), found.std(0)
            judge.take((f"answer, T = {temperature:g}", temperature, 1), found[0], y, x, sd)
            judge.take((f"mean of {draws}, T = {temperature:g}", temperature, draws), mean, y, x)
        means.append(mean)
        spread.append(sd)
        if x is not None:
            judge.take(("original", None, 0), x, y, x, judged=False)
        progress((number + 1) / len(starts))
    return Upscaled(condition.number, len(low), judge.ways(), judge.shown, np.concatenate(means),
                    np.concatenate(spread))


class _Judge:
    """Collects the numbers of each way, batch by batch."""

    def __init__(self, condition: Pooled, shown: int) -> None:
        self.condition, self.count, self.shown = condition, shown, dict[str, np.ndarray]()
        self.columns: dict[tuple[Any, ...], dict[str, list[np.ndarray]]] = {}

    def take(self, way: tuple[str, float | None, int], answers: np.ndarray, y: np.ndarray, x: np.ndarray | None,
             sd: np.ndarray | None = None, judged: bool = True) -> None:
        """Judge answers (rows, pixels) to y (rows, width), whose originals are x, and whose spread is sd."""
        kept = self.shown.setdefault(way[0], answers[:0])
        self.shown[way[0]] = np.concatenate([kept, answers[: self.count - len(kept)]])
        if not judged:
            return
        found = {"consistency": psnr(self.condition.pooled(answers), y)}
        if x is not None:
            shape = self.condition.shape
            likeness = ssim if len(shape) == 2 else colour_ssim
            found |= {"psnr": psnr(answers, x), "ssim": likeness(answers.reshape(-1, *shape), x.reshape(-1, *shape))}
        if sd is not None:
            found["diversity"] = sd.mean(-1)
        for name, values in found.items():
            self.columns.setdefault(way, {}).setdefault(name, []).append(values)

    def ways(self) -> list[Way]:
        made = []
        for (name, temperature, draws), columns in self.columns.items():
            numbers: dict[str, Any] = {}
            for quantity in QUANTITIES:
                mean, error = _mean(np.concatenate(columns[quantity]).astype(np.float64)) if (
                    quantity in columns) else (None, None)
                numbers |= {quantity: mean, f"{quantity}_stderr": error}
            made.append(Way(name, temperature, draws, **numbers))
        return made


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error; an infinite one, where an answer is exact, has no error."""
    return mean_and_error(values) if np.isfinite(values).all() else (float(values.mean()), math.nan)


def bicubic(images: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Images (count, rows, columns), or each channel of those in colour, interpolated by Pillow's bicubic filter to a
    shape and cut to [0, 1]: (count, pixels)."""
    from PIL import Image

    if len(shape) == 3:
        channels = [bicubic(channel, shape[:2]) for channel in np.moveaxis(images, -1, 0)]
        return np.stack(channels, axis=-1).reshape(len(images), -1)
    made = [np.asarray(Image.fromarray(image.astype(np.float32)).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
            for image in images]
    return np.clip(np.stack(made), 0, 1).reshape(len(images), -1)
