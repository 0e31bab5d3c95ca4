"""The commands that look at runs or at this machine: `evaluate`, `compare`, the pictures, `explore`, `doctor`,
`bench`."""

from __future__ import annotations

import json
import os
import sys
import warnings
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyvae.choices import an
from tinyvae.cli.options import (
    Data,
    DataDir,
    Device,
    Json,
    Out,
    Part,
    Run,
    Seed,
    Use,
    check_part,
    existing_folder,
    file_for,
    folder_of,
    given,
    make,
    opened,
    opt,
    pictures_of,
    widths,
)
from tinyvae.progress import watched


def evaluate(
    context: typer.Context,
    run: Run,
    importance_samples: Annotated[int, opt("The number of draws for log p(x); 0 does not estimate it.",
                                           "--importance-samples", "-k")] = 0,
    method: Annotated[str | None, opt("How to estimate log p(x): importance (sampling), ais (annealed "
                                      "importance sampling) or hmc (posterior draws; below 5 latents).")] = None,
    count: Annotated[int | None, opt("Judge the model on the first data only, this many. By default: all; "
                                     "with ais and hmc 100.")] = None,
    chains: Annotated[int | None, opt("With ais and hmc: the number of chains for each datum. "
                                      "By default: 8 and 16.")] = None,
    temperatures: Annotated[int | None, opt("With ais: the number of steps from its start to p(x, z). "
                                            "By default: 200.")] = None,
    leapfrog: Annotated[int | None, opt("With ais and hmc: the number of leapfrog steps in a move. "
                                        "By default: 5 and 4.")] = None,
    draws: Annotated[int | None, opt("With hmc: the number of draws from each chain. By default: 100.")] = None,
    start: Annotated[str | None, opt("With ais: start from encoder, which is q(z|x), or from prior. "
                                     "By default: encoder.")] = None,
    simulated: Annotated[bool, opt("With ais: give bounds from both sides, on data that the model itself generates.",
                                   "--simulated")] = False,
    part: Part = "test",
    data: Data = None,
    use: Use = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Judge a run on test data: ELBO, reconstruction, KL, log p(x), active units, each with its standard error."""
    from tinyvae import runs
    from tinyvae.cli import display
    from tinyvae.evidence import ais
    from tinyvae.evidence import evaluation as evidence
    from tinyvae.runs import files

    settings: dict[str, Any] = {"chains": chains, "temperatures": temperatures, "leapfrog": leapfrog, "start": start}
    result: evidence.Evaluation | ais.TwoSided
    if simulated:
        refused = [name for name in ("importance_samples", "draws", "part", "data") if name in given(context)]
        if method != "ais" or refused:
            what = (f"with --{refused[0].replace('_', '-')}" if refused else
                    f"with --method {method}" if method else "without --method ais")
            raise ValueError(f"found --simulated {what}; it takes --method ais, whose chains can run backwards too, "
                             "and the model makes its data")
        model, more = runs.load(run, device), {}
        with watched("both bounds") as progress:
            result = ais.bidirectional(model, 100 if count is None else count, seed, progress=progress, **{
                name: value for name, value in settings.items() if value is not None})  # fmt: skip
    else:
        check_part(part)
        model, data_set = opened(run, data, data_dir, device)
        more = {"part": part}
        with watched("log p(x)") as progress:
            result = evidence.evaluate(model, data_set, importance_samples, seed, part, method, count, draws=draws,
                                       progress=progress, **settings)
    kept = runs.parameters_of(run)
    if as_json:
        print(json.dumps(files.plain(result.to_dict() | more | kept), indent=2))
    elif isinstance(result, ais.TwoSided):
        display.console().print(display.two_sided_table(result, kept))
    else:
        display.console().print(display.evaluation_table(result, part, kept))


def picture(name: str) -> Any:
    """The command that draws one kind of picture."""

    def command(run: Run, out: Out = None, data: Data = None, use: Use = None, seed: Seed = 0,
                data_dir: DataDir = None) -> None:
        drawn(name, run, out, data, seed, data_dir)

    return command


def drawn(name: str, run: Path, out: Path | None, data: str | None, seed: int, data_dir: str | None,
          count: int = 1000, model: Any = None) -> None:
    """Draw one kind of picture, or write its numbers, if `out` is a file of rows; of `model`, if it is loaded already.
    """
    from tinyvae.choices import whole
    from tinyvae.pictures import gallery
    from tinyvae.tasks import rows
    from tinyvae.tasks.generation import aggregate

    table = file_for(out)
    model, data_set = opened(run, data, data_dir, model=model)
    if not model.has_pictures:
        raise ValueError(f"found {an(model.kind)}, which does not generate from a latent vector alone; these "
                         "pictures are for models that do, as a vae")
    model.check(data_set)
    if table is not None:
        if name not in rows.FILES:
            raise ValueError(f"found --out {out} with {name}, which draws pictures alone; expected a folder, or one of "
                             f"{', '.join(rows.FILES)}")
        make(table.parent)
        print(rows.write(table, *rows.FILES[name](model, data_set, whole("count", count, 1), seed)))
        return
    if data_set.is_table and name not in rows.FILES:
        raise ValueError(f"found {name} with {data_set.name}, a table, which has no images; expected one of "
                         f"{', '.join(rows.FILES)}")
    folder = pictures_of(run, out)
    draw = getattr(gallery, name)
    for file in draw(model, data_set, folder) if name == "manifold" else draw(model, data_set, folder, seed):
        print(file)
    if name == "sample" and (words := aggregate.remark(model, data_set)):
        warnings.warn(words, RuntimeWarning, stacklevel=2)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Two run folders or more.")],
    importance_samples: Annotated[int, opt("Compare log p(x) by this number of draws; 0 compares the bound.",
                                           "--importance-samples", "-k")] = 0,
    part: Part = "test",
    data: Annotated[str | None, opt("Judge all runs on these data instead of their own.")] = None,
    use: Use = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Show what differs between runs, and by how much their bounds on the same data do, with standard errors."""
    from tinyvae.runs import files, folder, schema
    from tinyvae.tasks import comparing

    models = {str(run): opened(run, data, data_dir, device) for run in runs}
    configs = [folder.RunFolder(folder_of(run)).config() for run in map(Path, models)]
    settings = [{"data": config["data"], **schema.completed(config["model"]), **config["settings"]}
                for config in configs]
    result = comparing.compare(models, importance_samples, seed, settings, part)
    print(json.dumps(files.plain(result.to_dict()), indent=2) if as_json else result)


def explore(
    run: Run,
    out: Annotated[Path | None, opt("The page. By default: RUN/explorer.html.", metavar="FILE")] = None,
    data: Data = None,
    use: Use = None,
    data_dir: DataDir = None,
) -> None:
    """Write a run as one HTML page, and open it: latent space to walk in, reconstructions, samples, completions.

    The page computes with the run's own encoder and decoder. It needs no server and no network.
    """
    from tinyvae.explorer import explore as write

    page = write(run, out, data, existing_folder(data_dir))
    print(page)
    if has_window():
        webbrowser.open(page.resolve().as_uri())


def has_window() -> bool:
    """Whether a person sits before a screen; without one, Python would open a browser of text in the terminal."""
    shown = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return shown and sys.stdout.isatty()


# Each picture with its help; `sample` stands in conditional.py.
PICTURES = {
    "reconstruct": "Draw test images, and below each the image that the model decodes from its code.",
    "traverse": "Draw an image as one latent feature varies, for each of the most used ones, as PNG and GIF.",
    "interpolate": "Draw the way from one test image to another through latent space, as PNG and GIF.",
    "manifold": "Draw what each place of a latent plane decodes to (AEVB Figure 4).",
    "latents": "Draw where the test data lie in latent space, and how many nats each dimension carries.",
}


def doctor(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show what this machine offers, what is wrong with it, and what to do about it."""
    from tinyvae.measure import doctor as examination

    report = examination.report(data_dir)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        examination.show(report)
    raise typer.Exit(1 if examination.faults(report) else 0)


def bench(
    pixels: Annotated[int, opt("The number of pixels of a datum.")] = 784,
    hidden: Annotated[str, opt("The width of the hidden layer, or the widths of several: 200,200.")] = "400",
    latent: Annotated[int, opt("The number of dimensions of z.")] = 20,
    batch: Annotated[int, opt("The number of data in a step.")] = 128,
) -> None:
    """Measure, in half a minute, how fast a network trains here: this machine's peaks, a step, each launch in it.

    First a replayed step is compared with an eager one, bit for bit; a step that differs is not timed.
    """
    from tinyvae.measure import bench as benchmark

    print(benchmark.look(benchmark.Net(pixels, tuple(widths(hidden)), latent, batch)))
