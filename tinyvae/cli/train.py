"""`tinyvae train`: a new run, or one that goes on."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyvae.choices import an, counted
from tinyvae.cli.options import DataDir, Device, Json, Use, existing_folder, given, opt, widths
from tinyvae.distributions import LIKELIHOODS, posteriors
from tinyvae.models import MODELS, config_for, options_of, taken_by
from tinyvae.nn.layers import ACTIVATIONS, INITIALS
from tinyvae.training.settings import Settings, either, may_change, words
from tinyvae.training.shards.nccl import EXCHANGES

# Defaults that depend on the data and the model; the settings' own are others.
BY_THE_DATA = {"epochs": "By default: as many as show it 600,000 data, and at least 10.",
               "lr": "By default: 1e-3, and 3e-4 for the gaussian likelihood."}
# what goes with --resume and --init-from, too
ALWAYS = ("data_dir", "device", "exchange", "tf32", "as_json", "pictures", "use")


def options_of_models() -> dict[str, inspect.Parameter]:
    """What the models call their options (`Model.options`), as options of a command without a default."""
    found: dict[str, inspect.Parameter] = {}
    for name in {name: None for model in MODELS.values() for name in model.options}:
        kinds = {kind: model for kind, model in MODELS.items() if name in model.options}
        defaults = {kind: inspect.signature(model.build).parameters[name].default for kind, model in kinds.items()}
        own = ", ".join(f"{kind}: {default}" for kind, default in defaults.items())
        first = next(iter(kinds))
        annotation: Any = Annotated[type(defaults[first]) | None, opt(f"{kinds[first].options[name]} By default, of "
                                                                      f"the model {own}.")]
        found[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)
    return found


def with_settings(command: Any) -> Any:
    """Give a command an option for each of the settings and of the models' own options, with its words."""
    signature = inspect.signature(command, eval_str=True)
    added = [option for name, option in options_of_models().items()
             if name not in {*signature.parameters, *(f.name for f in fields(Settings))}]
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
        "digits, mnist, fashion-mnist, omniglot, frey-faces, olivetti, mnist-binarized, or a path (.npy, .npz, .h5, "
        ".mat, IDX, a folder of images, grey or in colour); with -dynamic (pixels drawn at each use), -static (drawn "
        "once), -threshold, -gray or -color; or a table (.csv, .tsv, .parquet), with -real (columns standardised) or "
        "-counts."
    ))] = "digits",
    label_column: Annotated[str | None, opt("The column of a table that holds the labels.", metavar="NAME")] = None,
    out: Annotated[Path | None, opt("The run folder to make. By default: runs/DATA, runs/DATA-2, ...")] = None,
    resume: Annotated[Path | None, opt(
        "Go on with this run; DATA, if given, are its data under another name. With another value it then records a "
        "change: "
        f"{either(['--' + name.replace('_', '-') for name in may_change()])}.", metavar="RUN")] = None,
    labels_from: Annotated[Path | None, opt(
        "Take the labels of the training data from this file, in their order: .npy, or text with one in each line; -1 "
        "or nothing for an unknown one.", metavar="FILE")] = None,
    init_from: Annotated[Path | None, opt("Begin with the model and parameters of this run, by default on its data.",
                                          metavar="RUN")] = None,
    use: Use = None,
    model: Annotated[str, opt(f"The kind of model: {either(MODELS)}.")] = "vae",
    option: Annotated[list[str] | None, opt("An option of the model's own, with its value as JSON: alpha=0.1.",
                                            metavar="NAME=VALUE")] = None,
    supervised: Annotated[bool, opt(
        "With a model that learns from few labels: train the network q(y|x) alone on the same labels, too, in "
        "RUN/supervised, and print what the unlabelled data gain.", "--supervised")] = False,
    hidden: Annotated[str, opt("The width of the hidden layer, or the widths of several: 200,200.")] = "400",
    latent: Annotated[str, opt("The number of dimensions of z; of a hierarchy those of its layers, from the data "
                               "upward: 100,50.")] = "20",
    activation: Annotated[str, opt(f"The activation of hidden layers: {either(ACTIVATIONS)}.")] = "relu",
    likelihood: Annotated[str | None, opt(
        f"The likelihood p(x|z): {either(LIKELIHOODS)}. By default: what suits the data.")] = None,
    posterior: Annotated[str, opt(f"The family of the posterior q(z|x): {either(posteriors())}.")] = "normal",
    init: Annotated[str, opt(f"How the weights begin: {either(INITIALS)}; aevb is N(0, 0.01^2).")] = "glorot",
    dtype: Annotated[str, opt("The type of all numbers: float32 or float64.")] = "float32",
    data_dir: DataDir = None,
    device: Device = "cpu",
    exchange: Annotated[str, opt(f"How the processes of `mpiexec` exchange gradients: {either(EXCHANGES)}, "
                                 "which goes from GPU to GPU and has not run on a card yet.")] = "mpi",
    tf32: Annotated[bool, opt("Let a GPU round the factors of products to 11 bits.", "--tf32")] = False,
    as_json: Json = False,
    pictures: Annotated[bool | None, opt("Draw the figures at the end. By default: yes, and with --resume as the run "
                                         "began.", "--pictures/--no-pictures")] = None,
    **more: Any,
) -> None:
    """Train a model: a live bar, one line of numbers an epoch, and a run folder with checkpoints and figures.

    Stop it at any moment, even by kill -9: `tinyvae train --resume RUN` finishes with the same bits.
    """
    from tinyvae import data as data_sets
    from tinyvae import runs

    if tf32 and device != "cuda":
        raise ValueError("found --tf32 without --device cuda; only a GPU multiplies in TF32: leave it out")
    asked, data_dir = given(context), existing_folder(data_dir)
    settings = {f.name: more[f.name] for f in fields(Settings)}
    if resume is not None:
        others = [name for name in asked if name not in ("resume", "data", *ALWAYS, *may_change())]
        if others:
            raise ValueError(f"--resume goes on with the run's own settings, but {others[0].replace('_', '-')} was "
                             f"given too, and only {', '.join(may_change())} can change; leave it out, or start a new "
                             f"run from these parameters: --init-from {resume}")
        run = runs.RunFolder(resume)
        run.check_path()
        changes = {name: value for name, value in settings.items() if name in asked}
        moved = data if "data" in asked else None  # the run's data under another name, which `prepare` compares
        with run.locked():
            carry_on("resuming", run, changes, data_dir, device, exchange, tf32, as_json, pictures, moved)
        return
    sizes = widths(latent, "latent")
    of_model = {"hidden": widths(hidden), "latent": sizes if len(sizes) > 1 else sizes[0], "activation": activation,
                "likelihood": likelihood, "posterior": posterior}
    of_model |= {name: more[name] for name in options_of_models() if name in more}
    if label_column is not None:
        data = data_sets.with_label(data, label_column)
    config = begin(context, data, data_dir, model, of_model, option or [], init, dtype, device, init_from, settings,
                   labels_from)
    config["pictures"] = pictures is not False
    if supervised:
        from tinyvae.tasks.supervised import check_kind

        check_kind(config["model"]["kind"])
        config["supervised"] = True
    name = out or claimed(Path("runs") / Path(data_sets.split_labels(config["data"])[0]).name)
    run = runs.RunFolder(name)
    try:
        with run.begun(config):
            carry_on("run folder", run, {}, data_dir, device, exchange, tf32, as_json, pictures)
    finally:
        if out is None and name.is_dir() and not any(name.iterdir()):
            name.rmdir()


def carry_on(word: str, run: Any, *arguments: Any) -> None:
    """`go_on`; after Ctrl-C at any moment the last line says how the run goes on, now that its folder is there."""
    from tinyvae import runs

    try:
        go_on(word, run, *arguments)
    except KeyboardInterrupt as stop:
        raise runs.Interrupted(str(stop) or f"interrupted; {runs.way_on(run)}") from None


def go_on(word: str, run: Any, changes: dict[str, Any], data_dir: str | None, device: str, exchange: str, tf32: bool,
          as_json: bool, pictures: bool | None, data: str | None = None) -> None:
    """Train the rest of a run, with a view of it, and draw its pictures; the first line printed begins with `word`.

    `pictures`: None draws them if the run began with them.
    """
    from tinyvae import runs
    from tinyvae.cli import display
    from tinyvae.engine import fusion
    from tinyvae.pictures import gallery
    from tinyvae.runs import log, schema
    from tinyvae.tasks import supervised
    from tinyvae.tasks.generation import aggregate

    run, training = runs.prepare(run, data, data_dir=data_dir, device=device, exchange=exchange, **changes)
    runs.lead(run, training, data_dir, device, tf32)
    say = (lambda text: None) if as_json else (lambda text: display.console().print(text, markup=False))
    say(f"{word} {run.path}, {training.epoch} of "
        f"{counted(training.settings.epochs, 'epoch')} done")
    say(display.heading(training))
    if training.finished():
        kept = f"; {' and '.join(changes)} recorded for later epochs" if changes else ""
        say(f"nothing left to do{kept}; more epochs by: tinyvae train --resume {run.path} --epochs COUNT")
    if tf32:
        loss, change = training.tf32_error()
        say(f"TF32 products: beside float32's, the first batch's loss is off by {loss:.1e} of itself, its gradient by "
            f"{change:.1e} (norms)")
    view = display.TrainingView(training, as_json)
    with view.live(), fusion.tf32(tf32):
        runs.train(run, training, view.on_step, view.on_epoch)
    if run.config().get("supervised"):
        gained = supervised.gained(run, training, data_dir or run.config().get("data_dir"), device)
        print(json.dumps(gained.to_dict()) if as_json else gained)
    if run.config().get("pictures", True) if pictures is None else pictures:
        records = log.read_lines(run.metrics, schema.is_record)
        model = runs.load(run.path)
        drawn = gallery.all_pictures(model, training.data, records, run.figures)
        say(f"{counted(len(drawn), 'picture')} in {run.figures}: {', '.join(file.name for file in drawn)}")
        if remark := aggregate.remark(model, training.data):
            say(remark)


def begin(context: Any, data: str, data_dir: str | None, kind: str, of_model: dict[str, Any], options: list[str],
          init: str, dtype: str, device: str, init_from: Path | None, settings: dict[str, Any],
          labels_from: Path | None = None) -> dict[str, Any]:
    """The configuration of a new run; ValueError for options that do not exist or do not fit each other or the data."""
    from tinyvae import data as data_sets
    from tinyvae import runs
    from tinyvae.models import build_model
    from tinyvae.runs.fitting import initial

    old = {} if init_from is None else runs.described(init_from)
    if old and "data" not in given(context):
        data = old["data"] if labels_from is None else data_sets.split_labels(old["data"])[0]
    if dtype not in ("float32", "float64"):
        raise ValueError(f"found --dtype {dtype!r}; expected float32 or float64")
    data = data_sets.anywhere(data)
    if labels_from is not None:
        data = data_sets.with_labels(data, labels_from)
    outline = data_sets.outline(data, data_dir)
    if old:
        model_config = dict(old["model"])
        clashing = [name for name in (*of_model, "model", "option", "init", "dtype") if name in given(context)]
        if clashing:
            raise ValueError(f"--init-from takes the model of its run, but {clashing[0]} was given too; leave it out")
    else:
        model_config = config_for(kind, outline, **configured(context, kind, of_model, options), init=init, dtype=dtype)
    kind = model_config.get("kind", "vae")
    settings = settings | MODELS[kind].defaults_beside([name for name in given(context) if name in settings])
    if settings["epochs"] is None:
        settings["epochs"] = max(10, round(600_000 / outline.count))
    if settings["lr"] is None:
        # with a free variance, a step of 1e-3 on thousands of pixels can throw the decoder far out
        settings["lr"] = 3e-4 if model_config.get("likelihood") == "gaussian" else 1e-3
    checked = Settings(**settings)
    if not old:
        model_config["seed"] = checked.seed
    built = build_model(model_config, device)
    if labels_from is not None and not {"y", "labelled"} & set(built.needs):
        readers = [kind for kind, family in MODELS.items() if "classes" in inspect.signature(family.build).parameters]
        cure = "take --given label" if built.condition is not None else f"take one that does, {', '.join(readers)}"
        raise ValueError(f"found --labels-from {labels_from} with {an(kind)}, which reads no labels as it is: {cure}, "
                         "or leave it out")
    origin = {} if init_from is None else {"init_from": initial(built, checked, init_from)}
    return runs.configuration(built, outline.name, checked, data_dir=data_dir, **origin)


def configured(context: Any, kind: str, of_model: dict[str, Any], options: list[str]) -> dict[str, Any]:
    """The options of a model that the command line gives; ValueError for one that it does not take."""
    takes = options_of(kind)
    own: dict[str, Any] = {}
    for name, value in map(parsed, options):
        if name in own or name in given(context):
            raise ValueError(f"found --option {name} and {f'--{name}' if name not in own else 'the same again'}; leave "
                             "one of them out")
        own[name] = value
    asked = [name for name in given(context) if name in of_model] + list(own)
    if refused := [name for name in asked if name not in takes]:
        known = ", ".join(name.replace("_", "-") for name in takes) or "none"
        name = f"option {refused[0]}" if refused[0] in own else refused[0].replace("_", "-")
        raise ValueError(f"found --{name} with --model {kind}; expected one of its own: {known}{taken_by(refused[0])}")
    for name in asked:
        value, default = (own if name in own else of_model)[name], takes[name].default
        if need := unlike(value, default):
            as_option = f"option {name}" if name in own else name.replace("_", "-")
            example = json.dumps(default, default=list)
            raise ValueError(f"found --{as_option}={json.dumps(value)}; expected {need}, as {name}={example}")
    said = {name: value for name, value in of_model.items() if name in takes  # else the model's own default
            and (name in asked or takes[name].default is inspect.Parameter.empty)}
    return {**{name: value for name, value in said.items() if value is not None}, **own}


def unlike(value: Any, default: Any) -> str:
    """What an option with this default must be, in words, if the value is something else; "" if it may be that."""
    first = default[0] if isinstance(default, (tuple, list)) and default else default
    values = value if isinstance(value, list) and value else [value]  # one width, or several
    if isinstance(first, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(first, str):
        return "" if all(isinstance(one, str) for one in values) else "text"
    if isinstance(first, int):
        return "" if all(type(one) is int for one in values) else "a whole number"
    if isinstance(first, float):
        return "" if all(type(one) in (int, float) and math.isfinite(one) for one in values) else "a finite number"
    return ""


def parsed(option: str) -> tuple[str, Any]:
    """"alpha=0.1" as a name and a value."""
    name, equals, value = option.partition("=")
    if not equals or not name:
        raise ValueError(f"found --option {option!r}; expected NAME=VALUE, as alpha=0.1")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def claimed(path: Path) -> Path:
    """Make the folder, or the first of path-2, path-3, ... that does not exist; no other process gets the same."""
    number, candidate = 1, path
    while True:
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")
        except OSError as fault:
            raise ValueError(f"{candidate} cannot be made here: {fault.strerror}; choose another place with --out"
                             ) from None
