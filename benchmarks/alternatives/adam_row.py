"""The common part of the alternatives of Adam: a loop within the row that reads flag, clip factor, rates and count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyvae.nn.optimizers import CLIP, FINITE, LEARNING_RATE, UPDATES


def around(loop: Callable, number: Callable | None = None) -> Callable:
    """The row's value over `loop(theta, g, m, v, clip, rate, beta1, rest1, beta2, rest2, correct, epsilon)`.

    Its numbers are of the type `number`, by default that of the arrays.
    """

    def value(xp: Any, theta: Any, g: Any, m: Any, v: Any, rates: Any, status: Any, *, beta1: float, beta2: float,
              epsilon: float) -> None:
        if status[FINITE] != 1.0:
            return
        rate = float(rates[LEARNING_RATE]) / (1 - beta1 ** status[UPDATES])
        correct = 1 / (1 - beta2 ** status[UPDATES])
        numbers = (status[CLIP], rate, beta1, 1 - beta1, beta2, 1 - beta2, correct, epsilon)
        loop(theta, g, m, v, *map(number or theta.dtype.type, numbers))

    return value
