"""Whether the latents of the data lie where the prior draws: the aggregate posterior beside a normal prior.

The aggregate posterior q(z) = mean over data x of q(z|x) has the mean m and the covariance S,

    m = mean of E_q(z|x)[z],        S = mean of Cov_q(z|x)[z] + covariance of E_q(z|x)[z]  (law of total covariance).

The normal distribution with this mean and covariance is the nearest to q(z), and

    KL(N(m, S) || N(0, I)) = (trace S + m^T m - latents - log det S) / 2   <=   KL(q(z) || N(0, I)),

since a normal distribution has the largest entropy of all with its covariance. Samples of the prior look like data only
if q(z) is near it (Hoffman & Johnson 2016).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.distributions import Normal
from tinyvae.evidence.evaluation import batches_of

FAR = 1.0  # nats from which on samples of the prior are visibly unlike the data


def distance(model: Any, data: DataSet, seed: int = 0) -> float | None:
    """The least KL of the aggregate posterior of the test data to the prior N(0, I), in nats.

    None for another prior, for a posterior that is not a diagonal normal, for a conditional model, and for no more data
    than m and S have numbers, which would be too few to know them.
    """
    if model.condition is not None or not model.has_pictures:
        return None
    if len(data.test) <= model.latent * (model.latent + 3) // 2:
        return None
    if not isinstance(model.generator(None).prior, Normal):
        return None
    means, variances = [], []
    for batch in batches_of(model, data, seed):
        q = model.posterior(batch)
        if not isinstance(q, Normal):
            return None
        means.append(q.mean.numpy().astype(np.float64))
        variances.append(q.variance.numpy().astype(np.float64))
    mean, variance = np.concatenate(means), np.concatenate(variances).mean(0)
    m, covariance = mean.mean(0), np.atleast_2d(np.cov(mean.T, bias=True)) + np.diag(variance)
    return float(np.trace(covariance) + m @ m - len(m) - np.linalg.slogdet(covariance)[1]) / 2


def remark(model: Any, data: DataSet) -> str:
    """One sentence if samples of the prior are likely to be poor, else ""."""
    found = distance(model, data)
    if found is None or found < FAR:
        return ""
    return (f"the latents of the test data lie {found:.1f} nats or more from the prior (good samples need less than "
            f"{FAR:g}), so samples of the prior look less like data than reconstructions do: train longer, with fewer "
            "latents, or with a larger --beta")
