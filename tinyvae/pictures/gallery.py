"""The pictures of a trained model: this file computes the images, figures.py and charts.py draw them.

Every picture takes a model, a data set and a folder, and returns the files that it wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.distributions import Normal
from tinyvae.engine.noise import Noise, permutation
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.evaluation import batches_of, evaluate
from tinyvae.pictures import answers, charts, classes, figures, tables
from tinyvae.progress import watched
from tinyvae.tasks import classification, rows
from tinyvae.tasks.generation import conditional

SPAN = np.linspace(-3, 3, 13)  # the values of a traversal, in standard deviations of a normal prior
DRAWS = 20_000  # the number of draws that estimate the quantiles of another prior
TABLE_DRAWS = 2_000  # the number of samples beside a table's data
FEW = 200  # rows; fewer test data do not show how they are distributed


def chosen(data: DataSet, count: int, seed: int) -> np.ndarray:
    """The numbers of `count` random test data, or of all, if they are fewer."""
    return permutation(seed, "gallery", 0, len(data.test))[:count]


def chosen_images(model: Any, data: DataSet, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """`count` random test images in the model's treatment, and their labels."""
    images = np.concatenate([batch.x.numpy() for batch in batches_of(model, data, seed)])
    rows = chosen(data, count, seed)
    return images[rows], None if data.test_labels is None else data.test_labels[rows]


def kl_of_dimensions(model: Any, data: DataSet) -> np.ndarray | None:
    """The KL of each latent dimension in nats, the mean over the test data; None if they share one KL (Dirichlet)."""
    found = np.array(evaluate(model, data).kl_per_dimension)
    return found if len(found) == model.latent else None


def by_activity(model: Any, data: DataSet) -> np.ndarray:
    """The latent dimensions that the decoder reads, the most active first: by their KL, or by the variance of their
    posterior mean. Of a hierarchy these are those of the lowest layer."""
    activity = kl_of_dimensions(model, data)
    if activity is None:
        activity = np.concatenate([model.encode(batch.x.numpy())[0] for batch in batches_of(model, data, 0)]).var(0)
    return np.argsort(activity[: decoded(model)])[::-1]


def decoded(model: Any) -> int:
    """How many latents the decoder reads: all, or those of a hierarchy's lowest layer."""
    return model.layers[0] if model.layers else model.latent


def shown(model: Any, images: np.ndarray) -> np.ndarray:
    """Mean images as they can be drawn: those of a likelihood of real numbers or counts may leave [0, 1]."""
    return images if model.takes == "grey" else np.clip(images, 0, 1)


def is_normal(model: Any) -> bool:
    """Whether the prior is N(0, I)."""
    return isinstance(model.generator(None).prior, Normal)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Phi(x), the distribution function of N(0, 1)."""
    from scipy.special import ndtr

    return ndtr(x)


def prior_quantiles(model: Any, x: np.ndarray, j: int) -> np.ndarray:
    """F_j^-1(Phi(x)), shaped like x, with the prior's distribution function F_j of latent j; x itself for N(0, 1)."""
    if is_normal(model):
        return x
    draws = model.generator(None).prior.sample(Noise(0, "gallery", model.xp.zeros(1, np.int64)), DRAWS).numpy()[:, j]
    return np.quantile(draws, normal_cdf(x))


def moved(model: Any, z: np.ndarray, j: int, values: np.ndarray) -> np.ndarray:
    """The latent vector z (latent,) with each of the values in place of z_j: (values, latent).

    On the simplex the other elements are scaled by a common factor, so that the sum stays 1.
    """
    found = np.tile(z, (len(values), 1))
    if model.generator(None).prior.support == "simplex":
        found *= ((1 - values) / (1 - z[j]))[:, None]
    found[:, j] = values
    return found


def known_rows(data: DataSet) -> tuple[np.ndarray, str]:
    """Data in their own units, (count, columns), with NaN where a value is missing, and which they are: the test data,
    or the training data, if those are few."""
    part = "test" if len(data.test) >= FEW else "train"
    own, mask = data.own_units(getattr(data, part)), getattr(data, f"{part}_mask")
    return own if mask is None else np.where(mask, own, np.nan), "test data" if part == "test" else "training data"


def sample(model: Any, data: DataSet, folder: Path, seed: int = 0, count: int = 100) -> list[Path]:
    """Images decoded from draws of the prior; of a table pairs of columns and quantiles, beside the data's; of a
    conditional model, answers to random test data's conditions."""
    model.check(data)
    if model.condition is not None:
        return _answers(model, data, folder, seed)
    if data.is_table:
        (known, which), drawn = known_rows(data), rows.samples(model, data, TABLE_DRAWS, seed)
        return [tables.pairs(known, drawn, data.column_names, folder / "pairs.png", which),
                tables.quantiles(known, drawn, data.column_names, folder / "quantiles.png", which)]
    return [figures.samples(shown(model, model.generate(count, seed)), data.shape, folder / "samples.png",
                            title=f"{data.name}: means of p(x|z), z drawn from p(z)")]


def _answers(model: Any, data: DataSet, folder: Path, seed: int, count: int = 10) -> list[Path]:
    known, images = model.condition.every(), None
    if known is None:
        batches = list(batches_of(model, data, seed))
        known, images = (np.concatenate([part(batch).numpy() for batch in batches])[chosen(data, count, seed)]
                         for part in (model.condition.of, lambda batch: batch.x))
    found = conditional.answers_to(model, known, seed=seed)
    return [answers.answers(found, data.shape, folder / "samples.png", images)]


def reconstruct(model: Any, data: DataSet, folder: Path, seed: int = 0, count: int = 40) -> list[Path]:
    """Test images above their reconstructions, and below their grey pixels, if bits are drawn of these; of a table each
    value against its reconstruction."""
    if data.is_table:
        return [tables.reconstructions(*rows.reconstructions(model, data), data.column_names,
                                       folder / "reconstructions.png")]
    images, _ = chosen_images(model, data, count, seed)
    grey = data.test[chosen(data, count, seed)] / data.scale if data.pixels == "dynamic" else None
    return [figures.reconstructions(images, shown(model, model.reconstruct(images)), data.shape,
                                    folder / "reconstructions.png", grey=grey)]


def traverse(model: Any, data: DataSet, folder: Path, seed: int = 0, dimensions: int = 10) -> list[Path]:
    """An image while one latent varies: a row for each of the most active latents, as a table and an animation."""
    images, _ = chosen_images(model, data, 1, seed)
    active = by_activity(model, data)[:dimensions]
    begin = model.encode(images)[0][0]
    z = np.stack([moved(model, begin, j, prior_quantiles(model, SPAN, j)) for j in active])
    frames = shown(model, model.decode(z.reshape(-1, model.latent))).reshape(len(active), len(SPAN), -1)
    if is_normal(model):
        table = figures.traversal(frames, data.shape, folder / "traversal.png", SPAN.tolist(), active.tolist())
    else:
        heads = [f"{p:.1%}" for p in normal_cdf(SPAN)]
        table = figures.traversal(frames, data.shape, folder / "traversal.png", heads, active.tolist(),
                                  "quantile of the prior")
    return [table, figures.animation(_smooth(model, z), data.shape, folder / "traversal.gif")]


def interpolate(model: Any, data: DataSet, folder: Path, seed: int = 0, pairs: int = 10) -> list[Path]:
    """Images along the straight line between the posterior means of two test images."""
    count = min(2 * pairs, 2 * (len(data.test) // 2))
    if count < 2:
        raise ValueError(f"{data.name} has {len(data.test)} test image; an interpolation needs two")
    images, _ = chosen_images(model, data, count, seed)
    ends = model.encode(images)[0].reshape(-1, 2, 1, model.latent)
    t = np.linspace(0, 1, 13, dtype=model.dtype).reshape(1, -1, 1)
    z = (1 - t) * ends[:, 0] + t * ends[:, 1]
    frames = shown(model, model.decode(z.reshape(-1, model.latent))).reshape(len(z), t.size, -1)
    table = figures.interpolation(frames, data.shape, folder / "interpolation.png")
    return [table, figures.animation(_smooth(model, z), data.shape, folder / "interpolation.gif")]


def manifold(model: Any, data: DataSet, folder: Path, side: int = 0) -> list[Path]:
    """AEVB figure 4: an even grid of the unit square, mapped through the prior's inverse distribution function and
    decoded.

    With more than two latents the two most active ones vary, and the others have the mean of the prior. `side` is the
    number of images in a row, by default 20, or 12 of small images.
    """
    model.check(data)
    side = side or (12 if max(data.shape[:2]) <= figures.SMALL else 20)
    if model.generator(None).prior.support == "simplex":
        raise ValueError("two numbers of a latent on the simplex cannot fill a square, for all sum to 1: use traverse")
    if decoded(model) < 2:
        raise ValueError("the model has 1 latent dimension; a manifold needs two: use traverse")
    active = [0, 1] if model.latent == 2 else sorted(by_activity(model, data)[:2].tolist())
    z = np.tile(model.generator(None).prior.mean.numpy(), (side * side, 1))
    for column, j in enumerate(active):
        z[:, j] = prior_quantiles(model, figures.normal_grid(side)[:, column], j)
    return [figures.manifold(shown(model, model.decode(z)), data.shape, folder / "manifold.png", side,
                             (active[0], active[1]), is_normal(model))]


def latents(model: Any, data: DataSet, folder: Path, seed: int = 0, count: int = 5000) -> list[Path]:
    """The posterior means of test images, and the KL of each dimension."""
    images, labels = chosen_images(model, data, count, seed)
    if labels is not None and data.class_names is not None:
        labels = np.where(labels < 0, "", np.array(data.class_names)[labels])
    return [charts.latents(model.encode(images)[0], labels, folder / "latents.png", kl_of_dimensions(model, data),
                            is_normal(model))]


def curves(records: list[dict[str, Any]], folder: Path, goal: str = "ELBO") -> list[Path]:
    """The bound over the epochs, or the other goal that a model has."""
    return [charts.curves(records, folder / "curves.png", goal)] if records else []


def confusion(model: Any, data: DataSet, folder: Path, seed: int = 0) -> list[Path]:
    """How many test data of each label got each class."""
    found = classification.classify(model, data, seed=seed)
    accuracy, error = found.accuracy()
    return [classes.confusion(found.confusion(), found.names, folder / "confusion.png",
                              f"Test data by label and class: {accuracy:.1%} ± {error:.1%} right")]


def reliability(model: Any, data: DataSet, folder: Path, seed: int = 0) -> list[Path]:
    """How often the class is right, by the probability that the model gives it."""
    found = classification.classify(model, data, seed=seed).calibration()
    return [classes.reliability(found.confidence, found.accuracy, found.counts, found.error,
                                folder / "reliability.png")]


def analogies(model: Any, data: DataSet, folder: Path, seed: int = 0, count: int = 10) -> list[Path]:
    """Every class in the style of some test images."""
    images, labels = chosen_images(model, data, len(data.test), seed)
    if labels is None:
        raise ValueError(f"{data.name} has no test labels; analogies need the class of each image")
    known = np.flatnonzero(labels >= 0)[:count]
    x, y = images[known], np.eye(model.config["classes"])[labels[known]]
    made = model.restyled(Tensor(model.xp.asarray(x)), Tensor(model.xp.asarray(y, model.dtype))).numpy()
    names = data.class_names or tuple(map(str, range(len(made))))
    return [classes.analogies(x, made.swapaxes(0, 1), names, data.shape, folder / "analogies.png")]


def of_classes(model: Any, data: DataSet) -> list[Any]:
    """The pictures of a model with a classifier, where labels of test data are known."""
    if not model.has("classify") or data.test_labels is None or not (data.test_labels >= 0).any():
        return []
    return [confusion, reliability, *([analogies] if hasattr(model, "restyled") and not data.is_table else [])]


def all_pictures(model: Any, data: DataSet, records: list[dict[str, Any]], folder: Path) -> list[Path]:
    """All pictures of a finished run that the model allows."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = of_classes(model, data)
    if model.has("answers") and min(data.shape[:2]) > 1:
        kinds.append(sample)
    if model.has_pictures and data.is_table:
        kinds += [sample, reconstruct, latents]
    elif model.has_pictures:
        kinds += [sample, reconstruct, traverse, latents]
        if len(data.test) > 1:
            kinds.append(interpolate)
        if decoded(model) > 1 and model.generator(None).prior.support != "simplex":
            kinds.append(manifold)
    files = curves(records, folder, model.goal)
    with watched("drawing", len(kinds)) as update:
        for done, draw in enumerate(kinds):
            update(done, f"drawing {draw.__name__}")
            files += draw(model, data, folder)
    return files


def _smooth(model: Any, z: np.ndarray) -> np.ndarray:
    """Frames (steps, tiles, pixels) for an animation: the path z (tiles, steps, latent) in finer steps, decoded."""
    tiles, steps, latent = z.shape
    at = np.linspace(0, steps - 1, 3 * steps - 2)
    left = np.minimum(at.astype(int), steps - 2)
    part = (at - left).reshape(1, -1, 1)
    fine = (1 - part) * z[:, left] + part * z[:, left + 1]
    return shown(model, model.decode(fine.transpose(1, 0, 2).reshape(-1, latent))).reshape(len(at), tiles, -1)
