"""Priors p(z) that a model learns, by the name under which it chooses one; `standard` is the posterior's own.

    vamp    p(z) = 1/K sum_k q(z|u_k), a mixture of posteriors at learned pseudo-inputs u_k (Tomczak & Welling 2018)

The prior that is best for the ELBO is the mean of q(z|x) over all data x, but a sum over all data in each step is out
of reach, and it overfits. K pseudo-inputs stand for the data and are trained with everything else. They begin as noise
around the middle of the pixels' range, or around 0 of real numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyvae.choices import known, whole
from tinyvae.distributions import Distribution
from tinyvae.distributions.mixture import Mixture
from tinyvae.engine.tensor import Tensor
from tinyvae.flows import Flow
from tinyvae.nn.network import Matrix

STANDARD, VAMP = "standard", "vamp"
PRIORS = (STANDARD, VAMP)
PSEUDO_INPUTS = 500  # the authors' number


def pseudo_inputs_of(prior: str, count: int) -> int:
    """The number of pseudo-inputs of a prior, 0 of one that has none; ValueError for a count that does not fit it."""
    if known("prior", prior, PRIORS) == VAMP:
        return whole("pseudo_inputs", count) or PSEUDO_INPUTS
    if count:
        raise ValueError(f"found pseudo_inputs={count} with the prior {prior}, which has none: leave it out, or take "
                         f"prior={VAMP}")
    return 0


def vamp(inputs: Matrix, takes: str, encoder: Callable[[Tensor], Any]) -> Distribution:
    """The mixture of q(z|u_k), for an encoder that reads data of the kind `takes`, as `Model.takes` says it.

    Of a posterior that a flow makes it is the mixture of the normal laws that the flow begins with: log q(z|u) of a
    given z would need the flow's inverse for each u.
    """
    value = inputs.value
    u = value if takes == "real" else value.softplus() if takes == "counts" else value.sigmoid()
    q = encoder(u)
    return Mixture(q.base if isinstance(q, Flow) else q)
