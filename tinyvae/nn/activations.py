"""activation(pre + bias) of a layer, as one launch forward and one back."""

from __future__ import annotations

from tinyvae.engine.rules import ANY, of_shapes, rule
from tinyvae.engine.tensor import Tensor

# The slope of each activation, by its value y.
SLOPES = {"tanh": lambda y: 1 - y * y, "relu": lambda y: (y > 0).cast(y.dtype), "softplus": lambda y: -((-y).expm1())}


def _activation(pre: Tensor, bias: Tensor, kind: str) -> Tensor:
    a = pre + bias
    return a if kind == "identity" else a.apply(kind)


def _activation_grads(g: Tensor, y: Tensor, pre: Tensor, bias: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if kind == "identity":
        return g, g.contiguous().apply("bias_grad")
    return g.contiguous().apply("bias_activation_grad", y, kind=kind)


def _activation_grad(g: Tensor, y: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    before = g * SLOPES[kind](y)
    return before, _bias_grad(before)


def _bias_grad(g: Tensor) -> Tensor:
    return g.reshape(-1, g.shape[-1]).sum(0)


rule("bias_activation", twin=_activation, grads=_activation_grads, domain=(ANY, ANY), kernel="bias_activation",
     accepts=of_shapes(lambda pre, bias: bias == pre[-1:] > (0,)), flops=2)
rule("bias_activation_grad", twin=_activation_grad, domain=(ANY, ANY), outputs=2, kernel="bias_activation_grad",
     accepts=of_shapes(lambda g, y: g == y and y[-1:] > (0,)), flops=4)
rule("bias_grad", twin=_bias_grad, kernel="bias_grad", accepts=of_shapes(lambda g: g[-1:] > (0,)))
