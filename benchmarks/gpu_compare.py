"""Training the same net on the CPU and on the GPU, and testing whether chance explains the difference in test -ELBO."""

from __future__ import annotations

import math
import statistics
import tempfile
from pathlib import Path

import numpy as np

import tinyvae as tv
from benchmarks import tables
from benchmarks.parts import Content, Part
from tinyvae.engine import table
from tinyvae.engine.devices import to_host

DATA = "digits-dynamic"
HIDDEN, LATENT, EPOCHS, BATCH, SEEDS = 500, 20, 5, 100, 5
NATS = 0.3  # the largest allowed difference of a pair of runs
ERRORS = 2  # the largest allowed mean difference in standard errors
GRADIENT = 1e-5  # the largest allowed difference of a gradient, relative to the largest element of its array
DEVICES = "cpu", "cuda"


def data_set(name: str | None) -> tv.DataSet | None:
    """The data set of that name; without a name the default one, or None and a printed line if it is missing."""
    try:
        return tv.data.load(name or DATA)
    except tv.DataError as fault:
        if name:
            raise SystemExit(f"--compare {name}: {fault}") from None
        print(f"training on CPU and GPU is not compared: {fault}")
        return None


def trained(data: tv.DataSet, device: str, seed: int, folder: Path) -> float:
    """The -ELBO of the test data after training, in nats per datum; the run is saved in `folder`."""
    model = tv.VAE(data.dimensions, HIDDEN, LATENT, likelihood=data.likelihood, seed=seed, device=device)
    tv.fit(model, data, folder, epochs=EPOCHS, batch=BATCH, seed=seed)
    return -tv.evaluate(model, data).elbo


def gradients(folder: Path, data: tv.DataSet, device: str) -> dict[str, np.ndarray]:
    """The gradients of a run's checkpoint on one batch, by parameter."""
    model = tv.load(folder, device=device)
    images = (data.test[:BATCH] / data.scale).astype(np.float32)
    x = tv.Tensor(model.xp.asarray(images if data.pixels == "gray" else np.round(images)))
    loss = -tv.elbo(model, model.q, x, tv.Noise(0, counters=model.xp.zeros(1, np.int64))).mean()
    names = model.parameters.tensors
    return {name: to_host(g.data) for name, g in zip(names, tv.grad(loss, list(names.values())), strict=True)}


def gradient_error(folder: Path, data: tv.DataSet) -> float:
    """The largest difference of both devices' gradients, relative to the largest element of the array."""
    here, there = (gradients(folder, data, device) for device in DEVICES)
    return max(float(np.abs(there[name] - g).max() / np.abs(g).max()) for name, g in here.items())


def parts(data: tv.DataSet) -> dict[str, Part]:
    """A part for each seed; the first also compares the gradients of its trained net."""
    def part(seed: int) -> Content:
        with tempfile.TemporaryDirectory() as folder:
            cpu, gpu = (trained(data, device, seed, Path(folder) / device) for device in DEVICES)
            tables.say(f"{data.name}, seed {seed}: {cpu:.4f} nats on the CPU, {gpu:.4f} on the GPU")
            found = {"trained": [{"seed": seed, "cpu_nats": cpu, "gpu_nats": gpu, "difference": gpu - cpu}]}
            if seed:
                return found
            return found | {"data": data.name, "dimensions": data.dimensions, "test_count": len(data.test),
                            "gradient_error": gradient_error(Path(folder) / DEVICES[0], data)}

    return {f"training, seed {seed}": lambda _, seed=seed: part(seed) for seed in range(SEEDS)}


def summary(content: Content) -> Content:
    """What all seeds say together."""
    rows, error = content["trained"], content.get("gradient_error", math.nan)
    apart = [row["difference"] for row in rows]
    mean = statistics.mean(apart)
    stderr = statistics.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
    return {
        "data": content.get("data"), "epochs": EPOCHS, "rows": rows, "mean_difference": mean, "standard_error": stderr,
        "by_chance": abs(mean) <= ERRORS * stderr, "each_near": all(abs(d) <= NATS for d in apart),
        "gradient_error": error, "same_gradient": error <= GRADIENT,
    }  # fmt: skip


def show(content: Content) -> None:
    """Print the comparison."""
    found = summary(content)
    print(f"""
{content.get("dimensions")}-{HIDDEN}-{LATENT} trained on {found["data"]} for {EPOCHS} epochs with each of \
{len(found["rows"])} seeds
test -ELBO over {content.get("test_count", 0):,} data in nats per datum, lower is better
""")
    print(table.lines([("seed", "CPU", "GPU", "GPU - CPU"), *(
        (str(row["seed"]), f"{row['cpu_nats']:.4f}", f"{row['gpu_nats']:.4f}", f"{row['difference']:+.5f}")
        for row in found["rows"])], left=()))
    print(f"""
mean difference: {found["mean_difference"]:+.5f} nats, standard error of {len(found["rows"])} seeds \
{found["standard_error"]:.5f}: {_verdict(found["by_chance"])} within {ERRORS} standard errors of 0
each difference: {_verdict(found["each_near"])} within {NATS:g} nats
gradient of the trained net on one batch: CPU and GPU differ by {found["gradient_error"]:.2g} of the array's largest \
element, {_verdict(found["same_gradient"])} within {GRADIENT:g}""")


def _verdict(reached: bool) -> str:
    return "is" if reached else "is NOT"
