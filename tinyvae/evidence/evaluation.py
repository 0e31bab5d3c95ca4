"""Judging a model on data: the bound and its terms, the evidence log p(x), and which latents are used.

Every number is a mean over data in nats, with its standard error: the sample's standard deviation over sqrt(count).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.distributions import has_closed_kl, kl_per_dimension
from tinyvae.engine.devices import to_host
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence import ais, harmonic, pareto
from tinyvae.evidence.diagnostics import diagnosis, mean_and_error, variance_of
from tinyvae.evidence.importance import log_evidence
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch
from tinyvae.models.batch import rows_of

BATCH = 500  # data at a time; fixed, because a draw's address counts batches
# A unit is active if its posterior mean varies more than this over the data (Burda et al. 2016), in units of the
# prior's variance, which is 1 there.
ACTIVE = 1e-2

@dataclass(frozen=True)
class Evaluation:
    """What was measured on `data_count` data. All in nats per datum but the counts, shares and `bits_per_pixel`.

    Higher is better for `elbo`, `reconstruction` and `log_evidence`. On average `log_evidence` lies below log p(x) by
    `importance` (log 1/K sum_k p(x, z_k) / q(z_k|x), tighter with more samples) and by `ais`, above it by `hmc`.
    """

    data: str
    data_count: int
    elbo: float
    elbo_stderr: float
    reconstruction: float | None  # None for a model whose bound has other terms, as are the other fields of z
    reconstruction_stderr: float | None
    kl: float | None
    kl_stderr: float | None
    bits_per_pixel: float  # -elbo in bits a pixel; lower is better
    kl_per_dimension: list[float] | None
    kl_per_dimension_stderr: list[float] | None
    active_units: int | None
    active_threshold: float
    importance_samples: int
    log_evidence: float | None = None
    log_evidence_stderr: float | None = None
    effective_samples: float | None = None  # of the samples, chains or draws, the mean over data; higher is better
    effective_samples_stderr: float | None = None
    # the following are in `to_dict` only where they are known
    latent_units: int | None = None  # where several of them share one KL (Dirichlet)
    data_available: int | None = None  # of which the first `data_count` were taken
    method: str | None = None  # of log_evidence, with its settings
    chains: int | None = None
    temperatures: int | None = None
    leapfrog: int | None = None
    draws: int | None = None
    start: str | None = None
    log_evidence_sampling_stderr: float | None = None  # the part of the error that other draws of z would change
    pareto_k_high: float | None = None  # share of the data with a Pareto k above `pareto_k_limit`; lower is better
    pareto_k_limit: float | None = None
    acceptance: float | None = None  # of Hamiltonian moves
    energy_error: float | None = None  # of those accepted, |dH| in nats
    diagnosis: str | None = None  # whether log_evidence is to be trusted, as one sentence
    terms: dict[str, float] | None = None  # of a model whose bound is not reconstruction - kl: each term's mean
    terms_stderr: dict[str, float] | None = None

    @property
    def fresh_draws(self) -> int:
        """Of `hmc`, the draws that are averaged: those of the half of the chains that fitted no density."""
        chains = self.chains or 0
        return (chains - chains // 2) * (self.draws or 0)

    def to_dict(self) -> dict[str, Any]:
        always = tuple(Evaluation.__dataclass_fields__)[:18]
        return {name: value for name, value in asdict(self).items() if value is not None or name in always}


@np.errstate(all="ignore")  # what is not finite is shown, not warned of
def evaluate(model: Any, data: DataSet | np.ndarray, importance_samples: int = 0, seed: int = 0, part: str = "test",
             method: str | None = None, count: int | None = None, *, chains: int | None = None,
             temperatures: int | None = None, leapfrog: int | None = None, draws: int | None = None,
             start: str | None = None, progress: Callable[[float], Any] = lambda share: None) -> Evaluation:
    """Measure a model on a part of a data set, or on an array (count, pixels) in [0, 1].

    Pixels that are drawn at each use are drawn from a stream of their own, the same at every call.

    Parameters
    ----------
    importance_samples, chains, temperatures, leapfrog, draws, start
        Settings of the method; what is not given is in `METHODS`.
    method
        How to find log p(x): `importance`; `ais`, annealed importance sampling; `hmc`, from posterior draws (below 5
        latents). None: not at all, or with `importance_samples` above 0 by importance sampling.
    count
        Take the first `count` data. None: all; with `ais` and `hmc` 100, or as many as there are.
    progress
        Is told now and then which share of the estimation of log p(x) is done.

    Raises
    ------
    ValueError
        For data that do not fit the model, an unknown method, or settings that the method does not take.
    """
    if importance_samples < 0:
        raise ValueError(f"found {importance_samples} importance samples; expected 0 (none) or more")
    name, settings = chosen(method, importance_samples=importance_samples or None, chains=chains, leapfrog=leapfrog,
                            temperatures=temperatures, draws=draws, start=start)
    way = METHODS[name] if name else None
    if way and not all(model.has(what) for what in way.needs):
        raise ValueError(f"found the method {name} for a {model.kind}, which has no {' or '.join(way.needs)}: take "
                         "another method, or judge the bound alone")
    if name == "hmc":
        harmonic.check(model.generator(None).prior, model.latent, settings["chains"], settings["draws"])
    available = len(_stored(model, data, part))
    if count is not None and not 1 <= count <= available:
        raise ValueError(f"found a count of {count} data; expected 1 to {available}, as many as there are")
    used = min(available, (way and way.count) or available) if count is None else count
    noise = Noise(seed, "evaluate", model.xp.zeros(1, np.int64))
    columns: dict[str, list[np.ndarray]] = {}
    work, done = used * way.work(**settings) if way else 0, 0

    def tick(moves: int) -> None:
        nonlocal done
        done += moves * len(batch)
        progress(done / work)

    for number, batch in enumerate(batches_of(model, data, seed, part, used)):
        noise.restart(number)
        found = judged(model, batch, noise)
        if way:
            found |= way.estimate(model, batch, noise, tick, **settings)
        for column_name, values in found.items():
            columns.setdefault(column_name, []).append(values.astype(np.float64))
    column = {key: np.concatenate(values) for key, values in columns.items()}
    elbo, elbo_error = mean_and_error(column["elbo"])
    return Evaluation(data.name if isinstance(data, DataSet) else "array", used, elbo, elbo_error,
                      bits_per_pixel=-elbo / (math.log(2) * model.pixels), active_threshold=ACTIVE,
                      data_available=available if used < available else None,
                      **about_z(column), **{"importance_samples": 0} | settings, **summary(name, settings, column))


def judged(model: Any, batch: Batch, noise: Noise) -> dict[str, np.ndarray]:
    """The bound of each datum, and what it is made of, by one draw of z each; every array begins with the data's axis.

    Of a model with one latent variable: `reconstruction`, `kl` (data, latent) and the posterior's mean `mu`, with the
    prior's variance. Of another one its terms, as `term NAME`.
    """
    if not (model.has("generator") and model.has("posterior")):
        terms = model.terms(batch, Draw(noise)).reported
        rows = {key: value.numpy().reshape(-1) * np.ones(len(batch)) for key, value in terms.items()}
        elbo = sum(model.weights.get(key, 1.0) * values for key, values in rows.items())
        return {"elbo": np.asarray(elbo)} | {f"term {key}": values for key, values in rows.items()}
    p, q = model.generator(batch), model.posterior(batch)
    if has_closed_kl(q, p.prior):
        z, kl = q.sample(noise), kl_per_dimension(q, p.prior).numpy()
    else:
        z, log_q = q.draw(noise)
        kl = (log_q - p.prior.log_prob(z)).numpy().reshape(-1, 1)
    reconstruction, prior = p.likelihood(z).log_prob(batch.x).numpy()[0], to_host(p.prior.variance.data)
    return {"elbo": reconstruction.astype(np.float64) - kl.astype(np.float64).sum(1), "reconstruction": reconstruction,
            "kl": kl, "mu": q.mean.numpy(), "prior_variance": prior * np.ones_like(q.mean.numpy())}


def about_z(column: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of an Evaluation that speak of the terms of the bound and of the latent variable."""
    fields = ("reconstruction", "reconstruction_stderr", "kl", "kl_stderr", "kl_per_dimension",
              "kl_per_dimension_stderr", "active_units")
    if "kl" not in column:
        terms = {key.removeprefix("term "): mean_and_error(column[key]) for key in column if key.startswith("term ")}
        return dict.fromkeys(fields) | {"terms": {key: mean for key, (mean, _) in terms.items()},
                                        "terms_stderr": {key: error for key, (_, error) in terms.items()}}
    kl, mu = column["kl"], column["mu"]
    each, each_error = mean_and_error(kl)
    active = int((mu.var(0) > ACTIVE * column["prior_variance"].mean(0)).sum())
    values = (*mean_and_error(column["reconstruction"]), *mean_and_error(kl.sum(1)), each.tolist(), each_error.tolist(),
              active)
    return dict(zip(fields, values, strict=True)) | {"latent_units": None if mu.shape[1] == len(each) else mu.shape[1]}


def batches_of(model: Any, data: DataSet | np.ndarray, seed: int, part: str = "test",
               count: int | None = None) -> Iterator[Batch]:
    """The data in order, or the first `count`, `BATCH` rows at a time, in the model's type."""
    end, draw = len(_stored(model, data, part)), None
    if isinstance(data, DataSet) and data.pixels == "dynamic":
        draw = Noise(seed, f"evaluate-binarise-{part}", model.xp.zeros(1, np.int64))
    rows, end = rows_of(model, data, part, draw), end if count is None else count
    for number, start in enumerate(range(0, end, BATCH)):
        if draw is not None:
            draw.restart(number)
        yield rows.at(Tensor(model.xp.arange(start, min(start + BATCH, end))))


def _stored(model: Any, data: DataSet | np.ndarray, part: str) -> np.ndarray:
    """The rows of a part of a data set, or of an array, if the model can take them."""
    if isinstance(data, DataSet):
        stored = getattr(data, part)
        if stored is None:
            raise ValueError(f"{data.name} has no part {part!r}")
    else:
        stored = np.ascontiguousarray(data)
        if stored.size and not (stored.min() >= 0 and stored.max() <= 1):  # NaN fails too
            raise ValueError(f"found pixels from {stored.min()} to {stored.max()}; expected numbers in [0, 1]: divide "
                             "bytes by 255 first, or give a data set of tv.data.load")
    if stored.ndim != 2 or stored.shape[1] != model.pixels or not len(stored):
        raise ValueError(f"found data of shape {stored.shape}; this model takes (count, {model.pixels}), count above 0")
    return stored


# ---- log p(x) --------------------------------------------------------------------------------------------------------

Columns = dict[str, np.ndarray]  # by name, a number for each datum


def _importance(model: Any, batch: Batch, noise: Noise, tick: Callable[[int], Any], importance_samples: int) -> Columns:
    tail = pareto.Tail(importance_samples, len(batch))
    found, effective = log_evidence(model, batch, noise, importance_samples, tail, tick)
    return {"log_evidence": found, "effective_samples": effective, "pareto_k": tail.shape(),
            "variance": variance_of(effective, importance_samples)}


def _ais(model: Any, batch: Batch, noise: Noise, tick: Callable[[int], Any], chains: int, temperatures: int,
         leapfrog: int, start: str) -> Columns:
    p, q = model.generator(batch), model.posterior(batch)
    return ais.Annealing(p, q, batch.x, noise, temperatures, leapfrog, start, tick).run(chains)._asdict()


def _hmc(model: Any, batch: Batch, noise: Noise, tick: Callable[[int], Any], chains: int, draws: int,
         leapfrog: int) -> Columns:
    p, q = model.generator(batch), model.posterior(batch)
    return harmonic.log_evidence(p, q, batch.x, noise, chains, draws, leapfrog, tick)._asdict()


@dataclass(frozen=True)
class Method:
    """A way to log p(x)."""

    estimate: Callable[..., Columns]
    settings: dict[str, Any]  # what it takes, with the values where they are not given
    work: Callable[..., int]  # how much it has to do for one datum
    needs: tuple[str, ...]  # what it asks of a model
    count: int | None = None  # how many data by default; None: all


METHODS: dict[str, Method] = {
    "importance": Method(_importance, {"importance_samples": 500}, lambda importance_samples: importance_samples,
                         ("log_weights",)),
    "ais": Method(_ais, {"chains": 8, "temperatures": 200, "leapfrog": 5, "start": "encoder"},
                  lambda chains, temperatures, **_: 1 + temperatures * (1 + chains), ("generator", "posterior"), 100),
    "hmc": Method(_hmc, {"chains": 16, "draws": 100, "leapfrog": 4}, lambda chains, draws, **_: chains * draws,
                  ("generator", "posterior"), 100),
}  # fmt: skip


def chosen(method: str | None, **given: Any) -> tuple[str | None, dict[str, Any]]:
    """The method and its settings, those given and the defaults of the others; ValueError for what does not fit."""
    given = {name: value for name, value in given.items() if value is not None}
    if method is None and "importance_samples" in given:
        method = "importance"
    if method is None and not given:
        return None, {}
    if method not in METHODS:
        why = f", which {' and '.join(given)} need" if method is None else ""
        raise ValueError(f"found {'no method' if method is None else f'method {method!r}'}; expected one of "
                         f"{', '.join(METHODS)}{why}")
    known = METHODS[method].settings
    if other := [name for name in given if name not in known]:
        raise ValueError(f"found {other[0]} with the method {method}, which takes {', '.join(known)}")
    for name, value in given.items():
        if name == "start":
            ais.check_start(value)
        elif not isinstance(value, int) or value < 1:
            raise ValueError(f"found {name} {value!r}; expected a whole number, at least 1")
    return method, known | given


def summary(method: str | None, settings: dict[str, Any], column: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of an Evaluation that a method fills."""
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
