"""The command `tinyvae variance`: which gradient estimator scatters least, and what that costs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinyvae.cli.lessons import Json, Out, make, opt

if TYPE_CHECKING:
    from tinyvae.lessons.variance import Comparison, Line, Report, Table

EXAMPLES = {'tinyvae variance --q gamma --f "z**2"': "score, G-REP, reparameterization: who scatters"}
PROBLEMS = ("gamma-poisson", "vae")
PATIENCE = 1.0  # seconds before a bar is shown
HEAVY = 0.02  # of a sum of squares by a single estimate: its interval is then worth a warning
BIASED = 5.0  # z


def variance(
    q: Annotated[str | None, opt(
        "normal, log-normal, gamma (default), laplace or beta; its parameters in a bracket, gamma(2, 1), or by:"
    )] = None,
    shape: Annotated[float | None, opt("Of gamma; default 2.")] = None,
    rate: Annotated[float | None, opt("Of gamma; default 1.")] = None,
    mu: Annotated[float | None, opt("Of normal, log-normal, laplace; default 0.")] = None,
    sigma: Annotated[float | None, opt("Of normal, log-normal; default 1.")] = None,
    scale: Annotated[float | None, opt("Of laplace; default 1.")] = None,
    a: Annotated[float | None, opt("Of beta; default 2.")] = None,
    b: Annotated[float | None, opt("Of beta; default 2.")] = None,
    f: Annotated[str | None, opt(
        "The function of z: + - * / ** < > and exp, log, sqrt, abs, tanh, sigmoid, ... Default: z**2."
    )] = None,
    problem: Annotated[str | None, opt(
        "Instead of q and f: gamma-poisson, a factorisation of counts; or vae, the encoder of a small VAE on digits."
    )] = None,
    run: Annotated[Path | None, opt("With vae: the model of this run, on its own data.")] = None,
    estimator: Annotated[list[str] | None, opt("Only this one; may be repeated.")] = None,
    samples: Annotated[int, opt("Draws an estimate (L), which baselines join.")] = 8,
    draws: Annotated[int | None, opt(
        "Draws of each estimator, 320 L or more. Default: 1,000,000; of a problem fewer."
    )] = None,
    seed: Annotated[int, opt("Which draws.")] = 0,
    data_dir: Annotated[str | None, opt("With --run: folder with the data sets.")] = None,
    out: Out = Path("lessons"),
    as_json: Json = False,
) -> None:
    """Compare gradient estimators of E[f(z)] on the same draws: mean, variance, cost; a table for each parameter.

    score (BBVI) with baselines; G-REP, also its two terms; reparam or implicit, where q has it.
    """
    from tinyvae.lessons import variance_figure, variance_study
    from tinyvae.lessons.expressions import parse
    from tinyvae.lessons.quadrature import member
    from tinyvae.training import checkpoint

    chosen = {"shape": shape, "rate": rate, "mu": mu, "sigma": sigma, "scale": scale, "a": a, "b": b}
    given = {name: value for name, value in chosen.items() if value is not None}
    if run is not None and problem != "vae":
        raise ValueError(f"found --run {run} without --problem vae, which alone takes it")
    if data_dir is not None and run is None:
        raise ValueError(f"found --data-dir {data_dir} without --run, which alone reads data sets")
    found: Comparison
    more: dict[str, Any] = {}
    if problem is None:
        law, function = member("gamma" if q is None else q, given), parse("z**2" if f is None else f)
        with progress() as report:
            found = variance_study.of_expectation(law, function, estimator or (), samples, draws, seed, report)
            course = variance_study.sweep(law, function, estimator or (), samples, seed, report)
        make(out)
        file, words = variance_figure.over_parameter(course, out / "variance.png"), course.words()
        more = {"sweep": course.to_dict()}
    else:
        for name in [name for name, value in (("q", q), ("f", f)) if value is not None] + list(given):
            raise ValueError(f"found --{name} with --problem {problem}, which has its own q and f")
        with progress() as report:
            found = of_problem(problem, run, data_dir, estimator or [], samples, draws, seed, report)
        make(out)
        file = variance_figure.side_by_side(found, out / f"variance-{problem}.png")
        words = [line for table in found.tables for line in table.gains()]
    if as_json:
        print(json.dumps(checkpoint.plain(found.to_dict() | more | {"words": words, "files": [str(file)]}), indent=2))
    else:
        show(found, words)
        print(file)


def of_problem(name: str, run: Path | None, data_dir: str | None, asked: list[str], samples: int, draws: int | None,
               seed: int, report: Report) -> Comparison:
    """The comparison on a named problem."""
    from tinyvae.inference.estimators import choices
    from tinyvae.lessons import variance_problems as problems
    from tinyvae.lessons.gradient_estimates import rows_for
    from tinyvae.lessons.variance import compare
    from tinyvae.lessons.variance_study import check_sizes

    if name not in PROBLEMS:
        raise ValueError(f"found problem {name!r}; expected one of {', '.join(PROBLEMS)}")
    problem: Any = problems.GammaPoisson() if name == "gamma-poisson" else problems.Encoder(*minibatch(run, data_dir))
    known = choices(type(next(iter(problem.factors().values()))[0]))
    for one in asked:
        if one not in known:
            raise ValueError(f"found estimator {one!r}; {name} has {', '.join(known)}")
    draws = check_sizes(samples, draws, {"gamma-poisson": 25_600, "vae": 2400}[name], 40 * problem.replicas)
    # G-REP of a normal q is the reparameterization once more
    wanted = [one for one in known if (one in asked if asked else not (one == "grep" and "reparam" in known))]
    return compare(problem, rows_for(wanted, samples, latents=2), samples, draws // (samples * problem.replicas), seed,
                   report=report)


def minibatch(run: Path | None, data_dir: str | None) -> tuple[Any, Any]:
    """A model and the first 100 training images: of a run, or a small new VAE and digits."""
    from tinyvae import data as data_sets
    from tinyvae.evidence.evaluation import batches_of
    from tinyvae.models import VAE
    from tinyvae.training import runs

    if run is None:
        model: Any = VAE(64, 100, 5)
        name = "digits"
    else:
        model = runs.load(run)
        config = runs.RunFolder(run if run.is_dir() else run.parent).config()
        name, data_dir = config["data"], data_dir or config.get("data_dir")
    images = data_sets.load(name, data_dir)
    return model, next(batches_of(model, images, 0, "train", min(100, len(images.train)))).x.numpy()


# ---- what is said ----------------------------------------------------------------------------------------------------


def show(found: Comparison, words: list[str]) -> None:
    """The tables, what is to be known of them, and where each estimator wins."""
    from rich.console import Console

    console = Console(width=200, highlight=False, soft_wrap=True)  # a row is a line, however narrow the terminal
    console.print(f"Gradient of {found.title}\n{found.draws:,} draws of each estimator, the same for all; L = "
                  f"{found.samples} an estimate\n", markup=False)
    for table in found.tables:
        along = f" ({table.size:,} numbers; means are along the gradient)" if table.size > 1 else ""
        console.print(f"d/d {table.parameter}{along}: {_with_error(*table.exact)}, {found.how_exact}", markup=False)
        console.print(printed(table))
        console.print()
    for line in notes(found) + words:
        console.print(line, markup=False)


def _with_error(value: float, error: float) -> str:
    """As many digits as the error leaves, eleven at most."""
    if abs(value) <= error:
        return f"0 ± {error:.1g}"
    whole = math.floor(math.log10(abs(value)))
    places = max(0, min(10 - whole, 1 - math.floor(math.log10(error)) if error > 0 else 10))
    return f"{value:.{places}f} ± {error:.1g}"


def printed(table: Table) -> Any:
    """A table as rich shows it."""
    from rich.table import Table as RichTable

    shown = RichTable(box=None, padding=(0, 2, 0, 0), header_style="dim")
    exact = any(line.exact_variance is not None for line in table.lines)
    for name in ("estimator", "mean ± 95 %", "z", "variance a draw", "95 %", *["exact"] * exact, "µs a draw",
                 "variance x µs", "least"):
        shown.add_column(name, justify="left" if name in ("estimator", "least") else "right", no_wrap=True)
    for line in table.lines:
        shown.add_row(*cells(line, table, exact))
    return shown


def cells(line: Line, table: Table, exact: bool) -> list[str]:
    """A row of a table as text."""
    from tinyvae.lessons.variance import NORMAL_95

    row, names = line.row, (("variance", "variance"), ("variance x µs", "product"))
    best = [what for what, by in names if len(table.lines) > 1 and table.best(by) is line]
    none = 1e-24 * max(other.variance for other in table.lines)  # a variance by rounding alone
    return [
        f"  + {row.baseline}" if row.baseline != "none" else row.name + (", their sum" if row.estimator == "grep" and
                                                                         not row.part else ""),
        f"{line.mean:.5g} ± {NORMAL_95 * line.stderr:.2g}", "" if line.z is None else f"{line.z:.1f}",
        _number(line.variance, none), "" if line.variance <= none else "{:.4g} to {:.4g}".format(*line.interval),
        *(["" if line.exact_variance is None else _number(line.exact_variance, none)] if exact else []),
        "" if line.microseconds is None else f"{line.microseconds:.3g}",
        "" if line.product is None else f"{line.product:.3g}" if line.variance > none else "0", " and ".join(best),
    ]  # fmt: skip


def _number(variance: float, none: float) -> str:
    return f"{variance:.4g}" if variance > none else "0"


def notes(found: Comparison) -> list[str]:
    """How to read the tables, and what not to trust."""
    each = [(table, line) for table in found.tables for line in table.lines]
    lines = [f"Variance: of one draw, L times that of an estimate; its 95 % by bootstrap over {found.batches} batches; "
             + ("exact: by quadrature. z: (mean - exact gradient) / standard error."
                if any(line.exact_variance is not None for _, line in each) else
                "z: (mean - the gradient that the heading gives) / standard error."),
             "µs: of a draw with its part of the gradient by all parameters, replayed, the fastest of several rounds."]
    if any(line.row.whole for _, line in each):
        lines.append('Rao-Blackwell: but for "all of f", a score is multiplied only by terms that contain its latent.')
    heavy = [f"{line.row.name} by {table.parameter} ({line.largest:.0%})" for table, line in each
             if line.largest > HEAVY and line.row.baseline == "none"]
    if heavy:
        lines.append(f"Heavy tails: of {', '.join(heavy)} a single estimate has that share of the sum of squares; the "
                     "interval of the variance is too narrow.")
    biased = [f"{line.row.name} by {table.parameter}" for table, line in each if not abs(line.z or 0) <= BIASED]
    if biased:
        lines.append(f"Biased, or of a variance that draws do not show: {', '.join(biased)}.")
    return lines + found.notes


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on a terminal, once it has taken a second."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    from tinyvae.cli import display

    begun, shown = time.perf_counter(), sys.stderr.isatty()
    bar = Progress("drawing", BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), transient=True,
                   console=display.console(stderr=True))
    task = bar.add_task("")

    def report(done: int, of: int) -> None:
        if shown and time.perf_counter() - begun > PATIENCE:
            bar.start()
            bar.update(task, completed=done, total=of)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()
