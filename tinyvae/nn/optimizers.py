"""Optimizers: one step of all parameters at once, as launches over flat vectors.

The order of a step: all gradients; `guard` looks at their norm and at the loss and writes a flag; the update obeys
it. A step whose loss or gradient is not finite changes no parameter, no moment and no step count. What varies from
step to step is read from two arrays: `rates` (learning rate, KL weight) and `status` (see the names below).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from tinyvae.engine.devices import namespace_of, read, to_host
from tinyvae.engine.rules import ANY, DATA, rule
from tinyvae.engine.tensor import Tensor, apply

Array = Any
# The places of `status`, a float64 vector: 1 if the step is finite; the factor that clips the gradient; the
# gradient's norm before clipping; the number of updates made.
FINITE, CLIP, NORM, UPDATES = range(4)
LEARNING_RATE, KL_WEIGHT = range(2)  # the places of `rates`


def _guard(xp: Any, loss: Array, g: Array, status: Array, max_norm: float) -> None:
    """Is the step sound? Writes FINITE, NORM, and the CLIP factor that brings the norm down to `max_norm`."""
    norm = math.sqrt(read(xp.sum(xp.square(g, dtype=np.float64))))
    status[NORM] = norm
    status[FINITE] = 1.0 if math.isfinite(norm) and math.isfinite(read(loss)) else 0.0
    status[CLIP] = 1.0 if norm <= max_norm else max_norm / norm
    status[UPDATES] += status[FINITE]


def _update(xp: Any, method: Callable, theta: Array, g: Array, *rest: Array, **hyper: float) -> None:
    """One step by `method`, if the guard found it sound. `rest` is the moments, then `rates` and `status`."""
    *moments, rates, status = rest
    status = to_host(status)
    if status[FINITE] != 1.0:
        return
    rate, clip = read(rates[LEARNING_RATE]), float(status[CLIP])
    if "beta1" in hyper:
        # Adam's moments start at 0; dividing by 1 - beta^t undoes the bias (Kingma & Ba 2015, algorithm 1)
        rate /= 1 - hyper["beta1"] ** status[UPDATES]
        hyper["correct"] = 1 / (1 - hyper["beta2"] ** status[UPDATES])
    if "power" in hyper:
        rate *= status[UPDATES] ** -hyper.pop("power")
    method(xp, theta, g, *moments, clip=clip, rate=rate, **hyper)


# ---- the readable steps ----------------------------------------------------------------------------------------------


def _adam(xp: Any, theta: Array, g: Array, m: Array, v: Array, clip: float, rate: float, beta1: float, beta2: float,
          correct: float, epsilon: float) -> None:
    d = g * clip
    m[...] = beta1 * m + (1 - beta1) * d
    v[...] = beta2 * v + (1 - beta2) * d**2
    theta -= rate * m / (xp.sqrt(v * correct) + epsilon)


def _adagrad(xp: Any, theta: Array, g: Array, total: Array, clip: float, rate: float, epsilon: float) -> None:
    d = g * clip
    total += d**2
    root = xp.sqrt(total) + epsilon
    theta -= rate * d / xp.where(root == 0, xp.ones_like(root), root)


def _sgd(xp: Any, theta: Array, g: Array, velocity: Array, clip: float, rate: float, momentum: float) -> None:
    velocity[...] = momentum * velocity + g * clip
    theta -= rate * velocity


def _advi(xp: Any, theta: Array, g: Array, average: Array, clip: float, rate: float, memory: float) -> None:
    d = g * clip
    average[...] = (1 - memory) * d**2 + memory * average
    theta -= rate * d / (1 + xp.sqrt(average))


def _row(name: str, method: Callable, moments: int) -> None:
    vectors = 2 + moments
    rule(name, lambda xp, *arrays, **hyper: _update(xp, method, *arrays, **hyper),
         domain=(*(ANY,) * (vectors + 1), DATA), writes=(0, *range(2, vectors), vectors + 1))


rule("guard", _guard, domain=(ANY, ANY, DATA), writes=(2,))
# the gradient of a prior N(0, 1 / (N factor)) over the weights, added to that of the loss (AEVB section 5)
rule("weight_prior", lambda xp, g, theta, factor: xp.add(g, g.dtype.type(factor) * theta, out=g), domain=(ANY, ANY),
     writes=(0,))
_row("adam", _adam, 2)
_row("adagrad", _adagrad, 1)
_row("sgd", _sgd, 1)
_row("advi", _advi, 1)  # rho_t = eta t^(-1/2 + 1e-16) / (1 + sqrt(s_t)): Kucukelbir et al. 2017; G-REP's experiments


class Optimizer:
    """One of `adam`, `adagrad`, `sgd`, `advi` over a flat parameter vector; its moments are flat vectors too."""

    CHOICES: ClassVar[dict[str, tuple[tuple[str, ...], dict[str, float]]]] = {
        "adam": (("m", "v"), {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}),
        "adagrad": (("total",), {"epsilon": 0.0}),
        "sgd": (("velocity",), {"momentum": 0.9}),
        "advi": (("average",), {"power": 0.5, "memory": 0.9}),
    }

    def __init__(self, name: str, theta: Array, **hyper: float) -> None:
        if name not in self.CHOICES:
            raise ValueError(f"found optimizer {name!r}; expected one of {', '.join(self.CHOICES)}")
        moments, defaults = self.CHOICES[name]
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
