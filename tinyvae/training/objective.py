"""The objective that training minimises, and its totals over an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinyvae.engine.devices import read, to_host
from tinyvae.engine.rules import ANY, DATA, of_shapes, rule
from tinyvae.engine.tensor import Tensor, apply
from tinyvae.inference.bounds import Terms
from tinyvae.nn.optimizers import FINITE, NORM

# `totals` is a float64 vector of sums over the epoch so far: the number of data; each reported term; the objective; the
# gradient norms; the number of sound steps; and the number of skipped steps. A step is sound if its loss and its
# gradient are finite; only sound steps enter the sums. The number of terms varies, so later indices count from the end.
DATA_COUNT, FIRST_TERM = 0, 1
OBJECTIVE, NORMS, SOUND, SKIPPED = -4, -3, -2, -1
OF_ELBO = ("reconstruction", "kl")  # the terms of the ELBO, for which two kernels exist


def objective(terms: Terms, weights: Mapping[str, float], rates: Tensor, scheduled: Sequence[str]) -> Tensor:
    """The objective, one number in nats per datum: - sum_t weight_t * mean(term_t).

    A weight is that of the model in `weights`, by default 1. The weight of a term in `scheduled` is also multiplied by
    the term's number in `rates`, which holds the learning rate and then one number for each scheduled term.
    """
    if tuple(terms) == OF_ELBO and tuple(scheduled) == ("kl",) and weights == {"kl": -1.0}:
        return apply("objective", *terms.values(), rates)
    total: Any = None
    for name, term in terms.items():
        value, weight = term.mean() if term.ndim else term, weights.get(name, 1.0)
        if name in scheduled:
            value = rates[1 + list(scheduled).index(name)] * value
        value = value if weight == 1 else weight * value
        total = value if total is None else total + value
    return -total


def accumulate(terms: Terms, rows: int, loss: Tensor, totals: Any, status: Any) -> None:
    """Add a step of `rows` data to `totals` by one operation; a step that is not sound is only counted."""
    reported, end = terms.reported, (loss, Tensor(totals), Tensor(status))
    if tuple(reported) == OF_ELBO and all(term.shape == (rows,) for term in reported.values()):
        apply("accumulate", *reported.values(), *end)
    else:
        apply("accumulate_terms", *end, *reported.values(), rows=rows)


def sum_terms(terms: Terms, counts: Sequence[float], loss: Tensor, sums: Any) -> None:
    """Write a loss into `sums`, in float64, and of each reported term its mean times the number in `counts`."""
    apply("sum_terms", loss, Tensor(sums), *terms.reported.values(), counts=tuple(counts))


def accumulate_sums(sums: Any, rows: int, totals: Any, status: Any) -> None:
    """Add a step of `rows` data, whose loss and terms `sums` has, to `totals`, as `accumulate` does."""
    apply("accumulate_sums", Tensor(sums), Tensor(totals), Tensor(status), rows=rows)


# ---- the rows of the ELBO, which have kernels ------------------------------------------------------------------------


def _objective(reconstruction: Tensor, kl: Tensor, rates: Tensor) -> Tensor:
    return rates[1] * kl.mean() - reconstruction.mean()


def _objective_grads(g: Tensor, y: Tensor, reconstruction: Tensor, kl: Tensor, rates: Tensor) -> tuple[Any, Any, None]:
    return *g.apply("objective_grad", kl, rates), None


def _objective_grad(g: Tensor, kl: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    each = (g / kl.size).reshape(1).broadcast_to(kl.shape)
    return -each, each * rates[1]


# rates[1] * mean(KL) - mean(reconstruction), in nats per datum, for terms (batch,)
rule("objective", twin=_objective, grads=_objective_grads, domain=(ANY, ANY, ANY), constants=(2,), kernel="objective",
     accepts=of_shapes(lambda reconstruction, kl, rates:
                       len(kl) == 1 and reconstruction == kl > (0,) and rates == (2,)), flops=2)
rule("objective_grad", twin=_objective_grad, domain=(ANY, ANY, ANY), outputs=2, kernel="objective_grad",
     accepts=of_shapes(lambda g, kl, rates: g == () and len(kl) == 1 and kl > (0,) and rates == (2,)), flops=2)


def _add(xp: Any, totals: Any, status: Any, rows: int, sums: Iterable[float], loss: Any) -> None:
    """Add a step to `totals`, or count it among the skipped ones."""
    if read(status[FINITE]) != 1.0:
        totals[SKIPPED] += 1
    else:
        totals[:SKIPPED] += xp.asarray((rows, *sums, rows * read(loss), read(status[NORM]), 1))


def _sums_of(terms: Sequence[Any], counts: Sequence[float]) -> Iterator[float]:
    return (count * read(term.mean(dtype=np.float64)) for term, count in zip(terms, counts, strict=True))


def _accumulate(xp: Any, reconstruction: Any, kl: Any, loss: Any, totals: Any, status: Any) -> None:
    sums = (read(terms.sum(dtype=np.float64)) for terms in (reconstruction, kl))
    _add(xp, totals, status, len(kl), sums, loss)


rule("accumulate", _accumulate, domain=(ANY, ANY, ANY, DATA, DATA), writes=(3,), kernel="accumulate",
     flops=2)


def _accumulate_terms(xp: Any, loss: Any, totals: Any, status: Any, *terms: Any, rows: int) -> None:
    _add(xp, totals, status, rows, _sums_of(terms, (rows,) * len(terms)), loss)


# the same for any terms, each (rows,) with its own number of rows, or ()
rule("accumulate_terms", _accumulate_terms, domain=DATA, writes=(1,))


def _sum_terms(xp: Any, loss: Any, sums: Any, *terms: Any, counts: tuple[float, ...]) -> None:
    sums[...] = xp.asarray((read(loss), *_sums_of(terms, counts)))


def _accumulate_sums(xp: Any, sums: Any, totals: Any, status: Any, rows: int) -> None:
    loss, *terms = to_host(sums)
    _add(xp, totals, status, rows, terms, loss)


rule("sum_terms", _sum_terms, domain=DATA, writes=(1,))
rule("accumulate_sums", _accumulate_sums, domain=(DATA, DATA, DATA), writes=(1,))
