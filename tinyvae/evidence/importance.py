"""log p(x) by importance sampling from the encoder's posterior (Burda et al. 2016; AEVB appendix D).

    log w_k = log p(x, z_k) - log q(z_k|x),    p(x) = E[w],    log p(x) ~ log 1/K sum_k w_k,

which on average lies below log p(x), and rises to it with K. The effective sample size is (sum w)^2 / sum w^2.
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

CHUNK = 2**22  # numbers in one decoder output: bounds the memory, however many importance samples


def log_evidence(model: Model, batch: Batch, noise: Noise, samples: int, tail: pareto.Tail | None = None,
                 tick: Callable[[int], Any] = lambda draws: None) -> tuple[np.ndarray, np.ndarray]:
    """log p(x) of each datum by exactly `samples` draws, and the effective sample size, each (batch,) float64.

    The sums run over chunks of draws, so memory does not grow with `samples`. The largest weights are put into `tail`,
    if it is given; `tick` is told how many draws were made since.
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
        tick(len(values))
    return first - math.log(samples), np.exp(2 * first - second)
