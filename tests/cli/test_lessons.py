"""The commands of the lessons: what they print and draw, and one sentence with exit code 2 for every mistake."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import assert_close, likely_zero, run_python

import tinyvae as tv
from tinyvae.cli import lessons as cli_lessons
from tinyvae.lessons import estimates, figures, variance
from tinyvae.lessons.families import RECIPES
from tinyvae.progress import watched


@pytest.fixture
def run(run, monkeypatch):
    """The program, with coarse pictures of few draws, and costs by a single round."""
    monkeypatch.setattr(figures, "SCREEN", 70)
    monkeypatch.setattr(variance, "SPREAD", 40)
    monkeypatch.setattr(estimates, "ROUNDS", 1)
    return run


def test_the_command_elbo(run):
    code, out, err = run("elbo", "--mu", -1, "--frames", 6)
    assert (code, err) == (0, "")
    assert "a = 1.21286, b = 2.35333" in out
    assert "-1.850504 nats (higher is better)" in out
    assert "-1.841022 nats = log P(z > 0)" in out
    assert "ELBO = -KL(q || p) <= 0" in out
    for name in ("elbo.gif", "elbo.png"):
        assert str(Path("lessons", name)) in out
        assert Path("lessons", name).stat().st_size > 5_000
    options = ("--preset", "chi-square", "--mu", 5, "--sigma", 2, "--frames", 6)
    _, out, _ = run("elbo", *options, "--json", "--out", "x/y")
    found = json.loads(out)
    assert (found["rate"], found["preset"]) == (0.5, "chi-square")
    assert found["elbo"] < found["bound"] < 0
    assert all(Path(file).exists() for file in found["files"])


def test_the_command_montecarlo(run):
    code, out, err = run("montecarlo", "--q", "gamma(3, 2)", "--f", "z > 1", "--samples", 256, "--repetitions", 20)
    assert (code, err) == (0, "")
    for part in ("q = gamma(3, 2); g by composition", "E[z > 1] = 0.67667642 exactly", "95 % interval", "theory: -0.5",
                 "f jumps", "difference of the two over 5,120 draws", str(Path("lessons", "montecarlo.png"))):
        assert part in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("   ")] == ["L", "16", "64", "256"]
    code, out, err = run("montecarlo", "--q", "cauchy", "--samples", 64, "--repetitions", 10, "--json")
    found = json.loads(out)
    assert (found["f"], found["way"]) == ("1/(1+z**2)", "inverse distribution function")
    assert found["exact"] == pytest.approx(0.5)
    assert [row["draws"] for row in found["rows"]] == [16, 64]


@pytest.mark.parametrize(("arguments", "parts"), [
    (["elbo", "--shape", "0"], ["--shape 0", "expected a number from 0.001"]),
    (["elbo", "--sigma", "nan"], ["--sigma nan"]),
    (["elbo", "--preset", "erlang"], ["gamma, exponential, chi-square"]),
    (["montecarlo", "--q", "zipf"], ["'zipf'", "normal(mu, sigma)"]),
    (["montecarlo", "--f", "import os"], ["'import' at place 1", "expected z"]),
    (["montecarlo", "--q", "cauchy", "--f", "z"], ["E[z] under cauchy(0, 1) is infinite"]),
    (["montecarlo", "--f", ""], ["found nothing more at place 1", "expected z"]),
    (["montecarlo", "--f", "1/z"], ["a pole of f, an overflow, or tails"]),
    (["montecarlo", "--out", "file", "--samples", "64", "--repetitions", "10"], ["file cannot be made: ", "--out"]),
    (["elbo", "--frames", "6", "--out", "file/x"], ["file/x cannot be made: ", "choose another --out"]),
])  # fmt: skip
def test_mistakes_end_with_2_and_one_sentence(arguments, parts, run):
    Path("file").touch()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tinyvae: ")
    assert len(err.splitlines()) == 1
    for part in parts:
        assert part in err
    assert not Path("lessons").exists() or arguments[1] != "--out"


def test_help(run):
    _, out, _ = run("--help")
    assert all(example in out for example in cli_lessons.EXAMPLES)
    for command in ("elbo", "montecarlo", "variance"):
        code, text, _ = run(command, "--help")
        assert code == 0
        assert "--out" in text
        assert command == "elbo" or "the expected f(z)" in text  # square brackets would be taken for markup
    _, text, _ = run("montecarlo", "--help")
    for name in RECIPES:
        assert name in text


def test_the_modules_are_light():
    """SciPy and Matplotlib come with the first lesson, not with the command line."""
    done = run_python("import sys, tinyvae.cli.main, tinyvae.cli.lessons\n"
                      "import tinyvae.lessons.variance, tinyvae.lessons.problems\n"
                      "import tinyvae.lessons.montecarlo, tinyvae.lessons.elbo, tinyvae.lessons.figures\n"
                      "print(sorted({'scipy', 'matplotlib', 'PIL', 'numba'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


# ---- variance --------------------------------------------------------------------------------------------------------


def assert_picture(file):
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"), np.int16)
    assert (pixels[:4] > 250).all()  # nothing is cut off at an edge
    for colour in ((213, 94, 0), (0, 114, 178)):  # the score and G-REP
        assert (np.abs(pixels - np.array(colour)).sum(-1) < 60).sum() > 20


def test_the_command_variance(run, tmp_path):
    """As the documents have it, and with numbers that are known."""
    code, out, err = run("variance", "--q", "gamma", "--shape", "2", "--f", "z**2", "--draws", "100000")
    assert (code, err) == (0, "")
    for part in ("d/d shape: 5.0000", "d/d rate: -12.0000", "G-REP: g_corr", "+ moving-average", "implicit",
                 "f is one term with one latent, so Rao-Blackwell has nothing to leave out",
                 "lessons/variance.png"):
        assert part in out
    assert_picture(tmp_path / "lessons" / "variance.png")


def test_the_command_variance_as_json(run, tmp_path):
    code, out, _ = run("variance", "--q", "normal", "--mu", "1", "--draws", "20000", "--json", "--out", "here")
    assert code == 0
    found = json.loads(out)
    table = found["tables"][0]
    score = table["lines"][0]
    assert (table["parameter"], score["row"]["estimator"], found["files"]) == ("mu", "score", ["here/variance.png"])
    assert_close([table["exact"]["value"], score["exact_variance"]], [2.0, 30.0], 1e4)
    assert_close(score["product"], score["variance"] * score["microseconds"], 4)
    low, high = score["interval"]
    likely_zero("variance in the table", score["variance"] - 30, (high - low) / 3.92)
    assert len(found["sweep"]["values"]) == len(found["sweep"]["curves"][0]["variance"]) == 25


def test_the_command_on_problems(run, tmp_path):
    code, out, _ = run("variance", "--problem", "gamma-poisson", "--draws", "2560", "--samples", "2")
    assert code == 0
    assert "exact" not in out
    assert out.count("all of f") == 5
    assert 'only by the terms that contain its latent (Rao-Blackwell), except in "all of f"' in out
    assert_picture(tmp_path / "lessons" / "variance-gamma-poisson.png")
    code, out, _ = run("variance", "--problem", "vae", "--draws", "100", "--samples", "2")
    assert code == 0
    assert "d/d encoder (7,510 numbers; means are along the gradient)" in out
    assert "G-REP" not in out  # which of a normal q is the reparameterization


def test_the_command_on_a_run(run, tmp_path):
    tv.fit(tv.models.VAE(64, 8, 2), "digits-threshold", out=tmp_path / "r", epochs=1)
    code, out, _ = run("variance", "--problem", "vae", "--run", "r", "--draws", "100", "--samples", "2")
    assert code == 0
    assert "VAE(64-8-2" in out
    assert "d/d encoder (556 numbers" in out


def test_numbers_of_q_in_a_bracket(run):
    code, out, err = run("variance", "--q", "gamma(3, 2)", "--draws", "2560", "--estimator", "score")
    assert (code, err) == (0, "")
    assert "E[z**2] under gamma(3, 2)\n2,560 draws of each" in out


def test_jumps_leave_paths_out(run):
    code, out, _ = run("variance", "--f", "(z > 1)", "--draws", "20000")
    assert code == 0
    assert "f jumps, and a gradient through z does not see a jump: implicit and grep would be wrong, and are" in out
    assert "d/d shape: 0.3678794412" not in out
    assert "G-REP" not in out


@pytest.mark.parametrize(("arguments", "message"), [
    (["--shape", "0"], "found shape 0 with q gamma; expected a number from 0.0001 to 1e+06"),
    (["--rate", "nan"], "found rate nan with q gamma"),
    (["--q", "normal", "--shape", "2"], "found shape 2 with q normal, which has mu and sigma"),
    (["--q", "zeta"], "found q 'zeta'; expected one of normal(mu, sigma), log-normal(mu, sigma), gamma(shape, rate), "
                      "laplace(mu, scale), beta(a, b)"),
    (["--f", "z***2"], "of 'z***2'; expected"),
    (["--estimator", "reparam"], "found estimator 'reparam'; gamma has implicit, grep, score"),
    (["--f", "sign(z)", "--estimator", "grep"], "found estimator 'grep' with E[sign(z)] under gamma(2, 1): f jumps"),
    (["--f", "exp(z)", "--rate", "2"], "E[(exp(z))**2] under gamma(2, 2) is infinite, or cannot be computed"),
    (["--f", "log(z)", "--q", "laplace"], "found no value (NaN) of f at z = -0.0"),
    (["--samples", "0"], "found 0 samples; expected 1 to 4096"), (["--draws", "0"], "found 0 draws; expected 2,560 to"),
    (["--problem", "beta"], "found problem 'beta'; expected one of gamma-poisson, vae"),
    (["--problem", "vae", "--shape", "2"], "found --shape with --problem vae, which has its own q"),
    (["--problem", "vae", "--estimator", "implicit"], "found estimator 'implicit'; vae has reparam, grep, score"),
    (["--run", "r"], "found --run r without --problem vae"),
    (["--draws", "10"], "found 10 draws; expected 2,560 to 100,000,000, 8 an estimate"),
    (["--problem", "gamma-poisson", "--draws", "10"], "found 10 draws; expected 10,240 to"),
    (["--problem", "gamma-poisson", "--q", "beta"], "found --q with --problem gamma-poisson, which has its own q"),
    (["--problem", "gamma-poisson", "--f", "log(z)"], "found --f with --problem gamma-poisson"),
    (["--data-dir", "/nonexistent"], "found --data-dir /nonexistent without --run"),
    (["--f", ""], "found nothing more at place 1"),
    (["--q", "gamma(2,1)", "--shape", "3"], "found shape twice, in the bracket of q and beside it"),
    (["--q", "gamma(2, x)"], "expected numbers in the bracket: gamma(shape, rate)"),
    (["--q", "gamma(2, 1, 3)"], "found 3 in the bracket of q 'gamma(2, 1, 3)'; expected gamma(shape, rate)"),
    (["--shape", "0.9", "--f", "1/z"], "(a pole of f, an overflow, or tails that fall"),
    (["--draws", "2560", "--estimator", "score", "--out", "/proc/foo"], "/proc/foo cannot be made: "),
])  # fmt: skip
def test_mistakes_of_variance_get_one_sentence(arguments, message, run):
    code, out, err = run("variance", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tinyvae: ")
    assert message in err
    assert err.count("\n") == 1


# ---- progress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    ["elbo", "--frames", "6"], ["montecarlo", "--samples", "64", "--repetitions", "10"],
    ["variance", "--draws", "2560", "--estimator", "implicit"],
    ["variance", "--problem", "gamma-poisson", "--draws", "2560", "--samples", "2", "--estimator", "implicit"],
])  # fmt: skip
def test_long_work_shows_how_far_it_is(arguments, run, monkeypatch):
    """On a terminal the bars are told shares that rise to 1; with --json, and where nobody looks, there is no bar."""
    shares = []

    @contextmanager
    def seen(what, quiet=False):
        shares.append([quiet])
        yield shares[-1].append

    monkeypatch.setattr(cli_lessons, "watched", seen)
    assert run(*arguments)[0] == 0
    assert shares
    for quiet, *each in shares:
        assert not quiet
        assert each == sorted(each)
        assert each[-1] == pytest.approx(1)
    shares.clear()
    assert run(*arguments, "--json")[0] == 0
    assert all(quiet for quiet, *_ in shares)


def test_a_bar_is_drawn_on_terminals_only(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with watched("drawing") as report:
        report(0.5)
    assert "drawing" in capsys.readouterr().err
    with watched("drawing", quiet=True) as report:
        report(0.5)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with watched("drawing") as report:
        report(0.5)
    assert capsys.readouterr() == ("", "")
