"""What a page holds of a run: facts as a dictionary, and arrays: weights, test data, their posterior means.

Weights are float16, which a page of 784-400-20 needs to stay small. They are checked: where they move a latent or a
pixel of the first test data by more than half of what the page may differ from Python, some are float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.distributions import kl_per_dimension
from tinyvae.distributions.registry import PRIORS
from tinyvae.engine.devices import to_host
from tinyvae.engine.noise import Noise, permutation
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.diagnostics import mean_and_error
from tinyvae.evidence.evaluation import batches_of
from tinyvae.explorer.frames import frame_of
from tinyvae.models import Batch
from tinyvae.models.base import check_finite

MOST = 1000  # test data
ROOM = 900_000  # bytes of test data, before they are compressed
FEW = 20  # as many test data are there, however large
LATENT, PIXEL = 2e-3, 1 / 510  # by how much the page may differ from Python on the first FEW test data
CONFIG = ("kind", "latent", "hidden", "activation", "likelihood", "posterior", "classes")  # what the page reads of it
DRAWS = 2000  # of a prior that is not normal, for the ends of the sliders
ENDS = 0.00135, 0.99865  # Phi(-3) and Phi(3)


def contents(model: Any, data: DataSet, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Facts and arrays of the page of a model and its data; `name` is that of the run.

    Raises ValueError for a model whose parameters are not finite.
    """
    check_finite(model, "with which a page would show nothing")
    data = some_test_data(data)
    batches = list(batches_of(model, data, 0))
    found = [laws(model, batch) for batch in batches]
    means = _joined(q.mean for q, _, _ in found)
    kl = _joined(kl_per_dimension(q, p) for q, p, _ in found).astype(np.float64)
    low, high = ends(model, found, means)
    with np.errstate(all="ignore"):  # the KL of a model that diverged may be infinite, and the page says so
        activity, error = mean_and_error(kl)
    directions, variances = components(means)
    config, (family, *numbers) = model.config, PRIORS[model.config["posterior"]]
    train = (data.train[:MOST] / np.float32(data.scale)).reshape(-1, *data.shape[:2], *(data.shape[2:] or (1,)))
    facts: dict[str, Any] = {
        "name": name, "data": Path(data.name).name, "shape": list(data.shape), "count": len(data.test),
        "treatment": treatment(data),
        "config": {key: config.get(key) for key in CONFIG},
        "given": config.get("given"), "words": None if model.condition is None else model.condition.words,
        "prior": {"family": family, "numbers": numbers},
        "kl": activity.tolist(), "kl_error": error.tolist(), "low": low.tolist(), "high": high.tolist(),
        "explained": variances.tolist(), "names": class_names(model, data),
        "frame": frame_of(train.mean(-1)), "parameters": list(model.parameters.arrays()),
        "scales": {"seen": 1, "grey": data.scale},
    }  # fmt: skip
    arrays = {**weights(model, batches[0]), "means": means.astype(np.float32), "directions": directions,
              "middle": means.mean(0, dtype=np.float64).astype(np.float32),
              "fill": train.mean(0, dtype=np.float64).reshape(-1).astype(np.float32)}
    facts["weights"] = sorted({arrays[name].dtype.name for name in facts["parameters"] if arrays[name].ndim == 2})
    if data.kind == "binary":
        arrays["seen"] = _joined(batch.x for batch in batches) > 0.5
        if data.pixels == "dynamic" and not data.is_bits:
            arrays["grey"] = data.test
    else:
        arrays["seen"], facts["scales"]["seen"] = data.test, data.scale
    if data.test_labels is not None:
        arrays["labels"] = data.test_labels.astype(np.int16)
    return facts, arrays


def treatment(data: DataSet) -> str:
    """How grey values become what the model reads: "gray" leaves them, the other treatments make bits."""
    if data.kind != "binary":
        return "gray"
    return data.pixels if data.pixels in ("dynamic", "static") else "threshold"  # also values that are only 0 and 1


def some_test_data(data: DataSet) -> DataSet:
    """The data set with as many of its test data as the page has room for, chosen by the stream "explorer"."""
    each = data.dimensions * (data.test.dtype.itemsize + (data.pixels == "dynamic") / 8)
    count = min(len(data.test), MOST, max(FEW, int(ROOM / each)))
    chosen = np.sort(permutation(0, "explorer", 0, len(data.test))[:count])
    labels = None if data.test_labels is None else data.test_labels[chosen]
    mask = None if data.test_mask is None else data.test_mask[chosen]
    return replace(data, test=np.ascontiguousarray(data.test[chosen]), test_labels=labels, test_mask=mask)


def laws(model: Any, batch: Batch) -> tuple[Any, Any, Callable[[Tensor], Any]]:
    """q(z|x), p(z) and the function from z to p(x|z) of a batch; where they depend on the label, of the most probable
    one."""
    if model.has("posterior"):
        generator = model.generator(batch)
        return model.posterior(batch), generator.prior, generator.likelihood
    y = label_of(model, batch)
    q, _ = model.posterior_given(batch.x, y)
    return q, model.p_z, lambda z: model.p_x(z, y)


def label_of(model: Any, batch: Batch) -> Tensor:
    """The most probable label of each row, one-hot."""
    best = to_host(model.classify(batch).data).argmax(1)
    return Tensor(model.xp.asarray(np.eye(model.config["classes"], dtype=model.dtype)[best]))


def ends(model: Any, found: list[Any], means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of each latent's slider: three standard deviations of a prior on all numbers, else the quantiles of the
    same probabilities; and farther where a posterior mean lies."""
    low, high = [means.min(0)], [means.max(0)]
    for _, p, _ in found:
        if p.support == "real":
            spread = 3 * p.variance.sqrt().numpy()
            sides = np.atleast_2d(p.mean.numpy() - spread), np.atleast_2d(p.mean.numpy() + spread)
        else:
            drawn = p.sample(Noise(0, "explorer", model.xp.zeros(1, np.int64)), DRAWS).numpy()
            sides = np.quantile(drawn.reshape(-1, drawn.shape[-1]), ENDS, axis=0)[:, None]
        low.append(np.median(sides[0], axis=0))
        high.append(np.median(sides[1], axis=0))
    return np.min(low, axis=0), np.max(high, axis=0)


def components(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of means (count, latent), as rows of length 1, and their parts of the
    variance; one of a single latent."""
    centred = means.astype(np.float64) - means.mean(0, dtype=np.float64)
    _, lengths, rows = np.linalg.svd(centred, full_matrices=False)
    rows *= np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])[:, None]  # the same picture on every machine
    squares = lengths**2
    return rows[:2].astype(np.float32), (squares / max(squares.sum(), np.finfo(float).tiny))[:2]


def class_names(model: Any, data: DataSet) -> list[str]:
    """The name of each class, in the order of their numbers."""
    count = max(data.classes, model.config.get("classes") or 0)
    names = data.class_names or ()
    return [names[number] if number < len(names) else str(number) for number in range(count)]


def weights(model: Any, batch: Batch) -> dict[str, np.ndarray]:
    """The parameters by name: biases in float32, matrices in float16, of which the smallest are taken back to float32,
    one after the other, until the first test data are exact enough."""
    exact = {name: array.astype(np.float32) for name, array in model.parameters.arrays().items()}
    matrices = sorted((name for name in exact if exact[name].ndim == 2), key=lambda name: exact[name].size)
    stored = exact | {name: exact[name].astype(np.float16) for name in matrices}
    rounded, wanted = copy.deepcopy(model), shown(model, batch)
    for name in matrices:  # (a NaN is not exact enough)
        rounded.parameters.load(stored)
        latent, pixel = (np.abs(a - b)[:FEW].max() for a, b in zip(wanted, shown(rounded, batch), strict=True))
        if latent <= LATENT / 2 and pixel <= PIXEL / 2:
            break
        stored[name] = exact[name]
    return stored


def shown(model: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The mean of q(z|x) of each datum, and the mean of p(x|z) there."""
    with np.errstate(all="ignore"):  # a large weight is infinite as a half
        q, _, likelihood = laws(model, batch)
        return q.mean.numpy(), likelihood(q.mean).mean.numpy()


def _joined(tensors: Any) -> np.ndarray:
    return np.concatenate([tensor.numpy() for tensor in tensors])
