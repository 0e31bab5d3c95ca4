"""Every estimator with every baseline for every family, at several sizes: the mean is the exact gradient.

The latent has many equal rows, so one call gives as many independent estimates. With f(z) = sum_j c_j z_j + (d . z)^2,
E_q[f] = c . m + (d . m)^2 + d . C d for the mean m and the covariance C of z, which SciPy or a closed form gives; the
exact gradient is their central difference.
"""

import itertools

import numpy as np
import pytest
from scipy import special, stats
from scipy_families import covariance
from support import likely

from tinyvae.distributions import FAMILIES, Normal
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference import estimators
from tinyvae.inference.estimators import BASELINES, Latent, Term, choices, surrogate

ROWS, SAMPLES, SIZES = 2000, 3, (1, 2, 4)
RNG = np.random.default_rng(8)
C, D = RNG.uniform(0.5, 1.5, 4), RNG.uniform(0.7, 1.3, 4)


def parameters(n, *ranges):
    """Numbers for a row of n elements, each parameter from its own interval."""
    rng = np.random.default_rng(n)
    return [rng.uniform(low, high, n) for low, high in ranges]


def independent(law):
    """Moments of independent elements with a law of SciPy's, by parameters."""
    return lambda *p: (law(*p).mean(), np.diag(law(*p).var()))


def of_simplex(mean, factor):
    return mean, factor * (np.diag(mean) - np.outer(mean, mean))


def of_continuous_bernoulli(logits):
    """log C = log(logits / expm1(logits)) + ..: the mean and the variance are derivatives of log(expm1(l) / l)."""
    mean = np.exp(logits) / np.expm1(logits) - 1 / logits
    return mean, np.diag(1 / logits**2 - np.exp(logits) / np.expm1(logits) ** 2)


NORMAL = ((-1, 1), (-1, 0.5))
# Of each family the parameters of a row of n elements, and from these the mean and the covariance.
LAWS = {
    "normal": (lambda n: parameters(n, *NORMAL), independent(lambda mu, v: stats.norm(mu, np.exp(v / 2)))),
    "log-normal": (lambda n: parameters(n, (-1, 0), (-2, -1)),
                   independent(lambda mu, v: stats.lognorm(np.exp(v / 2), scale=np.exp(mu)))),
    "laplace": (lambda n: parameters(n, (-1, 1), (0.5, 1)), independent(stats.laplace)),
    "gamma": (lambda n: parameters(n, (0.5, 3), (1, 2)), independent(lambda a, b: stats.gamma(a, scale=1 / b))),
    "beta": (lambda n: parameters(n, (0.5, 3), (0.5, 3)), independent(stats.beta)),
    "bernoulli": (lambda n: parameters(n, (-2, 2)), independent(lambda logit: stats.bernoulli(special.expit(logit)))),
    "poisson": (lambda n: parameters(n, (0.5, 3)), independent(stats.poisson)),
    "negative-binomial": (lambda n: parameters(n, (0.5, 3), (1, 3)),
                          lambda mu, theta: (mu, np.diag(mu + mu**2 / theta))),
    "student-t": (lambda n: parameters(n, (-1, 1), (0.5, 1), (6, 9)),
                  lambda mu, scale, df: (mu, np.diag(scale**2 * df / (df - 2)))),
    "continuous-bernoulli": (lambda n: parameters(n, (0.5, 3)), of_continuous_bernoulli),
    "categorical": (lambda n: parameters(n, (-1, 1)), lambda logits: of_simplex(special.softmax(logits), 1.0)),
    "dirichlet": (lambda n: parameters(n, (0.5, 3)), lambda a: of_simplex(a / a.sum(), 1 / (a.sum() + 1))),
    "full-normal": (lambda n: [*parameters(n, *NORMAL), np.linspace(-0.8, 0.9, n * (n - 1) // 2)],
                    lambda mu, v, lower: (mu, covariance(v, lower))),
}  # fmt: skip
PAIRS = [(name, estimator) for name, family in FAMILIES.items() if name in LAWS for estimator in choices(family)]


def exact_gradients(moments, values):
    """The derivative of E_q[f] by each parameter, by central differences."""
    n, step, found = len(values[0]), 1e-5, [np.zeros_like(value) for value in values]

    def expectation(p):
        mean, cov = moments(*p)
        return C[:n] @ mean + (D[:n] @ mean) ** 2 + D[:n] @ cov @ D[:n]

    for number, value in enumerate(values):
        for j in range(len(value)):
            ends = []
            for sign in (1, -1):
                moved = [v.copy() for v in values]
                moved[number][j] += sign * step
                ends.append(expectation(moved))
            found[number][j] = (ends[0] - ends[1]) / (2 * step)
    return found


def terms_of(z):
    n = z.shape[-1]
    return [Term(z * Tensor(C[:n]), "bj", ("z",)), Term((z * Tensor(D[:n])).sum(-1) ** 2, "b", ("z",))]


def estimates(family, values, estimator, baseline, seed, rows, keep=""):
    """Estimates of the gradient, (rows, n) for each parameter."""
    leaves = [Tensor(np.tile(value, (rows, 1)), requires_grad=True) for value in values]
    chosen = BASELINES[baseline]()
    for step in range(2 if baseline == "moving-average" else 1):  # its average is that of the steps before
        q = family(*leaves)
        latent = Latent("z", q, q.sample(Noise(seed).restart(step), SAMPLES), estimator, "bj")
        total = surrogate(terms_of(latent.z), [latent], chosen, keep)
    return [g.numpy() for g in grad(total.mean(0).sum(), leaves)]


def z_scores(found, exact):
    """The z-scores of the means of estimates."""
    scores = []
    for g, expected in zip(found, exact, strict=True):
        assert g.shape == (len(g), len(expected))
        error = np.maximum(g.std(0, ddof=1) / np.sqrt(len(g)), 1e-9 * (1 + np.abs(expected)))
        scores += list(np.abs(g.mean(0) - expected) / error)
    assert np.isfinite(scores).all()
    return scores


def check_scores(what, scores):
    likely(what, min(1.0, len(scores) * special.erfc(max(scores) / np.sqrt(2))))


def check_pair(name, estimator, baselines=tuple(BASELINES), sizes=SIZES, rows=ROWS):
    family, (make, moments), scores = FAMILIES[name], LAWS[name], []
    for n, (seed, baseline) in itertools.product(sizes, enumerate(baselines)):
        if n >= family.least:
            values = make(n)
            few = rows if estimator in ("grep", "score") else rows // 4  # these need no baseline, and vary less
            found = estimates(family, values, estimator, baseline, 100 * n + seed, few,
                              keep="b" if seed % 2 else "")
            scores += z_scores(found, exact_gradients(moments, values))
    check_scores(f"{name}, {estimator}", scores)


@pytest.mark.parametrize(("name", "estimator"), PAIRS)
def test_the_mean_is_the_gradient_with_every_baseline(name, estimator):
    check_pair(name, estimator)


def test_every_family_is_here():
    """grey-normal is a normal with another parameter; other tests may have added families of their own."""
    ours = {name for name, family in FAMILIES.items() if family.__module__.startswith("tinyvae.")}
    assert ours - {"grey-normal"} == set(LAWS)


def added_before_they_are_summed(f, latent):
    """Wrong for vectors whose parameters differ in length: terms of parameters are added, then summed."""
    total = 0.0
    for v, h in latent.scores():
        f_h = f.reshape(*f.shape, *(1,) * (h.ndim - f.ndim)).broadcast_to(h.shape)
        above, below = (part.sum(0, keepdims=True) - part for part in (f_h * h * h, h * h))
        total = total + ((f_h - above / below) * h).detach() * (v - v.detach())
    return total.sum(tuple(range(f.ndim, total.ndim)))


@pytest.mark.parametrize("n", [1, 2])
def test_terms_that_are_added_before_they_are_summed_are_found(monkeypatch, n):
    monkeypatch.setitem(estimators.BASELINES, "fitted", lambda: added_before_they_are_summed)
    with pytest.raises(AssertionError, match="below"):
        check_pair("full-normal", "score", ["fitted"], (n,), rows=10000)


def test_a_parameter_that_elements_share():
    """With one log-variance for all elements, the fitted baseline gives the sum of their gradients."""
    n, mu, logvar = 3, 0.4, -0.3
    leaves = [Tensor(np.full((ROWS, width), value), requires_grad=True) for value, width in ((mu, n), (logvar, 1))]
    q = Normal(*leaves)
    latent = Latent("z", q, q.sample(Noise(5), SAMPLES), "score", "bj")
    total = surrogate(terms_of(latent.z), [latent], estimators.fitted)
    found = [g.numpy() for g in grad(total.mean(0).sum(), leaves)]
    law = independent(lambda m, v: stats.norm(m, np.exp(v / 2)))
    each = exact_gradients(law, [np.full(n, mu), np.full(n, logvar)])
    scores = z_scores(found, [each[0], each[1].sum(keepdims=True)])
    check_scores("a shared parameter", scores)
