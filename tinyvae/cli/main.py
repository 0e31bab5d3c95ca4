"""The command line: `tinyvae train`, `evaluate`, the pictures, `doctor`, `bench`.

Results go to standard output, messages to standard error. A mistake of the user ends with one sentence and exit
code 2, a training that stopped being finite or a step that replay changes with 1, Ctrl-C with 130.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyvae.cli import lessons as cli_lessons

if TYPE_CHECKING:
    from tinyvae.models import Model

EXAMPLES = {
    "tinyvae train": "real 8x8 digits, in seconds",
    "tinyvae train mnist-dynamic --out runs/m": "MNIST, pixels drawn at each use",
    "tinyvae train faces.npy-gray": "your own images, grey",
    "tinyvae train --resume runs/m": "go on after any interruption",
    "tinyvae evaluate runs/m -k 500": "ELBO and log p(x), with errors",
    "tinyvae manifold runs/m": "AEVB Figure 4",
    **cli_lessons.EXAMPLES,
    "tinyvae doctor": "what is wrong with this machine",
    "tinyvae bench": "how fast it trains, and where the time goes",
}

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The variational auto-encoder, complete and from scratch.\n\n[bold]Examples[/bold]\n\n"
    + "\n\n".join(f"{command:<42}{what}" for command, what in EXAMPLES.items()),
)



def opt(text: str, *names: str, **more: Any) -> Any:
    """An option with its help."""
    return typer.Option(*names, help=text, **more)


Json = Annotated[bool, opt("Print JSON instead of text.", "--json")]
DataDir = Annotated[str | None, opt("Folder with mnist/, ... Else $TINYVAE_DATA, else the user's cache.")]
Run = Annotated[Path, typer.Argument(help="A run folder.")]
Seed = Annotated[int, opt("Which draws, which images.")]
Data = Annotated[str | None, opt("Other data than the run's own.")]
Device = Annotated[str, opt("cpu, or cuda for an NVIDIA GPU.")]
Out = Annotated[Path | None, opt("Folder for the pictures. Default: RUN/figures.")]


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"tinyvae {sys.modules['tinyvae'].__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[bool, opt("Show the version.", "--version", callback=show_version, is_eager=True)] = False,
) -> None:
    pass


@app.command()
def train(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help=(
        "digits, mnist, fashion-mnist, omniglot, frey-faces, olivetti, mnist-binarized, or a path (.npy, .npz, IDX, "
        "a folder of images); with -dynamic (pixels drawn at each use), -static (drawn once), -threshold or -gray."
    ))] = "digits",
    out: Annotated[Path | None, opt("Run folder to make. Default: runs/DATA, runs/DATA-2, ...")] = None,
    resume: Annotated[Path | None, opt("Go on with this run; and --epochs, --device.", metavar="RUN")] = None,
    epochs: Annotated[int | None, opt("Passes over the data. Default: 150,000 data, at least 10 passes.")] = None,
    batch: Annotated[int, opt("Data a step.")] = 100,
    hidden: Annotated[str, opt("Width of the hidden layer, or several: 200,200.")] = "400",
    latent: Annotated[int, opt("Dimensions of z.")] = 20,
    activation: Annotated[str, opt("relu, tanh or softplus.")] = "relu",
    likelihood: Annotated[str | None, opt("bernoulli, gaussian, continuous-bernoulli. Default: by the data.")] = None,
    posterior: Annotated[str, opt("normal, full-normal, log-normal, gamma, beta, dirichlet.")] = "normal",
    init: Annotated[str, opt("glorot, or aevb: N(0, 0.01^2) as in the paper.")] = "glorot",
    optimizer: Annotated[str, opt("adam, adagrad or sgd.")] = "adam",
    lr: Annotated[float | None, opt("Learning rate. Default: 1e-3; 3e-4 with the gaussian.")] = None,
    schedule: Annotated[str, opt("Of the learning rate: constant, linear, cosine.")] = "constant",
    bound: Annotated[str, opt("elbo-b (closed-form KL), elbo-a (all sampled), iwae (K weighted draws).")] = "elbo-b",
    samples: Annotated[int, opt("Draws of z a datum (L); with iwae, repetitions of its K draws.")] = 1,
    importance_samples: Annotated[int, opt("Draws inside the logarithm of iwae (K); with 1 it is the ELBO.")] = 1,
    gradient: Annotated[str, opt("Of the encoder: path; stl with elbo-a and iwae, dreg with iwae.")] = "path",
    estimator: Annotated[str, opt("Of the encoder's gradient: reparam, implicit, grep, score.")] = "",
    baseline: Annotated[str, opt("Of grep and score, with samples: none, leave-one-out, fitted.")] = "none",
    beta: Annotated[float, opt("Weight of the KL in the objective.")] = 1.0,
    warmup: Annotated[float, opt("Epochs over which that weight rises from 0.")] = 0.0,
    free_bits: Annotated[float, opt("Nats a latent dimension that are not charged for.")] = 0.0,
    clip: Annotated[float, opt("Largest gradient norm; 0: unbounded.")] = 0.0,
    weight_prior: Annotated[bool, opt("A N(0, 1) prior over the weights (AEVB).", "--weight-prior")] = False,
    data_mean_bias: Annotated[bool, opt("Decoder's bias starts at the data's mean.", "--data-mean-bias")] = False,
    on_nonfinite: Annotated[str, opt("stop; or skip a batch that is not finite.")] = "stop",
    validation: Annotated[int, opt("Training data held out to choose the best epoch.")] = 0,
    patience: Annotated[int, opt("Epochs without a better validation ELBO before stopping; 0: no.")] = 0,
    seed: Annotated[int, opt("Of everything random.")] = 0,
    dtype: Annotated[str, opt("float32 or float64.")] = "float32",
    data_dir: DataDir = None,
    device: Device = "cpu",
    tf32: Annotated[bool, opt("Let a GPU round the factors of products to 11 bits.", "--tf32")] = False,
    as_json: Json = False,
    pictures: Annotated[bool, opt("Draw the figures at the end.")] = True,
) -> None:
    """Train a VAE: a live bar, one line of numbers an epoch, and a run folder with checkpoints and figures.

    Stop it at any moment, even by kill -9: `tinyvae train --resume RUN` finishes with the same bits.
    """
    from tinyvae.cli import display
    from tinyvae.engine import fusion
    from tinyvae.pictures import gallery
    from tinyvae.training import checkpoint, runs
    from tinyvae.training.settings import Settings

    if tf32 and device != "cuda":
        raise ValueError("found --tf32 without --device cuda; only a GPU multiplies in TF32: leave it out")
    if resume is not None:
        allowed = ("resume", "epochs", "data_dir", "device", "tf32", "as_json", "pictures")
        others = [name for name in given(context) if name not in allowed]
        if others:
            raise ValueError("--resume goes on with the run's own settings, but "
                             f"{others[0].replace('_', '-')} was given too; leave it out, or start a new run")
        path = resume
    else:
        from tinyvae import data as data_sets
        from tinyvae.models import VAE

        data = data_sets.anywhere(data)
        outline = data_sets.outline(data, data_dir)
        chosen = {f.name: value for f in fields(Settings) if (value := context.params.get(f.name)) is not None}
        chosen["epochs"] = max(10, round(150_000 / outline.count)) if epochs is None else epochs
        likelihood = likelihood or outline.likelihood
        # with a free variance, a step of 1e-3 on thousands of pixels can throw the decoder far out
        chosen.setdefault("lr", 3e-4 if likelihood == "gaussian" else 1e-3)
        settings = Settings(**chosen)
        model = VAE(outline.shape[0] * outline.shape[1], widths(hidden), latent, activation, likelihood, init,
                    seed, number_type(dtype), device=device, posterior=posterior)
        path = out or unused(Path("runs") / Path(outline.name).name)
        runs.RunFolder.create(path, model, outline.name, settings, data_dir)
    try:
        run, training = runs.prepare(path, epochs=epochs, data_dir=data_dir, device=device)
    except ValueError:  # data and options do not fit together: nothing was begun, so nothing is left behind
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


@app.command()
def evaluate(
    context: typer.Context,
    run: Run,
    importance_samples: Annotated[int, opt("Draws for log p(x); 0: none.", "--importance-samples", "-k")] = 0,
    method: Annotated[str | None, opt("How to find log p(x): importance, ais (annealed importance sampling), hmc "
                                      "(posterior draws; below 5 latents).")] = None,
    count: Annotated[int | None, opt("Only the first data. Default: all; 100 with ais and hmc.")] = None,
    chains: Annotated[int | None, opt("Of ais and hmc, for each datum. Default: 8; 16.")] = None,
    temperatures: Annotated[int | None, opt("Of ais, between its start and p(x, z). Default: 200.")] = None,
    leapfrog: Annotated[int | None, opt("Of ais and hmc, steps of a move. Default: 5; 4.")] = None,
    draws: Annotated[int | None, opt("Of hmc, from each chain. Default: 100.")] = None,
    start: Annotated[str | None, opt("Of ais: encoder, q(z|x); or prior. Default: encoder.")] = None,
    simulated: Annotated[bool, opt("With ais: bounds from both sides, on data that the model makes.",
                                   "--simulated")] = False,
    part: Annotated[str, opt("Which data: test, train or valid.")] = "test",
    data: Data = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Judge a run on test data: ELBO, reconstruction, KL, log p(x), active units, each with its standard error."""
    from tinyvae.cli import display
    from tinyvae.evidence import ais
    from tinyvae.evidence import evaluation as evidence
    from tinyvae.training import checkpoint, runs

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
        with display.watched("both bounds") as progress:
            result = ais.bidirectional(model, 100 if count is None else count, seed, progress=progress, **{
                name: value for name, value in settings.items() if value is not None})  # fmt: skip
    else:
        if part not in ("test", "train", "valid"):
            raise ValueError(f"found part {part!r}; expected test, train or valid")
        model, data_set = opened(run, data, data_dir, device)
        more = {"part": part}
        with display.watched("log p(x)") as progress:
            result = evidence.evaluate(model, data_set, importance_samples, seed, part, method, count, draws=draws,
                                       progress=progress, **settings)
    kept = runs.parameters_of(run)
    if as_json:
        print(json.dumps(checkpoint.plain(result.to_dict() | more | kept), indent=2))
    elif isinstance(result, ais.TwoSided):
        display.console().print(display.two_sided_table(result, kept))
    else:
        display.console().print(display.evaluation_table(result, part, kept))


def picture(name: str, help_text: str) -> None:
    """Add the command that draws one kind of picture."""

    def command(run: Run, out: Out = None, data: Data = None, seed: Seed = 0, data_dir: DataDir = None) -> None:
        from tinyvae.pictures import gallery

        model, data_set = opened(run, data, data_dir)
        folder = out or (run if run.is_dir() else run.parent) / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        draw = getattr(gallery, name)
        for file in draw(model, data_set, folder) if name == "manifold" else draw(model, data_set, folder, seed):
            print(file)

    app.command(name, help=help_text)(command)


picture("sample", "Images of the generator: decoded from draws of the prior.")
picture("reconstruct", "Test images above what the model makes of them.")
picture("traverse", "A digit as one feature varies: PNG and GIF, a row for each of the most used latents.")
picture("interpolate", "From one test image to another through latent space: PNG and GIF.")
picture("manifold", "The latent plane, by the inverse normal distribution function (AEVB Figure 4).")
picture("latents", "Where the test data lie in latent space, and the nats of each dimension.")


@app.command()
def doctor(data_dir: DataDir = None, as_json: Json = False) -> None:
    """What this machine offers, what is wrong with it, and what to do about it."""
    from tinyvae.measure import doctor as examination

    report = examination.report(data_dir)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        examination.show(report)
    raise typer.Exit(1 if examination.faults(report) else 0)


@app.command()
def bench(
    pixels: Annotated[int, opt("Pixels of a datum.")] = 784,
    hidden: Annotated[str, opt("Width of the hidden layer, or several: 200,200.")] = "400",
    latent: Annotated[int, opt("Dimensions of z.")] = 20,
    batch: Annotated[int, opt("Data a step.")] = 128,
) -> None:
    """How fast a net trains here, in half a minute: this machine's peaks, its training step, each launch of that.

    First a replayed step is checked against an eager one, bit for bit; one that differs is not timed.
    """
    from tinyvae.measure import bench as benchmark

    print(benchmark.look(benchmark.Net(pixels, tuple(widths(hidden)), latent, batch)))


cli_lessons.register(app)


# ---- helpers ---------------------------------------------------------------------------------------------------------


def given(context: Any) -> list[str]:
    """The options that stand on the command line."""
    return [name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"]


def widths(text: str) -> list[int]:
    """"400" or "200,200" as a list of numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"found --hidden {text!r}; expected one width or several: 400, or 200,200") from None


def number_type(name: str) -> str:
    if name not in ("float32", "float64"):
        raise ValueError(f"found --dtype {name!r}; expected float32 or float64")
    return name


def unused(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def opened(run: Path, data: str | None, data_dir: str | None, device: str = "cpu") -> tuple[Model, Any]:
    """The model of a run and the data it was trained on, or others."""
    from tinyvae import data as data_sets
    from tinyvae.training import runs
    from tinyvae.training.epochs import hold_out

    model = runs.load(run, device)
    config = runs.RunFolder(run if run.is_dir() else run.parent).config()
    data_set = data_sets.load(data or config["data"], data_dir or config.get("data_dir"))
    if data is None:  # the parts that the run trained on and was chosen by
        data_set = hold_out(data_set, config["settings"]["validation"], config["settings"]["seed"])
    return model, data_set


def main() -> None:
    """The entry point: errors that are the user's to mend become one sentence."""
    from tinyvae.engine.tape import TapeError
    from tinyvae.training.checkpoint import CheckpointError
    from tinyvae.training.faults import TrainingError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show ± gets ? and not an end
            stream.reconfigure(errors="replace")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        app(standalone_mode=True)
    except (TrainingError, TapeError) as fault:
        sys.exit(f"tinyvae: {fault}")
    except MemoryError as fault:
        print(f"tinyvae: out of memory ({fault}); make --hidden, --latent, --samples or --batch smaller",
              file=sys.stderr)
        sys.exit(2)
    except (CheckpointError, ValueError, OSError) as fault:
        print(f"tinyvae: {fault}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as fault:
        print(f"tinyvae: {fault or 'interrupted'}", file=sys.stderr)
        sys.exit(130)
