"""The problems that estimators are compared on: each is what it says, and no estimator of it is biased."""


import numpy as np
from gradients import SCORE
from scipy import stats
from support import assert_close, likely_zero

import tinyvae as tv
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference import bounds
from tinyvae.lessons.estimates import Choice, Estimates, variants
from tinyvae.lessons.problems import Encoder, GammaPoisson
from tinyvae.lessons.variance import compare


def test_the_factorisation_is_what_it_says():
    """The sum of its terms is -log p(x, z, w), by SciPy's densities."""

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
    problem, row = GammaPoisson(64), Choice("implicit")
    estimates = Estimates(problem, [row], 8)
    for table in compare(problem, [row], 8, 20).tables:
        length = np.linalg.norm(estimates.by(row, table.parameter).mean(0))
        assert 0.9 < table.exact.value / length < 1.1


def test_rao_blackwell_on_a_factorisation():
    """Fewer terms, less variance, the same mean; and no estimator is biased."""
    rows = variants(["implicit", "grep", "score"], 4, latents=2)
    found = compare(GammaPoisson(8), rows, 4, 60)
    assert found.how_exact.startswith("mean of 3,840 other draws")
    for table in found.tables:
        lines = {line.row: line for line in table.lines}
        assert table.size == (10 if table.parameter[0] == "z" else 12)
        assert lines[Choice("score", whole=True)].variance > 3 * lines[SCORE].variance
        assert lines[SCORE].variance > 2 * lines[Choice("score", "leave-one-out")].variance
        assert table.least_variance in ("implicit", "G-REP", "G-REP + leave-one-out", "G-REP + fitted")
        for line in table.lines:
            if line.z is not None:
                likely_zero(f"{table.parameter}, {line.name}", line.z, 1.0)


def test_the_encoders_gradient_is_that_of_the_bound():
    """The path's estimate, from the same noise, is the derivative of the negative ELBO; the score agrees."""
    model = tv.models.VAE(64, 16, 2, dtype="float64")
    x = (np.random.default_rng(0).random((20, 64)) < 0.4).astype(float)
    problem = Encoder(model, x)
    estimates = Estimates(problem, [Choice("reparam")], 3)
    loss = -bounds.elbo(model, model.q, Tensor(x), Noise(0, "noise"), 3).mean()
    expected = np.concatenate([g.data.ravel() for g in grad(loss, problem.parameters["encoder"])])
    assert_close(estimates.by(Choice("reparam"), "encoder")[0], expected, 1e4)
    found = compare(problem, variants(["reparam", "score"], 4, latents=2), 4, 100)
    for line in found.tables[0].lines:
        likely_zero(line.name, line.z, 1.0)
    assert found.tables[0].least_variance == "reparameterized"
