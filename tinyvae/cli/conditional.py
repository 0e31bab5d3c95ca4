"""`tinyvae sample` and `tinyvae upscale`: what a model generates, by itself or on a condition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tinyvae.choices import an
from tinyvae.cli.options import (
    Data,
    DataDir,
    Device,
    Json,
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

OutFile = Annotated[Path | None, opt("The folder for the picture, by default RUN/figures; or a file that ends in .npz "
                                     "or .csv, for the numbers.")]


def sample(
    context: typer.Context,
    run: Run,
    label: Annotated[int | None, opt("Generate images of this label (a run with --given label).")] = None,
    condition: Annotated[str | None, opt("Answer to this image: an image file, a folder of images or an .npy file.",
                                         metavar="IMAGE")] = None,
    draws: Annotated[int, opt("The number of answers to each condition.")] = 8,
    temperature: Annotated[float, opt("The factor of the spread of z: 0 gives the same answer always.")] = 1.0,
    count: Annotated[int, opt("Without a condition: the number of draws that a file of rows gets.")] = 1000,
    out: OutFile = None,
    data: Data = None,
    use: Use = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
) -> None:
    """Draw images of the generator, decoded from draws of the prior; of a table, samples beside its data; of a
    conditional run, answers to a condition.

    Without --label and --condition, a conditional run answers to conditions of random test data.
    """
    from tinyvae import runs
    from tinyvae.cli import commands
    from tinyvae.pictures import answers as pictures
    from tinyvae.pictures import gallery
    from tinyvae.tasks.generation import conditional

    model = runs.load(run, device)
    if model.condition is None and label is None and condition is None:
        if asked := [name for name in ("draws", "temperature") if name in given(context)]:
            raise ValueError(f"found --{asked[0]} with {an(model.kind)}, which generates without a condition; expected "
                             "it beside --label or --condition, with a run that was trained with one")
        commands.drawn("sample", run, out, data, seed, data_dir, count, model)
        return
    file = file_for(out)
    if label is not None or condition is not None:
        found = conditional.answer(model, label, condition, draws, temperature, seed)
        if file is not None:
            write(file, found.arrays(), "condition", model.condition.shape)
        else:
            print(pictures.answers(found, model.condition.shape, pictures_of(run, out) / "samples.png"))
        return
    if file is not None or "temperature" in given(context):
        what = "--temperature" if file is None else f"--out {out}"
        raise ValueError(f"found {what} without a condition; expected --label or --condition beside it: this model is "
                         f"given {model.condition.words}")
    model, data_set = opened(run, data, data_dir, device, model)
    for picture in gallery.sample(model, data_set, pictures_of(run, out), seed):
        print(picture)


def upscale(
    run: Run,
    images: Annotated[str | None, typer.Argument(help="An image file, a folder of images or an .npy file: small "
                                                      "images, or images of the run's own size, which are averaged "
                                                      "first. By default: test data.")] = None,
    temperature: Annotated[str, opt("The factors of the spread of z: one, or several, as 0.2,1.")] = "0.2,0.6,1",
    draws: Annotated[int, opt("The number of answers of which the mean is judged.")] = 32,
    count: Annotated[int | None, opt("The number of images, from the first on. By default: all, and of test data at "
                                     "most 500.")] = None,
    out: OutFile = None,
    data: Data = None,
    use: Use = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Raise the resolution of images by a run with --given pooled:N: a table of the ways, and a picture.

    Beside nearest neighbour and bicubic interpolation stand answers at each temperature, with PSNR and SSIM (likeness
    with the original), consistency (with the given image) and diversity (of the answers).
    """
    from tinyvae import runs
    from tinyvae.pictures import answers as pictures
    from tinyvae.runs import files
    from tinyvae.tasks.generation import upscaling
    from tinyvae.tasks.inputs import images_of

    file = file_for(out)
    model: Any
    if images is None:
        model, data_set = opened(run, data, data_dir, device)
        model.check(data_set)
        grey = data_set.test[: 500 if count is None else count] / np.float32(data_set.scale)
        given_images = grey.reshape(-1, *data_set.shape)
    else:
        model = runs.load(run, device)
        shapes = [] if model.condition is None else model.condition.shapes()
        given_images = images_of(images, shapes)[:count]
    if not len(given_images):
        raise ValueError(f"found --count {count}; expected at least 1")
    with watched("upscaling") as progress:
        found = upscaling.upscale(model, given_images, factors(temperature), draws, seed, progress=progress)
    print(json.dumps(files.plain(found.to_dict()), indent=2) if as_json else found)
    if file is not None:
        write(file, {"mean": found.images, "spread": found.spread}, "", model.condition.shape,
              {"temperature": np.array(factors(temperature)[-1])})
    else:
        picture = pictures.upscaled(found, model.condition.shape, pictures_of(run, out) / "upscaled.png")
        print("" if as_json else f"{picture}", end="" if as_json else "\n")


def factors(text: str) -> list[float]:
    """"0.2,1" as numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"found --temperature {text!r}; expected one number or several: 1, or 0.2,1") from None


def write(out: Path, arrays: dict[str, np.ndarray], of: str, shape: tuple[int, ...],
          beside: dict[str, np.ndarray] | None = None) -> None:
    """Write arrays as .npz; or the first of them as .csv, a line an image, with the number of its condition (`of`) and
    of its draw before the pixels, and what is said of all (`beside`)."""
    from tinyvae.tasks import rows

    first = next(iter(arrays.values()))
    draws, count, pixels = first.shape if first.ndim == 3 else (1, *first.shape)
    numbers = {of: np.tile(np.arange(count), draws), "draw": np.repeat(np.arange(draws), count)} if of else {
        "image": np.arange(count)}
    beside = beside or {}
    numbers |= {name: np.repeat(value, draws * count) for name, value in beside.items()}
    columns = numbers | dict(zip(map(str, range(pixels)), first.reshape(-1, pixels).T, strict=True))
    make(out.parent)
    print(rows.write(out, columns if out.suffix == ".csv" else {}, {"shape": np.array(shape), **arrays, **beside}))
