"""What a completion is compared with: simple answers to the same question, what the hidden pixels are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.distributions import NegativeBinomial, Normal
from tinyvae.distributions.observed import Observed
from tinyvae.engine.devices import to_host
from tinyvae.engine.tensor import Tensor
from tinyvae.models import Batch
from tinyvae.tasks.chains import law_of_all

CHUNK = 5000  # the number of training images that are compared with the data at a time


def training_moments(data: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the variance of each pixel, (pixels,), over the training data in which it was observed.

    Two more data count, because a pixel that is 0 in all training data can be 1. Their pixels are uniform on [0, 1];
    their standardised columns have the mean 0 and the variance 1.
    """
    total = np.zeros((3, data.dimensions))
    for start in range(0, len(data.train), CHUNK):
        x = data.train[start : start + CHUNK] / data.scale
        seen = np.ones(x.shape) if data.train_mask is None else data.train_mask[start : start + CHUNK]
        total += np.stack([seen.sum(0), (seen * x).sum(0), (seen * x * x).sum(0)])
    more = (2, 0, 2) if data.kind == "real" else (2, 2 / 2, 2 / 3)
    count, mean, square = total + np.array(more)[:, None]
    return mean / count, square / count - (mean / count) ** 2


def pixel_means(model: Any, data: DataSet, family: Any) -> Callable[[Tensor, Tensor], np.ndarray] | None:
    """Each hidden pixel has its distribution over the training data, whatever the others are.

    This is one of the likelihood's `family`; of a table, the normal distribution or the negative binomial with the mean
    and the variance of the column. Returns the function (x, mask) -> log p of the pixels in the mask, (rows,); None if
    the family does not say which parameter a mean has.
    """
    mean, variance = training_moments(data)
    if data.kind == "real":
        family, raw = Normal, np.concatenate([mean, np.log(variance)])
    elif data.kind == "counts":  # whose variance is mean + mean^2 / theta
        theta = mean**2 / np.maximum(variance - mean, 1e-3 * mean)
        family, raw = NegativeBinomial, np.concatenate([np.log(mean), np.log(theta)])
    else:
        try:
            raw = family.parameter_of_mean(mean)
        except ValueError:
            return None
        if family.width(1) == 2:  # a log-variance stands beside it
            raw = np.concatenate([raw, np.log(variance)])
    law = family.from_raw(Tensor(model.xp.asarray(raw[None].astype(model.dtype))))
    return lambda x, mask: to_host(Observed(law, mask).log_prob(x).data).astype(np.float64)


def one_shot(model: Any, batch: Batch, missing: Tensor, fill: Tensor, mask: Tensor) -> np.ndarray:
    """Re-encoding once: the missing pixels are filled, and z is the mean of q(z|x) of that image.

    Returns log p(x|z) of the pixels in `mask`, (rows,).
    """
    if "mask" in model.needs:
        batch = replace(batch, mask=missing.where(0.0 * batch.x, 1.0))
    x = batch.x
    batch = replace(batch, x=missing.where(fill, x))
    law = law_of_all(model, model.generator(batch).likelihood(model.posterior(batch).mean))
    return to_host(Observed(law, mask).log_prob(x).data).astype(np.float64)


def nearest(data: DataSet, x: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The training datum whose observed pixels are the nearest ones, by the sum of squared differences, (rows, pixels).

    Pixels are in [0, 1], and columns as they are stored.
    """
    seen = (~missing).astype(np.float32)
    best, found = np.full(len(x), np.inf), np.zeros(x.shape, np.float32)
    for start in range(0, len(data.train), CHUNK):
        images = (data.train[start : start + CHUNK] / data.scale).astype(np.float32)
        # sum over seen pixels of (image - x)^2, without the part that all images share
        distance = (images**2) @ seen.T - 2 * images @ (seen * x).T.astype(np.float32)
        index = distance.argmin(0)
        closer = distance.min(0) < best
        best[closer], found[closer] = distance.min(0)[closer], images[index[closer]]
    return found
