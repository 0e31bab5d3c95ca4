"""`tinyvae variance`: estimators against exact gradients and exact variances, the problems, and the command.

Statistical checks go through `likely_zero`; those made wrong on purpose must be refused by the same checks.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.special import polygamma
from support import assert_close, likely_zero
from tinyvae.lessons.gradient_estimates import Program, Row, Tally, _EachAverage, gather, rows_for
from tinyvae.lessons.quadrature import FAMILIES, derivative, member
from tinyvae.lessons.variance_problems import Encoder, GammaPoisson, OneLatent
from tinyvae.lessons.variance_study import Nodes, exact_variances, of_expectation, sweep

import tinyvae as tv
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference import bounds
from tinyvae.inference.estimators import BASELINES, Latent, MovingAverage, choices
from tinyvae.lessons import variance_study
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.variance import compare
from tinyvae.pictures import figures

SCORE, GREP, PATH = Row("score"), Row("grep"), Row("grep", part="g_rep")


def tallies(q, f, rows, samples=8, steps=30, replicas=512):
    program = Program(OneLatent(q, parse(f), replicas), rows, samples)
    return gather(program, steps, {name: np.ones(1) for name in q.at})


def check_mean(what, tally, exact):
    """An estimator's mean is the exact gradient."""
    spread = tally.spread()
    off = 0.0 if abs(spread.mean - exact) <= 1e-12 * max(1, abs(exact)) else spread.mean - exact
    likely_zero(f"mean, {what}", off, max(spread.stderr, 1e-300))


def check_variance(what, tally, exact, samples=8):
    """L times the variance of an estimate of L draws is that of a draw."""
    each = samples * np.array(tally.traces)
    likely_zero(f"variance, {what}", each.mean() - exact, each.std(ddof=1) / np.sqrt(len(each)))


# ---- means and variances that are known ------------------------------------------------------------------------------


def test_the_toy_of_the_papers():
    """q = N(1, 1), f = z^2, by mu: mean 2 by both, variance 30 by the score, 4 by the path."""
    q = member("normal", {"mu": 1.0})
    found = tallies(q, "z**2", [SCORE, Row("reparam"), GREP], steps=60)
    exact = exact_variances([q], parse("z**2"), [SCORE, GREP], 8, 4001)
    assert_close([exact["mu", SCORE][0], exact["mu", GREP][0]], [30.0, 4.0], 1e4)
    for row, variance in ((SCORE, 30.0), (Row("reparam"), 4.0), (GREP, 4.0)):
        check_mean(row.name, found[row, "mu"], 2.0)
        check_variance(row.name, found[row, "mu"], variance)


# f = z log z under Gamma(a, 1): exact gradient, variances of G-REP and of the score (research/features.md, by draws)
Z_LOG_Z = {0.3: (0.1711, 61, 7.5), 1.0: (1.0677, 8.6, 9.3), 2.0: (1.7127, 3.5, 14.4), 5.0: (2.6127, 1.4, 36),
           20.0: (3.9959, 0.50, 226)}


@pytest.mark.parametrize("a", Z_LOG_Z)
def test_g_rep_wins_above_shape_one_only(a):
    gradient, by_grep, by_score = Z_LOG_Z[a]
    q, f = member("gamma", {"shape": a}), parse("z*log(z)")
    exact = derivative(q, f, "shape").value
    assert abs(exact - gradient) < 5e-5
    variances = {row: value[0] for (by, row), value in exact_variances([q], f, [SCORE, GREP], 8, 4001).items()
                 if by == "shape"}
    np.testing.assert_allclose([variances[GREP], variances[SCORE]], [by_grep, by_score], rtol=0.12)  # theirs: draws
    assert (variances[GREP] < variances[SCORE]) == (a >= 1)
    found = tallies(q, "z*log(z)", [SCORE, GREP])
    for row in (SCORE, GREP):
        check_mean(f"{row.name} at {a}", found[row, "shape"], exact)
        check_variance(f"{row.name} at {a}", found[row, "shape"], variances[row])


@pytest.mark.parametrize("a", [1e-3, 1e-4])
def test_exact_variances_of_small_shapes(a):
    """f = log z: log z is nearly -E / a, E exponential, so the score's is 13 / a^4, G-REP's 1 / a^4; by the rate 0."""
    exact = exact_variances([member("gamma", {"shape": a})], parse("log(z)"), [SCORE, GREP], 8, 4001)
    np.testing.assert_allclose([exact["shape", row][0] * a**4 for row in (SCORE, GREP)], [13, 1], rtol=10 * a)
    assert exact["rate", GREP][0] == 0


def test_exact_variances_beside_an_edge():
    q = member("laplace", {"mu": 0.3})
    exact = exact_variances([q, q.with_("mu", 0.0)], parse("abs(z)"), [GREP], 8, 1201)
    assert_close(exact["mu", GREP], [1 - (1 - np.exp(-0.3)) ** 2, 1.0], 1e5)


def test_a_variance_that_is_not_accurate_is_not_called_exact():
    """The edge at which f jumps, untold; and a line that ends too soon."""
    f, q = parse("(z > 1.2345)"), member("gamma")
    assert np.isfinite(exact_variances([q], f, [SCORE], 8, 401)["shape", SCORE])
    assert np.isnan(exact_variances([q], replace(f, edges=()), [SCORE], 8, 401)["shape", SCORE])


def test_rounding_is_no_variance():
    """G-REP and the implicit path by the rate are -1 at every draw of f = log z: a tie, whatever rounding makes."""
    course = sweep(member("gamma", {"shape": 1e-3}), parse("log(z)"))
    assert not course.curves["rate", GREP].any()
    assert not course.curves["rate", Row("implicit")].any()
    assert ("by rate, least variance: G-REP or implicit everywhere; G-REP is below the plain score throughout."
            in course.words())


def test_leave_one_out_has_the_variance_of_a_sample_covariance():
    row = Row("score", "leave-one-out")
    for samples in (2, 8):
        q = member("gamma", {"shape": 3.0})
        exact = exact_variances([q], parse("sqrt(z)"), [row], samples, 4001)["shape", row][0]
        check_variance(f"L = {samples}", tallies(q, "sqrt(z)", [row], samples)[row, "shape"], exact, samples)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_estimator_of_every_family_is_unbiased(name):
    q = member(name)
    family = type(OneLatent(q, parse("z"), 2).factors()["z"][0])
    rows = [row for row in rows_for(choices(family), 4) if not row.part]
    assert {row.baseline for row in rows} == set(BASELINES)
    found = tallies(q, "sigmoid(2*z) + 0.3*z", rows, samples=4, steps=12)
    for by in q.at:
        exact = derivative(q, parse("sigmoid(2*z) + 0.3*z"), by).value
        for row in rows:
            check_mean(f"{name}, {row.name} by {by}", found[row, by], exact)


def test_the_two_terms_of_g_rep_are_its_sum():
    rows = rows_for(["grep"], 1)
    program = Program(OneLatent(member("beta"), parse("z**2"), 64), rows, 8)
    path, correction, total = (program.estimates(row, "a") for row in rows[:3])
    assert_close(path + correction, total, 100)
    assert abs(correction).mean() > 1e-3


@pytest.mark.parametrize("shape", [0.05, 1.0, 30.0])
def test_where_the_correction_vanishes(shape):
    """By the rate always; by the shape in the mean, where f is a quadratic in log z. Of z it is 1 - g_rep."""
    q, correction = member("gamma", {"shape": shape, "rate": 1.7}), Row("grep", part="g_corr")

    @np.errstate(all="ignore")
    def mean(text):
        nodes = Nodes([q], parse(text), 4001)
        return {by: nodes.mean(g)[0, 0] for (by, _), g in nodes.gradients([correction]).items()}

    for text in ("log(z)", "log(z)**2", "3 - log(z)*(1 + log(z))"):
        assert abs(mean(text)["shape"]) < 1e-9 * (1 + shape**-3)
        assert abs(mean(text)["rate"]) < 1e-12
    one, two = float(polygamma(1, shape)), float(polygamma(2, shape))
    assert abs(1.7 * mean("z")["shape"] - (1 - (shape * one + two / (2 * one)))) < 1e-9  # z = G / 1.7
    assert abs(mean("z")["rate"]) < 1e-12
    assert abs(mean("log(z)**3")["shape"]) > 1e-6  # the third moment moves


def test_the_correction_by_the_rate_is_nothing_draw_by_draw():
    rows = [Row("grep", part="g_corr")]
    program = Program(OneLatent(member("gamma", {"shape": 0.3}), parse("z*log(z)"), 64), rows, 8)
    program.step()
    assert abs(program.estimates(rows[0], "rate")).max() < 1e-12
    assert abs(program.estimates(rows[0], "shape")).max() > 1e-2


def test_each_replica_has_the_moving_average_of_the_estimators():
    """A column for itself has the baseline of estimators.MovingAverage, not that of all columns."""
    values, noise = np.array([[0.5], [40.0], [-3.0]]), Noise(0)
    each, alone = _EachAverage(3), [MovingAverage() for _ in values]
    for _ in range(4):
        q = FAMILIES["normal"].build(Tensor(values, True), Tensor(np.ones_like(values), True))
        latent = Latent("z", q, q.sample(noise, 5), "score", "rn")
        f = latent.z * latent.z
        found = grad(each(f, latent).sum(), q.mu)
        for r, average in enumerate(alone):
            own = FAMILIES["normal"].build(Tensor(values[r : r + 1], True), Tensor(np.ones((1, 1)), True))
            column = Latent("z", own, Tensor(latent.draw.data[:, r : r + 1]), "score", "rn")
            assert_close(found.data[r], grad(average(Tensor(f.data[:, r : r + 1]), column).sum(), own.mu).data[0], 1e3)


def test_the_moving_average_starts_with_the_first_step():
    row = Row("score", "moving-average")
    program = Program(OneLatent(member("normal", {"mu": 5.0}), parse("z"), 16), [row], 4)
    first, = program.averages[0].states.values()
    assert abs(first.mean() - 5) < 0.6  # not a tenth of it
    assert first.shape == (1, 16, 1)


def test_batches_do_not_change_what_a_tally_says():
    draws = np.random.default_rng(0).normal(3, 2, (200, 40, 1))
    tally = Tally(np.ones(1))
    for batch in draws:
        tally.add(batch)
    spread = tally.spread()
    assert_close(spread.mean, draws.mean(), 100)
    assert spread.interval[0] < 4 < spread.interval[1]
    likely_zero("mean of normal numbers", spread.mean - 3, spread.stderr)
    assert 0 < spread.largest < 0.01


# ---- what must fail --------------------------------------------------------------------------------------------------


def test_wrong_estimates_are_refused():
    """G-REP without its correction; the variance of an estimate for that of a draw; another parameter's gradient."""
    q, f = member("gamma", {"shape": 2.0}), parse("z*log(z)")
    found, exact = tallies(q, "z*log(z)", [SCORE, PATH]), derivative(q, f, "shape").value
    check_mean("the score", found[SCORE, "shape"], exact)
    variance = exact_variances([q], f, [SCORE], 8, 4001)["shape", SCORE][0]
    check_variance("the score", found[SCORE, "shape"], variance)
    with pytest.raises(AssertionError):
        check_mean("no correction", found[PATH, "shape"], exact)
    with pytest.raises(AssertionError):
        check_variance("of an estimate", found[SCORE, "shape"], variance, samples=1)
    with pytest.raises(AssertionError):
        check_mean("by the rate", found[SCORE, "shape"], derivative(q, f, "rate").value)


def test_a_wrong_map_shows_in_the_table(monkeypatch):
    """A standardisation with the wrong deviation, of which log_scale knows nothing."""
    from tinyvae.distributions import Gamma

    monkeypatch.setattr(Gamma, "log_scale", lambda self: 0.9 * self._moments()[1].log())
    table = of_expectation(member("gamma"), parse("z**2"), ["grep"], draws=200_000).tables[0]
    assert abs(next(line.z for line in table.lines if line.row == GREP)) > 6


# ---- many parameters -------------------------------------------------------------------------------------------------


def test_the_factorisation_is_what_it_says():
    """The sum of its terms is -log p(x, z, w), by SciPy's densities."""
    from scipy import stats

    problem = GammaPoisson(2)
    draws = {name: q.sample(Noise(1), 3) for name, (q, _) in problem.factors().items()}
    found = sum(term.value.data.sum(tuple(range(2, term.value.ndim))) for term in problem.terms(draws))
    z, w = (draws[name].data for name in "zw")
    log_p = stats.poisson.logpmf(problem.x.data, z @ w).sum((2, 3))
    log_p += sum(stats.gamma.logpdf(part, 1, scale=2).sum((2, 3)) for part in (z, w))
    assert_close(found, -log_p, 1e3)
    entropy = stats.gamma.entropy(2, scale=0.5) * 2 * (10 + 12)
    assert_close(problem.closed().item(), -entropy, 1e3)


def test_means_are_along_the_gradient():
    """So the exact value is its length."""
    problem, row = GammaPoisson(64), Row("implicit")
    program = Program(problem, [row], 8)
    for table in compare(problem, [row], 8, 20).tables:
        length = np.linalg.norm(program.estimates(row, table.parameter).mean(0))
        assert 0.9 < table.exact.value / length < 1.1


def test_rao_blackwell_on_a_factorisation():
    """Fewer terms, less variance, the same mean; and no estimator is biased."""
    rows = rows_for(["implicit", "grep", "score"], 4, latents=2)
    found = compare(GammaPoisson(8), rows, 4, 60)
    assert found.how_exact.startswith("mean of 3,840 other draws")
    for table in found.tables:
        lines = {line.row: line for line in table.lines}
        assert table.size == (10 if table.parameter[0] == "z" else 12)
        assert lines[Row("score", whole=True)].variance > 3 * lines[SCORE].variance
        assert lines[SCORE].variance > 2 * lines[Row("score", "leave-one-out")].variance
        assert table.best().row.estimator in ("implicit", "grep")
        for line in table.lines:
            if line.z is not None:
                likely_zero(f"{table.parameter}, {line.row.name}", line.z, 1.0)


def test_the_encoders_gradient_is_that_of_the_bound():
    """The path's estimate, from the same noise, is the derivative of the negative ELBO; the score agrees."""
    model = tv.models.VAE(64, 16, 2, dtype="float64")
    x = (np.random.default_rng(0).random((20, 64)) < 0.4).astype(float)
    problem = Encoder(model, x)
    program = Program(problem, [Row("reparam")], 3)
    loss = -bounds.elbo(model, model.q, Tensor(x), Noise(0, "noise"), 3).mean()
    expected = np.concatenate([g.data.ravel() for g in grad(loss, problem.parameters["encoder"])])
    assert_close(program.estimates(Row("reparam"), "encoder")[0], expected, 1e4)
    found = compare(problem, rows_for(["reparam", "score"], 4, latents=2), 4, 200)
    for line in found.tables[0].lines:
        likely_zero(line.row.name, line.z, 1.0)
    assert found.tables[0].best().row == Row("reparam")


# ---- the study and the command ---------------------------------------------------------------------------------------


def test_a_sweep_finds_the_crossover():
    course = sweep(member("gamma"), parse("z*log(z)"))
    assert any("G-REP is above the plain score up to 0.96, below it beyond" in line for line in course.words())
    assert set(course.curves) == {(by, row) for by in ("shape", "rate")
                                  for row in (SCORE, Row("score", "leave-one-out"), GREP, Row("implicit"))}
    by_rate = {row: curve for (by, row), curve in course.curves.items() if by == "rate"}
    known = np.isfinite(by_rate[Row("implicit")])
    np.testing.assert_allclose(by_rate[Row("implicit")][known], by_rate[GREP][known], rtol=0.2)


def test_equal_estimators_are_named_together():
    words = sweep(member("normal", {"mu": 1.0}), parse("z**2"), samples=1).words()
    assert sum("G-REP or reparameterized everywhere" in line for line in words) == 2


@pytest.fixture
def run(run, monkeypatch):
    """The command, with coarse pictures of few draws."""
    monkeypatch.setattr(figures, "DPI", 70)
    monkeypatch.setattr(variance_study, "SPREAD", 40)
    return lambda *arguments: run("variance", *arguments)


def assert_picture(file):
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"), np.int16)
    assert (pixels[:4] > 250).all()  # nothing is cut off at an edge
    for colour in ((213, 94, 0), (0, 114, 178)):  # the score and G-REP
        assert (np.abs(pixels - np.array(colour)).sum(-1) < 60).sum() > 20


def test_the_command(run, tmp_path):
    """As the documents have it, and with numbers that are known."""
    code, out, err = run("--q", "gamma", "--shape", "2", "--f", "z**2", "--draws", "100000")
    assert (code, err) == (0, "")
    for part in ("d/d shape: 5.0000", "d/d rate: -12.0000", "G-REP: g_corr", "+ moving-average", "implicit",
                 "Rao-Blackwell: f is one term with one latent, so there is nothing to leave out",
                 "G-REP is above the plain score up to 1.1, below it beyond", "lessons/variance.png"):
        assert part in out
    assert_picture(tmp_path / "lessons" / "variance.png")


def test_the_command_as_json(run, tmp_path):
    code, out, _ = run("--q", "normal", "--mu", "1", "--draws", "20000", "--json", "--out", "here")
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
    code, out, _ = run("--problem", "gamma-poisson", "--draws", "2560", "--samples", "2")
    assert code == 0
    assert "exact" not in out
    assert out.count("all of f") == 5
    assert "by w shape, Rao-Blackwell divides the score's variance by " in out
    assert 'but for "all of f", a score is multiplied only by terms that contain its latent' in out
    assert_picture(tmp_path / "lessons" / "variance-gamma-poisson.png")
    code, out, _ = run("--problem", "vae", "--draws", "100", "--samples", "2")
    assert code == 0
    assert "d/d encoder (7,510 numbers; means are along the gradient)" in out
    assert "G-REP" not in out  # which of a normal q is the reparameterization


def test_the_command_on_a_run(run, tmp_path):
    from tinyvae.training import runs
    from tinyvae.training.settings import Settings

    folder = runs.RunFolder.create(tmp_path / "r", tv.models.VAE(64, 8, 2), "digits-threshold", Settings(epochs=1))
    path, training = runs.prepare(folder.path)
    path.train(training)
    code, out, _ = run("--problem", "vae", "--run", "r", "--draws", "100", "--samples", "2")
    assert code == 0
    assert "VAE(64-8-2" in out
    assert "d/d encoder (556 numbers" in out


def test_numbers_of_q_in_a_bracket(run):
    code, out, err = run("--q", "gamma(3, 2)", "--draws", "2560")
    assert (code, err) == (0, "")
    assert "E[z**2] under gamma(shape=3, rate=2)\n2,560 draws of each" in out


def test_jumps_leave_paths_out(run):
    code, out, _ = run("--f", "(z > 1)", "--draws", "20000")
    assert code == 0
    assert "f jumps, and a gradient through z does not see a jump: implicit and grep would be wrong, and are" in out
    assert "d/d shape: 0.3678794412" not in out
    assert "G-REP" not in out


@pytest.mark.parametrize(("arguments", "message"), [
    (["--shape", "0"], "found shape 0 with q gamma; expected a number from 0.0001 to 1e+06"),
    (["--rate", "nan"], "found rate nan with q gamma"),
    (["--q", "normal", "--shape", "2"], "found shape 2 with q normal, which has mu and sigma"),
    (["--q", "zeta"], "found q 'zeta'; expected one of normal, log-normal, gamma, laplace, beta"),
    (["--f", "z***2"], "of 'z***2'; expected"),
    (["--estimator", "reparam"], "found estimator 'reparam'; gamma has implicit, grep, score"),
    (["--f", "sign(z-1)", "--estimator", "grep"], "found estimator 'grep' with f = sign(z-1): f jumps"),
    (["--f", "exp(z)", "--rate", "2"], "E[(exp(z))**2] under gamma(shape=2, rate=2): no finite value was found by"),
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
    (["--q", "gamma(2, 1, 3)"], "found 3 numbers in the bracket of q 'gamma(2, 1, 3)'; expected gamma(shape, rate)"),
    (["--shape", "0.9", "--f", "1/z"], "(a pole of f, an overflow, or tails too heavy)"),
    (["--draws", "2560", "--out", "/proc/foo"], "/proc/foo cannot be made: "),
])  # fmt: skip
def test_mistakes_get_one_sentence(arguments, message, run):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tinyvae: ")
    assert message in err
    assert err.count("\n") == 1


def test_f_that_is_not_finite_at_a_draw():
    """Quadrature may miss a point; the draws do not."""
    problem = OneLatent(member("normal"), parse("1/(z - z)"), 4)
    with pytest.raises(ValueError, match=r"found f = 1/\(z - z\) to be inf at z = .*, a draw from normal\(mu=0"):
        Program(problem, [SCORE], 2)
