"""Layers: linear maps with an activation, chained. All parameters are views of one flat vector."""

from __future__ import annotations

import copy
import math
import operator
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from tinyvae.choices import chosen, known
from tinyvae.engine import noise
from tinyvae.engine.devices import CPU, Namespace, floating, to_host
from tinyvae.engine.fusion import lay_out
from tinyvae.engine.program import write_into
from tinyvae.engine.tensor import Tensor, apply
from tinyvae.nn.activations import ACTIVATIONS
from tinyvae.nn.sparse import sparse_matmul

INITIALS = ("glorot", "aevb")
IN_TRAINING = ("its parameters change from step to step: wait until fit has returned, or give each thread a model of "
               "its own, copy.deepcopy(model), made before or in on_epoch")
ALIGN = 16  # every parameter begins on a multiple of 16 numbers: a cache line of float32


class Parameter(Tensor):
    """A tensor that is a view of the flat vector of `Parameters`. A copy of it belongs to a copy of those."""

    __slots__ = ("_owner",)

    def __init__(self, data: Any, name: str, owner: Parameters) -> None:
        super().__init__(data, requires_grad=True, name=name)
        self._owner = weakref.ref(owner)  # (a reference would close a circle, and memory would wait for the collector)

    def __reduce__(self) -> Any:
        owner = self._owner()
        if owner is None:
            return Tensor, (self.data, True, None, 0, self.name)
        return operator.getitem, (owner, self.name)


class Parameters:
    """Named parameters as views of the vector `flat`, and their gradients as views of the vector `gradient`.

    An optimizer, a norm and a checkpoint then deal with one array. Every parameter begins at a multiple of `ALIGN`; the
    numbers between two parameters are zero and stay zero. One thread at a time may train parameters (`trained`), and no
    other may read them meanwhile (`used`).
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], dtype: Any = np.float32, xp: Namespace = CPU) -> None:
        self._lock, self._trainer = threading.Lock(), 0  # the thread that trains now; 0 stands for none
        self._trainings: Counter[int] = Counter()  # how many trainings each thread has begun
        self._shapes, self._spans, end = shapes, {}, 0
        dtype = floating(dtype)
        for name, shape in shapes.items():
            self._spans[name] = (end, end + math.prod(shape))
            end = -(-self._spans[name][1] // ALIGN) * ALIGN
        self.xp, self.flat, self.gradient = xp, xp.zeros(end, dtype), xp.zeros(end, dtype)
        matrices = [(a, 1, b - a) if len(shapes[name]) < 2 else (a, math.prod(shapes[name][:-1]), shapes[name][-1])
                    for name, (a, b) in self._spans.items()]
        lay_out(self.flat, matrices)
        lay_out(self.gradient, matrices)
        self._slots = {name: self.gradient[a:b].reshape(shapes[name]) for name, (a, b) in self._spans.items()}
        self.tensors: dict[str, Tensor] = {name: Parameter(self.flat[a:b].reshape(shapes[name]), name, self)
                                           for name, (a, b) in self._spans.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors.values())

    def __len__(self) -> int:
        return len(self.tensors)

    def __reduce__(self) -> Any:
        with self.used():  # `pickle` and `copy.deepcopy` build the views anew and copy both vectors
            return Parameters, (self._shapes, self.flat.dtype, self.xp), (self.flat.copy(), self.gradient.copy())

    def __setstate__(self, vectors: tuple[Any, Any]) -> None:
        self.flat[...], self.gradient[...] = vectors

    @contextmanager
    def trained(self) -> Iterator[None]:
        """Within this block only this thread may train or read the parameters; RuntimeError if another trains them."""
        me = threading.get_ident()
        with self._lock:
            before = self._trainer
            if before not in (0, me):
                raise RuntimeError(f"found a second training of the same model; {IN_TRAINING}")
            self._trainer = me
            self._trainings[me] += 1
        try:
            yield
        finally:
            self._trainer = before

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within this block this thread reads the parameters; RuntimeError if another thread trains them meanwhile."""
        me = threading.get_ident()
        if self._trainer in (0, me):
            before = self._trainings.total() - self._trainings[me]
            yield
            if before == self._trainings.total() - self._trainings[me]:
                return
        raise RuntimeError(f"found a model in use that another thread trains meanwhile; {IN_TRAINING}")

    @property
    def count(self) -> int:
        """How many numbers are learned."""
        return sum(tensor.size for tensor in self)

    def arrays(self) -> dict[str, np.ndarray]:
        """The parameters by name, on the host (on the CPU as views): what a checkpoint stores."""
        return {name: to_host(tensor.data) for name, tensor in self.tensors.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Copy stored values into the parameters."""
        for name, tensor in self.tensors.items():
            tensor.data[...] = self.xp.asarray(arrays[name])

    def among(self, networks: Sequence[str] = ()) -> tuple[list[str], slice]:
        """The names of the parameters of some networks, or of all, and where they lie in the flat vector.

        Raises ValueError for a network that does not exist, and where parameters of others lie between them.
        """
        names = [name for name in self.tensors if not networks or name.split(".")[0] in networks]
        if missing := set(networks) - {name.split(".")[0] for name in names}:
            raise ValueError(f"there is no network {', '.join(sorted(missing))}; there are "
                             f"{', '.join(dict.fromkeys(name.split('.')[0] for name in self.tensors))}")
        start, end = self._spans[names[0]][0], self._spans[names[-1]][1]
        if any(start <= first < end and name not in names for name, (first, _) in self._spans.items()):
            raise ValueError(f"the parameters of {', '.join(networks)} do not lie side by side: build these networks "
                             "one after the other")
        return names, slice(start, len(self.flat) if names[-1] == list(self.tensors)[-1] else end)

    def collect(self, gradients: Sequence[Tensor], names: Sequence[str] | None = None) -> None:
        """Let `gradient` hold these gradients, given in the order of the names, by default all parameters'."""
        for name, g in zip(self.tensors if names is None else names, gradients, strict=True):
            write_into(g, self._slots[name])

    def initialise(self, kind: str, seed: int) -> None:
        """`glorot`: weights uniform within sqrt(6 / (in + out)), biases 0 (Glorot & Bengio 2010), where `in`
        counts all inputs of a layer, also if each of them has a weight matrix of its own.
        `aevb`: everything normal with standard deviation 0.01 (AEVB section 5)."""
        known("init", kind, INITIALS)
        inputs: Counter[str] = Counter()  # of each layer, "decoder.0"
        for tensor in self:
            inputs[layer_of(tensor)] += tensor.shape[0] if tensor.ndim == 2 else 0
        for site, tensor in enumerate(self):  # drawn on the host, so that every device starts from the same bits
            if kind == "aevb":
                drawn = 0.01 * noise.normal(seed, "init", 0, site, tensor.shape, tensor.dtype)
            elif tensor.ndim == 2:
                bound = math.sqrt(6 / (inputs[layer_of(tensor)] + tensor.shape[1]))
                drawn = bound * (2 * noise.uniform(seed, "init", 0, site, tensor.shape, tensor.dtype) - 1)
            else:
                continue
            tensor.data[...] = self.xp.asarray(drawn)


def layer_of(parameter: Tensor) -> str:
    """The layer that a parameter belongs to: "decoder.0" of decoder.0.bias and of decoder.0.weight.1."""
    return parameter.name.split(".weight")[0].removesuffix(".bias")


class Linear:
    """activation(x @ weight + bias): x (..., in), weight (in, out), bias (out,).

    With several inputs, each has a weight matrix; the products are added, and their leading axes broadcast.
    """

    def __init__(self, weight: Tensor, bias: Tensor, activation: str = "identity", *others: Tensor) -> None:
        chosen("activation", activation, ACTIVATIONS)
        self.weight, self.bias, self.activation, self.weights = weight, bias, activation, (weight, *others)

    def map(self, f: Callable[[Tensor], Tensor]) -> Linear:
        """The same layer with f applied to each weight and to the bias."""
        return Linear(f(self.weight), f(self.bias), self.activation, *map(f, self.weights[1:]))

    def __call__(self, *inputs: Tensor) -> Tensor:
        first, *rest = (self._product(x, weight) for x, weight in zip(inputs, self.weights, strict=True))
        return apply("bias_activation", sum(rest, first), self.bias, kind=self.activation)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # one product, however many samples: (samples * batch, in)
        # an input without a gradient is data, such as pixels, which are mostly zeros
        product = rows @ weight if rows.requires_grad else sparse_matmul(rows, weight)
        return product.reshape(*x.shape[:-1], self.bias.shape[0])


class MLP:
    """Linear layers of the given sizes; the last one has no activation."""

    def __init__(self, parameters: Parameters, prefix: str, layers: int, activation: str, inputs: int = 1) -> None:
        kinds = [activation] * (layers - 1) + ["identity"]
        others = [parameters[f"{prefix}.0.weight.{number}"] for number in range(1, inputs)]
        self.layers = [Linear(parameters[f"{prefix}.{i}.weight"], parameters[f"{prefix}.{i}.bias"], kind,
                              *(others if i == 0 else ()))
                       for i, kind in enumerate(kinds)]

    @staticmethod
    def shapes(prefix: str, sizes: Sequence[int], parts: Sequence[int] = ()) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters of layers with these widths; `parts` are the widths of the inputs, if
        each has a weight matrix of its own."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            for number, width in enumerate(parts if i == 0 and parts else (inputs,)):
                shapes[f"{prefix}.{i}.weight{f'.{number}' if number else ''}"] = (width, outputs)
            shapes[f"{prefix}.{i}.bias"] = (outputs,)
        return shapes

    def map(self, f: Callable[[Tensor], Tensor]) -> MLP:
        """The same layers with f applied to each parameter."""
        made = copy.copy(self)
        made.layers = [layer.map(f) for layer in self.layers]
        return made

    def __call__(self, *inputs: Tensor) -> Tensor:
        first, *rest = self.layers
        x = first(*inputs)
        for layer in rest:
            x = layer(x)
        return x
