"""Judging a model on data: the bound and its terms, the evidence log p(x), and which latents are used.

Every number is a mean over data in nats, with its standard error: the sample's standard deviation over sqrt(count).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyvae.batches import rows
from tinyvae.data import DataSet
from tinyvae.distributions import kl_per_dimension
from tinyvae.noise import Noise
from tinyvae.tensor import Tensor

BATCH = 500  # data at a time; fixed, because a draw's address counts batches
CHUNK = 2**22  # numbers in one decoder output: bounds the memory, however many importance samples
ACTIVE = 1e-2  # a unit is active if its posterior mean varies more than this over the data (Burda et al. 2016)


@dataclass(frozen=True)
class Evaluation:
    """What was measured on `data_count` data. All in nats per datum but the counts and `bits_per_pixel`.

    Higher is better for `elbo`, `reconstruction` and `log_evidence`. `log_evidence` is the importance-sampling
    estimate log 1/K sum_k p(x, z_k) / q(z_k|x): on average a lower bound, and tighter with more samples.
    """

    data: str
    data_count: int
    elbo: float
    elbo_stderr: float
    reconstruction: float
    reconstruction_stderr: float
    kl: float
    kl_stderr: float
    bits_per_pixel: float  # -elbo in bits a pixel; lower is better
    kl_per_dimension: list[float]
    kl_per_dimension_stderr: list[float]
    active_units: int
    active_threshold: float
    importance_samples: int
    log_evidence: float | None = None
    log_evidence_stderr: float | None = None
    effective_samples: float | None = None  # of `importance_samples`, the mean over data; higher is better
    effective_samples_stderr: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@np.errstate(all="ignore")  # what is not finite is shown, not warned of
def evaluate(model: Any, data: DataSet | np.ndarray, importance_samples: int = 0, seed: int = 0,
             part: str = "test") -> Evaluation:
    """Measure a model on a part of a data set, or on an array (count, pixels) in [0, 1].

    Pixels that are drawn at each use are drawn from a stream of their own, the same at every call.
    """
    if importance_samples < 0:
        raise ValueError(f"found {importance_samples} importance samples; expected 0 (none) or more")
    noise = Noise(seed, "evaluate", model.xp.zeros(1, np.int64))
    columns: dict[str, list[np.ndarray]] = {key: [] for key in ("reconstruction", "kl", "mu", "evidence", "effective")}
    for number, x in enumerate(batches_of(model, data, seed, part)):
        noise.restart(number)
        posterior = model.q(x)
        z = posterior.sample(noise)
        columns["reconstruction"].append(model.likelihood(z).log_prob(x).numpy()[0])
        columns["kl"].append(kl_per_dimension(posterior, model.prior).numpy())
        columns["mu"].append(posterior.mean.numpy())
        if importance_samples:
            evidence, effective = log_evidence(model, posterior, x, noise, importance_samples)
            columns["evidence"].append(evidence)
            columns["effective"].append(effective)
    reconstruction, kl, mu = (np.concatenate(columns[key]).astype(np.float64) for key in ("reconstruction", "kl", "mu"))
    total_kl = kl.sum(1)
    elbo, elbo_error = mean_and_error(reconstruction - total_kl)
    r, r_error = mean_and_error(reconstruction)
    k, k_error = mean_and_error(total_kl)
    each, each_error = mean_and_error(kl)
    more: dict[str, float] = {}
    if importance_samples:
        for key, column in (("log_evidence", "evidence"), ("effective_samples", "effective")):
            more[key], more[f"{key}_stderr"] = mean_and_error(np.concatenate(columns[column]))
    name = data.name if isinstance(data, DataSet) else "array"
    return Evaluation(name, len(mu), elbo, elbo_error, r, r_error, k, k_error, -elbo / (math.log(2) * model.pixels),
                      each.tolist(), each_error.tolist(), int((mu.var(0) > ACTIVE).sum()), ACTIVE, importance_samples,
                      **more)


def batches_of(model: Any, data: DataSet | np.ndarray, seed: int, part: str = "test") -> Iterator[Tensor]:
    """The data in order, (batch, pixels) at a time, in the model's type."""
    draw = None
    if isinstance(data, DataSet):
        stored, scale = getattr(data, part), data.scale
        if stored is None:
            raise ValueError(f"{data.name} has no part {part!r}")
        if data.pixels == "dynamic":
            draw = Noise(seed, f"evaluate-binarise-{part}", model.xp.zeros(1, np.int64))
    else:
        stored, scale = np.ascontiguousarray(data), 1.0
        if stored.size and not (stored.min() >= 0 and stored.max() <= 1):  # NaN fails too
            raise ValueError(f"found pixels from {stored.min()} to {stored.max()}; expected numbers in [0, 1]: divide "
                             "bytes by 255 first, or give a data set of tv.data.load")
    if stored.ndim != 2 or stored.shape[1] != model.pixels or not len(stored):
        raise ValueError(f"found data of shape {stored.shape}; this model takes (count, {model.pixels}), count above 0")
    stored = Tensor(model.xp.asarray(stored))
    for number, start in enumerate(range(0, len(stored), BATCH)):
        if draw is not None:
            draw.restart(number)
        index = model.xp.arange(start, min(start + BATCH, len(stored)))
        yield rows(stored, Tensor(index), scale, model.dtype, draw)


def log_evidence(model: Any, posterior: Any, x: Tensor, noise: Noise, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """log p(x) of each datum by importance sampling with exactly `samples` draws, and the effective sample size.

    log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x);  log p(x) ~ log 1/K sum_k w_k;  ESS = (sum w)^2 / sum w^2.
    The sums run over chunks of draws, so memory does not grow with `samples`. Both results are (batch,) float64.
    """
    first = np.full(len(x), -np.inf)  # log sum w
    second = np.full(len(x), -np.inf)  # log sum w^2
    chunk = max(1, CHUNK // x.size)
    for start in range(0, samples, chunk):
        z = posterior.sample(noise, min(chunk, samples - start))
        log_w = model.likelihood(z).log_prob(x) + model.prior.log_prob(z) - posterior.log_prob(z)
        values = log_w.numpy().astype(np.float64)
        first = np.logaddexp(first, np.logaddexp.reduce(values, axis=0))
        second = np.logaddexp(second, np.logaddexp.reduce(2 * values, axis=0))
    return first - math.log(samples), np.exp(2 * first - second)


def mean_and_error(values: np.ndarray) -> tuple[Any, Any]:
    """The mean over the first axis, and its standard error (NaN for a single value)."""
    count = len(values)
    spread = values.std(axis=0, ddof=1) if count > 1 else np.full(values.shape[1:], np.nan)
    mean, error = values.mean(axis=0), spread / math.sqrt(count)
    return (mean, error) if values.ndim > 1 else (float(mean), float(error))
