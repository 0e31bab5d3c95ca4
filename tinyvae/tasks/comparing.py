"""By how much the bounds of several models differ on the same data.

Two models meet the same data, so their bounds rise and fall together from datum to datum. The standard error of the
mean difference is therefore that of the differences, and mostly far smaller than the errors of both means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.choices import an, counted, whole
from tinyvae.data import DataSet
from tinyvae.data.dataset import PARTS
from tinyvae.engine import table
from tinyvae.engine.noise import Noise
from tinyvae.evidence.columns import bound_columns
from tinyvae.evidence.diagnostics import NATS, mean_and_error
from tinyvae.evidence.evaluation import batches_of
from tinyvae.evidence.importance import log_evidence
from tinyvae.training.faults import density_of


@dataclass(frozen=True)
class Comparison:
    """The bounds of models on `count` common data, in nats per datum, and how much they exceed the first one's.

    bounds, differences : the mean and its standard error by the name of a model; of differences the first has none
    settings : what differs, each with its value in every model, in their order
    own_units : whether the bounds are densities of standardised data's own values
    """

    data: str
    count: int
    importance_samples: int
    bounds: dict[str, tuple[float, float]]
    differences: dict[str, tuple[float, float]]
    settings: dict[str, list[Any]]
    own_units: bool = False

    def to_dict(self) -> dict[str, Any]:
        runs = [{"run": name, "bound": mean, "bound_stderr": error} | (
            dict(zip(("difference", "difference_stderr"), self.differences[name], strict=True))
            if name in self.differences else {}) for name, (mean, error) in self.bounds.items()]
        return {"data": self.data, "data_count": self.count, "importance_samples": self.importance_samples,
                "own_units": self.own_units, "runs": runs, "settings": self.settings}

    def __str__(self) -> str:
        what = f"log p(x), {counted(self.importance_samples, 'sample')}," if self.importance_samples else "ELBO"
        rows = [("run", what.rstrip(","), "std. error", "above the first", "std. error")]
        for name, (mean, error) in self.bounds.items():
            more, error_of_it = self.differences.get(name, (math.nan, math.nan))
            rows.append((name, _number(mean), _number(error), _number(more), _number(error_of_it)))
        units = ", in own units" if self.own_units else ""
        parts = [f"{self.data}, {self.count:,} data; {what} in {NATS} (higher is better{units}), differences paired by "
                 "datum", table.lines(rows)]
        if self.settings:
            parts += ["", table.lines([("what differs", *self.bounds), *(
                (name, *(_value(value) for value in values)) for name, values in self.settings.items())])]
        else:
            parts += ["", "no setting differs"]
        return "\n".join(parts)


def _number(value: float) -> str:
    return "" if value != value else f"{value:.3f}"


def _value(value: Any) -> str:
    return "-" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)


def bounds_of(model: Any, data: DataSet, importance_samples: int = 0, seed: int = 0, part: str = "test") -> np.ndarray:
    """The bound of each datum by one draw of z, or log p(x), (count,) in nats; of densities in the data's own units."""
    noise, found = Noise(seed, "evaluate", model.xp.zeros(1, np.int64)), []
    with np.errstate(all="ignore"):
        for number, batch in enumerate(batches_of(model, data, seed, part)):
            noise.restart(number)
            bound = bound_columns(model, batch, noise)["elbo"]  # before log p(x), too, for the draws of `evaluate`
            found.append(log_evidence(model, batch, noise, importance_samples)[0] if importance_samples else bound)
    values, own = np.concatenate(found).astype(np.float64), data.log_jacobian(part)
    return values if own is None else values + own


def compare(models: Mapping[str, tuple[Any, DataSet]], importance_samples: int = 0, seed: int = 0,
            settings: Sequence[Mapping[str, Any]] = (), part: str = "test") -> Comparison:
    """Compare models, each with its data, by name.

    Parameters
    ----------
    models
        Two or more models with their data sets, whose part `part` must be the same.
    importance_samples
        0 compares the bound by one draw of z; else log p(x) by so many draws.
    settings
        The settings of each model, in their order, of which the result has those that differ.

    Raises
    ------
    ValueError
        For less than two models, other data, and bounds of different quantities: what bounds no log p(x), a bound on
        log p(target|c) under another condition or none, or a density beside probabilities.
    """
    whole("importance_samples", importance_samples)
    if len(models) < 2:
        raise ValueError(f"found {len(models)} run to compare; expected at least two")
    if part not in PARTS:
        raise ValueError(f"found part {part!r}; expected one of {', '.join(PARTS)}")
    (first, (model, data)), *others = models.items()
    for name, (other, its) in others:
        if not _same(data, its, part):
            raise ValueError(f"{first} and {name} have different {part} data, {data.name} and {its.name}: their bounds "
                             "cannot be compared; give --data, on which all are judged")
        if other.goal != model.goal:
            raise ValueError(f"{first}, {an(model.kind)}, is judged by {model.goal}, and {name}, {an(other.kind)}, by "
                             f"{other.goal}: they are not on one scale")
        if other.config.get("given") != model.config.get("given"):
            one, another = (f"log p(x|{given})" if (given := each.config.get("given")) else "log p(x)"
                            for each in (model, other))
            raise ValueError(f"{first} has a bound on {one}, and {name} one on {another}, which is another quantity: "
                             "their bounds cannot be compared")
        if bool(density_of(other)) != bool(density_of(model)):
            raise ValueError(f"{first} has the likelihood {model.config['likelihood']} and {name} "
                             f"{other.config['likelihood']}: a density and a probability are not on one scale")
    if importance_samples and (lacking := [name for name, (m, _) in models.items() if not m.has("log_weights")]):
        raise ValueError(f"found importance_samples={importance_samples} (-k), and {lacking[0]} has no latent variable "
                         "by whose draws log p(x) could be estimated: leave it out, which compares the bounds alone")
    each = {name: bounds_of(model, its, importance_samples, seed, part) for name, (model, its) in models.items()}
    bounds = {name: mean_and_error(values) for name, values in each.items()}
    differences = {name: mean_and_error(values - each[first]) for name, values in each.items() if name != first}
    return Comparison(data.name, len(each[first]), importance_samples, bounds, differences, differing(settings),
                      data.center is not None)


def _same(one: DataSet, other: DataSet, part: str) -> bool:
    """Whether two data sets have the same data in a part, treated in the same way."""
    if (one.pixels, one.scale) != (other.pixels, other.scale):
        return False
    names = (part, f"{part}_mask", "center", "spread")
    return all((a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in (
        (getattr(one, name), getattr(other, name)) for name in names))


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The entries that are not the same in all, each with its value in every one; None where one has none."""
    names = dict.fromkeys(name for values in settings for name in values)
    found = {name: [values.get(name) for values in settings] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}
