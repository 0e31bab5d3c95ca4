"""Checks of gradients against finite differences, for the rules here and for code of your own.

    tv.testing.check_gradients(lambda a, b: (a * b).tanh().sum(), x, y)

The check runs in float64 whatever the arrays' type: at float32 the differences would be lost in rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.choices import array_of
from tinyvae.engine.fusion import fused
from tinyvae.engine.program import Tape
from tinyvae.engine.tape import TapeError
from tinyvae.engine.tensor import Tensor, grad

STEP = 1e-5  # of max(1, |x|): truncation (step^2) and rounding (eps / step) are then both near 1e-10
TOLERANCE = 1e-6  # of the larger of 1 and the gradient's size
SMALL = 64  # arrays up to this size are checked element by element, larger ones along random directions
DIRECTIONS = 4


class GradientError(AssertionError):
    """A gradient disagrees with the finite difference; the message names input, element and both numbers."""


@np.errstate(all="ignore")  # what is not finite is a disagreement, said in a sentence
def check_gradients(f: Callable[..., Tensor], *arrays: Any, tolerance: float = TOLERANCE, step: float = STEP,
                    seed: int = 0, order: int = 1) -> float:
    """Hold the gradient of `f(*tensors)` against central differences; returns the largest error found.

    `f` gives a tensor of any shape, of which a random projection is differentiated. Arrays of up to 64 elements
    are checked element by element, larger ones along random directions. `order=2` checks the gradient's own
    gradient too (with the readable twins in place of fused rows, which have no second derivative).

    The value is also computed into memory that holds NaN, as a replay does: a row must fill its `out`.

    Errors are relative to max(1, |gradient|), so a gradient below `tolerance` in size cannot be told from zero: scale
    the function up to check one. A disagreement raises GradientError with the error at several step
    sizes: an error that shrinks with the step is truncation, one that grows is rounding, one that stays is a wrong
    gradient or a kink.
    """
    if order not in (1, 2):
        raise ValueError(f"found order={order}; expected 1 (the gradient) or 2 (the gradient's gradient too)")
    if not callable(f):
        raise TypeError(f"found {f!r:.60} to check; expected a function of tensors that gives a tensor")
    values = [array_of("an input of the function to check", array, np.float64).copy() for array in arrays]
    _check_replay(f, values)
    rng = np.random.default_rng(seed)
    weights: list[np.ndarray] = []

    def projected(points: list[np.ndarray]) -> tuple[Tensor, list[Tensor]]:
        leaves = [Tensor(point.copy(), requires_grad=True) for point in points]
        out = f(*leaves)
        if not weights:
            weights.append(rng.uniform(0.5, 1.5, out.shape) * rng.choice([-1.0, 1.0], out.shape))
        return (out * weights[0]).sum(), leaves

    def value(points: list[np.ndarray]) -> float:
        return float(projected(points)[0].data)

    out, leaves = projected(values)
    gradients = [g.data for g in grad(out, leaves)]
    worst = _compare(value, values, gradients, rng, tolerance, step, "gradient")
    if order == 2:
        directions = [rng.standard_normal(v.shape) for v in values]

        def slope(points: list[np.ndarray]) -> tuple[Tensor, list[Tensor]]:
            out, leaves = projected(points)
            first = grad(out, leaves)
            total = first[0].sum() * 0.0
            for g, d in zip(first, directions, strict=True):
                total = total + (g * d).sum()
            return total, leaves

        with fused(False):
            out, leaves = slope(values)
            second = [g.data for g in grad(out, leaves)]
            worst = max(worst, _compare(lambda points: float(slope(points)[0].data), values, second, rng,
                                        10 * tolerance, step, "second derivative"))
    return worst


@np.errstate(all="ignore")  # what is not finite is found by the comparison, not by NumPy's warnings
def _check_replay(f: Callable[..., Tensor], values: list[np.ndarray]) -> None:
    """Record `f`, spoil every result, and run the record: all rows must write their values again."""
    try:
        with Tape() as tape:
            out = f(*(Tensor(value.copy(), requires_grad=True) for value in values))
    except TapeError:  # f looks at a value on its way (a branch, a float): it cannot be replayed, only differentiated
        return
    if not isinstance(out, Tensor):
        raise TypeError(f"found {out!r:.60} of type {type(out).__name__} from the function to check; expected a tensor")
    expected = out.data.copy()
    for launch in tape.working():
        for array in launch.outputs:
            if array.dtype.kind == "f":
                array[...] = np.nan
    tape.replay()
    same = np.isclose(out.data, expected, rtol=1e-12, atol=0, equal_nan=True)
    if not same.all():
        where = np.unravel_index(int(np.argmin(same)), same.shape)
        raise GradientError(f"run again into its own results, the function gives {out.data[where]!r} where it gave "
                            f"{expected[where]!r}, at {tuple(map(int, where))}: does every row write into its `out`?")


def _compare(value: Callable[[list[np.ndarray]], float], points: list[np.ndarray], gradients: list[np.ndarray],
             rng: np.random.Generator, tolerance: float, step: float, what: str) -> float:
    worst = 0.0
    for i, (x, g) in enumerate(zip(points, gradients, strict=True)):
        if g.shape != x.shape:
            raise GradientError(f"the {what} by input {i} has shape {g.shape}; the input has {x.shape}")
        for where, direction in _directions(x, rng):
            moving = direction != 0
            found = float((g[moving] * direction[moving]).sum())
            scale = max(1.0, abs(found))
            error = abs(found - _difference(value, points, i, direction, step)) / scale
            if not error <= tolerance:  # written so that NaN fails
                table = ", ".join(f"{s:.0e}: {abs(found - _difference(value, points, i, direction, s)) / scale:.1e}"
                                  for s in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7))
                expected = _difference(value, points, i, direction, step)
                raise GradientError(f"the {what} by input {i} at {where} is {found!r}; the central difference is "
                                    f"{expected!r} (relative error {error:.1e}, allowed {tolerance:.0e}); the error by "
                                    f"step size: {table}{_kink(value, points, i, direction, step)}")
            worst = max(worst, error)
    return worst


def _directions(x: np.ndarray, rng: np.random.Generator) -> Any:
    """What to move along: each element of a small array, random directions of a large one."""
    if x.size <= SMALL:
        for where in np.ndindex(x.shape):
            direction = np.zeros_like(x)
            direction[where] = 1.0
            yield f"element {where}", direction
        return
    for number in range(DIRECTIONS):
        direction = rng.standard_normal(x.shape)
        yield f"random direction {number}", direction / np.linalg.norm(direction)


def _difference(value: Callable[[list[np.ndarray]], float], points: list[np.ndarray], i: int, direction: np.ndarray,
                step: float) -> float:
    """(f(x + h d) - f(x - h d)) / 2h, with h scaled to the size of what moves."""
    h = step * max(1.0, float(np.abs(points[i][direction != 0]).max(initial=0.0)))
    up, down = list(points), list(points)
    up[i], down[i] = points[i] + h * direction, points[i] - h * direction
    return (value(up) - value(down)) / (2 * h)


def _kink(value: Callable[[list[np.ndarray]], float], points: list[np.ndarray], i: int, direction: np.ndarray,
          step: float) -> str:
    """Do the slopes from the left and from the right disagree however small the step?"""
    def gap(h: float) -> float:
        up, down = list(points), list(points)
        up[i], down[i] = points[i] + h * direction, points[i] - h * direction
        here = value(points)
        return abs((value(up) - here) / h - (here - value(down)) / h)

    coarse, fine = gap(100 * step), gap(10 * step)
    return "; the function has a kink here: its slopes from both sides differ" if fine > 0.5 * coarse > 1e-4 else ""
