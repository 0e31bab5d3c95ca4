"""A network that gives a distribution: q(z|x), p(x|z), q(y|x), p(z|y) are each one of these."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from tinyvae.engine.tensor import Tensor
from tinyvae.nn.layers import MLP, Linear, Parameters


@runtime_checkable
class Weighted(Protocol):
    """A family whose distributions share weights, which belong to the network that gives them: a flow's maps."""

    def shapes(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Names, which begin with `prefix`, and shapes of the weights."""

    def attach(self, parameters: Parameters, prefix: str) -> None:
        """Take the weights from there."""


class Network:
    """A multilayer perceptron whose last layer holds the free parameters of a distribution.

    Parameters
    ----------
    name
        Begins the names of its parameters: `encoder.0.weight`.
    inputs
        How many numbers it reads: the widths of all its inputs together. Several widths give the first layer a weight
        matrix for each input: W (x, y) = W_x x + W_y y is computed as that sum, so what is broadcast (an x that meets
        every class y) is multiplied once.
    hidden
        Widths of the hidden layers.
    family
        The distribution's class; `family.width(size)` numbers are made for it, and `family.from_raw` reads them. It
        may have weights of its own (`Weighted`).
    size
        Dimensions of the distribution.
    activation
        Of the hidden layers; the last layer has none.
    """

    def __init__(self, name: str, inputs: int | Sequence[int], hidden: Sequence[int], family: Any, size: int,
                 activation: str = "relu") -> None:
        self.name, self.family, self.activation = name, family, activation
        self.inputs = (inputs,) if isinstance(inputs, int) else tuple(inputs)
        self.widths = (sum(self.inputs), *hidden, family.width(size))
        self.mlp: MLP | None = None
        self.parameters: Parameters | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its parameters."""
        of_family = self.family.shapes(self.name) if isinstance(self.family, Weighted) else {}
        return MLP.shapes(self.name, self.widths, self.inputs) | of_family

    def attach(self, parameters: Parameters) -> None:
        """Take its weights from there."""
        self.parameters = parameters
        self.mlp = MLP(parameters, self.name, len(self.widths) - 1, self.activation, len(self.inputs))
        if isinstance(self.family, Weighted):
            self.family.attach(parameters, self.name)

    def named(self) -> dict[str, Tensor]:
        """Its parameters by name."""
        parameters = self._attached()[1]
        return {name: parameters[name] for name in self.shapes()}

    @property
    def layers(self) -> list[Linear]:
        """Its linear layers, the first one first."""
        return self._attached()[0].layers

    def raw(self, *inputs: Tensor) -> Tensor:
        """The numbers that the last layer gives, (..., family.width(size))."""
        mlp, parameters = self._attached()
        read = [x if isinstance(x, Tensor) else Tensor(x) for x in inputs]
        if len(self.inputs) > 1 and len(read) != len(self.inputs):
            raise ValueError(f"found {len(read)} input{'s' * (len(read) != 1)} of the network {self.name}; expected "
                             f"{len(self.inputs)}")
        with parameters.used():
            return mlp(side_by_side(read)) if len(self.inputs) == 1 else mlp(*read)

    def map(self, f: Callable[[Tensor], Tensor]) -> Network:
        """The same network with f applied to each parameter: `network.map(Tensor.detach)` is a constant function."""
        made = copy.copy(self)
        made.mlp = self._attached()[0].map(f)
        return made

    def _attached(self) -> tuple[MLP, Parameters]:
        if self.mlp is None or self.parameters is None:
            raise RuntimeError(f"the network {self.name} has no parameters yet: they come when build() has returned")
        return self.mlp, self.parameters

    def __call__(self, *inputs: Tensor) -> Any:
        """The distribution given the inputs, each (..., width); leading axes broadcast."""
        return self.family.from_raw(self.raw(*inputs))


class Matrix:
    """Learned numbers (rows, columns) that belong to no layer, such as the pseudo-inputs of a prior."""

    def __init__(self, name: str, rows: int, columns: int) -> None:
        self.name, self.shape = name, (rows, columns)
        self.parameters: Parameters | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Its name among the parameters, and its shape."""
        return {f"{self.name}.weight": self.shape}

    def attach(self, parameters: Parameters) -> None:
        """Take its numbers from there."""
        self.parameters = parameters

    @property
    def value(self) -> Tensor:
        """The numbers, (rows, columns)."""
        if self.parameters is None:
            raise RuntimeError(f"{self.name} has no numbers yet: they come when build() has returned")
        with self.parameters.used():
            return self.parameters[f"{self.name}.weight"]


def side_by_side(inputs: Sequence[Tensor]) -> Tensor:
    """Tensors (..., width) joined along the last axis, after their leading axes were broadcast to one shape."""
    if len(inputs) == 1:
        return inputs[0]
    rank = max(x.ndim for x in inputs)
    shapes = [(1,) * (rank - x.ndim) + x.shape[:-1] for x in inputs]
    lead = tuple(max(sizes, key=lambda n: (n != 1, n)) for sizes in zip(*shapes, strict=True))
    alike = [x if x.shape[:-1] == lead else x.broadcast_to((*lead, x.shape[-1])) for x in inputs]
    return alike[0].concatenate(*alike[1:], axis=-1)


def layer_outputs(parameters: Parameters) -> int:
    """The numbers that all layers together give for one row: the sizes of their biases."""
    return sum(math.prod(tensor.shape) for tensor in parameters if tensor.ndim == 1)
