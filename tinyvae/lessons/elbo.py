"""The chapter "The ELBO" (docs/book/07_elbo.py) in one dimension: p(z) = N(mu, sigma^2), q(z) = Gamma(shape a, rate b).

There are no data, and p is normalised, so log p(x) of the usual identity is log 1, and

    ELBO(a, b) = E_q[log p(z)] - E_q[log q(z)] = -KL(q || p) <= 0.

(Not because p(z) <= 1: a density may exceed 1, and the expected log density may be above 0.) The bound 0 would be
reached by q = p, but a Gamma has mass on z > 0 only. Among all q with mass on z > 0 only, the best is p cut off there
and divided by its mass Phi(mu / sigma), and that one has

    -KL(q || p) = log P(z > 0) = log Phi(mu / sigma) < 0,

so no Gamma gets above log Phi(mu / sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinyvae.choices import known
from tinyvae.distributions import Gamma
from tinyvae.engine.program import Program
from tinyvae.engine.tensor import Tensor, grad

LOG_2PI = math.log(2 * math.pi)

# Gamma and its special cases: which of (shape a, rate b) are fixed, and at what
PRESETS: dict[str, tuple[float | None, float | None]] = {
    "gamma": (None, None), "exponential": (1.0, None), "chi-square": (None, 0.5)}
PATHS = {"shape-rate": [[0], [1]], "rate-shape": [[1], [0]], "both": [[0, 1]]}  # what moves, one after the other
LIMITS = {"mu": (-1e6, 1e6), "sigma": (1e-3, 1e3), "shape": (1e-3, 1e6), "rate": (1e-6, 1e6), "frames": (6, 500)}
NARROW = 300.0  # the largest |mu| / sigma: beyond it the optimum's shape, (mu / sigma)^2, leaves no digits to the ELBO

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]  # theta = (log a, log b) -> the ELBO and its gradient


def elbo(a: Tensor, b: Tensor, mu: float, sigma: float) -> Tensor:
    """-KL(Gamma(a, b) || N(mu, sigma^2)) in nats, elementwise ("The ELBO")."""
    q = Gamma(a.reshape(*a.shape, 1), b.reshape(*b.shape, 1))
    # E_q[log p(z)] = -1/2 log(2 pi sigma^2) - (Var_q[z] + (E_q[z] - mu)^2) / (2 sigma^2)
    expected_log_p = (-0.5 * (LOG_2PI + 2 * math.log(sigma))
                      - (q.variance + (q.mean - mu) ** 2).sum(-1) * (0.5 / sigma**2))
    return expected_log_p + q.entropy()


def bound(mu: float, sigma: float) -> float:
    """log Phi(mu / sigma) in nats: what the best q on z > 0 reaches, of any form."""
    from scipy.special import log_ndtr

    return float(log_ndtr(mu / sigma))


class Point(NamedTuple):
    """q's parameters and what they are worth, in nats."""

    shape: float
    rate: float
    elbo: float


class Stage(NamedTuple):
    """A part of the way that q goes: what moves, and the points."""

    name: str
    points: list[Point]


class Lesson(NamedTuple):
    """p, which Gamma q is, the way, and where it ends."""

    mu: float
    sigma: float
    preset: str
    stages: list[Stage]
    best: Point
    bound: float
    steps: int  # of the gradient ascent

    @property
    def points(self) -> list[Point]:
        return [point for stage in self.stages for point in stage.points]


def lesson(mu: float = 4.0, sigma: float = 1.0, shape: float | None = None, rate: float | None = None,
           preset: str = "gamma", path: str = "shape-rate", frames: int = 72) -> Lesson:
    """q moves along `path` from (shape, rate), each parameter a little too far, and then climbs to the optimum.

    With a preset of PRESETS only the free parameter moves. ValueError names a parameter, its value, and what it may be.
    """
    fixed = checked(preset, path, {"mu": mu, "sigma": sigma, "shape": shape, "rate": rate, "frames": frames})
    free = [i for i in (0, 1) if fixed[i] is None]
    here, objective = np.log([fixed[0] or shape or 2.0, fixed[1] or rate or 2.0]), target(mu, sigma)

    def point(theta: np.ndarray) -> Point:
        a, b = np.exp(theta)
        return Point(float(a), float(b), float(elbo(Tensor(a), Tensor(b), mu, sigma).data))

    moves = [moving for moving in PATHS[path] if set(moving) <= set(free)] or [free]
    rest, stages = max(2, frames // 3), []  # `rest` frames are for the ascent
    for number, moving in enumerate(moves):
        count = max(2, (frames - rest) * (number + 1) // len(moves) - (frames - rest) * number // len(moves))
        end = beyond(here, objective, moving)
        # evenly in the logarithms, slowly at both ends
        eased = (1 - np.cos(math.pi * np.linspace(0, 1, count))) / 2
        names = " and ".join(("shape a", "rate b")[i] for i in moving)
        stages.append(Stage(f"{names} move{'s' * (len(moving) == 1)}",
                            [point(here + part * (end - here)) for part in eased]))
        here = end
    way = climb(here, objective, free, rate=0.15)  # slowly enough to watch
    stages.append(Stage("gradient ascent", [point(theta) for theta in [*way[1:rest], way[-1]]]))
    return Lesson(mu, sigma, preset, stages, point(way[-1]), bound(mu, sigma), len(way) - 1)


def checked(preset: str, path: str, given: dict[str, float | None]) -> tuple[float | None, float | None]:
    """What the preset fixes, if the other choices go with it."""
    for option, choice, choices in (("preset", preset, PRESETS), ("path", path, PATHS)):
        known(f"--{option}", choice, choices)
    for name, (low, high) in LIMITS.items():
        value = given[name]
        if value is not None and not low <= value <= high:  # so that NaN fails
            raise ValueError(f"found --{name} {value:g}; expected a number from {low:g} to {high:g}")
    mu, sigma = given["mu"] or 0.0, given["sigma"] or 0.0
    if not abs(mu) <= NARROW * sigma:
        raise ValueError(f"found --mu {mu:g} with --sigma {sigma:g}; expected --mu within {NARROW:g} sigma of 0")
    for name, fixed in zip(("shape", "rate"), PRESETS[preset], strict=True):
        if given[name] is not None and fixed is not None:
            raise ValueError(f"found --{name} {given[name]:g} with --preset {preset}, whose {name} is {fixed:g}; leave "
                             "one out")
    return PRESETS[preset]


# ---- gradient ascent -------------------------------------------------------------------------------------------------


def target(mu: float, sigma: float) -> Objective:
    """The ELBO as a function of theta = (log a, log b), which may be any numbers, with its gradient from the tape."""

    leaf = Tensor(np.zeros(2), requires_grad=True)

    def with_gradient() -> tuple[Tensor, Tensor]:
        value = elbo(leaf[0].exp(), leaf[1].exp(), mu, sigma)
        return value, grad(value, leaf)

    program = Program(with_gradient)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        leaf.data[...] = theta
        with np.errstate(all="ignore"):  # a step may try what overflows; it is then not taken
            value, gradient = program()
        return float(value.data), gradient.data.copy()

    return objective


def fisher(theta: np.ndarray) -> np.ndarray:
    """The Fisher information of a Gamma in (log a, log b): what a step of theta means to q, in nats.

    E_q[-d^2 log q / d(a, b)^2] = [[psi1(a), -1/b], [-1/b, a/b^2]], times (a, b) on both sides.
    """
    a = float(np.exp(theta[0]))
    trigamma = float(Tensor(np.array(a)).polygamma(1).data)
    return np.array([[a * a * trigamma, -a], [-a, a]])


def climb(start: np.ndarray, objective: Objective, free: list[int], rate: float = 0.5,
          most: int = 500) -> list[np.ndarray]:
    """Gradient ascent from `start` over the parameters `free`: all points of the way, the last one the optimum.

    theta <- theta + rate * F^-1 gradient: the natural gradient, which asks how far q moves and not its parameters
    (a plain step zigzags, for the mean a/b is felt far more than the shape). A step that gains less than a tenth of
    what the gradient promises is halved; where the gain is lost in rounding, the promise itself must shrink.
    """

    def look(theta: np.ndarray) -> tuple[float, np.ndarray, float]:
        """The ELBO, the step from there, and the nats that it promises."""
        value, gradient = objective(theta)
        step = np.zeros(2)
        step[free] = rate * np.linalg.solve(fisher(theta)[np.ix_(free, free)], gradient[free])
        step /= max(1.0, float(np.abs(step).max()))  # no factor above e at once
        return value, step, float(gradient @ step)

    way, theta, part = [start], start, 1.0
    value, step, promise = look(theta)
    for _ in range(most):
        rounding = 1e-15 * (abs(value) + float(np.exp(theta[0]) * (1 + abs(theta[0]))))
        longest = min(1.0, 4 * part)
        for part in longest * 0.5 ** np.arange(30):
            trial = look(theta + part * step)
            gain = trial[0] - value
            if gain >= max(0.1 * part * promise, rounding) or (abs(gain) <= rounding and trial[2] <= 0.9 * promise):
                break
        else:
            break
        theta = theta + part * step
        value, step, promise = trial
        way.append(theta)
        if promise <= 1e-26:
            break
    return way


def beyond(start: np.ndarray, objective: Objective, free: list[int], further: float = 0.35) -> np.ndarray:
    """The best place that `free` can reach from `start`, and on by the factor e^`further` each."""
    best = climb(start, objective, free)[-1]
    end = best.copy()
    end[free] += further * np.where(best >= start, 1.0, -1.0)[free]
    return end
