"""Monte Carlo: draws by the density, and both routes against exact values, with errors that fall as 1/sqrt(L)."""

import math

import numpy as np
import pytest
from scipy_laws import assert_right_law, drawn, of_scipy
from support import likely_zero

import tinyvae as tv
from tinyvae.cli import lessons as cli_lessons
from tinyvae.engine.noise import Noise
from tinyvae.lessons import montecarlo
from tinyvae.lessons.expectations import expectation
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.families import Recipe, drawable
from tinyvae.lessons.montecarlo import Sampler, fit, study


def studied(text, f, *sizes, **options):
    return study(*drawable(text), parse(f), *sizes, **options)


# ---- draws of q by its density ---------------------------------------------------------------------------------------


def test_draws_by_the_density_have_the_law_of_q():
    assert_right_law(lambda q, count: Sampler(q)(Noise(6, "test").uniform((count,), np.float64).numpy()))


@pytest.mark.parametrize("text", ["laplace(1, 0.5)", "chi-square(1)", "beta(1, 4)", "cauchy(-1, 2)"])
def test_the_table_of_the_distribution_function_is_fine_enough(text):
    """What it adds to an expectation is nothing beside the error of a hundred million draws."""
    f, q = parse("1/(1 + z**2)"), drawn(text)
    u = (np.arange(400_000) + 0.5) / 400_000
    assert f(tv.Tensor(Sampler(q)(u))).numpy().mean() == pytest.approx(expectation(q, f).value, abs=1e-6)


@pytest.mark.parametrize("text", ["gumbel(-1, 2)", "gamma(4, 0.5)"])
def test_draws_rise_with_u(text):
    """z = F^-1(u), whether z rises or falls with w."""
    u = np.array([0.01, 0.5, 0.99])
    np.testing.assert_allclose(Sampler(drawn(text))(u), of_scipy(drawn(text)).ppf(u), rtol=1e-6)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "f", "message"), [
    ("normal", "log(z)", "no value (NaN) of f at z = -0.0"), ("normal", "sqrt(z - 1)", "for all z from -inf to inf"),
    ("exponential", "exp(z/2)", "the expectation 2 under exponential(1), but an infinite variance"),
    ("pareto(2)", "z", "so errors do not fall as 1/sqrt(L)"), ("normal", "2", "no variance"),
    ("normal", "z > 100", "no variance"),
])  # fmt: skip
def test_what_cannot_be_studied(text, f, message):
    with pytest.raises(ValueError, match="choose an f") as caught:
        studied(text, f)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [
    ({"largest": 63}, "found 63 samples; expected 64 or more"), ({"repetitions": 9}, "9 repetitions; expected 10"),
    ({"largest": 10**7}, "10000000 samples in 100"), ({"seed": -1}, "found seed -1"),
    ({"largest": 10**6, "repetitions": 10}, "each of 100 variates; expected 335544 samples"),
])  # fmt: skip
def test_wrong_numbers_of_draws(options, message):
    with pytest.raises(ValueError, match="expected") as caught:
        studied("gamma(100)", "z**2", **options)
    assert message in str(caught.value)


# ---- both routes -----------------------------------------------------------------------------------------------------

STUDIED = {"exponential(2)": "z**2", "normal(1, 2)": "z > 0.5", "beta(2, 3)": "log(z)", "cauchy": "1/(1 + z**2)"}


@pytest.fixture(scope="module")
def studies():
    """A study by each of the three recipes, and of a jump."""
    return {text: studied(text, f, 4096, 60, seed=3) for text, f in STUDIED.items()}


def assert_falls_as_one_over_root_l(found):
    for slope in found.slopes:
        likely_zero(f"slope under {found.q}", slope.value + 0.5, slope.stderr)
    likely_zero("the two routes", *found.difference)
    for row in found.rows:
        for estimate in row.estimate:
            likely_zero(f"L = {row.draws}", estimate - found.exact, row.expected)
    # the errors together: sum (rms / expected)^2 has the mean 2 * rows, and a variance that the rows tell
    parts = np.array([np.square(row.rms) / row.expected**2 for row in found.rows])
    errors = np.array([2 * parts[i] * row.rms_stderr for i, row in enumerate(found.rows)])
    likely_zero("size of the errors", (parts - 1).sum(), np.sqrt((errors**2).sum()))


@pytest.mark.parametrize("text", STUDIED)
def test_errors_fall_as_one_over_root_l(text, studies):
    assert_falls_as_one_over_root_l(studies[text])
    assert [row.draws for row in studies[text].rows] == [16, 64, 256, 1024, 4096]
    assert not studies[text].rests_on_rare_draws


def test_a_wrong_g_has_errors_that_do_not_fall(monkeypatch):
    """An estimator that is off by a tenth stays off by a tenth: slope, difference and estimates say so."""
    right = Recipe.draw
    monkeypatch.setattr(Recipe, "draw", lambda self, q, noise, count: 0.1 + right(self, q, noise, count))
    found = studied("normal", "z", 4096, 30)
    assert found.slopes[1].interval[0] > -0.4
    with pytest.raises(AssertionError):
        assert_falls_as_one_over_root_l(found)
    assert abs(found.difference[0]) > 5 * found.difference[1]


def test_the_line_through_the_errors():
    slope = fit([16, 64, 256], [2.0, 1.0, 0.5], [0.1, 0.1, 0.1])
    assert slope.value == pytest.approx(-0.5)
    # with equal errors s at three points d apart, the slope's error is s / (d sqrt 2)
    assert slope.stderr == pytest.approx(0.1 / (math.log(4) * math.sqrt(2)))
    assert slope.interval == pytest.approx((-0.5 - 1.959964 * slope.stderr, -0.5 + 1.959964 * slope.stderr))


def test_the_interval_of_the_slope_means_what_it_says(studies):
    """The slope's standard error against the spread of slopes of simulated normal errors."""
    rng = np.random.default_rng(0)
    ladder, slopes_, errors = [16, 64, 256, 1024], [], []
    for _ in range(400):
        e = rng.standard_normal((4, 60)) / np.sqrt(ladder)[:, None]
        mse = (e**2).mean(1)
        slope = fit(ladder, list(np.sqrt(mse)), list((e**2).std(1, ddof=1) / math.sqrt(60) / (2 * mse)))
        slopes_.append(slope.value)
        errors.append(slope.stderr)
    ratio = np.var(slopes_) / np.mean(np.square(errors))
    likely_zero("variance of the slope against what is said of it", ratio - 1, math.sqrt(2 / 400) + 0.02)
    likely_zero("slope", np.mean(slopes_) + 0.5, np.std(slopes_) / math.sqrt(400))


def test_rare_draws_are_told_of():
    found = studied("normal", "z > 3.5", 64, 20)
    assert found.rests_on_rare_draws
    assert "rest on rare draws" in cli_lessons.study_report(found)


def test_the_same_seed_gives_the_same_study_and_another_does_not():
    a, b, c = (studied("gamma(2, 1)", "z", 64, 10, seed) for seed in (1, 1, 2))
    assert a.rows == b.rows != c.rows


def test_means_do_not_depend_on_the_blocks(monkeypatch):
    """As many means as asked for, of as many draws, whatever fits into memory at once."""
    def whole(block):
        monkeypatch.setattr(montecarlo, "BLOCK", block)
        sizes = []

        def route(count):
            sizes.append(count)
            return np.arange(count) % 8.0

        return montecarlo.means(route, lambda z: z, 8, 10, variates=3), sizes

    for block, sizes in ((10**6, [80]), (100, [32, 32, 16]), (1, [8] * 10)):
        (mean, stderr), found = whole(block)
        assert found == sizes
        np.testing.assert_allclose(mean, np.full(10, 3.5))
        np.testing.assert_allclose(stderr, np.arange(8).std(ddof=1) / math.sqrt(8))
