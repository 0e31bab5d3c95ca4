"""What a model makes, as rows of numbers in the data's own units: draws, reconstructions, codes; as .csv or .npz.

A draw x ~ p(x|z) has the noise of its likelihood, so draws are distributed as the data are. Of images the means of
p(x|z) are given instead, as the pictures show them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.engine.noise import Noise
from tinyvae.evidence.evaluation import batches_of
from tinyvae.runs.files import write_bytes

SUFFIXES = (".csv", ".npz")
BATCH = 500  # rows that are drawn together; their number addresses the noise

Arrays = dict[str, np.ndarray]


def samples(model: Any, data: DataSet, count: int, seed: int = 0) -> np.ndarray:
    """`count` draws of the generator, (count, columns) in the data's own units; of images the means of p(x|z)."""
    model.check(data)
    if not data.is_table:
        return model.generate(count, seed)
    noise = Noise(seed, "generate", model.xp.zeros(1, np.int64))
    p, found = model.generator(None), []
    for number, start in enumerate(range(0, count, BATCH)):
        noise.restart(number)
        likelihood = p.likelihood(p.prior.sample(noise, min(BATCH, count - start)))
        found.append(likelihood.sample(noise, 1).numpy()[0])
    return data.own_units(np.concatenate(found))


def reconstructions(model: Any, data: DataSet, part: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """The data of a part and their reconstructions, each (count, columns) in the data's own units."""
    pairs = [(x, model.reconstruct(x)) for x in _stored(model, data, part)]
    original, found = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    return as_written(data, original), data.own_units(found)


def as_written(data: DataSet, stored: np.ndarray) -> np.ndarray:
    """Observed values, (..., columns), in the data's own units: the shortest decimals that are stored as they are.

    So 2.6342 in a file comes back as 2.6342, where stored * spread + center has further digits, those of rounding to
    float32. What no float32 holds is given as it is.
    """
    def kept(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32) if data.center is None else (
            (values - data.center) / data.spread).astype(np.float32)

    stored = np.asarray(stored)
    found = np.array(data.own_units(stored), np.float64)
    open_ = np.isfinite(found) & (found != 0) & (stored == stored.astype(np.float32))
    size = np.floor(np.log10(np.abs(found), where=open_, out=np.zeros_like(found)))
    for digits in range(1, 16):
        tens = 10.0 ** np.clip(digits - 1 - size, -300, 300)
        short = np.rint(found * tens) / tens
        same = open_ & (kept(short) == stored)
        found[same], open_ = short[same], open_ & ~same
        if not open_.any():  # as of bits after the first digit
            break
    return found


def codes(model: Any, data: DataSet, part: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of z under q(z|x) of the data of a part, each (count, latent)."""
    mean, logvar = (np.concatenate(rows) for rows in zip(*map(model.encode, _stored(model, data, part)), strict=True))
    return mean, np.exp(0.5 * logvar)


def _stored(model: Any, data: DataSet, part: str) -> Iterator[np.ndarray]:
    return (batch.x.numpy() for batch in batches_of(model, data, 0, part))


# ---- files -----------------------------------------------------------------------------------------------------------


def of_samples(model: Any, data: DataSet, count: int, seed: int) -> tuple[Arrays, Arrays]:
    return _named(data, samples(model, data, count, seed)), {}


def of_reconstructions(model: Any, data: DataSet, count: int, seed: int) -> tuple[Arrays, Arrays]:
    original, found = reconstructions(model, data)
    return _named(data, found), {"data": original}


def of_codes(model: Any, data: DataSet, count: int, seed: int) -> tuple[Arrays, Arrays]:
    mean, deviation = codes(model, data)
    columns = {f"{name}{j}": values[:, j] for name, values in (("z", mean), ("sd", deviation))
               for j in range(values.shape[1])}
    if data.test_labels is not None:
        labels = data.test_labels
        columns["label"] = labels if data.class_names is None else np.where(
            labels < 0, "", np.array(data.class_names)[labels])
    return columns, {}


# By the command's name: the columns of a file of rows, and what an .npz holds beside them.
FILES = {"sample": of_samples, "reconstruct": of_reconstructions, "latents": of_codes}


def _named(data: DataSet, rows: np.ndarray) -> Arrays:
    return dict(zip(data.column_names, rows.T, strict=True))


def write(path: Path, columns: Mapping[str, np.ndarray], beside: Mapping[str, Any]) -> Path:
    """Write columns of one length with their names as .csv, or as .npz: "columns", "rows", labels and what is `beside`;
    this alone where there are no columns."""
    numbers = {name: values for name, values in columns.items() if values.dtype.kind in "buif"}
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        others: Any = {name: values for name, values in columns.items() if name not in numbers}
        arrays: Any = {"rows": np.column_stack(list(numbers.values())), "columns": np.array(list(numbers))
                       } if numbers else {}
        np.savez_compressed(buffer, **arrays, **others, **beside)
    else:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(_written(values) for values in columns.values()), strict=True))
        buffer.write(text.getvalue().encode())
    write_bytes(path, buffer.getvalue())
    return path


def _written(values: np.ndarray) -> list[str]:
    """The cells of a column: numbers with all their digits, as many as their type has."""
    digits = 9 if values.dtype == np.float32 else 15
    return [f"{v:.{digits}g}" for v in values.tolist()] if values.dtype.kind == "f" else list(map(str, values.tolist()))
