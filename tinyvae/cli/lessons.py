"""The commands for learners: `tinyvae elbo` and `tinyvae montecarlo`. `register` puts them into the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tinyvae.lessons.elbo import Lesson
    from tinyvae.lessons.montecarlo import Study

EXAMPLES = {
    "tinyvae elbo --mu 1": "watch a Gamma climb the ELBO: a GIF",
    'tinyvae montecarlo --q "gamma(3, 2)"': "the error falls as 1/sqrt(L)",
}


def opt(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text)


Json = Annotated[bool, opt("Print JSON instead of text.", "--json")]
Out = Annotated[Path, opt("Folder for the pictures.")]


def register(app: typer.Typer) -> None:
    for command in (elbo, montecarlo):
        app.command()(command)


def make(out: Path) -> None:
    """The folder for the pictures; ValueError says why it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(f"{out} cannot be made: {fault.strerror}; choose another --out") from None


# ---- the ELBO --------------------------------------------------------------------------------------------------------


def elbo(
    mu: Annotated[float, opt("Mean of p.")] = 4.0,
    sigma: Annotated[float, opt("Standard deviation of p.")] = 1.0,
    shape: Annotated[float | None, opt("Shape a that q starts with. Default: 2.")] = None,
    rate: Annotated[float | None, opt("Rate b that q starts with. Default: 2.")] = None,
    preset: Annotated[str, opt("gamma; or a special case: exponential (a = 1), chi-square (b = 1/2).")] = "gamma",
    path: Annotated[str, opt("What moves before the ascent: shape-rate, rate-shape, or both together.")] = "shape-rate",
    frames: Annotated[int, opt("Of the animation.")] = 72,
    out: Out = Path("lessons"),
    as_json: Json = False,
) -> None:
    """The ELBO as q moves: p(z) = N(mu, sigma^2), q(z) = Gamma(a, b); GIF and PNG, and the best q by gradient ascent.

    With neither data nor an unnormalised p the ELBO is -KL(q || p).
    """
    from tinyvae.lessons import elbo as elbo_lesson
    from tinyvae.lessons import figures as lesson_figures

    lesson = elbo_lesson.lesson(mu, sigma, shape, rate, preset, path, frames)
    make(out)
    files = [lesson_figures.elbo_animation(lesson, out / "elbo.gif"),
             lesson_figures.elbo_strip(lesson, out / "elbo.png")]  # fmt: skip
    if as_json:
        best = lesson.best
        found = {"mu": mu, "sigma": sigma, "preset": preset, "shape": best.shape, "rate": best.rate, "elbo": best.elbo,
                 "bound": lesson.bound, "steps": lesson.steps, "files": list(map(str, files))}
        print(json.dumps(found, indent=2))
    else:
        print(elbo_report(lesson), *files, sep="\n")


def elbo_report(lesson: Lesson) -> str:
    """What `tinyvae elbo` says: numbers with their unit, and why they cannot be higher."""
    best, mu, sigma = lesson.best, lesson.mu, lesson.sigma
    fixed = {"gamma": "Gamma(a, b)", "exponential": "Gamma(1, b), the exponential",
             "chi-square": f"Gamma(a, 1/2), the chi-square with {2 * best.shape:.5g} degrees of freedom at the optimum"}
    return "\n".join((
        f"p(z) = N({mu:g}, {sigma:g}^2), q(z) = {fixed[lesson.family.name]}",
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
        "gumbel, rayleigh, weibull, pareto; by location and scale: normal, laplace, uniform; by composition: "
        "log-normal, gamma, chi-square, f, beta, dirichlet, cauchy."
    )] = "normal",
    f: Annotated[str | None, opt(
        "The function of z: + - * / ** < > and exp, log, sqrt, abs, tanh, sigmoid, ... Default: z**2; 1/(1+z**2) "
        "where the tails are heavy."
    )] = None,
    samples: Annotated[int, opt("The largest number of draws in a mean (L); the smallest is 16.")] = 16384,
    repetitions: Annotated[int, opt("How often each mean is taken.")] = 100,
    seed: Annotated[int, opt("Which draws.")] = 0,
    out: Out = Path("lessons"),
    as_json: Json = False,
) -> None:
    """The mean of f(z) by draws of q(z) and by the reparameterization g(eps): they agree, errors fall as 1/sqrt(L)."""
    from tinyvae.lessons import figures as lesson_figures
    from tinyvae.lessons import montecarlo as lesson
    from tinyvae.lessons import recipes
    from tinyvae.lessons.expressions import parse
    from tinyvae.training import checkpoint

    law = recipes.law(q)
    function = parse(("1/(1+z**2)" if law.recipe.heavy else "z**2") if f is None else f)
    study = lesson.study(law, function, samples, repetitions, seed)
    make(out)
    file = lesson_figures.montecarlo(study, out / "montecarlo.png", seed)
    if as_json:
        found = {"q": str(law), "f": study.f.text, "way": law.recipe.way, "g": law.recipe.formula, "exact": study.exact,
                 "sd": study.sd, "kurtosis": study.kurtosis, "repetitions": repetitions, "seed": seed,
                 "rows": [vars(row) for row in study.rows], "slopes": [vars(slope) for slope in study.slopes],
                 "difference": study.difference, "files": [str(file)]}
        print(json.dumps(checkpoint.plain(found), indent=2))
    else:
        print(study_report(study), file, sep="\n")


def study_report(study: Study) -> str:
    """What `tinyvae montecarlo` says: the exact value, a row for each L, the two slopes, and what to beware of."""
    q, f = study.q, study.f
    lines = [
        f"q = {q}; g by {q.recipe.way}: z = {q.recipe.formula}",
        f"E[{f}] = {study.exact:.8g} exactly (quadrature), standard deviation of f {study.sd:.5g}",
        "",
        "Estimates by one mean of L draws, ± the draws' own standard error; z = (estimate - exact) / (sd / sqrt(L)).",
        f"RMS error over {study.repetitions} such means, beside sd / sqrt(L).",
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
        lines.append(f"beware: the kurtosis of f is {study.kurtosis:.3g}, so errors at small L rest on rare draws, and "
                     "the intervals are not to be trusted; raise --repetitions")
    if not f.differentiable:
        lines.append("f jumps: its expectation is estimated all the same, but a gradient through g(eps) would miss the "
                     "jumps")
    return "\n".join(lines)
