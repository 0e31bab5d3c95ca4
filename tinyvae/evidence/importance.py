"""log p(x) by importance sampling from the encoder's posterior (Burda et al. 2016; AEVB appendix D).

    log w_k = log p(x, z_k) - log q(z_k|x),    p(x) = E[w],    log p(x) ~ log 1/K sum_k w_k,

with draws z_k ~ q(z|x). The estimate is on average below log p(x) and approaches it as K grows. The effective sample
size is (sum w)^2 / sum w^2.

Where a part of the pixels was observed, w is made of p(x_obs|z), and the same draws estimate other pixels given them:

    log p(x_held|x_obs) ~ log sum_k w_k p(x_held|z_k) - log sum_k w_k
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinyvae.engine.noise import Noise
from tinyvae.evidence import pareto
from tinyvae.evidence.diagnostics import mean_and_error
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch, Model

CHUNK = 2**22  # the largest number of pixels in one output of the decoder, which bounds the memory
HELD_OUT, HELD_DRAWS = 0.2, 20  # the share of observed values that is hidden and predicted, and draws of z for that


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


def held_out(model: Model, batch: Batch, noise: Noise, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """log p(x_held|x_obs) of observed values that are held out, and how many these are; each (batch,) float64, in nats.

    A share `HELD_OUT` of the observed values is hidden from a model that reads a mask. The draws that choose them come
    first, so the same values are held out whatever `samples` is.
    """
    mask: Any = batch.mask
    u = noise.uniform(mask.shape, mask.dtype)
    held = mask * (u < HELD_OUT).cast(mask.dtype)
    seen = replace(batch, mask=mask - held)
    p, q = model.generator(batch), model.posterior(seen)
    z, log_q = q.draw(noise, samples)
    each = p.likelihood(z).log_density(batch.x)  # of each observed value, decoded once for both parts
    log_seen, log_held = ((part > 0).where(each, 0.0).sum(-1) for part in (mask - held, held))
    log_w, log_p, count = (v.numpy().astype(np.float64) for v in (
        log_seen + p.prior.log_prob(z) - log_q, log_held, held.sum(-1)))
    return np.logaddexp.reduce(log_w + log_p, axis=0) - np.logaddexp.reduce(log_w, axis=0), count


def held_out_columns(model: Model, batch: Batch, seed: int, part: str, number: int) -> dict[str, np.ndarray]:
    """`held_out` of a batch with this number in a part of the data, as columns for an evaluation."""
    noise = Noise(seed, f"held-out-{part}", model.xp.zeros(1, np.int64)).restart(number)
    return dict(zip(("held", "held_count"), held_out(model, batch, noise, HELD_DRAWS), strict=True))


def held_out_fields(column: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of an evaluation: log p of all held-out values over their number, with the error of such a ratio."""
    if "held" not in column or not (count := column["held_count"]).any():
        return {}
    each = column["held"].sum() / count.sum()
    _, error = mean_and_error((column["held"] - each * count) / count.mean())
    return {"held_out": float(each), "held_out_stderr": error}
