"""The pictures of a trained model: which images each one needs; figures.py and charts.py draw them.

Every function takes a model, a data set and a folder, and returns the files it wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.distributions import Normal
from tinyvae.engine.noise import Noise, permutation
from tinyvae.evidence.evaluation import batches_of, evaluate
from tinyvae.pictures import charts, figures
from tinyvae.progress import watched

SPAN = np.linspace(-3, 3, 13)  # what a traversal covers, in standard deviations of a normal prior
DRAWS = 20_000  # of another prior, by whose order its quantiles are known


def chosen_images(model: Any, data: DataSet, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """`count` test images as the model sees them, (count, pixels), chosen at random, and their labels."""
    images = np.concatenate([batch.x.numpy() for batch in batches_of(model, data, seed)])
    chosen = permutation(seed, "gallery", 0, len(images))[:count]
    return images[chosen], None if data.test_labels is None else data.test_labels[chosen]


def nats(model: Any, data: DataSet) -> np.ndarray | None:
    """The mean KL of each latent dimension over the test data; None if all dimensions are one latent (Dirichlet)."""
    found = np.array(evaluate(model, data).kl_per_dimension)
    return found if len(found) == model.latent else None


def by_activity(model: Any, data: DataSet) -> np.ndarray:
    """The latent dimensions, the most used first: by their mean KL, or else by how much their mean varies."""
    used = nats(model, data)
    if used is None:
        used = np.concatenate([model.encode(batch.x.numpy())[0] for batch in batches_of(model, data, 0)]).var(0)
    return np.argsort(used)[::-1]


def is_normal(model: Any) -> bool:
    """Is the prior N(0, 1)?"""
    return isinstance(model.generator(None).prior, Normal)


def below(x: np.ndarray) -> np.ndarray:
    """How much of a standard normal number lies below x."""
    from scipy.special import ndtr

    return ndtr(x)


def prior_at(model: Any, x: np.ndarray, j: int) -> np.ndarray:
    """The values of latent j, as many as x, with as much of the prior below as a standard normal number has below x."""
    if is_normal(model):
        return x
    draws = model.generator(None).prior.sample(Noise(0, "gallery", model.xp.zeros(1, np.int64)), DRAWS).numpy()[:, j]
    return np.quantile(draws, below(x))


def moved(model: Any, z: np.ndarray, j: int, values: np.ndarray) -> np.ndarray:
    """The latent vector z (latent,) with each of the values at j: (values, latent). On the simplex the others make
    room, in proportion."""
    rows = np.tile(z, (len(values), 1))
    if model.generator(None).prior.support == "simplex":
        rows *= ((1 - values) / (1 - z[j]))[:, None]
    rows[:, j] = values
    return rows


def sample(model: Any, data: DataSet, folder: Path, seed: int = 0, count: int = 100) -> list[Path]:
    """The generator's own: images decoded from draws of the prior."""
    return [figures.samples(model.generate(count, seed), data.shape, folder / "samples.png",
                            title=f"Samples from p(z), {data.name}")]


def reconstruct(model: Any, data: DataSet, folder: Path, seed: int = 0, count: int = 40) -> list[Path]:
    """Test images above what the model makes of them."""
    images, _ = chosen_images(model, data, count, seed)
    return [figures.reconstructions(images, model.reconstruct(images), data.shape, folder / "reconstructions.png")]


def traverse(model: Any, data: DataSet, folder: Path, seed: int = 0, dimensions: int = 10) -> list[Path]:
    """One image as one feature varies: a row for each of the most used latents, as a table and as an animation."""
    images, _ = chosen_images(model, data, 1, seed)
    used = by_activity(model, data)[:dimensions]
    begin = model.encode(images)[0][0]
    z = np.stack([moved(model, begin, j, prior_at(model, SPAN, j)) for j in used])
    frames = model.decode(z.reshape(-1, model.latent)).reshape(len(used), len(SPAN), -1)
    if is_normal(model):
        table = figures.traversal(frames, data.shape, folder / "traversal.png", SPAN.tolist(), used.tolist())
    else:
        table = figures.traversal(frames, data.shape, folder / "traversal.png", [f"{p:.1%}" for p in below(SPAN)],
                                  used.tolist(), "quantile of the prior")
    return [table, figures.animation(_smooth(model, z), data.shape, folder / "traversal.gif")]


def interpolate(model: Any, data: DataSet, folder: Path, seed: int = 0, pairs: int = 10) -> list[Path]:
    """From one test image to another, along the straight line between their posterior means."""
    count = min(2 * pairs, 2 * (len(data.test) // 2))
    if count < 2:
        raise ValueError(f"{data.name} has {len(data.test)} test image; an interpolation needs two")
    images, _ = chosen_images(model, data, count, seed)
    ends = model.encode(images)[0].reshape(-1, 2, 1, model.latent)
    t = np.linspace(0, 1, 13, dtype=model.dtype).reshape(1, -1, 1)
    z = (1 - t) * ends[:, 0] + t * ends[:, 1]
    frames = model.decode(z.reshape(-1, model.latent)).reshape(len(z), t.size, -1)
    table = figures.interpolation(frames, data.shape, folder / "interpolation.png")
    return [table, figures.animation(_smooth(model, z), data.shape, folder / "interpolation.gif")]


def manifold(model: Any, data: DataSet, folder: Path, side: int = 20) -> list[Path]:
    """AEVB Figure 4: the unit square pushed through the prior's inverse distribution function, and decoded.

    With more than two latents the two most used ones vary, and the others are at their prior's mean.
    """
    if model.generator(None).prior.support == "simplex":
        raise ValueError("two numbers of a latent on the simplex cannot fill a square, for all sum to 1: use traverse")
    used = [0, 1] if model.latent == 2 else sorted(by_activity(model, data)[:2].tolist())
    if model.latent < 2:
        raise ValueError("the model has 1 latent dimension; a manifold needs two: use traverse")
    z = np.tile(model.generator(None).prior.mean.numpy(), (side * side, 1))
    for place, j in enumerate(used):
        z[:, j] = prior_at(model, figures.normal_grid(side)[:, place], j)
    return [figures.manifold(model.decode(z), data.shape, folder / "manifold.png", side, (used[0], used[1]),
                             is_normal(model))]


def latents(model: Any, data: DataSet, folder: Path, seed: int = 0, count: int = 5000) -> list[Path]:
    """Where test images lie in latent space, and how many nats each dimension carries."""
    images, labels = chosen_images(model, data, count, seed)
    return [charts.latents(model.encode(images)[0], labels, folder / "latents.png", nats(model, data),
                            is_normal(model))]


def curves(records: list[dict[str, Any]], folder: Path) -> list[Path]:
    """The bound over the epochs."""
    return [charts.curves(records, folder / "curves.png")] if records else []


def all_pictures(model: Any, data: DataSet, records: list[dict[str, Any]], folder: Path) -> list[Path]:
    """What a finished run shows of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    if not model.has_pictures:
        return curves(records, folder)
    kinds: list[Any] = [sample, reconstruct, traverse, latents]
    if len(data.test) > 1:
        kinds.append(interpolate)
    if model.latent > 1 and model.generator(None).prior.support != "simplex":
        kinds.append(manifold)
    files = curves(records, folder)
    with watched("drawing", len(kinds)) as update:
        for done, draw in enumerate(kinds):
            update(done, f"drawing {draw.__name__}")
            files += draw(model, data, folder)
    return files


def _smooth(model: Any, z: np.ndarray) -> np.ndarray:
    """An animation along the same path in finer steps: (steps, tiles, pixels) from z (tiles, steps, latent)."""
    tiles, steps, latent = z.shape
    at = np.linspace(0, steps - 1, 3 * steps - 2)
    left = np.minimum(at.astype(int), steps - 2)
    part = (at - left).reshape(1, -1, 1)
    fine = (1 - part) * z[:, left] + part * z[:, left + 1]
    return model.decode(fine.transpose(1, 0, 2).reshape(-1, latent)).reshape(len(at), tiles, -1)
