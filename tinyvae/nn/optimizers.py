"""Optimizers: one step of all parameters at once, as launches over flat vectors.

All gradients stand in one vector. `guard` forms their norm and writes into `status` whether it and the loss are finite;
if they are, the method updates the parameters. A step that is not finite changes no parameter, no moment and no step
count. What varies from step to step is read from two arrays: `rates`, of which an optimizer reads the learning rate,
and `status`, whose places are named below.

A method is a function of its update in the notation of its paper, made a row of the table `OPTIMIZERS` by the decorator
`method`. Adding one edits no other place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyvae.choices import chosen
from tinyvae.engine.devices import Array, namespace_of, read, to_host
from tinyvae.engine.rules import ANY, DATA, rule
from tinyvae.engine.tensor import Tensor, apply

# The places of `status`, a float64 vector: 1 if the step is finite; the factor that clips the gradient; the
# gradient's norm before clipping; the number of updates made.
FINITE, CLIP, NORM, UPDATES = range(4)
LEARNING_RATE = 0  # the place of the learning rate in `rates`


def _guard(xp: Any, loss: Array, g: Array, status: Array, max_norm: float) -> None:
    """Is the step sound? Writes FINITE, NORM, and the CLIP factor that brings the norm down to `max_norm`."""
    norm = math.sqrt(read(xp.sum(xp.square(g, dtype=np.float64))))
    status[NORM] = norm
    status[FINITE] = 1.0 if math.isfinite(norm) and math.isfinite(read(loss)) else 0.0
    status[CLIP] = 1.0 if norm <= max_norm else max_norm / norm
    status[UPDATES] += status[FINITE]


rule("guard", _guard, domain=(ANY, ANY, DATA), writes=(2,), kernel="guard", flops=2)
# the gradient of a prior N(0, 1 / (N factor)) over the weights, added to that of the loss (AEVB section 5)
rule("weight_prior", lambda xp, g, theta, factor: xp.add(g, g.dtype.type(factor) * theta, out=g), domain=(ANY, ANY),
     writes=(0,), kernel="weight_prior", flops=2)

# ---- the methods -----------------------------------------------------------------------------------------------------


class Method(NamedTuple):
    """An optimizer's vectors, which begin at 0, and its numbers with their defaults."""

    moments: tuple[str, ...]
    hyper: dict[str, float]


OPTIMIZERS: dict[str, Method] = {}


def method(name: str, moments: tuple[str, ...], flops: int = 1, kernel: str | None = None,
           **hyper: float) -> Callable[[Callable], Callable]:
    """Make the function below an optimizer: `update(xp, theta, g, *moments, rate, t, **hyper)` changes the parameters
    theta and the moments in place. g is the clipped gradient, `rate` the learning rate, t the number of the update,
    from 1. `flops` counts its operations a parameter."""

    def register(update: Callable) -> Callable:
        if name in OPTIMIZERS:
            raise ValueError(f"the optimizer {name!r} exists already; choose another name")

        def value(xp: Any, theta: Array, g: Array, *rest: Array, **hyper: float) -> None:
            *vectors, rates, status = rest
            finite, clip, _, t = to_host(status)
            if finite == 1.0:
                update(xp, theta, g * float(clip), *vectors, rate=read(rates[LEARNING_RATE]), t=t, **hyper)

        count = len(moments)
        rule(name, value, domain=(*(ANY,) * (3 + count), DATA), writes=(0, *range(2, 2 + count)), kernel=kernel,
             flops=flops)
        OPTIMIZERS[name] = Method(moments, hyper)
        return update

    return register


@method("adam", ("m", "v"), flops=14, kernel="adam", beta1=0.9, beta2=0.999, epsilon=1e-8)
def _adam(xp: Any, theta: Array, g: Array, m: Array, v: Array, rate: float, t: float, beta1: float, beta2: float,
          epsilon: float) -> None:
    """theta <- theta - rate m' / (sqrt(v') + epsilon), with running means m of g and v of g^2. They begin at 0, and
    m' = m / (1 - beta1^t), v' = v / (1 - beta2^t) undo that bias (Kingma & Ba 2015, algorithm 1)."""
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g**2
    theta -= rate / (1 - beta1**t) * m / (xp.sqrt(v * (1 / (1 - beta2**t))) + epsilon)


@method("adagrad", ("total",), flops=8, kernel="adagrad", epsilon=0.0)
def _adagrad(xp: Any, theta: Array, g: Array, total: Array, rate: float, t: float, epsilon: float) -> None:
    """theta <- theta - rate g / (sqrt(total) + epsilon), total the sum of g^2 so far (Duchi, Hazan & Singer 2011)."""
    total += g**2
    root = xp.sqrt(total) + epsilon
    theta -= rate * g / xp.where(root == 0, xp.ones_like(root), root)  # where every g was 0, so is this one


@method("sgd", ("velocity",), flops=5, kernel="sgd", momentum=0.9)
def _sgd(xp: Any, theta: Array, g: Array, velocity: Array, rate: float, t: float, momentum: float) -> None:
    """velocity <- momentum velocity + g; theta <- theta - rate velocity (Polyak 1964)."""
    velocity[...] = momentum * velocity + g
    theta -= rate * velocity


@method("advi", ("average",), flops=9, power=0.5, memory=0.9)
def _advi(xp: Any, theta: Array, g: Array, average: Array, rate: float, t: float, power: float, memory: float) -> None:
    """theta <- theta - rate t^-power g / (1 + sqrt(average)), average <- (1 - memory) g^2 + memory average: the step
    sizes of ADVI (Kucukelbir et al. 2017) and of G-REP's experiments."""
    average[...] = (1 - memory) * g**2 + memory * average
    theta -= rate * t**-power * g / (1 + xp.sqrt(average))


class Optimizer:
    """A method of `OPTIMIZERS` over a flat parameter vector; its moments are flat vectors too."""

    def __init__(self, name: str, theta: Array, **hyper: float) -> None:
        moments, defaults = chosen("optimizer", name, OPTIMIZERS)
        unknown = set(hyper) - set(defaults)
        if unknown:
            raise ValueError(f"{name} has no {', '.join(sorted(unknown))}; it has {', '.join(defaults)}")
        self.name, self.theta, self.hyper = name, theta, {**defaults, **hyper}
        xp = namespace_of(theta)
        self.moments = {moment: xp.zeros_like(theta) for moment in moments}
        self.status = xp.zeros(4)

    def step(self, loss: Tensor, gradient: Array, rates: Tensor, max_norm: float = math.inf,
             weight_prior: float = 0.0) -> None:
        """Guard and update, as launches. `gradient` is flat; `weight_prior` is the prior's precision over N."""
        g, theta, status = Tensor(gradient), Tensor(self.theta), Tensor(self.status)
        if weight_prior:
            apply("weight_prior", g, theta, factor=weight_prior)
        apply("guard", loss, g, status, max_norm=max_norm)
        moments = map(Tensor, self.moments.values())
        apply(self.name, theta, g, *moments, rates, status, **self.hyper)
