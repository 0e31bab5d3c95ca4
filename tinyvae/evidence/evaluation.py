"""Evaluating a model on data: the bound and its terms, the evidence log p(x), and the number of active latents.

The numbers are means over the data, each with its standard error: the sample standard deviation over sqrt(count).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyvae.choices import an, known, whole
from tinyvae.data import DataSet, as_data_set
from tinyvae.engine import table
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence import ais, harmonic, pareto
from tinyvae.evidence.columns import ACTIVE, accuracy_fields, bound_columns, bound_fields
from tinyvae.evidence.diagnostics import HIGHER, LOWER, NATS, Quantity, diagnosis, mean_and_error, variance_of
from tinyvae.evidence.hamiltonian import densities
from tinyvae.evidence.hamiltonian.moves import move_quantities
from tinyvae.evidence.importance import held_out_columns, held_out_fields, log_evidence
from tinyvae.inference.bounds import Joint
from tinyvae.models import Batch, check_finite, check_model
from tinyvae.models.batch import rows_of

BATCH = 500  # the number of data in a batch; the numbers of the batches address the noise, so it must stay fixed
PARTS = ("train", "valid", "test")  # of a data set


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate` on `data_count` data; `print` shows it as a table.

    Numbers are in nats per datum, except counts, shares and `bits_per_pixel`. Higher is better for `elbo`,
    `reconstruction` and `log_evidence`. On average `log_evidence` is below log p(x) with the methods `importance` and
    `ais`, and above it with `hmc`.
    """

    data: str
    data_count: int
    elbo: float
    elbo_stderr: float
    reconstruction: float | None  # None, like all fields about z, if the bound has other terms
    reconstruction_stderr: float | None
    kl: float | None
    kl_stderr: float | None
    bits_per_pixel: float  # -elbo in bits per pixel; lower is better
    kl_per_dimension: list[float] | None
    kl_per_dimension_stderr: list[float] | None
    active_units: int | None
    active_threshold: float
    importance_samples: int
    log_evidence: float | None = None
    log_evidence_stderr: float | None = None
    effective_samples: float | None = None  # of the averaged weights, the mean over the data; higher is better
    effective_samples_stderr: float | None = None
    # `to_dict` leaves out those of the following fields that are None.
    latent_units: int | None = None  # the number of latents, if they share one KL (Dirichlet) or one a layer
    active_units_per_layer: list[int] | None = None  # of a hierarchy, whose KLs are those of the layers, too
    data_available: int | None = None  # the size of the part, if only its first `data_count` data were taken
    method: str | None = None  # the method of log_evidence; its settings follow
    chains: int | None = None
    temperatures: int | None = None
    leapfrog: int | None = None
    draws: int | None = None
    start: str | None = None
    log_evidence_sampling_stderr: float | None = None  # the error from the draws of z alone
    pareto_k_high: float | None = None  # the share of the data with k > pareto_k_limit; lower is better
    pareto_k_limit: float | None = None
    acceptance: float | None = None  # the mean acceptance probability of Hamiltonian moves
    energy_error: float | None = None  # the mean |dH| of accepted moves, in nats
    diagnosis: str | None = None  # one sentence that says whether log_evidence is reliable
    terms: dict[str, float] | None = None  # the means of the terms of a bound that is not reconstruction - kl
    terms_stderr: dict[str, float] | None = None
    accuracy: float | None = None  # the share of the data with labels to which the model gives their class
    accuracy_stderr: float | None = None
    labelled_count: int | None = None  # the number of data with labels
    goal: str | None = None  # what `elbo` is, of a model that has no bound on log p(x)
    held_out: float | None = None  # log p(held-out values | observed ones) per value, of a model that reads a mask
    held_out_stderr: float | None = None
    given: str | None = None  # the condition c in words; x then stands for the target, and z has the prior p(z|c)
    # Of standardised data the same bounds as densities in the data's own units (DataSet.log_jacobian).
    elbo_own_units: float | None = None
    elbo_own_units_stderr: float | None = None
    log_evidence_own_units: float | None = None
    log_evidence_own_units_stderr: float | None = None

    @property
    def fresh_draws(self) -> int:
        """The number of draws that `hmc` averages: those of the half of the chains that did not fit the density."""
        chains = self.chains or 0
        return (chains - chains // 2) * (self.draws or 0)

    def to_dict(self) -> dict[str, Any]:
        always = tuple(Evaluation.__dataclass_fields__)[:18]
        return {name: value for name, value in asdict(self).items() if value is not None or name in always}

    def quantities(self) -> list[Quantity]:
        """What was measured, each number with its standard error, unit and direction."""
        found = [Quantity(self.goal or "ELBO", self.elbo, self.elbo_stderr, NATS, HIGHER)]
        x, q, p = ("x|c", "q(z|x, c)", "p(z|c)") if self.given else ("x", "q(z|x)", "p(z)")
        if self.reconstruction is not None and self.kl is not None:
            found += [Quantity("reconstruction", self.reconstruction, self.reconstruction_stderr, NATS, HIGHER),
                      Quantity(f"KL({q} || {p})", self.kl, self.kl_stderr, NATS, "information used")]
        found += [Quantity(name, value, (self.terms_stderr or {})[name], NATS, "a term of the bound")
                  for name, value in (self.terms or {}).items()]
        if self.accuracy is not None:
            found.append(Quantity("accuracy", self.accuracy, self.accuracy_stderr,
                                  f"of {self.labelled_count:,} data with labels", HIGHER))
        if self.held_out is not None:
            found.append(Quantity("log p(held out | observed)", self.held_out, self.held_out_stderr,
                                  "nats per held-out value", HIGHER))
        what = "pixel" if self.elbo_own_units is None else "column"
        found.append(Quantity(f"-{self.goal or 'ELBO'}", self.bits_per_pixel, None, f"bits per {what}", LOWER))
        found += [Quantity(f"{bound}, own units", value, error, NATS, HIGHER) for bound, value, error in (
            (self.goal or "ELBO", self.elbo_own_units, self.elbo_own_units_stderr),
            ("log p(x)", self.log_evidence_own_units, self.log_evidence_own_units_stderr)) if value is not None]
        if self.log_evidence is not None and self.effective_samples is not None and self.method is not None:
            how = f"{self.importance_samples} samples" if self.method == "importance" else self.method
            averaged = {"importance": f"{self.importance_samples}", "ais": f"{self.chains} chains",
                        "hmc": f"{self.fresh_draws} draws"}
            found += [Quantity(f"log p({x}), {how}", self.log_evidence, self.log_evidence_stderr, NATS,
                               f"{HIGHER}; {'high' if self.method == 'hmc' else 'low'} on average"),
                      Quantity(f"sampling error of log p({x})", self.log_evidence_sampling_stderr or 0.0, None,
                               "nats, std. error", LOWER),
                      Quantity("effective samples", self.effective_samples, self.effective_samples_stderr,
                               f"of {averaged[self.method]}", HIGHER)]
            if self.pareto_k_high is not None:
                found.append(Quantity(f"Pareto k > {self.pareto_k_limit}", self.pareto_k_high, None,
                                      "share of the data", LOWER))
            found += move_quantities(self.acceptance, self.energy_error, self.leapfrog)
        if self.kl_per_dimension is None or self.kl_per_dimension_stderr is None or self.active_units is None:
            return found
        units = self.latent_units or len(self.kl_per_dimension)
        found.append(Quantity("active units", self.active_units, None, f"of {units}",
                              f"posterior mean's variance > {self.active_threshold:g}"))
        name, first = ("KL of all latents" if self.latent_units else "KL of z{}"), 0
        if self.active_units_per_layer:
            name, first = "KL of layer {}", 1
            found += [Quantity(f"active units of layer {l}", count, None, "of those", "information used")
                      for l, count in enumerate(self.active_units_per_layer, first)]
        return found + [Quantity(name.format(j), value, error, NATS, "information used") for j, (value, error)
                        in enumerate(zip(self.kl_per_dimension, self.kl_per_dimension_stderr, strict=True), first)]

    def remarks(self) -> str:
        """The settings of the method that found log p(x), and whether the result is reliable; "" without log p(x)."""
        settings = {"ais": f"ais: from the {self.start} by {self.temperatures} temperatures",
                    "hmc": f"hmc: {self.chains} chains of {self.draws} draws, half to fit a density to"}
        given = f"c is {self.given}, and x the pixels that it leaves open" if self.given else ""
        goal = f"{self.goal} is no bound on log p(x), which this model does not have" if self.goal else ""
        return "; ".join(filter(None, (given, goal, settings.get(self.method or ""), self.diagnosis)))

    def __str__(self) -> str:
        count = f"the first {self.data_count:,} of {self.data_available:,}" if self.data_available else \
            f"{self.data_count:,}"
        rows = [("quantity", "value", "std. error", "unit", "direction"), *(q.cells() for q in self.quantities())]
        lines = (f"{self.data}, {count} data, one draw of z each", table.lines(rows, left=(0, 3, 4)), self.remarks())
        return "\n".join(filter(None, lines))


@np.errstate(all="ignore")  # the result shows values that are not finite; NumPy need not warn
def evaluate(model: Any, data: DataSet | np.ndarray | str, importance_samples: int = 0, seed: int = 0,
             part: str = "test", method: str | None = None, count: int | None = None, *, chains: int | None = None,
             temperatures: int | None = None, leapfrog: int | None = None, draws: int | None = None,
             start: str | None = None, progress: Callable[[float], Any] = lambda share: None,
             team: Any = None) -> Evaluation:
    """Evaluate a model on a part of a data set, of a named one ("digits"), or on an array (count, pixels) in [0, 1].

    Pixels that are drawn at each use come from a stream of their own, so every call draws the same pixels.

    Parameters
    ----------
    importance_samples, chains, temperatures, leapfrog, draws, start
        Settings of the method; `METHODS` holds their default values.
    method
        The method that estimates log p(x): `importance`, importance sampling; `ais`, annealed importance sampling; or
        `hmc`, posterior draws (for at most 4 latents). None estimates log p(x) by importance sampling if
        `importance_samples` is above 0, and else not at all.
    count
        The number of data to take, from the first on. None takes all; with `ais` and `hmc` at most 100.
    progress
        A function that is called now and then with the share of the estimation of log p(x) that is done.
    team
        The processes that share the batches out among them (`Ranks` of training/shards/ranks.py), each of which calls
        this function and gets the same result. None stands for this process alone.

    Raises
    ------
    ValueError
        For data that the model cannot be trained on, an unknown method, or settings that the method does not take.
    """
    check_model(model)
    check_finite(model, "so that no bound of it is a number")
    data = as_data_set(data)
    importance_samples = whole("importance_samples", importance_samples)
    name, settings = chosen(method, importance_samples=importance_samples or None, chains=chains, leapfrog=leapfrog,
                            temperatures=temperatures, draws=draws, start=start)
    chosen_method = METHODS[name] if name else None
    if chosen_method and not all(model.has(what) for what in chosen_method.needs):
        asked = f"the method {name}" if method else f"{importance_samples=} (-k)"
        raise ValueError(f"found {asked} for {an(model.kind)}, which has no z that estimates log p(x) so: leave it out")
    if name == "hmc":
        harmonic.check(model.generator(None).prior, model.latent, settings["chains"], settings["draws"])
    available = len(_stored(data, part))
    if count is not None and (count := whole("count", count, 1)) > available:
        raise ValueError(f"found a count of {count} data; expected 1 to {available}, as many as there are")
    used = min(available, (chosen_method and chosen_method.count) or available) if count is None else count
    noise = Noise(seed, "evaluate", model.xp.zeros(1, np.int64))
    columns: dict[str, list[np.ndarray]] = {}
    work, done = used * chosen_method.work(**settings) if chosen_method else 0, 0

    def report(moves: int) -> None:
        nonlocal done
        done += moves * len(batch)
        progress(done / work)

    for number, batch in enumerate(batches_of(model, data, seed, part, used)):
        if team is not None and not team.computes(number):
            continue
        noise.restart(number)
        found = bound_columns(model, batch, noise)
        if model.has("classify"):
            found["class"] = model.classify(batch).numpy().argmax(-1)
        if "mask" in model.needs:
            found |= held_out_columns(model, batch, seed, part, number)
        if chosen_method:
            found |= chosen_method.estimate(model, batch, noise, report, **settings)
        for column_name, values in found.items():
            columns.setdefault(column_name, []).append(values.astype(np.float64))
    columns = columns if team is None else team.in_order(columns)
    column = {key: np.concatenate(values) for key, values in columns.items()}
    elbo, elbo_error = mean_and_error(column["elbo"])
    own = data.log_jacobian(part)
    own_units = {} if own is None else {
        f"{key}_own_units{end}": value for key in ("elbo", "log_evidence") if key in column
        for end, value in zip(("", "_stderr"), mean_and_error(column[key] + own[:used]), strict=True)}
    return Evaluation(data.name, used, elbo, elbo_error,
                      bits_per_pixel=-elbo / (math.log(2) * model.targets), active_threshold=ACTIVE,
                      given=model.condition and model.condition.words,
                      goal=None if model.goal == "ELBO" else model.goal,
                      data_available=available if used < available else None,
                      **own_units, **bound_fields(column, model.layers),
                      **accuracy_fields(column, getattr(data, f"{part}_labels")), **held_out_fields(column),
                      **{"importance_samples": 0} | settings,
                      **evidence_fields(name, settings, column))


def batches_of(model: Any, data: DataSet, seed: int, part: str = "test",
               count: int | None = None) -> Iterator[Batch]:
    """All data, or the first `count`, in their order, in batches of `BATCH` rows of the model's type."""
    end, draw = len(_stored(data, part)), None
    if data.pixels == "dynamic":
        draw = Noise(seed, f"evaluate-binarise-{part}", model.xp.zeros(1, np.int64))
    rows, end = rows_of(model, data, part, draw), end if count is None else count
    with model.parameters.used():
        for number, start in enumerate(range(0, end, BATCH)):
            if draw is not None:
                draw.restart(number)
            yield rows.at(Tensor(model.xp.arange(start, min(start + BATCH, end))))


def _stored(data: DataSet, part: str) -> np.ndarray:
    """The rows of a part of a data set; ValueError if it has no such part."""
    stored = getattr(data, known("part", part, PARTS))
    if stored is None:
        raise ValueError(f"{data.name} has no part {part!r}; take another part, such as test")
    return stored


# ---- log p(x) --------------------------------------------------------------------------------------------------------

Columns = dict[str, np.ndarray]  # named arrays with one number for each datum


def _importance(model: Any, batch: Batch, noise: Noise, report: Callable[[int], Any],
                importance_samples: int) -> Columns:
    tail = pareto.Tail(importance_samples, len(batch))
    found, effective = log_evidence(model, batch, noise, importance_samples, tail, report)
    return {"log_evidence": found, "effective_samples": effective, "pareto_k": tail.shape(),
            "variance": variance_of(effective, importance_samples)}


def fixed(p: Any) -> Any:
    """A generator for chains, which record steps that renew no prior p(z|c): the numbers of p(z|c) as they are now."""
    return p if p.prior.mean.ndim == 1 else Joint(p.prior.map(lambda v: Tensor(v.data)), p.likelihood)


def _ais(model: Any, batch: Batch, noise: Noise, report: Callable[[int], Any], chains: int, temperatures: int,
         leapfrog: int, start: str) -> Columns:
    p, q = fixed(model.generator(batch)), model.posterior(batch)
    return ais.Annealing(p, q, model.target(batch), noise, temperatures, leapfrog, start, report).run(chains)._asdict()


def _hmc(model: Any, batch: Batch, noise: Noise, report: Callable[[int], Any], chains: int, draws: int,
         leapfrog: int) -> Columns:
    p, q = fixed(model.generator(batch)), model.posterior(batch)
    return harmonic.log_evidence(p, q, model.target(batch), noise, chains, draws, leapfrog, report)._asdict()


@dataclass(frozen=True)
class Method:
    """A method that estimates log p(x)."""

    estimate: Callable[..., Columns]
    settings: dict[str, Any]  # the settings that it takes, with their default values
    work: Callable[..., int]  # the number of draws or moves for one datum, from the settings
    needs: tuple[str, ...]  # the methods of a model that it calls
    count: int | None = None  # the default number of data; None stands for all


METHODS: dict[str, Method] = {
    "importance": Method(_importance, {"importance_samples": 500}, lambda importance_samples: importance_samples,
                         ("log_weights",)),
    "ais": Method(_ais, {"chains": 8, "temperatures": 200, "leapfrog": 5, "start": "encoder"},
                  lambda chains, temperatures, **_: 1 + temperatures * (1 + chains), ("generator", "posterior"), 100),
    "hmc": Method(_hmc, {"chains": 16, "draws": 100, "leapfrog": 4}, lambda chains, draws, **_: chains * draws,
                  ("generator", "posterior"), 100),
}  # fmt: skip


def chosen(method: str | None, **given: Any) -> tuple[str | None, dict[str, Any]]:
    """The method and its settings, by default those of `METHODS`; ValueError for settings that it does not take."""
    given = {name: value for name, value in given.items() if value is not None}
    if method is None and "importance_samples" in given:
        method = "importance"
    if method is None and not given:
        return None, {}
    if method not in METHODS:
        why = f", which {' and '.join(given)} need" if method is None else ""
        raise ValueError(f"found {'no method' if method is None else f'method {method!r}'}; expected one of "
                         f"{', '.join(METHODS)}{why}")
    settings = METHODS[method].settings
    if other := [name for name in given if name not in settings]:
        raise ValueError(f"found {other[0]} with the method {method}, which takes {', '.join(settings)}")
    for name, value in list(given.items()):
        if name == "start":
            densities.check_start(value)
        else:
            given[name] = whole(name, value, 1)
    return method, settings | given


def evidence_fields(method: str | None, settings: dict[str, Any], column: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of an Evaluation about log p(x)."""
    if method is None:
        return {}
    means = {name: mean_and_error(column[name]) for name in ("log_evidence", "effective_samples")}
    found: dict[str, Any] = {name: mean for name, (mean, _) in means.items()}
    found |= {f"{name}_stderr": error for name, (_, error) in means.items()}
    found |= {name: float(column[name].mean()) for name in ("acceptance", "energy_error") if name in column}
    samples = math.prod(settings[name] for name in ("importance_samples", "chains", "draws") if name in settings)
    if pareto.tail_size(samples) and method == "importance":
        found |= {"pareto_k_high": float(pareto.high(column["pareto_k"]).mean()), "pareto_k_limit": pareto.LIMIT}
    error = math.sqrt(column["variance"].mean() / len(column["variance"]))
    return found | {"method": method, "log_evidence_sampling_stderr": error,
                    "diagnosis": diagnosis(method, samples, column)}
