"""The commands for learners: `tinyvae elbo`, `montecarlo`, `variance`; the article's chapters as tables and pictures.

`register` puts them into the command line.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from tinyvae.choices import counted, known
from tinyvae.cli.options import Json, make, opened, opt
from tinyvae.progress import watched

if TYPE_CHECKING:
    from tinyvae.lessons.elbo import Lesson
    from tinyvae.lessons.montecarlo import Study
    from tinyvae.lessons.variance import Comparison, Entry, Table

EXAMPLES = {
    "tinyvae elbo --mu 1": "watch a Gamma climb the ELBO: a GIF",
    'tinyvae montecarlo --q "gamma(3, 2)"': "the error falls as 1/sqrt(L)",
    'tinyvae variance --q gamma --f "z**2"': "which gradient estimator varies least",
}
FUNCTION = "The function of z, written with + - * / ** < > and exp, log, sqrt, abs, tanh, sigmoid, ..."
HEAVY = 0.02  # of a sum of squares by a single estimate: its interval is then worth a warning
BIASED = 5.0  # z


Out = Annotated[Path, opt("The folder for the pictures.")]
Seed = Annotated[int, opt("Another seed gives other draws.")]


def print_json(found: Any) -> None:
    from tinyvae.runs.files import plain

    def named(value: Any) -> Any:
        """Named tuples as dictionaries, arrays as lists."""
        value = value._asdict() if hasattr(value, "_asdict") else value
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        return [named(item) for item in value] if isinstance(value, list | tuple | np.ndarray) else value

    print(json.dumps(plain(named(found)), indent=2))


# ---- the ELBO --------------------------------------------------------------------------------------------------------


def elbo(
    mu: Annotated[float, opt("The mean of p.")] = 4.0,
    sigma: Annotated[float, opt("The standard deviation of p.")] = 1.0,
    shape: Annotated[float | None, opt("The shape a that q starts with; 2 by default.")] = None,
    rate: Annotated[float | None, opt("The rate b that q starts with; 2 by default.")] = None,
    preset: Annotated[str, opt("gamma, or a special case: exponential (a = 1), chi-square (b = 1/2).")] = "gamma",
    path: Annotated[str, opt("What moves before the ascent: shape-rate, rate-shape, or both together.")] = "shape-rate",
    frames: Annotated[int, opt("How many frames the animation has.")] = 72,
    out: Out = Path("lessons"),
    as_json: Json = False,
) -> None:
    """Show the ELBO as q moves: p(z) is N(mu, sigma^2), q(z) is Gamma(a, b). The best q is found by gradient ascent.

    A GIF and a PNG are drawn. There are no data, and p is normalised, so the ELBO is -KL(q || p).
    """
    from tinyvae.lessons import elbo as elbo_lesson
    from tinyvae.lessons import figures

    lesson = elbo_lesson.lesson(mu, sigma, shape, rate, preset, path, frames)
    make(out)
    with watched("drawing frames", quiet=as_json) as report:
        files = [figures.elbo_animation(lesson, out / "elbo.gif", report),
                 figures.elbo_strip(lesson, out / "elbo.png")]  # fmt: skip
    if as_json:
        print_json({"mu": mu, "sigma": sigma, "preset": preset, **lesson.best._asdict(), "bound": lesson.bound,
                    "steps": lesson.steps, "files": list(map(str, files))})  # fmt: skip
    else:
        print(elbo_report(lesson), *files, sep="\n")


def elbo_report(lesson: Lesson) -> str:
    """What `tinyvae elbo` says: numbers with their unit, and why they cannot be higher."""
    best, mu, sigma = lesson.best, lesson.mu, lesson.sigma
    fixed = {"gamma": "Gamma(a, b)", "exponential": "Gamma(1, b), the exponential",
             "chi-square": f"Gamma(a, 1/2), the chi-square with {2 * best.shape:.5g} degrees of freedom at the optimum"}
    return "\n".join((
        f"p(z) = N({mu:g}, {sigma:g}^2), q(z) = {fixed[lesson.preset]}",
        f"optimum     a = {best.shape:.6g}, b = {best.rate:.6g}, by {lesson.steps} steps of gradient ascent",
        f"ELBO there  {_nats(best.elbo)} nats (higher is better)",
        f"bound       {_nats(lesson.bound)} nats = log P(z > 0) = log Phi(mu / sigma), for a q of any form",
        "p is normalised and there are no data, so ELBO = -KL(q || p) <= 0, whatever the height of the densities.",
        "q has mass on z > 0 only; the best such q of any form is p cut off at 0, which reaches the bound.",
    ))  # fmt: skip


def _nats(value: float) -> str:
    """Six decimals, or a power of ten where they would all be 0."""
    return f"{value + 0.0:.6f}" if abs(value) >= 5e-5 or value == 0 else f"{value:.2e}"  # -0.0 + 0.0 is 0.0


# ---- Monte Carlo -----------------------------------------------------------------------------------------------------


def montecarlo(
    q: Annotated[str, opt(
        "The distribution, with its numbers or without. By inverse distribution function: exponential, logistic, "
        "gumbel, rayleigh, weibull, pareto, cauchy; by location and scale: normal, laplace, uniform; by composition: "
        "log-normal, gamma, chi-square, f, beta, dirichlet."
    )] = "normal",
    f: Annotated[str | None, opt(f"{FUNCTION} It is z**2 by default, 1/(1+z**2) where tails are heavy.")] = None,
    samples: Annotated[int, opt("The largest number of draws in a mean (L); the smallest is 16.")] = 16384,
    repetitions: Annotated[int, opt("How often each mean is taken.")] = 100,
    seed: Seed = 0,
    out: Out = Path("lessons"),
    as_json: Json = False,
) -> None:
    """Estimate the expected f(z) by draws of q(z) and by g(eps): the two agree, and errors fall as 1/sqrt(L)."""
    from tinyvae.lessons import figures
    from tinyvae.lessons import montecarlo as lesson
    from tinyvae.lessons.expressions import parse
    from tinyvae.lessons.families import drawable

    law, recipe = drawable(q)
    function = parse(("1/(1+z**2)" if recipe.heavy else "z**2") if f is None else f)
    with watched("drawing", quiet=as_json) as report:
        study = lesson.study(law, recipe, function, samples, repetitions, seed, report)
    make(out)
    file = figures.montecarlo(study, out / "montecarlo.png", seed)
    if as_json:
        print_json({"q": str(law), "f": study.f.text, "way": recipe.way, "g": recipe.formula, "exact": study.exact,
                    "sd": study.sd, "kurtosis": study.kurtosis, "repetitions": repetitions, "seed": seed,
                    "rows": study.rows, "slopes": study.slopes, "difference": study.difference, "files": [str(file)]})
    else:
        print(study_report(study), file, sep="\n")


def study_report(study: Study) -> str:
    """What `tinyvae montecarlo` says: the exact value, a row for each L, the two slopes, and what may mislead."""
    f = study.f
    lines = [
        f"q = {study.q}; g by {study.recipe.way}: z = {study.recipe.formula}",
        f"E[{f}] = {study.exact:.8g} exactly (quadrature), standard deviation of f {study.sd:.5g}",
        "",
        "An estimate is one mean of L draws, ± its own standard error; z = (estimate - exact) / (sd / sqrt(L)).",
        f"The RMS error is that of {study.repetitions} such means; sd / sqrt(L) stands beside it.",
        "",
        f"{'L':>9}  {'draws of q':>23} {'z':>6}  {'f(g(eps))':>23} {'z':>6}  {'RMS of q':>10} {'of g(eps)':>10} "
        f"{'sd/sqrt(L)':>10}",
    ]
    for row in study.rows:
        parts = [f"{row.draws:>9,}"]
        for estimate, error in zip(row.estimate, row.stderr, strict=True):
            parts.append(f"{f'{estimate:.5g} ± {error:.2g}':>23} {(estimate - study.exact) / row.expected:>6.2f}")
        lines.append("  ".join([*parts, " ".join(f"{value:>10.4g}" for value in (*row.rms, row.expected))]))
    lines.append("")
    for name, slope in zip(("draws of q", "f(g(eps))"), study.slopes, strict=True):
        low, high = slope.interval
        lines.append(f"slope of log RMS error over log L, {name + ':':<12}{slope.value:.3f}, 95 % interval {low:.3f} "
                     f"to {high:.3f} (theory: -0.5)")
    gap, error = study.difference
    lines.append(f"difference of the two over {study.rows[-1].draws * study.repetitions:,} draws: {gap:.2g} "
                 f"± {error:.2g}" + (f" (z = {gap / error:.2f})" if error > 0 else ""))
    if study.rests_on_rare_draws:
        lines.append(f"Careful: the kurtosis of f is {study.kurtosis:.3g}, so errors at small L rest on rare draws, "
                     "and their intervals are too narrow; raise --repetitions.")
    if not f.differentiable:
        lines.append("f jumps: its expectation is estimated all the same, but a gradient through g(eps) would miss the "
                     "jumps.")
    return "\n".join(lines)


# ---- the variance of gradient estimators -----------------------------------------------------------------------------


def variance(
    q: Annotated[str | None, opt(
        "normal, log-normal, gamma (by default), laplace or beta; its parameters stand in a bracket, gamma(2, 1), or "
        "in the options that follow."
    )] = None,
    shape: Annotated[float | None, opt("The shape of a gamma q; 2 by default.")] = None,
    rate: Annotated[float | None, opt("The rate of a gamma q; 1 by default.")] = None,
    mu: Annotated[float | None, opt("The location of a normal, log-normal or laplace q; 0 by default.")] = None,
    sigma: Annotated[float | None, opt("The width of a normal or log-normal q; 1 by default.")] = None,
    scale: Annotated[float | None, opt("The scale of a laplace q; 1 by default.")] = None,
    a: Annotated[float | None, opt("The first parameter of a beta q; 2 by default.")] = None,
    b: Annotated[float | None, opt("The second parameter of a beta q; 2 by default.")] = None,
    f: Annotated[str | None, opt(f"{FUNCTION} It is z**2 by default.")] = None,
    problem: Annotated[str | None, opt(
        "Instead of q and f: gamma-poisson, a factorisation of counts; or vae, the encoder of a small VAE on digits."
    )] = None,
    run: Annotated[Path | None, opt("With vae: take the model of this run, on its own data.")] = None,
    estimator: Annotated[list[str] | None, opt("Compare only this one; it may be repeated.")] = None,
    samples: Annotated[int, opt("How many draws make an estimate (L); baselines join them.")] = 8,
    draws: Annotated[int | None, opt(
        "How many draws each estimator gets, 320 L or more; 1,000,000 by default, fewer for a problem."
    )] = None,
    seed: Seed = 0,
    data_dir: Annotated[str | None, opt("With --run: the folder with the data sets.")] = None,
    out: Out = Path("lessons"),
    as_json: Json = False,
) -> None:
    """Compare estimators of the gradient of the expected f(z) on the same draws: mean, variance and cost of each.

    They are the score (BBVI) with baselines, G-REP, also its two terms, and reparam or implicit, where q has it.
    """
    from tinyvae.lessons import figures
    from tinyvae.lessons import variance as lesson
    from tinyvae.lessons.expressions import parse
    from tinyvae.lessons.families import member

    chosen = {"shape": shape, "rate": rate, "mu": mu, "sigma": sigma, "scale": scale, "a": a, "b": b}
    given = {name: value for name, value in chosen.items() if value is not None}
    if run is not None and problem != "vae":
        raise ValueError(f"found --run {run} without --problem vae, which alone takes it")
    if data_dir is not None and run is None:
        raise ValueError(f"found --data-dir {data_dir} without --run, which alone reads data sets")
    more: dict[str, Any] = {}
    if problem is None:
        law, function = member("gamma" if q is None else q, given), parse("z**2" if f is None else f)
        with watched("drawing", quiet=as_json) as report:
            found = lesson.of_expectation(law, function, estimator or (), samples, draws, seed, report)
        with watched(f"varying {law.family.name}'s parameter", quiet=as_json) as report:
            course = lesson.sweep(law, function, estimator or (), samples, seed, report)
        make(out)
        file = figures.over_parameter(course, out / "variance.png")
        more = {"sweep": {"parameter": course.parameter, "values": course.values, "samples": samples, "curves": [
            {"derivative": by, "row": row, "variance": curve} for (by, row), curve in course.curves.items()]}}
    else:
        for name in [name for name, value in (("q", q), ("f", f)) if value is not None] + list(given):
            raise ValueError(f"found --{name} with --problem {problem}, which has its own q and f")
        chosen_problem = named_problem(problem, run, data_dir)
        with watched("drawing", quiet=as_json) as report:
            found = lesson.of_problem(chosen_problem, estimator or (), samples, draws, seed, report)
        make(out)
        file = figures.side_by_side(found, out / f"variance-{problem}.png")
    if as_json:
        print_json(found._asdict() | more | {"files": [str(file)]})
    else:
        show(found)
        print(file)


def named_problem(name: str, run: Path | None, data_dir: str | None) -> Any:
    """A problem by name; the VAE is that of a run, or a small new one, on the first 100 training images."""
    from tinyvae import data as data_sets
    from tinyvae.evidence.evaluation import batches_of
    from tinyvae.lessons import problems
    from tinyvae.models import VAE

    if known("problem", name, ("gamma-poisson", "vae")) == "gamma-poisson":
        return problems.GammaPoisson()
    model, images = (VAE(64, 100, 5), data_sets.load("digits", None)) if run is None else opened(run, None, data_dir)
    if not isinstance(model, VAE):
        raise ValueError(f"found a run of {type(model).__name__}; expected one of a VAE")
    return problems.Encoder(model, next(batches_of(model, images, 0, "train", min(100, len(images.train)))).x.numpy())


def show(found: Comparison) -> None:
    """The tables, and what is to be known of them."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=200, highlight=False, soft_wrap=True)  # a row is a line, however narrow the terminal
    console.print(f"Gradient of {found.title}\n{counted(found.draws, 'draw')} of each estimator, the same for all; L = "
                  f"{found.samples} an estimate\n", markup=False)
    for table in found.tables:
        along = f" ({table.size:,} numbers; means are along the gradient)" if table.size > 1 else ""
        console.print(f"d/d {table.parameter}{along}: {_with_error(*table.exact)}, {found.how_exact}", markup=False)
        exact = any(line.exact_variance is not None for line in table.lines)
        shown = RichTable(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("estimator", "mean ± 95 %", "z", "variance a draw", "95 %", *["exact"] * exact, "µs a draw",
                     "variance x µs", "least"):
            shown.add_column(name, justify="left" if name in ("estimator", "least") else "right", no_wrap=True)
        for line in table.lines:
            shown.add_row(*cells(line, table, exact))
        console.print(shown)
        console.print()
    for note in notes(found):
        console.print(note, markup=False)


def _with_error(value: float, error: float) -> str:
    """As many digits as the error leaves, eleven at most."""
    if abs(value) <= error:
        return f"0 ± {error:.1g}"
    whole = math.floor(math.log10(abs(value)))
    places = max(0, min(10 - whole, 1 - math.floor(math.log10(error)) if error > 0 else 10))
    return f"{value:.{places}f} ± {error:.1g}"


def cells(line: Entry, table: Table, exact: bool) -> list[str]:
    """A row of a table as text."""
    from tinyvae.lessons.montecarlo import NORMAL_95

    row, least = line.row, [("variance", table.least_variance), ("variance x µs", table.least_product)]
    none = 1e-24 * max(other.variance for other in table.lines)  # a variance by rounding alone

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form) if line.variance > none else "0"

    return [
        f"  + {row.baseline}" if row.baseline != "none" else f"{line.name}, their sum" if line.name == "G-REP" else
        line.name, f"{line.mean:.5g} ± {NORMAL_95 * line.stderr:.2g}", "" if line.z is None else f"{line.z:.1f}",
        number(line.variance, ".4g"), "{:.4g} to {:.4g}".format(*line.interval) if line.variance > none else "",
        *[number(line.exact_variance, ".4g")] * exact,
        "" if line.microseconds is None else f"{line.microseconds:.3g}", number(line.product, ".3g"),
        " and ".join(what for what, name in least if name == line.name and len(table.lines) > 1),
    ]  # fmt: skip


def notes(found: Comparison) -> list[str]:
    """How to read the tables, and which numbers may mislead."""
    each = [(line, f"{line.name} by {table.parameter}") for table in found.tables for line in table.lines]
    exact = any(line.exact_variance is not None for line, _ in each)
    lines = ["The variance is that of one draw, L times that of an estimate; its 95 % interval is by bootstrap over "
             f"{found.batches} batches" + (", the exact one by quadrature." if exact else "."),
             f"z is (mean - {'exact gradient' if exact else 'the gradient in the heading'}) / standard error.",
             "µs is the time of a draw with its part of the gradient by all parameters, in the fastest of some rounds."]
    if any(line.row.whole for line, _ in each):
        lines.append("A score is multiplied only by the terms that contain its latent (Rao-Blackwell), except in "
                     '"all of f".')
    heavy = [f"{name} ({line.largest:.0%})" for line, name in each
             if line.largest > HEAVY and line.row.baseline == "none"]
    if heavy:
        lines.append("Heavy tails: one estimate alone makes up this share of the sum of squares, so the interval of "
                     f"the variance is too narrow: {', '.join(heavy)}.")
    biased = [name for line, name in each if not abs(line.z or 0) <= BIASED]
    if biased:
        lines.append(f"These are biased, or their variance does not show in the draws: {', '.join(biased)}.")
    return lines + found.notes


COMMANDS = (elbo, montecarlo, variance)
