"""What the tests of gradient estimators share: estimates of one latent, and checks of their mean and variance."""

import numpy as np
from support import likely_zero

from tinyvae.lessons.estimates import Choice, Estimates, gather
from tinyvae.lessons.expressions import parse
from tinyvae.lessons.problems import OneLatent

SCORE, GREP, PATH = Choice("score"), Choice("grep"), Choice("grep", part="g_rep")


def spreads(q, f, rows, samples=8, steps=30, replicas=512):
    estimates = Estimates(OneLatent(q, parse(f), replicas), rows, samples)
    return gather(estimates, steps, {name: np.ones(1) for name in q.at})


def check_mean(what, spread, exact):
    """An estimator's mean is the exact gradient."""
    off = 0.0 if abs(spread.mean - exact) <= 1e-12 * max(1, abs(exact)) else spread.mean - exact
    likely_zero(f"mean, {what}", off, max(spread.stderr, 1e-300))


def check_variance(what, spread, exact, samples=8):
    """L times the variance of an estimate of L draws is that of a draw."""
    each = samples * np.array(spread.variances)
    likely_zero(f"variance, {what}", each.mean() - exact, each.std(ddof=1) / np.sqrt(len(each)))
