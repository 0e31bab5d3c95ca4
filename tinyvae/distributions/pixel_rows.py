"""Likelihoods of pixels as fused rows: log p(x) of each row, from a network's raw output.

The kernels give log p(x) and, from the same pass, its derivative by the raw output; the gradient then only scales rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyvae.engine.rules import ANY, UNIT, of_shapes, rule
from tinyvae.engine.tensor import Tensor


def pixel_log_prob(name: str, log_prob: Callable[[Tensor, Tensor], Tensor], per_pixel: int, flops: int) -> None:
    """A row and its kernel of that name. `log_prob(raw, x)`, the twin, is log p(x), (..., batch), from raw (..., batch,
    per_pixel * pixels) and x (batch, pixels), or (1, pixels) for all; `flops` counts operations a raw number."""

    def accepts(raw: tuple[int, ...], x: tuple[int, ...]) -> bool:
        return len(x) == 2 <= len(raw) and x[0] in (1, raw[-2]) and 0 not in x and raw[-1] == per_pixel * x[1]

    rule(name, twin=lambda raw, x: (log_prob(raw, x), None), grads=_grads, domain=(ANY, UNIT), outputs=2, kernel=name,
         accepts=of_shapes(accepts), constants=(1,), flops=flops)


def _grads(g: Any, y: Any, raw: Tensor, x: Tensor) -> tuple[Tensor, None]:
    return g[0].contiguous().apply("scale_rows", y[1]), None


rule("scale_rows", twin=lambda g, a: g.reshape(*g.shape, 1) * a, domain=(ANY, ANY), kernel="scale_rows",
     accepts=of_shapes(lambda g, a: g == a[:-1] and a[-1:] > (0,)))
