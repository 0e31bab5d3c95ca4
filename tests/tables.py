"""A table and models of it whose laws are known: with zero weights every column is N(center, spread^2) in own units."""

import numpy as np

import tinyvae as tv


def table(count=400, holes=False):
    own = np.random.default_rng(0).normal(size=(count, 3)) * [1e-2, 1.0, 1e4] + [5.0, -2.0, 0.0]
    if holes:
        own[np.random.default_rng(1).random(own.shape) < 0.3] = np.nan
    return tv.data.from_table({"a": own[:, 0], "b": own[:, 1], "c": own[:, 2]})


def counts(count=400):
    rng = np.random.default_rng(0)
    return tv.data.from_table(rng.poisson(rng.gamma(1.0, 3.0, (count, 3))), pixels="counts")


def zero(data, likelihood=None, **more):
    """q(z|x) = p(z) and p(x|z) of raw numbers 0: N(0, 1) of stored values, or a negative binomial of mean 1."""
    model = tv.VAE(data.dimensions, 4, 2, likelihood=likelihood or data.likelihood, dtype="float64", **more)
    model.parameters.flat[...] = 0
    return model
