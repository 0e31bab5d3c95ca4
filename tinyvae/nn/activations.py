"""Activations, each by its name, and activation(pre + bias) of a layer as one launch forward and one back.

An activation is a row of the table below. Adding one needs nothing else:

    activation("square", lambda a: a * a)

The twin of a layer runs `value`, and the tape differentiates it. Kernels have some activations (`activates`, beside the
kernel, says which); of these the row also gives `slope`, which is what the kernel's gradient computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tinyvae.engine.rules import ANY, of_shapes, rule
from tinyvae.engine.tensor import Tensor


class Activation(NamedTuple):
    """An elementwise function y = f(a), and its slope dy/da as a function of y; truth values stand for 1 and 0."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor] | None


ACTIVATIONS: dict[str, Activation] = {}


def activation(name: str, value: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor] | None = None) -> None:
    """Add an activation; ValueError if the name is taken. `slope` is asked for only where kernels know the name."""
    if name in ACTIVATIONS:
        raise ValueError(f"the activation {name!r} exists already; choose another name")
    ACTIVATIONS[name] = Activation(value, slope)


activation("identity", lambda a: a)  # its gradient is that of a sum, without a slope
activation("tanh", lambda a: a.tanh(), lambda y: 1 - y * y)
activation("relu", lambda a: a.relu(), lambda y: y > 0)  # passes a gradient on or not, also one that is infinite
# y = log(1 + exp(a)) gives exp(a) = exp(y) - 1, so the slope sigmoid(a) = exp(a) / (1 + exp(a)) is 1 - exp(-y)
activation("softplus", lambda a: a.softplus(), lambda y: -((-y).expm1()))


def _bias_activation(pre: Tensor, bias: Tensor, kind: str) -> Tensor:
    return ACTIVATIONS[kind].value(pre + bias)


def _grads(g: Tensor, y: Tensor, pre: Tensor, bias: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if kind == "identity":
        return g, g.contiguous().apply("bias_grad")
    return g.contiguous().apply("bias_activation_grad", y, kind=kind)


def _bias_activation_grad(g: Tensor, y: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    slope = ACTIVATIONS[kind].slope
    assert slope is not None, f"the activation {kind!r} runs fused, so its row must give a slope"
    factor = slope(y)
    by_pre = factor.where(g, 0.0) if factor.dtype == bool else g * factor
    return by_pre, _bias_grad(by_pre)


def _bias_grad(g: Tensor) -> Tensor:
    return g.reshape(-1, g.shape[-1]).sum(0)


rule("bias_activation", twin=_bias_activation, grads=_grads, domain=(ANY, ANY), kernel="bias_activation",
     accepts=of_shapes(lambda pre, bias: bias == pre[-1:] > (0,)), asks="activates", flops=2)
rule("bias_activation_grad", twin=_bias_activation_grad, domain=(ANY, ANY), outputs=2, kernel="bias_activation_grad",
     accepts=of_shapes(lambda g, y: g == y and y[-1:] > (0,)), asks="activates", flops=4)
rule("bias_grad", twin=_bias_grad, kernel="bias_grad", accepts=of_shapes(lambda g: g[-1:] > (0,)))
