"""Better posteriors and priors beside the plain ones, at equal passes: flows, two layers of latents, a VampPrior.

Each part trains one contestant on one seed and estimates log p(x) of the test data by importance sampling. Of data with
a validation part the best epoch on it counts, else the last one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tinyvae as tv
from benchmarks.parts import Content, Part
from tinyvae.evidence.diagnostics import mean_and_error

Say = Callable[[str], Any]
BOUND, EVIDENCE = "test -ELBO", "-log p(x) of test data"
QUICK: dict[str, Any] = {"epochs": 1, "batch": 100}
SMALL: dict[str, Any] = {"hidden": 10, "pseudo_inputs": 5}  # of the quick form


class Contestant(NamedTuple):
    """A model with its options."""

    kind: str
    options: dict[str, Any]


class Contest(NamedTuple):
    """Two contestants, trained alike on the same data, and by how many nats the second shall be better in what."""

    data: str
    plain: tuple[str, Contestant]
    better: tuple[str, Contestant]
    stages: tuple[dict[str, Any], ...]  # settings of trainings that follow one another
    targets: dict[str, tuple[float | None, str]]  # by quantity: the least gain, None for two standard errors; published
    draws: int = 1000  # of the importance sampling
    seeds: int = 1


def _stage(i: int, batch: int) -> dict[str, Any]:
    """A stage of IWAE's training: 3^i passes at the rate of the authors' code."""
    return {"epochs": 3**i, "lr": 1e-4 * round(10 ** (1 - i / 7), 1), "batch": batch}


WIDE: dict[str, Any] = {"hidden": (256, 256), "latent": 128}
IAF = Contest("mnist-binarized", ("mean-field", Contestant("vae", WIDE)),
              ("IAF, 2 steps", Contestant("vae", WIDE | {"posterior": "iaf", "flow_steps": 2})),
              ({"epochs": 80, "lr": 1e-3, "batch": 128, "schedule": "cosine"},),
              {BOUND: (1.2, "103.31 to 101.64"), EVIDENCE: (1.2, "97.10 to 95.33")})
# Pixels are drawn anew, since on fixed bits both contestants overfit more than they differ.
SLIM: dict[str, Any] = {"hidden": (200, 200), "latent": 40}
PLANAR = Contest("mnist-dynamic", ("diagonal", Contestant("vae", SLIM)),
                 ("planar, 10 maps", Contestant("vae", SLIM | {"posterior": "planar", "flow_steps": 10})),
                 ({"epochs": 40, "lr": 1e-3, "batch": 100, "schedule": "cosine"},),
                 {EVIDENCE: (None, "89.9 to 87.5 after long runs"), BOUND: (None, "none")}, seeds=3)
LAYERS = Contest("mnist-dynamic", ("one layer, 50", Contestant("vae", {
    "hidden": (200, 200), "latent": 50, "activation": "tanh"})), ("two layers, 100 and 50", Contestant("hierarchical", {
        "hidden": (200, 200), "latent": (100, 50), "activation": "tanh"})),
    tuple(_stage(i, 20) | {"data_mean_bias": i == 0} for i in range(5)),
    {EVIDENCE: (None, "86.76 to 85.33 after 3 280 passes")})  # fmt: skip
GATED: dict[str, Any] = {"hidden": (300, 300), "latent": 40}
VAMP = Contest("mnist-dynamic", ("standard prior", Contestant("vae", GATED)),
               ("VampPrior, 500 pseudo-inputs", Contestant("vae", GATED | {"prior": "vamp", "pseudo_inputs": 500})),
               ({"epochs": 60, "lr": 1e-3, "batch": 100, "schedule": "cosine", "warmup": 10},),
               {EVIDENCE: (None, "84.50 to 82.38 of gated networks")})


def contest(of: Contest, quick: bool, say: Say) -> dict[str, Part]:
    """The parts of a contest, and the rows of its comparison."""
    seeds = range(min(of.seeds, 2) if quick else of.seeds)

    def trained(name: str, which: Contestant, seed: int) -> Content:
        data = tv.data.load("digits-static" if quick else of.data)
        options = which.options
        if quick:
            options = options | {key: value for key, value in SMALL.items() if key in options or key == "hidden"}
        model, start = tv.models.model_for(which.kind, data, seed=seed, **options), time.perf_counter()

        def report(record: dict[str, Any], timings: dict[str, Any]) -> None:
            say(f"  {name}, seed {seed}: epoch {record['epoch']}, test -ELBO {-record['test_elbo']:.2f} ± "
                f"{record['test_elbo_stderr']:.2f} nats per datum, {timings['train_seconds']:.1f} s")

        with tempfile.TemporaryDirectory() as folder:
            for number, stage in enumerate(of.stages[:2] if quick else of.stages):
                out = Path(folder) / str(number)
                records = tv.fit(model, data, out=out, seed=seed + 100 * number, on_epoch=report,
                                 **(stage | (QUICK if quick else {})))
            if data.valid is not None:
                model = tv.load(out)
        seconds = time.perf_counter() - start
        found = tv.evaluate(model, data, importance_samples=10 if quick else of.draws)
        say(f"  {name}, seed {seed}: -log p(x) {-found.log_evidence:.2f}, trained in {seconds:.0f} s")
        best = max(records, key=lambda record: record["valid_elbo"]) if data.valid is not None else records[-1]
        return {"found": {_part(name, seed): {
            "data": data.name, BOUND: (-found.elbo, found.elbo_stderr), EVIDENCE: (-found.log_evidence,
                                                                              found.log_evidence_stderr),
            "count": found.data_count, "importance_samples": found.importance_samples, "kl": found.kl,
            "active_units": found.active_units_per_layer or found.active_units, "seconds": seconds,
            "passes": sum(stage["epochs"] for stage in of.stages), "best_epoch": best["epoch"]}}}

    def rows(content: Content) -> Content:
        return {"rows": [row for quantity in of.targets for row in _rows(of, quantity, content["found"], seeds)]}

    parts: dict[str, Part] = {
        _part(*which): lambda _, which=which, contestant=contestant: trained(which[0], contestant, which[1])
        for seed in seeds for which, contestant in [((name, seed), each) for name, each in (of.plain, of.better)]}
    return parts | {"comparison": rows}


def _part(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"


def _rows(of: Contest, quantity: str, found: Content, seeds: range) -> list[dict[str, Any]]:
    """Both contestants, and the gain of the second; over several seeds with the standard error between them, else with
    that of the data."""
    least, published = of.targets[quantity]
    values, made = {}, []

    def add(name: str, value: float, error: float, what: str, more: dict[str, Any]) -> None:
        first = found[_part(of.better[0], 0)]
        made.append({"setting": name, "data": first["data"], "quantity": what, "value": value, "stderr": error,
                     "count": first["count"], "importance_samples": first["importance_samples"], "target": "none",
                     "reached": None, "passes": first["passes"], "seed": f"0 to {seeds[-1]}" if len(seeds) > 1 else 0}
                    | more)  # fmt: skip

    errors = {}
    for name, _ in (of.plain, of.better):
        each = [found[_part(name, seed)] for seed in seeds]
        values[name] = np.array([one[quantity][0] for one in each])
        mean, error = mean_and_error(values[name]) if len(seeds) > 1 else each[0][quantity]
        errors[name] = error
        add(name, mean, error, f"{quantity}, nats per datum, lower is better", {
            "target": f"published: {published}", "active_units": [one["active_units"] for one in each],
            "kl": float(np.mean([one["kl"] for one in each])), "each": values[name].tolist(),
            "best_epoch": [one["best_epoch"] for one in each],
            "seconds": float(np.mean([one["seconds"] for one in each]))})
    gains = values[of.plain[0]] - values[of.better[0]]
    # The errors of one seed are those of different draws of the same data, so their sum is larger than the truth.
    gain, error = mean_and_error(gains) if len(seeds) > 1 else (gains[0], float(np.hypot(*errors.values())))
    wanted = 2 * error if least is None else least
    add(f"{of.better[0]}, gain", float(gain), error, f"nats per datum of {quantity} less than {of.plain[0]}, higher is "
        "better", {"target": "above two standard errors" if least is None else f"at least {least}",
                   "reached": bool(gain > wanted), "each": gains.tolist(), "seconds": 0.0})
    return made
