"""`tinyvae complete`: what the missing pixels or cells of data may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tinyvae.cli.options import (
    Data,
    DataDir,
    Device,
    Json,
    Part,
    Run,
    Seed,
    Use,
    file_for,
    given,
    make,
    opened,
    opt,
    pictures_of,
)
from tinyvae.progress import watched
from tinyvae.tasks import rows
from tinyvae.tasks.chains import METHODS
from tinyvae.tasks.masks import CHOICES
from tinyvae.training.settings import either


def complete(
    context: typer.Context,
    run: Run,
    missing: Annotated[str | None, opt(f"What to hide: {CHOICES}, where white or true is missing. By default: "
                                       "nothing, and the holes of the data themselves are completed.")] = None,
    method: Annotated[str | None, opt(f"How to draw: {either(METHODS)}. metropolis is exact in the limit. By default: "
                                      "gibbs; importance for a model that learned from data with holes; prior for a "
                                      "conditional model, which completes what its condition leaves open.")] = None,
    draws: Annotated[int, opt("The number of completions of each datum, each by a chain of its own.")] = 20,
    sweeps: Annotated[int, opt("The number of sweeps of each chain.")] = 40,
    gibbs_sweeps: Annotated[int, opt("With metropolis: how many of the sweeps, the first ones, are those of "
                                     "gibbs.")] = 10,
    count: Annotated[int | None, opt("Complete the first data only, this many. By default: 100 with --missing, else "
                                     "all.")] = None,
    part: Part = "test",
    out: Annotated[Path | None, opt("The folder for the picture, by default RUN/figures; or a file for the completed "
                                    "data: .npz has all arrays, .csv the means, or with --draws each draw. Rows have "
                                    "their number in the part, from 0.")] = None,
    data: Data = None,
    use: Use = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Complete data: hide a part of the test images and draw what may be there, or fill the holes of the data."""
    from tinyvae.pictures.completions import ANSWERS, completions
    from tinyvae.tasks import completion

    file = file_for(out)
    model, data_set = opened(run, data, data_dir, device)
    if data_set.is_table and out is not None and file is None:
        raise ValueError(f"found --out {out} with {data_set.name}, a table, of which no picture is drawn; expected a "
                         f"file that ends in {' or '.join(rows.SUFFIXES)}")
    if count is None and missing is not None:
        count = 100
    each_draw = "draws" in given(context)
    written = draws if file is not None and (each_draw or file.suffix == ".npz") else 0
    with watched("completing") as progress:
        found = completion.complete(model, data_set, missing, method, draws, sweeps, gibbs_sweeps, count, part, seed,
                                    progress, keep=max(written, 0 if data_set.is_table else ANSWERS))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print(found)
    if file is not None:
        make(file.parent)
        write(found, file, data_set, each_draw, part)
        print(file) if not as_json else None
    if not data_set.is_table:
        folder = pictures_of(run, out if file is None else None)
        drawn = completions(found, data_set.shape, folder / f"completion-{found.method}.png")
        print(drawn) if not as_json else None


def write(found: Any, file: Path, data: Any, each_draw: bool, part: str) -> None:
    """Write completed data in their own units: the means, or each draw with its number, a row for each datum.

    The first column is the number of the row in the part, from 0, since a data set does not know where in a file its
    rows lay. An .npz holds it beside the data, means, standard deviations, draws and masks. What was observed has the
    digits that it was given with.
    """
    own, known = data.own_units, ~found.missing
    observed = rows.as_written(data, found.x)
    mean, draws = (np.where(known, observed, own(values)) for values in (found.mean, found.draws))
    table = np.concatenate(draws) if each_draw else mean
    columns = dict(zip(data.column_names, table.T, strict=True))
    if each_draw:
        columns = {"draw": np.repeat(np.arange(1, found.chains + 1), len(found.x)), **columns}
    numbers = np.arange(len(found.x))
    arrays = {f"row_in_{part}": numbers, "x": np.where(known | found.hidden, observed, own(found.x)), "mean": mean,
              "draws": draws, "sd": own(found.mean + found.sd) - own(found.mean), "missing": found.missing,
              "hidden": found.hidden}  # fmt: skip
    if file.suffix == ".csv":
        columns = {f"row_in_{part}": np.tile(numbers, found.chains if each_draw else 1), **columns}
    rows.write(file, columns, arrays)
