"""Draws of the missing pixels x_mis and of z, given the observed pixels x_obs: Markov chains, and weighted draws.

A sweep holds an image that is filled, x = (x_obs, x_mis), and

    1. draws z' ~ q(z|x);
    2. takes it as the chain's next z, or not;
    3. draws x_mis ~ p(x|z).

The methods differ in step 2:

    gibbs        always takes z' (re-encoding: Rezende, Mohamed & Wierstra 2014, appendix F). This is Gibbs sampling if
                 q(z|x) is p(z|x). For another q the chain in general tends to another distribution than
                 p(x_mis, z|x_obs).
    metropolis   takes z' with the probability min(1, w(z') / w(z)), w(z) = p(x|z) p(z) / q(z|x), and else keeps z
                 (Metropolis within Gibbs: Mattei & Frellsen 2018, algorithm 2). Step 2 leaves p(z|x) unchanged and step
                 3 is exact, so the chain tends to p(x_mis, z|x_obs) for every q whose support is that of p(z|x). It
                 begins with sweeps of gibbs, because few z' are accepted far from the data.
    importance   always takes z' and gives it the weight p(x_obs|z') p(z') / q(z'|x). Given x this has the mean
                 p(x_obs), whatever the filled image x is, so weighted means over all sweeps tend to those of
                 p(z|x_obs). A good filling only makes the weights more even.

    prior        of a conditional model, whose condition is what was observed: draws z ~ p(z|c) and takes it.

A model that learned from data with holes reads a mask beside the pixels. Its q(z|x_obs) needs no filled image, so
`importance` gives it the mask of what was observed, and draws independent z (Mattei & Frellsen 2019). The other methods
tell it that all is observed, because their image is filled.

The noise is addressed by the number of the draw, so every chain repeats exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from tinyvae.distributions.observed import Observed, Placed
from tinyvae.engine.devices import namespace_of, to_host
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.hamiltonian.densities import log_density
from tinyvae.models import Batch


@dataclass(frozen=True)
class Sweep:
    """The state of all chains after a sweep. Chain d of row r has the number d * rows + r.

    Attributes
    ----------
    z : the latents, (chains, latent)
    law : p(x|z) of these z, a distribution over (chains, pixels)
    x : the filled images, (chains, pixels), with x_mis drawn from `law`; where z is drawn by a mask, as they began
    log_weight : (chains,) float64; the logarithm of the weight of z, up to a constant; 0 for `gibbs`, `metropolis`
    accepted : (chains,) truth values, whether z' was taken; None where it always is
    """

    z: Tensor
    law: Any
    x: Tensor
    log_weight: np.ndarray
    accepted: np.ndarray | None = None


def chains(model: Any, batch: Batch, missing: np.ndarray, fill: np.ndarray, noise: Noise, draws: int, sweeps: int,
           method: str = "gibbs", gibbs_sweeps: int = 0) -> Iterator[Sweep]:
    """Run `draws` chains for each row of a batch, and yield their state after each sweep.

    Parameters
    ----------
    model
        Any model with a generator and a posterior.
    batch
        The data; what `batch.x` holds in a missing place does not matter.
    missing
        (rows, pixels), true where a pixel is missing.
    fill
        (pixels,) or (rows, pixels): what the missing pixels are filled with before the first sweep.
    noise
        The source of all draws.
    gibbs_sweeps
        For `metropolis`: how many of the sweeps, the first ones, are those of gibbs; at least 1.
    """
    now = repeated(batch, draws)
    hidden = Tensor(model.xp.asarray(np.tile(missing, (draws, 1))))
    start = np.broadcast_to(np.asarray(fill, model.dtype), missing.shape)
    x = hidden.where(Tensor(model.xp.asarray(np.tile(start, (draws, 1)))), now.x)
    observed, every = (Tensor(model.xp.asarray(mask.astype(model.dtype)))
                       for mask in (~to_host(hidden.data), np.ones(x.shape, bool)))
    needs_mask, weighted = "mask" in model.needs, method == "importance"
    by_mask = needs_mask and weighted
    w = law = None  # the stable form of the current z, and p(x|z)
    for sweep in range(sweeps):
        now = replace(now, x=x, mask=every if needs_mask else now.mask)
        p = model.generator(now)
        q = model.posterior(replace(now, mask=observed) if by_mask else now)
        proposed = rows_of_draw(q.to_stable(q.sample(noise)))
        accepted, log_weight = None, np.zeros(len(x))
        if method == "metropolis" and sweep >= max(1, gibbs_sweeps):
            law_of_proposed = p.likelihood(q.from_stable(proposed))
            ratio = _log_weight(p, q, law_of_proposed, proposed, x) - _log_weight(p, q, law, w, x)
            u = to_host(noise.uniform((len(x),), np.float64).data)
            with np.errstate(divide="ignore"):
                accepted = np.log(u) < ratio  # a ratio that is NaN accepts nothing
            taken = Tensor(model.xp.asarray(accepted[:, None]))
            w = Tensor(taken.where(proposed, w).data)
        else:
            w = proposed
        z = q.from_stable(w)
        law = p.likelihood(z)
        if weighted:
            log_weight = _log_weight(p, q, Observed(law, observed), w, x)
        if not by_mask:
            x = hidden.where(rows_of_draw(law.sample(noise)), x)
        yield Sweep(z, law, x, log_weight, accepted)


def repeated(batch: Batch, draws: int) -> Batch:
    """The batch `draws` times, one copy after the other, with all that belongs to its rows."""
    values: dict[str, Any] = {f.name: copies(value, draws) for f in fields(batch)
                              if isinstance(value := getattr(batch, f.name), Tensor)}
    return replace(batch, **values)


def copies(values: Tensor, draws: int) -> Tensor:
    """The rows of a tensor `draws` times, one copy after the other."""
    index = namespace_of(values.data).arange(draws * len(values)) % len(values)
    return values[Tensor(index)]


def rows_of_draw(drawn: Tensor) -> Tensor:
    """One draw of each row, (1, rows, n), as (rows, n), without the graph of how it was drawn."""
    return Tensor(drawn.data.reshape(drawn.shape[1:]))


def _log_weight(p: Any, q: Any, law: Any, w: Any, x: Tensor) -> np.ndarray:
    """log p(x|z) + log p(z) - log q(z|x), (rows,), of the z with the stable form w, whose Jacobian cancels."""
    each = (law.log_prob(x), log_density(p.prior, w), log_density(q, w))
    found, prior, posterior = (to_host(value.data).astype(np.float64) for value in each)
    return found + prior - posterior


def law_of_all(model: Any, law: Any) -> Any:
    """p(x|z) of all pixels, where a conditional model has it of those alone that its condition leaves open."""
    law = law.law if isinstance(law, Observed) else law
    targets = None if isinstance(law, Placed) else targets_of(model)
    return law if targets is None or len(targets) == model.pixels else Placed(law, targets, model.pixels)


def targets_of(model: Any) -> np.ndarray | None:
    """The numbers of the pixels that the condition of a conditional model leaves open; None for other models."""
    condition = getattr(model, "condition", None)
    return None if condition is None else np.asarray(condition.pixels)


def from_prior(model: Any, batch: Batch, missing: np.ndarray, fill: np.ndarray, noise: Noise, draws: int, sweeps: int,
               gibbs_sweeps: int = 0) -> Iterator[Sweep]:
    """Independent draws z ~ p(z|c) of a conditional model, whose condition c is what was observed."""
    now = repeated(batch, draws)
    hidden = Tensor(model.xp.asarray(np.tile(missing, (draws, 1))))
    p = model.generator(now)
    for _ in range(sweeps):
        z = rows_of_draw(p.prior.sample(noise))
        law = law_of_all(model, p.likelihood(z))
        yield Sweep(z, law, hidden.where(rows_of_draw(law.sample(noise)), now.x), np.zeros(len(now)))


# A method is a function that yields a `Sweep` after each sweep of the chains; here, a further one is a choice.
METHODS: dict[str, Callable[..., Iterator[Sweep]]] = {
    **{name: partial(chains, method=name) for name in ("gibbs", "metropolis", "importance")}, "prior": from_prior}
