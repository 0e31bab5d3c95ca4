"""Estimates of log p(x) by random draws: their errors, and when they are not to be trusted.

All methods average positive weights w with E[w] = p(x), or 1/p(x), and take the logarithm. To second order

    var(log mean w) = var(mean w) / p(x)^2    (the delta method),    E[log mean w] = log p(x) - var(log mean w) / 2,

so the variance that the draws show is also what is known of the bias. Neither shows draws that have not come: of
independent weights the Pareto k tells (`pareto.py`), of annealed ones a bound from the other side (`ais.py`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinyvae.evidence import pareto

# What a diagnosis allows: of the data, with a Pareto k above its limit; effective samples, at least; nats of bias.
SHARE, EFFECTIVE, BIAS = 0.1, 10, 0.1


class Estimate(NamedTuple):
    """log p(x) of each datum by chains; all (batch,) float64, on the host."""

    log_evidence: np.ndarray  # nats
    variance: np.ndarray  # of log_evidence, were only the chains drawn anew, nats^2; NaN for a single chain
    effective_samples: np.ndarray  # (sum w)^2 / sum w^2 of the weights w that are averaged; at most their number
    acceptance: np.ndarray  # mean acceptance probability of the Hamiltonian moves
    energy_error: np.ndarray  # mean |dH| of the accepted moves, nats


def variance_of(effective: np.ndarray, count: int) -> np.ndarray:
    """var(mean w) / mean(w)^2 of `count` independent weights: (1 / ESS - 1 / count) count / (count - 1)."""
    return (1 / effective - 1 / count) * np.divide(count, count - 1)


def mean_and_error(values: np.ndarray) -> tuple[Any, Any]:
    """The mean over the first axis, and its standard error (NaN for a single value)."""
    count = len(values)
    spread = values.std(axis=0, ddof=1) if count > 1 else np.full(values.shape[1:], np.nan)
    mean, error = values.mean(axis=0), spread / math.sqrt(count)
    return (mean, error) if values.ndim > 1 else (float(mean), float(error))


def diagnosis(method: str, samples: int, column: dict[str, np.ndarray]) -> str:
    """Whether the mean of `log_evidence` is to be trusted, as one sentence.

    Parameters
    ----------
    method
        `importance`, `ais` or `hmc`.
    samples
        Weights that each datum's estimate averages.
    column
        `effective_samples` and `variance`, for importance sampling `pareto_k`, each (data,).
    """
    faults = []
    if method == "importance":
        if not pareto.tail_size(samples):
            return f"too few draws for a diagnosis: the Pareto k takes {5 * pareto.SMALLEST}"
        high, effective = float(pareto.high(column["pareto_k"]).mean()), float(column["effective_samples"].mean())
        if not high <= SHARE:
            faults.append(f"{high:.0%} of the data have a Pareto k above {pareto.LIMIT} ({SHARE:.0%} are allowed), so "
                          "draws that have not come carry the mean")
        if not effective >= EFFECTIVE:
            faults.append(f"the effective sample size is {effective:.1f} (at least {EFFECTIVE} are wanted)")
        cure = "take more samples, or the method ais"
    else:
        if samples < 2:
            return "too few draws for a diagnosis: two chains a datum are needed"
        bias, side = float(column["variance"].mean() / 2), "low" if method == "ais" else "high"
        if not bias <= BIAS:
            faults.append(f"the chains disagree so much that it is too {side} by {bias:.2g} nats or more "
                          f"({BIAS} are allowed)")
        cure = "take more temperatures, or more chains" if method == "ais" else "take more draws and chains, or ais"
    if not faults:
        return "no fault was found in log p(x)"
    return f"log p(x) is not to be trusted: {', and '.join(faults)}; {cure}"
