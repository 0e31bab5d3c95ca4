"""Data completion: -log p(hidden | observed) of a plain VAE by each method, beside simple answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tinyvae as tv
from benchmarks import results
from benchmarks.parts import Content, Part
from tinyvae.evidence.diagnostics import mean_and_error

PASSES, COUNT = 60, 500  # passes of the training; the number of test images
QUANTITY = "-log p(hidden | observed), nats per hidden pixel, lower is better"
# The settings of each method, and its target.
METHODS: dict[str, dict[str, Any]] = {
    "gibbs": {"draws": 20, "sweeps": 40}, "metropolis": {"draws": 20, "sweeps": 40, "gibbs_sweeps": 10},
    "importance": {"draws": 100, "sweeps": 60}}  # fmt: skip
TARGETS = {"gibbs": 0.115, "importance": 0.105}
NEAR = 0.01  # how much worse than gibbs metropolis may be
ANSWERS = {"each pixel's training mean": "measured before: 0.25", "one-shot re-encoding": "measured before: 0.18"}


def run_of(content: Content) -> Path:
    """The run folder of the training, outside of what is committed: one for each state of the code."""
    kind = "quick" if content["quick"] else "full"
    return results.ROOT / "build" / "reproduce" / f"completion-{kind}-{content['commit']}{content['changes']}"


def completion(quick: bool, say: Callable[[str], Any], seed: int = 0) -> dict[str, Part]:
    """Train 784-400-20 with ReLU, Adam at 1e-3 and batch 128; hide a random half of the pixels of each test image."""
    name = "digits-dynamic" if quick else "mnist-dynamic"

    def report(record: dict[str, Any], timings: dict[str, Any]) -> None:
        if record["epoch"] % 5 == 0:
            say(f"  epoch {record['epoch']}: test ELBO {record['test_elbo']:.2f} nats per datum")

    def training(content: Content) -> Content:
        run, data, start = run_of(content), tv.data.load(name), time.perf_counter()
        if run.exists():
            records = tv.resume(run, on_epoch=report)
        else:
            run.parent.mkdir(parents=True, exist_ok=True)
            model = tv.VAE(data.dimensions, hidden=400, latent=20, seed=seed)
            records = tv.fit(model, data, out=run, epochs=2 if quick else PASSES, batch=128, seed=seed, on_epoch=report)
        seconds = time.perf_counter() - start
        return {"training": {"elbo": records[-1]["test_elbo"], "passes": len(records), "seconds": seconds}}

    def part(content: Content, method: str) -> Content:
        data, start = tv.data.load(name), time.perf_counter()
        settings = {"draws": 10, "sweeps": 4, "gibbs_sweeps": 1} if quick else METHODS[method]
        found = tv.complete(tv.load(run_of(content)), data, "random:0.5", method, count=10 if quick else COUNT,
                            seed=seed, **settings)
        say(str(found))
        head = {"data": data.name, "quantity": QUANTITY, "count": len(found.x), "seed": seed, "digits": 4,
                "passes": content["training"]["passes"], "seconds": time.perf_counter() - start}
        value, error = mean_and_error(found.nats)
        extra = {"kept": found.kept, "acceptance": found.acceptance, **settings}
        rows = [head | {"setting": method, "value": value, "stderr": error, "target": f"at most {TARGETS[method]}",
                        "reached": value <= TARGETS[method]} | extra] if method in TARGETS else []
        if method == "gibbs":
            for answer, words in ANSWERS.items():
                value, error = mean_and_error(found.baselines[answer])
                rows.append(head | {"setting": answer, "value": value, "stderr": error, "target": words,
                                    "reached": None})
        elif method == "metropolis":
            gibbs = next(row["value"] for row in content["rows"] if row["setting"] == "gibbs")
            rows = [head | {"setting": method, "value": value, "stderr": error, "reached": value <= gibbs + NEAR,
                            "target": f"at most gibbs's {gibbs:.4f} + {NEAR} at equal sweeps"} | extra]
        return {"rows": rows}

    return {"training": training} | {method: lambda content, method=method: part(content, method) for method in METHODS}
