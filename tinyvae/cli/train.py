"""`tinyvae train`: a new run, or one that goes on."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyvae.cli.options import DataDir, Device, Json, Use, given, opt, widths
from tinyvae.distributions import LIKELIHOODS, posteriors
from tinyvae.models import MODELS
from tinyvae.nn.layers import ACTIVATIONS, INITIALS
from tinyvae.training.settings import Settings, either, words

# Defaults that depend on the data and the model; the settings' own are others.
BY_THE_DATA = {"epochs": "By default: as many as show it 150,000 data, and at least 10.",
               "lr": "By default: 1e-3, and 3e-4 for the gaussian likelihood."}
OF_A_MODEL = ("hidden", "latent", "activation", "likelihood", "posterior")  # options that a model may take
RESUMING = ("resume", "epochs", "data_dir", "device", "tf32", "as_json", "pictures", "use")  # what goes with --resume


def with_settings(command: Any) -> Any:
    """Give a command an option for each of the settings, with its words and its default."""
    signature = inspect.signature(command, eval_str=True)
    added = []
    for f in fields(Settings):
        by_the_data = BY_THE_DATA.get(f.name)
        text = f"{words(f)} {by_the_data}" if by_the_data else words(f)
        names = (f"--{f.name.replace('_', '-')}",) if f.type == "bool" else ()
        kind: Any = {"int": int, "float": float, "str": str, "bool": bool}[str(f.type)]
        annotation: Any = Annotated[kind | None if by_the_data else kind, opt(text, *names)]
        added.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation,
                                       default=None if by_the_data else f.default))
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()
           if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=own + added)
    command.__annotations__ |= {p.name: p.annotation for p in added}
    return command


@with_settings
def train(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help=(
        "digits, mnist, fashion-mnist, omniglot, frey-faces, olivetti, mnist-binarized, or a path (.npy, .npz, IDX, "
        "a folder of images); with -dynamic (pixels drawn at each use), -static (drawn once), -threshold or -gray."
    ))] = "digits",
    out: Annotated[Path | None, opt("The run folder to make. By default: runs/DATA, runs/DATA-2, ...")] = None,
    resume: Annotated[Path | None, opt("Go on with this run; --epochs then gives a new number of epochs.",
                                        metavar="RUN")] = None,
    use: Use = None,
    model: Annotated[str, opt(f"The kind of model: {either(MODELS)}.")] = "vae",
    option: Annotated[list[str] | None, opt("An option of the model's own, with its value as JSON: alpha=0.1.",
                                            metavar="NAME=VALUE")] = None,
    hidden: Annotated[str, opt("The width of the hidden layer, or the widths of several: 200,200.")] = "400",
    latent: Annotated[int, opt("The number of dimensions of z.")] = 20,
    activation: Annotated[str, opt(
        f"The activation of hidden layers: {either([name for name in ACTIVATIONS if name != 'identity'])}.")] = "relu",
    likelihood: Annotated[str | None, opt(
        f"The likelihood p(x|z): {either(LIKELIHOODS)}. By default: what suits the data.")] = None,
    posterior: Annotated[str, opt(f"The family of the posterior q(z|x): {either(posteriors())}.")] = "normal",
    init: Annotated[str, opt(f"How the weights begin: {either(INITIALS)}; aevb is N(0, 0.01^2).")] = "glorot",
    dtype: Annotated[str, opt("The type of all numbers: float32 or float64.")] = "float32",
    data_dir: DataDir = None,
    device: Device = "cpu",
    tf32: Annotated[bool, opt("Let a GPU round the factors of products to 11 bits.", "--tf32")] = False,
    as_json: Json = False,
    pictures: Annotated[bool, opt("Draw the figures at the end.")] = True,
    **settings: Any,
) -> None:
    """Train a model: a live bar, one line of numbers an epoch, and a run folder with checkpoints and figures.

    Stop it at any moment, even by kill -9: `tinyvae train --resume RUN` finishes with the same bits.
    """
    from tinyvae.cli import display
    from tinyvae.engine import fusion
    from tinyvae.pictures import gallery
    from tinyvae.training import checkpoint, runs

    if tf32 and device != "cuda":
        raise ValueError("found --tf32 without --device cuda; only a GPU multiplies in TF32: leave it out")
    if resume is not None:
        others = [name for name in given(context) if name not in RESUMING]
        if others:
            raise ValueError("--resume goes on with the run's own settings, but "
                             f"{others[0].replace('_', '-')} was given too; leave it out, or start a new run")
        path = resume
    else:
        of_model = {"hidden": widths(hidden), "latent": latent, "activation": activation, "likelihood": likelihood,
                    "posterior": posterior}
        path = begin(context, data, data_dir, out, model, of_model, option or [], init, dtype, device, settings)
    try:
        run, training = runs.prepare(path, epochs=settings["epochs"], data_dir=data_dir, device=device)
    except Exception:  # nothing was begun, so nothing is left behind
        if resume is None:
            runs.RunFolder(path).discard()
        raise
    say = (lambda text: None) if as_json else (lambda text: display.console().print(text, markup=False))
    say(f"{'resuming' if resume else 'run folder'} {run.path}, "
        f"{training.epoch} of {training.settings.epochs} epochs done")
    say(display.heading(training))
    if tf32:
        loss, change = training.tf32_error()
        say(f"TF32 products: beside float32's, the first batch's loss is off by {loss:.1e} of itself, its gradient by "
            f"{change:.1e} (norms)")
    view = display.TrainingView(training, as_json)
    try:
        with view.live(), fusion.tf32(tf32):
            run.train(training, view.on_step, view.on_epoch)
    except runs.Interrupted as stop:  # the command framework would end here without a word
        print(f"tinyvae: {stop}", file=sys.stderr)
        raise typer.Exit(130) from None
    if pictures:
        records = checkpoint.read_lines(run.metrics)
        files = gallery.all_pictures(runs.load(run.path), training.data, records, run.figures)
        say(f"{len(files)} pictures in {run.figures}: {', '.join(file.name for file in files)}")


def begin(context: Any, data: str, data_dir: str | None, out: Path | None, kind: str, of_model: dict[str, Any],
          options: list[str], init: str, dtype: str, device: str, settings: dict[str, Any]) -> Path:
    """Make the run folder of a new model; ValueError for options that are none or do not fit the data."""
    from tinyvae import data as data_sets
    from tinyvae.choices import chosen
    from tinyvae.models import build_model
    from tinyvae.training import runs

    if dtype not in ("float32", "float64"):
        raise ValueError(f"found --dtype {dtype!r}; expected float32 or float64")
    data = data_sets.anywhere(data)
    outline = data_sets.outline(data, data_dir)
    takes = inspect.signature(chosen("model", kind, MODELS).build).parameters
    own = dict(map(parsed, options))
    asked = [name for name in given(context) if name in OF_A_MODEL] + list(own)
    if refused := [name for name in asked if name not in takes]:
        known = ", ".join(list(takes)[1:]) or "none"
        name = f"option {refused[0]}" if refused[0] in own else refused[0]
        raise ValueError(f"found --{name} with --model {kind}; expected one of its own: {known}")
    for name, value in own.items():
        default = takes[name].default
        if type(default) in (int, float) and type(value) not in (int, float):
            raise ValueError(f"found --option {name}={value}; expected a number, as {name}={default}")
    of_model["likelihood"] = of_model["likelihood"] or outline.likelihood
    config = {name: value for name, value in of_model.items() if name in takes  # else the model's own default
              and (name in asked or name == "likelihood" or takes[name].default is inspect.Parameter.empty)} | own
    settings = dict(settings)
    if settings["epochs"] is None:
        settings["epochs"] = max(10, round(150_000 / outline.count))
    if settings["lr"] is None:
        # with a free variance, a step of 1e-3 on thousands of pixels can throw the decoder far out
        settings["lr"] = 3e-4 if of_model["likelihood"] == "gaussian" else 1e-3
    checked = Settings(**settings)
    pixels = outline.shape[0] * outline.shape[1]
    model = build_model({"kind": kind, "pixels": pixels, **config, "init": init, "seed": checked.seed, "dtype": dtype},
                        device)
    path = out or unused(Path("runs") / Path(outline.name).name)
    runs.RunFolder.create(path, model, outline.name, checked, data_dir)
    return path


def parsed(option: str) -> tuple[str, Any]:
    """"alpha=0.1" as a name and a value."""
    name, equals, value = option.partition("=")
    if not equals or not name:
        raise ValueError(f"found --option {option!r}; expected NAME=VALUE, as alpha=0.1")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def unused(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate
