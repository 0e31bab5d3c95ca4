"""Bayes' theorem on a grid: prior times likelihood at each point, divided by the sum.

    p(theta | x) = p(x | theta) p(theta) / p(x),    p(x) = int p(x | theta) p(theta) dtheta

The integral is the trapezoid rule's, so any prior and any likelihood will do, as long as theta is one number. With two
numbers the grid has the square of the points, and so on: chapter "Intractability".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyvae.engine.tensor import Tensor

LogDensity = Callable[[Tensor], Any]


class GridPosterior(NamedTuple):
    """A posterior density at points, with the evidence by which it was divided."""

    points: np.ndarray  # (points,)
    density: np.ndarray  # (points,), p(theta | x)
    log_evidence: float  # log p(x) in nats

    @property
    def mean(self) -> float:
        """E[theta | x]."""
        return float(np.trapezoid(self.points * self.density, self.points))

    @property
    def variance(self) -> float:
        """Var[theta | x]."""
        return float(np.trapezoid((self.points - self.mean) ** 2 * self.density, self.points))


def on_grid(log_prior: LogDensity, log_likelihood: LogDensity, points: Any) -> GridPosterior:
    """The posterior of one number at the points of a grid.

    Parameters
    ----------
    log_prior, log_likelihood
        log p(theta) and log p(x | theta) of all data, (points,) for theta (points, 1), as `log_prob` of a distribution
        gives them.
    points
        Rising numbers, (points,); what lies outside counts as impossible.

    Raises
    ------
    ValueError
        For points that do not rise, values of another shape or NaN, and a likelihood that is 0 at all points.
    """
    grid = np.asarray(points, np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not (np.diff(grid) > 0).all() or not np.isfinite(grid).all():
        raise ValueError(f"found points of shape {grid.shape}; expected at least two finite numbers that rise")
    theta, log_p = Tensor(grid.reshape(-1, 1)), np.zeros(len(grid))
    for name, function in (("log_prior", log_prior), ("log_likelihood", log_likelihood)):
        found = function(theta)
        values = np.asarray(found.numpy() if isinstance(found, Tensor) else found, np.float64)
        if values.shape != log_p.shape:
            raise ValueError(f"found {name} of shape {values.shape}; expected one number for each point, {log_p.shape}")
        if not (values < np.inf).all():
            raise ValueError(f"found {name} to be {values[~(values < np.inf)][0]} at theta = "
                             f"{grid[~(values < np.inf)][0]:g}; expected numbers: leave this point out")
        log_p = log_p + values
    top = log_p.max()
    if top == -np.inf:
        raise ValueError("found prior times likelihood to be 0 at all points; expected points where the data are "
                         "possible")
    total = np.trapezoid(np.exp(log_p - top), grid)
    return GridPosterior(grid, np.exp(log_p - top) / total, float(np.log(total) + top))
