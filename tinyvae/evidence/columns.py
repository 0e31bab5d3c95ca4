"""What one pass over the data finds of each datum, as columns, and the numbers of an `Evaluation` made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvae.engine.devices import to_host
from tinyvae.engine.noise import Noise
from tinyvae.evidence.diagnostics import mean_and_error
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch

# A latent unit is active if the variance of its posterior mean over the data is larger than this multiple of the
# prior's variance (Burda et al. 2016, whose prior has variance 1). Where the mean would be estimated by draws, whose
# noise has a variance, too, the center stands for it.
ACTIVE = 1e-2


def bound_columns(model: Any, batch: Batch, noise: Noise) -> dict[str, np.ndarray]:
    """The bound `elbo` of each datum by one draw of z, and its parts; the first axis of each array counts data.

    The parts are `reconstruction`, `kl` (data, latent), the posterior's center `mu` and the prior's variance for a
    model with one latent variable, and `term NAME` for each term of another model.
    """
    if not (model.has("generator") and model.has("posterior")):
        terms = model.terms(batch, Draw(noise)).reported
        rows = {key: value.numpy().reshape(-1) * np.ones(len(batch)) for key, value in terms.items()}
        return {"elbo": np.asarray(model.bound_of(rows))} | {f"term {key}": values for key, values in rows.items()}
    p, q = model.generator(batch), model.posterior(batch)
    z, parts = q.sample_with_kls(p.prior, noise)
    kl, mu = parts.numpy(), q.center.numpy()
    reconstruction = p.likelihood(z).log_prob(model.target(batch)).numpy()[0]
    prior = to_host(p.prior.variance.data)
    if p.prior.mean.ndim == mu.ndim:  # each datum has its own p(z|condition), which tells nothing of the target
        mu = mu - p.prior.mean.numpy()
    return {"elbo": reconstruction.astype(np.float64) - kl.astype(np.float64).sum(1), "reconstruction": reconstruction,
            "kl": kl, "mu": mu, "prior_variance": prior * np.ones_like(mu)}


def accuracy_fields(column: dict[str, np.ndarray], labels: np.ndarray | None) -> dict[str, Any]:
    """The fields of an Evaluation about the classes that a model gives, compared with the labels (count,)."""
    if "class" not in column or labels is None or not (known := labels[: len(column["class"])] >= 0).any():
        return {}
    right = (column["class"] == labels[: len(known)])[known].astype(np.float64)
    accuracy, error = mean_and_error(right)
    return {"accuracy": accuracy, "accuracy_stderr": error, "labelled_count": len(right)}


def bound_fields(column: dict[str, np.ndarray], layers: Sequence[int]) -> dict[str, Any]:
    """The fields of an Evaluation about the terms of the bound and about the latent variable, which may have layers."""
    fields = ("reconstruction", "reconstruction_stderr", "kl", "kl_stderr", "kl_per_dimension",
              "kl_per_dimension_stderr", "active_units")
    if "kl" not in column:
        terms = {key.removeprefix("term "): mean_and_error(column[key]) for key in column if key.startswith("term ")}
        return dict.fromkeys(fields) | {"terms": {key: mean for key, (mean, _) in terms.items()},
                                        "terms_stderr": {key: error for key, (_, error) in terms.items()}}
    kl, mu = column["kl"], column["mu"]
    each, each_error = mean_and_error(kl)
    active = mu.var(0) > ACTIVE * column["prior_variance"].mean(0)
    values = (*mean_and_error(column["reconstruction"]), *mean_and_error(kl.sum(1)), each.tolist(), each_error.tolist(),
              int(active.sum()))
    found = dict(zip(fields, values, strict=True)) | {"latent_units": None if mu.shape[1] == len(each) else mu.shape[1]}
    if layers:
        found["active_units_per_layer"] = [int(part.sum()) for part in np.split(active, np.cumsum(layers)[:-1])]
    return found
