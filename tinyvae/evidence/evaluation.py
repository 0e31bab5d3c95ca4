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
from tinyvae.distributions import kl_per_dimension
from tinyvae.engine.devices import to_host
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence import ais, harmonic, pareto
from tinyvae.evidence.ais import TwoSided as TwoSided
from tinyvae.evidence.ais import bidirectional as bidirectional
from tinyvae.evidence.diagnostics import diagnosis, mean_and_error, variance_of
from tinyvae.training.batches import rows

BATCH = 500  # data at a time; fixed, because a draw's address counts batches
CHUNK = 2**22  # numbers in one decoder output: bounds the memory, however many importance samples
# A unit is active if its posterior mean varies more than this over the data (Burda et al. 2016), in units of the
# prior's variance, which is 1 there.
ACTIVE = 1e-2

# The ways to log p(x), with what each takes and, where it is not given, the number; and how many data by default.
METHODS: dict[str, dict[str, Any]] = {
    "importance": {"importance_samples": 500},
    "ais": {"chains": 8, "temperatures": 200, "leapfrog": 5, "start": "encoder"},
    "hmc": {"chains": 16, "draws": 100, "leapfrog": 4},
}
COUNTS = {"ais": 100, "hmc": 100}


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
    method, settings = chosen(method, importance_samples=importance_samples or None, chains=chains, leapfrog=leapfrog,
                              temperatures=temperatures, draws=draws, start=start)
    if method == "hmc":
        harmonic.check(model.prior, model.latent, settings["chains"], settings["draws"])
    available = len(_stored(model, data, part))
    if count is not None and not 1 <= count <= available:
        raise ValueError(f"found a count of {count} data; expected 1 to {available}, as many as there are")
    used = min(available, COUNTS.get(method or "", available)) if count is None else count
    noise = Noise(seed, "evaluate", model.xp.zeros(1, np.int64))
    columns: dict[str, list[np.ndarray]] = {}
    work, done = used * WORK[method](**settings) if method else 0, 0

    def tick(moves: int) -> None:
        nonlocal done
        done += moves * len(x)
        progress(done / work)

    for number, x in enumerate(batches_of(model, data, seed, part, used)):
        noise.restart(number)
        posterior = model.q(x)
        z = posterior.sample(noise)
        found = {"reconstruction": model.likelihood(z).log_prob(x).numpy()[0], "mu": posterior.mean.numpy(),
                 "kl": kl_per_dimension(posterior, model.prior).numpy()}
        if method:
            found |= ESTIMATES[method](model, posterior, x, noise, tick, **settings)
        for name, values in found.items():
            columns.setdefault(name, []).append(values.astype(np.float64))
    column = {name: np.concatenate(values) for name, values in columns.items()}
    kl, mu = column["kl"], column["mu"]
    elbo, elbo_error = mean_and_error(column["reconstruction"] - kl.sum(1))
    r, r_error = mean_and_error(column["reconstruction"])
    k, k_error = mean_and_error(kl.sum(1))
    each, each_error = mean_and_error(kl)
    name = data.name if isinstance(data, DataSet) else "array"
    active = mu.var(0) > ACTIVE * to_host(model.prior.variance.data)
    return Evaluation(name, len(mu), elbo, elbo_error, r, r_error, k, k_error, -elbo / (math.log(2) * model.pixels),
                      each.tolist(), each_error.tolist(), int(active.sum()), ACTIVE,
                      **{"importance_samples": 0} | settings, **summary(method, settings, column),
                      data_available=available if used < available else None,
                      latent_units=None if mu.shape[1] == len(each) else mu.shape[1])


def batches_of(model: Any, data: DataSet | np.ndarray, seed: int, part: str = "test",
               count: int | None = None) -> Iterator[Tensor]:
    """The data in order, or the first `count`, (batch, pixels) at a time, in the model's type."""
    kept, draw = _stored(model, data, part), None
    if isinstance(data, DataSet) and data.pixels == "dynamic":
        draw = Noise(seed, f"evaluate-binarise-{part}", model.xp.zeros(1, np.int64))
    scale = data.scale if isinstance(data, DataSet) else 1.0
    stored, end = Tensor(model.xp.asarray(kept)), len(kept) if count is None else count
    for number, start in enumerate(range(0, end, BATCH)):
        if draw is not None:
            draw.restart(number)
        index = model.xp.arange(start, min(start + BATCH, end))
        yield rows(stored, Tensor(index), scale, model.dtype, draw)


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


def log_evidence(model: Any, posterior: Any, x: Tensor, noise: Noise, samples: int, tail: pareto.Tail | None = None,
                 tick: Callable[[int], Any] = lambda draws: None) -> tuple[np.ndarray, np.ndarray]:
    """log p(x) of each datum by importance sampling with exactly `samples` draws, and the effective sample size.

    log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x);  log p(x) ~ log 1/K sum_k w_k;  ESS = (sum w)^2 / sum w^2.
    The sums run over chunks of draws, so memory does not grow with `samples`. Both results are (batch,) float64. The
    largest weights are put into `tail`, if it is given; `tick` is told how many draws were made since.
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
        if tail is not None:
            tail.add(values)
        tick(len(values))
    return first - math.log(samples), np.exp(2 * first - second)


def _importance(model: Any, posterior: Any, x: Tensor, noise: Noise, tick: Callable[[int], Any],
                importance_samples: int) -> dict[str, np.ndarray]:
    tail = pareto.Tail(importance_samples, len(x))
    found, effective = log_evidence(model, posterior, x, noise, importance_samples, tail, tick)
    return {"log_evidence": found, "effective_samples": effective, "pareto_k": tail.shape(),
            "variance": variance_of(effective, importance_samples)}


def _ais(model: Any, posterior: Any, x: Tensor, noise: Noise, tick: Callable[[int], Any], chains: int,
         temperatures: int, leapfrog: int, start: str) -> dict[str, np.ndarray]:
    return ais.Annealing(model, posterior, x, noise, temperatures, leapfrog, start, tick).run(chains)._asdict()


def _hmc(model: Any, posterior: Any, x: Tensor, noise: Noise, tick: Callable[[int], Any], chains: int, draws: int,
         leapfrog: int) -> dict[str, np.ndarray]:
    return harmonic.log_evidence(model, posterior, x, noise, chains, draws, leapfrog, tick)._asdict()


# Each method's columns, a number a datum; and how much it has to do for one.
ESTIMATES: dict[str, Callable[..., dict[str, np.ndarray]]] = {"importance": _importance, "ais": _ais, "hmc": _hmc}
WORK: dict[str, Callable[..., int]] = {
    "importance": lambda importance_samples: importance_samples,
    "ais": lambda chains, temperatures, **_: 1 + temperatures * (1 + chains),
    "hmc": lambda chains, draws, **_: chains * draws,
}


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
    if other := [name for name in given if name not in METHODS[method]]:
        raise ValueError(f"found {other[0]} with the method {method}, which takes {', '.join(METHODS[method])}")
    for name, value in given.items():
        if name == "start":
            ais.check_start(value)
        elif not isinstance(value, int) or value < 1:
            raise ValueError(f"found {name} {value!r}; expected a whole number, at least 1")
    return method, METHODS[method] | given


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
