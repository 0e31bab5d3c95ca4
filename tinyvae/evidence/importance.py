"""log p(x) by importance sampling from the encoder's posterior (Burda et al. 2016; AEVB appendix D).

    log w_k = log p(x, z_k) - log q(z_k|x),    p(x) = E[w],    log p(x) ~ log 1/K sum_k w_k,

with draws z_k ~ q(z|x). The estimate is on average below log p(x) and approaches it as K grows. The effective sample
size is (sum w)^2 / sum w^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.engine.noise import Noise
from tinyvae.evidence import pareto
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch, Model

CHUNK = 2**22  # the largest number of pixels in one output of the decoder, which bounds the memory


def log_evidence(model: Model, batch: Batch, noise: Noise, samples: int, tail: pareto.Tail | None = None,
                 report: Callable[[int], Any] = lambda draws: None) -> tuple[np.ndarray, np.ndarray]:
    """log p(x) of each datum by exactly `samples` draws, and the effective sample size, each (batch,) float64.

    The sums run over chunks of draws, so memory does not grow with `samples`. `tail`, if given, collects the largest
    weights. `report` is called with the number of draws made since its last call.
    """
    first = np.full(len(batch), -np.inf)  # log sum w
    second = np.full(len(batch), -np.inf)  # log sum w^2
    chunk = max(1, CHUNK // batch.x.size)
    for start in range(0, samples, chunk):
        log_w = model.log_weights(batch, Draw(noise), min(chunk, samples - start))
        values = log_w.numpy().astype(np.float64)
        first = np.logaddexp(first, np.logaddexp.reduce(values, axis=0))
        second = np.logaddexp(second, np.logaddexp.reduce(2 * values, axis=0))
        if tail is not None:
            tail.add(values)
        report(len(values))
    return first - math.log(samples), np.exp(2 * first - second)
