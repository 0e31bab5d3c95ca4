"""What training minimises, and its sums over an epoch, each as one launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae.engine.devices import read
from tinyvae.engine.rules import ANY, DATA, of_shapes, rule
from tinyvae.engine.tensor import Tensor
from tinyvae.nn.optimizers import FINITE, NORM

# The places of `totals`, a float64 vector of sums over the epoch so far: data, their two terms and what was minimised,
# and over sound steps the gradient norm and the count; skipped steps.
DATA_COUNT, RECONSTRUCTION, KL, OBJECTIVE, NORMS, SOUND, SKIPPED = range(7)


def _objective(reconstruction: Tensor, kl: Tensor, rates: Tensor) -> Tensor:
    return rates[1] * kl.mean() - reconstruction.mean()


def _objective_grads(g: Tensor, y: Tensor, reconstruction: Tensor, kl: Tensor, rates: Tensor) -> tuple[Any, Any, None]:
    return *g.apply("objective_grad", kl, rates), None


def _objective_grad(g: Tensor, kl: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    each = (g / kl.size).reshape(1).broadcast_to(kl.shape)
    return -each, each * rates[1]


# in nats per datum: weight * KL - reconstruction, from both terms (batch,) and the rates
rule("objective", twin=_objective, grads=_objective_grads, domain=(ANY, ANY, ANY), constants=(2,), kernel="objective",
     accepts=of_shapes(lambda reconstruction, kl, rates:
                       len(kl) == 1 and reconstruction == kl > (0,) and rates == (2,)), flops=2)
rule("objective_grad", twin=_objective_grad, domain=(ANY, ANY, ANY), outputs=2, kernel="objective_grad",
     accepts=of_shapes(lambda g, kl, rates: g == () and len(kl) == 1 and kl > (0,) and rates == (2,)), flops=2)


def _accumulate(xp: Any, reconstruction: Any, kl: Any, loss: Any, totals: Any, status: Any) -> None:
    if read(status[FINITE]) != 1.0:
        totals[SKIPPED] += 1
        return
    sums = (read(terms.sum(dtype=np.float64)) for terms in (reconstruction, kl))
    totals[:SKIPPED] += xp.asarray((len(kl), *sums, len(kl) * read(loss), read(status[NORM]), 1))


rule("accumulate", _accumulate, domain=(ANY, ANY, ANY, DATA, DATA), writes=(3,), kernel="accumulate",
     flops=2)
