"""Estimates of log p(x) by random draws: their errors, and the faults that the draws reveal.

All methods take the logarithm of an average of positive weights w with E[w] = p(x), or 1/p(x). To second order

    var(log mean w) = var(mean w) / p(x)^2    (the delta method),    E[log mean w] = log p(x) - var(log mean w) / 2,

so half the variance of the estimate is also an estimate of its bias. Neither accounts for large weights that are so
rare that none was drawn. The Pareto k detects them for independent weights (`pareto.py`), a bound from the other side
for annealed weights (`ais.py`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinyvae.evidence import pareto

# The limits of the diagnosis: the largest share of data with a high Pareto k, the smallest effective sample size, and
# the largest bias in nats.
SHARE, EFFECTIVE, BIAS = 0.1, 10, 0.1


HIGHER, LOWER, NATS = "higher is better", "lower is better", "nats per datum"


class Quantity(NamedTuple):
    """A number as a person reads it: with its standard error, its unit and its direction."""

    name: str
    value: float
    error: float | None
    unit: str
    direction: str

    def cells(self) -> tuple[str, str, str, str, str]:
        """The cells of its row in a table; a whole number has no decimals, and an unknown error stays empty."""
        error = "" if self.error is None or math.isnan(self.error) else f"{self.error:.3f}"
        value = f"{self.value}" if isinstance(self.value, int) else f"{self.value:.3f}"
        return self.name, value, error, self.unit, self.direction


class Estimate(NamedTuple):
    """log p(x) of each datum by Markov chains; all arrays are (batch,) float64 on the host."""

    log_evidence: np.ndarray  # nats
    variance: np.ndarray  # of log_evidence over repeated draws of the chains, nats^2; NaN for a single chain
    effective_samples: np.ndarray  # (sum w)^2 / sum w^2 of the averaged weights w; at most their number
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
    """One sentence that says whether the mean of `log_evidence` is reliable, with a cure if it is not.

    Parameters
    ----------
    method
        `importance`, `ais` or `hmc`.
    samples
        The number of weights that are averaged for each datum.
    column
        `effective_samples` and `variance`, and `pareto_k` for importance sampling, each (data,).
    """
    faults = []
    if method == "importance":
        if not pareto.tail_size(samples):
            return f"too few draws for a diagnosis: the Pareto k takes {5 * pareto.SMALLEST}"
        high, effective = float(pareto.high(column["pareto_k"]).mean()), float(column["effective_samples"].mean())
        if not high <= SHARE:
            faults.append(f"{high:.0%} of the data have a Pareto k above {pareto.LIMIT} ({SHARE:.0%} are allowed), so "
                          "rare large weights that were not drawn dominate the mean")
        if not effective >= EFFECTIVE:
            faults.append(f"the effective sample size is {effective:.1f} (at least {EFFECTIVE} are needed)")
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
